//! `remote.vault`: exports a secret of a Vault or `OpenBao` server and keeps it current. It is read when the component is
//! prepared, and a first failure refuses the configuration. Afterwards it is read again every `reread_frequency`, and
//! whatever was granted for a time is renewed, or replaced while it lasts. What cannot be read later leaves the last data
//! in place.

mod arguments;
mod connection;
mod keeping;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use invar_engine::{
    Component, ExportContext, InstanceContext, PrepareError, PrepareErrorKind, RunContext, RunError,
    StateContext,
};
use invar_secrets::vault::{Reading, VaultClient, VaultFailure, VaultFailureKind};
use invar_syntax::arguments::Exports;
use invar_syntax::schema::Stability;
use invar_syntax::secret::Secret;
use parking_lot::Mutex;

use self::arguments::VaultArguments;
use self::connection::Connection;

/// The component type.
#[derive(Debug)]
pub struct RemoteVault;

/// What other blocks see.
#[derive(Exports, Clone, Debug, PartialEq)]
pub struct VaultExports {
    /// The fields of the secret.
    pub data: BTreeMap<String, Secret>,
}

/// What outlives configurations.
#[derive(Default)]
pub struct Instance {
    /// What was read last, and of what.
    last: Mutex<Option<(Place, Reading)>>,
}

/// Which secret of which server, asked by whom.
#[derive(Clone, PartialEq)]
struct Place {
    connection: Connection,
    path: String,
    key: String,
}

/// The arguments, the client, and what the secret was when they were prepared.
pub struct State {
    arguments: Arc<VaultArguments>,
    place: Place,
    client: Arc<VaultClient>,
    reading: Reading,
    /// Whether the server could not be read, and this is what was read before.
    stale: bool,
}

impl Component for RemoteVault {
    const NAME: &'static str = "remote.vault";
    const STABILITY: Stability = Stability::GenerallyAvailable;
    const SUMMARY: &'static str = "Exports a secret of a Vault or OpenBao server and keeps it current.";

    type Arguments = VaultArguments;
    type Exports = VaultExports;
    type Instance = Instance;
    type State = State;

    fn instance(_arguments: &Self::Arguments, _context: &InstanceContext) -> Result<Instance, PrepareError> {
        Ok(Instance::default())
    }

    async fn state(
        arguments: Arc<Self::Arguments>,
        instance: Arc<Instance>,
        context: StateContext,
    ) -> Result<State, PrepareError> {
        let connection = Connection::new(&arguments, context.access()).map_err(PrepareError::not_allowed)?;
        let previous = context.previous::<Self>();
        // A session that is there goes on: what it logged in with may be good for once.
        let client = match &previous {
            Some(state) if state.place.connection == connection => Arc::clone(&state.client),
            _ => Arc::new(connection.client().map_err(PrepareError::invalid)?),
        };
        let place = Place { connection, path: arguments.path.clone(), key: arguments.key.clone() };
        let (reading, stale) = match keeping::read(&client, &place, &arguments.client_options).await {
            Ok(reading) => (reading, false),
            // A component that runs already goes on with what it has; its task tells what is wrong.
            Err(failure) => match instance.last_of(&place) {
                Some(reading) if previous.is_some() => (reading, true),
                _ => return Err(refusal(&failure)),
            },
        };
        Ok(State { arguments, place, client, reading, stale })
    }

    fn exports(_instance: &Instance, state: &State, _context: &ExportContext) -> VaultExports {
        VaultExports { data: state.reading.fields.clone() }
    }

    async fn run(instance: Arc<Instance>, context: RunContext<Self>) -> Result<(), RunError> {
        loop {
            let state = Arc::clone(context.enter().state());
            tokio::select! {
                () = context.stopped() => {
                    state.client.shutdown().await;
                    return Ok(());
                }
                () = context.changed() => {}
                never = keeping::keep(&instance, &state, &context) => match never {},
            }
        }
    }
}

impl Instance {
    fn last_of(&self, place: &Place) -> Option<Reading> {
        self.last.lock().as_ref().filter(|(last, _)| last == place).map(|(_, reading)| reading.clone())
    }
}

fn refusal(failure: &VaultFailure) -> PrepareError {
    let refused = match failure.kind {
        VaultFailureKind::Invalid => PrepareError::invalid(failure.to_string()),
        VaultFailureKind::Unavailable => PrepareError::new(PrepareErrorKind::Io, failure.to_string()),
        _ => PrepareError::secret(failure.to_string()),
    };
    refused.with_help(
        "the secret must be readable when the configuration is applied; afterwards it may come and go",
    )
}

impl fmt::Debug for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Instance").finish_non_exhaustive()
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State").field("path", &self.place.path).finish_non_exhaustive()
    }
}

//! `remotecfg`: the control plane that sends a configuration of its own. The block says where it is; what it sends is fetched
//! and judged like a module's content, so the block itself only has to be right. What became of it is told to the server
//! here, too.

use std::sync::Arc;

use invar_components_remote::ModuleLoader;
use invar_components_remote::remotecfg::{RemoteConfigArguments, RemoteConfigVerdict};
use invar_engine::{Component, ExportContext, InstanceContext, PrepareError, Stability, StateContext};
use invar_rollout::{Phase, Rollout, Status};

/// The block.
pub(crate) struct RemoteConfig;

impl Component for RemoteConfig {
    const NAME: &'static str = "remotecfg";
    const STABILITY: Stability = Stability::GenerallyAvailable;
    const SUMMARY: &'static str = "The control plane that sends a configuration beside the local one.";
    const SETTINGS: bool = true;

    type Arguments = RemoteConfigArguments;
    type Exports = ();
    type Instance = ();
    type State = ();

    fn instance(_: &RemoteConfigArguments, _: &InstanceContext) -> Result<(), PrepareError> {
        Ok(())
    }

    async fn state(_: Arc<RemoteConfigArguments>, _: Arc<()>, _: StateContext) -> Result<(), PrepareError> {
        Ok(())
    }

    fn exports((): &(), (): &(), _: &ExportContext) {}
}

/// Tells the server, until the rollout ends, what becomes of what it sends. Only what was committed is called applied.
pub(crate) async fn report_verdicts(rollout: Rollout, loader: Arc<ModuleLoader>) {
    let mut status = rollout.watch_status();
    loop {
        let current = Arc::clone(&status.borrow_and_update());
        if let Some(verdict) = verdict(&current) {
            loader.report_remote_config(verdict);
        }
        if status.changed().await.is_err() {
            return;
        }
    }
}

/// What became of the newest content of the server; none while it has sent nothing.
fn verdict(status: &Status) -> Option<RemoteConfigVerdict> {
    let source = status.sources.iter().find(|source| source.kind == RemoteConfig::NAME)?;
    source.revision.as_ref()?;
    let refused = source.error.as_ref().filter(|error| matches!(&*error.class, "rejected" | "quarantined"));
    if let Some(error) = refused {
        return Some(RemoteConfigVerdict::Failed { message: error.message.clone() });
    }
    let committed = match (&status.running, &status.last_known_good) {
        (Some(running), Some(good)) => running.digest == good.digest,
        _ => false,
    };
    match (status.in_sync && committed, status.phase) {
        (true, _) => Some(RemoteConfigVerdict::Applied),
        (false, Phase::Rejected | Phase::Held) => {
            let reason = status.reason.as_ref().map(|reason| reason.message.clone());
            Some(RemoteConfigVerdict::Failed { message: reason.unwrap_or_default() })
        }
        (false, _) => Some(RemoteConfigVerdict::Applying),
    }
}

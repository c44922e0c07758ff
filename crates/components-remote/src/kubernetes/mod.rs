//! `remote.kubernetes.secret` and `remote.kubernetes.configmap`: export the data of one object of a cluster and keep it
//! current. It is read when the component is prepared, and a first failure refuses the configuration; afterwards it is
//! polled, and read at once when a watch says that it changed. What cannot be read later leaves the last data in place.

mod arguments;
#[cfg(test)]
mod tests;
mod transport;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use invar_engine::{
    Component, ExportContext, Health, InstanceContext, PrepareError, PrepareErrorKind, RunContext, RunError,
    StateContext,
};
use invar_policy::{Access, Refusal};
use invar_secrets::kubernetes::{
    ApiError, ClusterSettings, ClusterTransport, ClusterUse, KubernetesApi, Object, ObjectKind, ObjectName,
    ObjectWatch, WatchNotice,
};
use invar_syntax::arguments::Exports;
use invar_syntax::schema::Stability;
use invar_syntax::secret::{OptionalSecret, Secret};
use parking_lot::Mutex;
use tokio::sync::Notify;

use self::arguments::{KubernetesArguments, KubernetesClientBlock};
use self::transport::HttpTransport;

/// Polling faster than this only burdens the API server.
const MIN_POLL: Duration = Duration::from_millis(500);
/// Changes may come in bursts; between two reads is at least this.
const MIN_GAP: Duration = Duration::from_millis(100);

/// What tells the two components apart.
pub trait RemoteObject: fmt::Debug + Send + Sync + 'static {
    /// The component's name.
    const NAME: &'static str;
    /// One line about it.
    const SUMMARY: &'static str;
    /// What it reads.
    const KIND: ObjectKind;
}

/// Secrets.
#[derive(Debug)]
pub struct OfSecret;

impl RemoteObject for OfSecret {
    const NAME: &'static str = "remote.kubernetes.secret";
    const SUMMARY: &'static str = "Exports the data of a Kubernetes Secret and keeps it current.";
    const KIND: ObjectKind = ObjectKind::Secret;
}

/// Config maps.
#[derive(Debug)]
pub struct OfConfigMap;

impl RemoteObject for OfConfigMap {
    const NAME: &'static str = "remote.kubernetes.configmap";
    const SUMMARY: &'static str = "Exports the data of a Kubernetes ConfigMap and keeps it current.";
    const KIND: ObjectKind = ObjectKind::ConfigMap;
}

/// The component types.
#[derive(Debug)]
pub struct RemoteKubernetes<K>(PhantomData<K>);

/// `remote.kubernetes.secret`.
pub type RemoteKubernetesSecret = RemoteKubernetes<OfSecret>;
/// `remote.kubernetes.configmap`.
pub type RemoteKubernetesConfigMap = RemoteKubernetes<OfConfigMap>;

/// What other blocks see.
#[derive(Exports, Clone, Debug, PartialEq)]
pub struct KubernetesExports {
    /// The entries of the object: secrets of a Secret, texts of a ConfigMap.
    pub data: BTreeMap<String, OptionalSecret>,
}

/// What outlives configurations.
#[derive(Default)]
pub struct Instance {
    /// The connection, of which `client` block it is, and what its author may use.
    api: Mutex<Option<(Option<KubernetesClientBlock>, Access, KubernetesApi)>>,
    /// What was read last, and of what.
    last: Mutex<Option<(Place, Fields)>>,
}

type Fields = BTreeMap<String, Secret>;

/// Which object of which cluster.
#[derive(Clone, PartialEq)]
struct Place {
    client: Option<KubernetesClientBlock>,
    name: ObjectName,
}

/// The arguments and what the object held when they were prepared.
pub struct State {
    place: Place,
    api: KubernetesApi,
    poll_frequency: Duration,
    poll_timeout: Duration,
    fields: Fields,
}

/// Whether changes are told.
#[derive(Default)]
struct Watching {
    /// Why not, if they are not.
    problem: Mutex<Option<String>>,
    look: Notify,
}

impl<K: RemoteObject> Component for RemoteKubernetes<K> {
    const NAME: &'static str = K::NAME;
    const STABILITY: Stability = Stability::GenerallyAvailable;
    const SUMMARY: &'static str = K::SUMMARY;

    type Arguments = KubernetesArguments;
    type Exports = KubernetesExports;
    type Instance = Instance;
    type State = State;

    fn check(arguments: &Self::Arguments, check: &mut invar_engine::Check) {
        if let Err(problem) = ObjectName::new(&arguments.namespace, &arguments.name) {
            let field = if problem.starts_with("namespace") { "namespace" } else { "name" };
            check.error(field, problem);
        }
        if arguments.poll_frequency.is_zero() {
            check.error("poll_frequency", "must be greater than 0");
        }
        if arguments.poll_timeout.is_zero() {
            check.error("poll_timeout", "must be greater than 0");
        }
    }

    fn instance(_arguments: &Self::Arguments, _context: &InstanceContext) -> Result<Instance, PrepareError> {
        Ok(Instance::default())
    }

    async fn state(
        arguments: Arc<Self::Arguments>,
        instance: Arc<Instance>,
        context: StateContext,
    ) -> Result<State, PrepareError> {
        let name = ObjectName::new(&arguments.namespace, &arguments.name).map_err(PrepareError::invalid)?;
        let place = Place { client: arguments.client.clone(), name };
        let api = instance.api(&arguments.client, context.access()).await?;
        let poll_timeout = arguments.poll_timeout;
        let fields = match api.read(K::KIND, &place.name, poll_timeout).await {
            Ok(object) => object.fields,
            // A component that runs already goes on with what it has; its task tells what is wrong.
            Err(error) => match instance.last_of(&place) {
                Some(fields) if context.previous::<Self>().is_some() => fields,
                _ => return Err(refusal(K::KIND, &error)),
            },
        };
        Ok(State { place, api, poll_frequency: arguments.poll_frequency.max(MIN_POLL), poll_timeout, fields })
    }

    fn exports(_instance: &Instance, state: &State, _context: &ExportContext) -> KubernetesExports {
        exports(K::KIND, &state.fields)
    }

    async fn run(instance: Arc<Instance>, context: RunContext<Self>) -> Result<(), RunError> {
        loop {
            let state = Arc::clone(context.enter().state());
            tokio::select! {
                () = context.stopped() => return Ok(()),
                () = context.changed() => {}
                never = follow(&instance, &state, &context) => match never {},
            }
        }
    }
}

/// Keeps the exports equal to the object's data until it is dropped.
async fn follow<K: RemoteObject>(
    instance: &Instance,
    state: &State,
    context: &RunContext<RemoteKubernetes<K>>,
) -> Infallible {
    let watching = Watching::default();
    let watch = ObjectWatch::object(state.api.clone(), K::KIND, &state.place.name);
    let watched = watch.follow(|notice| watching.note(notice));
    let polled = async {
        loop {
            refresh(instance, state, context, &watching).await;
            tokio::time::sleep(MIN_GAP).await;
            tokio::select! {
                () = watching.look.notified() => {}
                () = tokio::time::sleep(state.poll_frequency) => {}
            }
        }
    };
    tokio::select! {
        never = watched => never,
        never = polled => never,
    }
}

async fn refresh<K: RemoteObject>(
    instance: &Instance,
    state: &State,
    context: &RunContext<RemoteKubernetes<K>>,
    watching: &Watching,
) {
    match state.api.read(K::KIND, &state.place.name, state.poll_timeout).await {
        Ok(object) => {
            context.set_exports(&exports(K::KIND, &object.fields));
            context.set_health(Health::healthy(watching.summary(K::KIND, &object)));
            *instance.last.lock() = Some((state.place.clone(), object.fields));
        }
        Err(error) => {
            context.set_health(Health::unhealthy(format!("{error}; the data read last stays in use")));
        }
    }
}

fn exports(kind: ObjectKind, fields: &Fields) -> KubernetesExports {
    let entry = |(name, value): (&String, &Secret)| {
        let value = match kind {
            ObjectKind::Secret => OptionalSecret::Secret(value.clone()),
            ObjectKind::ConfigMap => OptionalSecret::Plain(value.expose().to_owned()),
        };
        (name.clone(), value)
    };
    KubernetesExports { data: fields.iter().map(entry).collect() }
}

fn refusal(kind: ObjectKind, error: &ApiError) -> PrepareError {
    let refused = match (error, kind) {
        (ApiError::Invalid(message), _) => PrepareError::invalid(message),
        (error, ObjectKind::Secret) => PrepareError::secret(error.to_string()),
        (error, ObjectKind::ConfigMap) => PrepareError::new(PrepareErrorKind::Io, error.to_string()),
    };
    refused.with_help(format!(
        "the {kind} must be readable when the configuration is applied; afterwards it may come and go"
    ))
}

// === impl Instance ===

impl Instance {
    /// The connection of a `client` block: the one in use, if it is of the same block.
    async fn api(
        &self,
        client: &Option<KubernetesClientBlock>,
        access: &Access,
    ) -> Result<KubernetesApi, PrepareError> {
        if let Some((of, under, api)) = &*self.api.lock()
            && (of, under) == (client, access)
        {
            return Ok(api.clone());
        }
        let api = match client {
            Some(block) if !block.api_server.is_empty() => {
                let transport = HttpTransport::new(block, access.clone()).await;
                KubernetesApi::new(
                    transport.map_err(|problem| PrepareError::invalid(format!("client: {problem}")))?,
                )
            }
            Some(block) if !block.kubeconfig_file.is_empty() => {
                let file = block.kubeconfig_file.clone().into();
                cluster(ClusterSettings::Kubeconfig { file, context: None }, access)
            }
            _ => cluster(ClusterSettings::InCluster, access),
        };
        *self.api.lock() = Some((client.clone(), access.clone(), api.clone()));
        Ok(api)
    }

    fn last_of(&self, place: &Place) -> Option<Fields> {
        self.last.lock().as_ref().filter(|(last, _)| last == place).map(|(_, fields)| fields.clone())
    }
}

/// The connection by these settings, which asks the ceiling whenever it is made.
fn cluster(settings: ClusterSettings, access: &Access) -> KubernetesApi {
    let access = access.clone();
    let ask = move |wanted: ClusterUse<'_>| {
        let asked = match wanted {
            ClusterUse::File(path) => access.file(path),
            ClusterUse::Server(address) => crate::reach::by_name(address, &access),
        };
        asked.map_err(|Refusal { message, help }| format!("{message}; {help}"))
    };
    KubernetesApi::new(ClusterTransport::new(settings).asking(ask))
}

// === impl Watching ===

impl Watching {
    fn note(&self, notice: WatchNotice) {
        let problem = match notice {
            WatchNotice::Open => None,
            WatchNotice::Changed(_) => return self.look.notify_one(),
            WatchNotice::Denied(reason) | WatchNotice::Interrupted(reason) => Some(reason),
        };
        let changed = *self.problem.lock() != problem;
        let opened = problem.is_none();
        *self.problem.lock() = problem;
        // A look also renews what the health says.
        if changed || opened {
            self.look.notify_one();
        }
    }

    fn summary(&self, kind: ObjectKind, object: &Object) -> String {
        let mut summary = match &*self.problem.lock() {
            None => format!("{kind} read; changes are watched for"),
            Some(reason) => format!("{kind} read; changes are only polled for: {reason}"),
        };
        if !object.binary.is_empty() {
            summary.push_str(&format!("; left out, as they are not text: {}", object.binary.join(", ")));
        }
        summary
    }
}

// === fmt ===

impl fmt::Debug for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Instance").finish_non_exhaustive()
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State").field("name", &self.place.name).finish_non_exhaustive()
    }
}

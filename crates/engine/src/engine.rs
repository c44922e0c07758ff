//! The engine: applies configurations to the running pipeline.

use std::future::Future;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use futures_util::future::BoxFuture;

use invar_syntax::diagnostic::Diagnostics;
use invar_syntax::schema::Stability;
use invar_syntax::value::Value;
use invar_telemetry::MetricBatch;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::aside::aside;
use crate::call::{Flow, unavailable};
use crate::configuration::Configuration;
use crate::context::Host;
use crate::delivery::{DeliveryError, PrepareErrorKind};
use crate::generation::{Generation, Output, Unit};
use crate::graph::Admission;
use crate::instance::Root;
use crate::listener::{Dispatcher, ListenerRegistry, LoanId, SocketId};
use crate::meters::{EngineCollector, Meters};
use crate::node::NodeId;
use crate::plan::Plan;
use crate::prepare::Prepared;
use crate::registry::Registry;
use crate::report::{ComponentStatus, GenerationStatus, GraphReport, HealthCounts};
use crate::resources::ResourceRegistry;
use crate::secrets::{LackingSecret, SecretFailure, SecretUser, Secrets};
use crate::services::Services;
use crate::tap::TapStream;
use crate::variables::Variables;
use crate::vitals::VitalsReport;
use crate::writer::Writer;
use crate::{Request, Response};

/// What an engine is made with.
#[derive(Clone)]
pub struct EngineOptions {
    /// The component types.
    pub registry: Registry,
    /// Below it, each node may keep files.
    pub data_directory: PathBuf,
    /// Components less settled than this are refused.
    pub minimum_stability: Stability,
    /// Whether community components are allowed.
    pub community: bool,
    /// What the binary offers to components. The engine adds its `prometheus::Registry` unless one is there.
    pub services: Services,
    /// How long what is retired may drain.
    pub drain_deadline: Duration,
    /// How long re-evaluations are gathered before they run.
    pub wave_interval: Duration,
    /// The first wait before a task that ended early is started again; doubles up to 64 times that.
    pub restart_backoff: Duration,
    /// The id of the last generation before this process; the first cut gets the next.
    pub last_generation: u64,
    /// Whose changes waves follow; the same that configurations have their secrets from.
    pub secrets: Secrets,
}

/// Applies configurations. Clones are handles to the same engine. One that has run anything must be [shut
/// down](Engine::shutdown): dropping it stops nothing.
#[derive(Clone)]
pub struct Engine {
    shared: Arc<Shared>,
}

/// What the engine's parts share.
pub(crate) struct Shared {
    pub(crate) options: EngineOptions,
    pub(crate) host: Arc<Host>,
    pub(crate) root: Arc<Root>,
    pub(crate) writer: Mutex<Writer>,
    pub(crate) meters: Meters,
    metrics: Arc<prometheus::Registry>,
    /// Retirements that are under way. Closed from the start, so that it can be waited for whenever it is empty.
    pub(crate) retirements: TaskTracker,
    /// The engine's own tasks. Closed from the start as well.
    pub(crate) tasks: TaskTracker,
    /// Ends the engine's own tasks.
    pub(crate) stop: CancellationToken,
    /// Where tasks run: known from the first preparation on.
    runtime: OnceLock<Handle>,
    /// How many cuts ask waves to wait.
    wave_pauses: watch::Sender<usize>,
}

/// Keeps waves from storing epochs while it lives.
pub(crate) struct WavePause(Arc<Shared>);

/// How a configuration is prepared.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum PrepareMode {
    /// Any error refuses the configuration.
    AllOrNothing,
    /// A node that cannot be prepared is left out, shows unhealthy and is tried again; the rest runs.
    BestEffort,
}

/// Why a configuration could not be prepared. The running pipeline is untouched.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{diagnostics}")]
pub struct PrepareFailure {
    /// All errors, with their places.
    pub diagnostics: Diagnostics,
    /// Whether the same content may succeed later.
    pub class: FailureClass,
}

/// Whether trying the same content again makes sense.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Hash)]
pub enum FailureClass {
    /// The content is at fault: unknown components, references, types, cycles.
    Content,
    /// Something around it is: a port taken, a file missing, a secret out of reach. The kind of the first such error.
    Surroundings(PrepareErrorKind),
}

/// What a cut did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CutReport {
    /// The id of the generation that runs now.
    pub generation: u64,
    /// Nodes whose instance and state are untouched.
    pub kept: Vec<NodeId>,
    /// Nodes whose instance goes on under another state.
    pub updated: Vec<NodeId>,
    /// Nodes with a new instance.
    pub started: Vec<NodeId>,
    /// Nodes that the pipeline no longer has; parked until the verdict.
    pub parked: Vec<NodeId>,
    /// Nodes that could not be prepared (best effort only), and why.
    pub failed: Vec<(NodeId, String)>,
}

/// Why a cut did not happen. The running pipeline is untouched.
#[derive(Debug, thiserror::Error)]
pub enum CutError<E> {
    /// Another configuration was applied since the preparation: prepare again.
    #[error("another configuration was applied meanwhile")]
    Superseded,
    /// Exports changed since the preparation, and a node could not follow.
    #[error("{0}")]
    Prepare(PrepareFailure),
    /// The record that announces the swap could not be made durable.
    #[error("the swap could not be recorded: {0}")]
    Record(E),
}

/// What a rollback did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RollbackReport {
    /// The id of the generation that runs now.
    pub generation: u64,
    /// The digest of its configuration.
    pub digest: String,
    /// Nodes whose state went back, or that came back.
    pub restored: Vec<NodeId>,
    /// Nodes that only the undone configuration had.
    pub retired: Vec<NodeId>,
}

impl EngineOptions {
    /// Options with the usual limits.
    pub fn new(registry: Registry, data_directory: impl Into<PathBuf>) -> Self {
        Self {
            registry,
            data_directory: data_directory.into(),
            minimum_stability: Stability::GenerallyAvailable,
            community: false,
            services: Services::new(),
            drain_deadline: Duration::from_secs(30),
            wave_interval: Duration::from_millis(100),
            restart_backoff: Duration::from_secs(1),
            last_generation: 0,
            secrets: Secrets::default(),
        }
    }
}

/// A tracker that is done whenever it is empty; tasks may still be added.
pub(crate) fn closed_tracker() -> TaskTracker {
    let tracker = TaskTracker::new();
    tracker.close();
    tracker
}

// === impl EngineOptions ===

impl EngineOptions {
    pub(crate) fn admission(&self) -> Admission {
        Admission { minimum_stability: self.minimum_stability, community: self.community }
    }
}

// === impl Shared ===

impl Shared {
    /// Runs a task of the engine.
    ///
    /// # Panics
    /// Never: there is nothing to run before the first preparation, which notes the runtime.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let Some(runtime) = self.runtime.get() else {
            unreachable!("nothing runs before the first preparation")
        };
        // Tasks end by themselves or with `stop`; their trackers join them.
        drop(runtime.spawn(task));
    }

    /// Notes the runtime and starts the waves, once.
    fn ensure_running(self: &Arc<Self>) {
        if self.runtime.set(Handle::current()).is_ok() {
            self.spawn(self.tasks.track_future(Arc::clone(self).run_waves()));
            self.spawn(self.tasks.track_future(Arc::clone(self).follow_secrets()));
        }
    }

    /// Keeps waves from storing epochs until the answer is dropped.
    pub(crate) fn pause_waves(self: &Arc<Self>) -> WavePause {
        self.wave_pauses.send_modify(|pauses| *pauses += 1);
        WavePause(Arc::clone(self))
    }

    pub(crate) fn waves_are_allowed(&self) -> bool {
        *self.wave_pauses.borrow() == 0
    }

    pub(crate) async fn waves_allowed(&self) {
        let mut pauses = self.wave_pauses.subscribe();
        // The sender lives here: waiting cannot fail.
        let _closed = pauses.wait_for(|pauses| *pauses == 0).await;
    }

    /// A flow that stands at a node: under the running generation, else under the one the node was parked with.
    fn flow_at(&self, node: &str) -> Option<Flow> {
        let lease = self.root.enter();
        if let Some(slot) = lease.generation().graph.find(node) {
            return Some(Flow::new(lease, slot));
        }
        let (_, retained) = self.base();
        let place = retained?.place(&NodeId::from(node)).cloned()?;
        place.unit().and_then(|unit| unit.cell.flow())
    }
}

impl Drop for WavePause {
    fn drop(&mut self) {
        self.0.wave_pauses.send_modify(|pauses| *pauses -= 1);
    }
}

impl Dispatcher for Shared {
    fn bound(&self, socket: SocketId) -> Option<(NodeId, LoanId)> {
        let generation = self.root.current();
        let (slot, loan) = generation.sockets.get(&socket)?;
        Some((generation.graph.node(*slot).id.clone(), *loan))
    }

    fn dispatch(&self, node: NodeId, request: Request) -> BoxFuture<'static, Response> {
        let flow = self.flow_at(node.as_str());
        Box::pin(async move {
            match flow {
                Some(flow) => flow.serve(request).await,
                None => unavailable(),
            }
        })
    }
}

// === impl Engine ===

impl Engine {
    /// An engine that runs nothing yet. Spawns nothing.
    #[must_use]
    pub fn new(options: EngineOptions) -> Self {
        let meters = Meters::new();
        meters.generations_live.set(1);
        let metrics = options.services.get::<prometheus::Registry>().unwrap_or_else(|| {
            let registry = Arc::new(prometheus::Registry::new());
            options.services.insert(Arc::clone(&registry));
            registry
        });
        let host = Arc::new(Host {
            data_directory: options.data_directory.clone(),
            listeners: ListenerRegistry::new(),
            resources: ResourceRegistry::new(),
            services: options.services.clone(),
            taps: Arc::default(),
            restart_backoff: options.restart_backoff,
        });
        let shared = Arc::new(Shared {
            root: Arc::new(Root::new(Generation::empty(options.last_generation))),
            writer: Mutex::new(Writer::new(options.last_generation)),
            host,
            meters: meters.clone(),
            metrics: Arc::clone(&metrics),
            retirements: closed_tracker(),
            tasks: closed_tracker(),
            stop: CancellationToken::new(),
            runtime: OnceLock::new(),
            wave_pauses: watch::Sender::new(0),
            options,
        });
        let weak: Weak<Shared> = Arc::downgrade(&shared);
        shared.host.listeners.attach(weak.clone());
        EngineCollector::register(&metrics, weak, meters);
        Self { shared }
    }

    /// Checks a configuration without running anything.
    #[must_use]
    pub fn check(&self, configuration: &Configuration) -> Diagnostics {
        let options = &self.shared.options;
        crate::validate::check(&options.registry, configuration, options.admission())
    }

    /// What applying `configuration` would do to the running pipeline.
    ///
    /// # Errors
    /// What is wrong with the configuration.
    pub fn plan(&self, configuration: &Configuration) -> Result<Plan, Diagnostics> {
        self.shared.plan(configuration)
    }

    /// Prepares a configuration beside the running one. Touches nothing that runs; dropping the future or its result undoes it.
    ///
    /// # Errors
    /// What is wrong with the configuration or its surroundings; in [`PrepareMode::BestEffort`] only what stops all of it.
    pub async fn prepare(
        &self,
        configuration: Arc<Configuration>,
        mode: PrepareMode,
    ) -> Result<Prepared, PrepareFailure> {
        self.shared.ensure_running();
        self.shared.prepare(configuration, mode).await
    }

    /// Swaps to what was prepared, in one store. `swapped` makes the announcement durable, with the new generation's id, right
    /// before the store; if it fails nothing happens. It runs on the writer: it may wait for the disk, not for the network.
    ///
    /// # Errors
    /// See [`CutError`].
    pub async fn cut<E: Send + 'static>(
        &self,
        prepared: Prepared,
        swapped: impl FnOnce(u64) -> Result<(), E> + Send + 'static,
    ) -> Result<CutReport, CutError<E>> {
        self.shared.cut(prepared, swapped).await
    }

    /// Keeps what was prepared as the configuration to roll back to, without running it: for a restart during a probation.
    ///
    /// # Errors
    /// Gives it back if a configuration runs or is retained already.
    pub fn retain(&self, prepared: Prepared) -> Result<(), Prepared> {
        self.shared.retain(prepared)
    }

    /// Makes the running configuration the one to roll back to from now on. What only its predecessor had starts to drain;
    /// [`Engine::drained`] waits for that.
    pub async fn commit(&self) {
        let shared = Arc::clone(&self.shared);
        aside(move || shared.commit()).await;
    }

    /// Goes back to the retained configuration, in one store. Infallible: evaluates nothing, waits for nothing. Without a
    /// retained configuration nothing happens, and the report names what runs.
    pub fn rollback(&self) -> RollbackReport {
        self.shared.rollback()
    }

    /// Completes when no retired instance is draining any more.
    pub async fn drained(&self) {
        self.shared.drained().await;
    }

    /// The vitals of the running pipeline against what it was cut from.
    #[must_use]
    pub fn vitals(&self) -> VitalsReport {
        self.shared.vitals()
    }

    /// The components of the running pipeline, in source order, without debug information.
    #[must_use]
    pub fn components(&self) -> Vec<ComponentStatus> {
        self.shared.components()
    }

    /// The variables that the running pipeline was evaluated with.
    #[must_use]
    pub fn variables(&self) -> Variables {
        self.shared.base().0.configuration.inputs.variables.clone()
    }

    /// Who uses which secrets in the running pipeline.
    #[must_use]
    pub fn secret_users(&self) -> Vec<SecretUser> {
        self.shared.secret_users()
    }

    /// Why each of the secrets is not to be had that the running pipeline names and has not.
    #[must_use]
    pub fn secret_failures(&self) -> Vec<(String, SecretFailure)> {
        self.shared.secret_failures()
    }

    /// The same, with the components that name each; which takes longer, the more components there are.
    #[must_use]
    pub fn lacking_secrets(&self) -> Vec<LackingSecret> {
        self.shared.lacking_secrets()
    }

    /// One component with its debug information.
    #[must_use]
    pub fn component(&self, node: &str) -> Option<ComponentStatus> {
        self.shared.component(node)
    }

    /// Nodes and edges of the running pipeline.
    #[must_use]
    pub fn graph(&self) -> GraphReport {
        self.shared.graph_report()
    }

    /// The running generation.
    #[must_use]
    pub fn generation(&self) -> GenerationStatus {
        self.shared.generation_status()
    }

    /// How many components are in each state of health.
    #[must_use]
    pub fn health(&self) -> HealthCounts {
        self.shared.health_counts()
    }

    /// Splits a path into the name of the component that it begins with and the rest. The names of components within modules
    /// have slashes themselves.
    #[must_use]
    pub fn split_component_path<'p>(&self, path: &'p str) -> Option<(&'p str, &'p str)> {
        self.shared.root.current().split_path(path)
    }

    /// Hands a request to a component; its path is what follows the component's name.
    pub async fn serve_component(&self, node: &str, request: Request) -> Response {
        match self.shared.flow_at(node) {
            Some(flow) => flow.serve(request).await,
            None => crate::call::answer(http::StatusCode::NOT_FOUND),
        }
    }

    /// Begins a look at what goes in and out of a node. None if no such node runs; one that is replaced, even removed and
    /// brought back, is looked at all the while.
    #[must_use]
    pub fn tap(&self, node: &str) -> Option<TapStream> {
        let id = self.shared.root.current().graph.find(node).map(|_| NodeId::from(node))?;
        Some(self.shared.host.taps.look(id))
    }

    /// The component types.
    #[must_use]
    pub fn registry(&self) -> &Registry {
        &self.shared.options.registry
    }

    /// The listening sockets of components.
    #[must_use]
    pub fn listeners(&self) -> &ListenerRegistry {
        &self.shared.host.listeners
    }

    /// Exclusive things that outlive instances.
    #[must_use]
    pub fn resources(&self) -> &ResourceRegistry {
        &self.shared.host.resources
    }

    /// What the binary offers to components.
    #[must_use]
    pub fn services(&self) -> &Services {
        &self.shared.host.services
    }

    /// The agent's own metrics.
    #[must_use]
    pub fn metrics(&self) -> Arc<prometheus::Registry> {
        Arc::clone(&self.shared.metrics)
    }

    /// Sets the id of the last generation before this process, read from its records. Only before the first cut.
    pub fn set_last_generation(&self, id: u64) {
        let mut writer = self.shared.writer.lock();
        writer.last_id = writer.last_id.max(id);
    }

    /// Drains and ends everything: sources stop, what they feed flushes after them, until `deadline` has passed.
    pub async fn shutdown(&self, deadline: Duration) {
        self.shared.shutdown(deadline).await;
    }

    /// Offers a batch to a node's port, as an upstream component would.
    pub(crate) async fn offer_metrics(
        &self,
        node: &str,
        port: &'static str,
        batch: Arc<MetricBatch>,
    ) -> Result<(), DeliveryError> {
        let lease = self.shared.root.enter();
        let Some(slot) = lease.generation().graph.find(node) else {
            return Err(DeliveryError::retryable(format!("{node} does not run")));
        };
        Flow::new(lease, slot).deliver(Output { slot, port }, batch).await
    }

    /// What a running node exports.
    pub(crate) fn exports_of(&self, node: &str) -> Option<Value> {
        let generation = self.shared.root.current();
        generation.graph.find(node).map(|slot| generation.slot(slot).place.exports.clone())
    }

    /// What runs at a node.
    pub(crate) fn unit_of(&self, node: &str) -> Option<Arc<Unit>> {
        let generation = self.shared.root.current();
        generation.graph.find(node).and_then(|slot| generation.slot(slot).unit().cloned())
    }

    #[cfg(test)]
    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }
}

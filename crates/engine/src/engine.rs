//! The engine: applies configurations to the running pipeline.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use invar_syntax::diagnostic::Diagnostics;
use invar_syntax::schema::Stability;

use crate::configuration::Configuration;
use crate::delivery::PrepareErrorKind;
use crate::listener::ListenerRegistry;
use crate::node::NodeId;
use crate::plan::Plan;
use crate::registry::Registry;
use crate::report::{ComponentStatus, GenerationStatus, GraphReport, HealthCounts};
use crate::resources::ResourceRegistry;
use crate::services::Services;
use crate::vitals::VitalsReport;
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
    /// The id of the last generation before this process; the first cut gets the next.
    pub last_generation: u64,
}

/// Applies configurations. Clones are handles to the same engine.
#[derive(Clone)]
pub struct Engine {}

/// How a configuration is prepared.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum PrepareMode {
    /// Any error refuses the configuration.
    AllOrNothing,
    /// A node that cannot be prepared is left out, shows unhealthy and is tried again; the rest runs.
    BestEffort,
}

/// A prepared configuration. Dropping it undoes the preparation.
pub struct Prepared {}

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
            last_generation: 0,
        }
    }
}

/// Checks a configuration without running anything: what `invar validate` does.
#[must_use]
pub fn validate(_registry: &Registry, _configuration: &Configuration) -> Diagnostics {
    todo!()
}

impl Engine {
    /// An engine that runs nothing yet. Spawns nothing.
    #[must_use]
    pub fn new(_options: EngineOptions) -> Self {
        todo!()
    }

    /// Checks a configuration without running anything.
    #[must_use]
    pub fn check(&self, _configuration: &Configuration) -> Diagnostics {
        todo!()
    }

    /// What applying `configuration` would do to the running pipeline.
    ///
    /// # Errors
    /// What is wrong with the configuration.
    pub fn plan(&self, _configuration: &Arc<Configuration>) -> Result<Plan, Diagnostics> {
        todo!()
    }

    /// Prepares a configuration beside the running one. Touches nothing that runs; dropping the future or its result undoes it.
    ///
    /// # Errors
    /// What is wrong with the configuration or its surroundings; in [`PrepareMode::BestEffort`] only what stops all of it.
    pub async fn prepare(
        &self,
        _configuration: Arc<Configuration>,
        _mode: PrepareMode,
    ) -> Result<Prepared, PrepareFailure> {
        todo!()
    }

    /// Swaps to what was prepared, in one store. `swapped` makes the announcement durable, with the new generation's id, right
    /// before the store; if it fails nothing happens.
    ///
    /// # Errors
    /// See [`CutError`].
    pub async fn cut<E>(
        &self,
        _prepared: Prepared,
        _swapped: impl FnOnce(u64) -> Result<(), E> + Send,
    ) -> Result<CutReport, CutError<E>> {
        todo!()
    }

    /// Keeps what was prepared as the configuration to roll back to, without running it: for a restart during a probation.
    ///
    /// # Errors
    /// Gives it back if a configuration runs already.
    pub fn retain(&self, prepared: Prepared) -> Result<(), Prepared> {
        Err(prepared)
    }

    /// Makes the running configuration the one to roll back to from now on. What only its predecessor had starts to drain.
    pub async fn commit(&self) {}

    /// Goes back to the retained configuration, in one store. Infallible: evaluates nothing, waits for nothing.
    pub fn rollback(&self) -> RollbackReport {
        todo!()
    }

    /// Completes when nothing is draining any more.
    pub async fn drained(&self) {}

    /// The vitals of the running pipeline against what it was cut from.
    #[must_use]
    pub fn vitals(&self) -> VitalsReport {
        todo!()
    }

    /// The components of the running pipeline, in source order, without debug information.
    #[must_use]
    pub fn components(&self) -> Vec<ComponentStatus> {
        todo!()
    }

    /// One component with its debug information.
    #[must_use]
    pub fn component(&self, _node: &str) -> Option<ComponentStatus> {
        todo!()
    }

    /// Nodes and edges of the running pipeline.
    #[must_use]
    pub fn graph(&self) -> GraphReport {
        todo!()
    }

    /// The running generation.
    #[must_use]
    pub fn generation(&self) -> GenerationStatus {
        todo!()
    }

    /// How many components are in each state of health.
    #[must_use]
    pub fn health(&self) -> HealthCounts {
        todo!()
    }

    /// Hands a request to a component; its path is what follows the component's name.
    pub async fn serve_component(&self, _node: &str, _request: Request) -> Response {
        todo!()
    }

    /// The component types.
    #[must_use]
    pub fn registry(&self) -> &Registry {
        todo!()
    }

    /// The listening sockets of components.
    #[must_use]
    pub fn listeners(&self) -> &ListenerRegistry {
        todo!()
    }

    /// Exclusive things that outlive instances.
    #[must_use]
    pub fn resources(&self) -> &ResourceRegistry {
        todo!()
    }

    /// What the binary offers to components.
    #[must_use]
    pub fn services(&self) -> &Services {
        todo!()
    }

    /// The agent's own metrics.
    #[must_use]
    pub fn metrics(&self) -> Arc<prometheus::Registry> {
        todo!()
    }

    /// Sets the id of the last generation before this process, read from its records. Only before the first cut.
    pub fn set_last_generation(&self, _id: u64) {}

    /// Drains and ends everything: sources stop, queues flush in topological order, until `deadline` has passed.
    pub async fn shutdown(&self, _deadline: Duration) {
        todo!()
    }
}

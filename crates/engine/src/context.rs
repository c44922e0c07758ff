//! What a component is given while it is checked and prepared.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use invar_policy::Access;
use invar_syntax::diagnostic::Severity;
use invar_syntax::schema::Stability;
use parking_lot::Mutex;

use crate::codes;
use crate::component::Component;
use crate::delivery::PrepareError;
use crate::listener::{ListenRequest, ListenerLoan, LoanId};
use crate::node::NodeId;
use crate::receiver::{MetricsReceiver, Receiver, Signal};
use crate::resources::ResourceRegistry;
use crate::services::Services;
use crate::vitals::VitalCounters;

/// Collects what [`Component::check`] finds.
#[derive(Debug)]
pub struct Check {
    minimum_stability: Stability,
    pub(crate) errors: Vec<CheckError>,
    pub(crate) warnings: Vec<CheckError>,
    pub(crate) addresses: Vec<String>,
}

/// One finding of [`Component::check`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct CheckError {
    pub(crate) severity: Severity,
    pub(crate) code: &'static str,
    /// The attribute or block it is about, dots between nested names, `[1]` behind that of a block for the second one of its
    /// name; empty for the whole component.
    pub(crate) field: String,
    /// What is wrong.
    pub(crate) message: String,
    /// What to do about it.
    pub(crate) help: Option<String>,
}

/// What an instance may use while it is made.
pub struct InstanceContext {
    pub(crate) environment: NodeEnvironment,
}

/// What a state may use while it is built.
pub struct StateContext {
    pub(crate) environment: NodeEnvironment,
    pub(crate) previous: Option<Arc<dyn std::any::Any + Send + Sync>>,
    /// Names the sockets that the state borrowed.
    pub(crate) loans: Arc<Mutex<Vec<LoanId>>>,
    pub(crate) access: Access,
}

/// What a component may use to name itself in its exports.
pub struct ExportContext {
    pub(crate) node: NodeId,
}

/// What is the same for everything made for one node.
#[derive(Clone)]
pub(crate) struct NodeEnvironment {
    pub(crate) node: NodeId,
    pub(crate) host: Arc<Host>,
    pub(crate) vitals: Arc<crate::vitals::NodeVitals>,
}

/// The engine's surroundings, the same for all nodes.
pub(crate) struct Host {
    pub(crate) data_directory: PathBuf,
    pub(crate) listeners: crate::listener::ListenerRegistry,
    pub(crate) resources: ResourceRegistry,
    pub(crate) services: Services,
    pub(crate) taps: Arc<crate::tap::Taps>,
    pub(crate) restart_backoff: Duration,
}

/// Borrows listening sockets for a state and remembers which, so that the swap moves them in the same store.
pub struct Listeners<'a> {
    context: &'a StateContext,
}

// === impl Check ===

impl Check {
    pub(crate) fn new(minimum_stability: Stability) -> Self {
        Self { minimum_stability, errors: Vec::new(), warnings: Vec::new(), addresses: Vec::new() }
    }

    /// Reports that `field` is used, which is at this level: an error where that is below the minimum that is allowed.
    pub fn stability(&mut self, field: &str, stability: Stability) {
        let minimum = self.minimum_stability;
        if stability < minimum {
            self.errors.push(CheckError {
                severity: Severity::Error,
                code: codes::STABILITY,
                field: field.to_owned(),
                message: format!(
                    "{field} is at stability level \"{stability}\", which is below the minimum allowed stability level \
                     \"{minimum}\""
                ),
                help: Some(format!("allow it with --stability.level={stability}")),
            });
        }
    }

    /// Reports that `field` (nested names joined by dots; empty for the whole block) is wrong.
    pub fn error(&mut self, field: impl Into<String>, message: impl Into<String>) {
        let (field, message) = (field.into(), message.into());
        self.errors.push(CheckError {
            severity: Severity::Error,
            code: codes::REFUSED,
            field,
            message,
            help: None,
        });
    }

    /// Reports that `field` (as in [`Check::error`]; `endpoint[1].url` is in the second block of that name) is accepted, but is
    /// hardly what was meant.
    pub fn warning(&mut self, field: impl Into<String>, message: impl Into<String>) {
        let (field, message) = (field.into(), message.into());
        self.warnings.push(CheckError {
            severity: Severity::Warning,
            code: codes::DOUBTFUL,
            field,
            message,
            help: None,
        });
    }

    /// Declares an address the component will listen on: two components of one configuration may not share one.
    pub fn listen(&mut self, address: impl Into<String>) {
        self.addresses.push(address.into());
    }
}

// === impl InstanceContext ===

impl InstanceContext {
    /// The node.
    #[must_use]
    pub fn node(&self) -> &NodeId {
        &self.environment.node
    }

    /// Where the node may keep files. Not created yet.
    #[must_use]
    pub fn data_directory(&self) -> PathBuf {
        self.environment.data_directory()
    }

    /// Exclusive things that outlive instances.
    #[must_use]
    pub fn resources(&self) -> &ResourceRegistry {
        &self.environment.host.resources
    }

    /// What the binary offers to components.
    #[must_use]
    pub fn services(&self) -> &Services {
        &self.environment.host.services
    }

    /// The counters of one of the node's endpoints or target groups.
    #[must_use]
    pub fn vitals(&self, key: &str) -> Arc<VitalCounters> {
        self.environment.vitals.counters(key)
    }
}

// === impl StateContext ===

impl StateContext {
    /// The node.
    #[must_use]
    pub fn node(&self) -> &NodeId {
        &self.environment.node
    }

    /// Where the node may keep files. Not created yet.
    #[must_use]
    pub fn data_directory(&self) -> PathBuf {
        self.environment.data_directory()
    }

    /// What those who wrote the arguments may use of the host. Whatever the state opens, now or later, goes through this.
    #[must_use]
    pub fn access(&self) -> &Access {
        &self.access
    }

    /// Listening sockets.
    #[must_use]
    pub fn listeners(&self) -> Listeners<'_> {
        Listeners { context: self }
    }

    /// Exclusive things that outlive instances.
    #[must_use]
    pub fn resources(&self) -> &ResourceRegistry {
        &self.environment.host.resources
    }

    /// What the binary offers to components.
    #[must_use]
    pub fn services(&self) -> &Services {
        &self.environment.host.services
    }

    /// The state this one would replace, if the node's instance has one: caches may be carried over.
    #[must_use]
    pub fn previous<C: Component>(&self) -> Option<Arc<C::State>> {
        self.previous.clone().and_then(|state| state.downcast().ok())
    }

    /// The counters of one of the node's endpoints or target groups.
    #[must_use]
    pub fn vitals(&self, key: &str) -> Arc<VitalCounters> {
        self.environment.vitals.counters(key)
    }
}

// === impl Listeners ===

impl Listeners<'_> {
    /// Borrows a listening socket: binds it now unless it is bound already. Requests are dispatched to this node from the
    /// moment the state is swapped in, and no longer once it is swapped out.
    ///
    /// # Errors
    /// When the address cannot be resolved or bound.
    pub fn borrow(&self, request: ListenRequest) -> Result<ListenerLoan, PrepareError> {
        let environment = &self.context.environment;
        self.context.access.listen(&request.address).map_err(PrepareError::not_allowed)?;
        let loan = environment.host.listeners.borrow(request, environment.node.clone())?;
        self.context.loans.lock().push(loan.id());
        Ok(loan)
    }
}

// === impl ExportContext ===

impl ExportContext {
    /// The node.
    #[must_use]
    pub fn node(&self) -> &NodeId {
        &self.node
    }

    /// A receiver of metrics at one of the node's ports. The port carries the name of the export field.
    #[must_use]
    pub fn receiver(&self, port: &'static str) -> MetricsReceiver {
        MetricsReceiver(Receiver { node: self.node.clone(), port, signal: Signal::Metrics })
    }
}

// === impl NodeEnvironment ===

impl NodeEnvironment {
    pub(crate) fn data_directory(&self) -> PathBuf {
        node_directory(&self.host.data_directory, &self.node)
    }
}

/// The directory of a node's files below the engine's.
pub(crate) fn node_directory(root: &Path, node: &NodeId) -> PathBuf {
    root.join(node.as_str())
}

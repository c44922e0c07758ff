//! What an instance's task is given: when to stop, how to enter the running generation, how to publish exports and health.

use std::future::Future;
use std::marker::PhantomData;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use invar_syntax::arguments::Exports;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::call::{Call, Flow};
use crate::component::Component;
use crate::health::Health;
use crate::instance::InstanceCell;
use crate::node::NodeId;
use crate::services::Services;
use crate::vitals::VitalCounters;
use crate::{Request, Response};

/// Where an instance stands in its life.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Hash)]
pub enum Phase {
    /// Prepared; its task has not started.
    Ready,
    /// In the running generation.
    Running,
    /// Not in the running generation, kept for a rollback: takes nothing more from outside, drains its queues.
    Parked,
    /// Told to end: drain and return.
    Draining,
    /// Its task has ended for good.
    Stopped,
}

/// The surroundings of an instance's task. Clones share everything but what [`RunContext::changed`] has seen.
pub struct RunContext<C: Component> {
    cell: Arc<InstanceCell>,
    /// The version of the node's place that the last `enter` of this context saw.
    seen: AtomicU64,
    component: PhantomData<fn() -> C>,
}

/// A hold on the generation that was current on entry, with the node's state in it. Keep it for one batch or scrape, not longer.
pub struct Entry<C: Component> {
    call: Call<C>,
}

// === impl RunContext ===

impl<C: Component> RunContext<C> {
    pub(crate) fn new(cell: Arc<InstanceCell>) -> Self {
        let seen = AtomicU64::new(cell.version());
        Self { cell, seen, component: PhantomData }
    }

    /// The node.
    #[must_use]
    pub fn node(&self) -> &NodeId {
        self.cell.node()
    }

    /// Where the node may keep files. Not created yet.
    #[must_use]
    pub fn data_directory(&self) -> PathBuf {
        self.cell.data_directory()
    }

    /// What the binary offers to components.
    #[must_use]
    pub fn services(&self) -> &Services {
        self.cell.services()
    }

    /// Enters the generation that runs now. While the node is parked: the one it was parked with.
    #[must_use]
    pub fn enter(&self) -> Entry<C> {
        self.seen.store(self.cell.version(), Ordering::Relaxed);
        Entry { call: self.cell.enter::<C>() }
    }

    /// Completes when the node's place is no longer as the last [`enter`](Self::enter) of this context saw it: another state
    /// was swapped in. Misses nothing between the two calls; may complete once too often.
    pub async fn changed(&self) {
        let seen = self.seen.load(Ordering::Relaxed);
        self.cell.wait_for_version_other_than(seen).await;
        self.seen.store(self.cell.version(), Ordering::Relaxed);
    }

    /// Completes when intake must stop: the node is parked or told to end. A task that drains nothing may return then; it is
    /// started again if the node is unparked.
    pub async fn stopped(&self) {
        self.reached(|phase| !matches!(phase, Phase::Ready | Phase::Running)).await;
    }

    /// Completes when the node is told to end: drain what is left and return.
    pub async fn draining(&self) {
        self.reached(|phase| matches!(phase, Phase::Draining | Phase::Stopped)).await;
    }

    /// The phase, observable.
    #[must_use]
    pub fn phase(&self) -> watch::Receiver<Phase> {
        self.cell.phase()
    }

    /// Fires when the drain deadline has passed: return at once.
    #[must_use]
    pub fn cancellation(&self) -> CancellationToken {
        self.cell.cancellation().clone()
    }

    /// Hands a request to a component of the running generation, as its HTTP path does: the request's path is what follows the
    /// component's name. Answers 404 where there is no such component.
    pub async fn serve_component(&self, node: &str, request: Request) -> Response {
        match self.cell.flow_of(node) {
            Some(flow) => flow.serve(request).await,
            None => crate::call::answer(http::StatusCode::NOT_FOUND),
        }
    }

    /// Splits a path into the name of the component that it begins with and the rest; see
    /// [`Engine::split_component_path`](crate::Engine::split_component_path).
    #[must_use]
    pub fn split_component_path<'p>(&self, path: &'p str) -> Option<(&'p str, &'p str)> {
        self.cell.split_path(path)
    }

    /// Publishes exports. Dependants are evaluated again if they differ from those before.
    pub fn set_exports(&self, exports: &C::Exports) {
        self.cell.publish(exports.to_value());
    }

    /// Reports the component's own opinion of its health.
    pub fn set_health(&self, health: Health) {
        self.cell.health().report(health);
    }

    /// The counters of one of the node's endpoints or target groups.
    #[must_use]
    pub fn vitals(&self, key: &str) -> Arc<VitalCounters> {
        self.cell.vitals().counters(key)
    }

    /// Spawns a task that belongs to the instance: it is joined, or aborted after the drain deadline, when the instance ends.
    /// A panic in it makes the node unhealthy.
    pub fn spawn(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        self.cell.spawn(name, task);
    }

    async fn reached(&self, accept: impl Fn(Phase) -> bool) {
        let mut phase = self.cell.phase();
        // The sender lives in the cell, which this context holds: waiting cannot fail.
        let _closed = phase.wait_for(|phase| accept(*phase)).await;
    }
}

impl<C: Component> Clone for RunContext<C> {
    fn clone(&self) -> Self {
        Self {
            cell: Arc::clone(&self.cell),
            seen: AtomicU64::new(self.seen.load(Ordering::Relaxed)),
            component: PhantomData,
        }
    }
}

// === impl Entry ===

impl<C: Component> Entry<C> {
    /// The node's state in this generation.
    #[must_use]
    pub fn state(&self) -> &Arc<C::State> {
        self.call.state()
    }

    /// The way on from this node.
    #[must_use]
    pub fn flow(&self) -> &Flow {
        self.call.flow()
    }
}

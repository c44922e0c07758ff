//! The engine's side of an instance: its task, its place in the life cycle, its health and counters. Lives as long as any
//! generation, retained configuration or task needs the instance.

use std::any::Any;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use arc_swap::ArcSwap;
use foldhash::HashMap;
use futures_util::FutureExt;
use invar_syntax::value::Value;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::call::{Call, Flow};
use crate::component::Component;
use crate::context::NodeEnvironment;
use crate::definition::{AnyArc, Definition, ErasedTransition};
use crate::delivery::DeliveryError;
use crate::engine::closed_tracker;
use crate::generation::Generation;
use crate::health::HealthBoard;
use crate::lease::Lease;
use crate::node::NodeId;
use crate::run::Phase;
use crate::services::Services;
use crate::tap::Taps;
use crate::vitals::NodeVitals;

/// The running pipeline, and what instances have to say to whoever evaluates it.
pub(crate) struct Root {
    current: ArcSwap<Generation>,
    published: Mutex<HashMap<u64, (Arc<InstanceCell>, Value)>>,
    publication: Notify,
}

/// An instance with everything the engine keeps about it.
pub(crate) struct InstanceCell {
    /// Unique in the process: an identity that changes when the instance does.
    number: u64,
    definition: Arc<dyn Definition>,
    identity: u64,
    instance: AnyArc,
    environment: NodeEnvironment,
    root: Arc<Root>,
    phase: watch::Sender<Phase>,
    /// Counts the node's places: differs after each store that gave it another state.
    version: watch::Sender<u64>,
    /// The generation it was parked with.
    drain: Mutex<Option<Arc<Lease>>>,
    health: HealthBoard,
    cancellation: CancellationToken,
    tasks: TaskTracker,
    /// Whether its task has ended early and waits for its restart.
    down: AtomicBool,
    /// Whether its task was ever started.
    has_run: AtomicBool,
    /// How often it was parked.
    parks: AtomicU64,
    restarts: AtomicU64,
    panics: AtomicU64,
    refusals: AtomicU64,
}

static NEXT_NUMBER: AtomicU64 = AtomicU64::new(1);

// === impl Root ===

impl Root {
    pub(crate) fn new(generation: Generation) -> Self {
        Self {
            current: ArcSwap::from_pointee(generation),
            published: Mutex::default(),
            publication: Notify::new(),
        }
    }

    /// The running generation.
    pub(crate) fn current(&self) -> Arc<Generation> {
        self.current.load_full()
    }

    /// The swap. Answers the generation before.
    pub(crate) fn store(&self, generation: Arc<Generation>) -> Arc<Generation> {
        self.current.swap(generation)
    }

    /// Leases the running generation.
    pub(crate) fn enter(&self) -> Arc<Lease> {
        loop {
            // A generation is closed only after another was stored, so this ends.
            if let Some(lease) = Lease::enter(&self.current.load()) {
                return lease;
            }
        }
    }

    /// Waits until an instance has published exports.
    pub(crate) async fn published(&self) {
        self.publication.notified().await;
    }

    /// What was published since the last call, the latest of each instance.
    pub(crate) fn take_published(&self) -> Vec<(Arc<InstanceCell>, Value)> {
        let mut published: Vec<_> = std::mem::take(&mut *self.published.lock()).into_values().collect();
        published.sort_by_key(|(cell, _)| cell.number);
        published
    }

    /// Lets the waves look again: there may be failed nodes to retry.
    pub(crate) fn wake_waves(&self) {
        self.publication.notify_one();
    }

    /// How many instances have published exports that no wave has taken yet.
    pub(crate) fn published_count(&self) -> usize {
        self.published.lock().len()
    }

    fn publish(&self, cell: &Arc<InstanceCell>, exports: Value) {
        self.published.lock().insert(cell.number, (Arc::clone(cell), exports));
        self.publication.notify_one();
    }
}

// === impl InstanceCell ===

impl InstanceCell {
    pub(crate) fn new(
        definition: Arc<dyn Definition>,
        identity: u64,
        instance: AnyArc,
        environment: NodeEnvironment,
        root: Arc<Root>,
    ) -> Arc<Self> {
        Arc::new(Self {
            number: NEXT_NUMBER.fetch_add(1, Ordering::Relaxed),
            definition,
            identity,
            instance,
            environment,
            root,
            phase: watch::Sender::new(Phase::Ready),
            version: watch::Sender::new(0),
            drain: Mutex::new(None),
            health: HealthBoard::new(),
            cancellation: CancellationToken::new(),
            tasks: closed_tracker(),
            down: AtomicBool::new(false),
            has_run: AtomicBool::new(false),
            parks: AtomicU64::new(0),
            restarts: AtomicU64::new(0),
            panics: AtomicU64::new(0),
            refusals: AtomicU64::new(0),
        })
    }

    pub(crate) fn node(&self) -> &NodeId {
        &self.environment.node
    }

    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    pub(crate) fn definition(&self) -> &Arc<dyn Definition> {
        &self.definition
    }

    pub(crate) fn identity(&self) -> u64 {
        self.identity
    }

    pub(crate) fn instance(&self) -> &AnyArc {
        &self.instance
    }

    pub(crate) fn environment(&self) -> &NodeEnvironment {
        &self.environment
    }

    pub(crate) fn data_directory(&self) -> PathBuf {
        self.environment.data_directory()
    }

    pub(crate) fn services(&self) -> &Services {
        &self.environment.host.services
    }

    pub(crate) fn taps(&self) -> &Taps {
        &self.environment.host.taps
    }

    pub(crate) fn vitals(&self) -> &Arc<NodeVitals> {
        &self.environment.vitals
    }

    pub(crate) fn health(&self) -> &HealthBoard {
        &self.health
    }

    pub(crate) fn cancellation(&self) -> &CancellationToken {
        &self.cancellation
    }

    pub(crate) fn tasks(&self) -> &TaskTracker {
        &self.tasks
    }

    pub(crate) fn phase(&self) -> watch::Receiver<Phase> {
        self.phase.subscribe()
    }

    pub(crate) fn phase_now(&self) -> Phase {
        *self.phase.borrow()
    }

    /// Whether it was told to end, for good.
    pub(crate) fn is_retired(&self) -> bool {
        matches!(self.phase_now(), Phase::Draining | Phase::Stopped)
    }

    pub(crate) fn set_phase(&self, phase: Phase) {
        if phase == Phase::Parked {
            self.parks.fetch_add(1, Ordering::Relaxed);
        }
        self.phase.send_replace(phase);
    }

    /// How often it was parked: a task that ends after this moved was told to.
    pub(crate) fn parks(&self) -> u64 {
        self.parks.load(Ordering::Relaxed)
    }

    pub(crate) fn mark_run(&self) {
        self.has_run.store(true, Ordering::Relaxed);
    }

    /// Whether its task was ever started.
    pub(crate) fn has_run(&self) -> bool {
        self.has_run.load(Ordering::Relaxed)
    }

    pub(crate) fn version(&self) -> u64 {
        *self.version.borrow()
    }

    pub(crate) fn bump_version(&self) {
        self.version.send_modify(|version| *version += 1);
    }

    pub(crate) async fn wait_for_version_other_than(&self, seen: u64) {
        let mut version = self.version.subscribe();
        // The sender lives in this cell: waiting cannot fail.
        let _closed = version.wait_for(|version| *version != seen).await;
    }

    /// Keeps the generation the instance is parked with, before another is stored.
    pub(crate) fn hold_drain_lease(self: &Arc<Self>, generation: &Arc<Generation>) {
        let mut drain = self.drain.lock();
        if drain.is_none() {
            *drain = Some(Lease::drain(generation, self.cancellation.clone()));
        }
    }

    pub(crate) fn release_drain_lease(&self) {
        // Dropping a generation runs components' code: not under the lock.
        let lease = self.drain.lock().take();
        drop(lease);
    }

    /// A flow that starts at this node: under the running generation if that has this instance, else under the one it was
    /// parked with.
    pub(crate) fn flow(self: &Arc<Self>) -> Option<Flow> {
        loop {
            let lease = self.root.enter();
            if let Some(slot) = lease.generation().slot_with(self) {
                return Some(Flow::new(lease, slot));
            }
            let parked = self.drain.lock().clone();
            if let Some(lease) = parked {
                let slot = lease.generation().slot_with(self)?;
                return Some(Flow::new(lease, slot));
            }
            // Neither: it was just unparked, which releases the drain lease after the store; or it has been stopped.
            self.root.current().slot_with(self)?;
        }
    }

    /// A flow that stands at another node of the running generation.
    pub(crate) fn split_path<'p>(&self, path: &'p str) -> Option<(&'p str, &'p str)> {
        self.root.current().split_path(path)
    }

    pub(crate) fn flow_of(&self, node: &str) -> Option<Flow> {
        let lease = self.root.enter();
        let slot = lease.generation().graph.find(node)?;
        Some(Flow::new(lease, slot))
    }

    pub(crate) fn enter<C: Component>(self: &Arc<Self>) -> Call<C> {
        let call = self.flow().and_then(|flow| Call::under(flow, ""));
        call.unwrap_or_else(|| {
            unreachable!("a task runs while its instance is in a generation or holds a drain lease")
        })
    }

    pub(crate) fn publish(self: &Arc<Self>, exports: Value) {
        self.root.publish(self, exports);
    }

    pub(crate) fn transition(&self, transition: ErasedTransition<'_>) {
        let notice = AssertUnwindSafe(|| self.definition.transition(&self.instance, transition));
        if let Err(panic) = std::panic::catch_unwind(notice) {
            self.panicked(&*panic);
        }
    }

    /// Whether data calls must wait for the task to be restarted.
    pub(crate) fn is_down(&self) -> bool {
        self.down.load(Ordering::Relaxed)
    }

    pub(crate) fn set_down(&self, down: bool) {
        self.down.store(down, Ordering::Relaxed);
    }

    pub(crate) fn restarts(&self) -> u64 {
        self.restarts.load(Ordering::Relaxed)
    }

    pub(crate) fn count_restart(&self) {
        self.restarts.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn panics(&self) -> u64 {
        self.panics.load(Ordering::Relaxed)
    }

    pub(crate) fn refusals(&self) -> u64 {
        self.refusals.load(Ordering::Relaxed)
    }

    /// Counts a batch that the node did not accept.
    pub(crate) fn count_refusal(&self) {
        self.refusals.fetch_add(1, Ordering::Relaxed);
    }

    /// Notes a panic in the component's code: the node is unhealthy, the caller may try again (after a rollback it will succeed).
    pub(crate) fn panicked(&self, panic: &(dyn Any + Send)) -> DeliveryError {
        let message = panic_message(panic);
        self.panics.fetch_add(1, Ordering::Relaxed);
        tracing::error!(node = %self.node(), panic = message, "component panicked");
        self.health.fail(format!("panicked: {message}"));
        DeliveryError::retryable(format!("{} panicked: {message}", self.node()))
    }

    /// Spawns a task of the instance.
    pub(crate) fn spawn(
        self: &Arc<Self>,
        name: &'static str,
        task: impl Future<Output = ()> + Send + 'static,
    ) {
        let cell = Arc::clone(self);
        let abandoned = self.cancellation.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                outcome = AssertUnwindSafe(task).catch_unwind() => {
                    if let Err(panic) = outcome {
                        tracing::error!(node = %cell.node(), task = name, "task of a component panicked");
                        cell.panicked(&*panic);
                    }
                }
                () = abandon(abandoned) => {
                    tracing::warn!(node = %cell.node(), task = name, "task of a component did not end in time");
                }
            }
        });
    }
}

/// How long a task may take to notice its cancellation before it is dropped.
pub(crate) const CANCELLATION_GRACE: std::time::Duration = std::time::Duration::from_secs(2);

/// Completes some time after `cancellation` fired.
pub(crate) async fn abandon(cancellation: CancellationToken) {
    cancellation.cancelled().await;
    tokio::time::sleep(CANCELLATION_GRACE).await;
}

/// The text of a panic.
pub(crate) fn panic_message(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}

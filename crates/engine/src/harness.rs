//! Runs one component in isolation, for the tests of component crates: in a real engine, between a feed and a capture.
//!
//! Arguments are given as the text of the block's body. In it `harness.capture.out.receiver` is a receiver of metrics that keeps
//! what is forwarded to it:
//!
//! ```no_run
//! # use invar_engine::{Component, harness::Harness};
//! # use std::sync::Arc;
//! # async fn example<C: Component>(batch: Arc<invar_telemetry::MetricBatch>) {
//! let harness = Harness::<C>::new("forward_to = [harness.capture.out.receiver]").await.unwrap();
//! harness.feed(batch).await.unwrap();
//! assert_eq!(harness.captured().len(), 1);
//! harness.shutdown().await;
//! # }
//! ```

mod capture;

use std::marker::PhantomData;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use invar_syntax::diagnostic::Diagnostics;
use invar_syntax::schema::Stability;
use invar_syntax::value::Value;
use invar_telemetry::MetricBatch;

use crate::component::Component;
use crate::configuration::{Configuration, Inputs};
use crate::definition::typed;
use crate::delivery::DeliveryError;
use crate::engine::{
    CutError, CutReport, Engine, EngineOptions, FailureClass, PrepareFailure, PrepareMode, RollbackReport,
};
use crate::generation::Unit;
use crate::health::Health;
use crate::node::NodeId;
use crate::registry::Registry;
use crate::services::Services;
use crate::vitals::VitalsReport;
use crate::{Request, Response};
use capture::{Capture, CaptureBook};

/// A component under test.
pub struct Harness<C: Component> {
    engine: Engine,
    node: NodeId,
    book: Arc<CaptureBook>,
    directory: PathBuf,
    /// Whether the directory goes with the harness.
    owns_directory: bool,
    component: PhantomData<fn() -> C>,
}

/// Surroundings of a component under test, where the usual ones do not do.
#[derive(Default)]
pub struct Surroundings {
    /// What the binary would offer.
    pub services: Services,
    /// Where the component keeps files; a fresh directory, removed in the end, if none is given.
    pub data_directory: Option<PathBuf>,
    /// How long parked instances may drain; the usual 30 s if none is given.
    pub drain_deadline: Option<Duration>,
}

/// How long the harness waits for what should happen.
const PATIENCE: Duration = Duration::from_secs(10);

/// The label of the component under test.
const LABEL: &str = "subject";

static NEXT_DIRECTORY: AtomicU64 = AtomicU64::new(0);

impl<C: Component> Harness<C> {
    /// Starts the component with these arguments, committed.
    ///
    /// # Errors
    /// What refuses the arguments.
    pub async fn new(body: &str) -> Result<Self, PrepareFailure> {
        Self::within(Surroundings::default(), body).await
    }

    /// As [`Harness::new`], in given surroundings.
    ///
    /// # Errors
    /// What refuses the arguments.
    pub async fn within(surroundings: Surroundings, body: &str) -> Result<Self, PrepareFailure> {
        let owns_directory = surroundings.data_directory.is_none();
        let directory = surroundings.data_directory.unwrap_or_else(|| {
            let number = NEXT_DIRECTORY.fetch_add(1, Ordering::Relaxed);
            std::env::temp_dir().join(format!("invar-harness-{}-{number}", std::process::id()))
        });
        let book = Arc::new(CaptureBook::default());
        surroundings.services.insert(Arc::clone(&book));
        let registry = Registry::new().with::<Capture>().with::<C>();
        let mut options = EngineOptions::new(registry, &directory);
        options.services = surroundings.services;
        options.minimum_stability = Stability::Experimental;
        options.community = true;
        if let Some(deadline) = surroundings.drain_deadline {
            options.drain_deadline = deadline;
        }
        let node = NodeId::new(format!("{}.{LABEL}", C::NAME));
        let engine = Engine::new(options);
        let harness = Self { engine, node, book, directory, owns_directory, component: PhantomData };
        harness.update(body).await?;
        Ok(harness)
    }

    /// Swaps to other arguments and commits them.
    ///
    /// # Errors
    /// What refuses the arguments; the component then goes on as before.
    pub async fn update(&self, body: &str) -> Result<CutReport, PrepareFailure> {
        let report = self.candidate(body).await?;
        self.engine.commit().await;
        Ok(report)
    }

    /// Swaps to other arguments, on probation.
    ///
    /// # Errors
    /// What refuses the arguments; the component then goes on as before.
    pub async fn candidate(&self, body: &str) -> Result<CutReport, PrepareFailure> {
        self.swap(&format!("{} \"{LABEL}\" {{\n{body}\n}}\n", C::NAME)).await
    }

    /// Swaps to a configuration without the component, on probation: it is parked.
    pub async fn park(&self) -> CutReport {
        match self.swap("").await {
            Ok(report) => report,
            Err(failure) => {
                unreachable!("a configuration of the capture alone is always accepted: {failure}")
            }
        }
    }

    async fn swap(&self, block: &str) -> Result<CutReport, PrepareFailure> {
        let text = format!("{block}{} \"out\" {{ }}\n", Capture::NAME);
        let configuration =
            Configuration::parse([("harness.alloy", text)], Inputs::default(), "harness").map_err(
                |diagnostics: Diagnostics| PrepareFailure { diagnostics, class: FailureClass::Content },
            )?;
        let prepared = self.engine.prepare(Arc::new(configuration), PrepareMode::AllOrNothing).await?;
        match self.engine.cut(prepared, |_| Ok::<(), std::convert::Infallible>(())).await {
            Ok(report) => Ok(report),
            Err(CutError::Prepare(failure)) => Err(failure),
            Err(CutError::Superseded) => unreachable!("only the harness cuts"),
            Err(CutError::Record(never)) => match never {},
        }
    }

    /// Commits the candidate. Parked instances start to drain; [`Engine::drained`] waits for that.
    pub async fn commit(&self) {
        self.engine.commit().await;
    }

    /// Undoes the candidate.
    pub fn rollback(&self) -> RollbackReport {
        self.engine.rollback()
    }

    /// Offers a batch to the component's port `receiver`, as an upstream component would.
    ///
    /// # Errors
    /// What the component answers.
    pub async fn feed(&self, batch: Arc<MetricBatch>) -> Result<(), DeliveryError> {
        self.engine.offer_metrics(self.node.as_str(), "receiver", batch).await
    }

    /// Sends a request to the component; the path is what follows its name.
    pub async fn serve(&self, request: Request) -> Response {
        self.engine.serve_component(self.node.as_str(), request).await
    }

    /// Takes what was forwarded since the last call.
    #[must_use]
    pub fn captured(&self) -> Vec<Arc<MetricBatch>> {
        self.book.take()
    }

    /// Waits until at least `count` batches have been forwarded since the last call, and takes them.
    ///
    /// # Panics
    /// When that takes longer than ten seconds.
    pub async fn wait_captured(&self, count: usize) -> Vec<Arc<MetricBatch>> {
        let waiting = self.book.wait_for(count);
        let enough = tokio::time::timeout(PATIENCE, waiting).await;
        assert!(enough.is_ok(), "{} of {count} batches were forwarded in {PATIENCE:?}", self.book.len());
        self.captured()
    }

    /// Decides what the capture answers from now on; it accepts everything at first.
    pub fn answer_with(
        &self,
        answer: impl Fn(&MetricBatch) -> Result<(), DeliveryError> + Send + Sync + 'static,
    ) {
        self.book.answer_with(Box::new(answer));
    }

    /// What the component exports now; null while it is parked.
    #[must_use]
    pub fn exports(&self) -> Value {
        self.engine.exports_of(self.node.as_str()).unwrap_or(Value::Null)
    }

    /// Waits until the exports satisfy `accept`, and answers them.
    ///
    /// # Panics
    /// When that takes longer than ten seconds.
    pub async fn wait_exports(&self, accept: impl Fn(&Value) -> bool) -> Value {
        let mut polls = tokio::time::interval(Duration::from_millis(5));
        let waiting = async {
            loop {
                polls.tick().await;
                let exports = self.exports();
                if accept(&exports) {
                    return exports;
                }
            }
        };
        match tokio::time::timeout(PATIENCE, waiting).await {
            Ok(exports) => exports,
            Err(_) => panic!("the exports did not become as expected in {PATIENCE:?}: {:?}", self.exports()),
        }
    }

    /// How the component is; none while it is parked.
    #[must_use]
    pub fn health(&self) -> Option<Health> {
        self.engine.component(self.node.as_str()).map(|status| status.health)
    }

    /// The vitals against the cut.
    #[must_use]
    pub fn vitals(&self) -> VitalsReport {
        self.engine.vitals()
    }

    /// The running instance; none while it is parked.
    #[must_use]
    pub fn instance(&self) -> Option<Arc<C::Instance>> {
        self.unit().map(|unit| typed(unit.cell.instance()))
    }

    /// The running state; none while it is parked.
    #[must_use]
    pub fn state(&self) -> Option<Arc<C::State>> {
        self.unit().map(|unit| typed(&unit.state))
    }

    fn unit(&self) -> Option<Arc<Unit>> {
        self.engine.unit_of(self.node.as_str())
    }

    /// The node of the component.
    #[must_use]
    pub fn node(&self) -> &NodeId {
        &self.node
    }

    /// The engine it runs in.
    #[must_use]
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Below it the component keeps its files.
    #[must_use]
    pub fn data_directory(&self) -> &Path {
        &self.directory
    }

    /// Drains and ends the component.
    pub async fn shutdown(self) {
        self.engine.shutdown(PATIENCE).await;
    }
}

impl<C: Component> Drop for Harness<C> {
    fn drop(&mut self) {
        if self.owns_directory {
            // Most components keep no files, then there is nothing to remove.
            drop(std::fs::remove_dir_all(&self.directory));
        }
    }
}

//! Components that record what they see.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use invar_syntax::arguments::{Arguments, Exports};
use invar_syntax::schema::Stability;
use invar_telemetry::MetricBatch;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use crate::call::Call;
use crate::component::{Component, Transition, VitalGroup};
use crate::context::{Check, ExportContext, InstanceContext, StateContext};
use crate::delivery::{DeliveryError, PrepareError, RunError};
use crate::receiver::MetricsReceiver;
use crate::run::RunContext;
use crate::vitals::Outcome;
use crate::{Request, Response};

/// What all components of an engine record.
#[derive(Default)]
pub(super) struct Book {
    /// By batch number, each offer: the configurations its stages ran under, and whether the sink took it.
    delivered: Mutex<BTreeMap<u64, Vec<Vec<String>>>>,
    transitions: Mutex<Vec<String>>,
    /// Nodes whose state must not be built.
    pub(super) broken: Mutex<Vec<String>>,
    /// Holds up the building of states while it is locked.
    pub(super) gate: tokio::sync::Mutex<()>,
}

impl Book {
    pub(super) fn delivered(&self) -> BTreeMap<u64, Vec<Vec<String>>> {
        self.delivered.lock().clone()
    }

    pub(super) fn take_transitions(&self) -> Vec<String> {
        std::mem::take(&mut *self.transitions.lock())
    }

    fn note(&self, node: &str, transition: &str) {
        self.transitions.lock().push(format!("{node} {transition}"));
    }
}

fn book(context: &InstanceContext) -> Result<Arc<Book>, PrepareError> {
    context.services().get().ok_or_else(|| PrepareError::invalid("no book"))
}

/// Names a transition for the book.
fn name<C: Component>(transition: &Transition<'_, C>) -> &'static str {
    match transition {
        Transition::Started { .. } => "started",
        Transition::Swapped { from: Some(_), .. } => "swapped",
        Transition::Swapped { from: None, .. } => "swapped in",
        Transition::Parked => "parked",
        Transition::Unparked => "unparked",
        Transition::Committed { .. } => "committed",
        Transition::RolledBack { to: Some(_), .. } => "rolled back",
        Transition::RolledBack { to: None, .. } => "undone",
        Transition::Retired => "retired",
    }
}

/// `test.source`: numbered batches, each offered until it is accepted.
pub(super) struct Source;

#[derive(Clone, PartialEq, Debug, Arguments)]
pub(super) struct SourceArguments {
    /// Where batches go.
    #[argument(required)]
    forward_to: Vec<MetricsReceiver>,
    /// Tells configurations apart.
    tag: String,
}

#[derive(Default)]
pub(super) struct SourceInstance {
    /// The number of the last batch that was accepted.
    pub(super) accepted: AtomicU64,
}

tokio::task_local! {
    /// The configurations that the stages of a batch ran under.
    static STAGES: Mutex<Vec<String>>;
}

impl Component for Source {
    const NAME: &'static str = "test.source";
    const STABILITY: Stability = Stability::GenerallyAvailable;

    type Arguments = SourceArguments;
    type Exports = ();
    type Instance = SourceInstance;
    type State = String;

    fn instance(_: &Self::Arguments, _: &InstanceContext) -> Result<Self::Instance, PrepareError> {
        Ok(SourceInstance::default())
    }

    async fn state(
        arguments: Arc<Self::Arguments>,
        _: Arc<Self::Instance>,
        _: StateContext,
    ) -> Result<Self::State, PrepareError> {
        Ok(arguments.tag.clone())
    }

    fn exports(_: &Self::Instance, _: &Self::State, _: &ExportContext) {}

    async fn run(instance: Arc<Self::Instance>, context: RunContext<Self>) -> Result<(), RunError> {
        loop {
            let number = instance.accepted.load(Ordering::SeqCst) + 1;
            loop {
                let entry = context.enter();
                let stages = Mutex::new(vec![entry.state().to_string()]);
                let offer = STAGES.scope(stages, entry.flow().forward_metrics(super::batch(number)));
                if offer.await.is_ok() {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            instance.accepted.store(number, Ordering::SeqCst);
            tokio::select! {
                biased;
                () = context.stopped() => return Ok(()),
                () = tokio::task::yield_now() => {}
            }
        }
    }
}

/// `test.pass`: hands batches on.
pub(super) struct Pass;

#[derive(Clone, PartialEq, Debug, Arguments)]
pub(super) struct PassArguments {
    /// Where batches go.
    #[argument(required)]
    forward_to: Vec<MetricsReceiver>,
    /// Tells configurations apart.
    tag: String,
    /// Panic on every batch.
    panics: bool,
    /// A change makes another instance.
    identity: String,
}

impl PassArguments {
    pub(super) fn tag(&self) -> &str {
        &self.tag
    }
}

#[derive(Clone, PartialEq, Debug, Exports)]
pub(super) struct ReceiverExports {
    /// Takes batches.
    receiver: MetricsReceiver,
}

pub(super) struct Recorder {
    node: String,
    book: Arc<Book>,
    pub(super) started: AtomicU64,
    pub(super) ended: AtomicU64,
}

fn recorder(context: &InstanceContext) -> Result<Recorder, PrepareError> {
    Ok(Recorder {
        node: context.node().to_string(),
        book: book(context)?,
        started: AtomicU64::new(0),
        ended: AtomicU64::new(0),
    })
}

impl Component for Pass {
    const NAME: &'static str = "test.pass";
    const STABILITY: Stability = Stability::GenerallyAvailable;

    type Arguments = PassArguments;
    type Exports = ReceiverExports;
    type Instance = Recorder;
    type State = PassArguments;

    fn check(arguments: &Self::Arguments, check: &mut Check) {
        if arguments.tag == "refused" {
            check.error("tag", "this tag is refused");
        }
        if arguments.tag == "doubtful" {
            check.warning("tag", "this tag is doubtful");
        }
        if arguments.tag == "experimental" {
            check.stability("tag", Stability::Experimental);
        }
        if let Some(address) = arguments.tag.strip_prefix("listen ") {
            check.listen(address);
        }
    }

    fn identity(arguments: &Self::Arguments) -> u64 {
        arguments.identity.bytes().map(u64::from).sum()
    }

    fn instance(_: &Self::Arguments, context: &InstanceContext) -> Result<Self::Instance, PrepareError> {
        recorder(context)
    }

    async fn state(
        arguments: Arc<Self::Arguments>,
        instance: Arc<Self::Instance>,
        _: StateContext,
    ) -> Result<Self::State, PrepareError> {
        drop(instance.book.gate.lock().await);
        if instance.book.broken.lock().contains(&instance.node) {
            return Err(PrepareError::resource("its surroundings are broken"));
        }
        assert!(arguments.tag != "panic while preparing", "asked to");
        Ok((*arguments).clone())
    }

    fn exports(_: &Self::Instance, _: &Self::State, context: &ExportContext) -> Self::Exports {
        ReceiverExports { receiver: context.receiver("receiver") }
    }

    async fn metrics(call: Call<Self>, batch: Arc<MetricBatch>) -> Result<(), DeliveryError> {
        assert!(!call.state().panics, "asked to panic");
        // Outside of a source's task nobody asks for the stages.
        let _outside = STAGES.try_with(|stages| stages.lock().push(call.state().tag.clone()));
        call.flow().forward_metrics(batch).await
    }

    async fn run(instance: Arc<Self::Instance>, context: RunContext<Self>) -> Result<(), RunError> {
        instance.started.fetch_add(1, Ordering::SeqCst);
        context.draining().await;
        instance.ended.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    fn transition(instance: &Arc<Self::Instance>, transition: Transition<'_, Self>) {
        instance.book.note(&instance.node, name(&transition));
    }
}

/// `test.sink`: records batches.
pub(super) struct Sink;

#[derive(Clone, PartialEq, Debug, Arguments)]
pub(super) struct SinkArguments {
    /// Tells configurations apart.
    tag: String,
    /// Never answer.
    blocks: bool,
    /// End the task with an error right away.
    ends: bool,
    /// The endpoints whose vitals it keeps.
    endpoints: Vec<String>,
}

impl Component for Sink {
    const NAME: &'static str = "test.sink";
    const STABILITY: Stability = Stability::GenerallyAvailable;

    type Arguments = SinkArguments;
    type Exports = ReceiverExports;
    type Instance = Recorder;
    type State = SinkArguments;

    fn instance(_: &Self::Arguments, context: &InstanceContext) -> Result<Self::Instance, PrepareError> {
        recorder(context)
    }

    async fn state(
        arguments: Arc<Self::Arguments>,
        _: Arc<Self::Instance>,
        _: StateContext,
    ) -> Result<Self::State, PrepareError> {
        Ok((*arguments).clone())
    }

    fn exports(_: &Self::Instance, _: &Self::State, context: &ExportContext) -> Self::Exports {
        ReceiverExports { receiver: context.receiver("receiver") }
    }

    async fn metrics(call: Call<Self>, batch: Arc<MetricBatch>) -> Result<(), DeliveryError> {
        if call.state().blocks {
            std::future::pending::<()>().await;
        }
        for endpoint in &call.state().endpoints {
            call.vitals(endpoint).record(Outcome::Ok, 1);
        }
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let number = batch.values[0] as u64;
        let mut stages = STAGES.try_with(|stages| stages.lock().clone()).unwrap_or_default();
        stages.push(call.state().tag.clone());
        call.instance().book.delivered.lock().entry(number).or_default().push(stages);
        Ok(())
    }

    async fn serve(call: Call<Self>, request: Request) -> Response {
        let body = format!("{} {} {}", call.node(), call.state().tag, request.uri().path());
        Response::new(body.into())
    }

    async fn run(instance: Arc<Self::Instance>, context: RunContext<Self>) -> Result<(), RunError> {
        instance.started.fetch_add(1, Ordering::SeqCst);
        if context.enter().state().ends {
            return Err(RunError::new("asked to end"));
        }
        context.stopped().await;
        instance.ended.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    fn vital_groups(state: &Self::State) -> Vec<VitalGroup> {
        let group =
            |endpoint: &String| VitalGroup { key: endpoint.clone(), fingerprint: endpoint.len() as u64 };
        state.endpoints.iter().map(group).collect()
    }
}

/// `test.values`: exports what it is told to.
pub(super) struct Values;

#[derive(Clone, PartialEq, Debug, Arguments)]
pub(super) struct ValuesArguments {
    /// What it exports at first.
    initial: String,
}

#[derive(Clone, PartialEq, Debug, Exports)]
pub(super) struct ValuesExports {
    /// The present value.
    pub(super) value: String,
}

pub(super) struct ValuesInstance {
    told: watch::Sender<Option<String>>,
}

impl ValuesInstance {
    pub(super) fn tell(&self, value: &str) {
        self.told.send_replace(Some(value.to_owned()));
    }
}

impl Component for Values {
    const NAME: &'static str = "test.values";
    const STABILITY: Stability = Stability::GenerallyAvailable;

    type Arguments = ValuesArguments;
    type Exports = ValuesExports;
    type Instance = ValuesInstance;
    type State = String;

    fn instance(_: &Self::Arguments, _: &InstanceContext) -> Result<Self::Instance, PrepareError> {
        Ok(ValuesInstance { told: watch::Sender::new(None) })
    }

    async fn state(
        arguments: Arc<Self::Arguments>,
        _: Arc<Self::Instance>,
        _: StateContext,
    ) -> Result<Self::State, PrepareError> {
        Ok(arguments.initial.clone())
    }

    fn exports(instance: &Self::Instance, state: &Self::State, _: &ExportContext) -> Self::Exports {
        let told = instance.told.borrow().clone();
        ValuesExports { value: told.unwrap_or_else(|| state.clone()) }
    }

    async fn run(instance: Arc<Self::Instance>, context: RunContext<Self>) -> Result<(), RunError> {
        let mut told = instance.told.subscribe();
        // What was told before the task began counts too.
        told.mark_changed();
        loop {
            tokio::select! {
                () = context.draining() => return Ok(()),
                changed = told.changed() => if changed.is_err() { return Ok(()) },
            }
            if let Some(value) = told.borrow_and_update().clone() {
                context.set_exports(&ValuesExports { value });
            }
        }
    }
}

/// `test.consumer`: uses a value.
pub(super) struct Consumer;

#[derive(Clone, PartialEq, Debug, Arguments)]
pub(super) struct ConsumerArguments {
    /// The value.
    input: String,
    /// Tells configurations apart.
    tag: String,
}

#[derive(Default)]
pub(super) struct ConsumerInstance {
    /// How many states were built.
    pub(super) states: AtomicU64,
    pub(super) woken: Notify,
}

impl Component for Consumer {
    const NAME: &'static str = "test.consumer";
    const STABILITY: Stability = Stability::GenerallyAvailable;

    type Arguments = ConsumerArguments;
    type Exports = ValuesExports;
    type Instance = ConsumerInstance;
    type State = String;

    fn instance(_: &Self::Arguments, _: &InstanceContext) -> Result<Self::Instance, PrepareError> {
        Ok(ConsumerInstance::default())
    }

    async fn state(
        arguments: Arc<Self::Arguments>,
        instance: Arc<Self::Instance>,
        _: StateContext,
    ) -> Result<Self::State, PrepareError> {
        if arguments.input == "bad" {
            return Err(PrepareError::invalid("the input is bad"));
        }
        instance.states.fetch_add(1, Ordering::SeqCst);
        Ok(arguments.input.clone())
    }

    fn exports(_: &Self::Instance, state: &Self::State, _: &ExportContext) -> Self::Exports {
        ValuesExports { value: state.to_uppercase() }
    }

    async fn run(instance: Arc<Self::Instance>, context: RunContext<Self>) -> Result<(), RunError> {
        loop {
            tokio::select! {
                () = context.draining() => return Ok(()),
                () = context.changed() => instance.woken.notify_one(),
            }
        }
    }
}

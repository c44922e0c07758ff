//! `testing.fault`: passes metrics on, and misbehaves on command. What it does wrong begins some time after its task starts,
//! so that a configuration with it can pass preparation and die under probation.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use invar_syntax::arguments::{ArgumentEnum, Arguments, Exports};
use invar_syntax::schema::Stability;
use invar_syntax::value::Value;
use invar_telemetry::batch::MetricBatch;
use parking_lot::Mutex;

use crate::call::Call;
use crate::component::Component;
use crate::context::{ExportContext, InstanceContext, StateContext};
use crate::delivery::{DeliveryError, PrepareError, RunError};
use crate::receiver::MetricsReceiver;
use crate::run::RunContext;

/// How often leaked memory grows.
const LEAK_STEP: Duration = Duration::from_millis(100);

/// The component type.
#[derive(Debug)]
pub struct TestingFault;

/// Where it panics.
#[derive(ArgumentEnum, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PanicPlace {
    /// While its state is prepared.
    #[argument(name = "state")]
    State,
    /// In its task.
    #[default]
    #[argument(name = "run")]
    Run,
    /// When it is given metrics.
    #[argument(name = "metrics")]
    Metrics,
}

/// What the block says. Durations are counted from the start of the task or, if later, from the swap that set them.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct TestingFaultArguments {
    /// Where metrics go.
    pub forward_to: Vec<MetricsReceiver>,
    /// Panics after this time; never if not set.
    pub panic_after: Option<Duration>,
    /// Where it panics: `state` (at once), `run` or `metrics`.
    #[argument(default = "\"run\"")]
    pub panic_in: PanicPlace,
    /// Refuses to be prepared, with this message.
    pub fail_prepare: String,
    /// Holds on to this many bytes more every second.
    pub leak_bytes_per_second: u64,
    /// Aborts the process after this time; never if not set.
    pub abort_after: Option<Duration>,
    /// How long its preparation takes.
    pub slow_prepare: Duration,
    /// Only there to be changed.
    pub revision: String,
}

/// What other blocks see.
#[derive(Exports, Clone, Debug, PartialEq)]
pub struct TestingFaultExports {
    /// Passes metrics on to `forward_to`.
    pub receiver: MetricsReceiver,
}

/// What was leaked, and whether metrics panic now; outlives configurations.
#[derive(Debug, Default)]
pub struct Instance {
    leaked: Mutex<Vec<Vec<u8>>>,
    leaked_bytes: AtomicU64,
    armed: AtomicBool,
}

impl Component for TestingFault {
    const NAME: &'static str = "testing.fault";
    const STABILITY: Stability = Stability::GenerallyAvailable;
    const SUMMARY: &'static str = "Passes metrics on and misbehaves on command, for tests.";

    type Arguments = TestingFaultArguments;
    type Exports = TestingFaultExports;
    type Instance = Instance;
    type State = TestingFaultArguments;

    fn instance(_arguments: &Self::Arguments, _context: &InstanceContext) -> Result<Instance, PrepareError> {
        Ok(Instance::default())
    }

    async fn state(
        arguments: Arc<Self::Arguments>,
        _instance: Arc<Instance>,
        _context: StateContext,
    ) -> Result<TestingFaultArguments, PrepareError> {
        if !arguments.slow_prepare.is_zero() {
            tokio::time::sleep(arguments.slow_prepare).await;
        }
        if !arguments.fail_prepare.is_empty() {
            return Err(PrepareError::resource(arguments.fail_prepare.clone()));
        }
        assert!(
            arguments.panic_after.is_none() || arguments.panic_in != PanicPlace::State,
            "told to panic while it is prepared"
        );
        Ok((*arguments).clone())
    }

    fn exports(_instance: &Instance, _state: &Self::State, context: &ExportContext) -> TestingFaultExports {
        TestingFaultExports { receiver: context.receiver("receiver") }
    }

    async fn metrics(call: Call<Self>, batch: Arc<MetricBatch>) -> Result<(), DeliveryError> {
        let arguments = call.state();
        if arguments.panic_after.is_some() && arguments.panic_in == PanicPlace::Metrics {
            assert!(!call.instance().armed.load(Ordering::Relaxed), "told to panic when given metrics");
        }
        call.flow().forward_metrics(batch).await
    }

    async fn run(instance: Arc<Instance>, context: RunContext<Self>) -> Result<(), RunError> {
        loop {
            instance.armed.store(false, Ordering::Relaxed);
            let arguments = Arc::clone(context.enter().state());
            tokio::select! {
                () = context.stopped() => return Ok(()),
                () = context.changed() => {}
                () = misbehave(&instance, &arguments) => {}
            }
        }
    }

    fn debug_info(instance: &Instance) -> Value {
        let bytes = instance.leaked_bytes.load(Ordering::Relaxed);
        Value::object([("leaked_bytes", Value::from(i64::try_from(bytes).unwrap_or(i64::MAX)))])
    }
}

/// Does what the arguments say, each at its time, until it is dropped.
async fn misbehave(instance: &Instance, arguments: &TestingFaultArguments) {
    let panic = async {
        after(arguments.panic_after).await;
        match arguments.panic_in {
            PanicPlace::Run => panic!("told to panic in its task"),
            PanicPlace::Metrics => instance.armed.store(true, Ordering::Relaxed),
            PanicPlace::State => {}
        }
        std::future::pending::<()>().await;
    };
    let abort = async {
        after(arguments.abort_after).await;
        std::process::abort();
    };
    let leak = async {
        if arguments.leak_bytes_per_second == 0 {
            std::future::pending::<()>().await;
        }
        let steps = u64::try_from(LEAK_STEP.as_millis()).unwrap_or(1);
        let size = (arguments.leak_bytes_per_second * steps / 1000).max(1);
        loop {
            tokio::time::sleep(LEAK_STEP).await;
            // Written, so that it counts as used and not only as reserved.
            instance.leaked.lock().push(vec![1; usize::try_from(size).unwrap_or(usize::MAX)]);
            instance.leaked_bytes.fetch_add(size, Ordering::Relaxed);
        }
    };
    tokio::join!(panic, abort, leak);
}

async fn after(time: Option<Duration>) {
    match time {
        Some(time) => tokio::time::sleep(time).await,
        None => std::future::pending().await,
    }
}

//! `testcomponents.pulse` and `testcomponents.summation_receiver`: ones, and their sum.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use invar_syntax::arguments::{Arguments, Exports};
use invar_syntax::schema::Stability;
use invar_syntax::value::Value;

use super::receiver::{Collected, TestReceiver};
use crate::component::Component;
use crate::context::{Check, ExportContext, InstanceContext, StateContext};
use crate::delivery::{PrepareError, RunError};
use crate::run::RunContext;

/// The component type that sends ones.
#[derive(Debug)]
pub struct TestPulse;

/// What the block says.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct TestPulseArguments {
    /// How often.
    #[argument(required)]
    pub frequency: Duration,
    /// How many; without end if zero.
    #[argument(required)]
    pub max: u64,
    /// Where to.
    pub forward_to: Vec<TestReceiver>,
}

impl Component for TestPulse {
    const NAME: &'static str = "testcomponents.pulse";
    const SUMMARY: &'static str = "Sends ones at an interval, for tests.";
    const STABILITY: Stability = Stability::PublicPreview;

    type Arguments = TestPulseArguments;
    type Exports = ();
    type Instance = AtomicU64;
    type State = TestPulseArguments;

    fn check(arguments: &Self::Arguments, check: &mut Check) {
        if arguments.frequency.is_zero() {
            check.error("frequency", "frequency must not be 0");
        }
    }

    fn instance(_arguments: &Self::Arguments, _context: &InstanceContext) -> Result<AtomicU64, PrepareError> {
        Ok(AtomicU64::new(0))
    }

    async fn state(
        arguments: Arc<Self::Arguments>,
        _instance: Arc<AtomicU64>,
        _context: StateContext,
    ) -> Result<TestPulseArguments, PrepareError> {
        Ok(TestPulseArguments::clone(&arguments))
    }

    fn exports(_instance: &AtomicU64, _state: &TestPulseArguments, _context: &ExportContext) {}

    async fn run(instance: Arc<AtomicU64>, context: RunContext<Self>) -> Result<(), RunError> {
        loop {
            let state = Arc::clone(context.enter().state());
            tokio::select! {
                () = context.stopped() => return Ok(()),
                () = context.changed() => continue,
                () = tokio::time::sleep(state.frequency) => {}
            }
            if state.max == 0 || instance.load(Ordering::Relaxed) < state.max {
                instance.fetch_add(1, Ordering::Relaxed);
                for receiver in &state.forward_to {
                    receiver.receive(Value::from(1_i64));
                }
            }
        }
    }
}

/// The component type that adds what it receives.
#[derive(Debug)]
pub struct TestSummationReceiver;

/// What it exports.
#[derive(Exports, Clone, Debug, PartialEq)]
pub struct TestReceiverExports {
    /// Takes values.
    pub receiver: TestReceiver,
}

impl Component for TestSummationReceiver {
    const NAME: &'static str = "testcomponents.summation_receiver";
    const SUMMARY: &'static str = "Adds up the numbers it is sent, for tests.";
    const STABILITY: Stability = Stability::PublicPreview;

    type Arguments = ();
    type Exports = TestReceiverExports;
    type Instance = Arc<Collected>;
    type State = ();

    fn instance((): &(), _context: &InstanceContext) -> Result<Arc<Collected>, PrepareError> {
        Ok(Arc::default())
    }

    async fn state(
        _arguments: Arc<()>,
        _instance: Arc<Arc<Collected>>,
        _context: StateContext,
    ) -> Result<(), PrepareError> {
        Ok(())
    }

    fn exports(instance: &Arc<Collected>, (): &(), _context: &ExportContext) -> TestReceiverExports {
        TestReceiverExports { receiver: TestReceiver(Arc::clone(instance)) }
    }

    fn debug_info(instance: &Arc<Collected>) -> Value {
        let numbers = instance.values();
        let numbers = numbers.iter().filter_map(|value| match value {
            Value::Number(number) => number.truncated().and_then(|wide| i64::try_from(wide).ok()),
            _ => None,
        });
        Value::from(numbers.sum::<i64>())
    }
}

//! `testcomponents.count` and `testcomponents.tick`: exports that change by themselves.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use invar_syntax::arguments::{Arguments, Exports};
use invar_syntax::schema::Stability;

use crate::component::Component;
use crate::context::{Check, ExportContext, InstanceContext, StateContext};
use crate::delivery::{PrepareError, RunError};
use crate::run::RunContext;

/// The component type that counts.
#[derive(Debug)]
pub struct TestCount;

/// What the block says.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct TestCountArguments {
    /// How often one is added.
    #[argument(required)]
    pub frequency: Duration,
    /// Where it ends; never if zero.
    #[argument(required)]
    pub max: i64,
}

/// What it exports.
#[derive(Exports, Clone, Debug, PartialEq)]
pub struct TestCountExports {
    /// The number.
    pub count: i64,
}

/// The number, and how often one is added until where.
#[derive(Debug, Default)]
pub struct Counted(AtomicI64);

/// How often, and until where.
#[derive(Debug)]
pub struct Pace {
    frequency: Duration,
    max: i64,
}

impl Component for TestCount {
    const NAME: &'static str = "testcomponents.count";
    const SUMMARY: &'static str = "Counts, for tests.";
    const STABILITY: Stability = Stability::PublicPreview;

    type Arguments = TestCountArguments;
    type Exports = TestCountExports;
    type Instance = Counted;
    type State = Pace;

    fn check(arguments: &Self::Arguments, check: &mut Check) {
        if arguments.frequency.is_zero() {
            check.error("frequency", "frequency must not be 0");
        }
    }

    fn instance(_arguments: &Self::Arguments, _context: &InstanceContext) -> Result<Counted, PrepareError> {
        Ok(Counted::default())
    }

    async fn state(
        arguments: Arc<Self::Arguments>,
        _instance: Arc<Counted>,
        _context: StateContext,
    ) -> Result<Pace, PrepareError> {
        Ok(Pace { frequency: arguments.frequency, max: arguments.max })
    }

    fn exports(instance: &Counted, _state: &Pace, _context: &ExportContext) -> TestCountExports {
        TestCountExports { count: instance.0.load(Ordering::Relaxed) }
    }

    async fn run(instance: Arc<Counted>, context: RunContext<Self>) -> Result<(), RunError> {
        loop {
            let (frequency, max) = {
                let entry = context.enter();
                (entry.state().frequency, entry.state().max)
            };
            tokio::select! {
                () = context.stopped() => return Ok(()),
                () = context.changed() => continue,
                () = tokio::time::sleep(frequency) => {}
            }
            if max == 0 || instance.0.load(Ordering::Relaxed) < max {
                let count = instance.0.fetch_add(1, Ordering::Relaxed) + 1;
                context.set_exports(&TestCountExports { count });
            }
        }
    }
}

/// The component type that tells the time.
#[derive(Debug)]
pub struct TestTick;

/// What the block says.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct TestTickArguments {
    /// How often the time is told.
    #[argument(required)]
    pub frequency: Duration,
}

/// What it exports.
#[derive(Exports, Clone, Debug, PartialEq)]
pub struct TestTickExports {
    /// The time of the last tick.
    pub tick_time: String,
}

impl Component for TestTick {
    const NAME: &'static str = "testcomponents.tick";
    const SUMMARY: &'static str = "Exports the time at an interval, for tests.";
    const STABILITY: Stability = Stability::PublicPreview;

    type Arguments = TestTickArguments;
    type Exports = TestTickExports;
    type Instance = ();
    type State = Duration;

    fn check(arguments: &Self::Arguments, check: &mut Check) {
        if arguments.frequency.is_zero() {
            check.error("frequency", "frequency must not be 0");
        }
    }

    fn instance(_arguments: &Self::Arguments, _context: &InstanceContext) -> Result<(), PrepareError> {
        Ok(())
    }

    async fn state(
        arguments: Arc<Self::Arguments>,
        _instance: Arc<()>,
        _context: StateContext,
    ) -> Result<Duration, PrepareError> {
        Ok(arguments.frequency)
    }

    fn exports(_instance: &(), _state: &Duration, _context: &ExportContext) -> TestTickExports {
        TestTickExports { tick_time: String::new() }
    }

    async fn run(_instance: Arc<()>, context: RunContext<Self>) -> Result<(), RunError> {
        loop {
            let frequency = **context.enter().state();
            tokio::select! {
                () = context.stopped() => return Ok(()),
                () = context.changed() => continue,
                () = tokio::time::sleep(frequency) => {}
            }
            context.set_exports(&TestTickExports { tick_time: jiff::Timestamp::now().to_string() });
        }
    }
}

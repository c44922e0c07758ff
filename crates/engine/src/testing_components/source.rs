//! `testing.source`: numbered samples at a steady rate. Each is delivered before the next is made, and one that is refused for
//! the moment is offered again, so that a receiver that saw 1 to n without a gap saw everything.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use invar_syntax::arguments::Arguments;
use invar_syntax::schema::Stability;
use invar_syntax::value::Value;
use invar_telemetry::batch::{MetricBatch, Timestamps};
use invar_telemetry::{Labels, Series, SeriesList};
use jiff::Timestamp;

use crate::component::Component;
use crate::context::{Check, ExportContext, InstanceContext, StateContext};
use crate::delivery::{DeliveryError, PrepareError, RunError};
use crate::receiver::MetricsReceiver;
use crate::run::RunContext;
use crate::vitals::Outcome;

/// The component type.
#[derive(Debug)]
pub struct TestingSource;

/// What the block says.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct TestingSourceArguments {
    /// Where samples go.
    #[argument(required)]
    pub forward_to: Vec<MetricsReceiver>,
    /// How often a batch is made.
    #[argument(default = "\"100ms\"")]
    pub interval: Duration,
    /// How many samples a batch has.
    #[argument(default = "1")]
    pub samples: u32,
    /// The name of the metric.
    #[argument(default = "\"testing_samples\"")]
    pub metric: String,
    /// Only there to be changed.
    pub revision: String,
}

/// The number of the last sample; outlives configurations.
#[derive(Debug, Default)]
pub struct Instance {
    last: AtomicU64,
    delivered: AtomicU64,
}

/// The series of a batch and the pace.
#[derive(Debug)]
pub struct State {
    interval: Duration,
    series: Arc<SeriesList>,
}

impl Component for TestingSource {
    const NAME: &'static str = "testing.source";
    const STABILITY: Stability = Stability::GenerallyAvailable;
    const SUMMARY: &'static str = "Makes numbered samples at a steady rate, for tests.";

    type Arguments = TestingSourceArguments;
    type Exports = ();
    type Instance = Instance;
    type State = State;

    fn check(arguments: &Self::Arguments, check: &mut Check) {
        if arguments.interval.is_zero() {
            check.error("interval", "must be greater than 0");
        }
        if arguments.samples == 0 {
            check.error("samples", "must be greater than 0");
        }
    }

    fn instance(_arguments: &Self::Arguments, _context: &InstanceContext) -> Result<Instance, PrepareError> {
        Ok(Instance::default())
    }

    async fn state(
        arguments: Arc<Self::Arguments>,
        _instance: Arc<Instance>,
        context: StateContext,
    ) -> Result<State, PrepareError> {
        let series: Vec<Series> = (0..arguments.samples)
            .map(|index| {
                let index = index.to_string();
                let labels: Labels = [
                    ("__name__", arguments.metric.as_str()),
                    ("index", &index),
                    ("source", context.node().as_str()),
                ]
                .into_iter()
                .collect();
                Series::new(&labels)
            })
            .collect();
        Ok(State { interval: arguments.interval, series: SeriesList::new(series) })
    }

    fn exports(_instance: &Instance, _state: &State, _context: &ExportContext) {}

    async fn run(instance: Arc<Instance>, context: RunContext<Self>) -> Result<(), RunError> {
        let vitals = context.vitals("");
        loop {
            let interval = context.enter().state().interval;
            tokio::select! {
                () = context.stopped() => return Ok(()),
                () = context.changed() => continue,
                () = tokio::time::sleep(interval) => {}
            }
            let number = instance.last.fetch_add(1, Ordering::Relaxed) + 1;
            // Offered until it is taken, across swaps: numbers have no gaps.
            loop {
                let result = {
                    let entry = context.enter();
                    let series = Arc::clone(&entry.state().series);
                    let samples = series.len() as u64;
                    let batch = batch(series, number);
                    let attempt = vitals.attempt();
                    let result = entry.flow().forward_metrics(Arc::new(batch)).await;
                    let outcome = match &result {
                        Ok(()) => Outcome::Ok,
                        Err(DeliveryError::Permanent { .. }) => Outcome::Permanent,
                        Err(_) => Outcome::Retryable,
                    };
                    attempt.finish(outcome, samples);
                    result
                };
                match result {
                    Ok(()) => {
                        instance.delivered.fetch_add(1, Ordering::Relaxed);
                        break;
                    }
                    Err(DeliveryError::Permanent { .. }) => break,
                    Err(DeliveryError::Cancelled) => {}
                    Err(DeliveryError::Retryable { after, .. }) => {
                        let pause = after.unwrap_or(Duration::from_millis(20));
                        tokio::select! {
                            () = context.draining() => return Ok(()),
                            () = tokio::time::sleep(pause) => {}
                        }
                    }
                }
            }
        }
    }

    fn debug_info(instance: &Instance) -> Value {
        Value::object([
            ("last", Value::from(instance.last.load(Ordering::Relaxed) as i64)),
            ("delivered", Value::from(instance.delivered.load(Ordering::Relaxed) as i64)),
        ])
    }
}

fn batch(series: Arc<SeriesList>, number: u64) -> MetricBatch {
    let values = vec![number as f64; series.len()];
    MetricBatch {
        series,
        values,
        timestamps: Timestamps::One(Timestamp::now().as_millisecond()),
        histograms: Vec::new(),
        exemplars: Vec::new(),
        metadata: Vec::new(),
        created: Vec::new(),
    }
}

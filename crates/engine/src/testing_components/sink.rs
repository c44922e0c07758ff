//! `testing.sink`: counts what it is given and notices gaps and duplicates in numbered samples. On command, by its arguments or
//! by a request to `/api/v0/component/<node>/mode`, it blocks, answers late, or refuses.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use invar_syntax::arguments::{ArgumentEnum, Arguments, Exports};
use invar_syntax::schema::Stability;
use invar_syntax::value::Value;
use invar_telemetry::batch::MetricBatch;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::call::Call;
use crate::component::Component;
use crate::context::{ExportContext, InstanceContext, StateContext};
use crate::delivery::{DeliveryError, PrepareError};
use crate::receiver::MetricsReceiver;
use crate::vitals::Outcome;
use crate::{Request, Response};

/// The component type.
#[derive(Debug)]
pub struct TestingSink;

/// How the sink answers.
#[derive(ArgumentEnum, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SinkMode {
    /// Takes everything.
    #[default]
    #[argument(name = "ok")]
    Ok,
    /// Refuses for the moment.
    #[argument(name = "retryable")]
    Retryable,
    /// Refuses for good.
    #[argument(name = "permanent")]
    Permanent,
    /// Answers nothing until the mode changes.
    #[argument(name = "block")]
    Block,
}

/// What the block says.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct TestingSinkArguments {
    /// How it answers, until a request says otherwise: `ok`, `retryable`, `permanent` or `block`.
    #[argument(default = "\"ok\"")]
    pub mode: SinkMode,
    /// How long it takes to answer.
    pub delay: Duration,
    /// Only there to be changed.
    pub revision: String,
}

/// What other blocks see.
#[derive(Exports, Clone, Debug, PartialEq)]
pub struct TestingSinkExports {
    /// Where samples are sent.
    pub receiver: MetricsReceiver,
}

/// What has been received; outlives configurations.
#[derive(Debug)]
pub struct Instance {
    counts: Mutex<Counts>,
    /// Set by a request; wins over the arguments.
    commanded: watch::Sender<Option<SinkMode>>,
}

/// What a sink has counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct SinkCounts {
    /// Batches taken.
    pub batches: u64,
    /// Samples taken.
    pub samples: u64,
    /// Batches refused.
    pub refused: u64,
    /// Samples whose number was not above the last one of their series.
    pub duplicates: u64,
    /// Numbers that never came.
    pub gaps: u64,
}

#[derive(Debug, Default)]
struct Counts {
    counts: SinkCounts,
    last: HashMap<invar_telemetry::Series, u64>,
}

impl Component for TestingSink {
    const NAME: &'static str = "testing.sink";
    const STABILITY: Stability = Stability::GenerallyAvailable;
    const SUMMARY: &'static str = "Counts samples and notices gaps and duplicates, for tests.";

    type Arguments = TestingSinkArguments;
    type Exports = TestingSinkExports;
    type Instance = Instance;
    type State = TestingSinkArguments;

    fn instance(_arguments: &Self::Arguments, _context: &InstanceContext) -> Result<Instance, PrepareError> {
        Ok(Instance { counts: Mutex::new(Counts::default()), commanded: watch::Sender::new(None) })
    }

    async fn state(
        arguments: Arc<Self::Arguments>,
        _instance: Arc<Instance>,
        _context: StateContext,
    ) -> Result<TestingSinkArguments, PrepareError> {
        Ok((*arguments).clone())
    }

    fn exports(_instance: &Instance, _state: &Self::State, context: &ExportContext) -> TestingSinkExports {
        TestingSinkExports { receiver: context.receiver("receiver") }
    }

    async fn metrics(call: Call<Self>, batch: Arc<MetricBatch>) -> Result<(), DeliveryError> {
        let attempt = call.vitals("").attempt();
        let result = answer(&call, &batch).await;
        let outcome = match &result {
            Ok(()) => Outcome::Ok,
            Err(DeliveryError::Permanent { .. }) => Outcome::Permanent,
            Err(_) => Outcome::Retryable,
        };
        attempt.finish(outcome, batch.values.len() as u64);
        result
    }

    /// `GET` answers the counts as JSON; `POST …/mode` with a mode as its body changes the mode, an empty body gives it back to
    /// the arguments.
    async fn serve(call: Call<Self>, request: Request) -> Response {
        let instance = call.instance();
        if request.method() != http::Method::POST {
            let counts = instance.counts();
            return respond(StatusCode::OK, serde_json::to_vec(&counts).unwrap_or_default());
        }
        let mode = match request.body().trim_ascii() {
            b"" => None,
            b"ok" => Some(SinkMode::Ok),
            b"retryable" => Some(SinkMode::Retryable),
            b"permanent" => Some(SinkMode::Permanent),
            b"block" => Some(SinkMode::Block),
            _ => return respond(StatusCode::BAD_REQUEST, b"unknown mode\n".to_vec()),
        };
        instance.commanded.send_replace(mode);
        respond(StatusCode::NO_CONTENT, Vec::new())
    }

    fn debug_info(instance: &Instance) -> Value {
        let counts = instance.counts();
        let number = |count: u64| Value::from(i64::try_from(count).unwrap_or(i64::MAX));
        Value::object([
            ("batches", number(counts.batches)),
            ("samples", number(counts.samples)),
            ("refused", number(counts.refused)),
            ("duplicates", number(counts.duplicates)),
            ("gaps", number(counts.gaps)),
        ])
    }
}

async fn answer(call: &Call<TestingSink>, batch: &MetricBatch) -> Result<(), DeliveryError> {
    let (instance, arguments) = (call.instance(), call.state());
    if !arguments.delay.is_zero() {
        tokio::time::sleep(arguments.delay).await;
    }
    let mut commanded = instance.commanded.subscribe();
    loop {
        let mode = commanded.borrow_and_update().unwrap_or(arguments.mode);
        match mode {
            SinkMode::Ok => {
                instance.take(batch);
                return Ok(());
            }
            SinkMode::Retryable => {
                instance.counts.lock().counts.refused += 1;
                return Err(DeliveryError::retryable("the sink was told to refuse for the moment"));
            }
            SinkMode::Permanent => {
                instance.counts.lock().counts.refused += 1;
                return Err(DeliveryError::permanent("the sink was told to refuse"));
            }
            SinkMode::Block => tokio::select! {
                () = call.flow().cancelled() => return Err(DeliveryError::Cancelled),
                changed = commanded.changed() => {
                    if changed.is_err() {
                        return Err(DeliveryError::Cancelled);
                    }
                }
            },
        }
    }
}

fn respond(status: StatusCode, body: Vec<u8>) -> Response {
    let mut response = Response::new(Bytes::from(body));
    *response.status_mut() = status;
    response
}

// === impl Instance ===

impl Instance {
    /// What it has counted so far.
    pub fn counts(&self) -> SinkCounts {
        self.counts.lock().counts
    }

    fn take(&self, batch: &MetricBatch) {
        let mut counts = self.counts.lock();
        let Counts { counts, last } = &mut *counts;
        counts.batches += 1;
        counts.samples += batch.values.len() as u64;
        for (series, value) in batch.series.iter().zip(&batch.values) {
            let number = *value as u64;
            let previous = last.entry(series.clone()).or_insert(number.saturating_sub(1));
            if number <= *previous {
                counts.duplicates += 1;
            } else {
                counts.gaps += number - *previous - 1;
                *previous = number;
            }
        }
    }
}

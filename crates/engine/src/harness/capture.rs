//! The component that keeps what the component under test forwards.

use std::sync::Arc;

use invar_syntax::arguments::Exports;
use invar_syntax::schema::Stability;
use invar_telemetry::MetricBatch;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::call::Call;
use crate::component::Component;
use crate::context::{ExportContext, InstanceContext, StateContext};
use crate::delivery::{DeliveryError, PrepareError};
use crate::receiver::MetricsReceiver;

/// What the capture answers to a batch.
type Answer = Box<dyn Fn(&MetricBatch) -> Result<(), DeliveryError> + Send + Sync>;

/// What was forwarded, and what to answer.
pub(super) struct CaptureBook {
    batches: watch::Sender<Vec<Arc<MetricBatch>>>,
    answer: Mutex<Arc<Answer>>,
}

/// `harness.capture`.
pub(super) struct Capture;

/// What the capture exports.
#[derive(Clone, PartialEq, Debug, Exports)]
pub(super) struct CaptureExports {
    /// Keeps what is forwarded to it.
    receiver: MetricsReceiver,
}

// === impl CaptureBook ===

impl Default for CaptureBook {
    fn default() -> Self {
        let answer: Answer = Box::new(|_| Ok(()));
        Self { batches: watch::Sender::default(), answer: Mutex::new(Arc::new(answer)) }
    }
}

impl CaptureBook {
    pub(super) fn take(&self) -> Vec<Arc<MetricBatch>> {
        self.batches.send_replace(Vec::new())
    }

    pub(super) fn len(&self) -> usize {
        self.batches.borrow().len()
    }

    pub(super) async fn wait_for(&self, count: usize) {
        let mut batches = self.batches.subscribe();
        // The sender lives in this book: waiting cannot fail.
        let _closed = batches.wait_for(|batches| batches.len() >= count).await;
    }

    pub(super) fn answer_with(&self, answer: Answer) {
        *self.answer.lock() = Arc::new(answer);
    }

    fn keep(&self, batch: Arc<MetricBatch>) -> Result<(), DeliveryError> {
        let answer = Arc::clone(&self.answer.lock());
        answer(&batch)?;
        self.batches.send_modify(|batches| batches.push(batch));
        Ok(())
    }
}

// === impl Capture ===

impl Component for Capture {
    const NAME: &'static str = "harness.capture";
    const STABILITY: Stability = Stability::Experimental;

    type Arguments = ();
    type Exports = CaptureExports;
    type Instance = Arc<CaptureBook>;
    type State = ();

    fn instance(_: &Self::Arguments, context: &InstanceContext) -> Result<Self::Instance, PrepareError> {
        context.services().get().ok_or_else(|| PrepareError::invalid("runs in a harness only"))
    }

    async fn state(_: Arc<()>, _: Arc<Self::Instance>, _: StateContext) -> Result<Self::State, PrepareError> {
        Ok(())
    }

    fn exports(_: &Self::Instance, _: &Self::State, context: &ExportContext) -> Self::Exports {
        CaptureExports { receiver: context.receiver("receiver") }
    }

    async fn metrics(call: Call<Self>, batch: Arc<MetricBatch>) -> Result<(), DeliveryError> {
        call.instance().keep(batch)
    }
}

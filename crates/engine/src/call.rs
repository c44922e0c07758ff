//! A call of one component by another, or by a listener: what the callee gets, and how its own output is routed under the
//! generation it was called with.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::join_all;
use invar_telemetry::MetricBatch;

use crate::component::Component;
use crate::definition::typed;
use crate::delivery::DeliveryError;
use crate::generation::{Occupant, Output, Slot};
use crate::instance::InstanceCell;
use crate::lease::Lease;
use crate::node::NodeId;
use crate::tap::TapEvent;
use crate::vitals::VitalCounters;
use crate::{Request, Response};

/// A data call or request, with the instance and the state it runs on.
pub struct Call<C: Component> {
    instance: Arc<C::Instance>,
    state: Arc<C::State>,
    cell: Arc<InstanceCell>,
    flow: Flow,
    port: &'static str,
}

/// A batch's way through one generation, standing at one node. Clones share the lease on the generation; keep a flow no longer
/// than the batch.
#[derive(Clone)]
pub struct Flow {
    lease: Arc<Lease>,
    slot: u32,
}

// === impl Call ===

impl<C: Component> Call<C> {
    pub(crate) fn under(flow: Flow, port: &'static str) -> Option<Self> {
        let unit = Arc::clone(flow.standing().unit()?);
        Some(Self {
            instance: typed(unit.cell.instance()),
            state: typed(&unit.state),
            cell: Arc::clone(&unit.cell),
            flow,
            port,
        })
    }

    /// What outlives generations.
    #[must_use]
    pub fn instance(&self) -> &Arc<C::Instance> {
        &self.instance
    }

    /// What the arguments mean under the generation of this call.
    #[must_use]
    pub fn state(&self) -> &Arc<C::State> {
        &self.state
    }

    /// The batch's way on from here.
    #[must_use]
    pub fn flow(&self) -> &Flow {
        &self.flow
    }

    /// The port the batch came in by.
    #[must_use]
    pub fn port(&self) -> &'static str {
        self.port
    }

    /// This node.
    #[must_use]
    pub fn node(&self) -> &NodeId {
        self.cell.node()
    }

    /// The counters of one of the node's endpoints or target groups.
    #[must_use]
    pub fn vitals(&self, key: &str) -> Arc<VitalCounters> {
        self.cell.vitals().counters(key)
    }
}

// === impl Flow ===

impl Flow {
    pub(crate) fn new(lease: Arc<Lease>, slot: u32) -> Self {
        Self { lease, slot }
    }

    /// Forwards a batch to every receiver in the node's `forward_to`. All are tried; the error is the one that asks for most:
    /// cancelled, else retryable, else permanent. Failures are counted per receiver.
    ///
    /// # Errors
    /// When at least one receiver did not accept.
    pub async fn forward_metrics(&self, batch: Arc<MetricBatch>) -> Result<(), DeliveryError> {
        match &*self.standing().outputs {
            [] => Ok(()),
            [only] => self.deliver(*only, batch).await,
            outputs => {
                let calls = outputs.iter().map(|output| self.deliver(*output, Arc::clone(&batch)));
                join_all(calls).await.into_iter().fold(Ok(()), gravest)
            }
        }
    }

    /// Whether anything takes what the node forwards.
    #[must_use]
    pub fn has_receivers(&self) -> bool {
        !self.standing().outputs.is_empty()
    }

    /// The id and the epoch of the generation this batch goes through.
    #[must_use]
    pub fn generation(&self) -> (u64, u64) {
        (self.lease.generation().id, self.lease.generation().epoch)
    }

    /// Completes when the generation's time is up: stop waiting and answer [`DeliveryError::Cancelled`].
    pub fn cancelled(&self) -> impl Future<Output = ()> + Send + use<> {
        self.lease.cancellation().clone().cancelled_owned()
    }

    pub(crate) fn standing(&self) -> &Slot {
        self.lease.generation().slot(self.slot)
    }

    /// Calls the metrics port of the slot that `output` leads to.
    pub(crate) async fn deliver(&self, output: Output, batch: Arc<MetricBatch>) -> Result<(), DeliveryError> {
        let next = Self { lease: Arc::clone(&self.lease), slot: output.slot };
        let cell = match &next.standing().place.occupant {
            Occupant::Ready(unit) => Arc::clone(&unit.cell),
            Occupant::Failed(failure) => return Err(DeliveryError::retryable(failure.reason.clone())),
            Occupant::Value(_) => return Err(DeliveryError::permanent("what is called is no component")),
        };
        if cell.is_down() {
            let reason = format!("{} is being restarted", cell.node());
            return Err(DeliveryError::retryable(reason));
        }
        let taps = cell.taps();
        if taps.are_used() {
            let generation = self.lease.generation();
            let from = &generation.graph.node(self.slot).id;
            let event = || TapEvent {
                from: from.clone(),
                to: cell.node().clone(),
                generation: generation.id,
                batch: Arc::clone(&batch),
            };
            taps.show(event, from, cell.node());
        }
        let call = AssertUnwindSafe(cell.definition().metrics(next, output.port, batch)).catch_unwind();
        let result = tokio::select! {
            biased;
            result = call => result,
            () = self.lease.cancellation().cancelled() => Ok(Err(DeliveryError::Cancelled)),
        };
        let result = result.unwrap_or_else(|panic| Err(cell.panicked(&*panic)));
        if result.is_err() {
            cell.count_refusal();
        }
        result
    }

    /// Hands a request to the node this flow stands at.
    pub(crate) async fn serve(self, request: Request) -> Response {
        let Some(unit) = self.standing().unit() else { return unavailable() };
        let cell = Arc::clone(&unit.cell);
        if cell.is_down() {
            return unavailable();
        }
        let cancelled = self.cancelled();
        let call = AssertUnwindSafe(cell.definition().serve(self, request)).catch_unwind();
        tokio::select! {
            biased;
            response = call => response.unwrap_or_else(|panic| {
                cell.panicked(&*panic);
                answer(http::StatusCode::INTERNAL_SERVER_ERROR)
            }),
            () = cancelled => unavailable(),
        }
    }
}

/// Of two outcomes the one that asks most of the caller: re-offer to the next generation, else retry, else give up.
fn gravest(left: Result<(), DeliveryError>, right: Result<(), DeliveryError>) -> Result<(), DeliveryError> {
    let rank = |result: &Result<(), DeliveryError>| match result {
        Ok(()) => 0,
        Err(DeliveryError::Permanent { .. }) => 1,
        Err(DeliveryError::Retryable { .. }) => 2,
        Err(DeliveryError::Cancelled) => 3,
    };
    if rank(&right) > rank(&left) { right } else { left }
}

/// `503 Service Unavailable`, with a hint to come back.
pub(crate) fn unavailable() -> Response {
    let mut response = answer(http::StatusCode::SERVICE_UNAVAILABLE);
    response.headers_mut().insert(http::header::RETRY_AFTER, http::HeaderValue::from_static("5"));
    response
}

/// An answer without a body.
pub(crate) fn answer(status: http::StatusCode) -> Response {
    let mut response = Response::default();
    *response.status_mut() = status;
    response
}

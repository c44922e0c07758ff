//! The task that owns the life of a revision.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::event::EventLog;
use crate::feed::SnapshotFeed;
use crate::handle::{RolloutError, RolloutOptions};
use crate::metrics::RolloutMetrics;
use crate::pipeline::{Pipeline, PlanSummary};
use crate::record::{QuarantineEntry, RevisionRecord};
use crate::status::Status;
use crate::time::Timestamp;

/// A request of the handle.
#[derive(Debug)]
pub(crate) enum Command {
    History(oneshot::Sender<Vec<RevisionRecord>>),
    Plan(oneshot::Sender<Option<PlanSummary>>),
    QuarantineRetry {
        key: String,
        reply: oneshot::Sender<Result<Vec<QuarantineEntry>, RolloutError>>,
    },
    QuarantineClear {
        key: Option<String>,
        reply: oneshot::Sender<Result<Vec<QuarantineEntry>, RolloutError>>,
    },
    Hold {
        by: String,
        reason: String,
        until: Option<Timestamp>,
        reply: oneshot::Sender<()>,
    },
    Unhold {
        by: String,
        reply: oneshot::Sender<bool>,
    },
    Rollback {
        generation: Option<u64>,
        by: String,
        reason: String,
        reply: oneshot::Sender<Result<u64, RolloutError>>,
    },
    Settle(oneshot::Sender<Arc<Status>>),
}

pub(crate) fn spawn<P: Pipeline>(
    _options: RolloutOptions,
    _pipeline: Arc<P>,
    _feed: Arc<dyn SnapshotFeed>,
    _metrics: RolloutMetrics,
    _events: EventLog,
    _requests: mpsc::Receiver<Command>,
    _stop: CancellationToken,
) -> watch::Receiver<Arc<Status>> {
    todo!()
}

//! What the reconciler holds in memory about the candidate under way.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::modules::HeldBack;
use crate::compose::{Composition, ContentDigest};
use crate::handle::RolloutError;
use crate::pipeline::{Failure, Pipeline};
use crate::probation::{Judge, RuleSet};
use crate::settings::QuiesceSettings;
use crate::status::{Reason, RevisionSummary};
use crate::time::Timestamp;

/// Sources changed; waiting for quiet.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) first: Instant,
    pub(super) last: Instant,
    /// The only source that changed is atomic: there is nothing to wait for.
    pub(super) at_once: bool,
}

impl Pending {
    pub(super) fn due(&self, quiesce: &QuiesceSettings) -> Instant {
        if self.at_once { self.last } else { (self.last + quiesce.min).min(self.first + quiesce.max) }
    }
}

/// What the sources want.
pub(super) struct Desired<C> {
    /// What is applied: what is wanted, but with the last good content of modules that are held back.
    pub(super) composition: Arc<Composition>,
    /// Digest of what is wanted.
    pub(super) content: ContentDigest,
    /// Modules whose newest content is not used.
    pub(super) held_back: Vec<HeldBack>,
    /// What is wanted, where that is not what is applied.
    pub(super) wanted: Option<RevisionSummary>,
    /// None until it parsed.
    pub(super) candidate: Option<Arc<C>>,
    pub(super) summary: RevisionSummary,
    pub(super) stage: Stage,
    /// Attempts to prepare it that failed.
    pub(super) attempts: u32,
}

/// Where the desired revision stands.
#[derive(Debug)]
pub(super) enum Stage {
    /// Checked and planned; the gates decide when it is applied.
    Ready,
    /// A gate keeps it back.
    Stopped(Reason),
    /// A module is fetched for the first time; what comes of it makes it be composed again.
    Waiting(Reason),
    /// It never ran.
    Rejected { reason: Reason, retry_at: Option<Instant> },
    /// It is being prepared.
    Preparing,
    /// It is what runs.
    Applied,
}

/// Who wants a revision to run.
#[derive(Debug)]
pub(super) enum Trigger {
    Sources,
    /// An operator, who waits for the answer.
    Operator {
        by: String,
        reason: String,
        reply: oneshot::Sender<Result<u64, RolloutError>>,
    },
}

/// One apply.
pub(super) struct Job<C> {
    pub(super) candidate: Arc<C>,
    pub(super) summary: RevisionSummary,
    /// Number of its record.
    pub(super) sequence: u64,
    /// Name of its manifest.
    pub(super) manifest: String,
    pub(super) trigger: Trigger,
    pub(super) rules: RuleSet,
    pub(super) window: Duration,
    /// Preparations that another cut outdated.
    pub(super) outdated: u32,
    /// Hash of the plan right before the swap.
    pub(super) plan: Option<String>,
    pub(super) started: Instant,
}

/// A preparation under way. Dropping it undoes it.
pub(super) struct Preparing<P: Pipeline> {
    pub(super) job: Job<P::Candidate>,
    /// Never locked: the mutex only makes what is `Send` shareable.
    pub(super) future: Mutex<BoxFuture<'static, Result<P::Prepared, Failure>>>,
}

/// A probation under way.
#[derive(Debug)]
pub(super) struct Watch {
    pub(super) judge: Judge,
    pub(super) cut: Instant,
    pub(super) since: Timestamp,
    pub(super) next_sample: Instant,
    /// It failed and the operator keeps the right to undo it.
    pub(super) failed: Option<String>,
    /// It is good, and that could not be written yet.
    pub(super) commit: Option<PendingCommit>,
}

#[derive(Clone, Debug)]
pub(super) struct PendingCommit {
    pub(super) unproven: bool,
    pub(super) warning: Option<String>,
}

impl Watch {
    pub(super) fn next(&self) -> Option<Instant> {
        self.failed.is_none().then_some(self.next_sample)
    }
}

/// Control state that could not be written.
#[derive(Debug)]
pub(super) struct Unsaved {
    /// It holds a verdict: both heads are written.
    pub(super) verdict: bool,
    pub(super) error: String,
    pub(super) retry_at: Instant,
}

/// Nothing runs; when and what to try next.
#[derive(Debug)]
pub(super) struct ColdStart {
    pub(super) due: Instant,
    /// Times the local configurations failed.
    pub(super) failures: u32,
}

//! The task of one source: when it is asked, what a poll may take, and what its outcome means for the next one.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::budget::Budget;
use super::{Clock, FollowedSource, Shared};
use crate::backoff::{Backoff, Jitter, bounded_interval};
use crate::error::{ErrorClass, Failure, SourceError};
use crate::snapshot::Snapshot;
use crate::source::{Poll, PollContext, Source};
use crate::status::{SourceFailure, SourceState, SourcesState};

/// Polls without anything where something was, until somebody should look.
const MISSING: u32 = 3;
/// Hints come in bursts; one poll answers all of a burst.
const HINT_DEBOUNCE: Duration = Duration::from_millis(100);

pub(super) struct SourceTask {
    source: Arc<dyn Source>,
    requested: watch::Receiver<u64>,
    nudged: watch::Receiver<u64>,
    served: watch::Sender<u64>,
    state: watch::Sender<Arc<SourcesState>>,
    cancellation: CancellationToken,
    budget: Arc<Budget>,
    jitter: Arc<dyn Jitter>,
    clock: Arc<dyn Clock>,
    previous: Option<Arc<Snapshot>>,
    backoff: Backoff,
    /// When the schedule asks next; `None` while stalled.
    next: Option<Instant>,
    /// The server asked us not to come back before `next`.
    told_to_wait: bool,
}

/// Starts the task of a source, which asks for the first time after `first`. Must be called within a runtime.
pub(super) fn spawn(
    shared: &Shared,
    source: Arc<dyn Source>,
    previous: Option<Arc<Snapshot>>,
    first: Duration,
) -> FollowedSource {
    let (requested, nudged, served) = (watch::Sender::new(0), watch::Sender::new(0), watch::Sender::new(0));
    let cancellation = shared.cancellation.child_token();
    let task = SourceTask {
        requested: requested.subscribe(),
        nudged: nudged.subscribe(),
        served: served.clone(),
        state: shared.state.clone(),
        cancellation: cancellation.clone(),
        budget: Arc::clone(&shared.budget),
        jitter: Arc::clone(&shared.jitter),
        clock: Arc::clone(&shared.clock),
        previous,
        backoff: Backoff::default(),
        source: Arc::clone(&source),
        next: Instant::now().checked_add(first),
        told_to_wait: false,
    };
    let task = tokio::spawn(task.run());
    FollowedSource { source, requested, nudged, served, cancellation, task }
}

impl SourceTask {
    async fn run(mut self) {
        let cancellation = self.cancellation.clone();
        let mut hints = self.source.watch();
        loop {
            self.publish_next();
            tokio::select! {
                biased;
                () = cancellation.cancelled() => return,
                () = self.wait(&mut hints) => {}
            }
            let (covers, outcome) = tokio::select! {
                biased;
                () = cancellation.cancelled() => return,
                outcome = self.poll_once() => outcome,
            };
            self.finish(outcome);
            self.served.send_replace(covers);
        }
    }

    /// Waits until it is time to ask. A person is heard always, a hint of the source unless the server wants peace, and a
    /// nudge from elsewhere neither then nor while only a person can help.
    async fn wait(&mut self, hints: &mut Option<watch::Receiver<u64>>) {
        loop {
            tokio::select! {
                biased;
                // An error means that the poller is gone; the cancellation ends the task.
                changed = self.requested.changed() => match changed {
                    Ok(()) => return,
                    Err(_) => return std::future::pending().await,
                },
                Ok(()) = self.nudged.changed() => {
                    if self.next.is_some() && !self.told_to_wait {
                        return;
                    }
                }
                () = hinted(hints) => {
                    if !self.told_to_wait {
                        return;
                    }
                }
                () = sleep_until(self.next) => return,
            }
        }
    }

    /// Waits for its share of the budget and polls; gives the count of requests that the poll covers. A credential that
    /// is refused is made anew, where it can be, and tried once more; after that a permission is what is missing.
    async fn poll_once(&mut self) -> (u64, Outcome) {
        let budget = Arc::clone(&self.budget);
        let share = match self.source.host() {
            Some(host) => Some(budget.share(host).await),
            None => None,
        };
        if share.is_some() {
            budget.start().await;
        }
        let covers = *self.requested.borrow_and_update();
        self.nudged.mark_unchanged();
        self.modify(|state| state.status.polling = true);
        let outcome = self.attempt().await;
        if !outcome.is_refused_credential() || !self.source.renew_credential() {
            return (covers, outcome);
        }
        tracing::info!(source = %self.source.name(), "the credential is not accepted any more; a new one is made");
        if share.is_some() {
            budget.start().await;
        }
        let outcome = match self.attempt().await {
            Outcome::Finished(Err(error)) if error.class == ErrorClass::AuthExpired => {
                Outcome::Finished(Err(SourceError {
                    class: ErrorClass::Forbidden,
                    message: format!("{}; neither is one made a moment ago", error.message),
                    ..error
                }))
            }
            outcome => outcome,
        };
        (covers, outcome)
    }

    /// Polls, for at most twice the time that the source says it takes.
    async fn attempt(&self) -> Outcome {
        let timeout = self.source.timeout(self.previous.is_none());
        let context = PollContext {
            deadline: Instant::now() + timeout,
            cancellation: self.cancellation.child_token(),
            now: self.clock.now(),
        };
        let _cancel_on_exit = context.cancellation.clone().drop_guard();
        let source = Arc::clone(&self.source);
        let previous = self.previous.clone();
        let started = Instant::now();
        let task = tokio::spawn(async move { source.poll(previous.as_deref(), &context).await });
        let _abort_on_exit = AbortOnDrop(task.abort_handle());
        let outcome = match tokio::time::timeout(timeout * 2, task).await {
            Ok(Ok(result)) => Outcome::Finished(result),
            Ok(Err(_)) => Outcome::Finished(Err(Failure::transient("the poll ended in a panic")
                .with_help("this is a defect of the agent; its log says where")
                .of(self.source.name()))),
            Err(_) => Outcome::Aborted(
                Failure::transient(format!("the poll was aborted after {} s", (timeout * 2).as_secs()))
                    .of(self.source.name()),
            ),
        };
        let took = started.elapsed();
        self.modify(|state| state.status.spent += took);
        outcome
    }

    /// Publishes the outcome and settles when to ask next.
    fn finish(&mut self, outcome: Outcome) {
        let (wall, now) = (self.clock.now(), Instant::now());
        // Asked after the poll: a source that is read once knows only now that it was, and a server has now said how
        // often it wants to be asked.
        let interval = bounded_interval(self.source.interval(), self.source.suggested_interval());
        let aborted = matches!(outcome, Outcome::Aborted(_));
        let result = match outcome {
            Outcome::Finished(result) => result,
            Outcome::Aborted(error) => Err(error),
        };
        let delay = match result {
            Ok(poll) => {
                let snapshot = match poll {
                    Poll::Unchanged => None,
                    Poll::Changed(snapshot) => Some(Arc::new(*snapshot)),
                };
                if let Some(snapshot) = &snapshot {
                    tracing::info!(source = %snapshot.source, revision = %snapshot.revision, "new revision");
                    for notice in &snapshot.notices {
                        tracing::warn!(source = %snapshot.source, kind = ?notice.kind, "{}", notice.message);
                    }
                    self.previous = Some(Arc::clone(snapshot));
                }
                self.succeeded(snapshot, wall);
                self.told_to_wait = false;
                Some(self.backoff.after_success(now, interval, self.jitter.unit()))
            }
            Err(error) => {
                self.failed(&error, wall, aborted);
                self.told_to_wait = matches!(error.class, ErrorClass::RateLimited { .. });
                self.backoff.after_error(now, &error.class, interval, self.jitter.unit())
            }
        };
        self.next = delay.and_then(|delay| now.checked_add(delay));
    }

    fn succeeded(&self, snapshot: Option<Arc<Snapshot>>, now: SystemTime) {
        self.state.send_if_modified(|all| {
            let Some(index) = self.index(all) else { return false };
            let all = Arc::make_mut(all);
            all.version += u64::from(snapshot.is_some());
            let state = &mut all.sources[index];
            let status = &mut state.status;
            status.polling = false;
            status.polls += 1;
            status.changes += u64::from(snapshot.is_some());
            status.checked = Some(now);
            status.error = None;
            status.missing_polls = 0;
            status.alarm = false;
            if let Some(snapshot) = snapshot {
                status.revision = Some(snapshot.revision.clone());
                status.changed = Some(now);
                state.snapshot = Some(snapshot);
                state.changed_at = Some(Instant::now());
            }
            true
        });
    }

    fn failed(&self, error: &SourceError, now: SystemTime, aborted: bool) {
        tracing::warn!(source = %error.source_name, class = %error.class, "{}", error.message);
        let mut raised = false;
        self.modify(|state| {
            let status = &mut state.status;
            status.polling = false;
            status.polls += 1;
            status.failures += 1;
            status.aborted += u64::from(aborted);
            status.missing_polls =
                if error.class == ErrorClass::NotFound { status.missing_polls.saturating_add(1) } else { 0 };
            let alarm = status.missing_polls >= MISSING || error.class.is_security_concern();
            raised = alarm && !status.alarm;
            status.alarm = alarm;
            status.error = Some(SourceFailure {
                class: error.class.clone(),
                message: error.message.clone(),
                help: error.help.clone(),
                since: status.error.as_ref().map_or(now, |failure| failure.since),
            });
        });
        if raised {
            tracing::error!(source = %error.source_name, class = %error.class, "the source needs attention: {}", error.message);
        }
    }

    fn publish_next(&self) {
        let delay = self.next.map(|next| next.saturating_duration_since(Instant::now()));
        let next = delay.and_then(|delay| self.clock.now().checked_add(delay));
        self.modify(|state| state.status.next = next);
    }

    fn modify(&self, change: impl FnOnce(&mut SourceState)) {
        self.state.send_if_modified(|all| {
            let Some(index) = self.index(all) else { return false };
            change(&mut Arc::make_mut(all).sources[index]);
            true
        });
    }

    /// Where the state of this source is; nowhere once the source is not followed any more, although another one may
    /// have its name by then.
    fn index(&self, all: &SourcesState) -> Option<usize> {
        if self.cancellation.is_cancelled() {
            return None;
        }
        all.sources.iter().position(|state| state.status.name == *self.source.name())
    }
}

enum Outcome {
    Finished(Result<Poll, SourceError>),
    Aborted(SourceError),
}

impl Outcome {
    fn is_refused_credential(&self) -> bool {
        matches!(self, Self::Finished(Err(error)) if error.class == ErrorClass::AuthExpired)
    }
}

struct AbortOnDrop(tokio::task::AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn sleep_until(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

/// Waits until the source hints at a change; for ever once it will not any more.
async fn hinted(hints: &mut Option<watch::Receiver<u64>>) {
    if let Some(receiver) = hints
        && receiver.changed().await.is_ok()
    {
        tokio::time::sleep(HINT_DEBOUNCE).await;
        receiver.mark_unchanged();
        return;
    }
    std::future::pending().await
}

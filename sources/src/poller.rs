//! Owns one task per source: schedules, backoff, limits, the watchdog, and requests to look now.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::backoff::{Backoff, Jitter, RandomJitter, first_delay};
use crate::error::{ErrorClass, Failure, SourceError};
use crate::snapshot::{Snapshot, SourceName};
use crate::source::{Poll, PollContext, Source};
use crate::status::{SourceFailure, SourceState, SourceStatus, SourcesState};

/// The wall clock, for what is shown to people.
pub trait Clock: Send + Sync + 'static {
    /// The current time.
    fn now(&self) -> SystemTime;
}

/// The host's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> SystemTime {
        SystemTime::now()
    }
}

/// How much the sources may do at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConcurrencyLimits {
    /// Polls at the same time towards one host.
    pub per_host: usize,
    /// Polls at the same time towards all hosts.
    pub total: usize,
    /// Polls started per second towards all hosts.
    pub starts_per_second: u32,
}

impl Default for ConcurrencyLimits {
    fn default() -> Self {
        Self { per_host: 1, total: 4, starts_per_second: 10 }
    }
}

/// What a poller is started with.
pub struct PollerOptions {
    /// The sources in the order of the settings.
    pub sources: Vec<Arc<dyn Source>>,
    /// Snapshots of an earlier run: they are published at once, and their sources polled a little later.
    pub cached: BTreeMap<SourceName, Arc<Snapshot>>,
    /// Spreads the first polls of a fleet.
    pub agent_name: String,
    /// Randomness of the schedules.
    pub jitter: Arc<dyn Jitter>,
    /// The wall clock.
    pub clock: Arc<dyn Clock>,
    /// How much may happen at the same time.
    pub limits: ConcurrencyLimits,
}

impl PollerOptions {
    /// Sources with an empty cache and the defaults for the rest.
    #[must_use]
    pub fn new(sources: Vec<Arc<dyn Source>>) -> Self {
        Self {
            sources,
            cached: BTreeMap::new(),
            agent_name: String::new(),
            jitter: Arc::new(RandomJitter),
            clock: Arc::new(SystemClock),
            limits: ConcurrencyLimits::default(),
        }
    }
}

/// Why a request to look now could not be met.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReconcileError {
    /// No source has that name.
    #[error("there is no source `{0}`")]
    UnknownSource(SourceName),
    /// The poller was shut down.
    #[error("the sources are shutting down")]
    Stopped,
}

/// A handle on the tasks that poll the sources. Cloning is cheap; [`Poller::shutdown`] ends them.
#[derive(Clone)]
pub struct Poller {
    shared: Arc<Shared>,
}

struct Shared {
    state: watch::Sender<Arc<SourcesState>>,
    followed: Mutex<Followed>,
    cancellation: CancellationToken,
    budget: Arc<Budget>,
    jitter: Arc<dyn Jitter>,
    clock: Arc<dyn Clock>,
}

/// The tasks: those of the sources that are followed, and those that were told to end and may not have yet.
#[derive(Default)]
struct Followed {
    sources: Vec<FollowedSource>,
    ending: Vec<JoinHandle<()>>,
}

struct FollowedSource {
    source: Arc<dyn Source>,
    /// How many requests to look there were.
    requested: watch::Sender<u64>,
    /// How many of them a finished poll covers.
    served: watch::Sender<u64>,
    cancellation: CancellationToken,
    task: JoinHandle<()>,
}

impl FollowedSource {
    fn name(&self) -> &SourceName {
        self.source.name()
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.cancellation.cancel();
    }
}

impl fmt::Debug for Poller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Poller").field("state", &*self.shared.state.borrow()).finish()
    }
}

impl Poller {
    /// Publishes what the cache holds and starts a task per source. Must be called within a runtime.
    #[must_use]
    pub fn start(options: PollerOptions) -> Self {
        let budget = Arc::new(Budget::new(options.limits));
        Self::start_within(options, budget)
    }

    /// As [`Poller::start`], for sources that share what this poller may do at the same time: the limits in `options`
    /// do not count.
    #[must_use]
    pub fn start_beside(&self, options: PollerOptions) -> Self {
        Self::start_within(options, Arc::clone(&self.shared.budget))
    }

    fn start_within(options: PollerOptions, budget: Arc<Budget>) -> Self {
        let PollerOptions { sources, cached, agent_name, jitter, clock, limits: _ } = options;
        let shared = Arc::new(Shared {
            state: watch::Sender::new(Arc::new(SourcesState::default())),
            followed: Mutex::default(),
            cancellation: CancellationToken::new(),
            budget,
            jitter,
            clock,
        });
        let poller = Self { shared };
        poller.follow_from(sources, &cached, |source| {
            first_delay(&agent_name, source.name().as_str(), source.interval())
        });
        poller
    }

    /// Follows these sources and no others from now on. Those that are followed already (the same objects) are not
    /// disturbed; a source that takes the place of one of the same name starts with its snapshot and is polled at once.
    /// Must be called within a runtime.
    pub fn follow(&self, sources: Vec<Arc<dyn Source>>) {
        let held: BTreeMap<SourceName, Arc<Snapshot>> = self
            .state()
            .sources
            .iter()
            .filter_map(|source| Some((source.status.name.clone(), Arc::clone(source.snapshot.as_ref()?))))
            .collect();
        self.follow_from(sources, &held, |_| Duration::ZERO);
    }

    fn follow_from(
        &self,
        sources: Vec<Arc<dyn Source>>,
        held: &BTreeMap<SourceName, Arc<Snapshot>>,
        first_of_held: impl Fn(&dyn Source) -> Duration,
    ) {
        let shared = &self.shared;
        let mut followed = shared.followed.lock();
        let mut before = std::mem::take(&mut followed.sources);
        let kept: Vec<_> = sources
            .iter()
            .map(|source| {
                let index = before.iter().position(|entry| Arc::ptr_eq(&entry.source, source))?;
                Some(before.swap_remove(index))
            })
            .collect();
        for gone in before {
            gone.cancellation.cancel();
            followed.ending.push(gone.task);
        }
        followed.ending.retain(|task| !task.is_finished());
        // The states first: from its first moment a task has one to write into.
        shared.state.send_modify(|all| {
            let all = Arc::make_mut(all);
            let mut old = std::mem::take(&mut all.sources);
            for (source, kept) in sources.iter().zip(&kept) {
                let known = old.iter().position(|state| state.status.name == *source.name());
                all.sources.push(match known.filter(|_| kept.is_some()) {
                    Some(index) => old.swap_remove(index),
                    None => initial_state(source.as_ref(), held),
                });
            }
        });
        for (source, kept) in sources.into_iter().zip(kept) {
            let entry = kept.unwrap_or_else(|| {
                let cached = held.get(source.name()).cloned();
                let first = cached.as_ref().map_or(Duration::ZERO, |_| first_of_held(source.as_ref()));
                self.spawn(source, cached, first)
            });
            followed.sources.push(entry);
        }
    }

    fn spawn(
        &self,
        source: Arc<dyn Source>,
        previous: Option<Arc<Snapshot>>,
        first: Duration,
    ) -> FollowedSource {
        let shared = &self.shared;
        let (requested, served) = (watch::Sender::new(0), watch::Sender::new(0));
        let cancellation = shared.cancellation.child_token();
        let task = SourceTask {
            requested: requested.subscribe(),
            served: served.clone(),
            state: shared.state.clone(),
            cancellation: cancellation.clone(),
            budget: Arc::clone(&shared.budget),
            jitter: Arc::clone(&shared.jitter),
            clock: Arc::clone(&shared.clock),
            previous,
            backoff: Backoff::default(),
            source: Arc::clone(&source),
        };
        let task = tokio::spawn(task.run(first));
        FollowedSource { source, requested, served, cancellation, task }
    }

    /// A source that is followed.
    #[must_use]
    pub fn source(&self, name: &SourceName) -> Option<Arc<dyn Source>> {
        let followed = self.shared.followed.lock();
        followed.sources.iter().find(|entry| entry.name() == name).map(|entry| Arc::clone(&entry.source))
    }

    /// Snapshots and statuses as they are now.
    #[must_use]
    pub fn state(&self) -> Arc<SourcesState> {
        Arc::clone(&self.shared.state.borrow())
    }

    /// Snapshots and statuses, and a notice of every change of them.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<Arc<SourcesState>> {
        self.shared.state.subscribe()
    }

    /// Asks the named sources (all, if none is named) to look now, whatever their schedule says, and does
    /// not wait. A source that is busy looks once more afterwards, however often it was asked.
    ///
    /// # Errors
    /// [`ReconcileError::UnknownSource`]; then no source was asked.
    pub fn request(&self, names: &[SourceName]) -> Result<(), ReconcileError> {
        self.request_each(names).map(|_| ())
    }

    /// As [`Poller::request`], and waits until each of them has looked once from now on. The caller bounds
    /// the wait; the watchdog bounds it to twice the sources' time.
    ///
    /// # Errors
    /// [`ReconcileError`].
    pub async fn reconcile_now(&self, names: &[SourceName]) -> Result<Arc<SourcesState>, ReconcileError> {
        for (mut served, ticket) in self.request_each(names)? {
            tokio::select! {
                biased;
                () = self.shared.cancellation.cancelled() => return Err(ReconcileError::Stopped),
                // An error means that it is not followed any more: there is nothing to wait for.
                waited = served.wait_for(|served| *served >= ticket) => drop(waited),
            }
        }
        Ok(self.state())
    }

    fn request_each(&self, names: &[SourceName]) -> Result<Vec<(watch::Receiver<u64>, u64)>, ReconcileError> {
        let followed = self.shared.followed.lock();
        let unknown = |name: &&SourceName| !followed.sources.iter().any(|entry| entry.name() == *name);
        if let Some(unknown) = names.iter().find(unknown) {
            return Err(ReconcileError::UnknownSource(unknown.clone()));
        }
        let mut tickets = Vec::new();
        for entry in &followed.sources {
            if names.is_empty() || names.contains(entry.name()) {
                let mut ticket = 0;
                entry.requested.send_modify(|count| {
                    *count += 1;
                    ticket = *count;
                });
                tickets.push((entry.served.subscribe(), ticket));
            }
        }
        Ok(tickets)
    }

    /// Ends all tasks and waits for them.
    pub async fn shutdown(&self) {
        self.shared.cancellation.cancel();
        let tasks: Vec<_> = {
            let mut followed = self.shared.followed.lock();
            let ending = std::mem::take(&mut followed.ending);
            let sources = std::mem::take(&mut followed.sources);
            ending.into_iter().chain(sources.into_iter().map(|entry| entry.task)).collect()
        };
        for task in tasks {
            if let Err(error) = task.await
                && error.is_panic()
            {
                tracing::error!("the task of a source panicked");
            }
        }
    }
}

fn initial_state(source: &dyn Source, cached: &BTreeMap<SourceName, Arc<Snapshot>>) -> SourceState {
    let snapshot = cached.get(source.name()).cloned();
    SourceState {
        status: SourceStatus {
            name: source.name().clone(),
            kind: source.kind(),
            description: source.description(),
            required: source.required(),
            revision: snapshot.as_ref().map(|snapshot| snapshot.revision.clone()),
            checked: None,
            changed: snapshot.as_ref().map(|snapshot| snapshot.fetched_at),
            error: None,
            next: None,
            polling: false,
            missing_polls: 0,
            alarm: false,
            polls: 0,
            failures: 0,
            aborted: 0,
        },
        snapshot,
        atomic: source.is_atomic(),
        changed_at: None,
    }
}

/// The shares of concurrency and of starts per second that all sources draw on.
struct Budget {
    limits: ConcurrencyLimits,
    total: Arc<Semaphore>,
    hosts: Mutex<BTreeMap<String, Arc<Semaphore>>>,
    /// When the next poll may start.
    next_start: Mutex<Option<Instant>>,
}

impl Budget {
    fn new(limits: ConcurrencyLimits) -> Self {
        Self {
            limits,
            total: Arc::new(Semaphore::new(limits.total.max(1))),
            hosts: Mutex::default(),
            next_start: Mutex::default(),
        }
    }

    fn host(&self, host: &str) -> Arc<Semaphore> {
        let mut hosts = self.hosts.lock();
        let fresh = || Arc::new(Semaphore::new(self.limits.per_host.max(1)));
        Arc::clone(hosts.entry(host.to_owned()).or_insert_with(fresh))
    }

    /// Takes the next start and says when it is.
    fn reserve_start(&self) -> Instant {
        let spacing = Duration::from_secs(1) / self.limits.starts_per_second.max(1);
        let mut next = self.next_start.lock();
        let start = next.map_or_else(Instant::now, |next| next.max(Instant::now()));
        *next = Some(start + spacing);
        start
    }
}

struct SourceTask {
    source: Arc<dyn Source>,
    requested: watch::Receiver<u64>,
    served: watch::Sender<u64>,
    state: watch::Sender<Arc<SourcesState>>,
    cancellation: CancellationToken,
    budget: Arc<Budget>,
    jitter: Arc<dyn Jitter>,
    clock: Arc<dyn Clock>,
    previous: Option<Arc<Snapshot>>,
    backoff: Backoff,
}

impl SourceTask {
    async fn run(mut self, first: Duration) {
        let cancellation = self.cancellation.clone();
        let mut hints = self.source.watch();
        let mut next = Some(first);
        loop {
            self.publish_next(next);
            tokio::select! {
                biased;
                () = cancellation.cancelled() => return,
                changed = self.requested.changed() => if changed.is_err() { return },
                () = hinted(&mut hints) => {}
                () = sleep(next) => {}
            }
            let outcome = tokio::select! {
                biased;
                () = cancellation.cancelled() => return,
                outcome = self.poll_once() => outcome,
            };
            next = self.finish(outcome);
        }
    }

    /// Waits for its share of the budget and polls; gives the count of requests that the poll covers.
    async fn poll_once(&mut self) -> (u64, Outcome) {
        let mut permits = Vec::new();
        if let Some(host) = self.source.host() {
            for semaphore in [self.budget.host(host), Arc::clone(&self.budget.total)] {
                // The semaphores are never closed; without a permit the poll would only be less polite.
                permits.extend(semaphore.acquire_owned().await.ok());
            }
            tokio::time::sleep_until(self.budget.reserve_start()).await;
        }
        let covers = *self.requested.borrow_and_update();
        self.modify(|state| state.status.polling = true);
        let timeout = self.source.timeout(self.previous.is_none());
        let context = PollContext {
            deadline: Instant::now() + timeout,
            cancellation: self.cancellation.child_token(),
            now: self.clock.now(),
        };
        let cancel_on_exit = context.cancellation.clone().drop_guard();
        let source = Arc::clone(&self.source);
        let previous = self.previous.clone();
        let task = tokio::spawn(async move { source.poll(previous.as_deref(), &context).await });
        let abort_on_exit = AbortOnDrop(task.abort_handle());
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
        drop(abort_on_exit);
        drop(cancel_on_exit);
        drop(permits);
        (covers, outcome)
    }

    /// Publishes the outcome and gives the delay to the next poll.
    fn finish(&mut self, (covers, outcome): (u64, Outcome)) -> Option<Duration> {
        let now = self.clock.now();
        // Asked after the poll: a source that is read once knows only now that it was.
        let interval = self.source.interval();
        let aborted = matches!(outcome, Outcome::Aborted(_));
        let result = match outcome {
            Outcome::Finished(result) => result,
            Outcome::Aborted(error) => Err(error),
        };
        let next = match result {
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
                self.succeeded(snapshot, now);
                Some(self.backoff.after_success(interval, self.jitter.unit()))
            }
            Err(error) => {
                self.failed(&error, now, aborted);
                self.backoff.after_error(&error.class, interval, self.jitter.unit())
            }
        };
        self.served.send_replace(covers);
        next
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
            let alarm = status.missing_polls >= 3 || error.class == ErrorClass::Integrity;
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

    fn publish_next(&self, delay: Option<Duration>) {
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

struct AbortOnDrop(tokio::task::AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn sleep(delay: Option<Duration>) {
    match delay {
        Some(delay) => tokio::time::sleep(delay).await,
        None => std::future::pending().await,
    }
}

/// Hints come in bursts; one poll answers all of a burst.
const HINT_DEBOUNCE: Duration = Duration::from_millis(100);

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

#[cfg(test)]
mod tests;

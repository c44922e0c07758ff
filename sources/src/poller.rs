//! Owns one task per source: schedules, backoff, limits, the watchdog, and requests to look now.

mod budget;
mod task;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use self::budget::Budget;
pub use self::budget::ConcurrencyLimits;
use crate::backoff::{Jitter, RandomJitter, first_delay};
use crate::snapshot::{Snapshot, SourceName};
use crate::source::Source;
use crate::status::{SourceState, SourceStatus, SourcesState};

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

/// What a poller is started with.
pub struct PollerOptions {
    /// The sources in the order of the settings.
    pub sources: Vec<Arc<dyn Source>>,
    /// Snapshots of an earlier run: they are published at once, and their sources polled a little later.
    pub cached: BTreeMap<SourceName, Arc<Snapshot>>,
    /// Whether the agent has something of an earlier run to go on with, so that servers are not asked at once either.
    pub warm: bool,
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
            warm: false,
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
    /// How many nudges there were.
    nudged: watch::Sender<u64>,
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
        let PollerOptions { sources, cached, warm, agent_name, jitter, clock, limits: _ } = options;
        let shared = Arc::new(Shared {
            state: watch::Sender::new(Arc::new(SourcesState::default())),
            followed: Mutex::default(),
            cancellation: CancellationToken::new(),
            budget,
            jitter,
            clock,
        });
        let poller = Self { shared };
        poller.follow_from(sources, &cached, |source, held| {
            // What is on this host is asked without anybody noticing.
            match held || (warm && source.host().is_some()) {
                true => first_delay(&agent_name, source.name().as_str(), source.interval()),
                false => Duration::ZERO,
            }
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
        self.follow_from(sources, &held, |_, _| Duration::ZERO);
    }

    fn follow_from(
        &self,
        sources: Vec<Arc<dyn Source>>,
        held: &BTreeMap<SourceName, Arc<Snapshot>>,
        first: impl Fn(&dyn Source, bool) -> Duration,
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
                let first = first(source.as_ref(), cached.is_some());
                task::spawn(shared, source, cached, first)
            });
            followed.sources.push(entry);
        }
    }

    /// A source that is followed.
    #[must_use]
    pub fn source(&self, name: &SourceName) -> Option<Arc<dyn Source>> {
        let followed = self.shared.followed.lock();
        followed.sources.iter().find(|entry| entry.name() == name).map(|entry| Arc::clone(&entry.source))
    }

    /// Takes note that a person accepts the commit whose id begins with `commit`, for every source that has refused it for
    /// how its branch moved; gives those.
    #[must_use]
    pub fn accept_history(&self, commit: &str) -> Vec<SourceName> {
        let followed = self.shared.followed.lock();
        let accepting = followed.sources.iter().filter(|entry| entry.source.accept_history(commit).is_some());
        accepting.map(|entry| entry.name().clone()).collect()
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

    /// Tells the named sources that there may be something new, on the word of somebody who is no operator of this host:
    /// they look at once, unless a server asked them to wait or only a person can help. Names without a source are passed
    /// over. A source that is busy looks once more afterwards, however often it was nudged.
    pub fn nudge(&self, names: &[SourceName]) {
        for entry in &self.shared.followed.lock().sources {
            if names.contains(entry.name()) {
                entry.nudged.send_modify(|count| *count += 1);
            }
        }
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
            changes: 0,
            spent: Duration::ZERO,
        },
        snapshot,
        atomic: source.is_atomic(),
        changed_at: None,
    }
}

#[cfg(test)]
mod tests;

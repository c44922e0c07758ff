//! Keeps one cell up to date: reads it again by time and by notice, renews its lease, takes up what replaces it, and gives
//! back what nobody uses any more. One task per cell; it ends with the stores, or some time after the last user.

use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::cell::{Cell, Taken, Trouble};
use crate::error::SecretError;
use crate::missing::WhenMissing;
use crate::schedule::{self, Pauses};
use crate::snapshot::{Lease, SecretSnapshot};
use crate::store::SecretStore;
use crate::stores::{Registry, Surroundings};

/// How long one question to a store may take.
pub(crate) const LONGEST_ANSWER: Duration = Duration::from_secs(60);
/// How long a lease outlives the value that replaced its own.
const LEASE_OVERLAP: Duration = Duration::from_secs(30);
/// How long a value is kept that nobody uses: sources ask for theirs with every poll.
const LINGER: Duration = Duration::from_secs(600);
/// After refusals it is read at most this often.
const BETWEEN_LOSSES: Duration = Duration::from_secs(10);
/// How long giving back a lease may take at the end.
const LONGEST_FAREWELL: Duration = Duration::from_secs(5);
/// Nothing is due later than this.
const FAR: Duration = Duration::from_secs(86_400);

pub(crate) struct Keeper {
    cell: Arc<Cell>,
    store: Arc<dyn SecretStore>,
    surroundings: Surroundings,
    registry: Weak<Registry>,
    pauses: Pauses,
    /// How often a value that should have been replaced by now was still the old one.
    waits: u32,
    last_read: Instant,
    /// For how long the lease was granted first.
    granted: Duration,
    /// When the value in use ends.
    ends: Option<Instant>,
    due: Instant,
    /// Where that is so by the store's interval alone, what spreads it.
    by_interval: Option<f64>,
    /// Leases of values that were replaced, and when they are given back.
    superseded: Vec<(Lease, Instant)>,
    /// The value in use as an earlier process kept it, until the store has confirmed its lease.
    unconfirmed: Option<SecretSnapshot>,
}

/// What an earlier process kept of a path, with a lease.
pub(crate) enum Kept {
    /// It is in use; its store could not be asked about it.
    Unconfirmed(SecretSnapshot),
    /// There is another value.
    Replaced(Lease),
}

/// Why a keeper ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    /// All of them do.
    Stopped,
    /// Nobody uses its value.
    Unused,
}

impl Keeper {
    /// A keeper of a value that was read just now, or could not be.
    pub(crate) fn new(
        cell: Arc<Cell>,
        store: Arc<dyn SecretStore>,
        surroundings: Surroundings,
        registry: Weak<Registry>,
        kept: Option<Kept>,
    ) -> Self {
        let now = Instant::now();
        let (unconfirmed, replaced) = match kept {
            Some(Kept::Unconfirmed(kept)) => (Some(kept), None),
            Some(Kept::Replaced(lease)) => (None, Some(lease)),
            None => (None, None),
        };
        let mut keeper = Self {
            cell,
            store,
            surroundings,
            registry,
            pauses: Pauses::default(),
            waits: 0,
            last_read: now,
            granted: Duration::ZERO,
            ends: None,
            due: now,
            by_interval: None,
            superseded: replaced.map(|lease| (lease, now)).into_iter().collect(),
            unconfirmed,
        };
        keeper.received();
        if let Some((Trouble::Unread(error), _)) = keeper.cell.standing().trouble {
            keeper.failed(&error);
        }
        keeper
    }

    pub(crate) async fn keep(mut self, stop: CancellationToken) {
        let mut changes = self.store.watch(&self.cell.path);
        let end = loop {
            self.cell.plan_next(self.due);
            let mut wake = self.due.min(Instant::now() + LINGER);
            for other in self.superseded.iter().map(|(_, at)| *at).chain(self.cell.forget_other()) {
                wake = wake.min(other);
            }
            let mut now = false;
            tokio::select! {
                () = stop.cancelled() => break End::Stopped,
                () = tokio::time::sleep_until(wake) => {}
                () = changed(&mut changes) => now = true,
                () = self.cell.asked.notified() => now = true,
                () = self.cell.refusals.notified() => {
                    let earliest = self.last_read + BETWEEN_LOSSES;
                    if earliest > Instant::now() {
                        self.due = self.due.min(earliest);
                        self.by_interval = None;
                    } else {
                        now = true;
                    }
                }
            }
            self.follow_refusals();
            // Thousands of keepers wait at a time, and few work: what that takes is allocated when it is needed.
            let working = async {
                if !self.superseded.is_empty() {
                    Box::pin(self.give_back_superseded()).await;
                }
                if now || self.is_due() {
                    Box::pin(self.act(now)).await;
                }
            };
            tokio::select! {
                () = stop.cancelled() => break End::Stopped,
                () = working => {}
            }
            let Some(registry) = self.registry.upgrade() else { break End::Stopped };
            if registry.forget_unused(&self.cell, LINGER) {
                break End::Unused;
            }
        };
        Box::pin(self.farewell(end)).await;
    }

    /// Whether it is time; where only the store's interval says when, it may be another one by now.
    fn is_due(&mut self) -> bool {
        if let Some(unit) = self.by_interval
            && let Some(interval) = self.store.refresh_interval_of(&self.cell.path)
        {
            self.due = self.last_read + schedule::refresh(interval, unit);
        }
        self.due <= Instant::now()
    }

    /// Reads, or renews.
    async fn act(&mut self, told: bool) {
        if !told {
            let held = self.cell.snapshot();
            let renewable = held.lease.as_ref().filter(|lease| lease.renewable);
            let done = match (self.unconfirmed.clone(), renewable) {
                (Some(kept), _) => self.resume(&kept).await,
                (None, Some(lease)) => self.renew(lease).await,
                (None, None) => false,
            };
            if done {
                return;
            }
        }
        self.read().await;
    }

    /// Asks about a lease that is in use already, as far as is known. Whether nothing more is to be done for now.
    async fn resume(&mut self, kept: &SecretSnapshot) -> bool {
        let answer = tokio::time::timeout(LONGEST_ANSWER, self.store.resume(&self.cell.path, kept)).await;
        match answer.unwrap_or_else(|_| Err(no_answer(&self.cell))) {
            Ok(lease) => {
                self.unconfirmed = None;
                self.extended(lease);
                true
            }
            Err(error) if error.is_transient() => {
                self.due = Instant::now() + self.pause(&error);
                self.by_interval = None;
                self.cell.trouble(Trouble::Unread(error.of(&self.cell.name())));
                true
            }
            Err(_) => false,
        }
    }

    /// The value in use has this lease from now on.
    fn extended(&mut self, lease: Lease) {
        self.cell.extend(self.cell.snapshot().with_lease(lease));
        self.pauses.reset();
        self.received();
        self.remember();
    }

    /// Whether nothing more is to be done for now.
    async fn renew(&mut self, lease: &Lease) -> bool {
        let answer = tokio::time::timeout(LONGEST_ANSWER, self.store.renew(lease)).await;
        let renewed = answer.unwrap_or_else(|_| Err(no_answer(&self.cell)));
        let grace = schedule::grace(self.granted, self.unit());
        let worked = |renewed: &Lease| !schedule::nears_its_end(self.granted, renewed.duration, grace);
        self.cell.count_renewal(renewed.as_ref().is_ok_and(worked));
        match renewed {
            Ok(renewed) if !schedule::nears_its_end(self.granted, renewed.duration, grace) => {
                let granted = self.granted;
                self.extended(renewed);
                self.granted = granted;
                true
            }
            Ok(_) => false,
            // The store does not know it any more, or will not extend it.
            Err(SecretError::Missing { .. } | SecretError::Denied { .. } | SecretError::Invalid { .. }) => {
                false
            }
            Err(error) => {
                let pause = self.pause(&error);
                let at = Instant::now() + pause;
                // Near the end a new one is worth more than another attempt.
                if self.ends.is_some_and(|ends| at + grace >= ends) {
                    return false;
                }
                self.cell.trouble(Trouble::Unread(error));
                self.due = at;
                self.by_interval = None;
                true
            }
        }
    }

    async fn read(&mut self) {
        self.last_read = Instant::now();
        self.cell.begin_attempt();
        let answer = tokio::time::timeout(LONGEST_ANSWER, self.store.read(&self.cell.path)).await;
        match answer.unwrap_or_else(|_| Err(no_answer(&self.cell))) {
            Ok(new) => self.consider(new),
            Err(error) => {
                self.failed(&error);
                let missing = matches!(error, SecretError::Missing { .. });
                self.cell.trouble(Trouble::Unread(error.of(&self.cell.name())));
                if missing && self.cell.when_missing() == WhenMissing::Empty {
                    self.unconfirmed = None;
                    // Nor is the next start to use what it was.
                    self.remember();
                }
            }
        }
        self.cell.count_attempt();
        self.surroundings.attempted.send_modify(|count| *count += 1);
    }

    fn consider(&mut self, new: SecretSnapshot) {
        let new = new.with_end_of_lease();
        let (lease, before) = (new.lease.clone(), self.cell.snapshot().lease.clone());
        let now = Instant::now();
        match self.cell.take(new) {
            Taken::Refused => {
                self.superseded.extend(lease.map(|lease| (lease, now)));
                let pause = self.pauses.next(false, self.unit());
                let usual = self.store.refresh_interval().unwrap_or(FAR);
                self.due = now + pause.min(usual);
                if let Some(chance) = self.cell.second_chance() {
                    self.due = self.due.min(chance.max(now + Duration::from_secs(1)));
                }
                self.by_interval = None;
                return;
            }
            Taken::Published => {
                tracing::info!(secret = %self.cell.name(), version = self.cell.snapshot().version, "a new value is in use");
                self.waits = 0;
            }
            Taken::Same => self.waits += 1,
        }
        self.unconfirmed = None;
        if before != lease {
            self.superseded.extend(before.map(|lease| (lease, now + LEASE_OVERLAP)));
        }
        self.pauses.reset();
        self.received();
        self.remember();
    }

    fn remember(&self) {
        self.surroundings.remember(&self.cell.store, &self.cell.path, &self.cell.snapshot());
    }

    /// Plans by what was received just now.
    fn received(&mut self) {
        let snapshot = self.cell.snapshot();
        let now = Instant::now();
        let unit = self.unit();
        let remaining = |end: SystemTime| end.duration_since(SystemTime::now()).unwrap_or_default();
        self.ends = snapshot.not_after.map(|end| now + remaining(end));
        let by_end = match (&snapshot.lease, snapshot.not_after) {
            (Some(lease), _) => {
                self.granted = lease.duration;
                self.ends = Some(now + lease.duration);
                Some(schedule::renewal(lease.duration, unit))
            }
            // What cannot be extended is replaced before its end.
            (None, Some(end)) => Some(remaining(end).mul_f64(0.8 + 0.1 * unit)),
            (None, None) => None,
        };
        let by_store = snapshot.read_again.map(|left| schedule::roll_over(left, self.waits));
        let by_interval =
            self.store.refresh_interval_of(&self.cell.path).map(|interval| schedule::refresh(interval, unit));
        let wait = match (by_end, by_store) {
            // A lease says all: reading again would make another one.
            (Some(by_end), None) if snapshot.lease.is_some() => by_end,
            (by_end, by_store) => [by_end, by_store, by_interval].into_iter().flatten().min().unwrap_or(FAR),
        };
        self.by_interval = (Some(wait) == by_interval).then_some(unit);
        // Never in a spin, whatever a store says.
        self.due = now + wait.max(Duration::from_millis(500));
    }

    fn failed(&mut self, error: &SecretError) {
        self.by_interval = None;
        self.due = Instant::now() + self.pause(error);
    }

    fn pause(&mut self, error: &SecretError) -> Duration {
        let unit = self.unit();
        match error {
            SecretError::Unavailable { retry_after, .. } => {
                let pause = self.pauses.next(false, unit);
                let left = self.ends.map(|ends| ends.saturating_duration_since(Instant::now()));
                match retry_after {
                    // Not all at the very moment that was named.
                    Some(after) => pause.max(*after + after.mul_f64(0.1 * unit)),
                    // After an outage what ends first comes first.
                    None => schedule::before_the_end(pause, left.unwrap_or_default()),
                }
            }
            // Somebody has to look at it; reading it again is for a person to say.
            SecretError::Compromised { .. } => FAR,
            _ => self.pauses.next(true, unit),
        }
    }

    fn unit(&self) -> f64 {
        (self.surroundings.randomness)()
    }

    /// Where users had a value refused, the one before may be back in use: then its lease is not to end, and the other is.
    fn follow_refusals(&mut self) {
        let at = Instant::now() + LEASE_OVERLAP;
        self.superseded.extend(self.cell.take_abandoned().into_iter().map(|lease| (lease, at)));
        let snapshot = self.cell.snapshot();
        self.superseded.retain(|(lease, _)| snapshot.lease.as_ref() != Some(lease));
    }

    async fn give_back_superseded(&mut self) {
        let now = Instant::now();
        let (over, kept) = std::mem::take(&mut self.superseded).into_iter().partition(|(_, at)| *at <= now);
        self.superseded = kept;
        for (lease, _) in over {
            self.give_back(&lease).await;
        }
    }

    async fn give_back(&self, lease: &Lease) {
        match tokio::time::timeout(LONGEST_FAREWELL, self.store.revoke(lease)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                let error = error.of(&self.cell.name());
                tracing::warn!(secret = %self.cell.name(), %error, "a lease that is not used any more ends by itself only");
            }
            Err(_) => {
                tracing::warn!(secret = %self.cell.name(), "no answer to giving back a lease; it ends by itself");
            }
        }
    }

    /// Gives back what would otherwise live on without a user. What is remembered for the next start is needed then.
    async fn farewell(self, end: End) {
        let needed = end == End::Stopped && self.surroundings.remembers();
        let current = self.cell.snapshot().lease.clone().filter(|_| !needed);
        for lease in self.superseded.iter().map(|(lease, _)| lease).chain(current.as_ref()) {
            self.give_back(lease).await;
        }
    }
}

fn no_answer(cell: &Cell) -> SecretError {
    SecretError::unavailable(cell.name(), format!("no answer within {LONGEST_ANSWER:?}"))
}

async fn changed(changes: &mut Option<watch::Receiver<u64>>) {
    if let Some(receiver) = changes
        && receiver.changed().await.is_ok()
    {
        return;
    }
    // Nobody tells any more; polling goes on.
    *changes = None;
    std::future::pending().await
}

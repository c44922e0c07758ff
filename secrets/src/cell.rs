//! The cell of one path: what is newest of it, what came before for as long as that may still hold, and how it stands.
//! A reference to a field of it is a [`FieldCell`](crate::field_cell::FieldCell), through which expressions and clients read it.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::error::SecretError;
use crate::missing::WhenMissing;
use crate::reference::SecretReference;
use crate::snapshot::{Lease, SecretSnapshot};
use crate::store::StoreKind;

/// How long a value is kept after its successor came: what is behind the store may learn of that later than we do.
pub(crate) const OVERLAP: Duration = Duration::from_secs(60);

/// One path of one store.
pub(crate) struct Cell {
    pub(crate) store: String,
    pub(crate) path: String,
    pub(crate) kind: StoreKind,
    pub(crate) current: ArcSwap<SecretSnapshot>,
    /// Twice the version of the value in use; odd while that is replaced.
    epoch: AtomicU64,
    rotation: Mutex<Rotation>,
    /// Taken while `rotation` is held, or by itself; never the other way round.
    standing: Mutex<Standing>,
    /// Wakes whoever keeps it up to date: it is to be read now.
    pub(crate) asked: Notify,
    /// The same, some time soon: users had something refused.
    pub(crate) refusals: Notify,
    /// Counts changes of all cells, of their values and of how they stand.
    changes: watch::Sender<u64>,
    /// How long a value is kept after its successor came.
    overlap: Duration,
    /// What its users get of what its store has no more.
    when_missing: WhenMissing,
    /// When somebody asked for it last; in milliseconds since `born`.
    touched: AtomicU64,
    born: Instant,
    /// Tells values from each other without keeping them.
    hasher: RandomState,
}

/// How often refusals may change what is in use before that is held back: to the value before, and to the new one after all.
const QUICK_TURNS: u32 = 3;
/// How long a value that was refused is left alone, doubling with each time; and how long at least where the one in use
/// is refused as well, or where one user refuses what another accepts.
const FIRST_BAN: Duration = Duration::from_secs(60);
const LONGEST_BAN: Duration = Duration::from_secs(3600);
const SHORTEST_BAN: Duration = Duration::from_secs(10);

#[derive(Default)]
struct Rotation {
    /// What is not in use but may be accepted: the value before; or the one that was refused, which others may accept. And
    /// until when it is kept.
    other: Option<(Arc<SecretSnapshot>, Instant)>,
    rejected: Option<Rejected>,
    /// What is in use was refused, and so was all that is known beside it.
    lost: bool,
    /// How often a refusal changed what is in use, since a new value came.
    turns: u32,
    /// Leases of values that are not in use any more because they were refused, or taken away.
    abandoned: Vec<Lease>,
    /// Fields that somebody uses, and that its store has not: they are empty texts.
    lacking: BTreeSet<String>,
}

/// A value that was refused where another was accepted.
struct Rejected {
    fingerprint: u64,
    times: u32,
    since: Instant,
}

/// How it stands with a cell.
#[derive(Clone, Debug)]
pub(crate) struct Standing {
    /// Why the newest value is not to be had, or not in use.
    pub(crate) trouble: Option<(Trouble, SystemTime)>,
    /// When the value in use was read.
    pub(crate) read_at: SystemTime,
    /// Since when it is in use.
    pub(crate) changed_at: SystemTime,
    /// When it is read or renewed next.
    pub(crate) next: Option<SystemTime>,
    /// Attempts to read it that were begun, and those that have ended.
    pub(crate) begun: u64,
    pub(crate) attempts: u64,
    pub(crate) rotations: u64,
    pub(crate) failures: u64,
    /// Renewals of leases that extended them as far as was asked, and those that did not.
    pub(crate) renewals: u64,
    pub(crate) failed_renewals: u64,
}

/// Why the newest value is not to be had, or not in use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// It could not be read; the value in use stays.
    Unread(SecretError),
    /// It was refused where the one before was accepted, or has not the shape that it had.
    Rejected(String),
}

/// What became of a value that was read.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// It is what is in use already.
    Same,
    /// It is in use from now on.
    Published,
    /// It is not used.
    Refused,
}

// === impl Cell ===

impl Cell {
    pub(crate) fn new(
        reference: &SecretReference,
        kind: StoreKind,
        snapshot: SecretSnapshot,
        changes: watch::Sender<u64>,
        overlap: Duration,
        when_missing: WhenMissing,
    ) -> Self {
        Self {
            store: reference.store.clone(),
            path: reference.path.clone(),
            kind,
            epoch: AtomicU64::new(snapshot.version * 2),
            current: ArcSwap::from_pointee(snapshot),
            rotation: Mutex::default(),
            standing: Mutex::new(Standing {
                trouble: None,
                read_at: SystemTime::now(),
                changed_at: SystemTime::now(),
                next: None,
                begun: 0,
                attempts: 0,
                rotations: 0,
                failures: 0,
                renewals: 0,
                failed_renewals: 0,
            }),
            asked: Notify::new(),
            refusals: Notify::new(),
            changes,
            overlap,
            when_missing,
            touched: AtomicU64::new(0),
            born: Instant::now(),
            hasher: RandomState::new(),
        }
    }

    pub(crate) fn when_missing(&self) -> WhenMissing {
        self.when_missing
    }

    /// `store/path`.
    pub(crate) fn name(&self) -> String {
        format!("{}/{}", self.store, self.path)
    }

    /// The value in use.
    pub(crate) fn snapshot(&self) -> Arc<SecretSnapshot> {
        self.current.load_full()
    }

    pub(crate) fn standing(&self) -> Standing {
        self.standing.lock().clone()
    }

    /// Notes that somebody wants it.
    pub(crate) fn touch(&self) {
        let now = u64::try_from(self.born.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.touched.store(now, Ordering::Relaxed);
    }

    /// How long nobody has asked for it.
    pub(crate) fn idle(&self) -> Duration {
        self.born.elapsed().saturating_sub(Duration::from_millis(self.touched.load(Ordering::Relaxed)))
    }

    /// The version of the value in use. Whoever finds it the same before and after reading has read of that version only.
    pub(crate) fn version(&self) -> u64 {
        loop {
            let epoch = self.epoch.load(Ordering::Acquire);
            if epoch.is_multiple_of(2) {
                return epoch / 2;
            }
            // It is being replaced by whoever holds this.
            drop(self.rotation.lock());
        }
    }

    /// Replaces the value in use by one of the next version. To be called while `rotation` is held.
    fn publish(&self, new: SecretSnapshot) {
        let epoch = new.version * 2;
        self.epoch.store(epoch - 1, Ordering::Release);
        self.current.store(Arc::new(new));
        self.epoch.store(epoch, Ordering::Release);
    }

    /// Considers what was read just now.
    pub(crate) fn take(&self, mut new: SecretSnapshot) -> Taken {
        let mut rotation = self.rotation.lock();
        let lost = std::mem::take(&mut rotation.lost);
        let held = self.snapshot();
        let fingerprint = self.fingerprint(&new);
        match &rotation.rejected {
            // It has another chance after a while: what refused it may only have learnt of it late. At once, where nothing
            // else is accepted either.
            Some(rejected) if rejected.fingerprint == fingerprint => {
                if rejected.since.elapsed() < rejected.ban(lost) {
                    rotation.lost = lost;
                    return Taken::Refused;
                }
            }
            _ => rotation.rejected = None,
        }
        if held.fields == new.fields {
            // The lease and the end may be others.
            new.version = held.version;
            self.current.store(Arc::new(new));
            self.settle(&rotation);
            return Taken::Same;
        }
        let lacking = crate::shape::lacking(&held.fields, &new.fields);
        if let (WhenMissing::Keep, [first, ..]) = (self.when_missing, &*lacking) {
            self.note_trouble(self.lacks(first));
            return Taken::Refused;
        }
        if let Err(reason) = crate::shape::successor(&held.fields, &new.fields) {
            self.note_trouble(Trouble::Rejected(reason));
            return Taken::Refused;
        }
        new.version = held.version + 1;
        // What was taken away is not to be used any more.
        let whole = lacking.is_empty();
        rotation.lacking.extend(lacking.into_iter().map(str::to_owned));
        rotation.lacking.retain(|name| !new.fields.contains_key(name));
        rotation.other = whole.then(|| (held, Instant::now() + self.overlap));
        rotation.turns = 0;
        self.publish(new);
        // Before anybody can have it refused: else that would be forgotten.
        self.note_change();
        self.settle(&rotation);
        drop(rotation);
        self.tell();
        Taken::Published
    }

    /// The value in use ends later than was said, or has another lease.
    pub(crate) fn extend(&self, extended: SecretSnapshot) {
        let rotation = self.rotation.lock();
        let version = self.snapshot().version;
        self.current.store(Arc::new(SecretSnapshot { version, ..extended }));
        self.settle(&rotation);
    }

    /// Drops what is not in use if its time is over; answers when it will be.
    pub(crate) fn forget_other(&self) -> Option<Instant> {
        let mut rotation = self.rotation.lock();
        let until = rotation.other.as_ref().map(|(_, until)| *until)?;
        if until > Instant::now() {
            return Some(until);
        }
        rotation.other = None;
        drop(rotation);
        invar_syntax::live_secret::renew_derived();
        None
    }

    /// The value of `version` was refused. Where there is another that may be accepted, that is in use from now on; else a
    /// new one is asked for.
    pub(crate) fn refuse(&self, version: u64) {
        let mut rotation = self.rotation.lock();
        let current = self.snapshot();
        if current.version != version {
            return;
        }
        let now = Instant::now();
        let Some((other, _)) = rotation.other.take_if(|(_, until)| *until > now) else {
            rotation.lost = true;
            self.refusals.notify_one();
            return;
        };
        if rotation.turns >= QUICK_TURNS && rotation.rejected.as_ref().is_some_and(Rejected::is_fresh) {
            // Users disagree on which of the two is right. Each finds the other one at each use; which is in use need not
            // change with every request.
            rotation.other = Some((other, now + self.overlap));
            return;
        }
        let fingerprint = self.fingerprint(&current);
        let times = match &rotation.rejected {
            Some(rejected) if rejected.fingerprint == fingerprint => rejected.times + 1,
            _ => 1,
        };
        rotation.rejected = Some(Rejected { fingerprint, times, since: now });
        rotation.turns += 1;
        if current.lease != other.lease {
            rotation.abandoned.extend(current.lease.clone());
        }
        self.publish(SecretSnapshot { version: version + 1, ..SecretSnapshot::clone(&other) });
        rotation.other = Some((current, now + self.overlap));
        let reason = "the new value was refused where the one before was accepted".to_owned();
        self.note_trouble(Trouble::Rejected(reason));
        self.note_change();
        drop(rotation);
        self.tell();
        self.refusals.notify_one();
    }

    /// The value of `version` was refused, and so was what may have been accepted in its place: a new one is asked for.
    pub(crate) fn lose(&self, version: u64) {
        let mut rotation = self.rotation.lock();
        if self.snapshot().version == version {
            rotation.lost = true;
            self.refusals.notify_one();
        }
    }

    /// Leases of values that were refused.
    pub(crate) fn take_abandoned(&self) -> Vec<Lease> {
        std::mem::take(&mut self.rotation.lock().abandoned)
    }

    /// When a value that was refused has another chance.
    pub(crate) fn second_chance(&self) -> Option<Instant> {
        let rotation = self.rotation.lock();
        rotation.rejected.as_ref().map(|rejected| rejected.since + rejected.ban(rotation.lost))
    }

    /// Nothing stands against the value in use any more, unless fields are missing.
    fn settle(&self, rotation: &Rotation) {
        let mut standing = self.standing.lock();
        standing.read_at = SystemTime::now();
        let recovered = rotation.lacking.is_empty() && standing.trouble.take().is_some();
        drop(standing);
        if let Some(first) = rotation.lacking.first() {
            self.note_trouble(self.lacks(first));
        } else if recovered {
            self.tell();
        }
    }

    fn lacks(&self, field: &str) -> Trouble {
        let reason = format!("the new value lacks the field `{field}`");
        Trouble::Unread(SecretError::Missing { reference: self.name(), reason })
    }

    /// Something stands between the newest value and its use. What its store has no more is an empty text from now on, where
    /// that is wanted.
    pub(crate) fn trouble(&self, trouble: Trouble) {
        let missing = matches!(trouble, Trouble::Unread(SecretError::Missing { .. }));
        if missing && self.when_missing == WhenMissing::Empty {
            self.take_away();
        }
        self.note_trouble(trouble);
    }

    /// Its store has it no more.
    fn take_away(&self) {
        let mut rotation = self.rotation.lock();
        let held = self.snapshot();
        if held.fields.is_empty() {
            return;
        }
        let mut lacking = std::mem::take(&mut rotation.lacking);
        lacking.extend(held.fields.keys().cloned());
        let abandoned = rotation.abandoned.drain(..).chain(held.lease.clone()).collect();
        *rotation = Rotation { lacking, abandoned, ..Rotation::default() };
        self.publish(SecretSnapshot { version: held.version + 1, ..SecretSnapshot::new(BTreeMap::new()) });
        self.note_change();
        drop(rotation);
        self.tell();
    }

    /// Whether there is what a reference names, or is to be an empty text in its place.
    ///
    /// # Errors
    /// As [`SecretSnapshot::field`].
    pub(crate) fn offers(&self, reference: &SecretReference) -> Result<(), SecretError> {
        let snapshot = self.snapshot();
        let Err(error) = snapshot.field(reference) else { return Ok(()) };
        match &reference.field {
            _ if self.when_missing == WhenMissing::Keep => return Err(error),
            Some(field) => {
                let mut rotation = self.rotation.lock();
                if rotation.lacking.insert(field.clone()) && !snapshot.fields.is_empty() {
                    self.settle(&rotation);
                }
            }
            None if snapshot.fields.is_empty() => {}
            None => return Err(error),
        }
        Ok(())
    }

    /// Says it once per kind.
    fn note_trouble(&self, trouble: Trouble) {
        let mut standing = self.standing.lock();
        standing.failures += 1;
        let since = match &standing.trouble {
            Some((before, since)) if std::mem::discriminant(before) == std::mem::discriminant(&trouble) => {
                *since
            }
            _ => {
                let reason = match &trouble {
                    Trouble::Unread(error) => error.to_string(),
                    Trouble::Rejected(reason) => reason.clone(),
                };
                let missing = matches!(trouble, Trouble::Unread(SecretError::Missing { .. }));
                match self.when_missing {
                    WhenMissing::Empty if missing => {
                        tracing::warn!(secret = %self.name(), %reason, "its users get an empty text");
                    }
                    _ => tracing::warn!(secret = %self.name(), %reason, "the value in use stays"),
                }
                SystemTime::now()
            }
        };
        let news = standing.trouble.as_ref().is_none_or(|(_, before)| *before != since);
        standing.trouble = Some((trouble, since));
        drop(standing);
        if news {
            self.tell();
        }
    }

    fn note_change(&self) {
        let mut standing = self.standing.lock();
        standing.rotations += 1;
        standing.changed_at = SystemTime::now();
    }

    /// An attempt to read it begins.
    pub(crate) fn begin_attempt(&self) {
        self.standing.lock().begun += 1;
    }

    /// It was attempted to read it.
    pub(crate) fn count_attempt(&self) {
        self.standing.lock().attempts += 1;
    }

    /// It was attempted to renew its lease.
    pub(crate) fn count_renewal(&self, worked: bool) {
        let mut standing = self.standing.lock();
        *(if worked { &mut standing.renewals } else { &mut standing.failed_renewals }) += 1;
    }

    pub(crate) fn plan_next(&self, at: Instant) {
        let wait = at.saturating_duration_since(Instant::now());
        self.standing.lock().next = SystemTime::now().checked_add(wait);
    }

    fn tell(&self) {
        // What was made of the value before is made anew, so that none of it stays where nobody reads it.
        invar_syntax::live_secret::renew_derived();
        self.changes.send_modify(|count| *count += 1);
    }

    fn fingerprint(&self, snapshot: &SecretSnapshot) -> u64 {
        let mut hasher = self.hasher.build_hasher();
        for (name, secret) in &snapshot.fields {
            (name, secret).hash(&mut hasher);
        }
        hasher.finish()
    }

    pub(crate) fn other(&self) -> Option<Arc<SecretSnapshot>> {
        let rotation = self.rotation.lock();
        rotation.other.as_ref().filter(|(_, until)| *until > Instant::now()).map(|(held, _)| Arc::clone(held))
    }
}

// === impl Rejected ===

impl Rejected {
    /// How long it is left alone; `lost` where nothing else is accepted either.
    fn ban(&self, lost: bool) -> Duration {
        if lost {
            return SHORTEST_BAN;
        }
        FIRST_BAN.saturating_mul(1 << self.times.saturating_sub(1).min(16)).min(LONGEST_BAN)
    }

    fn is_fresh(&self) -> bool {
        self.since.elapsed() < SHORTEST_BAN
    }
}

//! The log of one node with its legs: a resource that outlives instances, and what the swap protocol does to it.
//!
//! The legs change in memory at once and are stored by the instance's task, so that a cut or a verdict never waits for the
//! disk. What is stored may therefore be older than what was done, which [`crate::wal::Legs::start`] allows for.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use invar_engine::PrepareError;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::endpoint::Endpoint;
use crate::wal::{EndpointIdentity, Leg, LegId, LegsFile, Log, LogOptions, Position};

/// The name of the file with the legs, beside the segments.
pub(super) const LEGS_FILE: &str = "legs.json";

/// Names an instance of the component within the process.
pub(super) type Owner = u64;

/// A node's log and legs.
#[derive(Debug)]
pub(super) struct NodeLog {
    pub(super) log: Arc<Log>,
    path: PathBuf,
    state: Mutex<State>,
    /// Held while the file is written, so that an older state never replaces a newer one.
    saving: Mutex<()>,
    /// Grows when legs came, went or were set back.
    changed: watch::Sender<u64>,
    /// The newest change that is stored, and the one that has to be before anything is appended.
    stored: watch::Sender<u64>,
    required: AtomicU64,
}

#[derive(Debug)]
struct State {
    file: LegsFile,
    endpoints: HashMap<LegId, Arc<Endpoint>>,
    /// Whose log it is, from its start until its end.
    owner: Option<Owner>,
    /// When the log was closed before its present owner took it up.
    closed_before: Option<i64>,
    /// How many times legs changed, positions aside.
    version: u64,
    dirty: bool,
    /// Only a candidate had the node, and it was undone.
    orphaned: bool,
}

impl NodeLog {
    /// Opens the log in `directory`.
    pub(super) fn open(directory: &Path, limit: u64) -> Result<Self, PrepareError> {
        let log = Log::open(directory, LogOptions::with_limit(limit))
            .map_err(|error| PrepareError::io(directory.display(), &error))?;
        let path = directory.join(LEGS_FILE);
        let file = LegsFile::load(&path).map_err(|error| PrepareError::io(path.display(), &error))?;
        let state = State {
            file,
            endpoints: HashMap::new(),
            owner: None,
            closed_before: None,
            version: 0,
            dirty: false,
            orphaned: false,
        };
        let node_log = Self {
            log: Arc::new(log),
            path,
            state: Mutex::new(state),
            saving: Mutex::new(()),
            changed: watch::Sender::new(0),
            stored: watch::Sender::new(0),
            required: AtomicU64::new(1),
        };
        node_log.hold_all();
        Ok(node_log)
    }

    pub(super) fn watch(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// The node entered the pipeline. `replaces` are the nodes that the candidate took away.
    pub(super) fn started(
        &self,
        owner: Owner,
        endpoints: &[Arc<Endpoint>],
        keep: Duration,
        (digest, candidate): (&str, bool),
        replaces: BTreeSet<String>,
    ) {
        let range = (self.log.oldest(), self.log.end());
        let version = self.change(|state| {
            state.owner = Some(owner);
            state.orphaned = false;
            state.closed_before = state.file.closed.take();
            state.file.replaces = replaces;
            state.file.keep = Some(keep.as_secs());
            let closed = state.closed_before.is_some();
            state.file.legs.start(digest, &identities(endpoints), range, closed, candidate);
            state.serve(endpoints);
        });
        self.required.store(version, Ordering::Release);
    }

    /// The candidate that brought this node takes `node` away.
    pub(super) fn replaces(&self, node: &str) {
        let version = self.change(|state| {
            state.file.replaces.insert(node.to_owned());
        });
        self.required.store(version, Ordering::Release);
    }

    /// The nodes that the candidate took away when it brought this one.
    pub(super) fn replaced(&self) -> BTreeSet<String> {
        self.state.lock().file.replaces.clone()
    }

    /// The node goes on with other endpoints.
    pub(super) fn swapped(&self, endpoints: &[Arc<Endpoint>], keep: Duration, digest: &str, candidate: bool) {
        let at = self.log.end();
        self.change(|state| {
            state.file.keep = Some(keep.as_secs());
            state.file.legs.cut(digest, &identities(endpoints), at, candidate);
            state.serve(endpoints);
        });
    }

    /// The candidate passed.
    pub(super) fn committed(&self) {
        self.change(|state| {
            state.file.legs.commit();
            state.file.replaces.clear();
        });
    }

    /// The candidate is undone; these endpoints hold again.
    pub(super) fn rolled_back(&self, endpoints: &[Arc<Endpoint>], keep: Duration, digest: &str) {
        let at = self.log.end();
        self.change(|state| {
            state.file.legs.roll_back();
            state.file.keep = Some(keep.as_secs());
            state.file.legs.cut(digest, &identities(endpoints), at, false);
            state.serve(endpoints);
        });
    }

    /// The candidate that alone had the node is undone. The legs stay until their undelivered part has found another log.
    pub(super) fn orphaned(&self) {
        self.change(|state| state.orphaned = true);
    }

    /// The node is gone for good, unless somebody else has taken up the log.
    pub(super) fn closed(&self, owner: Owner, now: jiff::Timestamp) {
        self.change(|state| {
            if state.owner == Some(owner) {
                state.file.closed = Some(now.as_second());
            }
        });
    }

    /// Whether nobody waits for what this owner does with the log any more: another one has it, or it is to be handed over.
    pub(super) fn is_given_up(&self, owner: Owner) -> bool {
        let state = self.state.lock();
        state.orphaned || state.owner != Some(owner)
    }

    /// Whether the node goes on when the process comes back: it was not taken away, only the process ends.
    pub(super) fn comes_back(&self) -> bool {
        self.state.lock().file.closed.is_none()
    }

    /// Whether `owner` (or nobody, if none is given) holds the log of a node that only an undone candidate had.
    pub(super) fn is_orphan_of(&self, owner: Option<Owner>) -> bool {
        let state = self.state.lock();
        state.owner == owner && (state.orphaned || (owner.is_none() && state.is_abandoned_candidate()))
    }

    /// From where on the running configuration's legs have not delivered.
    pub(super) fn undelivered(&self) -> Position {
        let oldest = self.log.oldest();
        self.state.lock().file.legs.lowest_active().map_or(oldest, |lowest| lowest.max(oldest))
    }

    /// What the log of an undone node had was handed over: nobody needs it here any more. A log that had been closed before
    /// the candidate took it up is closed again.
    pub(super) fn handed_over(&self, owner: Option<Owner>, now: jiff::Timestamp) {
        let mut emptied = false;
        self.change(|state| {
            if state.owner != owner {
                return;
            }
            let before = state.closed_before.take();
            state.file.replaces.clear();
            state.orphaned = false;
            if state.file.legs.is_candidate_only() {
                state.file.legs = Default::default();
                state.file.closed = Some(now.as_second());
                state.owner = None;
                emptied = true;
            } else {
                state.file.legs.roll_back();
                state.file.closed = before.or(Some(now.as_second()));
            }
        });
        if emptied {
            self.log.clear();
        }
    }

    fn change(&self, change: impl FnOnce(&mut State)) -> u64 {
        let version = {
            let mut state = self.state.lock();
            change(&mut state);
            let State { file, endpoints, .. } = &mut *state;
            endpoints.retain(|id, _| file.legs.get(*id).is_some());
            state.dirty = true;
            state.version += 1;
            // Under the lock: a rewind must not be overtaken by the position of a sender.
            self.log.hold_only(state.file.legs.iter().map(|leg| (leg.id, leg.position)));
            state.version
        };
        self.changed.send_modify(|version| *version += 1);
        version
    }

    /// Waits until it is stored whose log this is: what a log without legs takes could not be told apart after a crash.
    pub(super) async fn accepting(&self) {
        let is_stored = |stored: u64| stored >= self.required.load(Ordering::Acquire);
        if is_stored(*self.stored.borrow()) {
            return;
        }
        let mut stored = self.stored.subscribe();
        // The sending half lives as long as `self`: this ends only when it is stored.
        while !is_stored(*stored.borrow_and_update()) && stored.changed().await.is_ok() {}
    }

    /// Keeps the legs from being stored, as a disk that does not answer would.
    #[cfg(test)]
    pub(super) fn block_disk(&self) -> parking_lot::MutexGuard<'_, ()> {
        self.saving.lock()
    }

    /// The legs with the endpoints that can serve them.
    pub(super) fn legs(&self) -> Vec<(Leg, Option<Arc<Endpoint>>)> {
        let state = self.state.lock();
        state.file.legs.iter().map(|leg| (leg.clone(), state.endpoints.get(&leg.id).cloned())).collect()
    }

    /// Where a leg is now.
    pub(super) fn position(&self, leg: LegId) -> Option<Position> {
        self.state.lock().file.legs.get(leg).map(|leg| leg.position)
    }

    /// Everything before `position` is delivered or dropped, says the sender that began after `rewinds` rewinds. One that
    /// began before the last rewind does not know what has to be sent again. Whether that moved the leg.
    pub(super) fn advance(&self, leg: LegId, rewinds: u32, position: Position) -> bool {
        let mut state = self.state.lock();
        let moves = |leg: &Leg| leg.rewinds == rewinds && leg.position < position;
        let moved = state.file.legs.get(leg).is_some_and(moves);
        if moved {
            state.file.legs.advance(leg, position);
            state.dirty = true;
            // Under the lock: a rewind must not be overtaken by this.
            self.log.hold(leg, position);
        }
        moved
    }

    /// The turn of `leg` has come: it begins where the leg before it ended.
    pub(super) fn take_over(&self, leg: LegId) {
        let before = self.state.lock().file.legs.get(leg).and_then(|leg| leg.after);
        if let Some(before) = before {
            self.quiet(before);
        }
    }

    /// No request of a stopped leg is in flight any more.
    pub(super) fn quiet(&self, leg: LegId) {
        let mut state = self.state.lock();
        state.file.legs.quiet(leg);
        state.dirty = true;
    }

    /// Stores the legs if they moved. Blocks on the disk.
    pub(super) fn save(&self) {
        let _saving = self.saving.lock();
        let (file, version) = {
            let mut state = self.state.lock();
            if !std::mem::take(&mut state.dirty) {
                return;
            }
            (state.file.clone(), state.version)
        };
        // Positions may lag; what a cut or a verdict did has to survive a power loss too.
        let is_new = *self.stored.borrow() < version;
        match file.save(&self.path, is_new) {
            Ok(()) => {
                self.stored.send_replace(version);
            }
            Err(error) => {
                tracing::warn!(path = %self.path.display(), %error, "cannot store the positions of the write-ahead log");
                self.state.lock().dirty = true;
            }
        }
    }

    fn hold_all(&self) {
        let state = self.state.lock();
        self.log.hold_only(state.file.legs.iter().map(|leg| (leg.id, leg.position)));
    }
}

impl State {
    fn serve(&mut self, endpoints: &[Arc<Endpoint>]) {
        let active = self.file.legs.active().to_vec();
        self.endpoints.extend(active.into_iter().zip(endpoints.iter().cloned()));
    }

    /// A process died under the candidate that alone had this log.
    fn is_abandoned_candidate(&self) -> bool {
        self.file.closed.is_none() && self.file.legs.is_candidate_only()
    }
}

fn identities(endpoints: &[Arc<Endpoint>]) -> Vec<EndpointIdentity> {
    endpoints.iter().map(|endpoint| endpoint.identity.clone()).collect()
}

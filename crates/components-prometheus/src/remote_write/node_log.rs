//! The log of one node with its legs: a resource that outlives instances, and what the swap protocol does to it.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use invar_engine::PrepareError;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::endpoint::Endpoint;
use crate::wal::{EndpointIdentity, Leg, LegId, LegsFile, Log, LogOptions, Position};

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
}

#[derive(Debug)]
struct State {
    file: LegsFile,
    endpoints: HashMap<LegId, Arc<Endpoint>>,
    dirty: bool,
    /// Only a candidate had the node, and it was undone.
    orphaned: bool,
}

impl NodeLog {
    /// Opens the log in `directory`.
    pub(super) fn open(directory: &Path, limit: u64) -> Result<Self, PrepareError> {
        let log = Log::open(directory, LogOptions::with_limit(limit))
            .map_err(|error| PrepareError::io(directory.display(), &error))?;
        let path = directory.join("legs.json");
        let file = LegsFile::load(&path).map_err(|error| PrepareError::io(path.display(), &error))?;
        let node_log = Self {
            log: Arc::new(log),
            path,
            state: Mutex::new(State { file, endpoints: HashMap::new(), dirty: false, orphaned: false }),
            saving: Mutex::new(()),
            changed: watch::Sender::new(0),
        };
        node_log.hold_all();
        Ok(node_log)
    }

    pub(super) fn watch(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// The node entered the pipeline.
    pub(super) fn started(&self, endpoints: &[Arc<Endpoint>], digest: &str, candidate: bool) {
        let fresh = {
            let mut state = self.state.lock();
            state.orphaned = false;
            state.file.closed = None;
            state.file.parked_by = None;
            state.file.legs.boot(digest, candidate);
            state.file.legs.iter().next().is_none()
        };
        // A log whose legs nobody knows is sent from its beginning: rather twice than never.
        let at = if fresh { self.log.oldest() } else { self.log.end() };
        self.cut_at(endpoints, digest, candidate, at);
    }

    /// The node goes on with other endpoints.
    pub(super) fn swapped(&self, endpoints: &[Arc<Endpoint>], digest: &str, candidate: bool) {
        self.cut_at(endpoints, digest, candidate, self.log.end());
    }

    fn cut_at(&self, endpoints: &[Arc<Endpoint>], digest: &str, candidate: bool, at: Position) {
        self.change(|state| {
            let identities: Vec<EndpointIdentity> =
                endpoints.iter().map(|endpoint| endpoint.identity.clone()).collect();
            state.file.legs.cut(digest, &identities, at, candidate);
            let active = state.file.legs.active().to_vec();
            state.endpoints.extend(active.into_iter().zip(endpoints.iter().cloned()));
        });
    }

    /// The candidate passed.
    pub(super) fn committed(&self) {
        self.change(|state| state.file.legs.commit());
    }

    /// The candidate is undone; `to` holds again, or nothing does.
    pub(super) fn rolled_back(&self, to: Option<(&[Arc<Endpoint>], &str)>) {
        match to {
            Some((endpoints, digest)) => {
                self.change(|state| state.file.legs.roll_back());
                self.swapped(endpoints, digest, false);
            }
            // The legs stay until their undelivered part has found another log.
            None => self.change(|state| state.orphaned = true),
        }
    }

    /// The node is gone for good.
    pub(super) fn closed(&self) {
        self.change(|state| state.file.closed = Some(jiff::Timestamp::now().as_second()));
    }

    pub(super) fn is_orphaned(&self) -> bool {
        self.state.lock().orphaned
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        {
            let mut state = self.state.lock();
            change(&mut state);
            let State { file, endpoints, .. } = &mut *state;
            endpoints.retain(|id, _| file.legs.get(*id).is_some());
            state.dirty = true;
        }
        self.hold_all();
        self.save(true);
        self.changed.send_modify(|version| *version += 1);
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

    pub(super) fn lowest(&self) -> Option<Position> {
        self.state.lock().file.legs.lowest()
    }

    /// Everything before `position` is delivered or dropped, says the sender that began after `rewinds` rewinds. One that
    /// began before the last rewind does not know what has to be sent again.
    pub(super) fn advance(&self, leg: LegId, rewinds: u32, position: Position) {
        let mut state = self.state.lock();
        let moves = |leg: &Leg| leg.rewinds == rewinds && leg.position < position;
        if state.file.legs.get(leg).is_some_and(moves) {
            state.file.legs.advance(leg, position);
            state.dirty = true;
            // Under the lock: a rewind must not be overtaken by this.
            self.log.hold(leg, position);
        }
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
    pub(super) fn save(&self, sync: bool) {
        let _saving = self.saving.lock();
        let file = {
            let mut state = self.state.lock();
            if !std::mem::take(&mut state.dirty) {
                return;
            }
            state.file.clone()
        };
        if let Err(error) = file.save(&self.path, sync) {
            tracing::warn!(path = %self.path.display(), %error, "cannot store the positions of the write-ahead log");
            self.state.lock().dirty = true;
        }
    }

    fn hold_all(&self) {
        let state = self.state.lock();
        self.log.hold_only(state.file.legs.iter().map(|leg| (leg.id, leg.position)));
    }
}

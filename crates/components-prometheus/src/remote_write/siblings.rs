//! All nodes of this kind in a process: which logs are open, and what one of them leaves to another.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use invar_engine::{NodeId, PrepareError, Services};
use parking_lot::{Mutex, MutexGuard};

use super::node_log::NodeLog;

/// The nodes and their logs.
#[derive(Debug, Default)]
pub(super) struct Siblings {
    state: Mutex<State>,
    /// Held while a log is opened or a directory is deleted, so that never both happen to one.
    open: Mutex<OpenLogs>,
    /// Whether a log was handed over whose directory can go once it is closed.
    leftovers: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    /// Those that run or are parked.
    logs: HashMap<NodeId, Weak<NodeLog>>,
    /// Parked on behalf of the present candidate.
    parked: BTreeSet<NodeId>,
    /// Brought by the present candidate.
    brought: BTreeSet<NodeId>,
}

/// The logs that somebody has open, by directory.
#[derive(Debug, Default)]
pub(super) struct OpenLogs(HashMap<PathBuf, Weak<NodeLog>>);

// === impl Siblings ===

impl Siblings {
    /// Those of the process.
    pub(super) fn of(services: &Services) -> Arc<Self> {
        services.get::<Self>().unwrap_or_else(|| {
            let siblings = Arc::<Self>::default();
            services.insert(Arc::clone(&siblings));
            siblings
        })
    }

    /// Opens the log in `directory`, or shares it with whoever has it open.
    pub(super) fn open(&self, directory: &Path, limit: u64) -> Result<Arc<NodeLog>, PrepareError> {
        let mut open = self.open.lock();
        if let Some(log) = open.0.get(directory).and_then(Weak::upgrade) {
            return Ok(log);
        }
        let log = Arc::new(NodeLog::open(directory, limit)?);
        open.0.retain(|_, log| log.strong_count() > 0);
        open.0.insert(directory.to_owned(), Arc::downgrade(&log));
        Ok(log)
    }

    /// The open logs; none is opened meanwhile.
    pub(super) fn open_logs(&self) -> MutexGuard<'_, OpenLogs> {
        self.open.lock()
    }

    /// The node starts; returns the nodes that were parked on behalf of the candidate which brought it.
    pub(super) fn entered(&self, node: &NodeId, log: &Arc<NodeLog>, candidate: bool) -> BTreeSet<String> {
        let mut state = self.state.lock();
        state.logs.insert(node.clone(), Arc::downgrade(log));
        if !candidate {
            return BTreeSet::new();
        }
        state.brought.insert(node.clone());
        state.parked.iter().map(ToString::to_string).collect()
    }

    pub(super) fn parked(&self, node: &NodeId) {
        let mut state = self.state.lock();
        state.parked.insert(node.clone());
        for log in state.brought.iter().filter_map(|brought| state.logs.get(brought)?.upgrade()) {
            log.replaces(node.as_str());
        }
    }

    pub(super) fn unparked(&self, node: &NodeId) {
        self.state.lock().parked.remove(node);
    }

    /// The candidate that brought `node` passed.
    pub(super) fn committed(&self, node: &NodeId) {
        self.state.lock().brought.remove(node);
    }

    pub(super) fn retired(&self, node: &NodeId) {
        let mut state = self.state.lock();
        state.parked.remove(node);
        state.brought.remove(node);
    }

    /// A log was handed over: what is left of it can be deleted once its node has let go of it.
    pub(super) fn left_over(&self) {
        self.leftovers.store(true, Ordering::Relaxed);
    }

    /// Whether a log was handed over since the last call.
    pub(super) fn take_leftovers(&self) -> bool {
        self.leftovers.swap(false, Ordering::Relaxed)
    }

    /// The log that goes on for one that replaced these nodes, if it is exactly one.
    pub(super) fn heir(&self, replaced: &BTreeSet<String>) -> Option<Arc<NodeLog>> {
        let mut replaced = replaced.iter();
        let (Some(only), None) = (replaced.next(), replaced.next()) else { return None };
        let state = self.state.lock();
        let node = NodeId::new(only.as_str());
        // A parked one may still go for good.
        if state.parked.contains(&node) { None } else { state.logs.get(&node)?.upgrade() }
    }
}

// === impl OpenLogs ===

impl OpenLogs {
    /// Whether somebody has the log in `directory`.
    pub(super) fn contains(&self, directory: &Path) -> bool {
        self.0.get(directory).is_some_and(|log| log.strong_count() > 0)
    }
}

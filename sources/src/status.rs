//! What the poller publishes: per source its newest snapshot, and how the asking goes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use crate::error::ErrorClass;
use crate::snapshot::{Revision, Snapshot, SourceKind, SourceName};

/// The last failure of a source that has not succeeded since.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceFailure {
    /// How it is reacted to.
    pub class: ErrorClass,
    /// What happened.
    pub message: String,
    /// What a person can do.
    pub help: Option<String>,
    /// When the first failure of this series happened.
    pub since: SystemTime,
}

/// How a source is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceStatus {
    /// Its name.
    pub name: SourceName,
    /// Its kind.
    pub kind: SourceKind,
    /// Where it reads from, redacted.
    pub description: String,
    /// Whether a configuration needs it.
    pub required: bool,
    /// The newest revision held.
    pub revision: Option<Revision>,
    /// The last successful check.
    pub checked: Option<SystemTime>,
    /// When the newest revision was first seen.
    pub changed: Option<SystemTime>,
    /// The failure the source is in.
    pub error: Option<SourceFailure>,
    /// The next check; `None` while stalled.
    pub next: Option<SystemTime>,
    /// Whether a check is under way.
    pub polling: bool,
    /// Checks in a row that found nothing where something was.
    pub missing_polls: u32,
    /// Whether somebody should look: missing three times in a row, or an integrity failure.
    pub alarm: bool,
    /// Checks that ended, since start.
    pub polls: u64,
    /// Checks that failed, since start.
    pub failures: u64,
    /// Checks that were aborted because they exceeded twice their time, since start.
    pub aborted: u64,
    /// Checks that brought another revision, since start.
    pub changes: u64,
    /// How long all checks took together, since start.
    pub spent: Duration,
}

/// One source within [`SourcesState`].
#[derive(Clone, Debug)]
pub struct SourceState {
    /// How it is doing.
    pub status: SourceStatus,
    /// The newest snapshot.
    pub snapshot: Option<Arc<Snapshot>>,
    /// Whether its snapshots are indivisible.
    pub atomic: bool,
    /// When its snapshot came, on the monotonic clock; `None` for one of the cache.
    pub changed_at: Option<Instant>,
}

/// All sources in the order of the settings.
#[derive(Clone, Debug, Default)]
pub struct SourcesState {
    /// One entry per source.
    pub sources: Vec<SourceState>,
    /// Counts up with every new snapshot.
    pub version: u64,
}

impl SourcesState {
    /// The state of one source.
    #[must_use]
    pub fn get(&self, name: &SourceName) -> Option<&SourceState> {
        self.sources.iter().find(|source| &source.status.name == name)
    }

    /// The newest snapshots, in the order of the settings.
    pub fn snapshots(&self) -> impl Iterator<Item = &Arc<Snapshot>> {
        self.sources.iter().filter_map(|source| source.snapshot.as_ref())
    }

    /// Whether every required source has a snapshot, so that a configuration can be composed.
    #[must_use]
    pub fn is_composable(&self) -> bool {
        self.sources.iter().all(|source| source.snapshot.is_some() || !source.status.required)
    }

    /// When the changes since `composed` (source to revision text) have settled: `None` if nothing
    /// changed; at once if the only source that changed is atomic; else when it has been quiet for `min`,
    /// but at the latest `max` after the first change.
    #[must_use]
    pub fn settled_at(
        &self,
        composed: &BTreeMap<SourceName, String>,
        min: Duration,
        max: Duration,
    ) -> Option<Instant> {
        let now = Instant::now();
        let changed: Vec<(bool, Instant)> = self
            .sources
            .iter()
            .filter(|source| {
                let held = source.snapshot.as_ref().map(|snapshot| &snapshot.revision.text);
                held != composed.get(&source.status.name)
            })
            .map(|source| (source.atomic, source.changed_at.unwrap_or(now)))
            .collect();
        let first = changed.iter().map(|(_, at)| *at).min()?;
        let last = changed.iter().map(|(_, at)| *at).max()?;
        match changed.as_slice() {
            [(true, at)] => Some(*at),
            _ => Some((last + min).min(first + max)),
        }
    }
}

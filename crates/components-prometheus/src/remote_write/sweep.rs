//! Logs that nobody has open: those of removed components are kept for their `max_keepalive_time` and then deleted, those of a
//! candidate that died with its process are handed over.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use invar_engine::Services;

use super::handover::hand_over;
use super::metrics::Metrics;
use super::node_log::LEGS_FILE;
use super::siblings::{OpenLogs, Siblings};
use crate::wal::{LegsFile, segments_in};

/// How long a log is kept whose component left no other wish.
const DEFAULT_KEEP: Duration = Duration::from_secs(8 * 3600);
/// How long the first sweep of a process waits, so that every component has taken up its log.
const FIRST_SWEEP: Duration = Duration::from_secs(600);
/// How often closed logs are looked at.
pub(super) const SWEEP_INTERVAL: Duration = Duration::from_secs(3600);
/// The limit of a log that is only read.
const UNLIMITED: u64 = u64::MAX;

/// Looks after the logs of removed components below `components`, the directory that holds one directory per node, for as
/// long as it is polled: a process whose pipeline has no `prometheus.remote_write` any more has nobody else to do it.
pub async fn keep_closed_logs(services: Services, components: PathBuf) {
    let mut ticks = tokio::time::interval_at(tokio::time::Instant::now() + FIRST_SWEEP, SWEEP_INTERVAL);
    loop {
        ticks.tick().await;
        let (services, components) = (services.clone(), components.clone());
        super::supervisor::blocking(move || {
            sweep(&components, &Siblings::of(&services), &Metrics::of(&services), jiff::Timestamp::now());
        })
        .await;
    }
}

/// What a look at a log that nobody has open says.
enum Finding {
    /// It is kept until it expires.
    Kept { bytes: u64 },
    /// It is gone: nobody needs it, or its time is over.
    Deleted { moved: PathBuf, expired: Option<u64> },
    /// Only a candidate had it, and died.
    Orphan,
}

/// Looks at all logs below `components`. Blocks on the disk.
pub(super) fn sweep(components: &Path, siblings: &Siblings, metrics: &Metrics, now: jiff::Timestamp) {
    metrics.wal_kept.reset();
    for entry in fs::read_dir(components).into_iter().flatten().flatten() {
        let directory = entry.path().join("wal");
        let name = entry.file_name();
        let node = name.to_string_lossy();
        let mut finding = look_at(&directory, &siblings.open_logs(), now);
        if let Some(Finding::Orphan) = finding {
            finding = match adopt(&directory, siblings) {
                true => look_at(&directory, &siblings.open_logs(), now),
                false => Some(Finding::Kept { bytes: bytes_in(&directory) }),
            };
        }
        match finding {
            Some(Finding::Kept { bytes }) => metrics.wal_kept.with_label_values(&[&*node]).set(bytes as i64),
            Some(Finding::Deleted { moved, expired }) => {
                if let Some(bytes) = expired {
                    tracing::warn!(%node, bytes, "the log of a component that was removed has expired and is deleted");
                    metrics.wal_expired.with_label_values(&[&*node]).inc();
                    metrics.wal_expired_bytes.with_label_values(&[&*node]).inc_by(bytes);
                }
                if let Err(error) = fs::remove_dir_all(&moved) {
                    tracing::warn!(directory = %moved.display(), %error, "cannot delete the log of a removed component");
                }
            }
            Some(Finding::Orphan) | None => {}
        }
    }
}

fn look_at(directory: &Path, open: &OpenLogs, now: jiff::Timestamp) -> Option<Finding> {
    if !directory.is_dir() || open.contains(directory) {
        return None;
    }
    let legs = directory.join(LEGS_FILE);
    let file = LegsFile::load(&legs).ok()?;
    let bytes = bytes_in(directory);
    let is_empty = segments_in(directory).is_ok_and(|segments| segments.is_empty());
    let is_done = is_empty && file.closed.is_some() && file.legs.iter().next().is_none();
    // One whose process died before it was closed was closed when its legs last moved.
    let closed = file.closed.or_else(|| modified(&legs).or_else(|| modified(directory)))?;
    let keep = file.keep.map_or(DEFAULT_KEEP, Duration::from_secs);
    let is_expired = now.as_second().saturating_sub(closed) > keep.as_secs() as i64;
    if is_done || is_expired {
        // Under another name at once: the component may come back while the files are being deleted.
        let moved = directory.with_extension("deleted");
        if moved.exists() && fs::remove_dir_all(&moved).is_err() {
            return None;
        }
        fs::rename(directory, &moved).ok()?;
        return Some(Finding::Deleted { moved, expired: (!is_done).then_some(bytes) });
    }
    Some(if file.legs.is_candidate_only() { Finding::Orphan } else { Finding::Kept { bytes } })
}

/// Hands the log of a dead candidate to the node that the candidate had replaced; whether that was done.
fn adopt(directory: &Path, siblings: &Siblings) -> bool {
    let log = match siblings.open(directory, UNLIMITED) {
        Ok(log) => log,
        Err(error) => {
            tracing::warn!(directory = %directory.display(), %error, "cannot open the log of an undone component");
            return false;
        }
    };
    let Some(heir) = siblings.heir(&log.replaced()).filter(|_| log.is_orphan_of(None)) else { return false };
    match hand_over(&log, log.undelivered(), &heir) {
        Ok(done) => {
            tracing::info!(directory = %directory.display(), ?done, "the log of an undone component went to the one that it had replaced");
            log.handed_over(None, jiff::Timestamp::now());
            log.save();
            true
        }
        Err(error) => {
            tracing::warn!(directory = %directory.display(), %error, "the log of an undone component could not be handed over and is kept");
            false
        }
    }
}

fn bytes_in(directory: &Path) -> u64 {
    let files = fs::read_dir(directory).into_iter().flatten().flatten();
    let segments = files.filter(|file| file.path().extension() == Some(OsStr::new("segment")));
    segments.filter_map(|file| file.metadata().ok()).map(|metadata| metadata.len()).sum()
}

/// When a file changed last, Unix seconds.
fn modified(path: &Path) -> Option<i64> {
    let modified = fs::metadata(path).ok()?.modified().ok()?;
    let since = modified.duration_since(std::time::UNIX_EPOCH).ok()?;
    i64::try_from(since.as_secs()).ok()
}

//! The interface every source implements, and the context of one poll.

use std::future::Future;
use std::pin::Pin;
use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::error::SourceError;
use crate::snapshot::{Snapshot, SourceKind, SourceName};

/// A boxed future, as trait objects need it.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What a poll found.
#[derive(Clone, Debug)]
pub enum Poll {
    /// The source still has what `previous` shows.
    Unchanged,
    /// Another revision, or other files of the same one.
    Changed(Box<Snapshot>),
}

/// The bounds of one poll.
#[derive(Clone, Debug)]
pub struct PollContext {
    /// When the poll has to be over.
    pub deadline: Instant,
    /// Cancelled when the agent stops or the source goes away.
    pub cancellation: CancellationToken,
    /// The wall clock, for `fetched_at` and for dates of servers.
    pub now: SystemTime,
}

/// Something that yields snapshots of configuration.
pub trait Source: Send + Sync + 'static {
    /// The name in the settings.
    fn name(&self) -> &SourceName;

    /// The kind of source.
    fn kind(&self) -> SourceKind;

    /// Where it reads from, in one redacted line, such as `https://git.example/fleet.git main`.
    fn description(&self) -> String;

    /// How long to wait between two polls, before jitter.
    fn interval(&self) -> Duration;

    /// How long one poll may take; `first` while nothing has been fetched yet.
    fn timeout(&self, first: bool) -> Duration;

    /// Asks the source: a cheap probe first, then a fetch if something changed.
    ///
    /// # Errors
    /// See [`crate::ErrorClass`]; the caller keeps `previous`.
    fn poll<'a>(
        &'a self,
        previous: Option<&'a Snapshot>,
        context: &'a PollContext,
    ) -> BoxFuture<'a, Result<Poll, SourceError>>;

    /// Counts up when something hints at a change (file events, a push); the poller then asks at once.
    fn watch(&self) -> Option<watch::Receiver<u64>> {
        None
    }

    /// Whether a snapshot is one indivisible change, so that nothing has to settle before it is used.
    fn is_atomic(&self) -> bool;

    /// Whether a configuration may not be composed without this source.
    fn required(&self) -> bool;

    /// Takes note that a person accepts `commit` although the history policy refused it.
    fn accept_history(&self, _commit: &str) {}

    /// The host whose share of concurrent fetches a poll uses up; `None` for local sources.
    fn host(&self) -> Option<&str> {
        None
    }
}

//! The interface every source implements, and the context of one poll.

use std::future::Future;
use std::pin::Pin;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::diagnose::{Finding, findings_of};
use crate::error::{Failure, SourceError};
use crate::snapshot::{Files, Snapshot, SourceKind, SourceName};

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

/// What is at a path of the tree that a snapshot is a selection of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TreeEntry {
    /// A file.
    File(Bytes),
    /// The `*.alloy` files directly in a folder, by name.
    Folder(Files),
}

impl TreeEntry {
    /// What is at `path` among `files`; the empty path is the root.
    #[must_use]
    pub fn among(files: &Files, path: &str) -> Option<Self> {
        if let Some(content) = files.get(path) {
            return Some(Self::File(content.clone()));
        }
        let mut exists = path.is_empty();
        let mut folder = Files::new();
        for (file, content) in files {
            let below = match path {
                "" => Some(file.as_str()),
                path => file.strip_prefix(path).and_then(|rest| rest.strip_prefix('/')),
            };
            let Some(below) = below else { continue };
            exists = true;
            if !below.contains('/') && is_pipeline(below) {
                folder.insert(below.to_owned(), content.clone());
            }
        }
        exists.then_some(Self::Folder(folder))
    }
}

/// Whether a file of this name is read where a folder is asked for.
pub(crate) fn is_pipeline(name: &str) -> bool {
    name.len() > ".alloy".len() && name.ends_with(".alloy")
}

/// What a source says of a revision that was stored earlier.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Vouched {
    /// It was verified as the settings ask, or nothing has to be.
    Trusted,
    /// It was not, for this reason, and the settings let it run with a warning.
    Doubted(String),
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

impl PollContext {
    /// Runs `work` until the poll has to be over; `place` is what does not answer if it is not done by then.
    pub(crate) async fn bound<T>(
        &self,
        place: &str,
        work: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        tokio::select! {
            biased;
            () = self.cancellation.cancelled() => Err(Failure::transient("the poll was cancelled")),
            done = tokio::time::timeout_at(self.deadline, work) => {
                done.unwrap_or_else(|_| Err(Failure::transient(format!("{place} does not answer in time"))))
            }
        }
    }
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

    /// How long the server, in its last answer, asked us to wait between two polls: the age that it gives its answers, or
    /// more patience while it tells of changes by itself. The poller keeps it between the interval and ten times that.
    fn suggested_interval(&self) -> Option<Duration> {
        None
    }

    /// Forgets a credential that this source made for itself (a token in exchange for a key) and that is not accepted any
    /// more, so that the next poll makes another. `false` where there is none to make: a credential that is given is read
    /// again at each use anyway.
    fn renew_credential(&self) -> bool {
        false
    }

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

    /// Looks at the source for a person who wonders why it does not work: a poll from nothing, and what it says.
    fn diagnose<'a>(&'a self, context: &'a PollContext) -> BoxFuture<'a, Vec<Finding>> {
        Box::pin(async move { findings_of(self.required(), self.poll(None, context).await) })
    }

    /// Reads what is at `path` (normalized, `/` between names, the empty text for the root) in the tree that `snapshot`,
    /// one of this source's own, is a selection of: what a file of the snapshot refers to need not be selected.
    /// `None` where nothing is there.
    ///
    /// # Errors
    /// As for a poll: what is there is refused, or cannot be reached.
    fn read<'a>(
        &'a self,
        snapshot: &'a Snapshot,
        path: &'a str,
        context: &'a PollContext,
    ) -> BoxFuture<'a, Result<Option<TreeEntry>, SourceError>> {
        let _ = context;
        Box::pin(std::future::ready(Ok(TreeEntry::among(&snapshot.files, path))))
    }

    /// Says whether a revision that an earlier run stored, verified under the policy with the digest `trust`, is trusted
    /// still. Asks no remote.
    ///
    /// # Errors
    /// It is not, and may not be used.
    fn vouch<'a>(
        &'a self,
        revision: &'a str,
        trust: Option<&'a str>,
        now: SystemTime,
    ) -> BoxFuture<'a, Result<Vouched, SourceError>> {
        let _ = (revision, trust, now);
        Box::pin(std::future::ready(Ok(Vouched::Trusted)))
    }

    /// Where relative paths in the files of `snapshot` begin: a folder of the host, or of the virtual tree of this source,
    /// which begins with `/@` and its name.
    fn module_path(&self, snapshot: &Snapshot) -> String {
        let root = format!("/@{}", self.name());
        // One selected folder is what Alloy would be started on; of several none is.
        let folder = match snapshot.paths.as_slice() {
            [path] if snapshot.files.contains_key(path) => {
                path.rsplit_once('/').map_or("", |(folder, _)| folder)
            }
            [path] => path.as_str(),
            _ => "",
        };
        if folder.is_empty() { root } else { format!("{root}/{folder}") }
    }

    /// Counts up when something hints at a change (file events, a push); the poller then asks at once.
    fn watch(&self) -> Option<watch::Receiver<u64>> {
        None
    }

    /// Whether a snapshot is one indivisible change, so that nothing has to settle before it is used.
    fn is_atomic(&self) -> bool;

    /// Whether a configuration may not be composed without this source.
    fn required(&self) -> bool;

    /// Takes note that a person accepts the commit whose id begins with `commit`, if it is the one that was refused for how
    /// the branch moved; gives its id in full, or nothing where that is not what was refused.
    fn accept_history(&self, commit: &str) -> Option<String> {
        let _ = commit;
        None
    }

    /// The host whose share of concurrent fetches a poll uses up; `None` for local sources.
    fn host(&self) -> Option<&str> {
        None
    }
}

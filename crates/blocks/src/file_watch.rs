//! Noticing that files change: events of the kernel where they can be had, with a periodic look in any case, because
//! network file systems tell nothing and watches get lost.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use invar_syntax::arguments::ArgumentEnum;
use notify::event::{AccessKind, AccessMode, EventKind};
use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::Notify;

/// Changes come in bursts (create, write, rename): this much later the files are as they are meant to be.
const SETTLE: Duration = Duration::from_millis(30);

/// How long following symbolic links may take (they may lead to a network file system).
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(5);

/// How a component notices that its file changes.
#[derive(ArgumentEnum, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Detector {
    /// The kernel's events, and a look at every poll.
    #[default]
    #[argument(name = "fsnotify")]
    Fsnotify,
    /// Only a look at every poll.
    #[argument(name = "poll")]
    Poll,
}

/// Watches directories. Watches follow renames and symbolic links in them, as Kubernetes swaps them.
pub struct FileWatch {
    changed: Arc<Notify>,
    /// Ends with the watcher.
    _watcher: Option<RecommendedWatcher>,
    problem: Option<String>,
}

impl FileWatch {
    /// A watch that never reports anything: for [`Detector::Poll`].
    pub fn none() -> Self {
        Self { changed: Arc::new(Notify::new()), _watcher: None, problem: None }
    }

    /// Watches these directories, not those within them. What cannot be watched is told by [`Self::problem`]; the caller
    /// looks periodically anyway.
    pub fn directories(directories: impl IntoIterator<Item = PathBuf>) -> Self {
        let changed = Arc::new(Notify::new());
        let notified = Arc::clone(&changed);
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // Reading a file is an event too, and ours must not wake us.
            let relevant = match event {
                Ok(event) => match event.kind {
                    EventKind::Access(AccessKind::Close(AccessMode::Write)) => true,
                    EventKind::Access(_) => false,
                    _ => true,
                },
                // The kernel's queue ran over: something has changed.
                Err(_) => true,
            };
            if relevant {
                notified.notify_one();
            }
        });
        let mut watcher = match watcher {
            Ok(watcher) => watcher,
            Err(error) => return Self { changed, _watcher: None, problem: Some(error.to_string()) },
        };
        let mut problems = Vec::new();
        let unique: BTreeSet<PathBuf> = directories.into_iter().collect();
        for directory in unique {
            if let Err(error) = watcher.watch(&directory, RecursiveMode::NonRecursive) {
                problems.push(format!("{}: {error}", directory.display()));
            }
        }
        let problem = if problems.is_empty() { None } else { Some(problems.join("; ")) };
        Self { changed, _watcher: Some(watcher), problem }
    }

    /// Watches the directory a file is in and, where the file is a symbolic link, the one it leads to.
    pub async fn file(path: &Path) -> Self {
        let canonical = tokio::time::timeout(RESOLVE_TIMEOUT, tokio::fs::canonicalize(path));
        let target = canonical.await.ok().and_then(Result::ok);
        let directories =
            [Some(path), target.as_deref()].into_iter().flatten().map(|path| directory_of(path).to_owned());
        Self::directories(directories.collect::<Vec<_>>())
    }

    /// Why some of it is not watched.
    pub fn problem(&self) -> Option<&str> {
        self.problem.as_deref()
    }

    /// Completes some milliseconds after something has changed in the directories. Misses nothing between two calls.
    pub async fn changed(&self) {
        self.changed.notified().await;
        tokio::time::sleep(SETTLE).await;
    }
}

/// The directory that holds `path`.
pub fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

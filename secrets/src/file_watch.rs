//! Tells those who ask that a file may have changed, by one watcher of the kernel's events for a whole store. What is
//! watched are the folders that a file and what it links to are in, so that a replaced file, a new one and a swapped link
//! are all noticed. An event means "look again" and nothing more; where there can be none, reading again periodically
//! remains.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use notify::event::{AccessKind, AccessMode, EventKind};
use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use parking_lot::Mutex;
use tokio::sync::watch;

/// The files of one store that somebody listens to. Cloning shares them.
#[derive(Clone, Default)]
pub(crate) struct FileWatches {
    files: Arc<Mutex<Files>>,
    /// Never taken while `files` is held: whoever tells the kernel waits for the thread that brings events.
    kernel: Arc<Mutex<Kernel>>,
}

type Files = BTreeMap<PathBuf, Watched>;

struct Watched {
    changes: watch::Sender<u64>,
    folders: BTreeSet<PathBuf>,
}

#[derive(Default)]
struct Kernel {
    watcher: Option<RecommendedWatcher>,
    /// The folders that are watched.
    folders: BTreeSet<PathBuf>,
    /// Said once: that there are no events.
    degraded: bool,
}

impl fmt::Debug for FileWatches {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("FileWatches").field(&self.files.lock().keys()).finish()
    }
}

impl FileWatches {
    /// A counter of the changes of a file, whether it is there or not. The first one says that the watch is there. Has to
    /// be called within a runtime.
    pub(crate) fn subscribe(&self, path: PathBuf) -> watch::Receiver<u64> {
        let mut files = self.files.lock();
        files.retain(|_, file| file.changes.receiver_count() > 0);
        if let Some(file) = files.get(&path) {
            return file.changes.subscribe();
        }
        let (changes, receiver) = watch::channel(0);
        files.insert(path.clone(), Watched { changes, folders: BTreeSet::new() });
        drop(files);
        let watches = self.clone();
        // Following links and asking the kernel may block. The task ends by itself, and nobody waits for what it brings.
        drop(tokio::task::spawn_blocking(move || watches.follow(&path)));
        receiver
    }

    /// Watches what a file goes through.
    fn follow(&self, path: &Path) {
        let wanted = folders_of(path);
        let mut kernel = self.kernel.lock();
        let used: BTreeSet<PathBuf> = {
            let mut files = self.files.lock();
            let Some(file) = files.get_mut(path) else { return };
            file.folders = wanted;
            files.values().flat_map(|file| file.folders.iter().cloned()).collect()
        };
        if let Err(error) = kernel.watch(&used, &self.files)
            && !std::mem::replace(&mut kernel.degraded, true)
        {
            tracing::warn!(path = %path.display(), %error, "secret files cannot be watched, they are only polled");
        }
        if let Some(file) = self.files.lock().get(path) {
            file.changes.send_modify(|count| *count += 1);
        }
    }
}

impl Kernel {
    /// Brings the watched folders in line with those that are used.
    fn watch(&mut self, used: &BTreeSet<PathBuf>, files: &Arc<Mutex<Files>>) -> notify::Result<()> {
        let watcher = match &mut self.watcher {
            Some(watcher) => watcher,
            None => {
                let files = Arc::downgrade(files);
                let made = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
                    if let Some(files) = files.upgrade() {
                        tell(&files.lock(), event);
                    }
                })?;
                self.watcher.insert(made)
            }
        };
        for folder in self.folders.difference(used) {
            // A folder that is gone is not watched any more anyway.
            drop(watcher.unwatch(folder));
        }
        self.folders.retain(|folder| used.contains(folder));
        for folder in used {
            if !self.folders.contains(folder) {
                watcher.watch(folder, RecursiveMode::NonRecursive)?;
                self.folders.insert(folder.clone());
            }
        }
        Ok(())
    }
}

/// Counts for the files that an event is about.
fn tell(files: &Files, event: notify::Result<notify::Event>) {
    let paths = match event {
        // Our own reading must not wake us.
        Ok(event) => match event.kind {
            EventKind::Access(AccessKind::Close(AccessMode::Write)) => event.paths,
            EventKind::Access(_) => return,
            _ => event.paths,
        },
        // Events were lost: any of them may have changed.
        Err(_) => Vec::new(),
    };
    let concerns = |file: &Watched| {
        let within = |path: &PathBuf| {
            file.folders.contains(path) || path.parent().is_some_and(|folder| file.folders.contains(folder))
        };
        paths.is_empty() || paths.iter().any(within)
    };
    for file in files.values().filter(|file| concerns(file)) {
        file.changes.send_modify(|count| *count += 1);
    }
}

/// The folders in which something may change that changes what `path` holds: the one it is in, or the nearest that
/// exists, and the ones around what it links to, of which one is swapped where Kubernetes mounts secrets.
fn folders_of(path: &Path) -> BTreeSet<PathBuf> {
    let target = path.canonicalize().ok().filter(|target| target != path);
    let own = path.ancestors().skip(1).find(|folder| folder.is_dir());
    let linked = target.iter().flat_map(|target| target.ancestors().skip(1).take(2));
    own.into_iter().chain(linked).filter(|folder| folder.is_dir()).map(Path::to_path_buf).collect()
}

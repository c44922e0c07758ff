//! Watches everything that a path goes through: its parent folders, and each link of a chain of symbolic
//! links, so that a Kubernetes `..data` swap is noticed. An event says no more than "look again".

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use parking_lot::Mutex;
use tokio::sync::watch;

/// The longest chain of links that is followed.
const HOP_LIMIT: usize = 32;

/// Folders being watched on behalf of one source.
#[derive(Clone)]
pub(super) struct Watch {
    shared: Arc<Shared>,
}

struct Shared {
    events: watch::Sender<u64>,
    state: Mutex<State>,
}

struct State {
    watcher: Option<RecommendedWatcher>,
    folders: BTreeSet<PathBuf>,
    /// Said once: that there is only polling.
    degraded: bool,
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Watch").field(&self.shared.state.lock().folders).finish()
    }
}

impl Watch {
    pub(super) fn new() -> Self {
        let state = State { watcher: None, folders: BTreeSet::new(), degraded: false };
        Self { shared: Arc::new(Shared { events: watch::Sender::new(0), state: Mutex::new(state) }) }
    }

    /// Whether there is only polling.
    #[cfg(test)]
    pub(super) fn is_degraded(&self) -> bool {
        self.shared.state.lock().degraded
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<u64> {
        self.shared.events.subscribe()
    }

    /// Brings the watched folders in line with what `path` goes through now. Where watching is not
    /// possible (limits, network file systems), polling remains; that is said once.
    pub(super) fn follow(&self, path: &Path) {
        let wanted = folders_of(path);
        let mut state = self.shared.state.lock();
        if state.degraded || state.folders == wanted && state.watcher.is_some() {
            return;
        }
        if state.watcher.is_none() {
            let events = self.shared.events.clone();
            let made = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
                // Reading a file is an event, too; our own readings must not cause further ones.
                if event.is_ok_and(|event| event.kind.is_access()) {
                    return;
                }
                events.send_modify(|count| *count += 1);
            });
            match made {
                Ok(watcher) => state.watcher = Some(watcher),
                Err(error) => return degrade(&mut state, path, &error),
            }
        }
        let State { watcher, folders, .. } = &mut *state;
        let Some(watcher) = watcher else { return };
        for folder in folders.difference(&wanted) {
            // A folder that is gone is not watched any more anyway.
            drop(watcher.unwatch(folder));
        }
        folders.retain(|folder| wanted.contains(folder));
        let mut failed = None;
        for folder in &wanted {
            if folders.contains(folder) {
                continue;
            }
            match watcher.watch(folder, RecursiveMode::NonRecursive) {
                Ok(()) => {
                    folders.insert(folder.clone());
                }
                Err(error) if matches!(error.kind, notify::ErrorKind::PathNotFound) => {}
                Err(error) => failed = Some(error),
            }
        }
        if let Some(error) = failed {
            degrade(&mut state, path, &error);
        }
    }
}

fn degrade(state: &mut State, path: &Path, error: &notify::Error) {
    state.degraded = true;
    tracing::warn!(path = %path.display(), error = %error, "files cannot be watched, they are only polled");
}

/// The folders in which something may change that changes what `path` means: the folder itself if it is
/// one, the folder it is in, and the same for each link on the way.
fn folders_of(path: &Path) -> BTreeSet<PathBuf> {
    let mut folders = BTreeSet::new();
    let mut pending = vec![path.to_path_buf()];
    let mut hops = 0;
    while let Some(path) = pending.pop() {
        hops += 1;
        if hops > HOP_LIMIT {
            break;
        }
        let parent = match path.parent() {
            Some(parent) if parent.as_os_str().is_empty() => Path::new(".").to_path_buf(),
            Some(parent) => parent.to_path_buf(),
            None => continue,
        };
        if path.is_dir() {
            folders.insert(path.clone());
            // The files in it may be links into a folder that is swapped, as Kubernetes does.
            let entries = std::fs::read_dir(&path).into_iter().flatten().flatten();
            let links = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_symlink()));
            pending.extend(links.take(HOP_LIMIT).filter_map(|link| {
                let target = std::fs::read_link(link.path()).ok()?;
                let target = path.join(target);
                // Only where it leads out of this folder; inside, the folder's own watch sees it.
                (target.parent() != Some(path.as_path())).then_some(target)
            }));
        }
        folders.insert(existing(&parent));
        // A link anywhere in the path: what it leads to matters as well.
        for ancestor in path.ancestors() {
            if let Ok(target) = std::fs::read_link(ancestor) {
                let base = ancestor.parent().unwrap_or(Path::new("."));
                folders.insert(existing(base));
                let rest = path.strip_prefix(ancestor).unwrap_or(Path::new(""));
                let target = base.join(target);
                pending.push(if rest.as_os_str().is_empty() { target } else { target.join(rest) });
                break;
            }
        }
    }
    folders.retain(|folder| folder.is_dir());
    folders
}

/// The nearest folder upwards that exists, to notice when the missing ones appear.
fn existing(folder: &Path) -> PathBuf {
    let found = folder.ancestors().find(|ancestor| ancestor.is_dir());
    found.filter(|found| !found.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_path_buf()
}

//! The files that came with the running configuration, for the store that decrypts some of them. Stores are made before
//! there is a configuration, so who has the files provides them later.

use std::fmt;
use std::sync::Arc;

use parking_lot::RwLock;
use tokio::sync::watch;

type Read = dyn Fn(&str) -> Option<Vec<u8>> + Send + Sync;

/// Reads files of the snapshot that is in use. Cloning shares it.
#[derive(Clone)]
pub struct SnapshotFiles {
    shared: Arc<Shared>,
}

struct Shared {
    read: RwLock<Option<Arc<Read>>>,
    changes: watch::Sender<u64>,
}

impl Default for SnapshotFiles {
    fn default() -> Self {
        Self { shared: Arc::new(Shared { read: RwLock::default(), changes: watch::Sender::new(0) }) }
    }
}

impl fmt::Debug for SnapshotFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SnapshotFiles").field(&self.shared.read.read().is_some()).finish()
    }
}

impl SnapshotFiles {
    /// From now on, files are what this says. It answers at once.
    pub fn provide(&self, read: impl Fn(&str) -> Option<Vec<u8>> + Send + Sync + 'static) {
        *self.shared.read.write() = Some(Arc::new(read));
        self.changed();
    }

    /// Tells that the files may be others now.
    pub fn changed(&self) {
        self.shared.changes.send_modify(|count| *count += 1);
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<u64> {
        self.shared.changes.subscribe()
    }

    /// Whether anybody provides files.
    pub(crate) fn are_provided(&self) -> bool {
        self.shared.read.read().is_some()
    }

    pub(crate) fn read(&self, path: &str) -> Option<Vec<u8>> {
        let read = self.shared.read.read().clone();
        read.and_then(|read| read(path))
    }
}

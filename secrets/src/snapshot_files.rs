//! The files that came with the running configuration, for the store that decrypts some of them. Stores are made before
//! there is a configuration, so who has the files provides them later.

use std::fmt;
use std::sync::Arc;

use parking_lot::RwLock;
use tokio::sync::watch;

type Read = dyn Fn(&str) -> SnapshotFile + Send + Sync;

/// What is known of a file of the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SnapshotFile {
    /// It is there, with this content.
    Found(Vec<u8>),
    /// There is none.
    Absent,
    /// Nobody can say yet: the sources have not answered.
    NotYet,
}

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
    /// From now on, files are what this says. It may look at the disk.
    pub fn provide(&self, read: impl Fn(&str) -> SnapshotFile + Send + Sync + 'static) {
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

    /// What a path holds. May block.
    pub(crate) fn read(&self, path: &str) -> SnapshotFile {
        let read = self.shared.read.read().clone();
        read.map_or(SnapshotFile::NotYet, |read| read(path))
    }
}

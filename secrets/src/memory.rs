//! What outlives the process: values that were read last, and what a store needs itself so that its leases go on. Where it
//! is kept is the business of whoever implements [`SecretMemory`].

use std::fmt;
use std::sync::Arc;

use crate::snapshot::SecretSnapshot;

/// No reference has this path.
const OWN: &str = "";

/// Keeps what was read for the next start.
pub trait SecretMemory: Send + Sync + 'static {
    /// What was read last of a path, unless it has ended or is too old: of use while its store is out of reach.
    fn recall(&self, store: &str, path: &str) -> Option<SecretSnapshot>;

    /// What was read last of a path, if it came with a lease that may still last, however old it is: of use once its store has
    /// confirmed the lease. That is as it was granted.
    fn recall_lease(&self, store: &str, path: &str) -> Option<SecretSnapshot>;

    /// Takes note of a value. Must not block.
    fn remember(&self, store: &str, path: &str, snapshot: &SecretSnapshot);

    /// Forgets what was read of a path. Must not block.
    fn forget(&self, store: &str, path: &str);
}

/// The place in a memory that belongs to one store itself.
#[derive(Clone)]
pub struct StoreMemory {
    store: String,
    memory: Arc<dyn SecretMemory>,
}

impl StoreMemory {
    /// The place of the store of this name.
    #[must_use]
    pub fn of(store: &str, memory: Arc<dyn SecretMemory>) -> Self {
        Self { store: store.to_owned(), memory }
    }

    /// What the store kept there, unless its lease has ended.
    #[must_use]
    pub fn recall(&self) -> Option<SecretSnapshot> {
        self.memory.recall_lease(&self.store, OWN)
    }

    /// Keeps this there; it needs a lease.
    pub fn remember(&self, own: &SecretSnapshot) {
        self.memory.remember(&self.store, OWN, own);
    }

    /// Keeps nothing there.
    pub fn forget(&self) {
        self.memory.forget(&self.store, OWN);
    }
}

impl fmt::Debug for StoreMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StoreMemory({})", self.store)
    }
}

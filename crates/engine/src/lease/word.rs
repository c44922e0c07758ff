//! The lease word: a count of entries and a closed bit in one atomic.

use super::atomics::{AtomicU64, Ordering};

/// Set when nothing enters any more. The count lives in the bits below.
const CLOSED: u64 = 1 << 63;

/// Counts who is inside and tells exactly one caller when the last has left a closed word.
pub(crate) struct LeaseWord(AtomicU64);

impl LeaseWord {
    /// Open, nobody inside.
    pub(crate) fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// Adds one entry unless closed.
    pub(crate) fn enter(&self) -> bool {
        let mut word = self.0.load(Ordering::Relaxed);
        loop {
            if word & CLOSED != 0 {
                return false;
            }
            match self.0.compare_exchange_weak(word, word + 1, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => return true,
                Err(seen) => word = seen,
            }
        }
    }

    /// Takes one entry back. True for exactly one caller: the one that leaves a closed word empty.
    #[must_use]
    pub(crate) fn exit(&self) -> bool {
        self.0.fetch_sub(1, Ordering::AcqRel) == CLOSED | 1
    }

    /// Lets nobody in from now on. True if nobody was inside and this call closed it: the word is quiet already.
    #[must_use]
    pub(crate) fn close(&self) -> bool {
        self.0.fetch_or(CLOSED, Ordering::AcqRel) == 0
    }

    /// How many are inside.
    pub(crate) fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed) & !CLOSED
    }
}

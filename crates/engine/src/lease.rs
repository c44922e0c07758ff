//! The lease: how a call keeps the generation it entered under, and how the engine learns that the last one has left.
//!
//! One atomic word a generation, [`LeaseWord`]: a count and a closed bit. A [`Lease`] is one entry; a flow and its clones share
//! it. A *drain lease* keeps a generation for a parked instance without counting: a generation is quiet when the calls that
//! entered it from outside have left.

mod word;

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::generation::Generation;
pub(crate) use word::LeaseWord;

/// The atomics that [`word`] is built on; its model test brings others.
mod atomics {
    pub(super) use std::sync::atomic::{AtomicU64, Ordering};
}

/// A hold on a generation.
pub(crate) struct Lease {
    generation: Arc<Generation>,
    /// Fires when the calls under this lease must return.
    cancellation: CancellationToken,
    /// Whether it counts for quiet.
    counted: bool,
}

impl Lease {
    /// Enters `generation` unless it is closed.
    pub(crate) fn enter(generation: &Arc<Generation>) -> Option<Arc<Self>> {
        generation.word().enter().then(|| {
            Arc::new(Self {
                generation: Arc::clone(generation),
                cancellation: generation.cancellation().clone(),
                counted: true,
            })
        })
    }

    /// Keeps `generation` for an instance that is about to be parked; its calls end with the instance's cancellation.
    pub(crate) fn drain(generation: &Arc<Generation>, cancellation: CancellationToken) -> Arc<Self> {
        Arc::new(Self { generation: Arc::clone(generation), cancellation, counted: false })
    }

    pub(crate) fn generation(&self) -> &Arc<Generation> {
        &self.generation
    }

    pub(crate) fn cancellation(&self) -> &CancellationToken {
        &self.cancellation
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if self.counted && self.generation.word().exit() {
            self.generation.became_quiet();
        }
    }
}

#[cfg(test)]
mod model_tests;

//! Live debugging: whoever looks at a node gets what goes in and out of it, as it passes. The data path pays one relaxed
//! load while nobody looks, and never waits for who does: what they cannot take in time is counted and left out.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use invar_telemetry::MetricBatch;
use parking_lot::RwLock;
use tokio::sync::mpsc;

use crate::node::NodeId;

/// How many batches wait for a looker.
const WAITING: usize = 64;

/// A batch on its way from one node to another.
#[derive(Clone, Debug)]
pub struct TapEvent {
    /// Where it comes from.
    pub from: NodeId,
    /// Where it goes.
    pub to: NodeId,
    /// The id of the generation it goes through.
    pub generation: u64,
    /// What it carries, shared with the data path.
    pub batch: Arc<MetricBatch>,
}

/// A look at one node. Dropping it ends the look.
#[derive(Debug)]
pub struct TapStream {
    events: mpsc::Receiver<TapEvent>,
    tap: Arc<Tap>,
    taps: Arc<Taps>,
}

/// Who looks at what.
#[derive(Debug, Default)]
pub(crate) struct Taps {
    looking: AtomicUsize,
    taps: RwLock<Vec<Arc<Tap>>>,
}

#[derive(Debug)]
struct Tap {
    node: NodeId,
    events: mpsc::Sender<TapEvent>,
    missed: AtomicU64,
}

// === impl Taps ===

impl Taps {
    /// Begins a look at a node.
    pub(crate) fn look(self: &Arc<Self>, node: NodeId) -> TapStream {
        let (sender, events) = mpsc::channel(WAITING);
        let tap = Arc::new(Tap { node, events: sender, missed: AtomicU64::new(0) });
        let mut taps = self.taps.write();
        taps.push(Arc::clone(&tap));
        self.looking.store(taps.len(), Ordering::Relaxed);
        drop(taps);
        TapStream { events, tap, taps: Arc::clone(self) }
    }

    /// Whether anybody looks at anything: what the data path asks for every batch.
    pub(crate) fn are_used(&self) -> bool {
        self.looking.load(Ordering::Relaxed) > 0
    }

    /// Shows a batch to those who look at either end of its way.
    pub(crate) fn show(&self, event: impl Fn() -> TapEvent, from: &NodeId, to: &NodeId) {
        for tap in self.taps.read().iter().filter(|tap| tap.node == *from || tap.node == *to) {
            if tap.events.try_send(event()).is_err() {
                tap.missed.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

// === impl TapStream ===

impl TapStream {
    /// The node that is looked at.
    #[must_use]
    pub fn node(&self) -> &NodeId {
        &self.tap.node
    }

    /// The next batch that goes in or out. Waits for one.
    pub async fn next(&mut self) -> TapEvent {
        match self.events.recv().await {
            Some(event) => event,
            // The sender lives in the tap that this stream holds.
            None => std::future::pending().await,
        }
    }

    /// How many batches were left out since this was last asked.
    pub fn take_missed(&self) -> u64 {
        self.tap.missed.swap(0, Ordering::Relaxed)
    }
}

impl Drop for TapStream {
    fn drop(&mut self) {
        let mut taps = self.taps.taps.write();
        taps.retain(|tap| !Arc::ptr_eq(tap, &self.tap));
        self.taps.looking.store(taps.len(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use invar_telemetry::{SeriesList, Timestamps};

    use super::*;

    fn event(from: &NodeId, to: &NodeId) -> TapEvent {
        let batch = Arc::new(MetricBatch::new(SeriesList::new([]), Vec::new(), Timestamps::One(0)));
        TapEvent { from: from.clone(), to: to.clone(), generation: 1, batch }
    }

    #[tokio::test]
    async fn those_at_either_end_see_a_batch_and_nobody_else() {
        let taps = Arc::new(Taps::default());
        let [a, b, c] = ["t.a", "t.b", "t.c"].map(NodeId::from);
        assert!(!taps.are_used());
        let (mut at_a, mut at_b, at_c) = (taps.look(a.clone()), taps.look(b.clone()), taps.look(c));
        assert!(taps.are_used());
        taps.show(|| event(&a, &b), &a, &b);
        assert_eq!(at_a.next().await.to, b);
        assert_eq!(at_b.next().await.from, a);
        drop((at_a, at_b, at_c));
        assert!(!taps.are_used());
    }

    #[tokio::test]
    async fn who_is_slow_misses_some_and_is_told() {
        let taps = Arc::new(Taps::default());
        let [a, b] = ["t.a", "t.b"].map(NodeId::from);
        let mut slow = taps.look(a.clone());
        for _ in 0..WAITING + 3 {
            taps.show(|| event(&a, &b), &a, &b);
        }
        assert_eq!(slow.take_missed(), 3);
        assert_eq!(slow.take_missed(), 0);
        slow.next().await;
    }
}

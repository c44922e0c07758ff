//! The end of the process: sources stop first, then what they feed, each with what is left of the deadline.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::Instant;

use crate::engine::Shared;
use crate::generation::{Generation, Unit};

impl Shared {
    /// Completes when no retired instance is draining any more.
    pub(crate) async fn drained(&self) {
        self.retirements.wait().await;
    }

    pub(crate) async fn shutdown(self: &Arc<Self>, deadline: Duration) {
        let by = Instant::now() + deadline;
        let left = || by.saturating_duration_since(Instant::now());
        self.stop.cancel();
        let (generation, retained) = self.base();
        let listeners = self.host.listeners.shutdown(deadline);
        let instances = async {
            let levels = levels(&generation);
            let count = levels.len();
            for (level, units) in levels.into_iter().enumerate() {
                // Each level leaves as much for the ones after it.
                let share = if level + 1 < count { left() / 2 } else { left() };
                join_all(units.iter().map(|unit| self.end(&unit.cell, share))).await;
            }
        };
        let parked = retained.iter().flat_map(|retained| &retained.places).filter_map(|place| place.unit());
        let parked = join_all(
            parked
                .filter(|unit| generation.slot_with(&unit.cell).is_none())
                .map(|unit| self.end(&unit.cell, deadline)),
        );
        tokio::join!(listeners, instances, parked);
        let engine = async { tokio::join!(self.retirements.wait(), self.tasks.wait()) };
        if tokio::time::timeout(left(), engine).await.is_err() {
            tracing::warn!("retired components have not drained in time");
        }
        // Breaks the circle of generations that hold instances that hold the running generation.
        let mut writer = self.writer.lock();
        writer.retained = None;
        let old = self.root.store(Arc::new(Generation::empty(generation.id)));
        old.close();
    }
}

/// The units by how far they are from a source: those that nothing feeds come first.
fn levels(generation: &Generation) -> Vec<Vec<Arc<Unit>>> {
    let mut depth = vec![0_usize; generation.slots.len()];
    // Senders refer to receivers, so the reverse of the evaluation order visits senders first.
    for index in generation.graph.order().iter().rev() {
        for output in &generation.slot(*index).outputs {
            let target = output.slot as usize;
            depth[target] = depth[target].max(depth[*index as usize] + 1);
        }
    }
    let mut levels: Vec<Vec<Arc<Unit>>> = Vec::new();
    for (slot, depth) in generation.slots.iter().zip(depth) {
        if levels.len() <= depth {
            levels.resize_with(depth + 1, Vec::new);
        }
        levels[depth].extend(slot.unit().cloned());
    }
    levels
}

//! Waves: changed exports flow to dependants, and only to them, through the same prepare and store steps as a configuration.
//!
//! During a probation a wave goes through the running generation and through the retained configuration, the latter in its
//! states only, so that a rollback brings back neither dead targets nor old secrets. Failed nodes are tried again the same way.

use std::collections::BTreeSet;
use std::sync::Arc;

use invar_syntax::value::Value;
use tokio::time::Instant;

use crate::configuration::Configuration;
use crate::engine::Shared;
use crate::evaluate::{NodeError, NodeScope, accept, evaluate, guarded};
use crate::generation::{Generation, Occupant, Place, Retained};
use crate::graph::Graph;
use crate::instance::InstanceCell;
use crate::prepare::failed;

/// Exports that instances published, the latest of each.
type Published = [(Arc<InstanceCell>, Value)];

/// One configuration that a wave goes through: the running one, or the retained one.
struct Side<'a> {
    graph: &'a Graph,
    configuration: &'a Configuration,
    places: Vec<Place>,
    /// Nodes to evaluate again, by rank: dependencies first.
    dirty: BTreeSet<(u32, u32)>,
    changed: bool,
}

/// What went through: nodes whose new inputs were not accepted, and those whose were.
#[derive(Default)]
struct Verdicts {
    rejected: Vec<(Arc<InstanceCell>, String)>,
    accepted: Vec<Arc<InstanceCell>>,
}

impl Shared {
    /// The task that runs waves until the engine stops.
    pub(crate) async fn run_waves(self: Arc<Self>) {
        loop {
            let retry = self.root.current().next_retry();
            let due = async {
                match retry {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = self.root.published() => {}
                () = due => {}
            }
            if self.root.published_count() == 0 && !self.retry_is_due() {
                continue;
            }
            // What comes within the interval goes along.
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = tokio::time::sleep(self.options.wave_interval) => {}
            }
            self.meters.evaluating.set(1);
            tokio::select! {
                () = self.stop.cancelled() => {}
                () = self.wave() => {}
            }
            self.meters.evaluating.set(0);
        }
    }

    fn retry_is_due(&self) -> bool {
        self.root.current().next_retry().is_some_and(|at| at <= Instant::now())
    }

    /// One wave: everything published so far, and the failed nodes that are due.
    async fn wave(self: &Arc<Self>) {
        let published = self.root.take_published();
        self.meters.waves.inc();
        loop {
            self.waves_allowed().await;
            let (base, base_retained) = self.base();
            let mut running = Side::new(&base.graph, &base.configuration, base.places());
            running.take(&published);
            running.take_due_retries();
            let mut verdicts = Verdicts::default();
            self.propagate(&mut running, None, Some(&mut verdicts)).await;
            let mut retained = None;
            if let Some(kept) = &base_retained {
                let mut side = Side::new(&kept.graph, &kept.configuration, kept.places.clone());
                side.take(&published);
                self.propagate(&mut side, Some(&running), None).await;
                retained = Some(if side.changed {
                    Arc::new(Retained {
                        configuration: Arc::clone(&kept.configuration),
                        graph: Arc::clone(&kept.graph),
                        places: side.places,
                    })
                } else {
                    Arc::clone(kept)
                });
            }
            let retained_changed =
                retained.as_ref().map(Arc::as_ptr) != base_retained.as_ref().map(Arc::as_ptr);
            let settled = if running.changed || retained_changed {
                let (configuration, graph) = (Arc::clone(&base.configuration), Arc::clone(&base.graph));
                let next =
                    Generation::assemble(base.id, base.epoch + 1, configuration, graph, running.places);
                self.waves_are_allowed() && self.store_epoch(&base, base_retained.as_ref(), next, retained)
            } else {
                true
            };
            if settled {
                self.announce(verdicts);
                return;
            }
        }
    }

    fn announce(&self, verdicts: Verdicts) {
        for (cell, reason) in verdicts.rejected {
            tracing::warn!(node = %cell.node(), reason, "component keeps its state: changed inputs were not accepted");
            self.meters.rejected.inc();
            cell.health().rejected(&reason);
        }
        for cell in verdicts.accepted {
            cell.health().accepted();
        }
    }

    /// Evaluates dirty nodes and those that depend on what they export, dependencies first.
    async fn propagate(
        self: &Arc<Self>,
        side: &mut Side<'_>,
        other: Option<&Side<'_>>,
        mut verdicts: Option<&mut Verdicts>,
    ) {
        while let Some((_, index)) = side.dirty.pop_first() {
            let started = Instant::now();
            let node = side.graph.node(index);
            let present = side.places[index as usize].clone();
            let result = match side.accepted(index) {
                Ok(accepted) => {
                    let unchanged = present.unit().map(|unit| {
                        guarded(node, || {
                            node.definition.equal_arguments(&accepted.arguments, &unit.arguments)
                        })
                    });
                    match unchanged {
                        Some(Ok(true)) => Ok(None),
                        Some(Err(error)) => Err(error),
                        Some(Ok(false)) | None => {
                            // The other side's unit serves if its arguments are equal: then a rollback does not touch it.
                            let mut copies: Vec<Place> =
                                other.and_then(|other| other.place(node.id.as_str())).into_iter().collect();
                            copies.insert(0, present.clone());
                            self.prepare_node(node, accepted, &copies).await.map(Some)
                        }
                    }
                }
                Err(error) => Err(error),
            };
            self.meters.evaluation_seconds.observe(started.elapsed().as_secs_f64());
            match result {
                Ok(None) => {
                    if let (Some(verdicts), Some(unit)) = (verdicts.as_deref_mut(), present.unit()) {
                        verdicts.accepted.push(Arc::clone(&unit.cell));
                    }
                }
                Ok(Some(place)) => {
                    if let (Some(verdicts), Some(unit)) = (verdicts.as_deref_mut(), place.unit()) {
                        verdicts.accepted.push(Arc::clone(&unit.cell));
                    }
                    side.replace(index, place);
                }
                Err(error) => side.reject(index, &present, &error, verdicts.as_deref_mut()),
            }
        }
    }
}

// === impl Side ===

impl<'a> Side<'a> {
    fn new(graph: &'a Graph, configuration: &'a Configuration, places: Vec<Place>) -> Self {
        Self { graph, configuration, places, dirty: BTreeSet::new(), changed: false }
    }

    fn place(&self, node: &str) -> Option<Place> {
        self.graph.find(node).map(|index| self.places[index as usize].clone())
    }

    /// Takes over what instances of this side published.
    fn take(&mut self, published: &Published) {
        for (cell, exports) in published {
            let Some(index) = self.graph.find(cell.node().as_str()) else { continue };
            let place = &mut self.places[index as usize];
            let is_here = place.unit().is_some_and(|unit| Arc::ptr_eq(&unit.cell, cell));
            if is_here && place.exports != *exports {
                place.exports = exports.clone();
                self.changed = true;
                self.spread(index);
            }
        }
    }

    fn take_due_retries(&mut self) {
        let now = Instant::now();
        for index in self.graph.order() {
            if let Occupant::Failed(failure) = &self.places[*index as usize].occupant
                && failure.retry_at <= now
            {
                self.dirty.insert((self.graph.rank(*index), *index));
            }
        }
    }

    /// Marks the dependants of a node whose exports changed.
    fn spread(&mut self, index: u32) {
        for dependant in &self.graph.node(index).dependants {
            self.dirty.insert((self.graph.rank(*dependant), *dependant));
        }
    }

    fn accepted(&self, index: u32) -> Result<crate::evaluate::Accepted, NodeError> {
        let scope = NodeScope {
            graph: self.graph,
            inputs: &self.configuration.inputs,
            exports: |index: u32| self.places[index as usize].exports.clone(),
        };
        let node = self.graph.node(index);
        evaluate(&node.block, &scope).and_then(|body| accept(node, &body))
    }

    fn replace(&mut self, index: u32, place: Place) {
        let exports_changed = self.places[index as usize].exports != place.exports;
        self.places[index as usize] = place;
        self.changed = true;
        if exports_changed {
            self.spread(index);
        }
    }

    /// The node keeps the state it had; one that had none waits for its next turn.
    fn reject(&mut self, index: u32, present: &Place, error: &NodeError, verdicts: Option<&mut Verdicts>) {
        match &present.occupant {
            Occupant::Ready(unit) => {
                if let Some(verdicts) = verdicts {
                    verdicts.rejected.push((Arc::clone(&unit.cell), error.reason()));
                }
            }
            Occupant::Failed(failure) => {
                let place = failed(self.graph.node(index), error, Some(failure));
                self.replace(index, place);
            }
        }
    }
}

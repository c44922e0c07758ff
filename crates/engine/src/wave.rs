//! Waves: changed exports flow to dependants, and only to them, through the same prepare and store steps as a configuration.
//!
//! During a probation a wave goes through the running generation and through the retained configuration, the latter in its
//! states only, so that a rollback brings back neither dead targets nor old secrets. Failed nodes are tried again the same way.

use std::collections::BTreeSet;
use std::sync::Arc;

use foldhash::HashMap;
use invar_syntax::value::Value;
use tokio::time::Instant;

use crate::configuration::Configuration;
use crate::definition::Definition;
use crate::engine::Shared;
use crate::evaluate::{Accepted, NodeError, View, accept, guarded};
use crate::generation::{Generation, Occupant, Place, Retained};
use crate::graph::{Expansion, Graph, GraphNode};
use crate::instance::InstanceCell;
use crate::node::NodeId;
use crate::prepare::{
    MOST_ROUNDS, Refused, Rounds, Tolerance, ValuePlace, Work, failed, imports_of, kept_place,
    places_by_name, unsettled, value_place,
};

/// Exports that instances published, the latest of each.
type Published = [(Arc<InstanceCell>, Value)];

/// One configuration that a wave goes through: the running one, or the retained one.
struct Side<'a> {
    graph: Arc<Graph>,
    configuration: &'a Arc<Configuration>,
    places: Vec<Place>,
    /// Nodes to evaluate again, by rank: dependencies first.
    dirty: BTreeSet<(u32, u32)>,
    changed: bool,
    /// What the graph has to be expanded with from now on.
    expansions: Vec<(NodeId, Expansion)>,
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
            if self.root.published_count() == 0 && !self.retry_is_due() && !self.secrets_moved() {
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

    /// Whether a text of a secret that is in use is not the newest, or a secret that was lacking is there.
    fn secrets_moved(&self) -> bool {
        let (base, retained) = self.base();
        let kept =
            retained.as_ref().is_some_and(|kept| kept.places.iter().any(|place| place.secrets.is_outdated()));
        let arrived = base.configuration.secrets.has_arrived();
        arrived || kept || base.slots.iter().any(|slot| slot.place.secrets.is_outdated())
    }

    /// One wave: everything published so far, and the failed nodes that are due.
    async fn wave(self: &Arc<Self>) {
        let published = self.root.take_published();
        let mut arrived = false;
        self.meters.waves.inc();
        loop {
            self.waves_allowed().await;
            let (base, base_retained) = self.base();
            let mut running = Side::new(&base.graph, &base.configuration, base.places());
            running.take(&published);
            arrived |= base.configuration.secrets.take_arrived();
            if running.take_due_retries(arrived) {
                // What could not be prepared may lack a secret.
                self.ask_for_secrets(&base.configuration);
            }
            running.take_outdated();
            let mut verdicts = Verdicts::default();
            self.propagate(&mut running, None, Some(&mut verdicts)).await;
            let mut retained = None;
            if let Some(kept) = &base_retained {
                let mut side = Side::new(&kept.graph, &kept.configuration, kept.places.clone());
                side.take(&published);
                side.take_outdated();
                self.propagate(&mut side, Some(&running), None).await;
                retained = Some(if side.changed {
                    Arc::new(Retained {
                        configuration: Arc::clone(&kept.configuration),
                        graph: side.graph,
                        places: side.places,
                    })
                } else {
                    Arc::clone(kept)
                });
            }
            let retained_changed =
                retained.as_ref().map(Arc::as_ptr) != base_retained.as_ref().map(Arc::as_ptr);
            let settled = if running.changed || retained_changed {
                let configuration = Arc::clone(&base.configuration);
                let (graph, places) = (running.graph, running.places);
                let next = Generation::assemble(base.id, base.epoch + 1, configuration, graph, places);
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

    /// Evaluates dirty nodes and those that depend on what they export, dependencies first. Where values decide what there is,
    /// the graph is expanded again.
    async fn propagate(
        self: &Arc<Self>,
        side: &mut Side<'_>,
        other: Option<&Side<'_>>,
        mut verdicts: Option<&mut Verdicts>,
    ) {
        while let Some((_, index)) = side.dirty.pop_first() {
            let started = Instant::now();
            let graph = Arc::clone(&side.graph);
            let node = graph.node(index);
            let Some(definition) = node.component() else {
                side.evaluate_value(index, node);
                continue;
            };
            let present = side.places[index as usize].clone();
            let result = match side.accepted(node, definition) {
                Ok(accepted) => {
                    let unchanged = present.unit().map(|unit| {
                        guarded(node, || definition.equal_arguments(&accepted.arguments, &unit.arguments))
                    });
                    match unchanged {
                        // Of another version, and the same all the same.
                        Some(Ok(true)) if present.secrets.is_outdated() => {
                            Ok(Some(present.clone().with_secrets(accepted.secrets)))
                        }
                        Some(Ok(true)) => Ok(None),
                        Some(Err(error)) => Err(error),
                        Some(Ok(false)) | None => {
                            // The other side's unit serves if its arguments are equal: then a rollback does not touch it.
                            let mut copies = vec![present.clone()];
                            copies.extend(other.and_then(|other| other.place(node.id.as_str())));
                            self.prepare_node(node, definition, accepted, &copies).await.map(Some)
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
        if !side.expansions.is_empty() {
            self.expand_side(side, other, verdicts).await;
        }
    }

    /// Expands the graph with other values. Everything that still fits is taken over; a component that does not accept its new
    /// inputs keeps its state; a new one that cannot be prepared is tried again. An import whose new content does not work keeps
    /// the content it had.
    async fn expand_side(
        self: &Arc<Self>,
        side: &mut Side<'_>,
        other: Option<&Side<'_>>,
        verdicts: Option<&mut Verdicts>,
    ) {
        let mut rounds = Rounds::new(side.graph.dynamics.clone()).dropping_new();
        rounds.go_on(&side.graph, std::mem::take(&mut side.expansions));
        let mut previous = HashMap::default();
        for _ in 0..MOST_ROUNDS {
            let graph = match self.expand(side.configuration, &rounds.dynamics).await {
                Ok(graph) => Arc::new(graph),
                Err(diagnostics) if rounds.revert(&diagnostics) => continue,
                Err(diagnostics) => {
                    tracing::error!(%diagnostics, "the running configuration cannot be expanded again");
                    return;
                }
            };
            let copies = |node: &GraphNode| {
                let own = side.place(node.id.as_str()).or_else(|| previous.get(&node.id).cloned());
                own.into_iter().chain(other.and_then(|other| other.place(node.id.as_str()))).collect()
            };
            let work = Work::new(self, side.configuration, &graph, &rounds.refused, Tolerance::Keep)
                .after(&side.graph, &side.places);
            let (passed, _logging) = work.pass(copies).await;
            if !passed.expansions.is_empty() {
                rounds.go_on(&graph, passed.expansions);
                previous = places_by_name(&graph, passed.places);
                continue;
            }
            if rounds.refuse_changed(&imports_of(&graph, &passed.errors), &passed.errors) {
                continue;
            }
            let places: Vec<Place> = passed.places.into_iter().flatten().collect();
            if let Some(verdicts) = verdicts {
                for (index, error) in &passed.errors {
                    if let Some(unit) = places[*index as usize].unit() {
                        verdicts.rejected.push((Arc::clone(&unit.cell), error.reason()));
                    }
                }
            }
            side.graph = graph;
            side.places = places;
            side.changed = true;
            return;
        }
        tracing::error!(reason = %unsettled(), "the running configuration cannot be expanded again");
    }
}

// === impl Side ===

impl<'a> Side<'a> {
    fn new(graph: &Arc<Graph>, configuration: &'a Arc<Configuration>, places: Vec<Place>) -> Self {
        Self {
            graph: Arc::clone(graph),
            configuration,
            places,
            dirty: BTreeSet::new(),
            changed: false,
            expansions: Vec::new(),
        }
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

    /// Takes up failed nodes whose time has come, or all of them; whether there are any.
    fn take_due_retries(&mut self, all: bool) -> bool {
        let now = Instant::now();
        let mut any = false;
        for index in self.graph.order() {
            if let Occupant::Failed(failure) = &self.places[*index as usize].occupant
                && (all || failure.retry_at <= now)
            {
                self.dirty.insert((self.graph.rank(*index), *index));
                any = true;
            }
        }
        any
    }

    /// Takes up the nodes that use the text of a secret that has another one by now.
    fn take_outdated(&mut self) {
        for index in self.graph.order() {
            if self.places[*index as usize].secrets.is_outdated() {
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

    fn view(&self) -> View<'_, impl Fn(u32) -> Value> {
        View {
            graph: &self.graph,
            configuration: self.configuration,
            exports: |index: u32| self.places[index as usize].exports.clone(),
        }
    }

    fn accepted(&self, node: &GraphNode, definition: &Arc<dyn Definition>) -> Result<Accepted, NodeError> {
        let view = self.view();
        let scope = view.at(node.frame, &node.block);
        accept(node, definition, &scope)
    }

    /// Evaluates a node without a component.
    fn evaluate_value(&mut self, index: u32, node: &GraphNode) {
        let result = value_place(node, &self.view(), &Refused::default());
        let present = &self.places[index as usize];
        match result {
            Ok(ValuePlace::Expand(expansion)) => self.expansions.push((node.id.clone(), expansion)),
            Ok(ValuePlace::Place(place)) => {
                if place.problem() != present.problem()
                    || place.exports != present.exports
                    || present.secrets.is_outdated()
                {
                    self.replace(index, place);
                }
            }
            Err(error) => {
                let present = present.clone();
                self.reject(index, &present, &error, None);
            }
        }
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
            Occupant::Value(_) => {
                let place = kept_place(present, error);
                if place.problem() != present.problem() {
                    self.replace(index, place);
                }
            }
        }
    }
}

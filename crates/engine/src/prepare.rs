//! Preparing a configuration beside the running one: what is unchanged is copied, the rest is made. Fallible and revocable.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use foldhash::HashMap;
use futures_util::FutureExt;
use invar_syntax::diagnostic::{Diagnostic, Diagnostics};
use invar_syntax::live_secret::recording;
use invar_syntax::value::Value;
use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::aside::{Pace, compute_aside};
use crate::codes;
use crate::configuration::Configuration;
use crate::context::{ExportContext, InstanceContext, NodeEnvironment, StateContext};
use crate::definition::Definition;
use crate::delivery::{PrepareError, PrepareErrorKind};
use crate::engine::{FailureClass, PrepareFailure, PrepareMode, Shared};
use crate::evaluate::{Accepted, NodeError, View, accept, evaluate, guarded, panicked};
use crate::generation::{Failure, Generation, Occupant, Place, Retained, Unit};
use crate::graph::{Dynamics, Expansion, Graph, GraphNode, NodeKind};
use crate::instance::InstanceCell;
use crate::logging::{self, LogSettings};
use crate::node::NodeId;
use crate::secrets::NodeSecrets;
use crate::value_node::{Valued, evaluate_value, placeholder};

/// A prepared configuration. Dropping it undoes the preparation.
pub struct Prepared {
    /// What it was prepared against.
    pub(crate) base: Arc<Generation>,
    pub(crate) configuration: Arc<Configuration>,
    pub(crate) graph: Arc<Graph>,
    pub(crate) places: Vec<Place>,
    pub(crate) logging: Option<LogSettings>,
    pub(crate) mode: PrepareMode,
}

/// The first wait before a failed node is tried again; doubles up to [`LONGEST_RETRY`].
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LONGEST_RETRY: Duration = Duration::from_secs(60);

/// How long building one state may take.
const LONGEST_PREPARATION: Duration = Duration::from_secs(60);

/// How often a graph is expanded again before that counts as endless. Each level of dynamic nodes within dynamic nodes takes one
/// round.
pub(crate) const MOST_ROUNDS: usize = 64;

/// What a pass over a graph does with a node that cannot be evaluated or prepared.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) enum Tolerance {
    /// It is an error.
    None,
    /// The node is left out, shows unhealthy and is tried again.
    LeaveOut,
    /// The node keeps what it had, if it had anything; else as before.
    Keep,
}

/// What dynamic nodes are not to be expanded with, for it was tried, and why.
pub(crate) type Refused = HashMap<NodeId, (Expansion, String)>;

/// What a pass over a graph came to.
pub(crate) struct Passed {
    /// By index; none where something before the node failed or has to be expanded first.
    pub(crate) places: Vec<Option<Place>>,
    /// What the graph has to be expanded with instead.
    pub(crate) expansions: Vec<(NodeId, Expansion)>,
    /// The nodes at fault.
    pub(crate) errors: Vec<(u32, NodeError)>,
}

impl Shared {
    /// Prepares a configuration against what runs now.
    pub(crate) async fn prepare(
        self: &Arc<Self>,
        configuration: Arc<Configuration>,
        mode: PrepareMode,
    ) -> Result<Prepared, PrepareFailure> {
        self.require_secrets(&configuration, mode).await?;
        self.prepare_from(configuration, mode, None).await
    }

    /// Prepares again what was prepared against an epoch that has passed: units that still fit are taken over.
    pub(crate) async fn catch_up(self: &Arc<Self>, prepared: Prepared) -> Result<Prepared, PrepareFailure> {
        let (configuration, mode) = (Arc::clone(&prepared.configuration), prepared.mode);
        self.prepare_from(configuration, mode, Some(prepared)).await
    }

    async fn prepare_from(
        self: &Arc<Self>,
        configuration: Arc<Configuration>,
        mode: PrepareMode,
        before: Option<Prepared>,
    ) -> Result<Prepared, PrepareFailure> {
        let (base, retained) = self.base();
        let mut known = Dynamics::new();
        known.extend(retained.iter().flat_map(|retained| retained.graph.dynamics.clone()));
        known.extend(base.graph.dynamics.clone());
        let mut rounds = Rounds::new(known);
        let (mut graph, mut previous) = (None, HashMap::default());
        let catches_up = before.is_some();
        if let Some(before) = before {
            rounds.dynamics.clone_from(&before.graph.dynamics);
            previous = places_by_name(&before.graph, before.places.into_iter().map(Some));
            graph = Some(before.graph);
        }
        let tolerance = match mode {
            PrepareMode::AllOrNothing => Tolerance::None,
            PrepareMode::BestEffort => Tolerance::LeaveOut,
        };
        for _ in 0..MOST_ROUNDS {
            let graph = match graph.take() {
                Some(graph) => graph,
                None => match self.expand(&configuration, &rounds.dynamics).await {
                    Ok(graph) => Arc::new(graph),
                    Err(diagnostics) if rounds.revert(&diagnostics) => continue,
                    Err(diagnostics) => {
                        return Err(PrepareFailure { diagnostics, class: FailureClass::Content });
                    }
                },
            };
            // What was imported by another block says nothing about this one.
            let others = imports_that_differ(&graph, &base.graph, &rounds.known);
            if !others.is_empty() {
                rounds.forget(&others, catches_up);
                continue;
            }
            let copies = |node: &GraphNode| {
                let mut copies = copies_of(node, &base, retained.as_deref());
                copies.extend(previous.get(&node.id).cloned());
                copies
            };
            let work = Work::new(self, &configuration, &graph, &rounds.refused, tolerance);
            let (passed, logging) = work.pass(copies).await;
            if !passed.expansions.is_empty() {
                rounds.go_on(&graph, passed.expansions);
                previous = places_by_name(&graph, passed.places);
                continue;
            }
            let blamed = imports_of(&graph, &passed.errors);
            if rounds.refuse_changed(&blamed, &passed.errors) {
                continue;
            }
            let mut errors: Vec<NodeError> = passed.errors.into_iter().map(|(_, error)| error).collect();
            let logging = logging.unwrap_or_else(|error| {
                errors.push(error);
                None
            });
            if !errors.is_empty() {
                return Err(failure(errors));
            }
            let places = passed.places.into_iter().flatten().collect();
            return Ok(Prepared { base, configuration, graph, places, logging, mode });
        }
        Err(PrepareFailure { diagnostics: unsettled().into(), class: FailureClass::Content })
    }

    /// The graph of a configuration under given values of dynamic nodes.
    pub(crate) async fn expand(
        self: &Arc<Self>,
        configuration: &Arc<Configuration>,
        dynamics: &Dynamics,
    ) -> Result<Graph, Diagnostics> {
        let (shared, configuration) = (Arc::clone(self), Arc::clone(configuration));
        let dynamics = dynamics.clone();
        let expanded = compute_aside(move || {
            let options = &shared.options;
            let (graph, diagnostics) =
                Graph::build(&options.registry, &configuration, options.admission(), &dynamics);
            graph.ok_or(diagnostics)
        });
        expanded.await.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

/// The places of a graph's nodes, by their names.
pub(crate) fn places_by_name(
    graph: &Graph,
    places: impl IntoIterator<Item = Option<Place>>,
) -> HashMap<NodeId, Place> {
    let named = graph.nodes.iter().zip(places);
    named.filter_map(|(node, place)| place.map(|place| (node.id.clone(), place))).collect()
}

/// Nothing settles a configuration whose values decide what it consists of, which decides the values.
pub(crate) fn unsettled() -> Diagnostic {
    let message =
        format!("what foreach and import.string expand to does not settle within {MOST_ROUNDS} rounds");
    Diagnostic::error(codes::TOO_DEEP, message)
}

/// The way to a graph that fits the values it is expanded with.
pub(crate) struct Rounds {
    /// What worked before.
    known: Dynamics,
    /// Whether going back leaves out what is new altogether.
    drops_new: bool,
    pub(crate) dynamics: Dynamics,
    pub(crate) refused: Refused,
}

impl Rounds {
    pub(crate) fn new(known: Dynamics) -> Self {
        Self { dynamics: known.clone(), known, drops_new: false, refused: Refused::default() }
    }

    /// Going back leaves out what is new.
    pub(crate) fn dropping_new(mut self) -> Self {
        self.drops_new = true;
        self
    }

    /// Nothing is known of these any more; what they were expanded with stays where it was found in this very preparation.
    fn forget(&mut self, nodes: &[NodeId], catches_up: bool) {
        for node in nodes {
            self.known.remove(node);
            if !catches_up {
                self.dynamics.remove(node);
            }
        }
    }

    /// Another round with other values.
    pub(crate) fn go_on(&mut self, graph: &Graph, expansions: Vec<(NodeId, Expansion)>) {
        self.dynamics.clone_from(&graph.dynamics);
        self.dynamics.extend(expansions);
    }

    /// Goes back to what worked before for all dynamic nodes that have such; false if there is nothing to go back to.
    pub(crate) fn revert(&mut self, diagnostics: &Diagnostics) -> bool {
        self.refuse(self.changed(), &summary(diagnostics))
    }

    /// Goes back to what worked before for those imports that have other content than before; false if none of them has.
    pub(crate) fn refuse_changed(&mut self, imports: &[NodeId], errors: &[(u32, NodeError)]) -> bool {
        let changed = self.changed().into_iter().filter(|node| imports.contains(node)).collect();
        // With their places in the module: the import is where they are looked for.
        let reasons: Vec<_> = errors.iter().map(|(_, error)| summary(&error.diagnostics)).collect();
        self.refuse(changed, &reasons.join("; "))
    }

    /// The dynamic nodes that are expanded with something else than before.
    fn changed(&self) -> Vec<NodeId> {
        let changed = self.dynamics.iter().filter(|(node, now)| {
            self.known.get(*node).is_some_and(|before| before != *now)
                || (self.drops_new && !self.known.contains_key(*node))
        });
        changed.map(|(node, _)| node.clone()).collect()
    }

    fn refuse(&mut self, nodes: Vec<NodeId>, reason: &str) -> bool {
        let mut any = false;
        for node in nodes {
            let now = match self.known.get(&node) {
                Some(before) => self.dynamics.insert(node.clone(), before.clone()),
                None => self.dynamics.remove(&node),
            };
            if let Some(now) = now {
                self.refused.insert(node, (now, reason.to_owned()));
                any = true;
            }
        }
        any
    }
}

/// The imports whose content is known, but from a block that says something else.
fn imports_that_differ(graph: &Graph, base: &Graph, known: &Dynamics) -> Vec<NodeId> {
    let differs = |node: &&GraphNode| {
        matches!(node.kind, NodeKind::Import)
            && known.contains_key(&node.id)
            && base.find(node.id.as_str()).is_none_or(|old| base.node(old).block.text() != node.block.text())
    };
    graph.nodes.iter().filter(differs).map(|node| node.id.clone()).collect()
}

/// The imports from which the nodes at fault come.
pub(crate) fn imports_of(graph: &Graph, errors: &[(u32, NodeError)]) -> Vec<NodeId> {
    let mut found = Vec::new();
    for (index, _) in errors {
        let mut next = graph.anchor(*index);
        while let Some(anchor) = next {
            let node = graph.node(anchor);
            if matches!(node.kind, NodeKind::Import) {
                found.push(node.id.clone());
            }
            next = graph.anchor(anchor).filter(|further| *further != anchor);
        }
    }
    found
}

fn summary(diagnostics: &Diagnostics) -> String {
    let messages: Vec<_> = diagnostics.iter().map(ToString::to_string).collect();
    messages.join("; ")
}

/// What a configuration was expanded to before.
struct Before<'a> {
    graph: &'a Graph,
    places: &'a [Place],
}

/// One pass over a graph.
pub(crate) struct Work<'a> {
    shared: &'a Arc<Shared>,
    configuration: &'a Configuration,
    graph: &'a Graph,
    refused: &'a Refused,
    tolerance: Tolerance,
    before: Option<Before<'a>>,
    places: Vec<Option<Place>>,
    expansions: Vec<(NodeId, Expansion)>,
    /// Who wants to listen where.
    addresses: HashMap<String, u32>,
}

impl<'a> Work<'a> {
    pub(crate) fn new(
        shared: &'a Arc<Shared>,
        configuration: &'a Configuration,
        graph: &'a Graph,
        refused: &'a Refused,
        tolerance: Tolerance,
    ) -> Self {
        Self {
            shared,
            configuration,
            graph,
            refused,
            tolerance,
            before: None,
            places: std::iter::repeat_with(|| None).take(graph.len()).collect(),
            expansions: Vec::new(),
            addresses: HashMap::default(),
        }
    }

    /// What the same configuration was expanded to before.
    pub(crate) fn after(mut self, graph: &'a Graph, places: &'a [Place]) -> Self {
        self.before = Some(Before { graph, places });
        self
    }

    /// The place of a component whose block and inputs are what they were: there is nothing to evaluate.
    fn unchanged(&self, node: &GraphNode) -> Option<Place> {
        let Before { graph, places } = self.before.as_ref()?;
        let old = graph.node(graph.find(node.id.as_str())?);
        let place = &places[graph.find(node.id.as_str())? as usize];
        // Who listens somewhere is evaluated, so that nobody else does there.
        let unit = place.unit().filter(|unit| unit.loans.is_empty())?;
        let same_block =
            node.component().is_some_and(|component| unit.cell.definition().name() == component.name())
                && node.block.is(&old.block)
                && node.references.len() == old.references.len();
        let same_inputs = || {
            node.references.iter().zip(&old.references).all(|(now, before)| {
                self.graph.node(*now).id == graph.node(*before).id
                    && (self.places[*now as usize].as_ref())
                        .is_some_and(|place| place.exports == places[*before as usize].exports)
            })
        };
        (same_block && same_inputs()).then(|| place.clone())
    }

    /// Evaluates and prepares node by node. `copies` answers the places from which something may be taken over; the first is what
    /// the node keeps where that is tolerated.
    pub(crate) async fn pass(
        mut self,
        copies: impl Fn(&GraphNode) -> Vec<Place>,
    ) -> (Passed, Result<Option<LogSettings>, NodeError>) {
        let mut errors = Vec::new();
        let mut pace = Pace::new();
        for index in self.graph.order() {
            pace.step().await;
            let node = self.graph.node(*index);
            if self.depends_on_failure(node) {
                continue;
            }
            if let Some(place) = self.unchanged(node) {
                self.places[*index as usize] = Some(place);
                continue;
            }
            let copies = copies(node);
            match self.node(*index, &copies).await {
                Ok(place) => self.places[*index as usize] = place,
                Err(error) => {
                    let kept = copies.first().filter(|place| !matches!(place.occupant, Occupant::Failed(_)));
                    self.places[*index as usize] = match (self.tolerance, kept) {
                        (Tolerance::None, _) => None,
                        (Tolerance::Keep, Some(place)) => Some(kept_place(place, &error)),
                        (Tolerance::Keep | Tolerance::LeaveOut, _) => {
                            tracing::warn!(
                                node = %node.id,
                                reason = error.reason(),
                                "component could not be prepared; trying again later"
                            );
                            let before = copies.first().and_then(|place| match &place.occupant {
                                Occupant::Failed(failure) => Some(failure),
                                _ => None,
                            });
                            Some(failed(node, &error, before.map(|failure| &**failure)))
                        }
                    };
                    if self.tolerance != Tolerance::LeaveOut {
                        errors.push((*index, error));
                    }
                }
            }
        }
        let logging = self.logging();
        (Passed { places: self.places, expansions: self.expansions, errors }, logging)
    }

    fn depends_on_failure(&self, node: &GraphNode) -> bool {
        node.references.iter().any(|reference| self.places[*reference as usize].is_none())
    }

    fn view(&self) -> View<'_, impl Fn(u32) -> Value> {
        View {
            graph: self.graph,
            configuration: self.configuration,
            exports: |index: u32| {
                self.places[index as usize].as_ref().map_or(Value::Null, |place| place.exports.clone())
            },
        }
    }

    /// The place of a node; none if the graph has to be expanded otherwise first.
    async fn node(&mut self, index: u32, copies: &[Place]) -> Result<Option<Place>, NodeError> {
        let started = Instant::now();
        let node = self.graph.node(index);
        let Some(definition) = node.component() else {
            let value = value_place(node, &self.view(), self.refused)?;
            return match value {
                ValuePlace::Place(place) => Ok(Some(place)),
                ValuePlace::Expand(expansion) => {
                    self.expansions.push((node.id.clone(), expansion));
                    Ok(None)
                }
            };
        };
        let accepted = {
            let view = self.view();
            let scope = view.at(node.frame, &node.block);
            accept(node, definition, &scope)?
        };
        self.claim_addresses(index, &accepted.addresses)?;
        let place = self.shared.prepare_node(node, definition, accepted, copies).await;
        self.shared.meters.evaluation_seconds.observe(started.elapsed().as_secs_f64());
        place.map(Some)
    }

    fn claim_addresses(&mut self, index: u32, addresses: &[String]) -> Result<(), NodeError> {
        for address in addresses {
            let Some(other) = self.addresses.insert(address.clone(), index) else { continue };
            let (node, other) = (self.graph.node(index), self.graph.node(other));
            let message =
                format!("{} would listen on {address}, where {} listens already", node.id, other.id);
            let diagnostic = Diagnostic::error(codes::ADDRESS_TAKEN, message);
            let diagnostic = node.block.label(diagnostic, node.block.header(), "");
            let diagnostic = other.block.label(diagnostic, other.block.header(), "listens there already");
            return Err(NodeError::content(Diagnostics(vec![diagnostic])));
        }
        Ok(())
    }

    fn logging(&self) -> Result<Option<LogSettings>, NodeError> {
        let Some(block) = &self.graph.logging else { return Ok(None) };
        let view = self.view();
        let body = evaluate(block, &view.at(0, block))?;
        let mut errors = Vec::new();
        let settings = logging::decode(&body, &mut errors);
        if errors.is_empty() {
            return Ok(settings);
        }
        Err(NodeError::content(crate::evaluate::decode_diagnostics(block, errors)))
    }
}

impl Shared {
    /// Copies one of `copies` if its arguments are equal, else builds a state, on an instance of one of them if its identity
    /// fits, else on a new one.
    pub(crate) async fn prepare_node(
        self: &Arc<Self>,
        node: &GraphNode,
        definition: &Arc<dyn Definition>,
        accepted: Accepted,
        copies: &[Place],
    ) -> Result<Place, NodeError> {
        let Accepted { arguments, access, secrets, addresses: _ } = accepted;
        let fitting = || {
            copies.iter().filter_map(|place| {
                let unit = place.unit().filter(|unit| !unit.cell.is_retired())?;
                (unit.cell.definition().name() == definition.name()).then_some((place, unit))
            })
        };
        for (place, unit) in fitting() {
            // A state opens what its authors may: who has others starts from a new one.
            if unit.access == access
                && guarded(node, || definition.equal_arguments(&arguments, &unit.arguments))?
            {
                return Ok(place.clone().with_secrets(secrets));
            }
        }
        let identity = guarded(node, || definition.identity(&arguments))?;
        let living = fitting().map(|(_, unit)| unit).find(|unit| unit.cell.identity() == identity);
        let (cell, before) = match living {
            Some(unit) => (Arc::clone(&unit.cell), Some(Arc::clone(&unit.state))),
            None => {
                let environment = NodeEnvironment {
                    node: node.id.clone(),
                    host: Arc::clone(&self.host),
                    vitals: Arc::default(),
                };
                let context = InstanceContext { environment: environment.clone() };
                let instance = guarded(node, || definition.instance(&arguments, &context))?
                    .map_err(|error| not_prepared(node, error))?;
                let root = Arc::clone(&self.root);
                (InstanceCell::new(Arc::clone(definition), identity, instance, environment, root), None)
            }
        };
        let loans = Arc::new(Mutex::new(Vec::new()));
        let context = StateContext {
            environment: cell.environment().clone(),
            previous: before,
            loans: Arc::clone(&loans),
            access: access.clone(),
        };
        let building = guarded(node, || definition.state(&arguments, cell.instance(), context))?;
        let state = tokio::time::timeout(LONGEST_PREPARATION, AssertUnwindSafe(building).catch_unwind())
            .await
            .map_err(|_elapsed| not_prepared(node, took_too_long()))?
            .map_err(|panic| panicked(node, &*panic))?
            .map_err(|error| not_prepared(node, error))?;
        let context = ExportContext { node: node.id.clone() };
        let exports = guarded(node, || definition.exports(cell.instance(), &state, &context))?;
        let receivers = definition.receivers(&arguments);
        let loans = std::mem::take(&mut *loans.lock());
        let unit = Unit { cell, arguments, state, receivers, loans, access };
        Ok(Place { occupant: Occupant::Ready(Arc::new(unit)), exports, secrets: Arc::new(secrets) })
    }
}

/// The places of a node from which a unit or an instance may be taken over, preferred ones first.
fn copies_of(node: &GraphNode, base: &Generation, retained: Option<&Retained>) -> Vec<Place> {
    let running = base.slot_of(&node.id).map(|slot| base.slot(slot).place.clone());
    let kept = retained.and_then(|retained| retained.place(&node.id)).cloned();
    running.into_iter().chain(kept).collect()
}

/// The place of a node that could not be prepared.
pub(crate) fn failed(node: &GraphNode, error: &NodeError, before: Option<&Failure>) -> Place {
    let attempts = before.map_or(1, |failure| failure.attempts.saturating_add(1));
    let wait = FIRST_RETRY.saturating_mul(1 << (attempts - 1).min(6)).min(LONGEST_RETRY);
    let failure = Failure {
        reason: error.reason(),
        since: before.map_or_else(Timestamp::now, |failure| failure.since),
        attempts,
        retry_at: Instant::now() + wait,
    };
    let context = ExportContext { node: node.id.clone() };
    let exports = match node.component() {
        Some(definition) => definition.placeholder_exports(&context),
        None => placeholder(node),
    };
    Place { occupant: Occupant::Failed(Arc::new(failure)), exports, secrets: Arc::default() }
}

/// What a node keeps whose new inputs were not accepted. A component's health is told when that is stored; a value says it
/// itself.
pub(crate) fn kept_place(place: &Place, error: &NodeError) -> Place {
    match &place.occupant {
        Occupant::Value(_) => {
            let secrets = Arc::clone(&place.secrets);
            Place { secrets, ..Place::value(place.exports.clone(), Some(error.reason())) }
        }
        _ => place.clone(),
    }
}

/// Where a node without a component stands after its evaluation.
pub(crate) enum ValuePlace {
    /// There.
    Place(Place),
    /// Nowhere, before the graph is expanded with this.
    Expand(Expansion),
}

/// Evaluates a node without a component. What was refused, and content that is no module, does not change what the node is
/// expanded with.
pub(crate) fn value_place<E: Fn(u32) -> Value>(
    node: &GraphNode,
    view: &View<'_, E>,
    refused: &Refused,
) -> Result<ValuePlace, NodeError> {
    let present = view.graph.dynamics.get(&node.id);
    let (valued, frozen) = recording(|| evaluate_value(node, view));
    let secrets = NodeSecrets::taken(frozen);
    let valued = match valued {
        Ok(valued) => valued,
        Err(error) if present.is_some() && matches!(node.kind, NodeKind::Import) => {
            // With the place in the module.
            return Ok(ValuePlace::Place(Place::value(Value::Null, Some(summary(&error.diagnostics)))));
        }
        Err(error) => return Err(error),
    };
    match valued {
        Valued::Dynamic(exports, Some(expansion)) if present != Some(&expansion) => {
            match refused.get(&node.id) {
                Some((tried, reason)) if *tried == expansion => {
                    Ok(ValuePlace::Place(Place::value(exports, Some(reason.clone())).with_secrets(secrets)))
                }
                _ => Ok(ValuePlace::Expand(expansion)),
            }
        }
        valued => {
            let exports = valued.exports();
            if exports.has_unknown() {
                let message = format!("{}: what it is an instance of is not known", node.local_name());
                let diagnostic = Diagnostic::error(codes::IMPORT, message);
                let diagnostic = node.block.label(diagnostic, node.block.header(), "");
                return Err(NodeError::content(diagnostic.into()));
            }
            Ok(ValuePlace::Place(Place::value(exports, None).with_secrets(secrets)))
        }
    }
}

fn took_too_long() -> PrepareError {
    PrepareError::new(PrepareErrorKind::Io, format!("preparing took longer than {LONGEST_PREPARATION:?}"))
}

fn not_prepared(node: &GraphNode, error: PrepareError) -> NodeError {
    let class = match error.kind {
        PrepareErrorKind::Invalid | PrepareErrorKind::Panic => FailureClass::Content,
        kind => FailureClass::Surroundings(kind),
    };
    let mut diagnostic = Diagnostic::error(codes::NOT_PREPARED, format!("{}: {}", node.id, error.message));
    diagnostic.help = error.help;
    let diagnostic = node.block.label(diagnostic, node.block.header(), "");
    NodeError { diagnostics: Diagnostics(vec![diagnostic]), class }
}

fn failure(errors: Vec<NodeError>) -> PrepareFailure {
    let content = errors.iter().find(|error| error.class == FailureClass::Content);
    let class = content.or(errors.first()).map_or(FailureClass::Content, |error| error.class);
    let mut diagnostics = Diagnostics::new();
    diagnostics.0.extend(errors.into_iter().flat_map(|error| error.diagnostics.0));
    diagnostics.sort();
    PrepareFailure { diagnostics, class }
}

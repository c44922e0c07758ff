//! Preparing a configuration beside the running one: what is unchanged is copied, the rest is made. Fallible and revocable.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use foldhash::HashMap;
use futures_util::FutureExt;
use invar_syntax::diagnostic::{Diagnostic, Diagnostics};
use invar_syntax::value::Value;
use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::codes;
use crate::configuration::Configuration;
use crate::context::{ExportContext, InstanceContext, NodeEnvironment, StateContext};
use crate::delivery::{PrepareError, PrepareErrorKind};
use crate::engine::{FailureClass, PrepareFailure, PrepareMode, Shared};
use crate::evaluate::{Accepted, NodeError, NodeScope, accept, evaluate, guarded, panicked};
use crate::generation::{Failure, Generation, Occupant, Place, Retained, Unit};
use crate::graph::{Graph, GraphNode};
use crate::instance::InstanceCell;
use crate::logging::{self, LogSettings};

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

impl Shared {
    /// Prepares a configuration against what runs now.
    pub(crate) async fn prepare(
        self: &Arc<Self>,
        configuration: Arc<Configuration>,
        mode: PrepareMode,
    ) -> Result<Prepared, PrepareFailure> {
        let (graph, diagnostics) =
            Graph::build(&self.options.registry, &configuration, self.options.admission());
        let Some(graph) = graph else {
            return Err(PrepareFailure { diagnostics, class: FailureClass::Content });
        };
        self.prepare_graph(configuration, Arc::new(graph), mode, None).await
    }

    /// Prepares again what was prepared against an epoch that has passed: units that still fit are taken over.
    pub(crate) async fn catch_up(self: &Arc<Self>, prepared: Prepared) -> Result<Prepared, PrepareFailure> {
        let (configuration, graph) = (Arc::clone(&prepared.configuration), Arc::clone(&prepared.graph));
        let mode = prepared.mode;
        self.prepare_graph(configuration, graph, mode, Some(prepared.places)).await
    }

    async fn prepare_graph(
        self: &Arc<Self>,
        configuration: Arc<Configuration>,
        graph: Arc<Graph>,
        mode: PrepareMode,
        previous: Option<Vec<Place>>,
    ) -> Result<Prepared, PrepareFailure> {
        let (base, retained) = self.base();
        let mut work = Work {
            shared: self,
            configuration: &configuration,
            graph: &graph,
            places: std::iter::repeat_with(|| None).take(graph.len()).collect(),
            addresses: HashMap::default(),
        };
        let mut errors: Vec<NodeError> = Vec::new();
        for index in graph.order() {
            let node = graph.node(*index);
            if mode == PrepareMode::AllOrNothing && work.depends_on_failure(node) {
                continue;
            }
            let mut copies = copies_of(node, &base, retained.as_deref());
            copies.extend(previous.as_ref().map(|places| places[*index as usize].clone()));
            match work.node(*index, &copies).await {
                Ok(place) => work.places[*index as usize] = Some(place),
                Err(error) if mode == PrepareMode::BestEffort => {
                    tracing::warn!(node = %node.id, reason = error.reason(), "component could not be prepared; trying again later");
                    work.places[*index as usize] = Some(failed(node, &error, None));
                }
                Err(error) => errors.push(error),
            }
        }
        let logging = work.logging().unwrap_or_else(|error| {
            errors.push(error);
            None
        });
        if !errors.is_empty() {
            return Err(failure(errors));
        }
        let places = work.places.into_iter().flatten().collect();
        Ok(Prepared { base, configuration, graph, places, logging, mode })
    }
}

/// One pass over a graph.
struct Work<'a> {
    shared: &'a Arc<Shared>,
    configuration: &'a Configuration,
    graph: &'a Graph,
    places: Vec<Option<Place>>,
    /// Who wants to listen where.
    addresses: HashMap<String, u32>,
}

impl Work<'_> {
    fn depends_on_failure(&self, node: &GraphNode) -> bool {
        node.references.iter().any(|reference| self.places[*reference as usize].is_none())
    }

    fn scope(&self) -> NodeScope<'_, impl Fn(u32) -> Value> {
        NodeScope {
            graph: self.graph,
            inputs: &self.configuration.inputs,
            exports: |index| {
                self.places[index as usize].as_ref().map_or(Value::Null, |place| place.exports.clone())
            },
        }
    }

    async fn node(&mut self, index: u32, copies: &[Place]) -> Result<Place, NodeError> {
        let started = Instant::now();
        let node = self.graph.node(index);
        let accepted = evaluate(&node.block, &self.scope()).and_then(|body| accept(node, &body))?;
        self.claim_addresses(index, &accepted.addresses)?;
        let place = self.shared.prepare_node(node, accepted, copies).await;
        self.shared.meters.evaluation_seconds.observe(started.elapsed().as_secs_f64());
        place
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
        let body = evaluate(block, &self.scope())?;
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
        accepted: Accepted,
        copies: &[Place],
    ) -> Result<Place, NodeError> {
        let definition = &node.definition;
        let arguments = accepted.arguments;
        let fitting = || {
            copies.iter().filter_map(|place| {
                let unit = place.unit()?;
                (unit.cell.definition().name() == definition.name()).then_some((place, unit))
            })
        };
        for (place, unit) in fitting() {
            if guarded(node, || definition.equal_arguments(&arguments, &unit.arguments))? {
                return Ok(place.clone());
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
        let unit = Unit { cell, arguments, state, receivers, loans };
        Ok(Place { occupant: Occupant::Ready(Arc::new(unit)), exports })
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
    Place {
        occupant: Occupant::Failed(Arc::new(failure)),
        exports: node.definition.placeholder_exports(&context),
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

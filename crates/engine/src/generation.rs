//! A generation: an immutable graph of slots, one per node, with the routes between them. The running pipeline is one atomic
//! pointer to one of these.

use std::sync::Arc;

use foldhash::HashMap;
use invar_policy::Access;
use invar_syntax::value::Value;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::configuration::Configuration;
use crate::definition::AnyArc;
use crate::graph::Graph;
use crate::instance::InstanceCell;
use crate::lease::LeaseWord;
use crate::listener::{LoanId, SocketId};
use crate::node::NodeId;
use crate::receiver::Receiver;
use crate::secrets::NodeSecrets;

/// An applied configuration at one moment: `id` counts configurations and is durable, `epoch` counts re-evaluations inside it.
pub struct Generation {
    pub(crate) id: u64,
    pub(crate) epoch: u64,
    pub(crate) configuration: Arc<Configuration>,
    pub(crate) graph: Arc<Graph>,
    pub(crate) slots: Box<[Slot]>,
    /// Which slot a request on a socket goes to.
    pub(crate) sockets: HashMap<SocketId, (u32, LoanId)>,
    word: LeaseWord,
    quiet: CancellationToken,
    cancellation: CancellationToken,
}

/// A node's place in a generation.
pub(crate) struct Slot {
    pub(crate) place: Place,
    /// Where it forwards metrics to.
    pub(crate) outputs: Box<[Output]>,
}

/// What a slot is made of, before routes are resolved.
#[derive(Clone)]
pub(crate) struct Place {
    /// What runs there.
    pub(crate) occupant: Occupant,
    /// What the node exports.
    pub(crate) exports: Value,
    /// The secrets that went into it.
    pub(crate) secrets: Arc<NodeSecrets>,
}

/// A configuration kept to roll back to: its places, ready to be assembled.
pub(crate) struct Retained {
    pub(crate) configuration: Arc<Configuration>,
    pub(crate) graph: Arc<Graph>,
    pub(crate) places: Vec<Place>,
}

/// What runs in a slot.
#[derive(Clone)]
pub(crate) enum Occupant {
    /// An instance and its state.
    Ready(Arc<Unit>),
    /// The node could not be prepared; calls get a retryable error until it can.
    Failed(Arc<Failure>),
    /// The node is a value; nothing runs.
    Value(Option<Arc<Problem>>),
}

/// Why a node without a component keeps the value, or the inside, that it had.
pub(crate) struct Problem {
    pub(crate) reason: String,
    pub(crate) since: jiff::Timestamp,
}

/// An instance with one state: what is copied from generation to generation while nothing changes.
pub(crate) struct Unit {
    pub(crate) cell: Arc<InstanceCell>,
    pub(crate) arguments: AnyArc,
    pub(crate) state: AnyArc,
    /// Receivers in the arguments with the field they stand in.
    pub(crate) receivers: Vec<(&'static str, Receiver)>,
    pub(crate) loans: Vec<LoanId>,
    /// What those who wrote the arguments may use.
    pub(crate) access: Access,
}

/// Why a node could not be prepared, and the attempts so far.
pub(crate) struct Failure {
    pub(crate) reason: String,
    pub(crate) since: jiff::Timestamp,
    /// How often it was tried, at least once.
    pub(crate) attempts: u32,
    /// When to try again.
    pub(crate) retry_at: Instant,
}

/// One route out of a slot.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) struct Output {
    pub(crate) slot: u32,
    pub(crate) port: &'static str,
}

/// The argument whose receivers are a node's outputs.
const FORWARD_FIELD: &str = "forward_to";

// === impl Generation ===

impl Generation {
    /// Assembles a generation: resolves receivers to slots and loans to sockets.
    pub(crate) fn assemble(
        id: u64,
        epoch: u64,
        configuration: Arc<Configuration>,
        graph: Arc<Graph>,
        places: Vec<Place>,
    ) -> Self {
        debug_assert_eq!(graph.len(), places.len());
        let mut sockets = HashMap::default();
        let slots = (0_u32..)
            .zip(places)
            .map(|(index, place)| {
                let mut outputs: Box<[Output]> = Box::default();
                if let Occupant::Ready(unit) = &place.occupant {
                    outputs = routes(&graph, &unit.receivers);
                    for loan in &unit.loans {
                        sockets.insert(loan.socket, (index, *loan));
                    }
                }
                Slot { place, outputs }
            })
            .collect();
        Self {
            id,
            epoch,
            configuration,
            graph,
            slots,
            sockets,
            word: LeaseWord::new(),
            quiet: CancellationToken::new(),
            cancellation: CancellationToken::new(),
        }
    }

    /// The generation before the first: no nodes.
    pub(crate) fn empty(id: u64) -> Self {
        Self::assemble(id, 0, Arc::new(Configuration::empty()), Arc::new(Graph::default()), Vec::new())
    }

    /// Counts applied configurations; durable.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Counts re-evaluations within the configuration.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The digest of its configuration.
    #[must_use]
    pub fn digest(&self) -> &str {
        &self.configuration.digest
    }

    /// The slot of a node.
    pub(crate) fn slot_of(&self, node: &NodeId) -> Option<u32> {
        self.graph.find(node.as_str())
    }

    /// Splits a path that begins with the name of a component, which may have slashes itself, behind that name.
    pub(crate) fn split_path<'p>(&self, path: &'p str) -> Option<(&'p str, &'p str)> {
        let ends = path.rmatch_indices('/').map(|(end, _)| end);
        std::iter::once(path.len()).chain(ends).map(|end| path.split_at(end)).find(|(name, _)| {
            self.graph.find(name).is_some_and(|slot| self.graph.node(slot).component().is_some())
        })
    }

    /// The slot at an index that this generation's own graph, routes or sockets gave out.
    pub(crate) fn slot(&self, index: u32) -> &Slot {
        &self.slots[index as usize]
    }

    /// The places of all slots.
    pub(crate) fn places(&self) -> Vec<Place> {
        self.slots.iter().map(|slot| slot.place.clone()).collect()
    }

    /// The units of all slots that have one, in slot order.
    pub(crate) fn units(&self) -> impl Iterator<Item = &Arc<Unit>> {
        self.slots.iter().filter_map(Slot::unit)
    }

    /// When the next failed node is due to be tried again.
    pub(crate) fn next_retry(&self) -> Option<Instant> {
        let failed = self.slots.iter().filter_map(|slot| match &slot.place.occupant {
            Occupant::Failed(failure) => Some(failure.retry_at),
            Occupant::Ready(_) | Occupant::Value(_) => None,
        });
        failed.min()
    }

    /// The slot of `cell`, if this generation has that very instance.
    pub(crate) fn slot_with(&self, cell: &Arc<InstanceCell>) -> Option<u32> {
        let index = self.slot_of(cell.node())?;
        let unit = self.slot(index).unit()?;
        Arc::ptr_eq(&unit.cell, cell).then_some(index)
    }

    pub(crate) fn word(&self) -> &LeaseWord {
        &self.word
    }

    /// Fires when calls under this generation must return.
    pub(crate) fn cancellation(&self) -> &CancellationToken {
        &self.cancellation
    }

    /// Fires when the generation is closed and the last call has left.
    pub(crate) fn quiet(&self) -> &CancellationToken {
        &self.quiet
    }

    /// Lets no call in from now on.
    pub(crate) fn close(&self) {
        if self.word.close() {
            self.became_quiet();
        }
    }

    pub(crate) fn became_quiet(&self) {
        self.quiet.cancel();
    }
}

/// The slots that metrics go to. A receiver of a node that the graph lacks has no route: it can only stem from a dependant that
/// kept its old state, and is reported there.
fn routes(graph: &Graph, receivers: &[(&'static str, Receiver)]) -> Box<[Output]> {
    receivers
        .iter()
        .filter(|(field, _)| *field == FORWARD_FIELD)
        .filter_map(|(_, receiver)| {
            graph.find(receiver.node.as_str()).map(|slot| Output { slot, port: receiver.port })
        })
        .collect()
}

// === impl Slot ===

impl Slot {
    pub(crate) fn unit(&self) -> Option<&Arc<Unit>> {
        self.place.unit()
    }
}

// === impl Place ===

impl Place {
    pub(crate) fn unit(&self) -> Option<&Arc<Unit>> {
        match &self.occupant {
            Occupant::Ready(unit) => Some(unit),
            Occupant::Failed(_) | Occupant::Value(_) => None,
        }
    }

    /// Why a value is not the newest.
    pub(crate) fn problem(&self) -> Option<&str> {
        match &self.occupant {
            Occupant::Value(problem) => problem.as_ref().map(|problem| problem.reason.as_str()),
            _ => None,
        }
    }

    /// The same, with other secrets behind it.
    pub(crate) fn with_secrets(self, secrets: NodeSecrets) -> Self {
        Self { secrets: Arc::new(secrets), ..self }
    }

    /// The place of a value, with why it is not the newest.
    pub(crate) fn value(exports: Value, problem: Option<String>) -> Self {
        let problem = problem.map(|reason| Arc::new(Problem { reason, since: jiff::Timestamp::now() }));
        Self { occupant: Occupant::Value(problem), exports, secrets: Arc::default() }
    }
}

// === impl Retained ===

impl Retained {
    /// Keeps what runs.
    pub(crate) fn of(generation: &Generation) -> Self {
        Self {
            configuration: Arc::clone(&generation.configuration),
            graph: Arc::clone(&generation.graph),
            places: generation.places(),
        }
    }

    /// The place of a node.
    pub(crate) fn place(&self, node: &NodeId) -> Option<&Place> {
        self.graph.find(node.as_str()).map(|index| &self.places[index as usize])
    }
}

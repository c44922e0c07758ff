//! What applying a configuration would do, node by node.

use std::collections::BTreeSet;
use std::sync::Arc;

use invar_syntax::diagnostic::Diagnostics;
use invar_syntax::expression_text::value_to_expression;
use invar_syntax::value::Value;
use sha2::{Digest, Sha256};

use crate::configuration::{Configuration, add_text, hexadecimal};
use crate::definition::AnyArc;
use crate::engine::Shared;
use crate::evaluate::{NodeError, NodeScope, accept, evaluate};
use crate::generation::{Generation, Unit};
use crate::graph::{Graph, GraphNode};
use crate::node::NodeId;

/// What applying a configuration would do.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Plan {
    /// One entry per node: of the new configuration in its order, then those that go.
    pub changes: Vec<Change>,
    /// SHA-256, in hexadecimal, over actions and expressions, not over values that come from exports: a busy host's plan
    /// stays the same plan.
    pub hash: String,
}

/// What happens to one node.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Hash, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Untouched.
    Keep,
    /// Same instance, another state.
    Update,
    /// Another instance, for its identity arguments changed.
    Replace,
    /// New.
    Create,
    /// Goes away.
    Destroy,
}

/// One node's entry in a plan.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Change {
    /// The node.
    pub node: NodeId,
    /// The component type.
    pub component: String,
    /// What happens.
    pub action: Action,
    /// What differs in the arguments; empty unless [`Action::Update`] or [`Action::Replace`].
    pub arguments: Vec<ArgumentChange>,
    /// Where the block stands: `file:line:column`; where it stood, for [`Action::Destroy`].
    pub location: String,
    /// Remarks, such as what is known only after preparing.
    pub notes: Vec<String>,
}

/// One argument that differs.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct ArgumentChange {
    /// The attribute, dots between nested names, `[n]` in lists.
    pub path: String,
    /// Its value before, as text; none if it was not set. Secrets print as `(secret)`.
    pub old: Option<String>,
    /// Its value after, as text; none if no longer set.
    pub new: Option<String>,
}

// === impl Plan ===

impl Plan {
    /// Whether nothing would change.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.changes.iter().all(|change| change.action == Action::Keep)
    }

    /// How many nodes have this action.
    #[must_use]
    pub fn count(&self, action: Action) -> usize {
        self.changes.iter().filter(|change| change.action == action).count()
    }
}

// === impl Action ===

impl Action {
    /// The word that the API and the log use.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Keep => "keep",
            Self::Update => "update",
            Self::Replace => "replace",
            Self::Create => "create",
            Self::Destroy => "destroy",
        }
    }
}

/// The remark on arguments that use exports of a node that does not run yet.
const KNOWN_AFTER_PREPARE: &str = "some arguments are known only after preparing";

impl Shared {
    /// Plans against what runs: exports of running nodes are taken as they are, those of new ones are unknown.
    pub(crate) fn plan(&self, configuration: &Configuration) -> Result<Plan, Diagnostics> {
        let (graph, diagnostics) =
            Graph::build(&self.options.registry, configuration, self.options.admission());
        let Some(graph) = graph else { return Err(diagnostics) };
        let base = self.root.current();
        let scope = NodeScope {
            graph: &graph,
            inputs: &configuration.inputs,
            exports: |index| exports_for_plan(&base, graph.node(index)),
        };
        let mut diagnostics = Diagnostics::new();
        let mut changes = Vec::with_capacity(graph.len());
        for node in &graph.nodes {
            match evaluate(&node.block, &scope).and_then(|body| {
                let arguments = if body.has_unknown() { None } else { Some(accept(node, &body)?.arguments) };
                change(node, running(&base, node), arguments.as_ref())
            }) {
                Ok(change) => changes.push(change),
                Err(error) => diagnostics.0.extend(error.diagnostics.0),
            }
        }
        if diagnostics.has_errors() {
            diagnostics.sort();
            return Err(diagnostics);
        }
        for node in &base.graph.nodes {
            if graph.find(node.id.as_str()).is_none() {
                changes.push(entry(node, Action::Destroy));
            }
        }
        let hash = hash(&configuration.digest, &changes);
        Ok(Plan { changes, hash })
    }
}

/// The running unit of a node of the same component type.
fn running<'a>(base: &'a Generation, node: &GraphNode) -> Option<&'a Arc<Unit>> {
    let unit = base.slot(base.slot_of(&node.id)?).unit()?;
    (unit.cell.definition().name() == node.definition.name()).then_some(unit)
}

fn exports_for_plan(base: &Generation, node: &GraphNode) -> Value {
    match (running(base, node), base.slot_of(&node.id)) {
        (Some(_), Some(slot)) => base.slot(slot).place.exports.clone(),
        _ => node.definition.unknown_exports().clone(),
    }
}

fn change(
    node: &GraphNode,
    running: Option<&Arc<Unit>>,
    arguments: Option<&AnyArc>,
) -> Result<Change, NodeError> {
    let Some(unit) = running else {
        let mut created = entry(node, Action::Create);
        if arguments.is_none() {
            created.notes.push(KNOWN_AFTER_PREPARE.to_owned());
        }
        return Ok(created);
    };
    let Some(arguments) = arguments else {
        let mut updated = entry(node, Action::Update);
        updated.notes.push(KNOWN_AFTER_PREPARE.to_owned());
        return Ok(updated);
    };
    let definition = &node.definition;
    crate::evaluate::guarded(node, || {
        if definition.equal_arguments(arguments, &unit.arguments) {
            return entry(node, Action::Keep);
        }
        let same_identity = definition.identity(arguments) == unit.cell.identity();
        let mut changed = entry(node, if same_identity { Action::Update } else { Action::Replace });
        let old = definition.arguments_value(&unit.arguments);
        differences(
            String::new(),
            Some(&old),
            Some(&definition.arguments_value(arguments)),
            &mut changed.arguments,
        );
        changed
    })
}

fn entry(node: &GraphNode, action: Action) -> Change {
    Change {
        node: node.id.clone(),
        component: node.definition.name().to_owned(),
        action,
        arguments: Vec::new(),
        location: node.block.location(),
        notes: Vec::new(),
    }
}

/// Collects what differs, by path; lists and objects are compared by element.
fn differences(path: String, old: Option<&Value>, new: Option<&Value>, found: &mut Vec<ArgumentChange>) {
    match (old, new) {
        (Some(old), Some(new)) if old == new => {}
        (Some(Value::Object(old)), Some(Value::Object(new))) => {
            let names: BTreeSet<_> = old.keys().chain(new.keys()).collect();
            for name in names {
                let inner = if path.is_empty() { name.to_string() } else { format!("{path}.{name}") };
                differences(inner, old.get(name), new.get(name), found);
            }
        }
        (Some(Value::Array(old)), Some(Value::Array(new))) => {
            for index in 0..old.len().max(new.len()) {
                differences(format!("{path}[{index}]"), old.get(index), new.get(index), found);
            }
        }
        _ => {
            let text = |value: Option<&Value>| {
                value.filter(|value| !matches!(value, Value::Null)).map(value_to_expression)
            };
            found.push(ArgumentChange { path, old: text(old), new: text(new) });
        }
    }
}

/// Expressions are covered by the configuration's digest.
fn hash(digest: &str, changes: &[Change]) -> String {
    let mut hasher = Sha256::new();
    add_text(&mut hasher, digest);
    for change in changes {
        add_text(&mut hasher, change.node.as_str());
        add_text(&mut hasher, change.action.as_str());
    }
    hexadecimal(&hasher.finalize())
}

//! What applying a configuration would do, node by node.

use std::collections::BTreeSet;
use std::sync::Arc;

use invar_syntax::diagnostic::Diagnostics;
use invar_syntax::expression_text::value_to_expression;
use invar_syntax::live_secret::recording;
use invar_syntax::value::Value;
use sha2::{Digest, Sha256};

use crate::configuration::{Configuration, add_text, hexadecimal};
use crate::definition::{AnyArc, Definition};
use crate::engine::Shared;
use crate::evaluate::{NodeError, View, accept_body, evaluate};
use crate::generation::{Generation, Unit};
use crate::graph::{Expansion, Graph, GraphNode, NodeKind};
use crate::inspect::provenance;
use crate::node::NodeId;
use crate::plan_notes::{Addresses, KNOWN_AFTER_PREPARE, annotate};
use crate::prepare::{MOST_ROUNDS, unsettled};
use crate::report::Provenance;
use crate::secrets::NodeSecrets;
use crate::value_node::{Valued, evaluate_value, unknown};

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
    /// Where it comes from.
    #[serde(flatten)]
    pub provenance: Provenance,
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

impl Shared {
    /// Plans against what runs: exports of running nodes are taken as they are, those of new ones are unknown.
    pub(crate) fn plan(&self, configuration: &Configuration) -> Result<Plan, Diagnostics> {
        let base = self.root.current();
        let mut dynamics = base.graph.dynamics.clone();
        for _ in 0..MOST_ROUNDS {
            let (graph, diagnostics) =
                Graph::build(&self.options.registry, configuration, self.options.admission(), &dynamics);
            let Some(graph) = graph else { return Err(diagnostics) };
            let mut values = PlannedValues { base: &base, graph: &graph, configuration, values: Vec::new() };
            let found = values.evaluate()?;
            if found.is_empty() {
                let values = values.values;
                return plan_of(&base, &graph, configuration, &values);
            }
            dynamics = graph.dynamics;
            dynamics.extend(found);
        }
        Err(unsettled().into())
    }
}

/// What nodes export as far as that can be said before anything is prepared.
struct PlannedValues<'a> {
    base: &'a Generation,
    graph: &'a Graph,
    configuration: &'a Configuration,
    values: Vec<Value>,
}

impl PlannedValues<'_> {
    /// Evaluates everything that is no component; answers what the graph has to be expanded with instead.
    fn evaluate(&mut self) -> Result<Vec<(NodeId, Expansion)>, Diagnostics> {
        let mut diagnostics = Diagnostics::new();
        let mut found = Vec::new();
        self.values = self.graph.nodes.iter().map(unknown).collect();
        for index in self.graph.order() {
            let node = self.graph.node(*index);
            let value = if node.component().is_some() {
                exports_for_plan(self.base, node)
            } else {
                match evaluate_value(node, &view(self.graph, self.configuration, &self.values)) {
                    Ok(Valued::Plain(value) | Valued::Dynamic(value, None)) => value,
                    Ok(Valued::Dynamic(value, Some(expansion))) => {
                        if self.graph.dynamics.get(&node.id) != Some(&expansion) {
                            found.push((node.id.clone(), expansion));
                        }
                        value
                    }
                    // The content that the running configuration has stays in force.
                    Err(_)
                        if matches!(node.kind, NodeKind::Import)
                            && self.graph.dynamics.contains_key(&node.id) =>
                    {
                        Value::Null
                    }
                    Err(error) => {
                        diagnostics.extend(error.diagnostics);
                        continue;
                    }
                }
            };
            self.values[*index as usize] = value;
        }
        // With another inside there would be other errors.
        if found.is_empty() && diagnostics.has_errors() {
            diagnostics.sort();
            self.configuration.point_at_variables(&mut diagnostics);
            return Err(diagnostics);
        }
        Ok(found)
    }
}

fn view<'a>(
    graph: &'a Graph,
    configuration: &'a Configuration,
    values: &'a [Value],
) -> View<'a, impl Fn(u32) -> Value + 'a> {
    View { graph, configuration, exports: |index: u32| values[index as usize].clone() }
}

fn plan_of(
    base: &Generation,
    graph: &Graph,
    configuration: &Configuration,
    values: &[Value],
) -> Result<Plan, Diagnostics> {
    let view = view(graph, configuration, values);
    let mut diagnostics = Diagnostics::new();
    let mut changes = Vec::with_capacity(graph.len());
    let mut addresses = Addresses::of(base);
    // With what the notes on it need.
    let mut planned = Vec::with_capacity(graph.len());
    for node in &graph.nodes {
        let Some(definition) = node.component() else { continue };
        let scope = view.at(node.frame, &node.block);
        let (evaluated, frozen) = recording(|| {
            let body = evaluate(&node.block, &scope)?;
            let accepted = match body.has_unknown() {
                true => None,
                false => Some(accept_body(node, definition, &body, scope.access())?),
            };
            let arguments = accepted.as_ref().map(|accepted| &accepted.arguments);
            Ok::<_, NodeError>((change(node, definition, running(base, node), arguments)?, accepted, body))
        });
        match evaluated {
            Ok((mut change, accepted, body)) => {
                if change.action != Action::Keep {
                    change.notes.extend(NodeSecrets::new(&body, frozen).notes());
                }
                change.provenance = provenance(graph, configuration, node);
                addresses.claim(accepted.as_ref().map(|accepted| &*accepted.addresses));
                changes.push(change);
                planned.push((node, accepted));
            }
            Err(error) => diagnostics.extend(error.diagnostics),
        }
    }
    if diagnostics.has_errors() {
        diagnostics.sort();
        return Err(diagnostics);
    }
    for (change, (node, accepted)) in changes.iter_mut().zip(&planned) {
        let after = accepted.as_ref().map(|accepted| (&accepted.arguments, &*accepted.addresses));
        annotate(change, node, running(base, node).map(|unit| &**unit), after, &addresses);
    }
    for node in &base.graph.nodes {
        if node.component().is_some() && graph.find(node.id.as_str()).is_none() {
            let mut gone = entry(node, Action::Destroy);
            gone.provenance = provenance(&base.graph, &base.configuration, node);
            annotate(&mut gone, node, running(base, node).map(|unit| &**unit), None, &addresses);
            changes.push(gone);
        }
    }
    let hash = hash(&configuration.digest, &changes);
    Ok(Plan { changes, hash })
}

/// The running unit of a node of the same component type.
fn running<'a>(base: &'a Generation, node: &GraphNode) -> Option<&'a Arc<Unit>> {
    let unit = base.slot(base.slot_of(&node.id)?).unit()?;
    let definition = node.component()?;
    (unit.cell.definition().name() == definition.name()).then_some(unit)
}

fn exports_for_plan(base: &Generation, node: &GraphNode) -> Value {
    match (running(base, node), base.slot_of(&node.id)) {
        (Some(_), Some(slot)) => base.slot(slot).place.exports.clone(),
        _ => unknown(node),
    }
}

fn change(
    node: &GraphNode,
    definition: &Arc<dyn Definition>,
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
        component: node.type_name(),
        action,
        arguments: Vec::new(),
        location: node.block.location(),
        provenance: Provenance::default(),
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

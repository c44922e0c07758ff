//! The static check: everything that can be known wrong with a configuration without running anything. What `invar validate`
//! prints, and the first thing the agent does with a candidate.

use std::collections::HashMap;
use std::sync::Arc;

use invar_syntax::arguments::Arguments;
use invar_syntax::check::{TypeLookup, TypeScope, check_body_at, check_expression};
use invar_syntax::diagnostic::{Diagnostic, Diagnostics, nearest};
use invar_syntax::evaluate::references;
use invar_syntax::schema::{Field, FieldKind, Schema, Stability, Type};
use invar_syntax::scope::Scope;
use invar_syntax::span::Span;
use invar_syntax::stdlib;
use invar_syntax::value::Value;

use crate::codes;
use crate::configuration::Configuration;
use crate::definition::Definition;
use crate::evaluate::{View, decode_diagnostics, evaluate, judge};
use crate::graph::{Admission, Custom, Graph, GraphNode, NodeKind, collection};
use crate::inputs::Inputs;
use crate::lint::lint;
use crate::logging;
use crate::modules::StringImport;
use crate::registry::Registry;
use crate::value_node::unknown;

/// What to admit. What is left open is admitted with a warning where an agent that is told nothing would refuse it.
#[derive(Clone, Copy, Debug, Default)]
pub struct ValidateOptions {
    /// The least stable of what may be used.
    pub minimum_stability: Option<Stability>,
    /// Whether community components may be used.
    pub community: Option<bool>,
}

/// Checks a configuration without an engine, leaving open which components an agent would admit.
#[must_use]
pub fn validate(registry: &Registry, configuration: &Configuration) -> Diagnostics {
    validate_with(registry, configuration, ValidateOptions::default())
}

/// What an engine checks of a candidate first.
pub(crate) fn check(registry: &Registry, configuration: &Configuration, admission: Admission) -> Diagnostics {
    let Admission { minimum_stability, community } = admission;
    let options = ValidateOptions { minimum_stability: Some(minimum_stability), community: Some(community) };
    validate_with(registry, configuration, options)
}

/// Checks a configuration without an engine. Everything independent is reported at once: a mistake in one block does not hide
/// those in others. Each body is checked once, as it is written: what it is instantiated with does not matter here.
#[must_use]
pub fn validate_with(
    registry: &Registry,
    configuration: &Configuration,
    options: ValidateOptions,
) -> Diagnostics {
    let admission = Admission {
        minimum_stability: options.minimum_stability.unwrap_or(Stability::Experimental),
        community: options.community.unwrap_or(true),
    };
    let (graph, mut diagnostics) = Graph::outline(registry, configuration, admission);
    let view = View { graph: &graph, configuration, exports: |index| unknown(graph.node(index)) };
    let mut addresses: HashMap<String, u32> = HashMap::new();
    for (index, node) in (0_u32..).zip(&graph.nodes) {
        let (found, wanted) = check_node(&graph, node, &view);
        diagnostics.extend(found);
        for address in wanted {
            if let Some(first) = addresses.insert(address.clone(), index) {
                diagnostics.push(taken(node, graph.node(first), &address));
            }
        }
    }
    if let Some(block) = &graph.logging {
        let types = GraphTypes { graph: &graph, inputs: &configuration.inputs, frame: 0 };
        let errors = check_body_at(&block.get().body, &logging::schema(), &types, block.header());
        diagnostics.extend(decode_diagnostics(block, errors));
    }
    diagnostics.extend(configuration.secrets.faults().clone());
    permissions(&graph, options, &mut diagnostics);
    lint(registry, configuration, &mut diagnostics);
    diagnostics.sort();
    configuration.point_at_variables(&mut diagnostics);
    diagnostics
}

/// What is wrong with a node, and the addresses it is known to want.
fn check_node<E: Fn(u32) -> Value>(
    graph: &Graph,
    node: &GraphNode,
    view: &View<'_, E>,
) -> (Diagnostics, Vec<String>) {
    let block = &node.block;
    let body = &block.get().body;
    let types = GraphTypes { graph, inputs: &view.configuration.inputs, frame: node.frame };
    let schema = match &node.kind {
        NodeKind::Component(definition) => return check_component(node, definition, &types, view),
        // Its names were checked with the graph, its values are what they are.
        NodeKind::Custom(_) => {
            let errors = body
                .attributes()
                .flat_map(|attribute| check_expression(&attribute.value, &Type::Any, &types))
                .collect();
            return (decode_diagnostics(block, errors), Vec::new());
        }
        NodeKind::Foreach(_) => {
            let errors = collection(block)
                .map(|attribute| check_expression(&attribute.value, &Type::list(Type::Any), &types))
                .unwrap_or_default();
            return (decode_diagnostics(block, errors), Vec::new());
        }
        NodeKind::Argument(_) => argument_schema(),
        NodeKind::Export => export_schema(),
        NodeKind::Import => StringImport::schema(),
        NodeKind::Item(_) | NodeKind::Absent => return (Diagnostics::new(), Vec::new()),
    };
    (decode_diagnostics(block, check_body_at(body, &schema, &types, block.header())), Vec::new())
}

fn check_component<E: Fn(u32) -> Value>(
    node: &GraphNode,
    definition: &Arc<dyn Definition>,
    types: &GraphTypes<'_>,
    view: &View<'_, E>,
) -> (Diagnostics, Vec<String>) {
    let block = &node.block;
    let errors = check_body_at(&block.get().body, definition.arguments_schema(), types, block.header());
    let known = errors.len();
    let mut found = decode_diagnostics(block, errors);
    let scope = view.at(node.frame, block).without_environment();
    let access = scope.access().clone();
    match evaluate(block, &OffHost(scope)) {
        Ok(body) => {
            let (more, wanted) = judge(node, definition, &body, &access);
            add_other(&mut found, known, more);
            (found, wanted)
        }
        Err(error) => {
            add_other(&mut found, known, error.diagnostics);
            (found, Vec::new())
        }
    }
}

/// Warns of what an agent refuses unless it is told to allow it.
fn permissions(graph: &Graph, options: ValidateOptions, diagnostics: &mut Diagnostics) {
    let mut warn = |node: &GraphNode, span: Span, what: String, flag: String| {
        let message = format!("{what}: an agent refuses it unless told otherwise");
        let diagnostic = Diagnostic::warning(codes::NEEDS_PERMISSION, message);
        let diagnostic = diagnostic.with_help(format!("start it with {flag}, and validate with the same"));
        diagnostics.push(node.block.label(diagnostic, span, ""));
    };
    let unsettled = |stability: Stability| {
        options.minimum_stability.is_none() && stability < Stability::GenerallyAvailable
    };
    for (node, definition) in graph.nodes.iter().filter_map(|node| Some((node, node.component()?))) {
        let (name, stability) = (definition.name(), definition.stability());
        if unsettled(stability) {
            let what = format!("component \"{name}\" is at stability level \"{stability}\"");
            warn(node, node.block.header(), what, format!("--stability.level={stability}"));
        }
        if options.community.is_none() && definition.is_community() {
            let what = format!("component \"{name}\" is a community component");
            warn(node, node.block.header(), what, "--feature.community-components.enabled".to_owned());
        }
        for reference in references(&node.block.get().body) {
            let path: Vec<&str> = reference.path.iter().map(|name| &**name).collect();
            let Some(stability) = stdlib::stability(&path).filter(|stability| unsettled(*stability)) else {
                continue;
            };
            if graph.resolve(node.frame, &path).is_none() {
                let what = format!("function \"{}\" is at stability level \"{stability}\"", path.join("."));
                warn(node, reference.span, what, format!("--stability.level={stability}"));
            }
        }
    }
}

/// Adds what the decoder found and the static check, whose findings are the first `known`, did not: the two look at the same
/// text, and the static check says more precisely where.
fn add_other(found: &mut Diagnostics, known: usize, more: Diagnostics) {
    let span = |diagnostic: &Diagnostic| diagnostic.primary().map(|label| label.span);
    let places: Vec<Span> = found.iter().take(known).filter_map(span).collect();
    let apart = |diagnostic: &Diagnostic| {
        span(diagnostic)
            .is_none_or(|span| places.iter().all(|place| place.end <= span.start || span.end <= place.start))
    };
    found.extend(more.into_iter().filter(apart));
}

fn taken(node: &GraphNode, first: &GraphNode, address: &str) -> Diagnostic {
    let message = format!("{} would listen on {address}, where {} listens already", node.id, first.id);
    let diagnostic = Diagnostic::error(codes::ADDRESS_TAKEN, message);
    let diagnostic = node.block.label(diagnostic, node.block.header(), "");
    first.block.label(diagnostic, first.block.header(), "listens there already")
}

/// Values as they are known where the agent does not run: what the host decides is unknown, and so is what a name means that
/// has been reported already.
struct OffHost<S>(S);

impl<S: Scope> Scope for OffHost<S> {
    fn resolve(&self, path: &[&str]) -> Option<(Value, usize)> {
        let unknown = |taken| Some((Value::Unknown(Type::Any), taken));
        self.0.resolve(path).or_else(|| match path {
            ["sys", "env", ..] => unknown(2),
            ["env" | "constants", ..] => unknown(1),
            [first, ..] if stdlib::lookup(first).is_none() => unknown(path.len()),
            _ => None,
        })
    }
}

/// What an `argument` block takes.
fn argument_schema() -> Schema {
    let field = |name, ty| Field::new(name, FieldKind::Attribute, ty);
    let fields =
        vec![field("optional", Type::Bool), field("default", Type::Any), field("comment", Type::String)];
    Schema { fields }
}

/// What an `export` block takes.
fn export_schema() -> Schema {
    let value = Field { required: true, ..Field::new("value", FieldKind::Attribute, Type::Any) };
    Schema { fields: vec![value] }
}

/// The types of what nodes export, as expressions in a frame see them.
struct GraphTypes<'a> {
    graph: &'a Graph,
    inputs: &'a Inputs,
    frame: u32,
}

impl TypeScope for GraphTypes<'_> {
    fn type_of(&self, path: &[&str]) -> TypeLookup {
        let Some((index, taken)) = self.graph.resolve(self.frame, path) else {
            return self.inputs.type_of(path);
        };
        if matches!(self.graph.node(index).kind, NodeKind::Absent) {
            return TypeLookup::Known(Type::Any, path.len());
        }
        let node = self.graph.node(index);
        let field = path.get(taken);
        match &node.kind {
            NodeKind::Component(definition) => {
                component_type(node, definition.exports_schema(), field, taken)
            }
            NodeKind::Custom(Custom { declare: Some(declare), .. }) => {
                let exports = &declare.interface().exports;
                match field {
                    Some(field) if !exports.iter().any(|(name, _)| &**name == *field) => {
                        TypeLookup::Missing {
                            message: format!("component \"{}\" has no export \"{field}\"", node.local_name()),
                            nearest: nearest(field, exports.iter().map(|(name, _)| &**name))
                                .map(str::to_owned),
                        }
                    }
                    Some(_) => TypeLookup::Known(Type::Any, taken + 1),
                    None => TypeLookup::Known(Type::Any, taken),
                }
            }
            NodeKind::Argument(_) => match field {
                Some(&"value") => TypeLookup::Known(Type::Any, taken + 1),
                Some(field) => TypeLookup::Missing {
                    message: format!("\"{}\" has no field \"{field}\"", node.local_name()),
                    nearest: Some("value".to_owned()),
                },
                None => TypeLookup::Known(Type::Any, taken),
            },
            _ => TypeLookup::Known(Type::Any, taken),
        }
    }

    fn value_of(&self, path: &[&str]) -> Option<Value> {
        if self.graph.resolve(self.frame, path).is_some() { None } else { self.inputs.value_of(path) }
    }
}

fn component_type(node: &GraphNode, schema: &Schema, field: Option<&&str>, taken: usize) -> TypeLookup {
    let Some(field) = field else {
        let fields = schema.fields.iter().map(|field| (field.name, field.ty.clone()));
        return TypeLookup::Known(Type::Object(fields.collect()), taken);
    };
    match schema.fields.iter().find(|candidate| candidate.name == *field) {
        Some(found) => TypeLookup::Known(found.ty.clone(), taken + 1),
        None => TypeLookup::Missing {
            message: format!("component \"{}\" has no export \"{field}\"", node.local_name()),
            nearest: nearest(field, schema.fields.iter().map(|field| field.name)).map(str::to_owned),
        },
    }
}

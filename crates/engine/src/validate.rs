//! The static check: everything that can be known wrong with a configuration without running anything. What `invar validate`
//! prints, and the first thing the agent does with a candidate.

use invar_syntax::arguments::Arguments;
use invar_syntax::check::{TypeLookup, TypeScope, check_body_at, check_expression};
use invar_syntax::diagnostic::{Diagnostics, nearest};
use invar_syntax::schema::{Field, FieldKind, Schema, Stability, Type};
use invar_syntax::value::Value;

use crate::configuration::Configuration;
use crate::evaluate::{View, accept, decode_diagnostics, evaluate};
use crate::graph::{Admission, Custom, Graph, GraphNode, NodeKind, collection};
use crate::inputs::Inputs;
use crate::logging;
use crate::modules::StringImport;
use crate::registry::Registry;
use crate::value_node::unknown;

/// Checks a configuration without an engine, admitting components of every stability.
#[must_use]
pub fn validate(registry: &Registry, configuration: &Configuration) -> Diagnostics {
    check(registry, configuration, Admission { minimum_stability: Stability::Experimental, community: true })
}

/// Checks a configuration. Graph errors first: with those the rest would be guesswork. Each body is checked once, as it is
/// written: what it is instantiated with does not matter here.
pub(crate) fn check(registry: &Registry, configuration: &Configuration, admission: Admission) -> Diagnostics {
    let (graph, mut diagnostics) = Graph::outline(registry, configuration, admission);
    let Some(graph) = graph else { return diagnostics };
    let view = View { graph: &graph, configuration, exports: |index| unknown(graph.node(index)) };
    for node in &graph.nodes {
        diagnostics.extend(check_node(&graph, node, &view));
    }
    if let Some(block) = &graph.logging {
        let types = GraphTypes { graph: &graph, inputs: &configuration.inputs, frame: 0 };
        let errors = check_body_at(&block.get().body, &logging::schema(), &types, block.header());
        diagnostics.0.extend(decode_diagnostics(block, errors).0);
    }
    diagnostics.sort();
    configuration.point_at_variables(&mut diagnostics);
    diagnostics
}

fn check_node<E: Fn(u32) -> Value>(graph: &Graph, node: &GraphNode, view: &View<'_, E>) -> Diagnostics {
    let block = &node.block;
    let body = &block.get().body;
    let types = GraphTypes { graph, inputs: &view.configuration.inputs, frame: node.frame };
    let schema = match &node.kind {
        NodeKind::Component(definition) => {
            let errors = check_body_at(body, definition.arguments_schema(), &types, block.header());
            if !errors.is_empty() {
                return decode_diagnostics(block, errors);
            }
            // What is known already can be decoded, and checked by the component itself.
            let result = evaluate(block, &view.at(node.frame)).and_then(|body| {
                if body.has_unknown() { Ok(()) } else { accept(node, definition, &body).map(|_accepted| ()) }
            });
            return result.err().map(|error| error.diagnostics).unwrap_or_default();
        }
        // Its names were checked with the graph, its values are what they are.
        NodeKind::Custom(_) => {
            let errors = body
                .attributes()
                .flat_map(|attribute| check_expression(&attribute.value, &Type::Any, &types))
                .collect();
            return decode_diagnostics(block, errors);
        }
        NodeKind::Foreach(_) => {
            let errors = collection(block)
                .map(|attribute| check_expression(&attribute.value, &Type::list(Type::Any), &types))
                .unwrap_or_default();
            return decode_diagnostics(block, errors);
        }
        NodeKind::Argument(_) => argument_schema(),
        NodeKind::Export => export_schema(),
        NodeKind::Import => StringImport::schema(),
        NodeKind::Item(_) => return Diagnostics::new(),
    };
    decode_diagnostics(block, check_body_at(body, &schema, &types, block.header()))
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

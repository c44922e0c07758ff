//! The static check: everything that can be known wrong with a configuration without running anything. What `invar validate`
//! prints, and the first thing the agent does with a candidate.

use invar_syntax::check::{TypeLookup, TypeScope, check_body_at};
use invar_syntax::diagnostic::{Diagnostics, nearest};
use invar_syntax::evaluate::references;
use invar_syntax::schema::{Stability, Type};

use crate::configuration::Configuration;
use crate::evaluate::{NodeScope, accept, decode_diagnostics, evaluate};
use crate::graph::{Admission, Graph, GraphNode};
use crate::logging;
use crate::registry::Registry;

/// Checks a configuration without an engine, admitting components of every stability.
#[must_use]
pub fn validate(registry: &Registry, configuration: &Configuration) -> Diagnostics {
    check(registry, configuration, Admission { minimum_stability: Stability::Experimental, community: true })
}

/// Checks a configuration. Graph errors first: with those the rest would be guesswork.
pub(crate) fn check(registry: &Registry, configuration: &Configuration, admission: Admission) -> Diagnostics {
    let (graph, mut diagnostics) = Graph::build(registry, configuration, admission);
    let Some(graph) = graph else { return diagnostics };
    let types = GraphTypes { graph: &graph };
    let scope = NodeScope {
        graph: &graph,
        inputs: &configuration.inputs,
        exports: |index| graph.node(index).definition.unknown_exports().clone(),
    };
    for node in &graph.nodes {
        let body = &node.block.get().body;
        let errors = check_body_at(body, node.definition.arguments_schema(), &types, node.block.header());
        if !errors.is_empty() {
            diagnostics.0.extend(decode_diagnostics(&node.block, errors).0);
        } else if !depends_on_host(node) {
            // What is known already can be decoded, and checked by the component itself.
            let result = evaluate(&node.block, &scope).and_then(|body| {
                if body.has_unknown() { Ok(()) } else { accept(node, &body).map(|_accepted| ()) }
            });
            if let Err(error) = result {
                diagnostics.0.extend(error.diagnostics.0);
            }
        }
    }
    if let Some(block) = &graph.logging {
        let errors = check_body_at(&block.get().body, &logging::schema(), &types, block.header());
        diagnostics.0.extend(decode_diagnostics(block, errors).0);
    }
    diagnostics.sort();
    diagnostics
}

/// Whether a node's arguments come in part from the environment of the host, which may not be this one.
fn depends_on_host(node: &GraphNode) -> bool {
    references(&node.block.get().body).iter().any(|reference| {
        reference.path.first().is_some_and(|first| matches!(&**first, "sys" | "env" | "agent"))
    })
}

/// The types of what nodes export.
struct GraphTypes<'a> {
    graph: &'a Graph,
}

impl TypeScope for GraphTypes<'_> {
    fn type_of(&self, path: &[&str]) -> TypeLookup {
        let Some((index, taken)) = self.graph.resolve(path) else { return TypeLookup::Unknown };
        let node = self.graph.node(index);
        let schema = node.definition.exports_schema();
        let Some(field) = path.get(taken) else {
            let fields = schema.fields.iter().map(|field| (field.name, field.ty.clone()));
            return TypeLookup::Known(Type::Object(fields.collect()), taken);
        };
        match schema.fields.iter().find(|candidate| candidate.name == *field) {
            Some(found) => TypeLookup::Known(found.ty.clone(), taken + 1),
            None => TypeLookup::Missing {
                message: format!("component \"{}\" has no export \"{field}\"", node.id),
                nearest: nearest(field, schema.fields.iter().map(|field| field.name)).map(str::to_owned),
            },
        }
    }
}

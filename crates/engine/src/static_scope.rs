//! What expressions of a configuration can name, without running anything: inputs have their values, exports of
//! components are values of a known type that are not known yet.

use invar_syntax::diagnostic::Diagnostics;
use invar_syntax::schema::Stability;
use invar_syntax::scope::Scope;
use invar_syntax::value::Value;

use crate::configuration::Configuration;
use crate::evaluate::View;
use crate::graph::{Admission, Graph};
use crate::registry::Registry;
use crate::value_node::unknown;

/// The frame of what stands in the files themselves, outside of custom components and templates.
const ROOT: u32 = 0;

/// The names of a configuration.
pub struct StaticScope {
    graph: Graph,
    configuration: Configuration,
}

/// The scope in which the expressions of a configuration's own files are evaluated, as far as it is known before anything
/// runs. Components of every stability are admitted.
///
/// # Errors
/// What is wrong with the configuration, if it has no graph.
pub fn static_scope(registry: &Registry, configuration: Configuration) -> Result<StaticScope, Diagnostics> {
    let admission = Admission { minimum_stability: Stability::Experimental, community: true };
    let (graph, diagnostics) = Graph::outline(registry, &configuration, admission);
    if diagnostics.has_errors() {
        return Err(diagnostics);
    }
    Ok(StaticScope { graph, configuration })
}

impl StaticScope {
    fn view(&self) -> View<'_, impl Fn(u32) -> Value> {
        View {
            graph: &self.graph,
            configuration: &self.configuration,
            exports: |index| unknown(self.graph.node(index)),
        }
    }
}

impl Scope for StaticScope {
    fn resolve(&self, path: &[&str]) -> Option<(Value, usize)> {
        self.view().of_nobody(ROOT).resolve(path)
    }

    fn names(&self) -> Vec<String> {
        self.view().of_nobody(ROOT).names()
    }
}

//! Building a graph: which blocks are components, what they refer to, and everything that can be wrong with that.

use std::sync::Arc;

use foldhash::HashSet;
use invar_syntax::ast::Block;
use invar_syntax::diagnostic::{Diagnostic, Diagnostics, nearest};
use invar_syntax::evaluate::{Reference, references};
use invar_syntax::stdlib;

use super::{Admission, Graph, GraphNode, order, resolve};
use crate::block::BlockRef;
use crate::codes;
use crate::configuration::{Configuration, INPUT_NAMES};
use crate::definition::Definition;
use crate::node::NodeId;
use crate::registry::Registry;

/// The block that configures the agent's own log.
const LOGGING: &str = "logging";

/// Blocks of the language that are recognised, so that the refusal says what it is about.
const UNSUPPORTED: [&str; 9] =
    ["argument", "declare", "export", "foreach", "http", "livedebugging", "remotecfg", "tracing", "import"];

impl Graph {
    /// Builds the graph of a configuration. None if anything is wrong; the diagnostics may hold warnings besides.
    pub(crate) fn build(
        registry: &Registry,
        configuration: &Configuration,
        admission: Admission,
    ) -> (Option<Self>, Diagnostics) {
        let mut builder = Builder {
            registry,
            admission,
            diagnostics: Diagnostics::new(),
            graph: Self::default(),
            doubtful: false,
        };
        for body in configuration.roots.iter().flat_map(|root| &root.bodies) {
            for attribute in body.attributes() {
                let message = format!("attribute \"{}\" stands outside of any block", attribute.name);
                let diagnostic = Diagnostic::error(codes::STRAY_ATTRIBUTE, message);
                let diagnostic = body.label(diagnostic, attribute.span, "only blocks are allowed here");
                builder.diagnostics.push(diagnostic);
            }
            for (place, block) in body.blocks() {
                builder.block(block, place);
            }
        }
        builder.connect();
        builder.sort();
        let graph = (!builder.diagnostics.has_errors()).then_some(builder.graph);
        (graph, builder.diagnostics)
    }
}

struct Builder<'a> {
    registry: &'a Registry,
    admission: Admission,
    diagnostics: Diagnostics,
    graph: Graph,
    /// Whether blocks were left out: references into them are not judged again.
    doubtful: bool,
}

impl Builder<'_> {
    fn block(&mut self, block: &Block, place: BlockRef) {
        let name = block.dotted_name();
        if name == LOGGING {
            self.logging(place);
        } else if let Some(definition) = self.registry.definition(&name) {
            let definition = Arc::clone(definition);
            self.component(block, place, name, definition);
        } else {
            self.doubtful = true;
            self.refuse_unknown(block, &place, &name);
        }
    }

    fn logging(&mut self, place: BlockRef) {
        match &self.graph.logging {
            Some(first) => {
                let diagnostic = duplicate(LOGGING, first, &place);
                self.diagnostics.push(diagnostic);
            }
            None => self.graph.logging = Some(place),
        }
    }

    fn component(
        &mut self,
        block: &Block,
        place: BlockRef,
        mut name: String,
        definition: Arc<dyn Definition>,
    ) {
        self.admit(&place, &name, &*definition);
        let Some(label) = &block.label else {
            self.doubtful = true;
            let diagnostic =
                Diagnostic::error(codes::MISSING_LABEL, format!("component \"{name}\" must have a label"))
                    .with_help(format!("name it, for example: {name} \"default\" {{ … }}"));
            self.diagnostics.push(place.label(diagnostic, place.header(), "no label"));
            return;
        };
        name.push('.');
        name.push_str(&label.text);
        let id = NodeId::new(name);
        if let Some(first) = self.graph.index.get(&id) {
            let diagnostic = duplicate(id.as_str(), &self.graph.node(*first).block, &place);
            self.diagnostics.push(diagnostic);
            return;
        }
        let index = u32::try_from(self.graph.nodes.len()).unwrap_or(u32::MAX);
        self.graph.index.insert(id.clone(), index);
        self.graph.nodes.push(GraphNode {
            id,
            definition,
            block: place,
            minimum_stability: self.admission.minimum_stability,
            references: Vec::new(),
            dependants: Vec::new(),
        });
    }

    fn admit(&mut self, place: &BlockRef, name: &str, definition: &dyn Definition) {
        let Admission { minimum_stability, community } = self.admission;
        if definition.is_community() && !community {
            let diagnostic = Diagnostic::error(
                codes::COMMUNITY,
                format!("component \"{name}\" is a community component, and these are not enabled"),
            )
            .with_help("enable them with --feature.community-components.enabled");
            self.diagnostics.push(place.label(diagnostic, place.header(), ""));
        }
        let stability = definition.stability();
        if stability < minimum_stability {
            let diagnostic = Diagnostic::error(
                codes::STABILITY,
                format!(
                    "component \"{name}\" is at stability level \"{stability}\", which is below the minimum allowed \
                     stability level \"{minimum_stability}\""
                ),
            )
            .with_help(format!("allow it with --stability.level={stability}"));
            self.diagnostics.push(place.label(diagnostic, place.header(), ""));
        }
    }

    fn refuse_unknown(&mut self, block: &Block, place: &BlockRef, name: &str) {
        let first = block.name.first().map_or("", |part| &*part.name);
        let diagnostic = if UNSUPPORTED.contains(&first) {
            Diagnostic::error(
                codes::UNSUPPORTED,
                format!("block \"{name}\" is not supported yet in this version"),
            )
        } else {
            let diagnostic = Diagnostic::error(
                codes::UNKNOWN_COMPONENT,
                format!("cannot find the definition of component name \"{name}\""),
            );
            match nearest(name, self.registry.names()) {
                Some(near) => diagnostic.with_help(format!("did you mean \"{near}\"?")),
                None => diagnostic,
            }
        };
        self.diagnostics.push(place.label(diagnostic, place.header(), ""));
    }

    /// Resolves all references.
    fn connect(&mut self) {
        let mut edges = Vec::with_capacity(self.graph.nodes.len());
        for index in 0..self.graph.nodes.len() {
            let place = self.graph.nodes[index].block.clone();
            let mut targets: Vec<u32> = Vec::new();
            let mut seen = HashSet::default();
            for reference in references(&place.get().body) {
                match resolve(&self.graph.index, &reference.path) {
                    Some((target, _)) if target as usize == index => self.self_reference(&place, &reference),
                    Some((target, _)) => {
                        if seen.insert(target) {
                            targets.push(target);
                        }
                    }
                    None => self.unresolved(&place, &reference),
                }
            }
            edges.push(targets);
        }
        if let Some(logging) = self.graph.logging.clone() {
            for reference in references(&logging.get().body) {
                if resolve(&self.graph.index, &reference.path).is_none() {
                    self.unresolved(&logging, &reference);
                }
            }
        }
        for (index, targets) in edges.into_iter().enumerate() {
            for target in &targets {
                let dependant = u32::try_from(index).unwrap_or(u32::MAX);
                self.graph.nodes[*target as usize].dependants.push(dependant);
            }
            self.graph.nodes[index].references = targets;
        }
    }

    fn self_reference(&mut self, place: &BlockRef, reference: &Reference) {
        let id = dotted(&reference.path);
        let diagnostic = Diagnostic::error(codes::CYCLE, format!("self reference: {id}"));
        self.diagnostics.push(place.label(
            diagnostic,
            reference.span,
            "a component cannot use its own exports",
        ));
    }

    /// A reference that no node answers: fine for inputs and the standard library.
    fn unresolved(&mut self, place: &BlockRef, reference: &Reference) {
        let Some(first) = reference.path.first() else { return };
        if INPUT_NAMES.contains(&&**first) {
            return;
        }
        if stdlib::lookup(first).is_some() {
            self.admit_function(place, reference);
            return;
        }
        let path = dotted(&reference.path);
        // Blocks that were left out have had their own diagnostic.
        if self.doubtful && reference.path.len() > 1 {
            return;
        }
        let diagnostic = Diagnostic::error(
            codes::UNKNOWN_REFERENCE,
            format!("component \"{path}\" does not exist or is out of scope"),
        );
        let without_field = path.rsplit_once('.').map_or(path.as_str(), |(node, _)| node);
        let near = nearest(without_field, self.graph.index.keys().map(NodeId::as_str))
            .or_else(|| nearest(&path, self.graph.index.keys().map(NodeId::as_str)));
        let diagnostic = match near {
            Some(near) => diagnostic.with_help(format!("did you mean \"{near}\"?")),
            None => diagnostic,
        };
        self.diagnostics.push(place.label(diagnostic, reference.span, ""));
    }

    /// The gate of stability holds for functions of the standard library too.
    fn admit_function(&mut self, place: &BlockRef, reference: &Reference) {
        let path: Vec<&str> = reference.path.iter().map(|name| &**name).collect();
        let minimum = self.admission.minimum_stability;
        let Some(stability) = stdlib::stability(&path).filter(|stability| *stability < minimum) else {
            return;
        };
        let diagnostic = Diagnostic::error(
            codes::STABILITY,
            format!(
                "function \"{}\" is at stability level \"{stability}\", which is below the minimum allowed stability \
                 level \"{minimum}\"",
                dotted(&reference.path)
            ),
        )
        .with_help(format!("allow it with --stability.level={stability}"));
        self.diagnostics.push(place.label(diagnostic, reference.span, ""));
    }

    fn sort(&mut self) {
        match order::sort(&self.graph.nodes) {
            Ok(order) => {
                let mut rank = vec![0; order.len()];
                for (place, index) in (0_u32..).zip(&order) {
                    rank[*index as usize] = place;
                }
                self.graph.order = order;
                self.graph.rank = rank;
            }
            Err(circles) => {
                for circle in circles {
                    let names: Vec<_> =
                        circle.iter().map(|index| self.graph.node(*index).id.as_str()).collect();
                    let mut diagnostic =
                        Diagnostic::error(codes::CYCLE, format!("cycle: {}", names.join(", ")));
                    for index in &circle {
                        let place = &self.graph.node(*index).block;
                        diagnostic = place.label(diagnostic, place.header(), "part of the cycle");
                    }
                    self.diagnostics.push(diagnostic);
                }
            }
        }
    }
}

fn duplicate(name: &str, first: &BlockRef, second: &BlockRef) -> Diagnostic {
    let diagnostic =
        Diagnostic::error(codes::DUPLICATE, format!("block {name} already declared at {}", first.location()));
    let diagnostic = second.label(diagnostic, second.header(), "declared again here");
    first.label(diagnostic, first.header(), "first declared here")
}

fn dotted(path: &[Arc<str>]) -> String {
    path.join(".")
}

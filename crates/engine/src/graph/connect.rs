//! The edges of a graph: what expressions refer to, where that is nothing, and the order that follows.

use foldhash::HashSet;
use invar_syntax::diagnostic::{Diagnostic, nearest};
use invar_syntax::evaluate::{Reference, references, references_of};
use invar_syntax::stdlib;

use super::build::{Builder, MOST_SUGGESTIONS, Purpose, index};
use super::{GraphNode, NodeKind, order};
use crate::block::BlockRef;
use crate::codes;
use crate::configuration::INPUT_NAMES;

/// Expressions with the block and the frame they stand in.
struct Source {
    block: BlockRef,
    frame: u32,
    references: Vec<Reference>,
}

impl Builder<'_> {
    /// Resolves all references.
    pub(super) fn connect(&mut self) {
        let mut edges = Vec::with_capacity(self.graph.nodes.len());
        for number in 0..self.graph.nodes.len() {
            let source = source(&self.graph.nodes[number], self.purpose);
            let mut targets = Vec::new();
            let mut seen = HashSet::default();
            let known = !self.unknown.contains(&index(number));
            for reference in source.references.iter().filter(|_| known) {
                match self.graph.resolve(source.frame, &reference.path) {
                    Some((target, _)) => {
                        self.shadowing(&source, reference);
                        if !seen.insert(target) {
                            continue;
                        }
                        if target as usize == number {
                            self.self_reference(&source, reference);
                        } else {
                            targets.push(target);
                        }
                    }
                    None => self.unresolved(&source, reference),
                }
            }
            let further = match &self.graph.nodes[number].kind {
                NodeKind::Custom(custom) => {
                    custom.exports.iter().map(|(_, node)| *node).chain(custom.import).collect()
                }
                NodeKind::Item(Some((foreach, _))) => vec![*foreach],
                _ => Vec::new(),
            };
            let anchor = self.graph.anchor(index(number)).filter(|anchor| *anchor as usize != number);
            targets.extend(further.into_iter().chain(anchor).filter(|target| seen.insert(*target)));
            edges.push(targets);
        }
        if let Some(block) = self.graph.logging.clone() {
            let source = Source { references: references(&block.get().body), block, frame: 0 };
            for reference in &source.references {
                match self.graph.resolve(source.frame, &reference.path) {
                    Some(_) => self.shadowing(&source, reference),
                    None => self.unresolved(&source, reference),
                }
            }
        }
        for (number, targets) in edges.into_iter().enumerate() {
            for target in &targets {
                self.graph.nodes[*target as usize].dependants.push(index(number));
            }
            self.graph.nodes[number].references = targets;
        }
    }

    fn self_reference(&mut self, source: &Source, reference: &Reference) {
        let block = &source.block;
        let diagnostic = Diagnostic::error(codes::CYCLE, "cannot reference self");
        let diagnostic = block.label(diagnostic, block.header(), "a component cannot use its own exports");
        self.report(block.label(diagnostic, reference.span, "used here"));
    }

    /// A component whose name begins as one of the standard library does hides that.
    fn shadowing(&mut self, source: &Source, reference: &Reference) {
        let Some(first) = reference.path.first().filter(|first| stdlib::lookup(first).is_some()) else {
            return;
        };
        let message = format!("a component hides \"{first}\" of the standard library");
        let diagnostic = Diagnostic::warning(codes::SHADOWED, message);
        self.report(source.block.label(diagnostic, reference.span, "means the component"));
    }

    /// A reference that no node answers: fine for inputs and the standard library.
    fn unresolved(&mut self, source: &Source, reference: &Reference) {
        let Some(first) = reference.path.first() else { return };
        if INPUT_NAMES.contains(&&**first) {
            return;
        }
        if stdlib::lookup(first).is_some() {
            self.admit_function(source, reference);
            return;
        }
        let path = reference.path.join(".");
        let diagnostic = Diagnostic::error(
            codes::UNKNOWN_REFERENCE,
            format!("component \"{path}\" does not exist or is out of scope"),
        );
        self.suggestions += 1;
        let near = if self.suggestions > MOST_SUGGESTIONS {
            None
        } else {
            let without_field = path.rsplit_once('.').map_or(path.as_str(), |(node, _)| node);
            nearest(without_field, self.graph.names(source.frame))
                .or_else(|| nearest(&path, self.graph.names(source.frame)))
        };
        let diagnostic = if self.exists_around(source.frame, reference) {
            diagnostic.with_help("what stands around a declare is not visible in it: pass it as an argument")
        } else if let Some(near) = near {
            diagnostic.with_help(format!("did you mean \"{near}\"?"))
        } else {
            diagnostic
        };
        self.report(source.block.label(diagnostic, reference.span, ""));
    }

    /// Whether the reference would be right outside of the declare in which it stands.
    fn exists_around(&self, frame: u32, reference: &Reference) -> bool {
        let mut module = frame;
        while let Some(outer) = self.graph.frame(module).outer {
            module = outer;
        }
        let mut next = self.written_in.get(&module);
        while let Some(frame) = next {
            if self.graph.resolve(*frame, &reference.path).is_some() {
                return true;
            }
            next = self.written_in.get(frame);
        }
        false
    }

    /// The gate of stability holds for functions of the standard library too.
    fn admit_function(&mut self, source: &Source, reference: &Reference) {
        let path: Vec<&str> = reference.path.iter().map(|name| &**name).collect();
        if let Some((old, instead)) = path.first().and_then(|first| stdlib::deprecated(first)) {
            let diagnostic =
                Diagnostic::warning(codes::DEPRECATED, format!("function \"{old}\" is deprecated"))
                    .with_help(format!("write {instead}"));
            self.report(source.block.label(diagnostic, reference.span, ""));
        }
        let minimum = self.admission.minimum_stability;
        let Some(stability) = stdlib::stability(&path).filter(|stability| *stability < minimum) else {
            return;
        };
        let diagnostic = Diagnostic::error(
            codes::STABILITY,
            format!(
                "function \"{}\" is at stability level \"{stability}\", which is below the minimum allowed stability \
                 level \"{minimum}\"",
                reference.path.join(".")
            ),
        )
        .with_help(format!("allow it with --stability.level={stability}"));
        self.report(source.block.label(diagnostic, reference.span, ""));
    }

    pub(super) fn sort(&mut self) {
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
                    let frame = self.graph.node(circle[0]).frame;
                    let one_frame = circle.iter().all(|index| self.graph.node(*index).frame == frame);
                    let name = |index: &u32| {
                        let node = self.graph.node(*index);
                        if one_frame { node.local_name() } else { node.id.as_str() }
                    };
                    let mut names: Vec<_> = circle.iter().map(name).collect();
                    names.sort_unstable();
                    let message = format!("cycle detected: {}", names.join(", "));
                    self.cycle(&circle, &message);
                }
            }
        }
    }

    /// A finding at every member, as none of them is more at fault than the others.
    fn cycle(&mut self, circle: &[u32], message: &str) {
        for member in circle {
            let source = source(self.graph.node(*member), self.purpose);
            let onward = source.references.iter().find(|reference| {
                let target = self.graph.resolve(source.frame, &reference.path);
                target.is_some_and(|(target, _)| circle.contains(&target))
            });
            let place = &source.block;
            let diagnostic = Diagnostic::error(codes::CYCLE, message);
            let diagnostic = place.label(diagnostic, place.header(), "part of the cycle");
            let diagnostic = match onward {
                Some(reference) => place.label(diagnostic, reference.span, "by this reference"),
                None => diagnostic,
            };
            self.report(diagnostic);
        }
    }
}

/// The expressions of a node.
fn source(node: &GraphNode, purpose: Purpose) -> Source {
    let mut found = Vec::new();
    let (mut block, mut frame) = (node.block.clone(), node.frame);
    match &node.kind {
        NodeKind::Component(_) | NodeKind::Absent | NodeKind::Export | NodeKind::Import => {
            found = references(&block.get().body);
        }
        NodeKind::Custom(custom) => {
            // Once expanded, its arguments are nodes of their own.
            if purpose == Purpose::Check || custom.declare.is_none() {
                found = references(&block.get().body);
            }
        }
        NodeKind::Argument(Some(given)) => {
            if let Some(attribute) = given.attribute() {
                references_of(&attribute.value, &mut found);
            }
            block = given.block.clone();
            frame = given.frame;
        }
        NodeKind::Argument(None) => found = references(&block.get().body),
        NodeKind::Foreach(_) => {
            for attribute in block.get().body.attributes() {
                references_of(&attribute.value, &mut found);
            }
        }
        NodeKind::Item(_) => {}
    }
    Source { block, frame, references: found }
}

//! Custom components: their instances, and the bodies of their declares.

use std::sync::Arc;

use foldhash::HashMap;
use invar_syntax::ast::{Block, Statement};
use invar_syntax::diagnostic::{Diagnostic, nearest};

use super::build::{Builder, Purpose, Refused, duplicate, index};
use super::names::{Found, Names, in_module};
use super::{Custom, Expansion, FrameKind, Given, NodeKind, order};
use crate::block::BlockRef;
use crate::codes;
use crate::modules::{Declare, Parameter};

impl Builder<'_> {
    /// A block whose name belongs to a declare or an import.
    pub(super) fn custom(&mut self, block: &Block, place: BlockRef, name: String, found: Found, frame: u32) {
        let mut import = None;
        let target = match found {
            Found::Declare(declare, around) => Some((declare, around)),
            Found::Dynamic(used, of) => {
                let node = of.and_then(|of| self.graph.node_in(of, &used.node_name()));
                import = node;
                let module = node.and_then(|node| match self.graph.dynamics.get(&self.graph.node(node).id) {
                    Some(Expansion::Module(module)) => Some(Arc::clone(module)),
                    _ => None,
                });
                match module {
                    None => None,
                    Some(module) => {
                        let component = block.name.last().map_or("", |part| &*part.name);
                        match in_module(&module, component) {
                            Some(Found::Declare(declare, around)) => Some((declare, around)),
                            _ => return self.refuse_missing(block, place, name, frame),
                        }
                    }
                }
            }
            Found::Missing | Found::Nothing => return self.refuse_missing(block, place, name, frame),
            Found::Unknown => None,
        };
        let mut id = name;
        if let Some(label) = &block.label {
            id.push('.');
            id.push_str(&label.text);
        }
        let declare = target.as_ref().map(|(declare, _)| Arc::clone(declare));
        let kind = NodeKind::Custom(Custom { declare, arguments: Vec::new(), exports: Vec::new(), import });
        let Some(node) = self.node(kind, &id, place.clone(), frame) else { return };
        self.check_instance(&place);
        let Some((declare, around)) = target else { return };
        self.check_arguments(block, &place, &declare);
        match self.purpose {
            Purpose::Run => self.expand(node, &place, &declare, &around),
            Purpose::Check => {
                if let Some(user) = self.inside.last() {
                    self.uses.push((Arc::clone(user), Arc::clone(&declare), place));
                }
                self.check_later(&declare, &around, None);
            }
        }
    }

    fn refuse_missing(&mut self, block: &Block, place: BlockRef, name: String, frame: u32) {
        let (namespace, component) = match &*block.name {
            [name] => ("", name.name.to_string()),
            [namespace, rest @ ..] => {
                let rest: Vec<_> = rest.iter().map(|part| &*part.name).collect();
                (&*namespace.name, rest.join("."))
            }
            [] => ("", String::new()),
        };
        let message = format!(
            "custom component config not found in the registry, namespace: \"{namespace}\", componentName: \
             \"{component}\""
        );
        self.report(place.label(Diagnostic::error(codes::UNKNOWN_COMPONENT, message), place.header(), ""));
        self.absent(block, place, name, Refused::Unknown, frame);
    }

    /// What holds for the block of any custom component.
    fn check_instance(&mut self, place: &BlockRef) {
        for (inner, _) in place.body().blocks() {
            let message = "nested blocks not supported here";
            let diagnostic = Diagnostic::error(codes::ARGUMENT, message)
                .with_help("custom components take attributes only");
            self.report(inner.label(diagnostic, inner.header(), ""));
        }
        let attributes: Vec<_> = place.get().body.attributes().collect();
        for (position, attribute) in attributes.iter().enumerate() {
            if attributes[..position].iter().any(|before| before.name.name == attribute.name.name) {
                let message = format!("attribute \"{}\" may only be provided once", attribute.name);
                let diagnostic = Diagnostic::error(codes::DUPLICATE, message);
                self.report(place.label(diagnostic, attribute.name.span, ""));
            }
        }
    }

    fn check_arguments(&mut self, block: &Block, place: &BlockRef, declare: &Declare) {
        let interface = declare.interface();
        for attribute in block.body.attributes() {
            let name = &*attribute.name.name;
            if interface.has_argument(name) {
                continue;
            }
            let message = format!("Provided argument \"{name}\" is not defined in the module");
            let known = interface.arguments.iter().map(|parameter| &*parameter.name);
            let mut diagnostic = Diagnostic::error(codes::ARGUMENT, message);
            if let Some(near) = nearest(name, known) {
                diagnostic = diagnostic.with_help(format!("did you mean \"{near}\"?"));
            }
            let diagnostic = place.label(diagnostic, attribute.name.span, "");
            let diagnostic = declare.block.label(diagnostic, declare.block.header(), "the module");
            self.report(diagnostic);
        }
        for Parameter { name, block: parameter, optional } in &interface.arguments {
            if *optional || block.body.attributes().any(|attribute| attribute.name.name == *name) {
                continue;
            }
            let message = format!("missing required argument \"{name}\" to module");
            let diagnostic =
                Diagnostic::error(codes::ARGUMENT, message).with_help(format!("add {name} = <any>"));
            let diagnostic = place.label(diagnostic, place.header(), "");
            self.report(parameter.label(diagnostic, parameter.header(), "the argument"));
        }
    }

    /// Makes the inside of a custom component.
    fn expand(&mut self, node: u32, place: &BlockRef, declare: &Arc<Declare>, around: &Names) {
        if let Some(start) = self.inside.iter().position(|outer| Arc::ptr_eq(outer, declare)) {
            let circle: Vec<_> =
                self.inside[start..].iter().map(|declare| Arc::clone(&declare.label)).collect();
            self.report(recursion(&circle, place));
            return;
        }
        self.nested(place, |builder| {
            let prefix = format!("{}/", builder.graph.node(node).id);
            let module_path = &declare.lexicon.module_path;
            let caller = builder.graph.node(node).frame;
            let frame = builder.frame(&prefix, FrameKind::Module, Some(node), None, module_path);
            let import = match &builder.graph.node(node).kind {
                NodeKind::Custom(custom) => custom.import,
                _ => None,
            };
            if let Some(import) = import {
                builder.anchor(frame, import);
            }
            let mut arguments = Vec::new();
            for parameter in &declare.interface().arguments {
                let given = given(place, &parameter.name, caller);
                let name = format!("argument.{}", parameter.name);
                let node = builder.node(NodeKind::Argument(given), &name, parameter.block.clone(), frame);
                arguments.extend(node.map(|node| (Arc::clone(&parameter.name), node)));
            }
            builder.inside.push(Arc::clone(declare));
            let names = around.within(&declare.lexicon, frame);
            builder.body(&declare.body, frame, &names);
            builder.inside.pop();
            let exports: Vec<_> = declare
                .interface()
                .exports
                .iter()
                .filter_map(|(name, _)| {
                    let node = builder.graph.node_in(frame, &format!("export.{name}"))?;
                    Some((Arc::clone(name), node))
                })
                .collect();
            if let NodeKind::Custom(custom) = &mut builder.graph.nodes[node as usize].kind {
                custom.arguments = arguments;
                custom.exports = exports;
            }
        });
    }

    /// Goes through a declare's body for the static check.
    pub(super) fn declared_body(&mut self, declare: &Arc<Declare>, around: &Names, written_in: Option<u32>) {
        // No name has such a prefix.
        let prefix = format!("#{}/", self.graph.frames.len());
        let frame = self.frame(&prefix, FrameKind::Module, None, None, &declare.lexicon.module_path);
        if let Some(written_in) = written_in {
            self.written_in.insert(frame, written_in);
        }
        for parameter in &declare.interface().arguments {
            let name = format!("argument.{}", parameter.name);
            self.node(NodeKind::Argument(None), &name, parameter.block.clone(), frame);
        }
        self.inside.push(Arc::clone(declare));
        let names = around.within(&declare.lexicon, frame);
        self.body(&declare.body, frame, &names);
        self.inside.pop();
    }

    /// An `argument` block. Its node is made with the frame.
    pub(super) fn argument(&mut self, block: &Block, place: &BlockRef, frame: u32) {
        if self.graph.frame(frame).kind != FrameKind::Module {
            self.misplaced(place, "argument blocks only allowed inside a module".to_owned());
            if self.purpose == Purpose::Check {
                self.node(NodeKind::Argument(None), &place.name_with_label(), place.clone(), frame);
            }
            return;
        }
        self.labelled_once(block, place, frame);
    }

    /// An `export` block.
    pub(super) fn export(&mut self, block: &Block, place: BlockRef, frame: u32) {
        if self.graph.frame(frame).kind != FrameKind::Module {
            self.misplaced(&place, "export blocks only allowed inside a module".to_owned());
            if self.purpose == Purpose::Check {
                let name = place.name_with_label();
                self.node(NodeKind::Export, &name, place, frame);
            }
            return;
        }
        if let Some(label) = &block.label {
            let name = format!("export.{}", label.text);
            self.node(NodeKind::Export, &name, place, frame);
        } else {
            self.labelled_once(block, &place, frame);
        }
    }

    /// An `argument` or `export` has a label, and the one that made the node is this one.
    fn labelled_once(&mut self, block: &Block, place: &BlockRef, frame: u32) {
        let name = block.dotted_name();
        let Some(label) = &block.label else {
            let message = format!("{name} block must have a label");
            let diagnostic = Diagnostic::error(codes::MISSING_LABEL, message);
            return self.report(place.label(diagnostic, place.header(), "no label"));
        };
        let name = format!("{name}.{}", label.text);
        if let Some(node) = self.graph.node_in(frame, &name) {
            let first = self.graph.node(node).block.clone();
            if !first.is(place) {
                self.report(duplicate(&name, &first, place));
            }
        }
    }

    /// In the static check: declares that are part of themselves.
    pub(super) fn refuse_recursion(&mut self) {
        let uses = std::mem::take(&mut self.uses);
        let mut numbers: HashMap<*const Declare, u32> = HashMap::default();
        let mut declares: Vec<&Arc<Declare>> = Vec::new();
        for declare in uses.iter().flat_map(|(user, used, _)| [user, used]) {
            numbers.entry(Arc::as_ptr(declare)).or_insert_with(|| {
                declares.push(declare);
                index(declares.len() - 1)
            });
        }
        let mut edges: Vec<Vec<u32>> = vec![Vec::new(); declares.len()];
        for (user, used, _) in &uses {
            edges[numbers[&Arc::as_ptr(user)] as usize].push(numbers[&Arc::as_ptr(used)]);
        }
        let mut circles = order::circles(edges.len(), |number| &edges[number]);
        let selves = (0_u32..).zip(&edges).filter(|(number, edges)| edges.contains(number));
        circles.extend(selves.map(|(number, _)| vec![number]));
        for circle in circles {
            let labels: Vec<_> =
                circle.iter().map(|number| Arc::clone(&declares[*number as usize].label)).collect();
            let is_member = |declare: &Arc<Declare>| circle.contains(&numbers[&Arc::as_ptr(declare)]);
            if let Some((_, _, place)) =
                uses.iter().find(|(user, used, _)| is_member(user) && is_member(used))
            {
                self.report(recursion(&labels, place));
            }
        }
    }
}

/// What the instance gives for an argument.
fn given(place: &BlockRef, name: &str, frame: u32) -> Option<Given> {
    let statement = place.get().body.statements.iter().position(
        |statement| matches!(statement, Statement::Attribute(attribute) if &*attribute.name.name == name),
    )?;
    Some(Given { block: place.clone(), statement, frame })
}

fn recursion(circle: &[Arc<str>], place: &BlockRef) -> Diagnostic {
    let names: Vec<_> = circle.iter().map(|label| format!("declare.{label}")).collect();
    let message = match &*names {
        [one] => format!("self reference: {one}"),
        names => format!("cycle: {}", names.join(", ")),
    };
    let diagnostic = Diagnostic::error(codes::CYCLE, message);
    place.label(diagnostic, place.header(), "a custom component cannot be part of itself")
}

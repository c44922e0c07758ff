//! Building a graph: what each block is, and everything that can be wrong with that.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use foldhash::{HashMap, HashSet};
use invar_syntax::ast::Block;
use invar_syntax::diagnostic::{Diagnostic, Diagnostics, Severity, nearest};
use invar_syntax::schema::Stability;

use super::names::{Found, Names};
use super::{Admission, Dynamics, Frame, FrameKind, Graph, GraphNode, NodeKind};
use crate::block::{BlockRef, BodyRef};
use crate::ceiling;
use crate::codes;
use crate::configuration::{Configuration, InputScope};
use crate::definition::Definition;
use crate::modules::{Declare, is_import};
use crate::node::NodeId;
use crate::registry::Registry;

/// The block that configures the agent's own log.
const LOGGING: &str = "logging";

/// Blocks for the local root only.
const SERVICES: [&str; 3] = ["http", "livedebugging", "remotecfg"];
const TRACING: &str = "tracing";

/// For how many wrong names the nearest right one is looked for: among thousands of nodes, all would take minutes.
pub(super) const MOST_SUGGESTIONS: usize = 10;

/// How deep custom components and `foreach` may be nested.
const DEEPEST_NESTING: usize = 32;

/// How many nodes a configuration may be expanded to.
const MOST_NODES: usize = 250_000;

impl Graph {
    /// Builds the graph of a configuration as it runs: custom components and `foreach` are expanded, dynamic ones with what is
    /// known of them. None if anything is wrong; the diagnostics may hold warnings besides.
    pub(crate) fn build(
        registry: &Registry,
        configuration: &Configuration,
        admission: Admission,
        dynamics: &Dynamics,
    ) -> (Option<Self>, Diagnostics) {
        let builder = Builder::new(registry, configuration, admission, Purpose::Run, dynamics.clone());
        let (graph, diagnostics) = builder.finish();
        ((!diagnostics.has_errors()).then_some(graph), diagnostics)
    }

    /// Builds the graph of a configuration as it is written: each body stands once, whatever its number of instances. For the
    /// static check: as much of it as can be made out, also where something is wrong, so that one mistake does not hide the
    /// others.
    pub(crate) fn outline(
        registry: &Registry,
        configuration: &Configuration,
        admission: Admission,
    ) -> (Self, Diagnostics) {
        Builder::new(registry, configuration, admission, Purpose::Check, Dynamics::new()).finish()
    }
}

/// What a graph is built for.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) enum Purpose {
    /// Expanded.
    Run,
    /// Each body once.
    Check,
}

/// Why a block is no component.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) enum Refused {
    /// Alloy has such a component, this binary not.
    NotAvailable,
    /// A block of the language that stands in the wrong place, or that this version lacks.
    Block,
    /// Nothing has that name.
    Unknown,
}

pub(super) struct Builder<'a> {
    registry: &'a Registry,
    configuration: &'a Configuration,
    pub(super) admission: Admission,
    pub(super) purpose: Purpose,
    pub(super) diagnostics: Diagnostics,
    /// Messages with their places: a body that stands in many frames is reported once.
    reported: HashSet<(String, String)>,
    pub(super) graph: Graph,
    /// Nodes of which not even the kind is known: what they refer to cannot be told either.
    pub(super) unknown: HashSet<u32>,
    /// For how many wrong names the nearest right one was looked for.
    pub(super) suggestions: usize,
    /// Declares and imports by frame and name, for duplicates.
    definitions: HashMap<(u32, String), BlockRef>,
    /// The declares within which an expansion is.
    pub(super) inside: Vec<Arc<Declare>>,
    /// How deep it is nested, templates included.
    depth: usize,
    /// In the static check: bodies still to be looked at, by the frame they are written in; and all that were.
    pub(super) pending: VecDeque<(Arc<Declare>, Names, Option<u32>)>,
    pub(super) seen: HashSet<*const Declare>,
    /// In the static check: the frame in which a declare was written, by the frame of its body.
    pub(super) written_in: HashMap<u32, u32>,
    /// In the static check: which declares a declare uses.
    pub(super) uses: Vec<(Arc<Declare>, Arc<Declare>, BlockRef)>,
    overflowed: bool,
}

impl<'a> Builder<'a> {
    fn new(
        registry: &'a Registry,
        configuration: &'a Configuration,
        admission: Admission,
        purpose: Purpose,
        dynamics: Dynamics,
    ) -> Self {
        Self {
            registry,
            configuration,
            admission,
            purpose,
            diagnostics: Diagnostics::new(),
            reported: HashSet::default(),
            graph: Graph { dynamics, ..Graph::default() },
            unknown: HashSet::default(),
            suggestions: 0,
            definitions: HashMap::default(),
            inside: Vec::new(),
            depth: 0,
            pending: VecDeque::new(),
            seen: HashSet::default(),
            written_in: HashMap::default(),
            uses: Vec::new(),
            overflowed: false,
        }
    }

    fn finish(mut self) -> (Graph, Diagnostics) {
        self.imports();
        for root in &self.configuration.roots {
            let kind = if root.prefix.is_empty() { FrameKind::Local } else { FrameKind::Remote };
            let module_path = &root.lexicon.module_path;
            let frame = self.frame(root.prefix.as_str(), kind, None, None, module_path);
            let names = Names::new(&root.lexicon, Some(frame));
            for body in &root.bodies {
                self.body(body, frame, &names);
            }
        }
        while let Some((declare, names, written_in)) = self.pending.pop_front() {
            self.declared_body(&declare, &names, written_in);
        }
        self.refuse_too_many();
        self.refuse_recursion();
        self.connect();
        self.sort();
        let dynamics = std::mem::take(&mut self.graph.dynamics);
        let living = dynamics.into_iter().filter(|(node, _)| self.graph.find(node.as_str()).is_some());
        self.graph.dynamics = living.collect();
        self.diagnostics.sort();
        (self.graph, self.diagnostics)
    }

    /// Refuses the first component beyond what the ceilings allow, for each of them.
    fn refuse_too_many(&mut self) {
        let inputs = &self.configuration.inputs;
        let policy = &inputs.policy;
        let mut all = 0_usize;
        let mut of_source: BTreeMap<&str, usize> = BTreeMap::new();
        let mut found = Vec::new();
        for node in self.graph.nodes.iter().filter(|node| node.component().is_some()) {
            let mut count = |count: &mut usize, limit: Option<usize>, table: &str| {
                *count += 1;
                if let Some(limit) = limit.filter(|limit| limit.saturating_add(1) == *count) {
                    let refusal = ceiling::too_many_components(limit, table);
                    found.push(node.block.label(ceiling::diagnostic(refusal), node.block.header(), ""));
                }
            };
            count(&mut all, policy.limits().components, "[policy]");
            if policy.tells_sources_apart() {
                for source in inputs.authors_at(&self.graph, node.frame, &node.block) {
                    let table = format!("[policy.source.{source}]");
                    let counted = of_source.entry(source).or_default();
                    count(counted, policy.limits_of(source).components, &table);
                }
            }
        }
        for diagnostic in found {
            self.report(diagnostic);
        }
    }

    /// The inputs as expressions in a frame see them.
    pub(super) fn inputs_at(&self, frame: u32, block: &BlockRef) -> InputScope<'_> {
        let inputs = &self.configuration.inputs;
        let access = inputs.access_at(&self.graph, frame, block);
        InputScope { inputs, module_path: &self.graph.frame(frame).module_path, access }
    }

    /// What resolving the imports found wrong.
    fn imports(&mut self) {
        let checking = self.purpose == Purpose::Check;
        for fault in self.configuration.module_faults() {
            // Where the check runs, what the host imports need not be; what it declares is then not known.
            let unread = checking
                && fault.key.is_some()
                && fault.diagnostics.iter().all(|found| found.code == codes::IMPORT);
            for diagnostic in &fault.diagnostics {
                self.report(if unread {
                    Diagnostic {
                        severity: Severity::Warning,
                        code: codes::UNREAD_IMPORT,
                        ..diagnostic.clone()
                    }
                } else {
                    diagnostic.clone()
                });
            }
        }
        let missing = self.configuration.missing_modules().iter().filter(|_| !checking);
        for request in missing {
            let message = format!("the content of module \"{}\" is not at hand", request.namespace);
            self.report(request.diagnostic(message));
        }
        let Some(client) = self.registry.import_client() else { return };
        for request in self.configuration.modules() {
            for diagnostic in request.check_client(client) {
                self.report(diagnostic);
            }
        }
    }

    /// Adds a diagnostic unless the same was found at the same place.
    pub(super) fn report(&mut self, diagnostic: Diagnostic) {
        let place = diagnostic.primary().map(|label| format!("{}\0{:?}", label.source.name, label.span));
        if self.reported.insert((place.unwrap_or_default(), diagnostic.message.clone())) {
            self.diagnostics.push(diagnostic);
        }
    }

    /// A new frame.
    pub(super) fn frame(
        &mut self,
        prefix: &str,
        kind: FrameKind,
        owner: Option<u32>,
        outer: Option<u32>,
        module_path: &Arc<str>,
    ) -> u32 {
        let anchor = owner.and_then(|owner| self.graph.anchor(owner));
        self.graph.frames.push(Frame {
            prefix: Arc::from(prefix),
            kind,
            owner,
            outer,
            module_path: Arc::clone(module_path),
            anchor,
        });
        index(self.graph.frames.len() - 1)
    }

    /// Makes all of a frame come after a node.
    pub(super) fn anchor(&mut self, frame: u32, node: u32) {
        self.graph.frames[frame as usize].anchor = Some(node);
    }

    /// Goes through what stands in a body; false, and an error at `place`, if that is nested too deep.
    pub(super) fn nested(&mut self, place: &BlockRef, expand: impl FnOnce(&mut Self)) {
        if self.depth >= DEEPEST_NESTING {
            let message = format!("custom components are nested more than {DEEPEST_NESTING} deep");
            self.report(place.label(Diagnostic::error(codes::TOO_DEEP, message), place.header(), ""));
            return;
        }
        self.depth += 1;
        expand(self);
        self.depth -= 1;
    }

    /// The statements of a body.
    pub(super) fn body(&mut self, body: &BodyRef, frame: u32, names: &Names) {
        for attribute in body.attributes() {
            let message = format!("attribute \"{}\" stands outside of any block", attribute.name);
            let diagnostic = Diagnostic::error(codes::STRAY_ATTRIBUTE, message);
            self.report(body.label(diagnostic, attribute.span, "only blocks are allowed here"));
        }
        for (place, block) in body.blocks() {
            self.block(block, place, frame, names);
        }
    }

    fn block(&mut self, block: &Block, place: BlockRef, frame: u32, names: &Names) {
        let name = block.dotted_name();
        match name.as_str() {
            "declare" => self.declare(block, &place, frame, names),
            "argument" => self.argument(block, &place, frame),
            "export" => self.export(block, place, frame),
            "foreach" => self.foreach(block, place, frame, names),
            LOGGING => self.logging(place, frame),
            _ if is_import(block) => self.import(block, place, frame, names),
            _ => {
                let parts: Vec<&str> = block.name.iter().map(|part| &*part.name).collect();
                match names.find(&parts) {
                    Found::Nothing => match self.registry.definition(&name) {
                        Some(definition) => {
                            let definition = Arc::clone(definition);
                            self.admit(&place, &name, &*definition, frame);
                            if definition.is_settings() {
                                self.settings(block, place, &name, definition, frame);
                            } else {
                                self.component(block, place, name, NodeKind::Component(definition), frame);
                            }
                        }
                        None => {
                            let refused = self.refuse_unknown(block, &place, &name, frame, names);
                            self.absent(block, place, name, refused, frame);
                        }
                    },
                    found => self.custom(block, place, name, found, frame),
                }
            }
        }
    }

    fn logging(&mut self, place: BlockRef, frame: u32) {
        if self.graph.frame(frame).kind != FrameKind::Local {
            self.misplaced(&place, format!("{LOGGING} block not allowed inside a module"));
            return;
        }
        match &self.graph.logging {
            Some(first) => {
                let diagnostic = duplicate(LOGGING, first, &place);
                self.report(diagnostic);
            }
            None => self.graph.logging = Some(place),
        }
    }

    pub(super) fn misplaced(&mut self, place: &BlockRef, message: String) {
        self.report(place.label(Diagnostic::error(codes::MISPLACED, message), place.header(), ""));
    }

    /// A `declare`: nothing runs for it. In the static check its body is looked at whether it is used or not, and whether it
    /// could be used or not.
    fn declare(&mut self, block: &Block, place: &BlockRef, frame: u32, names: &Names) {
        match &block.label {
            None => {
                let diagnostic = Diagnostic::error(codes::MISSING_LABEL, "declare block must have a label");
                self.report(place.label(diagnostic, place.header(), "no label"));
            }
            Some(label) if &*label.text == "declare" => {
                let diagnostic =
                    Diagnostic::error(codes::MISPLACED, "'declare' is not a valid label for a declare block");
                self.report(place.label(diagnostic, label.span, ""));
            }
            Some(label) => {
                self.define(frame, &label.text, place);
            }
        }
        if self.purpose == Purpose::Run {
            return;
        }
        let lexicon = names.lexicon();
        let named = block.label.as_ref().and_then(|label| lexicon.declares.get(&label.text));
        let declare = named.into_iter().chain(&lexicon.refused).find(|declare| declare.block.is(place));
        if let Some(declare) = declare {
            self.check_later(declare, names, Some(frame));
        }
    }

    /// Has a body checked, once.
    pub(super) fn check_later(&mut self, declare: &Arc<Declare>, around: &Names, written_in: Option<u32>) {
        if self.seen.insert(Arc::as_ptr(declare)) {
            self.pending.push_back((Arc::clone(declare), around.clone(), written_in));
        }
    }

    /// Notes a name of a declare or import; false if it is taken.
    fn define(&mut self, frame: u32, name: &str, place: &BlockRef) -> bool {
        let key = (frame, name.to_owned());
        if let Some(first) = self.definitions.get(&key) {
            let diagnostic = duplicate(&place.name_with_label(), first, place);
            self.report(diagnostic);
            return false;
        }
        self.definitions.insert(key, place.clone());
        true
    }

    /// An `import`: only one whose content is the value of something is a node.
    fn import(&mut self, block: &Block, place: BlockRef, frame: u32, names: &Names) {
        let name = block.dotted_name();
        let Some(label) = &block.label else {
            let message = format!("{name} block must have a label");
            self.report(place.label(
                Diagnostic::error(codes::MISSING_LABEL, message),
                place.header(),
                "no label",
            ));
            return;
        };
        if !self.define(frame, &label.text, &place) {
            return;
        }
        let import = names.lexicon().imports.get(&label.text).cloned();
        match import {
            Some(import) if matches!(import.content, crate::modules::ImportContent::Dynamic) => {
                self.node(NodeKind::Import, &import.node_name(), place, frame);
            }
            Some(_) => {}
            None => {
                self.refuse_unknown(block, &place, &name, frame, names);
            }
        }
    }

    /// A component block. In the static check one without a label has its diagnostic and still takes part: what it refers to
    /// and what it says are judged all the same.
    fn component(&mut self, block: &Block, place: BlockRef, name: String, kind: NodeKind, frame: u32) {
        let Some(label) = &block.label else {
            let diagnostic =
                Diagnostic::error(codes::MISSING_LABEL, format!("component \"{name}\" must have a label"))
                    .with_help(format!("name it, for example: {name} \"default\" {{ … }}"));
            self.report(place.label(diagnostic, place.header(), "no label"));
            if self.purpose == Purpose::Check {
                self.node(kind, &name, place, frame);
            }
            return;
        };
        self.node(kind, &format!("{name}.{}", label.text), place, frame);
    }

    /// A block that configures the agent itself.
    fn settings(
        &mut self,
        block: &Block,
        place: BlockRef,
        name: &str,
        definition: Arc<dyn Definition>,
        frame: u32,
    ) {
        if self.graph.frame(frame).kind != FrameKind::Local {
            self.misplaced(&place, not_in_a_module(name));
            return;
        }
        if let Some(label) = &block.label {
            let message = format!("block \"{name}\" does not support specifying labels");
            self.report(place.label(
                Diagnostic::error(codes::MISPLACED, message),
                label.span,
                "remove this label",
            ));
            return;
        }
        self.node(NodeKind::Component(definition), name, place, frame);
    }

    /// In the static check, a node for a block that is none: references to it are not judged again.
    pub(super) fn absent(
        &mut self,
        block: &Block,
        place: BlockRef,
        name: String,
        refused: Refused,
        frame: u32,
    ) {
        if self.purpose == Purpose::Run {
            return;
        }
        if refused == Refused::Block {
            let name = place.name_with_label();
            let node = self.node(NodeKind::Absent, &name, place, frame);
            self.unknown.extend(node);
            return;
        }
        let number = index(self.graph.nodes.len());
        self.component(block, place, name, NodeKind::Absent, frame);
        if refused == Refused::Unknown {
            self.unknown.insert(number);
        }
    }

    /// Adds a node to a frame; none if its name is taken. In the static check such a node is there, if not to be found.
    pub(super) fn node(&mut self, kind: NodeKind, name: &str, place: BlockRef, frame: u32) -> Option<u32> {
        let prefix = Arc::clone(&self.graph.frame(frame).prefix);
        let id = if prefix.is_empty() { NodeId::new(name) } else { NodeId::new(format!("{prefix}{name}")) };
        if let Some(first) = self.graph.index.get(&id) {
            let diagnostic = duplicate(name, &self.graph.node(*first).block, &place);
            self.report(diagnostic);
            if self.purpose == Purpose::Run {
                return None;
            }
        }
        if self.graph.len() >= MOST_NODES {
            if !self.overflowed {
                self.overflowed = true;
                let message = format!("the configuration expands to more than {MOST_NODES} components");
                self.report(place.label(Diagnostic::error(codes::TOO_DEEP, message), place.header(), ""));
            }
            return None;
        }
        let index = index(self.graph.nodes.len());
        self.graph.index.entry(id.clone()).or_insert(index);
        self.graph.nodes.push(GraphNode {
            id,
            kind,
            block: place,
            frame,
            prefix: prefix.len(),
            minimum_stability: self.admission.minimum_stability,
            references: Vec::new(),
            dependants: Vec::new(),
        });
        Some(index)
    }

    fn admit(&mut self, place: &BlockRef, name: &str, definition: &dyn Definition, frame: u32) {
        let access = self.configuration.inputs.access_at(&self.graph, frame, place);
        if let Err(refusal) = access.component(name) {
            self.report(place.label(ceiling::diagnostic(refusal), place.header(), ""));
        }
        if definition.is_community() && !self.admission.community {
            let diagnostic = Diagnostic::error(
                codes::COMMUNITY,
                format!(
                    "the component \"{name}\" is a community component. Use the \
                     --feature.community-components.enabled command-line flag to enable community components"
                ),
            );
            self.report(place.label(diagnostic, place.header(), ""));
        }
        self.admit_stability(place, &format!("component \"{name}\""), definition.stability());
    }

    /// The gate of stability.
    pub(super) fn admit_stability(&mut self, place: &BlockRef, what: &str, stability: Stability) {
        let minimum = self.admission.minimum_stability;
        if stability < minimum {
            let diagnostic = Diagnostic::error(
                codes::STABILITY,
                format!(
                    "{what} is at stability level \"{stability}\", which is below the minimum allowed stability level \
                     \"{minimum}\""
                ),
            )
            .with_help(format!("allow it with --stability.level={stability}"));
            self.report(place.label(diagnostic, place.header(), ""));
        }
    }

    /// Refuses a block that is no component of this binary.
    fn refuse_unknown(
        &mut self,
        block: &Block,
        place: &BlockRef,
        name: &str,
        frame: u32,
        names: &Names,
    ) -> Refused {
        let in_root = self.graph.frame(frame).kind == FrameKind::Local;
        let first = block.name.first().map_or("", |part| &*part.name);
        let settings = first == TRACING || SERVICES.contains(&first);
        let (diagnostic, refused) = if settings && !in_root {
            (Diagnostic::error(codes::MISPLACED, not_in_a_module(first)), Refused::Block)
        } else if settings {
            let message = format!("block \"{name}\" is not supported yet in this version");
            (Diagnostic::error(codes::UNSUPPORTED, message), Refused::Block)
        } else if self.registry.is_known_elsewhere(name) {
            let message = format!("component \"{name}\" exists in Alloy but is not built into this version");
            let diagnostic = Diagnostic::error(codes::NOT_AVAILABLE, message)
                .with_help("`invar components` lists those that are; what refers to this one is not judged");
            (diagnostic, Refused::NotAvailable)
        } else {
            let diagnostic = Diagnostic::error(
                codes::UNKNOWN_COMPONENT,
                format!("cannot find the definition of component name \"{name}\""),
            );
            self.suggestions += 1;
            let near = if self.suggestions > MOST_SUGGESTIONS {
                None
            } else {
                let custom = names.all();
                // A local binding gives the registry's names the shorter lifetime of the custom ones.
                let registered: Vec<&str> = self.registry.all_names().collect();
                nearest(name, custom.iter().map(String::as_str).chain(registered)).map(str::to_owned)
            };
            let diagnostic = match near {
                Some(near) => diagnostic.with_help(format!("did you mean \"{near}\"?")),
                None => diagnostic,
            };
            (diagnostic, Refused::Unknown)
        };
        self.report(place.label(diagnostic, place.header(), ""));
        refused
    }
}

/// A number of nodes or frames, which [`MOST_NODES`] keeps within 32 bits.
pub(super) fn index(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

pub(crate) fn duplicate(name: &str, first: &BlockRef, second: &BlockRef) -> Diagnostic {
    let diagnostic =
        Diagnostic::error(codes::DUPLICATE, format!("block {name} already declared at {}", first.location()));
    let diagnostic = second.label(diagnostic, second.header(), "declared again here");
    first.label(diagnostic, first.header(), "first declared here")
}

/// What is said of a block that configures the agent itself, where it stands in a module.
fn not_in_a_module(name: &str) -> String {
    if SERVICES.contains(&name) {
        format!("service blocks not allowed inside a module: \"{name}\"")
    } else {
        format!("{name} block not allowed inside a module")
    }
}

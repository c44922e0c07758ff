//! From a block to arguments: evaluating a node's body against the exports of others, decoding and checking the result.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use invar_policy::Access;
use invar_syntax::arguments::{self, DecodeError};
use invar_syntax::ast::Attribute;
use invar_syntax::diagnostic::{Diagnostic, Diagnostics};
use invar_syntax::evaluate::{EvaluatedBody, evaluate_body};
use invar_syntax::live_secret::recording;
use invar_syntax::scope::{Missing, Scope};
use invar_syntax::span::Span;
use invar_syntax::value::Value;

use crate::block::BlockRef;
use crate::ceiling::{self, Refused, When, guarded_name, refused, refused_in};
use crate::codes;
use crate::configuration::{Configuration, InputScope};
use crate::context::{Check, CheckError};
use crate::definition::{AnyArc, Definition};
use crate::engine::FailureClass;
use crate::graph::{Graph, GraphNode};
use crate::inputs::INPUT_NAMES;
use crate::instance::panic_message;
use crate::secrets::{NodeSecrets, SECRET};

/// What expressions of a graph can see: the exports of its nodes, and the inputs.
pub(crate) struct View<'a, E> {
    pub(crate) graph: &'a Graph,
    pub(crate) configuration: &'a Configuration,
    /// Answers the exports of a node.
    pub(crate) exports: E,
}

/// What expressions in one frame see of that.
pub(crate) struct NodeScope<'a, E> {
    view: &'a View<'a, E>,
    frame: u32,
    access: Access,
    /// Whether the environment of this process is what counts.
    environment_known: bool,
}

/// Why a node could not be evaluated or prepared.
#[derive(Clone, Debug)]
pub(crate) struct NodeError {
    pub(crate) diagnostics: Diagnostics,
    pub(crate) class: FailureClass,
}

/// Arguments that were accepted, and the addresses they want to listen on.
pub(crate) struct Accepted {
    pub(crate) arguments: AnyArc,
    pub(crate) addresses: Vec<String>,
    /// What those who wrote them may use.
    pub(crate) access: Access,
    /// The secrets in them.
    pub(crate) secrets: NodeSecrets,
}

/// The code of errors in evaluating an expression.
const EVALUATION: &str = arguments::codes::EVALUATION;

// === impl View ===

impl<'a, E: Fn(u32) -> Value> View<'a, E> {
    /// What expressions of a block in a frame see.
    pub(crate) fn at(&'a self, frame: u32, block: &BlockRef) -> NodeScope<'a, E> {
        self.under(frame, self.configuration.inputs.access_at(self.graph, frame, block))
    }

    /// What expressions of nobody in particular see in a frame.
    pub(crate) fn of_nobody(&'a self, frame: u32) -> NodeScope<'a, E> {
        self.under(frame, self.configuration.inputs.policy.general().clone())
    }

    fn under(&'a self, frame: u32, access: Access) -> NodeScope<'a, E> {
        NodeScope { view: self, frame, access, environment_known: !self.configuration.inputs.off_host }
    }
}

// === impl NodeScope ===

impl<E> NodeScope<'_, E> {
    /// What those who wrote the block may use.
    pub(crate) fn access(&self) -> &Access {
        &self.access
    }

    /// With the environment of the process unknown.
    pub(crate) fn without_environment(mut self) -> Self {
        self.environment_known = false;
        self
    }
}

impl<E: Fn(u32) -> Value> Scope for NodeScope<'_, E> {
    fn resolve(&self, path: &[&str]) -> Option<(Value, usize)> {
        let View { graph, configuration, exports } = self.view;
        if let Some((node, taken)) = graph.resolve(self.frame, path) {
            return Some((exports(node), taken));
        }
        if let Some(guarded) = guarded_name(path, &self.access, self.environment_known) {
            return Some(guarded);
        }
        if let [SECRET, ..] = path {
            return Some((configuration.secret_function(&self.access), 1));
        }
        let module_path = &graph.frame(self.frame).module_path;
        let access = self.access.clone();
        InputScope { inputs: &configuration.inputs, module_path, access }.resolve(path)
    }

    fn names(&self) -> Vec<String> {
        self.view.graph.names(self.frame).chain(INPUT_NAMES).map(str::to_owned).collect()
    }

    fn missing(&self, path: &[&str]) -> Option<Missing> {
        self.view.configuration.inputs.missing(path)
    }
}

// === impl NodeError ===

impl NodeError {
    pub(crate) fn content(diagnostics: Diagnostics) -> Self {
        Self { diagnostics, class: FailureClass::Content }
    }

    /// All messages in one line.
    pub(crate) fn reason(&self) -> String {
        let messages: Vec<_> =
            self.diagnostics.iter().map(|diagnostic| diagnostic.message.as_str()).collect();
        messages.join("; ")
    }
}

/// Evaluates the body of a block.
pub(crate) fn evaluate(block: &BlockRef, scope: &dyn Scope) -> Result<EvaluatedBody, NodeError> {
    evaluate_body(&block.get().body, scope).map_err(|errors| {
        let mut diagnostics = Diagnostics::new();
        for error in errors {
            let diagnostic = with_help(Diagnostic::error(EVALUATION, error.message), error.help);
            diagnostics.push(block.label(diagnostic, error.span, ""));
        }
        NodeError::content(diagnostics)
    })
}

/// Evaluates one expression of a block.
pub(crate) fn evaluate_attribute(
    block: &BlockRef,
    attribute: &Attribute,
    scope: &dyn Scope,
) -> Result<Value, NodeError> {
    invar_syntax::evaluate::evaluate(&attribute.value, scope).map_err(|error| {
        let diagnostic = with_help(Diagnostic::error(EVALUATION, error.message), error.help);
        NodeError::content(block.label(diagnostic, error.span, "").into())
    })
}

/// Evaluates a node's body, decodes it and lets the component check it.
pub(crate) fn accept<E: Fn(u32) -> Value>(
    node: &GraphNode,
    definition: &Arc<dyn Definition>,
    scope: &NodeScope<'_, E>,
) -> Result<Accepted, NodeError> {
    let (accepted, frozen) = recording(|| {
        let body = evaluate(&node.block, scope)?;
        let accepted = accept_body(node, definition, &body, scope.access())?;
        Ok((accepted, body))
    });
    let (accepted, body) = accepted?;
    Ok(Accepted { secrets: NodeSecrets::new(&body, frozen), ..accepted })
}

/// Decodes an evaluated body and lets the component check it.
pub(crate) fn accept_body(
    node: &GraphNode,
    definition: &Arc<dyn Definition>,
    body: &EvaluatedBody,
    access: &Access,
) -> Result<Accepted, NodeError> {
    let mut errors = Vec::new();
    let mut check = Check::new(node.minimum_stability);
    let arguments = guarded(node, || {
        let arguments = definition.decode(body, &mut errors)?;
        definition.check(&arguments, &mut check);
        Some(arguments)
    })?;
    let mut diagnostics = decode_diagnostics(&node.block, errors);
    diagnostics.extend(check.errors.into_iter().map(|found| check_diagnostic(node, body, found)));
    if let Some(arguments) = &arguments {
        let refused = guarded(node, || {
            let value = || definition.arguments_value(arguments);
            refused(definition.arguments_schema(), value, access, When::Decoded)
        })?;
        diagnostics.extend(refusals(node, body, refused));
        diagnostics.extend(addresses_refused(node, &check.addresses, access));
    }
    match arguments {
        Some(arguments) if !diagnostics.has_errors() => {
            let secrets = NodeSecrets::default();
            Ok(Accepted { arguments, addresses: check.addresses, access: access.clone(), secrets })
        }
        _ => Err(NodeError::content(diagnostics)),
    }
}

/// What decoder and component have to say to a body in which not everything is known, and the addresses that it is known
/// to want.
pub(crate) fn judge(
    node: &GraphNode,
    definition: &Arc<dyn Definition>,
    body: &EvaluatedBody,
    access: &Access,
) -> (Diagnostics, Vec<String>) {
    let mut errors = Vec::new();
    let mut check = Check::new(node.minimum_stability);
    let schema = definition.arguments_schema();
    let mut not_allowed = refused_in(schema, body, access);
    let empty = guarded(node, || {
        let (arguments, empty) = definition.decode_known(body, &mut errors)?;
        definition.check(&arguments, &mut check);
        // What holds where nothing is given may not be allowed either.
        let all = refused(schema, || definition.arguments_value(&arguments), access, When::Decoded);
        let more =
            all.into_iter().filter(|one| !not_allowed.iter().any(|known| known.refusal == one.refusal));
        not_allowed.extend(more.collect::<Vec<_>>());
        Some(empty)
    });
    let empty = match empty {
        Ok(empty) => empty.unwrap_or_default(),
        Err(panic) => return (panic.diagnostics, Vec::new()),
    };
    // What is said of a field that is empty only because it is not known, or of no field, may not be so.
    let holds = |found: &CheckError| {
        let named = found.field.split(['.', '[']).next().unwrap_or_default();
        empty.is_empty() || (!named.is_empty() && !empty.contains(&named))
    };
    // How the body is made up the static check has said already, and better where.
    errors.retain(|error| matches!(error.code, arguments::codes::WRONG_TYPE | arguments::codes::INVALID));
    let mut diagnostics = decode_diagnostics(&node.block, errors);
    let found = check.errors.into_iter().chain(check.warnings).filter(holds);
    diagnostics.extend(found.map(|found| check_diagnostic(node, body, found)));
    diagnostics.extend(refusals(node, body, not_allowed));
    diagnostics.extend(addresses_refused(node, &check.addresses, access));
    (diagnostics, check.addresses)
}

/// What is said of arguments that name what may not be used.
fn refusals(node: &GraphNode, body: &EvaluatedBody, refused: Vec<Refused>) -> Diagnostics {
    let diagnostics = refused.into_iter().map(|Refused { field, refusal }| {
        let span = field_span(body, &field).unwrap_or_else(|| node.block.header());
        node.block.label(ceiling::diagnostic(refusal), span, "")
    });
    diagnostics.collect()
}

/// What is said of addresses that may not be listened on.
fn addresses_refused(node: &GraphNode, addresses: &[String], access: &Access) -> Diagnostics {
    let refused = addresses.iter().filter_map(|address| access.listen(address).err());
    refused.map(|refusal| node.block.label(ceiling::diagnostic(refusal), node.block.header(), "")).collect()
}

fn check_diagnostic(node: &GraphNode, body: &EvaluatedBody, found: CheckError) -> Diagnostic {
    let span = field_span(body, &found.field).unwrap_or_else(|| node.block.header());
    let diagnostic = Diagnostic { severity: found.severity, ..Diagnostic::error(found.code, found.message) };
    node.block.label(with_help(diagnostic, found.help), span, "")
}

/// Runs a component's code; a panic in it is the node's error.
pub(crate) fn guarded<T>(node: &GraphNode, code: impl FnOnce() -> T) -> Result<T, NodeError> {
    catch_unwind(AssertUnwindSafe(code)).map_err(|panic| panicked(node, &*panic))
}

/// A panic in a component's code while it was prepared.
pub(crate) fn panicked(node: &GraphNode, panic: &(dyn Any + Send)) -> NodeError {
    let message = format!("{} panicked while it was prepared: {}", node.id, panic_message(panic));
    let diagnostic = Diagnostic::error(codes::NOT_PREPARED, message);
    let diagnostic = node.block.label(diagnostic, node.block.header(), "");
    NodeError::content(Diagnostics(vec![diagnostic]))
}

/// The decoder's or the static check's findings as diagnostics.
pub(crate) fn decode_diagnostics(block: &BlockRef, errors: Vec<DecodeError>) -> Diagnostics {
    let mut diagnostics = Diagnostics::new();
    for error in errors {
        let diagnostic = with_help(Diagnostic::error(error.code, error.message), error.help);
        // What is missing from an empty body has no place of its own.
        let span = if error.span == Span::default() { block.header() } else { error.span };
        diagnostics.push(block.label(diagnostic, span, ""));
    }
    diagnostics
}

fn with_help(diagnostic: Diagnostic, help: Option<String>) -> Diagnostic {
    match help {
        Some(help) => diagnostic.with_help(help),
        None => diagnostic,
    }
}

/// The place of a field named with dots and indices, as far as the body has it.
fn field_span(body: &EvaluatedBody, field: &str) -> Option<Span> {
    if let Some(attribute) = body.attributes.iter().find(|attribute| *attribute.name.name == *field) {
        return Some(attribute.value_span);
    }
    body.blocks.iter().find_map(|block| {
        let name = block.dotted_name();
        let rest = field.strip_prefix(&*name)?;
        let (block, rest) = match rest.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((index, rest)) => {
                let mut named = body.blocks.iter().filter(|block| block.dotted_name() == name);
                (named.nth(index.parse().ok()?)?, rest)
            }
            None => (block, rest),
        };
        match rest.strip_prefix('.') {
            Some(inner) => field_span(&block.body, inner).or(Some(block.name_span())),
            None => rest.is_empty().then(|| block.name_span()),
        }
    })
}

//! From a block to arguments: evaluating a node's body against the exports of others, decoding and checking the result.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use invar_syntax::arguments::DecodeError;
use invar_syntax::diagnostic::{Diagnostic, Diagnostics};
use invar_syntax::evaluate::{EvaluatedBody, evaluate_body};
use invar_syntax::scope::Scope;
use invar_syntax::span::Span;
use invar_syntax::value::Value;

use crate::block::BlockRef;
use crate::codes;
use crate::configuration::{INPUT_NAMES, Inputs};
use crate::context::Check;
use crate::definition::AnyArc;
use crate::engine::FailureClass;
use crate::graph::{Graph, GraphNode};
use crate::instance::panic_message;

/// Exports of the nodes of a graph by index, and the inputs.
pub(crate) struct NodeScope<'a, E> {
    pub(crate) graph: &'a Graph,
    pub(crate) inputs: &'a Inputs,
    /// Answers the exports of a node.
    pub(crate) exports: E,
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
}

/// The code of errors in evaluating an expression.
const EVALUATION: &str = invar_syntax::arguments::codes::EVALUATION;

// === impl NodeScope ===

impl<E: Fn(u32) -> Value> Scope for NodeScope<'_, E> {
    fn resolve(&self, path: &[&str]) -> Option<(Value, usize)> {
        if let Some((node, taken)) = self.graph.resolve(path) {
            return Some(((self.exports)(node), taken));
        }
        let first = path.first()?;
        self.inputs.get(first).map(|value| (value, 1))
    }

    fn names(&self) -> Vec<String> {
        let nodes = self.graph.nodes.iter().map(|node| node.id.as_str());
        nodes.chain(INPUT_NAMES).map(str::to_owned).collect()
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

/// Decodes an evaluated body and lets the component check it.
pub(crate) fn accept(node: &GraphNode, body: &EvaluatedBody) -> Result<Accepted, NodeError> {
    let mut errors = Vec::new();
    let mut check = Check::new(node.minimum_stability);
    let arguments = guarded(node, || {
        let arguments = node.definition.decode(body, &mut errors)?;
        node.definition.check(&arguments, &mut check);
        Some(arguments)
    })?;
    let mut diagnostics = decode_diagnostics(&node.block, errors);
    for error in check.errors {
        let span = field_span(body, &error.field).unwrap_or_else(|| node.block.header());
        let diagnostic = with_help(Diagnostic::error(error.code, error.message), error.help);
        diagnostics.push(node.block.label(diagnostic, span, ""));
    }
    match arguments {
        Some(arguments) if !diagnostics.has_errors() => {
            Ok(Accepted { arguments, addresses: check.addresses })
        }
        _ => Err(NodeError::content(diagnostics)),
    }
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

/// The place of a field named with dots, as far as the body has it.
fn field_span(body: &EvaluatedBody, field: &str) -> Option<Span> {
    if let Some(attribute) = body.attributes.iter().find(|attribute| *attribute.name.name == *field) {
        return Some(attribute.value_span);
    }
    body.blocks.iter().find_map(|block| {
        let rest = field.strip_prefix(&block.dotted_name())?;
        match rest.strip_prefix('.') {
            Some(inner) => field_span(&block.body, inner).or(Some(block.name_span())),
            None => rest.is_empty().then(|| block.name_span()),
        }
    })
}

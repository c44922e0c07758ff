//! Expressions and bodies to values.

use crate::ast::{BlockLabel, Ident};
use crate::ast::{Body, Expr};
use crate::scope::Scope;
use crate::span::Span;
use crate::value::Value;

use std::sync::Arc;

/// Why an expression has no value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct EvalError {
    /// The part of the expression at fault.
    pub span: Span,
    /// What is wrong. Never contains secret text.
    pub message: String,
    /// What to do about it.
    pub help: Option<String>,
}

/// A name that an expression refers to, with its longest chain of `.name`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// The names.
    pub path: Vec<Arc<str>>,
    /// Where.
    pub span: Span,
}

/// A body whose expressions are values.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EvaluatedBody {
    /// Attributes in the order of the text.
    pub attributes: Vec<EvaluatedAttribute>,
    /// Blocks in the order of the text.
    pub blocks: Vec<EvaluatedBlock>,
    /// The statements; what errors of the body as a whole point at is up to the holder.
    pub span: Span,
}

/// `name = value`.
#[derive(Clone, Debug, PartialEq)]
pub struct EvaluatedAttribute {
    /// The name.
    pub name: Ident,
    /// The value.
    pub value: Value,
    /// The expression.
    pub value_span: Span,
    /// Name and expression.
    pub span: Span,
}

/// `name "label" { … }`.
#[derive(Clone, Debug, PartialEq)]
pub struct EvaluatedBlock {
    /// The parts of the name.
    pub name: Vec<Ident>,
    /// The label, if it is not empty.
    pub label: Option<BlockLabel>,
    /// The content.
    pub body: EvaluatedBody,
    /// Name to closing brace.
    pub span: Span,
}

impl EvaluatedBlock {
    /// The name with its dots.
    #[must_use]
    pub fn dotted_name(&self) -> String {
        let parts: Vec<&str> = self.name.iter().map(|part| &*part.name).collect();
        parts.join(".")
    }

    /// The span of the name.
    #[must_use]
    pub fn name_span(&self) -> Span {
        match (self.name.first(), self.name.last()) {
            (Some(first), Some(last)) => first.span.to(last.span),
            _ => Span::at(self.span.start),
        }
    }
}

impl EvaluatedBody {
    /// Whether any value within is not known yet.
    #[must_use]
    pub fn has_unknown(&self) -> bool {
        self.attributes.iter().any(|attribute| attribute.value.has_unknown())
            || self.blocks.iter().any(|block| block.body.has_unknown())
    }
}

/// The value of an expression.
///
/// # Errors
/// The first thing wrong with it.
pub fn evaluate(expr: &Expr, scope: &dyn Scope) -> Result<Value, EvalError> {
    todo!("{expr:?} {:?}", scope.names())
}

/// The values of all attributes of a body and the blocks within.
///
/// # Errors
/// One error for every attribute without a value.
pub fn evaluate_body(body: &Body, scope: &dyn Scope) -> Result<EvaluatedBody, Vec<EvalError>> {
    todo!("{body:?} {:?}", scope.names())
}

/// Every name the expressions of a body refer to, those of nested blocks included, in the order of the text.
#[must_use]
pub fn references(body: &Body) -> Vec<Reference> {
    todo!("{body:?}")
}

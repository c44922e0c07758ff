//! Expressions whose value follows from the text alone: literals, operators on them, and calls of functions that look at
//! nothing but their arguments.

use super::{TypeLookup, TypeScope};
use crate::ast::{Expr, ExprKind, UnaryOp};
use crate::evaluate::{EvalError, evaluate, path_of};
use crate::scope::EmptyScope;
use crate::stdlib;
use crate::value::Value;

/// What the text alone says of an expression.
#[derive(Clone, Debug, PartialEq)]
pub enum Constant {
    /// Its value.
    Value(Value),
    /// That it has none.
    Wrong(EvalError),
    /// Nothing: it depends on what is known only later, or elsewhere.
    Unknown,
}

/// What the text alone says of an expression, among names that mean what `types` says.
#[must_use]
pub fn constant(expr: &Expr, types: &dyn TypeScope) -> Constant {
    if !is_constant(expr, types) {
        return Constant::Unknown;
    }
    match evaluate(expr, &EmptyScope) {
        Ok(value) => Constant::Value(value),
        Err(error) => Constant::Wrong(error),
    }
}

fn is_constant(expr: &Expr, types: &dyn TypeScope) -> bool {
    match &expr.kind {
        ExprKind::Literal(_) => true,
        ExprKind::Identifier(_) | ExprKind::Access { .. } => false,
        ExprKind::Array(items) => items.iter().all(|item| is_constant(item, types)),
        ExprKind::Object(fields) => fields.iter().all(|field| is_constant(&field.value, types)),
        ExprKind::Index { value, index, .. } => is_constant(value, types) && is_constant(index, types),
        ExprKind::Call { callee, arguments, .. } => {
            is_pure(callee, types) && arguments.iter().all(|argument| is_constant(argument, types))
        }
        ExprKind::Unary { op: UnaryOp::Negate | UnaryOp::Not, operand } => is_constant(operand, types),
        ExprKind::Binary { left, right, .. } => is_constant(left, types) && is_constant(right, types),
        ExprKind::Paren(inner) => is_constant(inner, types),
    }
}

/// Whether a callee is a function of the library that gives the same everywhere. The environment is the host's.
fn is_pure(callee: &Expr, types: &dyn TypeScope) -> bool {
    let Some(names) = path_of(callee) else { return false };
    let names: Vec<&str> = names.into_iter().map(|(name, _)| name).collect();
    types.type_of(&names) == TypeLookup::Unknown && stdlib::is_pure(&names.join("."))
}

/// The part of an expression that a path such as `[1].name` leads to, as far as it does.
pub(super) fn part<'a>(expr: &'a Expr, path: &str) -> &'a Expr {
    let inner = match &expr.kind {
        ExprKind::Paren(inner) => Some((&**inner, path)),
        ExprKind::Array(items) => path.strip_prefix('[').and_then(|rest| {
            let (index, rest) = rest.split_once(']')?;
            Some((items.get(index.parse::<usize>().ok()?)?, rest))
        }),
        ExprKind::Object(fields) => fields.iter().find_map(|field| {
            let quoted = crate::expression_text::quote(&field.name.name);
            let rest = path
                .strip_prefix('.')
                .and_then(|rest| rest.strip_prefix(&*field.name.name))
                .or_else(|| path.strip_prefix('[')?.strip_prefix(&*quoted)?.strip_prefix(']'))?;
            (rest.is_empty() || rest.starts_with(['.', '['])).then_some((&field.value, rest))
        }),
        _ => None,
    };
    match inner {
        Some((inner, rest)) if !rest.is_empty() || matches!(expr.kind, ExprKind::Paren(_)) => {
            part(inner, rest)
        }
        Some((inner, _)) => inner,
        None => expr,
    }
}

//! Expressions and bodies to values, and the names they refer to.

use std::sync::Arc;

use crate::ast::{
    BinaryOp, BlockLabel, Body, Expr, ExprKind, Ident, Literal, ObjectField, Statement, UnaryOp,
};
use crate::diagnostic::nearest;
use crate::expression_text::abbreviated_expression;
use crate::number::Number;
use crate::operators::{self, Operand};
use crate::schema::Type;
use crate::scope::{Missing, Scope};
use crate::secret::OptionalSecret;
use crate::span::Span;
use crate::stdlib;
use crate::value::{Object, Value};

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
/// The recursion is as deep as the expression is high, which the parser bounds.
///
/// # Errors
/// The first thing wrong with it.
pub fn evaluate(expr: &Expr, scope: &dyn Scope) -> Result<Value, EvalError> {
    match &expr.kind {
        ExprKind::Literal(literal) => literal_value(literal, expr.span),
        ExprKind::Identifier(_) | ExprKind::Access { .. } => evaluate_path(expr, scope),
        ExprKind::Array(items) => evaluate_array(items, scope),
        ExprKind::Object(fields) => evaluate_object(fields, scope),
        ExprKind::Index { value, index, .. } => evaluate_index(value, index, scope),
        ExprKind::Call { callee, arguments, .. } => evaluate_call(expr, callee, arguments, scope),
        ExprKind::Unary { op, operand } => evaluate_unary(*op, operand, scope),
        ExprKind::Binary { op, left, right, .. } => evaluate_binary(expr, *op, left, right, scope),
        ExprKind::Paren(inner) => evaluate(inner, scope),
    }
}

fn error(span: Span, message: impl Into<String>) -> EvalError {
    EvalError { span, message: message.into(), help: None }
}

/// The subject of a message: the value itself, shortened, and never a secret.
fn subject(value: &Value) -> String {
    abbreviated_expression(value, 60)
}

/// The value of a literal; shared with the static check.
///
/// # Errors
/// A float beyond 64 bits.
pub(crate) fn literal_value(literal: &Literal, span: Span) -> Result<Value, EvalError> {
    Ok(match literal {
        Literal::Null => Value::Null,
        Literal::Bool(flag) => Value::Bool(*flag),
        Literal::String { value, .. } => Value::String(Arc::clone(value)),
        Literal::Number { text } => {
            let integer = text.parse::<u64>().ok().map(Number::from);
            match integer
                .or_else(|| text.parse::<f64>().ok().filter(|value| value.is_finite()).map(Number::Float))
            {
                Some(number) => Value::Number(number),
                None => return Err(error(span, format!("{} is out of range", shortened(text)))),
            }
        }
        Literal::Float { text } => match text.parse::<f64>() {
            Ok(number) if number.is_finite() => Value::from(number),
            _ => return Err(error(span, format!("{} is out of range of a 64-bit float", shortened(text)))),
        },
    })
}

fn shortened(text: &str) -> &str {
    text.get(..40).unwrap_or(text)
}

/// The names of a chain `a.b.c`, outermost last; none if it does not begin with a name.
pub(crate) fn path_of(expr: &Expr) -> Option<Vec<(&str, Span)>> {
    let mut names = Vec::new();
    let mut current = expr;
    loop {
        match &current.kind {
            ExprKind::Identifier(name) => {
                names.push((&**name, current.span));
                names.reverse();
                return Some(names);
            }
            ExprKind::Access { value, name } => {
                names.push((&*name.name, name.span));
                current = value;
            }
            _ => return None,
        }
    }
}

#[inline(never)]
fn evaluate_path(expr: &Expr, scope: &dyn Scope) -> Result<Value, EvalError> {
    let Some(names) = path_of(expr) else {
        let ExprKind::Access { value, name } = &expr.kind else {
            return Err(error(expr.span, "this is no name"));
        };
        return access(evaluate(value, scope)?, value.span, &name.name, name.span);
    };
    let path: Vec<&str> = names.iter().map(|(name, _)| *name).collect();
    let start = names.first().map_or(expr.span, |(_, span)| *span);
    let (mut value, taken) = match scope.resolve(&path) {
        Some((value, taken)) => (value, taken.clamp(1, names.len())),
        None => match path.first().and_then(|name| stdlib::lookup(name)) {
            Some(value) => {
                if let Some((name, instead)) = path.first().and_then(|name| stdlib::deprecated(name)) {
                    scope.deprecated(name, instead, start);
                }
                (value, 1)
            }
            None => {
                return Err(match scope.missing(&path) {
                    Some(Missing { message, help }) => EvalError { span: expr.span, message, help },
                    None => unknown_name(&path, start, scope),
                });
            }
        },
    };
    let mut span = start.to(names.get(taken - 1).map_or(start, |(_, span)| *span));
    for (name, name_span) in names.iter().skip(taken) {
        value = access(value, span, name, *name_span)?;
        span = span.to(*name_span);
    }
    Ok(value)
}

#[inline(never)]
fn unknown_name(path: &[&str], span: Span, scope: &dyn Scope) -> EvalError {
    let name = path.first().copied().unwrap_or_default();
    let known = scope.names();
    // A local binding gives the library's names the shorter lifetime of the scope's.
    let library: Vec<&str> = stdlib::namespaces().collect();
    let names = known.iter().map(String::as_str).chain(library);
    let help = nearest(name, names).map(|near| format!("did you mean \"{near}\"?"));
    EvalError { span, message: format!("identifier \"{name}\" does not exist"), help }
}

/// `value.name`.
#[inline(never)]
fn access(value: Value, span: Span, name: &str, name_span: Span) -> Result<Value, EvalError> {
    if let Value::Unknown(expected) = &value {
        return Ok(Value::Unknown(field_type(expected, name)));
    }
    let Some(object) = value.to_object() else {
        let message = format!("cannot access field \"{name}\" on a value of type {}", value.describe());
        return Err(error(span.to(name_span), message));
    };
    object.get(name).cloned().ok_or_else(|| {
        let help =
            nearest(name, object.keys().map(|key| &**key)).map(|near| format!("did you mean \"{near}\"?"));
        EvalError { span: name_span, message: format!("field \"{name}\" does not exist"), help }
    })
}

/// The type of a field of a value of the given type.
pub(crate) fn field_type(ty: &Type, name: &str) -> Type {
    match ty {
        Type::Map(element) => (**element).clone(),
        Type::Object(fields) => {
            fields.iter().find(|(field, _)| *field == name).map_or(Type::Any, |(_, ty)| ty.clone())
        }
        _ => Type::Any,
    }
}

/// The type of an element of a value of the given type.
pub(crate) fn element_type(ty: &Type) -> Type {
    match ty {
        Type::List(element) | Type::Map(element) => (**element).clone(),
        _ => Type::Any,
    }
}

#[inline(never)]
fn evaluate_array(items: &[Expr], scope: &dyn Scope) -> Result<Value, EvalError> {
    let mut values = Vec::with_capacity(items.len());
    for item in items {
        values.push(evaluate(item, scope)?);
    }
    Ok(Value::Array(values.into()))
}

#[inline(never)]
fn evaluate_object(fields: &[ObjectField], scope: &dyn Scope) -> Result<Value, EvalError> {
    let mut object = Object::new();
    for field in fields {
        object.insert(Arc::clone(&field.name.name), evaluate(&field.value, scope)?);
    }
    object.sort();
    Ok(Value::from(object))
}

#[inline(never)]
fn evaluate_index(value_expr: &Expr, index_expr: &Expr, scope: &dyn Scope) -> Result<Value, EvalError> {
    let value = evaluate(value_expr, scope)?;
    let index = evaluate(index_expr, scope)?;
    if let Value::Unknown(expected) = &value {
        return Ok(Value::Unknown(element_type(expected)));
    }
    if index.has_unknown() {
        return Ok(Value::Unknown(Type::Any));
    }
    if let Some(items) = value.to_items() {
        let Value::Number(number) = &index else {
            let message = format!("{} should be number, got {}", subject(&index), index.describe());
            return Err(error(index_expr.span, message));
        };
        let position = number.truncated().and_then(|wide| usize::try_from(wide).ok());
        return position.and_then(|position| items.get(position)).cloned().ok_or_else(|| {
            let message = format!("index {number} is out of range of an array with length {}", items.len());
            error(index_expr.span, message)
        });
    }
    let Some(object) = value.to_object() else {
        let message = format!("{} should be an array or object, got {}", subject(&value), value.describe());
        return Err(error(value_expr.span, message));
    };
    let key = match &index {
        Value::String(text) => &**text,
        Value::OptionalSecret(OptionalSecret::Plain(text)) => text.as_str(),
        _ => {
            let message = format!("{} should be string, got {}", subject(&index), index.describe());
            return Err(error(index_expr.span, message));
        }
    };
    Ok(object.get(key).cloned().unwrap_or(Value::Null))
}

#[inline(never)]
fn evaluate_call(
    expr: &Expr,
    callee: &Expr,
    arguments: &[Expr],
    scope: &dyn Scope,
) -> Result<Value, EvalError> {
    let function = evaluate(callee, scope)?;
    let mut values = Vec::with_capacity(arguments.len());
    for argument in arguments {
        values.push(evaluate(argument, scope)?);
    }
    let function = match function {
        Value::Function(function) => function,
        Value::Unknown(_) => return Ok(Value::Unknown(Type::Any)),
        other => {
            return Err(error(
                callee.span,
                format!("{} should be function, got {}", subject(&other), other.describe()),
            ));
        }
    };
    if values.iter().any(Value::has_unknown) {
        return Ok(Value::Unknown(stdlib::result_type(function.name())));
    }
    function.call(&values).map_err(|failure| {
        let blamed =
            failure.argument.and_then(|index| Some((index, arguments.get(index)?, values.get(index)?)));
        match blamed {
            Some((_, argument, value)) if failure.path.is_empty() => {
                error(argument.span, format!("{} {}", subject(value), failure.message))
            }
            Some((index, argument, _)) => {
                let message = format!("argument {}{} {}", index + 1, failure.path, failure.message);
                error(argument.span, message)
            }
            None => error(expr.span, format!("{}: {}", function.name(), failure.message)),
        }
    })
}

#[inline(never)]
fn evaluate_unary(op: UnaryOp, operand_expr: &Expr, scope: &dyn Scope) -> Result<Value, EvalError> {
    let operand = evaluate(operand_expr, scope)?;
    operators::unary(op, &operand)
        .map_err(|failure| error(operand_expr.span, format!("{} {}", subject(&operand), failure.message)))
}

#[inline(never)]
fn evaluate_binary(
    expr: &Expr,
    op: BinaryOp,
    left_expr: &Expr,
    right_expr: &Expr,
    scope: &dyn Scope,
) -> Result<Value, EvalError> {
    let left = evaluate(left_expr, scope)?;
    let right = evaluate(right_expr, scope)?;
    operators::binary(op, &left, &right).map_err(|failure| match failure.operand {
        Operand::Left => error(left_expr.span, format!("{} {}", subject(&left), failure.message)),
        Operand::Right => error(right_expr.span, format!("{} {}", subject(&right), failure.message)),
        Operand::Both => error(expr.span, failure.message),
    })
}

/// The values of all attributes of a body and the blocks within.
///
/// # Errors
/// One error for every attribute without a value.
pub fn evaluate_body(body: &Body, scope: &dyn Scope) -> Result<EvaluatedBody, Vec<EvalError>> {
    let mut errors = Vec::new();
    let evaluated = evaluate_statements(body, scope, &mut errors);
    if errors.is_empty() { Ok(evaluated) } else { Err(errors) }
}

fn evaluate_statements(body: &Body, scope: &dyn Scope, errors: &mut Vec<EvalError>) -> EvaluatedBody {
    let mut evaluated = EvaluatedBody::default();
    let mut spans = body.statements.iter().map(Statement::span);
    evaluated.span = spans.next().map_or_else(Span::default, |first| spans.fold(first, Span::to));
    for statement in &body.statements {
        match statement {
            Statement::Attribute(attribute) => match evaluate(&attribute.value, scope) {
                Ok(value) => evaluated.attributes.push(EvaluatedAttribute {
                    name: attribute.name.clone(),
                    value,
                    value_span: attribute.value.span,
                    span: attribute.span,
                }),
                Err(failure) => errors.push(failure),
            },
            Statement::Block(block) => evaluated.blocks.push(EvaluatedBlock {
                name: block.name.clone(),
                label: block.label.clone(),
                body: evaluate_statements(&block.body, scope, errors),
                span: block.span,
            }),
        }
    }
    evaluated
}

/// Every name the expressions of a body refer to, those of nested blocks included, in the order of the text. Names of
/// the standard library are among them.
#[must_use]
pub fn references(body: &Body) -> Vec<Reference> {
    let mut found = Vec::new();
    references_of_body(body, &mut found);
    found
}

fn references_of_body(body: &Body, found: &mut Vec<Reference>) {
    for statement in &body.statements {
        match statement {
            Statement::Attribute(attribute) => references_of(&attribute.value, found),
            Statement::Block(block) => references_of_body(&block.body, found),
        }
    }
}

/// Every call of the function `name` in the expressions of a body, those of nested blocks included, in the order of the text:
/// the call, and what it is given.
#[must_use]
pub fn calls<'a>(body: &'a Body, name: &str) -> Vec<(&'a Expr, &'a [Expr])> {
    let mut found = Vec::new();
    calls_of_body(body, name, &mut found);
    found
}

fn calls_of_body<'a>(body: &'a Body, name: &str, found: &mut Vec<(&'a Expr, &'a [Expr])>) {
    for statement in &body.statements {
        match statement {
            Statement::Attribute(attribute) => calls_of(&attribute.value, name, found),
            Statement::Block(block) => calls_of_body(&block.body, name, found),
        }
    }
}

fn calls_of<'a>(expr: &'a Expr, name: &str, found: &mut Vec<(&'a Expr, &'a [Expr])>) {
    match &expr.kind {
        ExprKind::Literal(_) | ExprKind::Identifier(_) => {}
        ExprKind::Access { value, .. } => calls_of(value, name, found),
        ExprKind::Array(items) => items.iter().for_each(|item| calls_of(item, name, found)),
        ExprKind::Object(fields) => fields.iter().for_each(|field| calls_of(&field.value, name, found)),
        ExprKind::Index { value, index, .. } => {
            calls_of(value, name, found);
            calls_of(index, name, found);
        }
        ExprKind::Call { callee, arguments, .. } => {
            if matches!(&callee.kind, ExprKind::Identifier(called) if &**called == name) {
                found.push((expr, arguments));
            }
            calls_of(callee, name, found);
            arguments.iter().for_each(|argument| calls_of(argument, name, found));
        }
        ExprKind::Unary { operand, .. } => calls_of(operand, name, found),
        ExprKind::Binary { left, right, .. } => {
            calls_of(left, name, found);
            calls_of(right, name, found);
        }
        ExprKind::Paren(inner) => calls_of(inner, name, found),
    }
}

/// As [`references`], of one expression.
pub fn references_of(expr: &Expr, found: &mut Vec<Reference>) {
    match &expr.kind {
        ExprKind::Literal(_) => {}
        ExprKind::Identifier(_) | ExprKind::Access { .. } => match path_of(expr) {
            Some(names) => found.push(Reference {
                path: names.iter().map(|(name, _)| Arc::from(*name)).collect(),
                span: expr.span,
            }),
            None => {
                if let ExprKind::Access { value, .. } = &expr.kind {
                    references_of(value, found);
                }
            }
        },
        ExprKind::Array(items) => items.iter().for_each(|item| references_of(item, found)),
        ExprKind::Object(fields) => fields.iter().for_each(|field| references_of(&field.value, found)),
        ExprKind::Index { value, index, .. } => {
            references_of(value, found);
            references_of(index, found);
        }
        ExprKind::Call { callee, arguments, .. } => {
            references_of(callee, found);
            arguments.iter().for_each(|argument| references_of(argument, found));
        }
        ExprKind::Unary { operand, .. } => references_of(operand, found),
        ExprKind::Binary { left, right, .. } => {
            references_of(left, found);
            references_of(right, found);
        }
        ExprKind::Paren(inner) => references_of(inner, found),
    }
}

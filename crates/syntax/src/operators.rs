//! What the operators do: arithmetic, comparison, logic and joining of texts. Joining anything to a secret gives a
//! secret; an operation on a value that is not known yet gives an unknown value.

use std::cmp::Ordering;

use crate::ast::{BinaryOp, UnaryOp};
use crate::live_secret::LiveSecret;
use crate::number::{Number, NumberError};
use crate::schema::Type;
use crate::secret::{OptionalSecret, Secret};
use crate::value::Value;

/// Which operand is at fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operand {
    /// The left one, or the only one.
    Left,
    /// The right one.
    Right,
    /// The operation as a whole.
    Both,
}

/// Why an operation has no result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OperatorError {
    /// Which operand the message speaks of.
    pub operand: Operand,
    /// A predicate to put behind the operand: `should be number, got string`. For both: a sentence.
    pub message: String,
}

fn fault(operand: Operand, message: impl Into<String>) -> OperatorError {
    OperatorError { operand, message: message.into() }
}

/// Applies an operator with one operand.
///
/// # Errors
/// The operand is of the wrong type.
pub fn unary(op: UnaryOp, operand: &Value) -> Result<Value, OperatorError> {
    match (op, operand) {
        (UnaryOp::Not, Value::Bool(flag)) => Ok(Value::Bool(!flag)),
        (UnaryOp::Not, Value::Unknown(_)) => Ok(Value::Unknown(Type::Bool)),
        (UnaryOp::Not, other) => {
            Err(fault(Operand::Left, format!("should be bool, got {}", other.describe())))
        }
        (UnaryOp::Negate, Value::Number(number)) => Ok(Value::Number(number.negate())),
        (UnaryOp::Negate, Value::Unknown(_)) => Ok(Value::Unknown(Type::Number)),
        (UnaryOp::Negate, other) => {
            Err(fault(Operand::Left, format!("should be number, got {}", other.describe())))
        }
    }
}

/// The text of a value that joins and compares as a string: strings, and optional secrets that are none.
fn plain_text(value: &Value) -> Option<&str> {
    match value {
        Value::String(text) => Some(text),
        Value::OptionalSecret(OptionalSecret::Plain(text)) => Some(text),
        _ => None,
    }
}

/// Applies an operator with two operands.
///
/// # Errors
/// An operand is of the wrong type, or arithmetic has no result.
pub fn binary(op: BinaryOp, left: &Value, right: &Value) -> Result<Value, OperatorError> {
    if left.has_unknown() || right.has_unknown() {
        return Ok(Value::Unknown(unknown_result(op)));
    }
    match op {
        BinaryOp::Equal => Ok(Value::Bool(equal(left, right))),
        BinaryOp::NotEqual => Ok(Value::Bool(!equal(left, right))),
        BinaryOp::And | BinaryOp::Or => logic(op, left, right),
        BinaryOp::Less | BinaryOp::LessOrEqual | BinaryOp::Greater | BinaryOp::GreaterOrEqual => {
            order(op, left, right)
        }
        BinaryOp::Add => add(left, right),
        BinaryOp::Subtract | BinaryOp::Multiply | BinaryOp::Divide | BinaryOp::Modulo | BinaryOp::Power => {
            let left = number(op, Operand::Left, left)?;
            let right = number(op, Operand::Right, right)?;
            arithmetic(op, left, right)
        }
    }
}

fn unknown_result(op: BinaryOp) -> Type {
    match op {
        BinaryOp::Add => Type::Any,
        BinaryOp::Subtract | BinaryOp::Multiply | BinaryOp::Divide | BinaryOp::Modulo | BinaryOp::Power => {
            Type::Number
        }
        _ => Type::Bool,
    }
}

fn equal(left: &Value, right: &Value) -> bool {
    match (plain_text(left), plain_text(right)) {
        (Some(left), Some(right)) => left == right,
        _ => left == right,
    }
}

fn logic(op: BinaryOp, left: &Value, right: &Value) -> Result<Value, OperatorError> {
    let flag = |operand, value: &Value| match value {
        Value::Bool(flag) => Ok(*flag),
        other => Err(wrong(op, operand, "bool", other)),
    };
    // Both sides are checked: the language does not cut short.
    let (left, right) = (flag(Operand::Left, left)?, flag(Operand::Right, right)?);
    Ok(Value::Bool(if op == BinaryOp::And { left && right } else { left || right }))
}

fn wrong(op: BinaryOp, operand: Operand, wanted: &str, got: &Value) -> OperatorError {
    fault(operand, format!("should be {wanted} for operator {op}, got {}", got.describe()))
}

fn number(op: BinaryOp, operand: Operand, value: &Value) -> Result<Number, OperatorError> {
    match value {
        Value::Number(number) => Ok(*number),
        other => Err(wrong(op, operand, "number", other)),
    }
}

fn order(op: BinaryOp, left: &Value, right: &Value) -> Result<Value, OperatorError> {
    let ordering = match (left, right) {
        (Value::Number(left), Value::Number(right)) => left.compare(*right),
        // Two optional secrets have no order: one of them has to be known as text.
        (Value::OptionalSecret(_), Value::OptionalSecret(_)) => {
            return Err(wrong(op, Operand::Right, "string", right));
        }
        _ => match (plain_text(left), plain_text(right)) {
            (Some(left), Some(right)) => Some(left.as_bytes().cmp(right.as_bytes())),
            (Some(_), None) => return Err(wrong(op, Operand::Right, "string", right)),
            (None, _) if matches!(left, Value::Number(_)) => {
                return Err(wrong(op, Operand::Right, "number", right));
            }
            (None, _) => return Err(wrong(op, Operand::Left, "number or string", left)),
        },
    };
    // Without an order, as with NaN, every comparison is false.
    Ok(Value::Bool(ordering.is_some_and(|ordering| match op {
        BinaryOp::Less => ordering == Ordering::Less,
        BinaryOp::LessOrEqual => ordering != Ordering::Greater,
        BinaryOp::Greater => ordering == Ordering::Greater,
        _ => ordering != Ordering::Less,
    })))
}

fn add(left: &Value, right: &Value) -> Result<Value, OperatorError> {
    let op = BinaryOp::Add;
    if let (Value::Number(left), Value::Number(right)) = (left, right) {
        return arithmetic(op, *left, *right);
    }
    let stringy = |value: &Value| plain_text(value).is_some() || value.has_secret() && !is_composite(value);
    if !stringy(left) {
        return Err(if matches!(left, Value::Number(_)) {
            wrong(op, Operand::Right, "number", right)
        } else {
            wrong(op, Operand::Left, "number, string or secret", left)
        });
    }
    if !stringy(right) {
        return Err(wrong(op, Operand::Right, "string or secret", right));
    }
    let joined = |left: &str, right: &str| format!("{left}{right}");
    Ok(match (left, right) {
        (Value::LiveSecret(_), _) | (_, Value::LiveSecret(_)) => {
            let both = LiveSecret::derived("join", vec![part(left), part(right)], |texts| {
                Some(Secret::new(texts.iter().map(Secret::expose).collect::<String>()))
            });
            both.map_or(Value::Null, Value::LiveSecret)
        }
        (Value::Secret(_), _) | (_, Value::Secret(_)) => {
            Value::Secret(Secret::new(joined(exposed(left), exposed(right))))
        }
        (Value::OptionalSecret(OptionalSecret::Secret(_)), _)
        | (_, Value::OptionalSecret(OptionalSecret::Secret(_))) => {
            let secret = Secret::new(joined(exposed(left), exposed(right)));
            Value::OptionalSecret(OptionalSecret::Secret(secret))
        }
        (Value::OptionalSecret(_), Value::OptionalSecret(_)) => {
            Value::OptionalSecret(OptionalSecret::Plain(joined(exposed(left), exposed(right))))
        }
        _ => Value::string(joined(exposed(left), exposed(right))),
    })
}

fn is_composite(value: &Value) -> bool {
    matches!(value, Value::Array(_) | Value::Object(_) | Value::Capsule(_))
}

/// A text as part of one that may change.
fn part(value: &Value) -> LiveSecret {
    match value {
        Value::LiveSecret(live) => live.clone(),
        other => Secret::new(exposed(other)).into(),
    }
}

fn exposed(value: &Value) -> &str {
    match value {
        Value::String(text) => text,
        Value::Secret(secret) => secret.expose(),
        Value::OptionalSecret(optional) => optional.expose(),
        _ => "",
    }
}

fn arithmetic(op: BinaryOp, left: Number, right: Number) -> Result<Value, OperatorError> {
    let result = match op {
        BinaryOp::Add => left.checked_add(right),
        BinaryOp::Subtract => left.checked_subtract(right),
        BinaryOp::Multiply => left.checked_multiply(right),
        BinaryOp::Divide => left.checked_divide(right),
        BinaryOp::Modulo => left.checked_remainder(right),
        _ => left.checked_power(right),
    };
    result.map(Value::Number).map_err(|error| match error {
        NumberError::DivideByZero => fault(Operand::Right, format!("is zero: {error}")),
        NumberError::Overflow | NumberError::ZeroToNegative => {
            fault(Operand::Both, format!("{left} {op} {right}: {error}"))
        }
    })
}

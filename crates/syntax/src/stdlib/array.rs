//! `array.*`: concatenation, joining and grouping of lists.

use std::sync::Arc;

use super::{Outcome, list_argument, text_argument};
use crate::convert::text_from_value;
use crate::function::FunctionError;
use crate::value::{Object, Value};

/// Most elements a result may have: an inner join can grow with the product of its sides.
const MAX_RESULT: usize = 1_000_000;

pub(super) fn concat(arguments: &[Value]) -> Outcome {
    let mut items = Vec::new();
    for index in 0..arguments.len() {
        items.extend_from_slice(&list_argument(arguments, index)?);
    }
    Ok(Value::Array(items.into()))
}

fn objects(arguments: &[Value], index: usize) -> Result<Vec<Arc<Object>>, FunctionError> {
    list_argument(arguments, index)?
        .iter()
        .enumerate()
        .map(|(position, item)| {
            item.to_object().ok_or_else(|| FunctionError {
                argument: Some(index),
                path: format!("[{position}]"),
                message: format!("should be object, got {}", item.describe()),
            })
        })
        .collect()
}

fn flag(arguments: &[Value], index: usize) -> Result<bool, FunctionError> {
    match arguments.get(index) {
        None => Ok(false),
        Some(Value::Bool(flag)) => Ok(*flag),
        Some(other) => {
            Err(FunctionError::argument(index, format!("should be bool, got {}", other.describe())))
        }
    }
}

/// Inner join: for each pair whose values of all keys are equal, the left object with the fields of the right one.
pub(super) fn combine_maps(arguments: &[Value]) -> Outcome {
    let left = objects(arguments, 0)?;
    let right = objects(arguments, 1)?;
    let keys = list_argument(arguments, 2)?;
    let passthrough = flag(arguments, 3)?;
    if keys.is_empty() {
        return Err(FunctionError::argument(2, "names no key to join by"));
    }
    let mut names = Vec::new();
    for (position, key) in keys.iter().enumerate() {
        match key {
            Value::String(name) => names.push(name),
            other => {
                return Err(FunctionError {
                    argument: Some(2),
                    path: format!("[{position}]"),
                    message: format!("should be string, got {}", other.describe()),
                });
            }
        }
    }
    let mut joined = Vec::new();
    for one in &left {
        for other in &right {
            let equal = matches(&names, one, other)?;
            if equal {
                let mut merged: Object =
                    one.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
                for (key, value) in other.iter() {
                    merged.insert(key.clone(), value.clone());
                }
                merged.sort();
                joined.push(Value::from(merged));
            } else if passthrough {
                joined.push(Value::Object(Arc::clone(one)));
            }
            if joined.len() > MAX_RESULT {
                return Err(FunctionError::call(format!("the result has more than {MAX_RESULT} elements")));
            }
        }
    }
    Ok(Value::Array(joined.into()))
}

/// Whether both objects have equal values under every name.
fn matches(names: &[&Arc<str>], one: &Object, other: &Object) -> Result<bool, FunctionError> {
    for name in names {
        let (Some(left), Some(right)) = (one.get(name), other.get(name)) else { return Ok(false) };
        for value in [left, right] {
            if matches!(value, Value::Array(_) | Value::Bytes(_) | Value::Object(_) | Value::Function(_)) {
                let message = format!("joins by \"{name}\", whose value is {}", value.describe());
                return Err(FunctionError::argument(2, message));
            }
        }
        let kinds = |value: &Value| match value {
            // 1 and 1.0 are equal to operators, but no pair here.
            Value::Number(number) => Some(std::mem::discriminant(number)),
            _ => None,
        };
        if left.type_name() != right.type_name() || kinds(left) != kinds(right) || left != right {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Groups objects by the text of one field, in the order in which the groups appear.
pub(super) fn group_by(arguments: &[Value]) -> Outcome {
    let items = objects(arguments, 0)?;
    let key = match arguments.get(1) {
        Some(other @ (Value::Number(_) | Value::Null)) => {
            return Err(FunctionError::argument(1, format!("should be string, got {}", other.describe())));
        }
        _ => text_argument(arguments, 1)?,
    };
    let drop_missing = flag(arguments, 2)?;
    let mut groups: Vec<(Value, Vec<Value>)> = Vec::new();
    let mut places = std::collections::HashMap::new();
    for (position, item) in items.into_iter().enumerate() {
        let group = match item.get(&key) {
            None if drop_missing => continue,
            None => Value::string(""),
            Some(
                value @ (Value::String(_)
                | Value::Secret(_)
                | Value::OptionalSecret(_)
                | Value::LiveSecret(_)),
            ) => value.clone(),
            Some(other) => {
                return Err(FunctionError {
                    argument: Some(0),
                    path: format!("[{position}].{key}"),
                    message: format!("should be string, got {}", other.describe()),
                });
            }
        };
        // A secret groups by its text but stays a secret in the result.
        let identity: (bool, Arc<str>) = match &group {
            Value::Secret(secret) => (true, secret.expose().into()),
            Value::LiveSecret(live) => (true, live.freeze().expose().into()),
            Value::OptionalSecret(optional) => (optional.is_secret(), optional.expose().into()),
            text => (false, text_from_value(text).unwrap_or_default()),
        };
        let place = *places.entry(identity).or_insert_with(|| {
            groups.push((group, Vec::new()));
            groups.len() - 1
        });
        if let Some((_, members)) = groups.get_mut(place) {
            members.push(Value::Object(item));
        }
    }
    Ok(Value::array(groups.into_iter().map(|(group, members)| {
        let mut object = Object::new();
        object.insert(key.clone(), group);
        object.insert("items", Value::Array(members.into()));
        object.sort();
        Value::from(object)
    })))
}

//! `string.*` but for `string.format`.

use std::sync::Arc;

use super::{Outcome, argument_error, list_argument, text_argument};
use crate::convert::text_from_value;
use crate::value::Value;

pub(super) fn join(arguments: &[Value]) -> Outcome {
    // As for every typed parameter, null is the empty value.
    let items = match arguments.first() {
        Some(Value::Null) => Arc::default(),
        _ => list_argument(arguments, 0)?,
    };
    let separator = text_argument(arguments, 1)?;
    let texts: Vec<Arc<str>> = items
        .iter()
        .enumerate()
        .map(|(index, item)| text_from_value(item).map_err(|error| argument_error(0, error.at_index(index))))
        .collect::<Result<_, _>>()?;
    Ok(Value::string(texts.join(&*separator)))
}

pub(super) fn replace(arguments: &[Value]) -> Outcome {
    let (text, old, new) =
        (text_argument(arguments, 0)?, text_argument(arguments, 1)?, text_argument(arguments, 2)?);
    Ok(Value::string(text.replace(&*old, &new)))
}

pub(super) fn split(arguments: &[Value]) -> Outcome {
    let (text, separator) = (text_argument(arguments, 0)?, text_argument(arguments, 1)?);
    if separator.is_empty() {
        return Ok(Value::array(text.chars().map(|character| Value::string(character.to_string()))));
    }
    Ok(Value::array(text.split(&*separator).map(Value::string)))
}

pub(super) fn to_lower(arguments: &[Value]) -> Outcome {
    let text = text_argument(arguments, 0)?;
    Ok(Value::string(text.chars().map(simple_lower).collect::<String>()))
}

pub(super) fn to_upper(arguments: &[Value]) -> Outcome {
    let text = text_argument(arguments, 0)?;
    Ok(Value::string(text.chars().map(simple_upper).collect::<String>()))
}

/// One character to one character: `ß` stays, as it has no single capital.
fn simple_upper(character: char) -> char {
    let mut upper = character.to_uppercase();
    match (upper.next(), upper.next()) {
        (Some(single), None) => single,
        // Greek letters with iota below map to several letters in full, to a single one in simple mapping.
        _ => match u32::from(character) {
            code @ (0x1f80..=0x1f87 | 0x1f90..=0x1f97 | 0x1fa0..=0x1fa7) => {
                char::from_u32(code + 8).unwrap_or(character)
            }
            code @ (0x1fb3 | 0x1fc3 | 0x1ff3) => char::from_u32(code + 9).unwrap_or(character),
            _ => character,
        },
    }
}

fn simple_lower(character: char) -> char {
    // `İ` is the only letter whose full mapping is longer; its simple one is the first character of it.
    character.to_lowercase().next().unwrap_or(character)
}

pub(super) fn trim(arguments: &[Value]) -> Outcome {
    let (text, cutset) = (text_argument(arguments, 0)?, text_argument(arguments, 1)?);
    Ok(Value::string(text.trim_matches(|character| cutset.contains(character))))
}

pub(super) fn trim_prefix(arguments: &[Value]) -> Outcome {
    let (text, prefix) = (text_argument(arguments, 0)?, text_argument(arguments, 1)?);
    Ok(Value::string(text.strip_prefix(&*prefix).unwrap_or(&text)))
}

pub(super) fn trim_suffix(arguments: &[Value]) -> Outcome {
    let (text, suffix) = (text_argument(arguments, 0)?, text_argument(arguments, 1)?);
    Ok(Value::string(text.strip_suffix(&*suffix).unwrap_or(&text)))
}

pub(super) fn trim_space(arguments: &[Value]) -> Outcome {
    let text = text_argument(arguments, 0)?;
    Ok(Value::string(text.trim()))
}

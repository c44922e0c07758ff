//! `encoding.from_json` and `encoding.to_json`.

use serde_json::Value as Json;

use super::{Outcome, text_argument};
use crate::function::FunctionError;
use crate::number::Number;
use crate::secret::OptionalSecret;
use crate::stdlib::go_float;
use crate::value::{Object, Value};

pub(super) fn decode(arguments: &[Value]) -> Outcome {
    let text = text_argument(arguments, 0)?;
    parse(&text).map_err(|message| FunctionError::argument(0, message))
}

/// A JSON document as a value; every number is a float.
fn parse(text: &str) -> Result<Value, String> {
    parse_with(text, |number| Number::Float(number.as_f64().unwrap_or_default()))
}

/// A JSON document as a value; what is written as an integer is one.
pub(super) fn parse_with_integers(text: &str) -> Result<Value, String> {
    parse_with(text, |number| match number.as_i64() {
        Some(integer) => Number::Int(integer),
        None => Number::Float(number.as_f64().unwrap_or_default()),
    })
}

fn parse_with(text: &str, number: fn(&serde_json::Number) -> Number) -> Result<Value, String> {
    let parsed = serde_json::from_str(text).or_else(|error| match without_lone_surrogates(text) {
        Some(repaired) => serde_json::from_str(&repaired),
        None => Err(error),
    });
    parsed.map(|json| from_json(&json, number)).map_err(|error| format!("is not JSON: {error}"))
}

/// The text with escapes of half a surrogate pair replaced by the replacement character; none if it has no such escape.
fn without_lone_surrogates(text: &str) -> Option<String> {
    let mut repaired = String::with_capacity(text.len());
    let mut changed = false;
    let mut rest = text;
    while let Some(start) = rest.find('\\') {
        let (before, escape) = rest.split_at(start);
        repaired.push_str(before);
        let taken = match escaped_unit(escape) {
            Some(0xd800..=0xdbff)
                if matches!(escape.get(6..).and_then(escaped_unit), Some(0xdc00..=0xdfff)) =>
            {
                12
            }
            Some(0xd800..=0xdfff) => {
                repaired.push_str("\\ufffd");
                changed = true;
                rest = &escape[6..];
                continue;
            }
            Some(_) => 6,
            None => 1 + escape[1..].chars().next().map_or(0, char::len_utf8),
        };
        repaired.push_str(&escape[..taken]);
        rest = &escape[taken..];
    }
    repaired.push_str(rest);
    changed.then_some(repaired)
}

/// The code unit of an escape `\uXXXX` at the start of the text.
fn escaped_unit(text: &str) -> Option<u32> {
    let digits = text.strip_prefix("\\u")?.get(..4)?;
    if digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        u32::from_str_radix(digits, 16).ok()
    } else {
        None
    }
}

// The JSON parser bounds the depth of documents, and thereby this recursion.
fn from_json(json: &Json, to_number: fn(&serde_json::Number) -> Number) -> Value {
    match json {
        Json::Null => Value::Null,
        Json::Bool(flag) => Value::Bool(*flag),
        Json::Number(number) => Value::Number(to_number(number)),
        Json::String(text) => Value::string(text.as_str()),
        Json::Array(items) => Value::array(items.iter().map(|item| from_json(item, to_number))),
        Json::Object(fields) => {
            let mut object: Object =
                fields.iter().map(|(key, item)| (key.as_str(), from_json(item, to_number))).collect();
            object.sort();
            Value::from(object)
        }
    }
}

pub(super) fn encode(arguments: &[Value]) -> Outcome {
    let value = arguments.first().unwrap_or(&Value::Null);
    let Some(object) = value.to_object() else {
        return Err(FunctionError::argument(0, format!("should be object, got {}", value.describe())));
    };
    let mut text = String::new();
    write_object(&mut text, &object, 0)?;
    Ok(Value::string(text))
}

/// Values can be built deeper than any expression by nesting through variables; JSON readers stop long before this.
const MAX_DEPTH: usize = 256;

fn write_object(text: &mut String, object: &Object, depth: usize) -> Result<(), FunctionError> {
    let mut fields: Vec<_> = object.iter().collect();
    fields.sort_unstable_by_key(|(key, _)| *key);
    text.push('{');
    for (index, (key, item)) in fields.into_iter().enumerate() {
        if index > 0 {
            text.push(',');
        }
        write_string(text, key);
        text.push(':');
        write_value(text, item, depth + 1)?;
    }
    text.push('}');
    Ok(())
}

fn write_value(text: &mut String, value: &Value, depth: usize) -> Result<(), FunctionError> {
    if depth > MAX_DEPTH {
        return Err(FunctionError::argument(0, "is nested too deeply"));
    }
    match value {
        Value::Null => text.push_str("null"),
        Value::Bool(flag) => text.push_str(if *flag { "true" } else { "false" }),
        Value::Number(Number::Float(number)) => match go_float::json(*number) {
            Some(number) => text.push_str(&number),
            None => return Err(FunctionError::argument(0, "holds a number that JSON has no text for")),
        },
        Value::Number(number) => text.push_str(&number.to_string()),
        Value::String(content) => write_string(text, content),
        Value::OptionalSecret(OptionalSecret::Plain(content)) => write_string(text, content),
        Value::Array(_) | Value::Bytes(_) => {
            text.push('[');
            for (index, item) in value.to_items().unwrap_or_default().iter().enumerate() {
                if index > 0 {
                    text.push(',');
                }
                write_value(text, item, depth + 1)?;
            }
            text.push(']');
        }
        Value::Object(_) | Value::Capsule(_) => match value.to_object() {
            Some(object) => write_object(text, &object, depth)?,
            None => return Err(unsupported(value)),
        },
        // Secrets have been revealed before, in a call whose result is secret.
        Value::Function(_)
        | Value::Secret(_)
        | Value::OptionalSecret(_)
        | Value::LiveSecret(_)
        | Value::Unknown(_) => {
            return Err(unsupported(value));
        }
    }
    Ok(())
}

fn unsupported(value: &Value) -> FunctionError {
    FunctionError::argument(0, format!("holds a {}, for which JSON has no form", value.describe()))
}

/// Quotes text, with `< > &` and the two Unicode line ends escaped so that it can stand within HTML and scripts.
fn write_string(text: &mut String, content: &str) {
    text.push('"');
    for character in content.chars() {
        match character {
            '"' => text.push_str("\\\""),
            '\\' => text.push_str("\\\\"),
            '\n' => text.push_str("\\n"),
            '\r' => text.push_str("\\r"),
            '\t' => text.push_str("\\t"),
            '\u{08}' => text.push_str("\\b"),
            '\u{0c}' => text.push_str("\\f"),
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' | '\0'..='\u{1f}' => {
                text.push_str(&format!("\\u{:04x}", u32::from(character)));
            }
            other => text.push(other),
        }
    }
    text.push('"');
}

//! Values written as expressions of the language, for defaults in documentation and for the subject of a diagnostic.
//! Secrets print as `(secret)`, capsules as their own text.

use crate::lexer::is_identifier;
use crate::value::{Value, capsule_text};

/// The value as an expression on one line.
#[must_use]
pub fn value_to_expression(value: &Value) -> String {
    let mut text = String::new();
    write_value(&mut text, value);
    text
}

/// The value as an expression, cut after about `limit` characters: the subject of a diagnostic.
#[must_use]
pub fn abbreviated_expression(value: &Value, limit: usize) -> String {
    let text = value_to_expression(value);
    match text.char_indices().nth(limit) {
        Some((cut, _)) => format!("{}…", &text[..cut]),
        None => text,
    }
}

/// The text in double quotes, escaped so that the language reads it back.
#[must_use]
pub fn quote(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for character in text.chars() {
        match character {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\u{07}' => quoted.push_str("\\a"),
            '\u{08}' => quoted.push_str("\\b"),
            '\u{0c}' => quoted.push_str("\\f"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            '\u{0b}' => quoted.push_str("\\v"),
            control if control.is_control() && u32::from(control) < 0x80 => {
                push_formatted(&mut quoted, format_args!("\\x{:02x}", u32::from(control)));
            }
            control if control.is_control() => {
                push_formatted(&mut quoted, format_args!("\\u{:04x}", u32::from(control)));
            }
            other => quoted.push(other),
        }
    }
    quoted.push('"');
    quoted
}

fn push_formatted(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    text.push_str(&arguments.to_string());
}

fn write_value(text: &mut String, value: &Value) {
    match value {
        Value::Null => text.push_str("null"),
        Value::Bool(flag) => push_formatted(text, format_args!("{flag}")),
        Value::Number(number) => push_formatted(text, format_args!("{number}")),
        Value::String(content) => text.push_str(&quote(content)),
        Value::Array(items) => {
            text.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    text.push_str(", ");
                }
                write_value(text, item);
            }
            text.push(']');
        }
        Value::Bytes(bytes) => push_formatted(text, format_args!("{bytes:?}")),
        Value::Object(object) => {
            text.push('{');
            for (index, (key, item)) in object.iter().enumerate() {
                if index > 0 {
                    text.push_str(", ");
                }
                if is_identifier(key) {
                    text.push_str(key);
                } else {
                    text.push_str(&quote(key));
                }
                text.push_str(" = ");
                write_value(text, item);
            }
            text.push('}');
        }
        Value::Function(function) => text.push_str(function.name()),
        Value::Unknown(expected) => push_formatted(text, format_args!("(a {expected} not known yet)")),
        Value::Secret(_) | Value::OptionalSecret(_) | Value::LiveSecret(_) | Value::Capsule(_) => {
            text.push_str(&capsule_text(value).unwrap_or_default());
        }
    }
}

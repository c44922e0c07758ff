//! Values as JSON in the typed shape of the user interface's API: `{"type": "number", "value": 1}`. Secrets print as
//! `(secret)`.

use serde_json::{Value as Json, json};

use crate::value::{Value, capsule_text};

/// The value with its type. Objects are lists of `{"key", "value"}`, numbers 64-bit floats.
#[must_use]
pub fn value_to_json(value: &Value) -> Json {
    let content = match value {
        Value::Null => Json::Null,
        Value::Bool(flag) => json!(flag),
        Value::Number(number) => json!(number.as_f64()),
        Value::String(text) => json!(&**text),
        Value::Array(items) => items.iter().map(value_to_json).collect(),
        Value::Bytes(bytes) => {
            bytes.iter().map(|byte| json!({"type": "number", "value": f64::from(*byte)})).collect()
        }
        Value::Object(object) => {
            object.iter().map(|(key, item)| json!({"key": &**key, "value": value_to_json(item)})).collect()
        }
        Value::Function(_) => json!("function"),
        Value::Secret(_) | Value::OptionalSecret(_) | Value::LiveSecret(_) | Value::Capsule(_) => {
            json!(capsule_text(value).unwrap_or_default())
        }
        Value::Unknown(expected) => json!(expected.to_string()),
    };
    json!({"type": value.type_name(), "value": content})
}

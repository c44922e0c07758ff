//! What a graph is expanded with where that depends on values: the items of a `foreach`, the content of an `import.string`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use foldhash::HashMap;
use invar_syntax::expression_text::value_to_expression;
use invar_syntax::number::Number;
use invar_syntax::value::{Object, Value};
use sha2::{Digest, Sha256};

use super::ForeachArguments;
use crate::configuration::hexadecimal;
use crate::modules::Module;
use crate::node::NodeId;

/// What dynamic nodes are expanded with, by name. A node that is not here has no inside yet.
pub(crate) type Dynamics = BTreeMap<NodeId, Expansion>;

/// What one dynamic node is expanded with.
#[derive(Clone, Debug)]
pub(crate) enum Expansion {
    /// The items of a `foreach`, in the order of their keys.
    Items(Arc<[ItemKey]>),
    /// The module that an import brings in.
    Module(Arc<Module>),
}

/// Names one item of a `foreach`: `foreach_<fingerprint>_<n>`.
pub(crate) type ItemKey = Arc<str>;

impl PartialEq for Expansion {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Items(left), Self::Items(right)) => left == right,
            (Self::Module(left), Self::Module(right)) => left.key == right.key,
            _ => false,
        }
    }
}

/// The items of a collection by key, in the order of their keys: another order of the collection is no change.
pub(crate) fn item_keys(arguments: &ForeachArguments, items: &[Value]) -> BTreeMap<ItemKey, Value> {
    let mut seen: HashMap<String, usize> = HashMap::default();
    let mut keyed = BTreeMap::new();
    for item in items {
        let named = item.to_object().filter(|_| !arguments.id.is_empty());
        let by = named.as_deref().and_then(|object: &Object| object.get(&arguments.id)).unwrap_or(item);
        let fingerprint = fingerprint(by, arguments.hash_string_id);
        let count = seen.entry(fingerprint.clone()).or_default();
        *count += 1;
        keyed.insert(Arc::from(format!("foreach_{fingerprint}_{count}")), item.clone());
    }
    keyed
}

fn fingerprint(value: &Value, hash_text: bool) -> String {
    match value {
        Value::String(text) if hash_text => digest(text),
        Value::String(text) => {
            text.chars().map(|letter| if letter.is_ascii_alphanumeric() { letter } else { '_' }).collect()
        }
        Value::Bool(flag) => flag.to_string(),
        Value::Number(Number::Float(float)) => {
            let mut text = String::new();
            // Writing to a string cannot fail.
            let _infallible = write!(text, "{float:.6}");
            text.replace(['.', '-'], "_")
        }
        Value::Number(number) => number.to_string().replace('-', "_"),
        // Secrets print as such and capsules by what they hold: never by their text.
        other => digest(&canonical(other)),
    }
}

/// A text that is the same for equal values.
fn canonical(value: &Value) -> String {
    match value {
        Value::Array(items) => {
            let items: Vec<_> = items.iter().map(canonical).collect();
            format!("[{}]", items.join(", "))
        }
        Value::Object(_) | Value::Capsule(_) => match value.to_object() {
            Some(object) => {
                let fields: BTreeMap<_, _> =
                    object.iter().map(|(key, value)| (&**key, canonical(value))).collect();
                format!("{fields:?}")
            }
            None => value_to_expression(value),
        },
        other => value_to_expression(other),
    }
}

fn digest(text: &str) -> String {
    hexadecimal(&Sha256::digest(text.as_bytes()))
}

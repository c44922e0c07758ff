//! What a change of each secret argument costs, as the types of the arguments have it, is what the documentation says: a new
//! argument fails this test until somebody has looked at how a change reaches it.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use invar_syntax::live_secret::{LiveSecret, SecretCell, recording};
use invar_syntax::schema::{Accepts, Field, FieldKind, Type};
use invar_syntax::secret::Secret;
use invar_syntax::value::Value;

const DOCUMENT: &str = include_str!("../../docs/secrets.md");
const BEGIN: &str = "<!-- the table of arguments begins -->\n\n";
const END: &str = "\n<!-- the table of arguments ends -->";

/// Recursive schemas are looked at so deep.
const DEPTH: usize = 6;

struct Any;

impl SecretCell for Any {
    fn reference(&self) -> &str {
        "store/some"
    }

    fn version(&self) -> u64 {
        1
    }

    fn read(&self) -> Secret {
        Secret::new("text")
    }
}

/// A value of the type with a live secret in it, where it can hold one.
fn holding(ty: &Type) -> Option<Value> {
    let secret = || Value::LiveSecret(LiveSecret::cell(Arc::new(Any)));
    match ty {
        Type::Secret | Type::OptionalSecret | Type::LiveText => Some(secret()),
        Type::List(inner) => Some(Value::array([holding(inner)?])),
        Type::Map(inner) => Some(Value::object([("Some", holding(inner)?)])),
        _ => None,
    }
}

/// Whoever takes the text of a live secret is given arguments again when it changes; whoever takes the secret reads it.
fn class(accepts: Accepts, value: &Value, place: &str) -> &'static str {
    let (accepted, frozen) = recording(|| accepts(value));
    accepted.unwrap_or_else(|error| panic!("{place}: {error}"));
    match (frozen.is_empty(), place.split(' ').any(|part| part.starts_with("tls"))) {
        (false, _) => "rebuild",
        (true, true) => "TLS reload",
        (true, false) => "per use",
    }
}

fn walk(fields: &[Field], place: &str, depth: usize, found: &mut BTreeMap<&'static str, Vec<String>>) {
    for field in fields {
        let here = if place.is_empty() { field.name.to_owned() } else { format!("{place} {}", field.name) };
        if field.kind == FieldKind::Attribute {
            if let (Some(value), Some(accepts)) = (holding(&field.ty), field.accepts) {
                found.entry(class(accepts, &value, &here)).or_default().push(here);
            }
        } else if depth < DEPTH {
            walk(&field.nested_fields(), &here, depth + 1, found);
        }
    }
}

#[test]
fn what_a_change_of_each_secret_argument_costs_is_documented() {
    let mut components: Vec<_> = super::components()
        .iter()
        .filter(|component| !component.name.starts_with("testing."))
        .map(|component| {
            let mut found = BTreeMap::new();
            walk(&component.arguments.fields, "", 0, &mut found);
            (component.name, found)
        })
        .collect();
    components.sort();
    let mut table = String::from("| component | a change costs | arguments |\n|---|---|---|\n");
    for (component, classes) in components {
        for (class, mut arguments) in classes {
            arguments.sort();
            writeln!(table, "| `{component}` | {class} | `{}` |", arguments.join("`, `")).unwrap();
        }
    }
    let documented = DOCUMENT.split_once(BEGIN).and_then(|(_, rest)| rest.split_once(END));
    let documented = documented.map(|(table, _)| table).unwrap_or_default();
    assert!(table.lines().count() > 10, "{table}");
    assert_eq!(documented, table, "docs/secrets.md is to say, between its two marks:\n{table}");
}

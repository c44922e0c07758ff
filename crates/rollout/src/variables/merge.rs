//! Layers on top of each other: tables merge by key, everything else replaces what is below it.
//!
//! Merging is associative: a table over something else (or the reverse) is refused wherever it happens, so that it makes
//! no difference which layers are joined first.

use std::collections::BTreeMap;
use std::sync::Arc;

use invar_engine::{Definition, VariablePath};
use invar_syntax::diagnostic::{Diagnostic, Diagnostics};
use invar_syntax::value::{Object, Value};

use super::codes;

/// Keys with what they stand for.
pub(super) type Tree = BTreeMap<Arc<str>, Node>;

/// A value, or a table of them, with every place that gave it one, the lowest layer first.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Node {
    pub(super) content: Content,
    pub(super) definitions: Vec<Definition>,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Content {
    Leaf(Value),
    Table(Tree),
}

/// Puts `upper` over `lower`.
pub(super) fn merge(lower: &mut Tree, upper: Tree, diagnostics: &mut Diagnostics) {
    for (key, above) in upper {
        let Some(below) = lower.get_mut(&key) else {
            lower.insert(key, above);
            continue;
        };
        match (&mut below.content, above.content) {
            (Content::Table(fields), Content::Table(more)) => merge(fields, more, diagnostics),
            (Content::Leaf(old), Content::Leaf(new)) => {
                if old.type_name() != new.type_name() {
                    diagnostics.extend(other_type(&key, old, &below.definitions, &new, &above.definitions));
                }
                *old = new;
            }
            (Content::Table(_), Content::Leaf(value)) => {
                let what =
                    format!("{key} is a table in a layer before and of type {} here", value.type_name());
                diagnostics.extend(conflict(
                    codes::TABLE_OR_NOT,
                    what,
                    &below.definitions,
                    &above.definitions,
                ));
                continue;
            }
            (Content::Leaf(value), Content::Table(_)) => {
                let what =
                    format!("{key} is of type {} in a layer before and a table here", value.type_name());
                diagnostics.extend(conflict(
                    codes::TABLE_OR_NOT,
                    what,
                    &below.definitions,
                    &above.definitions,
                ));
                continue;
            }
        }
        below.definitions.extend(above.definitions);
    }
}

fn other_type(
    key: &str,
    old: &Value,
    below: &[Definition],
    new: &Value,
    above: &[Definition],
) -> Option<Diagnostic> {
    let message =
        format!("{key} is of type {} in a layer before and {} here", old.type_name(), new.type_name());
    let mut diagnostic = conflict(codes::OTHER_TYPE, message, below, above)?;
    diagnostic.severity = invar_syntax::Severity::Warning;
    Some(diagnostic)
}

fn conflict(
    code: &'static str,
    message: String,
    below: &[Definition],
    above: &[Definition],
) -> Option<Diagnostic> {
    let (below, above) = (below.last()?, above.first()?);
    Some(Diagnostic::error(code, message).with_label(&above.source, above.key, "").with_label(
        &below.source,
        below.key,
        "first defined here",
    ))
}

/// The value of a node; its places, and those of what is in it, go to `definitions`.
pub(super) fn flatten(
    path: VariablePath,
    node: Node,
    definitions: &mut BTreeMap<VariablePath, Vec<Definition>>,
) -> Value {
    let value = match node.content {
        Content::Leaf(value) => value,
        Content::Table(fields) => {
            let mut object = Object::new();
            for (key, node) in fields {
                let mut below = path.clone();
                below.push(Arc::clone(&key));
                object.insert(key, flatten(below, node, definitions));
            }
            object.into()
        }
    };
    definitions.insert(path, node.definitions);
    value
}

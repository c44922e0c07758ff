//! Relabelling: rewriting and selecting label sets by rules, as Prometheus defines them.

use std::sync::Arc;

use regex::Regex;

use crate::labels::LabelsBuilder;

/// What a rule does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum RelabelAction {
    /// Writes the expanded replacement to the target label where the regex matches; an empty result removes the label.
    #[default]
    Replace,
    /// Drops what does not match.
    Keep,
    /// Drops what matches.
    Drop,
    /// Drops what differs from the target label.
    KeepEqual,
    /// Drops what equals the target label.
    DropEqual,
    /// Writes a hash of the source value, modulo `modulus`.
    HashMod,
    /// Copies every label whose name matches to the name that the replacement expands to.
    LabelMap,
    /// Removes the labels whose names match.
    LabelDrop,
    /// Removes the labels whose names do not match.
    LabelKeep,
    /// Writes the source value in lower case.
    Lowercase,
    /// Writes the source value in upper case.
    Uppercase,
}

/// Which label names are allowed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum NameValidation {
    /// `[a-zA-Z_][a-zA-Z0-9_]*`.
    #[default]
    Legacy,
    /// Any text that is not empty.
    Utf8,
}

/// One relabelling rule. Build it with [`RelabelRule::new`], which checks it.
#[derive(Clone, Debug)]
pub struct RelabelRule {
    spec: RelabelSpec,
    regex: Regex,
}

/// What a rule says, before it is checked and compiled. The default is Prometheus's.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RelabelSpec {
    /// Labels whose values are joined; a missing label reads as empty.
    pub source_labels: Vec<String>,
    /// What joins them.
    pub separator: String,
    /// RE2 expression, matched against the whole joined value.
    pub regex: String,
    /// For [`RelabelAction::HashMod`].
    pub modulus: u64,
    /// The label to write; may refer to groups for [`RelabelAction::Replace`].
    pub target_label: String,
    /// What to write; may refer to groups as `$1`, `${1}`, `${name}`.
    pub replacement: String,
    /// What to do.
    pub action: RelabelAction,
    /// Which label names are allowed.
    pub validation: NameValidation,
}

/// Rules in the order they apply. Equal by what they say.
pub type RelabelRules = Arc<[RelabelRule]>;

/// What becomes of a label set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It goes on, as rewritten.
    Keep,
    /// It is dropped.
    Drop,
}

/// Why a rule is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct RelabelError {
    /// The field at fault, by its name in a configuration.
    pub field: &'static str,
    /// What is wrong.
    pub message: String,
}

impl RelabelRule {
    /// Checks and compiles a rule.
    ///
    /// # Errors
    /// Where Prometheus refuses it: fields that the action needs or forbids, label names, the regex.
    pub fn new(spec: RelabelSpec) -> Result<Self, RelabelError> {
        let _ = spec;
        todo!()
    }
}

/// Applies rules in order to the labels in a builder. Where the verdict is to drop, the labels are left half rewritten.
#[must_use]
pub fn relabel(rules: &[RelabelRule], labels: &mut LabelsBuilder) -> Verdict {
    let _ = (rules, labels);
    todo!()
}

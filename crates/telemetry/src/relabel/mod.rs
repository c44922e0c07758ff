//! Relabelling: rewriting and selecting label sets by rules, as Prometheus defines them.
//!
//! Differences to Prometheus: a group of the regex may not have a name that begins with a digit; a label name that a `labelmap` rule
//! expands to nothing is ignored instead of being written as an empty name.

mod re2;
mod template;

use std::hash::{Hash, Hasher};
use std::str::FromStr;
use std::sync::{Arc, LazyLock};

use foldhash::HashMap;
use md5::{Digest, Md5};
use parking_lot::Mutex;
use regex::Regex;

use crate::labels::{LabelsBuilder, is_legacy_label_name};

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

/// One relabelling rule. Build it with [`RelabelRule::new`], which checks it. Rules are equal by what they say.
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

const DEFAULT_SEPARATOR: &str = ";";
const DEFAULT_REGEX: &str = "(.*)";
const DEFAULT_REPLACEMENT: &str = "$1";

/// Compiled size that a rule's regex may reach, in bytes.
const REGEX_SIZE_LIMIT: usize = 10 << 20;

/// Compiled size up to which a regex is kept for the next rule that says the same, in bytes, and how many are kept at most.
const SHARED_SIZE_LIMIT: usize = 64 << 10;
const MOST_SHARED: usize = 256;

impl RelabelAction {
    /// Every action.
    pub const ALL: [Self; 11] = [
        Self::Replace,
        Self::Keep,
        Self::Drop,
        Self::KeepEqual,
        Self::DropEqual,
        Self::HashMod,
        Self::LabelMap,
        Self::LabelDrop,
        Self::LabelKeep,
        Self::Lowercase,
        Self::Uppercase,
    ];

    /// The name in a configuration.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Replace => "replace",
            Self::Keep => "keep",
            Self::Drop => "drop",
            Self::KeepEqual => "keepequal",
            Self::DropEqual => "dropequal",
            Self::HashMod => "hashmod",
            Self::LabelMap => "labelmap",
            Self::LabelDrop => "labeldrop",
            Self::LabelKeep => "labelkeep",
            Self::Lowercase => "lowercase",
            Self::Uppercase => "uppercase",
        }
    }
}

impl FromStr for RelabelAction {
    type Err = RelabelError;

    /// Reads the name of an action, in any case.
    fn from_str(name: &str) -> Result<Self, RelabelError> {
        Self::ALL
            .into_iter()
            .find(|action| action.as_str().eq_ignore_ascii_case(name))
            .ok_or_else(|| refuse("action", format!("unknown relabel action {name:?}")))
    }
}

impl NameValidation {
    fn allows(self, name: &str) -> bool {
        match self {
            Self::Legacy => is_legacy_label_name(name),
            Self::Utf8 => !name.is_empty(),
        }
    }

    /// Whether a name that may refer to groups can come out as an allowed one.
    fn allows_template(self, template: &str) -> bool {
        // Letters, underscores and references in any number, and word characters after them.
        static LEGACY: LazyLock<Regex> = LazyLock::new(|| {
            Regex::new(r"^(?:(?:[a-zA-Z_]|\$(?:\{[0-9A-Za-z_]+\}|[0-9A-Za-z_]+))+[0-9A-Za-z_]*)+$")
                .expect("the expression is constant and valid")
        });
        match self {
            Self::Legacy => LEGACY.is_match(template),
            Self::Utf8 => !template.is_empty(),
        }
    }
}

impl Default for RelabelSpec {
    fn default() -> Self {
        Self {
            source_labels: Vec::new(),
            separator: DEFAULT_SEPARATOR.to_owned(),
            regex: DEFAULT_REGEX.to_owned(),
            modulus: 0,
            target_label: String::new(),
            replacement: DEFAULT_REPLACEMENT.to_owned(),
            action: RelabelAction::default(),
            validation: NameValidation::default(),
        }
    }
}

impl RelabelSpec {
    fn check(&self) -> Result<(), RelabelError> {
        use RelabelAction::{
            DropEqual, HashMod, KeepEqual, LabelDrop, LabelKeep, LabelMap, Lowercase, Replace, Uppercase,
        };
        let action = self.action.as_str();
        if self.action == HashMod && self.modulus == 0 {
            return Err(refuse("modulus", "action hashmod requires a modulus that is not 0"));
        }
        let writes = matches!(self.action, Replace | HashMod | Lowercase | Uppercase | KeepEqual | DropEqual);
        if writes && self.target_label.is_empty() {
            return Err(refuse("target_label", format!("action {action} requires target_label")));
        }
        let target_allowed = match self.action {
            Replace if self.target_label.contains('$') => self.validation.allows_template(&self.target_label),
            _ => !writes || self.validation.allows(&self.target_label),
        };
        if !target_allowed {
            let message = format!("{:?} is no label name that action {action} can write", self.target_label);
            return Err(refuse("target_label", message));
        }
        if self.action == LabelMap && !self.validation.allows_template(&self.replacement) {
            let message = format!("{:?} is no label name that action labelmap can write", self.replacement);
            return Err(refuse("replacement", message));
        }
        if matches!(self.action, Lowercase | Uppercase | KeepEqual | DropEqual | LabelDrop | LabelKeep)
            && self.replacement != DEFAULT_REPLACEMENT
        {
            return Err(refuse("replacement", format!("action {action} takes no replacement")));
        }
        if matches!(self.action, KeepEqual | DropEqual | LabelDrop | LabelKeep) {
            if self.modulus != 0 {
                return Err(refuse("modulus", format!("action {action} takes no modulus")));
            }
            if self.separator != DEFAULT_SEPARATOR {
                return Err(refuse("separator", format!("action {action} takes no separator")));
            }
        }
        if matches!(self.action, KeepEqual | DropEqual) && self.regex != DEFAULT_REGEX {
            return Err(refuse("regex", format!("action {action} takes no regex")));
        }
        if matches!(self.action, LabelDrop | LabelKeep) {
            if !self.source_labels.is_empty() {
                return Err(refuse("source_labels", format!("action {action} takes no source_labels")));
            }
            if !self.target_label.is_empty() {
                return Err(refuse("target_label", format!("action {action} takes no target_label")));
            }
        }
        Ok(())
    }
}

impl RelabelRule {
    /// Checks and compiles a rule.
    ///
    /// # Errors
    /// Where Prometheus refuses it: fields that the action needs or forbids, label names, the regex.
    pub fn new(spec: RelabelSpec) -> Result<Self, RelabelError> {
        spec.check()?;
        let regex = anchored(&spec.regex).map_err(|message| refuse("regex", message))?;
        Ok(Self { spec, regex })
    }

    /// What the rule says.
    #[must_use]
    pub fn spec(&self) -> &RelabelSpec {
        &self.spec
    }

    fn apply(&self, labels: &mut LabelsBuilder) -> Verdict {
        let Self { spec, regex } = self;
        match spec.action {
            RelabelAction::Keep => return keep_if(regex.is_match(&self.source(labels))),
            RelabelAction::Drop => return keep_if(!regex.is_match(&self.source(labels))),
            RelabelAction::KeepEqual => return keep_if(self.equals_target(labels)),
            RelabelAction::DropEqual => return keep_if(!self.equals_target(labels)),
            RelabelAction::Replace => self.replace(labels),
            RelabelAction::HashMod => {
                let digest = Md5::digest(self.source(labels).as_bytes());
                let low: [u8; 8] = std::array::from_fn(|at| digest[at + 8]);
                let modulus = spec.modulus.max(1);
                labels.set(&spec.target_label, &(u64::from_be_bytes(low) % modulus).to_string());
            }
            RelabelAction::LabelMap => self.map_names(labels),
            RelabelAction::LabelDrop => labels.retain(|name, _| !regex.is_match(name)),
            RelabelAction::LabelKeep => labels.retain(|name, _| regex.is_match(name)),
            RelabelAction::Lowercase => {
                let lower: String = self.source(labels).chars().map(simple_lowercase).collect();
                labels.set(&spec.target_label, &lower);
            }
            RelabelAction::Uppercase => {
                let upper: String = self.source(labels).chars().map(simple_uppercase).collect();
                labels.set(&spec.target_label, &upper);
            }
        }
        Verdict::Keep
    }

    fn source(&self, labels: &LabelsBuilder) -> String {
        let mut joined = String::new();
        for (at, name) in self.spec.source_labels.iter().enumerate() {
            if at > 0 {
                joined.push_str(&self.spec.separator);
            }
            joined.push_str(labels.get(name).unwrap_or_default());
        }
        joined
    }

    fn equals_target(&self, labels: &LabelsBuilder) -> bool {
        labels.get(&self.spec.target_label).unwrap_or_default() == self.source(labels)
    }

    fn replace(&self, labels: &mut LabelsBuilder) {
        let source = self.source(labels);
        let Some(groups) = self.regex.captures(&source) else { return };
        let target = template::expand(&self.spec.target_label, &self.regex, &groups);
        if self.spec.validation.allows(&target) {
            let value = template::expand(&self.spec.replacement, &self.regex, &groups);
            labels.set(&target, &value);
        }
    }

    fn map_names(&self, labels: &mut LabelsBuilder) {
        let copies: Vec<(String, String)> = labels
            .iter()
            .filter_map(|(name, value)| {
                let groups = self.regex.captures(name)?;
                let target = template::expand(&self.spec.replacement, &self.regex, &groups);
                (!target.is_empty()).then(|| (target, value.to_owned()))
            })
            .collect();
        for (name, value) in &copies {
            labels.set(name, value);
        }
    }
}

impl PartialEq for RelabelRule {
    fn eq(&self, other: &Self) -> bool {
        self.spec == other.spec
    }
}

impl Eq for RelabelRule {}

impl Hash for RelabelRule {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.spec.hash(state);
    }
}

/// Applies rules in order to the labels in a builder. Where the verdict is to drop, the labels are left half rewritten.
#[must_use]
pub fn relabel(rules: &[RelabelRule], labels: &mut LabelsBuilder) -> Verdict {
    for rule in rules {
        if rule.apply(labels) == Verdict::Drop {
            return Verdict::Drop;
        }
    }
    Verdict::Keep
}

/// Compiles an RE2 expression that is to match a whole text. Large configurations say the same few expressions thousands of
/// times: small ones that were compiled lately are shared.
fn anchored(expression: &str) -> Result<Regex, String> {
    static COMPILED: LazyLock<Mutex<HashMap<String, Regex>>> = LazyLock::new(Mutex::default);
    if let Some(regex) = COMPILED.lock().get(expression) {
        return Ok(regex.clone());
    }
    let translated = re2::translate(&format!("^(?s:{expression})$"))?;
    let compile = |limit| regex::RegexBuilder::new(&translated).size_limit(limit).build();
    match compile(SHARED_SIZE_LIMIT) {
        Ok(regex) => {
            let mut compiled = COMPILED.lock();
            if compiled.len() >= MOST_SHARED {
                compiled.clear();
            }
            compiled.insert(expression.to_owned(), regex.clone());
            return Ok(regex);
        }
        Err(regex::Error::CompiledTooBig(_)) => compile(REGEX_SIZE_LIMIT),
        Err(other) => Err(other),
    }
    .map_err(|error| match error {
        regex::Error::CompiledTooBig(limit) => {
            format!("the expression needs more than {limit} bytes when compiled")
        }
        // The library's message shows the translated expression; its last line says what is wrong.
        other => {
            let text = other.to_string();
            let reason = text.lines().last().unwrap_or_default();
            format!("{expression:?}: {}", reason.trim_start_matches("error: "))
        }
    })
}

fn keep_if(keep: bool) -> Verdict {
    if keep { Verdict::Keep } else { Verdict::Drop }
}

fn refuse(field: &'static str, message: impl Into<String>) -> RelabelError {
    RelabelError { field, message: message.into() }
}

/// One character for one: full case mapping would change lengths, which Prometheus does not do.
fn simple_lowercase(character: char) -> char {
    if character == 'İ' {
        return 'i';
    }
    let mut lower = character.to_lowercase();
    match (lower.next(), lower.next()) {
        (Some(single), None) => single,
        _ => character,
    }
}

fn simple_uppercase(character: char) -> char {
    match character {
        // Greek letters with iota subscript: their single upper-case form is the one used in titles.
        '\u{1f80}'..='\u{1f87}' | '\u{1f90}'..='\u{1f97}' | '\u{1fa0}'..='\u{1fa7}' => {
            char::from_u32(character as u32 + 8).unwrap_or(character)
        }
        '\u{1fb3}' => '\u{1fbc}',
        '\u{1fc3}' => '\u{1fcc}',
        '\u{1ff3}' => '\u{1ffc}',
        _ => {
            let mut upper = character.to_uppercase();
            match (upper.next(), upper.next()) {
                (Some(single), None) => single,
                _ => character,
            }
        }
    }
}

#[cfg(test)]
mod tests;

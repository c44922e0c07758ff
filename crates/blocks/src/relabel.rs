//! The `rule` block (and `write_relabel_config`, which is the same block under another name) and the capsule that
//! carries finished rules from `discovery.relabel` to the components that apply them to what they produce.

use std::any::Any;
use std::sync::Arc;

use invar_syntax::arguments::Arguments;
use invar_syntax::convert::{ConvertError, FromValue, ToValue, from_capsule};
use invar_syntax::schema::Type;
use invar_syntax::value::{Capsule, CapsuleValue, Value};
use invar_telemetry::relabel::{NameValidation, RelabelAction, RelabelError, RelabelRule, RelabelSpec};

/// The name of the capsule in the language.
pub const RELABEL_RULES_TYPE_NAME: &str = "relabel.Rules";

/// One relabelling rule as it is written in a configuration.
#[derive(Arguments, Clone, Debug, PartialEq)]
#[arguments(validate = "Self::validate")]
pub struct RelabelRuleBlock {
    /// Labels whose values are joined with `separator` and matched against `regex`.
    pub source_labels: Vec<String>,
    /// Text between the joined values.
    #[argument(default = "\";\"")]
    pub separator: String,
    /// RE2 expression, matched against the whole joined value; its dot also matches a line feed.
    #[argument(default = "\"(.*)\"", type_note = "relabel.Regexp")]
    pub regex: String,
    /// Modulus of the hash that `hashmod` takes.
    pub modulus: u64,
    /// Label to write; `replace` expands groups in it.
    pub target_label: String,
    /// What to write; groups of `regex` are expanded.
    #[argument(default = "\"$1\"")]
    pub replacement: String,
    /// `replace`, `keep`, `drop`, `keepequal`, `dropequal`, `hashmod`, `labelmap`, `labeldrop`, `labelkeep`,
    /// `lowercase` or `uppercase`.
    #[argument(
        default = "\"replace\"",
        type_note = "relabel.Action",
        values = [
            "replace",
            "keep",
            "drop",
            "keepequal",
            "dropequal",
            "hashmod",
            "labelmap",
            "labeldrop",
            "labelkeep",
            "lowercase",
            "uppercase"
        ]
    )]
    pub action: ActionArgument,
}

/// An action as it is written: in any case, as Prometheus reads it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ActionArgument(pub RelabelAction);

/// Compiled rules. Equal when they say the same; cloning shares them.
#[derive(Clone, Debug, PartialEq)]
pub struct RelabelRules(pub invar_telemetry::relabel::RelabelRules);

const ACTIONS: [(&str, RelabelAction); 11] = [
    ("replace", RelabelAction::Replace),
    ("keep", RelabelAction::Keep),
    ("drop", RelabelAction::Drop),
    ("keepequal", RelabelAction::KeepEqual),
    ("dropequal", RelabelAction::DropEqual),
    ("hashmod", RelabelAction::HashMod),
    ("labelmap", RelabelAction::LabelMap),
    ("labeldrop", RelabelAction::LabelDrop),
    ("labelkeep", RelabelAction::LabelKeep),
    ("lowercase", RelabelAction::Lowercase),
    ("uppercase", RelabelAction::Uppercase),
];

// === impl RelabelRuleBlock ===

impl RelabelRuleBlock {
    /// Checks and compiles the rule.
    ///
    /// # Errors
    /// Where Prometheus refuses it. A decoded block has been checked already.
    pub fn compile(&self, names: NameValidation) -> Result<RelabelRule, RelabelError> {
        RelabelRule::new(RelabelSpec {
            source_labels: self.source_labels.clone(),
            separator: self.separator.clone(),
            regex: self.regex.clone(),
            modulus: self.modulus,
            target_label: self.target_label.clone(),
            replacement: self.replacement.clone(),
            action: self.action.0,
            validation: names,
        })
    }

    fn validate(&self) -> Result<(), (&'static str, String)> {
        match self.compile(NameValidation::Legacy) {
            Ok(_) => Ok(()),
            Err(error) => Err((error.field, error.message)),
        }
    }
}

// === impl RelabelRules ===

impl RelabelRules {
    /// Compiles blocks in order.
    ///
    /// # Errors
    /// The first rule that is refused; decoded blocks never are.
    pub fn compile(blocks: &[RelabelRuleBlock]) -> Result<Self, RelabelError> {
        let rules: Result<Vec<_>, _> =
            blocks.iter().map(|block| block.compile(NameValidation::Legacy)).collect();
        Ok(Self(rules?.into()))
    }

    /// No rules: everything passes unchanged.
    pub fn none() -> Self {
        Self(Arc::from([]))
    }
}

impl FromValue for RelabelRules {
    fn value_type() -> Type {
        Type::Capsule(RELABEL_RULES_TYPE_NAME)
    }

    fn from_value(value: &Value) -> Result<Self, ConvertError> {
        match value {
            Value::Null => Ok(Self::none()),
            _ => from_capsule(value, RELABEL_RULES_TYPE_NAME),
        }
    }
}

impl ToValue for RelabelRules {
    fn to_value(&self) -> Value {
        Value::Capsule(Capsule::new(self.clone()))
    }
}

impl CapsuleValue for RelabelRules {
    fn type_name(&self) -> &'static str {
        RELABEL_RULES_TYPE_NAME
    }

    fn equals(&self, other: &dyn CapsuleValue) -> bool {
        other.as_any().downcast_ref::<Self>().is_some_and(|other| self == other)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

// === impl ActionArgument ===

impl FromValue for ActionArgument {
    fn value_type() -> Type {
        Type::Enum(&[
            "replace",
            "keep",
            "drop",
            "keepequal",
            "dropequal",
            "hashmod",
            "labelmap",
            "labeldrop",
            "labelkeep",
            "lowercase",
            "uppercase",
        ])
    }

    fn from_value(value: &Value) -> Result<Self, ConvertError> {
        let text = String::from_value(value)?;
        let lower = text.to_ascii_lowercase();
        match ACTIONS.iter().find(|(name, _)| *name == lower) {
            Some((_, action)) => Ok(Self(*action)),
            None => Err(ConvertError::new(format!(
                "should be one of {}, got {text:?}",
                ACTIONS.map(|(name, _)| name).join(", ")
            ))),
        }
    }
}

impl ToValue for ActionArgument {
    fn to_value(&self) -> Value {
        let name = ACTIONS.iter().find(|(_, action)| *action == self.0).map_or("", |(name, _)| name);
        Value::string(name)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use invar_syntax::evaluate::evaluate_body;
    use invar_syntax::parse_bytes;
    use invar_syntax::scope::EmptyScope;

    use super::*;

    fn rule(text: &str) -> Result<RelabelRuleBlock, String> {
        let (file, _) = parse_bytes("test", text.as_bytes());
        let body = evaluate_body(&file.unwrap().body, &EmptyScope).unwrap();
        let mut errors = Vec::new();
        RelabelRuleBlock::decode(&body, &mut errors)
            .ok_or_else(|| errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))
    }

    #[test]
    fn rules_that_prometheus_refuses_are_refused() {
        for (text, part) in [
            ("", "target_label"),
            ("action = \"hashmod\"\ntarget_label = \"a\"", "modulus"),
            ("action = \"keep\"\nregex = \"(\"", "unclosed group"),
            ("action = \"labeldrop\"\nregex = \"a\"\ntarget_label = \"b\"", "labeldrop"),
            ("action = \"nonsense\"", "should be one of replace, keep"),
        ] {
            let error = rule(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn actions_are_read_in_any_case_and_shown_in_lower_case() {
        let rule = rule("action = \"KeepEqual\"\nsource_labels = [\"a\"]\ntarget_label = \"b\"").unwrap();
        assert_eq!(rule.action.0, RelabelAction::KeepEqual);
        assert_eq!(rule.action.to_value(), Value::string("keepequal"));
    }

    #[test]
    fn rules_are_equal_when_they_say_the_same() {
        let compile = |text: &str| RelabelRules::compile(&[rule(text).unwrap()]).unwrap();
        let keep = compile("action = \"keep\"\nregex = \"a\"");
        assert_eq!(keep.to_value(), compile("action = \"keep\"\nregex = \"a\"").to_value());
        assert_ne!(keep.to_value(), compile("action = \"keep\"\nregex = \"b\"").to_value());
        assert_eq!(RelabelRules::from_value(&keep.to_value()).unwrap(), keep);
        assert_eq!(RelabelRules::from_value(&Value::Null).unwrap(), RelabelRules::none());
        assert!(RelabelRules::from_value(&Value::string("x")).is_err());
    }
}

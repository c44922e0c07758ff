//! Targets: the label sets that discovery components publish and scrapers consume.
//!
//! In the language a target is a capsule named `discovery.Target` that can be read like an object of strings
//! (`targets[0]["__address__"]`), and any object converts to one. Here it is an immutable, sorted set of labels
//! that is shared, so that a list of ten thousand targets passes from component to component by reference count.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use invar_syntax::convert::{ConvertError, FromValue, ToValue, text_from_value};
use invar_syntax::expression_text::value_to_expression;
use invar_syntax::schema::Type;
use invar_syntax::secret::OptionalSecret;
use invar_syntax::value::{Capsule, CapsuleValue, Object, Value};
use invar_telemetry::{Labels, LabelsBuilder};

/// The name of the capsule in the language.
pub const TARGET_TYPE_NAME: &str = "discovery.Target";

/// One target: a set of labels, sorted by name, names unique. Cloning shares it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Target {
    labels: Arc<[(Arc<str>, Arc<str>)]>,
}

/// Tells whether two lists hold equal targets in the same order, without comparing labels where they are shared.
pub fn targets_equal(left: &[Target], right: &[Target]) -> bool {
    left.len() == right.len()
        && left.iter().zip(right).all(|(a, b)| Arc::ptr_eq(&a.labels, &b.labels) || a.labels == b.labels)
}

// === impl Target ===

impl Target {
    /// The value of the label `name`, if the target has it.
    pub fn get(&self, name: &str) -> Option<&str> {
        let index = self.labels.binary_search_by(|(candidate, _)| candidate.as_ref().cmp(name)).ok()?;
        self.labels.get(index).map(|(_, value)| value.as_ref())
    }

    /// The labels, sorted by name.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &str)> + '_ {
        self.labels.iter().map(|(name, value)| (name.as_ref(), value.as_ref()))
    }

    /// How many labels there are.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there are no labels at all.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// The target with the labels of a builder, as relabelling leaves them.
    pub fn from_builder(builder: &LabelsBuilder) -> Self {
        builder.iter().filter(|(_, value)| !value.is_empty()).collect()
    }

    /// The labels as telemetry has them.
    pub fn to_labels(&self) -> Labels {
        self.to_builder().labels()
    }

    /// A builder that starts from this target's labels, for relabelling.
    pub fn to_builder(&self) -> LabelsBuilder {
        let mut builder = LabelsBuilder::default();
        for (name, value) in self.iter() {
            builder.set(name, value);
        }
        builder
    }

    /// The target with these labels; labels with an empty value are kept out, as everywhere in Prometheus.
    pub fn from_labels(labels: &Labels) -> Self {
        labels.iter().map(|(name, value)| (Arc::from(name), Arc::from(value))).collect()
    }

    fn from_object(object: &Object) -> Result<Self, ConvertError> {
        object.iter().map(|(name, value)| Ok((Arc::clone(name), label_text(name, value)?))).collect()
    }

    fn to_object(&self) -> Object {
        self.labels.iter().map(|(name, value)| (Arc::clone(name), Value::String(Arc::clone(value)))).collect()
    }
}

impl FromIterator<(Arc<str>, Arc<str>)> for Target {
    /// Of several labels with one name the last one counts.
    fn from_iter<I: IntoIterator<Item = (Arc<str>, Arc<str>)>>(labels: I) -> Self {
        let mut labels: Vec<_> = labels.into_iter().collect();
        // Stable, so among equal names the order of arrival holds and the last is the one kept.
        labels.sort_by(|a, b| a.0.cmp(&b.0));
        let mut unique: Vec<(Arc<str>, Arc<str>)> = Vec::with_capacity(labels.len());
        for label in labels {
            match unique.last_mut() {
                Some(last) if last.0 == label.0 => *last = label,
                _ => unique.push(label),
            }
        }
        Self { labels: unique.into() }
    }
}

impl<'a> FromIterator<(&'a str, &'a str)> for Target {
    fn from_iter<I: IntoIterator<Item = (&'a str, &'a str)>>(labels: I) -> Self {
        labels.into_iter().map(|(name, value)| (Arc::<str>::from(name), Arc::<str>::from(value))).collect()
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl FromValue for Target {
    fn value_type() -> Type {
        Type::Capsule(TARGET_TYPE_NAME)
    }

    fn from_value(value: &Value) -> Result<Self, ConvertError> {
        if let Value::Capsule(capsule) = value
            && let Some(target) = capsule.downcast_ref::<Self>()
        {
            return Ok(target.clone());
        }
        match value.to_object() {
            Some(object) => Self::from_object(&object),
            None => Err(ConvertError::mismatch(&Self::value_type(), value)),
        }
    }
}

impl ToValue for Target {
    fn to_value(&self) -> Value {
        Value::Capsule(Capsule::new(self.clone()))
    }

    /// Capsules are visited to find routes, and a target is none: long lists are not made into values for that.
    fn visit_capsules(&self, _visit: &mut dyn FnMut(&Capsule)) {}
}

impl CapsuleValue for Target {
    fn type_name(&self) -> &'static str {
        TARGET_TYPE_NAME
    }

    fn equals(&self, other: &dyn CapsuleValue) -> bool {
        other.as_any().downcast_ref::<Self>().is_some_and(|other| self == other)
    }

    fn to_object(&self) -> Option<Object> {
        Some(Self::to_object(self))
    }

    /// The labels as an object is written.
    fn display(&self) -> String {
        value_to_expression(&Value::from(Self::to_object(self)))
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

// === conversion of label values ===

/// The text a label gets from a value of the language: strings as they are, numbers and booleans as text,
/// lists and objects as Go prints them, because configurations written for Alloy may rely on it.
fn label_text(name: &str, value: &Value) -> Result<Arc<str>, ConvertError> {
    if let Value::String(text) = value {
        return Ok(Arc::clone(text));
    }
    let mut text = String::new();
    write_text(&mut text, value).map_err(|error| error.at_field(name))?;
    Ok(text.into())
}

fn write_text(text: &mut String, value: &Value) -> Result<(), ConvertError> {
    let refused =
        |what: &str| Err(ConvertError::new(format!("cannot be the value of a target's label: it is {what}")));
    match value {
        Value::String(string) => text.push_str(string),
        Value::Bool(flag) => text.push_str(if *flag { "true" } else { "false" }),
        Value::Number(_) | Value::Bytes(_) | Value::OptionalSecret(OptionalSecret::Plain(_)) => {
            text.push_str(&text_from_value(value)?)
        }
        Value::Array(items) => {
            text.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    text.push(' ');
                }
                write_text(text, item).map_err(|error| error.at_index(index))?;
            }
            text.push(']');
        }
        Value::Object(object) => {
            let mut fields: Vec<_> = object.iter().collect();
            fields.sort_by(|a, b| a.0.cmp(b.0));
            text.push_str("map[");
            for (index, (name, item)) in fields.into_iter().enumerate() {
                if index > 0 {
                    text.push(' ');
                }
                text.push_str(name);
                text.push(':');
                write_text(text, item).map_err(|error| error.at_field(name))?;
            }
            text.push(']');
        }
        Value::Secret(_) | Value::LiveSecret(_) | Value::OptionalSecret(OptionalSecret::Secret(_)) => {
            return refused("a secret");
        }
        Value::Null => return refused("null"),
        Value::Function(_) => return refused("a function"),
        Value::Capsule(_) => return refused("a capsule"),
        Value::Unknown(_) => return refused("not known yet"),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use invar_syntax::evaluate;
    use invar_syntax::parse_expression;
    use invar_syntax::scope::MapScope;
    use invar_syntax::secret::Secret;
    use invar_syntax::source::Source;

    use super::*;

    fn value(text: &str) -> Value {
        let source = Arc::new(Source::new("test", text));
        let scope = MapScope::new()
            .with("token", Value::Secret(Secret::new("hunter2")))
            .with("open", Value::OptionalSecret(OptionalSecret::Plain("text".to_owned())))
            .with("target", Target::from_iter([("a", "1"), ("b", "2")]).to_value());
        evaluate(&parse_expression(source).unwrap(), &scope).unwrap()
    }

    fn labels(text: &str) -> Result<Vec<(String, String)>, String> {
        let target = Target::from_value(&value(text)).map_err(|error| error.to_string())?;
        Ok(target.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
    }

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn objects_become_targets_with_their_values_as_text() {
        let text = "{\"__address__\" = \"a:1\", n = 9090, f = 1.5, t = true, l = [1, \"x\"], o = {b = 2, a = 1}, s = open}";
        let expected = [
            ("__address__", "a:1"),
            ("f", "1.5"),
            ("l", "[1 x]"),
            ("n", "9090"),
            ("o", "map[a:1 b:2]"),
            ("s", "text"),
            ("t", "true"),
        ];
        assert_eq!(labels(text).unwrap(), pairs(&expected));
        assert_eq!(labels("target").unwrap(), pairs(&[("a", "1"), ("b", "2")]));
    }

    #[test]
    fn secrets_and_nulls_are_refused_with_the_labels_name() {
        for (text, part) in [
            ("{password = token}", ".password cannot be the value of a target's label: it is a secret"),
            ("{a = [token]}", ".a[0]"),
            ("{a = null}", "it is null"),
            ("[1]", "array"),
            ("\"text\"", "string"),
        ] {
            let error = labels(text).unwrap_err();
            assert!(error.contains(part) && !error.contains("hunter2"), "{text}: {error}");
        }
    }

    #[test]
    fn a_target_reads_like_an_object() {
        assert_eq!(value("target.a"), Value::string("1"));
        assert_eq!(value("target[\"b\"]"), Value::string("2"));
        assert_eq!(value("target == target"), Value::Bool(true));
    }

    #[test]
    fn equality_is_that_of_the_labels() {
        let one = Target::from_iter([("b", "2"), ("a", "1")]);
        let same = Target::from_iter([("a", "0"), ("a", "1"), ("b", "2")]);
        assert_eq!(one, same);
        let list = [one.clone()];
        assert!(targets_equal(&list, &[same]));
        assert!(!targets_equal(&list, &[Target::from_iter([("a", "1")])]));
        assert!(!targets_equal(&list, &[one.clone(), one.clone()]));
        assert_eq!(Target::from_labels(&one.to_labels()), one);
        assert_eq!(Target::from_builder(&one.to_builder()), one);
        assert_eq!((one.get("a"), one.get("c")), (Some("1"), None));
    }
}

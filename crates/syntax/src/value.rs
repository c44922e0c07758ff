//! Values of the language: what expressions evaluate to, what components export and what arguments are decoded from.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use indexmap::IndexMap;

use crate::function::Function;
use crate::live_secret::LiveSecret;
use crate::number::Number;
use crate::schema::Type;
use crate::secret::{OptionalSecret, REDACTED, Secret};

/// A value. Cloning is cheap: everything large is shared.
#[derive(Clone, Debug, Default)]
pub enum Value {
    /// No value.
    #[default]
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number.
    Number(Number),
    /// Text.
    String(Arc<str>),
    /// An ordered list.
    Array(Arc<[Self]>),
    /// Bytes that need not be UTF-8, as decoded from base64: text where text is wanted, a list of numbers elsewhere.
    Bytes(Arc<[u8]>),
    /// Named values.
    Object(Arc<Object>),
    /// Something that can be called.
    Function(Function),
    /// Text that is never shown.
    Secret(Secret),
    /// Text that may be secret.
    OptionalSecret(OptionalSecret),
    /// Text that is never shown and that may change while it is in use.
    LiveSecret(LiveSecret),
    /// A value of the host: a receiver, a target, rules.
    Capsule(Capsule),
    /// A value that does not exist yet, such as the export of a component that has not been prepared. Every operation
    /// on it gives an unknown value.
    Unknown(Type),
}

impl Value {
    /// A string value.
    pub fn string(text: impl Into<Arc<str>>) -> Self {
        Self::String(text.into())
    }

    /// An array value.
    pub fn array(items: impl IntoIterator<Item = Self>) -> Self {
        Self::Array(items.into_iter().collect())
    }

    /// An object value with its fields in the given order.
    pub fn object<K: Into<Arc<str>>>(fields: impl IntoIterator<Item = (K, Self)>) -> Self {
        Self::Object(Arc::new(fields.into_iter().map(|(key, value)| (key.into(), value)).collect()))
    }

    /// A capsule around a host value.
    pub fn capsule(value: impl CapsuleValue) -> Self {
        Self::Capsule(Capsule::new(value))
    }

    /// The name of the value's type as diagnostics print it.
    #[must_use]
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "bool",
            Self::Number(_) => "number",
            Self::String(_) => "string",
            Self::Array(_) | Self::Bytes(_) => "array",
            Self::Object(_) => "object",
            Self::Function(_) => "function",
            Self::Secret(_) | Self::OptionalSecret(_) | Self::LiveSecret(_) | Self::Capsule(_) => "capsule",
            Self::Unknown(_) => "unknown",
        }
    }

    /// As [`Value::type_name`], with what the capsule holds: `secret`, `optional secret`, `capsule "discovery.Target"`.
    #[must_use]
    pub fn describe(&self) -> String {
        match self {
            Self::Secret(_) | Self::LiveSecret(_) => "secret".to_owned(),
            Self::OptionalSecret(_) => "optional secret".to_owned(),
            Self::Capsule(capsule) => format!("capsule \"{}\"", capsule.type_name()),
            Self::Unknown(expected) => format!("a {expected} that is not known yet"),
            other => other.type_name().to_owned(),
        }
    }

    /// The text of a string value.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(text) => Some(text),
            _ => None,
        }
    }

    /// The items of an array value; of bytes, their numbers.
    #[must_use]
    pub fn to_items(&self) -> Option<Arc<[Self]>> {
        match self {
            Self::Array(items) => Some(Arc::clone(items)),
            Self::Bytes(bytes) => Some(bytes.iter().map(|byte| Self::from(i64::from(*byte))).collect()),
            _ => None,
        }
    }

    /// The fields of an object value, or of a capsule that turns into one.
    #[must_use]
    pub fn to_object(&self) -> Option<Arc<Object>> {
        match self {
            Self::Object(object) => Some(Arc::clone(object)),
            Self::Capsule(capsule) => capsule.to_object().map(Arc::new),
            _ => None,
        }
    }

    /// Whether the value or anything within it is not known yet.
    #[must_use]
    pub fn has_unknown(&self) -> bool {
        match self {
            Self::Unknown(_) => true,
            Self::Array(items) => items.iter().any(Self::has_unknown),
            Self::Object(object) => object.values().any(Self::has_unknown),
            _ => false,
        }
    }

    /// Whether the value or anything within it is secret.
    #[must_use]
    pub fn has_secret(&self) -> bool {
        match self {
            Self::Secret(_) | Self::LiveSecret(_) | Self::OptionalSecret(OptionalSecret::Secret(_)) => true,
            Self::Array(items) => items.iter().any(Self::has_secret),
            Self::Object(object) => object.values().any(Self::has_secret),
            Self::Capsule(capsule) => {
                capsule.to_object().is_some_and(|object| object.values().any(Self::has_secret))
            }
            _ => false,
        }
    }

    /// Calls `visit` for every secret within the value whose text may change.
    pub fn visit_live_secrets(&self, visit: &mut dyn FnMut(&LiveSecret)) {
        match self {
            Self::LiveSecret(live) => visit(live),
            Self::Array(items) => items.iter().for_each(|item| item.visit_live_secrets(visit)),
            Self::Object(object) => object.values().for_each(|value| value.visit_live_secrets(visit)),
            _ => {}
        }
    }

    /// Calls `visit` for every capsule within the value.
    pub fn visit_capsules(&self, visit: &mut dyn FnMut(&Capsule)) {
        match self {
            Self::Capsule(capsule) => visit(capsule),
            Self::Array(items) => items.iter().for_each(|item| item.visit_capsules(visit)),
            Self::Object(object) => object.values().for_each(|value| value.visit_capsules(visit)),
            _ => {}
        }
    }
}

/// The language's `==`: values of different types differ, numbers compare across kinds, arrays and objects deeply,
/// functions never equal, secrets by their text and live ones by what they stand for.
impl PartialEq for Value {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Null, Self::Null) => true,
            (Self::Bool(left), Self::Bool(right)) => left == right,
            (Self::Number(left), Self::Number(right)) => left == right,
            (Self::String(left), Self::String(right)) => left == right,
            (Self::Array(left), Self::Array(right)) => left == right,
            (Self::Object(left), Self::Object(right)) => left == right,
            (Self::Secret(left), Self::Secret(right)) => left == right,
            (Self::OptionalSecret(left), Self::OptionalSecret(right)) => left == right,
            (Self::LiveSecret(left), Self::LiveSecret(right)) => left == right,
            (Self::Capsule(left), Self::Capsule(right)) => left == right,
            (Self::Unknown(left), Self::Unknown(right)) => left == right,
            (Self::Bytes(left), Self::Bytes(right)) => left == right,
            (Self::Bytes(_), Self::Array(_)) | (Self::Array(_), Self::Bytes(_)) => {
                self.to_items() == other.to_items()
            }
            _ => false,
        }
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl From<&str> for Value {
    fn from(value: &str) -> Self {
        Self::string(value)
    }
}

impl From<String> for Value {
    fn from(value: String) -> Self {
        Self::string(value)
    }
}

impl From<Number> for Value {
    fn from(value: Number) -> Self {
        Self::Number(value)
    }
}

impl From<i64> for Value {
    fn from(value: i64) -> Self {
        Self::Number(value.into())
    }
}

impl From<f64> for Value {
    fn from(value: f64) -> Self {
        Self::Number(value.into())
    }
}

/// Named values in the order they were put in. Equality does not look at the order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Object(IndexMap<Arc<str>, Value>);

impl Object {
    /// An object without fields.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The value of a field.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.0.get(key)
    }

    /// Sets a field; a field that is there keeps its place.
    pub fn insert(&mut self, key: impl Into<Arc<str>>, value: Value) {
        self.0.insert(key.into(), value);
    }

    /// How many fields there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Fields in order.
    pub fn iter(&self) -> impl Iterator<Item = (&Arc<str>, &Value)> {
        self.0.iter()
    }

    /// Field names in order.
    pub fn keys(&self) -> impl Iterator<Item = &Arc<str>> {
        self.0.keys()
    }

    /// Field values in order.
    pub fn values(&self) -> impl Iterator<Item = &Value> {
        self.0.values()
    }

    /// Orders the fields by name, as objects written in the language print.
    pub fn sort(&mut self) {
        self.0.sort_unstable_keys();
    }
}

impl<K: Into<Arc<str>>> FromIterator<(K, Value)> for Object {
    fn from_iter<I: IntoIterator<Item = (K, Value)>>(fields: I) -> Self {
        Self(fields.into_iter().map(|(key, value)| (key.into(), value)).collect())
    }
}

impl From<Object> for Value {
    fn from(object: Object) -> Self {
        Self::Object(Arc::new(object))
    }
}

/// A value of the host that the language passes around without looking inside.
pub trait CapsuleValue: Any + Send + Sync + fmt::Debug {
    /// The name of the type in diagnostics: `metrics receiver`, `discovery.Target`.
    fn type_name(&self) -> &'static str;

    /// Whether the two are the same to a component: equal capsules are unchanged arguments.
    fn equals(&self, other: &dyn CapsuleValue) -> bool;

    /// The object the value turns into when a field is accessed; none if it is opaque.
    fn to_object(&self) -> Option<Object> {
        None
    }

    /// Its text in user interfaces.
    fn display(&self) -> String {
        format!("capsule(\"{}\")", self.type_name())
    }

    /// For downcasting.
    fn as_any(&self) -> &dyn Any;
}

/// A shared [`CapsuleValue`].
#[derive(Clone)]
pub struct Capsule(Arc<dyn CapsuleValue>);

impl Capsule {
    /// Wraps a host value.
    pub fn new(value: impl CapsuleValue) -> Self {
        Self(Arc::new(value))
    }

    /// The host value, if it is a `T`.
    #[must_use]
    pub fn downcast_ref<T: 'static>(&self) -> Option<&T> {
        self.0.as_any().downcast_ref()
    }

    /// The type's name in diagnostics.
    #[must_use]
    pub fn type_name(&self) -> &'static str {
        self.0.type_name()
    }

    /// The object it turns into, if it does.
    #[must_use]
    pub fn to_object(&self) -> Option<Object> {
        self.0.to_object()
    }

    /// Its text in user interfaces.
    #[must_use]
    pub fn display(&self) -> String {
        self.0.display()
    }
}

impl PartialEq for Capsule {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.0.equals(&*other.0)
    }
}

impl fmt::Debug for Capsule {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0.display())
    }
}

/// What a user interface shows in place of a capsule-like value: `(secret)`, the quoted text of an optional secret that
/// is none, the host value's own text.
#[must_use]
pub fn capsule_text(value: &Value) -> Option<String> {
    match value {
        Value::Secret(_) | Value::LiveSecret(_) | Value::OptionalSecret(OptionalSecret::Secret(_)) => {
            Some(REDACTED.to_owned())
        }
        Value::OptionalSecret(OptionalSecret::Plain(text)) => Some(crate::expression_text::quote(text)),
        Value::Capsule(capsule) => Some(capsule.display()),
        _ => None,
    }
}

//! Between values of the language and types of the program: the coercions of arguments.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use indexmap::IndexMap;

use crate::byte_size::ByteSize;
use crate::duration::{format_duration, parse_duration};
use crate::live_secret::{LiveSecret, LiveText};
use crate::number::Number;
use crate::schema::Type;
use crate::secret::{OptionalSecret, Secret};
use crate::value::{Capsule, CapsuleValue, Object, Value};

/// Why a value does not convert.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path} {message}")]
pub struct ConvertError {
    /// Where within the value: `[2].name`; empty for the value itself.
    pub path: String,
    /// A predicate to put behind the subject: `should be string, got number`. Never contains secret text.
    pub message: String,
}

impl ConvertError {
    /// An error of the value itself, said as a predicate.
    pub fn new(message: impl Into<String>) -> Self {
        Self { path: String::new(), message: message.into() }
    }

    /// `should be <wanted>, got <what the value is>`.
    #[must_use]
    pub fn mismatch(wanted: &Type, got: &Value) -> Self {
        Self::new(format!("should be {wanted}, got {}", got.describe()))
    }

    /// Puts an index before the path.
    #[must_use]
    pub fn at_index(mut self, index: usize) -> Self {
        self.path.insert_str(0, &format!("[{index}]"));
        self
    }

    /// Puts a field name before the path.
    #[must_use]
    pub fn at_field(mut self, name: &str) -> Self {
        let step = if crate::lexer::is_identifier(name) {
            format!(".{name}")
        } else {
            format!("[{}]", crate::expression_text::quote(name))
        };
        self.path.insert_str(0, &step);
        self
    }
}

/// A type that arguments of the language convert to.
pub trait FromValue: Sized {
    /// The type in schemas and diagnostics.
    fn value_type() -> Type;

    /// Converts.
    ///
    /// # Errors
    /// Where and why the value does not fit.
    fn from_value(value: &Value) -> Result<Self, ConvertError>;
}

/// A type that becomes a value of the language.
pub trait ToValue {
    /// Converts.
    fn to_value(&self) -> Value;

    /// Calls `visit` for every capsule within. Override where conversion would be costly.
    fn visit_capsules(&self, visit: &mut dyn FnMut(&Capsule)) {
        self.to_value().visit_capsules(visit);
    }
}

/// The host value within a capsule: for implementations of [`FromValue`] on capsule types.
///
/// # Errors
/// The value is no capsule, or one of another type.
pub fn from_capsule<T: CapsuleValue + Clone>(
    value: &Value,
    type_name: &'static str,
) -> Result<T, ConvertError> {
    match value {
        Value::Capsule(capsule) => capsule.downcast_ref::<T>().cloned(),
        _ => None,
    }
    .ok_or_else(|| ConvertError::mismatch(&Type::Capsule(type_name), value))
}

/// The text a value converts to where a string is wanted: strings, numbers in decimal, optional secrets that are none,
/// `null` as the empty text.
///
/// # Errors
/// Secrets, and everything that has no text.
pub fn text_from_value(value: &Value) -> Result<Arc<str>, ConvertError> {
    match value {
        Value::String(text) => Ok(Arc::clone(text)),
        Value::Number(number) => Ok(number.to_string().into()),
        Value::OptionalSecret(OptionalSecret::Plain(text)) => Ok(text.as_str().into()),
        Value::Null => Ok("".into()),
        Value::Bytes(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => Ok(text.into()),
            Err(_) => Err(ConvertError::new("should be string, got bytes that are not UTF-8")),
        },
        Value::Secret(_) | Value::LiveSecret(_) | Value::OptionalSecret(OptionalSecret::Secret(_)) => {
            Err(ConvertError::new(
                "is secret, and secrets may not be converted into strings; convert.nonsensitive releases one",
            ))
        }
        other => Err(ConvertError::mismatch(&Type::String, other)),
    }
}

/// The predicate for a text that is none of an enum's.
#[must_use]
pub fn enum_error(text: &str, names: &[&str]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("\"{name}\"")).collect();
    let suggestion = crate::diagnostic::nearest(text, names.iter().copied())
        .map(|name| format!("; did you mean \"{name}\"?"))
        .unwrap_or_default();
    format!("should be one of {}, got \"{text}\"{suggestion}", quoted.join(", "))
}

/// The number a value converts to where a number is wanted: numbers, texts of numbers, `null` as zero.
///
/// # Errors
/// Everything else.
pub fn number_from_value(value: &Value) -> Result<Number, ConvertError> {
    let mismatch = || ConvertError::mismatch(&Type::Number, value);
    match value {
        Value::Number(number) => Ok(*number),
        Value::Null => Ok(Number::Int(0)),
        Value::String(_) | Value::OptionalSecret(OptionalSecret::Plain(_)) => {
            parse_number(&text_from_value(value)?).ok_or_else(mismatch)
        }
        _ => Err(mismatch()),
    }
}

/// A number in text: decimal integer within 64 bits, or a float where the text has a point or an exponent.
fn parse_number(text: &str) -> Option<Number> {
    let first = text.bytes().next()?;
    if !(first.is_ascii_digit() || first == b'-' || first == b'.') {
        return None;
    }
    if text.contains(['.', 'e', 'E']) {
        return text.parse::<f64>().ok().filter(|number| number.is_finite()).map(Number::Float);
    }
    text.parse::<i128>().ok().and_then(Number::from_wide)
}

macro_rules! integers {
    ($($integer:ty: $name:literal),* $(,)?) => {$(
        impl FromValue for $integer {
            fn value_type() -> Type {
                Type::Integer { name: $name, minimum: <$integer>::MIN as i128, maximum: <$integer>::MAX as i128 }
            }

            fn from_value(value: &Value) -> Result<Self, ConvertError> {
                let number = number_from_value(value)?;
                number.truncated().and_then(|wide| Self::try_from(wide).ok()).ok_or_else(|| {
                    ConvertError::new(format!("should be between {} and {}, got {number}", Self::MIN, Self::MAX))
                })
            }
        }

        impl ToValue for $integer {
            fn to_value(&self) -> Value {
                // Every integer type named here fits 64 bits.
                Number::from_wide(*self as i128).map_or(Value::Null, Value::Number)
            }

            fn visit_capsules(&self, _visit: &mut dyn FnMut(&Capsule)) {}
        }
    )*};
}

integers! {
    i8: "int8", i16: "int16", i32: "int32", i64: "int", u8: "uint8", u16: "uint16", u32: "uint32", u64: "uint64", usize: "uint",
}

macro_rules! conversions {
    ($target:ty, $ty:expr, |$value:ident| $from:expr, |$this:ident| $to:expr) => {
        impl FromValue for $target {
            fn value_type() -> Type {
                $ty
            }

            fn from_value($value: &Value) -> Result<Self, ConvertError> {
                $from
            }
        }

        impl ToValue for $target {
            fn to_value(&self) -> Value {
                let $this = self;
                $to
            }

            fn visit_capsules(&self, _visit: &mut dyn FnMut(&Capsule)) {}
        }
    };
}

conversions!(String, Type::String, |value| text_from_value(value).map(|text| text.to_string()), |this| {
    Value::string(this.as_str())
});
conversions!(Arc<str>, Type::String, |value| text_from_value(value), |this| Value::String(Self::clone(this)));
conversions!(f64, Type::Float, |value| number_from_value(value).map(Number::as_f64), |this| Value::from(
    *this
));
conversions!(
    bool,
    Type::Bool,
    |value| match value {
        Value::Bool(flag) => Ok(*flag),
        Value::Null => Ok(false),
        other => Err(ConvertError::mismatch(&Type::Bool, other)),
    },
    |this| Value::Bool(*this)
);
conversions!(
    Duration,
    Type::Duration,
    |value| match value {
        Value::Null => Ok(Self::ZERO),
        Value::String(_) | Value::Number(_) | Value::OptionalSecret(OptionalSecret::Plain(_)) => {
            let text = text_from_value(value)?;
            parse_duration(&text).map_err(|error| {
                ConvertError::new(format!("should be a duration such as \"1m30s\", got \"{text}\": {error}"))
            })
        }
        other => Err(ConvertError::mismatch(&Type::Duration, other)),
    },
    |this| Value::string(format_duration(*this))
);
conversions!(
    ByteSize,
    Type::ByteSize,
    |value| match value {
        Value::Null => Ok(Self(0)),
        Value::String(_) | Value::Number(_) | Value::OptionalSecret(OptionalSecret::Plain(_)) => {
            let text = text_from_value(value)?;
            text.parse().map_err(|error| {
                ConvertError::new(format!("should be a size such as \"64MiB\", got \"{text}\": {error}"))
            })
        }
        other => Err(ConvertError::mismatch(&Type::ByteSize, other)),
    },
    |this| Value::string(this.to_string())
);
conversions!(
    Secret,
    Type::Secret,
    |value| match value {
        Value::Secret(secret) | Value::OptionalSecret(OptionalSecret::Secret(secret)) => Ok(secret.clone()),
        Value::LiveSecret(live) => Ok(live.freeze()),
        Value::String(_)
        | Value::Null
        | Value::Bytes(_)
        | Value::Number(_)
        | Value::OptionalSecret(OptionalSecret::Plain(_)) => {
            text_from_value(value).map(|text| Self::new(&*text))
        }
        other => Err(ConvertError::mismatch(&Type::Secret, other)),
    },
    |this| Value::Secret(this.clone())
);
conversions!(
    LiveSecret,
    Type::Secret,
    |value| match value {
        Value::LiveSecret(live) => Ok(live.clone()),
        other => Secret::from_value(other).map(Self::from),
    },
    |this| match this.is_live() {
        true => Value::LiveSecret(this.clone()),
        false => Value::Secret(this.read()),
    }
);
conversions!(
    LiveText,
    Type::LiveText,
    |value| match value {
        Value::LiveSecret(live) => Ok(Self::Secret(live.clone())),
        other => OptionalSecret::from_value(other).map(|text| match text {
            OptionalSecret::Plain(text) => Self::Plain(text),
            OptionalSecret::Secret(secret) => Self::Secret(secret.into()),
        }),
    },
    |this| match this {
        Self::Plain(text) => Value::string(text.as_str()),
        Self::Secret(secret) => secret.to_value(),
    }
);
conversions!(
    OptionalSecret,
    Type::OptionalSecret,
    |value| match value {
        Value::Secret(secret) => Ok(Self::Secret(secret.clone())),
        Value::LiveSecret(live) => Ok(Self::Secret(live.freeze())),
        Value::OptionalSecret(optional) => Ok(optional.clone()),
        Value::String(_) | Value::Null | Value::Number(_) | Value::Bytes(_) => {
            text_from_value(value).map(|text| Self::Plain(text.to_string()))
        }
        other => Err(ConvertError::mismatch(&Type::OptionalSecret, other)),
    },
    |this| Value::OptionalSecret(this.clone())
);

impl FromValue for Value {
    fn value_type() -> Type {
        Type::Any
    }

    fn from_value(value: &Value) -> Result<Self, ConvertError> {
        Ok(value.clone())
    }
}

impl ToValue for Value {
    fn to_value(&self) -> Value {
        self.clone()
    }

    fn visit_capsules(&self, visit: &mut dyn FnMut(&Capsule)) {
        Self::visit_capsules(self, visit);
    }
}

/// `null` is none.
impl<T: FromValue> FromValue for Option<T> {
    fn value_type() -> Type {
        T::value_type()
    }

    fn from_value(value: &Value) -> Result<Self, ConvertError> {
        match value {
            Value::Null => Ok(None),
            given => T::from_value(given).map(Some),
        }
    }
}

impl<T: ToValue> ToValue for Option<T> {
    fn to_value(&self) -> Value {
        self.as_ref().map_or(Value::Null, ToValue::to_value)
    }

    fn visit_capsules(&self, visit: &mut dyn FnMut(&Capsule)) {
        if let Some(inner) = self {
            inner.visit_capsules(visit);
        }
    }
}

/// `null` is the empty list.
impl<T: FromValue> FromValue for Vec<T> {
    fn value_type() -> Type {
        Type::list(T::value_type())
    }

    fn from_value(value: &Value) -> Result<Self, ConvertError> {
        match value {
            Value::Null => Ok(Self::new()),
            Value::Array(_) | Value::Bytes(_) => value
                .to_items()
                .unwrap_or_default()
                .iter()
                .enumerate()
                .map(|(index, item)| T::from_value(item).map_err(|error| error.at_index(index)))
                .collect(),
            other => Err(ConvertError::mismatch(&Self::value_type(), other)),
        }
    }
}

impl<T: ToValue> ToValue for Vec<T> {
    fn to_value(&self) -> Value {
        Value::array(self.iter().map(ToValue::to_value))
    }

    fn visit_capsules(&self, visit: &mut dyn FnMut(&Capsule)) {
        for item in self {
            item.visit_capsules(visit);
        }
    }
}

macro_rules! maps {
    ($($map:ident),*) => {$(
        /// `null` is the empty map.
        impl<T: FromValue> FromValue for $map<String, T> {
            fn value_type() -> Type {
                Type::map(T::value_type())
            }

            fn from_value(value: &Value) -> Result<Self, ConvertError> {
                if matches!(value, Value::Null) {
                    return Ok(Self::new());
                }
                let object =
                    value.to_object().ok_or_else(|| ConvertError::mismatch(&Self::value_type(), value))?;
                object
                    .iter()
                    .map(|(key, item)| {
                        let item = T::from_value(item).map_err(|error| error.at_field(key))?;
                        Ok((key.to_string(), item))
                    })
                    .collect()
            }
        }

        impl<T: ToValue> ToValue for $map<String, T> {
            fn to_value(&self) -> Value {
                let object: Object =
                    self.iter().map(|(key, item)| (key.as_str(), item.to_value())).collect();
                Value::from(object)
            }

            fn visit_capsules(&self, visit: &mut dyn FnMut(&Capsule)) {
                for item in self.values() {
                    item.visit_capsules(visit);
                }
            }
        }
    )*};
}

maps!(BTreeMap, IndexMap);

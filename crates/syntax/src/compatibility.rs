//! Which values and types convert to which, as far as the types alone tell: the rules behind the static check.

use crate::byte_size::ByteSize;
use crate::convert::{ConvertError, FromValue, enum_error, number_from_value, text_from_value};
use crate::duration::parse_duration;
use crate::expression_text::abbreviated_expression;
use crate::schema::Type;
use crate::value::Value;

/// Whether capsules of that name are built from objects and turn into them: of all types of the language, targets are. No
/// capsule is built from text; a type that is has the type `String` and a note on what reads it.
pub(crate) fn built_from_objects(name: &str) -> bool {
    name == "discovery.Target"
}

/// Whether a value that is known converts to the type: literals, and variables with all that is in them.
pub(crate) fn fits(value: &Value, wanted: &Type) -> Result<(), ConvertError> {
    let mismatch = || {
        let subject = abbreviated_expression(value, 40);
        Err(ConvertError::new(format!("should be {wanted}, got {} {subject}", value.describe())))
    };
    if matches!(value, Value::Null) {
        return Ok(());
    }
    match wanted {
        Type::Any => Ok(()),
        Type::Null | Type::Function => mismatch(),
        Type::Bool => bool::from_value(value).map(drop),
        Type::Number | Type::Float => number_from_value(value).map(drop),
        Type::Integer { minimum, maximum, .. } => {
            let number = number_from_value(value)?;
            match number.truncated() {
                Some(wide) if (*minimum..=*maximum).contains(&wide) => Ok(()),
                _ => {
                    Err(ConvertError::new(format!("should be between {minimum} and {maximum}, got {number}")))
                }
            }
        }
        Type::String | Type::Secret | Type::OptionalSecret | Type::LiveText => {
            text_from_value(value).map(drop)
        }
        Type::Duration => {
            let text = text_from_value(value)?;
            parse_duration(&text).map(drop).map_err(|error| {
                ConvertError::new(format!("should be a duration such as \"1m30s\", got \"{text}\": {error}"))
            })
        }
        Type::ByteSize => ByteSize::from_value(value).map(drop),
        Type::Enum(names) => {
            let text = text_from_value(value)?;
            if names.contains(&&*text) { Ok(()) } else { Err(ConvertError::new(enum_error(&text, names))) }
        }
        Type::Capsule(name) if matches!(value, Value::Object(_)) && built_from_objects(name) => Ok(()),
        Type::List(element) => match value {
            Value::Array(items) => items
                .iter()
                .enumerate()
                .try_for_each(|(index, item)| fits(item, element).map_err(|error| error.at_index(index))),
            Value::Bytes(_) => Ok(()),
            _ => mismatch(),
        },
        Type::Map(element) => match value {
            Value::Object(fields) => fields
                .iter()
                .try_for_each(|(name, field)| fits(field, element).map_err(|error| error.at_field(name))),
            _ => mismatch(),
        },
        Type::Object(known) => match value {
            // A field that is not known is the decoder's to refuse.
            Value::Object(fields) => known.iter().try_for_each(|(name, wanted)| {
                let field = fields.get(name);
                field.map_or(Ok(()), |field| fits(field, wanted).map_err(|error| error.at_field(name)))
            }),
            _ => mismatch(),
        },
        Type::Capsule(_) => mismatch(),
    }
}

/// Whether a value of the type `got` can convert to `wanted` at all.
#[must_use]
pub fn may_convert(got: &Type, wanted: &Type) -> bool {
    let textual = |ty: &Type| {
        matches!(
            ty,
            Type::String
                | Type::Number
                | Type::Integer { .. }
                | Type::Float
                | Type::Duration
                | Type::ByteSize
                | Type::Enum(_)
        )
    };
    match (got, wanted) {
        (Type::Any | Type::Null, _) | (_, Type::Any) => true,
        (Type::List(got), Type::List(wanted)) | (Type::Map(got), Type::Map(wanted)) => {
            may_convert(got, wanted)
        }
        (Type::Object(fields), Type::Map(wanted)) => fields.iter().all(|(_, got)| may_convert(got, wanted)),
        (Type::Map(_) | Type::Object(_), Type::Object(_)) => true,
        (Type::Capsule(got), Type::Capsule(wanted)) => got == wanted,
        (Type::Capsule(name), Type::Map(_) | Type::Object(_))
        | (Type::Map(_) | Type::Object(_), Type::Capsule(name)) => built_from_objects(name),
        (Type::Secret, Type::Secret | Type::OptionalSecret | Type::LiveText) => true,
        (Type::OptionalSecret, wanted) => {
            textual(wanted) || matches!(wanted, Type::Secret | Type::OptionalSecret | Type::LiveText)
        }
        (got, Type::Secret | Type::OptionalSecret | Type::LiveText) => textual(got),
        // Bytes are a list of numbers until text is wanted.
        (Type::List(element), wanted) if matches!(**element, Type::Integer { .. }) => textual(wanted),
        (Type::Bool, Type::Bool) | (Type::Function, Type::Function) => true,
        (got, wanted) => textual(got) && textual(wanted),
    }
}

//! What a component takes and gives: the traits behind `#[derive(Arguments)]`, `#[derive(Exports)]` and their kin.
//! The decoder that the derived code drives is in [`crate::decoder`].

use std::fmt;

use crate::convert::{FromValue, ToValue};
use crate::evaluate::{EvaluatedBlock, EvaluatedBody};
use crate::schema::{Field, Schema, Type};
use crate::span::Span;
use crate::value::{Capsule, Value};

use crate::decoder::{Decoded, decode_as_known};

pub use crate::decoder::{BodyDecoder, decode_block, decode_labelled};
pub use invar_syntax_derive::{ArgumentEnum, Arguments, BlockEnum, Exports};

/// Codes of what can be wrong with a body.
pub mod codes {
    /// No attribute or block has that name.
    pub const UNKNOWN_NAME: &str = "E101";
    /// A required attribute, block or label is missing.
    pub const MISSING: &str = "E102";
    /// A value is of the wrong type.
    pub const WRONG_TYPE: &str = "E103";
    /// A name is given twice.
    pub const DUPLICATE: &str = "E104";
    /// A block stands where an attribute belongs, or the reverse.
    pub const WRONG_KIND: &str = "E105";
    /// A block has a label that takes none.
    pub const LABEL: &str = "E106";
    /// The values are of the right types, but do not make sense together.
    pub const INVALID: &str = "E107";
    /// An expression has no value.
    pub const EVALUATION: &str = "E108";
    /// A name refers to nothing.
    pub const UNKNOWN_REFERENCE: &str = "E109";
}

/// One thing wrong with a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecodeError {
    /// Where.
    pub span: Span,
    /// One of [`codes`].
    pub code: &'static str,
    /// What is wrong. Never contains secret text.
    pub message: String,
    /// What to do about it.
    pub help: Option<String>,
}

impl fmt::Display for DecodeError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.message)
    }
}

/// The arguments of a component or of a block within. Derived.
pub trait Arguments: Clone + PartialEq + fmt::Debug + Send + Sync + 'static {
    /// The shape of the block.
    fn schema() -> Schema;

    /// What an empty block means. Required fields hold their type's default.
    fn defaults() -> Self;

    /// Takes its fields out of the decoder, leaving at their defaults those that are not given.
    fn decode_fields(&mut self, decoder: &mut BodyDecoder<'_>);

    /// Checks what types cannot say. Called only after every field has been decoded without error.
    fn validate_fields(&self) -> Vec<ValidationError> {
        Vec::new()
    }

    /// The arguments from a body, all errors reported; none if there was any.
    fn decode(body: &EvaluatedBody, errors: &mut Vec<DecodeError>) -> Option<Self> {
        decode_labelled(body, None, body.span, errors)
    }

    /// As [`Arguments::decode`], of a body in which not everything is known yet. The arguments, if there are any, hold
    /// nothing in the named fields, which are capsules or lists of them that are not known.
    fn decode_known(
        body: &EvaluatedBody,
        errors: &mut Vec<DecodeError>,
    ) -> Option<(Self, Vec<&'static str>)> {
        match decode_as_known(body, None, body.span, errors) {
            Decoded::Complete(arguments) => Some((arguments, Vec::new())),
            Decoded::Partial(arguments, empty) => Some((arguments, empty)),
            Decoded::Unknown | Decoded::Failed => None,
        }
    }

    /// Calls `visit` for every capsule with the name of the field that holds it.
    fn visit_capsules(&self, visit: &mut dyn FnMut(&'static str, &Capsule));

    /// The arguments as an object, for user interfaces.
    fn to_value(&self) -> Value;
}

/// What a component gives to others. Derived.
pub trait Exports: Clone + PartialEq + fmt::Debug + Send + Sync + 'static {
    /// The names and types.
    fn schema() -> Schema;

    /// The exports as an object.
    fn to_value(&self) -> Value;

    /// The exports with every field unknown: what references see before the component is prepared.
    fn unknown_value() -> Value {
        Value::object(Self::schema().fields.into_iter().map(|field| (field.name, Value::Unknown(field.ty))))
    }

    /// The exports with the zero value of every field's type.
    fn zero_value() -> Value {
        Value::object(Self::schema().fields.into_iter().map(|field| (field.name, zero_of(&field.ty))))
    }
}

/// A component without exports.
impl Exports for () {
    fn schema() -> Schema {
        Schema::default()
    }

    fn to_value(&self) -> Value {
        Value::object::<&str>([])
    }
}

/// A component without arguments.
impl Arguments for () {
    fn schema() -> Schema {
        Schema::default()
    }

    fn defaults() -> Self {}

    fn decode_fields(&mut self, _decoder: &mut BodyDecoder<'_>) {}

    fn visit_capsules(&self, _visit: &mut dyn FnMut(&'static str, &Capsule)) {}

    fn to_value(&self) -> Value {
        Value::object::<&str>([])
    }
}

/// The kinds of an ordered list of blocks `prefix.kind { … }`. Derived.
pub trait BlockEnum: Clone + PartialEq + fmt::Debug + Send + Sync + 'static {
    /// One block field for every kind.
    fn fields() -> Vec<Field>;

    /// The element of the given kind from a block; none with an error reported.
    fn decode_kind(kind: &str, block: &EvaluatedBlock, errors: &mut Vec<DecodeError>) -> Option<Self>;

    /// The kind's name and its arguments as an object.
    fn to_value(&self) -> (&'static str, Value);

    /// Calls `visit` for every capsule with the name of the field that holds it.
    fn visit_capsules(&self, visit: &mut dyn FnMut(&'static str, &Capsule));
}

/// The value that stands for "nothing" in a type.
#[must_use]
pub fn zero_of(ty: &Type) -> Value {
    match ty {
        Type::Bool => Value::Bool(false),
        Type::Number | Type::Integer { .. } => Value::from(0_i64),
        Type::Float => Value::from(0.0),
        Type::String | Type::LiveText | Type::Enum(_) => Value::string(""),
        Type::Duration => Value::string("0s"),
        Type::ByteSize => Value::string("0B"),
        Type::Secret => Value::Secret(crate::secret::Secret::default()),
        Type::OptionalSecret => Value::OptionalSecret(crate::secret::OptionalSecret::default()),
        Type::List(_) => Value::array([]),
        Type::Map(_) | Type::Object(_) => Value::object::<&str>([]),
        Type::Null | Type::Any | Type::Capsule(_) | Type::Function => Value::Null,
    }
}

/// What a validation found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValidationError {
    /// The field at fault; none blames the block.
    pub field: Option<&'static str>,
    /// What is wrong.
    pub message: String,
}

/// What a function named by `#[arguments(validate = "…")]` may return.
pub trait ValidationOutcome {
    /// The errors, if any.
    fn into_errors(self) -> Vec<ValidationError>;
}

impl ValidationOutcome for Result<(), String> {
    fn into_errors(self) -> Vec<ValidationError> {
        self.err().map(|message| ValidationError { field: None, message }).into_iter().collect()
    }
}

impl ValidationOutcome for Result<(), (&'static str, String)> {
    fn into_errors(self) -> Vec<ValidationError> {
        self.err()
            .map(|(field, message)| ValidationError { field: Some(field), message })
            .into_iter()
            .collect()
    }
}

impl ValidationOutcome for Vec<ValidationError> {
    fn into_errors(self) -> Vec<ValidationError> {
        self
    }
}

impl ValidationOutcome for Vec<(&'static str, String)> {
    fn into_errors(self) -> Vec<ValidationError> {
        self.into_iter().map(|(field, message)| ValidationError { field: Some(field), message }).collect()
    }
}

impl<E> ValidationOutcome for Result<(), Vec<E>>
where
    Vec<E>: ValidationOutcome,
{
    fn into_errors(self) -> Vec<ValidationError> {
        self.err().map(ValidationOutcome::into_errors).unwrap_or_default()
    }
}

/// For derived code: the value of a default, which the author of the struct vouches for.
///
/// # Panics
/// When the default does not convert to the field's type: a mistake in the program, found by any test that touches it.
#[doc(hidden)]
#[must_use]
pub fn default_of<T: FromValue>(place: &str, value: &Value) -> T {
    match T::from_value(value) {
        Ok(converted) => converted,
        Err(error) => panic!("the default of {place} does not convert to its type: {error}"),
    }
}

/// For derived code: a default as schemas show it, none where it says nothing. An empty list or map is shown only where
/// it was declared.
#[doc(hidden)]
#[must_use]
pub fn shown_default<T: ToValue>(value: &T, declared: bool) -> Option<Value> {
    match value.to_value() {
        Value::Null | Value::Capsule(_) => None,
        Value::Array(items) if items.is_empty() && !declared => None,
        Value::Object(object) if object.is_empty() && !declared => None,
        shown => Some(shown),
    }
}

//! What a component takes and gives: the traits behind `#[derive(Arguments)]`, `#[derive(Exports)]` and their kin, and
//! the decoder that the derived code drives. Decoding reports every error of a body, not the first.

use std::collections::HashSet;
use std::fmt;

use crate::convert::{ConvertError, FromValue, ToValue};
use crate::diagnostic::nearest;
use crate::evaluate::{EvaluatedAttribute, EvaluatedBlock, EvaluatedBody};
use crate::schema::{Field, Schema, Type};
use crate::span::Span;
use crate::value::{Capsule, Value};

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
        Type::String | Type::Enum(_) => Value::string(""),
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

/// The arguments from a body with the label of its block; errors of the body as a whole point at `header`.
pub fn decode_labelled<A: Arguments>(
    body: &EvaluatedBody,
    label: Option<(&str, Span)>,
    header: Span,
    errors: &mut Vec<DecodeError>,
) -> Option<A> {
    let before = errors.len();
    let mut arguments = A::defaults();
    let mut decoder = BodyDecoder::new(body, label, header, errors);
    arguments.decode_fields(&mut decoder);
    decoder.finish();
    if errors.len() > before {
        return None;
    }
    let problems = arguments.validate_fields();
    for problem in &problems {
        let place = problem.field.and_then(|field| {
            body.attributes
                .iter()
                .find(|attribute| &*attribute.name.name == field)
                .map(|attribute| attribute.value_span)
                .or_else(|| {
                    body.blocks
                        .iter()
                        .find(|block| block.dotted_name() == field)
                        .map(EvaluatedBlock::name_span)
                })
        });
        errors.push(DecodeError {
            span: place.unwrap_or(header),
            code: codes::INVALID,
            message: problem.message.clone(),
            help: None,
        });
    }
    problems.is_empty().then_some(arguments)
}

/// Takes a body apart field by field, noting what is wrong.
pub struct BodyDecoder<'a> {
    body: &'a EvaluatedBody,
    label: Option<(&'a str, Span)>,
    header: Span,
    errors: &'a mut Vec<DecodeError>,
    attributes: Vec<&'static str>,
    blocks: Vec<&'static str>,
    prefixes: Vec<(&'static str, Vec<&'static str>)>,
    label_taken: bool,
}

impl<'a> BodyDecoder<'a> {
    /// A decoder of a body whose block has the given label; errors of the body as a whole point at `header`.
    pub fn new(
        body: &'a EvaluatedBody,
        label: Option<(&'a str, Span)>,
        header: Span,
        errors: &'a mut Vec<DecodeError>,
    ) -> Self {
        Self {
            body,
            label,
            header,
            errors,
            attributes: Vec::new(),
            blocks: Vec::new(),
            prefixes: Vec::new(),
            label_taken: false,
        }
    }

    /// Notes an error.
    pub fn error(
        &mut self,
        span: Span,
        code: &'static str,
        message: impl Into<String>,
        help: Option<String>,
    ) {
        self.errors.push(DecodeError { span, code, message: message.into(), help });
    }

    /// Decodes the attribute `name` into `target`, which keeps its value if the attribute is not given.
    pub fn attribute<T: FromValue>(&mut self, name: &'static str, required: bool, target: &mut T) {
        self.attributes.push(name);
        let body = self.body;
        let mut given = body.attributes.iter().filter(|attribute| &*attribute.name.name == name);
        let Some(first) = given.next() else {
            // A block of that name is reported as such; calling the attribute missing too would be noise.
            if required && !body.blocks.iter().any(|block| block.dotted_name() == name) {
                let help = Some(format!("add {name} = <{}>", T::value_type()));
                self.error(
                    self.header,
                    codes::MISSING,
                    format!("missing required attribute \"{name}\""),
                    help,
                );
            }
            return;
        };
        for duplicate in given {
            self.error(
                duplicate.name.span,
                codes::DUPLICATE,
                format!("attribute \"{name}\" may only be provided once"),
                None,
            );
        }
        match T::from_value(&first.value) {
            Ok(value) => *target = value,
            Err(error) => self.conversion(first, &error),
        }
    }

    fn conversion(&mut self, attribute: &EvaluatedAttribute, error: &ConvertError) {
        let message = format!("{}{} {}", attribute.name.name, error.path, error.message);
        self.error(attribute.value_span, codes::WRONG_TYPE, message, None);
    }

    fn blocks_named(&mut self, name: &'static str) -> Vec<&'a EvaluatedBlock> {
        self.blocks.push(name);
        let body = self.body;
        body.blocks.iter().filter(|block| block.dotted_name() == name).collect()
    }

    fn single_block(&mut self, name: &'static str, required: bool) -> Option<&'a EvaluatedBlock> {
        let given = self.blocks_named(name);
        for duplicate in given.iter().skip(1) {
            self.error(
                duplicate.name_span(),
                codes::DUPLICATE,
                format!("block \"{name}\" may only be specified once"),
                None,
            );
        }
        if given.is_empty() && required {
            self.missing_block(name);
        }
        given.first().copied()
    }

    fn missing_block(&mut self, name: &'static str) {
        if !self.body.attributes.iter().any(|attribute| &*attribute.name.name == name) {
            let help = Some(format!("add {name} {{ … }}"));
            self.error(self.header, codes::MISSING, format!("missing required block \"{name}\""), help);
        }
    }

    /// Decodes the block `name` into `target`, which keeps its value if the block is not given.
    pub fn block<A: Arguments>(&mut self, name: &'static str, required: bool, target: &mut A) {
        if let Some(block) = self.single_block(name, required)
            && let Some(arguments) = decode_block(block, self.errors)
        {
            *target = arguments;
        }
    }

    /// Decodes the block `name`, which may be absent.
    pub fn optional_block<A: Arguments>(
        &mut self,
        name: &'static str,
        required: bool,
        target: &mut Option<A>,
    ) {
        if let Some(block) = self.single_block(name, required)
            && let Some(arguments) = decode_block(block, self.errors)
        {
            *target = Some(arguments);
        }
    }

    /// Decodes all blocks `name` in order.
    pub fn repeated_block<A: Arguments>(&mut self, name: &'static str, required: bool, target: &mut Vec<A>) {
        let given = self.blocks_named(name);
        if given.is_empty() {
            if required {
                self.missing_block(name);
            }
            return;
        }
        *target = given.into_iter().filter_map(|block| decode_block(block, self.errors)).collect();
    }

    /// Decodes all blocks `prefix.kind` in order.
    pub fn enum_blocks<E: BlockEnum>(&mut self, prefix: &'static str, required: bool, target: &mut Vec<E>) {
        let kinds: Vec<&'static str> = E::fields().iter().map(|field| field.name).collect();
        let body = self.body;
        let mut elements = Vec::new();
        let mut given = false;
        for block in &body.blocks {
            let name = block.dotted_name();
            let Some(kind) = name.strip_prefix(prefix).and_then(|rest| rest.strip_prefix('.')) else {
                continue;
            };
            if kinds.contains(&kind) {
                given = true;
                elements.extend(E::decode_kind(kind, block, self.errors));
            }
        }
        self.prefixes.push((prefix, kinds));
        if given {
            *target = elements;
        } else if required {
            self.missing_block(prefix);
        }
    }

    /// Decodes the label of the block into `target`.
    pub fn label<T: FromValue>(&mut self, name: &'static str, target: &mut T) {
        self.label_taken = true;
        match self.label {
            Some((text, span)) => match T::from_value(&Value::string(text)) {
                Ok(value) => *target = value,
                Err(error) => {
                    self.error(
                        span,
                        codes::WRONG_TYPE,
                        format!("the label ({name}) {}", error.message),
                        None,
                    );
                }
            },
            None => {
                self.error(self.header, codes::MISSING, format!("this block requires a label ({name})"), None)
            }
        }
    }

    /// Reports every name that no field has taken.
    pub fn finish(self) {
        let body = self.body;
        let mut names: Vec<String> =
            self.attributes.iter().chain(&self.blocks).map(|name| (*name).to_owned()).collect();
        for (prefix, kinds) in &self.prefixes {
            names.extend(kinds.iter().map(|kind| format!("{prefix}.{kind}")));
        }
        let attributes: HashSet<&str> = self.attributes.iter().copied().collect();
        let blocks: HashSet<&str> = self.blocks.iter().copied().collect();
        let suggestion = |wrong: &str| {
            nearest(wrong, names.iter().map(String::as_str)).map(|name| format!("did you mean \"{name}\"?"))
        };
        for attribute in &body.attributes {
            let name = &*attribute.name.name;
            if attributes.contains(name) {
                continue;
            }
            let (code, message, help) = if blocks.contains(name) {
                let help = format!("write {name} {{ … }}");
                (
                    codes::WRONG_KIND,
                    format!("\"{name}\" must be a block, but is used as an attribute"),
                    Some(help),
                )
            } else {
                (codes::UNKNOWN_NAME, format!("unrecognized attribute name \"{name}\""), suggestion(name))
            };
            self.errors.push(DecodeError { span: attribute.name.span, code, message, help });
        }
        for block in &body.blocks {
            let name = block.dotted_name();
            if blocks.contains(name.as_str())
                || self.prefixes.iter().any(|(prefix, kinds)| {
                    name.strip_prefix(prefix)
                        .and_then(|rest| rest.strip_prefix('.'))
                        .is_some_and(|kind| kinds.contains(&kind))
                })
            {
                continue;
            }
            let (code, message, help) = if attributes.contains(name.as_str()) {
                let help = format!("write {name} = …");
                (
                    codes::WRONG_KIND,
                    format!("\"{name}\" must be an attribute, but is used as a block"),
                    Some(help),
                )
            } else {
                (codes::UNKNOWN_NAME, format!("unrecognized block name \"{name}\""), suggestion(&name))
            };
            self.errors.push(DecodeError { span: block.name_span(), code, message, help });
        }
        if let (Some((_, span)), false) = (self.label, self.label_taken) {
            self.errors.push(DecodeError {
                span,
                code: codes::LABEL,
                message: "this block does not support a label".to_owned(),
                help: None,
            });
        }
    }
}

/// The arguments from a block with its label.
pub fn decode_block<A: Arguments>(block: &EvaluatedBlock, errors: &mut Vec<DecodeError>) -> Option<A> {
    let label = block.label.as_ref().map(|label| (&*label.text, label.span));
    decode_labelled(&block.body, label, block.name_span(), errors)
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

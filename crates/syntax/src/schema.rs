//! The shape of a block: which attributes, blocks and labels it takes, of what type and with what defaults. Derived from
//! the argument structs of components; read by the static check, the decoder's error messages, `invar components` and
//! editors.

use std::borrow::Cow;
use std::fmt;

use serde_json::{Map, json};

use crate::convert::ConvertError;
use crate::expression_text::value_to_expression;
use crate::value::Value;

/// How mature a component, a function or a field is. Ordered: `GenerallyAvailable` is the greatest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stability {
    /// May change or vanish in any release.
    Experimental,
    /// Likely to stay, may still change.
    PublicPreview,
    /// Changes only with a deprecation.
    GenerallyAvailable,
}

impl Stability {
    /// As in configuration and on the command line: `generally-available`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Experimental => "experimental",
            Self::PublicPreview => "public-preview",
            Self::GenerallyAvailable => "generally-available",
        }
    }
}

impl fmt::Display for Stability {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

impl std::str::FromStr for Stability {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        [Self::Experimental, Self::PublicPreview, Self::GenerallyAvailable]
            .into_iter()
            .find(|stability| stability.as_str() == text)
            .ok_or_else(|| {
                format!("\"{text}\" is no stability level; use experimental, public-preview or generally-available")
            })
    }
}

/// The type of an argument, an export or an unknown value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Type {
    /// Only `null`.
    Null,
    /// Any value.
    Any,
    /// `true` or `false`.
    Bool,
    /// A number of any kind.
    Number,
    /// An integer of the named width (`int`, `int64`, `uint32` …).
    Integer {
        /// What stands between the angle brackets: `int`.
        name: &'static str,
        /// Smallest value.
        minimum: i128,
        /// Largest value.
        maximum: i128,
    },
    /// A 64-bit float.
    Float,
    /// Text.
    String,
    /// Text such as `1m30s`: a sequence of decimal numbers with the units `ns us µs ms s m h`.
    Duration,
    /// Text such as `64MiB`.
    ByteSize,
    /// Text that is never shown.
    Secret,
    /// Text that may be secret.
    OptionalSecret,
    /// Text where a secret may stand, too. Alloy knows only strings there, and so the interface says.
    LiveText,
    /// A list of one type.
    List(Box<Self>),
    /// An object whose values have one type.
    Map(Box<Self>),
    /// An object with the given fields; without any, any object.
    Object(Vec<(&'static str, Self)>),
    /// One of the given texts.
    Enum(&'static [&'static str]),
    /// A host value of the named type.
    Capsule(&'static str),
    /// A function.
    Function,
}

impl Type {
    /// A list of `element`.
    #[must_use]
    pub fn list(element: Self) -> Self {
        Self::List(Box::new(element))
    }

    /// A map to `element`.
    #[must_use]
    pub fn map(element: Self) -> Self {
        Self::Map(Box::new(element))
    }

    /// The type's text, as in `list(string<config.URL>)`, with a note on its innermost part. A note that itself holds
    /// `<` replaces that part: `any<storage.Appendable>`.
    #[must_use]
    pub fn text_with_note(&self, note: Option<&str>) -> String {
        match (self, note) {
            (Self::List(element), _) => format!("list({})", element.text_with_note(note)),
            (Self::Map(element), _) => format!("map({})", element.text_with_note(note)),
            (_, Some(replacement)) if replacement.contains('<') => replacement.to_owned(),
            (Self::Capsule(_), Some(note)) => format!("capsule<{note}>"),
            (Self::Integer { .. } | Self::Number | Self::Float, Some(note)) => format!("number<{note}>"),
            (Self::Any, Some(note)) => format!("any<{note}>"),
            (Self::Enum(_) | Self::ByteSize | Self::String | Self::LiveText, Some(note)) => {
                format!("string<{note}>")
            }
            (Self::Null, _) => "null".to_owned(),
            (Self::Any, None) => "any<interface {}>".to_owned(),
            (Self::Bool, _) => "bool".to_owned(),
            (Self::Number, None) => "number".to_owned(),
            (Self::Integer { name, .. }, None) => format!("number<{name}>"),
            (Self::Float, None) => "number<float>".to_owned(),
            (Self::String | Self::LiveText | Self::Enum(_), None) => "string".to_owned(),
            (Self::ByteSize, None) => "string<units.Base2Bytes>".to_owned(),
            (Self::Duration, _) => "duration".to_owned(),
            (Self::Secret, _) => "secret".to_owned(),
            (Self::OptionalSecret, _) => "string or secret".to_owned(),
            (Self::Object(fields), _) if fields.is_empty() => "object".to_owned(),
            (Self::Object(fields), _) => {
                let fields: Vec<String> =
                    fields.iter().map(|(name, ty)| format!("{name}: {}", ty.text_with_note(None))).collect();
                format!("object{{{}}}", fields.join(", "))
            }
            (Self::Capsule(name), None) => format!("capsule<{name}>"),
            (Self::Function, _) => "function".to_owned(),
        }
    }
}

/// The type as people say it in a diagnostic: `list of strings` is `list(string)`.
impl fmt::Display for Type {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => formatter.write_str("null"),
            Self::Any => formatter.write_str("any"),
            Self::Bool => formatter.write_str("bool"),
            Self::Number | Self::Float => formatter.write_str("number"),
            Self::Integer { .. } => formatter.write_str("integer"),
            Self::String | Self::LiveText | Self::Enum(_) => formatter.write_str("string"),
            Self::Duration => formatter.write_str("duration"),
            Self::ByteSize => formatter.write_str("byte size"),
            Self::Secret => formatter.write_str("secret"),
            Self::OptionalSecret => formatter.write_str("string or secret"),
            Self::List(element) => write!(formatter, "list({element})"),
            Self::Map(element) => write!(formatter, "map({element})"),
            Self::Object(_) => formatter.write_str("object"),
            Self::Capsule(name) => write!(formatter, "capsule(\"{name}\")"),
            Self::Function => formatter.write_str("function"),
        }
    }
}

/// What a field of a schema is in the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldKind {
    /// `name = value`.
    Attribute,
    /// `name { … }`.
    Block,
    /// One ordered list of blocks `name.kind { … }`; the kinds are the nested fields.
    EnumBlocks,
    /// The label of the block itself.
    Label,
}

/// What the text of a field names, so that a ceiling over what a configuration may use can be held against it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Names {
    /// A file of the host, to read or to write; the last element may be a pattern.
    File,
    /// A host to connect to: a URL, or `host:port`.
    Destination,
    /// Targets to connect to: objects with `__address__`, most of which are known only when running.
    Targets,
    /// A part of an address to listen on. The address itself the component declares when it is checked.
    Listen,
    /// Nothing of the host and nothing beyond it, whatever its name looks like.
    Nothing,
}

/// Tells whether a value converts to the type of a field.
pub type Accepts = fn(&Value) -> Result<(), ConvertError>;

/// One argument or export.
#[derive(Clone, Debug)]
pub struct Field {
    /// Its name in the text, dotted for some blocks.
    pub name: &'static str,
    /// What it is.
    pub kind: FieldKind,
    /// Whether it must be given (an export: whether it is always there).
    pub required: bool,
    /// Whether a block may be given more than once.
    pub many: bool,
    /// The type of an attribute; `Object` for blocks.
    pub ty: Type,
    /// What decodes the text further: `config.URL`. See [`Type::text_with_note`].
    pub type_note: Option<&'static str>,
    /// The texts that make sense where the type alone does not say it, for documentation and editors: of the attribute, or
    /// of the elements of a list. Decoding does not look at them.
    pub values: &'static [&'static str],
    /// What holds when an attribute is not given; none where that is null or empty.
    pub default: Option<Value>,
    /// What it means, from the documentation comment.
    pub documentation: &'static str,
    /// The fields of a block, or the kinds of an enum of blocks.
    pub fields: Vec<Self>,
    /// In place of `fields` where the schema contains itself.
    pub recursive: Option<fn() -> Vec<Self>>,
    /// Set where the field is less mature than its component.
    pub stability: Option<Stability>,
    /// Whether a value known without evaluation converts to the field's type: what a text parser refuses, the static
    /// check reports.
    pub accepts: Option<Accepts>,
    /// What its text names, if somebody has said so.
    pub names: Option<Names>,
}

impl Field {
    /// A field with nothing but its name, kind and type.
    #[must_use]
    pub const fn new(name: &'static str, kind: FieldKind, ty: Type) -> Self {
        Self {
            name,
            kind,
            required: false,
            many: false,
            ty,
            type_note: None,
            values: &[],
            default: None,
            documentation: "",
            fields: Vec::new(),
            recursive: None,
            stability: None,
            accepts: None,
            names: None,
        }
    }

    /// The nested fields, of a recursive schema too.
    #[must_use]
    pub fn nested(&self) -> Vec<Self> {
        self.recursive.map_or_else(|| self.fields.clone(), |nested| nested())
    }

    /// The texts to choose from, of the attribute or of the elements of a list; empty where any text will do.
    #[must_use]
    pub fn choices(&self) -> &'static [&'static str] {
        match &self.ty {
            Type::Enum(names) => names,
            Type::List(element) => match &**element {
                Type::Enum(names) => names,
                _ => self.values,
            },
            _ => self.values,
        }
    }

    /// As [`Field::nested`], without copying where the schema does not contain itself.
    #[must_use]
    pub fn nested_fields(&self) -> Cow<'_, [Self]> {
        self.recursive.map_or(Cow::Borrowed(&self.fields), |nested| Cow::Owned(nested()))
    }

    /// The type's text with its note.
    #[must_use]
    pub fn type_text(&self) -> String {
        self.ty.text_with_note(self.type_note)
    }
}

/// The shape of a block.
#[derive(Clone, Debug, Default)]
pub struct Schema {
    /// In the order of declaration.
    pub fields: Vec<Field>,
}

impl Schema {
    /// The field of that name.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&Field> {
        self.fields.iter().find(|field| field.name == name)
    }
}

/// The fields as `invar components -o json` prints them.
#[must_use]
pub fn schema_to_json(schema: &Schema) -> serde_json::Value {
    fields_to_json(&schema.fields)
}

fn fields_to_json(fields: &[Field]) -> serde_json::Value {
    fields.iter().map(field_to_json).collect()
}

fn field_to_json(field: &Field) -> serde_json::Value {
    let mut object = Map::new();
    // A label has no name in the text; the recorded components show it so.
    let is_label = field.kind == FieldKind::Label;
    object.insert("name".to_owned(), json!(if is_label { "" } else { field.name }));
    let kind = match field.kind {
        FieldKind::Attribute => "attr",
        FieldKind::Block => "block",
        FieldKind::EnumBlocks => "enum",
        FieldKind::Label => "label",
    };
    object.insert("kind".to_owned(), json!(kind));
    if field.required && !is_label {
        object.insert("required".to_owned(), json!(true));
    }
    if field.many {
        object.insert("many".to_owned(), json!(true));
    }
    if is_label || field.kind == FieldKind::Attribute {
        object.insert("type".to_owned(), json!(field.type_text()));
    }
    if let Some(default) = &field.default {
        object.insert("default".to_owned(), json!(value_to_expression(default)));
    }
    if field.recursive.is_some() {
        object.insert("recursive".to_owned(), json!(true));
    } else if field.kind != FieldKind::Attribute && !field.fields.is_empty() {
        object.insert("fields".to_owned(), fields_to_json(&field.fields));
    }
    if let Some(stability) = field.stability {
        object.insert("stability".to_owned(), json!(stability.as_str()));
    }
    serde_json::Value::Object(object)
}

//! Writing blocks by the declarations of their components: fields in the order of the reference, without those that say
//! what holds anyway.

use std::sync::Arc;
use std::time::Duration;

use invar_engine::Registry;
use invar_syntax::duration::{format_duration, parse_duration};
use invar_syntax::expression_text::quote;
use invar_syntax::lexer::is_identifier;
use invar_syntax::schema::{Field, FieldKind, Schema, Type};
use invar_syntax::{Source, Value, format, parse_file, value_to_expression};

use crate::label::Labels;
use crate::report::Report;

/// A block to be written.
#[derive(Clone, Debug, Default)]
pub(crate) struct Block {
    attributes: Vec<(&'static str, Content)>,
    blocks: Vec<(&'static str, Self)>,
}

/// What an attribute is set to.
#[derive(Clone, Debug)]
enum Content {
    /// A value that may be the default, and is then left out.
    Value(Value),
    /// An expression, always written.
    Expression(String),
}

/// The result of a conversion: blocks, grouped by what they do in the order in which data flows.
pub(crate) struct Pipeline<'a> {
    registry: &'a Registry,
    pub(crate) labels: Labels,
    written: Vec<(Place, String)>,
}

/// Where in the result a block stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Place {
    Settings,
    Discovery,
    DiscoveryRelabel,
    Scrape,
    Relabel,
    Write,
}

// === impl Block ===

impl Block {
    /// Sets an attribute to a value; a default is left out when the block is written.
    pub(crate) fn set(&mut self, name: &'static str, value: impl Into<Value>) {
        self.attributes.push((name, Content::Value(value.into())));
    }

    /// Sets an attribute where there is a value.
    pub(crate) fn set_some(&mut self, name: &'static str, value: Option<impl Into<Value>>) {
        if let Some(value) = value {
            self.set(name, value);
        }
    }

    /// Sets an attribute to an expression.
    pub(crate) fn set_expression(&mut self, name: &'static str, expression: impl Into<String>) {
        self.attributes.push((name, Content::Expression(expression.into())));
    }

    /// Adds a nested block.
    pub(crate) fn add(&mut self, name: &'static str, block: Self) {
        self.blocks.push((name, block));
    }

    /// Takes over what another block says and this one does not.
    pub(crate) fn inherit(&mut self, other: &Self) {
        // The first of a name counts.
        self.attributes.extend(other.attributes.iter().cloned());
    }

    /// Whether anything but defaults would be written.
    fn is_default(&self, fields: &[Field]) -> bool {
        self.blocks.is_empty()
            && self.attributes.iter().all(|(name, content)| {
                let field = fields.iter().find(|field| field.name == *name);
                field.is_some_and(|field| content.is_default(field))
            })
    }

    /// Adds a nested block unless it says nothing.
    pub(crate) fn add_unless_default(&mut self, name: &'static str, block: Self, schema: &Schema) {
        let fields = schema.field(name).map(Field::nested).unwrap_or_default();
        if !block.is_default(&fields) {
            self.add(name, block);
        }
    }

    fn write(&self, fields: &[Field], text: &mut String) {
        for field in fields {
            match field.kind {
                FieldKind::Attribute => {
                    let set = self.attributes.iter().find(|(name, _)| *name == field.name);
                    if let Some((name, content)) = set
                        && (field.required || !content.is_default(field))
                    {
                        text.push_str(&format!("{name} = {}\n", content.text()));
                    }
                }
                FieldKind::Block => {
                    for (name, block) in self.blocks.iter().filter(|(name, _)| *name == field.name) {
                        text.push_str(&format!("{name} {{\n"));
                        block.write(&field.nested(), text);
                        text.push_str("}\n");
                    }
                }
                FieldKind::EnumBlocks | FieldKind::Label => {}
            }
        }
    }
}

// === impl Content ===

impl Content {
    fn is_default(&self, field: &Field) -> bool {
        let Self::Value(value) = self else { return false };
        match (&field.default, &field.ty) {
            (Some(Value::String(default)), Type::Duration) => {
                value.as_str().and_then(|text| parse_duration(text).ok()) == parse_duration(default).ok()
            }
            (Some(default), _) => value == default,
            (None, Type::Duration) => {
                value.as_str().and_then(|text| parse_duration(text).ok()) == Some(Duration::ZERO)
            }
            (None, _) => is_zero(value),
        }
    }

    fn text(&self) -> String {
        match self {
            Self::Expression(expression) => expression.clone(),
            Self::Value(Value::Object(object)) => {
                map_text(object.iter().map(|(name, value)| (&**name, value_to_expression(value))))
            }
            Self::Value(value) => value_to_expression(value),
        }
    }
}

fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Number(number) => number.as_f64() == 0.0,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(object) => object.is_empty(),
        _ => false,
    }
}

/// An object with a line for each field.
pub(crate) fn map_text<'a>(fields: impl Iterator<Item = (&'a str, String)>) -> String {
    let mut text = String::from("{\n");
    for (name, value) in fields {
        let name = if is_identifier(name) { name.to_owned() } else { quote(name) };
        text.push_str(&format!("{name} = {value},\n"));
    }
    text.push('}');
    text
}

/// A duration as a value: `1m0s`.
pub(crate) fn duration(duration: Duration) -> Value {
    Value::string(format_duration(duration))
}

// === impl Pipeline ===

impl<'a> Pipeline<'a> {
    pub(crate) fn new(registry: &'a Registry) -> Self {
        Self { registry, labels: Labels::default(), written: Vec::new() }
    }

    /// What a component takes; nothing where the binary does not have it.
    pub(crate) fn schema(&self, component: &str) -> Option<Schema> {
        self.registry.schema(component)
    }

    /// Writes a component. One that the binary does not have is a finding instead.
    pub(crate) fn component(
        &mut self,
        place: Place,
        component: &str,
        label: &str,
        block: &Block,
        line: usize,
        report: &mut Report,
    ) {
        let Some(schema) = self.schema(component) else {
            report.missing_component(line, format!("{component} \"{label}\""), component);
            return;
        };
        let mut text = format!("{component} \"{label}\" {{\n");
        block.write(&schema.fields, &mut text);
        text.push_str("}\n");
        self.written.push((place, text));
    }

    /// Writes a block without a label.
    pub(crate) fn settings(&mut self, name: &str, attributes: &[(&str, String)]) {
        let lines: String =
            attributes.iter().map(|(name, value)| format!("{name} = {}\n", quote(value))).collect();
        self.written.push((Place::Settings, format!("{name} {{\n{lines}}}\n")));
    }

    /// Everything, formatted.
    pub(crate) fn into_text(mut self) -> String {
        self.written.sort_by_key(|(place, _)| *place);
        let text: String = self.written.into_iter().map(|(_, text)| text).collect();
        if text.is_empty() {
            return text;
        }
        let (file, _) = parse_file(Arc::new(Source::new("converted.alloy", text.as_str())));
        // Text that cannot be formatted is more use as it is than not at all.
        file.and_then(|file| format(&file).ok()).unwrap_or(text)
    }
}

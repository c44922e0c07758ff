//! A block to start from: its header and everything that must be given, aligned as the formatter would.

use invar_syntax::{Field, FieldKind, Type};

use crate::type_text::type_text;

/// What stands where the author has to decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holes {
    /// The type in angle brackets, for reading: `<list(string)>`.
    Types,
    /// Numbered stops of an editor: `"${1:1m}"`.
    TabStops,
}

/// Blocks nested deeper are left to the author.
const MAX_DEPTH: usize = 4;

/// A block `name` with its required content. `label` says whether it bears one.
#[must_use]
pub fn snippet(name: &str, label: bool, fields: &[Field], holes: Holes) -> String {
    let mut writer = Writer { holes, next: 1, text: String::new() };
    writer.block(name, label, fields, 0);
    writer.text
}

/// What to write for a value of a field, as a tab stop with that number.
#[must_use]
pub fn value_hole(field: &Field, number: usize) -> String {
    match field.choices() {
        [] => {}
        choices if !matches!(field.ty, Type::List(_)) => {
            let choices: Vec<String> = choices.iter().map(|choice| escape(choice)).collect();
            return format!("\"${{{number}|{}|}}\"", choices.join(","));
        }
        _ => {}
    }
    match &field.ty {
        Type::Bool => {
            let opposite = matches!(&field.default, Some(invar_syntax::Value::Bool(false)));
            format!("${{{number}:{}}}", if opposite { "true" } else { "false" })
        }
        Type::Number | Type::Integer { .. } | Type::Float => format!("${{{number}:0}}"),
        Type::Duration => format!("\"${{{number}:1m}}\""),
        Type::ByteSize => format!("\"${{{number}:64MiB}}\""),
        Type::String | Type::LiveText | Type::Enum(_) => format!("\"${number}\""),
        Type::List(_) => format!("[${number}]"),
        Type::Map(_) | Type::Object(_) => format!("{{${number}}}"),
        Type::Null | Type::Any | Type::Secret | Type::OptionalSecret | Type::Capsule(_) | Type::Function => {
            format!("${number}")
        }
    }
}

/// Texts within a choice of an editor's snippet.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        if matches!(character, '\\' | ',' | '|' | '$' | '}') {
            escaped.push('\\');
        }
        escaped.push(character);
    }
    escaped
}

struct Writer {
    holes: Holes,
    next: usize,
    text: String,
}

impl Writer {
    fn number(&mut self) -> usize {
        self.next += 1;
        self.next - 1
    }

    fn block(&mut self, name: &str, label: bool, fields: &[Field], depth: usize) {
        let indent = "  ".repeat(depth);
        let label = match (label, self.holes) {
            (false, _) => String::new(),
            (true, Holes::Types) => "\"LABEL\" ".to_owned(),
            (true, Holes::TabStops) => format!("\"${{{}:default}}\" ", self.number()),
        };
        self.text.push_str(&format!("{indent}{name} {label}{{"));
        let required = || fields.iter().filter(|field| field.required);
        let attributes: Vec<&Field> = required().filter(|field| field.kind == FieldKind::Attribute).collect();
        let blocks: Vec<&Field> = required().filter(|field| field.kind == FieldKind::Block).collect();
        let width = attributes.iter().map(|field| field.name.len()).max().unwrap_or(0);
        for field in &attributes {
            let value = match self.holes {
                Holes::Types => format!("<{}>", type_text(field)),
                Holes::TabStops => {
                    let number = self.number();
                    value_hole(field, number)
                }
            };
            self.text.push_str(&format!("\n{indent}  {:width$} = {value}", field.name));
        }
        for (index, field) in blocks.iter().enumerate() {
            self.text.push_str(if index == 0 && attributes.is_empty() { "\n" } else { "\n\n" });
            if depth < MAX_DEPTH {
                let nested = field.nested();
                let label = nested.iter().any(|field| field.kind == FieldKind::Label);
                self.block(field.name, label, &nested, depth + 1);
            }
        }
        if !attributes.is_empty() || !blocks.is_empty() {
            self.text.push_str(&format!("\n{indent}}}"));
        } else if self.holes == Holes::TabStops {
            self.text.push_str(&format!("\n{indent}  $0\n{indent}}}"));
        } else {
            let optional = fields.iter().any(|field| field.kind != FieldKind::Label);
            self.text.push_str(if optional { " … }" } else { " }" });
        }
    }
}

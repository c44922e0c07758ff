//! One `variables.toml`: text to typed values with their places.

use std::ops::Range;
use std::sync::Arc;

use invar_engine::Definition;
use invar_syntax::diagnostic::{Diagnostic, Diagnostics};
use invar_syntax::lexer::is_identifier;
use invar_syntax::number::Number;
use invar_syntax::parser::decode_bytes;
use invar_syntax::source::Source;
use invar_syntax::span::Span;
use invar_syntax::value::Value;
use toml::de::{DeInteger, DeTable, DeValue};

use super::merge::{Content, Node, Tree};
use super::{VARIABLES_FILE, codes, credential};
use crate::compose::ComposedFile;

/// Names at the top that mean something to the format, now or later: a table `append` is how lists may come to grow over
/// layers.
const RESERVED: [&str; 1] = ["append"];

/// The largest file, in bytes. Variables are what differs between environments, not a store of data.
pub(super) const SIZE_LIMIT: usize = 1024 * 1024;

/// Syntax errors of one file that are told; behind the first few there is mostly echo.
const SYNTAX_ERRORS: usize = 10;

/// A file being read.
struct Reader<'a> {
    source: Arc<Source>,
    origin: Arc<str>,
    layer: Arc<str>,
    /// Bytes before what the TOML parser saw.
    offset: usize,
    diagnostics: &'a mut Diagnostics,
}

/// The values of one file; with errors in it, none.
pub(super) fn read(file: &ComposedFile, diagnostics: &mut Diagnostics) -> Tree {
    if file.content.len() > SIZE_LIMIT {
        let message = format!(
            "the file has {} bytes, more than the {SIZE_LIMIT} that variables may have",
            file.content.len()
        );
        // Without the text: nobody wants to see a line of it.
        let source = Arc::new(Source::new(file.name.as_str(), ""));
        diagnostics.push(Diagnostic::error(invar_syntax::codes::TOO_LARGE, message).with_label(
            &source,
            Span::at(0),
            "",
        ));
        return Tree::new();
    }
    let source = match decode_bytes(&file.name, &file.content) {
        Ok(source) => Arc::new(source),
        Err(refusal) => {
            diagnostics.push(*refusal);
            return Tree::new();
        }
    };
    let whole = Arc::clone(&source.text);
    let text = whole.strip_prefix('\u{feff}').unwrap_or(&whole);
    let mut reader = Reader {
        source,
        origin: Arc::from(file.source.as_str()),
        layer: Arc::from(layer_of(&file.path)),
        offset: whole.len() - text.len(),
        diagnostics,
    };
    let (table, errors) = DeTable::parse_recoverable(text);
    if errors.is_empty() { reader.document(table.get_ref()) } else { reader.syntax(&errors) }
}

/// The folder that a variables file stands for.
pub(super) fn layer_of(path: &str) -> &str {
    path.strip_suffix(VARIABLES_FILE).unwrap_or(path).trim_end_matches('/')
}

impl Reader<'_> {
    fn syntax(&mut self, errors: &[toml::de::Error]) -> Tree {
        for error in errors.iter().take(SYNTAX_ERRORS) {
            // The parser's sentences may come in lines; a finding has one.
            let message = error.message().lines().collect::<Vec<_>>().join(", ");
            let end = self.source.text.len();
            let span = error.span().map_or_else(|| Span::at(position(end)), |span| self.span(&span));
            self.error(codes::NOT_TOML, span, format!("this is not TOML: {message}"), None);
        }
        Tree::new()
    }

    fn document(&mut self, table: &DeTable<'_>) -> Tree {
        let mut tree = Tree::new();
        for (key, value) in table {
            let name = key.get_ref();
            let span = self.span(&key.span());
            if !is_identifier(name) {
                let usable: String =
                    name.chars().map(|c| if c.is_alphanumeric() || c == '_' { c } else { '_' }).collect();
                let help = is_identifier(&usable).then(|| format!("call it {usable}"));
                let message = format!(
                    "\"{name}\" cannot be used as var.NAME: a name has letters, digits and underscores"
                );
                self.error(codes::NAME, span, message, help);
            } else if RESERVED.contains(&&**name) {
                self.error(codes::NAME, span, format!("the name \"{name}\" is reserved"), None);
            } else if let Some(node) = self.node(name, &key.span(), value) {
                tree.insert(Arc::from(&**name), node);
            }
        }
        tree
    }

    /// A value with its place; None where something in it is wrong.
    fn node(&mut self, name: &str, key: &Range<usize>, value: &toml::Spanned<DeValue<'_>>) -> Option<Node> {
        let definition = Definition {
            source: Arc::clone(&self.source),
            key: self.span(key),
            value: self.span(&value.span()),
            origin: Arc::clone(&self.origin),
            layer: Arc::clone(&self.layer),
        };
        let content = match value.get_ref() {
            DeValue::Table(table) => {
                let mut fields = Tree::new();
                let mut whole = true;
                for (key, value) in table {
                    match self.node(key.get_ref(), &key.span(), value) {
                        Some(node) => drop(fields.insert(Arc::from(&**key.get_ref()), node)),
                        None => whole = false,
                    }
                }
                whole.then_some(Content::Table(fields))?
            }
            _ => {
                let value = self.value(value)?;
                if credential::looks_like_one(name, &value) {
                    let message = format!(
                        "the value of {name} looks like a credential, and everyone who may read the repository can read it"
                    );
                    let diagnostic = Diagnostic::warning(codes::CREDENTIAL, message)
                        .with_label(&self.source, definition.key, "")
                        .with_help("keep it in a secret store and use secret(\"…\") or a remote.* component");
                    self.diagnostics.push(diagnostic);
                }
                Content::Leaf(value)
            }
        };
        Some(Node { content, definitions: vec![definition] })
    }

    fn value(&mut self, value: &toml::Spanned<DeValue<'_>>) -> Option<Value> {
        let span = value.span();
        match value.get_ref() {
            DeValue::String(text) => Some(Value::string(&**text)),
            DeValue::Boolean(flag) => Some(Value::Bool(*flag)),
            DeValue::Integer(integer) => {
                let number = whole_number(integer);
                if number.is_none() {
                    let message = format!("{integer} does not fit 64 bits");
                    let help = Some("write it as text, in quotes".to_owned());
                    self.error(codes::VALUE, self.span(&span), message, help);
                }
                number.map(Value::Number)
            }
            DeValue::Float(float) => {
                let number = float.as_str().parse::<f64>().ok().filter(|number| number.is_finite());
                if number.is_none() {
                    let message = format!("{float} is not a number that the language has");
                    self.error(codes::VALUE, self.span(&span), message, None);
                }
                number.map(Value::from)
            }
            DeValue::Datetime(moment) => {
                let message = "the language has no type for dates and times".to_owned();
                let help = Some(format!("write it as text: \"{moment}\""));
                self.error(codes::VALUE, self.span(&span), message, help);
                None
            }
            DeValue::Array(items) => {
                let values: Vec<Option<Value>> = items.iter().map(|item| self.value(item)).collect();
                values.into_iter().collect::<Option<Vec<_>>>().map(Value::array)
            }
            DeValue::Table(table) => {
                let mut fields = Vec::with_capacity(table.len());
                let mut whole = true;
                for (key, value) in table {
                    match self.value(value) {
                        Some(value) => fields.push((Arc::<str>::from(&**key.get_ref()), value)),
                        None => whole = false,
                    }
                }
                whole.then(|| Value::object(fields))
            }
        }
    }

    fn span(&self, range: &Range<usize>) -> Span {
        Span::new(position(range.start + self.offset), position(range.end + self.offset))
    }

    fn error(&mut self, code: &'static str, span: Span, message: String, help: Option<String>) {
        let diagnostic = Diagnostic::error(code, message).with_label(&self.source, span, "");
        self.diagnostics.push(match help {
            Some(help) => diagnostic.with_help(help),
            None => diagnostic,
        });
    }
}

/// Offsets fit: a text that is too large was refused before.
fn position(offset: usize) -> u32 {
    u32::try_from(offset).unwrap_or(u32::MAX)
}

fn whole_number(integer: &DeInteger<'_>) -> Option<Number> {
    let (digits, radix) = (integer.as_str(), integer.radix());
    i64::from_str_radix(digits, radix)
        .map(Number::from)
        .or_else(|_| u64::from_str_radix(digits, radix).map(Number::from))
        .ok()
}

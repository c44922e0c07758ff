//! What the static check only warns about: blocks that nothing uses and credentials in the text. Looks at the tree alone, inside
//! `declare` and `foreach` too, and stays silent where it cannot be sure: a warning that is wrong teaches people to ignore
//! the others.

mod credentials;
mod unused;

use std::collections::HashMap;
use std::sync::Arc;

use invar_syntax::ast::{Block, Body, Expr, ExprKind, File, Literal, Statement};
use invar_syntax::diagnostic::{Diagnostic, Diagnostics};
use invar_syntax::schema::{Field, FieldKind, Type};
use invar_syntax::source::Source;
use invar_syntax::span::Span;

use crate::codes;
use crate::configuration::Configuration;
use crate::registry::Registry;

/// The warnings of a configuration, which join the findings so far. In all of them, text that looks like a credential is
/// shown as asterisks from here on: what `validate` prints ends up in logs that more people read than the repository.
pub(crate) fn lint(registry: &Registry, configuration: &Configuration, found: &mut Diagnostics) {
    found.extend(unused::unused(&configuration.files));
    let mut masked: HashMap<*const Source, Arc<Source>> = HashMap::new();
    for file in &configuration.files {
        let mut finder = Finder { registry, file, warnings: Vec::new(), hidden: Vec::new() };
        finder.blocks(&file.body);
        if !finder.hidden.is_empty() {
            masked.insert(Arc::as_ptr(&file.source), Arc::new(mask(&file.source, &finder.hidden)));
        }
        found.extend(finder.warnings);
    }
    for label in found.0.iter_mut().flat_map(|diagnostic| &mut diagnostic.labels) {
        if let Some(source) = masked.get(&Arc::as_ptr(&label.source)) {
            label.source = Arc::clone(source);
        }
    }
}

/// The source with the given places made unreadable. Every byte keeps its place.
fn mask(source: &Source, places: &[Span]) -> Source {
    let mut bytes = source.text.as_bytes().to_vec();
    for place in places {
        let range = bytes.get_mut(place.start as usize..place.end as usize).unwrap_or_default();
        range.iter_mut().filter(|byte| **byte != b'\n').for_each(|byte| *byte = b'*');
    }
    // The places are those of whole literals, so that what is left is text.
    let text = String::from_utf8_lossy(&bytes).into_owned();
    Source::new(Arc::clone(&source.name), text)
}

/// Looks for credentials in a file.
struct Finder<'a> {
    registry: &'a Registry,
    file: &'a Arc<File>,
    warnings: Vec<Diagnostic>,
    hidden: Vec<Span>,
}

impl Finder<'_> {
    /// The blocks of a configuration or of a block that holds one.
    fn blocks(&mut self, body: &Body) {
        for statement in &body.statements {
            match statement {
                Statement::Attribute(attribute) => self.text(&attribute.value),
                Statement::Block(block) => match self.registry.definition(&block.dotted_name()) {
                    Some(definition) => self.arguments(&block.body, &definition.arguments_schema().fields),
                    None => self.blocks(&block.body),
                },
            }
        }
    }

    /// The body of a block of that shape.
    fn arguments(&mut self, body: &Body, fields: &[Field]) {
        for statement in &body.statements {
            match statement {
                Statement::Attribute(attribute) => {
                    let field = fields.iter().find(|field| field.name == &*attribute.name.name);
                    match field {
                        Some(field) if field.kind == FieldKind::Attribute && holds_secrets(&field.ty) => {
                            self.secret(&attribute.value, field.name);
                        }
                        _ => self.text(&attribute.value),
                    }
                }
                Statement::Block(block) => self.nested(block, fields),
            }
        }
    }

    /// A block within a body of that shape.
    fn nested(&mut self, block: &Block, fields: &[Field]) {
        let name = block.dotted_name();
        for field in fields {
            match field.kind {
                FieldKind::Block if field.name == name => {
                    return self.arguments(&block.body, &field.nested_fields());
                }
                FieldKind::EnumBlocks => {
                    let kind = name.strip_prefix(field.name).and_then(|rest| rest.strip_prefix('.'));
                    let kinds = field.nested_fields();
                    if let Some(found) = kinds.iter().find(|nested| Some(nested.name) == kind) {
                        return self.arguments(&block.body, &found.nested_fields());
                    }
                }
                _ => {}
            }
        }
        self.arguments(&block.body, &[]);
    }

    /// A value that the argument `name` keeps secret.
    fn secret(&mut self, expr: &Expr, name: &str) {
        match &expr.kind {
            ExprKind::Literal(Literal::String { value, .. }) => {
                if !value.is_empty() && !credentials::is_placeholder(value) {
                    let message = format!("the secret {name} is written in the configuration");
                    self.warn(codes::SECRET_IN_TEXT, expr.span, message);
                }
            }
            ExprKind::Paren(inner) => self.secret(inner, name),
            ExprKind::Array(items) => items.iter().for_each(|item| self.secret(item, name)),
            // Headers are kept secret as a whole; most of them are not.
            ExprKind::Object(fields) => {
                for field in fields {
                    if credentials::names_a_credential(&field.name.name) {
                        self.secret(&field.value, &field.name.name);
                    } else {
                        self.text(&field.value);
                    }
                }
            }
            // Parts of a concatenation need not be secret each; what the rest does with text is not known.
            _ => self.text(expr),
        }
    }

    /// A value of any kind: only what looks like a credential by itself is one.
    fn text(&mut self, expr: &Expr) {
        match &expr.kind {
            ExprKind::Literal(Literal::String { value, .. }) => {
                if let Some(what) = credentials::credential(value) {
                    let (code, message) = match what {
                        credentials::Kind::Token(what) => {
                            (codes::CREDENTIAL, format!("this looks like {what}"))
                        }
                        credentials::Kind::Url => {
                            (codes::PASSWORD_IN_URL, "this address holds a password".to_owned())
                        }
                    };
                    self.warn(code, expr.span, message);
                }
            }
            ExprKind::Literal(_) | ExprKind::Identifier(_) => {}
            ExprKind::Array(items) => items.iter().for_each(|item| self.text(item)),
            ExprKind::Object(fields) => fields.iter().for_each(|field| self.text(&field.value)),
            ExprKind::Access { value, .. } => self.text(value),
            ExprKind::Index { value, index, .. } => {
                self.text(value);
                self.text(index);
            }
            ExprKind::Call { callee, arguments, .. } => {
                self.text(callee);
                arguments.iter().for_each(|argument| self.text(argument));
            }
            ExprKind::Unary { operand, .. } => self.text(operand),
            ExprKind::Binary { left, right, .. } => {
                self.text(left);
                self.text(right);
            }
            ExprKind::Paren(inner) => self.text(inner),
        }
    }

    fn warn(&mut self, code: &'static str, span: Span, message: String) {
        let help = "anyone who reads the repository reads it too: take it from a secret store, or from a file \
                    with local.file and is_secret = true";
        self.hidden.push(span);
        self.warnings.push(Diagnostic::warning(code, message).with_help(help).with_label(
            &self.file.source,
            span,
            "",
        ));
    }
}

fn holds_secrets(ty: &Type) -> bool {
    match ty {
        Type::Secret => true,
        Type::List(element) | Type::Map(element) => holds_secrets(element),
        _ => false,
    }
}

#[cfg(test)]
mod tests;

//! A body against a schema, without evaluating: what can be known wrong before anything runs. Literals are checked by
//! value, references by the type of what they name, everything else not at all.

mod constant;

use std::collections::HashMap;

use crate::arguments::{DecodeError, codes};
use crate::ast::{Attribute, BinaryOp, Block, Body, Expr, ExprKind, Statement, UnaryOp};
use crate::compatibility::{built_from_objects, fits, may_convert};
use crate::diagnostic::nearest;
use crate::evaluate::{element_type, field_type, path_of};
use crate::schema::{Field, FieldKind, Schema, Type};
use crate::span::Span;
use crate::stdlib;
use crate::value::Value;

pub use constant::{Constant, constant};

/// What a name refers to, as far as known without evaluating.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TypeLookup {
    /// A value of that type, found under the first names of the path.
    Known(Type, usize),
    /// Nothing, although everything that could hold it is known.
    Missing {
        /// What is wrong, complete: `component "local.file.a" has no export "contents"`.
        message: String,
        /// A name near to it.
        nearest: Option<String>,
    },
    /// It cannot be said.
    Unknown,
}

/// Resolves names to types.
pub trait TypeScope {
    /// The type of the shortest dotted prefix of `path` that names something. Names of the standard library need not be
    /// known here: for those, answer [`TypeLookup::Unknown`] or what the name hides.
    fn type_of(&self, path: &[&str]) -> TypeLookup;

    /// The value of what the whole of `path` names, where that is known already: it is checked as a literal is.
    fn value_of(&self, path: &[&str]) -> Option<Value> {
        let _ = path;
        None
    }
}

/// Nothing is known about any name.
#[derive(Clone, Copy, Debug, Default)]
pub struct UnknownTypes;

impl TypeScope for UnknownTypes {
    fn type_of(&self, _path: &[&str]) -> TypeLookup {
        TypeLookup::Unknown
    }
}

/// Everything that can be known wrong with a body. The label of the block itself is for the caller to check; errors
/// about missing names point at the first statement, or at `Span::default()` in an empty body (see
/// [`check_body_at`]).
#[must_use]
pub fn check_body(body: &Body, schema: &Schema, types: &dyn TypeScope) -> Vec<DecodeError> {
    let header = body.statements.first().map(Statement::span).unwrap_or_default();
    check_body_at(body, schema, types, header)
}

/// As [`check_body`], with the place of the block's header for errors about what is missing.
#[must_use]
pub fn check_body_at(body: &Body, schema: &Schema, types: &dyn TypeScope, header: Span) -> Vec<DecodeError> {
    let mut checker = Checker { types, errors: Vec::new() };
    checker.body(body, &schema.fields, header);
    checker.errors
}

/// As [`check_body`], of a whole block: its label is checked too.
#[must_use]
pub fn check_block(block: &Block, schema: &Schema, types: &dyn TypeScope) -> Vec<DecodeError> {
    let mut checker = Checker { types, errors: Vec::new() };
    checker.block(block, &schema.fields);
    checker.errors
}

/// What is wrong with the names an expression refers to, and with the expression where a value of `wanted` is needed.
#[must_use]
pub fn check_expression(expr: &Expr, wanted: &Type, types: &dyn TypeScope) -> Vec<DecodeError> {
    let mut checker = Checker { types, errors: Vec::new() };
    checker.expression(expr, wanted, "the value");
    checker.errors
}

struct Checker<'a> {
    types: &'a dyn TypeScope,
    errors: Vec<DecodeError>,
}

impl Checker<'_> {
    fn error(&mut self, span: Span, code: &'static str, message: impl Into<String>, help: Option<String>) {
        self.errors.push(DecodeError { span, code, message: message.into(), help });
    }

    fn block(&mut self, block: &Block, fields: &[Field]) {
        let label = fields.iter().find(|field| field.kind == FieldKind::Label);
        match (&block.label, label) {
            (Some(given), None) => {
                let message = format!("block \"{}\" does not support a label", block.dotted_name());
                self.error(given.span, codes::LABEL, message, None);
            }
            (None, Some(_)) => {
                let message = format!("block \"{}\" requires a label", block.dotted_name());
                self.error(block.name_span(), codes::MISSING, message, None);
            }
            _ => {}
        }
        self.body(&block.body, fields, block.name_span());
    }

    fn body(&mut self, body: &Body, fields: &[Field], header: Span) {
        let mut given: HashMap<&str, usize> = HashMap::new();
        let mut blocks: HashMap<String, usize> = HashMap::new();
        for block in body.blocks() {
            *blocks.entry(block.dotted_name()).or_default() += 1;
        }
        for statement in &body.statements {
            match statement {
                Statement::Attribute(attribute) => {
                    let field = self.attribute(attribute, fields);
                    self.count(field, attribute.name.span, &mut given);
                }
                Statement::Block(block) => {
                    let times = blocks.get(&block.dotted_name()).copied().unwrap_or_default();
                    if let Some(field) = self.nested_block(block, fields, times) {
                        *given.entry(field.name).or_default() += 1;
                    }
                }
            }
        }
        for field in fields.iter().filter(|field| field.required && !given.contains_key(field.name)) {
            let (kind, help) = match field.kind {
                FieldKind::Attribute => ("attribute", format!("add {} = <{}>", field.name, field.ty)),
                FieldKind::Block => ("block", format!("add {} {{ … }}", field.name)),
                FieldKind::EnumBlocks => ("block", format!("add a block {}.… {{ … }}", field.name)),
                FieldKind::Label => continue,
            };
            let message = format!("missing required {kind} \"{}\"", field.name);
            self.error(header, codes::MISSING, message, Some(help));
        }
    }

    fn count<'f>(&mut self, field: Option<&'f Field>, span: Span, given: &mut HashMap<&'f str, usize>) {
        let Some(field) = field else { return };
        let times = given.entry(field.name).or_default();
        *times += 1;
        if *times > 1 {
            let message = format!("attribute \"{}\" may only be provided once", field.name);
            self.error(span, codes::DUPLICATE, message, None);
        }
    }

    /// The field the attribute belongs to, even if it is used wrongly.
    fn attribute<'f>(&mut self, attribute: &Attribute, fields: &'f [Field]) -> Option<&'f Field> {
        let name = &*attribute.name.name;
        let field = fields.iter().find(|field| field.name == name && field.kind != FieldKind::Label);
        match field {
            Some(field) if field.kind == FieldKind::Attribute => {
                self.value(&attribute.value, field);
            }
            Some(_) => {
                let message = format!("\"{name}\" must be a block, but is used as an attribute");
                self.error(
                    attribute.name.span,
                    codes::WRONG_KIND,
                    message,
                    Some(format!("write {name} {{ … }}")),
                );
                self.expression(&attribute.value, &Type::Any, name);
            }
            None => {
                let help = suggestion(name, fields);
                let message = format!("unrecognized attribute name \"{name}\"");
                self.error(attribute.name.span, codes::UNKNOWN_NAME, message, help);
                self.expression(&attribute.value, &Type::Any, name);
            }
        }
        field
    }

    /// The field the block belongs to, of which there are so many in the body.
    fn nested_block<'f>(&mut self, block: &Block, fields: &'f [Field], times: usize) -> Option<&'f Field> {
        let name = block.dotted_name();
        if let Some(field) = fields.iter().find(|field| field.name == name && field.kind == FieldKind::Block)
        {
            if times > 1 && !field.many {
                // Which of them is the right one nobody can tell: each is pointed at, none is looked into.
                let message = format!("block \"{name}\" may only be specified once");
                self.error(block.name_span(), codes::DUPLICATE, message, None);
                return Some(field);
            }
            self.block(block, &field.nested_fields());
            return Some(field);
        }
        for field in fields.iter().filter(|field| field.kind == FieldKind::EnumBlocks) {
            let Some(kind) = name.strip_prefix(field.name).and_then(|rest| rest.strip_prefix('.')) else {
                continue;
            };
            if let Some(nested) = field.nested_fields().iter().find(|nested| nested.name == kind) {
                self.block(block, &nested.nested_fields());
                return Some(field);
            }
        }
        if let Some(field) =
            fields.iter().find(|field| field.name == name && field.kind == FieldKind::Attribute)
        {
            let message = format!("\"{name}\" must be an attribute, but is used as a block");
            self.error(block.name_span(), codes::WRONG_KIND, message, Some(format!("write {name} = …")));
            return Some(field);
        }
        let help = suggestion(&name, fields);
        self.error(
            block.name_span(),
            codes::UNKNOWN_NAME,
            format!("unrecognized block name \"{name}\""),
            help,
        );
        None
    }

    /// Checks the value of an attribute.
    fn value(&mut self, expr: &Expr, field: &Field) {
        let known = match constant(expr, self.types) {
            Constant::Value(value) => value,
            Constant::Wrong(error) => {
                return self.error(error.span, codes::EVALUATION, error.message, error.help);
            }
            Constant::Unknown => return self.expression(expr, &field.ty, field.name),
        };
        // The type's own conversion has the last word; the schema knows better where in a list or an object it failed.
        let Some(accepts) = field.accepts else { return self.expression(expr, &field.ty, field.name) };
        let Err(error) = accepts(&known) else { return };
        let before = self.errors.len();
        self.expression(expr, &field.ty, field.name);
        if self.errors.len() == before {
            let message = format!("{}{} {}", field.name, error.path, error.message);
            self.error(constant::part(expr, &error.path).span, codes::WRONG_TYPE, message, None);
        }
    }

    /// Checks an expression that has to give a `wanted`; `subject` names where it stands.
    fn expression(&mut self, expr: &Expr, wanted: &Type, subject: &str) {
        match &expr.kind {
            ExprKind::Paren(inner) => self.expression(inner, wanted, subject),
            ExprKind::Array(items) => {
                self.container(expr, wanted, subject, "array", matches!(wanted, Type::List(_)));
                let element = element_type(wanted);
                let element = if matches!(wanted, Type::List(_)) { element } else { Type::Any };
                for (index, item) in items.iter().enumerate() {
                    self.expression(item, &element, &format!("{subject}[{index}]"));
                }
            }
            ExprKind::Object(fields) => {
                let fits = match wanted {
                    Type::Capsule(name) => built_from_objects(name),
                    _ => matches!(wanted, Type::Map(_) | Type::Object(_)),
                };
                self.container(expr, wanted, subject, "object", fits);
                for field in fields {
                    let name = &*field.name.name;
                    if let Type::Object(known) = wanted
                        && !known.is_empty()
                        && !known.iter().any(|(known, _)| *known == name)
                    {
                        let help = nearest(name, known.iter().map(|(known, _)| *known));
                        let help = help.map(|near| format!("did you mean \"{near}\"?"));
                        let message = format!("{subject} does not have a field named \"{name}\"");
                        self.error(field.name.span, codes::UNKNOWN_NAME, message, help);
                    }
                    self.expression(&field.value, &field_type(wanted, name), &format!("{subject}.{name}"));
                }
            }
            _ => {
                match constant(expr, self.types) {
                    Constant::Value(value) => {
                        if let Err(error) = fits(&value, wanted) {
                            let message = format!("{subject}{} {}", error.path, error.message);
                            self.error(expr.span, codes::WRONG_TYPE, message, None);
                        }
                        return;
                    }
                    Constant::Wrong(error) => {
                        return self.error(error.span, codes::EVALUATION, error.message, error.help);
                    }
                    Constant::Unknown => {}
                }
                if let Some(value) = path(expr).and_then(|names| self.types.value_of(&names)) {
                    if let Err(error) = fits(&value, wanted) {
                        let message = format!("{subject}{} {}", error.path, error.message);
                        self.error(expr.span, codes::WRONG_TYPE, message, None);
                    }
                    return;
                }
                let got = self.type_of(expr);
                if let Some(got) = got
                    && !may_convert(&got, wanted)
                {
                    let message = format!("{subject} should be {wanted}, got {got}");
                    self.error(expr.span, codes::WRONG_TYPE, message, secret_help(&got, wanted));
                }
            }
        }
    }

    fn container(&mut self, expr: &Expr, wanted: &Type, subject: &str, got: &str, fits: bool) {
        if !fits && !matches!(wanted, Type::Any) {
            self.error(
                expr.span,
                codes::WRONG_TYPE,
                format!("{subject} should be {wanted}, got {got}"),
                None,
            );
        }
    }

    /// The type an expression gives as far as it can be said; reports names within that refer to nothing.
    fn type_of(&mut self, expr: &Expr) -> Option<Type> {
        match &expr.kind {
            ExprKind::Identifier(_) | ExprKind::Access { .. } => self.path_type(expr),
            ExprKind::Paren(inner) => self.type_of(inner),
            ExprKind::Array(_) | ExprKind::Object(_) => {
                self.expression(expr, &Type::Any, "the value");
                None
            }
            ExprKind::Literal(_) => None,
            ExprKind::Index { value, index, .. } => {
                self.type_of(index);
                let value = self.type_of(value)?;
                Some(element_type(&value))
            }
            ExprKind::Call { callee, arguments, .. } => {
                if let Constant::Wrong(error) = constant(expr, self.types) {
                    self.error(error.span, codes::EVALUATION, error.message, error.help);
                    return None;
                }
                for argument in arguments {
                    self.expression(argument, &Type::Any, "the argument");
                }
                self.call_type(expr.span, callee, arguments.len())
            }
            ExprKind::Unary { op, operand } => {
                self.type_of(operand);
                Some(if *op == UnaryOp::Not { Type::Bool } else { Type::Number })
            }
            ExprKind::Binary { op, left, right, .. } => {
                let (left, right) = (self.type_of(left), self.type_of(right));
                match op {
                    // Text, if either is; with a secret in it, a secret.
                    BinaryOp::Add if [left, right].into_iter().flatten().any(|ty| is_text(&ty)) => {
                        Some(Type::OptionalSecret)
                    }
                    BinaryOp::Add => None,
                    BinaryOp::Subtract
                    | BinaryOp::Multiply
                    | BinaryOp::Divide
                    | BinaryOp::Modulo
                    | BinaryOp::Power => Some(Type::Number),
                    _ => Some(Type::Bool),
                }
            }
        }
    }

    /// The type a call gives. Text may be secret: with a secret among the arguments it is.
    fn call_type(&mut self, span: Span, callee: &Expr, arguments: usize) -> Option<Type> {
        let names = path(callee);
        let hidden = names.as_deref().is_none_or(|names| self.types.type_of(names) != TypeLookup::Unknown);
        self.type_of(callee);
        if hidden {
            return None;
        }
        let name = names?.join(".");
        if let Some(message) = stdlib::arity_error(&name, arguments) {
            self.error(span, codes::EVALUATION, format!("{name}: {message}"), None);
        }
        match stdlib::result_type(&name) {
            Type::Any => None,
            Type::String => Some(Type::OptionalSecret),
            Type::List(element) if *element == Type::String => Some(Type::list(Type::OptionalSecret)),
            result => Some(result),
        }
    }

    fn path_type(&mut self, expr: &Expr) -> Option<Type> {
        let Some(names) = path(expr) else {
            if let ExprKind::Access { value, name } = &expr.kind {
                let value = self.type_of(value)?;
                return Some(field_type(&value, &name.name));
            }
            return None;
        };
        match self.types.type_of(&names) {
            TypeLookup::Known(mut ty, taken) => {
                for name in names.iter().skip(taken) {
                    if let Type::Object(known) = &ty
                        && !known.is_empty()
                        && !known.iter().any(|(known, _)| known == name)
                    {
                        let help = nearest(name, known.iter().map(|(known, _)| *known));
                        let help = help.map(|near| format!("did you mean \"{near}\"?"));
                        let message = format!("field \"{name}\" does not exist");
                        self.error(expr.span, codes::UNKNOWN_REFERENCE, message, help);
                        return None;
                    }
                    ty = field_type(&ty, name);
                }
                Some(ty)
            }
            TypeLookup::Missing { message, nearest } => {
                let help = nearest.map(|near| format!("did you mean \"{near}\"?"));
                self.error(expr.span, codes::UNKNOWN_REFERENCE, message, help);
                None
            }
            TypeLookup::Unknown => {
                self.library_name(&names, expr.span);
                None
            }
        }
    }

    /// A name within a namespace of the standard library must exist.
    fn library_name(&mut self, names: &[&str], span: Span) {
        let [space, name, ..] = names else { return };
        if let Some(Value::Object(object)) = stdlib::lookup(space)
            && object.get(name).is_none()
        {
            let help = nearest(name, object.keys().map(|key| &**key));
            let help = help.map(|near| format!("did you mean \"{space}.{near}\"?"));
            self.error(span, codes::UNKNOWN_REFERENCE, format!("\"{space}\" has no \"{name}\""), help);
        }
    }
}

fn suggestion(wrong: &str, fields: &[Field]) -> Option<String> {
    let mut names: Vec<String> = Vec::new();
    for field in fields {
        match field.kind {
            FieldKind::EnumBlocks => {
                names.extend(field.nested().iter().map(|kind| format!("{}.{}", field.name, kind.name)));
            }
            FieldKind::Label => {}
            FieldKind::Attribute | FieldKind::Block => names.push(field.name.to_owned()),
        }
    }
    nearest(wrong, names.iter().map(String::as_str)).map(|name| format!("did you mean \"{name}\"?"))
}

fn secret_help(got: &Type, wanted: &Type) -> Option<String> {
    let secret = matches!(got, Type::Secret) && !matches!(wanted, Type::Bool | Type::List(_) | Type::Map(_));
    secret.then(|| "convert.nonsensitive gives the plain text of a secret".to_owned())
}

/// The names of a chain `a.b.c`.
fn path(expr: &Expr) -> Option<Vec<&str>> {
    path_of(expr).map(|names| names.into_iter().map(|(name, _)| name).collect())
}

/// Whether a value of the type is text.
fn is_text(ty: &Type) -> bool {
    matches!(
        ty,
        Type::String
            | Type::Secret
            | Type::OptionalSecret
            | Type::LiveText
            | Type::Enum(_)
            | Type::Duration
            | Type::ByteSize
    )
}

//! Takes evaluated bodies apart into argument structs. Every error of a body is reported, not the first; derived code
//! drives it field by field.

use std::collections::HashSet;

use crate::arguments::{Arguments, BlockEnum, DecodeError, codes};
use crate::convert::{ConvertError, FromValue};
use crate::diagnostic::nearest;
use crate::evaluate::{EvaluatedAttribute, EvaluatedBlock, EvaluatedBody};
use crate::schema::Type;
use crate::span::Span;
use crate::value::Value;

/// What decoding a body came to.
pub(crate) enum Decoded<A> {
    /// Arguments in full.
    Complete(A),
    /// Arguments in which the named fields, capsules or lists of them, are not known yet and empty.
    Partial(A, Vec<&'static str>),
    /// Nothing, because something is not known yet; as far as can be said it is right.
    Unknown,
    /// Nothing, because something is wrong.
    Failed,
}

/// The arguments from a body with the label of its block; errors of the body as a whole point at `header`.
pub fn decode_labelled<A: Arguments>(
    body: &EvaluatedBody,
    label: Option<(&str, Span)>,
    header: Span,
    errors: &mut Vec<DecodeError>,
) -> Option<A> {
    match decode_as_known(body, label, header, errors) {
        Decoded::Complete(arguments) => Some(arguments),
        _ => None,
    }
}

/// As [`decode_labelled`], of a body in which not everything is known yet: what is known is judged.
pub(crate) fn decode_as_known<A: Arguments>(
    body: &EvaluatedBody,
    label: Option<(&str, Span)>,
    header: Span,
    errors: &mut Vec<DecodeError>,
) -> Decoded<A> {
    let before = errors.len();
    let mut arguments = A::defaults();
    let mut decoder = BodyDecoder::new(body, label, header, errors);
    arguments.decode_fields(&mut decoder);
    let (incomplete, empty) = (decoder.incomplete, std::mem::take(&mut decoder.empty));
    decoder.finish();
    if errors.len() > before {
        return Decoded::Failed;
    }
    if incomplete {
        return Decoded::Unknown;
    }
    let mut problems = arguments.validate_fields();
    if !empty.is_empty() {
        // What is said of a field that is empty only because it is not known, or of no field, may not be so.
        problems.retain(|problem| problem.field.is_some_and(|field| !empty.contains(&field)));
    }
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
    match (problems.is_empty(), empty.is_empty()) {
        (false, _) => Decoded::Failed,
        (true, true) => Decoded::Complete(arguments),
        (true, false) => Decoded::Partial(arguments, empty),
    }
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
    /// Whether a field has a value that is not known yet.
    incomplete: bool,
    /// Fields that hold capsules which are not known yet.
    empty: Vec<&'static str>,
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
            incomplete: false,
            empty: Vec::new(),
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
            Err(_) if first.value.has_unknown() => match T::value_type() {
                Type::Capsule(_) => self.empty.push(name),
                Type::List(element) if matches!(*element, Type::Capsule(_)) => self.empty.push(name),
                _ => self.incomplete = true,
            },
            Err(error) => self.conversion(first, &error),
        }
    }

    /// The arguments of a nested block, unless something is wrong with them.
    fn nested<A: Arguments>(&mut self, name: &'static str, block: &EvaluatedBlock) -> Option<A> {
        let label = block.label.as_ref().map(|label| (&*label.text, label.span));
        match decode_as_known(&block.body, label, block.name_span(), self.errors) {
            Decoded::Complete(arguments) => Some(arguments),
            Decoded::Partial(arguments, _) => {
                self.empty.push(name);
                Some(arguments)
            }
            Decoded::Unknown => {
                self.incomplete = true;
                None
            }
            Decoded::Failed => None,
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
            && let Some(arguments) = self.nested(name, block)
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
            && let Some(arguments) = self.nested(name, block)
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
        *target = given.into_iter().filter_map(|block| self.nested(name, block)).collect();
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
                let before = self.errors.len();
                match E::decode_kind(kind, block, self.errors) {
                    Some(element) => elements.push(element),
                    None => self.incomplete |= self.errors.len() == before,
                }
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

//! Where lines are broken and what is lined up: the walk over the tree that tells the printer.
//!
//! What stood on lines of its own stays there, what stood on one line stays on one line; the walk looks at lines of the
//! source, never at widths.

use super::Rules;
use super::print::{Layout, Printer};
use crate::ast::{Attribute, Block, Body, Expr, ExprKind, Literal, ObjectField, Statement};
use crate::source::Source;
use crate::span::Span;

pub(super) struct Walker<'a> {
    pub(super) printer: Printer<'a>,
    pub(super) source: &'a Source,
}

impl Walker<'_> {
    pub(super) fn body(&mut self, body: &Body) {
        let mut previous_end = None;
        for statement in &body.statements {
            let start = self.printer.line(statement.span().start);
            if let Some(previous_end) = previous_end {
                let block = matches!(statement, Statement::Block(_));
                if block || start > previous_end + 1 {
                    self.printer.layout(Layout::Section);
                }
            }
            let last = match statement {
                Statement::Attribute(attribute) => {
                    self.attribute(attribute);
                    attribute.span.end - 1
                }
                Statement::Block(block) => {
                    self.block(block);
                    block.close.start
                }
            };
            let end = self.printer.line(last);
            self.printer.layout(if end > start { Layout::Section } else { Layout::Line });
            previous_end = Some(end);
        }
    }

    fn attribute(&mut self, attribute: &Attribute) {
        self.printer.at(attribute.name.span.start);
        self.printer.word(&attribute.name.name);
        self.assign();
        self.expression(&attribute.value);
    }

    fn assign(&mut self) {
        self.printer.layout(Layout::Align);
        self.printer.sign("=");
        self.printer.layout(Layout::Blank);
    }

    fn block(&mut self, block: &Block) {
        self.printer.at(block.span.start);
        self.block_name(block);
        if let Some(label) = &block.label {
            self.printer.layout(Layout::Blank);
            self.printer.at(label.span.start);
            self.printer.word(self.source.slice(label.span));
        }
        self.printer.layout(Layout::Blank);
        self.printer.at(block.open.start);
        self.printer.sign("{");
        self.printer.layout(Layout::Indent);
        if block.body.statements.is_empty() {
            self.printer.layout(Layout::Blank);
        } else {
            self.printer.layout(Layout::Section);
            self.body(&block.body);
        }
        self.printer.layout(Layout::Unindent);
        self.printer.at(block.close.start);
        self.printer.sign("}");
    }

    fn block_name(&mut self, block: &Block) {
        let written = self.source.slice(block.name_span());
        let letters: usize = block.name.iter().map(|part| part.name.len()).sum();
        if written.len() == letters + block.name.len() - 1 {
            return self.printer.word(written);
        }
        if self.printer.rules() == Rules::Alloy {
            return self.printer.word(&block.dotted_name());
        }
        for (index, part) in block.name.iter().enumerate() {
            if index > 0 {
                self.printer.word(".");
            }
            self.printer.at(part.span.start);
            self.printer.word(&part.name);
        }
    }

    fn expression(&mut self, expr: &Expr) {
        let start = expr.span.start;
        match &expr.kind {
            ExprKind::Literal(literal) => {
                self.printer.at(start);
                self.literal(literal, expr.span);
            }
            ExprKind::Identifier(name) => {
                self.printer.at(start);
                self.printer.word(name);
            }
            ExprKind::Array(elements) => self.array(elements, expr.span),
            ExprKind::Object(fields) => self.object(fields, expr.span),
            ExprKind::Access { value, name } => {
                self.expression(value);
                self.printer.sign(".");
                self.printer.exactly_at(name.span.start);
                self.printer.word(&name.name);
            }
            ExprKind::Index { value, open, index } => {
                self.expression(value);
                self.printer.at(open.start);
                self.printer.sign("[");
                self.expression(index);
                self.printer.at(expr.span.end - 1);
                self.printer.sign("]");
            }
            ExprKind::Call { callee, open, arguments } => {
                self.expression(callee);
                self.call(arguments, *open, expr.span.end - 1);
            }
            ExprKind::Unary { op, operand } => {
                self.printer.at(start);
                self.printer.sign(op.as_str());
                self.expression(operand);
            }
            ExprKind::Binary { op, op_span, left, right } => {
                self.expression(left);
                self.printer.layout(Layout::Blank);
                self.printer.at(op_span.start);
                self.printer.sign(op.as_str());
                self.printer.layout(Layout::Blank);
                self.expression(right);
            }
            ExprKind::Paren(inner) => {
                self.printer.exactly_at(start);
                self.printer.sign("(");
                self.expression(inner);
                self.printer.exactly_at(expr.span.end - 1);
                self.printer.sign(")");
            }
        }
    }

    fn literal(&mut self, literal: &Literal, span: Span) {
        let written = self.source.slice(span);
        match literal {
            Literal::Number { .. } => self.printer.number(written),
            Literal::String { .. } => self.printer.string(written),
            Literal::Null | Literal::Bool(_) | Literal::Float { .. } => self.printer.word(written),
        }
    }

    fn array(&mut self, elements: &[Expr], span: Span) {
        self.printer.at(span.start);
        self.printer.sign("[");
        let mut previous = span.start;
        for (index, element) in elements.iter().enumerate() {
            let breaks = self.on_other_lines(previous, element.span.start);
            if breaks {
                // Deeper before the line ends, so that comments before the element are as deep as it is.
                self.printer.layout(Layout::Indent);
                self.printer.layout(Layout::Section);
            } else if index > 0 {
                self.printer.layout(Layout::Blank);
            }
            self.expression(element);
            previous = element.span.end - 1;
            if index + 1 < elements.len() {
                self.printer.sign(",");
            }
            if breaks {
                self.printer.layout(Layout::Unindent);
            }
        }
        let close = span.end - 1;
        if !elements.is_empty() && self.on_other_lines(previous, close) {
            self.printer.sign(",");
            for layout in [Layout::Indent, Layout::Section, Layout::Unindent] {
                self.printer.layout(layout);
            }
        }
        self.printer.at(close);
        self.printer.sign("]");
    }

    fn object(&mut self, fields: &[ObjectField], span: Span) {
        self.printer.at(span.start);
        self.printer.sign("{");
        self.printer.layout(Layout::Indent);
        // Where the name of the previous field ends; that of its value does not matter.
        let mut previous = span.start;
        let mut previous_is_one_line = false;
        for (index, field) in fields.iter().enumerate() {
            let name = field.name.span;
            if self.on_other_lines(previous, name.start) {
                self.printer.layout(if previous_is_one_line { Layout::Line } else { Layout::Section });
            } else if index > 0 {
                self.printer.layout(Layout::Blank);
            }
            // Only a raw name has several lines; Alloy forgets its quotes, and so may miss the last.
            previous = match self.printer.rules() {
                Rules::Alloy => (name.start + u32::try_from(field.name.name.len()).unwrap_or(0)).max(1) - 1,
                Rules::Exact => name.end - 1,
            };
            self.printer.at(name.start);
            self.field_name(field);
            self.assign();
            self.expression(&field.value);
            if index + 1 < fields.len() {
                self.printer.sign(",");
            }
            let value = field.value.span;
            previous_is_one_line = !self.on_other_lines(value.start, value.end - 1);
        }
        let close = span.end - 1;
        if !fields.is_empty() && self.on_other_lines(previous, close) {
            self.printer.sign(",");
            self.printer.layout(Layout::Section);
        }
        self.printer.layout(Layout::Unindent);
        self.printer.at(close);
        self.printer.sign("}");
    }

    /// The name of a field. Escapes in it are part of the name and stay as they are; backticks turn into quotes where
    /// that keeps the name.
    fn field_name(&mut self, field: &ObjectField) {
        if !field.quoted {
            return self.printer.word(&field.name.name);
        }
        let written = self.source.slice(field.name.span);
        let inside = &*field.name.name;
        let needs_backticks = |byte: u8| matches!(byte, b'\\' | b'"') || byte < b' ' || byte == 0x7f;
        if written.starts_with('`') && written.len() > 2 && !inside.bytes().any(needs_backticks) {
            self.printer.word(&format!("\"{inside}\""));
        } else {
            self.printer.string(written);
        }
    }

    fn call(&mut self, arguments: &[Expr], open: Span, close: u32) {
        self.printer.sign("(");
        let mut previous = open.start;
        for (index, argument) in arguments.iter().enumerate() {
            let breaks = self.on_other_lines(previous, argument.span.start);
            if breaks {
                self.printer.layout(Layout::Section);
                self.printer.layout(Layout::Indent);
            }
            self.expression(argument);
            previous = argument.span.end - 1;
            if index + 1 < arguments.len() {
                self.printer.sign(",");
                self.printer.layout(Layout::Blank);
            }
            if breaks {
                self.printer.layout(Layout::Unindent);
            }
        }
        if !arguments.is_empty() && self.on_other_lines(previous, close) {
            self.printer.sign(",");
            self.printer.layout(Layout::Section);
        }
        self.printer.exactly_at(close);
        self.printer.sign(")");
    }

    fn on_other_lines(&mut self, a: u32, b: u32) -> bool {
        self.printer.line(a) != self.printer.line(b)
    }
}

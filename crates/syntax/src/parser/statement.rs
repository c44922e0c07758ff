//! Bodies, attributes and blocks.

use super::recovery::Boundary;
use super::{Parsed, Parser, Reported};
use crate::ast::{Attribute, Block, BlockLabel, Body, Ident, Statement};
use crate::codes;
use crate::diagnostic::Diagnostic;
use crate::lexer::{TokenKind, is_identifier};
use crate::span::Span;

/// What precedes `=` or `{`.
struct Head {
    name: Vec<Ident>,
    label: Option<BlockLabel>,
    /// The label as written, also when it is empty or wrong.
    label_span: Option<Span>,
}

impl Parser<'_> {
    pub(super) fn file_body(&mut self) -> Body {
        let mut statements = Vec::new();
        loop {
            statements.append(&mut self.body().statements);
            if self.at(TokenKind::EndOfFile) {
                return Body { statements };
            }
            // A brace that closes nothing.
            let Err(Reported) = self.expected_identifier() else { continue };
            self.advance();
        }
    }

    /// Statements up to, not including, a `}` or the end of the file.
    pub(super) fn body(&mut self) -> Body {
        let mut body = Body::default();
        loop {
            while self.at(TokenKind::Terminator) {
                self.advance();
            }
            if matches!(self.kind(), TokenKind::CloseBrace | TokenKind::EndOfFile) {
                return body;
            }
            match self.statement().and_then(|statement| self.end_of_statement().map(|()| statement)) {
                Ok(statement) => body.statements.push(statement),
                Err(Reported) => self.skip_to(Boundary::Statement),
            }
        }
    }

    fn end_of_statement(&mut self) -> Parsed<()> {
        let token = self.token();
        match token.kind {
            TokenKind::Terminator => {
                self.advance();
                Ok(())
            }
            TokenKind::EndOfFile => Ok(()),
            TokenKind::CloseBrace if self.nesting > 0 => Ok(()),
            kind => {
                let diagnostic =
                    Diagnostic::error(codes::EXPECTED_TERMINATOR, format!("expected TERMINATOR, got {kind}"))
                        .with_label(self.source, token.span, "")
                        .with_help("each statement stands on its own line");
                Err(self.report(diagnostic))
            }
        }
    }

    fn statement(&mut self) -> Parsed<Statement> {
        let head = self.head()?;
        match self.kind() {
            TokenKind::Assign => self.attribute(head).map(Statement::Attribute),
            TokenKind::OpenBrace => self.block(head).map(Statement::Block),
            kind => {
                let (code, expected) = if head.name.len() == 1 && head.label.is_none() {
                    (codes::EXPECTED_STATEMENT_BODY, "attribute assignment or block body")
                } else {
                    (codes::EXPECTED_BLOCK_BODY, "block body")
                };
                Err(self.error(self.token().span, code, format!("expected {expected}, got {kind}")))
            }
        }
    }

    fn expected_identifier(&mut self) -> Parsed<Ident> {
        let token = self.token();
        if token.kind != TokenKind::Identifier {
            let message = format!("expected identifier, got {}", token.kind);
            return Err(self.error(token.span, codes::EXPECTED_IDENTIFIER, message));
        }
        self.advance();
        Ok(Ident { name: self.text(token).into(), span: token.span })
    }

    fn head(&mut self) -> Parsed<Head> {
        let mut name = vec![self.expected_identifier()?];
        while self.at(TokenKind::Dot) {
            self.advance();
            match (self.expected_identifier(), self.kind()) {
                (Ok(part), _) => name.push(part),
                // What follows may still have errors of its own.
                (Err(Reported), TokenKind::Bool | TokenKind::Null) => {
                    self.advance();
                }
                (Err(Reported), TokenKind::OpenBrace | TokenKind::String | TokenKind::Assign) => {}
                (Err(reported), _) => return Err(reported),
            }
        }
        let (label, label_span) = match self.kind() {
            TokenKind::Assign | TokenKind::OpenBrace => (None, None),
            TokenKind::String => (self.label(), Some(self.advance().span)),
            kind => {
                let span = self.token().span;
                let reported = self.error(
                    span,
                    codes::EXPECTED_BLOCK_LABEL,
                    format!("expected block label, got {kind}"),
                );
                if self.ahead(1).kind != TokenKind::OpenBrace {
                    return Err(reported);
                }
                self.advance();
                (None, None)
            }
        };
        Ok(Head { name, label, label_span })
    }

    /// Judges the string at the cursor as a label, without consuming it. An empty one is no label.
    fn label(&mut self) -> Option<BlockLabel> {
        let token = self.token();
        let written = self.text(token);
        if written.starts_with('`') {
            let message = format!("expected block label to be a double quoted string, but got {written:?}");
            self.error(token.span, codes::LABEL_NOT_DOUBLE_QUOTED, message);
            return None;
        }
        let text = written.get(1..written.len().saturating_sub(1)).unwrap_or_default();
        if text.is_empty() {
            return None;
        }
        if !is_identifier(text) {
            let diagnostic = Diagnostic::error(
                codes::LABEL_NOT_IDENTIFIER,
                format!("expected block label to be a valid identifier, but got {text:?}"),
            )
            .with_label(self.source, token.span, "")
            .with_help("use letters, digits and underscores, not beginning with a digit");
            self.report(diagnostic);
        }
        Some(BlockLabel { text: text.into(), span: token.span })
    }

    fn attribute(&mut self, head: Head) -> Parsed<Attribute> {
        self.advance();
        let mut parts = head.name.into_iter();
        let (Some(name), extra) = (parts.next(), parts.next_back()) else { return Err(Reported) };
        if let Some(last) = extra {
            let message = "attribute names may only consist of a single identifier with no \".\"";
            self.error(name.span.to(last.span), codes::DOTTED_ATTRIBUTE, message);
        } else if let Some(label) = head.label_span {
            self.error(label, codes::LABELLED_ATTRIBUTE, "attribute names may not have labels");
        }
        let value = self.expression()?;
        let span = name.span.to(value.span);
        Ok(Attribute { name, value, span })
    }

    fn block(&mut self, head: Head) -> Parsed<Block> {
        let open = self.advance();
        let (body, close) = self.nested(open.span, |parser| {
            let body = parser.body();
            Ok((body, parser.close(open)?))
        })?;
        let start = head.name.first().map_or(open.span, |first| first.span);
        Ok(Block {
            name: head.name,
            label: head.label,
            body,
            open: open.span,
            close: close.span,
            span: start.to(close.span),
        })
    }

    /// A block where a value should be. Reports it and whatever is wrong inside.
    pub(super) fn block_as_expression(&mut self, start: Span) -> Parsed<Span> {
        if self.at(TokenKind::String) {
            self.advance();
        }
        let open = self.expect(TokenKind::OpenBrace)?;
        let close = self.nested(open.span, |parser| {
            parser.body();
            parser.close(open)
        })?;
        let span = start.to(close.span);
        let diagnostic = Diagnostic::error(codes::BLOCK_AS_EXPRESSION, "cannot use a block as an expression")
            .with_label(self.source, span, "")
            .with_help("move the block out of the assignment and refer to its export by name");
        self.report(diagnostic);
        Ok(span)
    }
}

//! From tokens to the tree: recursive descent with recovery, so that one pass reports every independent error.
//!
//! This file holds the entry points and the cursor; statements, expressions and recovery have files of their own.

use std::fmt;
use std::sync::Arc;

use crate::ast::{Expr, File};
use crate::codes;
use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::lexer::{Lexed, Token, TokenKind, lex};
use crate::limits::{MAX_DIAGNOSTICS, MAX_EXPRESSION_HEIGHT, MAX_NESTING, MAX_SOURCE_BYTES};
use crate::source::Source;
use crate::span::Span;

mod encoding;
mod expression;
mod recovery;
mod statement;

pub use encoding::{decode_bytes, parse_bytes};

/// Parses a file. All independent errors are reported, at most one a line; any error means there is no tree.
#[must_use]
pub fn parse_file(source: Arc<Source>) -> (Option<File>, Diagnostics) {
    if let Some(refusal) = too_large(&source) {
        return (None, refusal.into());
    }
    let lexed = lex(&source.text);
    let mut parser = Parser::new(&source, &lexed);
    let body = parser.file_body();
    let diagnostics = parser.finish();
    if diagnostics.has_errors() {
        return (None, diagnostics);
    }
    (Some(File { source, body, comments: lexed.comments }), diagnostics)
}

/// Parses a single expression.
///
/// # Errors
/// Everything that is wrong with it.
pub fn parse_expression(source: Arc<Source>) -> Result<Expr, Diagnostics> {
    if let Some(refusal) = too_large(&source) {
        return Err(refusal.into());
    }
    let lexed = lex(&source.text);
    let mut parser = Parser::new(&source, &lexed);
    let expression = parser.whole_expression();
    let diagnostics = parser.finish();
    match expression {
        Ok(expression) if !diagnostics.has_errors() => Ok(expression),
        _ => Err(diagnostics),
    }
}

fn too_large(source: &Arc<Source>) -> Option<Diagnostic> {
    let bytes = source.text.len();
    (bytes > MAX_SOURCE_BYTES).then(|| {
        Diagnostic::error(
            codes::TOO_LARGE,
            format!("the text has {bytes} bytes, more than the {MAX_SOURCE_BYTES} a configuration may have"),
        )
        .with_label(source, Span::at(0), "")
    })
}

/// Proof that an error has been reported; whoever holds it only has to find a place to go on from.
#[derive(Copy, Clone, Debug)]
struct Reported;

type Parsed<T> = Result<T, Reported>;

struct Parser<'a> {
    source: &'a Arc<Source>,
    lexed: &'a Lexed,
    /// Index of the current token; never past the end-of-file token.
    cursor: usize,
    /// Blocks, brackets and operators open around the cursor.
    nesting: u32,
    errors: Vec<Diagnostic>,
    /// The line of the latest error, which takes no second one.
    last_error_line: u32,
    /// Errors beyond [`MAX_DIAGNOSTICS`].
    unlisted: usize,
}

impl<'a> Parser<'a> {
    fn new(source: &'a Arc<Source>, lexed: &'a Lexed) -> Self {
        Self { source, lexed, cursor: 0, nesting: 0, errors: Vec::new(), last_error_line: 0, unlisted: 0 }
    }

    // === cursor ===

    fn token(&self) -> Token {
        self.ahead(0)
    }

    fn kind(&self) -> TokenKind {
        self.token().kind
    }

    /// The token `count` places on; past the end, the end-of-file token.
    fn ahead(&self, count: usize) -> Token {
        let tokens = &self.lexed.tokens;
        match tokens.get(self.cursor + count) {
            Some(token) => *token,
            None => tokens.last().copied().unwrap_or(Token {
                kind: TokenKind::EndOfFile,
                span: Span::default(),
                on_new_line: false,
            }),
        }
    }

    fn at(&self, kind: TokenKind) -> bool {
        self.kind() == kind
    }

    /// Consumes the current token.
    fn advance(&mut self) -> Token {
        let token = self.token();
        if token.kind != TokenKind::EndOfFile {
            self.cursor += 1;
        }
        token
    }

    fn expect(&mut self, kind: TokenKind) -> Parsed<Token> {
        if self.at(kind) { Ok(self.advance()) } else { Err(self.unexpected(kind)) }
    }

    /// Consumes the bracket that closes `open`.
    fn close(&mut self, open: Token) -> Parsed<Token> {
        let closing = open.kind.closing().unwrap_or(TokenKind::EndOfFile);
        if self.at(closing) {
            return Ok(self.advance());
        }
        let reported = self.unclosed(open, closing);
        if self.at(TokenKind::Terminator) && self.ahead(1).kind == closing {
            // Only the line break is wrong.
            self.advance();
            return Ok(self.advance());
        }
        Err(reported)
    }

    fn text(&self, token: Token) -> &'a str {
        self.source.slice(token.span)
    }

    // === limits ===

    /// Runs `parse` one level deeper, unless that is too deep.
    fn nested<T>(&mut self, at: Span, parse: impl FnOnce(&mut Self) -> Parsed<T>) -> Parsed<T> {
        if self.nesting >= MAX_NESTING {
            return Err(self.error(
                at,
                codes::TOO_DEEP,
                format!("more than {MAX_NESTING} levels of nesting"),
            ));
        }
        self.nesting += 1;
        let parsed = parse(self);
        self.nesting -= 1;
        parsed
    }

    /// The height of an expression whose highest part has height `highest`.
    fn above(&mut self, highest: u32, at: Span) -> Parsed<u32> {
        if highest >= MAX_EXPRESSION_HEIGHT {
            let message = format!("an expression of more than {MAX_EXPRESSION_HEIGHT} terms");
            return Err(self.error(at, codes::TOO_DEEP, message));
        }
        Ok(highest + 1)
    }

    // === errors ===

    fn error(&mut self, span: Span, code: &'static str, message: impl Into<String>) -> Reported {
        let diagnostic = Diagnostic::error(code, message).with_label(self.source, span, "");
        self.report(diagnostic)
    }

    fn report(&mut self, diagnostic: Diagnostic) -> Reported {
        let Some(label) = diagnostic.primary() else { return Reported };
        if self.lexed.unterminated && label.span.start as usize >= self.source.text.len() {
            // What is missing here was swallowed by an unterminated string or comment, which has been reported.
            return Reported;
        }
        let line = self.source.position(label.span.start).line;
        if line != self.last_error_line {
            self.last_error_line = line;
            if self.errors.len() < MAX_DIAGNOSTICS {
                self.errors.push(diagnostic);
            } else {
                self.unlisted += 1;
            }
        }
        Reported
    }

    fn unexpected(&mut self, expected: impl fmt::Display) -> Reported {
        let Token { kind, span, .. } = self.token();
        self.error(span, codes::UNEXPECTED_TOKEN, format!("expected {expected}, got {kind}"))
    }

    /// Something stands where `closing` should close `open`.
    fn unclosed(&mut self, open: Token, closing: TokenKind) -> Reported {
        let Token { kind, span, .. } = self.token();
        let mut diagnostic =
            Diagnostic::error(codes::UNEXPECTED_TOKEN, format!("expected {closing}, got {kind}"))
                .with_label(self.source, span, "")
                .with_label(self.source, open.span, format!("this `{}` is not closed", open.kind));
        if kind == TokenKind::Terminator {
            diagnostic =
                diagnostic.with_help("an expression goes on after a line break only behind an operator");
        }
        self.report(diagnostic)
    }

    /// Everything that was found wrong, in order, one a line.
    fn finish(self) -> Diagnostics {
        let end = self.lexed.tokens.last().map(|token| token.span).unwrap_or_default();
        let lexical = self.lexed.errors.iter().take(MAX_DIAGNOSTICS + 1).map(|error| {
            Diagnostic::error(error.code, error.message.clone()).with_label(self.source, error.span, "")
        });
        // Lexical errors first: where both name the same place, the parser only met what the lexer left.
        let mut found: Vec<(Span, Diagnostic)> = lexical
            .chain(self.errors)
            .map(|diagnostic| (diagnostic.primary().map(|label| label.span).unwrap_or_default(), diagnostic))
            .collect();
        found.sort_by_key(|(span, _)| span.start);
        let mut last_line = 0;
        let mut diagnostics = Diagnostics::new();
        let mut unlisted = self.unlisted;
        for (span, diagnostic) in found {
            let line = self.source.position(span.start).line;
            if line != last_line {
                last_line = line;
                if diagnostics.len() < MAX_DIAGNOSTICS {
                    diagnostics.push(diagnostic);
                } else {
                    unlisted += 1;
                }
            }
        }
        if unlisted > 0 {
            let message = format!("too many errors: only the first {MAX_DIAGNOSTICS} are listed");
            diagnostics.push(Diagnostic::error(codes::TOO_MANY_ERRORS, message).with_label(
                self.source,
                end,
                "",
            ));
        }
        diagnostics
    }
}

#[cfg(test)]
mod tests;

//! Where to go on after an error: forward only, so that recovery costs no more than reading the rest once.

use super::Parser;
use crate::lexer::TokenKind;

/// How far to skip.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) enum Boundary {
    /// To the end of the statement, the next one, or the brace that closes the body.
    Statement,
    /// To the end of the list element: a comma, a line end, or the bracket that closes the list.
    Element,
}

/// Longest dotted name that recovery looks ahead over.
const LOOKAHEAD: usize = 32;

impl Parser<'_> {
    /// Skips to the boundary, stepping over whole brackets; stands before it afterwards.
    pub(super) fn skip_to(&mut self, boundary: Boundary) {
        let mut open: Vec<TokenKind> = Vec::new();
        loop {
            let token = self.token();
            match token.kind {
                TokenKind::EndOfFile => return,
                TokenKind::Terminator if open.is_empty() => return,
                TokenKind::Comma if open.is_empty() && boundary == Boundary::Element => return,
                TokenKind::Identifier if token.on_new_line && open.is_empty() => match boundary {
                    Boundary::Statement => return,
                    Boundary::Element if self.at_statement_head(true) => return,
                    Boundary::Element => {}
                },
                TokenKind::OpenBrace | TokenKind::OpenBracket | TokenKind::OpenParen => open.push(token.kind),
                TokenKind::CloseBrace => {
                    // Closes the nearest open brace, over any other brackets left open inside.
                    while open.pop_if(|bracket| *bracket != TokenKind::OpenBrace).is_some() {}
                    if open.pop().is_none() {
                        return;
                    }
                }
                TokenKind::CloseBracket | TokenKind::CloseParen => {
                    if open.is_empty() && boundary == Boundary::Element {
                        return;
                    }
                    open.pop_if(|bracket| bracket.closing() == Some(token.kind));
                }
                _ => {}
            }
            self.advance();
        }
    }

    /// Whether a line begins here with what can only be a statement: the list around the cursor was never closed. In an
    /// object `name =` is a field, elsewhere it is a statement too.
    pub(super) fn at_statement_head(&self, in_object: bool) -> bool {
        let first = self.token();
        if first.kind != TokenKind::Identifier || !first.on_new_line {
            return false;
        }
        let mut next = 1;
        while next < LOOKAHEAD
            && self.ahead(next).kind == TokenKind::Dot
            && self.ahead(next + 1).kind == TokenKind::Identifier
        {
            next += 2;
        }
        match self.ahead(next).kind {
            TokenKind::Assign => next == 1 && !in_object,
            TokenKind::OpenBrace => true,
            TokenKind::String => self.ahead(next + 1).kind == TokenKind::OpenBrace,
            _ => false,
        }
    }
}

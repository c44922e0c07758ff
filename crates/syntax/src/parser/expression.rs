//! Expressions: operator precedence, postfix chains, literals, lists.

use super::recovery::Boundary;
use super::{Parsed, Parser, Reported};
use crate::ast::{BinaryOp, Expr, ExprKind, Ident, Literal, ObjectField, UnaryOp};
use crate::codes;
use crate::diagnostic::Diagnostic;
use crate::lexer::{Token, TokenKind, unescape};

/// An expression and the height of its tree.
struct Tree {
    expr: Expr,
    height: u32,
}

/// The elements between two brackets.
struct List<T> {
    elements: Vec<T>,
    /// Height of the highest element.
    height: u32,
    close: Token,
}

impl Parser<'_> {
    pub(super) fn expression(&mut self) -> Parsed<Expr> {
        Ok(self.binary(1)?.expr)
    }

    /// An expression and nothing else.
    pub(super) fn whole_expression(&mut self) -> Parsed<Expr> {
        let expression = self.expression()?;
        while self.at(TokenKind::Terminator) {
            self.advance();
        }
        self.expect(TokenKind::EndOfFile)?;
        Ok(expression)
    }

    /// Operators that bind at least as tightly as `minimum`, by precedence climbing.
    fn binary(&mut self, minimum: u8) -> Parsed<Tree> {
        let mut left = self.unary()?;
        loop {
            let operator = self.token();
            let Some(op) = operator.kind.binary_operator().filter(|op| op.precedence() >= minimum) else {
                return Ok(left);
            };
            self.advance();
            let right_associative = op == BinaryOp::Power;
            let right = if right_associative {
                self.nested(operator.span, |parser| parser.binary(op.precedence()))?
            } else {
                self.binary(op.precedence() + 1)?
            };
            let height = self.above(left.height.max(right.height), operator.span)?;
            let span = left.expr.span.to(right.expr.span);
            let (left_expr, right_expr) = (Box::new(left.expr), Box::new(right.expr));
            let kind = ExprKind::Binary { op, op_span: operator.span, left: left_expr, right: right_expr };
            left = Tree { expr: Expr { kind, span }, height };
        }
    }

    fn unary(&mut self) -> Parsed<Tree> {
        let operator = self.token();
        let op = match operator.kind {
            TokenKind::Not => UnaryOp::Not,
            TokenKind::Minus => UnaryOp::Negate,
            _ => return self.postfix(),
        };
        self.advance();
        let operand = self.nested(operator.span, Self::unary)?;
        let height = self.above(operand.height, operator.span)?;
        let span = operator.span.to(operand.expr.span);
        Ok(Tree {
            expr: Expr { kind: ExprKind::Unary { op, operand: Box::new(operand.expr) }, span },
            height,
        })
    }

    fn postfix(&mut self) -> Parsed<Tree> {
        let mut tree = self.primary()?;
        loop {
            let token = self.token();
            tree = match token.kind {
                TokenKind::Dot => self.access(tree)?,
                TokenKind::OpenBracket => self.nested(token.span, |parser| parser.index(tree))?,
                TokenKind::OpenParen => self.nested(token.span, |parser| parser.call(tree))?,
                TokenKind::String | TokenKind::OpenBrace if self.looks_like_block(&tree.expr) => {
                    let span = self.block_as_expression(tree.expr.span)?;
                    Tree { expr: Expr { span, ..tree.expr }, ..tree }
                }
                _ => return Ok(tree),
            };
        }
    }

    /// Whether a block seems to begin with `name`, given that a string or `{` follows. A string that ends its list
    /// element is rather one after a missing comma.
    fn looks_like_block(&self, name: &Expr) -> bool {
        matches!(name.kind, ExprKind::Identifier(_) | ExprKind::Access { .. })
            && (self.at(TokenKind::OpenBrace)
                || !matches!(
                    self.ahead(1).kind,
                    TokenKind::Comma
                        | TokenKind::CloseBracket
                        | TokenKind::CloseParen
                        | TokenKind::CloseBrace
                ))
    }

    fn access(&mut self, value: Tree) -> Parsed<Tree> {
        self.advance();
        let member = self.token();
        if member.kind != TokenKind::Identifier {
            let reported = self.unexpected(TokenKind::Identifier);
            if !matches!(member.kind, TokenKind::Bool | TokenKind::Null) {
                return Err(reported);
            }
        }
        self.advance();
        let height = self.above(value.height, member.span)?;
        let span = value.expr.span.to(member.span);
        let name = Ident { name: self.text(member).into(), span: member.span };
        Ok(Tree { expr: Expr { kind: ExprKind::Access { value: Box::new(value.expr), name }, span }, height })
    }

    fn index(&mut self, value: Tree) -> Parsed<Tree> {
        let open = self.advance();
        let index = self.binary(1)?;
        let close = self.close(open)?;
        let height = self.above(value.height.max(index.height), open.span)?;
        let span = value.expr.span.to(close.span);
        let (value, index) = (Box::new(value.expr), Box::new(index.expr));
        Ok(Tree { expr: Expr { kind: ExprKind::Index { value, open: open.span, index }, span }, height })
    }

    fn call(&mut self, callee: Tree) -> Parsed<Tree> {
        let open = self.advance();
        let list = self.list(open, |parser| parser.binary(1).map(|tree| (tree.expr, tree.height)))?;
        let height = self.above(callee.height.max(list.height), open.span)?;
        let span = callee.expr.span.to(list.close.span);
        let callee = Box::new(callee.expr);
        let kind = ExprKind::Call { callee, open: open.span, arguments: list.elements };
        Ok(Tree { expr: Expr { kind, span }, height })
    }

    fn primary(&mut self) -> Parsed<Tree> {
        let token = self.token();
        let kind = match token.kind {
            TokenKind::Identifier => ExprKind::Identifier(self.text(token).into()),
            TokenKind::Null => ExprKind::Literal(Literal::Null),
            TokenKind::Bool => ExprKind::Literal(Literal::Bool(self.text(token) == "true")),
            TokenKind::Number => ExprKind::Literal(Literal::Number { text: self.text(token).into() }),
            TokenKind::Float => ExprKind::Literal(Literal::Float { text: self.text(token).into() }),
            TokenKind::String => ExprKind::Literal(self.string(token)),
            TokenKind::OpenParen => return self.nested(token.span, Self::paren),
            TokenKind::OpenBracket => return self.nested(token.span, Self::array),
            TokenKind::OpenBrace => return self.nested(token.span, Self::object),
            kind => {
                let message = format!("expected expression, got {kind}");
                return Err(self.error(token.span, codes::EXPECTED_EXPRESSION, message));
            }
        };
        self.advance();
        Ok(Tree { expr: Expr { kind, span: token.span }, height: 1 })
    }

    fn string(&self, token: Token) -> Literal {
        let written = self.text(token);
        let body = written.get(1..written.len().saturating_sub(1)).unwrap_or_default();
        if !written.starts_with('`') {
            // The lexer has reported escapes that are wrong; the value is then of no use to anyone.
            let value = unescape(body).map_or_else(|_| "".into(), |value| value.as_ref().into());
            return Literal::String { raw: false, value };
        }
        let value = if body.contains('\r') { body.replace('\r', "").into() } else { body.into() };
        Literal::String { raw: true, value }
    }

    fn paren(&mut self) -> Parsed<Tree> {
        let open = self.advance();
        let inner = self.binary(1)?;
        let close = self.close(open)?;
        let height = self.above(inner.height, open.span)?;
        let kind = ExprKind::Paren(Box::new(inner.expr));
        Ok(Tree { expr: Expr { kind, span: open.span.to(close.span) }, height })
    }

    fn array(&mut self) -> Parsed<Tree> {
        let open = self.advance();
        let list = self.list(open, |parser| parser.binary(1).map(|tree| (tree.expr, tree.height)))?;
        let height = self.above(list.height, open.span)?;
        let kind = ExprKind::Array(list.elements);
        Ok(Tree { expr: Expr { kind, span: open.span.to(list.close.span) }, height })
    }

    fn object(&mut self) -> Parsed<Tree> {
        let open = self.advance();
        let list = self.list(open, Self::field)?;
        let height = self.above(list.height, open.span)?;
        let kind = ExprKind::Object(list.elements);
        Ok(Tree { expr: Expr { kind, span: open.span.to(list.close.span) }, height })
    }

    fn field(&mut self) -> Parsed<(ObjectField, u32)> {
        let token = self.token();
        let written = self.text(token);
        let (name, quoted) = match token.kind {
            TokenKind::Identifier => (written, false),
            // The quotes of an empty key stay, as does every escape: so the language has it.
            TokenKind::String if written.len() > 2 => {
                let (quote, rest) = written.split_at(1);
                // One that is not closed ends with whatever comes last.
                (rest.strip_suffix(quote).unwrap_or(rest), true)
            }
            TokenKind::String => (written, true),
            kind => {
                let message = format!("expected field name (string or identifier), got {kind}");
                return Err(self.error(token.span, codes::EXPECTED_FIELD_NAME, message));
            }
        };
        let name = Ident { name: name.into(), span: token.span };
        self.advance();
        self.expect(TokenKind::Assign)?;
        let Tree { expr: value, height } = self.binary(1)?;
        let span = name.span.to(value.span);
        Ok((ObjectField { name, quoted, value, span }, height))
    }

    /// The elements after `open`, up to and including its closing bracket. Goes on after a wrong element with the next.
    fn list<T>(&mut self, open: Token, element: impl Fn(&mut Self) -> Parsed<(T, u32)>) -> Parsed<List<T>> {
        let in_object = open.kind == TokenKind::OpenBrace;
        let closing = open.kind.closing().unwrap_or(TokenKind::EndOfFile);
        let mut elements = Vec::new();
        let mut highest = 0;
        while !self.at(closing) {
            if self.at(TokenKind::EndOfFile) || self.at_statement_head(in_object) {
                return Err(self.unclosed(open, closing));
            }
            match element(self).and_then(|element| self.separator(open, closing).map(|()| element)) {
                Ok((element, height)) => {
                    highest = highest.max(height);
                    elements.push(element);
                }
                Err(Reported) => {
                    self.skip_to(Boundary::Element);
                    match self.kind() {
                        TokenKind::Comma | TokenKind::Terminator => {
                            self.advance();
                        }
                        kind if kind == closing => {}
                        _ => return Err(Reported),
                    }
                }
            }
        }
        Ok(List { elements, height: highest, close: self.advance() })
    }

    /// What stands between two elements, or before the closing bracket.
    fn separator(&mut self, open: Token, closing: TokenKind) -> Parsed<()> {
        let in_object = open.kind == TokenKind::OpenBrace;
        let token = self.token();
        match token.kind {
            TokenKind::Comma => {
                self.advance();
                return Ok(());
            }
            kind if kind == closing => return Ok(()),
            // Whatever is open ends here; the list itself says so.
            TokenKind::EndOfFile => return Ok(()),
            TokenKind::CloseBrace | TokenKind::CloseBracket | TokenKind::CloseParen => {
                return Err(self.unclosed(open, closing));
            }
            _ => {}
        }
        let (list, last) = if in_object { ("field list", "field") } else { ("expression list", "element") };
        let mut diagnostic = Diagnostic::error(codes::MISSING_COMMA, format!("missing ',' in {list}"))
            .with_label(self.source, token.span, "");
        if token.kind == TokenKind::Terminator {
            let help =
                format!("the last {last} needs a comma too when the closing bracket is on another line");
            diagnostic = diagnostic.with_help(help);
        }
        let reported = self.report(diagnostic);
        if token.kind == TokenKind::Terminator {
            self.advance();
            Ok(())
        } else if token.kind.starts_expression() {
            Ok(())
        } else {
            Err(reported)
        }
    }
}

//! The tokens of the language and the names by which messages call them.

use std::fmt;

use crate::ast::BinaryOp;
use crate::span::Span;

/// One token and its place.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Token {
    /// What it is.
    pub kind: TokenKind,
    /// Its place. A terminator covers its `\n`, or is empty where a comment or the end of the text stands in for it.
    pub span: Span,
    /// Whether a line break stands between the previous token and this one.
    pub on_new_line: bool,
}

/// The kinds of token. Comments are no tokens: the lexer lists them separately.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Hash)]
pub enum TokenKind {
    /// Text that is no token; a diagnostic has been recorded for it.
    Illegal,
    /// The end of the text.
    EndOfFile,
    /// The end of a statement: a significant line break.
    Terminator,
    /// A name.
    Identifier,
    /// Decimal digits.
    Number,
    /// Digits with a point, an exponent or both.
    Float,
    /// A string in double quotes or backticks.
    String,
    /// `true` or `false`.
    Bool,
    /// `null`.
    Null,
    /// `||`
    Or,
    /// `&&`
    And,
    /// `!`
    Not,
    /// `=`
    Assign,
    /// `==`
    Equal,
    /// `!=`
    NotEqual,
    /// `<`
    Less,
    /// `<=`
    LessOrEqual,
    /// `>`
    Greater,
    /// `>=`
    GreaterOrEqual,
    /// `+`
    Plus,
    /// `-`
    Minus,
    /// `*`
    Star,
    /// `/`
    Slash,
    /// `%`
    Percent,
    /// `^`
    Caret,
    /// `{`
    OpenBrace,
    /// `}`
    CloseBrace,
    /// `(`
    OpenParen,
    /// `)`
    CloseParen,
    /// `[`
    OpenBracket,
    /// `]`
    CloseBracket,
    /// `,`
    Comma,
    /// `.`
    Dot,
}

impl TokenKind {
    /// The name used in messages.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Illegal => "ILLEGAL",
            Self::EndOfFile => "EOF",
            Self::Terminator => "TERMINATOR",
            Self::Identifier => "IDENT",
            Self::Number => "NUMBER",
            Self::Float => "FLOAT",
            Self::String => "STRING",
            Self::Bool => "BOOL",
            Self::Null => "NULL",
            Self::Or => "||",
            Self::And => "&&",
            Self::Not => "!",
            Self::Assign => "=",
            Self::Equal => "==",
            Self::NotEqual => "!=",
            Self::Less => "<",
            Self::LessOrEqual => "<=",
            Self::Greater => ">",
            Self::GreaterOrEqual => ">=",
            Self::Plus => "+",
            Self::Minus => "-",
            Self::Star => "*",
            Self::Slash => "/",
            Self::Percent => "%",
            Self::Caret => "^",
            Self::OpenBrace => "{",
            Self::CloseBrace => "}",
            Self::OpenParen => "(",
            Self::CloseParen => ")",
            Self::OpenBracket => "[",
            Self::CloseBracket => "]",
            Self::Comma => ",",
            Self::Dot => ".",
        }
    }

    /// Whether a line break after this token ends the statement.
    #[must_use]
    pub const fn ends_statement(self) -> bool {
        matches!(
            self,
            Self::Identifier
                | Self::Number
                | Self::Float
                | Self::String
                | Self::Bool
                | Self::Null
                | Self::CloseBrace
                | Self::CloseParen
                | Self::CloseBracket
        )
    }

    /// Whether an expression can begin with this token.
    #[must_use]
    pub const fn starts_expression(self) -> bool {
        matches!(
            self,
            Self::Identifier
                | Self::Number
                | Self::Float
                | Self::String
                | Self::Bool
                | Self::Null
                | Self::Not
                | Self::Minus
                | Self::OpenBrace
                | Self::OpenParen
                | Self::OpenBracket
        )
    }

    /// The bracket that closes this one, if it is an opening bracket.
    #[must_use]
    pub const fn closing(self) -> Option<Self> {
        match self {
            Self::OpenBrace => Some(Self::CloseBrace),
            Self::OpenParen => Some(Self::CloseParen),
            Self::OpenBracket => Some(Self::CloseBracket),
            _ => None,
        }
    }

    /// The operator with two operands that this token stands for.
    #[must_use]
    pub const fn binary_operator(self) -> Option<BinaryOp> {
        Some(match self {
            Self::Or => BinaryOp::Or,
            Self::And => BinaryOp::And,
            Self::Equal => BinaryOp::Equal,
            Self::NotEqual => BinaryOp::NotEqual,
            Self::Less => BinaryOp::Less,
            Self::LessOrEqual => BinaryOp::LessOrEqual,
            Self::Greater => BinaryOp::Greater,
            Self::GreaterOrEqual => BinaryOp::GreaterOrEqual,
            Self::Plus => BinaryOp::Add,
            Self::Minus => BinaryOp::Subtract,
            Self::Star => BinaryOp::Multiply,
            Self::Slash => BinaryOp::Divide,
            Self::Percent => BinaryOp::Modulo,
            Self::Caret => BinaryOp::Power,
            _ => return None,
        })
    }
}

impl fmt::Display for TokenKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

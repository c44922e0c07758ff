//! The syntax tree. Every node has a span; together with [`crate::lexer`] over the same source nothing of the text is
//! lost, so a formatter can print comments and quoted names exactly as written.

use std::fmt;
use std::sync::Arc;

use crate::source::Source;
use crate::span::Span;

/// One parsed file.
#[derive(Clone, PartialEq, Debug)]
pub struct File {
    /// The text that all spans point into.
    pub source: Arc<Source>,
    /// The statements.
    pub body: Body,
    /// All comments, in the order of the text.
    pub comments: Vec<Comment>,
}

/// A comment with its delimiters.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Comment {
    /// From the first `/`; a line comment ends before its `\n`.
    pub span: Span,
    /// Which of the two forms.
    pub kind: CommentKind,
}

/// The form of a comment.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum CommentKind {
    /// `// …` to the end of the line.
    Line,
    /// `/* … */`.
    Block,
}

/// The statements of a file or between the braces of a block.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Body {
    /// In the order of the text.
    pub statements: Vec<Statement>,
}

impl Body {
    /// The attributes, in the order of the text.
    pub fn attributes(&self) -> impl Iterator<Item = &Attribute> {
        self.statements.iter().filter_map(|statement| match statement {
            Statement::Attribute(attribute) => Some(attribute),
            Statement::Block(_) => None,
        })
    }

    /// The blocks directly inside, in the order of the text.
    pub fn blocks(&self) -> impl Iterator<Item = &Block> {
        self.statements.iter().filter_map(|statement| match statement {
            Statement::Block(block) => Some(block),
            Statement::Attribute(_) => None,
        })
    }
}

/// One statement of a body.
#[derive(Clone, PartialEq, Debug)]
pub enum Statement {
    /// `name = value`.
    Attribute(Attribute),
    /// `name.name "label" { … }`.
    Block(Block),
}

impl Statement {
    /// The whole statement.
    #[must_use]
    pub const fn span(&self) -> Span {
        match self {
            Self::Attribute(attribute) => attribute.span,
            Self::Block(block) => block.span,
        }
    }
}

/// A name and where it stands.
#[derive(Clone, PartialEq, Eq, Debug, Hash)]
pub struct Ident {
    /// The name.
    pub name: Arc<str>,
    /// Its place.
    pub span: Span,
}

impl fmt::Display for Ident {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// `name = value`.
#[derive(Clone, PartialEq, Debug)]
pub struct Attribute {
    /// The name.
    pub name: Ident,
    /// The expression.
    pub value: Expr,
    /// From the name to the end of the value.
    pub span: Span,
}

/// `name.name "label" { … }`.
#[derive(Clone, PartialEq, Debug)]
pub struct Block {
    /// The parts of the dotted name, at least one.
    pub name: Vec<Ident>,
    /// The label, if there is one that is not empty.
    pub label: Option<BlockLabel>,
    /// What stands between the braces.
    pub body: Body,
    /// The opening brace.
    pub open: Span,
    /// The closing brace.
    pub close: Span,
    /// From the name to the closing brace.
    pub span: Span,
}

impl Block {
    /// The name with its dots, such as `prometheus.scrape`.
    #[must_use]
    pub fn dotted_name(&self) -> String {
        let mut name = String::new();
        for (index, part) in self.name.iter().enumerate() {
            if index > 0 {
                name.push('.');
            }
            name.push_str(&part.name);
        }
        name
    }

    /// The place of the whole dotted name.
    #[must_use]
    pub fn name_span(&self) -> Span {
        match (self.name.first(), self.name.last()) {
            (Some(first), Some(last)) => first.span.to(last.span),
            _ => Span::at(self.span.start),
        }
    }
}

/// The label of a block: a valid identifier in double quotes.
#[derive(Clone, PartialEq, Eq, Debug, Hash)]
pub struct BlockLabel {
    /// The text without the quotes.
    pub text: Arc<str>,
    /// The place, quotes included.
    pub span: Span,
}

/// An expression.
#[derive(Clone, PartialEq, Debug)]
pub struct Expr {
    /// What it is.
    pub kind: ExprKind,
    /// Its place.
    pub span: Span,
}

/// The forms of an expression.
#[derive(Clone, PartialEq, Debug)]
pub enum ExprKind {
    /// A literal value.
    Literal(Literal),
    /// A name.
    Identifier(Arc<str>),
    /// `[a, b]`.
    Array(Vec<Expr>),
    /// `{ a = 1, "b" = 2 }`.
    Object(Vec<ObjectField>),
    /// `value.name`.
    Access {
        /// Left of the dot.
        value: Box<Expr>,
        /// Right of the dot.
        name: Ident,
    },
    /// `value[index]`.
    Index {
        /// What is indexed.
        value: Box<Expr>,
        /// The opening bracket; the closing one is the last byte of the expression.
        open: Span,
        /// Between the brackets.
        index: Box<Expr>,
    },
    /// `callee(arguments)`.
    Call {
        /// What is called.
        callee: Box<Expr>,
        /// The opening parenthesis; the closing one is the last byte of the expression.
        open: Span,
        /// Between the parentheses.
        arguments: Vec<Expr>,
    },
    /// `!operand` or `-operand`; the operator is the first byte of the expression.
    Unary {
        /// Which.
        op: UnaryOp,
        /// What it applies to.
        operand: Box<Expr>,
    },
    /// `left op right`.
    Binary {
        /// Which.
        op: BinaryOp,
        /// The place of the operator.
        op_span: Span,
        /// The left operand.
        left: Box<Expr>,
        /// The right operand.
        right: Box<Expr>,
    },
    /// `(inner)`.
    Paren(Box<Expr>),
}

/// A literal value.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Literal {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// Decimal digits; a leading zero means octal where the digits allow it.
    Number {
        /// As written.
        text: Arc<str>,
    },
    /// Digits with a point, an exponent or both.
    Float {
        /// As written.
        text: Arc<str>,
    },
    /// A string.
    String {
        /// Written between backticks.
        raw: bool,
        /// The value: escapes resolved, carriage returns removed from raw strings.
        value: Arc<str>,
    },
}

/// One field of an object literal.
#[derive(Clone, PartialEq, Debug)]
pub struct ObjectField {
    /// The key. When quoted it is what stands between the quotes, escapes *not* resolved (the language is so), and its
    /// span holds the quotes.
    pub name: Ident,
    /// Whether the key is written as a string.
    pub quoted: bool,
    /// The value.
    pub value: Expr,
    /// From the key to the end of the value.
    pub span: Span,
}

/// Operators with one operand.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Hash)]
pub enum UnaryOp {
    /// `!`
    Not,
    /// `-`
    Negate,
}

impl UnaryOp {
    /// As written.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Not => "!",
            Self::Negate => "-",
        }
    }
}

/// Operators with two operands.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Hash)]
pub enum BinaryOp {
    /// `||`
    Or,
    /// `&&`
    And,
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
    Add,
    /// `-`
    Subtract,
    /// `*`
    Multiply,
    /// `/`
    Divide,
    /// `%`
    Modulo,
    /// `^`
    Power,
}

impl BinaryOp {
    /// As written.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Or => "||",
            Self::And => "&&",
            Self::Equal => "==",
            Self::NotEqual => "!=",
            Self::Less => "<",
            Self::LessOrEqual => "<=",
            Self::Greater => ">",
            Self::GreaterOrEqual => ">=",
            Self::Add => "+",
            Self::Subtract => "-",
            Self::Multiply => "*",
            Self::Divide => "/",
            Self::Modulo => "%",
            Self::Power => "^",
        }
    }

    /// How tightly it binds: 1 (`||`) to 6 (`^`).
    #[must_use]
    pub const fn precedence(self) -> u8 {
        match self {
            Self::Or => 1,
            Self::And => 2,
            Self::Equal
            | Self::NotEqual
            | Self::Less
            | Self::LessOrEqual
            | Self::Greater
            | Self::GreaterOrEqual => 3,
            Self::Add | Self::Subtract => 4,
            Self::Multiply | Self::Divide | Self::Modulo => 5,
            Self::Power => 6,
        }
    }
}

impl fmt::Display for UnaryOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for BinaryOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

//! Grafana Alloy's configuration language: lexer, parser, tree, diagnostics, values, evaluator, standard library.

pub mod ast;
pub mod codes;
pub mod diagnostic;
pub mod lexer;
pub mod limits;
pub mod parser;
pub mod render;
pub mod source;
pub mod span;

pub use ast::{Body, Expr, File};
pub use diagnostic::{Diagnostic, Diagnostics, Label, Severity, nearest};
pub use parser::{parse_bytes, parse_expression, parse_file};
pub use render::{Style, render};
pub use source::{Position, Source};
pub use span::Span;

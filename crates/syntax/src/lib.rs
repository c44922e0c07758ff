//! Grafana Alloy's configuration language: lexer, parser, tree, diagnostics, values, evaluator, standard library.

pub mod arguments;
pub mod ast;
pub mod byte_size;
pub mod check;
pub mod codes;
pub mod compatibility;
pub mod convert;
pub mod decoder;
pub mod diagnostic;
pub mod duration;
pub mod evaluate;
pub mod expression_text;
pub mod format;
pub mod function;
pub mod json;
pub mod lexer;
pub mod limits;
pub mod live_secret;
pub mod number;
pub mod operators;
pub mod parser;
pub mod render;
pub mod schema;
pub mod scope;
pub mod secret;
pub mod source;
pub mod span;
pub mod stdlib;
pub mod token;
pub mod value;

pub use arguments::{ArgumentEnum, Arguments, BlockEnum, DecodeError, Exports};
pub use ast::{Body, Expr, File};
pub use byte_size::ByteSize;
pub use check::{TypeLookup, TypeScope, check_block, check_body, check_body_at, check_expression};
pub use compatibility::may_convert;
pub use convert::{ConvertError, FromValue, ToValue};
pub use diagnostic::{Diagnostic, Diagnostics, Label, Severity, nearest};
pub use evaluate::{
    EvalError, EvaluatedAttribute, EvaluatedBlock, EvaluatedBody, Reference, evaluate, evaluate_body,
    references,
};
pub use expression_text::value_to_expression;
pub use format::{FormatError, format};
pub use function::{Function, FunctionError};
pub use json::value_to_json;
pub use live_secret::{LiveSecret, LiveText, SecretCell};
pub use number::Number;
pub use parser::{parse_bytes, parse_expression, parse_file};
pub use render::{Style, render};
pub use schema::{Field, FieldKind, Schema, Stability, Type, schema_to_json};
pub use scope::{EmptyScope, MapScope, Missing, Scope};
pub use secret::{OptionalSecret, Secret};
pub use source::{Position, Source};
pub use span::Span;
pub use value::{Capsule, CapsuleValue, Object, Value};

//! A body against a schema, without evaluating: what can be known wrong before anything runs.

use crate::arguments::DecodeError;
use crate::ast::Body;
use crate::schema::{Schema, Type};

/// What a name refers to, as far as known without evaluating.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TypeLookup {
    /// A value of that type, found under the first names of the path.
    Known(Type, usize),
    /// Nothing, although everything that could hold it is known.
    Missing {
        /// What is wrong, complete: `component "local.file.a" has no export "contents"`.
        message: String,
        /// A name near to it.
        nearest: Option<String>,
    },
    /// It cannot be said.
    Unknown,
}

/// Resolves names to types.
pub trait TypeScope {
    /// The type of the shortest dotted prefix of `path` that names something.
    fn type_of(&self, path: &[&str]) -> TypeLookup;
}

/// Nothing is known about any name.
#[derive(Clone, Copy, Debug, Default)]
pub struct UnknownTypes;

impl TypeScope for UnknownTypes {
    fn type_of(&self, _path: &[&str]) -> TypeLookup {
        TypeLookup::Unknown
    }
}

/// Everything that can be known wrong with a body.
#[must_use]
pub fn check_body(body: &Body, schema: &Schema, types: &dyn TypeScope) -> Vec<DecodeError> {
    todo!("{body:?} {schema:?} {:?}", types.type_of(&[]))
}

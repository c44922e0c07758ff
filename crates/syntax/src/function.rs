//! Functions as values: the standard library's, and those the host adds to a scope.

use std::fmt;
use std::sync::Arc;

use crate::value::Value;

/// What went wrong inside a function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FunctionError {
    /// The argument at fault, counted from 0; none blames the call as a whole.
    pub argument: Option<usize>,
    /// Where within that argument, as `[1].name`; mostly empty.
    pub path: String,
    /// What is wrong. Never contains secret text.
    pub message: String,
}

impl FunctionError {
    /// An error of the call as a whole.
    pub fn call(message: impl Into<String>) -> Self {
        Self { argument: None, path: String::new(), message: message.into() }
    }

    /// An error of one argument.
    pub fn argument(index: usize, message: impl Into<String>) -> Self {
        Self { argument: Some(index), path: String::new(), message: message.into() }
    }
}

/// The body of a function.
type Implementation = dyn Fn(&[Value]) -> Result<Value, FunctionError> + Send + Sync;

/// A function value.
#[derive(Clone)]
pub struct Function(Arc<Inner>);

struct Inner {
    name: String,
    implementation: Box<Implementation>,
}

impl Function {
    /// A function with the name that diagnostics print. It checks its own arguments; none of them is unknown.
    pub fn new(
        name: impl Into<String>,
        implementation: impl Fn(&[Value]) -> Result<Value, FunctionError> + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(Inner { name: name.into(), implementation: Box::new(implementation) }))
    }

    /// The full name: `string.join`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Calls it.
    ///
    /// # Errors
    /// Whatever the function refuses.
    pub fn call(&self, arguments: &[Value]) -> Result<Value, FunctionError> {
        (self.0.implementation)(arguments)
    }
}

impl fmt::Debug for Function {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "function {}", self.0.name)
    }
}

//! A configuration: parsed files and the inputs they are evaluated with. Immutable; what generations are made of.

use std::sync::Arc;

use invar_syntax::ast::File;
use invar_syntax::diagnostic::Diagnostics;
use invar_syntax::value::{Object, Value};

/// What the expressions of a configuration may use beside the components.
#[derive(Clone, Debug, PartialEq)]
pub struct Inputs {
    /// `var`: typed variables, an object.
    pub variables: Value,
    /// `agent`: name, environment, labels; an object.
    pub agent: Value,
    /// `module_path`: where relative paths in the files begin.
    pub module_path: String,
}

/// Parsed files with their inputs.
#[derive(Debug)]
pub struct Configuration {
    /// The files in composition order.
    pub files: Vec<Arc<File>>,
    /// What expressions may use.
    pub inputs: Inputs,
    /// SHA-256, in hexadecimal, over the tokens of each file without comments, its path, and the inputs: two configurations of
    /// one digest mean the same.
    pub digest: String,
    /// The revision it came from, for people.
    pub revision: String,
}

impl Default for Inputs {
    fn default() -> Self {
        Self {
            variables: Value::from(Object::new()),
            agent: Value::from(Object::new()),
            module_path: String::new(),
        }
    }
}

impl Configuration {
    /// Parses files given as path and content, in composition order.
    ///
    /// # Errors
    /// All syntax errors of all files.
    pub fn parse<N: AsRef<str>, B: AsRef<[u8]>>(
        files: impl IntoIterator<Item = (N, B)>,
        inputs: Inputs,
        revision: impl Into<String>,
    ) -> Result<Self, Diagnostics> {
        let _ = (files.into_iter().count(), inputs, revision.into());
        todo!()
    }

    /// A configuration without files.
    #[must_use]
    pub fn empty() -> Self {
        Self { files: Vec::new(), inputs: Inputs::default(), digest: String::new(), revision: String::new() }
    }
}

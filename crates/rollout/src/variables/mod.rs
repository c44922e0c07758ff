//! Variables of a candidate: from the `variables.toml` files of its layers to the typed values behind `var.NAME`, each
//! with the places it was written in. Later layers override by key; what is wrong is said with file, line and caret.
//!
//! The engine evaluates with the result; composing decides which files there are and in which order.

mod credential;
mod explain;
mod layer;
mod merge;

use std::collections::BTreeMap;
use std::sync::Arc;

use invar_engine::Variables;
use invar_syntax::diagnostic::Diagnostics;
use invar_syntax::value::Object;

use crate::compose::VariableLayers;
pub use explain::{VariablePlace, VariableReport, explain_variable};
use merge::{Tree, flatten, merge};

/// The name of the file in a layer's folder.
pub const VARIABLES_FILE: &str = "variables.toml";

/// Codes of what can be wrong with variables.
pub mod codes {
    /// The file is not TOML.
    pub const NOT_TOML: &str = "E301";
    /// A name that expressions could not use, or that is reserved.
    pub const NAME: &str = "E302";
    /// A value that the language has no type for.
    pub const VALUE: &str = "E303";
    /// A table in one layer, something else in another.
    pub const TABLE_OR_NOT: &str = "E304";
    /// A value of another type than in a layer before (a warning).
    pub const OTHER_TYPE: &str = "E305";
    /// A text that looks like a credential (a warning).
    pub const CREDENTIAL: &str = "E401";
}

/// Reads and merges the layers in order. The findings may be warnings alone; with errors among them the variables are
/// what could be read.
#[must_use]
pub fn read_variables(layers: &VariableLayers) -> (Variables, Diagnostics) {
    let mut diagnostics = Diagnostics::new();
    let mut merged = Tree::new();
    for file in &layers.files {
        let upper = layer::read(file, &mut diagnostics);
        merge(&mut merged, upper, &mut diagnostics);
    }
    let mut definitions = BTreeMap::new();
    let mut values = Object::new();
    for (name, node) in merged {
        let value = flatten(vec![Arc::clone(&name)], node, &mut definitions);
        values.insert(name, value);
    }
    (Variables::new(values, definitions, layers.searched.clone()), diagnostics)
}

#[cfg(test)]
mod tests;

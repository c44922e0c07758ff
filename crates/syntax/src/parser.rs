//! From tokens to the tree: recursive descent with recovery, so that one pass reports every independent error.

use std::sync::Arc;

use crate::ast::{Expr, File};
use crate::diagnostic::Diagnostics;
use crate::source::Source;

/// Parses a file. All independent errors are reported, at most one a line; any error means there is no tree.
#[must_use]
pub fn parse_file(source: Arc<Source>) -> (Option<File>, Diagnostics) {
    let _ = source;
    todo!()
}

/// Parses bytes as read from a file or the network: checks the encoding first.
#[must_use]
pub fn parse_bytes(name: &str, bytes: &[u8]) -> (Option<File>, Diagnostics) {
    let _ = (name, bytes);
    todo!()
}

/// Parses a single expression.
///
/// # Errors
/// Everything that is wrong with it.
pub fn parse_expression(source: Arc<Source>) -> Result<Expr, Diagnostics> {
    let _ = source;
    todo!()
}

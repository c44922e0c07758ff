//! Diagnostics as people read them in a terminal: header, place, source lines, underline, help.

use crate::diagnostic::Diagnostics;

/// How to print.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
pub struct Style {
    /// Whether to use terminal colours.
    pub color: bool,
}

/// Prints every finding in order, separated by blank lines.
#[must_use]
pub fn render(diagnostics: &Diagnostics, style: Style) -> String {
    let _ = (diagnostics, style);
    todo!()
}

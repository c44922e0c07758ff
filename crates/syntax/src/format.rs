//! The canonical form of a configuration: the one that Alloy's own formatter gives, to the byte, wherever that keeps
//! every value and comment and would not change its mind when asked again.
//!
//! The text goes through two stages: [`walk`] sends the tokens of the tree, and what stands between them, to [`print`],
//! which puts the comments back in; [`align`] lines up columns and trims line ends. Alloy's rules have gaps: a tab in a
//! raw string counts as layout, a comment may end up where it breaks the text, some texts look different after each
//! run. So its result is read back and compared ([`same`]), and run through again; where it does not hold, the rules
//! that close the gaps ([`Rules::Exact`]) take over. `docs/decisions/0010-formatting.md` has the reasons.

use std::sync::Arc;

use thiserror::Error;

use crate::ast::File;
use crate::limits::MAX_SOURCE_BYTES;
use crate::parser::parse_file;
use crate::source::Source;

mod align;
mod print;
mod same;
mod walk;

/// Why a text was not formatted.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Error)]
pub enum FormatError {
    /// Indentation and alignment would make it larger than a source may be.
    #[error(
        "the formatted text would have more than the {MAX_SOURCE_BYTES} bytes that a configuration may have"
    )]
    TooLarge,
}

/// How often a text is formatted again before it is taken for one that never settles.
const MOST_ROUNDS: usize = 8;

/// The differences between Alloy's layout and one that holds for every text.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
enum Rules {
    /// Alloy's: places of some tokens are guessed, tabs and blanks in strings are layout.
    Alloy,
    /// The place of every token is known, and strings stay as they are.
    Exact,
}

/// The file in canonical form, with a line end behind the last line.
///
/// Formatting keeps every value, name and comment, and formatting the result again changes nothing. A text for which
/// no form with these properties is found is given back as it is.
///
/// # Errors
/// [`FormatError::TooLarge`].
pub fn format(file: &File) -> Result<String, FormatError> {
    Ok(settle(file)?.unwrap_or_else(|| file.source.text.to_string()))
}

/// The canonical form, or `None` if there is none.
fn settle(file: &File) -> Result<Option<String>, FormatError> {
    if let Some(text) = settled_like_alloy(file)? {
        return Ok(Some(text));
    }
    let mut latest = None;
    for _ in 0..MOST_ROUNDS {
        let current = latest.as_ref().unwrap_or(file);
        let text = once(current, Rules::Exact)?;
        if *text == *current.source.text {
            // What Alloy makes of this in turn is no less canonical, and what it would write itself.
            return Ok(Some(settled_like_alloy(current)?.unwrap_or(text)));
        }
        let Some(next) = read_back(current, text) else { return Ok(None) };
        latest = Some(next);
    }
    Ok(None)
}

/// What Alloy makes of the file, if it is the same configuration and Alloy would leave it at that.
fn settled_like_alloy(file: &File) -> Result<Option<String>, FormatError> {
    let text = once(file, Rules::Alloy)?;
    if *text == *file.source.text {
        return Ok(Some(text));
    }
    let Some(formatted) = read_back(file, text) else { return Ok(None) };
    let again = once(&formatted, Rules::Alloy)?;
    Ok((*again == *formatted.source.text).then_some(again))
}

/// Formats once.
fn once(file: &File, rules: Rules) -> Result<String, FormatError> {
    let mut walker = walk::Walker { printer: print::Printer::new(file, rules), source: &file.source };
    walker.body(&file.body);
    walker.printer.finish().ok_or(FormatError::TooLarge)
}

/// Parses what was made of a file, and gives it if it is the same configuration.
fn read_back(original: &File, text: String) -> Option<File> {
    let (formatted, _) = parse_file(Arc::new(Source::new(Arc::clone(&original.source.name), text)));
    formatted.filter(|formatted| same::same(original, formatted))
}

#[cfg(test)]
mod tests;

//! The way from bytes to text: a configuration is UTF-8, and whatever else arrives deserves a name.

use std::sync::Arc;

use super::parse_file;
use crate::ast::File;
use crate::codes;
use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::limits::MAX_SOURCE_BYTES;
use crate::source::Source;
use crate::span::Span;

/// Marks at the start of a text that is not UTF-8. The UTF-32 ones come first: one begins like UTF-16.
const FOREIGN_MARKS: [(&[u8], &str); 4] = [
    (b"\xff\xfe\0\0", "UTF-32LE"),
    (b"\0\0\xfe\xff", "UTF-32BE"),
    (b"\xff\xfe", "UTF-16LE"),
    (b"\xfe\xff", "UTF-16BE"),
];

/// Parses bytes as read from a file or the network: checks size and encoding first. A UTF-8 byte order mark is accepted.
#[must_use]
pub fn parse_bytes(name: &str, bytes: &[u8]) -> (Option<File>, Diagnostics) {
    match decode_bytes(name, bytes) {
        Ok(source) => parse_file(Arc::new(source)),
        Err(refusal) => (None, (*refusal).into()),
    }
}

/// A named text from bytes: the checks of size and encoding that [`parse_bytes`] makes, for texts of other formats.
///
/// # Errors
/// Why the bytes are no text, with the place.
pub fn decode_bytes(name: &str, bytes: &[u8]) -> Result<Source, Box<Diagnostic>> {
    if bytes.len() > MAX_SOURCE_BYTES {
        let message = format!(
            "the text has {} bytes, more than the {MAX_SOURCE_BYTES} a configuration may have",
            bytes.len()
        );
        let source = Arc::new(Source::new(name, ""));
        return Err(Box::new(Diagnostic::error(codes::TOO_LARGE, message).with_label(
            &source,
            Span::at(0),
            "",
        )));
    }
    if let Some((_, encoding)) = FOREIGN_MARKS.iter().find(|(mark, _)| bytes.starts_with(mark)) {
        let source = Arc::new(Source::new(name, ""));
        let message = format!("configuration is encoded with {encoding} but must be UTF-8");
        return Err(Box::new(
            Diagnostic::error(codes::NOT_UTF8, message)
                .with_label(&source, Span::at(0), "")
                .with_help("save the file as UTF-8"),
        ));
    }
    match std::str::from_utf8(bytes) {
        Ok(text) => Ok(Source::new(name, text)),
        Err(error) => {
            let offset = error.valid_up_to();
            // What precedes the bad byte keeps its offsets, so the place is right although the rest is not.
            let source = Arc::new(Source::new(name, String::from_utf8_lossy(bytes)));
            let start = u32::try_from(offset).unwrap_or(u32::MAX);
            let line = source.position(start).line;
            let byte = bytes.get(offset).copied().unwrap_or_default();
            let message = format!("invalid UTF-8 at byte offset {offset}, line {line}: byte 0x{byte:02X}");
            let replacement = Span::new(start, start.saturating_add(3));
            Err(Box::new(
                Diagnostic::error(codes::NOT_UTF8, message)
                    .with_label(&source, replacement, "not UTF-8")
                    .with_help("save the file as UTF-8"),
            ))
        }
    }
}

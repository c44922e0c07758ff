//! Named source texts and the translation of byte offsets into the lines and columns people read.

use std::fmt;
use std::sync::Arc;

use crate::span::Span;

/// A named text. Immutable and shared: trees and diagnostics hold it by `Arc`.
#[derive(Clone)]
pub struct Source {
    /// The name shown in diagnostics, usually a path.
    pub name: Arc<str>,
    /// The whole text, a leading byte order mark included.
    pub text: Arc<str>,
    /// Offset at which each line starts; the first is 0.
    line_starts: Arc<[u32]>,
}

/// A place in a source as people count: both numbers start at 1; columns count bytes.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct Position {
    /// Line number, 1-based. Only `\n` ends a line.
    pub line: u32,
    /// Byte column, 1-based.
    pub column: u32,
}

impl Source {
    /// Names a text and indexes its lines. Offsets beyond `u32::MAX` cannot be addressed; the parser refuses such texts
    /// long before (see [`crate::limits`]).
    #[must_use]
    pub fn new(name: impl Into<Arc<str>>, text: impl Into<Arc<str>>) -> Self {
        let text = text.into();
        let newlines = text.bytes().enumerate().filter(|&(_, byte)| byte == b'\n');
        let line_starts = std::iter::once(0)
            .chain(newlines.map_while(|(offset, _)| u32::try_from(offset + 1).ok()))
            .collect();
        Self { name: name.into(), text, line_starts }
    }

    /// Line and column of a byte offset. Offsets past the end give the position just after the last byte.
    #[must_use]
    pub fn position(&self, offset: u32) -> Position {
        let offset = offset.min(self.end());
        // The first start is 0, so at least one line start is at or before any offset.
        let line = self.line_starts.partition_point(|&start| start <= offset).max(1);
        let start = self.line_starts.get(line - 1).copied().unwrap_or(0);
        Position { line: u32::try_from(line).unwrap_or(u32::MAX), column: offset - start + 1 }
    }

    /// Offset at which each line starts; the first is 0.
    pub(crate) fn line_starts(&self) -> &[u32] {
        &self.line_starts
    }

    /// How many lines the text has: one more than it has `\n` bytes.
    #[must_use]
    pub fn line_count(&self) -> u32 {
        u32::try_from(self.line_starts.len()).unwrap_or(u32::MAX)
    }

    /// The range of a line (1-based) without its `\n`, or `None` when there is no such line.
    #[must_use]
    pub fn line_span(&self, line: u32) -> Option<Span> {
        let index = usize::try_from(line.checked_sub(1)?).ok()?;
        let start = self.line_starts.get(index).copied()?;
        let end = self.line_starts.get(index + 1).map_or(self.end(), |&next| next - 1);
        Some(Span::new(start, end))
    }

    /// The text of a range; empty where the range is out of bounds or cuts a character.
    #[must_use]
    pub fn slice(&self, span: Span) -> &str {
        self.text.get(span.start as usize..span.end as usize).unwrap_or_default()
    }

    /// `name:line:column` of an offset.
    #[must_use]
    pub fn location(&self, offset: u32) -> String {
        let Position { line, column } = self.position(offset);
        format!("{}:{line}:{column}", self.name)
    }

    fn end(&self) -> u32 {
        u32::try_from(self.text.len()).unwrap_or(u32::MAX)
    }
}

/// Two sources are equal when name and text are.
impl PartialEq for Source {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name && self.text == other.text
    }
}

impl Eq for Source {}

/// Prints the name and the size, never the text: a configuration may hold secrets.
impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source")
            .field("name", &self.name)
            .field("bytes", &self.text.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::{Position, Source};
    use crate::span::Span;

    #[test]
    fn offsets_have_lines_and_byte_columns() {
        let source = Source::new("f", "aé\n\nb\r\n");
        let cases = [
            (0, 1, 1),
            (1, 1, 2),
            (3, 1, 4),
            (4, 2, 1),
            (5, 3, 1),
            (6, 3, 2),
            (7, 3, 3),
            (8, 4, 1),
            (99, 4, 1),
        ];
        for (offset, line, column) in cases {
            assert_eq!(source.position(offset), Position { line, column }, "offset {offset}");
        }
        assert_eq!(source.location(5), "f:3:1");
    }

    #[test]
    fn lines_have_spans() {
        let source = Source::new("f", "ab\n\nc");
        let lines: Vec<_> =
            (0..=4).map(|line| source.line_span(line).map(|span| source.slice(span))).collect();
        assert_eq!(lines, [None, Some("ab"), Some(""), Some("c"), None]);
        assert_eq!(source.line_count(), 3);
        assert_eq!(Source::new("f", "").line_span(1), Some(Span::new(0, 0)));
    }

    #[test]
    fn slices_never_panic() {
        let source = Source::new("f", "é");
        assert_eq!(source.slice(Span::new(0, 2)), "é");
        for (start, end) in [(0, 1), (1, 2), (0, 9), (2, 1)] {
            assert_eq!(source.slice(Span::new(start, end)), "");
        }
    }

    #[test]
    fn debug_output_hides_the_text() {
        assert!(!format!("{:?}", Source::new("f", "hunter2")).contains("hunter2"));
    }
}

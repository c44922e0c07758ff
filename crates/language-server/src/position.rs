//! Positions as the protocol counts them and byte offsets as everything else does. Lines end with a line feed, a carriage
//! return or both; columns count UTF-16 code units unless the client prefers bytes.

use invar_syntax::Span;
use lsp_types::{Position, Range};

/// What a column counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Encoding {
    /// Bytes of UTF-8.
    Utf8,
    /// Code units of UTF-16, which every client understands.
    #[default]
    Utf16,
}

/// Where the lines of a text begin.
#[derive(Clone, Debug)]
pub(crate) struct LineIndex {
    starts: Vec<u32>,
}

impl LineIndex {
    pub(crate) fn new(text: &str) -> Self {
        let bytes = text.as_bytes();
        let ends = bytes.iter().enumerate().filter(|&(index, byte)| match byte {
            b'\n' => true,
            b'\r' => bytes.get(index + 1) != Some(&b'\n'),
            _ => false,
        });
        let starts = std::iter::once(0).chain(ends.map_while(|(index, _)| u32::try_from(index + 1).ok()));
        Self { starts: starts.collect() }
    }

    /// The byte offset of a position, moved to the nearest place that exists: never inside a character, never past a line.
    pub(crate) fn offset(&self, text: &str, position: Position, encoding: Encoding) -> usize {
        let Some(start) = self.starts.get(position.line as usize) else { return text.len() };
        let start = (*start as usize).min(text.len());
        let line = text.get(start..).unwrap_or_default();
        let wanted = position.character as usize;
        let mut counted = 0;
        for (offset, character) in line.char_indices() {
            if matches!(character, '\n' | '\r') || counted >= wanted {
                return start + offset;
            }
            counted += match encoding {
                Encoding::Utf8 => character.len_utf8(),
                Encoding::Utf16 => character.len_utf16(),
            };
            if counted > wanted {
                // In the middle of the character: before it.
                return start + offset;
            }
        }
        text.len()
    }

    /// The position of a byte offset.
    pub(crate) fn position(&self, text: &str, offset: usize, encoding: Encoding) -> Position {
        let mut offset = offset.min(text.len());
        while !text.is_char_boundary(offset) {
            offset -= 1;
        }
        let line = self.starts.partition_point(|&start| start as usize <= offset).saturating_sub(1);
        let start = self.starts.get(line).map_or(0, |start| *start as usize);
        let before = text.get(start..offset).unwrap_or_default();
        let column = match encoding {
            Encoding::Utf8 => before.len(),
            Encoding::Utf16 => before.chars().map(char::len_utf16).sum(),
        };
        Position::new(u32::try_from(line).unwrap_or(u32::MAX), u32::try_from(column).unwrap_or(u32::MAX))
    }

    pub(crate) fn range(&self, text: &str, span: Span, encoding: Encoding) -> Range {
        let position = |offset: u32| self.position(text, offset as usize, encoding);
        Range::new(position(span.start), position(span.end.max(span.start)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "aé𝄞b\r\nx\ry\n";

    #[test]
    fn columns_count_utf16_units_or_bytes() {
        let index = LineIndex::new(TEXT);
        let utf16: Vec<u32> =
            [0, 1, 3, 7, 8].map(|offset| index.position(TEXT, offset, Encoding::Utf16).character).to_vec();
        assert_eq!(utf16, [0, 1, 2, 4, 5]);
        assert_eq!(index.position(TEXT, 7, Encoding::Utf8).character, 7);
        assert_eq!(index.offset(TEXT, Position::new(0, 4), Encoding::Utf16), 7);
        // Between the halves of a surrogate pair there is no place.
        assert_eq!(index.offset(TEXT, Position::new(0, 3), Encoding::Utf16), 3);
    }

    #[test]
    fn lines_end_in_three_ways_and_positions_past_them_are_moved_back() {
        let index = LineIndex::new(TEXT);
        assert_eq!(index.position(TEXT, 10, Encoding::Utf16), Position::new(1, 0));
        assert_eq!(index.position(TEXT, 12, Encoding::Utf16), Position::new(2, 0));
        assert_eq!(index.offset(TEXT, Position::new(0, 99), Encoding::Utf16), 8);
        assert_eq!(index.offset(TEXT, Position::new(99, 0), Encoding::Utf16), TEXT.len());
    }
}

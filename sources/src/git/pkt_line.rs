//! The framing of the Git wire protocol (gitprotocol-common): four hexadecimal digits of length, then the
//! content; the lengths 0, 1 and 2 are marks.

use bytes::{Buf as _, Bytes, BytesMut};

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Packet {
    /// `0000`: the end of a message or section.
    Flush,
    /// `0001`: the end of a section within a message.
    Delimiter,
    /// `0002`: the end of a response.
    ResponseEnd,
    /// Content, at most 65516 bytes.
    Data(Bytes),
}

/// The length field is not four hexadecimal digits, or says 3 or more than 65520.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the server's answer is not in the Git protocol's framing")]
pub struct FramingError;

/// The most a frame may be long, with its length field.
const LENGTH_LIMIT: usize = 65520;

/// Cuts a stream of chunks into frames; holds at most one frame and one chunk.
#[derive(Debug, Default)]
pub struct PacketReader {
    buffer: BytesMut,
}

impl PacketReader {
    /// Adds what arrived.
    pub fn push(&mut self, chunk: &[u8]) {
        self.buffer.extend_from_slice(chunk);
    }

    /// The next complete frame; `None` when more has to arrive first.
    ///
    /// # Errors
    /// [`FramingError`]; the stream is of no use after that.
    pub fn next_packet(&mut self) -> Result<Option<Packet>, FramingError> {
        let Some(digits) = self.buffer.first_chunk::<4>() else { return Ok(None) };
        let (digits, length) = (*digits, frame_length(*digits)?);
        if self.buffer.len() < length {
            return Ok(None);
        }
        let mut frame = self.buffer.split_to(length);
        frame.advance(4);
        Ok(Some(match &digits {
            b"0000" => Packet::Flush,
            b"0001" => Packet::Delimiter,
            b"0002" => Packet::ResponseEnd,
            _ => Packet::Data(frame.freeze()),
        }))
    }

    /// Whether everything that arrived was handed out.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }
}

/// The length of the frame that begins with these digits, its own digits included.
fn frame_length(digits: [u8; 4]) -> Result<usize, FramingError> {
    let mut length = 0_usize;
    for digit in digits {
        let value = char::from(digit).to_digit(16).ok_or(FramingError)?;
        length = length << 4 | value as usize;
    }
    match length {
        0..=2 => Ok(4),
        4..=LENGTH_LIMIT => Ok(length),
        _ => Err(FramingError),
    }
}

/// Where the first message in `bytes` ends, behind its flush; `None` when more has to arrive first. `scanned` is how far an
/// earlier call with fewer bytes got.
///
/// # Errors
/// [`FramingError`].
pub fn message_end(bytes: &[u8], scanned: &mut usize) -> Result<Option<usize>, FramingError> {
    while let Some(digits) = bytes.get(*scanned..).and_then(|rest| rest.first_chunk::<4>()) {
        let end = *scanned + frame_length(*digits)?;
        if end > bytes.len() {
            return Ok(None);
        }
        *scanned = end;
        if digits == b"0000" {
            return Ok(Some(end));
        }
    }
    Ok(None)
}

/// Appends a frame with `content` and a line break.
pub(super) fn write_line(to: &mut Vec<u8>, content: &str) {
    debug_assert!(content.len() + 5 <= LENGTH_LIMIT, "lines that this crate writes are short");
    to.extend_from_slice(format!("{:04x}", content.len() + 5).as_bytes());
    to.extend_from_slice(content.as_bytes());
    to.push(b'\n');
}

/// Appends `0000`.
pub(super) fn write_flush(to: &mut Vec<u8>) {
    to.extend_from_slice(b"0000");
}

/// Appends `0001`.
pub(super) fn write_delimiter(to: &mut Vec<u8>) {
    to.extend_from_slice(b"0001");
}

/// The content without the line break that may end it.
pub(super) fn trim_line(content: &[u8]) -> &[u8] {
    content.strip_suffix(b"\n").unwrap_or(content)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    fn all(bytes: &[u8], step: usize) -> Result<Vec<Packet>, FramingError> {
        let mut reader = PacketReader::default();
        let mut packets = Vec::new();
        for chunk in bytes.chunks(step.max(1)) {
            reader.push(chunk);
            while let Some(packet) = reader.next_packet()? {
                packets.push(packet);
            }
        }
        Ok(packets)
    }

    #[test]
    fn frames_and_marks() {
        let packets = all(b"0006a\n0001000b1234567000000020004", 1).unwrap();
        assert_eq!(
            packets,
            [
                Packet::Data(Bytes::from_static(b"a\n")),
                Packet::Delimiter,
                Packet::Data(Bytes::from_static(b"1234567")),
                Packet::Flush,
                Packet::ResponseEnd,
                Packet::Data(Bytes::new()),
            ]
        );
    }

    #[test]
    fn other_lengths_are_errors() {
        for text in ["0003", "zzzz", "fff1", "<htm", "00 5"] {
            assert_eq!(all(text.as_bytes(), 8), Err(FramingError), "{text}");
        }
    }

    #[test]
    fn a_message_ends_behind_its_flush() {
        let bytes = b"0006a\n000100000006b\n0000";
        for length in 0..14 {
            assert_eq!(message_end(&bytes[..length], &mut 0), Ok(None), "{length}");
        }
        let mut scanned = 0;
        assert_eq!(message_end(&bytes[..8], &mut scanned), Ok(None));
        assert_eq!(scanned, 6);
        assert_eq!(message_end(bytes, &mut scanned), Ok(Some(14)));
        assert_eq!(message_end(&bytes[14..], &mut 0), Ok(Some(10)));
        assert_eq!(message_end(b"Welcome", &mut 0), Err(FramingError));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(lines in prop::collection::vec("[ -~]{0,40}", 0..8), step in 1_usize..64) {
            let mut bytes = Vec::new();
            for line in &lines {
                write_line(&mut bytes, line);
            }
            write_flush(&mut bytes);
            let packets = all(&bytes, step).unwrap();
            prop_assert_eq!(packets.len(), lines.len() + 1);
            let longer = [bytes.as_slice(), b"0000"].concat();
            let mut scanned = 0;
            prop_assert_eq!(message_end(&longer[..bytes.len().min(step)], &mut scanned).unwrap().is_none(), step < bytes.len());
            let mut scanned = scanned % bytes.len();
            prop_assert_eq!(message_end(&longer, &mut scanned).unwrap(), Some(bytes.len()));
            for (packet, line) in packets.iter().zip(&lines) {
                let Packet::Data(content) = packet else { panic!("a mark instead of a line") };
                prop_assert_eq!(trim_line(content), line.as_bytes());
            }
        }

        #[test]
        fn any_bytes_are_frames_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200), step in 1_usize..64) {
            let whole = all(&bytes, 1000);
            let parts = all(&bytes, step);
            prop_assert_eq!(whole.is_ok(), parts.is_ok());
        }
    }
}

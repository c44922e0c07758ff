//! Server-sent events, as the HTML standard defines them, as far as a wake-up needs them: that there was an event, its id,
//! and how long to wait before connecting again. What an event carries is passed over as it comes.

use std::time::Duration;

/// As much of a line is kept: ids and numbers are shorter, and the rest of a longer line is passed over.
const LINE_LIMIT: usize = 1024;

/// Reads a stream piece by piece.
#[derive(Clone, Debug, Default)]
pub struct EventStream {
    line: Vec<u8>,
    /// Whether the line is longer than what is kept of it.
    cut: bool,
    /// Whether the last byte was a carriage return, so that a line feed now belongs to it.
    after_return: bool,
    /// How many bytes of a byte order mark were seen; three once it cannot come any more.
    mark: usize,
    has_data: bool,
    kind: Vec<u8>,
    id: Option<String>,
    retry: Option<Duration>,
}

impl EventStream {
    /// Takes a piece; says how many events it completes.
    pub fn push(&mut self, piece: &[u8]) -> usize {
        const MARK: &[u8] = b"\xef\xbb\xbf";
        let mut events = 0;
        for &byte in piece {
            if self.mark < MARK.len() {
                if byte == MARK[self.mark] {
                    self.mark += 1;
                    continue;
                }
                // It was the beginning of a line after all.
                let taken = std::mem::replace(&mut self.mark, MARK.len());
                self.line.extend_from_slice(&MARK[..taken]);
            }
            let after_return = std::mem::replace(&mut self.after_return, byte == b'\r');
            match byte {
                b'\n' if after_return => {}
                b'\r' | b'\n' => events += usize::from(self.end_line()),
                _ if self.line.len() < LINE_LIMIT => self.line.push(byte),
                _ => self.cut = true,
            }
        }
        events
    }

    /// The id of the last event that had one.
    #[must_use]
    pub fn last_id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    /// How long the server wants us to wait before we connect again.
    #[must_use]
    pub fn retry(&self) -> Option<Duration> {
        self.retry
    }

    /// Whether the line that ended completes an event that is worth a look.
    fn end_line(&mut self) -> bool {
        let line = std::mem::take(&mut self.line);
        let cut = std::mem::take(&mut self.cut);
        if line.is_empty() {
            let kind = std::mem::take(&mut self.kind);
            // Some servers keep a connection alive with events instead of comments.
            let heartbeat = [&b"ping"[..], b"heartbeat", b"keepalive", b"keep-alive"].contains(&&kind[..]);
            return std::mem::take(&mut self.has_data) && !heartbeat;
        }
        let (field, value) = match line.iter().position(|byte| *byte == b':') {
            Some(colon) => {
                let value = &line[colon + 1..];
                (&line[..colon], value.strip_prefix(b" ").unwrap_or(value))
            }
            None => (&line[..], &b""[..]),
        };
        match field {
            b"data" => self.has_data = true,
            b"event" => self.kind = value.to_vec(),
            // One with control characters could not be sent back in a header.
            b"id" if !cut => {
                let text = std::str::from_utf8(value).ok();
                if let Some(id) = text.filter(|id| !id.chars().any(char::is_control)) {
                    self.id = Some(id.to_owned()).filter(|id| !id.is_empty());
                }
            }
            b"retry" if !value.is_empty() && value.iter().all(u8::is_ascii_digit) => {
                let number = std::str::from_utf8(value).ok().and_then(|digits| digits.parse().ok());
                self.retry = number.map(Duration::from_millis).or(self.retry);
            }
            _ => {}
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> (usize, EventStream) {
        let mut stream = EventStream::default();
        (stream.push(text.as_bytes()), stream)
    }

    #[test]
    fn events_are_counted_and_heartbeats_are_not() {
        assert_eq!(read(": hello\n\n").0, 0);
        assert_eq!(read("data: x\n").0, 0, "the event is not over");
        assert_eq!(read("data: x\n\n").0, 1);
        assert_eq!(read("data\n\ndata\n\n\n").0, 2);
        assert_eq!(read("event: push\ndata: x\ndata: y\n\n").0, 1);
        assert_eq!(read("event: push\n\n").0, 0, "without data there is no event");
        assert_eq!(read("event: ping\ndata: {}\n\ndata: x\n\n").0, 1);
        assert_eq!(read("data: x\r\n\r\ndata: y\r\rdata: z\n\n").0, 3);
        assert_eq!(read("\u{feff}data: x\n\n").0, 1);
    }

    #[test]
    fn ids_and_the_wait_are_kept() {
        let (_, stream) = read("id: 7\nretry: 2500\ndata: x\n\nretry: x\nid: a\0b\n\n");
        assert_eq!(stream.last_id(), Some("7"));
        assert_eq!(stream.retry(), Some(Duration::from_millis(2500)));
        assert_eq!(read("id: 7\nid\n\n").1.last_id(), None, "an empty id takes it back");
    }

    #[test]
    fn a_line_without_end_takes_no_memory() {
        let mut stream = EventStream::default();
        stream.push(b"data: ");
        for _ in 0..1000 {
            stream.push(&[b'x'; 10_000]);
        }
        assert!(stream.line.capacity() <= 2 * LINE_LIMIT);
        assert_eq!(stream.push(b"\n\n"), 1);
    }

    proptest! {
        #[test]
        fn pieces_do_not_matter(
            bytes in proptest::collection::vec(
                prop_oneof![Just(b'\n'), Just(b'\r'), Just(b':'), Just(b'd'), Just(0xef), any::<u8>()],
                0..200,
            ),
            size in 1_usize..9,
        ) {
            let mut whole = EventStream::default();
            let events = whole.push(&bytes);
            let mut pieces = EventStream::default();
            let counted: usize = bytes.chunks(size).map(|piece| pieces.push(piece)).sum();
            prop_assert_eq!(events, counted);
            prop_assert_eq!(whole.last_id(), pieces.last_id());
            prop_assert_eq!(whole.retry(), pieces.retry());
        }
    }
}

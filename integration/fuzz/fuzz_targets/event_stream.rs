//! A stream of events is read without a panic, whole or in pieces alike, and so are digests in headers.
#![no_main]

use invar_sources::document_format::{EventStream, parse_digest_field};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut whole = EventStream::default();
    let events = whole.push(bytes);
    let mut pieces = EventStream::default();
    let counted: usize = bytes.chunks(7).map(|piece| pieces.push(piece)).sum();
    assert_eq!(events, counted);
    assert_eq!(whole.last_id(), pieces.last_id());
    assert_eq!(whole.retry(), pieces.retry());
    if let Ok(text) = std::str::from_utf8(bytes) {
        drop(parse_digest_field(text));
    }
});

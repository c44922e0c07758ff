//! What a registry sends is read or refused, and never panics: archives, challenges, links.
#![no_main]

use invar_sources::artifact_format::{parse_challenge, parse_next, unpacks};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = unpacks(bytes);
    if let Ok(text) = std::str::from_utf8(bytes) {
        drop(parse_challenge(text));
        if let Some(target) = parse_next(text) {
            assert!(text.contains(target));
        }
    }
});

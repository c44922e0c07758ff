//! Arbitrary bytes where heads and the journal stand: no panic, and what is accepted survives being written again.
#![no_main]

use invar_rollout::{decode_head, decode_journal, encode_head};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(head) = decode_head(bytes)
        && let Ok(written) = encode_head(&head)
    {
        assert_eq!(decode_head(&written), Ok(head));
    }
    let (records, valid) = decode_journal(bytes);
    assert!(valid <= bytes.len() as u64);
    let (again, same) = decode_journal(&bytes[..usize::try_from(valid).unwrap_or(0)]);
    assert_eq!((again, same), (records, valid));
});

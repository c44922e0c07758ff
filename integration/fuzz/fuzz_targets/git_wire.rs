//! What a Git server sends is read or refused, whole or in pieces alike, and never panics.
#![no_main]

use invar_sources::wire_format::{FetchReader, is_harmless, parse_advertisement, parse_ls_refs};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    is_harmless(bytes);
    is_harmless(&[b"PACK\0\0\0\x02\0\0\0\x02".as_slice(), bytes].concat());
    let advertised = parse_advertisement(bytes).map(|advertisement| advertisement.references);
    for reference in [advertised, parse_ls_refs(bytes)].into_iter().flatten().flatten() {
        assert!(matches!(reference.object.len(), 0 | 40 | 64));
    }
    for version in [1, 2] {
        let whole = FetchReader::new(version).push(bytes).map(|pack| pack.concat());
        let mut reader = FetchReader::new(version);
        let parts: Result<Vec<_>, _> = bytes.chunks(7).map(|chunk| reader.push(chunk)).collect();
        assert_eq!(whole, parts.map(|parts| parts.concat().concat()));
    }
});

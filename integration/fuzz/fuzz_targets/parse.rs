//! Any bytes: parsing ends, with a tree or with errors, and errors can be printed.
#![no_main]

use invar_syntax::{Style, parse_bytes, render};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let (file, diagnostics) = parse_bytes("fuzz", bytes);
    assert_eq!(file.is_none(), diagnostics.has_errors());
    assert_eq!(render(&diagnostics, Style { color: false }).is_empty(), diagnostics.is_empty());
});

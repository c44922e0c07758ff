//! The dates of a certificate are read or not, whatever the bytes are.
#![no_main]

use invar_sources::certificate_validity;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Some(validity) = certificate_validity(bytes) {
        // Years have four digits.
        assert!(validity.not_before.abs() < 400_000_000_000 && validity.not_after.abs() < 400_000_000_000);
    }
});

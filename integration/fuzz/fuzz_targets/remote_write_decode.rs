//! Any bytes: decoding a remote-write body ends, within its limits, in both versions.
#![no_main]

use invar_telemetry::remote_write::{DecodeLimits, Protocol, decode, decompress};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let limits = DecodeLimits { message_bytes: 1 << 20, decoded_bytes: 16 << 20, labels: 64 };
    let message = decompress(bytes, limits.message_bytes);
    for protocol in [Protocol::V1, Protocol::V2] {
        for message in [Some(bytes), message.as_deref().ok()].into_iter().flatten() {
            if let Ok(decoded) = decode(protocol, message, limits) {
                assert_eq!(decoded.counts.samples, decoded.batch.values.len());
                assert_eq!(decoded.batch.series.len(), decoded.batch.values.len());
            }
        }
    }
});

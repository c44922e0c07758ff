//! Tables of secrets and records at rest are read or refused, and no message repeats a value.
#![no_main]

use std::time::{Duration, UNIX_EPOCH};

use invar_secrets::{FieldFormat, Secret, decode_fields, open_record};
use libfuzzer_sys::fuzz_target;

const MARK: &str = "hunter2hunter2";
const DAY: Duration = Duration::from_secs(86_400);

fuzz_target!(|bytes: &[u8]| {
    let text = String::from_utf8_lossy(bytes);
    for (format, head) in [(FieldFormat::Json, "{\"a\":\""), (FieldFormat::Toml, "a = \"")] {
        let _ = decode_fields(format, &text);
        if let Err(error) = decode_fields(format, &format!("{head}{MARK}{text}")) {
            // A name of a field is no secret, and is shown.
            assert!(!error.contains(MARK) || error.contains("is empty"));
        }
    }
    let key = Secret::new("0123456789abcdef0123456789abcdef");
    assert!(open_record(&key, "vault", "kv/x", bytes, UNIX_EPOCH + DAY, DAY).is_err());
    let with_head = [b"INVSEC\0\x01".as_slice(), bytes].concat();
    assert!(open_record(&key, "vault", "kv/x", &with_head, UNIX_EPOCH + DAY, DAY).is_err());
});

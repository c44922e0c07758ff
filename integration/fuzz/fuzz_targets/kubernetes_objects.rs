//! Answers of an API server are decoded or refused, and no message repeats a value.
#![no_main]

use invar_secrets::kubernetes::{ObjectKind, decode_object, decode_watch_event};
use libfuzzer_sys::fuzz_target;

const MARK: &str = "hunter2hunter2";

fuzz_target!(|text: &[u8]| {
    for kind in [ObjectKind::Secret, ObjectKind::ConfigMap] {
        let _ = decode_object(kind, text);
        let mut marked = format!("{{\"kind\":\"{kind}\",\"data\":{{\"a\":\"{MARK}\",").into_bytes();
        marked.extend_from_slice(text);
        match decode_object(kind, &marked) {
            Ok(object) => assert!(!format!("{object:?}").contains(MARK) || text.windows(7).any(|part| part == b"hunter2")),
            Err(error) => assert!(!error.contains(MARK)),
        }
    }
    for line in text.split(|byte| *byte == b'\n') {
        let _ = decode_watch_event(line);
    }
});

//! Answers of a Vault server are decoded or refused, and no message repeats a value.
#![no_main]

use invar_secrets::vault::{decode_answer, decode_errors};
use libfuzzer_sys::fuzz_target;

const MARK: &str = "hunter2hunter2";

fuzz_target!(|text: &[u8]| {
    if let Ok(answer) = decode_answer(text) {
        for value in answer.data.iter().flat_map(|data| data.as_map()).flat_map(|fields| fields.values()) {
            let _ = value.to_secret();
        }
    }
    for error in decode_errors(text) {
        assert!(!error.contains('\n') && error.chars().count() <= 301);
    }
    let mut marked = format!("{{\"data\":{{\"a\":\"{MARK}\"}},\"lease_id\":\"{MARK}\",").into_bytes();
    marked.extend_from_slice(text);
    let told_anyway = text.windows(7).any(|part| part == b"hunter2");
    match decode_answer(&marked) {
        Ok(answer) => assert!(!format!("{answer:?}").contains(MARK) || told_anyway),
        Err(error) => assert!(!error.contains(MARK)),
    }
});

//! Addresses are parsed or refused, and a password in one appears in no message.
#![no_main]

use invar_sources::{parse_address, redact};
use libfuzzer_sys::fuzz_target;

const MARK: &str = "hunter2hunter2";

fuzz_target!(|text: &str| {
    let _ = parse_address(text);
    if text.contains('@') || text.contains("hunter2") {
        return;
    }
    let marked = format!("git+https://me:{MARK}{text}@git.example/x?brnch=main");
    assert!(!redact(&marked).contains(MARK));
    match parse_address(&marked) {
        Ok(settings) => assert!(!format!("{settings:?}").contains(MARK)),
        Err(error) => assert!(!format!("{error} {error:?}").contains(MARK)),
    }
});

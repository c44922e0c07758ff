//! `known_hosts` files with anything in them, and hosts with any name.

#![no_main]

use invar_sources::wire_format::KnownHosts;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (&str, &str, u16)| {
    let (text, host, port) = input;
    let found = KnownHosts::parse(text).find(host, port);
    assert!(found.len() <= text.lines().count());
});

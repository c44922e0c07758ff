//! Patterns of `[policy]` are read or refused, and whatever they are held against is allowed or refused, without a panic;
//! and an empty list allows nothing.
#![no_main]

use std::path::{Path, PathBuf};

use invar_policy::{Policy, PolicySettings};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (Vec<String>, String)| {
    let (patterns, text) = input;
    let settings = |patterns: Vec<String>| PolicySettings {
        environment_variables: Some(patterns.clone()),
        file_roots: Some(patterns.iter().map(PathBuf::from).collect()),
        listen: Some(patterns.clone()),
        egress: Some(patterns.clone()),
        components: Some(patterns),
        ..PolicySettings::default()
    };
    if let Ok(policy) = Policy::new(&settings(patterns), &[]) {
        let access = policy.general();
        let _ = access.environment_variable(&text);
        let _ = access.file_named(Path::new(&text));
        let _ = access.listen(&text);
        let _ = access.destination_text(&text);
        let _ = access.component(&text);
    }
    let closed = Policy::new(&settings(Vec::new()), &[]).expect("there is nothing to be wrong with");
    assert!(closed.general().environment_variable(&text).is_err());
    assert!(closed.general().listen(&text).is_err());
    assert!(closed.general().component(&text).is_err());
    assert!(!Path::new(&text).is_absolute() || closed.general().file_named(Path::new(&text)).is_err());
});

//! The declared interface against the table of Alloy's own declarations.

#![allow(clippy::unwrap_used)]

use std::path::Path;

use invar_engine::Registry;
use invar_syntax::schema::schema_to_json;

/// The table, or none where it is not beside the repository.
fn table() -> Option<String> {
    let mut directory = Path::new(env!("CARGO_MANIFEST_DIR"));
    loop {
        let candidate = directory.join("shared/conformance/components.jsonl");
        if candidate.is_file() {
            return std::fs::read_to_string(candidate).ok();
        }
        directory = directory.parent()?;
    }
}

#[test]
fn declared_interfaces_equal_the_recorded_ones() {
    let Some(table) = table() else {
        eprintln!("skipped: no shared/conformance/components.jsonl above this crate");
        return;
    };
    let registry = invar_components_remote::register(Registry::new());
    let mut compared = 0;
    for line in table.lines() {
        let row: serde_json::Value = serde_json::from_str(line).unwrap();
        let Some(info) = row["name"].as_str().and_then(|name| registry.get(name)) else { continue };
        assert_eq!(schema_to_json(&info.arguments), row["arguments"], "arguments of {}", info.name);
        assert_eq!(schema_to_json(&info.exports), row["exports"], "exports of {}", info.name);
        compared += 1;
    }
    assert_eq!(compared, registry.names().count());
}

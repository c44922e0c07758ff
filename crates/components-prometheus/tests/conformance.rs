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
    let registry = invar_components_prometheus::register(Registry::new());
    let mut compared = 0;
    let mut differing = Vec::new();
    for line in table.lines() {
        let row: serde_json::Value = serde_json::from_str(line).unwrap();
        let Some(info) = row["name"].as_str().and_then(|name| registry.get(name)) else { continue };
        // A component without exports has no such field in the table.
        let recorded = |field: &str| row.get(field).cloned().unwrap_or_else(|| serde_json::json!([]));
        for (field, schema) in [("arguments", &info.arguments), ("exports", &info.exports)] {
            let (declared, recorded) = (schema_to_json(schema), recorded(field));
            if declared != recorded {
                differing.push(format!("{field} of {}:\n{declared}\n{recorded}", info.name));
            }
        }
        compared += 1;
    }
    assert!(differing.is_empty(), "{}", differing.join("\n"));
    assert_eq!(compared, registry.names().count());
}

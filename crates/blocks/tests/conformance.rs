//! The shared groups of arguments against the components of Alloy's own table that contain them.

#![allow(clippy::unwrap_used)]

use std::path::Path;

use invar_blocks::{Http1ClientArguments, HttpClientArguments, RelabelRuleBlock, ServerArguments};
use invar_syntax::Arguments;
use invar_syntax::schema::schema_to_json;
use serde_json::Value;

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

fn field<'a>(fields: &'a Value, name: &str) -> &'a Value {
    fields.as_array().unwrap().iter().find(|field| field["name"] == name).unwrap_or(&Value::Null)
}

#[test]
fn shared_groups_equal_the_recorded_ones() {
    let Some(table) = table() else {
        eprintln!("skipped: no shared/conformance/components.jsonl above this crate");
        return;
    };
    let rows: Vec<Value> = table.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let arguments = |name: &str| rows.iter().find(|row| row["name"] == name).unwrap()["arguments"].clone();
    let endpoint = field(&arguments("prometheus.remote_write"), "endpoint")["fields"].clone();
    let groups = [
        (schema_to_json(&HttpClientArguments::schema()), arguments("prometheus.scrape"), 13),
        (schema_to_json(&Http1ClientArguments::schema()), endpoint.clone(), 13),
        (schema_to_json(&ServerArguments::schema()), arguments("prometheus.receive_http"), 3),
        (
            schema_to_json(&RelabelRuleBlock::schema()),
            field(&endpoint, "write_relabel_config")["fields"].clone(),
            7,
        ),
    ];
    for (declared, recorded, count) in groups {
        assert_eq!(declared.as_array().unwrap().len(), count);
        for ours in declared.as_array().unwrap() {
            let name = ours["name"].as_str().unwrap();
            assert_eq!(ours, field(&recorded, name), "{name}");
        }
    }
}

//! What the binary declares of its components is what Alloy's own components declare, where that table is at hand.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// The recorded interface of every component of Alloy, by name.
fn recorded() -> Option<BTreeMap<String, Value>> {
    let mut folder: Option<&Path> = Some(Path::new(env!("CARGO_MANIFEST_DIR")));
    let file = loop {
        let candidate: PathBuf = folder?.join("shared/conformance/components.jsonl");
        if candidate.is_file() {
            break candidate;
        }
        folder = folder?.parent();
    };
    let text = std::fs::read_to_string(file).unwrap();
    let rows = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    Some(rows.map(|row| (row["name"].as_str().unwrap().to_owned(), row)).collect())
}

#[test]
fn every_component_declares_what_alloys_does() {
    let Some(recorded) = recorded() else {
        println!("skipped: the recorded interfaces are not at hand");
        return;
    };
    let output =
        Command::new(env!("CARGO_BIN_EXE_invar")).args(["components", "-o", "json"]).output().unwrap();
    assert!(output.status.success());
    let mut compared = 0;
    for line in String::from_utf8(output.stdout).unwrap().lines() {
        let declared: Value = serde_json::from_str(line).unwrap();
        let name = declared["name"].as_str().unwrap();
        if name.starts_with("testing.") {
            continue;
        }
        let expected = recorded.get(name).unwrap_or_else(|| panic!("Alloy has no component {name}"));
        assert_eq!(declared["stability"], expected["stability"], "{name}");
        for part in ["arguments", "exports"] {
            let empty = Value::Array(Vec::new());
            let expected = expected.get(part).unwrap_or(&empty);
            assert_eq!(&declared[part], expected, "{name}: {part}");
        }
        compared += 1;
    }
    println!("{compared} components agree");
    assert!(compared >= 8, "only {compared} components were compared");
}

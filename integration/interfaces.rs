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
        if name.starts_with("testing.") || name.starts_with("testcomponents.") {
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

/// Standard output of `invar` with these arguments, as JSON.
fn printed(arguments: &[&str]) -> Value {
    let output = Command::new(env!("CARGO_BIN_EXE_invar")).args(arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The paths of all objects within whose description is empty.
fn undescribed(path: &str, value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(object) => {
            let name = object.get("name").and_then(Value::as_str).unwrap_or_default();
            let path = format!("{path}/{name}");
            if let Some(description) = object.get("description").and_then(Value::as_str)
                && description.trim().is_empty()
            {
                found.push(path.clone());
            }
            object.values().for_each(|value| undescribed(&path, value, found));
        }
        Value::Array(entries) => entries.iter().for_each(|value| undescribed(path, value, found)),
        _ => {}
    }
}

#[test]
fn everything_that_is_declared_is_described() {
    let schema = printed(&["schema", "--compact"]);
    let mut found = Vec::new();
    undescribed("", &schema, &mut found);
    assert!(found.is_empty(), "without a description: {found:#?}");
    // Fields that are described have the key; those without it would slip through.
    let text = schema.to_string();
    assert_eq!(text.matches("\"kind\":\"attribute\"").count(), text.matches("\"secret\":").count());
    for part in ["components", "blocks", "functions", "constants", "names"] {
        let entries = schema[part].as_array().unwrap();
        assert!(!entries.is_empty(), "{part}");
        assert!(entries.iter().all(|entry| entry["description"].is_string()), "{part}");
    }
}

#[test]
fn references_are_printed_in_three_forms_and_wrong_names_answered() {
    let run = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_invar")).args(arguments).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout), text(output.stderr))
    };
    let (code, text, _) = run(&["components", "prometheus.remote_write"]);
    assert_eq!(code, Some(0));
    for part in ["Usage", "Block endpoint > basic_auth", "Exports", "receiver", "Takes secrets"] {
        assert!(text.contains(part), "{part}\n{text}");
    }
    assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
    let (code, text, _) = run(&["components", "prometheus.scrape", "-o", "markdown"]);
    assert_eq!(code, Some(0));
    assert!(text.contains("| `targets` | `list(discovery.Target)` | required |"), "{text}");
    let (code, text, _) = run(&["components", "logging"]);
    assert_eq!(code, Some(0), "{text}");
    let (code, _, complaint) = run(&["components", "prometheus.scrap"]);
    assert_eq!(code, Some(1));
    assert!(complaint.contains("did you mean `prometheus.scrape`"), "{complaint}");
    let (code, _, complaint) = run(&["components", "string.join"]);
    assert_eq!((code, complaint.contains("invar functions string.join")), (Some(1), true), "{complaint}");
    let (code, text, _) = run(&["functions", "string.join"]);
    assert_eq!(code, Some(0));
    assert!(text.contains("string.join(list: list(string), separator: string) -> string"), "{text}");
    let (code, _, complaint) = run(&["functions", "string.joim"]);
    assert_eq!((code, complaint.contains("did you mean `string.join`")), (Some(1), true), "{complaint}");
}

/// Whether a schema of draft 7, as far as ours go, admits a value.
fn admits(root: &Value, schema: &Value, value: &Value) -> Result<(), String> {
    if let Some(reference) = schema["$ref"].as_str() {
        let target = root.pointer(reference.trim_start_matches('#')).unwrap();
        return admits(root, target, value);
    }
    for part in schema["allOf"].as_array().into_iter().flatten() {
        admits(root, part, value)?;
    }
    for key in ["anyOf", "oneOf"] {
        if let Some(options) = schema[key].as_array()
            && !options.iter().any(|option| admits(root, option, value).is_ok())
        {
            return Err(format!("{value} is none of {key}"));
        }
    }
    let kinds = match &schema["type"] {
        Value::String(kind) => vec![kind.as_str()],
        Value::Array(kinds) => kinds.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    let fits = |kind: &&str| match *kind {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        _ => false,
    };
    if !kinds.is_empty() && !kinds.iter().any(fits) {
        return Err(format!("{value} is no {kinds:?}"));
    }
    if schema.get("const").is_some_and(|only| only != value) {
        return Err(format!("{value} is not {}", schema["const"]));
    }
    if schema["enum"].as_array().is_some_and(|values| !values.contains(value)) {
        return Err(format!("{value} is none of {}", schema["enum"]));
    }
    if let Value::Object(object) = value {
        for required in schema["required"].as_array().into_iter().flatten() {
            object.get(required.as_str().unwrap()).ok_or_else(|| format!("{required} is missing"))?;
        }
        for (key, value) in object {
            match (schema["properties"].get(key), &schema["additionalProperties"]) {
                (Some(property), _) => {
                    admits(root, property, value).map_err(|error| format!("{key}: {error}"))?;
                }
                (None, Value::Bool(false)) => return Err(format!("{key} is unknown")),
                (None, more @ Value::Object(_)) => admits(root, more, value)?,
                (None, _) => {}
            }
        }
    }
    for entry in value.as_array().into_iter().flatten() {
        admits(root, &schema["items"], entry)?;
    }
    Ok(())
}

#[test]
fn the_schema_of_settings_admits_what_the_documentation_shows_and_no_more() {
    let schema = printed(&["schema", "--settings"]);
    let readme = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    let secrets =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/secrets.md")).unwrap();
    for (text, least) in [(readme, 2), (secrets, 2)] {
        let samples: Vec<&str> =
            text.split("```toml\n").skip(1).map(|part| part.split("```").next().unwrap()).collect();
        assert!(samples.len() >= least, "{samples:?}");
        for sample in samples {
            let sample: toml::Value = toml::from_str(sample).unwrap();
            admits(&schema, &schema, &serde_json::to_value(sample).unwrap()).unwrap();
        }
    }
    let broken = [
        (serde_json::json!({ "secrets": { "x": { "kind": "file" } } }), "secrets"),
        (serde_json::json!({ "secrets": { "x": { "kind": "valt" } } }), "secrets"),
        (serde_json::json!({ "secrets": { "x": { "kind": "env", "variable": [] } } }), "secrets"),
        (serde_json::json!({ "state": { "offline_secrets": "allow" } }), "offline_secrets"),
        (serde_json::json!({ "state": { "offline_secrets": { "max_age": "1h" } } }), "offline_secrets"),
        (serde_json::json!({ "agnt": {} }), "agnt"),
        (serde_json::json!({ "rollout": { "rollback": "never" } }), "rollback"),
        (serde_json::json!({ "state": { "history": "many" } }), "history"),
        (serde_json::json!({ "source": [{ "git": {} }] }), "url"),
        (serde_json::json!({ "source": [{ "auth": { "token": { "fil": "x" } } }] }), "token"),
    ];
    for (settings, part) in broken {
        let error = admits(&schema, &schema, &settings).unwrap_err();
        assert!(error.contains(part), "{error}");
    }
    assert!(!schema.to_string().contains("null"), "TOML has no null");
}

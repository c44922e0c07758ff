//! Schemas as `invar components -o json` prints them.

use invar_syntax::{Arguments, Exports, schema_to_json};
use serde_json::{Value as Json, json};

use crate::conformance::recorded;
use crate::shapes::{Scrape, ScrapeExports};

fn field<'a>(fields: &'a Json, name: &str) -> &'a Json {
    fields.as_array().unwrap().iter().find(|field| field["name"] == name).unwrap()
}

#[test]
fn describes_fields() {
    let fields = schema_to_json(&Scrape::schema());
    assert_eq!(
        field(&fields, "targets"),
        &json!({"name": "targets", "kind": "attr", "required": true, "type": "list(map(string))"})
    );
    assert_eq!(
        field(&fields, "forward_to"),
        &json!({"name": "forward_to", "kind": "attr", "required": true, "type": "list(any<storage.Appendable>)"})
    );
    let attribute = |name: &str, ty: &str, default: &str| {
        assert_eq!(
            field(&fields, name),
            &json!({"name": name, "kind": "attr", "type": ty, "default": default})
        );
    };
    attribute("scrape_interval", "duration", "\"1m0s\"");
    attribute("protocols", "list(string)", "[\"a\", \"b\"]");
    attribute("type", "string", "\"\"");
    attribute("proxy_url", "string<config.URL>", "\"\"");
    attribute("body_size_limit", "string<units.Base2Bytes>", "\"0B\"");
    attribute("offset", "number<int>", "-1");
    attribute("factor", "number<float>", "1.5");
    attribute("password", "secret", "(secret)");
    attribute("follow_redirects", "bool", "true");
    assert_eq!(field(&fields, "limit"), &json!({"name": "limit", "kind": "attr", "type": "number<uint32>"}));
    let rule = field(&fields, "rule");
    assert_eq!((&rule["kind"], &rule["many"]), (&json!("block"), &json!(true)));
    assert_eq!(field(&rule["fields"], "separator")["default"], "\";\"");
    let stage = field(&fields, "stage");
    assert_eq!((&stage["kind"], &stage["many"]), (&json!("enum"), &json!(true)));
    let inner = field(&field(&stage["fields"], "match")["fields"], "stage");
    assert_eq!(inner["recursive"], true);
    assert_eq!(
        field(&field(&fields, "named")["fields"], ""),
        &json!({"name": "", "kind": "label", "type": "string"})
    );
    assert_eq!(Scrape::schema().field("targets").unwrap().documentation, "What to scrape.");
}

#[test]
fn describes_exports() {
    assert_eq!(
        schema_to_json(&ScrapeExports::schema()),
        json!([
            {"name": "receiver", "kind": "attr", "required": true, "type": "any<storage.Appendable>"},
            {"name": "count", "kind": "attr", "required": true, "type": "number<int>"},
        ])
    );
}

#[test]
fn uses_only_the_keys_of_the_recorded_components() {
    let Some(path) = recorded("components.jsonl") else { return };
    let text = std::fs::read_to_string(path).unwrap();
    let mut keys = std::collections::BTreeSet::new();
    for line in text.lines() {
        let component: Json = serde_json::from_str(line).unwrap();
        collect_keys(&component["arguments"], &mut keys);
    }
    let mut ours = std::collections::BTreeSet::new();
    collect_keys(&schema_to_json(&Scrape::schema()), &mut ours);
    assert!(ours.is_subset(&keys), "{ours:?} against {keys:?}");
}

fn collect_keys(fields: &Json, keys: &mut std::collections::BTreeSet<String>) {
    for field in fields.as_array().into_iter().flatten() {
        keys.extend(field.as_object().unwrap().keys().cloned());
        collect_keys(&field["fields"], keys);
    }
}

#![allow(clippy::unwrap_used)]

use invar_syntax::{Field, FieldKind, Type, Value};

use super::*;

fn attribute(name: &'static str, ty: Type, required: bool, documentation: &'static str) -> Field {
    let mut field = Field::new(name, FieldKind::Attribute, ty);
    field.required = required;
    field.documentation = documentation;
    field
}

fn endpoint() -> Field {
    let mut block = Field::new("endpoint", FieldKind::Block, Type::Object(Vec::new()));
    block.required = true;
    block.many = true;
    block.documentation = "Where to\nsend.";
    block.fields = vec![
        attribute("url", Type::String, true, "The address."),
        attribute("password", Type::Secret, false, "The password."),
    ];
    block
}

fn component() -> ComponentInfo {
    let mut interval = attribute("interval", Type::Duration, false, "How often.");
    interval.default = Some(Value::string("1m0s"));
    let mut scheme = attribute("scheme", Type::String, false, "The scheme.");
    scheme.values = &["http", "https"];
    let fields = vec![
        attribute("targets", Type::list(Type::Capsule("discovery.Target")), true, "What to send."),
        interval,
        scheme,
        endpoint(),
    ];
    ComponentInfo {
        settings: false,
        name: "sample.push",
        summary: "Sends samples.",
        stability: invar_syntax::Stability::Experimental,
        community: false,
        arguments: invar_syntax::Schema { fields },
        exports: invar_syntax::Schema {
            fields: vec![attribute("content", Type::OptionalSecret, true, "Content.")],
        },
    }
}

fn reference() -> Reference {
    Reference { components: vec![component()], ..Reference::new(&Registry::new()) }
}

fn plain(_: Emphasis, text: &str) -> String {
    text.to_owned()
}

#[test]
fn a_page_lines_up_and_wraps() {
    let text = reference().page("sample.push").unwrap().to_text(60, &plain);
    let expected = "\
sample.push  (component, experimental)

Sends samples.

Usage
  sample.push \"LABEL\" {
    targets = <list(discovery.Target)>

    endpoint {
      url = <string>
    }
  }

Arguments
  targets   list(discovery.Target), required
            What to send.
  interval  duration, default \"1m0s\"
            How often.
  scheme    \"http\" | \"https\"
            The scheme.
  endpoint  block, repeatable, required
            Where to send.

Block endpoint
  Where to send.
  url       string, required
            The address.
  password  secret
            The password.

Exports
  content  string or secret
           Content.

Notes
  Needs --stability.level=experimental or lower.
  Takes secrets, and never shows them: endpoint.password.
  May export a secret, which stays one wherever it is used:
  content.";
    assert_eq!(text, expected);
    assert!(text.lines().all(|line| line.chars().count() <= 60));
}

#[test]
fn markdown_has_a_row_for_every_argument() {
    let text = reference().page("sample.push").unwrap().to_markdown();
    assert!(text.starts_with("# sample.push\n"), "{text}");
    assert!(text.contains("| `interval` | `duration` | default `\"1m0s\"` | How often. |"), "{text}");
    assert!(text.contains("| `scheme` | `\"http\" \\| \"https\"` |"), "{text}");
}

#[test]
fn a_path_leads_into_blocks_and_to_arguments() {
    let reference = reference();
    let page = reference.page("sample.push.endpoint").unwrap();
    assert_eq!(page.usage, "endpoint {\n  url = <string>\n}");
    assert_eq!(reference.page("sample.push.endpoint.url").unwrap().facts, "string, required");
    assert!(reference.page("sample.push.endpoint.nothing").is_none());
    assert!(reference.page("sample.pus").is_none());
    assert!(reference.page("logging.level").unwrap().facts.contains("\"debug\""));
}

#[test]
fn wrong_names_are_answered_with_near_and_related_ones() {
    let reference = reference();
    assert_eq!(reference.suggestions("sample.psh"), ["sample.push"]);
    assert_eq!(reference.suggestions("other.push"), ["sample.push"]);
    assert!(reference.suggestions("xyz").is_empty());
    assert_eq!(reference.function_suggestions("join"), ["string.join", "file.path_join"]);
}

#[test]
fn snippets_stop_where_the_author_decides() {
    let text = snippet("sample.push", true, &component().arguments.fields, Holes::TabStops);
    let expected =
        "sample.push \"${1:default}\" {\n  targets = [$2]\n\n  endpoint {\n    url = \"$3\"\n  }\n}";
    assert_eq!(text, expected);
    assert_eq!(value_hole(&component().arguments.fields[2], 1), "\"${1|http,https|}\"");
}

#[test]
fn the_schema_says_types_in_parts() {
    let schema = language_schema(&reference(), "0.0.0");
    assert_eq!(schema["version"], 1);
    let arguments = &schema["components"][0]["arguments"];
    assert_eq!(arguments[0]["type"]["element"]["name"], "discovery.Target");
    assert_eq!(arguments[2]["type"]["values"][1], "https");
    assert_eq!(arguments[3]["fields"][1]["secret"], true);
    assert!(schema["functions"].as_array().unwrap().len() > 20);
    assert!(schema["names"].as_array().unwrap().iter().any(|name| name["name"] == "var"));
}

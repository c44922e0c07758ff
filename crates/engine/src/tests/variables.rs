//! Variables and the agent's attributes in expressions: their values, their types, and what is said of those that are
//! missing or do not fit.

use std::collections::BTreeMap;
use std::sync::Arc;

use invar_syntax::diagnostic::Diagnostics;
use invar_syntax::source::Source;
use invar_syntax::span::Span;
use invar_syntax::value::{Object, Value};

use super::{Rig, registry};
use crate::configuration::{Configuration, Inputs};
use crate::engine::PrepareMode;
use crate::validate::validate;
use crate::variables::{Definition, Variables};

const LAYER: &str = "environments/dev/variables.toml";

/// Variables as if each had been written on a line of its own, in order.
fn variables(values: &[(&str, Value)]) -> Variables {
    let text: String = values.iter().map(|(name, _)| format!("{name} = …\n")).collect();
    let source = Arc::new(Source::new(LAYER, text.as_str()));
    let mut definitions = BTreeMap::new();
    let mut start = 0;
    for (name, _) in values {
        let end = start + u32::try_from(name.len()).unwrap();
        let place = Definition {
            source: Arc::clone(&source),
            key: Span::new(start, end),
            value: Span::new(end + 3, end + 6),
            origin: Arc::from("fleet"),
            layer: Arc::from("environments/dev"),
        };
        definitions.insert(vec![Arc::from(*name)], vec![place]);
        start = end + 7;
    }
    let searched = vec!["base/variables.toml".to_owned(), LAYER.to_owned()];
    let values: Object = values.iter().map(|(name, value)| (*name, value.clone())).collect();
    Variables::new(values, definitions, searched)
}

fn agent() -> Value {
    let labels = Value::object([("region", Value::from("eu-1"))]);
    Value::object([("name", Value::from("web-17")), ("environment", Value::from("dev")), ("labels", labels)])
}

fn configuration(text: &str, inputs: Inputs) -> Arc<Configuration> {
    Arc::new(Configuration::parse([("main.alloy", text)], inputs, "test").unwrap())
}

fn inputs(values: &[(&str, Value)]) -> Inputs {
    Inputs { variables: variables(values), agent: agent(), ..Inputs::default() }
}

fn checked(text: &str, inputs: Inputs) -> Diagnostics {
    validate(&registry(), &configuration(text, inputs))
}

#[tokio::test]
async fn values_reach_arguments_with_their_types() {
    let rig = Rig::new();
    let text = "test.sink \"s\" { tag = string.join([var.name, agent.name, agent.labels.region, var.db.host], \"/\") }";
    let db = Value::object([("host", Value::from("h"))]);
    let configuration = configuration(text, inputs(&[("name", Value::from("n")), ("db", db)]));
    assert_eq!(rig.engine.check(&configuration), Diagnostics::new());
    let prepared = rig.engine.prepare(configuration, PrepareMode::AllOrNothing).await.unwrap();
    rig.cut(prepared).await.unwrap();
    let arguments = rig.engine.component("test.sink.s").unwrap().arguments.to_string();
    assert!(arguments.contains("n/web-17/eu-1/h"), "{arguments}");
    rig.shutdown().await;
}

#[test]
fn an_undefined_variable_names_the_file_to_define_it_in() {
    let db = Value::object([("host", Value::from("h"))]);
    let values = [("interval", Value::from("15s")), ("db", db)];
    for (expression, message, help) in [
        (
            "var.intervall",
            "var.intervall is not defined; define it in",
            Some("did you mean \"var.interval\"?"),
        ),
        ("var.zzz", "var.zzz is not defined; define it in", None),
        ("var.db.hst", "var.db.hst is not defined; define it in", Some("did you mean \"var.db.host\"?")),
        ("\"a\" + var.zzz", "var.zzz is not defined; define it in", None),
    ] {
        let diagnostics = checked(&format!("test.sink \"s\" {{ tag = {expression} }}"), inputs(&values));
        assert_eq!(diagnostics.len(), 1, "{diagnostics}");
        let found = &diagnostics.0[0];
        assert_eq!(found.help.as_deref(), help);
        assert_eq!(found.code, "E109");
        assert_eq!(found.message, format!("{message} {LAYER} (also searched: base/variables.toml)"),);
        assert_eq!(found.labels[0].source.name.as_ref(), "main.alloy");
    }
    let diagnostics = checked("test.sink \"s\" { tag = var.x }", Inputs::default());
    let wanted = "var.x is not defined; no folder with a variables.toml belongs to this configuration";
    assert_eq!(diagnostics.0[0].message, wanted);
}

#[test]
fn a_variable_of_the_wrong_type_points_at_its_definition() {
    let values = [("unused", Value::from(1)), ("tag", Value::from(7)), ("list", Value::from("x"))];
    // Beside an export that is not known yet, so that only the static check can see it.
    let text = "test.values \"v\" { }\ntest.pass \"p\" {\nforward_to = var.list\ntag = var.tag\n}";
    let diagnostics = checked(text, inputs(&values));
    assert_eq!(diagnostics.len(), 1, "{diagnostics}");
    let found = &diagnostics.0[0];
    assert_eq!(found.labels.len(), 2, "{found:#?}");
    assert_eq!(found.labels[0].source.location(found.labels[0].span.start), "main.alloy:3:14");
    assert_eq!(found.labels[1].source.location(found.labels[1].span.start), format!("{LAYER}:3:1"));
    assert_eq!(found.labels[1].text, "var.list is defined here");
}

#[test]
fn lists_and_tables_are_checked_within() {
    // A text in a list of receivers is nothing that can be told without their own conversion; a number is.
    let values = [("list", Value::array([Value::from(7)]))];
    let text =
        "test.values \"v\" { }\ntest.pass \"p\" {\nforward_to = var.list\ntag = test.values.v.value\n}";
    let diagnostics = checked(text, inputs(&values));
    assert!(diagnostics.to_string().contains("forward_to[0] should be"), "{diagnostics}");
    assert_eq!(diagnostics.0[0].labels.len(), 2, "{diagnostics:#?}");
}

#[test]
fn what_no_static_check_sees_points_at_the_definition_too() {
    let values = [("tag", Value::from("x"))];
    let diagnostics =
        checked("test.sink \"s\" { tag = string.format(\"%s\", var.tag - 1) }", inputs(&values));
    assert_eq!(diagnostics.len(), 1, "{diagnostics}");
    assert_eq!(diagnostics.0[0].labels.len(), 2, "{diagnostics:#?}");
}

#[test]
fn agent_attributes_are_checked_where_they_are_known() {
    let found = checked("test.sink \"s\" { tag = agent.nam }", inputs(&[]));
    assert!(found.to_string().contains("agent.nam does not exist"), "{found}");
    let found = checked("test.sink \"s\" { tag = agent.labels.regio }", inputs(&[]));
    assert!(found.to_string().contains("this agent has no label \"regio\""), "{found}");
    assert_eq!(found.0[0].help.as_deref(), Some("did you mean \"agent.labels.region\"?"));
}

#[test]
fn off_the_host_what_was_not_given_is_unknown_but_typed() {
    let off = |agent: Value| Inputs { agent, off_host: true, ..inputs(&[]) };
    let nothing = || Value::from(Object::new());
    for text in [
        "test.sink \"s\" { tag = agent.name + agent.labels.any + sys.env(\"HOME\") + agent.environment }",
        "test.sink \"s\" { tag = env(\"HOME\") }",
        "test.sink \"s\" { tag = agent.labels[\"any\"] }",
    ] {
        assert!(!checked(text, off(nothing())).has_errors(), "{text}");
    }
    let found = checked("test.pass \"p\" { forward_to = agent.name }", off(nothing()));
    assert_eq!(found.len(), 1, "{found}");
    let found = checked("test.sink \"s\" { tag = agent.nam }", off(nothing()));
    assert_eq!(found.len(), 1, "{found}");
    // A label that is given is known; others are not for that wrong.
    let found = checked("test.sink \"s\" { tag = agent.labels.region + agent.labels.other }", off(agent()));
    assert_eq!(found, Diagnostics::new());
}

#[test]
fn the_digest_sees_only_variables_that_are_used() {
    let digest = |values: &[(&str, Value)]| {
        configuration("test.sink \"s\" { tag = var.a }", inputs(values)).digest.clone()
    };
    let one = digest(&[("a", Value::from("1")), ("b", Value::from("1"))]);
    assert_eq!(one, digest(&[("a", Value::from("1")), ("b", Value::from("2")), ("c", Value::from(3))]));
    assert_ne!(one, digest(&[("a", Value::from("2"))]));
    assert_ne!(one, digest(&[("a", Value::from(1))]));
}

/// A fleet's variables by the thousand, all used, and a typo in each use: neither may take more than a moment.
#[test]
fn thousands_of_uses_are_checked_in_no_time() {
    use std::fmt::Write as _;
    let names: Vec<String> = (0..10_000).map(|number| format!("variable_{number}")).collect();
    let values: Vec<_> = names.iter().map(|name| (name.as_str(), Value::from("x"))).collect();
    let mut text = String::new();
    for name in &names {
        writeln!(text, "test.sink \"{name}\" {{ tag = var.{name} }}").unwrap();
    }
    let start = std::time::Instant::now();
    assert_eq!(checked(&text, inputs(&values)), Diagnostics::new());
    let wrong: Vec<_> = values.iter().map(|(name, _)| (*name, Value::array([]))).collect();
    let found = checked(&text, inputs(&wrong));
    assert_eq!(found.len(), names.len());
    assert!(found.iter().all(|diagnostic| diagnostic.labels.len() == 2));
    // Far above what it takes, even unoptimized: only something quadratic with a heavy step gets there.
    assert!(start.elapsed().as_secs() < 30, "{:?}", start.elapsed());
}

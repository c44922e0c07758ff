//! The static check: every mistake is named, with its place.

use super::{configuration, parse, registry};
use crate::configuration::{Configuration, Inputs};
use crate::graph::{Admission, Dynamics, Graph};
use crate::registry::KnownComponent;
use crate::validate::{ValidateOptions, validate, validate_with};
use invar_syntax::schema::Stability;
use invar_syntax::value::{Object, Value};
use proptest::prelude::*;

fn findings(text: &str) -> Vec<String> {
    let diagnostics = validate(&registry(), &configuration(text));
    diagnostics
        .iter()
        .map(|diagnostic| match &diagnostic.help {
            Some(help) => format!("{} {diagnostic} ({help})", diagnostic.code),
            None => format!("{} {diagnostic}", diagnostic.code),
        })
        .collect()
}

fn assert_finds(text: &str, wanted: &[&str]) {
    assert_eq!(findings(text), wanted, "in:\n{text}");
}

#[test]
fn unknown_components_are_named_with_the_nearest_one() {
    assert_finds(
        "test.sinc \"out\" { }",
        &[
            "E201 main.alloy:1:1: cannot find the definition of component name \"test.sinc\" (did you mean \"test.sink\"?)",
        ],
    );
}

#[test]
fn components_need_a_label() {
    assert_finds(
        "test.sink { }",
        &[
            "E202 main.alloy:1:1: component \"test.sink\" must have a label (name it, for example: test.sink \"default\" { … })",
        ],
    );
}

#[test]
fn duplicates_name_both_places() {
    assert_finds(
        "test.sink \"a\" { }\n\ntest.sink \"a\" { }",
        &["E203 main.alloy:3:1: block test.sink.a already declared at main.alloy:1:1"],
    );
}

#[test]
fn declares_that_nothing_can_use_are_checked_too() {
    assert_finds(
        "declare {\n  declare \"inner\" { }\n  inner \"a\" { }\n  test.sinc \"a\" { }\n}\ndeclare \"d\" { }\ndeclare \"d\" \
         {\n  test.sink { }\n}\ndeclare {\n  d \"x\" { }\n  test.sink { }\n}\ndeclare \"declare\" {\n  test.sink { }\n}",
        &[
            "E202 main.alloy:1:1: declare block must have a label",
            "E201 main.alloy:4:3: cannot find the definition of component name \"test.sinc\" (did you mean \"test.sink\"?)",
            "E203 main.alloy:7:1: block declare.d already declared at main.alloy:6:1",
            "E202 main.alloy:8:3: component \"test.sink\" must have a label (name it, for example: test.sink \"default\" { … })",
            "E202 main.alloy:10:1: declare block must have a label",
            "E202 main.alloy:12:3: component \"test.sink\" must have a label (name it, for example: test.sink \"default\" { … })",
            "E214 main.alloy:14:9: 'declare' is not a valid label for a declare block",
            "E202 main.alloy:15:3: component \"test.sink\" must have a label (name it, for example: test.sink \"default\" { … })",
        ],
    );
}

#[test]
fn references_must_exist() {
    assert_finds(
        "test.values \"value\" { }\ntest.consumer \"c\" { input = test.values.valu.value }",
        &[
            "E204 main.alloy:2:29: component \"test.values.valu.value\" does not exist or is out of scope (did you mean \"test.values.value\"?)",
        ],
    );
}

#[test]
fn inputs_and_the_standard_library_are_in_scope() {
    assert_finds("test.consumer \"c\" { input = string.to_upper(module_path) }", &[]);
}

#[test]
fn functions_pass_the_gate_of_stability_too() {
    let configuration = configuration("test.consumer \"c\" { input = array.group_by([], \"a\", true) }");
    let options = ValidateOptions { minimum_stability: Some(Stability::GenerallyAvailable), community: None };
    let diagnostics = validate_with(&registry(), &configuration, options);
    assert!(diagnostics.iter().any(|diagnostic| diagnostic.code == "E208"), "{diagnostics}");
}

#[test]
fn what_an_agent_may_refuse_is_warned_about() {
    let text = "test.consumer \"c\" { input = array.group_by([], \"a\", true) }";
    let found = findings(text);
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(
        found[0].starts_with(
            "W410 main.alloy:1:29: function \"array.group_by\" is at stability level \"experimental\""
        ) || found[1].starts_with("W410"),
        "{found:?}"
    );
}

#[test]
fn arguments_pass_the_gate_of_stability_too() {
    let text = "test.pass \"p\" {\nforward_to = []\ntag = \"experimental\"\n}";
    assert_finds(text, &[]);
    let options = ValidateOptions { minimum_stability: Some(Stability::PublicPreview), community: None };
    let diagnostics = validate_with(&registry(), &configuration(text), options);
    let found: Vec<String> =
        diagnostics.iter().map(|diagnostic| format!("{} {diagnostic}", diagnostic.code)).collect();
    assert_eq!(
        found,
        [
            "E208 main.alloy:3:7: tag is at stability level \"experimental\", which is below the minimum allowed \
             stability level \"public-preview\""
        ]
    );
}

#[test]
fn exports_must_exist_and_fit() {
    let found = findings("test.values \"v\" { }\ntest.consumer \"c\" { input = test.values.v.valu }");
    assert_eq!(found.len(), 1);
    assert!(found[0].contains("component \"test.values.v\" has no export \"valu\""), "{found:?}");
    let found = findings("test.sink \"s\" { }\ntest.consumer \"c\" { input = test.sink.s.receiver }");
    assert_eq!(found.len(), 1, "{found:?}");
}

#[test]
fn cycles_name_their_members() {
    assert_finds(
        "test.consumer \"a\" { input = test.consumer.c.value }\n\
         test.consumer \"b\" { input = test.consumer.a.value }\n\
         test.consumer \"c\" { input = test.consumer.b.value }\n\
         test.consumer \"d\" { input = test.consumer.a.value }",
        &[
            "E205 main.alloy:1:1: cycle detected: test.consumer.a, test.consumer.b, test.consumer.c",
            "E205 main.alloy:2:1: cycle detected: test.consumer.a, test.consumer.b, test.consumer.c",
            "E205 main.alloy:3:1: cycle detected: test.consumer.a, test.consumer.b, test.consumer.c",
        ],
    );
    assert_finds(
        "test.consumer \"a\" { input = test.consumer.a.value }",
        &["E205 main.alloy:1:1: cannot reference self"],
    );
}

#[test]
fn one_mistake_does_not_hide_another() {
    assert_finds(
        "test.consumer \"a\" { inptu = 1 }\n\
         test.consumer \"a\" { input = [] }\n\
         test.consumer { input = nowhere.to.be.found }\n\
         test.sinc \"a\" { input = nowhere.to.be.found }\n\
         test.consumer \"b\" { input = test.sinc.a.anything }\n\
         test.consumer \"c\" { input = test.sinc.b.anything }",
        &[
            "E101 main.alloy:1:21: unrecognized attribute name \"inptu\" (did you mean \"input\"?)",
            "E203 main.alloy:2:1: block test.consumer.a already declared at main.alloy:1:1",
            "E103 main.alloy:2:29: input should be string, got array",
            "E202 main.alloy:3:1: component \"test.consumer\" must have a label (name it, for example: test.consumer \"default\" { … })",
            "E204 main.alloy:3:25: component \"nowhere.to.be.found\" does not exist or is out of scope",
            "E201 main.alloy:4:1: cannot find the definition of component name \"test.sinc\" (did you mean \"test.sink\"?)",
            "E204 main.alloy:6:29: component \"test.sinc.b.anything\" does not exist or is out of scope (did you mean \"test.sinc.a\"?)",
        ],
    );
}

#[test]
fn components_that_only_alloy_has_are_told_from_those_that_nobody_has() {
    const KNOWN: &[KnownComponent] =
        &[KnownComponent { name: "loki.write", stability: Stability::GenerallyAvailable, community: false }];
    let registry = registry().knowing(KNOWN);
    let text = "loki.write \"a\" { x = loki.write.b.y }\n\
                loki.write \"b\" { x = loki.write.a.y }\n\
                loki.wriet \"c\" { }\n\
                loki.write \"d\" { x = nowhere.to.be.found }";
    let found: Vec<String> = validate(&registry, &configuration(text))
        .iter()
        .map(|diagnostic| format!("{} {diagnostic}", diagnostic.code))
        .collect();
    assert_eq!(
        found,
        [
            "E220 main.alloy:1:1: component \"loki.write\" exists in Alloy but is not built into this version",
            "E205 main.alloy:1:1: cycle detected: loki.write.a, loki.write.b",
            "E220 main.alloy:2:1: component \"loki.write\" exists in Alloy but is not built into this version",
            "E205 main.alloy:2:1: cycle detected: loki.write.a, loki.write.b",
            "E201 main.alloy:3:1: cannot find the definition of component name \"loki.wriet\"",
            "E220 main.alloy:4:1: component \"loki.write\" exists in Alloy but is not built into this version",
            "E204 main.alloy:4:22: component \"nowhere.to.be.found\" does not exist or is out of scope",
        ]
    );
}

#[test]
fn deprecated_functions_are_warned_about() {
    assert_finds(
        "test.consumer \"c\" { input = to_upper(\"a\") + env(\"B\") }",
        &[
            "W401 main.alloy:1:29: function \"to_upper\" is deprecated (write string.to_upper)",
            "W401 main.alloy:1:45: function \"env\" is deprecated (write sys.env)",
        ],
    );
}

#[test]
fn blocks_of_later_versions_are_refused_as_such() {
    for block in ["tracing { }", "http { }", "livedebugging { }", "remotecfg { }"] {
        let found = findings(block);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(
            found[0].starts_with("E206 ") && found[0].contains("not supported yet in this version"),
            "{found:?}"
        );
    }
    assert_finds("logging { level = \"debug\" }", &[]);
}

#[test]
fn attributes_outside_of_blocks_are_refused() {
    assert_finds("x = 1", &["E207 main.alloy:1:1: attribute \"x\" stands outside of any block"]);
}

#[test]
fn the_components_own_check_runs_on_what_is_known() {
    assert_finds(
        "test.pass \"p\" {\n forward_to = []\n tag = \"refused\"\n}",
        &["E210 main.alloy:3:8: this tag is refused"],
    );
}

#[test]
fn what_is_known_is_judged_beside_what_is_not() {
    assert_finds(
        "test.sink \"s\" { }\ntest.pass \"p\" {\n forward_to = [test.sink.s.receiver]\n tag = \"refused\"\n}",
        &["E210 main.alloy:4:8: this tag is refused"],
    );
    assert_finds(
        "test.sink \"s\" { }\ntest.pass \"p\" {\n forward_to = [test.sink.s.receiver]\n tag = sys.env(\"TAG\")\n}",
        &[],
    );
    assert_finds(
        "test.pass \"p\" {\n forward_to = nowhere.to.be.found\n tag = \"refused\"\n}",
        &[
            "E204 main.alloy:2:15: component \"nowhere.to.be.found\" does not exist or is out of scope",
            "E210 main.alloy:3:8: this tag is refused",
        ],
    );
}

#[test]
fn components_may_doubt_what_they_accept() {
    assert_finds(
        "test.pass \"p\" {\n forward_to = []\n tag = \"doubtful\"\n}",
        &["W403 main.alloy:3:8: this tag is doubtful"],
    );
}

#[test]
fn addresses_that_are_wanted_twice_are_found_without_running() {
    let pass = |label: &str| {
        format!("test.pass \"{label}\" {{\n forward_to = []\n tag = \"listen 127.0.0.1:1\"\n}}\n")
    };
    assert_finds(
        &(pass("a") + &pass("b")),
        &["E211 main.alloy:5:1: test.pass.b would listen on 127.0.0.1:1, where test.pass.a listens already"],
    );
}

#[test]
fn independent_mistakes_are_all_reported() {
    assert_eq!(findings("test.sinc \"a\" { }\nx = 1\ntest.sink { }").len(), 3);
}

#[test]
fn digests_see_tokens_and_used_inputs_only() {
    let digest = |text: &str| parse(text).unwrap().digest;
    let plain = digest("test.sink \"a\" {\n tag = \"1\"\n}");
    assert_eq!(plain, digest("// note\ntest.sink   \"a\" {\n\n tag = \"1\" // one\n}\n"));
    assert_ne!(plain, digest("test.sink \"a\" {\n tag = \"2\"\n}"));

    let with = |text: &str, name: &str, value: &str| {
        let variables = Object::from_iter([(name, Value::from(value))]);
        let inputs = Inputs { variables: variables.into(), ..Inputs::default() };
        Configuration::parse([("a.alloy", text)], inputs, "").unwrap().digest
    };
    let used = "test.sink \"a\" { tag = var.x }";
    assert_ne!(with(used, "x", "1"), with(used, "x", "2"));
    let unused = "test.sink \"a\" { }";
    assert_eq!(with(unused, "x", "1"), with(unused, "x", "2"));
}

/// Consumers that use the exports of others, at most one each.
fn consumers(inputs: &[Option<usize>]) -> String {
    let mut text = String::new();
    for (index, input) in inputs.iter().enumerate() {
        let input = input.map_or("\"\"".to_owned(), |input| format!("test.consumer.n{input}.value"));
        text += &format!("test.consumer \"n{index}\" {{ input = {input} }}\n");
    }
    text
}

proptest! {
    #[test]
    fn any_graph_is_ordered_or_its_cycles_are_named(
        inputs in proptest::collection::vec(proptest::option::of(0_usize..12), 12)
    ) {
        let admission = Admission { minimum_stability: Stability::Experimental, community: true };
        let configuration = configuration(&consumers(&inputs));
        let (graph, diagnostics) = Graph::build(&registry(), &configuration, admission, &Dynamics::new());
        // With one input each, a walk that never ends is in a circle.
        let circular = |start: usize| {
            let mut at = start;
            (0..inputs.len()).all(|_| inputs[at].is_some_and(|next| { at = next; true }))
        };
        match graph {
            Some(graph) => {
                prop_assert!(!(0..inputs.len()).any(circular));
                for index in graph.order() {
                    for reference in &graph.node(*index).references {
                        prop_assert!(graph.rank(*reference) < graph.rank(*index));
                    }
                }
            }
            None => {
                prop_assert!((0..inputs.len()).any(circular));
                prop_assert!(diagnostics.iter().all(|diagnostic| diagnostic.code == "E205"));
            }
        }
    }
}

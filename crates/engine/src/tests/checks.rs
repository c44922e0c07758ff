//! The static check: every mistake is named, with its place.

use super::{configuration, parse, registry};
use crate::configuration::{Configuration, Inputs};
use crate::graph::{Admission, Dynamics, Graph};
use crate::validate::{check, validate};
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
    let admission = Admission { minimum_stability: Stability::GenerallyAvailable, community: false };
    let diagnostics = check(&registry(), &configuration, admission);
    assert!(diagnostics.iter().any(|diagnostic| diagnostic.code == "E208"), "{diagnostics}");
}

#[test]
fn arguments_pass_the_gate_of_stability_too() {
    let text = "test.pass \"p\" {\nforward_to = []\ntag = \"experimental\"\n}";
    assert_finds(text, &[]);
    let admission = Admission { minimum_stability: Stability::PublicPreview, community: false };
    let diagnostics = check(&registry(), &configuration(text), admission);
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
        &["E205 main.alloy:1:1: cycle: test.consumer.a, test.consumer.b, test.consumer.c"],
    );
    assert_finds(
        "test.consumer \"a\" { input = test.consumer.a.value }",
        &["E205 main.alloy:1:29: self reference: test.consumer.a.value"],
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

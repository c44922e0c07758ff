#![allow(clippy::unwrap_used, clippy::let_underscore_must_use)]

use super::*;
use crate::conformance;

fn rule(spec: RelabelSpec) -> RelabelRule {
    RelabelRule::new(spec).unwrap()
}

/// The rules of a conformance row. `Err` where one of them is refused.
fn rules(text: &str) -> Result<Vec<RelabelRule>, RelabelError> {
    let rows: Vec<serde_json::Map<String, serde_json::Value>> = serde_json::from_str(text).unwrap();
    rows.iter()
        .map(|row| {
            let text = |field: &str, default: &str| {
                row.get(field).map_or(default.to_owned(), |value| value.as_str().unwrap().to_owned())
            };
            let defaults = RelabelSpec::default();
            RelabelRule::new(RelabelSpec {
                source_labels: row
                    .get("source_labels")
                    .map(|names| {
                        names
                            .as_array()
                            .unwrap()
                            .iter()
                            .map(|name| name.as_str().unwrap().to_owned())
                            .collect()
                    })
                    .unwrap_or_default(),
                separator: text("separator", &defaults.separator),
                regex: text("regex", &defaults.regex),
                modulus: row.get("modulus").map_or(0, |value| value.as_u64().unwrap()),
                target_label: text("target_label", ""),
                replacement: text("replacement", &defaults.replacement),
                action: text("action", "replace").parse()?,
                validation: NameValidation::Legacy,
            })
        })
        .collect()
}

#[test]
fn agrees_with_the_conformance_table() {
    let Some(rows) = conformance::rows("relabel.jsonl") else { return };
    let mut checked = 0;
    for row in rows.iter().filter(|row| row["kind"] == "relabel") {
        let text = row["rules"].as_str().unwrap();
        let rules = rules(text);
        assert_eq!(rules.is_err(), row.get("error").is_some(), "{text}: {rules:?}");
        let Ok(rules) = rules else { continue };
        let mut labels = LabelsBuilder::new();
        for (name, value) in row.get("labels").and_then(|labels| labels.as_object()).into_iter().flatten() {
            labels.set(name, value.as_str().unwrap());
        }
        let verdict = relabel(&rules, &mut labels);
        assert_eq!(verdict == Verdict::Keep, row["kept"].as_bool().unwrap(), "{text}");
        if verdict == Verdict::Keep {
            let after: Vec<(String, String)> = row
                .get("after")
                .and_then(|after| after.as_object())
                .map(|after| after.iter().map(|(k, v)| (k.clone(), v.as_str().unwrap().to_owned())).collect())
                .unwrap_or_default();
            assert_eq!(labels.labels(), after.iter().map(|(k, v)| (k, v)).collect(), "{text}");
        }
        checked += 1;
    }
    assert!(checked > 50, "only {checked} rows were checked");
}

#[test]
fn equal_rules_are_equal_by_what_they_say() {
    let one = rule(RelabelSpec { target_label: "a".into(), ..RelabelSpec::default() });
    let same = rule(RelabelSpec { target_label: "a".into(), ..RelabelSpec::default() });
    let other = rule(RelabelSpec { target_label: "b".into(), ..RelabelSpec::default() });
    assert_eq!(one, same);
    assert_ne!(one, other);
}

#[test]
fn expressions_mean_what_they_mean_in_go() {
    for (expression, text, matches) in [
        (r"\d+", "١٢", false),
        (r"\d+", "12", true),
        (r"\w", "é", false),
        (r"\W", "é", true),
        (r"[\d_]+", "1_2", true),
        (r"[^\w]", "-", true),
        (r"\s", "\u{a0}", false),
        (r"\Qa.b\E+", "a.bb", true),
        (r"\Qa.b\E", "axb", false),
        (r"a{,2}", "a{,2}", true),
        (r"a{2}", "aa", true),
        (r"a{x}", "a{x}", true),
        (r"[[]+", "[[", true),
        (r"[a&&b]+", "a&b", true),
        (r"[a-c-]+", "a-b", true),
        (r"[]x]+", "]x", true),
        (r"[[:alpha:]-]+", "a-b", true),
        (r"\<a\>", "<a>", true),
        (r"\141", "a", true),
        (r"\x{1F600}", "😀", true),
        (r"(?i)É", "é", true),
        (r".", "\n", true),
        (r"(?-s).", "\n", false),
        (r"a)|(b", "ax", true),
        (r"\pL+", "aé", true),
        (r"\bfoo\b", "foo", true),
    ] {
        let regex = anchored(expression).unwrap_or_else(|error| panic!("{expression}: {error}"));
        assert_eq!(regex.is_match(text), matches, "{expression} on {text:?}");
    }
    for refused in [
        "(",
        "a**",
        "a{1001}",
        "(?x)a",
        r"\1",
        r"\q",
        "[z-a]",
        "[[:nope:]]",
        "*",
        "[a",
        r"a\",
        "(?=a)",
        "a{2}{3}",
    ] {
        assert!(anchored(refused).is_err(), "{refused} compiled");
    }
}

#[test]
fn too_large_expressions_are_refused() {
    let error = anchored(r"((\pL{1000}){100}){100}").unwrap_err();
    assert!(error.contains("bytes") || error.contains("repetition"), "{error}");
}

#[test]
fn case_is_mapped_one_to_one() {
    let upper: String = "straße ᾳ ŉ".chars().map(simple_uppercase).collect();
    assert_eq!(upper, "STRAßE ᾼ ŉ");
    let lower: String = "İΣ".chars().map(simple_lowercase).collect();
    assert_eq!(lower, "iσ");
}

proptest::proptest! {
    #[test]
    fn translation_never_panics(expression in "\\PC{0,40}") {
        let _ = anchored(&expression);
    }

    #[test]
    fn translation_of_dense_syntax_never_panics(expression in r"[\\\[\](){}*+?|^$\-:&~<>,0-9a-zQEPpx]{0,24}") {
        let _ = anchored(&expression);
    }

    #[test]
    fn expansion_never_panics(template in "[$a-z{}0-9_é]{0,20}", text in "\\PC{0,10}") {
        let rule = rule(RelabelSpec {
            source_labels: vec!["s".into()],
            regex: "(?P<name>.)(.*)".into(),
            target_label: "t".into(),
            replacement: template,
            ..RelabelSpec::default()
        });
        let mut labels: LabelsBuilder = LabelsBuilder::new();
        labels.set("s", &text);
        let _ = relabel(&[rule], &mut labels);
    }
}

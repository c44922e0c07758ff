//! No operator and no function turns a secret into plain text, but `convert.nonsensitive`.

use invar_syntax::{
    MapScope, OptionalSecret, Secret, Value, evaluate, parse_expression, stdlib, value_to_json,
};
use proptest::prelude::*;

const SECRET: &str = "Zq7-secret-9w";

fn scope() -> MapScope<'static> {
    let secret = || Value::Secret(Secret::new(SECRET));
    MapScope::new()
        .with("s", secret())
        .with("oss", Value::OptionalSecret(OptionalSecret::Secret(Secret::new(SECRET))))
        .with(
            "doc",
            Value::Secret(Secret::new(format!("{{\"a\": [\"{SECRET}\", {{\"b\": \"{SECRET}\"}}]}}"))),
        )
        .with("encoded", Value::Secret(Secret::new("WnE3LXNlY3JldC05dw==")))
        .with("percent", Value::Secret(Secret::new("Zq7%2Dsecret%2D9w")))
        .with("nested", Value::object([("k", Value::array([secret()]))]))
}

/// Parts of the secret that must not show, in the forms that functions give text.
fn leaks(text: &str) -> bool {
    let lower = text.to_lowercase();
    let encoded = ["zq7", "secret-9w", "wnE3LXNlY3JldC05d", "5a71372d"];
    encoded.iter().any(|part| lower.contains(&part.to_lowercase()))
}

fn outcome(expression: &str) -> String {
    let source = std::sync::Arc::new(invar_syntax::Source::new("expression", expression));
    let Ok(parsed) = parse_expression(source) else { panic!("{expression} does not parse") };
    match evaluate(&parsed, &scope()) {
        Ok(value) => {
            format!("{} {value:?} {}", value_to_json(&value), invar_syntax::value_to_expression(&value))
        }
        Err(error) => format!("{error:?}"),
    }
}

fn argument() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("s"),
        Just("oss"),
        Just("doc"),
        Just("nested"),
        Just("nested.k"),
        Just("\"a\""),
        Just("\"%s\""),
        Just("\"%x %v %q\""),
        Just("\"$..b\""),
        Just("\"-\""),
        Just("1"),
        Just("null"),
        Just("true"),
        Just("[]"),
    ]
    .prop_map(str::to_owned);
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(|items| format!("[{}]", items.join(", "))),
            inner.clone().prop_map(|item| format!("{{a = {item}}}")),
            (inner.clone(), inner.clone(), prop::sample::select(&["+", "==", "<", "&&", "-", "^"][..]))
                .prop_map(|(left, right, op)| format!("({left} {op} {right})")),
            inner.clone().prop_map(|item| format!("{item}[0]")),
            call(inner),
        ]
    })
}

fn functions() -> Vec<&'static str> {
    let deprecated =
        ["format", "join", "replace", "split", "to_lower", "json_decode", "yaml_decode", "concat", "env"];
    stdlib::function_names().filter(|name| *name != "convert.nonsensitive").chain(deprecated).collect()
}

fn call(inner: impl Strategy<Value = String>) -> impl Strategy<Value = String> {
    (prop::sample::select(functions()), prop::collection::vec(inner, 0..4))
        .prop_map(|(function, arguments)| format!("{function}({})", arguments.join(", ")))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn stay_secret(expression in call(argument())) {
        let shown = outcome(&expression);
        prop_assert!(!leaks(&shown), "{expression} shows {shown}");
    }
}

#[test]
fn functions_keep_the_taint() {
    for expression in [
        "s + \"x\"",
        "oss + \"x\"",
        "string.format(\"%s-%x\", s, s)",
        "string.format(s)",
        "string.join([\"a\", s], \",\")",
        "string.replace(\"abc\", \"b\", s)",
        "string.to_upper(s)",
        "encoding.to_json({a = s})",
        "encoding.to_json({a = oss})",
        "encoding.to_base64(s)",
        "encoding.url_encode(s)",
        "encoding.from_json(doc).a[1].b",
        "encoding.from_yaml(doc).a[0]",
        "json_path(doc, \"$..b\")[0]",
        "string.split(s, \"-\")[1]",
        "file.path_join(\"/\", s)",
    ] {
        let shown = outcome(expression);
        assert!(shown.contains("(secret)") && !leaks(&shown), "{expression}: {shown}");
    }
    assert!(outcome("convert.nonsensitive(string.to_upper(s))").contains("ZQ7-SECRET-9W"));
    assert!(outcome("encoding.from_json(s)").contains("EvalError"));
}

/// Arguments that are secret or hold one, in every shape that functions look into.
fn secret_arguments() -> Vec<String> {
    let plain = ["s", "oss", "doc", "encoded", "percent"];
    let mut shapes: Vec<String> = plain.iter().map(|name| (*name).to_owned()).collect();
    for name in ["s", "oss"] {
        shapes.extend([
            format!("[{name}]"),
            format!("[[{name}], {name}]"),
            format!("{{k = {name}}}"),
            format!("{{k = [{name}]}}"),
            format!("[{{k = {name}}}]"),
            format!("[{{k = \"a\", v = {name}}}]"),
            format!("\"a\" + {name}"),
        ]);
    }
    shapes
}

/// Arguments without secrets, of every type that a parameter may have.
const OTHERS: [&str; 8] =
    ["\"k\"", "\"%v\"", "\"$..*\"", "1", "[\"k\"]", "[{k = \"a\"}]", "{k = \"a\"}", "true"];

/// All lists of `count` of the other arguments.
fn others(count: usize) -> Vec<Vec<&'static str>> {
    (0..count).fold(vec![Vec::new()], |lists, _| {
        let longer = |list: &Vec<&'static str>| {
            OTHERS.map(|other| list.iter().copied().chain([other]).collect::<Vec<_>>())
        };
        lists.iter().flat_map(longer).collect()
    })
}

#[test]
fn no_function_in_no_argument_gives_a_secret_away() {
    let functions: Vec<&str> = stdlib::function_names()
        .filter(|name| *name != "convert.nonsensitive")
        .chain(stdlib::deprecated_names().filter(|name| *name != "nonsensitive"))
        .collect();
    assert!(functions.len() > 35, "{functions:?}");
    let mut accepted = std::collections::BTreeMap::<&str, usize>::new();
    for function in functions {
        for secret in secret_arguments() {
            for rest in (0..3).flat_map(others) {
                for position in 0..=rest.len() {
                    let mut arguments: Vec<&str> = rest.clone();
                    arguments.insert(position, &secret);
                    let expression = format!("{function}({})", arguments.join(", "));
                    let shown = outcome(&expression);
                    assert!(!leaks(&shown), "{expression} shows {shown}");
                    *accepted.entry(function).or_default() += usize::from(!shown.starts_with("EvalError"));
                }
            }
        }
    }
    // A function that refuses every secret would pass: only these are to.
    let refusing: Vec<&str> =
        accepted.iter().filter(|(_, count)| **count == 0).map(|(name, _)| *name).collect();
    assert_eq!(refusing, ["env", "secret", "sys.env"], "{accepted:?}");
}

#[test]
fn no_operator_gives_a_secret_away() {
    let operators = ["||", "&&", "==", "!=", "<", "<=", ">", ">=", "+", "-", "*", "/", "%", "^"];
    for secret in secret_arguments() {
        for expression in [
            format!("!{secret}"),
            format!("-{secret}"),
            format!("({secret})[0]"),
            format!("({secret})[\"k\"]"),
            format!("({secret}).k"),
            format!("{{k = 1}}[{secret}]"),
            format!("[1][{secret}]"),
        ] {
            let shown = outcome(&expression);
            assert!(!leaks(&shown), "{expression} shows {shown}");
        }
        for (operator, other) in operators.iter().flat_map(|operator| OTHERS.map(|other| (operator, other))) {
            for expression in
                [format!("{secret} {operator} {other}"), format!("{other} {operator} ({secret})")]
            {
                let shown = outcome(&expression);
                assert!(!leaks(&shown), "{expression} shows {shown}");
            }
        }
    }
}

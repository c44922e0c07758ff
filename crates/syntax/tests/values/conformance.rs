//! Agreement with the recorded answers of Alloy, and with the list of deviations from them.

use std::fmt::Debug;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use invar_syntax::value::CapsuleValue;
use invar_syntax::{
    MapScope, Number, OptionalSecret, Secret, Source, Value, evaluate, parse_expression, value_to_json,
};
use serde_json::Value as Json;

#[derive(Debug)]
struct Opaque;

impl CapsuleValue for Opaque {
    fn type_name(&self) -> &'static str {
        "main.cap"
    }

    fn equals(&self, _other: &dyn CapsuleValue) -> bool {
        false
    }

    fn as_any(&self) -> &dyn std::any::Any {
        self
    }
}

/// The variables the recorded expressions were evaluated with.
pub(crate) fn scope() -> MapScope<'static> {
    let number = |value: i64| Value::Number(Number::Int(value));
    MapScope::new()
        .with("s", Value::Secret(Secret::new("hunter2")))
        .with("os", Value::OptionalSecret(OptionalSecret::Plain("plain".to_owned())))
        .with("oss", Value::OptionalSecret(OptionalSecret::Secret(Secret::new("hidden"))))
        .with(
            "obj",
            Value::object([
                ("a", number(1)),
                ("b", Value::string("two")),
                ("c", Value::array([1, 2, 3].map(number))),
                ("n", Value::Null),
            ]),
        )
        .with("list", Value::array([10, 20, 30].map(number)))
        .with("str", Value::string("text"))
        .with("cap", Value::capsule(Opaque))
}

pub(crate) fn run(expression: &str) -> Result<Value, String> {
    let source = Arc::new(Source::new("expression", expression));
    let parsed = parse_expression(source).map_err(|errors| errors.to_string())?;
    evaluate(&parsed, &scope()).map_err(|error| error.message)
}

/// The folder of recorded answers, which stands beside the repository.
pub(crate) fn recorded(name: &str) -> Option<PathBuf> {
    let found = Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .map(|folder| folder.join("shared/conformance").join(name))
        .find(|path| path.exists());
    if found.is_none() {
        println!("skipped: no shared/conformance/{name} above this repository");
    }
    found
}

fn rows(name: &str) -> Option<Vec<Vec<String>>> {
    let text = std::fs::read_to_string(recorded(name)?).unwrap();
    Some(text.lines().skip(1).map(|line| line.split('\t').map(str::to_owned).collect()).collect())
}

/// Numbers compare as 64-bit floats.
pub(crate) fn same(left: &Json, right: &Json) -> bool {
    match (left, right) {
        (Json::Number(left), Json::Number(right)) => left.as_f64() == right.as_f64(),
        (Json::Array(left), Json::Array(right)) => {
            left.len() == right.len() && left.iter().zip(right).all(|(left, right)| same(left, right))
        }
        (Json::Object(left), Json::Object(right)) => {
            left.len() == right.len()
                && left.iter().all(|(key, value)| right.get(key).is_some_and(|other| same(value, other)))
        }
        _ => left == right,
    }
}

/// Rows on which we differ from the recorded answer by a decision that is not a row of `deviations.tsv`.
const DECIDED: &[(&str, &str)] = &[
    ("string.format(\"%s\", s)", "a secret stays secret"),
    ("string.format(\"%v\", s)", "a secret stays secret"),
    ("\"\\377\"", "an escape that breaks UTF-8 is refused"),
];

#[test]
fn agrees_with_the_recorded_expressions() {
    let Some(rows) = rows("expressions.tsv") else { return };
    let deviations: Vec<String> =
        self::rows("deviations.tsv").unwrap().into_iter().filter_map(|row| row.into_iter().next()).collect();
    let total = rows.len();
    let mut wrong = Vec::new();
    let mut decided = 0;
    for row in rows {
        let [expression, expected, value] = &row[..] else { panic!("a row of three columns: {row:?}") };
        if deviations.contains(expression) || DECIDED.iter().any(|(known, _)| known == expression) {
            decided += 1;
            continue;
        }
        match (run(expression), expected.as_str()) {
            (Ok(got), "ok") => {
                let got = value_to_json(&got);
                let wanted: Json = serde_json::from_str(value).unwrap();
                if !same(&got, &wanted) {
                    wrong.push(format!("{expression}: wanted {wanted}, got {got}"));
                }
            }
            (Err(_), "error") => {}
            (Ok(got), _) => {
                wrong.push(format!("{expression}: wanted an error ({value}), got {}", value_to_json(&got)))
            }
            (Err(error), _) => wrong.push(format!("{expression}: wanted {value}, got the error {error}")),
        }
    }
    println!("{} of {total} expressions agree, {decided} differ by decision", total - decided - wrong.len());
    assert!(wrong.is_empty(), "{} rows:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn deviates_where_decided() {
    let Some(rows) = rows("deviations.tsv") else { return };
    let total = rows.len();
    let mut wrong = Vec::new();
    for row in rows {
        let [expression, _, _, ours, _] = &row[..] else { panic!("a row of five columns: {row:?}") };
        let got = run(expression);
        let holds = match (ours.as_str(), &got) {
            ("error", result) => result.is_err(),
            ("error or float" | "float or error", result) => {
                matches!(result, Err(_) | Ok(Value::Number(Number::Float(_))))
            }
            ("a secret", Ok(Value::Secret(_))) => true,
            // The text of `s` is not base64, so there is nothing to keep secret; the error does not quote it.
            ("a secret", Err(message)) => {
                expression == "encoding.from_base64(s)" && !message.contains("hunter2")
            }
            ("a secret", Ok(Value::Array(items))) => {
                items.iter().all(|item| matches!(item, Value::Secret(_)))
            }
            ("true" | "false", Ok(Value::Bool(flag))) => flag.to_string() == *ours,
            (text, Ok(Value::String(got))) if text.starts_with("plain text") => &**got == "plain",
            (text, Err(_)) if text.starts_with("plain text") => expression.contains("cap"),
            (number, Ok(Value::Number(got))) => {
                number.parse::<f64>().is_ok_and(|number| number == got.as_f64())
            }
            _ => false,
        };
        if !holds {
            wrong.push(format!("{expression}: wanted {ours}, got {got:?}"));
        }
    }
    println!("{} of {total} deviations hold", total - wrong.len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

//! The standard library and the operators beyond the recorded rows: verbs of `string.format`, scalars of YAML, JSON paths,
//! encodings, joins of lists. `library.tsv` holds an expression a line, and what it gives as plain JSON, or `error`.

use invar_syntax::value_to_json;
use serde_json::Value as Json;

use crate::conformance::{run, same};

/// A typed value as plain JSON.
fn plain(value: &Json) -> Json {
    let inner = &value["value"];
    match value["type"].as_str() {
        Some("array") => inner.as_array().into_iter().flatten().map(plain).collect(),
        Some("object") => {
            let fields = inner.as_array().into_iter().flatten();
            let fields =
                fields.map(|field| (field["key"].as_str().unwrap().to_owned(), plain(&field["value"])));
            Json::Object(fields.collect())
        }
        _ => inner.clone(),
    }
}

#[test]
fn gives_what_go_gives() {
    let mut wrong = Vec::new();
    let mut count = 0;
    for line in include_str!("library.tsv").lines() {
        let (expression, wanted) = line.split_once('\t').unwrap();
        count += 1;
        match (run(expression), wanted) {
            (Err(_), "error") => {}
            (Ok(got), "error") => {
                wrong.push(format!("{expression}: wanted an error, got {}", value_to_json(&got)))
            }
            (Err(error), _) => wrong.push(format!("{expression}: wanted {wanted}, got the error {error}")),
            (Ok(got), _) => {
                let got = plain(&value_to_json(&got));
                if !same(&got, &serde_json::from_str(wanted).unwrap()) {
                    wrong.push(format!("{expression}: wanted {wanted}, got {got}"));
                }
            }
        }
    }
    assert!(count > 500, "only {count} rows");
    assert!(wrong.is_empty(), "{} rows:\n{}", wrong.len(), wrong.join("\n"));
}

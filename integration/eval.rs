//! `invar eval` as it is used: one expression, many on standard input, with and without a configuration; and every
//! recorded answer of Alloy through one process, where those are at hand.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

/// What a run of `invar eval` says.
struct Said {
    code: i32,
    out: String,
    err: String,
}

fn eval(arguments: &[&str], input: &str) -> Said {
    let mut child = Command::new(env!("CARGO_BIN_EXE_invar"))
        .arg("eval")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_owned();
    // Answers come while expressions are still being sent. A run that is refused does not read.
    let writer = std::thread::spawn(move || drop(stdin.write_all(input.as_bytes())));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    Said {
        code: output.status.code().unwrap(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

fn answers(said: &Said) -> Vec<Value> {
    said.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn one_expression_has_one_answer() {
    let said = eval(&["{a = 1 + 1, b = [string.to_upper(\"x\"), null]}"], "");
    assert_eq!((said.code, said.out.as_str(), said.err.as_str()), (0, "{a = 2, b = [\"X\", null]}\n", ""));
    // An expression may begin with an operator.
    assert_eq!(eval(&["-1"], "").out, "-1\n");
    let said = eval(&["-o", "json", "\"x\""], "");
    assert_eq!(answers(&said), [json!({"type": "string", "value": "x"})]);
}

#[test]
fn the_answer_is_an_expression_for_the_same_value() {
    let text = r#"encoding.from_json("{\"list\":[1,2.5,true,null,\"a\\nb\"],\"with blank\":{\"deep\":[[]]},\"quote\\\"d\":\"long long long long long long long long long long\"}")"#;
    let first = eval(&[text], "");
    assert_eq!(first.code, 0, "{}", first.err);
    assert!(first.out.lines().count() > 3, "long values have several lines: {}", first.out);
    assert_eq!(eval(&[first.out.trim_end()], "").out, first.out);
    let values = [eval(&["-o", "json", text], ""), eval(&["-o", "json", first.out.trim_end()], "")];
    assert_eq!(values[0].out, values[1].out);
}

#[test]
fn errors_have_their_place() {
    let said = eval(&["1 + nope"], "");
    assert_eq!((said.code, said.out.as_str()), (1, ""));
    assert!(said.err.contains("identifier \"nope\" does not exist"), "{}", said.err);
    assert!(said.err.contains("expression:1:5") && said.err.contains("^^^^"), "{}", said.err);
    let said = eval(&["-o", "json", "1 +"], "");
    assert_eq!(said.code, 1);
    assert_eq!(answers(&said), [json!({"error": "expected expression, got EOF", "column": 4})]);
}

#[test]
fn lines_are_answered_one_by_one() {
    let said = eval(&["-o", "json"], "1\n\n\"a\" - 1\ntrue\n");
    assert_eq!(said.code, 1, "one of them failed");
    let answers = answers(&said);
    assert_eq!(answers.len(), 3, "a blank line is no expression");
    assert_eq!(answers[0], json!({"type": "number", "value": 1.0}));
    assert!(answers[1]["error"].is_string());
    assert_eq!(answers[2], json!({"type": "bool", "value": true}));
    assert_eq!(eval(&["-"], "1\r\n2").out, "1\n2\n");
}

#[test]
fn definitions_build_on_each_other() {
    let said = eval(&["--let", "a=20", "--let", "b = a + 1", "b * 2"], "");
    assert_eq!((said.code, said.out.as_str()), (0, "42\n"));
    assert_eq!(eval(&["--let", "a", "1"], "").code, 64);
    assert_eq!(eval(&["--let", "a.b=1", "1"], "").code, 64);
    let said = eval(&["--let", "a=nope", "1"], "");
    assert!(said.code == 1 && said.err.contains("--let a:1:1"), "{}", said.err);
}

#[test]
fn secrets_are_not_shown() {
    for text in ["s", "s + \"x\"", "[s]", "{a = string.format(\"<%s>\", s)}", "string.to_upper(s)"] {
        for arguments in [&["-o", "json"][..], &[]] {
            let said = eval(&[arguments, &["--let-secret", "s=hunter2", text]].concat(), "");
            assert_eq!(said.code, 0, "{text}: {}", said.err);
            assert!(said.out.contains("(secret)"), "{text}: {}", said.out);
            assert!(!(said.out + &said.err).to_lowercase().contains("hunter2"), "{text}");
        }
    }
    let said = eval(&["--let-secret", "s=hunter2", "s.x"], "");
    assert!(said.code == 1 && !said.err.contains("hunter2"), "{}", said.err);
    assert_eq!(eval(&["--let-secret", "s=hunter2", "convert.nonsensitive(s)"], "").out, "\"hunter2\"\n");
}

#[test]
fn a_configuration_gives_its_names() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.alloy");
    std::fs::write(&file, "local.file \"token\" {\n\tfilename = \"/nonexistent\"\n}\n").unwrap();
    for path in [&*file, folder.path()] {
        let config = ["--config", path.to_str().unwrap()];
        let said = eval(&[&config[..], &["[local.file.token.content, 1]"]].concat(), "");
        assert_eq!((said.code, said.out.as_str()), (0, "[(known after apply), 1]\n"), "{}", said.err);
        let said = eval(&[&config[..], &["-o", "json", "local.file.token.content"]].concat(), "");
        assert_eq!(answers(&said)[0]["type"], "unknown");
        let said = eval(&[&config[..], &["local.file.token.nope"]].concat(), "");
        assert_eq!(said.code, 1, "{}", said.out);
    }
    std::fs::write(&file, "local.file \"token\" {\n").unwrap();
    let said = eval(&["--config", file.to_str().unwrap(), "1"], "");
    assert!(said.code == 4 && said.err.contains("a.alloy:"), "{}", said.err);
    assert_eq!(eval(&["--config", "/nonexistent", "1"], "").code, 1);
}

/// The folder of recorded answers, which stands beside the repository.
fn recorded(name: &str) -> Option<String> {
    let path: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .map(|folder| folder.join("shared/conformance").join(name))
        .find(|path| path.exists())?;
    Some(std::fs::read_to_string(path).unwrap())
}

/// Numbers compare as 64-bit floats.
fn same(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Number(left), Value::Number(right)) => left.as_f64() == right.as_f64(),
        (Value::Array(left), Value::Array(right)) => {
            left.len() == right.len() && left.iter().zip(right).all(|(left, right)| same(left, right))
        }
        (Value::Object(left), Value::Object(right)) => {
            left.len() == right.len()
                && left.iter().all(|(key, value)| right.get(key).is_some_and(|other| same(value, other)))
        }
        _ => left == right,
    }
}

/// Whether an expression uses a variable that no definition can make: an optional secret, a capsule.
fn needs_host_value(expression: &str) -> bool {
    expression
        .split(|character: char| !(character.is_alphanumeric() || character == '_'))
        .any(|word| matches!(word, "os" | "oss" | "cap"))
}

/// Rows that differ by a decision that is not a row of `deviations.tsv`.
const DECIDED: &[&str] = &["string.format(\"%s\", s)", "string.format(\"%v\", s)", "\"\\377\""];

#[test]
fn every_recorded_expression_has_its_answer() {
    let (Some(rows), Some(deviations)) = (recorded("expressions.tsv"), recorded("deviations.tsv")) else {
        println!("skipped: no shared/conformance beside this repository");
        return;
    };
    let deviations: Vec<&str> = deviations.lines().filter_map(|row| row.split('\t').next()).collect();
    let rows: Vec<Vec<&str>> = rows
        .lines()
        .skip(1)
        .map(|row| row.split('\t').collect::<Vec<_>>())
        .filter(|row| !needs_host_value(row[0]) && !row[0].trim().is_empty())
        .collect();
    let input: String = rows.iter().map(|row| format!("{}\n", row[0])).collect();
    let definitions = [
        ["--let-secret", "s=hunter2"],
        ["--let", "obj={a = 1, b = \"two\", c = [1, 2, 3], n = null}"],
        ["--let", "list=[10, 20, 30]"],
        ["--let", "str=\"text\""],
    ];
    let said = eval(&[&definitions.concat()[..], &["-o", "json", "-"]].concat(), &input);
    let answers = answers(&said);
    assert_eq!(answers.len(), rows.len(), "an answer a line");
    let (mut agree, mut wrong) = (0, Vec::new());
    for (row, answer) in rows.iter().zip(&answers) {
        if deviations.contains(&row[0]) || DECIDED.contains(&row[0]) {
            continue;
        }
        let good = match row[1] {
            "ok" => same(answer, &serde_json::from_str(row[2]).unwrap()),
            _ => answer["error"].is_string(),
        };
        if good {
            agree += 1;
        } else {
            wrong.push(format!("{}: wanted {} {}, got {answer}", row[0], row[1], row[2]));
        }
    }
    println!("{agree} of {} expressions agree", rows.len());
    assert!(agree > 2_500, "only {agree} expressions were compared");
    assert!(wrong.is_empty(), "{} deviations:\n{}", wrong.len(), wrong.join("\n"));
}

//! The command `invar validate` from outside: what it takes, prints and exits with.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

const VALID: &str =
    "prometheus.remote_write \"out\" {\n  endpoint {\n    url = \"http://127.0.0.1:1/push\"\n  }\n}\n";
const WRONG: &str =
    "prometheus.relabel \"r\" {\n  forward_to = [prometheus.remote_write.nowhere.receiver]\n}\n";
const DOUBTFUL: &str = "prometheus.remote_write \"out\" {\n  endpoint {\n    url = \"http://ana:s3cr3t@127.0.0.1:1/push\"\n  }\n}\n";

struct Outcome {
    code: i32,
    out: String,
    err: String,
}

fn invar(folder: &Path, arguments: &[&str], input: &str) -> Outcome {
    let mut child = Command::new(env!("CARGO_BIN_EXE_invar"))
        .arg("validate")
        .args(arguments)
        .current_dir(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    Outcome {
        code: output.status.code().unwrap(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

/// A folder with a file of each kind.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in [("valid.alloy", VALID), ("wrong.alloy", WRONG), ("doubtful.alloy", DOUBTFUL)] {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    std::fs::create_dir(folder.path().join("both")).unwrap();
    std::fs::write(folder.path().join("both/a.alloy"), VALID).unwrap();
    std::fs::write(folder.path().join("both/b.alloy"), VALID).unwrap();
    folder
}

#[test]
fn exit_codes_say_what_became_of_it() {
    let folder = folder();
    for (arguments, code) in [
        (&["valid.alloy"][..], 0),
        (&["doubtful.alloy"], 0),
        (&["doubtful.alloy", "--deny-warnings"], 3),
        (&["wrong.alloy", "--deny-warnings"], 4),
        (&["valid.alloy", "wrong.alloy"], 4),
        (&["missing.alloy", "wrong.alloy"], 1),
        (&[], 64),
        (&["valid.alloy", "--config.format=promtail"], 64),
        (&["valid.alloy", "--stability.level=general"], 64),
        (
            &[
                "valid.alloy",
                "--config.format=alloy",
                "--stability.level=generally-available",
                "--feature.community-components.enabled",
            ],
            0,
        ),
    ] {
        let outcome = invar(folder.path(), arguments, "");
        assert_eq!(outcome.code, code, "{arguments:?}: {}{}", outcome.out, outcome.err);
    }
}

#[test]
fn a_folder_is_one_configuration_and_each_path_is_one_of_its_own() {
    let folder = folder();
    let outcome = invar(folder.path(), &["both"], "");
    assert_eq!(outcome.code, 4);
    assert!(outcome.err.contains("both/b.alloy:1:1"), "{}", outcome.err);
    assert!(outcome.err.contains("already declared at both/a.alloy:1:1"), "{}", outcome.err);
    let outcome = invar(folder.path(), &["both/a.alloy", "both/b.alloy"], "");
    assert_eq!(outcome.code, 0, "{}", outcome.err);
    assert_eq!(outcome.out, "both/a.alloy: valid (1 file)\nboth/b.alloy: valid (1 file)\n");
}

#[test]
fn standard_input_is_read() {
    let folder = folder();
    let outcome = invar(folder.path(), &["-"], WRONG);
    assert_eq!(outcome.code, 4);
    assert!(outcome.err.contains("<stdin>:2:17"), "{}", outcome.err);
    assert_eq!(invar(folder.path(), &["-"], VALID).code, 0);
}

#[test]
fn credentials_are_not_printed_in_any_form() {
    let folder = folder();
    for format in ["text", "json", "sarif", "github", "junit"] {
        let outcome = invar(folder.path(), &["doubtful.alloy", "-o", format], "");
        assert_eq!(outcome.code, 0);
        let all = outcome.out + &outcome.err;
        assert!(all.contains("holds a password") && !all.contains("s3cr3t"), "{all}");
    }
}

#[test]
fn each_form_says_the_same() {
    let folder = folder();
    let all = ["valid.alloy", "wrong.alloy", "doubtful.alloy", "-o"];
    let with = |format| invar(folder.path(), &[&all[..], &[format]].concat(), "");

    let report: Value = serde_json::from_str(&with("json").out).unwrap();
    assert_eq!((&report["version"], &report["valid"]), (&Value::from(1), &Value::from(false)));
    assert_eq!(report["diagnostics"][0]["code"], "E204");
    assert_eq!(report["diagnostics"][0]["rule"], "unknown-reference");
    assert_eq!(report["configurations"][2]["warnings"], 1);

    let report: Value = serde_json::from_str(&with("sarif").out).unwrap();
    let results = report["runs"][0]["results"].as_array().unwrap();
    assert_eq!(results.len(), 2);
    assert_eq!(results[0]["ruleId"], "E204");
    assert_eq!(results[1]["level"], "warning");

    let lines = with("github").out;
    let lines: Vec<&str> = lines.lines().collect();
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(
        lines[0].starts_with(
            "::error file=wrong.alloy,line=2,endLine=2,col=17,endColumn=57,title=E204 unknown-reference::component "
        ),
        "{lines:?}"
    );
    assert!(lines[1].starts_with("::warning file=doubtful.alloy,line=3,"), "{lines:?}");

    let text = with("junit").out;
    assert!(text.contains("<testsuites name=\"invar validate\" tests=\"3\" failures=\"1\">"), "{text}");
}

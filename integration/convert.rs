//! `invar convert` as a person or a script uses it: what it writes can be validated, what it cannot convert is refused
//! unless asked for anyway, and its exit codes tell these apart.

#![allow(clippy::unwrap_used)]

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

const CLEAN: &str = "\
scrape_configs:
  - job_name: node
    static_configs: [{targets: ['127.0.0.1:9100']}]
    metric_relabel_configs: [{source_labels: [__name__], regex: 'go_.*', action: drop}]
remote_write:
  - url: http://127.0.0.1:9/push
    queue_config: {max_shards: 3}
";
const LOSSY: &str = "rule_files: [a.yml]\nremote_write: [{url: 'http://127.0.0.1:9/push'}]\n";

fn convert(arguments: &[&str], directory: &Path, input: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_invar"))
        .arg("convert")
        .args(arguments)
        .current_dir(directory)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

#[test]
fn what_is_converted_validates() {
    let directory = tempfile::tempdir().unwrap();
    let output = convert(&["-f", "prometheus", "-o", "out.alloy"], directory.path(), CLEAN);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(output.stdout.is_empty() && output.stderr.is_empty(), "{output:?}");
    let validated = Command::new(env!("CARGO_BIN_EXE_invar"))
        .args(["validate", "out.alloy"])
        .current_dir(directory.path())
        .output()
        .unwrap();
    assert_eq!(validated.status.code(), Some(0), "{validated:?}");
}

#[test]
fn a_lossy_conversion_is_refused_unless_asked_for() {
    let directory = tempfile::tempdir().unwrap();
    let arguments = ["--source-format", "prometheus", "--report", "report.json"];
    let refused = convert(&arguments, directory.path(), LOSSY);
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    assert!(refused.stdout.is_empty(), "{refused:?}");
    let complaint = String::from_utf8(refused.stderr).unwrap();
    assert!(
        complaint.contains("(standard input):1: rule_files") && complaint.contains("--bypass-errors"),
        "{complaint}"
    );

    let wanted = convert(&[&arguments[..], &["-b"]].concat(), directory.path(), LOSSY);
    assert_eq!(wanted.status.code(), Some(3), "{wanted:?}");
    assert!(String::from_utf8(wanted.stdout).unwrap().contains("prometheus.remote_write \"default\""));
    let report: serde_json::Value =
        serde_json::from_slice(&std::fs::read(directory.path().join("report.json")).unwrap()).unwrap();
    assert_eq!(report["written"], true);
    assert_eq!(report["findings"][0]["severity"], "error");
    assert_eq!(report["findings"][0]["line"], 1);
}

#[test]
fn what_cannot_be_read_is_refused_with_its_place() {
    let directory = tempfile::tempdir().unwrap();
    let broken = convert(&["-f", "promtail"], directory.path(), "a: [1\nb: 2\n");
    assert_eq!(broken.status.code(), Some(1), "{broken:?}");
    assert!(String::from_utf8(broken.stderr).unwrap().starts_with("(Critical) (standard input):"));
    let missing = convert(&["-f", "otelcol", "missing.yml"], directory.path(), "");
    assert_eq!(missing.status.code(), Some(1), "{missing:?}");
    let unknown = convert(&["-f", "fluentd"], directory.path(), "");
    assert_eq!(unknown.status.code(), Some(64), "{unknown:?}");
    assert!(String::from_utf8(unknown.stderr).unwrap().contains("otelcol, prometheus, promtail"));
}

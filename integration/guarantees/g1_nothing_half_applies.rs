//! G1: a revision that fails at any stage leaves the running pipeline as it is, and status says where and why.

use std::net::TcpListener;

use serde_json::Value;

use crate::fleet::{Fleet, runs, scrape_to};

/// What a broken push must be refused with.
struct Refusal {
    stage: &'static [&'static str],
    /// A part of the message.
    says: &'static str,
    /// The line in `main.alloy`, where there is one.
    line: Option<u64>,
}

/// Pushes this after the good pipeline, and checks that nothing but the status changes.
fn refused(fleet: &Fleet, what: &str, broken: impl AsRef<[u8]>, expected: &Refusal) {
    let status = fleet.agent.status().unwrap();
    let (running, scrape, write) = (
        status["running"].clone(),
        fleet.agent.instance("prometheus.scrape.page").unwrap(),
        fleet.agent.instance("prometheus.remote_write.out").unwrap(),
    );
    let head = fleet.push(broken, what);
    let status = fleet.refused(&head);
    let reason = &status["reason"];
    let stage = reason["stage"].as_str().unwrap();
    assert!(expected.stage.contains(&stage), "{what}: stage {stage}: {reason:#}");
    assert!(
        reason["message"].as_str().unwrap().contains(expected.says),
        "{what}: the message should say `{}`: {reason:#}",
        expected.says
    );
    if let Some(line) = expected.line {
        assert!(
            reason["file"].as_str().is_some_and(|file| file.ends_with("main.alloy")),
            "{what}: {reason:#}"
        );
        assert_eq!(reason["line"], Value::from(line), "{what}: {reason:#}");
    }
    assert!(!runs(&status, &head), "{what}: {status:#}");
    assert_eq!(status["running"], running, "{what}");
    assert_eq!(fleet.agent.instance("prometheus.scrape.page").unwrap(), scrape, "{what}");
    assert_eq!(fleet.agent.instance("prometheus.remote_write.out").unwrap(), write, "{what}");
}

#[test]
fn a_push_that_fails_at_any_stage_changes_nothing() {
    let fleet = Fleet::start(|receiver, target| scrape_to(receiver, target, "a"));
    let good = scrape_to(&fleet.receiver, &fleet.target, "a");
    // What is appended begins on the line after the good text.
    let next = good.lines().count() as u64 + 1;
    let with = |text: &str| format!("{good}{text}");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();

    let mut not_utf8 = good.clone().into_bytes();
    not_utf8.extend_from_slice(b"// \xff\xfe\n");
    let validate = &["validate"][..];
    refused(&fleet, "not UTF-8", not_utf8, &Refusal { stage: validate, says: "UTF-8", line: Some(next) });
    refused(
        &fleet,
        "a syntax error",
        with("prometheus.scrape \"b\" {\n\ttargets = [\n}\n"),
        &Refusal { stage: validate, says: "expected", line: Some(next + 2) },
    );
    refused(
        &fleet,
        "an unknown component",
        with("prometheus.scrap \"b\" {\n}\n"),
        &Refusal { stage: validate, says: "prometheus.scrap", line: Some(next) },
    );
    refused(
        &fleet,
        "a wrong type",
        with("prometheus.scrape \"b\" {\n\ttargets = true\n\tforward_to = []\n}\n"),
        &Refusal { stage: validate, says: "targets", line: Some(next + 1) },
    );
    refused(
        &fleet,
        "a cycle",
        with(
            "discovery.relabel \"x\" {\n\ttargets = discovery.relabel.y.output\n}\ndiscovery.relabel \"y\" {\n\ttargets = discovery.relabel.x.output\n}\n",
        ),
        &Refusal { stage: validate, says: "cycle", line: Some(next) },
    );
    let at_preparation = &["prepare"][..];
    refused(
        &fleet,
        "a missing file",
        with("local.file \"x\" {\n\tfilename = \"/nowhere/at/all\"\n}\n"),
        &Refusal { stage: at_preparation, says: "/nowhere/at/all", line: Some(next) },
    );
    refused(
        &fleet,
        "a port that is taken",
        with(&format!(
            "prometheus.receive_http \"in\" {{\n\tforward_to = []\n\thttp {{\n\t\tlisten_address = \"127.0.0.1\"\n\t\tlisten_port = {port}\n\t}}\n}}\n"
        )),
        &Refusal { stage: at_preparation, says: "in use", line: Some(next) },
    );
    refused(
        &fleet,
        "a component that cannot be prepared",
        with("testing.fault \"x\" {\n\tfail_prepare = \"as it was told\"\n}\n"),
        &Refusal { stage: at_preparation, says: "as it was told", line: Some(next) },
    );

    // Nothing of all this was felt by what runs, and the next good commit applies.
    fleet.nothing_missing("a");
    let head = fleet.push_and_run(with("discovery.relabel \"fine\" {\n\ttargets = []\n}\n"), "a good one");
    fleet.committed(&head);
}

#[test]
fn a_port_that_becomes_free_is_taken_without_another_push() {
    let fleet = Fleet::start(|receiver, target| scrape_to(receiver, target, "a"));
    let good = scrape_to(&fleet.receiver, &fleet.target, "a");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let head = fleet.push(
        format!("{good}prometheus.receive_http \"in\" {{\n\tforward_to = []\n\thttp {{\n\t\tlisten_address = \"127.0.0.1\"\n\t\tlisten_port = {port}\n\t}}\n}}\n"),
        "listen",
    );
    fleet.refused(&head);
    drop(taken);
    fleet.agent.wait("the retry applies it", crate::fleet::VERDICT, |status| runs(status, &head)).unwrap();
}

//! G9: it says what is so. The API answers from the first second in the shape the design gives, commands mirror it in
//! output and exit code, metrics are well-formed, and events resume.

use serde_json::Value;

use crate::fleet::{Fleet, SOON, desires, scrape_to};

#[test]
fn status_has_the_shape_of_the_design() {
    let fleet = Fleet::start(|receiver, target| scrape_to(receiver, target, "a"));
    let head = fleet.repository.head().unwrap();
    let status = fleet.committed(&head);
    assert!(matches!(status["health"].as_str(), Some("healthy" | "degraded")), "{status:#}");
    assert!(status["in_sync"].is_boolean() && status["phase"].is_string(), "{status:#}");
    for part in ["running", "desired", "last_known_good"] {
        let part = &status[part];
        for key in ["generation", "revision", "digest", "since", "author", "subject", "signer"] {
            assert!(part.get(key).is_some(), "{key} is missing: {part:#}");
        }
        assert!(part["revision"].as_str().unwrap().contains(&head), "the full commit id: {part:#}");
    }
    assert_eq!(status["running"]["author"], "Ana <ana@example.org>");
    assert_eq!(status["running"]["subject"], "begin");
    let source = &status["sources"][0];
    for key in ["name", "kind", "revision", "checked", "changed", "error"] {
        assert!(source.get(key).is_some(), "{key} is missing: {source:#}");
    }
    assert!(status["components"].is_object() && status["rollback_count"].is_u64(), "{status:#}");
    assert!(status["quarantined"].is_array() && status.get("hold").is_some(), "{status:#}");
}

#[test]
fn components_and_graph_say_what_runs() {
    let fleet = Fleet::start(|receiver, target| scrape_to(receiver, target, "a"));
    let components = fleet.agent.get("/api/v1/components").unwrap();
    let ids: Vec<&str> =
        components.as_array().unwrap().iter().filter_map(|entry| entry["id"].as_str()).collect();
    assert_eq!(ids, ["prometheus.scrape.page", "prometheus.remote_write.out"]);
    let scrape = fleet.agent.get("/api/v1/components/prometheus.scrape.page").unwrap();
    for key in ["id", "health", "arguments", "exports", "instance", "generation"] {
        assert!(scrape.get(key).is_some(), "{key} is missing: {scrape:#}");
    }
    let graph = fleet.agent.get("/api/v1/graph").unwrap();
    let data = |edge: &&Value| edge["kind"] == "data";
    let edge = graph["edges"].as_array().unwrap().iter().find(data).unwrap();
    assert_eq!(edge["from"], "prometheus.scrape.page");
    assert_eq!(edge["to"], "prometheus.remote_write.out");
    assert_eq!(fleet.agent.text("/api/v1/components/no.such.thing").unwrap().0, 404);
}

#[test]
fn commands_mirror_the_state_in_their_exit_code() {
    let fleet = Fleet::start(|receiver, target| scrape_to(receiver, target, "a"));
    let head = fleet.repository.head().unwrap();
    fleet.committed(&head);
    let run = |arguments: &[&str]| {
        let output = fleet.agent.command(arguments).unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        (output.status.code(), text)
    };
    let (code, text) = run(&["status"]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("HEALTHY") && text.contains("IN SYNC") && text.contains("begin"), "{text}");
    assert!(!text.contains('\u{1b}'), "no colour where there is no terminal: {text:?}");
    let (code, text) = run(&["history"]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("committed"), "{text}");
    let broken = fleet.push("prometheus.scrape \"x\" {\n", "break it");
    fleet.refused(&broken);
    let (code, text) = run(&["status"]);
    assert_eq!(code, Some(8), "{text}");
    assert!(text.contains("main.alloy:"), "{text}");
    let (code, text) = run(&["reconcile"]);
    assert_eq!(code, Some(4), "{text}");
    let (code, _) = run(&["quarantine", "list"]);
    assert_eq!(code, Some(0));
    let (code, text) = run(&["components"]);
    assert_eq!(code, Some(0));
    assert!(text.contains("prometheus.remote_write"), "{text}");
    let unreachable = std::process::Command::new(crate::fleet::binary())
        .args(["status", "--server", "http://127.0.0.1:9"])
        .output()
        .unwrap();
    assert_eq!(unreachable.status.code(), Some(69));
}

#[test]
fn hold_keeps_what_runs_and_says_so() {
    let fleet = Fleet::start(|receiver, target| scrape_to(receiver, target, "a"));
    let head = fleet.repository.head().unwrap();
    fleet.committed(&head);
    assert!(fleet.agent.command(&["hold", "--reason", "a freeze"]).unwrap().status.success());
    let next = fleet.push(scrape_to(&fleet.receiver, &fleet.target, "b"), "another endpoint");
    let status = fleet
        .agent
        .wait("the held revision is shown", SOON, |status| {
            desires(status, &next) && !status["reason"].is_null()
        })
        .unwrap();
    assert_eq!(status["reason"]["kind"], "held", "{status:#}");
    assert!(status["running"]["revision"].as_str().unwrap().contains(&head), "{status:#}");
    let plan = fleet.agent.get("/api/v1/plan").unwrap();
    assert_eq!(plan["counts"]["update"], 1, "{plan:#}");
}

#[test]
fn its_own_metrics_are_well_formed() {
    let fleet = Fleet::start(|receiver, target| scrape_to(receiver, target, "a"));
    fleet.committed(&fleet.repository.head().unwrap());
    let (code, text) = fleet.agent.text("/metrics").unwrap();
    assert_eq!(code, 200);
    lint(&text);
    for name in [
        "invar_config_info",
        "alloy_component_controller_running_components",
        "process_resident_memory_bytes",
    ] {
        assert!(text.contains(name), "{name} is missing");
    }
}

/// What `promtool check metrics` looks at: every family has a help text and a type before its samples, counters end
/// in `_total`, nothing else does, no family comes twice, and names are legal.
fn lint(text: &str) {
    let mut family: Option<(String, String)> = None;
    let mut helped = std::collections::BTreeSet::new();
    let mut typed = std::collections::BTreeSet::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').unwrap_or((rest, ""));
            assert!(!help.trim().is_empty(), "{name} has no help text");
            assert!(helped.insert(name.to_owned()), "{name} comes twice");
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert!(helped.contains(name), "{name} has no help text");
            assert!(typed.insert(name.to_owned()), "{name} comes twice");
            assert_eq!(kind == "counter", name.ends_with("_total"), "{name} is a {kind}");
            assert!(name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_'), "{name}");
            family = Some((name.to_owned(), kind.to_owned()));
        } else if !line.is_empty() {
            let name = line.split(['{', ' ']).next().unwrap();
            let (family, kind) = family.as_ref().unwrap();
            let suffix = name.strip_prefix(family.as_str());
            let legal: &[&str] = match kind.as_str() {
                "histogram" => &["_bucket", "_sum", "_count"],
                "summary" => &["", "_sum", "_count"],
                _ => &[""],
            };
            assert!(suffix.is_some_and(|suffix| legal.contains(&suffix)), "{name} stands under {family}");
        }
    }
}

//! The function that `discovery.relabel` is, and the component in a running engine.

#![allow(clippy::unwrap_used)]

use invar_engine::{Configuration, Engine, EngineOptions, Inputs, PrepareMode, Registry};
use invar_syntax::evaluate::evaluate_body;
use invar_syntax::parse_bytes;
use invar_syntax::scope::EmptyScope;

use super::*;

fn arguments(text: &str) -> DiscoveryRelabelArguments {
    let (file, _) = parse_bytes("test", text.as_bytes());
    let body = evaluate_body(&file.unwrap().body, &EmptyScope).unwrap();
    DiscoveryRelabelArguments::decode(&body, &mut Vec::new()).unwrap()
}

fn state(text: &str, previous: Option<&State>) -> State {
    let arguments = arguments(text);
    State::new(RelabelRules::compile(&arguments.rules).unwrap(), &arguments.targets, previous)
}

const RULES: &str = r#"
rule {
  source_labels = ["__meta_docker_container_name"]
  regex         = "/(.*)"
  target_label  = "container"
}
rule {
  source_labels = ["drop"]
  regex         = "yes"
  action        = "drop"
}
"#;

#[test]
fn targets_are_rewritten_in_order_and_dropped_ones_disappear() {
    let targets = r#"targets = [
  {"__address__" = "a", "__meta_docker_container_name" = "/web"},
  {"__address__" = "b", "drop" = "yes"},
  {"__address__" = "a", "__meta_docker_container_name" = "/db"},
  {"__address__" = "a", "__meta_docker_container_name" = "/web"},
]"#;
    let state = state(&format!("{targets}\n{RULES}"), None);
    let containers: Vec<_> = state.output.iter().map(|target| target.get("container")).collect();
    assert_eq!(containers, [Some("web"), Some("db"), Some("web")]);
    // Labels that only discovery needs stay: the scrape removes them.
    assert_eq!(state.output[0].get("__meta_docker_container_name"), Some("/web"));
}

#[test]
fn what_is_known_is_not_computed_again_and_equal_to_what_would_be() {
    let list = |count: usize| {
        let targets: Vec<String> =
            (0..count).map(|i| format!("{{\"__meta_docker_container_name\" = \"/{i}\"}}")).collect();
        format!("targets = [{}]\n{RULES}", targets.join(", "))
    };
    let before = state(&list(50), None);
    let after = state(&list(60), Some(&before));
    assert_eq!(after.output, state(&list(60), None).output);
    assert_eq!(after.known.len(), 60);
    // What went away is not kept.
    assert_eq!(state(&list(1), Some(&after)).known.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn components_chain_by_their_exports() {
    let text = r#"
discovery.relabel "one" {
  targets = [{"__address__" = "a:1"}]
  rule {
    target_label = "env"
    replacement  = "prod"
  }
}

discovery.relabel "two" {
  targets = discovery.relabel.one.output
  rule {
    source_labels = ["env", "__address__"]
    separator     = "/"
    target_label  = "both"
  }
}
"#;
    let data = tempfile::tempdir().unwrap();
    let engine = Engine::new(EngineOptions::new(crate::register(Registry::new()), data.path()));
    let parsed = Configuration::parse([("main.alloy", text)], Inputs::default(), "test").unwrap();
    let prepared = engine.prepare(parsed.into(), PrepareMode::AllOrNothing).await.unwrap();
    engine.cut(prepared, |_| Ok::<_, String>(())).await.unwrap();
    let status = engine.component("discovery.relabel.two").unwrap();
    let exports = status.exports.to_string();
    assert!(exports.contains("prod/a:1"), "{exports}");
    engine.shutdown(std::time::Duration::from_secs(5)).await;
}

//! The agent's own metrics, through the front and from within.

#![allow(clippy::unwrap_used)]

use invar_engine::harness::{Harness, Surroundings};
use invar_engine::{Configuration, Engine, EngineOptions, Inputs, PrepareMode};
use invar_syntax::value::Value;

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_target_leads_to_the_agents_own_metrics() {
    let harness = Harness::<ExporterSelf>::new("").await.unwrap();
    let exports = harness.exports().to_object().unwrap();
    let Some(Value::Array(targets)) = exports.get("targets") else { panic!("{exports:?}") };
    let target = targets[0].to_object().unwrap();
    let label = |name: &str| target.get(name).and_then(Value::as_str).map(str::to_owned);
    assert_eq!(label("__address__").as_deref(), Some(DEFAULT_ADDRESS));
    assert_eq!(label("job").as_deref(), Some("integrations/self"));
    assert!(label("instance").is_some_and(|name| !name.is_empty()));
    let path = label("__metrics_path__").unwrap();
    assert_eq!(path, format!("/api/v0/component/{}/metrics", harness.node()));

    let get = |path: &str| http::Request::get(path).body(bytes::Bytes::new()).unwrap();
    let response = harness.serve(get("/metrics")).await;
    assert_eq!(response.status(), 200);
    let page = String::from_utf8(response.into_body().to_vec()).unwrap();
    assert!(page.contains("# TYPE invar_swap_seconds histogram"), "{page}");
    assert_eq!(harness.serve(get("/other")).await.status(), 404);
    harness.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scrape_reaches_it_without_a_network() {
    let text = r#"
prometheus.exporter.self "me" { }

prometheus.scrape "s" {
  targets         = prometheus.exporter.self.me.targets
  forward_to      = []
  scrape_interval = "100ms"
  scrape_timeout  = "100ms"
}
"#;
    let surroundings = Surroundings::default();
    surroundings.services.insert(Arc::new(InProcessAddress(DEFAULT_ADDRESS.to_owned())));
    let data = tempfile::tempdir().unwrap();
    let options = EngineOptions {
        services: surroundings.services,
        ..EngineOptions::new(crate::register(invar_engine::Registry::new()), data.path())
    };
    let engine = Engine::new(options);
    let parsed = Configuration::parse([("main.alloy", text)], Inputs::default(), "test").unwrap();
    let prepared = engine.prepare(parsed.into(), PrepareMode::AllOrNothing).await.unwrap();
    engine.cut(prepared, |_| Ok::<_, String>(())).await.unwrap();
    let scraped = async {
        loop {
            let status = engine.component("prometheus.scrape.s").unwrap();
            if status.debug_info.to_string().contains("\"up\"") {
                return status;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    let status = tokio::time::timeout(std::time::Duration::from_secs(10), scraped).await.unwrap();
    let info = status.debug_info.to_string();
    assert!(info.contains("integrations/self") && !info.contains("__meta"), "{info}");
    engine.shutdown(std::time::Duration::from_secs(5)).await;
}

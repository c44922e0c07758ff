//! The testing components in a running engine, as end-to-end tests use them.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::configuration::{Configuration, Inputs};
use crate::engine::{Engine, EngineOptions, PrepareMode};
use crate::registry::Registry;

struct Running {
    engine: Engine,
    _data: tempfile::TempDir,
}

impl Running {
    fn new() -> Self {
        let data = tempfile::tempdir().unwrap();
        let engine = Engine::new(EngineOptions::new(super::register(Registry::new()), data.path()));
        Self { engine, _data: data }
    }

    async fn apply(&self, text: &str) -> Result<(), String> {
        let parsed = Configuration::parse([("main.alloy", text)], Inputs::default(), "test").unwrap();
        let prepared = self.engine.prepare(Arc::new(parsed), PrepareMode::AllOrNothing).await;
        let prepared = prepared.map_err(|failure| failure.to_string())?;
        self.engine.cut(prepared, |_| Ok::<_, String>(())).await.map_err(|error| error.to_string())?;
        Ok(())
    }

    async fn counts(&self) -> serde_json::Value {
        let request = http::Request::get("/").body(Bytes::new()).unwrap();
        let response = self.engine.serve_component("testing.sink.s", request).await;
        serde_json::from_slice(response.body()).unwrap()
    }

    async fn command(&self, mode: &'static str) {
        let request = http::Request::post("/mode").body(Bytes::from(mode)).unwrap();
        assert_eq!(self.engine.serve_component("testing.sink.s", request).await.status(), 204);
    }

    async fn until(&self, accept: impl Fn(&serde_json::Value) -> bool) -> serde_json::Value {
        let waiting = async {
            loop {
                let counts = self.counts().await;
                if accept(&counts) {
                    return counts;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), waiting).await.unwrap()
    }
}

fn pipeline(revision: u32) -> String {
    format!(
        "testing.source \"a\" {{\n  forward_to = [testing.fault.f.receiver]\n  interval = \"2ms\"\n  samples = 3\n}}\n\
         testing.fault \"f\" {{\n  forward_to = [testing.sink.s.receiver]\n  revision = \"{revision}\"\n}}\n\
         testing.sink \"s\" {{ }}\n"
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_number_arrives_once_through_refusals_and_swaps() {
    let running = Running::new();
    running.apply(&pipeline(0)).await.unwrap();
    running.until(|counts| counts["batches"].as_u64() > Some(5)).await;
    running.command("retryable").await;
    running.until(|counts| counts["refused"].as_u64() > Some(2)).await;
    running.command("ok").await;
    for revision in 1..5 {
        running.apply(&pipeline(revision)).await.unwrap();
        let before = running.counts().await["batches"].as_u64();
        running.until(|counts| counts["batches"].as_u64() > before).await;
    }
    running.command("block").await;
    running.command("").await;
    let last = running.counts().await["batches"].as_u64().unwrap();
    let counts = running.until(|counts| counts["batches"].as_u64() > Some(last + 3)).await;
    assert_eq!((counts["gaps"].as_u64(), counts["duplicates"].as_u64()), (Some(0), Some(0)), "{counts}");
    assert_eq!(counts["samples"].as_u64().unwrap(), 3 * counts["batches"].as_u64().unwrap());
    running.engine.shutdown(Duration::from_secs(5)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_permanent_refusal_is_not_offered_again() {
    let running = Running::new();
    running.apply(&pipeline(0)).await.unwrap();
    running.command("permanent").await;
    running.until(|counts| counts["refused"].as_u64() > Some(3)).await;
    running.command("ok").await;
    let counts = running.until(|counts| counts["batches"].as_u64() > Some(3)).await;
    assert_eq!(counts["duplicates"].as_u64(), Some(0), "{counts}");
    running.engine.shutdown(Duration::from_secs(5)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn faults_in_preparation_refuse_the_configuration_and_leave_the_running_one() {
    let running = Running::new();
    running.apply(&pipeline(0)).await.unwrap();
    for (arguments, part) in [
        ("fail_prepare = \"the port is taken\"", "the port is taken"),
        ("panic_after = \"0s\"\n  panic_in = \"state\"", "panic"),
    ] {
        let text = format!("{}testing.fault \"g\" {{\n  {arguments}\n}}\n", pipeline(1));
        let error = running.apply(&text).await.unwrap_err();
        assert!(error.contains(part), "{error}");
    }
    let before = running.counts().await["batches"].as_u64();
    running.until(|counts| counts["batches"].as_u64() > before).await;
    running.engine.shutdown(Duration::from_secs(5)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_under_data_stays_with_its_component() {
    let running = Running::new();
    running.apply(&pipeline(0)).await.unwrap();
    running.until(|counts| counts["batches"].as_u64() > Some(1)).await;
    let broken = pipeline(1).replace("revision = \"1\"", "panic_after = \"1ms\"\n  panic_in = \"metrics\"");
    running.apply(&broken).await.unwrap();
    let failed = async {
        while running.engine.vitals().failed.iter().all(|failure| failure.node.as_str() != "testing.fault.f")
        {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), failed).await.unwrap();
    let report = running.engine.vitals();
    assert!(
        report.failed.iter().all(|failure| failure.node.as_str() == "testing.fault.f" && failure.panicked)
    );
    running.engine.shutdown(Duration::from_secs(5)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leaked_memory_grows() {
    let running = Running::new();
    running.apply("testing.fault \"f\" {\n  leak_bytes_per_second = 1000000\n}\n").await.unwrap();
    let grown = async {
        loop {
            let status = running.engine.component("testing.fault.f").unwrap();
            let text = serde_json::to_string(&status).unwrap();
            if text.contains("leaked_bytes") && text.contains("200000") {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), grown).await.unwrap();
    running.engine.shutdown(Duration::from_secs(5)).await;
}

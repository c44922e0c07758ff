//! The component between real pages and a capture.

#![allow(clippy::unwrap_used)]

mod server;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use invar_engine::DeliveryError;
use invar_engine::harness::Harness;
use invar_telemetry::{MetricBatch, is_stale};

use self::server::{Answer, PageServer};
use super::*;

const TEXT: &str = "text/plain; version=0.0.4";

fn block(server: &PageServer, rest: &str) -> String {
    format!(
        "targets = [{{\"__address__\" = \"{}\", \"job\" = \"j\", \"instance\" = \"i\"}}]\n\
         forward_to = [harness.capture.out.receiver]\n\
         scrape_interval = \"100ms\"\nscrape_timeout = \"90ms\"\n{rest}",
        server.address()
    )
}

/// Samples by their series: the last value of each.
fn values(batches: &[Arc<MetricBatch>]) -> BTreeMap<String, f64> {
    let mut values = BTreeMap::new();
    for batch in batches {
        for (series, _, value) in batch.samples() {
            values.insert(series.to_string(), value);
        }
    }
    values
}

/// Waits until the samples seen since now satisfy `accept`.
async fn wait_for(
    harness: &Harness<Scrape>,
    accept: impl Fn(&BTreeMap<String, f64>) -> bool,
) -> Vec<Arc<MetricBatch>> {
    let waiting = async {
        let mut seen = Vec::new();
        loop {
            seen.extend(harness.wait_captured(1).await);
            if accept(&values(&seen)) {
                return seen;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(10), waiting).await.expect("the samples did not come")
}

fn up(values: &BTreeMap<String, f64>) -> Option<f64> {
    values.get(r#"{__name__="up", instance="i", job="j"}"#).copied()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_arrives_with_its_reports_and_a_steady_one_shares_its_list() {
    let server = PageServer::start(|_| Answer::page(TEXT, "a{x=\"1\"} 1\nb 2.5\n")).await;
    let harness = Harness::<Scrape>::new(&block(&server, "")).await.unwrap();
    let batches = harness.wait_captured(3).await;
    let first = values(&batches[..1]);
    assert_eq!(first[r#"{__name__="a", instance="i", job="j", x="1"}"#], 1.0);
    assert_eq!(first[r#"{__name__="b", instance="i", job="j"}"#], 2.5);
    assert_eq!(up(&first), Some(1.0));
    let report = |batch: usize, name: &str| {
        values(&batches[batch..=batch])[&format!("{{__name__=\"{name}\", instance=\"i\", job=\"j\"}}")]
    };
    assert_eq!(report(0, "scrape_samples_scraped"), 2.0);
    assert_eq!(report(0, "scrape_samples_post_metric_relabeling"), 2.0);
    assert_eq!(report(0, "scrape_series_added"), 2.0);
    assert_eq!(report(1, "scrape_series_added"), 0.0);
    assert_eq!(first.len(), 7);
    assert_eq!(batches[0].series.id(), batches[2].series.id());
    let between = batches[1].timestamps.get(0) - batches[0].timestamps.get(0);
    assert!(between > 0 && between % 100 < 20, "{between}");
    harness.shutdown().await;
}

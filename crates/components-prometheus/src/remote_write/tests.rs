//! The component in a real engine, against receivers on loopback.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use invar_engine::harness::{Harness, Surroundings};
use invar_engine::{Registry, Services};
use invar_syntax::schema::schema_to_json;
use invar_telemetry::remote_write::{DecodeLimits, Protocol, decode, decompress};
use invar_telemetry::{Labels, MetricBatch, Series, SeriesList, Timestamps};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;

mod endpoints;
mod identities;
mod logs;

/// What a receiver answers.
type Answer = Box<dyn Fn(&Received) -> String + Send + Sync>;

/// A request as it came.
#[derive(Clone)]
struct Received {
    headers: HashMap<String, String>,
    /// The body, compressed as it came.
    body: Vec<u8>,
    samples: Vec<(String, i64, f64)>,
    exemplars: usize,
    metadata: usize,
}

/// A remote-write receiver that keeps what it accepts.
struct Receiver {
    url: String,
    accepted: Arc<Mutex<Vec<Received>>>,
    refused: Arc<Mutex<Vec<Received>>>,
    answer: Arc<Mutex<Answer>>,
    task: tokio::task::JoinHandle<()>,
}

const OK: &str = "HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n";
const DOWN: &str = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n";

/// What a receiver of version 2 answers that wrote this much.
fn written(samples: usize, exemplars: usize) -> String {
    format!(
        "HTTP/1.1 204 No Content\r\nX-Prometheus-Remote-Write-Samples-Written: {samples}\r\n\
         X-Prometheus-Remote-Write-Exemplars-Written: {exemplars}\r\nContent-Length: 0\r\n\r\n"
    )
}

impl Receiver {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/write", listener.local_addr().unwrap());
        let accepted = Arc::new(Mutex::new(Vec::new()));
        let refused = Arc::new(Mutex::new(Vec::new()));
        let answer: Arc<Mutex<Answer>> = Arc::new(Mutex::new(Box::new(|_| OK.to_owned())));
        let (kept, lost, answers) = (accepted.clone(), refused.clone(), answer.clone());
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(stream, kept.clone(), lost.clone(), answers.clone()));
            }
        });
        Self { url, accepted, refused, answer, task }
    }

    fn answer(&self, answer: impl Fn(&Received) -> String + Send + Sync + 'static) {
        *self.answer.lock() = Box::new(answer);
    }

    fn timestamps(&self) -> Vec<i64> {
        let accepted = self.accepted.lock();
        accepted.iter().flat_map(|received| received.samples.iter().map(|sample| sample.1)).collect()
    }

    async fn wait_for(&self, wanted: impl IntoIterator<Item = i64>) {
        let wanted: BTreeSet<i64> = wanted.into_iter().collect();
        eventually(|| wanted.is_subset(&self.timestamps().into_iter().collect())).await;
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(
    mut stream: TcpStream,
    accepted: Arc<Mutex<Vec<Received>>>,
    refused: Arc<Mutex<Vec<Received>>>,
    answer: Arc<Mutex<Answer>>,
) {
    let mut buffer = Vec::new();
    loop {
        let head = loop {
            if let Some(at) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                break at + 4;
            }
            if stream.read_buf(&mut buffer).await.unwrap_or(0) == 0 {
                return;
            }
        };
        let text = String::from_utf8_lossy(&buffer[..head]).into_owned();
        let headers: HashMap<String, String> = text
            .lines()
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
            .collect();
        let length: usize = headers["content-length"].parse().unwrap();
        while buffer.len() < head + length {
            if stream.read_buf(&mut buffer).await.unwrap_or(0) == 0 {
                return;
            }
        }
        let protocol = match headers["x-prometheus-remote-write-version"].as_str() {
            "2.0.0" => Protocol::V2,
            _ => Protocol::V1,
        };
        let message = decompress(&buffer[head..head + length], 64 << 20).unwrap();
        let decoded = decode(protocol, &message, DecodeLimits::default()).unwrap();
        assert_eq!(decoded.invalid_series, 0);
        let samples =
            decoded.batch.samples().map(|(series, at, value)| (series.to_string(), at, value)).collect();
        let body = buffer[head..head + length].to_vec();
        buffer.drain(..head + length);
        let (exemplars, metadata) = (decoded.batch.exemplars.len(), decoded.batch.metadata.len());
        let received = Received { headers, body, samples, exemplars, metadata };
        let mut response = (answer.lock())(&received);
        if protocol == Protocol::V2 && response == OK {
            // As a receiver of version 2 says that it wrote all of it.
            let (samples, exemplars) = (received.samples.len(), received.exemplars);
            response = written(samples, exemplars);
        }
        (if response.contains(" 204 ") { &accepted } else { &refused }).lock().push(received);
        if stream.write_all(response.as_bytes()).await.is_err() {
            return;
        }
    }
}

async fn eventually(condition: impl Fn() -> bool) {
    let waiting = async {
        let mut polls = tokio::time::interval(Duration::from_millis(5));
        while !condition() {
            polls.tick().await;
        }
    };
    // Long enough for a debug build on a machine that is busy with others.
    tokio::time::timeout(Duration::from_secs(120), waiting).await.expect("what the test waits for happens");
}

fn list() -> Arc<SeriesList> {
    let series = |index: usize| {
        let index = index.to_string();
        let labels: Labels =
            [("__name__", "metric"), ("__internal", "x"), ("index", &*index)].into_iter().collect();
        Series::new(&labels)
    };
    SeriesList::new((0..10).map(series).collect::<Vec<_>>())
}

fn batch(list: &Arc<SeriesList>, timestamp: i64) -> Arc<MetricBatch> {
    let values = vec![timestamp as f64; list.len()];
    Arc::new(MetricBatch::new(list.clone(), values, Timestamps::One(timestamp)))
}

async fn feed(harness: &Harness<RemoteWrite>, list: &Arc<SeriesList>, timestamps: std::ops::Range<i64>) {
    for timestamp in timestamps {
        harness.feed(batch(list, timestamp)).await.unwrap();
    }
}

fn endpoint(url: &str, more: &str) -> String {
    format!(
        r#"endpoint {{
            url = "{url}"
            {more}
            queue_config {{
                batch_send_deadline = "20ms"
                min_backoff = "5ms"
                max_backoff = "20ms"
            }}
        }}
        external_labels = {{ cluster = "c", index = "external" }}"#
    )
}

fn inside(directory: &Path) -> Surroundings {
    Surroundings {
        services: Services::new(),
        data_directory: Some(directory.to_owned()),
        drain_deadline: Some(Duration::from_secs(5)),
    }
}

#[test]
fn the_declared_interface_is_the_recorded_one() {
    let mut directory = Path::new(env!("CARGO_MANIFEST_DIR"));
    let table = loop {
        let candidate = directory.join("shared/conformance/components.jsonl");
        match (std::fs::read_to_string(candidate), directory.parent()) {
            (Ok(table), _) => break table,
            (Err(_), Some(parent)) => directory = parent,
            (Err(_), None) => {
                eprintln!("skipped: no shared/conformance/components.jsonl above this crate");
                return;
            }
        }
    };
    let registry = Registry::new().with::<RemoteWrite>();
    let info = registry.get(RemoteWrite::NAME).unwrap();
    let rows = table.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let row = rows.into_iter().find(|row| row["name"] == RemoteWrite::NAME).unwrap();
    assert_eq!(schema_to_json(&info.arguments), row["arguments"]);
    assert_eq!(schema_to_json(&info.exports), row["exports"]);
}

#[tokio::test]
async fn samples_arrive_in_both_versions_with_labels_and_headers() {
    for (message, content_type) in [
        ("prometheus.WriteRequest", "application/x-protobuf"),
        ("io.prometheus.write.v2.Request", "application/x-protobuf;proto=io.prometheus.write.v2.Request"),
    ] {
        let receiver = Receiver::start().await;
        let more = format!(
            "protobuf_message = \"{message}\"\nheaders = {{\"X-Scope-OrgID\" = \"me\"}}\nbasic_auth {{\n username = \"u\"\n password = \"p\"\n}}"
        );
        let harness = Harness::<RemoteWrite>::new(&endpoint(&receiver.url, &more)).await.unwrap();
        let list = list();
        feed(&harness, &list, 1..4).await;
        receiver.wait_for(1..4).await;
        let first = receiver.accepted.lock()[0].clone();
        assert_eq!(first.samples[0].0, r#"{__name__="metric", cluster="c", index="0"}"#);
        assert_eq!(first.headers["content-type"], content_type);
        assert_eq!(first.headers["content-encoding"], "snappy");
        assert_eq!(first.headers["x-scope-orgid"], "me");
        assert_eq!(first.headers["authorization"], "Basic dTpw");
        assert_eq!(first.headers["user-agent"], concat!("Invar/", env!("CARGO_PKG_VERSION")));
        let version = if message.contains("v2") { "2.0.0" } else { "0.1.0" };
        assert_eq!(first.headers["x-prometheus-remote-write-version"], version);
        // The receiver has a request before the sender has its answer.
        eventually(|| harness.vitals().groups[0].now.items_out == 30).await;
        let group = &harness.vitals().groups[0].now;
        assert!(group.ok > 0 && group.permanent == 0);
        assert_eq!(group.items_in, 30);
        harness.shutdown().await;
    }
}

#[tokio::test]
async fn what_a_receiver_misses_arrives_after_a_restart_in_order() {
    let directory = tempfile::tempdir().unwrap();
    let receiver = Receiver::start().await;
    let list = list();
    {
        let mut surroundings = inside(directory.path());
        surroundings.drain_deadline = Some(Duration::from_millis(50));
        let harness =
            Harness::<RemoteWrite>::within(surroundings, &endpoint(&receiver.url, "")).await.unwrap();
        feed(&harness, &list, 1..5).await;
        receiver.wait_for(1..5).await;
        receiver.answer(|_| DOWN.to_owned());
        feed(&harness, &list, 5..50).await;
        eventually(|| !receiver.refused.lock().is_empty()).await;
        harness.engine().shutdown(Duration::from_millis(50)).await;
    }
    receiver.answer(|_| OK.to_owned());
    let harness =
        Harness::<RemoteWrite>::within(inside(directory.path()), &endpoint(&receiver.url, "")).await.unwrap();
    feed(&harness, &list, 50..55).await;
    receiver.wait_for(1..55).await;
    let mut newest: BTreeMap<String, i64> = BTreeMap::new();
    for received in receiver.accepted.lock().iter() {
        for (series, timestamp, _) in &received.samples {
            let before = newest.insert(series.clone(), *timestamp).unwrap_or(0);
            assert!(*timestamp > before, "{series} went from {before} to {timestamp}");
        }
    }
    harness.shutdown().await;
}

#[tokio::test]
async fn a_rolled_back_endpoint_costs_no_sample() {
    let (good, bad) = (Receiver::start().await, Receiver::start().await);
    let harness = Harness::<RemoteWrite>::new(&endpoint(&good.url, "")).await.unwrap();
    let list = list();
    feed(&harness, &list, 1..10).await;
    harness.candidate(&endpoint(&bad.url, "")).await.unwrap();
    feed(&harness, &list, 10..20).await;
    bad.wait_for(10..20).await;
    assert!(good.timestamps().iter().all(|timestamp| *timestamp < 10), "the old endpoint ends at the cut");
    harness.rollback();
    feed(&harness, &list, 20..30).await;
    good.wait_for(1..30).await;
    assert!(bad.timestamps().iter().all(|timestamp| (10..20).contains(timestamp)));
    harness.shutdown().await;
}

#[tokio::test]
async fn a_committed_endpoint_inherits_what_the_old_one_could_not_deliver() {
    let (old, new) = (Receiver::start().await, Receiver::start().await);
    old.answer(|_| DOWN.to_owned());
    let harness = Harness::<RemoteWrite>::new(&endpoint(&old.url, "")).await.unwrap();
    let list = list();
    feed(&harness, &list, 1..10).await;
    harness.candidate(&endpoint(&new.url, "")).await.unwrap();
    feed(&harness, &list, 10..20).await;
    new.wait_for(10..20).await;
    harness.commit().await;
    new.wait_for(1..20).await;
    harness.shutdown().await;
}

#[tokio::test]
async fn rotated_credentials_go_on_in_order_where_the_old_ones_stopped() {
    let receiver = Receiver::start().await;
    receiver.answer(|received| {
        let known = received.headers["authorization"] == "Bearer good";
        if known {
            OK.to_owned()
        } else {
            "HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n".to_owned()
        }
    });
    let token = |token: &str| endpoint(&receiver.url, &format!("bearer_token = \"{token}\""));
    let harness = Harness::<RemoteWrite>::new(&token("good")).await.unwrap();
    let list = list();
    feed(&harness, &list, 1..10).await;
    receiver.wait_for(1..10).await;
    // A change may reach the receiver late: for a minute a refusal costs nothing.
    harness.candidate(&token("bad")).await.unwrap();
    feed(&harness, &list, 10..20).await;
    eventually(|| !receiver.refused.lock().is_empty()).await;
    harness.rollback();
    receiver.wait_for(1..20).await;
    let group = &harness.vitals().groups[0].now;
    assert_eq!((group.permanent, group.dropped), (0, 0));
    harness.shutdown().await;
}

#[tokio::test]
async fn refusals_are_dropped_and_counted_and_429_is_tried_again() {
    let receiver = Receiver::start().await;
    receiver.answer(|_| "HTTP/1.1 400 Bad Request\r\nContent-Length: 3\r\n\r\nbad".to_owned());
    let harness = Harness::<RemoteWrite>::new(&endpoint(&receiver.url, "")).await.unwrap();
    let list = list();
    harness.feed(batch(&list, 1)).await.unwrap();
    eventually(|| harness.vitals().groups[0].now.dropped == 10).await;
    receiver.answer(|_| {
        "HTTP/1.1 429 Too Many Requests\r\nRetry-After: 0\r\nContent-Length: 0\r\n\r\n".to_owned()
    });
    harness.feed(batch(&list, 2)).await.unwrap();
    eventually(|| receiver.refused.lock().len() > 3).await;
    receiver.answer(|_| OK.to_owned());
    receiver.wait_for([2]).await;
    assert_eq!(harness.vitals().groups[0].now.permanent, 1);
    harness.shutdown().await;
}

#[tokio::test]
async fn what_a_receiver_of_version_two_did_not_write_is_counted_as_lost() {
    let more = "protobuf_message = \"io.prometheus.write.v2.Request\"";
    let receiver = Receiver::start().await;
    receiver.answer(|_| written(7, 0));
    let harness = Harness::<RemoteWrite>::new(&endpoint(&receiver.url, more)).await.unwrap();
    let list = list();
    let now = || harness.vitals().groups[0].now;
    harness.feed(batch(&list, 1)).await.unwrap();
    eventually(|| now().items_out == 7 && now().dropped == 3).await;
    assert_eq!(now().permanent, 0);
    // A refusal of part of a request.
    receiver.answer(|_| written(4, 0).replace("204 No Content", "400 Bad Request"));
    harness.feed(batch(&list, 2)).await.unwrap();
    eventually(|| now().items_out == 11 && now().dropped == 9).await;
    assert_eq!(now().permanent, 1);
    // One that says nothing takes the request for one of version 1.
    receiver.answer(|_| OK.replace("204 No Content", "200 OK"));
    harness.feed(batch(&list, 3)).await.unwrap();
    eventually(|| now().dropped == 19).await;
    assert_eq!((now().permanent, now().items_out), (2, 11));
    harness.shutdown().await;
}

#[tokio::test]
async fn a_process_that_ends_does_not_wait_for_an_endpoint_that_is_down() {
    let directory = tempfile::tempdir().unwrap();
    let receiver = Receiver::start().await;
    receiver.answer(|_| DOWN.replace("Content-Length", "Retry-After: 120\r\nContent-Length"));
    let mut surroundings = inside(directory.path());
    surroundings.drain_deadline = Some(Duration::from_secs(600));
    let list = list();
    {
        let harness =
            Harness::<RemoteWrite>::within(surroundings, &endpoint(&receiver.url, "")).await.unwrap();
        feed(&harness, &list, 1..5).await;
        eventually(|| harness.vitals().groups[0].now.retryable > 0).await;
        let before = receiver.refused.lock().len();
        tokio::time::pause();
        let started = Instant::now();
        harness.engine().shutdown(Duration::from_secs(600)).await;
        assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
        tokio::time::resume();
        // Nor does it give up without a last attempt, although the receiver asked for a long pause.
        eventually(|| receiver.refused.lock().len() > before).await;
    }
    // All of it was on the disk.
    receiver.answer(|_| OK.to_owned());
    let harness =
        Harness::<RemoteWrite>::within(inside(directory.path()), &endpoint(&receiver.url, "")).await.unwrap();
    receiver.wait_for(1..5).await;
    harness.shutdown().await;
}

#[tokio::test]
async fn write_relabelling_sees_external_labels() {
    let receiver = Receiver::start().await;
    let rules = r#"
        write_relabel_config {
            source_labels = ["cluster", "index"]
            separator = "/"
            regex = "c/[0-4]"
            action = "keep"
        }
        write_relabel_config {
            target_label = "added"
            replacement = "yes"
        }"#;
    let harness = Harness::<RemoteWrite>::new(&endpoint(&receiver.url, rules)).await.unwrap();
    let list = list();
    feed(&harness, &list, 1..4).await;
    receiver.wait_for(1..4).await;
    let samples: Vec<_> =
        receiver.accepted.lock().iter().flat_map(|received| received.samples.clone()).collect();
    assert_eq!(samples.len(), 15);
    assert!(samples.iter().any(|(s, ..)| s == r#"{__name__="metric", added="yes", cluster="c", index="4"}"#));
    harness.shutdown().await;
}

#[tokio::test]
async fn only_overtaken_samples_are_refused_and_only_a_batch_of_them_is_an_error() {
    let harness = Harness::<RemoteWrite>::new("").await.unwrap();
    let list = list();
    harness.feed(batch(&list, 5)).await.unwrap();
    let refused = harness.feed(batch(&list, 5)).await.unwrap_err();
    assert!(!refused.is_retryable());
    harness.feed(batch(&list, 6)).await.unwrap();
    harness.shutdown().await;
}

#[tokio::test]
async fn wrong_arguments_are_refused_by_name() {
    for (body, wanted) in [
        ("endpoint { }", "url"),
        ("endpoint {\n url = \"ftp://x\"\n}", "scheme"),
        ("endpoint {\n url = \"http://x\"\n protobuf_message = \"x\"\n}", "unknown message"),
        ("wal {\n min_keepalive_time = \"9h\"\n}", "max_keepalive_time"),
        ("endpoint {\n url = \"http://x\"\n sigv4 {\n access_key = \"a\"\n }\n}", "secret_key is needed"),
        ("endpoint {\n url = \"http://x\"\n azuread { }\n}", "exactly one of managed_identity"),
        (
            "endpoint {\n url = \"http://x\"\n azuread {\n cloud = \"x\"\n sdk {\n tenant_id = \"t\"\n }\n }\n}",
            "AzurePublic, AzureChina",
        ),
        (
            "endpoint {\n url = \"http://x\"\n sigv4 { }\n google_iam { }\n}",
            "at most one way to authenticate",
        ),
        (
            "endpoint {\n url = \"http://x\"\n name = \"a\"\n}\nendpoint {\n url = \"http://y\"\n name = \"a\"\n}",
            "more than one",
        ),
    ] {
        let Err(failure) = Harness::<RemoteWrite>::new(body).await else { panic!("{body} was accepted") };
        assert!(failure.to_string().contains(wanted), "{failure}");
    }
}

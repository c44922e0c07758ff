//! The component in a real engine, asked by clients over real sockets.

#![allow(clippy::unwrap_used)]

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use invar_engine::harness::{Harness, Surroundings};
use invar_engine::{Configuration, DeliveryError, Engine, EngineOptions, Inputs, PrepareMode, Registry};
use invar_syntax::schema::schema_to_json;
use invar_telemetry::remote_write::message::{put_exemplar, put_histogram};
use invar_telemetry::remote_write::{Protocol, RequestEncoder, SeriesDetails};
use invar_telemetry::{
    Exemplar, Histogram, Labels, MetricBatch, MetricKind, MetricMetadata, Series, symbols,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::ReceiveHttp;
use super::intake::{Intake, MESSAGE_LIMIT};

const SERVER: &str = "http {\n listen_address = \"127.0.0.1\"\n listen_port = 0\n}\n";
const FORWARD: &str = "forward_to = [harness.capture.out.receiver]\n";
const BOTH: &str = "accepted_remote_write_protobuf_messages = [\"prometheus.WriteRequest\", \"io.prometheus.write.v2.Request\"]\n";
const V2: (&str, &str) = ("Content-Type", "application/x-protobuf;proto=io.prometheus.write.v2.Request");

async fn start(more: &str) -> Harness<ReceiveHttp> {
    Harness::new(&format!("{SERVER}{FORWARD}{more}")).await.unwrap()
}

/// One connection.
struct Client {
    stream: TcpStream,
}

#[derive(Debug)]
struct Answer {
    status: u16,
    headers: HashMap<String, String>,
    body: String,
}

impl Client {
    async fn connect(harness: &Harness<ReceiveHttp>) -> Self {
        Self::to(harness.state().unwrap().address()).await
    }

    async fn to(address: SocketAddr) -> Self {
        Self { stream: TcpStream::connect(address).await.unwrap() }
    }

    async fn write(&mut self, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        self.send("POST /api/v1/metrics/write", headers, body).await
    }

    async fn send(&mut self, line: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let mut head = format!("{line} HTTP/1.1\r\nHost: test\r\n");
        if !headers.iter().any(|(name, _)| *name == "Content-Length") {
            head.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str("\r\n");
        self.stream.write_all(head.as_bytes()).await.unwrap();
        self.stream.write_all(body).await.unwrap();
        self.answer().await
    }

    async fn answer(&mut self) -> Answer {
        let mut text = Vec::new();
        let head = loop {
            if let Some(at) = text.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            assert_ne!(self.stream.read_buf(&mut text).await.unwrap(), 0, "the connection was closed");
        };
        let mut lines = std::str::from_utf8(&text[..head]).unwrap().lines();
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let headers: HashMap<String, String> = lines
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
            .collect();
        let length = headers.get("content-length").map_or(0, |length| length.parse::<usize>().unwrap());
        while text.len() < head + length {
            assert_ne!(self.stream.read_buf(&mut text).await.unwrap(), 0, "the body was cut");
        }
        Answer { status, headers, body: String::from_utf8(text[head..].to_vec()).unwrap() }
    }
}

fn series(labels: &[(&str, &str)]) -> Series {
    Series::new(&labels.iter().copied().collect())
}

/// A request with samples of these metric names, all of job `x`, in order.
fn samples(protocol: Protocol, samples: &[(&str, i64, f64)]) -> Vec<u8> {
    let mut encoder = RequestEncoder::new(protocol, Labels::default());
    let sent: Vec<Series> =
        samples.iter().map(|(name, ..)| series(&[("__name__", name), ("job", "x")])).collect();
    for (series, &(_, at, value)) in sent.iter().zip(samples) {
        encoder.sample(&symbols(), series, at, value, SeriesDetails::default());
    }
    encoder.take().unwrap().body
}

fn read(batch: &MetricBatch) -> Vec<(String, i64, f64)> {
    let name = |series: &Series| series.metric_name(&symbols()).to_owned();
    batch.samples().map(|(series, at, value)| (name(series), at, value)).collect()
}

fn snappy(message: &[u8]) -> Vec<u8> {
    snap::raw::Encoder::new().compress_vec(message).unwrap()
}

#[test]
fn the_interface_is_the_recorded_one() {
    let start = Path::new(env!("CARGO_MANIFEST_DIR"));
    let table = start.ancestors().map(|folder| folder.join("shared/conformance/components.jsonl"));
    let Some(table) = table.into_iter().find(|file| file.is_file()) else {
        println!("skipped: no shared/conformance/components.jsonl above this crate");
        return;
    };
    let table = std::fs::read_to_string(table).unwrap();
    let mut rows = table.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let row = rows.find(|row| row["name"] == "prometheus.receive_http").unwrap();
    let info = crate::register(Registry::new()).get("prometheus.receive_http").unwrap();
    assert_eq!(schema_to_json(&info.arguments), row["arguments"]);
    // Where nothing is exported the table has no entry.
    assert_eq!(schema_to_json(&info.exports), serde_json::json!([]));
    assert_eq!(row["exports"], serde_json::Value::Null);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn version_1_is_forwarded_in_order() {
    let harness = start("").await;
    let mut client = Client::connect(&harness).await;
    let sent = [("b", 1000, 1.0), ("a", 1000, 2.0), ("b", 2000, 3.0)];
    let body = samples(Protocol::V1, &sent);
    // With the headers of today and with none at all.
    let headers = [("Content-Type", "application/x-protobuf"), ("Content-Encoding", "snappy")];
    for headers in [&headers[..], &[]] {
        let answer = client.write(headers, &body).await;
        assert_eq!((answer.status, answer.body.as_str()), (204, ""), "{answer:?}");
        assert!(!answer.headers.contains_key("x-prometheus-remote-write-samples-written"));
        let batches = harness.captured();
        let expected: Vec<_> =
            sent.iter().map(|(name, at, value)| ((*name).to_owned(), *at, *value)).collect();
        assert_eq!(batches.iter().map(|batch| read(batch)).collect::<Vec<_>>(), [expected]);
    }
    let vitals = harness.vitals();
    let group = vitals.groups.iter().find(|group| &group.node == harness.node()).unwrap();
    assert_eq!((group.now.ok, group.now.items_in, group.now.items_out), (2, 6, 6));
    harness.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn version_2_is_taken_where_it_is_accepted() {
    let body = {
        let mut encoder = RequestEncoder::new(Protocol::V2, Labels::default());
        let series = series(&[("__name__", "up"), ("job", "x")]);
        let (mut histogram, mut exemplar) = (Vec::new(), Vec::new());
        put_histogram(&mut histogram, &Histogram::empty(), 3000);
        let labels: Labels = [("trace_id", "t")].into_iter().collect();
        put_exemplar(&mut exemplar, &Exemplar { labels, value: 1.0, timestamp: Some(1000) });
        let reader = symbols();
        encoder.sample(&reader, &series, 1000, 1.0, SeriesDetails::default());
        encoder.sample(&reader, &series, 2000, 2.0, SeriesDetails::default());
        encoder.histogram(&reader, &series, 3000, &histogram, SeriesDetails::default());
        encoder.exemplar(&reader, &series, &exemplar);
        drop(reader);
        encoder.take().unwrap().body
    };
    let harness = start("").await;
    let mut client = Client::connect(&harness).await;
    let answer = client.write(&[V2], &body).await;
    assert_eq!(answer.status, 415);
    assert!(answer.body.contains("io.prometheus.write.v2.Request is not accepted"), "{answer:?}");

    harness.update(&format!("{SERVER}{FORWARD}{BOTH}")).await.unwrap();
    let answer = client.write(&[V2], &body).await;
    assert_eq!(answer.status, 204, "{answer:?}");
    let written = |what: &str| answer.headers[&format!("x-prometheus-remote-write-{what}-written")].as_str();
    assert_eq!((written("samples"), written("histograms"), written("exemplars")), ("2", "1", "1"));
    let batches = harness.captured();
    let [batch] = &batches[..] else { panic!("{batches:?}") };
    assert_eq!((batch.sample_count(), batch.exemplars.len()), (3, 1));
    assert_eq!(client.write(&[], &samples(Protocol::V1, &[("a", 1, 1.0)])).await.status, 204);
    harness.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_read_is_refused_and_said_why() {
    let harness = start(BOTH).await;
    let good = samples(Protocol::V1, &[("a", 1, 1.0)]);
    let mut truncated = snap::raw::Decoder::new().decompress_vec(&good).unwrap();
    truncated.truncate(truncated.len() - 3);
    // A block of 4 GiB less one byte, as it says.
    let boast = [0xff, 0xff, 0xff, 0xff, 0x0f, 0x00];
    let type_of = |text: &'static str| [("Content-Type", text)];
    for (headers, body, status, part) in [
        (type_of("application/x-protobuf"), &b"\x10not snappy"[..], 400, "snappy"),
        (type_of("application/x-protobuf"), b"", 400, "snappy"),
        (type_of("application/x-protobuf"), &snappy(&truncated), 400, "truncated"),
        (type_of("application/x-protobuf"), &boast, 413, "limit"),
        (type_of("text/plain"), &good, 415, "text/plain"),
        (type_of("application/x-protobuf; proto=io.prometheus.write.v3.Request"), &good, 415, "unknown"),
        (type_of("application/x-protobuf; proto"), &good, 415, "name=value"),
        ([("Content-Encoding", "gzip")], &good, 415, "gzip"),
        ([("Content-Encoding", "zstd")], &good, 415, "zstd"),
    ] {
        let answer = Client::connect(&harness).await.write(&headers, body).await;
        assert_eq!(answer.status, status, "{headers:?}: {answer:?}");
        assert!(answer.body.contains(part), "{headers:?}: {answer:?}");
    }
    // What is too large is refused before it is sent.
    let huge = [("Content-Length", "100000000")];
    assert_eq!(Client::connect(&harness).await.write(&huge, b"").await.status, 413);

    let mut client = Client::connect(&harness).await;
    for (line, status) in [
        ("GET /api/v1/metrics/write", 405),
        ("POST /api/v1/write", 404),
        ("POST /api/v1/metrics/write/", 404),
        ("POST /", 404),
    ] {
        let answer = client.send(line, &[], &good).await;
        assert_eq!(answer.status, status, "{line}");
    }
    // Requests that did not come through the component's own server.
    let past = http::Request::post("/api/v1/metrics/write").body(Bytes::from(good.clone())).unwrap();
    assert_eq!(harness.serve(past).await.status(), StatusCode::NOT_FOUND);
    assert!(harness.captured().is_empty());
    let content_type = type_of("Application/X-Protobuf; proto=\"prometheus.WriteRequest\"");
    assert_eq!(client.write(&content_type, &good).await.status, 204);
    harness.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn invalid_series_are_left_out_and_said() {
    let harness = start(BOTH).await;
    let mut client = Client::connect(&harness).await;
    for protocol in [Protocol::V1, Protocol::V2] {
        let mut encoder = RequestEncoder::new(protocol, Labels::default());
        let sent = [series(&[("__name__", "up")]), series(&[("job", "nameless")])];
        for series in &sent {
            encoder.sample(&symbols(), series, 1000, 1.0, SeriesDetails::default());
        }
        let body = encoder.take().unwrap().body;
        let headers: &[(&str, &str)] = if protocol == Protocol::V2 { &[V2] } else { &[] };
        let answer = client.write(headers, &body).await;
        assert_eq!(answer.status, 400);
        assert!(
            answer.body.contains("1 series are invalid") && answer.body.contains("nameless"),
            "{answer:?}"
        );
        let written = answer.headers.get("x-prometheus-remote-write-samples-written");
        assert_eq!(written.map(String::as_str), (protocol == Protocol::V2).then_some("1"));
        let batches = harness.captured();
        assert_eq!(batches.iter().map(|batch| batch.sample_count()).sum::<usize>(), 1);
    }
    harness.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn senders_hear_what_receivers_answer() {
    let harness = start(BOTH).await;
    let mut client = Client::connect(&harness).await;
    let retryable = |after| DeliveryError::Retryable { after, reason: "full".to_owned() };
    for (error, status, after, text) in [
        (retryable(None), 503, Some("5"), "full"),
        (retryable(Some(Duration::from_millis(1500))), 503, Some("2"), "full"),
        (DeliveryError::permanent("out of order"), 400, None, "out of order"),
        (DeliveryError::Cancelled, 503, Some("1"), "cancelled"),
    ] {
        let answered = error.clone();
        harness.answer_with(move |_| Err(answered.clone()));
        let answer = client.write(&[V2], &samples(Protocol::V2, &[("a", 1, 1.0)])).await;
        assert_eq!(answer.status, status, "{error:?}");
        assert_eq!(answer.headers.get("retry-after").map(String::as_str), after, "{error:?}");
        assert_eq!(answer.headers["x-prometheus-remote-write-samples-written"], "0", "{error:?}");
        assert!(answer.body.contains(text), "{error:?}: {answer:?}");
    }
    let vitals = harness.vitals();
    let group = vitals.groups.iter().find(|group| &group.node == harness.node()).unwrap();
    assert_eq!((group.now.retryable, group.now.permanent, group.now.dropped), (3, 1, 1));
    harness.answer_with(|_| Ok(()));
    assert_eq!(client.write(&[], &samples(Protocol::V1, &[("a", 1, 1.0)])).await.status, 204);
    harness.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_receivers_close_no_connection() {
    let harness = start("").await;
    let address = harness.state().unwrap().address();
    let mut client = Client::connect(&harness).await;
    let body = samples(Protocol::V1, &[("a", 1, 1.0)]);
    assert_eq!(client.write(&[], &body).await.status, 204);
    assert_eq!(harness.captured().len(), 1);

    harness.update(&format!("{SERVER}forward_to = []")).await.unwrap();
    assert_eq!(harness.state().unwrap().address(), address);
    let answer = client.write(&[], &body).await;
    assert_eq!((answer.status, answer.headers.get("connection")), (204, None));
    assert!(harness.captured().is_empty());

    harness.candidate(&format!("{SERVER}{FORWARD}append_metadata = true")).await.unwrap();
    assert_eq!(client.write(&[], &body).await.status, 204);
    assert_eq!(harness.captured().len(), 1);
    harness.rollback();
    assert_eq!(client.write(&[], &body).await.status, 204);
    assert!(harness.captured().is_empty());
    harness.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_taken_port_is_a_clear_error() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let server = format!("http {{\n listen_address = \"127.0.0.1\"\n listen_port = {}\n}}\n", address.port());
    let Err(failure) = Harness::<ReceiveHttp>::new(&format!("{server}{FORWARD}")).await else {
        panic!("{address} was free");
    };
    let text = failure.diagnostics.to_string();
    assert!(text.contains(&address.to_string()) && text.contains("in use"), "{text}");
}

fn findings(text: &str) -> String {
    let engine = Engine::new(EngineOptions::new(crate::register(Registry::new()), std::env::temp_dir()));
    let configuration = Configuration::parse([("main.alloy", text.to_owned())], Inputs::default(), "test");
    engine.check(&configuration.unwrap()).to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_may_not_share_an_address() {
    let block = |label: &str, port: u16| {
        let server = format!("http {{\n listen_address = \"127.0.0.1\"\n listen_port = {port}\n}}");
        format!("prometheus.receive_http \"{label}\" {{\n {server}\n forward_to = []\n}}\n")
    };
    let data = tempfile::tempdir().unwrap();
    let engine = Engine::new(EngineOptions::new(crate::register(Registry::new()), data.path()));
    let prepare = async |text: String| {
        let configuration = Configuration::parse([("main.alloy", text)], Inputs::default(), "test").unwrap();
        engine.prepare(Arc::new(configuration), PrepareMode::AllOrNothing).await
    };
    // Free ports are as many as there are components.
    let prepared = prepare(block("a", 0) + &block("b", 0)).await.unwrap();
    drop(prepared);
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let Err(failure) = prepare(block("a", port) + &block("b", port)).await else { panic!("both have it") };
    let text = failure.diagnostics.to_string();
    assert!(text.contains(&format!("127.0.0.1:{port}")) && text.contains("receive_http.a"), "{text}");
    engine.shutdown(Duration::from_secs(5)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plan_says_what_becomes_of_each_socket() {
    let free = || std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let (one, two, three) = (free(), free(), free());
    let [one, two, three] = [one, two, three].map(|free| free.local_addr().unwrap().port());
    let block = |label: &str, port: u16, more: &str| {
        let server = format!("http {{\n listen_address = \"127.0.0.1\"\n listen_port = {port}\n}}");
        format!("prometheus.receive_http \"{label}\" {{\n {server}\n {more}\n forward_to = []\n}}\n")
    };
    let parse = |text: String| {
        Arc::new(Configuration::parse([("main.alloy", text)], Inputs::default(), "test").unwrap())
    };
    let data = tempfile::tempdir().unwrap();
    let engine = Engine::new(EngineOptions::new(crate::register(Registry::new()), data.path()));
    let notes = |text: String| {
        let plan = engine.plan(&parse(text)).unwrap();
        let notes = plan.changes.iter().map(|change| (change.node.to_string(), change.notes.join("; ")));
        notes.collect::<Vec<_>>()
    };
    let (a, b) = (block("a", one, ""), block("b", two, ""));
    assert_eq!(notes(a.clone())[0].1, format!("127.0.0.1:{one} is newly bound, before the swap"));
    let prepared = engine.prepare(parse(a.clone() + &b), PrepareMode::AllOrNothing).await.unwrap();
    engine.cut(prepared, |_| Ok::<_, String>(())).await.unwrap();
    engine.commit().await;

    assert!(notes(a.clone() + &b).iter().all(|(_, notes)| notes.is_empty()), "nothing changes");
    let changed = notes(block("a", one, "append_metadata = true") + &b);
    assert!(changed[0].1.contains("stays open and is handed over: no"), "{changed:?}");
    let moved = notes(block("a", three, "") + &b);
    let text = &moved[0].1;
    assert!(text.contains(&format!("127.0.0.1:{three} is newly bound")), "{text}");
    assert!(text.contains(&format!("127.0.0.1:{one} answers 503")), "{text}");
    let inherited = notes(block("c", one, "") + &b);
    assert_eq!(inherited.len(), 3);
    assert!(inherited[0].1.contains("handed over from prometheus.receive_http.a"), "{inherited:?}");
    assert!(!inherited[2].1.contains("503") && inherited[2].1.contains("drains"), "{inherited:?}");
    let gone = notes(b.clone());
    assert!(gone[1].1.contains(&format!("127.0.0.1:{one} answers 503")), "{gone:?}");
    engine.shutdown(Duration::from_secs(5)).await;
}

#[test]
fn messages_must_be_known() {
    for (messages, part) in [("\"prometheus.Write\"", "prometheus.Write"), ("", "nothing would be accepted")]
    {
        let found = findings(&format!(
            "prometheus.receive_http \"a\" {{\n forward_to = []\n accepted_remote_write_protobuf_messages = [{messages}]\n}}"
        ));
        assert!(found.contains(part) && found.contains("io.prometheus.write.v2.Request"), "{found}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn steady_senders_meet_the_same_series() {
    let harness = start("").await;
    let mut client = Client::connect(&harness).await;
    for at in [1000, 2000] {
        let body = samples(Protocol::V1, &[("a", at, 1.0), ("b", at, 2.0)]);
        assert_eq!(client.write(&[], &body).await.status, 204);
    }
    let other = samples(Protocol::V1, &[("b", 3000, 1.0)]);
    assert_eq!(client.write(&[], &other).await.status, 204);
    let batches = harness.captured();
    assert!(Arc::ptr_eq(&batches[0].series, &batches[1].series));
    assert!(batches[2].series[0].same(&batches[0].series[1]));
    harness.shutdown().await;
}

fn metadata(family: &str, kind: MetricKind, unit: &str) -> MetricMetadata {
    MetricMetadata { family: family.to_owned(), kind, help: "h".to_owned(), unit: unit.to_owned() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metadata_is_forwarded_where_asked_for() {
    let harness = start("").await;
    let mut client = Client::connect(&harness).await;
    let mut encoder = RequestEncoder::new(Protocol::V1, Labels::default());
    encoder.metadata(&metadata("a_total", MetricKind::Counter, ""));
    let body = encoder.take().unwrap().body;
    assert_eq!(client.write(&[], &body).await.status, 204);
    assert!(harness.captured().is_empty(), "nothing but metadata");
    harness.update(&format!("{SERVER}{FORWARD}append_metadata = true")).await.unwrap();
    assert_eq!(client.write(&[], &body).await.status, 204);
    let batches = harness.captured();
    assert_eq!(*batches[0].metadata[0], metadata("a_total", MetricKind::Counter, ""));
    harness.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn types_and_units_become_labels() {
    let harness = start(&format!("{BOTH}enable_type_and_unit_labels = true")).await;
    let mut client = Client::connect(&harness).await;
    let body = {
        let mut encoder = RequestEncoder::new(Protocol::V2, Labels::default());
        // The encoder knows texts by their symbols, so series must outlive the request.
        let sent = [
            ("a_seconds_total", MetricKind::Counter, "seconds"),
            ("b", MetricKind::Gauge, ""),
            ("c", MetricKind::Unknown, ""),
        ]
        .map(|(name, kind, unit)| (series(&[("__name__", name)]), metadata(name, kind, unit)));
        for (series, metadata) in &sent {
            let details = SeriesDetails { created: None, metadata: Some(metadata) };
            encoder.sample(&symbols(), series, 1000, 1.0, details);
        }
        encoder.take().unwrap().body
    };
    for _ in 0..2 {
        let answer = client.write(&[V2], &body).await;
        assert_eq!(answer.status, 204, "{answer:?}");
    }
    let batches = harness.captured();
    let texts: Vec<String> = batches[0].series.iter().map(ToString::to_string).collect();
    assert_eq!(
        texts,
        [
            "{__name__=\"a_seconds_total\", __type__=\"counter\", __unit__=\"seconds\"}",
            "{__name__=\"b\", __type__=\"gauge\"}",
            "{__name__=\"c\"}",
        ]
    );
    assert!(batches[0].metadata.is_empty());
    assert!(Arc::ptr_eq(&batches[0].series, &batches[1].series));
    harness.shutdown().await;
}

/// A valid message of nothing but an unknown field.
fn empty_message(length: usize) -> Bytes {
    let mut message = Vec::new();
    invar_telemetry::remote_write::wire::put_bytes_field(&mut message, 15, &vec![0; length]);
    Bytes::from(snappy(&message))
}

#[tokio::test]
async fn requests_in_flight_share_a_budget() {
    let intake = Intake::new(Duration::ZERO);
    let large = intake.take(Protocol::V1, empty_message(MESSAGE_LIMIT - 100)).await.unwrap();
    let refusal = intake.take(Protocol::V1, empty_message(10)).await.unwrap_err();
    assert_eq!(refusal.status, StatusCode::SERVICE_UNAVAILABLE);
    drop(large);
    intake.take(Protocol::V1, empty_message(10)).await.unwrap();
    let refusal = intake.take(Protocol::V1, empty_message(MESSAGE_LIMIT)).await.unwrap_err();
    assert_eq!(refusal.status, StatusCode::PAYLOAD_TOO_LARGE);
}

#[tokio::test]
async fn small_requests_cannot_grow_without_bound() {
    // One series, then empty histograms, two bytes each.
    let mut series = vec![0x0a, 13, 0x0a, 8];
    series.extend(b"__name__");
    series.extend([0x12, 1, b'a']);
    series.extend(std::iter::repeat_n([0x22, 0], 100_000).flatten());
    let mut message = Vec::new();
    invar_telemetry::remote_write::wire::put_message(&mut message, 1, |out| out.extend_from_slice(&series));
    let intake = Intake::new(Duration::ZERO);
    let refusal = intake.take(Protocol::V1, Bytes::from(snappy(&message))).await.unwrap_err();
    assert_eq!(refusal.status, StatusCode::PAYLOAD_TOO_LARGE);
}

/// Waits until the text form of the registry is as expected, and answers it.
async fn wait_gathered(registry: &prometheus::Registry, accept: impl Fn(&str) -> bool) -> String {
    let waiting = async {
        loop {
            let text = prometheus::TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
            if accept(&text) {
                return text;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), waiting).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metrics_bear_the_names_of_alloy() {
    let registry = Arc::new(prometheus::Registry::new());
    let surroundings = Surroundings::default();
    surroundings.services.insert(Arc::clone(&registry));
    let harness = Harness::<ReceiveHttp>::within(surroundings, &format!("{SERVER}{FORWARD}")).await.unwrap();
    let mut client = Client::connect(&harness).await;
    assert_eq!(client.write(&[], &samples(Protocol::V1, &[("a", 1, 1.0)])).await.status, 204);
    assert_eq!(client.write(&[], b"").await.status, 400);
    let text = wait_gathered(&registry, |text| text.contains("prometheus_receive_http")).await;
    let id = "component_id=\"prometheus.receive_http.subject\"";
    let count = "prometheus_receive_http_request_duration_seconds_count";
    for line in [
        format!("prometheus_forwarded_samples_total{{{id}}} 1"),
        format!("{count}{{{id},method=\"POST\",route=\"api_v1_metrics_write\",status_code=\"204\"}} 1"),
        format!("{count}{{{id},method=\"POST\",route=\"api_v1_metrics_write\",status_code=\"400\"}} 1"),
    ] {
        assert!(text.contains(&line), "{line} is not in\n{text}");
    }
    harness.shutdown().await;
    wait_gathered(&registry, |text| !text.contains("prometheus_receive_http")).await;
}

#[tokio::test]
async fn a_rotated_certificate_serves_new_handshakes_and_a_broken_one_leaves_the_old() {
    use invar_blocks::http_client::TlsConfigBlock;
    use invar_blocks::{HttpClient, HttpClientArguments, HttpClientOptions};
    use invar_syntax::Arguments as _;

    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str| directory.path().join(name).display().to_string();
    let issue = || {
        let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
        std::fs::write(file("key"), made.signing_key.serialize_pem()).unwrap();
        std::fs::write(file("certificate"), made.cert.pem()).unwrap();
        made.cert.pem()
    };
    let trusting = async |certificate: &str| {
        let tls_config = Some(TlsConfigBlock { ca_pem: certificate.into(), ..TlsConfigBlock::default() });
        let arguments = HttpClientArguments { tls_config, ..HttpClientArguments::defaults() };
        HttpClient::new(&arguments, HttpClientOptions::under(invar_policy::Access::unrestricted()))
            .await
            .unwrap()
    };
    // Files are looked at once a second, by the clock of the runtime.
    let look_again = async || {
        tokio::time::pause();
        tokio::time::advance(Duration::from_millis(1100)).await;
        tokio::time::resume();
    };
    let first = issue();
    let tls = format!("tls {{\n cert_file = {:?}\n key_file = {:?}\n}}", file("certificate"), file("key"));
    let server = format!("http {{\n listen_address = \"127.0.0.1\"\n listen_port = 0\n {tls}\n}}\n");
    let harness = Harness::<ReceiveHttp>::new(&format!("{server}{FORWARD}")).await.unwrap();
    let url: url::Url = format!("https://{}/", harness.state().unwrap().address()).parse().unwrap();
    let settings = || harness.state().unwrap().listen.tls.clone().unwrap();
    let terms = settings();
    let old = trusting(&first).await;
    // Whoever gets an answer, though it is 404, has seen a certificate that it trusts.
    old.get(url.clone()).await.unwrap().bytes().await.unwrap();

    let second = issue();
    look_again().await;
    trusting(&second).await.get(url.clone()).await.unwrap();
    // The connection that there was goes on, and so it does when other arguments change.
    old.get(url.clone()).await.unwrap().bytes().await.unwrap();
    harness.update(&format!("{server}forward_to = []")).await.unwrap();
    assert!(Arc::ptr_eq(&terms, &settings()));
    old.get(url.clone()).await.unwrap();
    assert!(
        trusting(&first).await.get(url.clone()).await.is_err(),
        "the old certificate is not presented any more"
    );

    std::fs::write(file("certificate"), "nonsense").unwrap();
    look_again().await;
    trusting(&second).await.get(url.clone()).await.unwrap();
    assert!(terms.problem().unwrap().contains(&file("certificate")));
    issue();
    look_again().await;
    drop(terms.current().await);
    assert_eq!(terms.problem(), None);
    harness.shutdown().await;
}

//! The same pages, scraped by a real Prometheus: what it stores is what is forwarded. Skipped where Debian's `prometheus` is not
//! installed.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use invar_engine::harness::Harness;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::server::{Answer, PageServer};
use super::{Scrape, values};

const PROMETHEUS: &str = "/usr/bin/prometheus";
const NODE_EXPORTER: &str = "/usr/bin/prometheus-node-exporter";

const PAGE: &str = r#"# HELP http_requests_total Requests.
# TYPE http_requests_total counter
http_requests_total{method="post",code="200"} 1027
http_requests_total{ method = "post" , code="400" , }    3
# Escaping in label values:
msdos_file_access_time_seconds{path="C:\\DIR\\FILE.TXT",error="Cannot find file:\n\"FILE.TXT\""} 1.458255915e9
metric_without_timestamp_and_labels 12.47
something_weird{problem="division by zero"} +Inf
negative -0.5
tiny 4.9406564584124654e-324
hex 0x1p4
not_a_number NaN
empty_label{a="",b="x"} 1
job{job="own",exported_job="deeper",instance=""} 7
# TYPE seconds histogram
seconds_bucket{le="0.5"} 24054
seconds_bucket{le="+Inf"} 144320
seconds_sum 53423
seconds_count 144320
# TYPE rpc summary
rpc{quantile="0.01"} 3102
rpc{quantile="0.99"} 76656
rpc_sum 1.7560473e+07
rpc_count 2693
unicode{name="日本語"} 1
"#;

const OPEN_METRICS: &str = "# TYPE a counter\n# HELP a Things.\na_total{x=\"1\"} 17.0 # {trace=\"t\"} 0.5\n\
                            # TYPE b info\nb_info{version=\"1\"} 1\n\
                            # TYPE c stateset\nc{c=\"on\"} 1\nc{c=\"off\"} 0\n\
                            # TYPE d_bytes gauge\n# UNIT d_bytes bytes\nd_bytes 1e3\n# EOF\n";

/// A process of the test's own.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        self.0.kill().unwrap_or_default();
        drop(self.0.wait());
    }
}

fn installed(program: &str) -> bool {
    let there = Path::new(program).exists();
    if !there {
        eprintln!("skipped: {program} is not installed");
    }
    there
}

async fn free_address() -> SocketAddr {
    tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

fn start(program: &str, arguments: &[String]) -> Process {
    let command = Command::new(program).args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    Process(command.unwrap())
}

/// Runs Prometheus on one target until it has scraped it twice; answers the last value of each of its series.
async fn stored_by_prometheus(target: SocketAddr, rest: &str) -> BTreeMap<String, f64> {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("prometheus.yml");
    let configuration = format!(
        "global: {{scrape_interval: 1s, scrape_timeout: 1s}}\nscrape_configs:\n- job_name: j\n{rest}  \
         static_configs: [{{targets: [\"{target}\"], labels: {{instance: i}}}}]\n"
    );
    std::fs::write(&file, configuration).unwrap();
    let address = free_address().await;
    let _process = start(
        PROMETHEUS,
        &[
            format!("--config.file={}", file.display()),
            format!("--storage.tsdb.path={}", directory.path().join("data").display()),
            format!("--web.listen-address={address}"),
        ],
    );
    let waiting = async {
        loop {
            tokio::time::sleep(Duration::from_millis(200)).await;
            let found = query(address).await.unwrap_or_default();
            // The second scrape adds none.
            if found.get(r#"{__name__="scrape_series_added", instance="i", job="j"}"#) == Some(&0.0) {
                return found;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), waiting).await.expect("Prometheus did not scrape")
}

async fn query(address: SocketAddr) -> Option<BTreeMap<String, f64>> {
    let mut stream = tokio::net::TcpStream::connect(address).await.ok()?;
    let request = b"GET /api/v1/query?query=%7B__name__%3D~%22.%2B%22%7D HTTP/1.0\r\n\r\n";
    stream.write_all(request).await.ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.ok()?;
    let (_, body) = answer.split_once("\r\n\r\n")?;
    let answer: serde_json::Value = serde_json::from_str(body).ok()?;
    let series = answer["data"]["result"].as_array()?.iter().map(|row| {
        let mut labels: BTreeMap<String, String> = serde_json::from_value(row["metric"].clone()).unwrap();
        // Since version 3 these are floats in Prometheus, too.
        for (name, value) in &mut labels {
            if matches!(name.as_str(), "le" | "quantile") && value.parse::<u64>().is_ok() {
                value.push_str(".0");
            }
        }
        let labels: invar_telemetry::Labels = labels.into_iter().collect();
        (labels.to_string(), row["value"][1].as_str().unwrap().parse().unwrap())
    });
    Some(series.collect())
}

/// What the component forwards with its second scrape.
async fn forwarded(target: SocketAddr, rest: &str) -> BTreeMap<String, f64> {
    let block = format!(
        "targets = [{{\"__address__\" = \"{target}\", \"job\" = \"j\", \"instance\" = \"i\"}}]\n\
         forward_to = [harness.capture.out.receiver]\nscrape_interval = \"1s\"\nscrape_timeout = \"1s\"\n{rest}"
    );
    let harness = Harness::<Scrape>::new(&block).await.unwrap();
    let batches = harness.wait_captured(2).await;
    harness.shutdown().await;
    values(&batches[1..2])
}

/// The series that only one side has.
fn difference<'a>(ours: &'a BTreeMap<String, f64>, theirs: &'a BTreeMap<String, f64>) -> Vec<&'a String> {
    let only = |one: &'a BTreeMap<String, f64>, other: &'a BTreeMap<String, f64>| {
        one.keys().filter(move |name| !other.contains_key(*name))
    };
    only(ours, theirs).chain(only(theirs, ours)).collect()
}

fn assert_agreement(ours: &BTreeMap<String, f64>, theirs: &BTreeMap<String, f64>) {
    assert_eq!(difference(ours, theirs), Vec::<&String>::new());
    for (name, own) in ours.iter().filter(|(name, _)| !name.contains("scrape_duration_seconds")) {
        let other = theirs[name];
        assert!(
            own.to_bits() == other.to_bits() || (own.is_nan() && other.is_nan()),
            "{name}: {own} {other}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fixed_pages_agree_in_every_series_and_value() {
    if !installed(PROMETHEUS) {
        return;
    }
    let open = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    let cases = [
        (super::TEXT, PAGE, "", ""),
        (super::TEXT, PAGE, "honor_labels = true", "  honor_labels: true\n"),
        (open, OPEN_METRICS, "", ""),
        (super::TEXT, "broken{ 1\n", "", ""),
    ];
    let compared = cases.map(|(content_type, page, ours, theirs)| async move {
        let server = PageServer::start(move |_| Answer::page(content_type, page)).await;
        let address = server.address();
        let (ours, theirs) = tokio::join!(forwarded(address, ours), stored_by_prometheus(address, theirs));
        assert_agreement(&ours, &theirs);
    });
    futures_util::future::join_all(compared).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_exporter_gives_the_same_series() {
    if !installed(PROMETHEUS) || !installed(NODE_EXPORTER) {
        return;
    }
    let address = free_address().await;
    let _exporter = start(NODE_EXPORTER, &[format!("--web.listen-address={address}")]);
    while tokio::net::TcpStream::connect(address).await.is_err() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let ours = forwarded(address, "").await;
    let theirs = stored_by_prometheus(address, "").await;
    assert!(ours.len() > 300, "{}", ours.len());
    assert_eq!(difference(&ours, &theirs), Vec::<&String>::new());
}

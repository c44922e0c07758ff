//! The component between real pages and a capture.

#![allow(clippy::unwrap_used)]

mod prometheus;
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
         scrape_interval = \"250ms\"\nscrape_timeout = \"250ms\"\n{rest}",
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
    assert!(between > 0, "{between}");
    harness.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_say_what_is_wanted() {
    let (sender, heads) = std::sync::mpsc::channel();
    let server = PageServer::start(move |head| {
        drop(sender.send(head.to_ascii_lowercase()));
        Answer::page(TEXT, "")
    })
    .await;
    let rest = "params = {\"m\" = [\"x y\"]}\nmetrics_path = \"/p\"\nscrape_native_histograms = true";
    let harness = Harness::<Scrape>::new(&block(&server, rest)).await.unwrap();
    harness.wait_captured(1).await;
    let head = heads.recv().unwrap();
    assert!(head.starts_with("get /p?m=x+y http/1.1\r\n"), "{head}");
    assert!(head.contains("accept: application/vnd.google.protobuf;"), "{head}");
    assert!(head.contains("accept-encoding: gzip\r\n"), "{head}");
    assert!(head.contains("x-prometheus-scrape-timeout-seconds: 0.25\r\n"), "{head}");
    assert!(head.contains("user-agent: invar/"), "{head}");
    harness.shutdown().await;
}

/// Flips between pages when told to.
fn switched(
    pages: Vec<Answer>,
) -> (Arc<std::sync::atomic::AtomicUsize>, impl Fn(&str) -> Answer + Send + Sync) {
    let at = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let own = Arc::clone(&at);
    (at, move |_: &str| pages[own.load(Ordering::Relaxed)].clone())
}

const A: &str = r#"{__name__="a", instance="i", job="j"}"#;
const B: &str = r#"{__name__="b", instance="i", job="j"}"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_end_of_series_is_marked_once() {
    let pages = vec![
        Answer::page(TEXT, "a 1\nb 2\n"),
        Answer::page(TEXT, "a 1\n"),
        Answer::status(500),
        Answer::page(TEXT, "a 1\nb 2\n"),
    ];
    let (at, answer) = switched(pages);
    let server = PageServer::start(answer).await;
    let harness = Harness::<Scrape>::new(&block(&server, "")).await.unwrap();
    wait_for(&harness, |values| values.contains_key(B)).await;

    at.store(1, Ordering::Relaxed);
    let seen = wait_for(&harness, |values| values.get(B).is_some_and(|value| is_stale(*value))).await;
    assert!(!values(&seen).get(A).is_some_and(|value| is_stale(*value)));

    at.store(2, Ordering::Relaxed);
    let seen = wait_for(&harness, |values| up(values) == Some(0.0)).await;
    assert!(is_stale(values(&seen)[A]));
    // While it stays down there is nothing more to say than that.
    let seen = wait_for(&harness, |values| up(values) == Some(0.0)).await;
    assert!(!values(&seen).contains_key(A) && !values(&seen).contains_key(B));
    assert!(
        harness.engine().component(harness.node().as_str()).unwrap().debug_info.to_string().contains("500")
    );

    at.store(3, Ordering::Relaxed);
    let seen = wait_for(&harness, |values| up(values) == Some(1.0)).await;
    assert_eq!((values(&seen)[A], values(&seen)[B]), (1.0, 2.0));
    harness.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn labels_clash_as_configured() {
    let page = "a{job=\"own\",exported_job=\"deep\",instance=\"\"} 1\n";
    let server = PageServer::start(move |_| Answer::page(TEXT, page)).await;
    let harness = Harness::<Scrape>::new(&block(&server, "")).await.unwrap();
    let renamed =
        r#"{__name__="a", exported_exported_job="own", exported_job="deep", instance="i", job="j"}"#;
    wait_for(&harness, |values| values.contains_key(renamed)).await;
    harness.update(&block(&server, "honor_labels = true")).await.unwrap();
    let honored = r#"{__name__="a", exported_job="deep", job="own"}"#;
    wait_for(&harness, |values| values.contains_key(honored)).await;
    harness.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_bad_page_is_the_targets_own_failure() {
    let gzip = "Content-Type: text/plain\r\nContent-Encoding: gzip\r\n";
    for (answer, rest, part) in [
        (Answer::page(TEXT, "a 1\nb one\n"), "", "line 2"),
        (Answer::page("text/html", "<html>"), "scrape_fallback_protocol = \"\"", "text/html"),
        (Answer::page(TEXT, "a 1\nb 2\n"), "sample_limit = 1", "sample limit exceeded"),
        (Answer::page(TEXT, "a{x=\"1\"} 1\n"), "label_limit = 3", "label limit exceeded (4, limit: 3)"),
        (Answer::page(TEXT, "a{x=\"11\"} 1\n"), "label_value_length_limit = 1", "label value length"),
        (
            Answer::page(TEXT, "a{long_name_of_a_label=\"1\"} 1\n"),
            "label_name_length_limit = 10",
            "label name length",
        ),
        (Answer::page(TEXT, "a 1\nb 2\n"), "body_size_limit = \"4B\"", "body size limit exceeded"),
        (Answer::endless(TEXT, "a 1\n"), "body_size_limit = \"1MiB\"", "body size limit exceeded"),
        (Answer::endless(TEXT, "# nothing\n"), "", ""),
        (Answer::stalling(TEXT, "a 1\n"), "", "not complete within the scrape timeout"),
        (
            Answer::page(TEXT, &format!("a{{x=\"{}\"}} 1", "y".repeat(17 << 20))),
            "scrape_interval = \"5s\"\n",
            "",
        ),
        (Answer::page(TEXT, "{a=\"1\"} 1\n"), "", ""),
        (Answer::page(TEXT, "a{x=\"1\",x=\"2\"} 1\n"), "", "occurs twice"),
        (Answer::with_head(gzip, b"not gzip"), "", "cannot be decompressed"),
        (
            Answer::with_head(gzip, &compressed(&vec![b'\n'; 100 << 10])),
            "body_size_limit = \"50KiB\"",
            "body size limit",
        ),
        (Answer::status(404), "", "HTTP status 404"),
    ] {
        let server = PageServer::start(move |_| answer.clone()).await;
        let block = block(&server, rest).replacen(
            "scrape_interval = \"250ms\"\n",
            if rest.contains("interval") { "" } else { "scrape_interval = \"250ms\"\n" },
            1,
        );
        let harness = Harness::<Scrape>::new(&block).await.unwrap();
        let seen = wait_for(&harness, |values| up(values).is_some()).await;
        assert_eq!(up(&values(&seen)), Some(0.0), "{rest} {part}");
        assert!(!values(&seen).keys().any(|name| name.contains("\"a\"")), "{rest} {part}");
        let info = harness.engine().component(harness.node().as_str()).unwrap().debug_info.to_string();
        assert!(info.contains(part), "{part:?} in {info}");
        harness.shutdown().await;
    }
}

fn compressed(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn compressed_pages_are_read_and_measured_decompressed() {
    let page = "a 1\n".to_owned() + &"# padding\n".repeat(10_000);
    let head = "Content-Type: text/plain\r\nContent-Encoding: gzip\r\n";
    let (size, answer) = (page.len(), Answer::with_head(head, &compressed(page.as_bytes())));
    let server = PageServer::start(move |_| answer.clone()).await;
    let harness =
        Harness::<Scrape>::new(&block(&server, "extra_metrics = true\nsample_limit = 9")).await.unwrap();
    let seen = values(&wait_for(&harness, |values| values.contains_key(A)).await);
    let report = |name: &str| seen[&format!("{{__name__=\"{name}\", instance=\"i\", job=\"j\"}}")];
    assert_eq!(report("scrape_body_size_bytes"), size as f64);
    assert_eq!(report("scrape_timeout_seconds"), 0.25);
    assert_eq!(report("scrape_sample_limit"), 9.0);
    harness.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn timestamps_of_the_page_are_taken_over_or_not() {
    let far = Timestamp::now().as_millisecond() + 3_600_000;
    let page = format!("a 1 1000\nb 2\nc 3 {far}\nd NaN\ne +Inf\n");
    let server = PageServer::start(move |_| Answer::page(TEXT, &page)).await;
    let harness = Harness::<Scrape>::new(&block(&server, "")).await.unwrap();
    let time = |batch: &MetricBatch, name: &str| {
        batch.samples().find(|(series, ..)| series.to_string() == name).map(|(_, at, _)| at)
    };
    let batch = harness.wait_captured(1).await.remove(0);
    assert_eq!(time(&batch, A), Some(1000));
    assert!(time(&batch, B).unwrap() > 1_000_000);
    let all = values(&[batch]);
    // Too far in the future.
    assert!(!all.keys().any(|name| name.contains("\"c\"")));
    let value = |name: &str| all[&format!("{{__name__=\"{name}\", instance=\"i\", job=\"j\"}}")];
    assert!(value("d").is_nan() && !is_stale(value("d")));
    assert_eq!(value("e"), f64::INFINITY);
    assert_eq!(value("scrape_samples_scraped"), 5.0);

    harness.update(&block(&server, "honor_timestamps = false")).await.unwrap();
    let later = async {
        loop {
            let later = harness.wait_captured(1).await;
            let found = later.into_iter().find(|batch| time(batch, A).is_some_and(|at| at > 1_000_000));
            if let Some(found) = found {
                return found;
            }
        }
    };
    let later = tokio::time::timeout(Duration::from_secs(10), later).await.unwrap();
    assert!(matches!(later.timestamps, invar_telemetry::Timestamps::One(_)));
    harness.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn too_many_targets_are_scraped_by_none() {
    let server = PageServer::start(|_| Answer::page(TEXT, "a 1\n")).await;
    let two = block(&server, "target_limit = 1").replacen("}]", "}, {\"__address__\" = \"other\"}]", 1);
    let harness = Harness::<Scrape>::new(&two).await.unwrap();
    let seen = wait_for(&harness, |values| up(values).is_some()).await;
    assert_eq!(up(&values(&seen)), Some(0.0));
    assert!(
        harness.health().unwrap().message.contains("target_limit exceeded (number of targets: 2, limit: 1)")
    );
    harness.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_is_offered_until_it_is_taken() {
    let server = PageServer::start(|_| Answer::page(TEXT, "a 1\n")).await;
    let harness = Harness::<Scrape>::new(&block(&server, "")).await.unwrap();
    harness.wait_captured(1).await;
    let (sender, offered) = std::sync::mpsc::channel();
    harness.answer_with(move |batch| {
        // The test may have seen enough.
        sender.send(batch.timestamps.get(0)).unwrap_or_default();
        Err(DeliveryError::Retryable { after: None, reason: "full".to_owned() })
    });
    let first = offered.recv().unwrap();
    for _ in 0..3 {
        assert_eq!(offered.recv().unwrap(), first);
    }
    drop(harness.captured());
    harness.answer_with(|_| Ok(()));
    let batches = harness.wait_captured(2).await;
    assert_eq!(batches[0].timestamps.get(0), first);
    assert!(harness.instance().unwrap().meters.skipped.get() > 0);
    harness.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kept_target_goes_on_as_if_nothing_happened() {
    let server = PageServer::start(|_| Answer::page(TEXT, "a 1\n")).await;
    let harness = Harness::<Scrape>::new(&block(&server, "")).await.unwrap();
    let before = harness.wait_captured(2).await;
    let more = block(&server, "").replacen(
        "}]",
        "}, {\"__address__\" = \"127.0.0.1:1\", \"instance\" = \"other\"}]",
        1,
    );
    harness.candidate(&more).await.unwrap();
    let seen = wait_for(&harness, |values| values.keys().any(|name| name.contains("other"))).await;
    let same = |batches: &[Arc<MetricBatch>]| {
        let id = before[1].series.id();
        batches.iter().any(|batch| batch.series.id() == id)
    };
    assert!(same(&seen) || same(&wait_for(&harness, |values| values.contains_key(A)).await));
    harness.rollback();
    drop(harness.captured());
    assert!(same(&wait_for(&harness, |values| values.contains_key(A)).await));
    harness.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_target_ends_after_a_while() {
    let server = PageServer::start(|_| Answer::page(TEXT, "a 1\n")).await;
    let harness = Harness::<Scrape>::new(&block(&server, "")).await.unwrap();
    wait_for(&harness, |values| values.contains_key(A)).await;
    let none = block(&server, "").lines().skip(1).collect::<Vec<_>>().join("\n");
    harness.update(&format!("targets = []\n{none}")).await.unwrap();
    wait_for(&harness, |values| {
        values.get(A).is_some_and(|value| is_stale(*value)) && up(values).is_some_and(is_stale)
    })
    .await;
    harness.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parking_ends_nothing_and_retiring_does() {
    let server = PageServer::start(|_| Answer::page(TEXT, "a 1\n")).await;
    let harness = Harness::<Scrape>::new(&block(&server, "")).await.unwrap();
    wait_for(&harness, |values| values.contains_key(A)).await;
    harness.park().await;
    harness.rollback();
    let seen = wait_for(&harness, |values| values.contains_key(A)).await;
    assert!(!seen.iter().any(|batch| batch.values.iter().copied().any(is_stale)));

    harness.park().await;
    drop(harness.captured());
    harness.commit().await;
    wait_for(&harness, |values| {
        values.get(A).is_some_and(|value| is_stale(*value)) && up(values).is_some_and(is_stale)
    })
    .await;
    harness.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_end_of_the_process_ends_no_series() {
    let server = PageServer::start(|_| Answer::page(TEXT, "a 1\n")).await;
    let harness = Harness::<Scrape>::new(&block(&server, "")).await.unwrap();
    wait_for(&harness, |values| values.contains_key(A)).await;
    harness.engine().shutdown(Duration::from_secs(5)).await;
    assert!(!harness.captured().iter().any(|batch| batch.values.iter().copied().any(is_stale)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metadata_is_said_when_it_changes() {
    let page = |help: &str| Answer::page(TEXT, &format!("# HELP a {help}\n# TYPE a gauge\na 1\n"));
    let (at, answer) = switched(vec![page("one"), page("two")]);
    let server = PageServer::start(answer).await;
    let harness = Harness::<Scrape>::new(&block(&server, "honor_metadata = true")).await.unwrap();
    let said = |batches: &[Arc<MetricBatch>]| -> Vec<String> {
        batches.iter().flat_map(|batch| &batch.metadata).map(|known| known.help.clone()).collect()
    };
    let mut seen = harness.wait_captured(3).await;
    at.store(1, Ordering::Relaxed);
    while said(&seen).len() < 2 {
        seen.extend(harness.wait_captured(1).await);
    }
    assert_eq!(said(&seen), ["one", "two"]);
    harness.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exemplars_come_once_and_created_counters_start_at_zero() {
    let open = "application/openmetrics-text; version=1.0.0";
    let page = "# TYPE a counter\na_total 5 # {trace=\"t\"} 1.5\na_created 1000\n# EOF\n";
    let server = PageServer::start(move |_| Answer::page(open, page)).await;
    let harness =
        Harness::<Scrape>::new(&block(&server, "start_timestamp_zero_ingestion = true")).await.unwrap();
    let batches = harness.wait_captured(3).await;
    let zeros: Vec<_> =
        batches.iter().flat_map(|batch| batch.samples()).filter(|(_, at, _)| *at == 1_000_000).collect();
    assert_eq!(zeros.len(), 1, "{batches:?}");
    assert_eq!(zeros[0].2, 0.0);
    let exemplars: Vec<_> = batches.iter().flat_map(|batch| &batch.exemplars).collect();
    assert_eq!(exemplars.len(), 1);
    assert_eq!(exemplars[0].exemplar.value, 1.5);
    harness.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_are_counted_apart() {
    let server = PageServer::start(|_| Answer::page(TEXT, "a 1\nb 2\n")).await;
    let two =
        block(&server, "").replacen("}]", "}, {\"__address__\" = \"127.0.0.1:1\", \"job\" = \"down\"}]", 1);
    let harness = Harness::<Scrape>::new(&two).await.unwrap();
    wait_for(&harness, |values| up(values).is_some() && values.keys().any(|name| name.contains("\"down\"")))
        .await;
    harness.wait_captured(4).await;
    let report = harness.vitals();
    let group = |key: &str| report.groups.iter().find(|group| group.key == key).unwrap().now;
    assert!(group("j").ok >= 1 && group("j").retryable == 0 && group("j").items_out >= 2);
    assert!(group("down").retryable >= 1 && group("down").ok == 0);
    harness.shutdown().await;
}

#[tokio::test]
async fn contradictions_are_refused() {
    for (rest, part) in [
        ("scrape_interval = \"1s\"", "must not be greater than scrape_interval"),
        ("scrape_interval = \"0s\"", "greater than 0"),
        ("scrape_protocols = [\"PrometheusProto\", \"PrometheusProto\"]", "twice"),
        ("scrape_protocols = [\"Smoke\"]", "unknown scrape protocol"),
        ("scrape_protocols = []", "at least one"),
        ("scrape_protocols = [\"PrometheusText0.0.4\"]\nscrape_native_histograms = true", "PrometheusProto"),
        ("scrape_protocols = [\"PrometheusText0.0.4\"]\nenable_protobuf_negotiation = true", "combined"),
        ("metric_name_escaping_scheme = \"allow-utf-8\"", "utf8"),
        ("metric_name_validation_scheme = \"none\"", "legacy or utf8"),
        ("scrape_fallback_protocol = \"Smoke\"", "unknown scrape protocol"),
        ("params = {\"a\" = []}", "empty"),
    ] {
        let refused = Harness::<Scrape>::new(&format!("targets = []\nforward_to = []\n{rest}")).await;
        let message = refused.err().map(|error| error.to_string()).unwrap_or_default();
        assert!(message.contains(part), "{rest}: {message}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sleeping_target_learns_its_new_interval() {
    let server = PageServer::start(|_| Answer::page(TEXT, "a 1\n")).await;
    let short = block(&server, "");
    let harness = Harness::<Scrape>::new(&short.replacen("250ms", "10h", 1)).await.unwrap();
    harness.update(&short).await.unwrap();
    wait_for(&harness, |values| values.contains_key(A)).await;
    harness.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn types_become_labels_and_follow_their_families() {
    let page = |kind: &str| Answer::page(TEXT, &format!("# TYPE a {kind}\na 1\n"));
    let (at, answer) = switched(vec![page("gauge"), page("counter")]);
    let server = PageServer::start(answer).await;
    let harness =
        Harness::<Scrape>::new(&block(&server, "enable_type_and_unit_labels = true")).await.unwrap();
    let typed = |kind: &str| format!("{{__name__=\"a\", __type__=\"{kind}\", instance=\"i\", job=\"j\"}}");
    wait_for(&harness, |values| values.contains_key(&typed("gauge"))).await;
    at.store(1, Ordering::Relaxed);
    let ended = |values: &BTreeMap<String, f64>| values.get(&typed("gauge")).is_some_and(|v| is_stale(*v));
    wait_for(&harness, |values| ended(values) && values.contains_key(&typed("counter"))).await;
    harness.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn native_histograms_travel_and_end() {
    let page = "# TYPE h histogram\nh_bucket{le=\"1\"} 2\nh_bucket{le=\"+Inf\"} 3\nh_sum 4\nh_count 3\n";
    let (at, answer) = switched(vec![Answer::page(TEXT, page), Answer::page(TEXT, "")]);
    let server = PageServer::start(answer).await;
    let convert = "convert_classic_histograms_to_nhcb = true";
    let harness = Harness::<Scrape>::new(&block(&server, convert)).await.unwrap();
    let mut seen = harness.wait_captured(1).await;
    assert!(seen[0].histograms[0].series.to_string().contains("\"h\""));
    assert!(!seen[0].histograms[0].histogram.is_stale());
    at.store(1, Ordering::Relaxed);
    let ended = async {
        while !seen.iter().flat_map(|batch| &batch.histograms).any(|sample| sample.histogram.is_stale()) {
            seen.extend(harness.wait_captured(1).await);
        }
    };
    tokio::time::timeout(Duration::from_secs(10), ended).await.unwrap();
    harness.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failures_are_written_to_their_file() {
    let server = PageServer::start(|_| Answer::status(503)).await;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("failures.log");
    let rest = format!("scrape_failure_log_file = \"{}\"", file.display());
    let harness = Harness::<Scrape>::new(&block(&server, &rest)).await.unwrap();
    harness.wait_captured(2).await;
    let text = async {
        loop {
            let text = std::fs::read_to_string(&file).unwrap_or_default();
            if text.ends_with('\n') {
                return text;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let text = tokio::time::timeout(Duration::from_secs(10), text).await.unwrap();
    let line: serde_json::Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    assert_eq!(line["msg"], "server returned HTTP status 503 Service Unavailable");
    harness.shutdown().await;
}

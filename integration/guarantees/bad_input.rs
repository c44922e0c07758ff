//! Whatever targets serve: each that is bad says why, the others do not notice, and memory stays within bounds.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use invar_integration::{Agent, Connection, RawTarget, Receiver, Target, compressed_zeros, free_address};

use crate::fleet::{Fleet, Plan, SOON, plain, write_to};

/// What the agent may take at its worst moment, in KiB. The pages below would take tens of gigabytes.
const MEMORY: u64 = 640 << 10;
const HEAD: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\n";

/// One target and what is to become of it.
struct Case {
    kind: &'static str,
    address: String,
    scheme: &'static str,
    /// Parts of the reason, one of which is shown; none for a target that is up.
    reasons: &'static [&'static str],
}

fn whole(stream: &mut dyn Connection, head: &str, body: &[u8]) -> io::Result<()> {
    write!(stream, "{head}Content-Length: {}\r\nConnection: close\r\n\r\n", body.len())?;
    stream.write_all(body)?;
    stream.flush()
}

fn page(body: &'static [u8]) -> String {
    served(HEAD, body)
}

fn served(head: &'static str, body: &'static [u8]) -> String {
    RawTarget::start(move |stream| whole(stream, head, body)).unwrap().address()
}

/// Samples without end.
fn endless(stream: &mut dyn Connection) -> io::Result<()> {
    write!(stream, "{HEAD}Connection: close\r\n\r\n")?;
    let samples = "endless_total 1\n".repeat(64 << 10);
    loop {
        stream.write_all(samples.as_bytes())?;
    }
}

/// A byte a second, without end.
fn drip(stream: &mut dyn Connection) -> io::Result<()> {
    write!(stream, "{HEAD}Connection: close\r\n\r\n")?;
    loop {
        stream.write_all(b"#")?;
        stream.flush()?;
        std::thread::sleep(Duration::from_secs(1));
    }
}

/// A line that names a label twice, of a MiB.
fn wrong_line(stream: &mut dyn Connection) -> io::Result<()> {
    let line = format!("wrong{{a=\"1\",a=\"2\",b=\"{}\"}} 1\n", "ü".repeat(512 << 10));
    whole(stream, HEAD, line.as_bytes())
}

/// One line of 64 MiB.
fn long_line(stream: &mut dyn Connection) -> io::Result<()> {
    const LABEL: usize = 64 << 20;
    let (before, after) = ("long{text=\"", "\"} 1\n");
    let length = before.len() + LABEL + after.len();
    write!(stream, "{HEAD}Content-Length: {length}\r\nConnection: close\r\n\r\n{before}")?;
    let part = vec![b'x'; 1 << 20];
    for _ in 0..LABEL / part.len() {
        stream.write_all(&part)?;
    }
    stream.write_all(after.as_bytes())
}

fn self_signed() -> Arc<rustls::ServerConfig> {
    let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    Arc::new(config)
}

fn cases() -> Vec<Case> {
    let case = |kind, address, reasons| Case { kind, address, scheme: "http", reasons };
    let bomb = compressed_zeros(4 << 10).unwrap();
    let bomb =
        RawTarget::start(move |stream| whole(stream, &format!("{HEAD}Content-Encoding: gzip\r\n"), &bomb));
    let broken_gzip = RawTarget::start(|stream| {
        whole(stream, &format!("{HEAD}Content-Encoding: gzip\r\n"), b"this is not gzip")
    });
    let reset = RawTarget::start(|stream| {
        write!(stream, "{HEAD}Content-Length: 1000\r\n\r\nhalf_a_page 1\n")?;
        stream.flush()
    });
    let tls = RawTarget::start_tls(self_signed(), |stream| whole(stream, HEAD, b"a 1\n")).unwrap();
    let html = "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n";
    vec![
        case("malformed", page(b"a 1\nb 2\nc{ oops\nd 3\n"), &["line 3"]),
        case("long and wrong", RawTarget::start(wrong_line).unwrap().address(), &["occurs twice"]),
        case("long line", RawTarget::start(long_line).unwrap().address(), &["line", "the scrape timeout"]),
        case(
            "endless",
            RawTarget::start(endless).unwrap().address(),
            &["body size limit exceeded", "the scrape timeout"],
        ),
        case(
            "endless, too",
            RawTarget::start(endless).unwrap().address(),
            &["body size limit exceeded", "the scrape timeout"],
        ),
        case(
            "endless, the third",
            RawTarget::start(endless).unwrap().address(),
            &["body size limit exceeded", "the scrape timeout"],
        ),
        case("drip", RawTarget::start(drip).unwrap().address(), &["the scrape timeout"]),
        case("bomb", bomb.unwrap().address(), &["body size limit exceeded", "the scrape timeout"]),
        case("not gzip", broken_gzip.unwrap().address(), &["cannot be decompressed"]),
        Case { kind: "unknown authority", address: tls.address(), scheme: "https", reasons: &["certificate"] },
        Case {
            kind: "TLS to a plain port",
            address: Target::start("a 1\n").unwrap().address(),
            scheme: "https",
            reasons: &["cannot connect"],
        },
        case("nobody listens", free_address().unwrap(), &["refused"]),
        case("not HTTP", served("no HTTP at all\r\n", b""), &["invalid HTTP"]),
        case("reset", reset.unwrap().address(), &["before message completed", "body"]),
        case("500", served("HTTP/1.1 500 Oh\r\nContent-Type: text/plain\r\n", b"a 1\n"), &["500"]),
        case("not UTF-8", page(b"a{b=\"\xff\xfe\"} 1\n"), &["UTF-8"]),
        case("a web page", served(html, b"<html><body>Hello</body></html>\n"), &["line 1"]),
        case("HTML by name only", served(html, b"in_html 7\n"), &[]),
        case("no content type", served("HTTP/1.1 200 OK\r\n", b"untyped 7\n"), &[]),
        case("empty", page(b""), &[]),
        case("odd values", page(b"odd{is=\"nan\"} NaN\nodd{is=\"more\"} +Inf\nodd{is=\"less\"} -Inf\n"), &[]),
        case(
            "own timestamps",
            page(b"own{at=\"future\"} 1 99999999999999\nown{at=\"past\"} 2 1000\nown{at=\"past\"} 1 500\nown{at=\"now\"} 3\n"),
            &[],
        ),
        case("duplicates", page(b"twice 1\ntwice 1\nonce 1\ntwice 2\n"), &[]),
    ]
}

fn pipeline(receiver: &Receiver, good: &Target, cases: &[Case], timeout: &str) -> String {
    let mut targets = format!("\t\t{{__address__ = \"{}\", kind = \"good\"}},\n", good.address());
    for Case { kind, address, scheme, .. } in cases {
        writeln!(
            targets,
            "\t\t{{__address__ = \"{address}\", __scheme__ = \"{scheme}\", kind = \"{kind}\"}},"
        )
        .unwrap();
    }
    format!(
        r#"
prometheus.scrape "all" {{
	targets                  = [
{targets}	]
	scrape_interval          = "2s"
	scrape_timeout           = "{timeout}"
	scrape_fallback_protocol = "PrometheusText0.0.4"
	forward_to               = [prometheus.remote_write.out.receiver]
}}
{}"#,
        write_to(receiver, "a")
    )
}

/// The most memory that the process ever occupied, in KiB.
fn peak_memory(agent: &Agent) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", agent.process())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// What the component says of its targets: the label `kind` and why the last scrape failed.
fn errors(agent: &Agent) -> BTreeMap<String, Option<String>> {
    let answer = agent.get("/api/v1/components/prometheus.scrape.all").unwrap();
    let debug = plain(&answer["debug_info"]);
    let targets = debug["target"].as_array().unwrap_or_else(|| panic!("no targets: {answer:#}"));
    let each = targets.iter().map(|target| {
        let kind = target["labels"]["kind"].as_str().unwrap().to_owned();
        (kind, target["last_error"].as_str().map(str::to_owned))
    });
    each.collect()
}

fn values(fleet: &Fleet, name: &str, labels: &[(&str, &str)]) -> Vec<f64> {
    let wanted: Vec<(&str, &str)> =
        std::iter::once(("__name__", name)).chain(labels.iter().copied()).collect();
    fleet.receiver.samples_with_duplicates("a", &wanted)
}

/// Waits until each target was scraped this often, since `before` of each.
fn scraped(fleet: &Fleet, cases: &[Case], times: usize) {
    let enough = || {
        let late = cases.iter().find(|case| values(fleet, "up", &[("kind", case.kind)]).len() < times);
        late.is_none().then_some(())
    };
    invar_integration::wait_for("every target to be scraped", SOON, enough)
        .map_err(|problem| format!("{problem}\n{:#?}\n{}", errors(&fleet.agent), fleet.agent.log()))
        .unwrap();
}

#[test]
fn bad_targets_say_why_and_nobody_else_notices() {
    let cases = cases();
    let plan = Plan { probation: 3, ..Plan::default() };
    let fleet = Fleet::planned(plan, |receiver, good| pipeline(receiver, good, &cases, "1900ms"));
    let first = fleet.repository.head().unwrap();
    scraped(&fleet, &cases, 3);

    let shown = errors(&fleet.agent);
    for Case { kind, reasons, .. } in &cases {
        let up = values(&fleet, "up", &[("kind", kind)]);
        let error = &shown[*kind];
        println!("{kind}: {error:?}");
        if reasons.is_empty() {
            assert!(up.iter().all(|up| *up == 1.0) && error.is_none(), "{kind}: {up:?} {error:?}");
        } else {
            assert!(up.iter().all(|up| *up == 0.0), "{kind}: {up:?}");
            let error = error.as_deref().unwrap_or_else(|| panic!("{kind} has no error"));
            assert!(reasons.iter().any(|reason| error.contains(reason)), "{kind}: {error}");
            assert!(error.len() < 1000, "{kind} says too much: {} bytes", error.len());
            let labels = [("kind", *kind)];
            let scraped = fleet.receiver.series("a", &labels);
            let names: Vec<&str> = scraped.iter().map(|series| series.labels["__name__"].as_str()).collect();
            assert!(
                names.iter().all(|name| *name == "up" || name.starts_with("scrape_")),
                "{kind} gave samples: {names:?}"
            );
        }
    }
    assert_eq!(shown["good"], None);

    // What is odd but allowed arrives as it is.
    assert!(values(&fleet, "in_html", &[]).iter().all(|value| *value == 7.0));
    assert!(!values(&fleet, "untyped", &[]).is_empty());
    assert!(values(&fleet, "odd", &[("is", "nan")]).iter().all(|value| value.is_nan()));
    assert!(values(&fleet, "odd", &[("is", "more")]).iter().all(|value| *value == f64::INFINITY));
    assert!(values(&fleet, "odd", &[("is", "less")]).iter().all(|value| *value == f64::NEG_INFINITY));
    assert!(values(&fleet, "own", &[("at", "future")]).is_empty(), "too far in the future to be true");
    assert!(values(&fleet, "own", &[("at", "now")]).len() >= 3);
    let once = values(&fleet, "once", &[]).len();
    assert!(once >= 3);
    // Never backwards: the earlier one of the page is left out, and so is what was there before.
    assert_eq!(values(&fleet, "own", &[("at", "past")]), [2.0]);
    // Of equal series on one page the first stands.
    assert!(values(&fleet, "twice", &[]).iter().all(|value| *value == 1.0));

    // A rollout that changes how all of them are scraped is judged by what was so before it.
    fleet.committed(&first);
    let second = fleet.push_and_run(
        pipeline(&fleet.receiver, &fleet.target, &cases, "1800ms"),
        "scrape with less patience",
    );
    let status = fleet.committed(&second);
    assert_eq!(status["rollback_count"], 0, "{status:#}");
    assert_eq!(status["health"], "healthy", "{status:#}");

    fleet.nothing_missing("a");
    let good = values(&fleet, "up", &[("kind", "good")]);
    assert!(good.iter().all(|up| *up == 1.0), "{good:?}");
    let peak = peak_memory(&fleet.agent);
    println!("peak: {} MiB", peak >> 10);
    assert!(peak < MEMORY, "{} MiB", peak >> 10);
}

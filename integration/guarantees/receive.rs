//! Remote write from agent to agent: nothing is lost over swaps of the receiving one and refusals behind it, connections
//! are kept, and what is no remote write is refused and changes nothing. And two receivers of one component: what one
//! refuses for the moment is offered again until both have it.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use invar_integration::{Agent, AgentOptions, Target, free_address};
use serde_json::Value;
use tempfile::TempDir;

use crate::fleet::{Fleet, Plan, SOON, binary, scrape, write_to};

const PATH: &str = "/api/v1/metrics/write";

/// The receiving half: what comes in at `address` goes to `receiver`.
fn receive(address: &str, receiver: &str) -> String {
    let (host, port) = address.rsplit_once(':').unwrap();
    format!(
        r#"
prometheus.receive_http "in" {{
	http {{
		listen_address = "{host}"
		listen_port    = {port}
	}}
	forward_to = [{receiver}]
}}
"#
    )
}

/// An agent that scrapes the target and writes to the address.
fn sender(target: &Target, address: &str) -> (Agent, TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("main.alloy");
    let pipeline = format!(
        r#"{}
prometheus.remote_write "out" {{
	endpoint {{
		url = "http://{address}{PATH}"

		queue_config {{
			batch_send_deadline = "100ms"
			min_backoff         = "50ms"
			max_backoff         = "500ms"
		}}
	}}
}}
"#,
        scrape(target, "200ms")
    );
    std::fs::write(&file, pipeline).unwrap();
    let agent = Agent::start(AgentOptions {
        binary: binary(),
        directory: directory.path().to_path_buf(),
        settings: format!("[[source]]\nname = \"file\"\nfile = {{ path = \"{}\" }}\n", file.display()),
        environment: Vec::new(),
    })
    .unwrap();
    agent.wait("the sender runs", SOON, |status| !status["running"].is_null()).unwrap();
    (agent, directory)
}

/// The receiving agent, behind a real repository.
fn begin() -> (Fleet, String) {
    let address = free_address().unwrap();
    let plan = Plan { probation: 2, ..Plan::default() };
    let fleet = Fleet::planned(plan, |receiver, _| {
        receive(&address, "prometheus.remote_write.out.receiver") + &write_to(receiver, "a")
    });
    (fleet, address)
}

/// A connection that is used for one request after the other.
struct Client(TcpStream);

impl Client {
    fn connect(address: &str) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        Self(stream)
    }

    /// Sends a request with these headers and this body; gives status and text.
    fn post(&mut self, headers: &str, body: &[u8]) -> (u16, String) {
        write!(self.0, "POST {PATH} HTTP/1.1\r\nHost: b\r\n{headers}\r\n").unwrap();
        self.0.write_all(body).unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            self.0.read_exact(&mut byte).unwrap_or_else(|error| panic!("{error} after {head:?}"));
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
        self.0.read_exact(&mut body).unwrap();
        (status, String::from_utf8(body).unwrap())
    }

    /// Sends a request that says nothing, which is accepted.
    fn ping(&mut self) {
        let body = snap::raw::Encoder::new().compress_vec(&[]).unwrap();
        let (status, text) = self.post(&headers(body.len()), &body);
        assert_eq!((status, text.as_str()), (204, ""));
    }
}

fn headers(length: usize) -> String {
    format!(
        "Content-Type: application/x-protobuf\r\nContent-Encoding: snappy\r\nContent-Length: {length}\r\n"
    )
}

/// Waits for more scrapes.
fn more(target: &Target, count: u64) {
    let upto = target.scrapes() + count;
    invar_integration::wait_for("more scrapes", SOON, || (target.scrapes() >= upto).then_some(())).unwrap();
}

/// The sum of an agent's metric of this name; 0 while there is nothing to tell.
fn metric(agent: &Agent, name: &str) -> f64 {
    let (status, page) = agent.text("/metrics").unwrap();
    assert_eq!(status, 200);
    page.lines()
        .filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with([' ', '{'])))
        .map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap())
        .sum()
}

#[test]
fn nothing_is_lost_between_agents_over_swaps_and_refusals() {
    let (fleet, address) = begin();
    let (sender, _directory) = sender(&fleet.target, &address);
    more(&fleet.target, 3);
    fleet.nothing_missing("a");
    let mut client = Client::connect(&address);
    client.ping();
    let receiver = fleet.agent.instance("prometheus.receive_http.in").unwrap();

    let direct = receive(&address, "prometheus.remote_write.out.receiver");
    let marked = receive(&address, "prometheus.relabel.mark.receiver")
        + "\nprometheus.relabel \"mark\" {\n\tforward_to = [prometheus.remote_write.out.receiver]\n\n\trule {\n\t\ttarget_label = \"marked\"\n\t\treplacement  = \"yes\"\n\t}\n}\n";
    let write = write_to(&fleet.receiver, "a");
    let unrelated = "\ndiscovery.relabel \"new\" {\n\ttargets = []\n}\n";
    for (pipeline, subject) in [
        (format!("{direct}{write}{unrelated}"), "add a component that has nothing to do with it"),
        (format!("{marked}{write}{unrelated}"), "forward by way of a relabelling"),
        (format!("{direct}{write}"), "and back"),
    ] {
        fleet.push_and_run(pipeline, subject);
        client.ping();
        more(&fleet.target, 3);
        client.ping();
    }
    fleet.nothing_missing("a");
    assert_eq!(fleet.agent.instance("prometheus.receive_http.in").unwrap(), receiver);
    assert!(!fleet.receiver.series("a", &[("__name__", "numbered_total"), ("marked", "yes")]).is_empty());
    for series in fleet.receiver.series("a", &[("__name__", "numbered_total")]) {
        assert_eq!(series.duplicates, 0, "{:?}", series.labels);
    }
    // Neither a refused connection nor a refused request.
    assert!(metric(&sender, "prometheus_remote_storage_samples_total") > 0.0);
    assert_eq!(metric(&sender, "prometheus_remote_storage_samples_retried_total"), 0.0);
    assert_eq!(metric(&sender, "prometheus_remote_storage_samples_failed_total"), 0.0);

    // What is behind the receiving agent refuses for a while: that agent keeps it.
    fleet.receiver.answer("a", Some(503));
    let (_, refused) = fleet.receiver.requests("a");
    let seen = || (fleet.receiver.requests("a").1 > refused + 2).then_some(());
    invar_integration::wait_for("refusals", SOON, seen).unwrap();
    more(&fleet.target, 5);
    client.ping();
    fleet.receiver.answer("a", None);
    fleet.nothing_missing("a");
    assert_eq!(metric(&sender, "prometheus_remote_storage_samples_retried_total"), 0.0);
}

#[test]
fn what_is_no_remote_write_is_refused_and_changes_nothing() {
    let (fleet, address) = begin();
    let mut client = Client::connect(&address);
    client.ping();
    let before = fleet.agent.status().unwrap();
    let compress = |body: &[u8]| snap::raw::Encoder::new().compress_vec(body).unwrap();
    // A series `a` with one sample, cut off in the middle of it.
    let series = b"\x0a\x24\x0a\x0d\x0a\x08__name__\x12\x01a\x12\x10\x09";
    let bomb = compress(&vec![0; 40 << 20]);
    let truncated = compress(series);
    let noise = b"\xff\xff\xff\xff\xff\xff\xff\xff\xffnot it".as_slice();
    let cut = &compress(&[b'x'; 1000])[..10];
    for (what, headers, body, status, part) in [
        ("no snappy", headers(noise.len()), noise, 400, "snappy"),
        ("snappy that is cut off", headers(cut.len()), cut, 400, "snappy"),
        ("a message that is cut off", headers(truncated.len()), &truncated, 400, ""),
        ("more than it says", headers(bomb.len()), &bomb, 413, "33554432"),
        (
            "JSON",
            "Content-Type: application/json\r\nContent-Length: 2\r\n".to_owned(),
            b"{}",
            415,
            "application/json",
        ),
        (
            "gzip",
            "Content-Type: application/x-protobuf\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n".to_owned(),
            b"{}",
            415,
            "gzip",
        ),
        (
            "a message of version 2",
            "Content-Type: application/x-protobuf;proto=io.prometheus.write.v2.Request\r\nContent-Length: 1\r\n"
                .to_owned(),
            b"\0",
            415,
            "io.prometheus.write.v2.Request",
        ),
    ] {
        let (found, text) = Client::connect(&address).post(&headers, body);
        println!("{what}: {found} {text}");
        assert_eq!(found, status, "{what}: {text}");
        assert!(text.contains(part) && text.trim().len() > 10, "{what}: {text}");
    }
    // Refused by what it declares, before any of it is read.
    let (found, text) = Client::connect(&address).post(&headers(1 << 30), b"");
    assert_eq!(found, 413, "{text}");
    assert!(text.contains("larger than"), "{text}");

    client.ping();
    let after = fleet.agent.status().unwrap();
    assert_eq!(before["running"]["generation"], after["running"]["generation"]);
    assert_eq!(before["rollback_count"], after["rollback_count"]);
    assert_eq!(after["health"], "healthy", "{after:#}");
    assert_eq!(fleet.receiver.requests("a"), (0, 0), "nothing of it may go on");
    assert_eq!(metric(&fleet.agent, "prometheus_forwarded_samples_total"), 0.0);
}

#[test]
fn what_one_of_two_receivers_refuses_for_the_moment_reaches_both() {
    let fleet = Fleet::start(|receiver, target| {
        let scrape = scrape(target, "200ms").replace(
            "[prometheus.remote_write.out.receiver]",
            "[prometheus.remote_write.out.receiver, testing.sink.other.receiver]",
        );
        scrape + &write_to(receiver, "a") + "\ntesting.sink \"other\" { }\n"
    });
    let sink = || -> Value { fleet.agent.get("/api/v0/component/testing.sink.other/").unwrap() };
    let taken = |count: u64| {
        let enough = || (sink()["batches"].as_u64().unwrap() >= count).then_some(());
        invar_integration::wait_for("the sink to take batches", Duration::from_secs(30), enough).unwrap();
    };
    taken(3);
    let command = |mode: &str| {
        let mut stream = TcpStream::connect(fleet.agent.address()).unwrap();
        write!(
            stream,
            "POST /api/v0/component/testing.sink.other/mode HTTP/1.1\r\nHost: b\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{mode}",
            mode.len()
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 204"), "{answer}");
    };
    command("retryable");
    let refused = || (sink()["refused"].as_u64().unwrap() >= 4).then_some(());
    invar_integration::wait_for("the sink to refuse", SOON, refused).unwrap();
    command("");
    let so_far = sink()["batches"].as_u64().unwrap();
    taken(so_far + 4);
    fleet.nothing_missing("a");
    let counts = sink();
    assert_eq!(counts["gaps"], 0, "{counts}");
    // The log had taken the batch: offering it again makes no second sample of it.
    for series in fleet.receiver.series("a", &[("__name__", "numbered_total")]) {
        assert_eq!(series.duplicates, 0);
    }
    let status = fleet.agent.status().unwrap();
    assert_eq!(status["health"], "healthy", "{status:#}");
}

//! Blocks that configure the agent itself: they come and go with a revision like everything else, and one from afar cannot
//! open what the host keeps closed.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use crate::fleet::{Fleet, Plan, SOON, VERDICT, runs, scrape_to};

/// The status and the beginning of the body of a GET, with a header of one's own.
fn get(fleet: &Fleet, path: &str, header: &str) -> String {
    let mut stream = TcpStream::connect(fleet.agent.address()).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nhost: x\r\n{header}connection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn status_of(answer: &str) -> &str {
    answer.split(' ').nth(1).unwrap_or_default()
}

const GUARDED: &str = r#"
http {
	auth {
		basic {
			username = "ana"
			password = "secret-of-the-gate"
		}

		filter {
			paths = ["/metrics"]
		}
	}
}
"#;

#[test]
fn credentials_for_the_api_come_and_go_with_the_revision() {
    let fleet = Fleet::planned(Plan { probation: 2, ..Plan::default() }, |receiver, target| {
        scrape_to(receiver, target, "a")
    });
    let open = scrape_to(&fleet.receiver, &fleet.target, "a");
    assert_eq!(status_of(&get(&fleet, "/metrics", "")), "200");

    let guarded = format!("{open}\n{GUARDED}");
    let head = fleet.push_and_run(&guarded, "ask for credentials");
    assert_eq!(status_of(&get(&fleet, "/metrics", "")), "401");
    // ana:secret-of-the-gate
    let right = "authorization: Basic YW5hOnNlY3JldC1vZi10aGUtZ2F0ZQ==\r\n";
    assert_eq!(status_of(&get(&fleet, "/metrics", right)), "200");
    assert_eq!(status_of(&get(&fleet, "/-/ready", "")), "200", "the filter leaves other paths open");
    fleet.committed(&head);

    // A revision without the block that turns out bad: the gate is back with what was committed.
    let bad = open.replace(&fleet.receiver.url("a"), &fleet.receiver.url("bad"));
    fleet.receiver.answer("bad", Some(500));
    let bad = fleet.push_and_run(bad, "no gate, and an endpoint that fails");
    assert_eq!(status_of(&get(&fleet, "/metrics", "")), "200");
    fleet.undone(&bad);
    assert_eq!(status_of(&get(&fleet, "/metrics", "")), "401");

    let head = fleet.push_and_run(&open, "open it again");
    fleet.agent.wait("it is open", VERDICT, |status| runs(status, &head)).unwrap();
    assert_eq!(status_of(&get(&fleet, "/metrics", "")), "200");
    for text in [fleet.agent.log(), fleet.agent.text("/api/v1/components").unwrap().1] {
        assert!(!text.contains("secret-of-the-gate"));
    }
}

const DEBUGGED: &str = "\nlivedebugging {\n\tenabled = true\n}\n";
const LOOK: &str = "/api/v0/web/debug/prometheus.remote_write.out";

#[test]
fn a_remote_revision_cannot_open_the_data_of_a_host() {
    let fleet = Fleet::start(|receiver, target| scrape_to(receiver, target, "a") + DEBUGGED);
    let answer = get(&fleet, LOOK, "");
    assert_eq!(status_of(&answer), "403");
    assert!(answer.contains("live_debugging = true"), "{answer}");
    assert!(fleet.agent.log().contains("live debugging stays off"));
}

#[test]
fn where_the_host_allows_it_data_is_shown_as_it_passes() {
    let settings = "[features]\nlive_debugging = true\n".to_owned();
    let fleet = Fleet::planned(Plan { settings, ..Plan::default() }, |receiver, target| {
        scrape_to(receiver, target, "a") + DEBUGGED
    });
    let mut stream = TcpStream::connect(fleet.agent.address()).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    write!(stream, "GET {LOOK} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
    let mut seen = String::new();
    let mut buffer = [0; 4096];
    while seen.matches("|;|").count() < 2 {
        let read = stream.read(&mut buffer).unwrap();
        assert!(read > 0, "the stream ended: {seen}");
        seen.push_str(&String::from_utf8_lossy(&buffer[..read]));
    }
    assert!(seen.contains("[IN]: from prometheus.scrape.page"), "{seen}");
    assert!(seen.contains("__name__=\"numbered_total\""), "{seen}");

    // Switching it off ends the look.
    fleet.push_and_run(scrape_to(&fleet.receiver, &fleet.target, "a"), "no more looking");
    while stream.read(&mut buffer).unwrap() > 0 {}
    assert_eq!(status_of(&get(&fleet, LOOK, "")), "403");
    let unknown = get(&fleet, "/api/v0/web/debug/prometheus.scrape.other", "");
    assert_ne!(status_of(&unknown), "200");
    fleet.nothing_missing("a");
}

#[test]
fn a_block_that_configures_the_agent_has_its_place() {
    let fleet = Fleet::start(|receiver, target| scrape_to(receiver, target, "a"));
    let open = scrape_to(&fleet.receiver, &fleet.target, "a");
    for (text, part) in [
        ("http \"label\" { }", "does not support specifying labels"),
        ("http { }\nhttp { }", "already declared"),
        ("tracing { sampling_fraction = 2 }", "between 0 and 1"),
        ("declare \"x\" {\n\thttp { }\n}", "service blocks not allowed inside a module"),
        ("http {\n\tauth {\n\t\tbasic { }\n\t}\n}", "username"),
    ] {
        let head = fleet.push(format!("{open}\n{text}\n"), text);
        let status = fleet.refused(&head);
        let message = status["reason"]["message"].as_str().unwrap_or_default();
        assert!(message.contains(part), "{text}: {message}");
    }
    let fine = format!("{open}\ntracing {{ }}\nlivedebugging {{ }}\nlogging {{ }}\n");
    fleet.push_and_run(fine, "all of them");
}

#[test]
fn the_api_speaks_tls_while_the_revision_says_so() {
    let fleet = Fleet::planned(Plan { probation: 2, ..Plan::default() }, |receiver, target| {
        scrape_to(receiver, target, "a")
    });
    let open = scrape_to(&fleet.receiver, &fleet.target, "a");
    let certified = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let folder = fleet.agent.directory();
    let (certificate, key) = (folder.join("api.pem"), folder.join("api.key"));
    std::fs::write(&certificate, certified.cert.pem()).unwrap();
    std::fs::write(&key, certified.signing_key.serialize_pem()).unwrap();
    let block = |certificate: &std::path::Path| {
        format!(
            "{open}\nhttp {{\n\ttls {{\n\t\tcert_file = {:?}\n\t\tkey_file = {:?}\n\t}}\n}}\n",
            certificate.display().to_string(),
            key.display().to_string()
        )
    };
    // A certificate that is not there refuses the revision, and nothing changes.
    let missing = fleet.push(block(&folder.join("missing.pem")), "a certificate that is missing");
    let reason = fleet.refused(&missing)["reason"]["message"].to_string();
    assert!(reason.contains("missing.pem"), "{reason}");

    // A connection that is open when TLS comes stays as it is.
    let mut kept = TcpStream::connect(fleet.agent.address()).unwrap();
    kept.set_read_timeout(Some(SOON)).unwrap();
    fleet.push(block(&certificate), "speak TLS");
    let client = reqwest::Client::builder()
        .no_proxy()
        .tls_certs_only([reqwest::Certificate::from_pem(certified.cert.pem().as_bytes()).unwrap()])
        .resolve("localhost", fleet.agent.address().parse().unwrap())
        .build()
        .unwrap();
    let port = fleet.agent.address().rsplit(':').next().unwrap().to_owned();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let address = format!("https://localhost:{port}/-/ready");
    let ready =
        || runtime.block_on(async { client.get(&address).send().await.ok().map(|answer| answer.status()) });
    let answered = invar_integration::wait_for("TLS to be spoken", SOON, ready).unwrap();
    assert_eq!(answered, 200);
    write!(kept, "GET /-/ready HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    kept.read_to_string(&mut answer).unwrap();
    assert_eq!(status_of(&answer), "200");
}

//! What makes an agent look before its schedule does: a webhook, SIGHUP, `invar reconcile`, a server that says that there is
//! something new. The agents here would ask once an hour by themselves.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};

use invar_integration::{Agent, AgentOptions, GitServer, Repository, canary, wait_for};
use tempfile::TempDir;

use crate::fleet::{SOON, binary, runs};
use crate::scripted::{Reply, Scripted};

const SECRET: &str = "marker-webhook-91c4ae";
const PIPELINE: &str = "prometheus.relabel \"a\" {\n\tforward_to = []\n}\n";

struct Patient {
    agent: Agent,
    repository: Repository,
    git: GitServer,
    directory: TempDir,
}

/// An agent that runs its first commit and asks again in an hour.
fn patient(more: &str) -> Patient {
    patient_with(more, Vec::new())
}

/// As [`patient`], with environment variables.
fn patient_with(more: &str, environment: Vec<(String, String)>) -> Patient {
    let directory = tempfile::tempdir().unwrap();
    let repository = Repository::create(directory.path()).unwrap();
    let git = GitServer::start(directory.path()).unwrap();
    let head = repository.push_file("main.alloy", PIPELINE, "begin").unwrap();
    let settings = format!(
        "[[source]]\nname = \"fleet\"\ngit = {{ url = \"{}\", branch = \"main\" }}\ninterval = \"1h\"\n\n\
         [rollout]\nmin_gap = \"0s\"\nprobation = {{ window = \"0s\" }}\n\n{more}",
        git.url("fleet.git")
    );
    let options =
        AgentOptions { binary: binary(), directory: directory.path().to_path_buf(), settings, environment };
    let agent = Agent::start(options).unwrap();
    agent.wait("the first commit runs", SOON, |status| runs(status, &head)).unwrap();
    Patient { agent, repository, git, directory }
}

impl Patient {
    fn push(&self, number: u32) -> String {
        let text =
            PIPELINE.replace("forward_to = []", &format!("forward_to = []\n\tmax_cache_size = {number}"));
        self.repository.push_file("main.alloy", text, "change").unwrap()
    }

    /// Posts to the webhook of GitLab's kind; gives the status code and the text.
    fn deliver(&self, name: &str, token: &str, delivery: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(self.agent.address()).unwrap();
        // What the body says is no business of the agent's.
        let body =
            "{\"ref\":\"refs/heads/evil\",\"project\":{\"git_http_url\":\"https://evil.example/x.git\"}}";
        let request = format!(
            "POST /api/v1/webhooks/{name} HTTP/1.1\r\nhost: invar\r\nconnection: close\r\ncontent-length: {}\r\n\
             x-gitlab-token: {token}\r\nidempotency-key: {delivery}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
        (status, answer)
    }
}

#[test]
fn a_webhook_makes_the_sources_look_and_its_secret_appears_nowhere() {
    let secret = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(secret.path(), canary::secret(SECRET)).unwrap();
    let patient = patient(&format!(
        "[webhook.git]\nkind = \"gitlab\"\nsecret = {{ file = \"{}\" }}\nsources = [\"fleet\"]\n",
        secret.path().display()
    ));
    let head = patient.push(1);
    let (status, answer) = patient.deliver("git", SECRET, "delivery-1");
    assert_eq!(status, 202, "{answer}");
    assert!(answer.contains("\"accepted\"") && answer.contains("delivery-1"), "{answer}");
    patient.agent.wait("the push runs", SOON, |status| runs(status, &head)).unwrap();

    // What is not signed or came before changes nothing.
    let _until_now = patient.git.take_requests();
    assert_eq!(patient.deliver("git", "guess", "delivery-2").0, 401);
    assert_eq!(patient.deliver("other", SECRET, "delivery-3").0, 404);
    let (status, answer) = patient.deliver("git", SECRET, "delivery-1");
    assert!(status == 200 && answer.contains("\"duplicate\""), "{answer}");
    let held = patient.agent.command(&["hold", "--reason", "a freeze"]).unwrap();
    assert!(held.status.success());
    let (status, answer) = patient.deliver("git", SECRET, "delivery-4");
    assert!(status == 202 && answer.contains("\"ignored\""), "{answer}");
    assert_eq!(patient.git.take_requests(), 0, "nobody was asked for any of that");
    patient.agent.command(&["unhold"]).unwrap();

    let metrics = patient.agent.text("/metrics").unwrap().1;
    for (outcome, count) in [("accepted", 1), ("duplicate", 1), ("ignored", 1), ("unauthenticated", 1)] {
        let line = format!("invar_webhook_deliveries_total{{outcome=\"{outcome}\",webhook=\"git\"}} {count}");
        assert!(metrics.contains(&line), "{line}\n{metrics}");
    }
    assert!(
        patient.agent.log().contains("webhook git, delivery delivery-1: fleet"),
        "{}",
        patient.agent.log()
    );

    patient.agent.search().unwrap();
    assert!(patient.directory.path().exists());
}

#[test]
fn a_webhook_for_a_source_that_does_not_exist_is_an_error_at_the_start() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("main.alloy"), PIPELINE).unwrap();
    let settings = format!(
        "[state]\ndir = \"{0}/state\"\n\n[[source]]\nname = \"fleet\"\nfile = {{ path = \"{0}/main.alloy\" }}\n\n\
         [webhook.git]\nsecret = \"x\"\nsources = [\"flet\"]\n\n[server]\nlisten = \"127.0.0.1:0\"\n",
        directory.path().display()
    );
    let file = directory.path().join("invar.toml");
    std::fs::write(&file, settings).unwrap();
    let output = Command::new(binary()).arg("run").arg(&file).output().unwrap();
    assert_eq!(output.status.code(), Some(64));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("`[webhook.git]`: there is no source `flet`; there is fleet"), "{text}");
}

#[test]
fn reconcile_and_a_hangup_make_the_sources_look() {
    let patient = patient("");
    let head = patient.push(1);
    let output = patient.agent.command(&["reconcile"]).unwrap();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{told}");
    for stage in ["triggered: the API: all sources", "observed: changed: fleet", "swapped: "] {
        assert!(told.contains(stage), "each stage is shown as it happens: {stage}\n{told}");
    }
    assert!(runs(&patient.agent.status().unwrap(), &head), "it waited");

    let head = patient.push(2);
    let output = patient.agent.command(&["reconcile", "--source", "fleet", "--wait", "-o", "json"]).unwrap();
    assert_eq!((output.status.code(), output.stderr.len()), (Some(0), 0));
    assert!(String::from_utf8_lossy(&output.stdout).contains(&head));

    let head = patient.push(3);
    assert_eq!(patient.agent.command(&["reconcile", "--no-wait", "fleet"]).unwrap().status.code(), Some(0));
    patient.agent.wait("the push runs", SOON, |status| runs(status, &head)).unwrap();

    let head = patient.push(4);
    let process = patient.agent.process().to_string();
    assert!(Command::new("kill").args(["-HUP", &process]).status().unwrap().success());
    patient.agent.wait("the push runs", SOON, |status| runs(status, &head)).unwrap();
    assert!(patient.agent.log().contains("SIGHUP: all sources"), "{}", patient.agent.log());

    // What is refused, unknown, or held has its own code.
    patient.repository.push_file("main.alloy", "not a pipeline", "break").unwrap();
    assert_eq!(patient.agent.command(&["reconcile"]).unwrap().status.code(), Some(4));
    let unknown = patient.agent.command(&["reconcile", "--no-wait", "nope"]).unwrap();
    assert_eq!(unknown.status.code(), Some(1), "{}", String::from_utf8_lossy(&unknown.stderr));
    assert_eq!(patient.agent.command(&["reconcile", "--wait", "--no-wait"]).unwrap().status.code(), Some(64));
    patient.agent.command(&["hold"]).unwrap();
    patient.push(5);
    assert_eq!(patient.agent.command(&["reconcile"]).unwrap().status.code(), Some(6));
}

#[test]
fn systemd_hears_of_a_reload_and_of_its_end() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(SOON)).unwrap();
    let patient = patient_with("", vec![("NOTIFY_SOCKET".to_owned(), path.display().to_string())]);
    let hear = || {
        loop {
            let mut buffer = [0; 512];
            let length = socket.recv(&mut buffer).unwrap();
            let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
            if !text.starts_with("WATCHDOG=1") {
                return text;
            }
        }
    };
    assert_eq!(hear().trim(), "READY=1");
    let process = patient.agent.process().to_string();
    assert!(Command::new("kill").args(["-HUP", &process]).status().unwrap().success());
    let begin = hear();
    assert!(begin.contains("RELOADING=1") && begin.contains("MONOTONIC_USEC="), "{begin}");
    assert_eq!(hear().trim(), "READY=1");
}

/// The relabelling of [`PIPELINE`] under a name.
fn document(name: &str) -> String {
    PIPELINE.replace("\"a\"", &format!("\"{name}\""))
}

#[test]
fn an_event_of_the_server_makes_a_document_be_looked_at() {
    let directory = tempfile::tempdir().unwrap();
    let text = Arc::new(Mutex::new(document("one")));
    let (connected, connections) = channel::<Sender<Vec<u8>>>();
    let served = Arc::clone(&text);
    let server = Scripted::start(move |request| match request.target.as_str() {
        "/events" => {
            let (sender, events) = channel();
            connected.send(sender).unwrap();
            Reply::stream(events).with("content-type", "text/event-stream")
        }
        _ => Reply::ok(served.lock().unwrap().clone()),
    });
    let settings = format!(
        "[[source]]\nname = \"document\"\ninterval = \"1h\"\nhttp = {{ url = \"{}\", notify = \"sse\", notify_url = \"{}\" }}\n\n\
         [rollout]\nmin_gap = \"0s\"\nprobation = {{ window = \"0s\" }}\n",
        server.url("/main.alloy"),
        server.url("/events")
    );
    let options = AgentOptions {
        binary: binary(),
        directory: directory.path().to_path_buf(),
        settings,
        environment: Vec::new(),
    };
    let agent = Agent::start(options).unwrap();
    let running = |name: &str| {
        let component = format!("prometheus.relabel.{name}");
        wait_for(&component, SOON, || agent.instance(&component).ok()).unwrap();
    };
    running("one");
    let events = connections.recv_timeout(SOON).unwrap();
    // What it says is no content: it only means that there is something new.
    for name in ["two", "three"] {
        *text.lock().unwrap() = document(name);
        events.send(b"data: prometheus.relabel \"evil\" { forward_to = [] }\n\n".to_vec()).unwrap();
        running(name);
    }
    assert!(agent.instance("prometheus.relabel.evil").is_err());
    drop(events);
}

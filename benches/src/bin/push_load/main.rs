//! How long a push takes to run when a webhook tells of it: a real repository behind a real `git http-backend`, a real
//! agent that would ask once an hour by itself, and one signed request after each `git push`. Measured from the request to
//! the event of the swap, with the steps in between as the agent tells of them.
//!
//!     push_load --invar target/release/invar --pushes 50

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Error, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use clap::Parser;
use invar_integration::{Agent, AgentOptions, GitServer, Repository};
use ring::hmac;

const SECRET: &str = "a secret of this benchmark";
/// How long one push may take.
const DEADLINE: Duration = Duration::from_secs(20);
/// The steps of a revision, in order.
const STEPS: [&str; 5] = ["observed", "composed", "planned", "preparing", "swapped"];

/// Measure the way from a push to the swap.
#[derive(Debug, Parser)]
struct Arguments {
    /// The agent's binary
    #[arg(long)]
    invar: PathBuf,
    /// How many pushes are measured
    #[arg(long, default_value_t = 50)]
    pushes: usize,
    /// Time between the end of one push and the next, in milliseconds
    #[arg(long, default_value_t = 1100)]
    pause: u64,
}

/// An event, and when it was read.
struct Seen {
    kind: String,
    data: String,
    at: Instant,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("push_load: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<(), String> {
    let directory = tempfile::tempdir().map_err(|error| error.to_string())?;
    let repository = Repository::create(directory.path())?;
    let git = GitServer::start(directory.path())?;
    repository.push_file("main.alloy", pipeline(0), "begin")?;
    let settings = format!(
        "[[source]]\nname = \"fleet\"\ngit = {{ url = \"{}\", branch = \"main\" }}\ninterval = \"1h\"\n\n\
         [webhook.git]\nsecret = \"{SECRET}\"\n",
        git.url("fleet.git")
    );
    let agent = Agent::start(AgentOptions {
        binary: arguments.invar.clone(),
        directory: directory.path().to_path_buf(),
        settings,
        environment: Vec::new(),
    })?;
    agent.wait("the first commit runs", DEADLINE, |status| !status["running"].is_null())?;
    let events = follow(agent.address()).map_err(|error| error.to_string())?;

    let mut pushing = Vec::new();
    let mut answers = Vec::new();
    let mut steps: BTreeMap<&str, Vec<Duration>> = BTreeMap::new();
    for number in 1..=arguments.pushes {
        std::thread::sleep(Duration::from_millis(arguments.pause));
        repository.write("main.alloy", pipeline(number))?;
        let begin = Instant::now();
        let head = repository.push("change")?;
        let pushed = Instant::now();
        pushing.push(pushed - begin);
        deliver(agent.address(), &head).map_err(|error| error.to_string())?;
        answers.push(pushed.elapsed());
        loop {
            let left = DEADLINE.saturating_sub(pushed.elapsed());
            let seen = events
                .recv_timeout(left)
                .map_err(|_| format!("push {number} does not run\n{}", agent.log()))?;
            if let Some(step) = STEPS.into_iter().find(|step| *step == seen.kind) {
                steps.entry(step).or_default().push(seen.at.saturating_duration_since(pushed));
            }
            if seen.kind == "swapped" && seen.data.contains(&head) {
                break;
            }
        }
    }
    println!("{} pushes; milliseconds from the end of `git push`", arguments.pushes);
    print("answer", &answers);
    for step in STEPS {
        print(step, steps.get(step).map_or(&[], Vec::as_slice));
    }
    println!("(`git commit` and `git push` themselves)");
    print("git", &pushing);
    Ok(())
}

/// A pipeline of which each number is another one.
fn pipeline(number: usize) -> String {
    const PIPELINE: &str = r#"prometheus.exporter.self "agent" { }

prometheus.scrape "agent" {
	targets         = prometheus.exporter.self.agent.targets
	forward_to      = [prometheus.relabel.push.receiver]
	scrape_interval = "10s"
}

prometheus.relabel "push" {
	forward_to = []

	rule {
		target_label = "push"
		replacement  = "NUMBER"
	}
}
"#;
    PIPELINE.replace("NUMBER", &number.to_string())
}

fn print(name: &str, durations: &[Duration]) {
    let mut sorted = durations.to_vec();
    sorted.sort_unstable();
    let at = |share: f64| {
        let index = (sorted.len() as f64 * share) as usize;
        sorted.get(index.min(sorted.len().saturating_sub(1))).map_or(0.0, |d| d.as_secs_f64() * 1e3)
    };
    println!("{name:<10} p50 {:>7.1}  p90 {:>7.1}  max {:>7.1}", at(0.5), at(0.9), at(1.0));
}

/// Posts what GitHub would.
fn deliver(address: &str, head: &str) -> std::io::Result<()> {
    let body = format!("{{\"ref\":\"refs/heads/main\",\"after\":\"{head}\"}}");
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes()), body.as_bytes());
    let signature: String = tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(DEADLINE))?;
    let request = format!(
        "POST /api/v1/webhooks/git HTTP/1.1\r\nhost: invar\r\nconnection: close\r\ncontent-length: {}\r\n\
         x-github-delivery: {head}\r\nx-hub-signature-256: sha256={signature}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    match answer.starts_with("HTTP/1.1 202") {
        true => Ok(()),
        false => Err(Error::other(answer)),
    }
}

/// Follows the agent's events on a thread of its own, which ends with the connection.
fn follow(address: &str) -> std::io::Result<Receiver<Seen>> {
    let mut stream = TcpStream::connect(address)?;
    let request =
        format!("GET /api/v1/events HTTP/1.1\r\nhost: invar\r\nlast-event-id: {}\r\n\r\n", u64::MAX);
    stream.write_all(request.as_bytes())?;
    let mut lines = BufReader::new(stream);
    let mut first = String::new();
    lines.read_line(&mut first)?;
    if !first.starts_with("HTTP/1.1 200") {
        return Err(Error::other(first));
    }
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        let mut kind = String::new();
        for line in lines.lines().map_while(Result::ok) {
            if let Some(name) = line.strip_prefix("event: ") {
                name.clone_into(&mut kind);
            }
            if let Some(data) = line.strip_prefix("data: ") {
                let seen = Seen { kind: kind.clone(), data: data.to_owned(), at: Instant::now() };
                if sender.send(seen).is_err() {
                    return;
                }
            }
        }
    });
    Ok(receiver)
}

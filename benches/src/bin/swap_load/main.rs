//! What a hot swap costs those who send: requests are pushed through receive, relabel and remote write at a steady rate,
//! first without and then with another configuration every second. Compared are how long a request waits for its answer
//! (the samples are then in the log) and how long a sample takes to the sink. Nothing may be refused or lost.
//!
//!     swap_load --invar target/release/invar --rate 200 --samples 250 --seconds 20

mod configuration;
mod push;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use clap::{Parser, ValueEnum};
use invar_benches::process::{Process, pinned, serve};
use invar_benches::sink::{Journeys, Sink};

use self::configuration::Configuration;
use self::push::{Pushed, Sender, wait_until_ready};

/// Measure what swaps add to latency.
#[derive(Debug, Parser)]
struct Arguments {
    /// The agent's binary
    #[arg(long)]
    invar: PathBuf,
    /// Requests a second
    #[arg(long, default_value_t = 200)]
    rate: usize,
    /// Samples of each request
    #[arg(long, default_value_t = 250)]
    samples: usize,
    /// Connections that requests are sent on
    #[arg(long, default_value_t = 8)]
    connections: usize,
    /// Seconds measured without swaps, and again with them
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// What each configuration changes
    #[arg(long, value_enum, default_value_t = Change::All)]
    change: Change,
    /// Probation of each configuration; the next one cuts it short
    #[arg(long, default_value = "10s")]
    probation: String,
    /// Further components that take no part, in chains of ten
    #[arg(long, default_value_t = 0)]
    bystanders: usize,
}

/// Which component a configuration changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Change {
    /// The relabelling rules.
    Rule,
    /// The receiver's settings.
    Receiver,
    /// The external labels of remote write.
    Exporter,
    /// Each in turn.
    All,
}

/// What one phase showed.
struct Phase {
    name: &'static str,
    pushed: Pushed,
    journeys: Vec<Duration>,
    swaps: usize,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("swap_load: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let clock = Instant::now();
    let sink = Arc::new(Sink { journeys: Some(Journeys::new(clock)), ..Sink::default() });
    let sink_address = serve(&runtime, Arc::clone(&sink).router())?;
    let directory = tempfile::tempdir()?;
    let mut configuration = Configuration::new(arguments, directory.path(), &sink_address)?;
    configuration.write()?;
    let mut command = pinned(&arguments.invar);
    command
        .arg("run")
        .arg(configuration.path())
        .arg(format!("--storage.path={}", directory.path().join("invar").display()))
        .arg(format!("--server.http.listen-addr={}", configuration.api()))
        .arg(format!("--probation={}", arguments.probation));
    let log = directory.path().join("invar.log");
    let process = Process::start(command, &log)?;
    wait_until_ready(configuration.api())?;

    let sender = Sender::new(arguments, configuration.receiver(), clock);
    let journeys = || sink.journeys.as_ref().map(Journeys::take).unwrap_or_default();
    // Connections, caches and the write-ahead log's first segment.
    let mut sent = sender.push(Duration::from_secs(5)).samples;
    drop(journeys());
    let mut phases = Vec::new();
    for (name, swapping) in [("steady", false), ("swapping", true), ("steady", false), ("swapping", true)] {
        let duration = Duration::from_secs(arguments.seconds);
        let before = process.usage().processor;
        let swaps_before = swaps(&log)?;
        let (pushed, written) = std::thread::scope(|scope| {
            let writing = scope.spawn(|| -> std::io::Result<()> {
                let start = Instant::now();
                let mut next = Duration::ZERO;
                while swapping && next + Duration::from_secs(1) < duration {
                    configuration.change();
                    // The agent watches its file.
                    configuration.write()?;
                    next += Duration::from_secs(1);
                    std::thread::sleep(next.saturating_sub(start.elapsed()));
                }
                Ok(())
            });
            let pushed = sender.push(duration);
            (pushed, writing.join().expect("the writing thread does not panic"))
        });
        written?;
        sent += pushed.samples;
        let used = (process.usage().processor - before) / duration.as_secs_f64();
        println!("{name}: {:.1} % of a processor", used * 100.0);
        phases.push(Phase { name, pushed, journeys: journeys(), swaps: swaps(&log)? - swaps_before });
    }
    // What is still in the log is under way.
    let end = Instant::now() + Duration::from_secs(15);
    while sink.samples.load(Ordering::Relaxed) < sent && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(50));
    }
    print(&phases, sent, sink.samples.load(Ordering::Relaxed));
    if phases.iter().any(|phase| phase.pushed.refused > 0) || sink.samples.load(Ordering::Relaxed) < sent {
        let reasons: Vec<&String> = phases.iter().flat_map(|phase| &phase.pushed.reasons).collect();
        return Err(std::io::Error::other(format!(
            "something was refused or lost: {reasons:?}; see {}",
            directory.keep().display()
        )));
    }
    Ok(())
}

/// How many swaps the log tells of.
fn swaps(log: &Path) -> std::io::Result<usize> {
    Ok(std::fs::read_to_string(log)?.matches("event=swapped").count())
}

fn print(phases: &[Phase], sent: u64, arrived: u64) {
    println!(
        "{:<10} {:>6} {:>9} {:>8} | {:^32} | {:^32}",
        "", "swaps", "requests", "refused", "answer, ms", "to the sink, ms"
    );
    println!("{:<36} | {} | {}", "", heads(), heads());
    for phase in phases {
        println!(
            "{:<10} {:>6} {:>9} {:>8} | {} | {}",
            phase.name,
            phase.swaps,
            phase.pushed.answers.len(),
            phase.pushed.refused,
            quantiles(&phase.pushed.answers),
            quantiles(&phase.journeys),
        );
    }
    println!("samples sent {sent}, arrived {arrived}");
}

fn heads() -> String {
    format!("{:>7} {:>7} {:>7} {:>8}", "p50", "p99", "p99.9", "max")
}

fn quantiles(durations: &[Duration]) -> String {
    let mut sorted = durations.to_vec();
    sorted.sort_unstable();
    let at = |share: f64| {
        let index = (sorted.len() as f64 * share) as usize;
        sorted.get(index.min(sorted.len().saturating_sub(1))).map_or(0.0, |d| d.as_secs_f64() * 1e3)
    };
    format!("{:>7.2} {:>7.2} {:>7.2} {:>8.2}", at(0.5), at(0.99), at(0.999), at(1.0))
}

//! Scrape → remote write, whole process: an agent scrapes many targets and sends what it finds to a counting sink; a
//! real peer does the same in the same run, and the ratio is what counts. Each subject is pinned to processor 0 with
//! one worker; this driver stays on the others.
//!
//!     scrape_load --invar target/bench/invar --prometheus /usr/bin/prometheus --targets 50 --series 2000 --interval 2

mod page;
mod subject;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use clap::Parser;
use invar_benches::process::{Process, serve};
use invar_benches::sink::Sink;

use page::Pages;
use subject::Subject;

/// Measure scrape → remote write beside a peer.
#[derive(Debug, Parser)]
struct Arguments {
    /// The agent's binary
    #[arg(long)]
    invar: PathBuf,
    /// A Prometheus to run in agent mode beside it
    #[arg(long)]
    prometheus: Option<PathBuf>,
    /// Number of targets
    #[arg(long, default_value_t = 50)]
    targets: usize,
    /// Series of each target
    #[arg(long, default_value_t = 2000)]
    series: usize,
    /// Scrape interval in seconds
    #[arg(long, default_value_t = 2)]
    interval: u64,
    /// Relabelling rules between scrape and remote write
    #[arg(long, default_value_t = 0)]
    rules: usize,
    /// Remote write 2.0
    #[arg(long)]
    v2: bool,
    /// Seconds before measuring begins
    #[arg(long, default_value_t = 10)]
    warm_up: u64,
    /// Seconds measured
    #[arg(long, default_value_t = 20)]
    seconds: u64,
}

/// What one subject cost.
struct Figures {
    name: &'static str,
    /// Processor microseconds a sample.
    processor: f64,
    resident: u64,
    wire: f64,
    samples: u64,
    requests: u64,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(figures) => {
            print(&arguments, &figures);
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("scrape_load: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> std::io::Result<Vec<Figures>> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let pages = Pages::of(arguments.series);
    println!(
        "{} targets x {} series every {} s, {} bytes a series, {} rules, remote write {}",
        arguments.targets,
        arguments.series,
        arguments.interval,
        pages.bytes_per_series(arguments.series),
        arguments.rules,
        if arguments.v2 { "2.0" } else { "1.0" }
    );
    let sink = Arc::new(Sink::default());
    let page_address = serve(&runtime, Arc::clone(&pages).router())?;
    let sink_address = serve(&runtime, Arc::clone(&sink).router())?;
    let sink_url = format!("http://{sink_address}/api/v1/write");
    let directory = tempfile::tempdir()?;
    let mut figures = Vec::new();
    let subject = Subject::invar(arguments, directory.path(), &page_address, &sink_url)?;
    figures.push(measure("invar", arguments, subject, &sink));
    if let Some(binary) = &arguments.prometheus {
        let subject = Subject::prometheus(arguments, binary, directory.path(), &page_address, &sink_url)?;
        figures.push(measure("prometheus", arguments, subject, &sink));
    }
    if figures.iter().any(|figures| figures.samples == 0) {
        let logs = directory.keep();
        return Err(std::io::Error::other(format!(
            "a subject sent nothing; its log is in {}",
            logs.display()
        )));
    }
    Ok(figures)
}

fn measure(name: &'static str, arguments: &Arguments, subject: Process, sink: &Sink) -> Figures {
    std::thread::sleep(Duration::from_secs(arguments.warm_up));
    let counted =
        || [&sink.samples, &sink.requests, &sink.bytes].map(|counter| counter.load(Ordering::Relaxed));
    let (before, first) = (counted(), subject.usage());
    let mut resident = Vec::new();
    for _ in 0..arguments.seconds * 2 {
        std::thread::sleep(Duration::from_millis(500));
        resident.push(subject.usage().resident);
    }
    let (after, last) = (counted(), subject.usage());
    let samples = after[0] - before[0];
    Figures {
        name,
        processor: (last.processor - first.processor) * 1e6 / samples.max(1) as f64,
        resident: resident.iter().sum::<u64>() / resident.len().max(1) as u64,
        wire: (after[2] - before[2]) as f64 / samples.max(1) as f64,
        samples,
        requests: after[1] - before[1],
    }
}

fn print(arguments: &Arguments, figures: &[Figures]) {
    let offered =
        arguments.targets * arguments.series * arguments.seconds as usize / arguments.interval as usize;
    println!(
        "{:<12} {:>12} {:>12} {:>14} {:>10} {:>10}   offered {offered}",
        "", "us/sample", "RSS MiB", "wire B/sample", "samples", "requests"
    );
    for figure in figures {
        println!(
            "{:<12} {:>12.3} {:>12.1} {:>14.1} {:>10} {:>10}",
            figure.name,
            figure.processor,
            figure.resident as f64 / 1_048_576.0,
            figure.wire,
            figure.samples,
            figure.requests
        );
    }
    if let [ours, peer] = figures {
        println!(
            "{:<12} {:>12.3} {:>12.3} {:>14.3}",
            "ratio",
            ours.processor / peer.processor,
            ours.resident as f64 / peer.resident as f64,
            ours.wire / peer.wire
        );
    }
}

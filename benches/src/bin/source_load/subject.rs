//! The measured process: follows one source, and says what that took of it.

use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use invar_secrets::SecretStores;
use invar_sources::{
    GitSettings, HttpSettings, Poll, PollContext, Snapshot, Source, SourceEnvironment, SourceSettings,
};
use tokio_util::sync::CancellationToken;

/// Polls once from nothing and then so often without a change, and prints figures of both.
pub(crate) fn follow(address: &str, state: &Path, polls: usize) -> std::io::Result<()> {
    // A second installation in one process finds the first one, which is what is wanted.
    drop(rustls::crypto::ring::default_provider().install_default());
    let settings = if let Some(url) = address.strip_prefix("git+") {
        let (url, branch) = (url.to_owned(), Some("main".to_owned()));
        let git = GitSettings { url, branch, ..GitSettings::default() };
        SourceSettings { path: vec!["selected".to_owned()], ..SourceSettings::for_git(git) }
    } else if address.contains("://") {
        SourceSettings::for_http(HttpSettings { url: address.to_owned(), ..HttpSettings::default() })
    } else {
        SourceSettings::for_file(address)
    };
    let environment =
        SourceEnvironment { state_directory: state.to_path_buf(), secrets: SecretStores::local() };
    let source = invar_sources::open(&settings, &environment).map_err(std::io::Error::other)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    runtime.block_on(async {
        let (start, idle) = (Instant::now(), memory("VmRSS:"));
        let Poll::Changed(snapshot) = poll(source.as_ref(), None).await? else {
            return Err(std::io::Error::other("the first poll brings nothing"));
        };
        println!(
            "  first poll: {} files in {:.2} s, {:.0} ms of processor; memory {:.1} MiB before, {:.1} at its peak, {:.1} after",
            snapshot.files.len(),
            start.elapsed().as_secs_f64(),
            processor() * 1e3,
            idle,
            memory("VmHWM:"),
            memory("VmRSS:"),
        );
        let before = processor();
        for _ in 0..polls {
            if !matches!(poll(source.as_ref(), Some(&snapshot)).await?, Poll::Unchanged) {
                return Err(std::io::Error::other("something changed"));
            }
        }
        let each = (processor() - before) * 1e3 / polls.max(1) as f64;
        println!("  {polls} unchanged polls: {each:.3} ms of processor each, memory {:.1} MiB", memory("VmRSS:"));
        Ok(())
    })
}

async fn poll(source: &dyn Source, previous: Option<&Snapshot>) -> std::io::Result<Poll> {
    let context = PollContext {
        deadline: tokio::time::Instant::now() + Duration::from_secs(300),
        cancellation: CancellationToken::new(),
        now: SystemTime::now(),
    };
    source.poll(previous, &context).await.map_err(std::io::Error::other)
}

/// Processor time of this process so far, user and system, in seconds.
fn processor() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // Fields 14 and 15, in hundredths of a second; the name before them ends with the last parenthesis.
    let fields = stat.rsplit_once(") ").map_or("", |(_, rest)| rest).split(' ');
    fields.skip(11).take(2).filter_map(|field| field.parse::<f64>().ok()).sum::<f64>() / 100.0
}

/// A line of the process's status that is in KiB, in MiB.
fn memory(name: &str) -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
    line.split_whitespace().next().and_then(|number| number.parse::<f64>().ok()).unwrap_or(0.0) / 1024.0
}

//! What following a source costs: the first fetch of a Git repository with its peak of memory, unchanged polls of it over
//! HTTP, unchanged polls of a document over HTTP, and unchanged polls of a folder. The repository is behind the real
//! `git http-backend`, the document on a real nginx; what is measured is a process of its own that does nothing but poll.
//!
//!     source_load --files 100000 --selected 20 --polls 2000

#[path = "../../../../integration/servers/http/nginx.rs"]
#[allow(dead_code, unreachable_pub, missing_docs)]
mod nginx;
mod repository;
mod subject;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use clap::Parser;
use invar_integration::http_backend::HttpBackend;

use nginx::{Nginx, Special};

/// As in the agent.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Measure what following a source costs.
#[derive(Debug, Parser)]
struct Arguments {
    /// Files in the repository
    #[arg(long, default_value_t = 20)]
    files: usize,
    /// How many of them are in the folder that is selected
    #[arg(long, default_value_t = 20)]
    selected: usize,
    /// Unchanged polls that are measured
    #[arg(long, default_value_t = 2000)]
    polls: usize,
    /// Used by the driver itself: follow the source at this address
    #[arg(long, hide = true)]
    follow: Option<String>,
    /// Used by the driver itself: where the source keeps what it fetches
    #[arg(long, hide = true)]
    state: Option<PathBuf>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = match (&arguments.follow, &arguments.state) {
        (Some(address), Some(state)) => subject::follow(address, state, arguments.polls),
        _ => drive(&arguments),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("source_load: {error}");
            ExitCode::FAILURE
        }
    }
}

fn drive(arguments: &Arguments) -> std::io::Result<()> {
    let directory = tempfile::tempdir()?;
    let repository = directory.path().join("fleet.git");
    repository::make(&repository, arguments.files, arguments.selected)?;
    let server = HttpBackend::start(directory.path())?;
    println!("{} files in Git over HTTP, {} selected", arguments.files, arguments.selected);
    let address = format!("git+{}", server.url("fleet.git"));
    follow(arguments, &address, &directory.path().join("state"))?;
    println!("requests: {}", server.take_log().len());
    if nginx::is_available() {
        document(arguments, directory.path())?;
    }
    let folder = directory.path().join("folder");
    repository::fill(&folder, arguments.selected)?;
    println!("{} files in a folder", arguments.selected);
    follow(arguments, &folder.display().to_string(), &directory.path().join("state"))
}

/// A document that does not change.
fn document(arguments: &Arguments, directory: &Path) -> std::io::Result<()> {
    let server = Nginx::start(&directory.join("nginx"), &Special::default())?;
    let files: Vec<String> = (0..arguments.selected).map(repository::content).collect();
    server.publish("fleet.alloy", files.concat())?;
    println!("a document of {} bytes over HTTP", files.concat().len());
    follow(arguments, &server.url("/fleet.alloy"), &directory.join("state"))?;
    let served = server.served(arguments.polls + 1)?;
    let (whole, unchanged): (Vec<_>, Vec<_>) = served.iter().partition(|served| served.status == 200);
    let body: u64 = unchanged.iter().map(|served| served.bytes.1).sum();
    println!(
        "requests: {}, of them {} answered 304 with {body} bytes of body",
        whole.len() + unchanged.len(),
        unchanged.len()
    );
    Ok(())
}

/// Measures in a process of its own, on a processor of its own.
fn follow(arguments: &Arguments, address: &str, state: &Path) -> std::io::Result<()> {
    let status = Command::new("taskset")
        .args(["-c", "0"])
        .arg(std::env::current_exe()?)
        .args(["--follow", address, "--polls", &arguments.polls.to_string(), "--state"])
        .arg(state)
        .status()?;
    if status.success() { Ok(()) } else { Err(std::io::Error::other("the measured process failed")) }
}

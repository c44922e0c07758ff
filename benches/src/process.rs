//! A measured process: pinned to processor 0 with one worker thread, with the operating system's own account of it.

use std::fs::File;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// A running process; killed when dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
}

/// What the operating system says of a process.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// Processor time, user and system, in seconds.
    pub processor: f64,
    /// Resident memory in bytes.
    pub resident: u64,
}

/// The command, on processor 0 alone and with one worker thread.
#[must_use]
pub fn pinned(binary: &Path) -> Command {
    let mut command = Command::new("taskset");
    command.args(["-c", "0"]).arg(binary).env("TOKIO_WORKER_THREADS", "1");
    command
}

/// Serves a router of the driver's own, and gives its address.
///
/// # Errors
/// No port can be bound.
///
/// # Panics
/// When the server ends, which it does not.
pub fn serve(runtime: &tokio::runtime::Runtime, router: axum::Router) -> std::io::Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?.to_string();
    runtime.spawn(async move {
        let listener =
            tokio::net::TcpListener::from_std(listener).expect("the listener is bound and nonblocking");
        axum::serve(listener, router).await.expect("serving on a bound listener does not end");
    });
    Ok(address)
}

impl Process {
    /// Starts a command; what it prints goes to a file.
    ///
    /// # Errors
    /// The file or the process cannot be made.
    pub fn start(mut command: Command, log: &Path) -> std::io::Result<Self> {
        let log = File::create(log)?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        Ok(Self { child: command.spawn()? })
    }

    /// What the process has used so far.
    pub fn usage(&self) -> Usage {
        let process = self.child.id();
        let read =
            |name: &str| std::fs::read_to_string(format!("/proc/{process}/{name}")).unwrap_or_default();
        let stat = read("stat");
        // Fields 14 and 15; the name before them may contain spaces and ends with the last parenthesis.
        let fields: Vec<&str> = stat.rsplit_once(") ").map_or("", |(_, rest)| rest).split(' ').collect();
        let ticks: f64 = fields.iter().skip(11).take(2).filter_map(|field| field.parse::<f64>().ok()).sum();
        let status = read("status");
        let kilobytes: u64 = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .and_then(|rest| rest.split_whitespace().next()?.parse().ok())
            .unwrap_or(0);
        // The kernel counts in hundredths of a second on every platform this runs on.
        Usage { processor: ticks / 100.0, resident: kilobytes * 1024 }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Already gone is as good.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

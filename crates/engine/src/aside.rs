//! Keeping long computations from the runtime's workers, on which data flows: what belongs to the graph as a whole runs on a
//! thread of its own, what goes node by node gives way between nodes.

use std::time::{Duration, Instant};

/// How long a computation holds a worker before it gives way.
const LONGEST_HOLD: Duration = Duration::from_micros(500);

/// How much less urgent than data a long computation is, as `nice` counts. Where there is one processor, it would
/// otherwise hold up data as much from a thread of its own.
#[cfg(target_os = "linux")]
const LESS_URGENT: i32 = 10;

/// Runs a long computation beside the runtime's workers and after them, on a thread that gets what processor time
/// they leave. It goes on to its end if the future is dropped.
///
/// # Errors
/// The panic in it, if it panicked.
pub async fn compute_aside<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> std::thread::Result<T> {
    // The pool's threads do other things too, and a thread that became less urgent may not become more urgent again.
    let thread = move || {
        let builder = std::thread::Builder::new().name("invar-aside".to_owned());
        let spawned = builder.spawn(|| {
            // Where that is not allowed, it is as urgent as data.
            #[cfg(target_os = "linux")]
            let _niceness = rustix::process::nice(LESS_URGENT);
            work()
        });
        match spawned {
            Ok(thread) => thread.join(),
            Err(error) => Err(Box::new(format!("no thread can be started: {error}")) as _),
        }
    };
    joined(tokio::task::spawn_blocking(thread)).await?
}

/// Runs what waits for the disk or holds a lock beside the runtime's workers, as urgently as they run. It goes on to its end
/// if the future is dropped.
///
/// # Panics
/// If `work` does.
pub(crate) async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match joined(tokio::task::spawn_blocking(work)).await {
        Ok(value) => value,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

async fn joined<T>(task: tokio::task::JoinHandle<T>) -> std::thread::Result<T> {
    match task.await {
        Ok(value) => Ok(value),
        Err(error) => match error.try_into_panic() {
            Ok(panic) => Err(panic),
            // The runtime is being dropped, and what waits here with it.
            Err(_cancelled) => std::future::pending().await,
        },
    }
}

/// The pace of a computation of many short steps on a worker.
pub(crate) struct Pace {
    since: Instant,
}

impl Pace {
    pub(crate) fn new() -> Self {
        Self { since: Instant::now() }
    }

    /// Between two steps: gives way if the worker was held for long.
    pub(crate) async fn step(&mut self) {
        if self.since.elapsed() >= LONGEST_HOLD {
            tokio::task::yield_now().await;
            self.since = Instant::now();
        }
    }
}

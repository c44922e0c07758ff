//! Thousands of polls of each kind against its real server, every tenth of them met by a fault and every twentieth by a
//! change: memory, descriptors, threads, tasks and what is kept on disk stay flat.
//!
//! `INVAR_POLLS` says how many polls; `integration/run flat` asks for ten thousand.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)]

#[path = "../../../integration/servers/fault_proxy.rs"]
#[allow(dead_code, unreachable_pub)]
mod fault_proxy;
#[path = "../../../integration/servers/git/http_backend.rs"]
#[allow(dead_code, unreachable_pub, clippy::unwrap_used)]
mod http_backend;
#[path = "../../../integration/servers/http/nginx.rs"]
#[allow(dead_code, unreachable_pub)]
mod nginx;
#[path = "../../../integration/servers/oci/publisher.rs"]
#[allow(dead_code, unreachable_pub)]
mod publisher;
#[path = "../../../integration/servers/oci/registry.rs"]
#[allow(dead_code, unreachable_pub)]
mod registry;
#[path = "../../../integration/servers/git/sshd.rs"]
#[allow(dead_code, unreachable_pub)]
mod sshd;
#[path = "../../../integration/servers/versitygw/server.rs"]
#[allow(dead_code, unreachable_pub, missing_docs)]
mod versitygw;
#[path = "../../../integration/servers/versitygw/writer.rs"]
#[allow(unreachable_pub)]
mod writer;

mod file;
mod git;
mod http;
mod large;
mod oci;
mod s3;
mod ssh;
mod usage;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use invar_sources::{Poll, PollContext, Snapshot, Source, SourceError};
use tokio_util::sync::CancellationToken;

use fault_proxy::Fault;
use usage::Usage;

/// Polls of a plain run of the tests; a run for the record takes ten thousand.
const POLLS: usize = 1000;
/// What a poll that meets a fault is given.
const SHORT: Duration = Duration::from_millis(100);
/// What every other poll is given.
const LONG: Duration = Duration::from_secs(60);
/// How often a poll after a fault may find that the connection it kept is gone.
const ATTEMPTS: usize = 3;

/// What a source is led through.
trait Course {
    /// The source.
    fn source(&self) -> Arc<dyn Source>;

    /// Makes the next revision.
    fn change(&mut self);

    /// Lets the fault of this number begin; those that follow come round again.
    fn begin(&mut self, number: usize);

    /// Ends it.
    fn end(&mut self);

    /// What the source keeps on disk, in bytes.
    fn kept(&self) -> u64;
}

/// What servers that speak HTTP do in turn.
fn faults_of_http() -> Vec<Fault> {
    vec![
        Fault::Reset,
        Fault::status(500),
        Fault::Hang,
        Fault::Truncate,
        Fault::not_modified(),
        Fault::TooShort,
        Fault::HalfOpen,
        Fault::page(),
        Fault::Refuse,
        Fault::Drip(Duration::from_millis(10)),
        Fault::status(401),
        Fault::TooLong,
        Fault::status(403),
        Fault::status(404),
        Fault::status(408),
        Fault::status(412),
        Fault::status_with(429, "retry-after", "2"),
        Fault::status(503),
        Fault::SkewDate(24 * 60 * 60),
    ]
}

/// Does something that waits, from within what is waited for: on another thread.
fn aside(runtime: &tokio::runtime::Runtime, work: impl Future<Output = ()> + Send) {
    std::thread::scope(|scope| scope.spawn(|| runtime.block_on(work)).join()).unwrap();
}

/// How many polls ended how.
#[derive(Debug, Default)]
struct Tally {
    unchanged: usize,
    changed: usize,
    failed: usize,
}

async fn poll(
    source: &dyn Source,
    previous: Option<&Snapshot>,
    within: Duration,
) -> Result<Poll, SourceError> {
    let context = PollContext {
        deadline: tokio::time::Instant::now() + within,
        cancellation: CancellationToken::new(),
        now: SystemTime::now(),
    };
    source.poll(previous, &context).await
}

/// Polls so many times, and counts.
async fn lead(course: &mut dyn Course, previous: &mut Option<Snapshot>, polls: usize) -> Tally {
    let source = course.source();
    let mut tally = Tally::default();
    for number in 0..polls {
        if number % 10 == 9 {
            course.begin(number / 10);
            let outcome = poll(source.as_ref(), previous.as_ref(), SHORT).await;
            tally.failed += usize::from(outcome.is_err());
            course.end();
            continue;
        }
        if number % 20 == 0 {
            course.change();
        }
        let mut outcome = poll(source.as_ref(), previous.as_ref(), LONG).await;
        for _ in 1..ATTEMPTS {
            if outcome.is_err() {
                outcome = poll(source.as_ref(), previous.as_ref(), LONG).await;
            }
        }
        match outcome.unwrap() {
            Poll::Unchanged => tally.unchanged += 1,
            Poll::Changed(snapshot) => {
                tally.changed += 1;
                *previous = Some(*snapshot);
            }
        }
    }
    tally
}

/// Leads a source through its course, and compares what the process uses after a tenth of it and at its end.
fn stays_flat(name: &str, make: impl FnOnce() -> Box<dyn Course>) {
    let polls = std::env::var("INVAR_POLLS").ok().map_or(POLLS, |polls| polls.parse().unwrap());
    stays_flat_over(name, polls, make);
}

fn stays_flat_over(name: &str, polls: usize, make: impl FnOnce() -> Box<dyn Course>) {
    let _alone = usage::alone();
    // Threads that nobody needs end at once, so that those that stay are seen.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_keep_alive(Duration::from_millis(200))
        .enable_all()
        .build()
        .unwrap();
    let mut course = make();
    let (mut previous, mut tally) = (None, Tally::default());
    let (before, after) = runtime.block_on(async {
        lead(course.as_mut(), &mut previous, polls / 10).await;
        let before = Usage::at_rest(None).await;
        let kept = course.kept();
        tally = lead(course.as_mut(), &mut previous, polls).await;
        let after = Usage::at_rest(Some(&before)).await;
        ((before, kept), (after, course.kept()))
    });
    eprintln!("{name}: {tally:?}\n  before {before:?}\n  after  {after:?}");
    assert_eq!(tally.changed, polls / 20, "every change is seen: {tally:?}");
    assert!(tally.failed >= polls / 20, "most faults are met: {tally:?}");
    after.0.is_like(&before.0);
    // What is kept grows with every change until it is made afresh.
    assert!(after.1 < before.1 + (16 << 20), "kept on disk: {} bytes, then {}", before.1, after.1);
}

#[test]
fn git_over_http() {
    if !http_backend::is_available() {
        assert!(std::env::var_os("INVAR_REQUIRE_SERVERS").is_none(), "git is missing");
        eprintln!("skipped: git with http-backend is not installed");
        return;
    }
    stays_flat("git over http", || Box::new(git::Http::start()));
}

#[test]
fn files() {
    stays_flat("files", || Box::new(file::Folder::start()));
}

#[test]
fn documents() {
    if nginx::is_available() {
        stays_flat("http", || Box::new(http::Document::start()));
    }
}

#[test]
fn buckets() {
    if versitygw::Versitygw::is_available() {
        stays_flat("s3", || Box::new(s3::Bucket::start().unwrap()));
    }
}

#[test]
fn artifacts() {
    if registry::is_available() {
        stays_flat("oci", || Box::new(oci::Artifact::start()));
    }
}

#[test]
fn git_over_ssh() {
    if !sshd::is_available() {
        assert!(std::env::var_os("INVAR_REQUIRE_SERVERS").is_none(), "sshd is missing");
        eprintln!("skipped: sshd, ssh-keygen and git are not installed");
        return;
    }
    // Each poll logs in, which takes as long as many polls of other kinds.
    let polls = std::env::var("INVAR_POLLS").ok().map_or(POLLS, |polls| polls.parse().unwrap()) / 5;
    stays_flat_over("git over ssh", polls, || Box::new(ssh::Ssh::start()));
}

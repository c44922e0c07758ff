//! The Git source against real repositories, most of them behind the real `git http-backend`.

#![allow(clippy::unwrap_used)]

#[path = "../../../integration/servers/git/http_backend.rs"]
#[allow(dead_code, unreachable_pub, clippy::unwrap_used)]
mod http_backend;
#[path = "../../../integration/servers/git/repository.rs"]
#[allow(dead_code, unreachable_pub)]
mod repository;
#[cfg(unix)]
#[path = "../../../integration/servers/git/sshd.rs"]
#[allow(dead_code, unreachable_pub)]
mod sshd;

mod access;
mod connections;
mod edges;
mod faults;
mod github_app;
mod history;
mod hostile;
mod modules;
mod pins;
mod proxy;
mod reading;
mod references;
mod signatures;
#[cfg(unix)]
mod ssh;
mod submodules;

use std::path::Path;
use std::time::{Duration, SystemTime};

use http_backend::HttpBackend;
use invar_secrets::SecretStores;
use invar_sources::{
    ErrorClass, GitSettings, GitSource, NoticeKind, Poll, PollContext, Rejection, Snapshot, Source,
    SourceEnvironment, SourceError, SourceSettings,
};
use repository::TestRepository;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

/// A repository behind a server, and a place for the agent's state.
pub(crate) struct World {
    pub(crate) folder: TempDir,
    pub(crate) repository: TestRepository,
    pub(crate) server: HttpBackend,
}

/// Says that a test cannot run here; an error where all servers have to be there.
pub(crate) fn skipped(why: &str) {
    assert!(std::env::var_os("INVAR_REQUIRE_SERVERS").is_none(), "{why}");
    eprintln!("skipped: {why}");
}

/// `None`, with a note, where `git` is not installed.
pub(crate) fn world() -> Option<World> {
    if !http_backend::is_available() {
        skipped("git with http-backend is not installed");
        return None;
    }
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("repositories");
    std::fs::create_dir_all(&root).unwrap();
    let repository = TestRepository::create(&root, "fleet.git");
    let server = HttpBackend::start(&root).unwrap();
    Some(World { folder, repository, server })
}

impl World {
    pub(crate) fn environment(&self) -> SourceEnvironment {
        SourceEnvironment {
            state_directory: self.folder.path().join("state"),
            secrets: SecretStores::local(),
        }
    }

    /// Settings for branch `main` over HTTP.
    pub(crate) fn settings(&self) -> SourceSettings {
        SourceSettings {
            name: Some("platform".to_owned()),
            ..SourceSettings::for_git(GitSettings {
                url: self.server.url("fleet.git"),
                branch: Some("main".to_owned()),
                ..GitSettings::default()
            })
        }
    }

    pub(crate) fn with_git(&self, change: impl FnOnce(&mut GitSettings)) -> GitSource {
        let mut settings = self.settings();
        change(settings.git.as_mut().unwrap());
        self.open(&settings)
    }

    pub(crate) fn open(&self, settings: &SourceSettings) -> GitSource {
        GitSource::open(settings, &self.environment()).unwrap()
    }

    pub(crate) fn source(&self) -> GitSource {
        self.open(&self.settings())
    }

    /// The folders of clones below the state.
    pub(crate) fn clones(&self) -> Vec<std::path::PathBuf> {
        let folder = self.folder.path().join("state/git");
        std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
    }
}

pub(crate) fn context() -> PollContext {
    PollContext {
        deadline: tokio::time::Instant::now() + Duration::from_secs(60),
        cancellation: CancellationToken::new(),
        now: SystemTime::UNIX_EPOCH,
    }
}

pub(crate) async fn poll(
    source: &GitSource,
    previous: Option<&Snapshot>,
) -> Result<Option<Snapshot>, SourceError> {
    Ok(match source.poll(previous, &context()).await? {
        Poll::Unchanged => None,
        Poll::Changed(snapshot) => Some(*snapshot),
    })
}

pub(crate) async fn changed(source: &GitSource, previous: Option<&Snapshot>) -> Snapshot {
    poll(source, previous).await.unwrap().expect("there is something new")
}

pub(crate) async fn failed(source: &GitSource, previous: Option<&Snapshot>) -> SourceError {
    poll(source, previous).await.expect_err("the poll fails")
}

pub(crate) fn paths(snapshot: &Snapshot) -> Vec<&str> {
    snapshot.files.keys().map(String::as_str).collect()
}

#[tokio::test]
async fn a_clone_takes_three_requests_an_unchanged_poll_one_and_a_change_two() {
    let Some(world) = world() else { return };
    let one =
        world.repository.commit("Say one\n\nAt length.", &[("base/a.alloy", "one"), ("README.md", "x")]);
    let source = world.source();
    let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
    assert_eq!((source.timeout(true), source.timeout(false)), (minutes(5), minutes(1)));
    let first = changed(&source, None).await;
    assert_eq!(first.revision.text, format!("main@sha1:{one}"));
    assert_eq!(first.revision.commit.as_deref(), Some(one.as_str()));
    assert_eq!(paths(&first), ["README.md", "base/a.alloy"]);
    assert_eq!(first.files["base/a.alloy"], "one");
    assert_eq!(first.author.as_deref(), Some("Ada <ada@example.com>"));
    assert_eq!(first.subject.as_deref(), Some("Say one"));
    assert_eq!(first.committed_at, Some(SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_060)));
    assert!(first.notices.is_empty(), "{:?}", first.notices);
    assert_eq!(world.server.take_log().len(), 3);

    for _ in 0..3 {
        assert_eq!(poll(&source, Some(&first)).await.unwrap(), None);
        let log = world.server.take_log();
        assert_eq!(log.len(), 1);
        assert!(log[0].says("command=ls-refs") && log[0].says("ref-prefix refs/heads/main"));
    }

    let two = world.repository.commit("Say two", &[("base/a.alloy", "two")]);
    let second = changed(&source, Some(&first)).await;
    assert_eq!(second.revision.text, format!("main@sha1:{two}"));
    assert_eq!(second.files["base/a.alloy"], "two");
    assert_eq!(second.files["README.md"], "x");
    assert_ne!(second.digest, first.digest);
    let log = world.server.take_log();
    assert_eq!(log.len(), 2);
    assert!(log[1].says("deepen 1") && log[1].says(&format!("have {one}")), "a fetch is a difference");
    assert_eq!(world.clones().len(), 1);
}

#[tokio::test]
async fn a_snapshot_of_an_earlier_run_needs_no_clone() {
    let Some(world) = world() else { return };
    world.repository.commit("One", &[("a.alloy", "one")]);
    let first = changed(&world.source(), None).await;
    world.server.take_log();
    let restarted = world.source();
    assert_eq!(poll(&restarted, Some(&first)).await.unwrap(), None);
    assert_eq!(world.server.take_log().len(), 2, "the advertisement is asked for once more");
    // Even with another selection the objects are there already.
    let settings = SourceSettings { path: vec![".".to_owned()], ..world.settings() };
    let mut other = settings.clone();
    other.limits.files = 17;
    let again = changed(&world.open(&other), Some(&first)).await;
    assert_eq!(again.digest, first.digest);
    assert!(world.server.take_log().iter().all(|request| !request.says("command=fetch")));
}

#[tokio::test]
async fn servers_that_know_only_the_old_protocol_are_read_as_well() {
    let Some(world) = world() else { return };
    world.server.set_old_protocol(true);
    world.repository.commit("One", &[("a.alloy", "one")]);
    let source = world.source();
    let first = changed(&source, None).await;
    assert_eq!(poll(&source, Some(&first)).await.unwrap(), None);
    world.repository.commit("Two", &[("a.alloy", "two")]);
    let second = changed(&source, Some(&first)).await;
    assert_eq!(second.files["a.alloy"], "two");
    assert!(second.notices.is_empty(), "{:?}", second.notices);
}

#[tokio::test]
async fn local_repositories_are_read_by_address_and_path() {
    let Some(world) = world() else { return };
    let one = world.repository.commit("One", &[("a.alloy", "one")]);
    let path = world.repository.path().to_str().unwrap().to_owned();
    for url in [path.clone(), format!("file://{path}")] {
        let source = world.with_git(|git| git.url.clone_from(&url));
        let first = changed(&source, None).await;
        assert_eq!(first.revision.commit.as_deref(), Some(one.as_str()));
        assert_eq!(poll(&source, Some(&first)).await.unwrap(), None);
        let head = world.with_git(|git| {
            git.url.clone_from(&url);
            git.branch = None;
        });
        assert_eq!(changed(&head, None).await.revision.text, format!("HEAD@sha1:{one}"));
        let pinned = world.with_git(|git| {
            git.url.clone_from(&url);
            git.commit = Some(one.clone());
        });
        assert_eq!(changed(&pinned, None).await.digest, first.digest);
    }
    assert!(world.server.take_log().is_empty());
    let missing = world.with_git(|git| git.url = Path::new(&path).join("no").to_str().unwrap().to_owned());
    assert_eq!(failed(&missing, None).await.class, ErrorClass::NotFound);
}

#[tokio::test]
async fn a_refused_commit_is_not_fetched_again() {
    let Some(world) = world() else { return };
    world.repository.commit("Large", &[("a.alloy", "0123456789")]);
    let mut settings = world.settings();
    settings.limits.file = 5;
    let source = world.open(&settings);
    let error = failed(&source, None).await;
    assert_eq!(error.class, ErrorClass::Rejected(Rejection::Limits));
    world.server.take_log();
    assert_eq!(failed(&source, None).await, error);
    assert_eq!(world.server.take_log().len(), 1);
    world.repository.commit("Small", &[("a.alloy", "01")]);
    assert_eq!(changed(&source, None).await.size(), 2);
}

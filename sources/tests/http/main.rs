//! The HTTP source against a real nginx, and against a scripted server for what nginx cannot be made to do.

#![allow(clippy::unwrap_used)]

#[path = "../../../integration/servers/http/nginx.rs"]
#[allow(dead_code, unreachable_pub)]
mod nginx;
#[path = "../../../integration/servers/http/scripted.rs"]
#[allow(dead_code, unreachable_pub)]
mod scripted;

mod access;
mod classes;
mod conditional;
mod integrity;
mod limits;
mod redirects;
mod shape;
mod signatures;

use std::time::{Duration, SystemTime};

use invar_secrets::{Credential, Secret, SecretStores};
use invar_sources::{
    ErrorClass, HttpSettings, HttpSource, Poll, PollContext, Rejection, Snapshot, Source, SourceEnvironment,
    SourceError, SourceSettings,
};
use nginx::{Nginx, Special};
use scripted::{Reply, Scripted};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

pub(crate) const CONTENT: &str = "logging { level = \"debug\" }\n";
pub(crate) const OTHER: &str = "logging { level = \"info\" }\n";
/// Nothing that is shown may hold it.
pub(crate) const MARKER: &str = "hunter2-hunter2";

/// A place for the agent's state.
pub(crate) struct World {
    pub(crate) folder: TempDir,
}

pub(crate) fn world() -> World {
    World { folder: tempfile::tempdir().unwrap() }
}

impl World {
    pub(crate) fn environment(&self) -> SourceEnvironment {
        SourceEnvironment {
            state_directory: self.folder.path().join("state"),
            secrets: SecretStores::local(),
        }
    }

    pub(crate) fn open(&self, settings: &SourceSettings) -> HttpSource {
        HttpSource::open(settings, &self.environment()).unwrap()
    }

    pub(crate) fn at(&self, url: &str) -> HttpSource {
        self.open(&settings(url))
    }

    pub(crate) fn with(&self, url: &str, change: impl FnOnce(&mut HttpSettings)) -> HttpSource {
        let mut settings = settings(url);
        change(settings.http.as_mut().unwrap());
        self.open(&settings)
    }

    /// The files of documents that are kept.
    pub(crate) fn kept(&self) -> Vec<std::path::PathBuf> {
        let folder = self.folder.path().join("state/http");
        std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
    }
}

pub(crate) fn settings(url: &str) -> SourceSettings {
    SourceSettings {
        name: Some("fleet".to_owned()),
        ..SourceSettings::for_http(HttpSettings { url: url.to_owned(), ..HttpSettings::default() })
    }
}

pub(crate) fn text(secret: &str) -> Credential {
    Credential::Text(Secret::new(secret))
}

pub(crate) fn context() -> PollContext {
    within(Duration::from_secs(30))
}

pub(crate) fn within(time: Duration) -> PollContext {
    PollContext {
        deadline: tokio::time::Instant::now() + time,
        cancellation: CancellationToken::new(),
        now: SystemTime::UNIX_EPOCH,
    }
}

pub(crate) async fn poll(
    source: &HttpSource,
    previous: Option<&Snapshot>,
) -> Result<Option<Snapshot>, SourceError> {
    Ok(match source.poll(previous, &context()).await? {
        Poll::Unchanged => None,
        Poll::Changed(snapshot) => Some(*snapshot),
    })
}

pub(crate) async fn changed(source: &HttpSource, previous: Option<&Snapshot>) -> Snapshot {
    poll(source, previous).await.unwrap().expect("there is something new")
}

pub(crate) async fn failed(source: &HttpSource, previous: Option<&Snapshot>) -> SourceError {
    poll(source, previous).await.expect_err("the poll fails")
}

/// nginx with one document in it.
pub(crate) fn nginx(world: &World, special: &Special<'_>) -> Option<Nginx> {
    if !nginx::is_available() {
        return None;
    }
    let server = Nginx::start(&world.folder.path().join("nginx"), special).unwrap();
    server.publish("fleet.alloy", CONTENT).unwrap();
    Some(server)
}

pub(crate) fn shape() -> ErrorClass {
    ErrorClass::Rejected(Rejection::Shape)
}

//! The OCI source against a real registry, and against a scripted server for what a real one cannot be made to do.

#![allow(clippy::unwrap_used)]

#[path = "../../../integration/servers/oci/publisher.rs"]
#[allow(dead_code, unreachable_pub)]
mod publish;
#[path = "../../../integration/servers/oci/registry.rs"]
#[allow(dead_code, unreachable_pub)]
mod registry;
#[path = "../../../integration/servers/http/scripted.rs"]
#[allow(dead_code, unreachable_pub)]
mod scripted;

mod access;
mod artifacts;
mod faults;
mod signatures;

use std::path::Path;
use std::time::{Duration, SystemTime};

use invar_secrets::{Credential, Secret, SecretStores};
use invar_sources::{
    ErrorClass, OciSettings, OciSource, Poll, PollContext, Rejection, Snapshot, Source, SourceEnvironment,
    SourceError, SourceSettings,
};
use publish::{Publisher, archive};
use registry::{DockerRegistry, Special};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

/// Nothing that is shown may hold it.
pub(crate) const MARKER: &str = "hunter2-hunter2";

/// A registry and who publishes to it.
pub(crate) struct World {
    pub(crate) folder: TempDir,
    pub(crate) registry: DockerRegistry,
    pub(crate) publisher: Publisher,
}

/// `None`, with a note, where no registry is installed.
pub(crate) fn world() -> Option<World> {
    if !registry::is_available() {
        return None;
    }
    let folder = tempfile::tempdir().unwrap();
    let registry = DockerRegistry::start(&folder.path().join("registry"), &Special::default()).unwrap();
    let publisher = Publisher::new(&format!("http://{}", registry.host()), "obs/fleet");
    Some(World { folder, registry, publisher })
}

impl World {
    pub(crate) fn settings(&self) -> SourceSettings {
        settings(&format!("{}/obs/fleet", self.registry.host()))
    }

    pub(crate) fn with(&self, change: impl FnOnce(&mut SourceSettings)) -> OciSource {
        let mut settings = self.settings();
        change(&mut settings);
        open(self.folder.path(), &settings)
    }

    pub(crate) fn tagged(&self, tag: &str) -> OciSource {
        self.with(|settings| settings.oci.as_mut().unwrap().tag = Some(tag.to_owned()))
    }
}

pub(crate) fn settings(repository: &str) -> SourceSettings {
    SourceSettings {
        name: Some("fleet".to_owned()),
        ..SourceSettings::for_oci(OciSettings { repository: repository.to_owned(), ..OciSettings::default() })
    }
}

pub(crate) fn open(folder: &Path, settings: &SourceSettings) -> OciSource {
    let environment =
        SourceEnvironment { state_directory: folder.join("state"), secrets: SecretStores::local() };
    OciSource::open(settings, &environment).unwrap()
}

pub(crate) fn text(secret: &str) -> Credential {
    Credential::Text(Secret::new(secret))
}

pub(crate) fn context() -> PollContext {
    PollContext {
        deadline: tokio::time::Instant::now() + Duration::from_secs(30),
        cancellation: CancellationToken::new(),
        now: SystemTime::UNIX_EPOCH,
    }
}

pub(crate) async fn poll(
    source: &OciSource,
    previous: Option<&Snapshot>,
) -> Result<Option<Snapshot>, SourceError> {
    Ok(match source.poll(previous, &context()).await? {
        Poll::Unchanged => None,
        Poll::Changed(snapshot) => Some(*snapshot),
    })
}

pub(crate) async fn changed(source: &OciSource, previous: Option<&Snapshot>) -> Snapshot {
    poll(source, previous).await.unwrap().expect("there is something new")
}

pub(crate) async fn failed(source: &OciSource, previous: Option<&Snapshot>) -> SourceError {
    poll(source, previous).await.expect_err("the poll fails")
}

pub(crate) fn shape() -> ErrorClass {
    ErrorClass::Rejected(Rejection::Shape)
}

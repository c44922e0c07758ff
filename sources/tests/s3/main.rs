//! The S3 source against a real server; what no server can be made to do on request is done by a proxy before it.

#![allow(clippy::unwrap_used)]

#[path = "../../../integration/servers/versitygw/server.rs"]
#[allow(dead_code, unreachable_pub, missing_docs)]
mod server;
#[path = "../../../integration/servers/versitygw/writer.rs"]
#[allow(unreachable_pub)]
mod writer;

mod access;
mod credentials;
mod faults;
mod manifest;
mod object;
mod prefix;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_sdk_s3::types::{BucketVersioningStatus, VersioningConfiguration};
use invar_secrets::{Credential, Secret, SecretStores};
use invar_sources::{
    AuthSettings, AwsSettings, ErrorClass, Poll, PollContext, Rejection, S3Settings, S3Source, Snapshot,
    Source, SourceEnvironment, SourceError, SourceSettings,
};
use server::{ACCESS_KEY, FaultProxy, SECRET_KEY, Versitygw};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

pub(crate) const BUCKET: &str = "fleet";

/// A bucket on a server, a proxy before it, and a place for the agent's state.
pub(crate) struct World {
    pub(crate) folder: TempDir,
    pub(crate) proxy: FaultProxy,
    pub(crate) client: aws_sdk_s3::Client,
    _server: Versitygw,
}

impl World {
    /// `None`, with a note, where the server is not built.
    pub(crate) async fn start() -> Option<Arc<Self>> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().to_owned();
        let server = tokio::task::spawn_blocking(move || Versitygw::start(&path, None)).await.unwrap()?;
        let client = writer::writer(&format!("http://{}", server.address()), ACCESS_KEY, SECRET_KEY);
        client.create_bucket().bucket(BUCKET).send().await.unwrap();
        let proxy = FaultProxy::start(server.address()).unwrap();
        Some(Arc::new(Self { folder, proxy, client, _server: server }))
    }

    pub(crate) async fn put(&self, key: &str, content: &str) {
        let body = content.as_bytes().to_vec().into();
        self.client.put_object().bucket(BUCKET).key(key).body(body).send().await.unwrap();
    }

    pub(crate) async fn delete(&self, key: &str) {
        self.client.delete_object().bucket(BUCKET).key(key).send().await.unwrap();
    }

    pub(crate) async fn keep_versions(&self) {
        let status = VersioningConfiguration::builder().status(BucketVersioningStatus::Enabled).build();
        let request = self.client.put_bucket_versioning().bucket(BUCKET);
        request.versioning_configuration(status).send().await.unwrap();
    }

    pub(crate) fn environment(&self) -> SourceEnvironment {
        environment(self.folder.path())
    }

    /// Settings that reach the bucket through the proxy.
    pub(crate) fn settings(&self, change: impl FnOnce(&mut S3Settings)) -> SourceSettings {
        let mut s3 = S3Settings {
            bucket: BUCKET.to_owned(),
            endpoint: Some(self.proxy.url()),
            region: Some("us-east-1".to_owned()),
            ..S3Settings::default()
        };
        change(&mut s3);
        let mut settings = SourceSettings::for_s3(s3);
        settings.name = Some("s3".to_owned());
        settings.auth = Some(aws(keys()));
        settings
    }

    pub(crate) fn prefix(&self, prefix: &str) -> SourceSettings {
        self.settings(|s3| s3.prefix = Some(prefix.to_owned()))
    }

    pub(crate) fn open(&self, settings: &SourceSettings) -> S3Source {
        S3Source::open(settings, &self.environment()).unwrap()
    }

    /// Lets a script, which runs on a thread of the proxy, do something to the bucket.
    pub(crate) fn blocking(self: &Arc<Self>) -> impl Fn(Change) + Send + 'static {
        let (world, runtime) = (Arc::downgrade(self), tokio::runtime::Handle::current());
        move |change| {
            let Some(world) = world.upgrade() else { return };
            runtime.block_on(async {
                match change {
                    Change::Put(key, content) => world.put(&key, &content).await,
                    Change::Delete(key) => world.delete(&key).await,
                }
            });
        }
    }
}

/// What a script does to the bucket.
pub(crate) enum Change {
    Put(String, String),
    Delete(String),
}

pub(crate) fn environment(folder: &Path) -> SourceEnvironment {
    SourceEnvironment { state_directory: folder.join("state"), secrets: SecretStores::default() }
}

pub(crate) fn secret(text: &str) -> Credential {
    Credential::Text(Secret::new(text))
}

pub(crate) fn keys() -> AwsSettings {
    AwsSettings {
        access_key: Some(ACCESS_KEY.to_owned()),
        secret_key: Some(secret(SECRET_KEY)),
        ..AwsSettings::default()
    }
}

pub(crate) fn aws(aws: AwsSettings) -> AuthSettings {
    AuthSettings { aws: Some(aws), ..AuthSettings::default() }
}

pub(crate) fn context(seconds: u64) -> PollContext {
    PollContext {
        deadline: tokio::time::Instant::now() + Duration::from_secs(seconds),
        cancellation: CancellationToken::new(),
        now: SystemTime::now(),
    }
}

pub(crate) async fn poll(source: &S3Source, previous: Option<&Snapshot>) -> Result<Poll, SourceError> {
    source.poll(previous, &context(60)).await
}

pub(crate) async fn changed(source: &S3Source, previous: Option<&Snapshot>) -> Snapshot {
    match poll(source, previous).await.unwrap() {
        Poll::Changed(snapshot) => *snapshot,
        Poll::Unchanged => panic!("nothing changed"),
    }
}

pub(crate) async fn unchanged(source: &S3Source, previous: &Snapshot) {
    let poll = poll(source, Some(previous)).await.unwrap();
    assert!(matches!(poll, Poll::Unchanged), "{poll:?}");
}

pub(crate) async fn refused(source: &S3Source, previous: Option<&Snapshot>) -> SourceError {
    let error = poll(source, previous).await.expect_err("it is refused");
    assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
    error
}

pub(crate) fn rejected(error: &SourceError, rejection: Rejection, part: &str) {
    assert_eq!(error.class, ErrorClass::Rejected(rejection), "{error}");
    assert!(error.message.contains(part), "{part:?} in {error}");
}

/// Names and contents.
pub(crate) fn files(snapshot: &Snapshot) -> Vec<(&str, &str)> {
    snapshot
        .files
        .iter()
        .map(|(name, content)| (name.as_str(), std::str::from_utf8(content).unwrap()))
        .collect()
}

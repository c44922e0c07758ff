//! S3: the objects below a prefix of a real versitygw, one of which is replaced, behind the proxy.

use std::sync::Arc;

use invar_secrets::{Credential, Secret, SecretStores};
use invar_sources::{
    AuthSettings, AwsSettings, S3Settings, S3Source, Source, SourceEnvironment, SourceSettings,
};

use super::{Course, aside, faults_of_http};
use crate::fault_proxy::{FaultProxy, Protocol};
use crate::git::size_of;
use crate::versitygw::{ACCESS_KEY, SECRET_KEY, Versitygw};
use crate::writer::writer;

const BUCKET: &str = "fleet";

pub(crate) struct Bucket {
    source: Arc<S3Source>,
    proxy: FaultProxy,
    client: aws_sdk_s3::Client,
    runtime: tokio::runtime::Runtime,
    step: usize,
    folder: tempfile::TempDir,
    _server: Versitygw,
}

impl Bucket {
    /// `None`, with a note, where the server is not built.
    pub(crate) fn start() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let server = Versitygw::start(folder.path(), None)?;
        let client = writer(&format!("http://{}", server.address()), ACCESS_KEY, SECRET_KEY);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(client.create_bucket().bucket(BUCKET).send()).unwrap();
        let proxy = FaultProxy::start(server.address(), Protocol::Http).unwrap();
        let mut settings = SourceSettings::for_s3(S3Settings {
            bucket: BUCKET.to_owned(),
            prefix: Some("production".to_owned()),
            endpoint: Some(format!("http://{}", proxy.address())),
            region: Some("us-east-1".to_owned()),
            ..S3Settings::default()
        });
        let keys = AwsSettings {
            access_key: Some(ACCESS_KEY.to_owned()),
            secret_key: Some(Credential::Text(Secret::new(SECRET_KEY))),
            ..AwsSettings::default()
        };
        settings.auth = Some(AuthSettings { aws: Some(keys), ..AuthSettings::default() });
        let environment = SourceEnvironment {
            state_directory: folder.path().join("state"),
            secrets: SecretStores::local(),
        };
        let source = Arc::new(S3Source::open(&settings, &environment).unwrap());
        Some(Self { source, proxy, client, runtime, step: 0, folder, _server: server })
    }
}

impl Course for Bucket {
    fn source(&self) -> Arc<dyn Source> {
        Arc::clone(&self.source) as Arc<dyn Source>
    }

    fn change(&mut self) {
        self.step += 1;
        let put = self.client.put_object().bucket(BUCKET).key("production/main.alloy");
        let put = put.body(format!("// step {}\n", self.step).into_bytes().into());
        aside(&self.runtime, async { put.send().await.map(drop).unwrap() });
    }

    fn begin(&mut self, number: usize) {
        let faults = faults_of_http();
        self.proxy.fail(faults[number % faults.len()].clone());
    }

    fn end(&mut self) {
        self.proxy.heal().unwrap();
    }

    fn kept(&self) -> u64 {
        size_of(&self.folder.path().join("state"))
    }
}

//! OCI: a tag of a real registry that is moved from artifact to artifact, behind the proxy.

use std::sync::Arc;

use invar_secrets::SecretStores;
use invar_sources::{OciSettings, OciSource, Source, SourceEnvironment, SourceSettings};

use super::{Course, aside, faults_of_http};
use crate::fault_proxy::{FaultProxy, Protocol};
use crate::git::size_of;
use crate::publisher::Publisher;
use crate::registry::{DockerRegistry, Special};

pub(crate) struct Artifact {
    source: Arc<OciSource>,
    proxy: FaultProxy,
    publisher: Publisher,
    runtime: tokio::runtime::Runtime,
    step: usize,
    folder: tempfile::TempDir,
    _server: DockerRegistry,
}

impl Artifact {
    pub(crate) fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let server = DockerRegistry::start(&folder.path().join("registry"), &Special::default()).unwrap();
        let publisher = Publisher::new(&format!("http://{}", server.address()), "obs/fleet");
        let proxy = FaultProxy::start(server.address(), Protocol::Http).unwrap();
        let settings = SourceSettings::for_oci(OciSettings {
            repository: format!("{}/obs/fleet", proxy.address()),
            ..OciSettings::default()
        });
        let environment = SourceEnvironment {
            state_directory: folder.path().join("state"),
            secrets: SecretStores::local(),
        };
        let source = Arc::new(OciSource::open(&settings, &environment).unwrap());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        Self { source, proxy, publisher, runtime, step: 0, folder, _server: server }
    }
}

impl Course for Artifact {
    fn source(&self) -> Arc<dyn Source> {
        Arc::clone(&self.source) as Arc<dyn Source>
    }

    fn change(&mut self) {
        self.step += 1;
        let content = format!("// step {}\n", self.step);
        let publisher = &self.publisher;
        aside(&self.runtime, async { drop(publisher.push("latest", &[("main.alloy", &content)]).await) });
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

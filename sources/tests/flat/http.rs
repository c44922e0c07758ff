//! HTTP: one document on a real nginx that compresses, behind the proxy.

use std::sync::Arc;

use invar_secrets::SecretStores;
use invar_sources::{HttpSettings, HttpSource, Source, SourceEnvironment, SourceSettings};

use super::{Course, faults_of_http};
use crate::fault_proxy::{FaultProxy, Protocol};
use crate::git::size_of;
use crate::nginx::{Nginx, Special};

/// Lengths of documents, so that two in the same second differ in what nginx makes their tags of.
const LENGTHS: usize = 1000;

pub(crate) struct Document {
    source: Arc<HttpSource>,
    proxy: FaultProxy,
    server: Nginx,
    step: usize,
    folder: tempfile::TempDir,
}

impl Document {
    pub(crate) fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let special = Special { directives: "gzip on;", ..Special::default() };
        let server = Nginx::start(&folder.path().join("nginx"), &special).unwrap();
        let proxy = FaultProxy::start(server.address(), Protocol::Http).unwrap();
        let settings = SourceSettings::for_http(HttpSettings {
            url: format!("http://{}/main.alloy", proxy.address()),
            ..HttpSettings::default()
        });
        let environment = SourceEnvironment {
            state_directory: folder.path().join("state"),
            secrets: SecretStores::local(),
        };
        let source = Arc::new(HttpSource::open(&settings, &environment).unwrap());
        Self { source, proxy, server, step: 0, folder }
    }
}

impl Course for Document {
    fn source(&self) -> Arc<dyn Source> {
        Arc::clone(&self.source) as Arc<dyn Source>
    }

    fn change(&mut self) {
        self.step += 1;
        let content = format!("// step {}\n// {}\n", self.step, "x".repeat(self.step % LENGTHS));
        self.server.publish("main.alloy", content).unwrap();
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

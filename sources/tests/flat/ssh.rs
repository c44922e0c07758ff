//! Git over SSH: a branch that moves along a chain of commits, behind a real `sshd` and the proxy.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use invar_secrets::{Credential, SecretStores};
use invar_sources::{
    AuthSettings, GitSettings, GitSource, Source, SourceEnvironment, SourceSettings, SshSettings,
};

use super::Course;
use crate::fault_proxy::{Fault, FaultProxy, Protocol};
use crate::git::{chain, git, move_branch, size_of};
use crate::sshd::{self, Sshd, SshdOptions, generate_key};

/// In the middle of the algorithms that the server offers.
const EARLY: usize = 600;

pub(crate) struct Ssh {
    source: Arc<GitSource>,
    proxy: FaultProxy,
    commits: Vec<String>,
    step: usize,
    repository: PathBuf,
    folder: tempfile::TempDir,
    _server: Sshd,
}

impl Ssh {
    pub(crate) fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let repository = folder.path().join("fleet.git");
        std::fs::create_dir_all(&repository).unwrap();
        git(&repository, &["init", "-q", "--bare", "-b", "main", "."], "");
        git(&repository, &["config", "uploadpack.allowFilter", "true"], "");
        git(&repository, &["fast-import", "--quiet"], &chain());
        let commits = git(&repository, &["rev-list", "--reverse", "refs/hidden/steps"], "");
        let commits = commits.lines().map(str::to_owned).collect();
        let server = Sshd::start(&folder.path().join("sshd"), &SshdOptions::default()).unwrap();
        let key = folder.path().join("key");
        generate_key(&key, "ed25519", "");
        server.admit(&key);
        let proxy = FaultProxy::start(server.address(), Protocol::Raw(EARLY)).unwrap();
        let known_hosts = folder.path().join("known_hosts");
        std::fs::write(&known_hosts, server.known_hosts_at(proxy.address(), "ed25519")).unwrap();
        let mut settings = SourceSettings::for_git(GitSettings {
            url: format!("ssh://{}@{}{}", sshd::user(), proxy.address(), repository.display()),
            branch: Some("main".to_owned()),
            ..GitSettings::default()
        });
        let ssh = SshSettings {
            key: Some(Credential::File(key)),
            known_hosts: Some(known_hosts),
            ..SshSettings::default()
        };
        settings.auth = Some(AuthSettings { ssh: Some(ssh), ..AuthSettings::default() });
        let environment = SourceEnvironment {
            state_directory: folder.path().join("state"),
            secrets: SecretStores::local(),
        };
        let source = Arc::new(GitSource::open(&settings, &environment).unwrap());
        Self { source, proxy, commits, step: 0, repository, folder, _server: server }
    }
}

impl Course for Ssh {
    fn source(&self) -> Arc<dyn Source> {
        Arc::clone(&self.source) as Arc<dyn Source>
    }

    fn change(&mut self) {
        move_branch(&self.repository, &self.commits[self.step % self.commits.len()]);
        self.step += 1;
    }

    fn begin(&mut self, number: usize) {
        self.proxy.fail(match number % 6 {
            0 => Fault::Reset,
            1 => Fault::Hang,
            2 => Fault::Truncate,
            3 => Fault::HalfOpen,
            4 => Fault::Refuse,
            _ => Fault::Drip(Duration::from_millis(10)),
        });
    }

    fn end(&mut self) {
        self.proxy.heal().unwrap();
    }

    fn kept(&self) -> u64 {
        size_of(&self.folder.path().join("state"))
    }
}

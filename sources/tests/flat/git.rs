//! Git over HTTP: a branch that moves along a chain of commits, behind `git http-backend` and the proxy.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use invar_secrets::SecretStores;
use invar_sources::{GitSettings, GitSource, Source, SourceEnvironment, SourceSettings};

use super::{Course, faults_of_http};
use crate::fault_proxy::{FaultProxy, Protocol};
use crate::http_backend::HttpBackend;

/// Commits that are made at once; the branch goes round.
const COMMITS: usize = 700;

pub(crate) struct Http {
    source: Arc<GitSource>,
    proxy: FaultProxy,
    commits: Vec<String>,
    step: usize,
    repository: PathBuf,
    folder: tempfile::TempDir,
    _server: HttpBackend,
}

impl Http {
    pub(crate) fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("repositories");
        let repository = root.join("fleet.git");
        std::fs::create_dir_all(&repository).unwrap();
        git(&repository, &["init", "-q", "--bare", "-b", "main", "."], "");
        git(&repository, &["fast-import", "--quiet"], &chain());
        let commits = git(&repository, &["rev-list", "--reverse", "refs/hidden/steps"], "");
        let commits = commits.lines().map(str::to_owned).collect();
        let server = HttpBackend::start(&root).unwrap();
        let proxy = FaultProxy::start(server.address(), Protocol::Http).unwrap();
        let settings = SourceSettings::for_git(GitSettings {
            url: format!("http://{}/fleet.git", proxy.address()),
            branch: Some("main".to_owned()),
            ..GitSettings::default()
        });
        let environment = SourceEnvironment {
            state_directory: folder.path().join("state"),
            secrets: SecretStores::local(),
        };
        let source = Arc::new(GitSource::open(&settings, &environment).unwrap());
        Self { source, proxy, commits, step: 0, repository, folder, _server: server }
    }
}

/// Lets the branch `main` be at a commit.
pub(crate) fn move_branch(repository: &Path, commit: &str) {
    let heads = repository.join("refs/heads");
    std::fs::create_dir_all(&heads).unwrap();
    std::fs::write(heads.join("main.new"), format!("{commit}\n")).unwrap();
    std::fs::rename(heads.join("main.new"), heads.join("main")).unwrap();
}

/// A chain of commits, each with another content of one file, as `git fast-import` reads it.
pub(crate) fn chain() -> String {
    let mut text = String::new();
    for number in 0..COMMITS {
        let content = format!("// step {number}\n");
        write!(
            text,
            "commit refs/hidden/steps\ncommitter Ada <ada@example.com> {} +0000\ndata 4\nstep\n\
             M 100644 inline main.alloy\ndata {}\n{content}\n",
            1_700_000_000 + number,
            content.len()
        )
        .unwrap();
    }
    text
}

/// Runs `git`, and gives what it prints.
pub(crate) fn git(folder: &Path, arguments: &[&str], input: &str) -> String {
    let mut child = Command::new("git")
        .args(arguments)
        .current_dir(folder)
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "git {arguments:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

impl Course for Http {
    fn source(&self) -> Arc<dyn Source> {
        Arc::clone(&self.source) as Arc<dyn Source>
    }

    fn change(&mut self) {
        move_branch(&self.repository, &self.commits[self.step % self.commits.len()]);
        self.step += 1;
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

/// The bytes of all files below a folder.
pub(crate) fn size_of(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => size_of(&entry.path()),
            Ok(metadata) => metadata.len(),
            Err(_) => 0,
        })
        .sum()
}

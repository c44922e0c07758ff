//! Real Git repositories for tests, made with the `git` command.

use std::path::{Path, PathBuf};
use std::process::Command;

/// A bare repository with a work tree beside it, to commit through.
pub struct TestRepository {
    bare: PathBuf,
    work: PathBuf,
    clock: std::cell::Cell<u64>,
}

impl TestRepository {
    /// Makes `<root>/<name>` with the default branch `main` and no commits.
    pub fn create(root: &Path, name: &str) -> Self {
        let bare = root.join(name);
        let work = root.join(format!("{name}.work"));
        let repository = Self { bare, work, clock: std::cell::Cell::new(1_700_000_000) };
        std::fs::create_dir_all(&repository.work).expect("the test's folder can be written");
        let bare = repository.bare.to_str().expect("the path is text").to_owned();
        repository.git(&["init", "-q", "-b", "main", "."]);
        repository.git(&["init", "-q", "--bare", "-b", "main", &bare]);
        repository.git(&["--git-dir", &bare, "config", "receive.denyDeleteCurrent", "ignore"]);
        repository.git(&["remote", "add", "origin", &bare]);
        repository
    }

    /// The bare repository.
    pub fn path(&self) -> &Path {
        &self.bare
    }

    /// Where commits are prepared.
    pub fn work(&self) -> &Path {
        &self.work
    }

    /// Runs `git` in the work tree and gives what it prints.
    pub fn git(&self, arguments: &[&str]) -> String {
        let time = format!("{} +0000", self.clock.get());
        let output = Command::new("git")
            .args(arguments)
            .current_dir(&self.work)
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_AUTHOR_NAME", "Ada")
            .env("GIT_AUTHOR_EMAIL", "ada@example.com")
            .env("GIT_COMMITTER_NAME", "Ada")
            .env("GIT_COMMITTER_EMAIL", "ada@example.com")
            .env("GIT_AUTHOR_DATE", &time)
            .env("GIT_COMMITTER_DATE", &time)
            .output()
            .expect("git is installed");
        assert!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// Writes files, commits everything and pushes the branch; gives the commit's id.
    pub fn commit(&self, message: &str, files: &[(&str, &str)]) -> String {
        for (path, content) in files {
            let path = self.work.join(path);
            if let Some(parent) = path.parent() {
                std::fs::create_dir_all(parent).expect("the test's folder can be written");
            }
            std::fs::write(path, content).expect("the test's folder can be written");
        }
        self.commit_all(message)
    }

    /// Commits whatever is in the work tree and pushes; gives the commit's id.
    pub fn commit_all(&self, message: &str) -> String {
        self.clock.set(self.clock.get() + 60);
        self.git(&["add", "-A"]);
        self.git(&["commit", "-q", "--allow-empty", "-m", message]);
        self.git(&["push", "-q", "--force", "origin", "HEAD"]);
        self.git(&["rev-parse", "HEAD"])
    }
}

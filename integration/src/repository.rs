//! A fleet's repository: a bare one that agents follow, and a clone in which commits are made with the `git` command.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Outcome;

/// A bare repository and a working clone of it.
pub struct Repository {
    bare: PathBuf,
    clone: PathBuf,
}

impl Repository {
    /// Makes both, empty, in a folder: `fleet.git` and `fleet`.
    ///
    /// # Errors
    /// Git is not installed, or refuses.
    pub fn create(directory: &Path) -> Outcome<Self> {
        let repository = Self { bare: directory.join("fleet.git"), clone: directory.join("fleet") };
        git(directory, &["init", "--quiet", "--bare", "--initial-branch=main", "fleet.git"])?;
        git(directory, &["init", "--quiet", "--initial-branch=main", "fleet"])?;
        git(&repository.bare, &["config", "uploadpack.allowAnySHA1InWant", "true"])?;
        repository.git(&["remote", "add", "origin", &repository.bare.display().to_string()])?;
        Ok(repository)
    }

    /// The bare repository.
    #[must_use]
    pub fn bare(&self) -> &Path {
        &self.bare
    }

    /// The clone in which commits are made.
    #[must_use]
    pub fn clone_directory(&self) -> &Path {
        &self.clone
    }

    /// The text of a file in the clone.
    ///
    /// # Errors
    /// There is no such file.
    pub fn read(&self, path: &str) -> Outcome<String> {
        std::fs::read_to_string(self.clone.join(path)).map_err(|error| format!("{path}: {error}"))
    }

    /// Writes a file in the clone.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(&self, path: &str, text: impl AsRef<[u8]>) -> Outcome {
        let file = self.clone.join(path);
        if let Some(parent) = file.parent() {
            std::fs::create_dir_all(parent).map_err(|error| format!("{}: {error}", parent.display()))?;
        }
        std::fs::write(&file, text).map_err(|error| format!("{}: {error}", file.display()))
    }

    /// Commits everything and pushes it; gives the commit's id.
    ///
    /// # Errors
    /// There is nothing to commit, or Git refuses.
    pub fn push(&self, subject: &str) -> Outcome<String> {
        self.git(&["add", "--all"])?;
        self.git(&["commit", "--quiet", "--message", subject])?;
        self.git(&["push", "--quiet", "origin", "HEAD:main"])?;
        self.head()
    }

    /// Writes one file, commits and pushes.
    ///
    /// # Errors
    /// As [`Self::write`] and [`Self::push`].
    pub fn push_file(&self, path: &str, text: impl AsRef<[u8]>, subject: &str) -> Outcome<String> {
        self.write(path, text)?;
        self.push(subject)
    }

    /// Undoes the newest commit with a new one, as `git revert` does; gives its id.
    ///
    /// # Errors
    /// Git refuses.
    pub fn revert(&self) -> Outcome<String> {
        self.git(&["revert", "--no-edit", "HEAD"])?;
        self.git(&["push", "--quiet", "origin", "HEAD:main"])?;
        self.head()
    }

    /// The id of the clone's newest commit.
    ///
    /// # Errors
    /// There is none.
    pub fn head(&self) -> Outcome<String> {
        self.git(&["rev-parse", "HEAD"])
    }

    /// Takes the bare repository away, as if its server were gone.
    ///
    /// # Errors
    /// It cannot be moved.
    pub fn vanish(&self) -> Outcome {
        std::fs::rename(&self.bare, self.bare.with_extension("gone")).map_err(|error| error.to_string())
    }

    /// Brings it back.
    ///
    /// # Errors
    /// It cannot be moved.
    pub fn reappear(&self) -> Outcome {
        std::fs::rename(self.bare.with_extension("gone"), &self.bare).map_err(|error| error.to_string())
    }

    /// Runs Git in the clone; gives what it printed.
    ///
    /// # Errors
    /// Git is not installed, or refuses.
    pub fn git(&self, arguments: &[&str]) -> Outcome<String> {
        git(&self.clone, arguments)
    }
}

fn git(directory: &Path, arguments: &[&str]) -> Outcome<String> {
    let output = Command::new("git")
        .current_dir(directory)
        .args(["-c", "user.name=Ana", "-c", "user.email=ana@example.org", "-c", "commit.gpgsign=false"])
        .args(arguments)
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .output()
        .map_err(|error| format!("git cannot be started ({error}); it has to be installed"))?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    } else {
        Err(format!("git {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim()))
    }
}

//! What a source took last, kept on disk: without it a restart would forget where a branch was, and a branch that was
//! moved back, or led through unsigned commits, while the agent was down would be taken for a first look.
//!
//! It lies beside the clone, which is disposable, and outlives it. All of it blocks.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use invar_durable::{make_directory, replace};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::tree::Depth;
use super::{GitSource, blocking};
use crate::error::Failure;
use crate::snapshot::{Revision, Snapshot, hexadecimal};

const LIMIT: u64 = 64 * 1024;

/// Where a reference was when it was read last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Accepted {
    pub(super) commit: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) reference: Option<String>,
    /// Of an annotated tag the tag, else the commit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) object: Option<String>,
    /// The digest of the trust policy that it was verified under.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) trust: Option<String>,
}

impl Accepted {
    pub(super) fn of(revision: &Revision, trust: Option<&str>) -> Option<Self> {
        Some(Self {
            commit: revision.commit.clone()?,
            reference: revision.reference.clone(),
            object: revision.object.clone(),
            trust: trust.map(str::to_owned),
        })
    }
}

/// The file of one source.
#[derive(Clone, Debug)]
pub(super) struct AcceptedFile {
    path: PathBuf,
}

impl AcceptedFile {
    /// The file below `state` of the source that follows `wanted` of `url`.
    pub(super) fn new(state: &Path, source: &str, url: &str, wanted: &str) -> Self {
        let mut digest = Sha256::new();
        for part in [source, url, wanted] {
            digest.update((part.len() as u64).to_be_bytes());
            digest.update(part);
        }
        let name = format!("{}.toml", hexadecimal(&digest.finalize()));
        Self { path: state.join("accepted").join(name) }
    }

    /// What was written last; `None` where nothing was.
    pub(super) fn read(&self) -> Option<Accepted> {
        let read = || {
            let mut text = String::new();
            File::open(&self.path)?.take(LIMIT).read_to_string(&mut text)?;
            toml::from_str(&text).map_err(io::Error::other)
        };
        match read() {
            Ok(accepted) => Some(accepted),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                let path = self.path.display();
                tracing::error!(%path, %error, "what was read last is not known: the next look is a first one");
                None
            }
        }
    }

    /// Replaces the content in one step.
    pub(super) fn write(&self, accepted: &Accepted) -> io::Result<()> {
        let text = toml::to_string(accepted).map_err(io::Error::other)?;
        make_directory(self.path.parent().unwrap_or(Path::new(".")))?;
        replace(&self.path, &[text.as_bytes()])
    }
}

impl GitSource {
    /// What an earlier process took last. A module is what its reference names, wherever that was before.
    pub(super) async fn recall(&self) -> Result<Option<Accepted>, Failure> {
        if self.settings.depth == Depth::Own {
            return Ok(None);
        }
        let file = self.accepted.clone();
        blocking(move || Ok(file.read())).await
    }

    pub(super) async fn keep_accepted(&self, snapshot: &Snapshot) {
        let accepted = Accepted::of(&snapshot.revision, snapshot.trust.as_deref());
        let Some(accepted) = accepted.filter(|_| self.settings.depth == Depth::All) else { return };
        let file = self.accepted.clone();
        let written =
            blocking(move || file.write(&accepted).map_err(|error| Failure::transient(error.to_string())));
        if let Err(failure) = written.await {
            let reason = failure.message;
            tracing::warn!(source = %self.name, reason, "what was read cannot be noted: a restart will not know it");
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_is_written_is_read_and_what_is_damaged_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let file = AcceptedFile::new(folder.path(), "platform", "https://x", "main");
        assert_eq!(file.read(), None);
        let accepted = Accepted {
            commit: "ab".repeat(20),
            reference: Some("main".to_owned()),
            object: None,
            trust: Some("cd".repeat(32)),
        };
        for _ in 0..2 {
            file.write(&accepted).unwrap();
            assert_eq!(file.read(), Some(accepted.clone()));
        }
        assert_eq!(AcceptedFile::new(folder.path(), "platform", "https://x", "other").read(), None);
        assert_eq!(AcceptedFile::new(folder.path(), "other", "https://x", "main").read(), None);
        std::fs::write(&file.path, "commit = 1").unwrap();
        assert_eq!(file.read(), None);
        file.write(&accepted).unwrap();
        assert_eq!(file.read(), Some(accepted));
    }
}

//! The bare repository on disk that fetched objects are kept in, so that the next fetch is a difference.
//!
//! Nothing is ever checked out. Whatever goes wrong in here is mended by wiping the folder: it holds
//! nothing that the remote does not have. All of it blocks.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use git2::{ErrorClass as LibraryClass, ErrorCode, Oid, Repository, RepositoryInitOptions};
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;

use super::pack_guard::{PackGuard, PackRefusal};
use super::wire::PackPart;
use crate::error::{ErrorClass, Failure, Rejection};
use crate::snapshot::hexadecimal;

/// A lock that is older than this was left behind by a process that ended.
const STALE_LOCK_AGE: Duration = Duration::from_secs(10 * 60);
/// With more packs than this the repository is made afresh: look-ups go through all of them.
const PACK_LIMIT: usize = 50;

/// Why something could not be read from the repository.
#[derive(Debug)]
pub(super) enum ReadError {
    /// Objects are missing or broken; fetching afresh helps.
    Damaged(String),
    /// The content is refused, or the host fails.
    Failed(Failure),
}

impl From<Failure> for ReadError {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl From<git2::Error> for ReadError {
    fn from(error: git2::Error) -> Self {
        Self::Damaged(error.message().to_owned())
    }
}

/// The folder of one remote and identity.
#[derive(Clone, Debug)]
pub(super) struct CloneDirectory {
    path: PathBuf,
}

impl CloneDirectory {
    /// The folder below `state` for a remote, by what it is reached as: two identities may see different
    /// things under one address.
    pub(super) fn new(state: &Path, url: &str, identity: &str) -> Self {
        let mut digest = Sha256::new();
        digest.update(url.as_bytes());
        digest.update([0]);
        digest.update(identity.as_bytes());
        Self { path: state.join("git").join(hexadecimal(&digest.finalize())) }
    }

    /// A folder beside, for commits without their trees: in here a fetch may rely on every commit having
    /// its files.
    pub(super) fn for_history(&self) -> Self {
        Self { path: self.path.with_extension("history") }
    }

    /// Opens the repository, or makes an empty one.
    pub(super) fn open(&self) -> Result<Repository, ReadError> {
        // What is read is compared with its id, also where this process did not write it: the library's default, and
        // what verification stands on.
        git2::opts::strict_hash_verification(true);
        if self.path.join("HEAD").exists() {
            self.remove_stale_locks();
            return Repository::open_bare(&self.path).map_err(ReadError::from);
        }
        self.wipe()?;
        fs::create_dir_all(&self.path).map_err(|error| self.host_failure(&error))?;
        let mut options = RepositoryInitOptions::new();
        options.bare(true).external_template(false);
        let made =
            Repository::init_opts(&self.path, &options).map_err(|error| self.library_failure(&error))?;
        // The library lays out a folder for programs that Git would run; here there is none.
        match fs::remove_dir_all(self.path.join("hooks")) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(self.host_failure(&error).into())
            }
            _ => Ok(made),
        }
    }

    /// Opens the repository if there is one.
    pub(super) fn existing(&self) -> Result<Option<Repository>, ReadError> {
        if self.path.join("HEAD").exists() { self.open().map(Some) } else { Ok(None) }
    }

    /// Removes everything.
    pub(super) fn wipe(&self) -> Result<(), Failure> {
        match fs::remove_dir_all(&self.path) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(self.host_failure(&error)),
        }
    }

    /// Whether so many packs piled up that fetching all of it once more is better.
    pub(super) fn is_fragmented(&self) -> bool {
        fs::read_dir(self.path.join("objects/pack")).is_ok_and(|entries| {
            let packs =
                entries.flatten().filter(|entry| entry.path().extension().is_some_and(|e| e == "pack"));
            packs.count() > PACK_LIMIT
        })
    }

    fn remove_stale_locks(&self) {
        let Ok(entries) = fs::read_dir(&self.path) else { return };
        for entry in entries.flatten() {
            let path = entry.path();
            let age = entry
                .metadata()
                .and_then(|metadata| metadata.modified())
                .ok()
                .and_then(|modified| SystemTime::now().duration_since(modified).ok());
            if path.extension().is_some_and(|extension| extension == "lock")
                && age.is_some_and(|age| age > STALE_LOCK_AGE)
                && fs::remove_file(&path).is_ok()
            {
                tracing::warn!(path = %path.display(), "removed a lock that was left behind");
            }
        }
    }

    /// Stores the pack that arrives through `parts`, checking each object's digest.
    pub(super) fn store_pack(&self, mut parts: mpsc::Receiver<PackPart>) -> Result<(), ReadError> {
        let repository = self.open()?;
        let database = repository.odb()?;
        let mut writer = database.packwriter()?;
        let mut guard = PackGuard::new();
        loop {
            match parts.blocking_recv() {
                Some(PackPart::Bytes(bytes)) => {
                    guard.push(&bytes).map_err(|refusal| match refusal {
                        PackRefusal::Bomb(reason) => Failure::rejected(Rejection::Limits, reason)
                            .with_help("nothing in such a repository is read; find who pushed it")
                            .into(),
                        PackRefusal::Malformed(reason) => self.pack_failure(reason),
                    })?;
                    writer.write_all(&bytes).map_err(|error| self.pack_failure(&error.to_string()))?
                }
                Some(PackPart::End) => break,
                None => return Err(Failure::transient("the transfer ended early").into()),
            }
        }
        writer.commit().map_err(|error| {
            // An object of the difference's base is not here although it should be.
            if error.message().contains("base") || error.code() == ErrorCode::NotFound {
                ReadError::Damaged(error.message().to_owned())
            } else {
                self.pack_failure(error.message())
            }
        })?;
        Ok(())
    }

    fn pack_failure(&self, reason: &str) -> ReadError {
        Failure::transient(format!("the received pack cannot be stored in {}: {reason}", self.path.display()))
            .into()
    }

    fn host_failure(&self, error: &std::io::Error) -> Failure {
        Failure::transient(format!("the folder {} cannot be used: {error}", self.path.display()))
            .with_help("the agent keeps what it fetches there; check space and permissions")
    }

    pub(super) fn library_failure(&self, error: &git2::Error) -> Failure {
        match error.class() {
            LibraryClass::Os | LibraryClass::Filesystem => Failure::transient(format!(
                "the folder {} cannot be used: {}",
                self.path.display(),
                error.message()
            )),
            _ => Failure::new(ErrorClass::Transient, error.message().to_owned()),
        }
    }
}

/// Parses an object id of forty digits.
pub(super) fn object_id(text: &str) -> Result<Oid, Failure> {
    Oid::from_str(text)
        .ok()
        .filter(|_| text.len() == 40)
        .ok_or_else(|| Failure::stalled(format!("`{text}` is not a commit's id of 40 hexadecimal digits")))
}

/// Whether the commit is in the repository.
pub(super) fn holds(repository: &Repository, commit: &str) -> bool {
    object_id(commit).is_ok_and(|id| repository.odb().is_ok_and(|database| database.exists(id)))
}

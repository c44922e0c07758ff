//! Encrypted files of the configuration, for the secret store that opens them: from the newest snapshots, and at a start
//! before the sources have answered as they were read last. They are kept as they are in Git, for which they were made.

use std::fs;
use std::path::{Path, PathBuf};

use invar_durable::{make_directory, replace};
use invar_secrets::SnapshotFile;
use invar_sources::{Poller, SourcesState};
use sha2::{Digest as _, Sha256};

/// Reads files of the snapshots of a poller, and keeps those that were read.
pub(crate) struct EncryptedFiles {
    poller: Poller,
    directory: PathBuf,
}

impl EncryptedFiles {
    pub(crate) fn new(poller: Poller, directory: PathBuf) -> Self {
        Self { poller, directory }
    }

    /// Blocks.
    pub(crate) fn read(&self, path: &str) -> SnapshotFile {
        through(&self.directory, path, newest(&self.poller.state(), path))
    }
}

/// What the newest snapshots say, in the order of the sources.
fn newest(state: &SourcesState, path: &str) -> SnapshotFile {
    let found = state.snapshots().find_map(|snapshot| snapshot.files.get(path));
    match found {
        Some(content) => SnapshotFile::Found(content.to_vec()),
        // One that is yet to answer may have it.
        None if state.sources.iter().all(|source| source.snapshot.is_some()) => SnapshotFile::Absent,
        None => SnapshotFile::NotYet,
    }
}

/// What is there now is kept, what is not there is forgotten, and what nobody knows yet is as it was.
fn through(directory: &Path, path: &str, newest: SnapshotFile) -> SnapshotFile {
    let name: String = Sha256::digest(path).iter().map(|byte| format!("{byte:02x}")).collect();
    let file = directory.join(name);
    match newest {
        SnapshotFile::Found(content) => {
            if fs::read(&file).ok().as_ref() != Some(&content)
                && let Err(error) = make_directory(directory).and_then(|()| replace(&file, &[&content]))
            {
                tracing::warn!(path, %error, "an encrypted file cannot be kept for the next start");
            }
            SnapshotFile::Found(content)
        }
        SnapshotFile::Absent => {
            // That it was never kept is as good.
            drop(fs::remove_file(&file));
            SnapshotFile::Absent
        }
        SnapshotFile::NotYet => fs::read(&file).map_or(SnapshotFile::NotYet, SnapshotFile::Found),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_was_read_last_serves_until_the_sources_answer() {
        let folder = tempfile::tempdir().unwrap();
        let directory = folder.path().join("encrypted");
        let read = |newest: SnapshotFile| through(&directory, "secrets/a.age", newest);
        assert_eq!(read(SnapshotFile::NotYet), SnapshotFile::NotYet);
        for content in [b"one", b"two"] {
            let found = SnapshotFile::Found(content.to_vec());
            assert_eq!(read(found.clone()), found);
            assert_eq!(read(SnapshotFile::NotYet), found);
        }
        assert_eq!(through(&directory, "secrets/b.age", SnapshotFile::NotYet), SnapshotFile::NotYet);
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 1);
        assert_eq!(read(SnapshotFile::Absent), SnapshotFile::Absent);
        assert_eq!(
            read(SnapshotFile::NotYet),
            SnapshotFile::NotYet,
            "what was taken away does not come back"
        );
    }

    #[test]
    fn a_folder_that_cannot_be_written_keeps_nobody_from_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let directory = folder.path().join("encrypted");
        fs::write(&directory, "in the way").unwrap();
        let found = SnapshotFile::Found(b"one".to_vec());
        assert_eq!(through(&directory, "a", found.clone()), found);
    }
}

//! Files that are replaced whole or not at all: written beside their place, synced, renamed, and the directory synced too.
//! Stands below every room that keeps something on disk: the state directory, what sources hold, secrets at rest.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

/// Makes `path` hold exactly `parts`, one after the other, durably and for the agent's user only; or leaves it as it was.
/// One writer of a path at a time.
///
/// # Errors
/// What the file system says.
pub fn replace(path: &Path, parts: &[&[u8]]) -> io::Result<()> {
    let directory = path.parent().ok_or_else(|| io::Error::other("a file without a directory"))?;
    let mut name = path.file_name().ok_or_else(|| io::Error::other("a file without a name"))?.to_owned();
    name.push(".new");
    let temporary = directory.join(name);
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let written = (|| {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
        for part in parts {
            file.write_all(part)?;
        }
        file.sync_all()?;
        fs::rename(&temporary, path)
    })();
    if written.is_err() {
        // What is left of a failed write only takes up space; the next write removes it as well.
        drop(fs::remove_file(&temporary));
    }
    written?;
    sync_directory(directory)
}

/// Makes a directory, with its parents, that only the agent's user can read. One that is there stays as it is.
///
/// # Errors
/// What the file system says.
pub fn make_directory(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    path.parent().map_or(Ok(()), sync_directory)
}

/// Makes renames and new names in `directory` durable.
///
/// # Errors
/// What the file system says.
pub fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn names(directory: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(directory)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_is_replaced_by_its_parts_and_is_the_users_own() {
        let folder = tempfile::tempdir().unwrap();
        let directory = folder.path().join("a/b");
        make_directory(&directory).unwrap();
        make_directory(&directory).unwrap();
        let file = directory.join("held");
        replace(&file, &[b"first, which is longer"]).unwrap();
        replace(&file, &[b"sec", b"", b"ond"]).unwrap();
        assert_eq!(fs::read(&file).unwrap(), b"second");
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(&directory).unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(names(&directory), ["held"]);
    }

    #[test]
    fn what_a_killed_writer_left_behind_is_written_over() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("held");
        fs::write(folder.path().join("held.new"), "half of something that is longer than what comes")
            .unwrap();
        replace(&file, &[b"whole"]).unwrap();
        assert_eq!(fs::read(&file).unwrap(), b"whole");
        assert_eq!(names(folder.path()), ["held"]);
    }

    #[test]
    fn what_cannot_be_replaced_stays_and_nothing_is_left_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        // A file never takes the place of a directory.
        let path = folder.path().join("held");
        fs::create_dir(&path).unwrap();
        replace(&path, &[b"x"]).unwrap_err();
        assert!(path.is_dir());
        assert_eq!(names(folder.path()), ["held"]);
        replace(&folder.path().join("nowhere/held"), &[b"x"]).unwrap_err();
    }
}

//! Which files a command line means, and how one of them is replaced.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// The files that are meant by paths: a file is itself, a folder every `*.alloy` file below it except in hidden folders,
/// a pattern whatever it matches. In the order given, each once; and what is wrong with the others.
pub(super) fn find<'a>(paths: impl Iterator<Item = &'a String>) -> (Vec<PathBuf>, Vec<String>) {
    let mut found = Found::default();
    for written in paths {
        let path = Path::new(written);
        if path.is_dir() {
            found.folder(path);
        } else if !path.exists() && written.contains(['*', '?', '[']) {
            found.pattern(written);
        } else {
            found.file(path);
        }
    }
    (found.files.into_iter().collect(), found.problems)
}

#[derive(Default)]
struct Found {
    files: Vec<PathBuf>,
    problems: Vec<String>,
}

impl Found {
    fn file(&mut self, path: &Path) {
        if !self.files.iter().any(|known| known == path) {
            self.files.push(path.to_owned());
        }
    }

    fn problem(&mut self, place: impl std::fmt::Display, problem: impl std::fmt::Display) {
        self.problems.push(format!("{place}: {problem}"));
    }

    fn pattern(&mut self, pattern: &str) {
        let matches = match glob::glob(pattern) {
            Ok(matches) => matches,
            Err(error) => return self.problem(pattern, error),
        };
        let mut any = false;
        for entry in matches {
            any = true;
            match entry {
                Ok(path) if path.is_dir() => self.folder(&path),
                Ok(path) => self.file(&path),
                Err(error) => self.problem(error.path().display(), error.error()),
            }
        }
        if !any {
            self.problem(pattern, "nothing matches this pattern");
        }
    }

    fn folder(&mut self, path: &Path) {
        let before = (self.files.len(), self.problems.len());
        self.below(path);
        if before == (self.files.len(), self.problems.len()) {
            self.problem(path.display(), "no *.alloy file in this folder");
        }
    }

    /// Links to folders are not followed: they may lead in circles.
    fn below(&mut self, folder: &Path) {
        let entries = fs::read_dir(folder).and_then(Iterator::collect::<io::Result<Vec<_>>>);
        let mut entries = match entries {
            Ok(entries) => entries,
            Err(error) => return self.problem(folder.display(), error),
        };
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let path = entry.path();
            let hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                if !hidden {
                    self.below(&path);
                }
            } else if path.extension().is_some_and(|extension| extension == "alloy") && path.is_file() {
                self.file(&path);
            }
        }
    }
}

/// Replaces the content of a file in one step, so that whoever reads it sees the old text or the new one. Permissions
/// stay; a link stays a link, and what it leads to is replaced.
pub(super) fn replace(path: &Path, content: &str) -> io::Result<()> {
    let path = fs::canonicalize(path)?;
    let permissions = fs::metadata(&path)?.permissions();
    if permissions.readonly() {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, "the file is read-only"));
    }
    let folder = path.parent().unwrap_or_else(|| Path::new("."));
    let mut temporary = tempfile::Builder::new().prefix(".invar-fmt-").tempfile_in(folder)?;
    temporary.write_all(content.as_bytes())?;
    temporary.as_file().set_permissions(permissions)?;
    temporary.as_file().sync_all()?;
    temporary.persist(&path).map_err(|error| error.error)?;
    Ok(())
}

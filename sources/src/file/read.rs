//! One reading of a file or directory, with what tells it from the next one.

use std::collections::BTreeMap;
use std::fs::{self, File, Metadata};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use bytes::Bytes;

use crate::error::{ErrorClass, Failure, Rejection};
use crate::path::check_name;
use crate::settings::LimitSettings;
use crate::snapshot::Files;
use crate::units::display_size;

/// What is read, and within which bounds.
pub(super) struct Reader {
    pub(super) path: PathBuf,
    pub(super) limits: LimitSettings,
    pub(super) allow_insecure_permissions: bool,
}

/// What a file was like when it was read; contents that agree but come from another file count as changed.
#[derive(Debug, PartialEq, Eq)]
struct Entry {
    identity: u64,
    modified: Option<SystemTime>,
    content: Bytes,
}

/// All files as they were.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Reading {
    entries: BTreeMap<String, Entry>,
}

impl Reading {
    pub(super) fn has_empty_file(&self) -> bool {
        self.entries.values().any(|entry| entry.content.is_empty())
    }

    /// Whether something was changed within the last `age`.
    pub(super) fn is_recent(&self, age: Duration) -> bool {
        let now = SystemTime::now();
        self.entries.values().any(|entry| {
            // A time in the future says nothing; then it is taken for recent.
            entry
                .modified
                .is_none_or(|modified| now.duration_since(modified).map_or(true, |since| since < age))
        })
    }

    pub(super) fn into_files(self) -> Files {
        self.entries.into_iter().map(|(name, entry)| (name, entry.content)).collect()
    }
}

impl Reader {
    pub(super) fn read(&self) -> Result<Reading, Failure> {
        let metadata = fs::metadata(&self.path).map_err(|error| io_failure(&self.path, &error))?;
        let mut bytes = 0;
        let mut entries = BTreeMap::new();
        if metadata.is_dir() {
            self.check_permissions(&self.path, &metadata)?;
            for name in self.names()? {
                let path = self.path.join(&name);
                // Gone between listing and reading: the next reading will not list it.
                if let Some(entry) = self.file(&path, &mut bytes, true)? {
                    entries.insert(name, entry);
                }
            }
            // Variables alone make sense beside other sources.
            if entries.is_empty() {
                let message = format!(
                    "the directory {} has no *.alloy files and no variables.toml",
                    self.path.display()
                );
                return Err(Failure::rejected(Rejection::EmptySource, message));
            }
        } else {
            self.check_folder_of_file()?;
            let name = self.path.file_name().and_then(|name| name.to_str()).unwrap_or("config.alloy");
            let entry = self.file(&self.path, &mut bytes, false)?;
            let entry = entry.ok_or_else(|| {
                Failure::rejected(Rejection::Shape, format!("{} is not a file", self.path.display()))
            })?;
            entries.insert(name.to_owned(), entry);
        }
        Ok(Reading { entries })
    }

    /// The names to read of a directory: its own, not those of folders in it.
    fn names(&self) -> Result<Vec<String>, Failure> {
        let mut names = Vec::new();
        let listing = fs::read_dir(&self.path).map_err(|error| io_failure(&self.path, &error))?;
        for entry in listing {
            let entry = entry.map_err(|error| io_failure(&self.path, &error))?;
            let name = entry.file_name();
            let Some(text) = name.to_str() else { continue };
            if is_pipeline(text) || text == "variables.toml" {
                names.push(check_name(text.as_bytes())?.to_owned());
            }
            if names.len() > self.limits.files {
                let message = format!("{} has more than {} files", self.path.display(), self.limits.files);
                return Err(Failure::rejected(Rejection::Limits, message));
            }
        }
        Ok(names)
    }

    /// `None` where there is no regular file (any more).
    fn file(&self, path: &Path, bytes: &mut u64, may_vanish: bool) -> Result<Option<Entry>, Failure> {
        let opened = open(path).and_then(|file| Ok((file.metadata()?, file)));
        let (metadata, file) = match opened {
            Ok(opened) => opened,
            Err(error) if may_vanish && error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(io_failure(path, &error)),
        };
        if !metadata.is_file() {
            return Ok(None);
        }
        self.check_permissions(path, &metadata)?;
        let limit = self.limits.file;
        let mut content = Vec::new();
        file.take(limit.saturating_add(1))
            .read_to_end(&mut content)
            .map_err(|error| io_failure(path, &error))?;
        if content.len() as u64 > limit {
            let message = format!("{} is longer than {}", path.display(), display_size(limit));
            return Err(Failure::rejected(Rejection::Limits, message));
        }
        *bytes += content.len() as u64;
        if *bytes > self.limits.bytes {
            let most = display_size(self.limits.bytes);
            let message = format!("the files of {} have more than {most}", self.path.display());
            return Err(Failure::rejected(Rejection::Limits, message));
        }
        Ok(Some(Entry {
            identity: identity(&metadata),
            modified: metadata.modified().ok(),
            content: content.into(),
        }))
    }

    /// Who may write the folder of a file puts another file in its place. Where the folder is sticky, as /tmp is, only the
    /// file's owner does.
    #[cfg(unix)]
    fn check_folder_of_file(&self) -> Result<(), Failure> {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = match self.path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let metadata = fs::metadata(folder).map_err(|error| io_failure(folder, &error))?;
        let sticky = metadata.permissions().mode() & 0o1000 != 0;
        if sticky { Ok(()) } else { self.check_permissions(folder, &metadata) }
    }

    #[cfg(not(unix))]
    fn check_folder_of_file(&self) -> Result<(), Failure> {
        Ok(())
    }

    /// As root, a file that others may write would let them become root.
    #[cfg(unix)]
    fn check_permissions(&self, path: &Path, metadata: &Metadata) -> Result<(), Failure> {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = metadata.permissions().mode();
        if self.allow_insecure_permissions || mode & 0o022 == 0 || !rustix::process::geteuid().is_root() {
            return Ok(());
        }
        let (path, mode) = (path.display(), mode & 0o7777);
        Err(Failure::new(
            ErrorClass::Forbidden,
            format!("others than its owner may write {path} (mode {mode:04o}), and the agent runs as root"),
        )
        .with_help("chmod go-w, or set `file.allow_insecure_permissions = true`"))
    }

    #[cfg(not(unix))]
    fn check_permissions(&self, _: &Path, _: &Metadata) -> Result<(), Failure> {
        Ok(())
    }
}

/// Opens a file for reading; what is no regular file (a pipe nobody writes to) must not keep the poll waiting.
#[cfg(unix)]
fn open(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let flags = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).map_err(io::Error::other)?;
    File::options().read(true).custom_flags(flags).open(path)
}

#[cfg(not(unix))]
fn open(path: &Path) -> io::Result<File> {
    File::open(path)
}

fn is_pipeline(name: &str) -> bool {
    name.ends_with(".alloy")
}

#[cfg(unix)]
fn identity(metadata: &Metadata) -> u64 {
    std::os::unix::fs::MetadataExt::ino(metadata)
}

#[cfg(not(unix))]
fn identity(metadata: &Metadata) -> u64 {
    metadata.len()
}

fn io_failure(path: &Path, error: &io::Error) -> Failure {
    let path = path.display();
    match error.kind() {
        io::ErrorKind::NotFound => Failure::new(ErrorClass::NotFound, format!("{path} does not exist")),
        io::ErrorKind::PermissionDenied => {
            Failure::new(ErrorClass::Forbidden, format!("the user the agent runs as may not read {path}"))
        }
        _ => Failure::transient(format!("{path} cannot be read: {error}")),
    }
}

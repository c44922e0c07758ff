//! The store `file`: small files on this host, with a check of who may change them.

use std::fs::File;
use std::io::Read as _;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use invar_syntax::Secret;
use tokio::sync::watch;
use zeroize::Zeroizing;

use crate::error::SecretError;
use crate::file_watch::FileWatches;
use crate::missing::WhenMissing;
use crate::snapshot::SecretSnapshot;
use crate::store::{BoxFuture, SecretStore, StoreKind};

/// The longest secret file, in bytes: what Kubernetes allows as well.
const SIZE_LIMIT: u64 = 1024 * 1024;

/// Reads files below a root; the path is relative to it. Links are followed as long as they stay below the root.
#[derive(Clone, Debug)]
pub struct FileStore {
    root: PathBuf,
    watches: FileWatches,
    when_missing: WhenMissing,
}

impl FileStore {
    /// A store that reads below `root`.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into(), watches: FileWatches::default(), when_missing: WhenMissing::Keep }
    }

    /// The same, with what users of a file get that is deleted.
    #[must_use]
    pub fn when_missing(self, when_missing: WhenMissing) -> Self {
        Self { when_missing, ..self }
    }

    /// The path below the root, if it does not say by itself that it leads elsewhere.
    fn relative<'a>(&self, path: &'a str) -> Result<&'a Path, SecretError> {
        let relative = Path::new(path);
        match relative.components().all(|part| matches!(part, Component::Normal(_))) {
            true => Ok(relative),
            false => Err(SecretError::Denied {
                reference: path.to_owned(),
                reason: format!("the path has to stay below {}", self.root.display()),
            }),
        }
    }
}

impl SecretStore for FileStore {
    fn kind(&self) -> StoreKind {
        StoreKind::File
    }

    fn read<'a>(&'a self, path: &'a str) -> BoxFuture<'a, Result<SecretSnapshot, SecretError>> {
        Box::pin(async move {
            let relative = self.relative(path)?.to_owned();
            let root = self.root.clone();
            let read = move || {
                let full = root.join(&relative);
                read_opened(&full, open_below(&root, &relative)).map(SecretSnapshot::single)
            };
            tokio::task::spawn_blocking(read)
                .await
                .unwrap_or_else(|_| Err(SecretError::unavailable(path, "reading was interrupted")))
        })
    }

    fn check(&self) -> BoxFuture<'_, Result<String, SecretError>> {
        Box::pin(async move {
            let shown = self.root.display();
            match tokio::fs::metadata(&self.root).await {
                Ok(metadata) if metadata.is_dir() => Ok(format!("files below {shown}")),
                Ok(_) => Err(SecretError::Invalid {
                    reference: String::new(),
                    reason: format!("{shown} is not a folder"),
                }),
                Err(error) => Err(SecretError::unavailable("", format!("{shown}: {error}"))),
            }
        })
    }

    fn when_missing(&self) -> WhenMissing {
        self.when_missing
    }

    fn refresh_interval(&self) -> Option<Duration> {
        Some(Duration::from_secs(60))
    }

    fn watch(&self, path: &str) -> Option<watch::Receiver<u64>> {
        let relative = self.relative(path).ok()?;
        Some(self.watches.subscribe(self.root.join(relative)))
    }
}

/// Reads a secret from a file: UTF-8, at most 1 MiB, without one trailing line break.
///
/// A file that others than its owner may write is refused: they could put their own secret there. One
/// that everybody may read is used, with a warning, since mounted volumes are commonly like that.
///
/// # Errors
/// [`SecretError`], which names the file and never its content.
pub fn read_secret_file(path: &Path) -> Result<Secret, SecretError> {
    read_opened(path, open(path))
}

/// Without waiting for the writer of a pipe.
fn open(path: &Path) -> std::io::Result<File> {
    use rustix::fs::{Mode, OFlags};
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    Ok(File::from(rustix::fs::open(path, flags, Mode::empty())?))
}

/// Opens a file below a root, and nothing that links lead to outside of it.
fn open_below(root: &Path, relative: &Path) -> std::io::Result<File> {
    use rustix::fs::{Mode, OFlags, ResolveFlags};
    use rustix::io::Errno;
    if root == Path::new("/") {
        return open(&root.join(relative));
    }
    let folder = rustix::fs::open(root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    match rustix::fs::openat2(&folder, relative, flags, Mode::empty(), resolve) {
        Ok(file) => Ok(File::from(file)),
        // A kernel or a sandbox without that call. What is looked up twice may change in between, but only by somebody
        // who may write below the root.
        Err(Errno::NOSYS | Errno::PERM) => {
            let full = root.join(relative).canonicalize()?;
            match full.starts_with(root.canonicalize()?) {
                true => open(&full),
                false => Err(Errno::XDEV.into()),
            }
        }
        Err(error) => Err(error.into()),
    }
}

fn read_opened(path: &Path, opened: std::io::Result<File>) -> Result<Secret, SecretError> {
    let reference = format!("file{}{}", if path.is_absolute() { "" } else { "/" }, path.display());
    let opened = opened.and_then(|file| Ok((file.metadata()?, file)));
    let (metadata, file) = match opened {
        Ok(opened) => opened,
        Err(error) => return Err(io_error(&reference, &error)),
    };
    if !metadata.is_file() {
        return Err(SecretError::Invalid { reference, reason: "it is not a file".to_owned() });
    }
    check_mode(path, &metadata, &reference)?;
    // It does not grow, which would leave copies behind.
    let length = usize::try_from(metadata.len().min(SIZE_LIMIT)).unwrap_or_default();
    let mut text = Zeroizing::new(String::with_capacity(length + 64));
    match file.take(SIZE_LIMIT + 1).read_to_string(&mut text) {
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::InvalidData => {
            return Err(SecretError::Invalid { reference, reason: "it is not UTF-8 text".to_owned() });
        }
        Err(error) => return Err(io_error(&reference, &error)),
    }
    if text.len() as u64 > SIZE_LIMIT {
        return Err(SecretError::Invalid { reference, reason: "it is larger than 1 MiB".to_owned() });
    }
    let text = without_line_break(std::mem::take(&mut *text));
    if text.is_empty() {
        return Err(SecretError::Invalid { reference, reason: "it is empty".to_owned() });
    }
    Ok(Secret::new(text))
}

/// Without one line break at the end, which editors and `echo` put there.
pub(crate) fn without_line_break(mut text: String) -> String {
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    text
}

fn io_error(reference: &str, error: &std::io::Error) -> SecretError {
    let reference = reference.to_owned();
    match error.kind() {
        std::io::ErrorKind::NotFound => {
            SecretError::Missing { reference, reason: "there is no such file".to_owned() }
        }
        std::io::ErrorKind::PermissionDenied => SecretError::Denied {
            reference,
            reason: "the user the agent runs as may not read the file".to_owned(),
        },
        std::io::ErrorKind::CrossesDevices => SecretError::Denied {
            reference,
            reason: "a link leads out of the root of the store, or is not a relative one".to_owned(),
        },
        _ => SecretError::unavailable(reference, error.to_string()),
    }
}

#[cfg(unix)]
fn check_mode(path: &Path, metadata: &std::fs::Metadata, reference: &str) -> Result<(), SecretError> {
    use std::os::unix::fs::PermissionsExt as _;
    let mode = metadata.permissions().mode();
    if mode & 0o022 != 0 {
        return Err(SecretError::Denied {
            reference: reference.to_owned(),
            reason: format!("others than its owner may write it (mode {:04o}); chmod go-w", mode & 0o7777),
        });
    }
    if mode & 0o004 != 0 {
        tracing::warn!(path = %path.display(), mode = format!("{:04o}", mode & 0o7777), "everybody on this host may read the secret file");
    }
    Ok(())
}

#[cfg(not(unix))]
fn check_mode(_: &Path, _: &std::fs::Metadata, _: &str) -> Result<(), SecretError> {
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn write(path: &Path, content: &[u8], mode: u32) {
        std::fs::write(path, content).unwrap();
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
        }
    }

    #[tokio::test]
    async fn one_trailing_line_break_is_not_part_of_the_secret() {
        let folder = tempfile::tempdir().unwrap();
        write(&folder.path().join("token"), b"abc\n\n", 0o600);
        let store = FileStore::new(folder.path());
        let snapshot = store.read("token").await.unwrap();
        assert_eq!(snapshot.fields["value"].expose(), "abc\n");
        write(&folder.path().join("token"), b"abc\r\n", 0o600);
        assert_eq!(store.read("token").await.unwrap().fields["value"].expose(), "abc");
    }

    #[tokio::test]
    async fn unusable_files_are_refused_without_their_content() {
        let folder = tempfile::tempdir().unwrap();
        let store = FileStore::new(folder.path());
        write(&folder.path().join("empty"), b"\n", 0o600);
        write(&folder.path().join("binary"), b"hunter2\xff", 0o600);
        write(&folder.path().join("large"), &vec![b'x'; 1024 * 1024 + 1], 0o600);
        assert!(matches!(store.read("empty").await, Err(SecretError::Invalid { .. })));
        assert!(matches!(store.read("large").await, Err(SecretError::Invalid { .. })));
        let error = store.read("binary").await.unwrap_err();
        assert!(matches!(error, SecretError::Invalid { .. }));
        assert!(!format!("{error:?}").contains("hunter2"));
        assert!(matches!(store.read("absent").await, Err(SecretError::Missing { .. })));
        for path in ["../x", "/etc/passwd", "a/../../x", "."] {
            assert!(matches!(store.read(path).await, Err(SecretError::Denied { .. })), "{path}");
        }
    }

    #[tokio::test]
    async fn links_stay_below_the_root() {
        use std::os::unix::fs::symlink;
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("root");
        std::fs::create_dir_all(root.join("..data")).unwrap();
        write(&root.join("..data/token"), b"abc", 0o600);
        write(&folder.path().join("outside"), b"hunter2", 0o600);
        symlink("..data/token", root.join("token")).unwrap();
        symlink("../outside", root.join("up")).unwrap();
        symlink("..", root.join("folder")).unwrap();
        symlink(folder.path().join("outside"), root.join("absolute")).unwrap();
        let store = FileStore::new(&root);
        assert_eq!(store.read("token").await.unwrap().fields["value"].expose(), "abc");
        for path in ["up", "absolute", "folder/outside"] {
            let error = store.read(path).await.unwrap_err();
            assert!(matches!(error, SecretError::Denied { .. }), "{path}: {error}");
        }
    }

    #[tokio::test]
    async fn a_pipe_keeps_nobody_waiting() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pipe");
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        for store in [FileStore::new(folder.path()), FileStore::new("/")] {
            let name = match store.root == Path::new("/") {
                true => path.strip_prefix("/").unwrap().to_str().unwrap(),
                false => "pipe",
            };
            assert!(matches!(store.read(name).await, Err(SecretError::Invalid { .. })));
        }
    }

    #[tokio::test]
    async fn changes_are_told() {
        let folder = tempfile::tempdir().unwrap();
        write(&folder.path().join("token"), b"one", 0o600);
        let store = FileStore::new(folder.path());
        assert!(store.watch("../x").is_none());
        let mut changes = store.watch("token").unwrap();
        // The watch itself comes a moment later, and tells that it is there.
        changes.changed().await.unwrap();
        let mut other = store.watch("absent").unwrap();
        other.changed().await.unwrap();
        write(&folder.path().join("token"), b"two", 0o600);
        changes.changed().await.unwrap();
        std::fs::rename(folder.path().join("token"), folder.path().join("absent")).unwrap();
        other.changed().await.unwrap();
        assert_eq!(store.read("absent").await.unwrap().fields["value"].expose(), "two");
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn a_file_others_may_write_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let store = FileStore::new(folder.path());
        for mode in [0o620, 0o602, 0o666] {
            write(&folder.path().join("token"), b"abc", mode);
            assert!(matches!(store.read("token").await, Err(SecretError::Denied { .. })), "{mode:o}");
        }
        for mode in [0o600, 0o400, 0o640, 0o644] {
            write(&folder.path().join("token"), b"abc", 0o600);
            write(&folder.path().join("token"), b"abc", mode);
            assert!(store.read("token").await.is_ok(), "{mode:o}");
        }
    }
}

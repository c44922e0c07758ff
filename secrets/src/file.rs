//! The store `file`: small files on this host, with a check of who may change them.

use std::io::Read as _;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use invar_syntax::Secret;

use crate::error::SecretError;
use crate::snapshot::SecretSnapshot;
use crate::store::{BoxFuture, SecretStore, StoreKind};

/// The longest secret file, in bytes: what Kubernetes allows as well.
const SIZE_LIMIT: u64 = 1024 * 1024;

/// Reads files below a root; the path is relative to it.
#[derive(Clone, Debug)]
pub struct FileStore {
    root: PathBuf,
}

impl FileStore {
    /// A store that reads below `root`.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }
}

impl SecretStore for FileStore {
    fn kind(&self) -> StoreKind {
        StoreKind::File
    }

    fn read<'a>(&'a self, path: &'a str) -> BoxFuture<'a, Result<SecretSnapshot, SecretError>> {
        Box::pin(async move {
            let relative = Path::new(path);
            if !relative.components().all(|part| matches!(part, Component::Normal(_))) {
                return Err(SecretError::Denied {
                    reference: path.to_owned(),
                    reason: format!("the path has to stay below {}", self.root.display()),
                });
            }
            let full = self.root.join(relative);
            tokio::task::spawn_blocking(move || read_secret_file(&full).map(SecretSnapshot::single))
                .await
                .unwrap_or_else(|_| {
                    Err(SecretError::unavailable(path.to_owned(), "reading was interrupted".to_owned()))
                })
        })
    }

    fn refresh_interval(&self) -> Option<Duration> {
        Some(Duration::from_secs(60))
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
    let reference = format!("file{}{}", if path.is_absolute() { "" } else { "/" }, path.display());
    let opened = std::fs::File::open(path).and_then(|file| Ok((file.metadata()?, file)));
    let (metadata, file) = match opened {
        Ok(opened) => opened,
        Err(error) => return Err(io_error(&reference, &error)),
    };
    if !metadata.is_file() {
        return Err(SecretError::Invalid { reference, reason: "it is not a file".to_owned() });
    }
    check_mode(path, &metadata, &reference)?;
    let mut text = String::new();
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
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    if text.is_empty() {
        return Err(SecretError::Invalid { reference, reason: "it is empty".to_owned() });
    }
    Ok(Secret::new(text))
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

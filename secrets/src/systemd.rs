//! The store `systemd`: credentials that the service manager handed to this process (`LoadCredential=`,
//! `SetCredentialEncrypted=` …), which it has decrypted already and put into a folder of the process's own.

use std::path::PathBuf;
use std::time::Duration;

use crate::error::SecretError;
use crate::file::read_secret_file;
use crate::snapshot::SecretSnapshot;
use crate::store::{BoxFuture, SecretStore, StoreKind};

/// Where the service manager says that they are.
const VARIABLE: &str = "CREDENTIALS_DIRECTORY";
/// The longest name that systemd allows.
const LONGEST_NAME: usize = 255;
/// A reload of the unit may bring others.
const REFRESH_INTERVAL: Duration = Duration::from_secs(60);

/// Reads credentials of this service by their name.
#[derive(Clone, Debug)]
pub struct SystemdStore {
    directory: PathBuf,
}

impl SystemdStore {
    /// A store on the folder that the service manager made.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self { directory: directory.into() }
    }

    /// The folder of this process, where it has one.
    #[must_use]
    pub fn directory_of_process() -> Option<PathBuf> {
        std::env::var_os(VARIABLE).filter(|value| !value.is_empty()).map(PathBuf::from)
    }
}

impl SecretStore for SystemdStore {
    fn kind(&self) -> StoreKind {
        StoreKind::Systemd
    }

    fn read<'a>(&'a self, path: &'a str) -> BoxFuture<'a, Result<SecretSnapshot, SecretError>> {
        Box::pin(async move {
            if !is_name(path) {
                return Err(SecretError::Invalid {
                    reference: path.to_owned(),
                    reason: "the name of a credential is one word without slashes".to_owned(),
                });
            }
            let full = self.directory.join(path);
            let read = tokio::task::spawn_blocking(move || read_secret_file(&full)).await;
            match read {
                Ok(Err(SecretError::Missing { .. })) => Err(SecretError::Missing {
                    reference: path.to_owned(),
                    reason: format!(
                        "the unit hands no credential of that name to the agent: add LoadCredential={path}:/… to it"
                    ),
                }),
                Ok(read) => read.map(SecretSnapshot::single),
                Err(_) => Err(SecretError::unavailable(path, "reading was interrupted")),
            }
        })
    }

    fn check(&self) -> BoxFuture<'_, Result<String, SecretError>> {
        Box::pin(async move {
            let listed = tokio::fs::read_dir(&self.directory).await;
            let mut entries = listed.map_err(|error| {
                SecretError::unavailable("", format!("{}: {error}", self.directory.display()))
            })?;
            let mut count = 0;
            while let Ok(Some(_)) = entries.next_entry().await {
                count += 1;
            }
            Ok(format!("{count} credentials in {}", self.directory.display()))
        })
    }

    fn refresh_interval(&self) -> Option<Duration> {
        Some(REFRESH_INTERVAL)
    }
}

/// Whether it can be the name of a credential: a file name, and nothing that leads elsewhere.
fn is_name(text: &str) -> bool {
    !matches!(text, "" | "." | "..") && text.len() <= LONGEST_NAME && !text.contains(['/', '\0'])
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[tokio::test]
    async fn credentials_are_read_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("credentials");
        std::fs::create_dir(&place).unwrap();
        for (path, content) in [(place.join("token"), "abc\n"), (folder.path().join("outside"), "hunter2")] {
            std::fs::write(&path, content).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o400)).unwrap();
        }
        let store = SystemdStore::new(&place);
        assert_eq!(store.read("token").await.unwrap().fields["value"].expose(), "abc");
        let error = store.read("other").await.unwrap_err();
        assert!(matches!(error, SecretError::Missing { .. }));
        assert!(error.to_string().contains("LoadCredential=other"), "{error}");
        for path in ["../outside", "..", ".", "a/b", "/etc/passwd", &"x".repeat(256)] {
            assert!(matches!(store.read(path).await, Err(SecretError::Invalid { .. })), "{path}");
        }
        assert!(store.check().await.unwrap().starts_with("1 credentials in "));
        assert!(SystemdStore::new(place.join("gone")).check().await.is_err());
    }
}

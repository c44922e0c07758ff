//! Values that were read last, kept encrypted for a start while their store cannot be reached. Off by default: then
//! nothing is ever written, and what an earlier setting wrote is removed. The key comes from outside of the state
//! directory, and is none that the state directory's reader has.

mod record;
mod settings;

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use invar_syntax::Secret;
use ring::digest::{SHA256, digest};

pub use self::record::{RecordError, open_record, seal_record};
pub use self::settings::{EncryptedOffline, OfflineSettings};
use crate::credential::Credential;
use crate::error::SecretError;
use crate::reference::SecretReference;
use crate::snapshot::SecretSnapshot;
use crate::store::StoreKind;
use crate::stores::SecretStores;

/// Keeps values for a start without their stores. Cloning shares it.
#[derive(Clone)]
pub struct OfflineCache {
    held: Option<Arc<Held>>,
}

struct Held {
    directory: PathBuf,
    key: Secret,
    /// Where the key itself is, if it is a secret: never kept.
    key_reference: Option<SecretReference>,
    settings: EncryptedOffline,
}

impl std::fmt::Debug for OfflineCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("OfflineCache").field(&self.held.as_ref().map(|held| &held.directory)).finish()
    }
}

impl OfflineCache {
    /// A cache that keeps nothing.
    #[must_use]
    pub fn denied() -> Self {
        Self { held: None }
    }

    /// Opens the cache that the settings describe in this folder, which is made when there is something to keep. `stores`
    /// hold the key, if it is a secret.
    ///
    /// # Errors
    /// The key cannot be had, or is none; or the folder cannot be read.
    pub async fn open(
        settings: &OfflineSettings,
        directory: &Path,
        stores: &SecretStores,
    ) -> Result<Self, SecretError> {
        let directory = directory.to_path_buf();
        let settings = match settings {
            OfflineSettings::Deny => {
                aside(move || remove_all(&directory)).await?;
                return Ok(Self::denied());
            }
            OfflineSettings::Encrypted(settings) => settings.clone(),
        };
        let key = settings
            .key
            .resolve(stores)
            .await
            .map_err(|error| error.of_part("", "the key of offline secrets"))?;
        if let Some(problem) = record::key_problem(&key) {
            return Err(SecretError::Invalid {
                reference: String::new(),
                reason: format!("the key of offline secrets: {problem}"),
            });
        }
        let key_reference = match &settings.key {
            Credential::Secret(reference) => Some(reference.clone()),
            Credential::Text(_) | Credential::File(_) | Credential::Environment(_) => None,
        };
        let (kept, max_age) = (directory.clone(), settings.max_age);
        aside(move || remove_old(&kept, SystemTime::now(), max_age)).await?;
        Ok(Self { held: Some(Arc::new(Held { directory, key, key_reference, settings })) })
    }

    /// Whether values of this path are kept: those of stores that may be out of reach when the agent starts, and never the
    /// key itself.
    #[must_use]
    pub fn keeps(&self, kind: StoreKind, store: &str, path: &str) -> bool {
        let Some(held) = &self.held else { return false };
        let is_key = held.key_reference.as_ref().is_some_and(|key| key.store == store && key.path == path);
        let remote = match kind {
            StoreKind::Vault | StoreKind::Kubernetes | StoreKind::Exec => true,
            StoreKind::Environment | StoreKind::File | StoreKind::Systemd | StoreKind::Age => false,
        };
        remote && !is_key
    }

    /// The value that was kept, if it is one for this path, not too old, and has not ended. A lease has what is left of it.
    pub async fn load(&self, store: &str, path: &str) -> Option<SecretSnapshot> {
        let held = Arc::clone(self.held.as_ref()?);
        let (store, path) = (store.to_owned(), path.to_owned());
        let loaded = tokio::task::spawn_blocking(move || held.load(&store, &path, SystemTime::now()));
        loaded.await.ok().flatten()
    }

    /// Keeps a value, durably, in place of the one before.
    ///
    /// # Errors
    /// It cannot be written. The one before is as it was.
    pub async fn save(&self, store: &str, path: &str, snapshot: &SecretSnapshot) -> Result<(), SecretError> {
        let Some(held) = self.held.clone() else { return Ok(()) };
        let (store, path, snapshot) = (store.to_owned(), path.to_owned(), snapshot.clone());
        aside(move || held.save(&store, &path, &snapshot, SystemTime::now())).await
    }

    /// Removes what is kept of a path.
    ///
    /// # Errors
    /// It cannot be removed.
    pub async fn forget(&self, store: &str, path: &str) -> Result<(), SecretError> {
        let Some(held) = self.held.clone() else { return Ok(()) };
        let (store, path) = (store.to_owned(), path.to_owned());
        aside(move || {
            remove_file(&held.file(&store, &path))?;
            sync_directory(&held.directory)
        })
        .await
    }
}

impl Held {
    /// Where a path is kept. The name says nothing, since a reader of the folder need not know what there is.
    fn file(&self, store: &str, path: &str) -> PathBuf {
        let mut named = self.key.expose().as_bytes().to_vec();
        named.extend_from_slice(&record::context(store, path));
        let digest = digest(&SHA256, &zeroize::Zeroizing::new(named));
        let name: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        self.directory.join(name)
    }

    fn load(&self, store: &str, path: &str, now: SystemTime) -> Option<SecretSnapshot> {
        let sealed = fs::read(self.file(store, path)).ok()?;
        match open_record(&self.key, store, path, &sealed, now, self.settings.max_age) {
            Ok(snapshot) => Some(snapshot),
            Err(error) => {
                tracing::info!(store, path, %error, "a value that was kept is not used");
                None
            }
        }
    }

    fn save(&self, store: &str, path: &str, snapshot: &SecretSnapshot, now: SystemTime) -> io::Result<()> {
        let sealed = seal_record(&self.key, store, path, snapshot, now).map_err(io::Error::other)?;
        if !self.directory.is_dir() {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.directory)?;
            self.directory.parent().map_or(Ok(()), sync_directory)?;
        }
        let file = self.file(store, path);
        let temporary = file.with_extension("new");
        remove_file(&temporary)?;
        let written = (|| {
            let mut new = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
            new.write_all(&sealed)?;
            new.sync_all()?;
            fs::rename(&temporary, &file)
        })();
        if written.is_err() {
            // What is left of a failed write only takes up space; the next one removes it as well.
            drop(fs::remove_file(&temporary));
        }
        written?;
        sync_directory(&self.directory)
    }
}

/// Runs what blocks where it may.
async fn aside(work: impl FnOnce() -> io::Result<()> + Send + 'static) -> Result<(), SecretError> {
    let done = tokio::task::spawn_blocking(work).await;
    let done = done.unwrap_or_else(|_| Err(io::Error::other("it was interrupted")));
    done.map_err(|error| SecretError::unavailable("", format!("the folder of offline secrets: {error}")))
}

fn remove_file(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn remove_all(directory: &Path) -> io::Result<()> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Removes what nobody will use any more: records that are too old, and what is left of writes that were interrupted.
fn remove_old(directory: &Path, now: SystemTime, max_age: std::time::Duration) -> io::Result<()> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let path = entry?.path();
        let written = fs::metadata(&path).and_then(|metadata| metadata.modified());
        let old = written.is_ok_and(|written| now.duration_since(written).is_ok_and(|age| age > max_age));
        if old || path.extension().is_some_and(|extension| extension == "new") {
            remove_file(&path)?;
        }
    }
    Ok(())
}

fn sync_directory(directory: &Path) -> io::Result<()> {
    fs::File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests;

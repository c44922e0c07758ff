//! Values that were read last, kept encrypted for a start while their store cannot be reached. Off by default: then
//! nothing is ever written, and what an earlier setting wrote is removed. The key comes from outside of the state
//! directory, and is none that the state directory's reader has.

mod record;
mod settings;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use invar_durable::{make_directory, replace, sync_directory};
use invar_syntax::Secret;
use parking_lot::Mutex;
use ring::digest::{SHA256, digest};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

pub use self::record::{RecordError, open_record, seal_record};
pub use self::settings::{EncryptedOffline, OfflineSettings};
use crate::credential::Credential;
use crate::error::SecretError;
use crate::memory::SecretMemory;
use crate::reference::SecretReference;
use crate::snapshot::SecretSnapshot;
use crate::store::StoreKind;
use crate::stores::SecretStores;

/// The longest record that is read.
const RECORD_LIMIT: u64 = 16 << 20;
/// As many records are read.
const MOST_RECORDS: usize = 20_000;
/// A value that a store confirmed is written again when its record has this share of the longest age.
const CONFIRM_SHARE: u32 = 24;

/// Keeps values for a start without their stores. Cloning shares it; the last clone ends the task that writes.
#[derive(Clone)]
pub struct OfflineCache {
    held: Option<Arc<Held>>,
    _writer: Option<Arc<Writer>>,
}

struct Held {
    directory: PathBuf,
    key: Secret,
    /// Where the key itself is, if it is a secret: never kept.
    key_reference: Option<SecretReference>,
    settings: EncryptedOffline,
    kinds: BTreeMap<String, StoreKind>,
    /// What is in the folder, encrypted, by the name of its file.
    records: Mutex<BTreeMap<OsString, Arc<[u8]>>>,
    /// What is to be written; of each path the newest, or nothing where it is to be forgotten.
    pending: Mutex<BTreeMap<Named, Option<SecretSnapshot>>>,
    /// What was noted last of each path, by a digest, and when.
    noted: Mutex<BTreeMap<Named, ([u8; 32], SystemTime)>>,
    asked: Notify,
    writing: tokio::sync::Mutex<()>,
}

/// A store and a path.
type Named = (String, String);

/// The task that writes.
struct Writer(JoinHandle<()>);

impl Drop for Writer {
    fn drop(&mut self) {
        self.0.abort();
    }
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
        Self { held: None, _writer: None }
    }

    /// Opens the cache that the settings describe in this folder, which is made when there is something to keep. `stores`
    /// are those whose values are kept, and hold the key, if it is a secret. Has to be called within a runtime.
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
        let key = settings.key_in(stores).await?;
        let key_reference = match &settings.key {
            Credential::Secret(reference) => Some(reference.clone()),
            Credential::Text(_) | Credential::File(_) | Credential::Environment(_) => None,
        };
        let (kept, max_age, of_key) = (directory.clone(), settings.max_age, prefix_of(&key));
        let records = aside(move || {
            remove_old(&kept, SystemTime::now(), max_age)?;
            // A key may be replaced because others have it.
            remove_unless(&kept, |name| name.starts_with(&of_key))?;
            read_all(&kept)
        });
        let held = Arc::new(Held {
            directory,
            key,
            key_reference,
            settings,
            kinds: stores.stores().map(|(name, store)| (name.to_owned(), store.kind())).collect(),
            records: Mutex::new(records.await?),
            pending: Mutex::default(),
            noted: Mutex::default(),
            asked: Notify::new(),
            writing: tokio::sync::Mutex::default(),
        });
        let writer = Arc::clone(&held);
        let task = tokio::spawn(async move {
            loop {
                writer.asked.notified().await;
                writer.write_pending().await;
            }
        });
        Ok(Self { held: Some(held), _writer: Some(Arc::new(Writer(task))) })
    }

    /// Whether anything is kept.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.held.is_some()
    }

    /// Keeps a value, durably, in place of the one before.
    ///
    /// # Errors
    /// It cannot be written. The one before is as it was.
    pub async fn save(&self, store: &str, path: &str, snapshot: &SecretSnapshot) -> Result<(), SecretError> {
        let Some(held) = self.held.clone() else { return Ok(()) };
        let (store, path, snapshot) = (store.to_owned(), path.to_owned(), snapshot.clone());
        let turns = Arc::clone(&held);
        let _turn = turns.writing.lock().await;
        aside(move || held.save(&store, &path, &snapshot, SystemTime::now())).await
    }

    /// Writes what was noted and is not written yet.
    pub async fn flush(&self) {
        if let Some(held) = &self.held {
            held.write_pending().await;
        }
    }

    /// Removes what is kept of a path.
    ///
    /// # Errors
    /// It cannot be removed.
    pub async fn forget(&self, store: &str, path: &str) -> Result<(), SecretError> {
        let Some(held) = self.held.clone() else { return Ok(()) };
        let (store, path) = (store.to_owned(), path.to_owned());
        aside(move || held.forget(store, path)).await
    }
}

impl SecretMemory for OfflineCache {
    /// The value that was kept, if it is one for this path, not too old, and has not ended. A lease has what is left of it.
    fn recall(&self, store: &str, path: &str) -> Option<SecretSnapshot> {
        self.held.as_ref()?.recall(store, path, SystemTime::now())
    }

    fn recall_lease(&self, store: &str, path: &str) -> Option<SecretSnapshot> {
        let held = self.held.as_ref()?;
        let sealed = held.sealed(store, path)?;
        match record::open_lease(&held.key, store, path, &sealed, SystemTime::now()) {
            Ok(snapshot) => Some(snapshot),
            Err(error) => {
                tracing::debug!(store, path, %error, "no lease is kept that could be resumed");
                None
            }
        }
    }

    fn remember(&self, store: &str, path: &str, snapshot: &SecretSnapshot) {
        if let Some(held) = &self.held {
            held.note(store, path, snapshot, SystemTime::now());
        }
    }

    fn forget(&self, store: &str, path: &str) {
        if let Some(held) = &self.held {
            held.note_forgotten(store, path);
        }
    }
}

impl Held {
    /// Whether values of this path are kept: those of stores that may be out of reach when the agent starts, and never the
    /// key itself.
    fn keeps(&self, store: &str, path: &str) -> bool {
        let is_key = self.key_reference.as_ref().is_some_and(|key| key.store == store && key.path == path);
        let remote = match self.kinds.get(store) {
            Some(StoreKind::Vault | StoreKind::Kubernetes | StoreKind::Exec) => true,
            Some(StoreKind::Environment | StoreKind::File | StoreKind::Systemd | StoreKind::Age) | None => {
                false
            }
        };
        remote && !is_key
    }

    /// Where a path is kept. The name says nothing, since a reader of the folder need not know what there is, but whether it
    /// is of this key.
    fn file_name(&self, store: &str, path: &str) -> OsString {
        let name = digest_with(&self.key, &record::context(store, path));
        format!("{}{name}", prefix_of(&self.key)).into()
    }

    fn sealed(&self, store: &str, path: &str) -> Option<Arc<[u8]>> {
        self.records.lock().get(&self.file_name(store, path)).cloned()
    }

    fn recall(&self, store: &str, path: &str, now: SystemTime) -> Option<SecretSnapshot> {
        let sealed = self.sealed(store, path)?;
        match open_record(&self.key, store, path, &sealed, now, self.settings.max_age) {
            Ok(snapshot) => {
                tracing::warn!(store, path, "a value that was kept is used: its store is out of reach");
                Some(snapshot)
            }
            Err(error) => {
                tracing::info!(store, path, %error, "a value that was kept is not used");
                None
            }
        }
    }

    /// Has a value written soon, unless it is written already and not long ago.
    fn note(&self, store: &str, path: &str, snapshot: &SecretSnapshot, now: SystemTime) {
        if !self.keeps(store, path) {
            return;
        }
        let named = (store.to_owned(), path.to_owned());
        let digest = record::digest_of(&self.key, snapshot);
        let again = self.settings.max_age / CONFIRM_SHARE;
        let mut noted = self.noted.lock();
        let fresh = noted.get(&named).is_some_and(|(before, at)| {
            *before == digest && now.duration_since(*at).is_ok_and(|age| age < again)
        });
        if fresh {
            return;
        }
        noted.insert(named.clone(), (digest, now));
        drop(noted);
        self.pending.lock().insert(named, Some(snapshot.clone()));
        self.asked.notify_one();
    }

    /// Forgets at once, and has the file removed soon.
    fn note_forgotten(&self, store: &str, path: &str) {
        self.records.lock().remove(&self.file_name(store, path));
        let named = (store.to_owned(), path.to_owned());
        self.noted.lock().remove(&named);
        self.pending.lock().insert(named, None);
        self.asked.notify_one();
    }

    async fn write_pending(self: &Arc<Self>) {
        let _turn = self.writing.lock().await;
        let pending = std::mem::take(&mut *self.pending.lock());
        if pending.is_empty() {
            return;
        }
        let held = Arc::clone(self);
        let written = aside(move || {
            let now = SystemTime::now();
            for ((store, path), snapshot) in pending {
                let written = match &snapshot {
                    Some(snapshot) => held.save(&store, &path, snapshot, now),
                    None => held.remove(&store, &path),
                };
                if let Err(error) = written {
                    tracing::warn!(store, path, %error, "a value cannot be kept for the next start");
                    // So that the next answer of the store is written.
                    held.noted.lock().remove(&(store, path));
                }
            }
            Ok(())
        });
        if let Err(error) = written.await {
            tracing::warn!(%error, "values cannot be kept for the next start");
        }
    }

    fn save(&self, store: &str, path: &str, snapshot: &SecretSnapshot, now: SystemTime) -> io::Result<()> {
        let sealed = seal_record(&self.key, store, path, snapshot, now).map_err(io::Error::other)?;
        make_directory(&self.directory)?;
        let name = self.file_name(store, path);
        let file = self.directory.join(&name);
        replace(&file, &[&sealed])?;
        if let Some(renewed) = self.leased_until(snapshot, now) {
            fs::File::open(&file)?.set_modified(renewed)?;
        }
        self.records.lock().insert(name, sealed.into());
        Ok(())
    }

    fn forget(&self, store: String, path: String) -> io::Result<()> {
        let named = (store, path);
        self.pending.lock().remove(&named);
        self.noted.lock().remove(&named);
        self.remove(&named.0, &named.1)
    }

    /// The time that a record's file is given, so that it stays for as long as the lease in it, which can be resumed at any
    /// age; nothing where the usual age is as long.
    fn leased_until(&self, snapshot: &SecretSnapshot, now: SystemTime) -> Option<SystemTime> {
        let beyond = snapshot.lease.as_ref()?.duration.checked_sub(self.settings.max_age)?;
        now.checked_add(beyond)
    }

    fn remove(&self, store: &str, path: &str) -> io::Result<()> {
        let name = self.file_name(store, path);
        self.records.lock().remove(&name);
        remove_file(&self.directory.join(name))?;
        match self.directory.is_dir() {
            true => sync_directory(&self.directory),
            false => Ok(()),
        }
    }
}

/// What the names of all records begin with that are written with this key.
fn prefix_of(key: &Secret) -> String {
    let mut prefix = digest_with(key, b"records");
    prefix.truncate(8);
    prefix + "-"
}

fn digest_with(key: &Secret, what: &[u8]) -> String {
    let named = zeroize::Zeroizing::new([key.expose().as_bytes(), what].concat());
    digest(&SHA256, &named).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Runs what blocks where it may.
async fn aside<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, SecretError> {
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
fn remove_old(directory: &Path, now: SystemTime, max_age: Duration) -> io::Result<()> {
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

/// Removes what has another name.
fn remove_unless(directory: &Path, is_kept: impl Fn(&str) -> bool) -> io::Result<()> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_file() && !entry.file_name().to_str().is_some_and(&is_kept) {
            remove_file(&entry.path())?;
        }
    }
    Ok(())
}

/// All records of the folder, encrypted as they are.
fn read_all(directory: &Path) -> io::Result<BTreeMap<OsString, Arc<[u8]>>> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        Err(error) => return Err(error),
    };
    let mut records = BTreeMap::new();
    for entry in entries.take(MOST_RECORDS) {
        let entry = entry?;
        let mut sealed = Vec::new();
        let read =
            fs::File::open(entry.path()).and_then(|file| file.take(RECORD_LIMIT).read_to_end(&mut sealed));
        match read {
            Ok(_) => drop(records.insert(entry.file_name(), sealed.into())),
            Err(error) => {
                tracing::warn!(file = %entry.path().display(), %error, "a value that was kept cannot be read")
            }
        }
    }
    Ok(records)
}

#[cfg(test)]
mod tests;

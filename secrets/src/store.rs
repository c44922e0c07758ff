//! Stores by name, and the cells that handles read from.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use invar_syntax::Secret;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::error::SecretError;
use crate::handle::{Lease, SecretHandle, SecretSnapshot};
use crate::reference::SecretReference;

/// A boxed future, as trait objects need it.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The kinds of stores.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StoreKind {
    /// Variables of the process's environment.
    Environment,
    /// Files on this host.
    File,
    /// A Vault or `OpenBao` server.
    Vault,
    /// Secrets of a Kubernetes cluster.
    Kubernetes,
    /// Credentials that systemd handed to the process.
    Systemd,
    /// Commands of this host.
    Exec,
    /// Encrypted files that come with the configuration.
    Age,
}

/// A place that secrets are read from.
pub trait SecretStore: Send + Sync + 'static {
    /// What kind of store it is.
    fn kind(&self) -> StoreKind;

    /// Reads all fields under `path`, in one version. The version number itself is set by the caller.
    ///
    /// # Errors
    /// [`SecretError`]; the reference in it is written `<path>` and is completed by the caller.
    fn read<'a>(&'a self, path: &'a str) -> BoxFuture<'a, Result<SecretSnapshot, SecretError>>;

    /// Extends what a read of this store granted; the answer says for how long. Fewer seconds than were granted first, or
    /// none, mean that the grant nears its end.
    ///
    /// # Errors
    /// [`SecretError::Missing`] when the store does not know the lease any more; others as for a read.
    fn renew<'a>(&'a self, lease: &'a Lease) -> BoxFuture<'a, Result<Lease, SecretError>> {
        Box::pin(async {
            Err(SecretError::Invalid {
                reference: lease.id.clone(),
                reason: "this store grants nothing for a time".to_owned(),
            })
        })
    }

    /// Gives back what a read of this store granted.
    ///
    /// # Errors
    /// As for a read.
    fn revoke<'a>(&'a self, _lease: &'a Lease) -> BoxFuture<'a, Result<(), SecretError>> {
        Box::pin(async { Ok(()) })
    }

    /// Whether the store can be reached and lets us in, and as whom: one line for an operator.
    ///
    /// # Errors
    /// As for a read; the reference is empty.
    fn check(&self) -> BoxFuture<'_, Result<String, SecretError>> {
        Box::pin(async { Ok("at hand".to_owned()) })
    }

    /// How often what has no end of its own is read again; `None` when it cannot change.
    fn refresh_interval(&self) -> Option<Duration> {
        None
    }

    /// Counts up when the store knows that something under `path` changed (a watch, an event).
    fn watch(&self, _path: &str) -> Option<watch::Receiver<u64>> {
        None
    }
}

type Cell = watch::Sender<Arc<SecretSnapshot>>;

/// The configured stores. Cloning is cheap.
#[derive(Clone, Default)]
pub struct SecretStores {
    stores: Arc<BTreeMap<String, Arc<dyn SecretStore>>>,
    cells: Arc<Mutex<BTreeMap<(String, String), Cell>>>,
}

impl fmt::Debug for SecretStores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SecretStores").field(&self.stores.keys()).finish()
    }
}

impl SecretStores {
    /// The stores by the name that stands before the first slash of a reference.
    #[must_use]
    pub fn new(stores: BTreeMap<String, Arc<dyn SecretStore>>) -> Self {
        Self { stores: Arc::new(stores), cells: Arc::default() }
    }

    /// The stores every host has: `env` (all variables) and `file` (all absolute paths).
    #[must_use]
    pub fn local() -> Self {
        let environment: Arc<dyn SecretStore> = Arc::new(crate::EnvironmentStore::process());
        let file: Arc<dyn SecretStore> = Arc::new(crate::FileStore::new("/"));
        Self::new(BTreeMap::from([("env".to_owned(), environment), ("file".to_owned(), file)]))
    }

    /// The store of that name.
    #[must_use]
    pub fn store(&self, name: &str) -> Option<&Arc<dyn SecretStore>> {
        self.stores.get(name)
    }

    /// Reads what `reference` names, now.
    ///
    /// # Errors
    /// [`SecretError`].
    pub async fn read(&self, reference: &SecretReference) -> Result<Secret, SecretError> {
        self.read_snapshot(reference).await?.field(reference).cloned()
    }

    async fn read_snapshot(&self, reference: &SecretReference) -> Result<SecretSnapshot, SecretError> {
        let store = self.stores.get(&reference.store).ok_or_else(|| SecretError::UnknownStore {
            reference: reference.to_string(),
            store: reference.store.clone(),
        })?;
        store.read(&reference.path).await.map_err(|error| complete(error, reference))
    }

    /// A handle on what `reference` names. Handles on the same path share one cell.
    ///
    /// # Errors
    /// [`SecretError`] when the first read fails or the field is missing.
    pub async fn handle(&self, reference: &SecretReference) -> Result<SecretHandle, SecretError> {
        let key = (reference.store.clone(), reference.path.clone());
        let held = self.cells.lock().get(&key).map(Cell::subscribe);
        if let Some(cell) = held {
            cell.borrow().field(reference)?;
            return Ok(SecretHandle::new(reference.clone(), cell));
        }
        let snapshot = self.read_snapshot(reference).await?;
        snapshot.field(reference)?;
        let mut cells = self.cells.lock();
        // Somebody else may have been quicker while this one was reading.
        let cell = cells.entry(key).or_insert_with(|| watch::Sender::new(Arc::new(snapshot))).subscribe();
        Ok(SecretHandle::new(reference.clone(), cell))
    }

    /// Reads every path that somebody holds a handle on again, and publishes what changed. Values that
    /// cannot be had stay as they are. Returns what went wrong, by `<store>/<path>`.
    pub async fn refresh(&self) -> Vec<(String, SecretError)> {
        let keys: Vec<(String, String)> = {
            let mut cells = self.cells.lock();
            cells.retain(|_, cell| cell.receiver_count() > 0);
            cells.keys().cloned().collect()
        };
        let mut failures = Vec::new();
        for (store, path) in keys {
            let reference = SecretReference { store: store.clone(), path: path.clone(), field: None };
            match self.read_snapshot(&reference).await {
                Ok(new) => {
                    let cells = self.cells.lock();
                    if let Some(cell) = cells.get(&(store, path)) {
                        cell.send_if_modified(|held| publish(held, new));
                    }
                }
                Err(error) => failures.push((reference.to_string(), error)),
            }
        }
        failures
    }
}

/// Replaces `held` by `new` if the values differ; a rotation that loses a field is refused.
fn publish(held: &mut Arc<SecretSnapshot>, mut new: SecretSnapshot) -> bool {
    let same_shape = held.fields.keys().all(|name| new.fields.contains_key(name));
    if !same_shape || (held.fields == new.fields && held.not_after == new.not_after) {
        return false;
    }
    new.version = held.version + 1;
    *held = Arc::new(new);
    true
}

fn complete(error: SecretError, of: &SecretReference) -> SecretError {
    let reference = of.to_string();
    match error {
        SecretError::Missing { reason, .. } => SecretError::Missing { reference, reason },
        SecretError::Denied { reason, .. } => SecretError::Denied { reference, reason },
        SecretError::Unavailable { reason, retry_after, .. } => {
            SecretError::Unavailable { reference, reason, retry_after }
        }
        SecretError::Compromised { reason, .. } => SecretError::Compromised { reference, reason },
        SecretError::Invalid { reason, .. } => SecretError::Invalid { reference, reason },
        SecretError::UnknownStore { store, .. } => SecretError::UnknownStore { reference, store },
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[derive(Default)]
    struct Scripted(Mutex<BTreeMap<String, String>>);

    impl SecretStore for Arc<Scripted> {
        fn kind(&self) -> StoreKind {
            StoreKind::Vault
        }

        fn read<'a>(&'a self, path: &'a str) -> BoxFuture<'a, Result<SecretSnapshot, SecretError>> {
            Box::pin(async move {
                let fields = self.0.lock();
                if fields.is_empty() {
                    return Err(SecretError::unavailable(path.to_owned(), "sealed".to_owned()));
                }
                let fields =
                    fields.iter().map(|(name, value)| (name.clone(), Secret::new(value.clone()))).collect();
                Ok(SecretSnapshot::new(fields))
            })
        }
    }

    fn scripted() -> (Arc<Scripted>, SecretStores) {
        let store = Arc::new(Scripted::default());
        let dynamic: Arc<dyn SecretStore> = Arc::new(Arc::clone(&store));
        (store, SecretStores::new(BTreeMap::from([("vault".to_owned(), dynamic)])))
    }

    fn set(store: &Scripted, fields: &[(&str, &str)]) {
        *store.0.lock() =
            fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    }

    #[tokio::test]
    async fn a_rotation_reaches_every_handle_as_a_whole() {
        let (store, stores) = scripted();
        set(&store, &[("user", "a"), ("password", "one-1")]);
        let reference: SecretReference = "vault/kv/es#password".parse().unwrap();
        let handle = stores.handle(&reference).await.unwrap();
        let user = stores.handle(&"vault/kv/es#user".parse().unwrap()).await.unwrap();
        assert_eq!((handle.secret().unwrap().expose(), handle.version()), ("one-1", 1));

        assert!(stores.refresh().await.is_empty());
        assert_eq!(handle.version(), 1, "the same values are no rotation");

        set(&store, &[("user", "b"), ("password", "two-2")]);
        assert!(stores.refresh().await.is_empty());
        assert_eq!((handle.secret().unwrap().expose(), handle.version()), ("two-2", 2));
        assert_eq!(user.secret().unwrap().expose(), "b");
        assert_eq!(user.snapshot().field(&reference).unwrap().expose(), "two-2");
    }

    #[tokio::test]
    async fn what_cannot_be_had_or_lost_a_field_leaves_the_value() {
        let (store, stores) = scripted();
        set(&store, &[("user", "a"), ("password", "one-1")]);
        let handle = stores.handle(&"vault/kv/es#password".parse().unwrap()).await.unwrap();
        set(&store, &[]);
        let failures = stores.refresh().await;
        assert_eq!(failures.len(), 1);
        assert!(failures[0].1.is_transient());
        set(&store, &[("user", "b")]);
        assert!(stores.refresh().await.is_empty());
        assert_eq!((handle.secret().unwrap().expose(), handle.version()), ("one-1", 1));
    }

    #[tokio::test]
    async fn errors_name_the_reference_and_not_the_value() {
        let (store, stores) = scripted();
        set(&store, &[("user", "hunter2-hunter2"), ("password", "hunter2-hunter2")]);
        let error = stores.read(&"vault/kv/es".parse().unwrap()).await.unwrap_err();
        let text = format!("{error} {error:?}");
        assert!(text.contains("password, user") && text.contains("vault/kv/es"), "{text}");
        assert!(!text.contains("hunter2"));
        let error = stores.read(&"bao/kv/es".parse().unwrap()).await.unwrap_err();
        assert!(matches!(error, SecretError::UnknownStore { .. }));
        let handle = stores.handle(&"vault/kv/es#user".parse().unwrap()).await.unwrap();
        let text = format!("{handle:?} {:?} {stores:?}", handle.snapshot());
        assert!(!text.contains("hunter2"), "{text}");
    }
}

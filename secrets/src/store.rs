//! What a store of secrets is. It only answers; when it is asked is decided by whoever keeps what it answered
//! ([`SecretStores`](crate::SecretStores)).

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use tokio::sync::watch;

use crate::error::SecretError;
use crate::memory::StoreMemory;
use crate::missing::WhenMissing;
use crate::snapshot::{Lease, SecretSnapshot};

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

    /// Takes up again what an earlier process was granted, as it was granted then; the answer says what is left of it from now
    /// on. By default, nothing outlives the process.
    ///
    /// # Errors
    /// [`SecretError::Missing`] when it has ended, [`SecretError::Invalid`] when it does not go on here, since it was granted
    /// under something that is not in use any more; others as for a read.
    fn resume<'a>(
        &'a self,
        path: &'a str,
        _kept: &'a SecretSnapshot,
    ) -> BoxFuture<'a, Result<Lease, SecretError>> {
        Box::pin(async move {
            let reason = "nothing of this store outlives the process".to_owned();
            Err(SecretError::Invalid { reference: path.to_owned(), reason })
        })
    }

    /// Gives the store a place for what it needs itself at the next start, so that what it granted can be resumed.
    fn remember_by(&self, _memory: StoreMemory) {}

    /// Gives back what a read of this store granted.
    ///
    /// # Errors
    /// As for a read.
    fn revoke<'a>(&'a self, _lease: &'a Lease) -> BoxFuture<'a, Result<(), SecretError>> {
        Box::pin(async { Ok(()) })
    }

    /// Ends what the store does by itself, and gives back what it was granted to work with; with `keep` that lives on, since
    /// leases under it are kept for the next start.
    fn shutdown(&self, keep: bool) -> BoxFuture<'_, ()> {
        let _ = keep;
        Box::pin(async {})
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

    /// The same of one path, where that differs: what is told of needs less looking.
    fn refresh_interval_of(&self, _path: &str) -> Option<Duration> {
        self.refresh_interval()
    }

    /// What users of a secret get that the store has no more.
    fn when_missing(&self) -> WhenMissing {
        WhenMissing::Keep
    }

    /// What a person should know of how changes of `path` are noticed, where that is not as it should be.
    fn notice(&self, _path: &str) -> Option<String> {
        None
    }

    /// Counts up when the store knows that something under `path` changed (a watch, an event).
    fn watch(&self, _path: &str) -> Option<watch::Receiver<u64>> {
        None
    }
}

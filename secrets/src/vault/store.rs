//! The store: a client behind the trait that all stores share.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use ring::digest::{SHA256, digest};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::client::{ClientParts, ClientSettings, VaultClient};
use super::failure::VaultFailure;
use super::http::HttpTransport;
use super::place::Place;
use super::reading::Reading;
use super::settings::{VaultRead, VaultSettings};
use super::token::{Under, hex};
use crate::error::SecretError;
use crate::memory::StoreMemory;
use crate::missing::WhenMissing;
use crate::snapshot::{Lease, SecretSnapshot};
use crate::store::{BoxFuture, SecretStore, StoreKind};
use crate::stores::SecretStores;

/// How long giving back the token may take at the end.
const LONGEST_FAREWELL: Duration = Duration::from_secs(5);

/// How often what has no lease is read again where the settings do not say.
const REFRESH: Duration = Duration::from_secs(5 * 60);

/// Secrets of a Vault or `OpenBao` server, by `<mount>/<path>`, `/<namespace>//<mount>/<path>` or `@<name of a read>`.
pub struct VaultStore {
    client: VaultClient,
    reads: BTreeMap<String, VaultRead>,
    refresh: Duration,
    when_missing: WhenMissing,
    leased: Arc<Mutex<BTreeMap<String, Leased>>>,
    /// Tells those who hold a lease that the token it was granted under is on its way out.
    follower: Mutex<Option<JoinHandle<()>>>,
}

struct Leased {
    changes: watch::Sender<u64>,
    /// Under which token the lease was granted; none without a lease.
    generation: Option<u64>,
}

impl VaultStore {
    /// As the settings say; credentials are read from `credentials` where they say so. Does no input or output.
    ///
    /// # Errors
    /// What is wrong with the settings.
    pub fn new(settings: &VaultSettings, credentials: SecretStores) -> Result<Self, String> {
        let transport = HttpTransport::new(settings)?;
        Self::with(settings, ClientParts { credentials, ..ClientParts::new(Arc::new(transport)) })
    }

    /// The same with parts of one's own.
    ///
    /// # Errors
    /// What is wrong with the settings.
    pub fn with(settings: &VaultSettings, parts: ClientParts) -> Result<Self, String> {
        settings.validate()?;
        let client = ClientSettings {
            namespace: settings.namespace.clone().unwrap_or_default(),
            auth: settings.auth.clone(),
            timeout: settings.timeout,
            kv_version: settings.kv_version,
        };
        Ok(Self {
            client: VaultClient::new(client, parts),
            reads: settings.read.clone(),
            refresh: settings.refresh.unwrap_or(REFRESH),
            when_missing: settings.missing,
            leased: Arc::default(),
            follower: Mutex::default(),
        })
    }

    /// The client behind it.
    #[must_use]
    pub fn client(&self) -> &VaultClient {
        &self.client
    }

    /// Ends what runs for it, and waits for that. Nothing can be read afterwards.
    pub async fn shutdown(&self) {
        let follower = self.follower.lock().take();
        if let Some(follower) = follower {
            follower.abort();
            // Cancelled is what it was meant to be.
            drop(follower.await);
        }
        self.client.shutdown().await;
    }

    async fn read_path(&self, path: &str) -> Result<Reading, VaultFailure> {
        let Some(name) = path.strip_prefix('@') else { return self.client.read(path).await };
        let read = self.reads.get(name).ok_or_else(|| {
            let known: Vec<&str> = self.reads.keys().map(String::as_str).collect();
            VaultFailure::invalid(match known.is_empty() {
                true => format!("the settings of the store name no read `{name}`, nor any other"),
                false => {
                    format!("the settings of the store name no read `{name}`, only {}", known.join(", "))
                }
            })
        })?;
        self.client.read_named(name, read).await
    }

    /// Remembers under which token a lease was granted, if there is one.
    fn note(&self, path: &str, under: Option<&Under>) {
        let mut leased = self.leased.lock();
        let Some(under) = under else {
            if let Some(held) = leased.get_mut(path) {
                held.generation = None;
            }
            return;
        };
        let held = leased
            .entry(path.to_owned())
            .or_insert_with(|| Leased { changes: watch::Sender::new(0), generation: None });
        held.generation = Some(under.generation);
        if under.generation < *self.client.logins().borrow() {
            // There was a login in between.
            held.changes.send_modify(|count| *count += 1);
        }
        drop(leased);
        self.follow();
        self.client.keep_for_next(under);
    }

    /// What a lease ends with or is of no use without: the token of this mark and, where the settings describe what is read,
    /// that description.
    fn mark(&self, path: &str, token: &str) -> String {
        let Some(read) = path.strip_prefix('@').and_then(|name| self.reads.get(name)) else {
            return token.to_owned();
        };
        hex(digest(&SHA256, format!("{token} {read:?}").as_bytes()).as_ref())
    }

    /// The namespace of a path, below that of the store.
    fn namespace_of(&self, path: &str) -> String {
        let namespace = match path.strip_prefix('@') {
            Some(name) => self.reads.get(name).and_then(|read| read.namespace.clone()),
            None => Place::parse(path).ok().map(|place| place.namespace),
        };
        namespace.unwrap_or_default()
    }

    fn follow(&self) {
        let mut follower = self.follower.lock();
        if follower.is_some() {
            return;
        }
        let (leased, mut logins) = (Arc::clone(&self.leased), self.client.logins());
        *follower = Some(tokio::spawn(async move {
            while logins.changed().await.is_ok() {
                let newest = *logins.borrow_and_update();
                let mut leased = leased.lock();
                // What nobody listens to is forgotten with the token.
                leased.retain(|_, held| held.changes.receiver_count() > 0);
                for held in leased.values().filter(|held| held.generation.is_some_and(|of| of < newest)) {
                    held.changes.send_modify(|count| *count += 1);
                }
            }
        }));
    }
}

impl Drop for VaultStore {
    fn drop(&mut self) {
        if let Some(follower) = self.follower.get_mut().take() {
            follower.abort();
        }
    }
}

impl fmt::Debug for VaultStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VaultStore({})", self.client.server())
    }
}

impl SecretStore for VaultStore {
    fn shutdown(&self, keep: bool) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            if !keep {
                let revoked = tokio::time::timeout(LONGEST_FAREWELL, self.client.revoke_token()).await;
                let failure = revoked.map_or(Some("no answer".to_owned()), |done| {
                    done.err().map(|failure| failure.to_string())
                });
                if let Some(reason) = failure {
                    tracing::debug!(reason, "the token ends by itself only");
                }
            }
            Self::shutdown(self).await;
        })
    }

    fn kind(&self) -> StoreKind {
        StoreKind::Vault
    }

    fn read<'a>(&'a self, path: &'a str) -> BoxFuture<'a, Result<SecretSnapshot, SecretError>> {
        Box::pin(async move {
            let reading = self.read_path(path).await.map_err(|failure| failure.about(path))?;
            self.note(path, reading.under.as_ref());
            let granted_under = reading.under.as_ref().map(|under| self.mark(path, &under.mark));
            Ok(SecretSnapshot { granted_under, ..reading.into_snapshot() })
        })
    }

    fn resume<'a>(
        &'a self,
        path: &'a str,
        kept: &'a SecretSnapshot,
    ) -> BoxFuture<'a, Result<Lease, SecretError>> {
        Box::pin(async move {
            let Some(lease) = &kept.lease else {
                return Err(VaultFailure::missing("it was kept without a lease").about(path));
            };
            let same = |token: &str| kept.granted_under.as_ref() == Some(&self.mark(path, token));
            let resumed = self.client.resume(&self.namespace_of(path), lease, &same).await;
            let (lease, under) = resumed.map_err(|failure| failure.about(path))?;
            self.note(path, Some(&under));
            Ok(lease)
        })
    }

    fn remember_by(&self, memory: StoreMemory) {
        self.client.remember_by(memory);
    }

    fn renew<'a>(&'a self, lease: &'a Lease) -> BoxFuture<'a, Result<Lease, SecretError>> {
        Box::pin(async move { self.client.renew(lease).await.map_err(|failure| failure.about("lease")) })
    }

    fn revoke<'a>(&'a self, lease: &'a Lease) -> BoxFuture<'a, Result<(), SecretError>> {
        Box::pin(async move { self.client.revoke(lease).await.map_err(|failure| failure.about("lease")) })
    }

    fn check(&self) -> BoxFuture<'_, Result<String, SecretError>> {
        Box::pin(async move { self.client.check().await.map_err(|failure| failure.about("")) })
    }

    fn when_missing(&self) -> WhenMissing {
        self.when_missing
    }

    fn refresh_interval(&self) -> Option<Duration> {
        Some(self.refresh)
    }

    /// What was granted under a token ends with it: when there is a new one, it is to be read again.
    fn watch(&self, path: &str) -> Option<watch::Receiver<u64>> {
        let mut leased = self.leased.lock();
        let held = leased
            .entry(path.to_owned())
            .or_insert_with(|| Leased { changes: watch::Sender::new(0), generation: None });
        Some(held.changes.subscribe())
    }
}

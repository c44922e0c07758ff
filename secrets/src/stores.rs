//! All stores by name, and what was read of them: each path once, whoever and however many ask, in a cell that is kept up to
//! date for as long as somebody uses it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use invar_syntax::{LiveSecret, Secret};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::cell::{Cell, OVERLAP, Trouble};
use crate::clock;
use crate::error::SecretError;
use crate::field_cell::FieldCell;
use crate::keeper::{Keeper, Kept, LONGEST_ANSWER};
use crate::memory::{SecretMemory, StoreMemory};
use crate::missing::WhenMissing;
use crate::reference::SecretReference;
use crate::snapshot::{Lease, SecretSnapshot};
use crate::store::{SecretStore, StoreKind};

/// The configured stores. Cloning is cheap. The last clone ends the tasks that keep values up to date;
/// [`SecretStores::shutdown`] waits for them, and for leases to be given back.
#[derive(Clone)]
pub struct SecretStores {
    registry: Arc<Registry>,
}

/// What keepers share.
#[derive(Clone)]
pub(crate) struct Surroundings {
    /// Random in 0..1.
    pub(crate) randomness: Arc<dyn Fn() -> f64 + Send + Sync>,
    /// Counts attempts to read.
    pub(crate) attempted: watch::Sender<u64>,
    /// How long a value is kept after its successor came.
    pub(crate) overlap: Duration,
    memory: Option<Arc<dyn SecretMemory>>,
}

pub(crate) struct Registry {
    stores: BTreeMap<String, Arc<dyn SecretStore>>,
    slots: Mutex<BTreeMap<(String, String), Arc<Slot>>>,
    changes: watch::Sender<u64>,
    surroundings: Surroundings,
    stop: CancellationToken,
    tasks: TaskTracker,
    clock: OnceLock<()>,
}

/// The place of one path: who opens it first reads it, the others wait for that.
#[derive(Default)]
struct Slot {
    opening: tokio::sync::Mutex<()>,
    cell: OnceLock<Arc<Cell>>,
}

impl Default for Surroundings {
    fn default() -> Self {
        Self {
            randomness: Arc::new(rand::random::<f64>),
            attempted: watch::Sender::new(0),
            overlap: OVERLAP,
            memory: None,
        }
    }
}

impl Surroundings {
    pub(crate) fn remembers(&self) -> bool {
        self.memory.is_some()
    }

    pub(crate) fn remember(&self, store: &str, path: &str, snapshot: &SecretSnapshot) {
        if let Some(memory) = &self.memory {
            memory.remember(store, path, snapshot);
        }
    }

    pub(crate) fn forget(&self, store: &str, path: &str) {
        if let Some(memory) = &self.memory {
            memory.forget(store, path);
        }
    }

    fn recall_lease(&self, reference: &SecretReference) -> Option<SecretSnapshot> {
        self.memory.as_ref()?.recall_lease(&reference.store, &reference.path)
    }
}

impl Default for SecretStores {
    fn default() -> Self {
        Self::new(BTreeMap::new())
    }
}

impl fmt::Debug for SecretStores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SecretStores").field(&self.registry.stores.keys()).finish()
    }
}

// === impl SecretStores ===

impl SecretStores {
    /// The stores by the name that stands before the first slash of a reference.
    #[must_use]
    pub fn new(stores: BTreeMap<String, Arc<dyn SecretStore>>) -> Self {
        Self::assemble(stores, Surroundings::default())
    }

    /// The same, with a memory for the next start.
    #[must_use]
    pub fn with_memory(
        stores: BTreeMap<String, Arc<dyn SecretStore>>,
        memory: Arc<dyn SecretMemory>,
    ) -> Self {
        for (name, store) in &stores {
            store.remember_by(StoreMemory::of(name, Arc::clone(&memory)));
        }
        let surroundings = Surroundings { memory: Some(memory), ..Surroundings::default() };
        Self::assemble(stores, surroundings)
    }

    /// The same, with the randomness that spreads reads and renewals given: a function of values in 0..1.
    #[must_use]
    pub fn with_randomness(
        stores: BTreeMap<String, Arc<dyn SecretStore>>,
        randomness: impl Fn() -> f64 + Send + Sync + 'static,
    ) -> Self {
        let surroundings = Surroundings { randomness: Arc::new(randomness), ..Surroundings::default() };
        Self::assemble(stores, surroundings)
    }

    /// With another time for which a value is kept after its successor came. Nothing may have been read yet.
    #[must_use]
    pub fn overlapping(mut self, overlap: Duration) -> Self {
        if let Some(registry) = Arc::get_mut(&mut self.registry) {
            registry.surroundings.overlap = overlap;
        }
        self
    }

    fn assemble(stores: BTreeMap<String, Arc<dyn SecretStore>>, surroundings: Surroundings) -> Self {
        let registry = Registry {
            stores,
            slots: Mutex::default(),
            changes: watch::Sender::new(0),
            surroundings,
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
            clock: OnceLock::new(),
        };
        Self { registry: Arc::new(registry) }
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
        self.registry.stores.get(name)
    }

    /// All stores by their names.
    pub fn stores(&self) -> impl Iterator<Item = (&str, &Arc<dyn SecretStore>)> {
        self.registry.stores.iter().map(|(name, store)| (name.as_str(), store))
    }

    /// The text of now of what `reference` names. What is on this host is read each time, anything else is kept for a while.
    ///
    /// # Errors
    /// [`SecretError`].
    pub async fn read(&self, reference: &SecretReference) -> Result<Secret, SecretError> {
        let store = self.registry.store_of(reference)?;
        if matches!(store.kind(), StoreKind::Environment | StoreKind::File | StoreKind::Systemd) {
            return read(&**store, reference).await?.field(reference).cloned();
        }
        self.open(reference).await?.snapshot().field(reference).cloned()
    }

    /// What `reference` names, kept up to date. All users of a path share one reading of it.
    ///
    /// # Errors
    /// [`SecretError`] when the first read fails or the field is missing.
    pub async fn live(&self, reference: &SecretReference) -> Result<LiveSecret, SecretError> {
        let cell = self.open(reference).await?;
        cell.offers(reference)?;
        Ok(LiveSecret::cell(Arc::new(FieldCell::new(cell, reference))))
    }

    /// As [`Self::live`], of what somebody uses already.
    #[must_use]
    pub fn find(&self, reference: &SecretReference) -> Option<LiveSecret> {
        let slot = self.registry.slot(reference, false)?;
        let cell = slot.cell.get()?;
        cell.touch();
        cell.offers(reference).ok()?;
        self.registry.holds(&slot, reference).then_some(())?;
        Some(LiveSecret::cell(Arc::new(FieldCell::new(Arc::clone(cell), reference))))
    }

    /// Counts up with every secret that comes into use, every change of a value, and of how one stands.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.registry.changes.subscribe()
    }

    /// Reads a path again now. What is new is published as by any other read.
    ///
    /// # Errors
    /// [`SecretError`] when it cannot be read, or is not in use.
    pub async fn rotate_now(&self, store: &str, path: &str) -> Result<(), SecretError> {
        let reference = SecretReference { store: store.to_owned(), path: path.to_owned(), field: None };
        self.registry.store_of(&reference)?;
        let cell = self.registry.slot(&reference, false).and_then(|slot| slot.cell.get().cloned());
        let Some(cell) = cell else {
            let reason = "nobody uses it, so there is nothing to be replaced".to_owned();
            return Err(SecretError::Missing { reference: reference.to_string(), reason });
        };
        let before = cell.standing();
        let mut attempts = self.registry.surroundings.attempted.subscribe();
        cell.asked.notify_one();
        let attempted = async {
            while attempts.changed().await.is_ok() {
                let now = cell.standing();
                // One that had begun before may have read what was there before.
                if now.attempts > before.begun {
                    return now;
                }
            }
            cell.standing()
        };
        let standing = tokio::time::timeout(LONGEST_ANSWER, attempted).await;
        let silent = || SecretError::unavailable(reference.to_string(), "no answer yet");
        match standing.map_err(|_| silent())?.trouble {
            None => Ok(()),
            Some((Trouble::Unread(error), _)) => Err(error.of(&reference.to_string())),
            Some((Trouble::Rejected(reason), _)) => {
                Err(SecretError::Invalid { reference: reference.to_string(), reason })
            }
        }
    }

    /// Ends the keeping of values, and waits until leases are given back. What was read stays readable.
    pub async fn shutdown(&self) {
        self.registry.stop.cancel();
        self.registry.tasks.close();
        self.registry.tasks.wait().await;
        let leased: Vec<String> = self
            .cells()
            .iter()
            .filter(|cell| self.registry.surroundings.remembers() && cell.snapshot().lease.is_some())
            .map(|cell| cell.store.clone())
            .collect();
        for (name, store) in &self.registry.stores {
            store.shutdown(leased.contains(name)).await;
        }
    }

    /// All cells.
    pub(crate) fn cells(&self) -> Vec<Arc<Cell>> {
        self.registry.cells()
    }

    /// The cell of a path, read if it is not held.
    async fn open(&self, reference: &SecretReference) -> Result<Arc<Cell>, SecretError> {
        let registry = &self.registry;
        let store = Arc::clone(registry.store_of(reference)?);
        loop {
            let slot = registry.slot(reference, true).unwrap_or_default();
            let _opening = slot.opening.lock().await;
            if let Some(cell) = slot.cell.get() {
                cell.touch();
                // Unless it was forgotten in this very moment.
                if registry.holds(&slot, reference) {
                    return Ok(Arc::clone(cell));
                }
                continue;
            }
            let kept = registry.surroundings.recall_lease(reference);
            let first =
                tokio::time::timeout(LONGEST_ANSWER, registry.first_of(&*store, reference, kept.as_ref()))
                    .await;
            let silent = || SecretError::unavailable(reference.to_string(), "no answer in time");
            let (snapshot, trouble, kept) = match first.unwrap_or_else(|_| Err(silent())) {
                Ok((snapshot, replaced)) => (snapshot, None, replaced.map(Kept::Replaced)),
                Err(error @ SecretError::Missing { .. }) if store.when_missing() == WhenMissing::Empty => {
                    let replaced = kept.and_then(|kept| kept.lease).map(Kept::Replaced);
                    (SecretSnapshot::new(BTreeMap::new()), Some(error), replaced)
                }
                Err(error) => match registry.recall(reference, &error) {
                    Some(snapshot) => (snapshot, Some(error), kept.map(Kept::Unconfirmed)),
                    None => {
                        registry.forget_empty(&slot, reference);
                        return Err(error);
                    }
                },
            };
            let cell = Arc::new(Cell::new(
                reference,
                store.kind(),
                snapshot,
                registry.changes.clone(),
                registry.surroundings.overlap,
                store.when_missing(),
            ));
            cell.touch();
            match trouble {
                Some(error) => cell.trouble(Trouble::Unread(error)),
                None => registry.surroundings.remember(&cell.store, &cell.path, &cell.snapshot()),
            }
            // Nobody else can have set it: opening is ours.
            let cell = Arc::clone(slot.cell.get_or_init(|| cell));
            let keeper = Keeper::new(
                Arc::clone(&cell),
                Arc::clone(&store),
                registry.surroundings.clone(),
                Arc::downgrade(registry),
                kept,
            );
            registry.tasks.spawn(keeper.keep(registry.stop.clone()));
            self.mind_the_clock();
            registry.changes.send_modify(|count| *count += 1);
            return Ok(cell);
        }
    }

    /// After the host was suspended, what was granted for a time may have ended unnoticed: everything is looked at again.
    fn mind_the_clock(&self) {
        if self.registry.clock.set(()).is_err() {
            return;
        }
        let registry = Arc::downgrade(&self.registry);
        let randomness = Arc::clone(&self.registry.surroundings.randomness);
        let stop = self.registry.stop.clone();
        self.registry.tasks.spawn(async move {
            let jumps = clock::jumps(move || {
                let Some(registry) = registry.upgrade() else { return };
                for cell in registry.cells() {
                    let wait = clock::SPREAD.mul_f64(randomness());
                    let stop = registry.stop.clone();
                    registry.tasks.spawn(async move {
                        tokio::select! {
                            () = stop.cancelled() => {}
                            () = tokio::time::sleep(wait) => cell.asked.notify_one(),
                        }
                    });
                }
            });
            tokio::select! {
                () = stop.cancelled() => {}
                () = jumps => {}
            }
        });
    }
}

// === impl Registry ===

impl Registry {
    fn cells(&self) -> Vec<Arc<Cell>> {
        self.slots.lock().values().filter_map(|slot| slot.cell.get().cloned()).collect()
    }

    fn store_of(&self, reference: &SecretReference) -> Result<&Arc<dyn SecretStore>, SecretError> {
        self.stores.get(&reference.store).ok_or_else(|| SecretError::UnknownStore {
            reference: reference.to_string(),
            store: reference.store.clone(),
        })
    }

    fn slot(&self, reference: &SecretReference, make: bool) -> Option<Arc<Slot>> {
        let key = (reference.store.clone(), reference.path.clone());
        let mut slots = self.slots.lock();
        if make { Some(Arc::clone(slots.entry(key).or_default())) } else { slots.get(&key).cloned() }
    }

    fn holds(&self, slot: &Arc<Slot>, reference: &SecretReference) -> bool {
        self.slot(reference, false).is_some_and(|held| Arc::ptr_eq(&held, slot))
    }

    /// Forgets a place that nothing came of, unless others wait for it.
    fn forget_empty(&self, slot: &Arc<Slot>, reference: &SecretReference) {
        let mut slots = self.slots.lock();
        // The map's and ours.
        if Arc::strong_count(slot) <= 2 {
            slots.remove(&(reference.store.clone(), reference.path.clone()));
        }
    }

    /// Forgets a cell that nobody has used for so long; whether it did.
    pub(crate) fn forget_unused(&self, cell: &Arc<Cell>, linger: Duration) -> bool {
        let mut slots = self.slots.lock();
        // Ours, the keeper's, and that of the slot: everybody who takes another does it under this lock, or touches it.
        let unused = Arc::strong_count(cell) <= 2 && cell.idle() >= linger;
        if unused {
            if cell.snapshot().lease.is_some() {
                // It is about to be given back: nobody is to find it who comes in between.
                self.surroundings.forget(&cell.store, &cell.path);
            }
            slots.remove(&(cell.store.clone(), cell.path.clone()));
        }
        unused
    }

    /// The value of a path: that which was kept, if its lease goes on; and what is read otherwise, beside a lease that was kept
    /// and may live on without a user.
    async fn first_of(
        &self,
        store: &dyn SecretStore,
        reference: &SecretReference,
        kept: Option<&SecretSnapshot>,
    ) -> Result<(SecretSnapshot, Option<Lease>), SecretError> {
        let Some(kept) = kept else { return Ok((read(store, reference).await?, None)) };
        let replaced = match store.resume(&reference.path, kept).await {
            Ok(lease) => {
                tracing::info!(secret = %reference, left = ?lease.duration, "a lease of an earlier process goes on");
                return Ok((kept.with_lease(lease), None));
            }
            // Who cannot be asked about a lease cannot be asked for a value either.
            Err(error) if error.is_transient() => return Err(error.of(&reference.to_string())),
            Err(error) => {
                let reason = error.reason();
                tracing::info!(secret = %reference, reason, "a lease of an earlier process does not go on");
                let is_gone = matches!(error, SecretError::Missing { .. });
                if is_gone {
                    self.surroundings.forget(&reference.store, &reference.path);
                }
                kept.lease.clone().filter(|_| !is_gone)
            }
        };
        Ok((read(store, reference).await?, replaced))
    }

    /// What was read before this start, where the store cannot be asked now.
    fn recall(&self, reference: &SecretReference, error: &SecretError) -> Option<SecretSnapshot> {
        if !error.is_transient() {
            return None;
        }
        self.surroundings.memory.as_ref()?.recall(&reference.store, &reference.path)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn read(store: &dyn SecretStore, reference: &SecretReference) -> Result<SecretSnapshot, SecretError> {
    let snapshot = store.read(&reference.path).await.map_err(|error| error.of(&reference.to_string()))?;
    Ok(snapshot.with_end_of_lease())
}

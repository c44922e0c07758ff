//! The store `k8s`: Secrets of a cluster, by `<namespace>/<name>`. A read is a `GET`; whoever asks to be told of changes
//! gets a counter that a watch moves. A few names of a namespace are watched one by one, which needs the least
//! permissions; more of them share a watch of the namespace where that is allowed, and otherwise those beyond the limit
//! are polled. Versions are compared: what was read already is not read again. A name that shares a watch costs no task.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;

use super::api::KubernetesApi;
use super::namespace::{NamespaceNotice, NamespaceWatch};
use super::object::{ObjectKind, ObjectName, is_version};
use super::watch::{ObjectWatch, WatchNotice};
use crate::error::SecretError;
use crate::missing::WhenMissing;
use crate::snapshot::SecretSnapshot;
use crate::store::{BoxFuture, SecretStore, StoreKind};

/// How long one read may take, and waiting for the turn to make it.
const READ_TIMEOUT: Duration = Duration::from_secs(15);
const LONGEST_TURN: Duration = Duration::from_secs(30);
/// What is not watched is read again this often.
const POLL_INTERVAL: Duration = Duration::from_secs(60);
/// What is watched is read again too, in case the watch misses something.
const WATCHED_INTERVAL: Duration = Duration::from_secs(3600);
/// As many names of a namespace are watched one by one before a watch of the namespace is tried.
const NAMES_BEFORE_NAMESPACE: usize = 8;
/// As many watches of single names are open at once.
const OPEN_NAMES: usize = 64;
/// As many reads are under way at once: thousands of names may be told of at the same moment.
const READS_AT_ONCE: usize = 16;
/// How often it is looked who listens no more.
const SWEEP_INTERVAL: Duration = Duration::from_secs(60);

/// What is known of the watch of one path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum WatchState {
    /// It is about to be opened.
    #[default]
    Opening,
    /// Changes are told at once.
    Watching,
    /// Changes are noticed by reading again only, and why.
    Polling(Arc<str>),
    /// Changes are not told for now, and why.
    Interrupted(Arc<str>),
}

/// Reads Secrets of one cluster. Its tasks end with it.
pub struct KubernetesStore {
    api: KubernetesApi,
    watched: Arc<Mutex<Watched>>,
    reads: Semaphore,
    when_missing: WhenMissing,
}

struct Watched {
    api: KubernetesApi,
    namespaces: BTreeMap<String, WatchedNamespace>,
    /// Versions of what was read before anybody listens to it.
    unheard: BTreeMap<ObjectName, u64>,
    /// Open watches of single names.
    alone: usize,
    sweeper: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct WatchedNamespace {
    objects: BTreeMap<Box<str>, WatchedObject>,
    /// How its watch as a whole does, where there are enough names for one.
    whole: WatchState,
    task: Option<JoinHandle<()>>,
}

struct WatchedObject {
    changes: watch::Sender<u64>,
    state: WatchState,
    /// Stands for the version that was read last.
    read: Option<u64>,
    /// Watches it alone.
    task: Option<JoinHandle<()>>,
}

impl KubernetesStore {
    /// A store on this API server.
    #[must_use]
    pub fn new(api: KubernetesApi) -> Self {
        let watched = Watched {
            api: api.clone(),
            namespaces: BTreeMap::new(),
            unheard: BTreeMap::new(),
            alone: 0,
            sweeper: None,
        };
        let reads = Semaphore::new(READS_AT_ONCE);
        Self { api, watched: Arc::new(Mutex::new(watched)), reads, when_missing: WhenMissing::Keep }
    }

    /// The same, with what users of a Secret get that is deleted.
    #[must_use]
    pub fn when_missing(mut self, when_missing: WhenMissing) -> Self {
        self.when_missing = when_missing;
        self
    }

    /// The paths that are watched, and how it goes with each.
    #[must_use]
    pub fn watched(&self) -> Vec<(String, WatchState)> {
        let watched = self.watched.lock();
        let mut all = Vec::new();
        for (namespace, held) in &watched.namespaces {
            let states = held.objects.iter();
            all.extend(states.map(|(name, object)| (format!("{namespace}/{name}"), object.state.clone())));
        }
        all
    }

    /// Ends all watches and waits for their tasks.
    pub async fn shutdown(&self) {
        for task in self.take_tasks() {
            task.abort();
            // Cancelled is what it was meant to be.
            drop(task.await);
        }
    }

    fn take_tasks(&self) -> Vec<JoinHandle<()>> {
        let mut watched = self.watched.lock();
        let namespaces = std::mem::take(&mut watched.namespaces).into_values();
        let of = |namespace: WatchedNamespace| {
            let objects = namespace.objects.into_values().filter_map(|object| object.task);
            objects.chain(namespace.task).collect::<Vec<_>>()
        };
        let tasks: Vec<_> = namespaces.flat_map(of).chain(watched.sweeper.take()).collect();
        watched.alone = 0;
        tasks
    }

    /// A counter of the changes of one object. Has to be called within a runtime.
    fn subscribe(&self, name: &ObjectName) -> watch::Receiver<u64> {
        let weak = Arc::downgrade(&self.watched);
        let mut watched = self.watched.lock();
        if watched.sweeper.is_none() {
            watched.sweeper = Some(tokio::spawn(sweep(weak.clone())));
        }
        let read = watched.unheard.remove(name);
        let namespace = watched.namespaces.entry(name.namespace().to_owned()).or_default();
        if let Some(object) = namespace.objects.get(name.name()) {
            return object.changes.subscribe();
        }
        let (changes, receiver) = watch::channel(0);
        let state = namespace.whole.clone();
        let object = WatchedObject { changes, state, read, task: None };
        namespace.objects.insert(name.name().into(), object);
        if namespace.objects.len() > NAMES_BEFORE_NAMESPACE && namespace.task.is_none() {
            let whole = NamespaceWatch::new(self.api.clone(), name.namespace());
            let follow = follow_namespace(whole, name.namespace().to_owned(), weak.clone());
            namespace.task = Some(tokio::spawn(follow));
        }
        watched.watch_one(name.namespace(), name.name(), &weak);
        receiver
    }

    /// Notes which version of an object is known now.
    fn note_read(&self, name: &ObjectName, version: Option<u64>) {
        let mut watched = self.watched.lock();
        match (watched.object(name.namespace(), name.name()), version) {
            (Some(object), _) => object.read = version,
            (None, Some(version)) => drop(watched.unheard.insert(name.clone(), version)),
            (None, None) => {}
        }
    }
}

impl Watched {
    fn object(&mut self, namespace: &str, name: &str) -> Option<&mut WatchedObject> {
        self.namespaces.get_mut(namespace)?.objects.get_mut(name)
    }

    /// Watches names of a namespace one by one, unless it is watched as a whole.
    fn watch_alone(&mut self, namespace: &str, weak: &Weak<Mutex<Self>>) {
        let Some(held) = self.namespaces.get(namespace) else { return };
        let lacking = held.objects.iter().filter(|(_, object)| object.task.is_none());
        let lacking: Vec<Box<str>> = lacking.map(|(name, _)| name.clone()).collect();
        lacking.iter().for_each(|name| self.watch_one(namespace, name, weak));
    }

    fn watch_one(&mut self, namespace: &str, name: &str, weak: &Weak<Mutex<Self>>) {
        let Some(held) = self.namespaces.get_mut(namespace) else { return };
        let Some(object) = held.objects.get_mut(name) else { return };
        let reason = match &held.whole {
            WatchState::Watching | WatchState::Interrupted(_) => return,
            _ if self.alone < OPEN_NAMES => {
                let Ok(full) = ObjectName::new(namespace, name) else { return };
                self.alone += 1;
                object.set(namespace, name, WatchState::Opening);
                let alone = ObjectWatch::object(self.api.clone(), ObjectKind::Secret, &full);
                object.task = Some(tokio::spawn(follow_object(alone, full, weak.clone())));
                return;
            }
            WatchState::Polling(reason) => Arc::clone(reason),
            // A watch of the namespace is about to come.
            WatchState::Opening if held.task.is_some() => return,
            WatchState::Opening => format!("{OPEN_NAMES} names are watched already").into(),
        };
        object.set(namespace, name, WatchState::Polling(reason));
    }

    /// Takes note of how the watch of a whole namespace does.
    fn note_whole(&mut self, namespace: &str, state: &WatchState, weak: &Weak<Mutex<Self>>) {
        let Some(held) = self.namespaces.get_mut(namespace) else { return };
        // How a few names do is looked at once; many are as they are read next, within minutes.
        let lost = held.whole == WatchState::Watching && *state != WatchState::Watching;
        let look = lost && held.objects.len() <= OPEN_NAMES;
        held.whole = state.clone();
        for (name, object) in &mut held.objects {
            if *state == WatchState::Watching
                && let Some(task) = object.task.take()
            {
                task.abort();
                self.alone -= 1;
            }
            if object.task.is_none() {
                object.set(namespace, name, state.clone());
            }
            if look {
                object.look();
            }
        }
        self.watch_alone(namespace, weak);
    }

    /// Forgets names that nobody listens to, and watches others in their stead.
    fn sweep(&mut self, weak: &Weak<Mutex<Self>>) {
        self.unheard.clear();
        let alone = &mut self.alone;
        self.namespaces.retain(|_, namespace| {
            namespace.objects.retain(|_, object| {
                let used = object.changes.receiver_count() > 0;
                if !used && let Some(task) = object.task.take() {
                    task.abort();
                    *alone -= 1;
                }
                used
            });
            let used = !namespace.objects.is_empty();
            if !used && let Some(task) = namespace.task.take() {
                task.abort();
            }
            used
        });
        let namespaces: Vec<String> = self.namespaces.keys().cloned().collect();
        for namespace in namespaces {
            self.watch_alone(&namespace, weak);
        }
    }
}

impl WatchedObject {
    /// Tells that it has this version now, or is gone; unless that is what was read.
    fn changed(&self, version: Option<&str>) {
        if self.read.is_none() || version.map(mark) != self.read {
            self.look();
        }
    }

    fn look(&self) {
        self.changes.send_modify(|count| *count += 1);
    }

    fn set(&mut self, namespace: &str, name: &str, state: WatchState) {
        if self.state == state {
            return;
        }
        match &state {
            // Said once for all that share a watch, where it is followed.
            _ if self.task.is_none() => {}
            WatchState::Polling(reason) => {
                tracing::info!(secret = %format_args!("{namespace}/{name}"), %reason, "changes are only polled for");
            }
            WatchState::Interrupted(reason) => {
                tracing::warn!(secret = %format_args!("{namespace}/{name}"), %reason, "the watch is interrupted");
            }
            WatchState::Watching => {
                tracing::debug!(secret = %format_args!("{namespace}/{name}"), "changes are watched");
            }
            WatchState::Opening => {}
        }
        self.state = state;
    }
}

/// Stands for a version, in less space.
fn mark(version: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    version.hash(&mut hasher);
    hasher.finish()
}

impl Drop for KubernetesStore {
    fn drop(&mut self) {
        for task in self.take_tasks() {
            task.abort();
        }
    }
}

impl SecretStore for KubernetesStore {
    fn shutdown(&self, _keep: bool) -> BoxFuture<'_, ()> {
        Box::pin(Self::shutdown(self))
    }

    fn kind(&self) -> StoreKind {
        StoreKind::Kubernetes
    }

    fn read<'a>(&'a self, path: &'a str) -> BoxFuture<'a, Result<SecretSnapshot, SecretError>> {
        Box::pin(async move {
            let name: ObjectName =
                path.parse().map_err(|reason| SecretError::Invalid { reference: path.to_owned(), reason })?;
            let turn = tokio::time::timeout(LONGEST_TURN, self.reads.acquire()).await;
            let Ok(Ok(_turn)) = turn else {
                return Err(SecretError::unavailable(path, "too many reads are under way"));
            };
            let read = self.api.read(ObjectKind::Secret, &name, READ_TIMEOUT).await;
            let object = read.map_err(|error| {
                self.note_read(&name, None);
                error.into_secret_error(path)
            })?;
            self.note_read(&name, Some(mark(&object.version)));
            if !object.binary.is_empty() {
                tracing::debug!(secret = path, keys = object.binary.join(", "), "keys that are not text");
            }
            let store_version = is_version(&object.version).then_some(object.version);
            Ok(SecretSnapshot { store_version, ..SecretSnapshot::new(object.fields) })
        })
    }

    fn refresh_interval(&self) -> Option<Duration> {
        Some(POLL_INTERVAL)
    }

    fn refresh_interval_of(&self, path: &str) -> Option<Duration> {
        let name: ObjectName = path.parse().ok()?;
        let mut watched = self.watched.lock();
        let watching = watched
            .object(name.namespace(), name.name())
            .is_some_and(|object| object.state == WatchState::Watching);
        Some(if watching { WATCHED_INTERVAL } else { POLL_INTERVAL })
    }

    fn when_missing(&self) -> WhenMissing {
        self.when_missing
    }

    fn notice(&self, path: &str) -> Option<String> {
        let name: ObjectName = path.parse().ok()?;
        let mut watched = self.watched.lock();
        match &watched.object(name.namespace(), name.name())?.state {
            WatchState::Opening | WatchState::Watching => None,
            WatchState::Polling(reason) => Some(format!("changes are looked for once a minute: {reason}")),
            WatchState::Interrupted(reason) => Some(format!("changes are not told of for now: {reason}")),
        }
    }

    fn watch(&self, path: &str) -> Option<watch::Receiver<u64>> {
        path.parse().ok().map(|name| self.subscribe(&name))
    }
}

/// Forgets now and then whom nobody listens to.
async fn sweep(watched: Weak<Mutex<Watched>>) {
    loop {
        tokio::time::sleep(SWEEP_INTERVAL).await;
        let Some(held) = watched.upgrade() else { return };
        held.lock().sweep(&watched);
    }
}

/// Watches one name.
async fn follow_object(alone: ObjectWatch, name: ObjectName, watched: Weak<Mutex<Watched>>) {
    let notice = |notice: WatchNotice| {
        let Some(watched) = watched.upgrade() else { return };
        let mut watched = watched.lock();
        let Some(object) = watched.object(name.namespace(), name.name()) else { return };
        let state = match notice {
            WatchNotice::Open => WatchState::Watching,
            WatchNotice::Changed(version) => return object.changed(version.as_deref()),
            WatchNotice::Denied(reason) => WatchState::Polling(reason.into()),
            WatchNotice::Interrupted(reason) => WatchState::Interrupted(reason.into()),
        };
        // Nothing tells of one that went before; and how it does without a watch shows when it is read.
        if state == WatchState::Watching || object.state == WatchState::Watching {
            object.look();
        }
        object.set(name.namespace(), name.name(), state);
    };
    match alone.follow(notice).await {}
}

/// Watches a namespace for all names of it that somebody listens to.
async fn follow_namespace(whole: NamespaceWatch, namespace: String, watched: Weak<Mutex<Watched>>) {
    let mut said = WatchState::Opening;
    let mut note = |held: &mut Watched, state: WatchState| {
        if said != state {
            match &state {
                WatchState::Polling(reason) => {
                    tracing::info!(namespace, %reason, "a namespace is not watched as a whole");
                }
                WatchState::Interrupted(reason) => {
                    tracing::warn!(namespace, %reason, "the watch of a namespace is interrupted");
                }
                WatchState::Watching | WatchState::Opening => {
                    tracing::debug!(namespace, "changes are watched");
                }
            }
            said = state.clone();
        }
        held.note_whole(&namespace, &state, &watched);
    };
    let notice = |notice: NamespaceNotice| {
        let Some(held) = watched.upgrade() else { return };
        let mut held = held.lock();
        match notice {
            NamespaceNotice::Listed(listed) => {
                let Some(namespace) = held.namespaces.get(&namespace) else { return };
                for (name, object) in &namespace.objects {
                    let found = listed.binary_search_by(|(listed, _)| (**listed).cmp(&**name));
                    object.changed(found.ok().map(|at| listed[at].1.as_str()));
                }
            }
            NamespaceNotice::Open => note(&mut held, WatchState::Watching),
            NamespaceNotice::Changed(name, version) => {
                if let Some(object) = held.object(&namespace, &name) {
                    object.changed(version.as_deref());
                }
            }
            NamespaceNotice::Denied(reason) => note(&mut held, WatchState::Polling(reason.into())),
            NamespaceNotice::Interrupted(reason) => note(&mut held, WatchState::Interrupted(reason.into())),
        }
    };
    match whole.follow(notice).await {}
}

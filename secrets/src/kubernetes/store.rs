//! The store `k8s`: Secrets of a cluster, by `<namespace>/<name>`. A read is a `GET`; whoever asks to be told of changes
//! gets a counter that a watch moves. A few names of a namespace are watched one by one, which needs the least
//! permissions; more of them share a watch of the namespace where that is allowed, and otherwise those beyond the limit
//! are polled.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;

use super::api::KubernetesApi;
use super::object::{ObjectKind, ObjectName};
use super::watch::{ObjectWatch, WatchNotice};
use crate::error::SecretError;
use crate::snapshot::SecretSnapshot;
use crate::store::{BoxFuture, SecretStore, StoreKind};

/// How long one read may take.
const READ_TIMEOUT: Duration = Duration::from_secs(15);
/// What is not watched is read again this often; what is watched is too, in case the watch misses something.
const REFRESH_INTERVAL: Duration = Duration::from_secs(60);
/// As many names of a namespace are watched one by one before a watch of the namespace is tried.
const NAMES_BEFORE_NAMESPACE: usize = 8;
/// As many watches of single names are open at once.
const OPEN_NAMES: usize = 64;

/// What is known of the watch of one path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum WatchState {
    /// It is about to be opened.
    #[default]
    Opening,
    /// Changes are told at once.
    Watching,
    /// Changes are noticed by reading again only, and why.
    Polling(String),
    /// Changes are not told for now, and why.
    Interrupted(String),
}

/// Reads Secrets of one cluster. Its tasks end with it.
pub struct KubernetesStore {
    api: KubernetesApi,
    watched: Arc<Mutex<Watched>>,
    /// Limits open watches of single names.
    open: Arc<Semaphore>,
}

#[derive(Default)]
struct Watched {
    objects: BTreeMap<ObjectName, WatchedObject>,
    namespaces: BTreeMap<String, WatchedNamespace>,
}

struct WatchedObject {
    changes: watch::Sender<u64>,
    state: WatchState,
    task: JoinHandle<()>,
}

struct WatchedNamespace {
    /// How many of its names are listened to.
    names: usize,
    /// Whether a watch of the whole namespace is open, so that those of names are not needed.
    covered: watch::Sender<bool>,
    task: Option<JoinHandle<()>>,
}

impl KubernetesStore {
    /// A store on this API server.
    #[must_use]
    pub fn new(api: KubernetesApi) -> Self {
        Self { api, watched: Arc::default(), open: Arc::new(Semaphore::new(OPEN_NAMES)) }
    }

    /// The paths that are watched, and how it goes with each.
    #[must_use]
    pub fn watched(&self) -> Vec<(String, WatchState)> {
        let watched = self.watched.lock();
        watched.objects.iter().map(|(name, object)| (name.to_string(), object.state.clone())).collect()
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
        let objects = std::mem::take(&mut watched.objects).into_values().map(|object| object.task);
        let objects: Vec<_> = objects.collect();
        let namespaces = std::mem::take(&mut watched.namespaces).into_values();
        objects.into_iter().chain(namespaces.filter_map(|namespace| namespace.task)).collect()
    }

    /// A counter of the changes of one object. Has to be called within a runtime.
    fn subscribe(&self, name: ObjectName) -> watch::Receiver<u64> {
        let mut watched = self.watched.lock();
        if let Some(object) = watched.objects.get(&name) {
            return object.changes.subscribe();
        }
        let Watched { objects, namespaces } = &mut *watched;
        let namespace = namespaces.entry(name.namespace().to_owned()).or_insert_with(|| WatchedNamespace {
            names: 0,
            covered: watch::Sender::new(false),
            task: None,
        });
        namespace.names += 1;
        if namespace.names > NAMES_BEFORE_NAMESPACE && namespace.task.is_none() {
            let watch = ObjectWatch::namespace(self.api.clone(), ObjectKind::Secret, name.namespace());
            let follow = follow_namespace(watch, name.namespace().to_owned(), Arc::downgrade(&self.watched));
            namespace.task = Some(tokio::spawn(follow));
        }
        let (changes, receiver) = watch::channel(0);
        let follow = follow_object(
            ObjectWatch::object(self.api.clone(), ObjectKind::Secret, &name),
            name.clone(),
            changes.clone(),
            namespace.covered.subscribe(),
            Arc::clone(&self.open),
            Arc::downgrade(&self.watched),
        );
        let task = tokio::spawn(follow);
        objects.insert(name, WatchedObject { changes, state: WatchState::Opening, task });
        receiver
    }
}

impl Watched {
    /// Ends what is done for a name, and for its namespace if it was the last one of it.
    fn forget(&mut self, name: &ObjectName) {
        if self.objects.remove(name).is_none() {
            return;
        }
        let Some(namespace) = self.namespaces.get_mut(name.namespace()) else { return };
        namespace.names -= 1;
        if namespace.names == 0 {
            if let Some(task) = &namespace.task {
                task.abort();
            }
            self.namespaces.remove(name.namespace());
        }
    }
}

impl Drop for KubernetesStore {
    fn drop(&mut self) {
        for task in self.take_tasks() {
            task.abort();
        }
    }
}

impl SecretStore for KubernetesStore {
    fn shutdown(&self) -> BoxFuture<'_, ()> {
        Box::pin(Self::shutdown(self))
    }

    fn kind(&self) -> StoreKind {
        StoreKind::Kubernetes
    }

    fn read<'a>(&'a self, path: &'a str) -> BoxFuture<'a, Result<SecretSnapshot, SecretError>> {
        Box::pin(async move {
            let name: ObjectName =
                path.parse().map_err(|reason| SecretError::Invalid { reference: path.to_owned(), reason })?;
            let read = self.api.read(ObjectKind::Secret, &name, READ_TIMEOUT).await;
            let object = read.map_err(|error| error.into_secret_error(path))?;
            if !object.binary.is_empty() {
                tracing::debug!(secret = path, keys = object.binary.join(", "), "keys that are not text");
            }
            Ok(SecretSnapshot::new(object.fields))
        })
    }

    fn refresh_interval(&self) -> Option<Duration> {
        Some(REFRESH_INTERVAL)
    }

    fn watch(&self, path: &str) -> Option<watch::Receiver<u64>> {
        path.parse().ok().map(|name| self.subscribe(name))
    }
}

/// Watches one name while nobody else does it for it and somebody listens; forgets it afterwards.
async fn follow_object(
    watch: ObjectWatch,
    name: ObjectName,
    changes: watch::Sender<u64>,
    mut covered: watch::Receiver<bool>,
    open: Arc<Semaphore>,
    watched: Weak<Mutex<Watched>>,
) {
    let set = |state: WatchState| {
        if let Some(watched) = watched.upgrade()
            && let Some(object) = watched.lock().objects.get_mut(&name)
        {
            tell(&name, &object.state, &state);
            object.state = state;
        }
    };
    let following = async {
        loop {
            if *covered.borrow_and_update() {
                set(WatchState::Watching);
                if covered.changed().await.is_err() {
                    return;
                }
                set(WatchState::Opening);
                continue;
            }
            let alone = async {
                if open.available_permits() == 0 {
                    set(WatchState::Polling(format!("{OPEN_NAMES} names are watched already")));
                }
                let Ok(_permit) = open.acquire().await else { return };
                let notice = |notice: WatchNotice| match notice {
                    WatchNotice::Open => {
                        set(WatchState::Watching);
                        changes.send_modify(|count| *count += 1);
                    }
                    WatchNotice::Changed(_) => changes.send_modify(|count| *count += 1),
                    WatchNotice::Denied(reason) => set(WatchState::Polling(reason)),
                    WatchNotice::Interrupted(reason) => set(WatchState::Interrupted(reason)),
                };
                match watch.follow(notice).await {}
            };
            tokio::select! {
                () = alone => return,
                changed = covered.changed() => if changed.is_err() { return },
            }
        }
    };
    tokio::pin!(following);
    loop {
        tokio::select! {
            () = &mut following => return,
            () = changes.closed() => {}
        }
        let Some(watched) = watched.upgrade() else { return };
        let mut watched = watched.lock();
        // Somebody may have begun to listen in between.
        if changes.receiver_count() == 0 {
            watched.forget(&name);
            return;
        }
    }
}

/// Watches a namespace for all names of it that somebody listens to.
async fn follow_namespace(watch: ObjectWatch, namespace: String, watched: Weak<Mutex<Watched>>) {
    let cover = |yes: bool| {
        if let Some(watched) = watched.upgrade()
            && let Some(namespace) = watched.lock().namespaces.get(&namespace)
        {
            namespace.covered.send_if_modified(|covered| std::mem::replace(covered, yes) != yes);
        }
    };
    let notice = |notice: WatchNotice| match notice {
        WatchNotice::Open => {
            cover(true);
            if let Some(watched) = watched.upgrade() {
                let watched = watched.lock();
                let of_namespace = |(name, _): &(&ObjectName, &WatchedObject)| name.namespace() == namespace;
                for (_, object) in watched.objects.iter().filter(of_namespace) {
                    object.changes.send_modify(|count| *count += 1);
                }
            }
        }
        WatchNotice::Changed(changed) => {
            if let Some(watched) = watched.upgrade()
                && let Ok(name) = ObjectName::new(&namespace, &changed)
                && let Some(object) = watched.lock().objects.get(&name)
            {
                object.changes.send_modify(|count| *count += 1);
            }
        }
        WatchNotice::Denied(_) | WatchNotice::Interrupted(_) => cover(false),
    };
    match watch.follow(notice).await {}
}

/// Says once that changes are not told any more, or again.
fn tell(name: &ObjectName, before: &WatchState, now: &WatchState) {
    if before == now {
        return;
    }
    match now {
        WatchState::Polling(reason) => tracing::info!(secret = %name, reason, "changes are only polled for"),
        WatchState::Interrupted(reason) => tracing::warn!(secret = %name, reason, "the watch is interrupted"),
        WatchState::Watching => tracing::debug!(secret = %name, "changes are watched"),
        WatchState::Opening => {}
    }
}

//! The watch of a namespace, and what a store behind [`SecretStores`] makes of it, against a scripted API server; time is
//! the runtime's own, paused.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use invar_syntax::LiveSecret;
use parking_lot::Mutex;
use tokio::sync::mpsc;

use super::*;
use crate::store::{BoxFuture, SecretStore};
use crate::{SecretState, SecretStores};

/// A namespace whose objects come and go, with watches that can be ended.
#[derive(Clone, Default)]
struct Played(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    /// The newest version of the namespace.
    version: u64,
    /// Versions before it are forgotten.
    oldest: u64,
    objects: BTreeMap<String, (u64, String)>,
    /// What happened: version, name, and whether it went.
    events: Vec<(u64, String, bool)>,
    watches: Vec<mpsc::UnboundedSender<String>>,
    asked: Vec<String>,
}

fn event(version: u64, name: &str, gone: bool) -> String {
    let kind = if gone { "DELETED" } else { "MODIFIED" };
    format!(
        "{{\"type\":\"{kind}\",\"object\":{{\"metadata\":{{\"name\":\"{name}\",\"resourceVersion\":\"{version}\"}}}}}}\n"
    )
}

impl Played {
    fn put(&self, name: &str, password: &str) {
        let mut state = self.0.lock();
        state.version += 1;
        let version = state.version;
        state.objects.insert(name.to_owned(), (version, password.to_owned()));
        state.tell(version, name, false);
    }

    fn delete(&self, name: &str) {
        let mut state = self.0.lock();
        state.version += 1;
        let version = state.version;
        state.objects.remove(name);
        state.tell(version, name, true);
    }

    /// Ends all watches in order.
    fn end_watches(&self) {
        self.0.lock().watches.clear();
    }

    /// Forgets what was, and tells the watches so.
    fn expire(&self) {
        let mut state = self.0.lock();
        state.oldest = state.version + 1;
        state.version += 1;
        let gone = r#"{"type":"ERROR","object":{"kind":"Status","code":410,"message":"too old"}}"#;
        for watch in std::mem::take(&mut state.watches) {
            drop(watch.send(format!("{gone}\n")));
        }
    }

    /// Requests since this was asked last: of values, lists, and watches.
    fn requests(&self) -> (usize, usize, usize) {
        let asked = std::mem::take(&mut self.0.lock().asked);
        let count = |part: &str| asked.iter().filter(|path| path.contains(part)).count();
        let (lists, watches) = (count("limit="), count("watch=true"));
        (asked.len() - lists - watches, lists, watches)
    }
}

impl State {
    fn tell(&mut self, version: u64, name: &str, gone: bool) {
        self.events.push((version, name.to_owned(), gone));
        self.watches.retain(|watch| watch.send(event(version, name, gone)).is_ok());
    }

    fn answer(&mut self, path: &str) -> (u16, String, Option<mpsc::UnboundedReceiver<String>>) {
        self.asked.push(path.to_owned());
        if let Some((_, query)) = path.split_once('?') {
            let parameter = |name: &str| {
                query
                    .split('&')
                    .find_map(|pair| pair.strip_prefix(name))
                    .map(|value| value.parse::<u64>().unwrap())
            };
            if !query.contains("watch=true") {
                // Two objects a page.
                let from = parameter("continue=").unwrap_or_default() as usize;
                let items: Vec<String> = self
                    .objects
                    .iter()
                    .skip(from)
                    .take(2)
                    .map(|(name, (version, _))| {
                        format!("{{\"metadata\":{{\"name\":\"{name}\",\"resourceVersion\":\"{version}\"}}}}")
                    })
                    .collect();
                let next = if from + 2 < self.objects.len() { (from + 2).to_string() } else { String::new() };
                let metadata =
                    format!("{{\"resourceVersion\":\"{}\",\"continue\":\"{next}\"}}", self.version);
                return (200, format!("{{\"metadata\":{metadata},\"items\":[{}]}}", items.join(",")), None);
            }
            let from = parameter("resourceVersion=");
            if from.is_some_and(|from| from < self.oldest) {
                return (410, String::new(), None);
            }
            let missed = self.events.iter().filter(|(version, ..)| from.is_some_and(|from| *version > from));
            let missed = missed.map(|(version, name, gone)| event(*version, name, *gone)).collect();
            let (sender, receiver) = mpsc::unbounded_channel();
            self.watches.push(sender);
            return (200, missed, Some(receiver));
        }
        match self.objects.get(path.rsplit('/').next().unwrap()) {
            None => (404, r#"{"kind":"Status","message":"not found"}"#.to_owned(), None),
            Some((version, password)) => {
                let password = base64::engine::general_purpose::STANDARD.encode(password);
                let text = format!(
                    "{{\"kind\":\"Secret\",\"metadata\":{{\"resourceVersion\":\"{version}\"}},\"data\":{{\"password\":\"{password}\"}}}}"
                );
                (200, text, None)
            }
        }
    }
}

impl ApiTransport for Played {
    fn get<'a>(&'a self, request: &'a ApiRequest) -> BoxFuture<'a, Result<ApiResponse, TransportError>> {
        Box::pin(async move {
            let (status, text, more) = self.0.lock().answer(&request.path_and_query);
            let first = stream::iter([Ok(Bytes::from(text))]);
            let more = stream::unfold(more, |more| async {
                let mut more = more?;
                let text = more.recv().await?;
                Some((Ok(Bytes::from(text)), Some(more)))
            });
            Ok(ApiResponse { status, body: Box::pin(first.chain(more)) })
        })
    }

    fn server(&self) -> String {
        "the API server https://kube.example".to_owned()
    }
}

struct Held {
    played: Played,
    store: Arc<KubernetesStore>,
    stores: SecretStores,
    secrets: Vec<LiveSecret>,
}

fn name(index: usize) -> String {
    format!("s{index:02}")
}

/// Twenty secrets, each held; or another number.
async fn hold(count: usize) -> Held {
    let played = Played::default();
    (0..count).for_each(|index| played.put(&name(index), "first"));
    let store = Arc::new(KubernetesStore::new(KubernetesApi::new(played.clone())));
    let dynamic: Arc<dyn SecretStore> = store.clone();
    let stores = SecretStores::new(BTreeMap::from([("k8s".to_owned(), dynamic)]));
    let mut secrets = Vec::new();
    for index in 0..count {
        let reference = format!("k8s/team-a/{}#password", name(index)).parse().unwrap();
        secrets.push(stores.live(&reference).await.unwrap());
    }
    let held = Held { played, store, stores, secrets };
    held.until("all are watched", |held| {
        held.store.watched().iter().all(|(_, state)| *state == WatchState::Watching)
    })
    .await;
    held
}

impl Held {
    /// Waits until something holds; time passes by itself.
    async fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        for _ in 0..10_000 {
            if holds(self) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("never: {what}");
    }

    fn state(&self, index: usize) -> SecretState {
        let reference = format!("k8s/team-a/{}", name(index));
        self.stores.status().iter().find(|status| status.reference == reference).unwrap().state
    }
}

#[tokio::test(start_paused = true)]
async fn what_happens_in_a_namespace_costs_a_read_of_what_changed_and_nothing_else() {
    let held = hold(20).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    held.played.requests();
    // The server ends watches every few minutes, and it is idle in between.
    for _ in 0..5 {
        tokio::time::sleep(Duration::from_secs(280)).await;
        held.played.end_watches();
    }
    let (reads, lists, watches) = held.played.requests();
    assert_eq!((reads, lists), (0, 0), "what is watched is not read");
    assert!((1..=8).contains(&watches), "{watches}");
    held.played.put(&name(7), "second");
    held.until("a change is there", |held| held.secrets[7].read().expose() == "second").await;
    assert_eq!(held.played.requests().0, 1);
    // While no watch is open nothing is missed.
    held.played.end_watches();
    held.played.put(&name(8), "second");
    held.until("a change in between is there", |held| held.secrets[8].read().expose() == "second").await;
    assert_eq!(held.played.requests(), (1, 0, 1));
}

#[tokio::test(start_paused = true)]
async fn an_expired_watch_of_a_namespace_loses_no_value_and_misses_none() {
    let held = hold(20).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    held.played.requests();
    held.played.expire();
    held.played.put(&name(3), "second");
    held.played.delete(&name(5));
    held.until("the change is there", |held| held.secrets[3].read().expose() == "second").await;
    held.until("the deletion is noticed", |held| held.state(5) == SecretState::Missing).await;
    // And once more, by the status of the answer.
    held.played.end_watches();
    held.played.0.lock().oldest = u64::MAX;
    tokio::time::sleep(Duration::from_secs(2)).await;
    held.played.0.lock().oldest = 0;
    held.played.put(&name(4), "second");
    held.until("the change is there", |held| held.secrets[4].read().expose() == "second").await;
    for (index, secret) in held.secrets.iter().enumerate() {
        let expected = if [3, 4].contains(&index) { "second" } else { "first" };
        assert_eq!(secret.read().expose(), expected, "{index}");
    }
    let (reads, lists, _) = held.played.requests();
    assert!((3..=5).contains(&reads), "{reads} reads");
    assert!(lists >= 20, "{lists} pages");
}

#[tokio::test(start_paused = true)]
async fn an_expired_watch_of_a_name_loses_no_value_and_misses_none() {
    let held = hold(1).await;
    for round in 0..5 {
        held.played.expire();
        let new = format!("round-{round}");
        held.played.put(&name(0), &new);
        held.until("the change is there", |held| held.secrets[0].read().expose() == new).await;
        assert_eq!(held.secrets[0].version(), round + 2);
    }
    assert_eq!(held.state(0), SecretState::Ready);
}

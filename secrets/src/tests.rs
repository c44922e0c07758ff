//! The stores as a whole, over a scripted one; time is the runtime's own, paused, and nothing is random.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use invar_syntax::{LiveSecret, Secret};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::*;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

type Answer = Result<SecretSnapshot, SecretError>;

/// Answers what it is told to, and remembers what it was asked and when.
struct Scripted {
    answer: Mutex<Answer>,
    renewal: Mutex<Result<Lease, SecretError>>,
    changes: watch::Sender<u64>,
    watched: bool,
    asked: Mutex<Vec<(Instant, String)>>,
}

impl Scripted {
    fn told(&self, answer: Answer) {
        *self.answer.lock() = answer;
    }

    fn asked(&self, what: &str) -> usize {
        self.asked.lock().iter().filter(|(_, asked)| asked.starts_with(what)).count()
    }

    fn note(&self, what: String) {
        self.asked.lock().push((Instant::now(), what));
    }
}

impl SecretStore for Scripted {
    fn kind(&self) -> StoreKind {
        StoreKind::Vault
    }

    fn read<'a>(&'a self, path: &'a str) -> BoxFuture<'a, Answer> {
        Box::pin(async move {
            self.note(format!("read {path}"));
            // As over a network: others come in between.
            tokio::task::yield_now().await;
            self.answer.lock().clone()
        })
    }

    fn renew<'a>(&'a self, lease: &'a Lease) -> BoxFuture<'a, Result<Lease, SecretError>> {
        Box::pin(async move {
            self.note(format!("renew {}", lease.id));
            self.renewal.lock().clone()
        })
    }

    fn revoke<'a>(&'a self, lease: &'a Lease) -> BoxFuture<'a, Result<(), SecretError>> {
        Box::pin(async move {
            self.note(format!("revoke {}", lease.id));
            Ok(())
        })
    }

    fn refresh_interval(&self) -> Option<Duration> {
        Some(5 * MINUTE)
    }

    fn watch(&self, _path: &str) -> Option<watch::Receiver<u64>> {
        self.watched.then(|| self.changes.subscribe())
    }
}

fn login(user: &str, password: &str) -> SecretSnapshot {
    let field = |name: &str, text: &str| (name.to_owned(), Secret::new(text));
    SecretSnapshot::new(BTreeMap::from([field("password", password), field("user", user)]))
}

fn leased(user: &str, id: &str, seconds: u64) -> SecretSnapshot {
    SecretSnapshot { lease: Some(lease(id, seconds)), ..login(user, user) }
}

fn lease(id: &str, seconds: u64) -> Lease {
    Lease { id: id.to_owned(), duration: Duration::from_secs(seconds), renewable: true }
}

fn unavailable() -> Answer {
    Err(SecretError::unavailable("x", "it is sealed"))
}

fn denied() -> Answer {
    Err(SecretError::Denied { reference: "x".to_owned(), reason: "no policy allows it".to_owned() })
}

fn start(answer: Answer, watched: bool) -> (Arc<Scripted>, SecretStores) {
    let store = Arc::new(Scripted {
        answer: Mutex::new(answer),
        renewal: Mutex::new(Err(SecretError::unavailable("", "not scripted"))),
        changes: watch::Sender::new(0),
        watched,
        asked: Mutex::default(),
    });
    let dynamic: Arc<dyn SecretStore> = store.clone();
    (store, SecretStores::with_randomness(BTreeMap::from([("vault".to_owned(), dynamic)]), || 0.5))
}

async fn live(stores: &SecretStores, field: &str) -> LiveSecret {
    stores.live(&format!("vault/kv/es#{field}").parse().unwrap()).await.unwrap()
}

/// Lets time pass in steps that everything due within gets its turn in.
async fn pass(time: Duration) {
    let end = Instant::now() + time;
    while Instant::now() < end {
        tokio::time::advance(SECOND.min(end - Instant::now())).await;
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_rotation_reaches_every_user_as_a_whole_and_the_value_before_is_kept_for_a_minute() {
    let (store, stores) = start(Ok(login("a", "one-1")), false);
    let (user, password) = (live(&stores, "user").await, live(&stores, "password").await);
    assert_eq!((user.read().expose(), password.read().expose()), ("a", "one-1"));
    let changes = stores.changes();
    store.told(Ok(login("b", "two-2")));
    pass(4 * MINUTE).await;
    assert_eq!(password.read().expose(), "one-1", "the interval is five minutes");
    pass(MINUTE + SECOND).await;
    assert_eq!((user.read().expose(), password.read().expose()), ("b", "two-2"));
    assert_eq!((user.version(), password.version()), (2, 2));
    assert_eq!(password.previous().unwrap().expose(), "one-1");
    assert!(changes.has_changed().unwrap());
    pass(MINUTE + SECOND).await;
    assert_eq!(password.previous(), None);
    let before = store.asked("read");
    pass(5 * MINUTE).await;
    assert_eq!((store.asked("read"), password.version()), (before + 1, 2), "the same values are no rotation");
}

#[tokio::test(start_paused = true)]
async fn a_thousand_references_to_fifty_paths_are_fifty_reads() {
    let (store, stores) = start(Ok(login("a", "b")), false);
    let opened = (0..1_000).map(|number| {
        let stores = stores.clone();
        let field = if number % 2 == 0 { "user" } else { "password" };
        tokio::spawn(async move {
            stores.live(&format!("vault/kv/{}#{field}", number % 50).parse().unwrap()).await.unwrap()
        })
    });
    let opened: Vec<_> = opened.collect();
    let mut held = Vec::new();
    for task in opened {
        held.push(task.await.unwrap());
    }
    assert_eq!(store.asked("read"), 50);
    pass(6 * MINUTE).await;
    assert_eq!(store.asked("read"), 100, "and again once each");
}

#[tokio::test(start_paused = true)]
async fn a_store_out_of_reach_leaves_the_value_and_is_asked_ever_more_seldom() {
    let (store, stores) = start(Ok(login("a", "one-1")), false);
    let password = live(&stores, "password").await;
    store.told(unavailable());
    pass(5 * MINUTE + SECOND).await;
    let first = store.asked("read");
    pass(20 * MINUTE).await;
    let asked = store.asked("read") - first;
    assert!((10..=14).contains(&asked), "1 s doubling to 5 min: {asked}");
    assert_eq!(password.read().expose(), "one-1");
    store.told(Ok(login("a", "two-2")));
    pass(5 * MINUTE).await;
    assert_eq!(password.read().expose(), "two-2", "it recovers by itself");
}

#[tokio::test(start_paused = true)]
async fn what_is_denied_is_asked_for_less_often_and_keeps_its_value() {
    let (store, stores) = start(Ok(login("a", "one-1")), false);
    let password = live(&stores, "password").await;
    store.told(denied());
    pass(5 * MINUTE + SECOND).await;
    let first = store.asked("read");
    pass(60 * MINUTE).await;
    assert!(store.asked("read") - first <= 8, "{}", store.asked("read") - first);
    assert_eq!(password.read().expose(), "one-1");
}

#[tokio::test(start_paused = true)]
async fn a_value_of_another_shape_is_not_used() {
    let (store, stores) = start(Ok(login("a", "one-1")), false);
    let password = live(&stores, "password").await;
    let mut lacking = login("b", "two-2");
    lacking.fields.remove("password");
    store.told(Ok(lacking));
    pass(6 * MINUTE).await;
    assert_eq!(password.read().expose(), "one-1");
    assert_eq!(stores.status()[0].state, SecretState::Missing);
    store.told(Ok(login("b", "")));
    pass(6 * MINUTE).await;
    assert_eq!(password.read().expose(), "one-1");
    let error = stores.rotate_now("vault", "kv/es").await.unwrap_err();
    assert!(error.to_string().contains("`password` of the new value is empty"), "{error}");
    store.told(Ok(login("b", "two-2")));
    stores.rotate_now("vault", "kv/es").await.unwrap();
    assert_eq!(password.read().expose(), "two-2");
}

#[tokio::test(start_paused = true)]
async fn a_value_that_is_refused_gives_way_to_the_one_before_until_another_comes() {
    let (store, stores) = start(Ok(login("a", "good-1")), false);
    let password = live(&stores, "password").await;
    store.told(Ok(login("a", "wrong-2")));
    stores.rotate_now("vault", "kv/es").await.unwrap();
    assert_eq!(password.read().expose(), "wrong-2");
    password.refused(password.version());
    assert_eq!((password.read().expose(), password.version()), ("good-1", 3), "at once");
    assert_eq!(password.previous().unwrap().expose(), "wrong-2", "others may accept it");
    pass(50 * SECOND).await;
    assert_eq!(password.read().expose(), "good-1", "the same value is left alone");
    let error = stores.rotate_now("vault", "kv/es").await;
    assert!(error.unwrap_err().to_string().contains("refused"));
    store.told(Ok(login("a", "good-3")));
    pass(6 * MINUTE).await;
    assert_eq!((password.read().expose(), password.version()), ("good-3", 4));
}

#[tokio::test(start_paused = true)]
async fn a_value_that_was_refused_has_another_chance_ever_more_seldom() {
    let (store, stores) = start(Ok(login("a", "old-1")), false);
    let password = live(&stores, "password").await;
    store.told(Ok(login("a", "new-2")));
    stores.rotate_now("vault", "kv/es").await.unwrap();
    let mut chances = Vec::new();
    let started = Instant::now();
    for _ in 0..3_600 {
        if password.read().expose() == "new-2" {
            chances.push(started.elapsed().as_secs());
            // Whoever uses it learns of it late.
            password.refused(password.version());
            assert_eq!(password.read().expose(), "old-1");
        }
        pass(SECOND).await;
    }
    assert!((4..=7).contains(&chances.len()), "doubling from a minute: {chances:?}");
    assert!(chances[1] >= 60 && chances[2] - chances[1] >= 120, "{chances:?}");
}

#[tokio::test(start_paused = true)]
async fn a_value_that_was_refused_is_back_as_soon_as_nothing_else_is_accepted() {
    let (store, stores) = start(Ok(login("a", "old-1")), false);
    let password = live(&stores, "password").await;
    store.told(Ok(login("a", "new-2")));
    stores.rotate_now("vault", "kv/es").await.unwrap();
    password.refused(password.version());
    pass(11 * SECOND).await;
    // What is behind the store has taken it up by now: the users find it by themselves, and say so.
    password.refused(password.version());
    assert_eq!(password.read().expose(), "new-2");
    pass(2 * MINUTE).await;
    assert_eq!(password.read().expose(), "new-2");
    // The same, when it is not at hand any more.
    store.told(Ok(login("a", "new-3")));
    stores.rotate_now("vault", "kv/es").await.unwrap();
    password.refused(password.version());
    pass(59 * SECOND).await;
    assert_eq!(password.read().expose(), "new-2");
    password.lost(password.version());
    pass(11 * SECOND).await;
    assert_eq!(password.read().expose(), "new-3");
}

#[tokio::test(start_paused = true)]
async fn users_who_disagree_do_not_turn_a_value_with_every_request() {
    let (store, stores) = start(Ok(login("a", "old-1")), false);
    let password = live(&stores, "password").await;
    store.told(Ok(login("a", "new-2")));
    stores.rotate_now("vault", "kv/es").await.unwrap();
    let before = (store.asked("read"), password.version());
    for _ in 0..100 {
        // Each finds the other text when it is asked for, so that neither fails.
        let both = [password.read(), password.previous().unwrap()];
        assert!(both.iter().any(|text| text.expose() == "old-1"));
        assert!(both.iter().any(|text| text.expose() == "new-2"));
        password.refused(password.version());
    }
    pass(SECOND).await;
    assert_eq!(password.version(), before.1 + 3);
    assert!(store.asked("read") - before.0 <= 1);
}

#[tokio::test(start_paused = true)]
async fn the_lease_of_a_value_that_is_back_in_use_lives_on_and_that_of_the_refused_one_ends() {
    let (store, stores) = start(Ok(leased("a", "l1", 6_000)), false);
    let password = live(&stores, "password").await;
    store.told(Ok(leased("b", "l2", 6_000)));
    stores.rotate_now("vault", "kv/es").await.unwrap();
    store.told(unavailable());
    password.refused(password.version());
    assert_eq!(password.read().expose(), "a");
    pass(2 * MINUTE).await;
    assert_eq!((store.asked("revoke l1"), store.asked("revoke l2")), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn an_old_refusal_says_nothing_of_a_newer_value() {
    let (store, stores) = start(Ok(login("a", "1")), false);
    let password = live(&stores, "password").await;
    store.told(Ok(login("a", "2")));
    stores.rotate_now("vault", "kv/es").await.unwrap();
    let refused = password.version();
    store.told(Ok(login("a", "3")));
    stores.rotate_now("vault", "kv/es").await.unwrap();
    password.refused(refused);
    assert_eq!(password.read().expose(), "3");
}

#[tokio::test(start_paused = true)]
async fn a_watch_makes_a_change_come_at_once() {
    let (store, stores) = start(Ok(login("a", "1")), true);
    let password = live(&stores, "password").await;
    pass(SECOND).await;
    store.told(Ok(login("a", "2")));
    store.changes.send_modify(|count| *count += 1);
    pass(Duration::from_millis(10)).await;
    assert_eq!(password.read().expose(), "2");
}

#[tokio::test(start_paused = true)]
async fn a_lease_is_renewed_and_not_read_again() {
    let (store, stores) = start(Ok(leased("a", "l1", 600)), false);
    let password = live(&stores, "password").await;
    *store.renewal.lock() = Ok(lease("l1", 600));
    pass(60 * MINUTE).await;
    // After 0.72 of ten minutes each.
    assert_eq!((store.asked("read"), store.asked("renew l1")), (1, 8));
    assert_eq!((password.read().expose(), password.version()), ("a", 1));
    let status = stores.status().remove(0);
    assert_eq!((status.renewals, status.failed_renewals), (8, 0));
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_shrinks_is_replaced_and_the_old_one_given_back_after_the_new_one_is_in_use() {
    let (store, stores) = start(Ok(leased("a", "l1", 600)), false);
    let password = live(&stores, "password").await;
    *store.renewal.lock() = Ok(lease("l1", 100));
    store.told(Ok(leased("b", "l2", 600)));
    pass(433 * SECOND).await;
    assert_eq!((password.read().expose(), store.asked("revoke")), ("b", 0));
    pass(31 * SECOND).await;
    assert_eq!((store.asked("revoke l1"), store.asked("revoke l2")), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_lease_the_store_does_not_know_is_replaced_at_once() {
    let (store, stores) = start(Ok(leased("a", "l1", 600)), false);
    let password = live(&stores, "password").await;
    let missing = SecretError::Missing { reference: String::new(), reason: "lease not found".to_owned() };
    *store.renewal.lock() = Err(missing);
    store.told(Ok(leased("b", "l2", 600)));
    pass(433 * SECOND).await;
    assert_eq!(password.read().expose(), "b");
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_cannot_be_renewed_for_now_is_replaced_before_its_end() {
    let (store, stores) = start(Ok(leased("a", "l1", 600)), false);
    let password = live(&stores, "password").await;
    store.told(Ok(leased("b", "l2", 600)));
    pass(431 * SECOND).await;
    assert_eq!(password.read().expose(), "a");
    pass(120 * SECOND).await;
    assert!(store.asked("renew") >= 5, "{}", store.asked("renew"));
    assert_eq!(password.read().expose(), "b", "before the end of the lease");
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_nears_its_end_in_an_outage_is_the_first_to_be_asked_for_after_it() {
    let (store, stores) = start(Ok(leased("a", "lease-1", 600)), false);
    let user = live(&stores, "user").await;
    let began = Instant::now();
    store.told(unavailable());
    // It would be renewed after two thirds, and the outage ends just before the lease does.
    pass(570 * SECOND).await;
    let asked = store.asked("");
    assert!(asked < 30, "{asked} requests");
    store.told(Ok(leased("b", "lease-2", 600)));
    while user.read().expose() == "a" {
        pass(SECOND).await;
    }
    assert!(began.elapsed() < 590 * SECOND, "{:?}", began.elapsed());
    stores.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_leased_credential_that_is_refused_is_replaced_at_most_every_ten_seconds() {
    let (store, stores) = start(Ok(leased("a", "l1", 6_000)), false);
    let password = live(&stores, "password").await;
    pass(MINUTE).await;
    for name in ["b", "c"] {
        store.told(Ok(leased(name, name, 6_000)));
        pass(61 * SECOND).await;
        password.refused(password.version());
        pass(SECOND).await;
        assert_eq!(password.read().expose(), name);
    }
    // Its predecessor cannot be gone back to for ever: refused again and again, it is asked for seldom.
    let before = store.asked("read");
    pass(61 * SECOND).await;
    for _ in 0..20 {
        password.refused(password.version());
        pass(SECOND).await;
    }
    let asked = store.asked("read") - before;
    assert!((2..=3).contains(&asked), "{asked}");
}

#[tokio::test(start_paused = true)]
async fn a_value_that_its_store_replaces_is_read_right_after() {
    let replaced =
        |name: &str, left: Duration| SecretSnapshot { read_again: Some(left), ..login(name, name) };
    let (store, stores) = start(Ok(replaced("a", 40 * SECOND)), false);
    let password = live(&stores, "password").await;
    pass(40 * SECOND).await;
    assert_eq!(store.asked("read"), 1);
    store.told(Ok(replaced("a", SECOND)));
    pass(2 * SECOND).await;
    assert_eq!(password.read().expose(), "a", "the roll-over is not done yet");
    store.told(Ok(replaced("b", 40 * SECOND)));
    pass(3 * SECOND).await;
    assert_eq!(password.read().expose(), "b");
}

#[tokio::test(start_paused = true)]
async fn what_ends_without_a_lease_is_read_before_its_end() {
    let ends = |name: &str, seconds: u64| SecretSnapshot {
        not_after: SystemTime::now().checked_add(Duration::from_secs(seconds)),
        ..login(name, name)
    };
    let (store, stores) = start(Ok(ends("a", 100)), false);
    let password = live(&stores, "password").await;
    store.told(Ok(ends("b", 100)));
    pass(79 * SECOND).await;
    assert_eq!(password.read().expose(), "a");
    pass(10 * SECOND).await;
    assert_eq!(password.read().expose(), "b");
}

#[tokio::test(start_paused = true)]
async fn what_others_may_know_is_not_asked_for_again_by_itself() {
    let (store, stores) = start(Ok(login("a", "1")), false);
    let password = live(&stores, "password").await;
    let reason = "it had been unwrapped before".to_owned();
    store.told(Err(SecretError::Compromised { reference: String::new(), reason }));
    pass(6 * MINUTE).await;
    let asked = store.asked("read");
    pass(120 * MINUTE).await;
    assert_eq!((store.asked("read"), password.read().expose()), (asked, "1"));
}

#[tokio::test(start_paused = true)]
async fn leases_are_given_back_at_the_end_and_when_nobody_uses_them() {
    let (store, stores) = start(Ok(leased("a", "l1", 100_000)), false);
    let password = live(&stores, "password").await;
    pass(30 * MINUTE).await;
    assert_eq!(store.asked("revoke"), 0);
    drop(password);
    pass(11 * MINUTE).await;
    assert_eq!(store.asked("revoke l1"), 1);
    store.told(Ok(leased("b", "l2", 100_000)));
    let password = live(&stores, "password").await;
    stores.shutdown().await;
    assert_eq!((store.asked("revoke l2"), password.read().expose()), (1, "b"));
}

#[tokio::test(start_paused = true)]
async fn a_first_read_that_fails_is_an_error_and_is_tried_anew() {
    let (store, stores) = start(unavailable(), false);
    let reference: SecretReference = "vault/kv/es#user".parse().unwrap();
    let error = stores.live(&reference).await.unwrap_err();
    assert!(error.is_transient() && error.to_string().contains("vault/kv/es#user"), "{error}");
    store.told(Ok(login("a", "b")));
    assert_eq!(stores.live(&reference).await.unwrap().read().expose(), "a");
    let error = stores.live(&"vault/kv/es#nothing".parse().unwrap()).await.unwrap_err();
    assert!(error.to_string().contains("no field `nothing`"), "{error}");
    let error = stores.live(&"bao/kv/es".parse().unwrap()).await.unwrap_err();
    assert!(matches!(error, SecretError::UnknownStore { .. }));
}

#[tokio::test(start_paused = true)]
async fn nothing_prints_a_value() {
    let (_store, stores) = start(Ok(login("hunter2-hunter2", "hunter2-hunter2")), false);
    let error = stores.read(&"vault/kv/es".parse().unwrap()).await.unwrap_err();
    let text = format!("{error} {error:?}");
    assert!(text.contains("password, user") && text.contains("vault/kv/es"), "{text}");
    let password = live(&stores, "password").await;
    let text = format!("{text} {password:?} {stores:?} {:?}", login("hunter2-hunter2", "x"));
    assert!(!text.contains("hunter2"), "{text}");
}

/// What was read last, as a file of the state directory would have it.
#[derive(Default)]
struct Remembered(Mutex<BTreeMap<String, SecretSnapshot>>);

impl SecretMemory for Remembered {
    fn recall(&self, store: &str, path: &str) -> Option<SecretSnapshot> {
        self.0.lock().get(&format!("{store}/{path}")).cloned()
    }

    fn recall_lease(&self, store: &str, path: &str) -> Option<SecretSnapshot> {
        self.recall(store, path).filter(|snapshot| snapshot.lease.is_some())
    }

    fn remember(&self, store: &str, path: &str, snapshot: &SecretSnapshot) {
        self.0.lock().insert(format!("{store}/{path}"), snapshot.clone());
    }

    fn forget(&self, store: &str, path: &str) {
        self.0.lock().remove(&format!("{store}/{path}"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_memory_serves_where_the_store_is_out_of_reach_and_keeps_leases() {
    let (store, _) = start(Ok(leased("a", "l1", 6_000)), false);
    let memory = Arc::new(Remembered::default());
    let stores = || {
        let dynamic: Arc<dyn SecretStore> = store.clone();
        SecretStores::with_memory(BTreeMap::from([("vault".to_owned(), dynamic)]), memory.clone())
    };
    let first = stores();
    let held = live(&first, "user").await;
    assert_eq!(held.read().expose(), "a");
    let kept = || memory.recall("vault", "kv/es").unwrap().lease.unwrap().duration;
    assert_eq!(kept(), 6_000 * SECOND);
    *store.renewal.lock() = Ok(lease("l1", 7_000));
    pass(80 * MINUTE).await;
    assert_eq!(kept(), 7_000 * SECOND, "what was renewed lasts longer than what was read");
    first.shutdown().await;
    assert_eq!(store.asked("revoke"), 0, "it is needed at the next start");
    store.told(unavailable());
    let second = stores();
    let user = live(&second, "user").await;
    assert_eq!(user.read().expose(), "a");
    *store.renewal.lock() =
        Err(SecretError::Missing { reference: String::new(), reason: "unknown".to_owned() });
    store.told(Ok(leased("b", "l2", 6_000)));
    pass(2 * MINUTE).await;
    assert_eq!(user.read().expose(), "b", "as soon as the store answers");
    store.told(denied());
    let refused = stores().live(&"vault/kv/es#user".parse().unwrap()).await;
    assert!(refused.is_err(), "who may not read it is not served from memory");
}

#[tokio::test(start_paused = true)]
async fn reading_again_waits_for_a_read_that_begins_after_it_was_asked_for() {
    let (store, stores) = start(Ok(login("a", "1")), false);
    let password = live(&stores, "password").await;
    pass(11 * SECOND).await;
    for turn in 2..50 {
        // Refusals make the keeper read, too: now and then it is in the middle of that.
        password.lost(password.version());
        for _ in 0..turn % 5 {
            tokio::task::yield_now().await;
        }
        store.told(Ok(login("a", &turn.to_string())));
        stores.rotate_now("vault", "kv/es").await.unwrap();
        assert_eq!(password.read().expose(), turn.to_string());
        tokio::time::advance(11 * SECOND).await;
    }
}

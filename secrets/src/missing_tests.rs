//! What becomes of those who use a secret, or a field of it, that its store has no more; over a scripted store.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use invar_syntax::{LiveSecret, Secret};
use parking_lot::Mutex;

use crate::*;

const MINUTE: Duration = Duration::from_secs(60);

type Answer = Result<SecretSnapshot, SecretError>;

/// Answers what it is told to, and remembers what is given back.
struct Deleting {
    when_missing: WhenMissing,
    answer: Mutex<Answer>,
    revoked: Mutex<Vec<String>>,
}

impl SecretStore for Deleting {
    fn kind(&self) -> StoreKind {
        StoreKind::Vault
    }

    fn read<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Answer> {
        let answer = self.answer.lock().clone();
        Box::pin(async move { answer })
    }

    fn revoke<'a>(&'a self, lease: &'a Lease) -> BoxFuture<'a, Result<(), SecretError>> {
        self.revoked.lock().push(lease.id.clone());
        Box::pin(async { Ok(()) })
    }

    fn refresh_interval(&self) -> Option<Duration> {
        Some(5 * MINUTE)
    }

    fn when_missing(&self) -> WhenMissing {
        self.when_missing
    }
}

impl Deleting {
    fn told(&self, answer: Answer) {
        *self.answer.lock() = answer;
    }
}

/// What was remembered last for the next start.
#[derive(Default)]
struct Memory(Mutex<Option<SecretSnapshot>>);

impl SecretMemory for Memory {
    fn recall(&self, _: &str, _: &str) -> Option<SecretSnapshot> {
        self.0.lock().clone()
    }

    fn recall_lease(&self, _: &str, _: &str) -> Option<SecretSnapshot> {
        self.0.lock().clone().filter(|held| held.lease.is_some())
    }

    fn remember(&self, _: &str, _: &str, snapshot: &SecretSnapshot) {
        *self.0.lock() = Some(snapshot.clone());
    }

    fn forget(&self, _: &str, _: &str) {
        *self.0.lock() = None;
    }
}

fn login(password: &str) -> SecretSnapshot {
    let field = |name: &str, text: &str| (name.to_owned(), Secret::new(text));
    SecretSnapshot::new(BTreeMap::from([field("password", password), field("user", "me")]))
}

fn user_only() -> SecretSnapshot {
    SecretSnapshot::new(BTreeMap::from([("user".to_owned(), Secret::new("you"))]))
}

fn gone() -> Answer {
    Err(SecretError::Missing { reference: "x".to_owned(), reason: "it was deleted".to_owned() })
}

struct Held {
    store: Arc<Deleting>,
    stores: SecretStores,
}

impl Held {
    fn new(when_missing: WhenMissing, answer: Answer) -> Self {
        let revoked = Mutex::default();
        let store = Arc::new(Deleting { when_missing, answer: Mutex::new(answer), revoked });
        let dynamic: Arc<dyn SecretStore> = store.clone();
        let stores = SecretStores::with_randomness(BTreeMap::from([("vault".to_owned(), dynamic)]), || 0.5);
        Self { store, stores }
    }

    async fn live(&self, field: &str) -> LiveSecret {
        self.stores.live(&format!("vault/kv/es#{field}").parse().unwrap()).await.unwrap()
    }

    /// Reads it again now.
    async fn told(&self, answer: Answer) {
        self.store.told(answer);
        drop(self.stores.rotate_now("vault", "kv/es").await);
    }

    fn status(&self) -> SecretStatus {
        self.stores.status().remove(0)
    }

    fn state(&self) -> SecretState {
        self.status().state
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_kept_stays_in_use_until_it_is_written_again() {
    let held = Held::new(WhenMissing::Keep, Ok(login("one")));
    let password = held.live("password").await;
    held.told(gone()).await;
    assert_eq!((password.read().expose(), held.state()), ("one", SecretState::Missing));
    assert!(held.status().fix.unwrap().contains("the value in use stays"));
    held.told(Ok(login("two"))).await;
    assert_eq!((password.read().expose(), held.state()), ("two", SecretState::Ready));
    // The same of one field: all of the value is left alone, since its fields belong together.
    let user = held.live("user").await;
    held.told(Ok(user_only())).await;
    assert_eq!((password.read().expose(), user.read().expose()), ("two", "me"));
    assert_eq!(held.state(), SecretState::Missing);
    assert!(held.status().reason.unwrap().contains("lacks the field `password`"));
    held.told(Ok(login("three"))).await;
    assert_eq!((password.read().expose(), held.state()), ("three", SecretState::Ready));
}

#[tokio::test(start_paused = true)]
async fn what_is_deleted_is_an_empty_text_where_that_is_wanted() {
    let held = Held::new(WhenMissing::Empty, Ok(login("one")));
    let (user, password) = (held.live("user").await, held.live("password").await);
    let mut changes = held.stores.changes();
    held.told(gone()).await;
    assert!(changes.has_changed().unwrap());
    assert_eq!((user.read().expose(), password.read().expose()), ("", ""));
    assert_eq!((password.version(), password.previous()), (2, None), "nothing is gone back to");
    assert_eq!(held.state(), SecretState::Missing);
    assert!(held.status().fix.unwrap().contains("empty text"));
    // Whoever has it refused does not bring it back either.
    password.refused(2);
    password.lost(2);
    changes.mark_unchanged();
    tokio::time::sleep(20 * MINUTE).await;
    assert_eq!((password.read().expose(), password.version()), ("", 2));
    assert!(!changes.has_changed().unwrap(), "it is told once");
    held.told(Ok(login("two"))).await;
    assert_eq!((user.read().expose(), password.read().expose()), ("me", "two"));
    assert_eq!(held.state(), SecretState::Ready);
}

#[tokio::test(start_paused = true)]
async fn a_field_that_is_taken_away_is_empty_and_the_others_turn() {
    let held = Held::new(WhenMissing::Empty, Ok(login("one")));
    let (user, password) = (held.live("user").await, held.live("password").await);
    for _ in 0..3 {
        held.told(Ok(user_only())).await;
        assert_eq!((user.read().expose(), password.read().expose()), ("you", ""));
        assert_eq!((held.state(), password.version()), (SecretState::Missing, 2));
        assert!(held.status().reason.unwrap().contains("`password`"));
    }
    held.told(Ok(login("two"))).await;
    assert_eq!((user.read().expose(), password.read().expose()), ("me", "two"));
    assert_eq!(held.state(), SecretState::Ready);
    // A field that is there is not emptied in its place.
    held.told(Ok(login(""))).await;
    assert_eq!((password.read().expose(), held.state()), ("two", SecretState::Rejected));
}

#[tokio::test(start_paused = true)]
async fn what_was_never_there_is_an_error_or_an_empty_text() {
    let reference: SecretReference = "vault/kv/es#password".parse().unwrap();
    let held = Held::new(WhenMissing::Keep, gone());
    assert!(matches!(held.stores.live(&reference).await, Err(SecretError::Missing { .. })));
    for answer in [gone(), Ok(user_only())] {
        let held = Held::new(WhenMissing::Empty, answer);
        let password = held.live("password").await;
        assert_eq!((password.read().expose(), held.state()), ("", SecretState::Missing));
        assert!(held.stores.find(&reference).is_some());
        // A credential of the settings is never empty.
        let credential = Credential::Secret(reference.clone());
        assert!(matches!(credential.resolve(&held.stores).await, Err(SecretError::Missing { .. })));
        held.told(Ok(login("one"))).await;
        assert_eq!((password.read().expose(), held.state()), ("one", SecretState::Ready));
        assert_eq!(credential.resolve(&held.stores).await.unwrap().expose(), "one");
    }
    // Which field is meant has to be said all the same.
    let held = Held::new(WhenMissing::Empty, Ok(login("one")));
    let unnamed = held.stores.live(&"vault/kv/es".parse().unwrap()).await;
    assert!(unnamed.unwrap_err().to_string().contains("several fields"));
}

#[tokio::test(start_paused = true)]
async fn other_failures_empty_nothing() {
    let held = Held::new(WhenMissing::Empty, Ok(login("one")));
    let password = held.live("password").await;
    let denied = SecretError::Denied { reference: "x".to_owned(), reason: "no".to_owned() };
    for (error, state) in
        [(denied, SecretState::Denied), (SecretError::unavailable("x", "gone"), SecretState::Stale)]
    {
        held.told(Err(error)).await;
        assert_eq!((password.read().expose(), held.state()), ("one", state));
    }
}

#[tokio::test(start_paused = true)]
async fn the_lease_of_what_is_taken_away_is_given_back_and_the_next_start_does_not_use_it() {
    let lease = Lease { id: "lease-1".to_owned(), duration: 60 * MINUTE, renewable: true };
    let answer = Ok(SecretSnapshot { lease: Some(lease), ..login("one") });
    let Held { store, stores } = Held::new(WhenMissing::Empty, answer);
    let memory = Arc::new(Memory::default());
    let dynamic: Arc<dyn SecretStore> = store.clone();
    let remembering =
        SecretStores::with_memory(BTreeMap::from([("vault".to_owned(), dynamic)]), memory.clone());
    drop(stores);
    let held = Held { store, stores: remembering };
    let password = held.live("password").await;
    assert_eq!(memory.0.lock().as_ref().unwrap().fields.len(), 2);
    held.told(gone()).await;
    assert!(memory.0.lock().as_ref().unwrap().fields.is_empty());
    tokio::time::sleep(2 * MINUTE).await;
    assert_eq!(*held.store.revoked.lock(), ["lease-1"]);
    assert_eq!(password.read().expose(), "");
}

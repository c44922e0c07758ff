#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::time::{Duration, UNIX_EPOCH};

use base64::Engine as _;
use proptest::prelude::*;

use super::*;
use crate::settings::StoreTable;
use crate::snapshot::Lease;
use crate::store::{BoxFuture, SecretStore};

const MARK: &str = "hunter2-hunter2-hunter2";
const DAY: Duration = Duration::from_secs(24 * 3600);

fn key() -> Secret {
    Secret::new("0123456789abcdef0123456789abcdef")
}

fn start() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_700_000_000)
}

fn snapshot() -> SecretSnapshot {
    let fields = [("user", "ana"), ("password", MARK)];
    let fields = fields.map(|(name, value)| (name.to_owned(), Secret::new(value)));
    SecretSnapshot { store_version: Some("7".to_owned()), ..SecretSnapshot::new(BTreeMap::from(fields)) }
}

fn sealed(snapshot: &SecretSnapshot) -> Vec<u8> {
    seal_record(&key(), "vault", "kv/es", snapshot, start()).unwrap()
}

fn opened(sealed: &[u8], after: Duration) -> Result<SecretSnapshot, RecordError> {
    open_record(&key(), "vault", "kv/es", sealed, start() + after, DAY)
}

fn settings(key: &Path) -> OfflineSettings {
    let text = format!("offline = {{ key = {{ file = '{}' }} }}", key.display());
    parse(&text).unwrap()
}

fn parse(text: &str) -> Result<OfflineSettings, String> {
    #[derive(serde::Deserialize)]
    struct Holder {
        offline: OfflineSettings,
    }
    toml::from_str::<Holder>(text).map(|holder| holder.offline).map_err(|error| error.message().to_owned())
}

#[test]
fn a_record_opens_as_it_was_and_shows_nothing() {
    let first = sealed(&snapshot());
    assert_eq!(opened(&first, Duration::ZERO), Ok(snapshot()));
    for text in [MARK, "password", "ana", "kv/es"] {
        for form in [text.to_owned(), base64::engine::general_purpose::STANDARD.encode(text)] {
            assert!(!first.windows(form.len()).any(|part| part == form.as_bytes()), "{form}");
        }
    }
    let second = sealed(&snapshot());
    assert_ne!(first[8..40], second[8..40], "each has a key of its own");
    assert_ne!(first[40..], second[40..]);
}

#[test]
fn a_record_cannot_take_the_place_of_another() {
    let record = sealed(&snapshot());
    for (store, path) in [("vault", "kv/other"), ("vaultk", "v/es"), ("bao", "kv/es"), ("vault/kv", "es")] {
        let opened = open_record(&key(), store, path, &record, start(), DAY);
        assert_eq!(opened, Err(RecordError::Sealed), "{store}/{path}");
    }
    let other = Secret::new("0123456789abcdef0123456789abcdeF");
    assert_eq!(open_record(&other, "vault", "kv/es", &record, start(), DAY), Err(RecordError::Sealed));
}

#[test]
fn what_is_too_old_or_has_ended_is_not_used() {
    let record = sealed(&snapshot());
    assert!(opened(&record, DAY).is_ok());
    assert_eq!(opened(&record, DAY + Duration::from_secs(1)), Err(RecordError::Age));
    let early = open_record(&key(), "vault", "kv/es", &record, start() - Duration::from_secs(301), DAY);
    assert_eq!(early, Err(RecordError::Age), "a clock that was set back makes nothing young");

    let ends = SecretSnapshot { not_after: Some(start() + Duration::from_secs(60)), ..snapshot() };
    let record = sealed(&ends);
    assert_eq!(opened(&record, Duration::from_secs(59)), Ok(ends));
    assert_eq!(opened(&record, Duration::from_secs(60)), Err(RecordError::Ended));
}

#[test]
fn a_lease_has_what_is_left_of_it() {
    let lease =
        Lease { id: "database/creds/ro/x".to_owned(), duration: Duration::from_secs(60), renewable: true };
    let leased = SecretSnapshot {
        lease: Some(lease.clone()),
        read_again: Some(Duration::from_secs(30)),
        ..snapshot()
    };
    let record = sealed(&leased);
    let after = opened(&record, Duration::from_secs(45)).unwrap();
    assert_eq!(after.lease, Some(Lease { duration: Duration::from_secs(15), ..lease }));
    assert_eq!(after.read_again, Some(Duration::ZERO));
    assert_eq!(opened(&record, Duration::from_secs(60)), Err(RecordError::Ended));
}

#[test]
fn a_lease_is_there_to_be_resumed_at_any_age_until_it_ends_and_with_its_own_term() {
    let hour = Duration::from_secs(3600);
    let lease = Lease { id: "db/creds/app/1".to_owned(), duration: hour * 48, renewable: true };
    let granted_under = Some("mark".to_owned());
    let leased = SecretSnapshot { lease: Some(lease), granted_under, ..snapshot() };
    let record = sealed(&leased);
    let of = |record: &[u8], after: Duration| {
        record::open_lease(&key(), "vault", "kv/es", record, start() + after)
    };
    assert_eq!(of(&record, hour * 47), Ok(leased));
    assert_eq!(opened(&record, hour * 47), Err(RecordError::Age), "nobody may use it unasked");
    assert_eq!(of(&record, hour * 48), Err(RecordError::Ended));
    assert!(of(&sealed(&snapshot()), Duration::ZERO).is_err(), "it has no lease");
}

#[tokio::test]
async fn a_record_stays_for_as_long_as_its_lease_and_is_forgotten_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let (state, key) = (folder.path().join("secrets"), folder.path().join("key"));
    fs::write(&key, "0123456789abcdef0123456789abcdef").unwrap();
    let memory = OfflineCache::open(&settings(&key), &state, &stores()).await.unwrap();
    let lease = Lease { id: "db/creds/app/1".to_owned(), duration: DAY * 5, renewable: true };
    let leased = SecretSnapshot { lease: Some(lease), ..snapshot() };
    memory.remember("vault", "db/creds/app", &leased);
    memory.remember("vault", "", &leased);
    memory.remember("vault", "kv/es", &snapshot());
    memory.flush().await;
    remove_old(&state, SystemTime::now() + DAY * 4, DAY).unwrap();
    assert_eq!(fs::read_dir(&state).unwrap().count(), 2);
    assert_eq!(memory.recall_lease("vault", ""), Some(leased.clone()));
    assert_eq!(memory.recall_lease("vault", "kv/es"), None);
    SecretMemory::forget(&memory, "vault", "");
    assert_eq!(memory.recall_lease("vault", ""), None, "before it is written");
    memory.flush().await;
    assert_eq!(fs::read_dir(&state).unwrap().count(), 1);
    // What comes after it counts.
    SecretMemory::forget(&memory, "vault", "db/creds/app");
    memory.remember("vault", "db/creds/app", &leased);
    memory.flush().await;
    assert_eq!(memory.recall_lease("vault", "db/creds/app"), Some(leased));
    remove_old(&state, SystemTime::now() + DAY * 6, DAY).unwrap();
    assert_eq!(fs::read_dir(&state).unwrap().count(), 0);
}

/// Out of reach, and of the kind of its name.
struct Nowhere(StoreKind);

impl SecretStore for Nowhere {
    fn kind(&self) -> StoreKind {
        self.0
    }

    fn read<'a>(&'a self, path: &'a str) -> BoxFuture<'a, Result<SecretSnapshot, SecretError>> {
        Box::pin(async move { Err(SecretError::unavailable(path, "out of reach")) })
    }
}

fn stores() -> SecretStores {
    let kinds = [("vault", StoreKind::Vault), ("kms", StoreKind::Exec), ("file", StoreKind::File)];
    let nowhere = |kind| Arc::new(Nowhere(kind)) as Arc<dyn SecretStore>;
    SecretStores::new(kinds.map(|(name, kind)| (name.to_owned(), nowhere(kind))).into())
}

#[tokio::test]
async fn values_are_kept_replaced_and_forgotten() {
    let folder = tempfile::tempdir().unwrap();
    let (state, key) = (folder.path().join("state/secrets"), folder.path().join("key"));
    fs::write(&key, "0123456789abcdef0123456789abcdef\n").unwrap();
    let cache = OfflineCache::open(&settings(&key), &state, &stores()).await.unwrap();
    assert!(!state.exists(), "nothing is kept yet");
    assert_eq!(cache.recall("vault", "kv/es"), None);
    cache.save("vault", "kv/es", &snapshot()).await.unwrap();
    let again = SecretSnapshot { store_version: Some("8".to_owned()), ..snapshot() };
    cache.save("vault", "kv/es", &again).await.unwrap();
    cache.remember("vault", "kv/other", &snapshot());
    cache.flush().await;
    assert_eq!(fs::read_dir(&state).unwrap().count(), 2);
    use std::os::unix::fs::PermissionsExt as _;
    for entry in fs::read_dir(&state).unwrap() {
        let path = entry.unwrap().path();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let content = fs::read(&path).unwrap();
        assert!(!content.windows(MARK.len()).any(|part| part == MARK.as_bytes()));
    }
    assert_eq!(fs::metadata(&state).unwrap().permissions().mode() & 0o777, 0o700);

    // Another process, later.
    let cache = OfflineCache::open(&settings(&key), &state, &stores()).await.unwrap();
    assert_eq!(cache.recall("vault", "kv/es"), Some(again));
    cache.forget("vault", "kv/es").await.unwrap();
    cache.forget("vault", "kv/es").await.unwrap();
    assert_eq!(cache.recall("vault", "kv/es"), None);
    assert_eq!(cache.recall("vault", "kv/other"), Some(snapshot()));

    // Another key opens nothing, and removes what it cannot open: as denying does.
    assert_eq!(fs::read_dir(&state).unwrap().count(), 1);
    fs::write(&key, "another-key-another-key-another-key").unwrap();
    let cache = OfflineCache::open(&settings(&key), &state, &stores()).await.unwrap();
    assert_eq!(cache.recall("vault", "kv/other"), None);
    assert_eq!(fs::read_dir(&state).unwrap().count(), 0);
    cache.save("vault", "kv/es", &snapshot()).await.unwrap();
    let cache = OfflineCache::open(&OfflineSettings::Deny, &state, &stores()).await.unwrap();
    assert!(!state.exists() && !cache.is_open());
    cache.save("vault", "kv/es", &snapshot()).await.unwrap();
    cache.remember("vault", "kv/es", &snapshot());
    cache.flush().await;
    assert_eq!(cache.recall("vault", "kv/es"), None);
    assert!(!state.exists(), "nothing is ever written");
}

#[tokio::test]
async fn a_start_without_the_store_uses_what_was_kept() {
    let folder = tempfile::tempdir().unwrap();
    let (state, key) = (folder.path().join("secrets"), folder.path().join("key"));
    fs::write(&key, "0123456789abcdef0123456789abcdef").unwrap();
    let cache = OfflineCache::open(&settings(&key), &state, &stores()).await.unwrap();
    cache.remember("vault", "kv/es", &snapshot());
    cache.flush().await;
    let cache = OfflineCache::open(&settings(&key), &state, &stores()).await.unwrap();
    let opened = stores();
    let opened = opened.stores().map(|(name, store)| (name.to_owned(), Arc::clone(store))).collect();
    let stores = SecretStores::with_memory(opened, Arc::new(cache));
    let reference = |text: &str| text.parse::<SecretReference>().unwrap();
    assert_eq!(stores.read(&reference("vault/kv/es#password")).await.unwrap().expose(), MARK);
    assert!(stores.read(&reference("vault/kv/other#password")).await.unwrap_err().is_transient());
    stores.shutdown().await;
}

#[tokio::test]
async fn a_value_that_is_only_confirmed_is_seldom_written_again() {
    let folder = tempfile::tempdir().unwrap();
    let (state, key) = (folder.path().join("secrets"), folder.path().join("key"));
    fs::write(&key, "0123456789abcdef0123456789abcdef").unwrap();
    let cache = OfflineCache::open(&settings(&key), &state, &stores()).await.unwrap();
    let held = cache.held.unwrap();
    let writes = |snapshot: &SecretSnapshot, after: u64| {
        held.note("vault", "kv/es", snapshot, start() + Duration::from_secs(after));
        std::mem::take(&mut *held.pending.lock()).len()
    };
    assert_eq!(writes(&snapshot(), 0), 1);
    assert_eq!(writes(&snapshot(), 300), 0);
    assert_eq!(writes(&SecretSnapshot { store_version: Some("8".to_owned()), ..snapshot() }, 301), 1);
    assert_eq!(writes(&snapshot(), 302), 1);
    assert_eq!(writes(&snapshot(), 302 + 3599), 0);
    assert_eq!(writes(&snapshot(), 302 + 3600), 1);
    let ends =
        |seconds| SecretSnapshot { not_after: Some(start() + Duration::from_secs(seconds)), ..snapshot() };
    assert_eq!((writes(&ends(9_000), 3_950), writes(&ends(9_100), 3_951)), (1, 1), "each renewal counts");
}

#[tokio::test]
async fn a_write_that_was_interrupted_leaves_the_value_before() {
    let folder = tempfile::tempdir().unwrap();
    let (state, key) = (folder.path().join("secrets"), folder.path().join("key"));
    fs::write(&key, "0123456789abcdef0123456789abcdef").unwrap();
    let cache = OfflineCache::open(&settings(&key), &state, &stores()).await.unwrap();
    cache.save("vault", "kv/es", &snapshot()).await.unwrap();
    let record = fs::read_dir(&state).unwrap().next().unwrap().unwrap().path();
    let half = record.with_extension("new");
    fs::write(&half, &fs::read(&record).unwrap()[..20]).unwrap();
    let cache = OfflineCache::open(&settings(&key), &state, &stores()).await.unwrap();
    assert!(!half.exists());
    assert_eq!(cache.recall("vault", "kv/es"), Some(snapshot()));
    // What nobody will use any more goes with the next start.
    remove_old(&state, SystemTime::now() + DAY * 2, DAY).unwrap();
    assert_eq!(fs::read_dir(&state).unwrap().count(), 0);
    // A folder that cannot be written keeps nobody from anything.
    fs::remove_dir(&state).unwrap();
    fs::write(&state, "in the way").unwrap();
    cache.remember("vault", "kv/es", &SecretSnapshot { store_version: None, ..snapshot() });
    cache.flush().await;
    assert!(cache.save("vault", "kv/es", &snapshot()).await.unwrap_err().is_transient());
}

#[tokio::test]
async fn only_what_may_be_out_of_reach_is_kept_and_never_the_key() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("key"), "0123456789abcdef0123456789abcdef").unwrap();
    let file: Arc<dyn SecretStore> = Arc::new(crate::FileStore::new(folder.path()));
    let mut all: BTreeMap<String, Arc<dyn SecretStore>> =
        stores().stores().map(|(name, store)| (name.to_owned(), Arc::clone(store))).collect();
    all.insert("local".to_owned(), file);
    let settings = parse("offline = { key = { secret = 'local/key' }, max_age = '1h' }").unwrap();
    let cache =
        OfflineCache::open(&settings, &folder.path().join("state"), &SecretStores::new(all)).await.unwrap();
    let mut held = cache.held.clone().unwrap();
    assert!(held.keeps("vault", "kv/es") && held.keeps("kms", "key"));
    assert!(!held.keeps("local", "key") && !held.keeps("file", "etc/token") && !held.keeps("nothing", "x"));
    drop(cache);
    // As if a command gave the key: its store is one whose values are kept otherwise.
    while Arc::get_mut(&mut held).is_none() {
        tokio::task::yield_now().await;
    }
    Arc::get_mut(&mut held).unwrap().key_reference = Some("kms/key".parse().unwrap());
    assert!(held.keeps("kms", "other") && !held.keeps("kms", "key"));
}

#[tokio::test]
async fn a_key_that_cannot_be_one_is_refused_without_being_shown() {
    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("key");
    let open = async || {
        let stores = SecretStores::default();
        OfflineCache::open(&settings(&key), &folder.path().join("state"), &stores).await.unwrap_err()
    };
    assert!(matches!(open().await, SecretError::Missing { .. }));
    fs::write(&key, "hunter2").unwrap();
    let text = format!("{0} {0:?}", open().await);
    assert!(text.contains("shorter than 32") && !text.contains("hunter2"), "{text}");
}

#[test]
fn settings_deny_or_have_a_key() {
    assert_eq!(parse("offline = 'deny'"), Ok(OfflineSettings::Deny));
    let OfflineSettings::Encrypted(encrypted) = parse("offline = { key = { file = '/k' } }").unwrap() else {
        panic!("it is encrypted")
    };
    assert_eq!(encrypted.max_age, DAY);
    assert!(!parse("offline = 'hunter2'").unwrap_err().contains("hunter2"));
    assert!(parse("offline = { max_age = '1h' }").unwrap_err().contains("missing field `key`"));
    assert!(parse("offline = { key = { file = '/k' }, max_aeg = '1h' }").unwrap_err().contains("max_aeg"));
    let stores: StoreTable =
        toml::from_str("[k8s]\nkind = 'kubernetes'\n[f]\nkind = 'file'\nroot = '/x'").unwrap();
    let of = |text: &str| parse(text).unwrap().problem(&stores);
    assert!(of("offline = { key = { secret = 'k8s/a/b' } }").unwrap().contains("out of reach"));
    assert_eq!(of("offline = { key = { secret = 'f/b' } }"), None);
    assert_eq!(of("offline = 'deny'"), None);
}

proptest! {
    #[test]
    fn any_value_comes_back(fields in proptest::collection::btree_map(".{0,10}", ".{0,30}", 0..5), path in ".{0,20}") {
        let fields: BTreeMap<String, Secret> =
            fields.into_iter().map(|(name, value)| (name, Secret::new(value))).collect();
        let snapshot = SecretSnapshot::new(fields);
        let sealed = seal_record(&key(), "vault", &path, &snapshot, start()).unwrap();
        prop_assert_eq!(open_record(&key(), "vault", &path, &sealed, start(), DAY), Ok(snapshot));
    }

    #[test]
    fn a_record_that_was_changed_does_not_open(at in any::<prop::sample::Index>(), bit in 0_u8..8, cut in any::<prop::sample::Index>()) {
        let record = sealed(&snapshot());
        let mut changed = record.clone();
        changed[at.index(record.len())] ^= 1 << bit;
        prop_assert!(opened(&changed, Duration::ZERO).is_err());
        prop_assert!(opened(&record[..cut.index(record.len())], Duration::ZERO).is_err());
    }

    #[test]
    fn any_bytes_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(opened(&bytes, Duration::ZERO).is_err());
    }
}

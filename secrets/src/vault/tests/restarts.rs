//! What is left of leases and of the token when the process ends, and what the next one makes of it.
use std::collections::BTreeSet;
use std::path::Path;

use super::*;
use crate::{
    Lease, OfflineCache, OfflineSettings, SecretMemory, SecretReference, SecretSnapshot, SecretStore,
};

const APP: &str = "vault/db/creds/app#username";

/// A server that grants leases, and knows which of them live.
#[derive(Default)]
struct Granting {
    logins: u32,
    batch: bool,
    tokens: BTreeSet<String>,
    /// The token of each lease.
    leases: BTreeMap<String, String>,
    granted: u32,
    renewable: bool,
    /// What renewals of a lease grant, if not what is asked for.
    left: Option<u64>,
    down: bool,
    /// Tokens that may not read `kv/new`, and whether logins fail.
    forbidden: BTreeSet<String>,
    refuses: bool,
}

/// A server, what it knows, and a memory for the processes that use it.
struct Game {
    granting: Arc<Mutex<Granting>>,
    server: Scripted,
    memory: Arc<Kept>,
}

/// A memory that measures time as the runtime does.
#[derive(Default)]
struct Kept(Mutex<BTreeMap<(String, String), (SecretSnapshot, Instant)>>);

impl Kept {
    fn get(&self, path: &str) -> Option<(SecretSnapshot, Duration)> {
        let held = self.0.lock();
        let (snapshot, at) = held.get(&("vault".to_owned(), path.to_owned()))?;
        let lasts = snapshot.lease.as_ref().is_none_or(|lease| at.elapsed() < lease.duration);
        lasts.then(|| (snapshot.clone(), at.elapsed()))
    }

    fn has_token(&self) -> bool {
        self.get("").is_some()
    }
}

impl SecretMemory for Kept {
    fn recall(&self, _: &str, path: &str) -> Option<SecretSnapshot> {
        let (snapshot, age) = self.get(path)?;
        let lease = snapshot.lease.clone();
        let lease = lease.map(|lease| Lease { duration: lease.duration - age, ..lease });
        Some(SecretSnapshot { lease, ..snapshot })
    }

    fn recall_lease(&self, _: &str, path: &str) -> Option<SecretSnapshot> {
        self.get(path).map(|(snapshot, _)| snapshot).filter(|snapshot| snapshot.lease.is_some())
    }

    fn remember(&self, store: &str, path: &str, snapshot: &SecretSnapshot) {
        self.0.lock().insert((store.to_owned(), path.to_owned()), (snapshot.clone(), Instant::now()));
    }

    fn forget(&self, store: &str, path: &str) {
        self.0.lock().remove(&(store.to_owned(), path.to_owned()));
    }
}

impl Granting {
    fn answer(&mut self, asked: &Asked) -> Say {
        if self.down {
            return Say::Unreachable;
        }
        let path = asked.path.as_str();
        if path.starts_with("auth/") && path.contains("login") && self.refuses {
            self.logins += 1;
            return errors(400, "no");
        }
        if path.starts_with("auth/") && path.contains("login") {
            self.logins += 1;
            let token = format!("marker-token-{}", self.logins);
            self.tokens.insert(token.clone());
            return ok(json!({ "auth": {
                "client_token": token, "lease_duration": 7200, "renewable": !self.batch,
                "token_type": if self.batch { "batch" } else { "service" },
            } }));
        }
        if !self.tokens.contains(&asked.token) {
            return denied();
        }
        let lease = asked.body["lease_id"].as_str().unwrap_or_default().to_owned();
        match path {
            "auth/token/renew-self" => grant(&asked.token, 7200, true),
            "auth/token/lookup-self" => {
                ok(json!({ "data": { "ttl": 5000, "renewable": false, "type": "service" } }))
            }
            "auth/token/revoke-self" => {
                self.tokens.remove(&asked.token);
                self.leases.retain(|_, of| *of != asked.token);
                Say::Answer(204, Value::Null)
            }
            "sys/leases/revoke" => {
                self.leases.remove(&lease);
                Say::Answer(204, Value::Null)
            }
            "sys/leases/renew" | "sys/leases/lookup" if !self.leases.contains_key(&lease) => {
                errors(400, "lease not found")
            }
            "sys/leases/renew" => {
                let seconds = self.left.or(asked.body["increment"].as_u64()).unwrap();
                ok(json!({ "lease_id": lease, "lease_duration": seconds, "renewable": true }))
            }
            "sys/leases/lookup" => ok(json!({ "data": { "id": lease, "ttl": 1234, "renewable": false } })),
            _ if path.starts_with("sys/internal/ui/mounts/db/") => mount("db/", "database", ""),
            _ if path.starts_with("sys/internal/ui/mounts/kv/") => mount("kv/", "kv", "2"),
            "kv/data/new" if self.forbidden.contains(&asked.token) => denied(),
            _ if path.starts_with("kv/data/") => kv2(json!({ "password": "marker-value" }), 3),
            _ if path.starts_with("db/creds/") => {
                self.granted += 1;
                let id = format!("{path}/{}", self.granted);
                self.leases.insert(id.clone(), asked.token.clone());
                ok(json!({ "lease_id": id, "lease_duration": 3600, "renewable": self.renewable,
                    "data": { "username": format!("user-{}", self.granted), "password": "marker-password" } }))
            }
            _ => errors(404, ""),
        }
    }
}

impl Game {
    fn new() -> Self {
        let granting = Arc::new(Mutex::new(Granting { renewable: true, ..Granting::default() }));
        let answering = Arc::clone(&granting);
        let server = Scripted::new(move |asked| answering.lock().answer(asked));
        Self { granting, server, memory: Arc::default() }
    }

    /// A process with these settings.
    fn process(&self, settings: &str) -> SecretStores {
        let store: Arc<dyn SecretStore> = Arc::new(self.server.store(settings));
        SecretStores::with_memory(BTreeMap::from([("vault".to_owned(), store)]), self.memory.clone())
    }

    /// One that reads a value and ends in order.
    async fn ended(&self, settings: &str) {
        let stores = self.process(settings);
        live(&stores, APP).await;
        stores.shutdown().await;
        self.server.forget();
    }

    /// Logins so far, and leases that live.
    fn counts(&self) -> (u32, usize) {
        let granting = self.granting.lock();
        (granting.logins, granting.leases.len())
    }
}

async fn live(stores: &SecretStores, reference: &str) -> invar_syntax::LiveSecret {
    stores.live(&reference.parse::<SecretReference>().unwrap()).await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_lease_and_its_token_go_on_in_the_next_process() {
    let game = Game::new();
    for start in 0..5 {
        let stores = game.process(USERPASS);
        let user = live(&stores, APP).await;
        assert_eq!(user.read().expose(), "user-1", "start {start}");
        pass(1000).await;
        if start % 2 == 0 {
            stores.shutdown().await;
        }
        // Otherwise it is killed.
    }
    assert_eq!(game.counts(), (1, 1));
    assert_eq!(game.server.count("db/creds"), 1);
    assert_eq!(game.server.count("sys/leases/revoke") + game.server.count("auth/token/revoke-self"), 0);
    // As much is asked for as was granted first, not only what was left.
    assert!(game.server.asked("sys/leases/renew").iter().all(|asked| asked.body["increment"] == 3600));
    // It is kept up like any other: the token and the lease are renewed.
    let stores = game.process(USERPASS);
    let user = live(&stores, APP).await;
    game.server.forget();
    pass(20_000).await;
    assert!(game.server.count("sys/leases/renew") >= 7 && game.server.count("auth/token/renew-self") >= 3);
    assert_eq!((game.counts(), user.read().expose()), ((1, 1), "user-1"));
    assert!(game.memory.has_token(), "what was renewed is kept as well");
}

#[tokio::test(start_paused = true)]
async fn without_a_memory_nothing_is_left() {
    let game = Game::new();
    let store: Arc<dyn SecretStore> = Arc::new(game.server.store(USERPASS));
    let stores = SecretStores::new(BTreeMap::from([("vault".to_owned(), store)]));
    live(&stores, APP).await;
    stores.shutdown().await;
    assert_eq!(game.counts(), (1, 0));
    assert!(game.granting.lock().tokens.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_token_without_leases_is_not_kept() {
    let game = Game::new();
    let stores = game.process(USERPASS);
    live(&stores, "vault/kv/es#password").await;
    assert!(!game.memory.has_token());
    stores.shutdown().await;
    assert!(game.granting.lock().tokens.is_empty());
    // One that was kept is not any more, once it is given back.
    game.ended(USERPASS).await;
    assert!(game.memory.has_token());
    let stores = game.process(USERPASS);
    live(&stores, "vault/kv/es#password").await;
    stores.shutdown().await;
    assert_eq!((game.memory.has_token(), game.counts()), (false, (2, 0)));
}

#[tokio::test(start_paused = true)]
async fn a_dead_token_is_followed_by_a_login_and_its_leases_by_new_ones() {
    let game = Game::new();
    game.ended(USERPASS).await;
    // The lease itself is forgotten a little later than the token.
    game.granting.lock().tokens.clear();
    let stores = game.process(USERPASS);
    assert_eq!(live(&stores, APP).await.read().expose(), "user-2");
    let asked: Vec<String> = game.server.all().into_iter().map(|asked| asked.path).collect();
    assert_eq!(asked[..2], ["auth/token/renew-self", "auth/userpass/login/u"]);
    assert_eq!(game.server.count("sys/leases/renew"), 0, "it would end with the old token, whatever is said");
    pass(1).await;
    assert_eq!(
        (game.counts(), game.server.count("sys/leases/revoke")),
        ((2, 1), 1),
        "the old one is given back"
    );
    // From now on the new token is the one that is kept.
    stores.shutdown().await;
    let stores = game.process(USERPASS);
    assert_eq!(live(&stores, APP).await.read().expose(), "user-2");
    assert_eq!(game.counts(), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_is_gone_is_read_anew() {
    let game = Game::new();
    game.ended(USERPASS).await;
    game.granting.lock().leases.clear();
    let stores = game.process(USERPASS);
    assert_eq!(live(&stores, APP).await.read().expose(), "user-2");
    assert_eq!((game.counts(), game.server.count("sys/leases/renew")), ((1, 1), 1));
    stores.shutdown().await;
    assert_eq!(game.server.count("sys/leases/revoke"), 0, "there is nothing to be given back");
    // Whatever became of the record in an old copy of the folder: what it names is asked about first.
    let old = game.memory.recall("vault", "db/creds/app").unwrap();
    let lease = Lease { id: "db/creds/app/1".to_owned(), ..old.lease.clone().unwrap() };
    game.memory.remember("vault", "db/creds/app", &SecretSnapshot { lease: Some(lease), ..old });
    let stores = game.process(USERPASS);
    assert_eq!(live(&stores, APP).await.read().expose(), "user-3");
}

#[tokio::test(start_paused = true)]
async fn a_process_that_dies_before_it_took_note_leaves_one_lease_at_most() {
    let game = Game::new();
    let stores = game.process(USERPASS);
    live(&stores, APP).await;
    drop(stores);
    game.memory.forget("vault", "db/creds/app");
    let stores = game.process(USERPASS);
    assert_eq!(live(&stores, APP).await.read().expose(), "user-2");
    assert_eq!(game.counts(), (1, 2), "the first one is under the same token, and ends unless it is renewed");
    drop(stores);
    // The other way round: the value is there, and not the token.
    game.memory.forget("vault", "");
    let stores = game.process(USERPASS);
    assert_eq!(live(&stores, APP).await.read().expose(), "user-3");
    pass(1).await;
    assert_eq!(game.counts(), (2, 2), "what is known of is given back");
}

#[tokio::test(start_paused = true)]
async fn another_login_discards_the_token_and_gives_it_back() {
    let folder = tempfile::tempdir().unwrap();
    let role = folder.path().join("role");
    std::fs::write(&role, "one").unwrap();
    let approle = format!("auth = {{ approle = {{ role_id = {{ file = '{}' }} }} }}\n", role.display());
    let custom = |role: &str| {
        format!("auth = {{ custom = {{ path = 'auth/x/login', data = {{ role = '{role}' }} }} }}\n")
    };
    let rewritten = || std::fs::write(&role, "two").unwrap();
    let nothing = || ();
    let changes: [(String, String, &dyn Fn()); 5] = [
        (USERPASS.to_owned(), USERPASS.replace("'u'", "'v'"), &nothing),
        (USERPASS.to_owned(), USERPASS.replace("marker-password", "another-password"), &nothing),
        (custom("a"), custom("b"), &nothing),
        (approle.clone(), approle, &rewritten),
        (USERPASS.to_owned(), "auth = { token = 'given' }\n".to_owned(), &nothing),
    ];
    for (before, after, change) in changes {
        let game = Game::new();
        game.ended(&before).await;
        change();
        game.granting.lock().tokens.insert("given".to_owned());
        let stores = game.process(&after);
        assert_eq!(live(&stores, APP).await.read().expose(), "user-2", "{after}");
        let revoked = game.server.asked("auth/token/revoke-self");
        assert_eq!(revoked.len(), 1, "{after}");
        assert_eq!(revoked[0].token, "marker-token-1");
        let logged_in = game.server.all().iter().position(|asked| asked.path.contains("login"));
        let given_back = game.server.all().iter().position(|asked| asked.path.contains("revoke-self"));
        assert!(logged_in < given_back, "not before there is another one");
        assert_eq!(game.granting.lock().leases.len(), 1, "its lease went with it");
    }
}

#[tokio::test(start_paused = true)]
async fn a_role_that_grants_more_by_now_is_logged_in_to_once() {
    let reference = "vault/kv/new#password";
    let new: SecretReference = reference.parse().unwrap();
    let game = Game::new();
    game.ended(USERPASS).await;
    game.granting.lock().forbidden.insert("marker-token-1".to_owned());
    let stores = game.process(USERPASS);
    let user = live(&stores, APP).await;
    assert_eq!((user.read().expose(), game.granting.lock().logins), ("user-1", 1));
    assert_eq!(live(&stores, reference).await.read().expose(), "marker-value");
    assert_eq!(game.granting.lock().logins, 2);
    pass(1).await;
    assert_eq!(user.read().expose(), "user-2", "it follows, before the old token ends");
    pass(60).await;
    assert_eq!(game.counts(), (2, 1));
    stores.shutdown().await;

    // Who is not granted more is denied, and nobody else notices.
    for refuses in [false, true] {
        let game = Game::new();
        game.ended(USERPASS).await;
        let all = (1..10).map(|number| format!("marker-token-{number}"));
        game.granting.lock().forbidden.extend(all);
        game.granting.lock().refuses = refuses;
        let stores = game.process(USERPASS);
        let user = live(&stores, APP).await;
        for _ in 0..10 {
            is_denied(stores.live(&new).await.map(|_| unreachable!()));
            live(&stores, "vault/kv/es#password").await;
            pass(100).await;
        }
        assert_eq!(game.granting.lock().logins, 2);
        assert_eq!(user.read().expose(), if refuses { "user-1" } else { "user-2" });
        assert_eq!(game.granting.lock().leases.len(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn another_server_never_sees_the_token() {
    let game = Game::new();
    game.ended(USERPASS).await;
    let stores = game.process(&format!("namespace = 'other'\n{USERPASS}"));
    assert_eq!(live(&stores, APP).await.read().expose(), "user-2");
    assert!(game.server.all().iter().all(|asked| asked.token != "marker-token-1"));
}

#[tokio::test(start_paused = true)]
async fn what_was_kept_is_used_while_the_server_is_out_of_reach_and_goes_on_when_it_is_back() {
    let game = Game::new();
    game.ended(USERPASS).await;
    pass(1000).await;
    game.granting.lock().down = true;
    let stores = game.process(USERPASS);
    let user = live(&stores, APP).await;
    assert_eq!(user.read().expose(), "user-1");
    pass(300).await;
    assert!(stores.status()[0].reason.is_some());
    game.granting.lock().down = false;
    game.server.forget();
    pass(400).await;
    assert_eq!((user.read().expose(), game.counts()), ("user-1", (1, 1)));
    assert_eq!((game.server.count("db/creds"), game.server.count("sys/leases/renew")), (0, 1));
    assert_eq!(game.server.asked("sys/leases/renew")[0].body["increment"], 3600);
    assert!(stores.status()[0].reason.is_none());
    // Had the token died meanwhile, another value would have been had.
    stores.shutdown().await;
    game.granting.lock().down = true;
    let stores = game.process(USERPASS);
    let user = live(&stores, APP).await;
    game.granting.lock().tokens.clear();
    game.granting.lock().down = false;
    pass(400).await;
    assert_eq!(user.read().expose(), "user-2");
    assert_eq!(game.counts(), (2, 1), "and the one before is given back");
}

#[tokio::test(start_paused = true)]
async fn what_nears_its_longest_time_goes_on_and_is_replaced_in_time() {
    let game = Game::new();
    game.ended(USERPASS).await;
    game.granting.lock().left = Some(60);
    let stores = game.process(USERPASS);
    let user = live(&stores, APP).await;
    assert_eq!(user.read().expose(), "user-1");
    game.granting.lock().left = Some(20);
    pass(55).await;
    assert_eq!(user.read().expose(), "user-2");
    pass(40).await;
    assert_eq!(game.counts(), (1, 1), "the old one was given back");
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_cannot_be_renewed_is_looked_at() {
    let game = Game::new();
    game.granting.lock().renewable = false;
    game.ended(USERPASS).await;
    let stores = game.process(USERPASS);
    let user = live(&stores, APP).await;
    assert_eq!((user.read().expose(), game.server.count("sys/leases/lookup")), ("user-1", 1));
    game.granting.lock().renewable = true;
    // 1234 s are left, as the server says.
    pass(800).await;
    assert_eq!(user.read().expose(), "user-1");
    pass(400).await;
    assert_eq!(user.read().expose(), "user-2");
}

#[tokio::test(start_paused = true)]
async fn tokens_that_are_not_ours_and_such_that_renew_nothing_are_not_kept() {
    // One that somebody gave is there at the next start without our help, and so are its leases.
    let game = Game::new();
    game.granting.lock().tokens.insert("marker-given".to_owned());
    let given = "auth = { token = 'marker-given' }\n";
    game.ended(given).await;
    assert!(!game.memory.has_token());
    let stores = game.process(given);
    assert_eq!(live(&stores, APP).await.read().expose(), "user-1");
    assert_eq!((game.counts(), game.server.count("sys/leases/renew")), ((0, 1), 1));

    let game = Game::new();
    game.granting.lock().batch = true;
    game.ended(USERPASS).await;
    assert!(!game.memory.has_token());
    let stores = game.process(USERPASS);
    assert_eq!(live(&stores, APP).await.read().expose(), "user-2");
    pass(1).await;
    assert_eq!(game.counts(), (2, 1), "the lease under it is given back, and not only left to its end");
}

#[tokio::test(start_paused = true)]
async fn a_lease_of_another_namespace_or_of_a_named_read_goes_on_as_the_settings_have_it() {
    let game = Game::new();
    let settings =
        |path: &str| format!("namespace = 'obs'\n{USERPASS}[read.app]\npath = '{path}'\nnamespace = 'sub'\n");
    let references = ["vault//team//db/creds/app#username", "vault/@app#username"];
    let before = settings("db/creds/named");
    let stores = game.process(&before);
    for reference in references {
        live(&stores, reference).await;
    }
    stores.shutdown().await;
    game.server.forget();
    let stores = game.process(&before);
    for (reference, user) in references.iter().zip(["user-1", "user-2"]) {
        assert_eq!(live(&stores, reference).await.read().expose(), user);
    }
    let namespaces: Vec<String> =
        game.server.asked("sys/leases/renew").into_iter().map(|asked| asked.namespace).collect();
    assert_eq!(namespaces, ["obs/team", "obs/sub"]);
    stores.shutdown().await;
    // The same name for something else.
    let stores = game.process(&settings("db/creds/other"));
    assert_eq!(live(&stores, references[1]).await.read().expose(), "user-3");
}

#[tokio::test(start_paused = true)]
async fn what_nobody_uses_any_more_is_given_back_and_forgotten() {
    let game = Game::new();
    let stores = game.process(USERPASS);
    drop(live(&stores, APP).await);
    pass(700).await;
    assert_eq!(game.counts(), (1, 0));
    assert!(game.memory.recall("vault", "db/creds/app").is_none());
}

#[tokio::test(start_paused = true)]
async fn while_the_server_is_out_of_reach_the_kept_token_stays_a_candidate() {
    let game = Game::new();
    game.ended(USERPASS).await;
    game.memory.forget("vault", "db/creds/app");
    game.granting.lock().down = true;
    let stores = game.process(USERPASS);
    let reference: SecretReference = APP.parse().unwrap();
    for _ in 0..5 {
        assert!(stores.live(&reference).await.unwrap_err().is_transient());
        pass(5).await;
    }
    game.granting.lock().down = false;
    pass(60).await;
    live(&stores, APP).await;
    assert_eq!(game.granting.lock().logins, 1);
}

fn offline(folder: &Path) -> OfflineSettings {
    #[derive(serde::Deserialize)]
    struct Holder {
        offline: OfflineSettings,
    }
    let text = format!("offline = {{ key = {{ file = '{}' }} }}", folder.join("key").display());
    toml::from_str::<Holder>(&text).unwrap().offline
}

/// A process whose memory is the encrypted one.
async fn encrypted(game: &Game, folder: &Path) -> (SecretStores, OfflineCache) {
    let settings = toml::from_str(&format!("address = 'https://vault.example'\n{USERPASS}")).unwrap();
    let store = || {
        // Records are of the time of day.
        let parts = ClientParts { world: World::real(), ..game.server.parts(&Fate::default()) };
        Arc::new(VaultStore::with(&settings, parts).unwrap()) as Arc<dyn SecretStore>
    };
    let stores = SecretStores::new(BTreeMap::from([("vault".to_owned(), store())]));
    let cache = OfflineCache::open(&offline(folder), &folder.join("state"), &stores).await.unwrap();
    let memory = Arc::new(cache.clone());
    (SecretStores::with_memory(BTreeMap::from([("vault".to_owned(), store())]), memory), cache)
}

#[tokio::test]
async fn on_disk_the_token_is_encrypted_and_a_record_that_was_changed_is_not_used() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    let new_key = |key: &str| std::fs::write(folder.path().join("key"), key).unwrap();
    new_key("0123456789abcdef0123456789abcdef");
    let game = Game::new();
    let run = async |expected: &str| {
        let (stores, cache) = encrypted(&game, folder.path()).await;
        assert_eq!(live(&stores, APP).await.read().expose(), expected);
        stores.shutdown().await;
        cache.flush().await;
    };
    run("user-1").await;
    run("user-1").await;
    assert_eq!(game.counts(), (1, 1));
    let records: Vec<_> = std::fs::read_dir(&state).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(records.len(), 2, "the value and the token");
    for record in &records {
        let content = std::fs::read(record).unwrap();
        for secret in ["marker-", "db/creds", "vault.example"] {
            assert!(!content.windows(secret.len()).any(|part| part == secret.as_bytes()), "{secret}");
        }
    }
    // One in the other's place.
    let contents: Vec<Vec<u8>> = records.iter().map(|record| std::fs::read(record).unwrap()).collect();
    std::fs::write(&records[0], &contents[1]).unwrap();
    std::fs::write(&records[1], &contents[0]).unwrap();
    run("user-2").await;
    assert_eq!(game.granting.lock().logins, 2);
    for record in std::fs::read_dir(&state).unwrap() {
        let path = record.unwrap().path();
        let mut content = std::fs::read(&path).unwrap();
        *content.last_mut().unwrap() ^= 1;
        std::fs::write(&path, content).unwrap();
    }
    run("user-3").await;
    // Another key: as if nothing had been kept.
    new_key("another-key-another-key-another-key");
    run("user-4").await;
    run("user-4").await;
    assert_eq!(game.granting.lock().logins, 4);
}

//! Leases and tokens over the end of a process, as Vault has them.
use invar_secrets::{OfflineCache, OfflineSettings, SecretReference};

use super::*;

/// A role and a user that no other test has: what is granted to them is counted.
fn prepare(vault: &Vault, name: &str) -> String {
    vault.write(
        &format!("consul/roles/{name}"),
        &json!({ "consul_policies": ["p"], "ttl": "1h", "max_ttl": "24h" }),
    );
    let user = json!({ "password": PASSWORD, "token_policies": "obs", "token_ttl": "1h" });
    vault.write(&format!("auth/userpass/users/{name}"), &user);
    format!("auth = {{ userpass = {{ username = '{name}', password = '{PASSWORD}' }} }}\n")
}

fn leases(vault: &Vault, name: &str) -> usize {
    let path = format!("sys/leases/lookup/consul/creds/{name}?list=true");
    let (status, answer) = vault.ask("GET", &path, &vault.root, None);
    assert!(status == 200 || status == 404, "{status}: {answer}");
    answer["data"]["keys"].as_array().map_or(0, Vec::len)
}

fn logins(vault: &Vault, name: &str) -> usize {
    vault.audited(&format!("auth/userpass/login/{name}")).len()
}

/// One process: its stores, and what they keep for the next one.
struct Process {
    stores: SecretStores,
    cache: Option<OfflineCache>,
}

impl Process {
    async fn start(vault: &Vault, settings: &str, folder: Option<&Path>) -> Self {
        let made = || {
            let store: Arc<dyn invar_secrets::SecretStore> = Arc::new(store(vault, settings));
            BTreeMap::from([("vault".to_owned(), store)])
        };
        let Some(folder) = folder else { return Self { stores: SecretStores::new(made()), cache: None } };
        let key = folder.join("key");
        std::fs::write(&key, "0123456789abcdef0123456789abcdef").unwrap();
        let offline: BTreeMap<String, OfflineSettings> =
            toml::from_str(&format!("offline = {{ key = {{ file = '{}' }} }}", key.display())).unwrap();
        let state = folder.join("state");
        let cache =
            OfflineCache::open(&offline["offline"], &state, &SecretStores::new(made())).await.unwrap();
        let stores = SecretStores::with_memory(made(), Arc::new(cache.clone()));
        Self { stores, cache: Some(cache) }
    }

    async fn token(&self, name: &str) -> String {
        let reference: SecretReference = format!("vault/consul/creds/{name}#token").parse().unwrap();
        self.stores.live(&reference).await.unwrap().read().expose().to_owned()
    }

    /// Ends it in order, or as if it were killed once what it noted is written.
    async fn end(self, clean: bool) {
        if clean {
            self.stores.shutdown().await;
        }
        if let Some(cache) = &self.cache {
            cache.flush().await;
        }
    }
}

#[tokio::test]
async fn ten_starts_take_one_login_and_one_lease() {
    let Some(shared) = shared() else { return };
    let (vault, name) = (&shared.vault, "ten-starts");
    let settings = prepare(vault, name);
    let folder = tempfile::tempdir().unwrap();
    let mut seen = std::collections::BTreeSet::new();
    for start in 0..10 {
        let process = Process::start(vault, &settings, Some(folder.path())).await;
        seen.insert(process.token(name).await);
        process.end(start % 2 == 0).await;
    }
    assert_eq!((seen.len(), leases(vault, name), logins(vault, name)), (1, 1, 1));

    // The token is taken away, and the lease with it.
    vault.write(&format!("sys/leases/revoke-prefix/auth/userpass/login/{name}"), &json!({}));
    let process = Process::start(vault, &settings, Some(folder.path())).await;
    assert!(seen.insert(process.token(name).await));
    process.end(true).await;
    assert_eq!((leases(vault, name), logins(vault, name)), (1, 2));

    // The lease alone.
    vault.write(&format!("sys/leases/revoke-prefix/consul/creds/{name}"), &json!({}));
    let process = Process::start(vault, &settings, Some(folder.path())).await;
    assert!(seen.insert(process.token(name).await));
    process.end(false).await;
    assert_eq!((leases(vault, name), logins(vault, name)), (1, 2));

    // Another user: what the first one was granted is given back.
    let other = prepare(vault, "somebody-else");
    let process = Process::start(vault, &other, Some(folder.path())).await;
    assert!(seen.insert(process.token(name).await));
    assert_eq!((leases(vault, name), logins(vault, name)), (1, 2));
    process.end(true).await;
}

#[tokio::test]
async fn without_a_key_nothing_is_left_after_an_end_in_order() {
    let Some(shared) = shared() else { return };
    let (vault, name) = (&shared.vault, "leaving-nothing");
    let settings = prepare(vault, name);
    let process = Process::start(vault, &settings, None).await;
    process.token(name).await;
    assert_eq!(leases(vault, name), 1);
    process.end(true).await;
    assert_eq!(leases(vault, name), 0);
}

#[tokio::test]
async fn a_token_that_nears_its_longest_time_takes_its_leases_over_to_the_next_one() {
    let Some(shared) = shared() else { return };
    let (vault, name) = (&shared.vault, "late-start");
    prepare(vault, name);
    let user =
        json!({ "password": PASSWORD, "token_policies": "obs", "token_ttl": "6s", "token_max_ttl": "12s" });
    vault.write(&format!("auth/userpass/users/{name}"), &user);
    let settings = format!("auth = {{ userpass = {{ username = '{name}', password = '{PASSWORD}' }} }}\n");
    let folder = tempfile::tempdir().unwrap();
    let process = Process::start(vault, &settings, Some(folder.path())).await;
    let first = process.token(name).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    process.end(true).await;
    let process = Process::start(vault, &settings, Some(folder.path())).await;
    assert_eq!((process.token(name).await, logins(vault, name)), (first.clone(), 1));
    let replaced = async {
        while process.token(name).await == first {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), replaced).await.expect("it follows the new token");
    process.end(true).await;
    assert!(logins(vault, name) >= 2);
    let process = Process::start(vault, &settings, Some(folder.path())).await;
    assert_ne!(process.token(name).await, first);
    process.end(true).await;
}

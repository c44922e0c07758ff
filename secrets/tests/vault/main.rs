//! The store on a real Vault. Skipped, saying so, where none is built.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test that cannot go on has failed")]

mod leases;
mod logins;
mod outages;
mod reads;
mod restarts;
#[path = "../../../integration/servers/vault/server.rs"]
#[allow(dead_code, unreachable_pub, clippy::expect_used, reason = "shared with other tests")]
mod server;
mod tokens;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use invar_secrets::vault::{ClientParts, HttpTransport, Pace, VaultSettings, VaultStore};
use invar_secrets::{
    EnvironmentStore, FileStore, SecretError, SecretSnapshot, SecretStore as _, SecretStores,
};
use serde_json::{Value, json};
use tempfile::TempDir;

use self::server::{Certificate, Storage, Vault};

/// What the agents of these tests may.
const POLICY: &str = r#"
path "kv/data/team/*" { capabilities = ["read"] }
path "old/team/*" { capabilities = ["read"] }
path "transit/decrypt/app" { capabilities = ["update"] }
path "pki/issue/web" { capabilities = ["update"] }
path "consul/creds/*" { capabilities = ["read"] }
path "sys/leases/*" { capabilities = ["update"] }
"#;
const ROLE_ID: &str = "role-of-the-agent";
const PASSWORD: &str = "marker-password-of-the-agent";
const VALUE: &str = "marker-value-of-elasticsearch";

/// A server that tests share which do not disturb each other.
struct Shared {
    vault: Vault,
    folder: TempDir,
}

/// Gone when the last test that uses it is done.
static SHARED: Mutex<Weak<Shared>> = Mutex::new(Weak::new());

fn shared() -> Option<Arc<Shared>> {
    let mut held = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(shared) = held.upgrade() {
        return Some(shared);
    }
    if !Vault::is_available() {
        return None;
    }
    let folder = tempfile::tempdir().unwrap();
    let (certificate, key) = certificates(folder.path());
    let certificate = Certificate { certificate: &certificate, key: &key };
    let vault = Vault::start(folder.path(), Storage::File, Some(&certificate))?;
    prepare(&vault);
    logins::prepare(&vault, folder.path());
    reads::prepare(&vault);
    leases::prepare(&vault);
    let shared = Arc::new(Shared { vault, folder });
    *held = Arc::downgrade(&shared);
    Some(shared)
}

/// What every test needs: an engine with a value, a policy, and somebody who may log in.
fn prepare(vault: &Vault) {
    vault.write("sys/mounts/kv", &json!({ "type": "kv", "options": { "version": "2" } }));
    vault.write("sys/policies/acl/obs", &json!({ "policy": POLICY }));
    vault.write("sys/auth/userpass", &json!({ "type": "userpass" }));
    vault.write("auth/userpass/users/agent", &json!({ "password": PASSWORD, "token_policies": "obs" }));
    // A new engine of version 2 gets ready in the background.
    let began = Instant::now();
    let value = json!({ "data": { "user": "elastic", "password": VALUE } });
    while vault.ask("POST", "kv/data/team/es", &vault.root, Some(&value)).0 != 200 {
        assert!(began.elapsed() < Duration::from_secs(20), "the key/value engine is not ready");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// An authority's files, and a certificate of the server signed by it.
fn certificates(folder: &Path) -> (PathBuf, PathBuf) {
    let key = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
    let certificate = params.self_signed(&key).unwrap();
    let files = (folder.join("server.pem"), folder.join("server.key"));
    std::fs::write(&files.0, certificate.pem()).unwrap();
    std::fs::write(&files.1, key.serialize_pem()).unwrap();
    files
}

fn parsed(vault: &Vault, settings: &str) -> VaultSettings {
    toml::from_str(&format!("address = '{}'\n{settings}", vault.url())).unwrap()
}

fn store(vault: &Vault, settings: &str) -> VaultStore {
    quick(&parsed(vault, settings))
}

/// A store that waits less than is good for a real server.
fn quick(settings: &VaultSettings) -> VaultStore {
    let stores = SecretStores::new(BTreeMap::from([
        ("env".to_owned(), Arc::new(EnvironmentStore::process()) as Arc<dyn invar_secrets::SecretStore>),
        ("file".to_owned(), Arc::new(FileStore::new("/"))),
    ]));
    let pace = Pace {
        login_first: Duration::from_millis(100),
        probe_first: Duration::from_millis(200),
        probe_longest: Duration::from_secs(1),
        after_unseal: Duration::from_millis(200),
        nap: Duration::from_millis(500),
        at_once: 4,
        per_second: 1000,
        ..Pace::default()
    };
    let transport = Arc::new(HttpTransport::new(settings).unwrap());
    let parts = ClientParts { pace, credentials: stores, ..ClientParts::new(transport) };
    VaultStore::with(settings, parts).unwrap()
}

fn userpass() -> String {
    format!("auth = {{ userpass = {{ username = 'agent', password = '{PASSWORD}' }} }}\n")
}

async fn password(store: &VaultStore) -> Result<String, SecretError> {
    store.read("kv/team/es").await.map(|snapshot| snapshot.fields["password"].expose().to_owned())
}

fn is_missing(read: Result<SecretSnapshot, SecretError>) -> String {
    match read {
        Err(SecretError::Missing { reason, .. }) => reason,
        other => panic!("{other:?}"),
    }
}

//! Against a scripted server, for what a real one says only seldom; time is the runtime's own, paused.
#![allow(clippy::unwrap_used)]

mod connection;
mod logins;
mod outages;
mod reads;
mod restarts;
mod sessions;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, UNIX_EPOCH};

use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::time::Instant;
use zeroize::Zeroizing;

use super::*;
use crate::store::{BoxFuture, SecretStore as _};
use crate::{SecretError, SecretStores};

/// What was asked.
#[derive(Clone, Debug)]
struct Asked {
    at: Duration,
    method: VaultMethod,
    path: String,
    query: Vec<(String, String)>,
    namespace: String,
    token: String,
    index: Option<String>,
    body: Value,
}

/// How the server answers one request.
#[derive(Clone, Debug)]
enum Say {
    Answer(u16, Value),
    After(u64, u16, Value),
    Index(&'static str, u16, Value),
    Unreachable,
}

type Script = dyn FnMut(&Asked) -> Say + Send;

/// Answers by a function and remembers what was asked.
#[derive(Clone)]
struct Scripted {
    script: Arc<Mutex<Box<Script>>>,
    asked: Arc<Mutex<Vec<Asked>>>,
    began: Instant,
    /// How long each answer takes.
    takes: Duration,
}

/// Chance and the time of day of a test.
#[derive(Clone, Default)]
struct Fate {
    /// Of a thousand.
    drawn: Arc<AtomicU64>,
    /// Seconds that the host was suspended.
    suspended: Arc<AtomicU64>,
}

impl Scripted {
    fn new(script: impl FnMut(&Asked) -> Say + Send + 'static) -> Self {
        Self {
            script: Arc::new(Mutex::new(Box::new(script))),
            asked: Arc::default(),
            began: Instant::now(),
            takes: Duration::from_millis(1),
        }
    }

    fn parts(&self, fate: &Fate) -> ClientParts {
        let (drawn, suspended, began) =
            (Arc::clone(&fate.drawn), Arc::clone(&fate.suspended), Instant::now());
        let world = World::new(
            #[expect(clippy::cast_precision_loss, reason = "at most a thousand")]
            move || drawn.load(Ordering::Relaxed) as f64 / 1000.0,
            move || UNIX_EPOCH + began.elapsed() + Duration::from_secs(suspended.load(Ordering::Relaxed)),
        );
        ClientParts { world, ..ClientParts::new(Arc::new(self.clone())) }
    }

    fn store(&self, settings: &str) -> VaultStore {
        self.store_with(settings, &Fate::default())
    }

    fn store_with(&self, settings: &str, fate: &Fate) -> VaultStore {
        let settings = format!("address = 'https://vault.example'\n{settings}");
        VaultStore::with(&toml::from_str(&settings).unwrap(), self.parts(fate)).unwrap()
    }

    fn all(&self) -> Vec<Asked> {
        self.asked.lock().clone()
    }

    /// Requests whose path begins like this.
    fn asked(&self, path: &str) -> Vec<Asked> {
        self.asked.lock().iter().filter(|asked| asked.path.starts_with(path)).cloned().collect()
    }

    fn count(&self, path: &str) -> usize {
        self.asked(path).len()
    }

    /// When paths that begin like this were asked, in seconds.
    fn seconds(&self, path: &str) -> Vec<u64> {
        self.asked(path).iter().map(|asked| asked.at.as_secs()).collect()
    }

    fn forget(&self) {
        self.asked.lock().clear();
    }
}

impl VaultTransport for Scripted {
    fn send<'a>(
        &'a self,
        request: &'a VaultRequest,
    ) -> BoxFuture<'a, Result<VaultResponse, VaultTransportError>> {
        Box::pin(async move {
            let asked = Asked {
                at: self.began.elapsed(),
                method: request.method,
                path: request.path.clone(),
                query: request.query.clone(),
                namespace: request.namespace.clone(),
                token: request.token.as_ref().map(|token| token.expose().to_owned()).unwrap_or_default(),
                index: request.index.clone(),
                body: request.body.as_ref().map_or(Value::Null, |body| serde_json::from_slice(body).unwrap()),
            };
            self.asked.lock().push(asked.clone());
            tokio::time::sleep(self.takes).await;
            let say = (self.script.lock())(&asked);
            let answer = |status: u16, body: Value| VaultResponse {
                status,
                retry_after: None,
                index: None,
                body: Zeroizing::new(if body.is_null() { Vec::new() } else { body.to_string().into_bytes() }),
            };
            match say {
                Say::Answer(status, body) => Ok(answer(status, body)),
                Say::After(seconds, status, body) => Ok(VaultResponse {
                    retry_after: Some(Duration::from_secs(seconds)),
                    ..answer(status, body)
                }),
                Say::Index(index, status, body) => {
                    Ok(VaultResponse { index: Some(index.to_owned()), ..answer(status, body) })
                }
                Say::Unreachable => Err(VaultTransportError::Connection("connection refused".to_owned())),
            }
        })
    }

    fn server(&self) -> String {
        "https://vault.example".to_owned()
    }
}

fn ok(body: Value) -> Say {
    Say::Answer(200, body)
}

fn errors(status: u16, words: &str) -> Say {
    Say::Answer(status, json!({ "errors": [words] }))
}

fn denied() -> Say {
    errors(403, "1 error occurred:\n\t* permission denied\n\n")
}

fn grant(token: &str, seconds: u64, renewable: bool) -> Say {
    ok(json!({ "auth": {
        "client_token": token, "lease_duration": seconds, "renewable": renewable, "token_type": "service",
    } }))
}

fn mount(path: &str, kind: &str, version: &str) -> Say {
    ok(json!({ "data": { "path": path, "type": kind, "options": { "version": version } } }))
}

fn kv2(fields: Value, version: u64) -> Say {
    ok(json!({ "data": { "data": fields, "metadata": {
        "version": version, "destroyed": false, "deletion_time": "", "created_time": "2026-01-01T00:00:00Z",
    } } }))
}

const USERPASS: &str = "auth = { userpass = { username = 'u', password = 'marker-password' } }\n";

/// A key/value engine of version 2 at `kv`, and logins that give numbered tokens of an hour.
fn ordinary(asked: &Asked, logins: &mut u32) -> Say {
    match asked.path.as_str() {
        "auth/userpass/login/u" => {
            *logins += 1;
            grant(&format!("token-{logins}"), 3600, true)
        }
        "auth/token/renew-self" => grant(&asked.token, 3600, true),
        "auth/token/lookup-self" => {
            ok(json!({ "data": { "ttl": 1800, "renewable": true, "type": "service" } }))
        }
        path if path.starts_with("sys/internal/ui/mounts/kv/") => mount("kv/", "kv", "2"),
        path if path.starts_with("kv/data/") => kv2(json!({ "password": "marker-value" }), 3),
        "sys/health" => ok(json!({ "initialized": true, "sealed": false, "version": "1.21.1" })),
        _ => errors(404, ""),
    }
}

fn is_denied(result: Result<crate::SecretSnapshot, SecretError>) -> String {
    match result {
        Err(SecretError::Denied { reason, .. }) => reason,
        other => panic!("{other:?}"),
    }
}

fn is_unavailable(result: Result<crate::SecretSnapshot, SecretError>) -> (String, Option<Duration>) {
    match result {
        Err(SecretError::Unavailable { reason, retry_after, .. }) => (reason, retry_after),
        other => panic!("{other:?}"),
    }
}

fn is_missing(result: Result<crate::SecretSnapshot, SecretError>) -> String {
    match result {
        Err(SecretError::Missing { reason, .. }) => reason,
        other => panic!("{other:?}"),
    }
}

async fn pass(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

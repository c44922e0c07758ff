//! The component in a running engine, against a small server that speaks as Vault does. The real one is in the suite
//! `vault`.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use invar_secrets::vault::{AwsProof, Ec2Signature, GcpProof, VaultAuth};
use invar_syntax::arguments::Arguments as _;
use invar_syntax::secret::Secret;
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::arguments::{AuthBlock, VaultArguments};
use crate::running::Running;

#[derive(Clone, Debug)]
struct Asked {
    path: String,
    token: String,
    namespace: String,
    body: Value,
}

type Answer = dyn FnMut(&Asked) -> (u16, Value) + Send;

struct Server {
    asked: Arc<Mutex<Vec<Asked>>>,
    answer: Arc<Mutex<Box<Answer>>>,
    url: String,
}

impl Server {
    async fn start(answer: impl FnMut(&Asked) -> (u16, Value) + Send + 'static) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let asked: Arc<Mutex<Vec<Asked>>> = Arc::default();
        let boxed: Box<Answer> = Box::new(answer);
        let answer = Arc::new(Mutex::new(boxed));
        let (noted, answered) = (Arc::clone(&asked), Arc::clone(&answer));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (noted, answered) = (Arc::clone(&noted), Arc::clone(&answered));
                let service = service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
                    let (noted, answered) = (Arc::clone(&noted), Arc::clone(&answered));
                    async move {
                        let header = |name: &str| {
                            let value = request.headers().get(name);
                            value.map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default()
                        };
                        let path = request.uri().path().trim_start_matches("/v1/").to_owned();
                        let (token, namespace) = (header("x-vault-token"), header("x-vault-namespace"));
                        let body = request.into_body().collect().await.unwrap().to_bytes();
                        let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
                        let asked = Asked { path, token, namespace, body };
                        noted.lock().push(asked.clone());
                        let (status, body) = (answered.lock())(&asked);
                        let body = Full::new(Bytes::from(body.to_string()));
                        hyper::Response::builder().status(status).body(body)
                    }
                });
                tokio::spawn(async move {
                    let builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                    drop(builder.serve_connection(TokioIo::new(stream), service).await);
                });
            }
        });
        Self { asked, answer, url }
    }

    fn asked(&self, path: &str) -> Vec<Asked> {
        self.asked.lock().iter().filter(|asked| asked.path.starts_with(path)).cloned().collect()
    }

    fn answers(&self, answer: impl FnMut(&Asked) -> (u16, Value) + Send + 'static) {
        *self.answer.lock() = Box::new(answer);
    }

    fn block(&self, more: &str) -> String {
        let login = "auth.userpass {\n username = \"u\"\n password = \"marker-password\"\n }";
        let options = "client_options {\n min_retry_wait = \"10ms\"\n max_retry_wait = \"20ms\"\n }";
        format!("remote.vault \"x\" {{\n server = {:?}\n {more}\n {options}\n {login}\n}}\n", self.url)
    }
}

/// Logins, and a key/value engine of version 2 at `kv`, whose value is `value`.
fn ordinary(asked: &Asked, value: &str) -> (u16, Value) {
    match asked.path.as_str() {
        "auth/userpass/login/u" => {
            (200, json!({ "auth": { "client_token": "t", "lease_duration": 3600, "renewable": true } }))
        }
        path if path.starts_with("sys/internal/ui/mounts/kv") => {
            (200, json!({ "data": { "path": "kv/", "type": "kv", "options": { "version": "2" } } }))
        }
        path if path.starts_with("kv/data/") => (
            200,
            json!({ "data": {
            "data": { "password": value, "user": "me" }, "metadata": { "version": 3 } } }),
        ),
        "auth/token/lookup-self" => (200, json!({ "data": { "ttl": 3600 } })),
        _ => (404, json!({ "errors": [] })),
    }
}

const ID: &str = "remote.vault.x";

/// Shows the data where a test can see it.
const SHOWN: &str = "local.file \"shown\" {\n filename = convert.nonsensitive(remote.vault.x.data.file)\n}\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_secret_is_exported_and_read_again_as_often_as_asked() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| {
        let file = folder.path().join(name).display().to_string();
        std::fs::write(&file, format!("content of {name}")).unwrap();
        file
    };
    let (first, second) = (file("first"), file("second"));
    let with = |file: String| {
        move |asked: &Asked| match asked.path.as_str() {
            "kv/data/team/es" => (
                200,
                json!({ "data": {
                "data": { "file": file.clone(), "password": "marker-value" }, "metadata": { "version": 3 } } }),
            ),
            _ => ordinary(asked, ""),
        }
    };
    let server = Server::start(with(first)).await;
    let block = server.block("path = \"kv/team/es\"\n namespace = \"obs\"\n reread_frequency = \"100ms\"");
    let running = Running::start(&(block + SHOWN)).await.unwrap();
    running.until("local.file.shown", |exports, _| exports.contains("content of first")).await;
    running.until(ID, |_, health| health.contains("healthy secret read, version 3")).await;
    let (exports, _) = running.shown(ID);
    assert!(!exports.contains("marker-value"), "{exports}");
    assert!(server.asked("kv/").iter().all(|asked| asked.namespace == "obs" && asked.token == "t"));
    server.answers(with(second));
    running.until("local.file.shown", |exports, _| exports.contains("content of second")).await;
    assert_eq!(server.asked("auth/userpass").len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_path_with_a_key_names_the_mount() {
    let server = Server::start(|asked| match asked.path.as_str() {
        path if path.starts_with("sys/internal") => (403, json!({ "errors": ["permission denied"] })),
        "deep/kv/data/team/es" => ordinary(&Asked { path: "kv/data/x".to_owned(), ..asked.clone() }, "v"),
        _ => ordinary(asked, "v"),
    })
    .await;
    let running = Running::start(&server.block("path = \"deep/kv\"\n key = \"team/es\"")).await.unwrap();
    running.until(ID, |exports, _| exports.contains("password")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_read_refuses_the_configuration_and_later_leaves_the_data() {
    let server = Server::start(|_| (500, json!({ "errors": ["internal error"] }))).await;
    let block = server.block("path = \"kv/team/es\"\n reread_frequency = \"50ms\"");
    let refused = Running::start(&block).await.err().unwrap();
    assert!(refused.contains("internal error") && !refused.contains("marker"), "{refused}");
    server.answers(|asked| ordinary(asked, "v"));
    let running = Running::start(&block).await.unwrap();
    running.until(ID, |_, health| health.contains("healthy secret read")).await;
    server.answers(|asked| match asked.path.as_str() {
        path if path.starts_with("kv/") => (404, json!({ "errors": [] })),
        _ => ordinary(asked, ""),
    });
    running.until(ID, |_, health| health.starts_with("unhealthy") && health.contains("stays in use")).await;
    assert!(running.shown(ID).0.contains("password"));
    // A new configuration of a component that runs does not need the server.
    running.apply(&server.block("path = \"kv/team/es\"\n reread_frequency = \"51ms\"")).await.unwrap();
    assert!(running.shown(ID).0.contains("password"));
    server.answers(|asked| ordinary(asked, "v"));
    running.until(ID, |_, health| health.starts_with("healthy")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_fails_for_now_is_made_again_as_often_as_the_options_say() {
    let mut left = 2;
    let server = Server::start(move |asked| match asked.path.as_str() {
        path if path.starts_with("kv/") && left > 0 => {
            left -= 1;
            (502, json!({}))
        }
        _ => ordinary(asked, "v"),
    })
    .await;
    Running::start(&server.block("path = \"kv/a\"")).await.unwrap();
    assert_eq!(server.asked("kv/").len(), 3);
    let server = Server::start(|asked| match asked.path.as_str() {
        path if path.starts_with("kv/") => (502, json!({})),
        _ => ordinary(asked, "v"),
    })
    .await;
    Running::start(&server.block("path = \"kv/a\"")).await.err().unwrap();
    assert_eq!(server.asked("kv/").len(), 3, "two times more, which is the default");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_granted_for_a_time_is_renewed_and_replaced_while_it_lasts() {
    let (mut granted, mut renewed) = (0, 0);
    let server = Server::start(move |asked| match asked.path.as_str() {
        path if path.starts_with("sys/internal/ui/mounts/db") => {
            (200, json!({ "data": { "path": "db/", "type": "database" } }))
        }
        "db/creds/app" => {
            granted += 1;
            (
                200,
                json!({ "lease_id": format!("db/creds/app/{granted}"), "lease_duration": 3, "renewable": true,
                "data": { "username": format!("u{granted}") } }),
            )
        }
        "sys/leases/renew" => {
            renewed += 1;
            let left = if renewed == 1 { 3 } else { 1 };
            (200, json!({ "lease_id": asked.body["lease_id"], "lease_duration": left, "renewable": true }))
        }
        _ => ordinary(asked, ""),
    })
    .await;
    let running = Running::start(&server.block("path = \"db/creds/app\"")).await.unwrap();
    let begun = std::time::Instant::now();
    while server.asked("db/").len() < 2 {
        assert!(begun.elapsed().as_secs() < 20);
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert_eq!(server.asked("sys/leases/renew").len(), 2, "the second one granted less");
    running.until(ID, |_, health| health.starts_with("healthy")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_path_keeps_the_session_and_a_changed_login_does_not() {
    let server = Server::start(|asked| ordinary(asked, "v")).await;
    let running = Running::start(&server.block("path = \"kv/a\"")).await.unwrap();
    running.apply(&server.block("path = \"kv/b\"")).await.unwrap();
    assert_eq!(server.asked("auth/userpass").len(), 1);
    let other = server.block("path = \"kv/b\"").replace("marker-password", "another");
    running.apply(&other).await.unwrap();
    let logins = server.asked("auth/userpass");
    assert_eq!(logins.len(), 2);
    assert_eq!(logins[1].body, json!({ "password": "another" }));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn arguments_that_cannot_work_are_named() {
    let with = |more: &str| {
        format!("remote.vault \"x\" {{\n server = \"http://127.0.0.1:1\"\n path = \"kv/a\"\n {more}\n}}\n")
    };
    let token = "auth.token {\n token = \"t\"\n }";
    for (more, part) in [
        (String::new(), "exactly one auth.* block must be specified; found none"),
        (format!("{token}\n{token}"), "found 2"),
        (format!("{token}\nclient_options {{\n timeout = \"0s\"\n }}"), "timeout must be greater than 0"),
        ("auth.aws {\n type = \"x\"\n }".to_owned(), "expected one of ec2,iam"),
        ("auth.gcp {\n role = \"r\"\n type = \"iam\"\n }".to_owned(), "iam_service_account must be provided"),
    ] {
        let refused = Running::start(&with(&more)).await.err().unwrap();
        assert!(refused.contains(part), "{more}: {refused}");
    }
}

#[test]
fn every_block_is_a_login_of_the_client() {
    let secret = || Secret::new("s");
    let defaults = VaultArguments::defaults();
    assert_eq!(defaults.client_options.max_retries, 2);
    let mut aws = super::arguments::AwsBlock::defaults();
    (aws.kind, aws.ec2_signature_type) = ("ec2".to_owned(), "identity".to_owned());
    match AuthBlock::Aws(aws).for_client() {
        VaultAuth::Aws(auth) => {
            assert_eq!((auth.proof, auth.signature), (AwsProof::Ec2, Ec2Signature::Identity));
            assert_eq!((auth.role.as_deref(), auth.region.as_deref()), (None, Some("us-east-1")));
        }
        other => panic!("{other:?}"),
    }
    let mut gcp = super::arguments::GcpBlock::defaults();
    (gcp.kind, gcp.role) = ("gce".to_owned(), "r".to_owned());
    assert!(matches!(AuthBlock::Gcp(gcp).for_client(), VaultAuth::Gcp(auth) if auth.proof == GcpProof::Gce));
    let mut approle = super::arguments::AppRoleBlock::defaults();
    (approle.secret, approle.wrapping_token) = (secret(), true);
    assert!(matches!(AuthBlock::Approle(approle).for_client(), VaultAuth::Approle(auth) if auth.wrapped));
    let azure = super::arguments::AzureBlock::defaults();
    assert!(matches!(AuthBlock::Azure(azure).for_client(), VaultAuth::Azure(auth)
        if auth.resource.as_deref() == Some("https://management.azure.com/")));
    let mut ldap = super::arguments::LdapBlock::defaults();
    ldap.password = secret();
    assert!(
        matches!(AuthBlock::Ldap(ldap).for_client(), VaultAuth::Ldap(auth) if auth.mount.as_deref() == Some("ldap"))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_account_and_a_body_of_ones_own() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    std::fs::write(&file, "jwt-of-the-pod\n").unwrap();
    let grant =
        || (200, json!({ "auth": { "client_token": "t", "lease_duration": 3600, "renewable": true } }));
    let server = Server::start(move |asked| match asked.path.as_str() {
        "auth/k8s/login" | "auth/own/login" => grant(),
        _ => ordinary(asked, "v"),
    })
    .await;
    let block = |auth: &str| {
        format!("remote.vault \"x\" {{\n server = {:?}\n path = \"kv/a\"\n {auth}\n}}\n", server.url)
    };
    let kubernetes = format!(
        "auth.kubernetes {{\n role = \"r\"\n service_account_file = {:?}\n mount_path = \"k8s\"\n }}",
        file.display().to_string()
    );
    Running::start(&block(&kubernetes)).await.unwrap();
    assert_eq!(server.asked("auth/k8s")[0].body, json!({ "role": "r", "jwt": "jwt-of-the-pod" }));
    let custom =
        "auth.custom {\n path = \"auth/own/login\"\n data = { \"a\" = \"b\" }\n namespace = \"admin\"\n }";
    Running::start(&block(custom)).await.unwrap();
    let asked = &server.asked("auth/own")[0];
    assert_eq!((asked.namespace.as_str(), &asked.body), ("admin", &json!({ "a": "b" })));
}

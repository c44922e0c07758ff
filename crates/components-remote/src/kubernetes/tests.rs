//! The components in a running engine, against a small server that speaks as an API server does. The real one is in
//! the suite `kubernetes`.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use invar_secrets::kubernetes::{ClusterSettings, ObjectKind, ObjectName};
use invar_syntax::arguments::Arguments as _;
use parking_lot::Mutex;

use super::arguments::{KubernetesArguments, ServerClientArguments};
use crate::running::Running;

/// What `GET` of a path answers: status and body. Watches are forbidden unless they are in here.
type Objects = Arc<Mutex<BTreeMap<String, (u16, String)>>>;

struct Server {
    objects: Objects,
    /// Paths and `Authorization` headers, in order.
    seen: Arc<Mutex<Vec<(String, String)>>>,
    url: String,
}

impl Server {
    async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let objects = Objects::default();
        let seen: Arc<Mutex<Vec<(String, String)>>> = Arc::default();
        let (served, noted) = (Arc::clone(&objects), Arc::clone(&seen));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (served, noted) = (Arc::clone(&served), Arc::clone(&noted));
                let service = service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
                    let path = request.uri().path_and_query().unwrap().to_string();
                    let authorization = request.headers().get("authorization");
                    let authorization =
                        authorization.map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default();
                    noted.lock().push((path.clone(), authorization));
                    let forbidden = if path.contains("watch=true") { 403 } else { 404 };
                    let refusal = || {
                        (forbidden, format!(r#"{{"kind":"Status","message":"refused","code":{forbidden}}}"#))
                    };
                    let (status, body) = served.lock().get(&path).cloned().unwrap_or_else(refusal);
                    let response =
                        hyper::Response::builder().status(status).body(Full::new(Bytes::from(body)));
                    async move { response }
                });
                tokio::spawn(async move {
                    let builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                    drop(builder.serve_connection(TokioIo::new(stream), service).await);
                });
            }
        });
        Self { objects, seen, url }
    }

    fn put(&self, path: &str, status: u16, body: &str) {
        self.objects.lock().insert(path.to_owned(), (status, body.to_owned()));
    }
}

const MAP: &str = "/api/v1/namespaces/team-a/configmaps/settings";
const SECRET: &str = "/api/v1/namespaces/team-a/secrets/login";

fn map(value: &str) -> String {
    format!(r#"{{"kind":"ConfigMap","data":{{"color":"{value}"}}}}"#)
}

fn block(kind: &str, name: &str, more: &str) -> String {
    format!("remote.kubernetes.{kind} \"x\" {{\n  namespace = \"team-a\"\n  name = {name:?}\n  {more}\n}}\n")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_data_follows_the_object_and_stays_when_it_cannot_be_read() {
    let id = "remote.kubernetes.configmap.x";
    let server = Server::start().await;
    server.put(MAP, 200, &map("red"));
    let text = |poll: &str| {
        let client = format!("client {{ api_server = {:?} }}", server.url);
        block("configmap", "settings", &format!("poll_frequency = {poll:?}\n  {client}"))
    };
    let running = Running::start(&text("500ms")).await.unwrap();
    assert!(running.shown(id).0.contains("red"));
    running.until(id, |_, health| health.starts_with("healthy") && health.contains("only polled for")).await;
    server.put(MAP, 200, &map("blue"));
    running.until(id, |exports, _| exports.contains("blue")).await;
    for (status, body, part) in [
        (404, r#"{"kind":"Status","message":"gone"}"#, "does not exist"),
        (403, r#"{"kind":"Status","message":"no"}"#, "a Role in namespace team-a"),
        (500, "", "answers 500"),
        (200, "<html>", "not a ConfigMap"),
    ] {
        server.put(MAP, status, body);
        running.until(id, |_, health| health.starts_with("unhealthy") && health.contains(part)).await;
        assert!(running.shown(id).0.contains("blue"), "{:?}", running.shown(id));
    }
    // While it cannot be read, other arguments may change, but not the object.
    running.apply(&text("600ms")).await.unwrap();
    assert!(running.shown(id).0.contains("blue"));
    let other = text("500ms").replace("settings", "others");
    assert!(running.apply(&other).await.unwrap_err().contains("team-a/others"));
    server.put(MAP, 200, &map("green"));
    running.until(id, |exports, health| exports.contains("green") && health.starts_with("healthy")).await;
    running.engine.shutdown(Duration::from_secs(5)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_secret_is_exported_as_one_below_a_path_and_with_credentials() {
    let id = "remote.kubernetes.secret.x";
    let server = Server::start().await;
    server.put(
        &format!("/clusters/c-1{SECRET}"),
        200,
        r#"{"kind":"Secret","data":{"password":"aHVudGVyMg==","keystore":"/v8="}}"#,
    );
    let client = format!(
        "client {{\n    api_server = \"{}/clusters/c-1/\"\n    bearer_token = \"the-token\"\n  }}",
        server.url
    );
    let running = Running::start(&block("secret", "login", &client)).await.unwrap();
    let (exports, _) = running.shown(id);
    assert!(
        exports.contains("password") && exports.contains("(secret)") && !exports.contains("hunter2"),
        "{exports}"
    );
    running.until(id, |_, health| health.contains("left out, as they are not text: keystore")).await;
    let seen = server.seen.lock().clone();
    assert!(seen.iter().all(|(_, authorization)| authorization == "Bearer the-token"), "{seen:?}");
    let watch = |(path, _): &(String, String)| {
        path.starts_with("/clusters/c-1/api/v1/namespaces/team-a/secrets?watch=true")
    };
    assert!(seen.iter().any(watch), "{seen:?}");
    running.engine.shutdown(Duration::from_secs(5)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_work_refuses_the_configuration() {
    let server = Server::start().await;
    server.put(MAP, 200, "{\"kind\":\"ConfigMap\"}");
    let with = |more: &str| format!("client {{\n    api_server = {:?}\n    {more}\n  }}", server.url);
    for (text, part) in [
        (block("secret", "login", &with("")), "Secret team-a/login"),
        (block("secret", "Login", &with("")), "lower case"),
        (block("secret", "../x", &with("")), "lower case"),
        (
            block("configmap", "settings", &format!("poll_frequency = \"0s\"\n  {}", with(""))),
            "greater than 0",
        ),
        (block("configmap", "settings", &format!("poll_timeout = \"0s\"\n  {}", with(""))), "greater than 0"),
        (
            block("configmap", "settings", &with("kubeconfig_file = \"/nowhere\"")),
            "at most one of api_server",
        ),
        (
            block(
                "configmap",
                "settings",
                "client {\n    kubeconfig_file = \"/nowhere\"\n    bearer_token = \"t\"\n  }",
            ),
            "no other argument",
        ),
        (block("configmap", "settings", "client {\n    bearer_token = \"t\"\n  }"), "api_server must be set"),
        (
            block("configmap", "settings", "client {\n    api_server = \"kube:6443\"\n  }"),
            "only http and https",
        ),
        (block("configmap", "settings", "client {\n    kubeconfig_file = \"/nowhere\"\n  }"), "/nowhere"),
        (block("configmap", "settings", &with("tls_config {\n ca_file = \"/nowhere\"\n }")), "/nowhere"),
        (block("configmap", "settings", ""), "does not run in a pod"),
    ] {
        let error = Running::start(&text).await.err().unwrap_or_else(|| panic!("{text}"));
        assert!(error.contains(part), "{text}: {error}");
    }
    // An object without data is no failure.
    let running = Running::start(&block("configmap", "settings", &with(""))).await.unwrap();
    let healthy = |exports: &str, health: &str| exports.contains("data") && health.starts_with("healthy");
    running.until("remote.kubernetes.configmap.x", healthy).await;
    running.engine.shutdown(Duration::from_secs(5)).await;
}

#[tokio::test]
async fn a_cluster_outside_of_the_ceiling_is_not_connected_to_and_a_file_not_read() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config");
    std::fs::write(
        &file,
        "apiVersion: v1\nkind: Config\ncurrent-context: c\ncontexts: [{name: c, context: {cluster: k, user: u}}]\n\
         clusters: [{name: k, cluster: {server: 'https://127.0.0.1:1'}}]\nusers: [{name: u, user: {token: hunter2}}]\n",
    )
    .unwrap();
    let read = async |settings: invar_policy::PolicySettings| {
        let policy = invar_policy::Policy::new(&settings, &[]).unwrap();
        let kubeconfig = ClusterSettings::Kubeconfig { file: file.clone(), context: None };
        let api = super::cluster(kubeconfig, policy.general());
        let name = ObjectName::new("team-a", "login").unwrap();
        api.read(ObjectKind::Secret, &name, Duration::from_secs(5)).await.unwrap_err().to_string()
    };
    let nowhere = invar_policy::PolicySettings { egress: Some(Vec::new()), ..Default::default() };
    assert!(read(nowhere).await.contains("egress"));
    let elsewhere =
        invar_policy::PolicySettings { file_roots: Some(vec!["/elsewhere".into()]), ..Default::default() };
    assert!(read(elsewhere).await.contains("file_roots"));
    let here =
        invar_policy::PolicySettings { egress: Some(vec!["127.0.0.1".to_owned()]), ..Default::default() };
    assert!(read(here).await.contains("refused"), "the connection, not the agent");
}

#[test]
fn the_switches_of_a_block_are_on_although_they_are_declared_off() {
    let fields = KubernetesArguments::schema().fields;
    let client = fields.iter().find(|field| field.name == "client").unwrap();
    for name in ["follow_redirects", "enable_http2"] {
        let field = client.fields.iter().find(|field| field.name == name).unwrap();
        assert!(matches!(field.default, Some(invar_syntax::Value::Bool(false))), "{name}");
    }
    let defaults = ServerClientArguments::defaults().0;
    assert!(defaults.follow_redirects && defaults.enable_http2);
}

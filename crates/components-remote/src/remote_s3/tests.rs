//! `remote.s3` in a running engine, against a real server, with a proxy before it for what that cannot be made to do.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;

use self::server::{ACCESS_KEY, Asked, FaultProxy, Instead, SECRET_KEY, Versitygw};
use super::*;
use crate::running::Running;

#[path = "../../../../integration/servers/versitygw/server.rs"]
#[allow(dead_code, unreachable_pub, missing_docs)]
mod server;
#[path = "../../../../integration/servers/versitygw/writer.rs"]
#[allow(unreachable_pub)]
mod writer;

/// The component that is looked at.
const NODE: &str = "remote.s3.x";

/// A server with a bucket `bucket`, and a proxy before it.
struct Store {
    _folder: TempDir,
    proxy: FaultProxy,
    client: aws_sdk_s3::Client,
    _server: Versitygw,
}

impl Store {
    async fn start() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().to_owned();
        let server = tokio::task::spawn_blocking(move || Versitygw::start(&path, None)).await.unwrap()?;
        let proxy = FaultProxy::start(server.address()).unwrap();
        let client = writer::writer(&format!("http://{}", server.address()), ACCESS_KEY, SECRET_KEY);
        client.create_bucket().bucket("bucket").send().await.unwrap();
        Some(Self { _folder: folder, proxy, client, _server: server })
    }

    async fn put(&self, content: &str) {
        let body = content.as_bytes().to_vec().into();
        self.client.put_object().bucket("bucket").key("key").body(body).send().await.unwrap();
    }

    fn block(&self, more: &str, key: &str) -> String {
        format!(
            "remote.s3 \"x\" {{\n  path = \"s3://bucket/{key}\"\n  {more}\n  client {{\n    key = \"{ACCESS_KEY}\"\n    \
             secret = \"{SECRET_KEY}\"\n    endpoint = \"{}\"\n    use_path_style = true\n    region = \"us-east-1\"\n  }}\n}}\n",
            self.proxy.url()
        )
    }
}

/// Lets the next poll that is due within `time` happen; gives what it asked. Only timers are moved, not the network: not
/// again before it is clear that nothing was due yet.
async fn next_poll(store: &Store, time: Duration) -> Vec<Asked> {
    let end = std::time::Instant::now() + Duration::from_secs(20);
    store.proxy.take();
    loop {
        tokio::time::pause();
        tokio::time::advance(time).await;
        tokio::time::resume();
        for _ in 0..50 {
            let asked = store.proxy.take();
            if !asked.is_empty() {
                return asked;
            }
            assert!(std::time::Instant::now() < end, "nothing was asked");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

#[tokio::test]
async fn the_content_follows_the_object_and_stays_when_it_goes() {
    let Some(store) = Store::start().await else { return };
    store.put(" first\n").await;
    let running = Running::start(&store.block("poll_frequency = \"31s\"", "key")).await.unwrap();
    assert!(running.shown(NODE).0.contains(" first"), "nothing is trimmed: {:?}", running.shown(NODE));
    running.until(NODE, |_, health| health.starts_with("healthy")).await;
    let asked = next_poll(&store, Duration::from_secs(32)).await;
    assert!(!asked[0].header("if-none-match").is_empty(), "an unchanged object is not sent again");
    store.put("second").await;
    next_poll(&store, Duration::from_secs(32)).await;
    running.until(NODE, |exports, health| exports.contains("second") && health.starts_with("healthy")).await;
    store.proxy.script(|_| Some(Instead::error(503, "SlowDown")));
    next_poll(&store, Duration::from_secs(32)).await;
    running
        .until(NODE, |exports, health| exports.contains("second") && health.starts_with("unhealthy"))
        .await;
    // While the store is down other arguments may change.
    running.apply(&store.block("poll_frequency = \"1h\"", "key")).await.unwrap();
    assert!(running.shown(NODE).0.contains("second"));
    running.engine.shutdown(Duration::from_secs(5)).await;
}

#[tokio::test]
async fn a_first_failure_is_an_error_and_never_empty_content() {
    let Some(store) = Store::start().await else { return };
    let error = Running::start(&store.block("", "key")).await.err().unwrap();
    assert!(error.contains("s3://bucket/key") && error.contains("no such object"), "{error}");
    store.put("content").await;
    store.proxy.script(|_| Some(Instead::error(403, "AccessDenied")));
    let error = Running::start(&store.block("", "key")).await.err().unwrap();
    assert!(error.contains("or it is not there"), "{error}");
    store.proxy.script(|_| Some(Instead::error(304, "")));
    assert!(Running::start(&store.block("", "key")).await.is_err(), "a 304 that was not asked for");
    assert!(!error.contains(SECRET_KEY));
    // Nor is what another object held.
    store.proxy.behave();
    let running = Running::start(&store.block("", "key")).await.unwrap();
    let error = running.apply(&store.block("", "other")).await.unwrap_err();
    assert!(error.contains("other"), "{error}");
    running.engine.shutdown(Duration::from_secs(5)).await;
}

#[tokio::test]
async fn a_secret_content_is_one() {
    let Some(store) = Store::start().await else { return };
    store.put("hunter2-content").await;
    let running = Running::start(&store.block("is_secret = true", "key")).await.unwrap();
    assert!(running.shown(NODE).0.contains("(secret)"), "{:?}", running.shown(NODE));
    let status = running.engine.component(NODE).unwrap();
    assert!(!format!("{status:?}").contains("hunter2"));
    running.engine.shutdown(Duration::from_secs(5)).await;
}

#[tokio::test]
async fn errors_and_accesses_are_counted_under_alloys_names_while_the_component_lives() {
    let Some(store) = Store::start().await else { return };
    store.put("content").await;
    let registry = prometheus::Registry::new();
    let services = invar_engine::Services::default();
    services.insert(Arc::new(registry.clone()));
    let metrics = Metrics::of(&services);
    let arguments = RemoteS3Arguments {
        path: "s3://bucket/key".to_owned(),
        poll_frequency: Duration::from_secs(600),
        is_secret: false,
        client: RemoteS3Client {
            key: ACCESS_KEY.to_owned(),
            secret: Secret::new(SECRET_KEY),
            endpoint: store.proxy.url(),
            disable_ssl: false,
            use_path_style: true,
            region: "us-east-1".to_owned(),
            signing_region: "us-east-1".to_owned(),
        },
    };
    let reader = Reader::new(&arguments, &invar_policy::Access::unrestricted()).await.unwrap();
    assert!(!format!("{reader:?} {arguments:?}").contains(SECRET_KEY));
    let place = Place { path: arguments.path.clone(), endpoint: String::new(), region: String::new() };
    let node = invar_engine::NodeId::new("remote.s3.x");
    let instance = Instance { last: Mutex::default(), metrics: metrics.of_component(&node) };
    instance.read(&reader, &place).await.unwrap();
    store.proxy.script(|_| Some(Instead::error(503, "SlowDown")));
    instance.read(&reader, &place).await.unwrap_err();
    let shown = || {
        let families = registry.gather();
        families
            .iter()
            .map(|family| (family.name().to_owned(), family.get_metric().len()))
            .collect::<Vec<_>>()
    };
    assert_eq!(
        shown(),
        [
            ("remote_s3_errors_total".to_owned(), 1),
            ("remote_s3_timestamp_last_accessed_unix_seconds".to_owned(), 1)
        ]
    );
    drop(instance);
    assert!(shown().iter().all(|(_, series)| *series == 0), "{:?}", shown());
}

#[test]
fn what_alloy_refuses_is_refused() {
    for (path, good) in [
        ("s3://bucket/key", true),
        ("s3://bucket/a/b", true),
        ("s3://bucket/", false),
        ("s3://bucket", false),
        ("s3:///key", false),
        ("s3://bucket/folder/", false),
        ("https://bucket/key", false),
    ] {
        assert_eq!(split(path).is_ok(), good, "{path}");
    }
}

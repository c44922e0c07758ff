//! `remote.http` in a running engine, against a server that answers as it is told.

#![allow(clippy::unwrap_used)]

#[path = "../../../../integration/servers/http/scripted.rs"]
#[allow(dead_code, unreachable_pub)]
mod scripted;

use std::time::Duration;

use scripted::{Reply, Scripted};

use crate::running::Running;

/// The component that is looked at.
const NODE: &str = "remote.http.x";

/// Asks five times a second.
fn block(server: &Scripted, more: &str) -> String {
    let url = server.url("/content?token=hunter2");
    format!(
        "remote.http \"x\" {{\n  url = \"{url}\"\n  poll_frequency = \"200ms\"\n  poll_timeout = \"150ms\"\n  {more}\n}}\n"
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_content_follows_the_answer_and_outlives_its_failures() {
    let server = Scripted::start(|_| Reply::ok(" first\n").with("etag", "\"one\""));
    let running = Running::start(&block(&server, "")).await.unwrap();
    assert!(
        running.shown(NODE).0.contains("\\\"first\\\""),
        "trimmed, as Alloy does: {:?}",
        running.shown(NODE)
    );
    running.until(NODE, |_, health| health.starts_with("healthy")).await;
    server.set(|_| Reply::status(304));
    running
        .until(NODE, |_, _| {
            server.take_log().iter().any(|request| request.header("if-none-match") == Some("\"one\""))
        })
        .await;
    assert!(running.shown(NODE).1.starts_with("healthy"));
    for reply in [
        Reply::status as fn(u16) -> Reply,
        |_| Reply::status(204),
        |_| Reply::ok(" \n"),
        |_| Reply::ok("<html>").with("content-type", "text/html"),
        |_| Reply::close(),
        |_| Reply::ok(b"\xff".to_vec()),
    ] {
        server.set(move |_| reply(500));
        running
            .until(NODE, |exports, health| exports.contains("first") && health.starts_with("unhealthy"))
            .await;
        assert!(!running.shown(NODE).1.contains("hunter2"), "{:?}", running.shown(NODE));
        server.set(|_| Reply::ok("first"));
        running.until(NODE, |_, health| health.starts_with("healthy")).await;
    }
    // While it fails, what is asked for stays the same and other arguments may change.
    server.set(|_| Reply::status(500));
    running.apply(&block(&server, "is_secret = true")).await.unwrap();
    let (exports, _) = running.shown(NODE);
    assert!(exports.contains("(secret)") && !exports.contains("first"), "{exports}");
    server.set(|_| Reply::ok("second"));
    running.until(NODE, |_, health| health.starts_with("healthy")).await;
    running.apply(&block(&server, "")).await.unwrap();
    assert!(running.shown(NODE).0.contains("second"));
    running.engine.shutdown(Duration::from_secs(5)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_first_failure_is_an_error_and_never_an_empty_content() {
    for (reply, part) in [
        (Reply::status as fn(u16) -> Reply, "(500)"),
        (|_| Reply::status(404), "(404)"),
        (|_| Reply::status(204), "204"),
        (|_| Reply::ok(""), "nothing"),
        (|_| Reply::ok("x").with("content-type", "text/html; charset=utf-8"), "a web page"),
        (|_| Reply::hang(), "timed out"),
        (|_| Reply::close(), "connection"),
    ] {
        let server = Scripted::start(move |_| reply(500));
        let error = Running::start(&block(&server, "")).await.err().unwrap();
        assert!(error.contains(part), "{error}");
        assert!(!error.contains("hunter2"), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_request_is_as_the_arguments_say() {
    let server = Scripted::start(|_| Reply::ok("content"));
    let more = "method = \"post\"\n  body = \"question\"\n  headers = { \"x-team\" = \"net\" }\n  \
                client { bearer_token = \"token\" }";
    let running = Running::start(&block(&server, more)).await.unwrap();
    let request = server.take_log().remove(0);
    assert_eq!((request.method.as_str(), request.body.as_slice()), ("POST", &b"question"[..]));
    assert_eq!(request.header("x-team"), Some("net"));
    assert_eq!(request.header("authorization"), Some("Bearer token"));
    assert_eq!(request.target, "/content?token=hunter2");
    running.engine.shutdown(Duration::from_secs(5)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn arguments_that_cannot_work_are_refused() {
    let refused = |arguments: &str| format!("remote.http \"x\" {{\n {arguments}\n}}\n");
    for (arguments, part) in [
        ("url = \"ftp://host/x\"", "http://"),
        ("url = \"http://127.0.0.1:1/x\"\n poll_frequency = \"0s\"", "greater than 0"),
        ("url = \"http://127.0.0.1:1/x\"\n poll_timeout = \"0s\"", "greater than 0"),
        ("url = \"http://127.0.0.1:1/x\"\n poll_timeout = \"2m\"", "less than poll_frequency"),
        ("url = \"http://127.0.0.1:1/x\"\n method = \"a b\"", "not a method"),
        ("url = \"http://127.0.0.1:1/x\"\n headers = { \"a b\" = \"c\" }", "cannot be sent"),
    ] {
        let error = Running::start(&refused(arguments)).await.err().unwrap();
        assert!(error.contains(part), "{arguments}: {error}");
    }
}

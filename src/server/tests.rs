#![allow(clippy::unwrap_used)]

use std::net::SocketAddr;

use axum::http::StatusCode;
use invar_syntax::Secret;
use tokio_util::sync::DropGuard;

use super::*;

/// Serves an agent that has not come up, behind a gate that asks for credentials everywhere.
async fn guarded() -> (SocketAddr, DropGuard) {
    let server = Server::bind("127.0.0.1:0").await.unwrap();
    let (address, stop) = (server.address(), CancellationToken::new());
    let credentials =
        Credentials { username: "ana".to_owned(), password: Secret::new("pass").into(), paths: Paths::All };
    server.face().gate().set(Some(Arc::new(credentials)));
    tokio::spawn(server.serve(stop.clone()));
    (address, stop.drop_guard())
}

#[tokio::test]
async fn a_webhook_needs_no_credentials_of_the_api_and_nothing_else_goes_without() {
    crate::tls::install_provider();
    let (address, _stop) = guarded().await;
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let webhook = http.post(format!("http://{address}/api/v1/webhooks/git")).send().await.unwrap();
    assert_eq!(
        webhook.status(),
        StatusCode::SERVICE_UNAVAILABLE,
        "past the gate, where an agent is starting"
    );
    for path in [
        "/",
        "/metrics",
        "/-/ready",
        "/-/reload",
        "/api/v1/status",
        "/api/v1/reconcile",
        "/api/v1/hold",
        "/api/v1/secrets",
        "/api/v1/secrets/vault%2Fkv%2Fx/rotate",
        "/api/v1/secrets/vault/test",
        "/api/v1/webhooks",
        "/api/v1/webhooks/",
        "/api/v1/webhooks/git/",
        "/api/v1/webhooks/git/more",
        "/api/v1/webhooks/..%2fstatus/more",
        "/api/v1/webhooksgit",
        "//api/v1/webhooks/git",
        "/api/v1//webhooks/git",
        "/API/v1/webhooks/git",
    ] {
        // As it is: a client would tidy the path up.
        let answer = raw(address, "POST", path).await;
        assert!(answer.starts_with("HTTP/1.1 401"), "{path}: {answer}");
        let answer = raw(address, "GET", path).await;
        assert!(answer.starts_with("HTTP/1.1 401"), "{path}: {answer}");
    }
    let answer = raw(address, "POST", "/api/v1/webhooks/../status").await;
    assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
    assert!(raw(address, "GET", "/api/v1/webhooks/git").await.starts_with("HTTP/1.1 405"));
}

async fn raw(address: SocketAddr, method: &str, path: &str) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let request =
        format!("{method} {path} HTTP/1.1\r\nhost: invar\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

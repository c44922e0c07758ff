//! What becomes of a credential of a store that a server does not accept.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use http::StatusCode;
use invar_secrets::{BoxFuture, Secret, SecretError, SecretSnapshot, SecretStore, SecretStores, StoreKind};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::time::Instant;
use url::Url;

use super::Connection;
use crate::SourceEnvironment;
use crate::error::ErrorClass;
use crate::settings::SourceSettings;

/// A store whose only secret is what a test says it is.
struct Kept {
    token: Mutex<&'static str>,
    reads: AtomicUsize,
}

impl SecretStore for Kept {
    fn kind(&self) -> StoreKind {
        StoreKind::Vault
    }

    fn read<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<SecretSnapshot, SecretError>> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        let token = Secret::new(*self.token.lock());
        Box::pin(async move { Ok(SecretSnapshot::single(token)) })
    }

    fn refresh_interval(&self) -> Option<Duration> {
        Some(Duration::from_secs(300))
    }
}

/// A server that lets in who has the newer token, and forbids everything else by `status`.
async fn server(status: u16) -> Url {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/repository", listener.local_addr().unwrap()).parse().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut bytes = [0; 4096];
            let length = stream.read(&mut bytes).await.unwrap();
            let request = String::from_utf8_lossy(&bytes[..length]).into_owned();
            // `x-access-token:second`, in base64.
            let known = request.contains("Basic eC1hY2Nlc3MtdG9rZW46c2Vjb25k");
            let status = if known { 200 } else { status };
            let answer = format!("HTTP/1.1 {status} X\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    url
}

async fn is_read_again_after(status: u16, class: ErrorClass) {
    let kept = Arc::new(Kept { token: Mutex::new("first"), reads: AtomicUsize::new(0) });
    let dynamic: Arc<dyn SecretStore> = kept.clone();
    let secrets = SecretStores::new(BTreeMap::from([("vault".to_owned(), dynamic)]));
    let environment = SourceEnvironment { state_directory: "/nowhere".into(), secrets: secrets.clone() };
    let settings: SourceSettings =
        toml::from_str("auth = { token = { secret = 'vault/kv/git#value' } }").unwrap();
    let connection = Connection::new(server(status).await, &settings, "test", &environment).unwrap();
    let ask = async || {
        let client = connection.client().await.unwrap();
        let url = connection.url().clone();
        let deadline = Instant::now() + Duration::from_secs(3600);
        connection.send(client.get(url.clone()), &url, deadline).await.unwrap()
    };
    assert_eq!(ask().await.status().as_u16(), status);
    assert_eq!(kept.reads.load(Ordering::SeqCst), 1);
    // At most every ten seconds.
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(11)).await;
    tokio::time::resume();
    *kept.token.lock() = "second";
    let mut changes = secrets.changes();
    let response = ask().await;
    assert_eq!(connection.refused(&response, SystemTime::now()).class, class);
    tokio::time::timeout(Duration::from_secs(60), changes.changed()).await.unwrap().unwrap();
    assert_eq!(kept.reads.load(Ordering::SeqCst), 2);
    assert_eq!(ask().await.status(), StatusCode::OK);
    secrets.shutdown().await;
}

#[tokio::test]
async fn a_token_that_is_not_accepted_is_read_again_before_the_next_refresh() {
    is_read_again_after(401, ErrorClass::AuthExpired).await;
}

#[tokio::test]
async fn a_token_that_may_not_read_is_read_again_before_the_next_refresh() {
    is_read_again_after(403, ErrorClass::Forbidden).await;
}

//! Whole examinations, over servers of this test.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;

fn examiner(scratch: &std::path::Path) -> Examiner {
    Examiner {
        secrets: SecretStores::local(),
        scratch: scratch.to_path_buf(),
        environment: "dev".to_owned(),
        offline: false,
        limit: Duration::from_secs(20),
    }
}

async fn examine(text: &str) -> Examination {
    let mut sources: Vec<SourceSettings> = vec![toml::from_str(text).unwrap()];
    crate::normalize(&mut sources).unwrap();
    let scratch = tempfile::tempdir().unwrap();
    examiner(scratch.path()).examine(&sources[0]).await
}

fn checks(examination: &Examination) -> Vec<(&'static str, Severity)> {
    examination.findings.iter().map(|finding| (finding.check, finding.severity)).collect()
}

#[tokio::test]
async fn a_file_source_is_read_and_needs_no_network() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a.alloy"), "logging { }\n").unwrap();
    let text = format!("file = {{ path = '{}' }}", folder.path().display());
    assert_eq!(checks(&examine(&text).await), [("content", Severity::Ok)]);
    let absent = examine("file = { path = '/nonexistent/invar' }").await;
    assert_eq!(checks(&absent), [("reference", Severity::Problem)], "{absent:?}");
}

#[tokio::test]
async fn a_closed_port_ends_the_examination() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let found = examine(&format!("git = {{ url = 'http://127.0.0.1:{port}/x' }}")).await;
    assert_eq!(checks(&found), [("verify", Severity::Hint), ("connect", Severity::Problem)]);
}

#[tokio::test]
async fn the_clock_of_a_server_is_compared_with_this_ones() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let serving = tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = [0; 1024];
            let count = stream.read(&mut head).await.unwrap();
            assert!(!String::from_utf8_lossy(&head[..count]).to_ascii_lowercase().contains("authorization"));
            let answer = "HTTP/1.1 404 Not Found\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    let found = examine(&format!("git = {{ url = 'http://127.0.0.1:{port}/x' }}")).await;
    serving.abort();
    let (host, offset) = found.clock.clone().unwrap();
    assert_eq!(host, "127.0.0.1");
    assert!(offset < -1_000_000_000, "{offset} ms since 1994");
    let last = found.findings.last().unwrap();
    assert_eq!((last.check, last.severity), ("reference", Severity::Problem), "{found:?}");
}

#[tokio::test]
async fn what_is_no_tls_and_no_ssh_is_said_to_be_none() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let serving = tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n").await.unwrap();
        }
    });
    let tls = examine(&format!("git = {{ url = 'https://127.0.0.1:{port}/x' }}")).await;
    assert!(tls.findings.last().unwrap().what.contains("does not speak TLS"), "{tls:?}");
    let ssh = examine(&format!("git = {{ url = 'ssh://git@127.0.0.1:{port}/x' }}")).await;
    assert!(ssh.findings.last().unwrap().what.contains("like an SSH server"), "{ssh:?}");
    serving.abort();
}

#[tokio::test]
async fn a_server_that_never_answers_is_not_waited_for_longer_than_allowed() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let scratch = tempfile::tempdir().unwrap();
    let mut sources: Vec<SourceSettings> =
        vec![toml::from_str(&format!("git = {{ url = 'http://127.0.0.1:{port}/x' }}")).unwrap()];
    crate::normalize(&mut sources).unwrap();
    let hasty = Examiner { limit: Duration::from_millis(300), ..examiner(scratch.path()) };
    let found = hasty.examine(&sources[0]).await;
    drop(listener);
    assert_eq!(found.findings.last().unwrap().severity, Severity::Problem, "{found:?}");
    assert_eq!(found.findings.last().unwrap().check, "connection", "{found:?}");
}

#[tokio::test]
async fn offline_nothing_is_asked() {
    let scratch = tempfile::tempdir().unwrap();
    let mut sources: Vec<SourceSettings> = vec![
        toml::from_str(
            "git = { url = 'https://git.invalid/x' }\nauth = { token = { env = 'INVAR_NO_SUCH' } }",
        )
        .unwrap(),
    ];
    crate::normalize(&mut sources).unwrap();
    let offline = Examiner { offline: true, ..examiner(scratch.path()) };
    let found = offline.examine(&sources[0]).await;
    assert_eq!(checks(&found), [("verify", Severity::Hint), ("credential", Severity::Problem)]);
}

//! The connection itself, against a server on loopback that speaks HTTP as a test says.
use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};

use url::Url;

use super::*;

pub(super) struct Heard {
    pub(super) line: String,
    headers: HashMap<String, String>,
    pub(super) body: String,
}

/// Answers each request, on a connection of its own, by a function; ends with the test's process.
pub(super) fn serve(answer: impl Fn(&Heard) -> String + Send + 'static) -> Url {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = Url::parse(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let Some(heard) = hear(&stream) else { continue };
            drop(stream.write_all(answer(&heard).as_bytes()));
        }
    });
    url
}

fn hear(stream: &TcpStream) -> Option<Heard> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut headers = HashMap::new();
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok()?;
        let Some((name, value)) = header.trim_end().split_once(": ") else { break };
        headers.insert(name.to_ascii_lowercase(), value.to_owned());
    }
    let length = headers.get("content-length").map_or(0, |length| length.parse().unwrap());
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(Heard { line: line.trim_end().to_owned(), headers, body: String::from_utf8(body).unwrap() })
}

pub(super) fn response(status: &str, headers: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\n{headers}connection: close\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

fn transport(url: Url) -> HttpTransport {
    HttpTransport::with(url, &crate::TlsSettings::default(), None)
}

fn request(path: &str) -> VaultRequest {
    VaultRequest { timeout: Duration::from_secs(10), ..VaultRequest::get(path) }
}

#[tokio::test]
async fn headers_paths_and_bodies_are_sent_and_read() {
    let url = serve(|heard| {
        assert_eq!(heard.line, "POST /below/v1/kv/data/a%20b%3Fc/d?version=3 HTTP/1.1");
        assert_eq!(heard.headers["x-vault-token"], "t");
        assert_eq!(heard.headers["x-vault-namespace"], "obs/team");
        assert_eq!(heard.headers["x-vault-index"], "i");
        assert_eq!(heard.headers["x-vault-request"], "true");
        assert_eq!(heard.headers["content-type"], "application/json");
        assert_eq!(heard.body, r#"{"a":1}"#);
        response("429 Limited", "retry-after: 7\r\nx-vault-index: j\r\n", "{}")
    });
    let transport = transport(url.join("/below/").unwrap());
    let asked = VaultRequest {
        query: vec![("version".to_owned(), "3".to_owned())],
        namespace: "obs/team".to_owned(),
        token: Some(crate::Secret::new("t")),
        index: Some("i".to_owned()),
        ..VaultRequest::post("kv/data/a b?c/d", Zeroizing::new(br#"{"a":1}"#.to_vec()))
    };
    let answer = transport.send(&asked).await.unwrap();
    assert_eq!(
        (answer.status, answer.retry_after, answer.index.as_deref()),
        (429, Some(Duration::from_secs(7)), Some("j"))
    );
    assert_eq!(answer.body.as_slice(), b"{}");
    assert!(!format!("{asked:?} {answer:?} {transport:?}").contains("Secret"));
}

#[tokio::test]
async fn a_standby_sends_to_the_active_node_once() {
    let active = serve(|heard| {
        assert_eq!(heard.headers["x-vault-token"], "t");
        match heard.line.contains("loop") {
            true => response("307 Elsewhere", "location: /v1/loop\r\n", ""),
            false => response("200 OK", "", r#"{"data":{}}"#),
        }
    });
    let standby = serve(move |heard| {
        let path = heard.line.split(' ').nth(1).unwrap();
        response("307 Elsewhere", &format!("location: {}\r\n", active.join(path).unwrap()), "")
    });
    let transport = transport(standby);
    let token = Some(crate::Secret::new("t"));
    assert_eq!(
        transport.send(&VaultRequest { token: token.clone(), ..request("kv/a") }).await.unwrap().status,
        200
    );
    assert_eq!(transport.send(&VaultRequest { token, ..request("loop") }).await.unwrap().status, 307);
}

#[tokio::test]
async fn an_endless_answer_and_none_at_all_are_errors() {
    let url = serve(|heard| match heard.line.contains("long") {
        true => "HTTP/1.1 200 OK\r\ncontent-length: 99999999\r\n\r\n".to_owned(),
        false => String::new(),
    });
    let transport = transport(url);
    assert!(transport.send(&request("long")).await.unwrap_err().to_string().contains("longer than 8 MiB"));
    assert!(matches!(transport.send(&request("nothing")).await, Err(VaultTransportError::Connection(_))));
    let unreachable = self::transport(Url::parse("http://127.0.0.1:1").unwrap());
    let error = unreachable.send(&request("kv/a")).await.unwrap_err();
    assert!(matches!(error, VaultTransportError::Connection(_)), "{error:?}");
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = self::transport(Url::parse(&format!("http://{}", silent.local_addr().unwrap())).unwrap());
    let asked = VaultRequest { timeout: Duration::from_millis(200), ..request("kv/a") };
    assert!(silent.send(&asked).await.unwrap_err().to_string().contains("no answer within 0.2 s"));
}

#[tokio::test]
async fn whoever_is_asked_may_forbid_the_address_and_where_it_sends_to() {
    let url = serve(|_| response("307 Elsewhere", "location: http://192.0.2.1/v1/kv/a\r\n", ""));
    let own = url.clone();
    let transport = transport(url).asking(move |url| match url.host_str() == own.host_str() {
        true => Ok(()),
        false => Err(format!("{} is not allowed", url.host_str().unwrap_or_default())),
    });
    let error = transport.send(&request("kv/a")).await.unwrap_err();
    assert_eq!(error, VaultTransportError::Settings("192.0.2.1 is not allowed".to_owned()));
}

#[tokio::test]
async fn a_token_that_no_header_can_carry_is_refused_without_showing_it() {
    let transport = transport(Url::parse("http://127.0.0.1:1").unwrap());
    let asked = VaultRequest { token: Some(crate::Secret::new("marker\ntoken")), ..request("kv/a") };
    let error = transport.send(&asked).await.unwrap_err().to_string();
    assert!(error.contains("header cannot carry") && !error.contains("marker"), "{error}");
}

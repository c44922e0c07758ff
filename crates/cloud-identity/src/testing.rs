//! What the tests of this room share: an endpoint on loopback that answers as a test says and keeps what it was asked, and
//! surroundings with an environment and a time of their own.
#![allow(clippy::unwrap_used)]

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::Surroundings;

/// What was asked.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    /// Method and target.
    pub(crate) line: String,
    pub(crate) headers: HashMap<String, String>,
    pub(crate) body: String,
}

/// Status and body.
type Answer = Box<dyn Fn(&Asked) -> (u16, String) + Send + Sync>;

/// An endpoint.
pub(crate) struct Endpoint {
    pub(crate) url: String,
    asked: Arc<Mutex<Vec<Asked>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Endpoint {
    pub(crate) async fn start(answer: impl Fn(&Asked) -> (u16, String) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (kept, answer): (_, Arc<Answer>) = (Arc::clone(&asked), Arc::new(Box::new(answer)));
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(stream, Arc::clone(&kept), Arc::clone(&answer)));
            }
        });
        Self { url, asked, task }
    }

    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().clone()
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Asked {
    /// The form of the body.
    pub(crate) fn form(&self) -> HashMap<String, String> {
        url::form_urlencoded::parse(self.body.as_bytes()).into_owned().collect()
    }
}

async fn serve(mut stream: TcpStream, asked: Arc<Mutex<Vec<Asked>>>, answer: Arc<Answer>) {
    let mut buffer = Vec::new();
    loop {
        let head = loop {
            if let Some(at) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                break at + 4;
            }
            if stream.read_buf(&mut buffer).await.unwrap_or(0) == 0 {
                return;
            }
        };
        let text = String::from_utf8_lossy(&buffer[..head]).into_owned();
        let headers: HashMap<String, String> = text
            .lines()
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
            .collect();
        let length = headers.get("content-length").map_or(0, |length| length.parse().unwrap());
        while buffer.len() < head + length {
            if stream.read_buf(&mut buffer).await.unwrap_or(0) == 0 {
                return;
            }
        }
        let line = text.lines().next().unwrap().trim_end_matches(" HTTP/1.1").to_owned();
        let body = String::from_utf8_lossy(&buffer[head..head + length]).into_owned();
        buffer.drain(..head + length);
        let one = Asked { line, headers, body };
        let (status, body) = answer(&one);
        asked.lock().push(one);
        // The header is what AWS's metadata service says of its sessions; nobody else minds it.
        let response = format!(
            "HTTP/1.1 {status} X\r\nx-aws-ec2-metadata-token-ttl-seconds: 21600\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        if stream.write_all(response.as_bytes()).await.is_err() {
            return;
        }
    }
}

/// The moment of the published examples of signatures: 2015-08-30T12:36:00Z.
pub(crate) fn moment() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_440_938_160)
}

/// Surroundings with these variables, at [`moment`].
pub(crate) async fn surroundings(variables: &[(&str, &str)]) -> Surroundings {
    let owned: HashMap<String, String> =
        variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let mut surroundings =
        Surroundings::new("test", move |name| owned.get(name).cloned(), moment).await.unwrap();
    surroundings.aws_environment = Some(aws_types::os_shim_internal::Env::from_slice(variables));
    surroundings
}

/// An answer with a token.
pub(crate) fn token(token: &str, expires_in: &str) -> (u16, String) {
    (200, format!("{{\"access_token\":\"{token}\",\"expires_in\":{expires_in},\"token_type\":\"Bearer\"}}"))
}

/// A `POST` request to `url` with headers as remote write has them.
pub(crate) fn request(url: &str, body: &'static str) -> reqwest::Request {
    let mut request = reqwest::Request::new(http::Method::POST, url::Url::parse(url).unwrap());
    let headers = request.headers_mut();
    headers.insert("content-type", http::HeaderValue::from_static("application/x-protobuf"));
    headers.insert("user-agent", http::HeaderValue::from_static("test"));
    headers.insert("x-prometheus-remote-write-version", http::HeaderValue::from_static("0.1.0"));
    *request.body_mut() = Some(body.into());
    request
}

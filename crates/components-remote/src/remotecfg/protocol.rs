//! The wire: messages of `collector.v1.CollectorService` and the unary calls of the Connect protocol that carry them
//! (<https://connectrpc.com/docs/protocol>). Field numbers are those of the service's published definition.

use std::collections::BTreeMap;
use std::time::Duration;

use http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http::{Method, StatusCode};
use invar_blocks::http_client::{HttpClient, HttpClientError};
use invar_sources::ErrorClass;
use prost::Message;
use serde::Deserialize;
use url::Url;

/// The longest answer that is read, in bytes.
const LONGEST_ANSWER: usize = 8 << 20;
const PROTOBUF: &str = "application/proto";

#[derive(Clone, PartialEq, Message)]
pub(super) struct GetConfigRequest {
    #[prost(string, tag = "1")]
    pub(super) id: String,
    #[prost(string, tag = "3")]
    pub(super) hash: String,
    #[prost(btree_map = "string, string", tag = "4")]
    pub(super) local_attributes: BTreeMap<String, String>,
    #[prost(message, optional, tag = "5")]
    pub(super) remote_config_status: Option<RemoteConfigStatus>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct RemoteConfigStatus {
    #[prost(enumeration = "Status", tag = "1")]
    pub(super) status: i32,
    #[prost(string, tag = "2")]
    pub(super) error_message: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, prost::Enumeration)]
#[repr(i32)]
pub(super) enum Status {
    Unset = 0,
    Applied = 1,
    Applying = 2,
    Failed = 3,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct GetConfigResponse {
    #[prost(string, tag = "1")]
    pub(super) content: String,
    #[prost(string, tag = "2")]
    pub(super) hash: String,
    #[prost(bool, tag = "3")]
    pub(super) not_modified: bool,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct RegisterCollectorRequest {
    #[prost(string, tag = "1")]
    pub(super) id: String,
    #[prost(string, tag = "3")]
    pub(super) name: String,
    #[prost(btree_map = "string, string", tag = "4")]
    pub(super) local_attributes: BTreeMap<String, String>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct UnregisterCollectorRequest {
    #[prost(string, tag = "1")]
    pub(super) id: String,
}

/// An answer without content.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Empty {}

/// A call that failed.
#[derive(Debug)]
pub(super) struct CallError {
    pub(super) class: ErrorClass,
    pub(super) message: String,
}

/// What a Connect server says of an error.
#[derive(Deserialize)]
struct ConnectError {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

/// Calls a method and waits for its answer at most for `timeout`.
pub(super) async fn call<A: Message + Default>(
    client: &HttpClient,
    base: &Url,
    method: &str,
    message: &impl Message,
    timeout: Duration,
) -> Result<A, CallError> {
    match answer(client, base, method, message, timeout).await {
        // Some servers quote the credentials that they were shown.
        Err(error) => Err(CallError { message: client.conceal(error.message).await, ..error }),
        answer => answer,
    }
}

async fn answer<A: Message + Default>(
    client: &HttpClient,
    base: &Url,
    method: &str,
    message: &impl Message,
    timeout: Duration,
) -> Result<A, CallError> {
    let mut url = base.clone();
    let path = format!("{}/collector.v1.CollectorService/{method}", base.path().trim_end_matches('/'));
    url.set_path(&path);
    let mut request = reqwest::Request::new(Method::POST, url);
    request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(PROTOBUF));
    request.headers_mut().insert("connect-protocol-version", HeaderValue::from_static("1"));
    request
        .headers_mut()
        .insert("connect-timeout-ms", HeaderValue::from(timeout.as_millis().min(9_999_999_999) as u64));
    *request.timeout_mut() = Some(timeout);
    *request.body_mut() = Some(message.encode_to_vec().into());
    let mut response = client.execute(request).await.map_err(unreachable)?;
    let status = response.status();
    let after = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
    let kind = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let protobuf = kind.split(';').next().is_some_and(|kind| kind.trim() == PROTOBUF);
    let kind = kind.to_owned();
    let mut body = Vec::new();
    while let Some(chunk) =
        response.chunk().await.map_err(HttpClientError::from_reqwest).map_err(unreachable)?
    {
        if body.len() + chunk.len() > LONGEST_ANSWER {
            return Err(CallError {
                class: ErrorClass::Transient,
                message: format!("{method}: the answer is longer than {} MiB", LONGEST_ANSWER >> 20),
            });
        }
        body.extend_from_slice(&chunk);
    }
    if status != StatusCode::OK {
        return Err(refused(method, status, &body, after.map(Duration::from_secs)));
    }
    if !protobuf {
        return Err(CallError {
            class: ErrorClass::Stalled,
            message: format!(
                "{method}: the answer is of type \"{kind}\" instead of {PROTOBUF}; is this address a collector service?"
            ),
        });
    }
    A::decode(&*body).map_err(|error| CallError {
        class: ErrorClass::Transient,
        message: format!("{method}: the answer cannot be read: {error}"),
    })
}

fn unreachable(error: HttpClientError) -> CallError {
    let class = if error.is_retryable() { ErrorClass::Transient } else { ErrorClass::Stalled };
    CallError { class, message: error.to_string() }
}

fn refused(method: &str, status: StatusCode, body: &[u8], after: Option<Duration>) -> CallError {
    let error: ConnectError =
        serde_json::from_slice(body).unwrap_or(ConnectError { code: String::new(), message: String::new() });
    let class = match (&*error.code, status.as_u16()) {
        ("unauthenticated", _) | ("", 401) => ErrorClass::AuthExpired,
        ("permission_denied", _) | ("", 403) => ErrorClass::Forbidden,
        ("not_found" | "unimplemented", _) | ("", 404 | 405 | 501) => ErrorClass::NotFound,
        ("resource_exhausted", _) | ("", 429) => ErrorClass::RateLimited { after },
        _ => ErrorClass::Transient,
    };
    // A server's own words may be long, and hold line ends.
    let words: String = error.message.chars().filter(|c| !c.is_control()).take(300).collect();
    let detail = match (error.code.is_empty(), words.is_empty()) {
        (true, _) => String::new(),
        (false, true) => format!(": {}", error.code),
        (false, false) => format!(": {} ({words})", error.code),
    };
    CallError { class, message: format!("{method}: the server answered {status}{detail}") }
}

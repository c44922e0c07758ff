//! An endpoint as one generation has it: the client, the rules, and what happens to one request.

use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use http::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use http::{Method, StatusCode};
use invar_blocks::http_client::{http_url, redact_url};
use invar_blocks::{HttpClient, HttpClientOptions, RelabelRules};
use invar_engine::{PrepareError, Services};
use invar_policy::Access;
use invar_telemetry::Labels;
use invar_telemetry::remote_write::Protocol;
use tokio::time::Instant;
use url::Url;

use super::arguments::{EndpointArguments, MetadataArguments, QueueArguments};
use super::identity;
use crate::wal::EndpointIdentity;

/// How long after a change of credentials a refusal may be the receiver's delay.
const ROTATION_GRACE: Duration = Duration::from_secs(60);
/// How much of an error response is read for its message.
const ERROR_TEXT: usize = 512;
/// How much of it is read.
const ERROR_BODY: usize = 16 << 10;

/// An endpoint of a state.
#[derive(Debug)]
pub(super) struct Endpoint {
    pub(super) identity: EndpointIdentity,
    /// The `remote_name` of metrics.
    pub(super) name: String,
    pub(super) protocol: Protocol,
    pub(super) external: Labels,
    pub(super) rules: Option<RelabelRules>,
    pub(super) queue: QueueArguments,
    pub(super) metadata: MetadataArguments,
    pub(super) exemplars: bool,
    pub(super) histograms: bool,
    url: Url,
    timeout: Duration,
    headers: HeaderMap,
    client: HttpClient,
    grace_until: Option<Instant>,
}

/// What became of a request. Of version 2, receivers say how much of it they have written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Sent {
    Accepted { written: Option<Written> },
    Retry { after: Option<Duration>, reason: String },
    Refused { reason: String, written: Option<Written> },
}

/// What a receiver has written of a request, by its `X-Prometheus-Remote-Write-*-Written` headers. One that is missing
/// means that nothing was written of its kind.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Written {
    pub(super) samples: usize,
    pub(super) histograms: usize,
    pub(super) exemplars: usize,
}

impl Endpoint {
    /// Builds the endpoint; `ordinal` counts the unnamed ones of the same URL, `previous` is the one that it replaces.
    pub(super) async fn new(
        arguments: &EndpointArguments,
        external: &Labels,
        ordinal: usize,
        previous: Option<&Self>,
        services: &Services,
        access: &Access,
    ) -> Result<Self, PrepareError> {
        let url =
            http_url(&arguments.url).map_err(|message| PrepareError::invalid(format!("url {message}")))?;
        let shown = redact_url(&url);
        let identity = EndpointIdentity {
            key: if arguments.name.is_empty() {
                format!("{shown}#{ordinal}")
            } else {
                arguments.name.clone()
            },
            url: shown,
            settings: fingerprint(arguments, external),
        };
        let mut options = HttpClientOptions {
            timeout: arguments.remote_timeout,
            ..HttpClientOptions::under(access.clone())
        };
        options.decompress = false;
        if arguments.round_robin_dns {
            // Connections are not kept, so that each request resolves the name and meets the next address.
            options.pool_max_idle_per_host = 0;
        }
        let authenticator = identity::authenticator(arguments, &options, services).await?;
        let client_arguments = arguments.client.clone().into();
        let client = match authenticator {
            Some(authenticator) => {
                HttpClient::with_authenticator(&client_arguments, options, authenticator).await
            }
            None => HttpClient::new(&client_arguments, options).await,
        };
        let client =
            client.map_err(|error| PrepareError::invalid(format!("endpoint {}: {error}", identity.key)))?;
        let rules = match &arguments.write_relabel_configs[..] {
            [] => None,
            blocks => {
                Some(RelabelRules::compile(blocks).map_err(|error| PrepareError::invalid(error.message))?)
            }
        };
        let protocol = Protocol::from_message_name(&arguments.protobuf_message).unwrap_or(Protocol::V1);
        let replaced = previous.filter(|previous| previous.identity != identity);
        let name = if arguments.name.is_empty() {
            // Stable across processes, unlike the fingerprint, and free of secrets.
            let hash = xxhash_rust::xxh64::xxh64(identity.key.as_bytes(), 0);
            format!("{:06x}", hash & 0xff_ffff)
        } else {
            arguments.name.clone()
        };
        Ok(Self {
            name,
            protocol,
            external: external.clone(),
            rules,
            queue: arguments.queue(),
            metadata: arguments.metadata(),
            exemplars: arguments.send_exemplars,
            histograms: arguments.send_native_histograms,
            url,
            timeout: arguments.remote_timeout,
            headers: headers(arguments, protocol)?,
            client,
            grace_until: replaced.map(|_| Instant::now() + ROTATION_GRACE),
            identity,
        })
    }

    /// Sends one request body.
    pub(super) async fn send(&self, body: Arc<[u8]>, attempt: u32) -> Sent {
        let mut request = reqwest::Request::new(Method::POST, self.url.clone());
        *request.headers_mut() = self.headers.clone();
        if attempt > 0 {
            request
                .headers_mut()
                .insert(HeaderName::from_static("retry-attempt"), HeaderValue::from(attempt));
        }
        *request.timeout_mut() = Some(self.timeout);
        *request.body_mut() = Some(bytes::Bytes::from_owner(body).into());
        let response = match self.client.execute(request).await {
            Ok(response) => response,
            Err(error) => return Sent::Retry { after: None, reason: error.to_string() },
        };
        let status = response.status();
        let after = retry_after(response.headers());
        let written = (self.protocol == Protocol::V2).then(|| Written::said_by(response.headers()));
        let reason = format!("{status}{}", error_text(response, &self.client).await);
        self.judge(status, after, reason, written)
    }

    fn judge(
        &self,
        status: StatusCode,
        after: Option<Duration>,
        reason: String,
        written: Option<Written>,
    ) -> Sent {
        if status.is_success() {
            return Sent::Accepted { written };
        }
        let rotated =
            self.grace_until.is_some_and(|until| Instant::now() < until) || self.client.rotated_lately();
        let retry = status.is_server_error()
            || (status == StatusCode::TOO_MANY_REQUESTS && self.queue.retry_on_http_429)
            || (rotated && matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN));
        if retry { Sent::Retry { after, reason } } else { Sent::Refused { reason, written } }
    }
}

impl Written {
    fn said_by(headers: &HeaderMap) -> Self {
        let count = |kind: &str| {
            let value = headers.get(format!("x-prometheus-remote-write-{kind}-written"));
            value.and_then(|value| value.to_str().ok()?.trim().parse().ok()).unwrap_or(0)
        };
        Self { samples: count("samples"), histograms: count("histograms"), exemplars: count("exemplars") }
    }
}

/// Differs when anything in the endpoint or the external labels does, secrets included: keyed anew in each process, so
/// that it says nothing about them.
fn fingerprint(arguments: &EndpointArguments, external: &Labels) -> u64 {
    static KEY: LazyLock<RandomState> = LazyLock::new(RandomState::new);
    let mut hasher = KEY.build_hasher();
    hasher.write(format!("{arguments:?}\u{0}{external}").as_bytes());
    let authentication = &arguments.client.authentication;
    let oauth = authentication.oauth2.as_ref();
    let live = [
        Some(&authentication.bearer_token),
        authentication.basic_auth.as_ref().map(|block| &block.password),
        authentication.authorization.as_ref().map(|block| &block.credentials),
        oauth.map(|block| &block.client_secret),
        oauth.and_then(|block| block.tls_config.as_ref()).map(|block| &block.key_pem),
        arguments.client.tls_config.as_ref().map(|block| &block.key_pem),
    ];
    let texts = [
        arguments.sigv4.as_ref().map(|block| &block.secret_key),
        arguments.azuread.as_ref().and_then(|block| block.oauth.as_ref()).map(|block| &block.client_secret),
    ];
    let headers = arguments.client.http_headers.values().flatten();
    // Live ones by what they stand for: they change without another endpoint.
    for secret in live.into_iter().flatten().chain(headers) {
        secret.hash(&mut hasher);
    }
    for secret in texts.into_iter().flatten() {
        secret.hash(&mut hasher);
    }
    hasher.finish()
}

fn headers(arguments: &EndpointArguments, protocol: Protocol) -> Result<HeaderMap, PrepareError> {
    let mut headers = HeaderMap::new();
    for (name, value) in &arguments.headers {
        let name = HeaderName::from_bytes(name.as_bytes());
        let value = HeaderValue::from_str(value);
        let (Ok(name), Ok(value)) = (name, value) else {
            return Err(PrepareError::invalid("headers: not a valid header"));
        };
        headers.insert(name, value);
    }
    let (content_type, version) = match protocol {
        Protocol::V1 => ("application/x-protobuf", "0.1.0"),
        Protocol::V2 => ("application/x-protobuf;proto=io.prometheus.write.v2.Request", "2.0.0"),
    };
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CONTENT_ENCODING, HeaderValue::from_static("snappy"));
    headers.insert(
        HeaderName::from_static("x-prometheus-remote-write-version"),
        HeaderValue::from_static(version),
    );
    headers.insert(
        http::header::USER_AGENT,
        HeaderValue::from_static(concat!("Invar/", env!("CARGO_PKG_VERSION"))),
    );
    Ok(headers)
}

/// Seconds or a date, as RFC 9110 has it.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let date = jiff::fmt::rfc2822::parse(text).ok()?;
    let wait = date.timestamp().as_second() - jiff::Timestamp::now().as_second();
    u64::try_from(wait).ok().map(Duration::from_secs)
}

/// The first line of an error response, bounded, and without the credentials that the server may quote.
async fn error_text(mut response: reqwest::Response, client: &HttpClient) -> String {
    if response.status().is_success() {
        return String::new();
    }
    let mut text = Vec::new();
    while let Ok(Some(chunk)) = response.chunk().await {
        let room = ERROR_BODY - text.len();
        text.extend_from_slice(&chunk[..chunk.len().min(room)]);
        if text.len() >= ERROR_BODY {
            break;
        }
    }
    // Concealed before it is cut: a part of a credential is not found in it.
    let text = client.conceal(String::from_utf8_lossy(&text).into_owned()).await;
    let line: String = text.lines().next().unwrap_or_default().trim().chars().take(ERROR_TEXT).collect();
    if line.is_empty() { String::new() } else { format!(": {line}") }
}

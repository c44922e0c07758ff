//! OAuth 2.0 client credentials (RFC 6749, section 4.4): one token per client, fetched by one request at a time,
//! kept until shortly before it expires.

use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderValue, Method};
use invar_syntax::live_secret::LiveSecret;
use invar_syntax::secret::Secret;
use parking_lot::Mutex;
use serde::Deserialize;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use url::{Url, form_urlencoded};

use super::HttpClientError;
use super::arguments::OAuth2Block;
use super::credentials::{SecretSource, basic_header};
use super::transport::Transport;

/// A token is renewed this long before it expires.
const EXPIRY_MARGIN: Duration = Duration::from_secs(10);
/// How long the token endpoint may take.
const TOKEN_TIMEOUT: Duration = Duration::from_secs(30);
/// The largest answer of a token endpoint.
const MAX_TOKEN_ANSWER: usize = 1 << 20;
/// How long after a token was refused the next refusals may be due to the same change, and how long until one is a new one.
const DISCARD_GRACE: Duration = Duration::from_secs(60);
const DISCARD_MEMORY: Duration = Duration::from_secs(600);
/// After a failure the endpoint is left alone for this long, so that a burst of requests does not become one of logins.
const FAILURE_PAUSE: Duration = Duration::from_secs(1);

/// A token as requests use it.
#[derive(Clone, Debug)]
pub(super) struct Token {
    /// The scheme of the `Authorization` header, mostly `Bearer`.
    pub(super) scheme: String,
    /// The token itself.
    pub(super) access: Secret,
    pub(super) expires: Option<Instant>,
}

/// Fetches and keeps the token of one client.
#[derive(Debug)]
pub(super) struct TokenSource {
    client_id: String,
    client_secret: SecretSource,
    token_url: Url,
    form: Vec<(String, String)>,
    transport: Transport,
    /// One permit: who holds it fetches, the others wait and find the token.
    fetching: Semaphore,
    cached: Mutex<Cached>,
}

#[derive(Debug, Default)]
struct Cached {
    token: Option<Token>,
    failed: Option<(Instant, String)>,
    /// How the endpoint wants the client's credentials; learned from its first answer.
    placement: Placement,
    /// When a server refused a token last.
    discarded: Option<Instant>,
}

/// Where the client's credentials go. RFC 6749 wants the header, and some servers know only parameters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Placement {
    #[default]
    Unknown,
    Header,
    Parameters,
}

#[derive(Deserialize)]
struct TokenAnswer {
    access_token: String,
    #[serde(default)]
    token_type: String,
    #[serde(default)]
    expires_in: Option<serde_json::Value>,
}

// === impl TokenSource ===

impl TokenSource {
    /// A source for this block's endpoint, reached through `transport`.
    pub(super) fn new(block: &OAuth2Block, transport: Transport) -> Result<Self, HttpClientError> {
        let token_url = super::http_url(&block.token_url)
            .map_err(|message| HttpClientError::Invalid { field: "oauth2.token_url", message })?;
        let mut form = vec![("grant_type".to_owned(), "client_credentials".to_owned())];
        if !block.scopes.is_empty() {
            form.push(("scope".to_owned(), block.scopes.join(" ")));
        }
        form.extend(block.endpoint_params.iter().map(|(name, value)| (name.clone(), value.clone())));
        Ok(Self {
            client_id: block.client_id.clone(),
            client_secret: block.client_secret(),
            token_url,
            form,
            transport,
            fetching: Semaphore::new(1),
            cached: Mutex::new(Cached::default()),
        })
    }

    /// A token that is valid now.
    pub(super) async fn token(&self) -> Result<Token, HttpClientError> {
        if let Some(token) = self.current()? {
            return Ok(token);
        }
        let _permit = self.fetching.acquire().await.map_err(|_| failure("the client is closed"))?;
        // Whoever held the permit before may have fetched it, or failed to.
        if let Some(token) = self.current()? {
            return Ok(token);
        }
        let fetched = self.fetch().await;
        let mut cached = self.cached.lock();
        match &fetched {
            Ok((token, placement)) => {
                cached.token = Some(token.clone());
                cached.placement = *placement;
                cached.failed = None;
            }
            Err(error) => cached.failed = Some((Instant::now(), error.to_string())),
        }
        fetched.map(|(token, _)| token)
    }

    /// Forgets the token: a server refused it.
    pub(super) fn discard(&self) {
        let mut cached = self.cached.lock();
        // Once in a while: whoever refuses every token is not given time with each of them.
        if cached.token.take().is_some() && cached.discarded.is_none_or(|at| at.elapsed() > DISCARD_MEMORY) {
            cached.discarded = Some(Instant::now());
        }
    }

    /// Whether the client's secret, and with it maybe the token, changed so lately that a refusal may be due to that.
    pub(super) fn rotated_lately(&self) -> bool {
        let discarded = self.cached.lock().discarded;
        self.client_secret.live().is_some_and(|secret| {
            secret.previous().is_some() || discarded.is_some_and(|at| at.elapsed() < DISCARD_GRACE)
        })
    }

    fn current(&self) -> Result<Option<Token>, HttpClientError> {
        let cached = self.cached.lock();
        let now = Instant::now();
        if let Some(token) = &cached.token
            && token.expires.is_none_or(|expires| expires > now + EXPIRY_MARGIN)
        {
            return Ok(Some(token.clone()));
        }
        match &cached.failed {
            Some((since, message)) if now.duration_since(*since) < FAILURE_PAUSE => {
                Err(HttpClientError::Token { message: message.clone() })
            }
            _ => Ok(None),
        }
    }

    async fn fetch(&self) -> Result<(Token, Placement), HttpClientError> {
        let live = self.client_secret.live();
        let version = live.map_or(0, LiveSecret::version);
        let secret = self.client_secret.read(self.transport.access()).await?;
        let fetched = self.fetch_with(&secret).await;
        let (Err(refused), Some(live)) = (&fetched, live) else {
            return fetched.map_err(|refused| refused.error);
        };
        if !matches!(refused.status, Some(400 | 401 | 403)) {
            return fetched.map_err(|refused| refused.error);
        }
        // The endpoint may not know of the new secret yet, or the new one may be wrong.
        if let Some(other) = live.previous()
            && let Ok(token) = self.fetch_with(&other).await
        {
            live.refused(version);
            return Ok(token);
        }
        live.lost(version);
        fetched.map_err(|refused| refused.error)
    }

    async fn fetch_with(&self, secret: &Secret) -> Result<(Token, Placement), Refused> {
        let known = self.cached.lock().placement;
        let first = if known == Placement::Unknown { Placement::Header } else { known };
        match self.request(first, secret).await {
            Ok(token) => Ok((token, first)),
            // A server that knows only parameters answers 400 or 401 to the header.
            Err(Refused { status: Some(400 | 401), .. }) if known == Placement::Unknown => {
                let token = self.request(Placement::Parameters, secret).await?;
                Ok((token, Placement::Parameters))
            }
            Err(refused) => Err(refused),
        }
    }

    async fn request(&self, placement: Placement, secret: &Secret) -> Result<Token, Refused> {
        let mut form = encode_form(&self.form);
        let mut request = reqwest::Request::new(Method::POST, self.token_url.clone());
        let headers = request.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        if placement == Placement::Parameters {
            form.push_str(&format!(
                "&client_id={}&client_secret={}",
                encode(&self.client_id),
                encode(secret.expose())
            ));
        } else {
            // RFC 6749, section 2.3.1: both are form-encoded before they are joined.
            let password = Secret::new(encode(secret.expose()));
            headers.insert(
                AUTHORIZATION,
                basic_header(&Secret::new(encode(&self.client_id)), &password).map_err(Refused::local)?,
            );
        }
        *request.body_mut() = Some(Bytes::from(form).into());
        *request.timeout_mut() = Some(TOKEN_TIMEOUT);

        let mut response = self.transport.send(request).await.map_err(Refused::local)?;
        let status = response.status();
        let mut body = Vec::new();
        while let Some(chunk) =
            response.chunk().await.map_err(|error| Refused::local(HttpClientError::from_reqwest(error)))?
        {
            if body.len() + chunk.len() > MAX_TOKEN_ANSWER {
                return Err(Refused::local(failure("the answer is larger than 1 MiB")));
            }
            body.extend_from_slice(&chunk);
        }
        if !status.is_success() {
            return Err(Refused {
                status: Some(status.as_u16()),
                error: failure(&format!("the token endpoint answered {status}{}", error_code(&body))),
            });
        }
        parse_token(&body).map_err(Refused::local)
    }
}

struct Refused {
    status: Option<u16>,
    error: HttpClientError,
}

impl Refused {
    fn local(error: HttpClientError) -> Self {
        Self { status: None, error }
    }
}

fn parse_token(body: &[u8]) -> Result<Token, HttpClientError> {
    // What serde says may quote the answer, which holds the token: it is not repeated.
    let answer: TokenAnswer =
        serde_json::from_slice(body).map_err(|_| failure("the answer is no JSON with an access_token"))?;
    if answer.access_token.is_empty() {
        return Err(failure("the answer holds an empty access_token"));
    }
    let lifetime = answer.expires_in.and_then(|value| match value {
        serde_json::Value::Number(seconds) => seconds.as_f64(),
        // Some servers send the number as text.
        serde_json::Value::String(seconds) => seconds.parse().ok(),
        _ => None,
    });
    let scheme = match answer.token_type.as_str() {
        "" => "Bearer".to_owned(),
        kind if kind.eq_ignore_ascii_case("bearer") => "Bearer".to_owned(),
        kind => kind.to_owned(),
    };
    let expires = lifetime
        .filter(|seconds| *seconds > 0.0)
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .and_then(|lifetime| Instant::now().checked_add(lifetime));
    Ok(Token { scheme, access: Secret::new(answer.access_token), expires })
}

/// The registered `error` code of RFC 6749, section 5.2, which holds nothing secret; free text is left out.
fn error_code(body: &[u8]) -> String {
    #[derive(Deserialize)]
    struct ErrorAnswer {
        error: String,
    }
    match serde_json::from_slice::<ErrorAnswer>(body) {
        Ok(answer)
            if answer.error.len() <= 64
                && answer.error.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_') =>
        {
            format!(" ({})", answer.error)
        }
        _ => String::new(),
    }
}

fn encode_form(pairs: &[(String, String)]) -> String {
    let pairs: Vec<String> =
        pairs.iter().map(|(name, value)| format!("{}={}", encode(name), encode(value))).collect();
    pairs.join("&")
}

fn encode(text: &str) -> String {
    form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

fn failure(message: &str) -> HttpClientError {
    HttpClientError::Token { message: message.to_owned() }
}

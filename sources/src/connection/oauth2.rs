//! Tokens by the OAuth 2.0 client credentials grant (RFC 6749, section 4.4): one is fetched when it is needed, used until
//! shortly before it ends, and forgotten when a server refuses it.

use std::time::Duration;

use bytes::BytesMut;
use http::{StatusCode, header};
use invar_secrets::{Secret, SecretStores};
use parking_lot::Mutex;
use reqwest::{Client, RequestBuilder};
use serde::Deserialize;
use tokio::time::{Instant, timeout};
use url::{Url, form_urlencoded};

use super::style::header_value;
use super::{basic, chain, is_loopback, secret_failure};
use crate::error::{ErrorClass, Failure};
use crate::settings::OAuth2Settings;

/// How long a token may take to come.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How long before its end a token is replaced.
const MARGIN: Duration = Duration::from_secs(30);
/// How long a token lives whose server does not say so.
const UNSAID_LIFETIME: Duration = Duration::from_secs(5 * 60);
/// The longest answer, in bytes.
const ANSWER_LIMIT: usize = 64 * 1024;

/// Fetches and keeps the token of one source.
pub(crate) struct TokenSource {
    settings: OAuth2Settings,
    url: Url,
    /// Held while a token is fetched, so that it is fetched once for all who wait.
    fetching: tokio::sync::Mutex<()>,
    held: Mutex<Option<Held>>,
    /// Whether the server wants the client's credentials in the body; found out by the first refusal.
    in_body: Mutex<bool>,
}

#[derive(Clone)]
struct Held {
    token: Secret,
    until: Instant,
}

#[derive(Deserialize)]
struct Answer {
    access_token: String,
    #[serde(default)]
    token_type: Option<String>,
    #[serde(default)]
    expires_in: Option<serde_json::Value>,
}

impl TokenSource {
    pub(super) fn new(settings: &OAuth2Settings) -> Result<Self, Failure> {
        let unusable = |what: &str| Failure::stalled(format!("`auth.oauth2.token_url` {what}"));
        let url = Url::parse(&settings.token_url).map_err(|_| unusable("is not an address"))?;
        if !matches!(url.scheme(), "http" | "https") || url.cannot_be_a_base() {
            return Err(unusable("is not an http:// or https:// address"));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(unusable("holds a credential; use `client_id` and `client_secret`"));
        }
        if url.scheme() == "http" && !is_loopback(&url) {
            return Err(unusable("is not encrypted").with_help("use https://"));
        }
        Ok(Self {
            settings: settings.clone(),
            url,
            fetching: tokio::sync::Mutex::default(),
            held: Mutex::default(),
            in_body: Mutex::default(),
        })
    }

    /// A token that is valid for a while.
    pub(super) async fn token(&self, client: &Client, secrets: &SecretStores) -> Result<Secret, Failure> {
        if let Some(token) = self.current() {
            return Ok(token);
        }
        let _fetching = self.fetching.lock().await;
        // Somebody else may have fetched one meanwhile.
        if let Some(token) = self.current() {
            return Ok(token);
        }
        let secret =
            self.settings.client_secret.resolve(secrets).await.map_err(|error| secret_failure(&error))?;
        let fetched = match timeout(TIMEOUT, self.fetch(client, &secret)).await {
            Ok(Err(failure)) if failure.class == ErrorClass::AuthExpired => {
                self.settings.client_secret.refused(secrets);
                return Err(failure);
            }
            Ok(fetched) => fetched?,
            Err(_) => return Err(self.failed("does not answer in time")),
        };
        let token = fetched.token.clone();
        *self.held.lock() = Some(fetched);
        Ok(token)
    }

    /// The token that was fetched last, unless it was forgotten.
    pub(super) fn held(&self) -> Option<Secret> {
        self.held.lock().as_ref().map(|held| held.token.clone())
    }

    /// Forgets the token; whether there was one.
    pub(super) fn forget(&self) -> bool {
        self.held.lock().take().is_some()
    }

    fn current(&self) -> Option<Secret> {
        let held = self.held.lock();
        held.as_ref().filter(|held| held.until > Instant::now()).map(|held| held.token.clone())
    }

    async fn fetch(&self, client: &Client, secret: &Secret) -> Result<Held, Failure> {
        let in_body = *self.in_body.lock();
        let (status, body) = self.ask(client, secret, in_body).await?;
        if status == StatusCode::OK {
            return self.read(&body);
        }
        // Servers have to know the header (RFC 6749, section 2.3.1), but some know the body alone.
        if !in_body && matches!(status, StatusCode::BAD_REQUEST | StatusCode::UNAUTHORIZED) {
            let (again, body) = self.ask(client, secret, true).await?;
            if again == StatusCode::OK {
                *self.in_body.lock() = true;
                return self.read(&body);
            }
        }
        Err(self.refused(status))
    }

    async fn ask(
        &self,
        client: &Client,
        secret: &Secret,
        in_body: bool,
    ) -> Result<(StatusCode, BytesMut), Failure> {
        let request = self.request(client, secret, in_body)?;
        let broken = |error: reqwest::Error| self.failed(&chain(&error.without_url()));
        let mut response = request.send().await.map_err(broken)?;
        let mut body = BytesMut::new();
        while let Some(chunk) = response.chunk().await.map_err(broken)? {
            if body.len() + chunk.len() > ANSWER_LIMIT {
                return Err(self.failed("answers with more than 64 KiB"));
            }
            body.extend_from_slice(&chunk);
        }
        Ok((response.status(), body))
    }

    fn request(&self, client: &Client, secret: &Secret, in_body: bool) -> Result<RequestBuilder, Failure> {
        let settings = &self.settings;
        let mut form = form_urlencoded::Serializer::new(String::new());
        form.append_pair("grant_type", "client_credentials");
        if !settings.scopes.is_empty() {
            form.append_pair("scope", &settings.scopes.join(" "));
        }
        form.extend_pairs(&settings.endpoint_params);
        let mut request = client
            .post(self.url.clone())
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header(header::ACCEPT, "application/json");
        if in_body {
            form.append_pair("client_id", &settings.client_id);
            form.append_pair("client_secret", secret.expose());
        } else {
            let encode = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
            // Both are encoded before they are joined (RFC 6749, section 2.3.1).
            let pair = basic(&encode(&settings.client_id), &Secret::new(encode(secret.expose())));
            request = request.header(header::AUTHORIZATION, header_value(&pair)?);
        }
        Ok(request.body(form.finish()))
    }

    /// What the body says is never repeated in an error: it holds the token.
    fn read(&self, body: &[u8]) -> Result<Held, Failure> {
        let answer: Answer = serde_json::from_slice(body)
            .map_err(|_| self.failed("answers with something that is no access token"))?;
        if answer.access_token.is_empty() {
            return Err(self.failed("answers with an empty access token"));
        }
        if answer.token_type.is_some_and(|kind| !kind.eq_ignore_ascii_case("bearer")) {
            return Err(self.failed("answers with a token of a type other than `Bearer`"));
        }
        let lifetime = match answer.expires_in {
            Some(serde_json::Value::Number(seconds)) => seconds.as_u64(),
            // Some servers write the number as a text.
            Some(serde_json::Value::String(seconds)) => seconds.parse().ok(),
            _ => None,
        };
        let lifetime = lifetime.map_or(UNSAID_LIFETIME, Duration::from_secs);
        // Half of a life that is shorter than the margin, so that every token is used at least once.
        let usable = lifetime.saturating_sub(MARGIN).max(lifetime / 2).min(Duration::from_secs(24 * 60 * 60));
        Ok(Held { token: Secret::new(answer.access_token), until: Instant::now() + usable })
    }

    fn refused(&self, status: StatusCode) -> Failure {
        let class = match status.as_u16() {
            400 | 401 | 403 => ErrorClass::AuthExpired,
            404 | 410 => ErrorClass::NotFound,
            429 => ErrorClass::RateLimited { after: None },
            _ => ErrorClass::Transient,
        };
        Failure::new(class, format!("{} gives no access token ({})", self.place(), status.as_u16()))
            .with_help("check `auth.oauth2`: the client's id and secret, and the scopes")
    }

    fn failed(&self, what: &str) -> Failure {
        Failure::transient(format!("{}: {what}", self.place()))
    }

    fn place(&self) -> String {
        super::place(&self.url)
    }
}

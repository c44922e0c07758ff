//! A registry as the distribution specification describes it: manifests, lists of tags and blobs, with a token fetched
//! where the registry says.

use std::time::{Duration, SystemTime};

use base64::Engine as _;
use bytes::{Bytes, BytesMut};
use http::{HeaderValue, Method, StatusCode, header};
use invar_secrets::Secret;
use parking_lot::Mutex;
use reqwest::Response;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;
use url::Url;

use super::challenge::{Challenge, parse_challenge, parse_next};
use super::manifest::{ACCEPTED, Descriptor, Manifest};
use super::reference::{Repository, is_digest};
use crate::connection::{Connection, hide, is_loopback, place, unfit};
use crate::error::{ErrorClass, Failure, Rejection};
use crate::settings::AuthSettings;
use crate::snapshot::hexadecimal;
use crate::units::display_size;

/// The longest manifest, and page of a list, in bytes.
const DOCUMENT_LIMIT: usize = 4 * 1024 * 1024;
/// The longest answer with a token, in bytes.
const TOKEN_LIMIT: usize = 64 * 1024;
/// The most pages of a list, and tags on them.
const PAGE_LIMIT: usize = 100;
const TAG_LIMIT: usize = 100_000;
/// How often a redirect is followed.
const REDIRECT_LIMIT: usize = 5;
/// How long a token lives whose server does not say so, and how long before its end it is replaced.
const TOKEN_LIFETIME: Duration = Duration::from_secs(60);
const TOKEN_MARGIN: Duration = Duration::from_secs(10);

/// One repository of a registry.
pub(super) struct Registry {
    connection: Connection,
    repository: Repository,
    auth: Option<AuthSettings>,
    session: Mutex<Session>,
}

/// How the registry wants to be asked, as far as that is known.
#[derive(Clone, Default)]
enum Session {
    #[default]
    Unknown,
    Basic,
    Token {
        token: Secret,
        until: Instant,
    },
}

/// The bounds of one poll.
#[derive(Clone, Copy)]
pub(super) struct Bounds {
    pub(super) deadline: Instant,
    pub(super) now: SystemTime,
}

#[derive(Deserialize)]
struct TokenAnswer {
    #[serde(default)]
    token: String,
    #[serde(default)]
    access_token: String,
    #[serde(default)]
    expires_in: Option<u64>,
}

#[derive(Deserialize)]
struct TagList {
    /// Some registries say `null` for nothing.
    tags: Option<Vec<String>>,
}

impl Registry {
    pub(super) fn new(connection: Connection, repository: Repository, auth: Option<AuthSettings>) -> Self {
        Self { connection, repository, auth, session: Mutex::default() }
    }

    pub(super) fn is_insecure(&self) -> bool {
        self.connection.is_insecure()
    }

    /// The failure, without the credential should the registry have said it.
    pub(super) async fn without_credentials(&self, failure: Failure) -> Failure {
        let mut failure = self.connection.without_credentials(failure).await;
        if let Session::Token { token, .. } = &*self.session.lock() {
            hide(&mut failure.message, token.expose());
        }
        failure
    }

    /// The digest behind a tag, without its manifest; `None` where the registry does not say it that way.
    pub(super) async fn resolve(&self, tag: &str, bounds: Bounds) -> Result<Option<String>, Failure> {
        let response = self.ask(Method::HEAD, &format!("manifests/{tag}"), ACCEPTED, bounds).await?;
        let response = self.expect(response, &format!("{}:{tag}", self.repository.shown), bounds)?;
        let digest = response.headers().get("docker-content-digest").and_then(|digest| digest.to_str().ok());
        Ok(digest.filter(|digest| is_digest(digest)).map(str::to_owned))
    }

    /// A manifest by its tag or digest, with its digest; one that was asked for by digest has it.
    pub(super) async fn manifest(
        &self,
        reference: &str,
        bounds: Bounds,
    ) -> Result<(String, Manifest), Failure> {
        let separator = if is_digest(reference) { '@' } else { ':' };
        let what = format!("{}{separator}{reference}", self.repository.shown);
        let response = self.ask(Method::GET, &format!("manifests/{reference}"), ACCEPTED, bounds).await?;
        let response = self.expect(response, &what, bounds)?;
        let body = self.connection.read_all(response, DOCUMENT_LIMIT, &what, bounds.deadline).await?;
        let digest = format!("sha256:{}", hexadecimal(&Sha256::digest(&body)));
        if is_digest(reference) && digest != reference {
            return Err(mismatch(&what, &digest));
        }
        Ok((digest, Manifest::parse(&body)?))
    }

    /// All tags.
    pub(super) async fn tags(&self, bounds: Bounds) -> Result<Vec<String>, Failure> {
        let what = format!("the list of tags of {}", self.repository.shown);
        let mut tags = Vec::new();
        let mut at = self.url("tags/list?n=1000")?;
        for _ in 0..PAGE_LIMIT {
            let response = self.ask_at(Method::GET, &at, "application/json", bounds).await?;
            let response = self.expect(response, &what, bounds)?;
            let next = response.headers().get(header::LINK).and_then(|link| link.to_str().ok());
            let next = next.and_then(parse_next).map(str::to_owned);
            let body = self.connection.read_all(response, DOCUMENT_LIMIT, &what, bounds.deadline).await?;
            let list: TagList = serde_json::from_slice(&body)
                .map_err(|_| Failure::rejected(Rejection::Shape, format!("{what} cannot be read")))?;
            tags.extend(list.tags.unwrap_or_default());
            if tags.len() > TAG_LIMIT {
                return Err(Failure::rejected(
                    Rejection::Limits,
                    format!("{what} has more than {TAG_LIMIT}"),
                ));
            }
            let Some(next) = next else { return Ok(tags) };
            let target = at.join(&next).ok().filter(|target| target.origin() == at.origin());
            at = target.ok_or_else(|| {
                Failure::new(ErrorClass::Integrity, format!("{what} goes on at another server"))
            })?;
        }
        Err(Failure::rejected(Rejection::Limits, format!("{what} has more than {PAGE_LIMIT} pages")))
    }

    /// A part of an artifact; what has another digest is not it.
    pub(super) async fn blob(&self, part: &Descriptor, most: u64, bounds: Bounds) -> Result<Bytes, Failure> {
        let what = format!("the part {:.19}… of {}", part.digest, self.repository.shown);
        if part.size > most {
            let (is, most) = (display_size(part.size), display_size(most));
            return Err(Failure::rejected(
                Rejection::Limits,
                format!("{what} is {is} long, more than {most}"),
            )
            .with_help("raise `limits.pack` if that is meant"));
        }
        let path = format!("blobs/{}", part.digest);
        let response = self.ask(Method::GET, &path, "application/octet-stream", bounds).await?;
        let mut response = self.expect(response, &what, bounds)?;
        let mut body = BytesMut::new();
        let mut hash = Sha256::new();
        while let Some(chunk) = self.connection.chunk(&mut response, bounds.deadline).await? {
            if (body.len() + chunk.len()) as u64 > part.size {
                return Err(mismatch(&what, "more bytes than it has"));
            }
            hash.update(&chunk);
            body.extend_from_slice(&chunk);
        }
        let digest = format!("sha256:{}", hexadecimal(&hash.finalize()));
        if digest != part.digest {
            return Err(mismatch(&what, &digest));
        }
        Ok(body.freeze())
    }

    fn url(&self, path: &str) -> Result<Url, Failure> {
        Url::parse(&format!("{}/{path}", self.repository.url))
            .map_err(|_| Failure::stalled(format!("`{path}` does not fit into an address")))
    }

    async fn ask(
        &self,
        method: Method,
        path: &str,
        accept: &str,
        bounds: Bounds,
    ) -> Result<Response, Failure> {
        self.ask_at(method, &self.url(path)?, accept, bounds).await
    }

    /// The answer to a request, with a token or password where the registry wants one.
    async fn ask_at(
        &self,
        method: Method,
        url: &Url,
        accept: &str,
        bounds: Bounds,
    ) -> Result<Response, Failure> {
        let response = self.send(&method, url, accept, bounds).await?;
        if response.status() != StatusCode::UNAUTHORIZED {
            return Ok(response);
        }
        // A token may have ended earlier than was said, and at first there is none.
        if !self.answer_challenge(&response, bounds).await? {
            return Ok(response);
        }
        self.send(&method, url, accept, bounds).await
    }

    async fn send(
        &self,
        method: &Method,
        url: &Url,
        accept: &str,
        bounds: Bounds,
    ) -> Result<Response, Failure> {
        let client = self.connection.client().await?;
        let authorization = self.authorization().await?;
        let mut at = url.clone();
        for _ in 0..=REDIRECT_LIMIT {
            let mut request = client.request(method.clone(), at.clone()).header(header::ACCEPT, accept);
            // Where blobs really are is another server as a rule, whose addresses are signed.
            if at.origin() == self.repository.url.origin()
                && let Some(value) = &authorization
            {
                request = request.header(header::AUTHORIZATION, value.clone());
            }
            let response = self.connection.send(request, &at, bounds.deadline).await?;
            if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
                return Ok(response);
            }
            let location = response.headers().get(header::LOCATION).and_then(|to| to.to_str().ok());
            let target = location.and_then(|location| at.join(location).ok()).filter(|target| {
                matches!(target.scheme(), "http" | "https")
                    && !(at.scheme() == "https" && target.scheme() == "http")
                    && target.username().is_empty()
                    && target.password().is_none()
            });
            at = target.ok_or_else(|| {
                let message = format!("{} redirects in a way that is not followed", place(&at));
                Failure::new(ErrorClass::Integrity, message)
            })?;
        }
        let message = format!("{} redirects more than {REDIRECT_LIMIT} times", place(url));
        Err(Failure::new(ErrorClass::Integrity, message))
    }

    /// The header for the registry itself.
    async fn authorization(&self) -> Result<Option<HeaderValue>, Failure> {
        let session = self.session.lock().clone();
        let text = match session {
            Session::Unknown => return Ok(None),
            Session::Token { token, until } if until > Instant::now() => format!("Bearer {}", token.expose()),
            Session::Token { .. } => return Ok(None),
            Session::Basic => match self.password().await? {
                Some(password) => password.expose().to_owned(),
                None => return Ok(None),
            },
        };
        sensitive(&Secret::new(text)).map(Some)
    }

    /// `Basic …`, as the credentials are now.
    async fn password(&self) -> Result<Option<Secret>, Failure> {
        let Some(auth) = &self.auth else { return Ok(None) };
        let (username, credential) = match (&auth.token, &auth.basic) {
            (Some(token), _) => (auth.username.as_deref().unwrap_or("x-access-token"), token),
            (None, Some(basic)) => (basic.username.as_str(), &basic.password),
            (None, None) => return Ok(None),
        };
        let secret = self.connection.resolve(credential).await?;
        let joined = Secret::new(format!("{username}:{}", secret.expose()));
        let encoded = base64::engine::general_purpose::STANDARD.encode(joined.expose());
        Ok(Some(Secret::new(format!("Basic {encoded}"))))
    }

    /// Does what a 401 asks for; whether asking again makes sense.
    async fn answer_challenge(&self, response: &Response, bounds: Bounds) -> Result<bool, Failure> {
        let challenges = response.headers().get_all(header::WWW_AUTHENTICATE);
        let mut found: Vec<Challenge> =
            challenges.iter().filter_map(|value| value.to_str().ok().and_then(parse_challenge)).collect();
        found.sort_by_key(|challenge| matches!(challenge, Challenge::Basic));
        match found.first() {
            None => Ok(false),
            Some(Challenge::Basic) => {
                let had = matches!(*self.session.lock(), Session::Basic);
                *self.session.lock() = Session::Basic;
                Ok(!had && self.auth.is_some())
            }
            Some(Challenge::Bearer { realm, service }) => {
                let session = self.fetch_token(realm, service.as_deref(), bounds).await?;
                *self.session.lock() = session;
                Ok(true)
            }
        }
    }

    async fn fetch_token(
        &self,
        realm: &str,
        service: Option<&str>,
        bounds: Bounds,
    ) -> Result<Session, Failure> {
        let odd = |what: &str| {
            let message = format!("{} wants tokens from {what}", self.repository.shown);
            Failure::new(ErrorClass::Integrity, message)
        };
        let mut url = Url::parse(realm).map_err(|_| odd("what is no address"))?;
        let own = url.origin() == self.repository.url.origin();
        // Whoever answers there gets the password.
        let local = is_loopback(&url) && is_loopback(&self.repository.url);
        if !own && url.scheme() != "https" && !local {
            return Err(odd("another server without encryption"));
        }
        if !matches!(url.scheme(), "http" | "https") || !url.username().is_empty() || url.password().is_some()
        {
            return Err(odd("an address that is not asked"));
        }
        {
            let mut query = url.query_pairs_mut();
            if let Some(service) = service {
                query.append_pair("service", service);
            }
            // Never more than this, whatever the registry would like us to ask for.
            query.append_pair("scope", &format!("repository:{}:pull", self.repository.name));
        }
        let client = self.connection.client().await?;
        let mut request = client.get(url.clone()).header(header::ACCEPT, "application/json");
        if let Some(password) = self.password().await? {
            request = request.header(header::AUTHORIZATION, sensitive(&password)?);
        }
        let response = self.connection.send(request, &url, bounds.deadline).await?;
        let shown = place(&url);
        if response.status() != StatusCode::OK {
            let failure = self.connection.refused(&response, bounds.now);
            let message = format!("{shown} gives no token ({})", response.status().as_u16());
            return Err(
                Failure { message, ..failure }.with_help("check `auth`, and that it may read the repository")
            );
        }
        let body = self.connection.read_all(response, TOKEN_LIMIT, &shown, bounds.deadline).await?;
        let none = || Failure::transient(format!("{shown} answers with something that is no token"));
        let answer: TokenAnswer = serde_json::from_slice(&body).map_err(|_| none())?;
        let token = if answer.token.is_empty() { answer.access_token } else { answer.token };
        if token.is_empty() {
            return Err(none());
        }
        let lifetime = answer.expires_in.map_or(TOKEN_LIFETIME, Duration::from_secs);
        let lifetime = lifetime.min(Duration::from_secs(24 * 60 * 60));
        let usable = lifetime.saturating_sub(TOKEN_MARGIN).max(lifetime / 2);
        Ok(Session::Token { token: Secret::new(token), until: Instant::now() + usable })
    }

    /// Refuses every status but 200.
    fn expect(&self, response: Response, what: &str, bounds: Bounds) -> Result<Response, Failure> {
        let status = response.status();
        if status == StatusCode::OK {
            return Ok(response);
        }
        if status.is_success() {
            let message = format!("{what}: the registry answers with status {}", status.as_u16());
            return Err(Failure::rejected(Rejection::Shape, message));
        }
        let failure = self.connection.refused(&response, bounds.now);
        let doubt =
            if self.auth.is_some() { "this credential may not see it" } else { "it needs a credential" };
        Err(match failure.class {
            ErrorClass::NotFound => {
                Failure { message: format!("{what} is not there, or {doubt} (404)"), ..failure }
            }
            ErrorClass::Forbidden => Failure {
                message: format!("{what} may not be read (403)"),
                help: Some("the credential needs permission to pull from the repository".to_owned()),
                ..failure
            },
            _ => failure,
        })
    }
}

fn sensitive(text: &Secret) -> Result<HeaderValue, Failure> {
    let mut value = HeaderValue::from_str(text.expose()).map_err(|_| unfit("the credential"))?;
    value.set_sensitive(true);
    Ok(value)
}

fn mismatch(what: &str, found: &str) -> Failure {
    Failure::new(ErrorClass::Integrity, format!("{what} is not what its digest says, but {found}"))
        .with_help("the registry, or something on the way to it, changed the content")
}

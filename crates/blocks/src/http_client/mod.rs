//! The HTTP client that a configuration describes: arguments that many components share, and a client built from
//! them that authenticates each request, reloads what it reads from files, and follows redirects without carrying
//! credentials to another origin. Nothing it reports holds a credential.

mod arguments;
mod credentials;
mod dressing;
mod oauth2;
mod proxy;
#[cfg(test)]
mod tests;
mod transport;

use std::error::Error as _;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::header::{
    AUTHORIZATION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, COOKIE, HOST, HeaderName, LOCATION,
};
use http::{Method, StatusCode};
use tokio::time::Instant;
use url::Url;

pub use self::arguments::{
    AuthenticationArguments, AuthorizationBlock, BasicAuthBlock, Http1ClientArguments, HttpClientArguments,
    OAuth2Block, ProxyArguments, ProxyUrl, TlsConfigBlock, TlsVersion, http_url, redact_url,
};
use self::credentials::{Authentication, sensitive};
pub use self::credentials::{AuthenticationHeaders, RequestAuthenticator};
use self::dressing::Dressing;
use self::oauth2::TokenSource;
use self::transport::Transport;
use invar_policy::{Access, Refusal};
use invar_tls::PemError;

/// How often a request is sent again after a refusal, while secrets change.
const MOST_ATTEMPTS: usize = 3;
/// As many redirects as Go programs follow.
const MAX_REDIRECTS: usize = 10;

/// What the component decides about its client, not the configuration.
#[derive(Clone, Debug)]
pub struct HttpClientOptions {
    /// The `User-Agent` header.
    pub user_agent: String,
    /// How long name resolution, connecting and the TLS handshake may take together.
    pub connect_timeout: Duration,
    /// For requests that bring no timeout of their own: from sending to the end of the body, redirects included.
    pub timeout: Duration,
    /// How long an unused connection is kept.
    pub pool_idle_timeout: Duration,
    /// How many unused connections are kept per host.
    pub pool_max_idle_per_host: usize,
    /// Whether responses are decompressed (gzip is then asked for). Who has to limit the decompressed size does it itself.
    pub decompress: bool,
    /// What those who wrote the arguments may use of the host.
    pub access: Access,
}

/// A client as its arguments describe it. Cloning shares connections and tokens.
#[derive(Clone, Debug)]
pub struct HttpClient {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    transport: Transport,
    dressing: Dressing,
    follow_redirects: bool,
    default_timeout: Duration,
}

/// Why a client cannot be built or a request got no response.
#[derive(Debug, thiserror::Error)]
pub enum HttpClientError {
    /// An argument cannot be used.
    #[error("{field}: {message}")]
    Invalid {
        /// The argument.
        field: &'static str,
        /// What is wrong with it.
        message: String,
    },
    /// A file with a credential cannot be read.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A certificate or a key cannot be used.
    #[error("tls_config: {0}")]
    Tls(#[from] PemError),
    /// The ceiling of the host's settings does not allow to connect there.
    #[error(transparent)]
    NotAllowed(#[from] Refusal),
    /// No OAuth 2.0 token could be had.
    #[error("no OAuth 2.0 token: {message}")]
    Token {
        /// Why not.
        message: String,
    },
    /// No credentials or no signature could be had.
    #[error("{message}")]
    Identity {
        /// Why not.
        message: String,
    },
    /// The time was over.
    #[error("timed out{}", if *connecting { " while connecting" } else { "" })]
    Timeout {
        /// Whether there was no connection yet.
        connecting: bool,
    },
    /// There is no connection: name resolution, connecting, the proxy or the TLS handshake failed.
    #[error("cannot connect: {message}")]
    Connect {
        /// Why not.
        message: String,
    },
    /// The exchange broke off.
    #[error("{message}")]
    Exchange {
        /// How.
        message: String,
    },
    /// The server redirects without end, or to where it must not.
    #[error("redirect: {message}")]
    Redirect {
        /// What is wrong with it.
        message: String,
    },
}

// === impl HttpClientOptions ===

impl HttpClientOptions {
    /// The usual options of a client whose arguments were written by somebody who may use so much.
    pub fn under(access: Access) -> Self {
        Self {
            access,
            user_agent: concat!("Invar/", env!("CARGO_PKG_VERSION")).to_owned(),
            connect_timeout: Duration::from_secs(10),
            timeout: Duration::from_secs(30),
            // Longer than any sensible interval, so that periodic requests reuse their connection.
            pool_idle_timeout: Duration::from_secs(300),
            pool_max_idle_per_host: 64,
            decompress: true,
        }
    }
}

// === impl HttpClient ===

impl HttpClient {
    /// Builds the client; reads certificate files, opens no connection.
    ///
    /// # Errors
    ///
    /// Where a certificate or key cannot be read or used. Files with passwords and tokens are read with each request
    /// and may come into being later.
    pub async fn new(
        arguments: &HttpClientArguments,
        options: HttpClientOptions,
    ) -> Result<Self, HttpClientError> {
        Self::build(arguments, options, None).await
    }

    /// Builds a client that authenticates in a way that its arguments do not know, and not as they say.
    ///
    /// # Errors
    ///
    /// As [`Self::new`].
    pub async fn with_authenticator(
        arguments: &HttpClientArguments,
        options: HttpClientOptions,
        authenticator: Arc<dyn RequestAuthenticator>,
    ) -> Result<Self, HttpClientError> {
        Self::build(arguments, options, Some(authenticator)).await
    }

    async fn build(
        arguments: &HttpClientArguments,
        options: HttpClientOptions,
        authenticator: Option<Arc<dyn RequestAuthenticator>>,
    ) -> Result<Self, HttpClientError> {
        let transport =
            Transport::new(arguments.tls_config.as_ref(), &arguments.proxy, arguments.enable_http2, &options)
                .await?;
        let token_source = match &arguments.authentication.oauth2 {
            None => None,
            Some(block) => {
                let transport =
                    Transport::new(block.tls_config.as_ref(), &block.proxy, true, &options).await?;
                Some(TokenSource::new(block, transport)?)
            }
        };
        let mut headers = Vec::new();
        for (name, values) in &arguments.http_headers {
            let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| HttpClientError::Invalid {
                field: "http_headers",
                message: format!("{name:?} is no header name"),
            })?;
            for value in values {
                sensitive(&value.read())?;
                headers.push((name.clone(), value.clone()));
            }
        }
        let authentication = match authenticator {
            Some(authenticator) => Authentication::Other(authenticator),
            None => Authentication::new(&arguments.authentication, token_source),
        };
        Ok(Self {
            shared: Arc::new(Shared {
                transport,
                dressing: Dressing::new(authentication, headers, options.access),
                follow_redirects: arguments.follow_redirects,
                default_timeout: options.timeout,
            }),
        })
    }

    /// Sends a request, authenticated, and follows redirects. The request's timeout covers all of it, the body of the
    /// response included.
    ///
    /// # Errors
    ///
    /// Where there is no response; a response of any status is none.
    pub async fn execute(&self, mut request: reqwest::Request) -> Result<reqwest::Response, HttpClientError> {
        let shared = &*self.shared;
        let timeout = request.timeout().copied().unwrap_or(shared.default_timeout);
        let deadline = Instant::now() + timeout;
        let origin = request.url().origin();
        let mut added = Vec::new();
        for _ in 0..=MAX_REDIRECTS {
            // What was meant for the first origin stays with it, and is that of now if a redirect leads back there.
            let own = request.url().origin() == origin;
            shared.dressing.undress(&mut request, std::mem::take(&mut added));
            let mut version = 0;
            if own {
                (version, added) = tokio::time::timeout_at(deadline, shared.dressing.dress(&mut request))
                    .await
                    .map_err(|_| HttpClientError::Timeout { connecting: true })??;
            }
            *request.timeout_mut() = Some(deadline.saturating_duration_since(Instant::now()));
            // The transport may rewrite the host, and a body that is a stream cannot be sent twice.
            let url = request.url().clone();
            let again = if shared.follow_redirects || version > 0 { request.try_clone() } else { None };
            let mut response = shared.transport.send(request).await?;
            if own && is_refusal(response.status()) {
                shared.dressing.refused(response.status());
                if version > 0 {
                    response = shared.ask_otherwise(again.as_ref(), version, response, deadline).await;
                }
            }
            let again = again.filter(|_| shared.follow_redirects);
            let (Some(next), Some(location)) = (again, redirect_target(&response, &url)?) else {
                return Ok(response);
            };
            request = next;
            redirect(&mut request, &url, location, response.status())?;
        }
        Err(HttpClientError::Redirect { message: format!("more than {MAX_REDIRECTS} in a row") })
    }

    /// Adds to a request what is added when it is sent: credentials and headers, of one version.
    ///
    /// # Errors
    ///
    /// Where they are not to be had, or cannot be sent.
    pub async fn dress(&self, request: &mut reqwest::Request) -> Result<(), HttpClientError> {
        self.shared.dressing.dress(request).await.map(drop)
    }

    /// What a server said, without the credentials that it was shown: some quote them in their errors.
    pub async fn conceal(&self, said: String) -> String {
        self.shared.dressing.conceal(said).await
    }

    /// Whether a refusal may be due to a rotation: what requests are authenticated with changed lately, or it was refused
    /// lately for the first time, as when the server learnt of the new before this client did.
    #[must_use]
    pub fn rotated_lately(&self) -> bool {
        self.shared.dressing.rotated_lately()
    }

    /// A `GET` request for `url` with default options, executed.
    ///
    /// # Errors
    ///
    /// As [`Self::execute`].
    pub async fn get(&self, url: Url) -> Result<reqwest::Response, HttpClientError> {
        self.execute(reqwest::Request::new(Method::GET, url)).await
    }
}

impl Shared {
    /// The server refused the secrets of `version`: asks with those that came meanwhile, and with those before, while they
    /// may still be accepted. Whoever keeps them is told what came of it.
    async fn ask_otherwise(
        &self,
        request: Option<&reqwest::Request>,
        version: u64,
        refused: reqwest::Response,
        deadline: Instant,
    ) -> reqwest::Response {
        let dressing = &self.dressing;
        let mut latest = version;
        let mut tried_other = false;
        for _ in 0..MOST_ATTEMPTS {
            let Some(mut next) = request.and_then(reqwest::Request::try_clone) else { break };
            let now = dressing.version();
            if now != latest {
                let dressed = tokio::time::timeout_at(deadline, dressing.dress(&mut next)).await;
                let Ok(Ok((of, _))) = dressed else { return refused };
                latest = of;
                tried_other = false;
            } else if !tried_other && dressing.dress_otherwise(&mut next) {
                tried_other = true;
            } else {
                break;
            }
            *next.timeout_mut() = Some(deadline.saturating_duration_since(Instant::now()));
            match self.transport.send(next).await {
                Ok(response) if is_refusal(response.status()) => {}
                Ok(response) => {
                    if tried_other {
                        dressing.tell_refused(latest);
                    }
                    return response;
                }
                // Nothing is known of the others.
                Err(_) => return refused,
            }
        }
        dressing.tell_lost(latest);
        refused
    }
}

fn is_refusal(status: StatusCode) -> bool {
    matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN)
}

fn redirect_target(response: &reqwest::Response, url: &Url) -> Result<Option<Url>, HttpClientError> {
    if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
        return Ok(None);
    }
    let Some(location) = response.headers().get(LOCATION) else { return Ok(None) };
    let wrong = |message: &str| HttpClientError::Redirect { message: message.to_owned() };
    let location = location.to_str().map_err(|_| wrong("the Location header is no text"))?;
    let target = url.join(location).map_err(|_| wrong("the Location header is no URL"))?;
    if !matches!(target.scheme(), "http" | "https") {
        return Err(wrong("the Location header leads away from HTTP"));
    }
    Ok(Some(target))
}

/// Turns `request` into the one that follows a redirect from `url` to `target` (RFC 9110, section 15.4).
fn redirect(
    request: &mut reqwest::Request,
    url: &Url,
    target: Url,
    status: StatusCode,
) -> Result<(), HttpClientError> {
    if url.scheme() == "https"
        && target.scheme() == "http"
        && request.body().is_some()
        && keeps_method(status)
    {
        return Err(HttpClientError::Redirect {
            message: "from https to http, where the body would travel in the clear".to_owned(),
        });
    }
    if !keeps_method(status) && *request.method() != Method::HEAD && *request.method() != Method::GET {
        *request.method_mut() = Method::GET;
        *request.body_mut() = None;
        for name in [CONTENT_TYPE, CONTENT_LENGTH, CONTENT_ENCODING] {
            request.headers_mut().remove(name);
        }
    }
    request.headers_mut().remove(HOST);
    if target.origin() != url.origin() {
        // What was meant for the first origin stays with it. The client's own headers are its dressing's business.
        for name in [AUTHORIZATION, COOKIE] {
            request.headers_mut().remove(name);
        }
    }
    *request.url_mut() = target;
    Ok(())
}

fn keeps_method(status: StatusCode) -> bool {
    matches!(status, StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT)
}

// === impl HttpClientError ===

impl HttpClientError {
    /// Takes over what the transport reports, without the URL, which may hold credentials.
    pub fn from_reqwest(error: reqwest::Error) -> Self {
        let error = error.without_url();
        if error.is_timeout() {
            return Self::Timeout { connecting: error.is_connect() };
        }
        let message = innermost(&error);
        if error.is_connect() { Self::Connect { message } } else { Self::Exchange { message } }
    }

    /// Whether the same request may succeed later without a change of the configuration.
    pub fn is_retryable(&self) -> bool {
        !matches!(self, Self::Invalid { .. })
    }

    /// Whether the time was over.
    pub fn is_timeout(&self) -> bool {
        matches!(self, Self::Timeout { .. })
    }
}

/// The causes of an error joined; the outer layers only say that something went wrong.
fn innermost(error: &reqwest::Error) -> String {
    let mut parts: Vec<String> = Vec::new();
    let mut cause = error.source();
    while let Some(current) = cause {
        let text = current.to_string();
        if !parts.contains(&text) {
            parts.push(text);
        }
        cause = current.source();
    }
    if parts.is_empty() { error.to_string() } else { parts.join(": ") }
}

//! The HTTP side of the Git protocol: one connection per source, one request per unchanged poll.
//!
//! The server's advertisement is remembered, so that a poll posts `ls-refs` directly; any surprise makes
//! it be asked anew. Credentials go to the configured origin alone and never over plain HTTP, except to
//! this host.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use bytes::{Bytes, BytesMut};
use http::{HeaderValue, Method, StatusCode, header};
use invar_secrets::{SecretError, SecretStores};
use invar_tls::ClientSettings;
use parking_lot::Mutex;
use reqwest::{Client, NoProxy, Proxy, Response};
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};
use url::{Host, Url};

use super::protocol::{
    Advertisement, FetchReader, FetchRequest, ProtocolError, RemoteReference, encode_fetch, encode_ls_refs,
    parse_advertisement, parse_ls_refs,
};
use crate::error::{ErrorClass, Failure, Rejection};
use crate::http_status;
use crate::settings::{AuthSettings, ProxySettings, TlsSettings};
use crate::tls;
use crate::units::display_size;

/// Time to set up a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Time for asking which references there are.
const PROBE_TIMEOUT: Duration = Duration::from_secs(10);
/// Time without a byte after which a transfer is given up.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// The longest advertisement or list of references, in bytes.
const LIST_LIMIT: usize = 32 * 1024 * 1024;
/// How often a redirect is followed.
const REDIRECT_LIMIT: usize = 5;
/// How long after a rotation a refused credential counts as not yet known to every server (D17).
const ROTATION_GRACE: Duration = Duration::from_secs(60);

/// Parts of a pack on their way to the indexer; the end is said, so that a broken transfer is not taken
/// for a complete one.
pub(super) enum PackPart {
    Bytes(Bytes),
    End,
}

/// One remote repository behind HTTP.
pub(super) struct HttpWire {
    url: Url,
    auth: Option<AuthSettings>,
    tls: TlsSettings,
    proxy: Option<ProxySettings>,
    secrets: SecretStores,
    remembered: Mutex<Option<Remembered>>,
    client: Mutex<Option<(String, Client)>>,
    /// The fingerprint of the credential in use, and since when if it replaced another one.
    credential: Mutex<(Option<[u8; 32]>, Option<Instant>)>,
}

#[derive(Clone)]
struct Remembered {
    base: Url,
    advertisement: Arc<Advertisement>,
}

impl fmt::Debug for HttpWire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HttpWire({})", self.url)
    }
}

impl HttpWire {
    /// `url` carries no credentials. Does no input or output.
    pub(super) fn new(
        url: Url,
        auth: Option<AuthSettings>,
        tls: TlsSettings,
        proxy: Option<ProxySettings>,
        secrets: SecretStores,
    ) -> Result<Self, Failure> {
        if url.scheme() == "http" && auth.is_some() && !is_loopback(&url) {
            return Err(Failure::stalled(format!("a credential is not sent to {url} without encryption"))
                .with_help("use https://"));
        }
        if let Some(proxy) = &proxy {
            let parsed = Url::parse(&proxy.url).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
            let Some(parsed) = parsed else {
                return Err(Failure::stalled("`proxy.url` is not an http:// or https:// address"));
            };
            if !parsed.username().is_empty() || parsed.password().is_some() {
                return Err(Failure::stalled(
                    "`proxy.url` holds a credential; use `proxy.username` and `proxy.password`",
                ));
            }
        }
        Ok(Self {
            url,
            auth,
            tls,
            proxy,
            secrets,
            remembered: Mutex::default(),
            client: Mutex::default(),
            credential: Mutex::default(),
        })
    }

    /// Whether nothing protects the connection.
    pub(super) fn is_insecure(&self) -> bool {
        self.url.scheme() == "http" && !is_loopback(&self.url)
    }

    /// Where the server sent us, if not where the settings say.
    pub(super) fn redirected_to(&self) -> Option<String> {
        let remembered = self.remembered.lock();
        let base = &remembered.as_ref()?.base;
        (base.path().trim_end_matches('/') != self.url.path().trim_end_matches('/')
            || base.origin() != self.url.origin())
        .then(|| base.to_string())
    }

    /// The references whose names start with one of `prefixes`.
    pub(super) async fn list(
        &self,
        prefixes: &[String],
        deadline: Instant,
        now: SystemTime,
    ) -> Result<Vec<RemoteReference>, Failure> {
        let deadline = deadline.min(Instant::now() + PROBE_TIMEOUT);
        let remembered = self.remembered.lock().clone();
        if let Some(remembered) = remembered
            && remembered.advertisement.version == 2
        {
            match self.ls_refs(&remembered, prefixes, deadline, now).await {
                Ok(references) => return Ok(references),
                Err(Attempt::Surprise(_)) => *self.remembered.lock() = None,
                Err(Attempt::Failed(failure)) => return Err(failure),
            }
        }
        let remembered = self.advertised(deadline, now).await?;
        *self.remembered.lock() = Some(remembered.clone());
        if remembered.advertisement.version != 2 {
            let mut references = remembered.advertisement.references.clone();
            let wanted = |reference: &RemoteReference| {
                prefixes.iter().any(|prefix| reference.name.starts_with(prefix))
            };
            references.retain(wanted);
            return Ok(references);
        }
        self.ls_refs(&remembered, prefixes, deadline, now).await.map_err(Attempt::failure)
    }

    async fn ls_refs(
        &self,
        remembered: &Remembered,
        prefixes: &[String],
        deadline: Instant,
        now: SystemTime,
    ) -> Result<Vec<RemoteReference>, Attempt> {
        let body = encode_ls_refs(&remembered.advertisement, prefixes);
        let response = self.post(remembered, body, deadline, now).await?;
        let bytes = self.read_all(response, deadline).await.map_err(Attempt::Failed)?;
        parse_ls_refs(&bytes).map_err(|error| match error {
            ProtocolError::Truncated => Attempt::Failed(self.protocol_failure(&error)),
            other => Attempt::Surprise(self.protocol_failure(&other)),
        })
    }

    async fn advertised(&self, deadline: Instant, now: SystemTime) -> Result<Remembered, Failure> {
        let mut url = endpoint(&self.url, "info/refs");
        url.set_query(Some("service=git-upload-pack"));
        for _ in 0..=REDIRECT_LIMIT {
            let response = self.send(Method::GET, &url, None, deadline).await?;
            let status = response.status();
            if matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308) {
                url = self.redirect(&url, &response)?;
                continue;
            }
            if status != StatusCode::OK {
                return Err(self.refused(&response, now));
            }
            let content_type = response.headers().get(header::CONTENT_TYPE).cloned();
            let is_git =
                content_type.is_some_and(|value| value == "application/x-git-upload-pack-advertisement");
            if !is_git {
                return Err(Failure::rejected(
                    Rejection::Shape,
                    format!("{} does not answer like a Git server", self.url),
                )
                .with_help("a web page, a login page or a server without smart HTTP answers there"));
            }
            let bytes = self.read_all(response, deadline).await?;
            let advertisement = parse_advertisement(&bytes).map_err(|error| self.protocol_failure(&error))?;
            if !advertisement.is_sha1() {
                return Err(Failure::stalled(format!(
                    "{} names its objects by SHA-256, which cannot be read yet",
                    self.url
                )));
            }
            let mut base = url.clone();
            base.set_query(None);
            let path = base.path().trim_end_matches("/info/refs").to_owned();
            base.set_path(&path);
            return Ok(Remembered { base, advertisement: Arc::new(advertisement) });
        }
        Err(Failure::new(
            ErrorClass::Integrity,
            format!("{} redirects more than {REDIRECT_LIMIT} times", self.url),
        ))
    }

    fn redirect(&self, from: &Url, response: &Response) -> Result<Url, Failure> {
        let integrity =
            |what: &str| Failure::new(ErrorClass::Integrity, format!("{} redirects {what}", self.url));
        let location = response.headers().get(header::LOCATION).and_then(|value| value.to_str().ok());
        let location = location.ok_or_else(|| integrity("without saying where"))?;
        let mut to = from.join(location).map_err(|_| integrity("to something that is no address"))?;
        // Credentials in a redirect are somebody else's.
        if to.set_username("").is_err() || to.set_password(None).is_err() {
            return Err(integrity("to something that is no address"));
        }
        if !(to.scheme() == "https" || to.scheme() == "http" && from.scheme() == "http") {
            return Err(integrity("to an unencrypted address"));
        }
        if !to.path().ends_with("/info/refs") {
            return Err(integrity("to a page that is no repository; is it a login page?"));
        }
        Ok(to)
    }

    /// Fetches a pack and passes it on in parts; gives the number of bytes. Nothing is said to be complete
    /// before it is.
    pub(super) async fn fetch(
        &self,
        request: &FetchRequest,
        limit: u64,
        pack: mpsc::Sender<PackPart>,
        deadline: Instant,
        now: SystemTime,
    ) -> Result<u64, Failure> {
        let known = self.remembered.lock().clone();
        let remembered = match known {
            Some(remembered) => remembered,
            None => {
                let remembered = self.advertised(deadline, now).await?;
                *self.remembered.lock() = Some(remembered.clone());
                remembered
            }
        };
        let advertisement = &remembered.advertisement;
        let body = encode_fetch(advertisement, request);
        let mut response = match self.post(&remembered, body, deadline, now).await {
            Ok(response) => response,
            Err(attempt) => {
                *self.remembered.lock() = None;
                return Err(attempt.failure());
            }
        };
        let mut reader = FetchReader::new(advertisement.version);
        let mut received = 0_u64;
        while let Some(chunk) = self.chunk(&mut response, deadline).await? {
            received += chunk.len() as u64;
            if received > limit {
                return Err(Failure::rejected(
                    Rejection::Limits,
                    format!("the server sends more than {} for one commit", display_size(limit)),
                )
                .with_help("raise `limits.pack`, or use a smaller repository"));
            }
            for part in reader.push(&chunk).map_err(|error| self.protocol_failure(&error))? {
                if pack.send(PackPart::Bytes(part)).await.is_err() {
                    // The indexer has given up; what it says about the pack is better than what is known here.
                    return Ok(received);
                }
            }
        }
        reader.finish().map_err(|error| self.protocol_failure(&error))?;
        // As above, should the indexer be gone.
        drop(pack.send(PackPart::End).await);
        Ok(received)
    }

    async fn post(
        &self,
        remembered: &Remembered,
        body: Vec<u8>,
        deadline: Instant,
        now: SystemTime,
    ) -> Result<Response, Attempt> {
        let url = endpoint(&remembered.base, "git-upload-pack");
        let response = self.send(Method::POST, &url, Some(body), deadline).await.map_err(Attempt::Failed)?;
        let is_git = response
            .headers()
            .get(header::CONTENT_TYPE)
            .is_some_and(|value| value == "application/x-git-upload-pack-result");
        match response.status().as_u16() {
            200 if is_git => Ok(response),
            200 => Err(Attempt::Surprise(Failure::rejected(
                Rejection::Shape,
                format!("{} does not answer like a Git server", self.url),
            ))),
            300..=399 | 400 | 404 | 405 | 410 | 415 => Err(Attempt::Surprise(self.refused(&response, now))),
            _ => Err(Attempt::Failed(self.refused(&response, now))),
        }
    }

    /// The failure behind a status, with the benefit of the doubt right after a rotation.
    fn refused(&self, response: &Response, now: SystemTime) -> Failure {
        let credential = self.auth.is_some();
        let failure =
            http_status::failure(response.status(), response.headers(), self.url.as_str(), credential, now);
        let rotated = self.credential.lock().1.is_some_and(|at| at.elapsed() < ROTATION_GRACE);
        match failure.class {
            ErrorClass::AuthExpired | ErrorClass::Forbidden if rotated => Failure {
                class: ErrorClass::Transient,
                message: format!("{}; the credential changed less than a minute ago", failure.message),
                help: failure.help,
            },
            _ => failure,
        }
    }

    async fn send(
        &self,
        method: Method,
        url: &Url,
        body: Option<Vec<u8>>,
        deadline: Instant,
    ) -> Result<Response, Failure> {
        let client = self.client().await?;
        let mut request = client.request(method, url.clone()).header("git-protocol", "version=2");
        if url.origin() == self.url.origin()
            && let Some(value) = self.authorization().await?
        {
            request = request.header(header::AUTHORIZATION, value);
        }
        if let Some(body) = body {
            request = request
                .header(header::CONTENT_TYPE, "application/x-git-upload-pack-request")
                .header(header::ACCEPT, "application/x-git-upload-pack-result")
                .body(body);
        }
        match timeout_at(deadline, request.send()).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => Err(self.transport_failure(error)),
            Err(_) => Err(self.too_slow()),
        }
    }

    async fn chunk(&self, response: &mut Response, deadline: Instant) -> Result<Option<Bytes>, Failure> {
        let deadline = deadline.min(Instant::now() + IDLE_TIMEOUT);
        match timeout_at(deadline, response.chunk()).await {
            Ok(Ok(chunk)) => Ok(chunk),
            Ok(Err(error)) => Err(self.transport_failure(error)),
            Err(_) => Err(self.too_slow()),
        }
    }

    async fn read_all(&self, mut response: Response, deadline: Instant) -> Result<Bytes, Failure> {
        let mut bytes = BytesMut::new();
        while let Some(chunk) = self.chunk(&mut response, deadline).await? {
            if bytes.len() + chunk.len() > LIST_LIMIT {
                return Err(Failure::rejected(
                    Rejection::Limits,
                    format!("the list of references is longer than {}", display_size(LIST_LIMIT as u64)),
                ));
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes.freeze())
    }

    /// The client, made anew when a file of `tls` or the proxy's password changed.
    async fn client(&self) -> Result<Client, Failure> {
        let password = match self.proxy.as_ref().and_then(|proxy| proxy.password.as_ref()) {
            Some(password) => {
                Some(password.resolve(&self.secrets).await.map_err(|error| secret_failure(&error))?)
            }
            None => None,
        };
        let (settings, needs_tls) = (self.tls.clone(), self.url.scheme() == "https" || self.proxy.is_some());
        let mut fingerprint = tls_fingerprint(&settings);
        if let Some(password) = &password {
            let digest = Sha256::digest(password.expose());
            fingerprint.push_str(&crate::snapshot::hexadecimal(&digest));
        }
        if let Some((held, client)) = &*self.client.lock()
            && *held == fingerprint
        {
            return Ok(client.clone());
        }
        let mut builder = Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT_TIMEOUT)
            .user_agent(concat!("git/2 (invar ", env!("CARGO_PKG_VERSION"), ")"))
            .no_proxy()
            .http1_only()
            .referer(false);
        // Plain HTTP without a proxy needs no authorities, and reading those of the system takes a while.
        let config = if needs_tls {
            let material = tls::material(&settings).await?;
            tokio::task::spawn_blocking(move || tls::client_config(&settings, &material))
                .await
                .map_err(|_| Failure::transient("setting up TLS was interrupted"))??
        } else {
            ClientSettings::plain_text_only().map_err(|error| Failure::stalled(error.to_string()))?
        };
        builder = builder.tls_backend_preconfigured(config);
        if let Some(settings) = &self.proxy {
            let mut proxy = Proxy::all(&settings.url)
                .map_err(|_| Failure::stalled("`proxy.url` is not an address"))?
                .no_proxy(NoProxy::from_string(&settings.no_proxy.join(",")));
            if let Some(username) = &settings.username {
                proxy =
                    proxy.basic_auth(username, password.as_ref().map_or("", |password| password.expose()));
            }
            builder = builder.proxy(proxy);
        }
        let client = builder.build().map_err(|error| {
            Failure::stalled(format!("the connection cannot be set up: {}", chain(&error)))
        })?;
        *self.client.lock() = Some((fingerprint, client.clone()));
        Ok(client)
    }

    async fn authorization(&self) -> Result<Option<HeaderValue>, Failure> {
        let Some(auth) = &self.auth else { return Ok(None) };
        let (username, credential) = match (&auth.token, &auth.basic) {
            (Some(token), _) => (auth.username.as_deref().unwrap_or("x-access-token"), token),
            (None, Some(basic)) => (basic.username.as_str(), &basic.password),
            (None, None) => return Ok(None),
        };
        let secret = credential.resolve(&self.secrets).await.map_err(|error| secret_failure(&error))?;
        let joined = invar_secrets::Secret::new(format!("{username}:{}", secret.expose()));
        let encoded = invar_secrets::Secret::new(format!(
            "Basic {}",
            base64::engine::general_purpose::STANDARD.encode(joined.expose())
        ));
        let fingerprint: [u8; 32] = Sha256::digest(encoded.expose()).into();
        {
            let mut held = self.credential.lock();
            if held.0.is_some_and(|held| held != fingerprint) {
                held.1 = Some(Instant::now());
            }
            held.0 = Some(fingerprint);
        }
        let mut value = HeaderValue::from_str(encoded.expose())
            .map_err(|_| Failure::stalled("the credential does not fit into an HTTP header"))?;
        value.set_sensitive(true);
        Ok(Some(value))
    }

    fn too_slow(&self) -> Failure {
        Failure::transient(format!("{} does not answer in time", self.url))
    }

    fn transport_failure(&self, error: reqwest::Error) -> Failure {
        let error = error.without_url();
        let what = if error.is_connect() { "cannot be reached" } else { "broke the connection off" };
        Failure::transient(format!("{} {what}: {}", self.url, chain(&error)))
    }

    fn protocol_failure(&self, error: &ProtocolError) -> Failure {
        match error {
            ProtocolError::Refused(reason) if reason.contains("not our ref") => Failure::new(
                ErrorClass::NotFound,
                format!("{} does not have the commit, or does not hand it out by its id", self.url),
            ),
            ProtocolError::Truncated | ProtocolError::Refused(_) => {
                Failure::transient(format!("{}: {error}", self.url))
            }
            ProtocolError::TooLong(_) => {
                Failure::rejected(Rejection::Limits, format!("{}: {error}", self.url))
            }
            ProtocolError::Framing(_) | ProtocolError::Unexpected => {
                Failure::rejected(Rejection::Shape, format!("{}: {error}", self.url))
            }
        }
    }
}

/// An answer to a request that relies on a remembered advertisement.
enum Attempt {
    /// It may be that the server changed: ask for the advertisement again.
    Surprise(Failure),
    Failed(Failure),
}

impl Attempt {
    fn failure(self) -> Failure {
        match self {
            Self::Surprise(failure) | Self::Failed(failure) => failure,
        }
    }
}

fn endpoint(base: &Url, name: &str) -> Url {
    let mut url = base.clone();
    url.set_path(&format!("{}/{name}", base.path().trim_end_matches('/')));
    url
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    }
}

fn secret_failure(error: &SecretError) -> Failure {
    let class = match error {
        SecretError::Unavailable { .. } => ErrorClass::Transient,
        SecretError::UnknownStore { .. } => ErrorClass::Stalled,
        SecretError::Missing { .. } | SecretError::Denied { .. } | SecretError::Invalid { .. } => {
            ErrorClass::AuthExpired
        }
    };
    Failure::new(class, format!("the credential of the source cannot be had: {error}"))
}

/// Changes whenever a file of `tls` does; sizes and times are enough to notice that.
fn tls_fingerprint(tls: &TlsSettings) -> String {
    [&tls.ca, &tls.cert, &tls.key]
        .into_iter()
        .flatten()
        .map(|path| match std::fs::metadata(path) {
            Ok(metadata) => format!("{:?}/{};", metadata.modified().ok(), metadata.len()),
            Err(_) => "absent;".to_owned(),
        })
        .collect()
}

/// An error with its causes, which reqwest leaves out of its text.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        cause = error.source();
    }
    text
}

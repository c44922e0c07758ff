//! An HTTP connection of one source: the client with its authorities, certificate and proxy, the credential, and what
//! failures of the transport mean. What is said over it is the business of the kinds.
//!
//! Files of `tls`, and every credential, are read again when they change. Credentials go to the configured origin alone
//! and never over plain HTTP, except to this host.

mod oauth2;
mod peers;
#[cfg(test)]
mod refusal_tests;
mod style;

use std::fmt;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use bytes::{Bytes, BytesMut};
use http::{HeaderValue, StatusCode, header};
use invar_secrets::{Credential, Secret, SecretError, SecretStores};
use invar_tls::ClientSettings;
use parking_lot::Mutex;
use reqwest::{Client, NoProxy, Proxy, RequestBuilder, Response};
use sha2::{Digest as _, Sha256};
use tokio::time::{Instant, timeout_at};
use url::{Host, Url};

pub(crate) use self::style::Style;
use crate::SourceEnvironment;
use crate::error::{ErrorClass, Failure, Rejection};
use crate::github_app::GithubApp;
use crate::http_status;
use crate::settings::{AuthSettings, ProxySettings, SourceSettings, TlsSettings};
use crate::tls;
use crate::tunnel::proxy_address;
use crate::units::display_size;

/// Time to set up a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Time without a byte after which a transfer is given up.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// The user name that goes with a token by default.
const TOKEN_USER: &str = "x-access-token";
/// How long after a rotation a refused credential counts as not yet known to every server (D17).
const ROTATION_GRACE: Duration = Duration::from_secs(60);

/// How one server is talked to.
pub(crate) struct Connection {
    url: Url,
    auth: Option<AuthSettings>,
    tls: TlsSettings,
    proxy: Option<ProxySettings>,
    app: Option<GithubApp>,
    secrets: SecretStores,
    style: Style,
    user_agent: &'static str,
    /// Whether bodies are taken as they come, whatever their content encoding.
    verbatim: bool,
    client: Mutex<Option<(String, Client)>>,
    /// The fingerprint of the credential in use, and since when if it replaced another one.
    credential: Mutex<(Option<[u8; 32]>, Option<Instant>)>,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Connection({})", place(&self.url))
    }
}

impl Connection {
    /// `url` carries no credentials. Does no input or output.
    pub(crate) fn new(
        url: Url,
        settings: &SourceSettings,
        user_agent: &'static str,
        environment: &SourceEnvironment,
    ) -> Result<Self, Failure> {
        Self::with_style(url, settings, user_agent, environment, Style::Git)
    }

    /// As [`Connection::new`], for a use other than Git.
    pub(crate) fn with_style(
        url: Url,
        settings: &SourceSettings,
        user_agent: &'static str,
        environment: &SourceEnvironment,
        style: Style,
    ) -> Result<Self, Failure> {
        let (auth, proxy) = (settings.auth.clone(), settings.proxy.clone());
        if auth.is_some() {
            check_encrypted(&url)?;
        }
        if let Some(proxy) = &proxy {
            proxy_address(proxy)?;
        }
        if auth.as_ref().is_some_and(|auth| auth.ssh.is_some()) {
            return Err(Failure::stalled(format!("`auth.ssh` is not for {url}, which is reached over HTTP"))
                .with_help("use a token, or an address that begins with ssh://"));
        }
        let app = auth.as_ref().and_then(|auth| auth.github_app.as_ref());
        let app = app.map(|app| GithubApp::new(app, &url, &environment.secrets)).transpose()?;
        Ok(Self {
            url,
            auth,
            tls: settings.tls.clone().unwrap_or_default(),
            proxy,
            app,
            secrets: environment.secrets.clone(),
            style,
            user_agent,
            verbatim: false,
            client: Mutex::default(),
            credential: Mutex::default(),
        })
    }

    /// The same, with bodies as they come: their checksums are over what is stored, content encoding and all.
    pub(crate) fn verbatim(mut self) -> Self {
        self.verbatim = true;
        self
    }

    /// The configured address.
    pub(crate) fn url(&self) -> &Url {
        &self.url
    }

    /// Whether nothing protects the connection.
    pub(crate) fn is_insecure(&self) -> bool {
        self.url.scheme() == "http" && !is_loopback(&self.url)
    }

    /// Sends a request made with [`Connection::client`] to `to`; the credential goes along where that is of the configured
    /// origin.
    pub(crate) async fn send(
        &self,
        request: RequestBuilder,
        to: &Url,
        deadline: Instant,
    ) -> Result<Response, Failure> {
        if self.style.guards_peers() {
            peers::check_literal(to)?;
        }
        if to.origin() != self.url.origin() {
            return self.send_as_it_is(request, deadline).await;
        }
        let Some((credential, value)) = self.authorization(None, deadline).await? else {
            return self.send_as_it_is(request, deadline).await;
        };
        // A token that was handed to us may be taken back before its time; another one costs one request.
        let again = self.app.as_ref().and_then(|_| request.try_clone());
        let response = self.send_as_it_is(request.header(header::AUTHORIZATION, value), deadline).await?;
        let (StatusCode::UNAUTHORIZED, Some(again)) = (response.status(), again) else { return Ok(response) };
        match self.authorization(Some(&credential), deadline).await? {
            Some((_, value)) => {
                self.send_as_it_is(again.header(header::AUTHORIZATION, value), deadline).await
            }
            None => Ok(response),
        }
    }

    async fn send_as_it_is(&self, request: RequestBuilder, deadline: Instant) -> Result<Response, Failure> {
        match timeout_at(deadline, request.send()).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => Err(self.transport_failure(error)),
            Err(_) => Err(self.too_slow()),
        }
    }

    /// The failure behind a status, with the benefit of the doubt right after a rotation.
    pub(crate) fn refused(&self, response: &Response, now: SystemTime) -> Failure {
        let credential = self.auth.is_some();
        let failure =
            http_status::failure(response.status(), response.headers(), &place(&self.url), credential, now);
        let rotated = self.credential.lock().1.is_some_and(|at| at.elapsed() < ROTATION_GRACE);
        if matches!(failure.class, ErrorClass::AuthExpired | ErrorClass::Forbidden) {
            let shown = self.auth.iter().flat_map(AuthSettings::shown);
            shown.for_each(|credential| self.tell_refused(credential));
        }
        match failure.class {
            ErrorClass::AuthExpired | ErrorClass::Forbidden if rotated => Failure {
                class: ErrorClass::Transient,
                message: format!("{}; the credential changed less than a minute ago", failure.message),
                ..failure
            },
            // Another token was asked for and refused as well.
            ErrorClass::AuthExpired if self.app.is_some() => {
                Failure { class: ErrorClass::Forbidden, ..failure }
            }
            _ => failure,
        }
    }

    /// What was shown is not accepted: a secret of a store is read again before the next attempt.
    pub(crate) fn tell_refused(&self, credential: &Credential) {
        credential.refused(&self.secrets);
    }

    /// The next part of a body; `None` at its end.
    pub(crate) async fn chunk(
        &self,
        response: &mut Response,
        deadline: Instant,
    ) -> Result<Option<Bytes>, Failure> {
        let deadline = deadline.min(Instant::now() + IDLE_TIMEOUT);
        match timeout_at(deadline, response.chunk()).await {
            Ok(Ok(chunk)) => Ok(chunk),
            Ok(Err(error)) => Err(self.transport_failure(error)),
            Err(_) => Err(self.too_slow()),
        }
    }

    /// The whole body. `what` is what is longer than `limit` bytes if it is.
    pub(crate) async fn read_all(
        &self,
        mut response: Response,
        limit: usize,
        what: &str,
        deadline: Instant,
    ) -> Result<Bytes, Failure> {
        let mut bytes = BytesMut::new();
        while let Some(chunk) = self.chunk(&mut response, deadline).await? {
            if bytes.len() + chunk.len() > limit {
                return Err(Failure::rejected(
                    Rejection::Limits,
                    format!("{what} is longer than {}", display_size(limit as u64)),
                ));
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes.freeze())
    }

    /// The client, made anew when a file of `tls` or the proxy's password changed.
    pub(crate) async fn client(&self) -> Result<Client, Failure> {
        let password = match self.proxy.as_ref().and_then(|proxy| proxy.password.as_ref()) {
            Some(password) => {
                Some(password.resolve(&self.secrets).await.map_err(|error| secret_failure(&error))?)
            }
            None => None,
        };
        let needs_tls = self.url.scheme() == "https"
            || self.proxy.is_some()
            || self.app.as_ref().is_some_and(GithubApp::needs_tls);
        let settings = self.tls.clone();
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
            .user_agent(self.user_agent)
            .no_proxy()
            .http1_only()
            // One poll goes at a time, with one request at a time; a server need not keep more for it.
            .pool_max_idle_per_host(1)
            .gzip(!self.verbatim)
            .referer(false);
        builder = self.style.apply(builder);
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

    /// The credential, and the header that shows it. One that was `refused` is not given again where another can be had.
    async fn authorization(
        &self,
        refused: Option<&Secret>,
        deadline: Instant,
    ) -> Result<Option<(Secret, HeaderValue)>, Failure> {
        let Some(auth) = &self.auth else { return Ok(None) };
        let (credential, value) = match &self.style {
            Style::Git => {
                let (username, credential) = match (&auth.token, &auth.basic, &self.app) {
                    (Some(token), ..) => {
                        (auth.username.as_deref().unwrap_or(TOKEN_USER), self.resolve(token).await?)
                    }
                    (None, Some(basic), _) => (basic.username.as_str(), self.resolve(&basic.password).await?),
                    (None, None, Some(app)) => {
                        (TOKEN_USER, app.token(&self.client().await?, refused, deadline).await?)
                    }
                    (None, None, None) => return Ok(None),
                };
                let value = basic(username, &credential);
                (credential, value)
            }
            style => match style.authorization(auth, &self.client().await?, &self.secrets).await? {
                Some(value) => (value.clone(), value),
                None => return Ok(None),
            },
        };
        // A token that was fetched a moment ago is no rotation that servers may lag behind.
        if !self.style.fetches_tokens() {
            let fingerprint: [u8; 32] = Sha256::digest(value.expose()).into();
            let mut held = self.credential.lock();
            if held.0.is_some_and(|held| held != fingerprint) {
                held.1 = Some(Instant::now());
            }
            held.0 = Some(fingerprint);
        }
        Ok(Some((credential, style::header_value(&value)?)))
    }

    /// A credential as it is now.
    pub(crate) async fn resolve(&self, credential: &Credential) -> Result<Secret, Failure> {
        credential.resolve(&self.secrets).await.map_err(|error| secret_failure(&error))
    }

    /// Whether the token of this connection is one that is fetched when it is needed.
    pub(crate) fn fetches_tokens(&self) -> bool {
        self.style.fetches_tokens()
    }

    /// After a 401: forgets a token that was fetched for this connection; whether it is worth asking again.
    pub(crate) fn forget_token(&self) -> bool {
        self.style.forget_token()
    }

    pub(crate) fn too_slow(&self) -> Failure {
        Failure::transient(format!("{} does not answer in time", place(&self.url)))
    }

    pub(crate) fn transport_failure(&self, error: reqwest::Error) -> Failure {
        let error = error.without_url();
        if let Some(failure) = peers::RefusedPeer::behind(&error) {
            return failure;
        }
        let what = if error.is_connect() { "cannot be reached" } else { "broke the connection off" };
        let chain = chain(&error);
        let failure = Failure::transient(format!("{} {what}: {chain}", place(&self.url)));
        match certificate_help(&chain) {
            Some(help) => failure.with_help(help),
            None => failure,
        }
    }
}

impl Connection {
    /// A failure whose message may be in the server's own words, without the credential should it be among them.
    pub(crate) async fn without_credentials(&self, mut failure: Failure) -> Failure {
        for text in [Some(&mut failure.message), failure.help.as_mut()].into_iter().flatten() {
            self.hide_credentials(text).await;
        }
        failure
    }

    /// Takes the credentials of the settings, and tokens that were fetched with them, out of a text that a server had a say in.
    pub(crate) async fn hide_credentials(&self, text: &mut String) {
        let auth = self.auth.as_ref();
        let user = auth.and_then(|auth| auth.username.as_deref()).unwrap_or(TOKEN_USER);
        let token = auth.and_then(|auth| auth.token.as_ref()).map(|token| (user, token));
        let basic = auth.and_then(|auth| auth.basic.as_ref());
        let basic = basic.map(|basic| (basic.username.as_str(), &basic.password));
        let proxy = self.proxy.as_ref();
        let proxy = proxy.and_then(|proxy| {
            Some((proxy.username.as_deref().unwrap_or_default(), proxy.password.as_ref()?))
        });
        let authorization = auth.and_then(|auth| auth.authorization.as_ref());
        let authorization = authorization.map(|authorization| ("", &authorization.credentials));
        let oauth2 = auth.and_then(|auth| auth.oauth2.as_ref());
        let oauth2 = oauth2.map(|oauth2| (oauth2.client_id.as_str(), &oauth2.client_secret));
        for (user, credential) in [token, basic, proxy, authorization, oauth2].into_iter().flatten() {
            self.hide_credential(user, credential, text).await;
        }
        for token in [self.app.as_ref().and_then(GithubApp::held), self.style.held()].into_iter().flatten() {
            hide_sent(TOKEN_USER, &token, text);
        }
    }

    /// Takes one credential out of a text.
    pub(crate) async fn hide_credential(&self, user: &str, credential: &Credential, text: &mut String) {
        // What cannot be had was not sent either.
        if let Ok(secret) = credential.resolve(&self.secrets).await {
            hide_sent(user, &secret, text);
        }
    }
}

/// Takes a secret out of a text, as it is and as a server for Basic authentication sees it.
fn hide_sent(user: &str, secret: &Secret, text: &mut String) {
    let joined = Secret::new(format!("{user}:{}", secret.expose()));
    let encoded = Secret::new(base64::engine::general_purpose::STANDARD.encode(joined.expose()));
    for said in [secret.expose(), encoded.expose()] {
        hide(text, said);
    }
}

/// Takes a secret out of a text, also where the text was cut off in the middle of it.
pub(crate) fn hide(text: &mut String, secret: &str) {
    const HIDDEN: &str = "(the credential)";
    if secret.is_empty() {
        return;
    }
    if text.contains(secret) {
        *text = text.replace(secret, HIDDEN);
    }
    let begins = (4..secret.len()).rev().filter_map(|length| secret.get(..length));
    if let Some(rest) = begins.into_iter().find_map(|begin| text.strip_suffix(begin)) {
        *text = format!("{rest}{HIDDEN}");
    }
}

/// What to do about a certificate, by what the library says of it.
pub(crate) fn certificate_help(text: &str) -> Option<&'static str> {
    let (_, reason) = text.split_once("invalid peer certificate: ")?;
    let reason = reason.to_ascii_lowercase();
    let says = |words: &[&str]| words.iter().any(|word| reason.contains(word));
    Some(if says(&["expired"]) {
        "renew the server's certificate, or set this host's clock"
    } else if says(&["not valid yet", "notvalidyet"]) {
        "set this host's clock, or the server's"
    } else if says(&["not valid for name", "notvalidforname"]) {
        "name the host as its certificate does, or say that name in `tls.server_name`"
    } else if says(&["unknownissuer", "unknown issuer", "badsignature", "bad signature"]) {
        "name the authority that signed it in `tls.ca`"
    } else {
        "the server shows a certificate that cannot be trusted"
    })
}

/// An address as it is shown: without the query, which may hold a signature or a token.
pub(crate) fn place(url: &Url) -> String {
    let mut shown = url.clone();
    shown.set_query(None);
    shown.set_fragment(None);
    shown.into()
}

/// Refuses to send a credential to where everybody on the way could read it.
pub(crate) fn check_encrypted(url: &Url) -> Result<(), Failure> {
    if url.scheme() == "http" && !is_loopback(url) {
        let message = format!("a credential is not sent to {} without encryption", place(url));
        return Err(Failure::stalled(message).with_help("use https://"));
    }
    Ok(())
}

/// `Basic` and what follows it.
fn basic(username: &str, password: &Secret) -> Secret {
    let joined = Secret::new(format!("{username}:{}", password.expose()));
    Secret::new(format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(joined.expose())))
}

pub(crate) fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    }
}

/// A credential that no header can hold. It is read again at each poll, so that it is not for good.
pub(crate) fn unfit(what: &str) -> Failure {
    Failure::new(ErrorClass::AuthExpired, format!("{what} does not fit into an HTTP header")).with_help(
        "where it comes from there should be the value alone, on one line; it is read again each time",
    )
}

pub(crate) fn secret_failure(error: &SecretError) -> Failure {
    let class = match error {
        SecretError::Unavailable { .. } => ErrorClass::Transient,
        SecretError::UnknownStore { .. } | SecretError::Compromised { .. } => ErrorClass::Stalled,
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
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
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

#[cfg(test)]
mod tests {
    use super::hide;

    #[test]
    fn a_secret_is_hidden_whole_and_cut_off() {
        for (said, shown) in [
            ("no hunter2-x, hunter2-x", "no (the credential), (the credential)"),
            ("the server says hunter2", "the server says (the credential)"),
            ("the server says hun", "the server says hun"),
            ("nothing", "nothing"),
        ] {
            let mut text = said.to_owned();
            hide(&mut text, "hunter2-x");
            assert_eq!(text, shown);
        }
        let mut text = "as it was".to_owned();
        hide(&mut text, "");
        assert_eq!(text, "as it was");
    }
}

//! The connection to a server over HTTP. Files for TLS are read again when they change; answers are bounded; nothing is
//! sent twice.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use invar_syntax::Secret;
use invar_tls::{ClientSettings, Material, Origin, Origins, Watched};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use reqwest::{Client, NoProxy, Proxy};
use tokio::sync::OnceCell;
use url::Url;
use zeroize::Zeroizing;

use super::settings::{VaultProxy, VaultSettings};
use super::transport::{VaultMethod, VaultRequest, VaultResponse, VaultTransport, VaultTransportError};
use crate::error::causes;
use crate::store::BoxFuture;
use crate::tls_settings::TlsSettings;

/// Name resolution, connecting and the TLS handshake together.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The largest answer that is read, in bytes. The server's own limit for what is stored is below 2 MiB.
const ANSWER_LIMIT: usize = 8 << 20;

const TOKEN: HeaderName = HeaderName::from_static("x-vault-token");
const NAMESPACE: HeaderName = HeaderName::from_static("x-vault-namespace");
const INDEX: HeaderName = HeaderName::from_static("x-vault-index");
/// Servers and proxies may be told to take no request without it, which keeps other sites' pages from asking.
const REQUEST: HeaderName = HeaderName::from_static("x-vault-request");

/// What a segment of a path cannot hold as it is.
const IN_PATH: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'%')
    .add(b'<')
    .add(b'>')
    .add(b'?')
    .add(b'[')
    .add(b'\\')
    .add(b']')
    .add(b'^')
    .add(b'`')
    .add(b'{')
    .add(b'|')
    .add(b'}');

/// Which proxies are gone through.
#[derive(Clone)]
enum Proxies {
    None,
    One(VaultProxy),
    /// Those that `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY` name.
    OfEnvironment,
}

type Ask = dyn Fn(&Url) -> Result<(), String> + Send + Sync;

/// Carries requests to one address.
pub struct HttpTransport {
    address: Url,
    origins: Origins,
    tls: ClientSettings,
    proxy: Proxies,
    ask: Option<Arc<Ask>>,
    client: OnceCell<Watched<Client, VaultTransportError>>,
}

impl HttpTransport {
    /// As the settings say. Reads no file and opens no connection yet.
    ///
    /// # Errors
    /// What is wrong with the address.
    pub fn new(settings: &VaultSettings) -> Result<Self, String> {
        let address = settings.parsed_address()?;
        Ok(Self::with(address, &settings.tls, settings.proxy.clone()))
    }

    /// To an address that is used as it is.
    #[must_use]
    pub fn with(address: Url, tls: &TlsSettings, proxy: Option<VaultProxy>) -> Self {
        let file = |path: &Option<std::path::PathBuf>| path.clone().map_or(Origin::None, Origin::File);
        let origins = Origins {
            authorities: file(&tls.ca),
            certificate: file(&tls.cert),
            key: file(&tls.key),
            ..Origins::default()
        };
        let server_name = tls.server_name.clone().unwrap_or_default();
        let tls = ClientSettings { server_name, http2: true, ..ClientSettings::default() };
        let proxy = proxy.map_or(Proxies::None, Proxies::One);
        Self { address, origins, tls, proxy, ask: None, client: OnceCell::new() }
    }

    /// Through the proxies that the environment of the process names.
    #[must_use]
    pub fn through_proxies_of_environment(mut self) -> Self {
        self.proxy = Proxies::OfEnvironment;
        self
    }

    /// Whatever certificate the server has.
    #[must_use]
    pub fn accepting_any_certificate(mut self) -> Self {
        self.tls.insecure_skip_verify = true;
        self
    }

    /// Asks before each request whether its address may be reached; the answer of one that may not is a sentence.
    #[must_use]
    pub fn asking(mut self, ask: impl Fn(&Url) -> Result<(), String> + Send + Sync + 'static) -> Self {
        self.ask = Some(Arc::new(ask));
        self
    }

    async fn client(&self) -> Result<Arc<Client>, VaultTransportError> {
        let make = async || {
            let (tls, proxy) = (self.tls.clone(), self.proxy.clone());
            Watched::new(self.origins.clone(), move |material| client(material, &tls, &proxy)).await
        };
        Ok(self.client.get_or_try_init(make).await?.current().await)
    }

    fn may(&self, url: &Url) -> Result<(), VaultTransportError> {
        self.ask.as_ref().map_or(Ok(()), |ask| ask(url)).map_err(VaultTransportError::Settings)
    }

    fn url(&self, request: &VaultRequest) -> Url {
        let mut url = self.address.clone();
        let below = url.path().trim_end_matches('/').to_owned();
        url.set_path(&format!("{below}/v1/{}", utf8_percent_encode(&request.path, IN_PATH)));
        if !request.query.is_empty() {
            url.query_pairs_mut().extend_pairs(&request.query);
        }
        url
    }

    async fn exchange(&self, request: &VaultRequest) -> Result<VaultResponse, VaultTransportError> {
        let client = self.client().await?;
        let url = self.url(request);
        let response = self.once(&client, request, url.clone()).await?;
        let Some(other) = redirected(&response, &url) else { return read(response).await };
        // A standby that does not forward sends to the active node; that one does not send on.
        if url.scheme() == "https" && other.scheme() != "https" {
            return Err(VaultTransportError::Connection(format!(
                "it sends to {other}, which is not encrypted"
            )));
        }
        read(self.once(&client, request, other).await?).await
    }

    async fn once(
        &self,
        client: &Client,
        request: &VaultRequest,
        url: Url,
    ) -> Result<reqwest::Response, VaultTransportError> {
        self.may(&url)?;
        let method = match request.method {
            VaultMethod::Get => reqwest::Method::GET,
            VaultMethod::Post => reqwest::Method::POST,
        };
        let mut builder = client.request(method, url).headers(headers(request)?);
        if let Some(body) = &request.body {
            builder = builder.header(header::CONTENT_TYPE, "application/json");
            // Wiped with the last use of it.
            builder = builder.body(Bytes::from_owner(body.clone()));
        }
        builder.send().await.map_err(no_answer)
    }
}

impl fmt::Debug for HttpTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HttpTransport({})", self.address)
    }
}

impl VaultTransport for HttpTransport {
    fn send<'a>(
        &'a self,
        request: &'a VaultRequest,
    ) -> BoxFuture<'a, Result<VaultResponse, VaultTransportError>> {
        Box::pin(async move {
            match tokio::time::timeout(request.timeout, self.exchange(request)).await {
                Ok(answered) => answered,
                Err(_) => Err(VaultTransportError::Connection(format!(
                    "no answer within {} s",
                    request.timeout.as_secs_f32()
                ))),
            }
        })
    }

    fn server(&self) -> String {
        self.address.as_str().trim_end_matches('/').to_owned()
    }
}

impl From<invar_tls::PemError> for VaultTransportError {
    fn from(error: invar_tls::PemError) -> Self {
        // Files may appear or be completed later.
        Self::Connection(format!("`tls`: {error}"))
    }
}

fn client(material: &Material, tls: &ClientSettings, proxy: &Proxies) -> Result<Client, VaultTransportError> {
    let mut builder = Client::builder()
        .tls_backend_preconfigured(tls.config(material)?)
        .redirect(reqwest::redirect::Policy::none())
        .referer(false)
        .no_gzip()
        .user_agent(concat!("Invar/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(CONNECT_TIMEOUT)
        .pool_idle_timeout(Duration::from_secs(60))
        .pool_max_idle_per_host(4);
    match proxy {
        Proxies::OfEnvironment => {}
        Proxies::None => builder = builder.no_proxy(),
        Proxies::One(settings) => {
            let unusable =
                |_| VaultTransportError::Settings("`proxy.url` is not the address of a proxy".to_owned());
            let proxy = Proxy::all(&settings.url).map_err(unusable)?;
            let direct = NoProxy::from_string(&settings.no_proxy.join(","));
            builder = builder.no_proxy().proxy(proxy.no_proxy(direct));
        }
    }
    builder.build().map_err(|error| VaultTransportError::Settings(causes(&error)))
}

fn headers(request: &VaultRequest) -> Result<HeaderMap, VaultTransportError> {
    let mut headers = HeaderMap::from_iter([(REQUEST, HeaderValue::from_static("true"))]);
    let mut add =
        |name: HeaderName, what: &str, text: &str, sensitive: bool| -> Result<(), VaultTransportError> {
            let mut value = HeaderValue::from_str(text).map_err(|_| {
                VaultTransportError::Settings(format!(
                    "the {what} holds characters that a header cannot carry"
                ))
            })?;
            value.set_sensitive(sensitive);
            headers.insert(name, value);
            Ok(())
        };
    if let Some(token) = &request.token {
        add(TOKEN, "token", token.expose(), true)?;
    }
    if !request.namespace.is_empty() {
        add(NAMESPACE, "namespace", &request.namespace, false)?;
    }
    if let Some(index) = &request.index {
        add(INDEX, "index", index, false)?;
    }
    Ok(headers)
}

/// Where a standby sends to.
fn redirected(response: &reqwest::Response, from: &Url) -> Option<Url> {
    if !matches!(response.status().as_u16(), 301 | 302 | 307 | 308) {
        return None;
    }
    let location = response.headers().get(header::LOCATION)?.to_str().ok()?;
    from.join(location).ok().filter(|url| matches!(url.scheme(), "http" | "https"))
}

async fn read(mut response: reqwest::Response) -> Result<VaultResponse, VaultTransportError> {
    let too_long =
        || VaultTransportError::Connection(format!("the answer is longer than {} MiB", ANSWER_LIMIT >> 20));
    let expected = response.content_length().unwrap_or(4096);
    if expected > ANSWER_LIMIT as u64 {
        return Err(too_long());
    }
    // Growing would leave pieces behind.
    let mut body = Zeroizing::new(Vec::with_capacity(usize::try_from(expected).unwrap_or(4096)));
    while let Some(chunk) = response.chunk().await.map_err(no_answer)? {
        if body.len() + chunk.len() > ANSWER_LIMIT {
            return Err(too_long());
        }
        body.extend_from_slice(&chunk);
    }
    let text = |name: HeaderName| {
        let value = response.headers().get(name)?;
        value.to_str().ok().map(str::to_owned)
    };
    Ok(VaultResponse {
        status: response.status().as_u16(),
        retry_after: text(header::RETRY_AFTER).and_then(|text| retry_after(&text)),
        index: text(INDEX).filter(|index| index.len() <= 1024),
        body,
    })
}

/// Seconds, at most an hour. Servers of this kind send no dates.
fn retry_after(text: &str) -> Option<Duration> {
    text.trim().parse::<u64>().ok().map(|seconds| Duration::from_secs(seconds.min(3600)))
}

fn no_answer(error: reqwest::Error) -> VaultTransportError {
    VaultTransportError::Connection(causes(&error.without_url()))
}

/// A header's worth of a secret is never longer than this; what is longer is no token.
pub(crate) const LONGEST_TOKEN: usize = 64 * 1024;

/// A token as files and people write it: without white space around it, and short enough to be one.
pub(crate) fn trimmed(token: &Secret) -> Option<Secret> {
    let text = token.expose().trim();
    (!text.is_empty() && text.len() <= LONGEST_TOKEN).then(|| Secret::new(text))
}

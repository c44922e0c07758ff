//! One request, one response: connections, TLS and proxy of a client, without authentication and without redirects.
//! When a certificate file has changed, new connections use it.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use http::header::{HOST, HeaderValue};
use invar_policy::{Access, Reach, Refusal};
use invar_tls::{ClientSettings, Material, Watched};
use parking_lot::Mutex;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use rustls::ClientConfig;
use url::Url;

use super::arguments::{ProxyArguments, TlsConfigBlock};
use super::{HttpClientError, HttpClientOptions, proxy};

/// With `server_name` each host has a client of its own; beyond this number they are forgotten and made again.
const MAX_NAMED_CLIENTS: usize = 256;

/// Sends single requests. Cloning shares it.
#[derive(Clone, Debug)]
pub(super) struct Transport {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    server_name: String,
    http2: bool,
    options: HttpClientOptions,
    connections: Watched<Connections, HttpClientError>,
}

/// The pools that belong to one reading of the certificate files.
#[derive(Debug)]
struct Connections {
    config: ClientConfig,
    proxy: Option<reqwest::Proxy>,
    client: reqwest::Client,
    /// Per dialled host, where `server_name` differs from it.
    named: Mutex<HashMap<String, reqwest::Client>>,
}

/// Resolves names to those of their addresses that may be connected to.
struct Resolver {
    /// Whose addresses are answered whatever name is asked for.
    host: Option<Arc<str>>,
    access: Access,
}

// === impl Transport ===

impl Transport {
    pub(super) async fn new(
        tls: Option<&TlsConfigBlock>,
        proxy: &ProxyArguments,
        http2: bool,
        options: &HttpClientOptions,
    ) -> Result<Self, HttpClientError> {
        let tls = tls.cloned().unwrap_or_default();
        // The host of a request is replaced where server_name is set, which only the Host header of HTTP/1.1 undoes.
        let http2 = http2 && tls.server_name.is_empty();
        let (settings, proxy, of_client) = (tls.settings(http2), proxy.clone(), options.clone());
        let make = move |material: &Material| connect(&settings, material, &proxy, &of_client);
        let connections = Watched::new(tls.origins(&options.access), make).await?;
        let shared = Shared { server_name: tls.server_name, http2, options: options.clone(), connections };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// What those who wrote the arguments may use.
    pub(super) fn access(&self) -> &Access {
        &self.shared.options.access
    }

    /// Sends the request; its timeout covers the response's body too.
    pub(super) async fn send(
        &self,
        mut request: reqwest::Request,
    ) -> Result<reqwest::Response, HttpClientError> {
        let shared = &*self.shared;
        if request.timeout().is_none() {
            *request.timeout_mut() = Some(shared.options.timeout);
        }
        let connections = shared.connections.current().await;
        let before = shared.connections.before();
        let again = before.and_then(|before| Some((before, request.try_clone()?)));
        let error = match shared.send(&connections, request).await? {
            Ok(response) => return Ok(response),
            Err(error) => error,
        };
        // The server may not know of the new certificate yet. It has taken nothing of the request.
        if let Some((before, again)) = again.filter(|_| is_refused_certificate(&error))
            && let Ok(Ok(response)) = shared.send(&before, again).await
        {
            shared.connections.refused();
            return Ok(response);
        }
        Err(HttpClientError::from_reqwest(error))
    }
}

/// Whether the server ended the handshake because of the certificate that it was shown.
fn is_refused_certificate(error: &reqwest::Error) -> bool {
    use rustls::AlertDescription as Alert;
    let of_certificate = |alert: Alert| {
        matches!(
            alert,
            Alert::BadCertificate
                | Alert::UnsupportedCertificate
                | Alert::CertificateRevoked
                | Alert::CertificateExpired
                | Alert::CertificateUnknown
                | Alert::CertificateRequired
                | Alert::UnknownCA
                | Alert::AccessDenied
                | Alert::DecryptError
                | Alert::HandshakeFailure
        )
    };
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(current) = cause {
        // What an I/O error wraps is not among its causes.
        let wrapped = current.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        let of_tls = wrapped
            .and_then(|inner| inner.downcast_ref::<rustls::Error>())
            .or_else(|| current.downcast_ref::<rustls::Error>());
        if let Some(rustls::Error::AlertReceived(alert)) = of_tls {
            return of_certificate(*alert);
        }
        cause = current.source();
    }
    false
}

impl Shared {
    async fn send(
        &self,
        connections: &Connections,
        mut request: reqwest::Request,
    ) -> Result<Result<reqwest::Response, reqwest::Error>, HttpClientError> {
        self.admit(connections, request.url())?;
        let client = self.client_for(connections, &mut request)?;
        Ok(client.execute(request).await)
    }

    /// Every request passes here, those that follow a redirect too.
    fn admit(&self, connections: &Connections, url: &Url) -> Result<(), HttpClientError> {
        let host = url.host_str().unwrap_or_default();
        let port = url.port_or_known_default();
        match self.options.access.destination(host, port)? {
            Reach::Anywhere => Ok(()),
            // The proxy looks the name up, and says nothing of what it finds.
            Reach::ByAddress if connections.proxy.is_some() => Err(HttpClientError::NotAllowed(Refusal {
                message: format!(
                    "{host} may not be connected to through a proxy: `egress` names networks only"
                ),
                help: format!("allow it with \"{host}\" in `egress` of [policy] in this host's settings"),
            })),
            Reach::ByAddress => Ok(()),
        }
    }

    fn client_for(
        &self,
        connections: &Connections,
        request: &mut reqwest::Request,
    ) -> Result<reqwest::Client, HttpClientError> {
        let url = request.url_mut();
        let name = &self.server_name;
        let dialled = url.host_str().unwrap_or_default().to_owned();
        // Through a proxy the dialled host must stay in the request, so there only verification uses the other name.
        if name.is_empty() || *name == dialled || url.scheme() != "https" || connections.proxy.is_some() {
            return Ok(connections.client.clone());
        }
        let authority = match url.port() {
            Some(port) => format!("{dialled}:{port}"),
            None => dialled.clone(),
        };
        url.set_host(Some(name)).map_err(|_| HttpClientError::Invalid {
            field: "tls_config.server_name",
            message: "is no host name".to_owned(),
        })?;
        if let Ok(authority) = HeaderValue::from_str(&authority) {
            request.headers_mut().entry(HOST).or_insert(authority);
        }
        let mut named = connections.named.lock();
        if let Some(client) = named.get(&dialled) {
            return Ok(client.clone());
        }
        if named.len() >= MAX_NAMED_CLIENTS {
            named.clear();
        }
        let host = dialled.trim_start_matches('[').trim_end_matches(']').into();
        let resolver = Resolver { host: Some(host), access: self.options.access.clone() };
        let client = client_builder(&connections.config, None, self.http2, &self.options)
            .dns_resolver(Arc::new(resolver))
            .build()
            .map_err(HttpClientError::from_reqwest)?;
        named.insert(dialled, client.clone());
        Ok(client)
    }
}

fn connect(
    settings: &ClientSettings,
    material: &Material,
    proxy: &ProxyArguments,
    options: &HttpClientOptions,
) -> Result<Connections, HttpClientError> {
    let config = settings.config(material)?;
    let proxy = proxy::build(proxy)?;
    let client = client_builder(&config, proxy.as_ref(), settings.http2, options)
        .build()
        .map_err(HttpClientError::from_reqwest)?;
    Ok(Connections { config, proxy, client, named: Mutex::new(HashMap::new()) })
}

fn client_builder(
    config: &ClientConfig,
    proxy: Option<&reqwest::Proxy>,
    http2: bool,
    options: &HttpClientOptions,
) -> reqwest::ClientBuilder {
    let mut builder = reqwest::Client::builder()
        .no_proxy()
        .tls_backend_preconfigured(config.clone())
        .redirect(reqwest::redirect::Policy::none())
        .referer(false)
        .user_agent(options.user_agent.clone())
        .connect_timeout(options.connect_timeout)
        .pool_idle_timeout(options.pool_idle_timeout)
        .pool_max_idle_per_host(options.pool_max_idle_per_host)
        .gzip(options.decompress);
    if !http2 {
        builder = builder.http1_only();
    }
    if let Some(proxy) = proxy {
        builder = builder.proxy(proxy.clone());
    }
    if options.access.restricts_egress() {
        builder = builder.dns_resolver(Arc::new(Resolver { host: None, access: options.access.clone() }));
    }
    builder
}

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let host = self.host.clone().unwrap_or_else(|| Arc::from(name.as_str()));
        let access = self.access.clone();
        Box::pin(async move {
            let mut refused = None;
            let found: Vec<_> = tokio::net::lookup_host((host.as_ref(), 0)).await?.collect();
            let allowed = |address: &SocketAddr| match access.destination_at(&host, address.ip()) {
                Ok(()) => true,
                Err(refusal) => {
                    refused = Some(refusal);
                    false
                }
            };
            let addresses: Vec<_> = found.into_iter().filter(allowed).collect();
            match refused {
                Some(refusal) if addresses.is_empty() => Err(refusal.into()),
                _ => Ok(Box::new(addresses.into_iter()) as Addrs),
            }
        })
    }
}

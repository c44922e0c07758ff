//! The connection to an API server by the means of `kube`: from within a cluster, by a kubeconfig file, or by settings.
//! The client is made when it is first needed, and anew after its credentials were refused, so that files are read again.

use std::path::{Path, PathBuf};
use std::sync::Arc;

// The same that kube's settings hold theirs in.
use age::secrecy::ExposeSecret as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use futures_util::TryStreamExt as _;
use http_body_util::BodyExt as _;
use invar_syntax::Secret;
use invar_syntax::secret::REDACTED;
use kube::client::Body;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

use super::transport::{ApiRequest, ApiResponse, ApiTransport, TransportError};
use crate::error::causes;
use crate::store::BoxFuture;

/// Which API server, and as whom.
#[derive(Clone, PartialEq, Eq)]
pub enum ClusterSettings {
    /// The cluster whose pod this process runs in, as the pod's service account. Its token is read again as it rotates.
    InCluster,
    /// As a kubeconfig file says.
    Kubeconfig {
        /// The file.
        file: PathBuf,
        /// The context; the file's current one where none is named.
        context: Option<String>,
    },
    /// As said here.
    Server(Box<ServerSettings>),
}

/// An API server and how to be let in.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct ServerSettings {
    /// Its address, `https://…`.
    pub api_server: String,
    /// A bearer token.
    pub token: Option<Secret>,
    /// A file with one, read again as it rotates.
    pub token_file: Option<PathBuf>,
    /// User name and password.
    pub basic: Option<(String, Secret)>,
    /// Certificates to trust instead of the system's, as PEM.
    pub ca_pem: Option<String>,
    /// A file with such certificates.
    pub ca_file: Option<PathBuf>,
    /// The client's certificate and key, as PEM.
    pub certificate_pem: Option<(String, Secret)>,
    /// Files with the client's certificate and key.
    pub certificate_files: Option<(PathBuf, PathBuf)>,
    /// A proxy to connect through: `http://`, `https://` or `socks5://`. It may hold a password.
    pub proxy_url: Option<Secret>,
    /// The name that the server's certificate has to bear, instead of the address's host.
    pub server_name: Option<String>,
    /// Whether any certificate is accepted.
    pub insecure_skip_verify: bool,
}

/// What a connection is about to use of the host.
#[derive(Clone, Copy, Debug)]
pub enum ClusterUse<'a> {
    /// The kubeconfig file is read.
    File(&'a Path),
    /// This server, or this proxy, is connected to.
    Server(&'a str),
}

type Ask = dyn Fn(ClusterUse<'_>) -> Result<(), String> + Send + Sync;

/// Carries requests as [`ClusterSettings`] say. The tasks of its connections end with it.
pub struct ClusterTransport {
    settings: ClusterSettings,
    ask: Option<Arc<Ask>>,
    client: tokio::sync::Mutex<Option<Made>>,
}

/// A client, and what it shows to the server.
struct Made {
    client: Client,
    credentials: Vec<Secret>,
    token_file: Option<PathBuf>,
}

impl ClusterTransport {
    /// With these settings; reads no file and opens no connection yet.
    #[must_use]
    pub fn new(settings: ClusterSettings) -> Self {
        Self { settings, ask: None, client: tokio::sync::Mutex::default() }
    }

    /// Asks, whenever the client is made, whether it may use what it is about to use; the answer of one that may not is
    /// a sentence. Asking may block.
    #[must_use]
    pub fn asking(
        mut self,
        ask: impl Fn(ClusterUse<'_>) -> Result<(), String> + Send + Sync + 'static,
    ) -> Self {
        self.ask = Some(Arc::new(ask));
        self
    }

    async fn client(&self) -> Result<Client, TransportError> {
        let mut held = self.client.lock().await;
        if let Some(made) = &*held {
            return Ok(made.client.clone());
        }
        let (settings, ask) = (self.settings.clone(), self.ask.clone());
        // Files are read with calls that block.
        let made = tokio::task::spawn_blocking(move || {
            let config =
                tokio::runtime::Handle::current().block_on(configuration(&settings, ask.as_deref()))?;
            let identity = &config.auth_info;
            let shown = [identity.token.as_ref(), identity.password.as_ref()].into_iter().flatten();
            let credentials = shown.map(|secret| Secret::new(secret.expose_secret())).collect();
            let token_file = identity.token_file.as_ref().map(PathBuf::from);
            let client = Client::try_from(config);
            let client = client.map_err(|error| TransportError::Settings(causes(&error)))?;
            Ok(Made { client, credentials, token_file })
        });
        let made = made
            .await
            .unwrap_or_else(|_| Err(TransportError::Connection("connecting was interrupted".to_owned())))?;
        Ok(held.insert(made).client.clone())
    }
}

impl ApiTransport for ClusterTransport {
    fn get<'a>(&'a self, request: &'a ApiRequest) -> BoxFuture<'a, Result<ApiResponse, TransportError>> {
        Box::pin(async move {
            let client = self.client().await?;
            let sent = http::Request::get(&request.path_and_query)
                .header(http::header::ACCEPT, request.accept)
                .header(http::header::USER_AGENT, concat!("Invar/", env!("CARGO_PKG_VERSION")))
                .body(Body::empty())
                .map_err(|error| TransportError::Settings(error.to_string()))?;
            let response =
                client.send(sent).await.map_err(|error| TransportError::Connection(causes(&error)))?;
            let status = response.status().as_u16();
            if status == 401 {
                *self.client.lock().await = None;
            }
            let body = response.into_body().into_data_stream().map_err(|error| causes(&error));
            Ok(ApiResponse { status, body: Box::pin(body) })
        })
    }

    fn conceal(&self, mut said: String) -> BoxFuture<'_, String> {
        Box::pin(async move {
            let (mut shown, file) = match &*self.client.lock().await {
                Some(made) => (made.credentials.clone(), made.token_file.clone()),
                None => return said,
            };
            if let Some(file) = file
                && let Ok(token) = tokio::fs::read_to_string(file).await
            {
                shown.push(Secret::new(token));
            }
            for secret in
                shown.iter().map(|secret| secret.expose().trim()).filter(|secret| !secret.is_empty())
            {
                said = said.replace(secret, REDACTED);
            }
            said
        })
    }

    fn server(&self) -> String {
        match &self.settings {
            ClusterSettings::InCluster => "the API server of this cluster".to_owned(),
            ClusterSettings::Kubeconfig { file, .. } => format!("the API server of {}", file.display()),
            ClusterSettings::Server(server) => {
                format!("the API server {}", without_user(&server.api_server))
            }
        }
    }
}

async fn configuration(settings: &ClusterSettings, ask: Option<&Ask>) -> Result<Config, TransportError> {
    let unusable = |problem: String| TransportError::Settings(problem);
    let may = |wanted: ClusterUse<'_>| ask.map_or(Ok(()), |ask| ask(wanted)).map_err(unusable);
    let mut config = match settings {
        ClusterSettings::InCluster => Config::incluster().map_err(|error| {
            unusable(format!("this process does not run in a pod with a service account: {}", causes(&error)))
        })?,
        ClusterSettings::Kubeconfig { file, context } => {
            may(ClusterUse::File(file))?;
            let kubeconfig = Kubeconfig::read_from(file).map_err(|error| unusable(of_kubeconfig(&error)))?;
            from_kubeconfig(kubeconfig, context.clone()).await?
        }
        ClusterSettings::Server(server) => from_kubeconfig(server.kubeconfig()?, None).await?,
    };
    if config.auth_info.exec.is_some() || config.auth_info.auth_provider.is_some() {
        return Err(unusable(
            "the user gets its credentials from a program, which the agent does not run: name a token, a token file \
             or a client certificate instead"
                .to_owned(),
        ));
    }
    if let Some(proxy) = &config.proxy_url
        && !matches!(proxy.scheme_str(), Some("http" | "https" | "socks5"))
    {
        return Err(unusable("the proxy is none of http://, https:// and socks5://".to_owned()));
    }
    may(ClusterUse::Server(&config.cluster_url.to_string()))?;
    if let Some(proxy) = &config.proxy_url {
        may(ClusterUse::Server(&proxy.to_string()))?;
    }
    // Deadlines and repetitions are those of the caller.
    config.default_retry = false;
    Ok(config)
}

async fn from_kubeconfig(kubeconfig: Kubeconfig, context: Option<String>) -> Result<Config, TransportError> {
    let options = KubeConfigOptions { context, ..KubeConfigOptions::default() };
    Config::from_custom_kubeconfig(kubeconfig, &options)
        .await
        .map_err(|error| TransportError::Settings(of_kubeconfig(&error)))
}

/// What is wrong with a kubeconfig, without the lines that a parser would show.
fn of_kubeconfig(error: &kube::config::KubeconfigError) -> String {
    match error {
        kube::config::KubeconfigError::Parse(_) => "the kubeconfig is not valid YAML".to_owned(),
        kube::config::KubeconfigError::ParseProxyUrl(_) => "the address of the proxy is malformed".to_owned(),
        error => causes(error),
    }
}

impl ServerSettings {
    /// The same as a kubeconfig, so that there is one way from either to a client.
    fn kubeconfig(&self) -> Result<Kubeconfig, TransportError> {
        let pem = |text: &str| BASE64.encode(text);
        let mut kubeconfig: Kubeconfig = serde_json::from_value(serde_json::json!({
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "only",
            "contexts": [{ "name": "only", "context": { "cluster": "only", "user": "only" } }],
            "clusters": [{ "name": "only", "cluster": {
                "server": self.api_server,
                "certificate-authority": self.ca_file,
                "certificate-authority-data": self.ca_pem.as_deref().map(pem),
                "tls-server-name": self.server_name,
                "insecure-skip-tls-verify": self.insecure_skip_verify,
            } }],
            "users": [{ "name": "only", "user": {
                "tokenFile": self.token_file,
                "username": self.basic.as_ref().map(|(user, _)| user),
                "client-certificate": self.certificate_files.as_ref().map(|(certificate, _)| certificate),
                "client-key": self.certificate_files.as_ref().map(|(_, key)| key),
                "client-certificate-data": self.certificate_pem.as_ref().map(|(certificate, _)| pem(certificate)),
            } }],
        }))
        .map_err(|_| TransportError::Settings("the settings name a file that is not UTF-8".to_owned()))?;
        if let Some(cluster) = kubeconfig.clusters.iter_mut().find_map(|named| named.cluster.as_mut()) {
            cluster.proxy_url = self.proxy_url.as_ref().map(|proxy| proxy.expose().to_owned());
        }
        if let Some(user) = kubeconfig.auth_infos.iter_mut().find_map(|named| named.auth_info.as_mut()) {
            user.token = self.token.as_ref().map(|token| token.expose().into());
            user.password = self.basic.as_ref().map(|(_, password)| password.expose().into());
            user.client_key_data = self.certificate_pem.as_ref().map(|(_, key)| pem(key.expose()).into());
        }
        Ok(kubeconfig)
    }
}

/// An address without what stands before an `@`.
fn without_user(address: &str) -> String {
    match (address.split_once("://"), address.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, host))) => format!("{scheme}://{host}"),
        _ => address.to_owned(),
    }
}

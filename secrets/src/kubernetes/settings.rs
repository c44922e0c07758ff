//! `[secrets.NAME]` of the kind `kubernetes`, and the connection that such settings make: its credentials are looked up
//! when it is first used, and anew after the API server refused them.

use std::path::PathBuf;
use std::sync::Arc;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use schemars::JsonSchema;
use serde::Deserialize;

use super::api::KubernetesApi;
use super::cluster::{ClusterSettings, ClusterTransport, ServerSettings};
use super::store::KubernetesStore;
use super::transport::{ApiRequest, ApiResponse, ApiTransport, TransportError};
use crate::credential::Credential;
use crate::missing::WhenMissing;
use crate::store::BoxFuture;
use crate::stores::SecretStores;
use invar_syntax::Secret;

/// Which API server, and as whom. By default that of the cluster whose pod the agent runs in, as the pod's service account.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct KubernetesSettings {
    /// A kubeconfig file, which says everything else.
    pub kubeconfig: Option<PathBuf>,
    /// The context of it; its current one by default.
    pub context: Option<String>,
    /// The address of the API server, `https://…`.
    pub address: Option<String>,
    /// How the agent authenticates there.
    pub auth: Option<KubernetesAuth>,
    /// TLS there.
    pub tls: Option<KubernetesTls>,
    /// A proxy on the way there.
    pub proxy: Option<KubernetesProxy>,
    /// What users of a Secret, or of a key, get once that is deleted.
    pub missing: WhenMissing,
}

/// `auth = { … }`, one way.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct KubernetesAuth {
    /// A bearer token.
    pub token: Option<Credential>,
    /// User name and password.
    pub basic: Option<KubernetesBasic>,
}

/// `basic = { … }`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KubernetesBasic {
    /// The user name.
    pub username: String,
    /// The password.
    pub password: Credential,
}

/// `tls = { … }`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct KubernetesTls {
    /// Certificate authorities to trust instead of the system's.
    pub ca: Option<PathBuf>,
    /// The client certificate with its chain.
    pub cert: Option<PathBuf>,
    /// The key of `cert`.
    pub key: Option<PathBuf>,
    /// The name the server's certificate has to carry, where it is not the one in the address.
    pub server_name: Option<String>,
}

/// `proxy = { … }`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KubernetesProxy {
    /// `http://`, `https://` or `socks5://`, without credentials.
    pub url: String,
    /// The user name at the proxy.
    #[serde(default)]
    pub username: Option<String>,
    /// The password at the proxy.
    #[serde(default)]
    pub password: Option<Credential>,
}

impl KubernetesSettings {
    /// What is wrong with them, in one sentence.
    pub(crate) fn problem(&self) -> Option<&'static str> {
        let server = self.address.is_some();
        if self.kubeconfig.is_some()
            && (server || self.auth.is_some() || self.tls.is_some() || self.proxy.is_some())
        {
            return Some("`kubeconfig` says everything: only `context` goes with it");
        }
        if self.kubeconfig.is_none() && self.context.is_some() {
            return Some("`context` is one of a `kubeconfig`");
        }
        if !server && (self.auth.is_some() || self.tls.is_some() || self.proxy.is_some()) {
            return Some("`auth`, `tls` and `proxy` are for an API server that `address` names");
        }
        let address = self.address.as_deref().unwrap_or("https://");
        if !address.starts_with("https://") && !address.starts_with("http://") {
            return Some("`address` begins with https://");
        }
        if address.contains('@') {
            return Some("`address` holds no credentials; `auth` does");
        }
        let both = self.auth.as_ref().is_some_and(|auth| auth.token.is_some() && auth.basic.is_some());
        if both {
            return Some("`auth` is one of `token` and `basic`");
        }
        if self.tls.as_ref().is_some_and(|tls| tls.cert.is_some() != tls.key.is_some()) {
            return Some("`tls` has to have both `cert` and `key`, or none");
        }
        if self.proxy.as_ref().is_some_and(|proxy| proxy.url.contains('@') || !proxy.url.contains("://")) {
            return Some("the `url` of `proxy` is like http://host:port, without credentials");
        }
        None
    }

    /// The credentials, by the key they stand under.
    pub(crate) fn credentials(&self) -> Vec<(&'static str, &Credential)> {
        let auth = self.auth.as_ref();
        [
            ("auth.token", auth.and_then(|auth| auth.token.as_ref())),
            ("auth.basic.password", auth.and_then(|auth| Some(&auth.basic.as_ref()?.password))),
            ("proxy.password", self.proxy.as_ref().and_then(|proxy| proxy.password.as_ref())),
        ]
        .into_iter()
        .filter_map(|(key, credential)| Some((key, credential?)))
        .collect()
    }

    /// The store they describe; `stores` hold the credentials that are secrets. Connects when it is first used.
    #[must_use]
    pub fn store(&self, stores: SecretStores) -> KubernetesStore {
        let made = tokio::sync::Mutex::default();
        let transport = SettingsTransport { settings: self.clone(), stores, made };
        KubernetesStore::new(KubernetesApi::new(transport)).when_missing(self.missing)
    }

    /// The same with the values of its credentials.
    async fn resolved(&self, stores: &SecretStores) -> Result<ClusterSettings, TransportError> {
        if let Some(file) = &self.kubeconfig {
            return Ok(ClusterSettings::Kubeconfig { file: file.clone(), context: self.context.clone() });
        }
        let Some(address) = &self.address else { return Ok(ClusterSettings::InCluster) };
        let value = async |key: &str, credential: &Credential| {
            let resolved = credential.resolve(stores).await;
            resolved.map_err(|error| match error.is_transient() {
                true => TransportError::Connection(format!("`{key}`: {error}")),
                false => TransportError::Settings(format!("`{key}`: {error}")),
            })
        };
        let mut server = ServerSettings { api_server: address.clone(), ..ServerSettings::default() };
        if let Some(auth) = &self.auth {
            match &auth.token {
                // Read again as it rotates, which needs no refusal first.
                Some(Credential::File(path)) => server.token_file = Some(path.clone()),
                Some(token) => server.token = Some(value("auth.token", token).await?),
                None => {}
            }
            if let Some(basic) = &auth.basic {
                let password = value("auth.basic.password", &basic.password).await?;
                server.basic = Some((basic.username.clone(), password));
            }
        }
        if let Some(tls) = &self.tls {
            server.ca_file.clone_from(&tls.ca);
            server.certificate_files = tls.cert.clone().zip(tls.key.clone());
            server.server_name.clone_from(&tls.server_name);
        }
        if let Some(proxy) = &self.proxy {
            let password = match &proxy.password {
                Some(password) => Some(value("proxy.password", password).await?),
                None => None,
            };
            server.proxy_url = Some(proxy.address(password.as_ref()));
        }
        Ok(ClusterSettings::Server(Box::new(server)))
    }
}

impl KubernetesProxy {
    /// The address with the credentials in it.
    fn address(&self, password: Option<&Secret>) -> Secret {
        let Some((scheme, host)) = self.url.split_once("://") else { return Secret::new(self.url.as_str()) };
        let escaped = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
        let user = match (&self.username, password) {
            (None, None) => return Secret::new(self.url.as_str()),
            (user, None) => escaped(user.as_deref().unwrap_or_default()),
            (user, Some(password)) => {
                format!("{}:{}", escaped(user.as_deref().unwrap_or_default()), escaped(password.expose()))
            }
        };
        Secret::new(format!("{scheme}://{user}@{host}"))
    }
}

/// A [`ClusterTransport`] whose credentials are looked up when it is made.
struct SettingsTransport {
    settings: KubernetesSettings,
    stores: SecretStores,
    made: tokio::sync::Mutex<Option<Arc<ClusterTransport>>>,
}

impl SettingsTransport {
    async fn transport(&self) -> Result<Arc<ClusterTransport>, TransportError> {
        let mut made = self.made.lock().await;
        if let Some(transport) = &*made {
            return Ok(Arc::clone(transport));
        }
        let transport = Arc::new(ClusterTransport::new(self.settings.resolved(&self.stores).await?));
        Ok(Arc::clone(made.insert(transport)))
    }
}

impl ApiTransport for SettingsTransport {
    fn get<'a>(&'a self, request: &'a ApiRequest) -> BoxFuture<'a, Result<ApiResponse, TransportError>> {
        Box::pin(async move {
            let transport = self.transport().await?;
            let response = transport.get(request).await?;
            if response.status == 401 {
                let mut made = self.made.lock().await;
                // Somebody else may have made another one by now.
                if made.as_ref().is_some_and(|made| Arc::ptr_eq(made, &transport)) {
                    *made = None;
                    for (_, credential) in self.settings.credentials() {
                        credential.refused(&self.stores);
                    }
                }
            }
            Ok(response)
        })
    }

    fn conceal(&self, said: String) -> BoxFuture<'_, String> {
        Box::pin(async move {
            // Whoever said it was asked by this one.
            let made = self.made.lock().await.clone();
            match made {
                Some(transport) => transport.conceal(said).await,
                None => said,
            }
        })
    }

    fn server(&self) -> String {
        match (&self.settings.address, &self.settings.kubeconfig) {
            (Some(address), _) => format!("the API server {address}"),
            (None, Some(file)) => format!("the API server of {}", file.display()),
            (None, None) => "the API server of this cluster".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn settings(text: &str) -> KubernetesSettings {
        toml::from_str(text).unwrap()
    }

    #[test]
    fn settings_that_contradict_themselves_are_refused() {
        for text in [
            "",
            "kubeconfig = '/k'",
            "kubeconfig = '/k'\ncontext = 'prod'",
            "address = 'https://api:6443'\nauth = { token = { file = '/t' } }\ntls = { ca = '/ca' }",
        ] {
            assert_eq!(settings(text).problem(), None, "{text}");
        }
        for (text, said) in [
            ("kubeconfig = '/k'\naddress = 'https://api'", "only `context`"),
            ("context = 'prod'", "one of a `kubeconfig`"),
            ("auth = { token = 'x' }", "`address` names"),
            ("address = 'api:6443'", "begins with https"),
            ("address = 'https://u:hunter2@api'", "holds no credentials"),
            (
                "address = 'https://api'\nauth = { token = 'x', basic = { username = 'u', password = 'p' } }",
                "one of",
            ),
            ("address = 'https://api'\ntls = { cert = '/c' }", "both"),
            ("address = 'https://api'\nproxy = { url = 'http://u:hunter2@proxy' }", "without credentials"),
        ] {
            let problem = settings(text).problem().unwrap();
            assert!(problem.contains(said), "{text}: {problem}");
        }
        assert!(toml::from_str::<KubernetesSettings>("adress = 'https://api'").is_err());
    }

    #[tokio::test]
    async fn credentials_are_looked_up_when_connecting() {
        let folder = tempfile::tempdir().unwrap();
        let password = folder.path().join("password");
        let text = format!(
            "address = 'https://api'\nauth = {{ basic = {{ username = 'u', password = {{ file = '{}' }} }} }}\n\
             proxy = {{ url = 'http://proxy:3128', username = 'a b', password = 'p:@' }}",
            password.display()
        );
        let stores = SecretStores::default();
        let settings = settings(&text);
        assert!(matches!(settings.resolved(&stores).await, Err(TransportError::Settings(_))));
        for value in ["one", "two"] {
            std::fs::write(&password, value).unwrap();
            let resolved = settings.resolved(&stores).await.unwrap();
            let ClusterSettings::Server(server) = resolved else { panic!("it is a server") };
            assert_eq!(server.basic.unwrap().1.expose(), value);
            assert_eq!(server.proxy_url.unwrap().expose(), "http://a%20b:p%3A%40@proxy:3128");
        }
    }
}

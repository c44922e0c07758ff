//! `tls = { … }` and `proxy = { … }`: how a server is reached.

use std::path::PathBuf;

use invar_secrets::Credential;
use schemars::JsonSchema;
use serde::Deserialize;

/// `tls = { … }`: files in PEM form.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TlsSettings {
    /// Certificate authorities to trust instead of the system's.
    #[serde(default)]
    pub ca: Option<PathBuf>,
    /// The client certificate with its chain.
    #[serde(default)]
    pub cert: Option<PathBuf>,
    /// The key of `cert`.
    #[serde(default)]
    pub key: Option<PathBuf>,
    /// The name the server's certificate has to carry, where it is not the one in the address.
    #[serde(default)]
    pub server_name: Option<String>,
}

/// `proxy = { … }`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ProxySettings {
    /// `http://`, `https://`, `socks5://` (names are looked up here) or `socks5h://` (names are looked up there), without
    /// credentials.
    pub url: String,
    /// Hosts, domains and networks that are reached directly.
    #[serde(default)]
    pub no_proxy: Vec<String>,
    /// The user name at the proxy.
    #[serde(default)]
    pub username: Option<String>,
    /// The password at the proxy.
    #[serde(default)]
    pub password: Option<Credential>,
}

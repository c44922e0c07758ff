//! `tls = { … }` and `proxy = { … }`: how a server is reached.

use invar_secrets::Credential;
pub use invar_secrets::TlsSettings;
use schemars::JsonSchema;
use serde::Deserialize;

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

//! `tls = { … }` of whatever is reached over TLS by the settings: secret stores and, above this room, sources.

use std::path::PathBuf;

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

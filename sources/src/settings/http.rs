//! `http = { … }`: which document, and how to know that it is the right one.

use std::collections::BTreeMap;
use std::path::PathBuf;

use invar_secrets::Credential;
use schemars::JsonSchema;
use serde::Deserialize;

/// `http = { … }`: one `*.alloy` file behind an address.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HttpSettings {
    /// `https://`, or `http://`; its query is passed through.
    pub url: String,
    /// Further headers of every request.
    #[serde(default)]
    pub headers: BTreeMap<String, Credential>,
    /// The SHA-256 the document has to have, in hexadecimal digits.
    #[serde(default)]
    pub sha256: Option<String>,
    /// A signature beside the document that has to be right.
    #[serde(default)]
    pub signature: Option<SignatureSettings>,
    /// How the server says that there is something new.
    #[serde(default)]
    pub notify: Option<Notify>,
    /// Where it says so; the document's own address by default.
    #[serde(default)]
    pub notify_url: Option<String>,
    /// Whether link-local addresses (`169.254.0.0/16`, `fe80::/10`), where clouds keep credentials, may be asked.
    #[serde(default)]
    pub allow_link_local: bool,
}

impl HttpSettings {
    /// What cannot work about it.
    pub(super) fn problems(&self) -> Vec<&'static str> {
        let is_digest = |text: &String| {
            let digits = text.strip_prefix("sha256:").unwrap_or(text);
            digits.len() == 64 && digits.bytes().all(|byte| byte.is_ascii_hexdigit())
        };
        let is_address = |text: &str| text.starts_with("https://") || text.starts_with("http://");
        let signature = self.signature.as_ref();
        [
            (!is_address(&self.url), "`http.url` is not an https:// or http:// address"),
            (!self.sha256.iter().all(is_digest), "`http.sha256` is not 64 hexadecimal digits"),
            (
                signature.is_some_and(|signature| signature.minisign.is_empty() == signature.ssh.is_none()),
                "`http.signature` says exactly one of `minisign` and `ssh`",
            ),
            (self.notify_url.is_some() && self.notify.is_none(), "`http.notify_url` goes with `http.notify`"),
        ]
        .into_iter()
        .filter_map(|(wrong, what)| wrong.then_some(what))
        .collect()
    }
}

/// `signature = { … }`: exactly one of `minisign` and `ssh`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SignatureSettings {
    /// Public keys of minisign, any of which may have signed.
    #[serde(default)]
    pub minisign: Vec<String>,
    /// An `allowed_signers` file, as `ssh-keygen -Y verify` reads it.
    #[serde(default)]
    pub ssh: Option<PathBuf>,
    /// Where the signature is; the document's address with `.minisig` or `.sig` behind by default.
    #[serde(default)]
    pub url: Option<String>,
}

/// How a server says that there is something new.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Notify {
    /// Server-sent events.
    Sse,
    /// A request that is answered when something changes (`Prefer: wait`).
    LongPoll,
}

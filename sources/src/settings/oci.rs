//! `oci = { … }`: which artifact of which registry.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;

/// `oci = { … }`. Of several the first of `digest`, `semver`, `tag` decides; without any it is the tag `latest`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OciSettings {
    /// The registry's host, with its port, and the repository: `registry.example/obs/fleet`.
    pub repository: String,
    /// A tag.
    #[serde(default)]
    pub tag: Option<String>,
    /// A range of semantic versions over the tags.
    #[serde(default)]
    pub semver: Option<String>,
    /// `sha256:` and the digest of the manifest.
    #[serde(default)]
    pub digest: Option<String>,
    /// Whether the registry is asked without encryption; for one on this host it needs not be said.
    #[serde(default)]
    pub insecure: bool,
    /// Public keys in PEM form, any of which has to have signed the artifact, as `cosign sign --key` does.
    #[serde(default)]
    pub cosign: Vec<PathBuf>,
}

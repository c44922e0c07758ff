//! `verify = { … }`: who has to have signed what is read from a Git repository.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;

/// `verify = { … }`. With a mode other than `none` at least one of `ssh` and `openpgp` says whom to trust.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct VerifySettings {
    /// What has to be signed.
    pub mode: VerifyMode,
    /// An `allowed_signers` file, as Git's `gpg.ssh.allowedSignersFile` names one.
    pub ssh: Option<PathBuf>,
    /// A file of OpenPGP public keys, armored or not.
    pub openpgp: Option<PathBuf>,
    /// The principals (of `ssh`) and fingerprints, addresses or names (of `openpgp`) that may sign; empty means all in the
    /// files.
    pub signers: Vec<String>,
    /// Accept, in mode `range`, what lies below a signed merge commit on the branch.
    pub seal: bool,
    /// Whether a stored revision that cannot be verified anew under a changed policy may run when the agent starts.
    pub offline: OfflineVerification,
}

/// What has to be signed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum VerifyMode {
    /// Nothing.
    #[default]
    None,
    /// The commit that is read.
    Head,
    /// The annotated tag that names it, by the tag's own name.
    Tag,
    /// Every first-parent commit since the one that was read before.
    Range,
}

/// What is done with a cached revision that cannot be verified.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OfflineVerification {
    /// It runs, with a warning.
    #[default]
    Lenient,
    /// It is refused.
    Strict,
}

//! `git = { … }`: which repository, which commit of it, and what may become of its history.

use schemars::JsonSchema;
use serde::Deserialize;

/// `git = { … }`: which repository, and which commit of it.
///
/// Of several references the first of `commit`, `ref`, `semver`, `tag`, `branch` decides; without any it
/// is the remote's `HEAD`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GitSettings {
    /// `https://`, `http://`, `ssh://`, `user@host:path`, `file://` or a path; without credentials.
    pub url: String,
    /// A branch, in short form.
    #[serde(default)]
    pub branch: Option<String>,
    /// A tag, in short form.
    #[serde(default)]
    pub tag: Option<String>,
    /// A range of semantic versions over the tags.
    #[serde(default)]
    pub semver: Option<String>,
    /// A commit, in full.
    #[serde(default)]
    pub commit: Option<String>,
    /// A reference such as `refs/heads/main`, or a short name that is looked up as branch, then tag.
    #[serde(default, rename = "ref")]
    pub reference: Option<String>,
    /// Whether a tag may come to name another commit.
    #[serde(default)]
    pub allow_tag_move: bool,
    /// What becomes of submodules in what is selected.
    #[serde(default)]
    pub submodules: Submodules,
    /// Hosts other than the repository's own that submodules may be on; nobody shows them a credential.
    #[serde(default)]
    pub submodule_hosts: Vec<String>,
}

/// What becomes of submodules.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Submodules {
    /// They are left out.
    #[default]
    Off,
    /// The commit that is named is fetched without its history, at most three levels deep.
    Shallow,
}

/// What to do when a branch no longer contains the commit that was read before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum HistoryPolicy {
    /// Nothing is looked at.
    Any,
    /// It is used, with a notice.
    #[default]
    Warn,
    /// It is refused until a person accepts it.
    FastForward,
}

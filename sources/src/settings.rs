//! The `[[source]]` tables of `invar.toml`, and the checks that need no network.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use invar_secrets::Credential;
use schemars::JsonSchema;
use serde::de::{self, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::snapshot::{SourceKind, SourceName};
use crate::substitute::{AgentAttributes, SubstituteError, substitute};
use crate::units::{DurationText, SizeText, deserialize_duration, deserialize_size};

/// One `[[source]]` table. Exactly one of `git` and `file` is present.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SourceSettings {
    /// Unique among the sources; by default the kind, with a number when there are several.
    #[serde(default)]
    pub name: Option<String>,
    /// A Git repository.
    #[serde(default)]
    pub git: Option<GitSettings>,
    /// A file or directory on this host.
    #[serde(default)]
    pub file: Option<FileSettings>,
    /// Folders or files within the repository, in order; later ones override variables of earlier ones.
    /// Empty means the root folder.
    #[serde(default, deserialize_with = "one_or_many")]
    #[schemars(with = "OneOrManyTexts")]
    pub path: Vec<String>,
    /// How long to wait between two polls, from 1 s; 60 s for remote sources, 30 s for files by default.
    #[serde(default, deserialize_with = "deserialize_duration")]
    #[schemars(with = "DurationText")]
    pub interval: Option<Duration>,
    /// How long one poll may take; 60 s by default, 300 s for the first one.
    #[serde(default, deserialize_with = "deserialize_duration")]
    #[schemars(with = "DurationText")]
    pub timeout: Option<Duration>,
    /// Whether a configuration may be composed without this source.
    #[serde(default)]
    pub optional: bool,
    /// How to authenticate to the server.
    #[serde(default)]
    pub auth: Option<AuthSettings>,
    /// Authorities and certificates of the connection.
    #[serde(default)]
    pub tls: Option<TlsSettings>,
    /// The proxy of this source; without it none is used.
    #[serde(default)]
    pub proxy: Option<ProxySettings>,
    /// What to do when a branch no longer contains the commit before.
    #[serde(default)]
    pub history: HistoryPolicy,
    /// How much a source may bring.
    #[serde(default)]
    pub limits: LimitSettings,
}

/// `git = { … }`: which repository, and which commit of it.
///
/// Of several references the first of `commit`, `ref`, `semver`, `tag`, `branch` decides; without any it
/// is the remote's `HEAD`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GitSettings {
    /// `https://`, `http://`, `file://` or a path; without credentials.
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
}

/// `file = { … }`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FileSettings {
    /// A file, or a directory whose `*.alloy` files (not those of folders in it) are read.
    pub path: PathBuf,
    /// Whether, when running as root, files that others may write are read all the same.
    #[serde(default)]
    pub allow_insecure_permissions: bool,
}

/// `auth = { … }`: exactly one way.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AuthSettings {
    /// An access token; sent as the password of `username`.
    #[serde(default)]
    pub token: Option<Credential>,
    /// The user name that goes with `token`; `x-access-token` by default.
    #[serde(default)]
    pub username: Option<String>,
    /// User name and password.
    #[serde(default)]
    pub basic: Option<BasicSettings>,
}

/// `basic = { username, password }`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BasicSettings {
    /// The user name.
    pub username: String,
    /// The password.
    pub password: Credential,
}

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
    /// `http://` or `https://`, without credentials.
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

/// `limits = { … }`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LimitSettings {
    /// Received by one fetch, in bytes; 256 MiB by default.
    #[serde(deserialize_with = "deserialize_size")]
    #[schemars(with = "SizeText", extend("default" = "256MiB"))]
    pub pack: u64,
    /// Selected files; 10 000 by default.
    pub files: usize,
    /// One selected file, in bytes; 8 MiB by default.
    #[serde(deserialize_with = "deserialize_size")]
    #[schemars(with = "SizeText", extend("default" = "8MiB"))]
    pub file: u64,
    /// All selected files, in bytes; 64 MiB by default.
    #[serde(deserialize_with = "deserialize_size")]
    #[schemars(with = "SizeText", extend("default" = "64MiB"))]
    pub bytes: u64,
}

impl Default for LimitSettings {
    fn default() -> Self {
        const MIB: u64 = 1024 * 1024;
        Self { pack: 256 * MIB, files: 10_000, file: 8 * MIB, bytes: 64 * MIB }
    }
}

/// What is wrong with the settings of a source.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("source `{name}`: {message}")]
pub struct SettingsError {
    /// The source's name, or what stands for it.
    pub name: String,
    /// One sentence.
    pub message: String,
}

impl SourceSettings {
    /// Settings of a Git source with defaults for the rest.
    #[must_use]
    pub fn for_git(git: GitSettings) -> Self {
        Self { git: Some(git), ..Self::empty() }
    }

    /// Settings of a file source with defaults for the rest.
    #[must_use]
    pub fn for_file(path: impl Into<PathBuf>) -> Self {
        let file = FileSettings { path: path.into(), allow_insecure_permissions: false };
        Self { file: Some(file), ..Self::empty() }
    }

    fn empty() -> Self {
        Self {
            name: None,
            git: None,
            file: None,
            path: Vec::new(),
            interval: None,
            timeout: None,
            optional: false,
            auth: None,
            tls: None,
            proxy: None,
            history: HistoryPolicy::default(),
            limits: LimitSettings::default(),
        }
    }

    /// The kind the settings describe; `None` before [`normalize`] has refused such settings.
    #[must_use]
    pub fn kind(&self) -> Option<SourceKind> {
        match (&self.git, &self.file) {
            (Some(_), None) => Some(SourceKind::Git),
            (None, Some(_)) => Some(SourceKind::File),
            _ => None,
        }
    }

    /// The name, once [`normalize`] has given every source one.
    #[must_use]
    pub fn source_name(&self) -> SourceName {
        SourceName::new(self.name.as_deref().unwrap_or("source"))
    }

    /// Replaces `${agent.…}` in `path`, the repository's address and the file's path; a single pass.
    ///
    /// # Errors
    /// An expression that is not one of the agent's attributes, or an attribute without a value.
    pub fn substitute(&mut self, agent: &AgentAttributes) -> Result<(), SettingsError> {
        let name = self.source_name();
        let failed =
            |error: SubstituteError| SettingsError { name: name.to_string(), message: error.to_string() };
        for path in &mut self.path {
            *path = substitute(path, agent).map_err(failed)?;
        }
        if let Some(git) = &mut self.git {
            git.url = substitute(&git.url, agent).map_err(failed)?;
        }
        if let Some(file) = &mut self.file
            && let Some(text) = file.path.to_str()
        {
            file.path = substitute(text, agent).map_err(failed)?.into();
        }
        Ok(())
    }
}

/// Names the sources that have no name, and checks all of them.
///
/// # Errors
/// Every problem of every source, in order.
pub fn normalize(sources: &mut [SourceSettings]) -> Result<(), Vec<SettingsError>> {
    let mut errors = Vec::new();
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    for source in sources.iter().filter_map(|source| source.name.as_ref()) {
        *seen.entry(source.clone()).or_default() += 1;
    }
    for (name, count) in &seen {
        if *count > 1 {
            let message = format!("{count} sources have this name; each needs its own");
            errors.push(SettingsError { name: name.clone(), message });
        }
    }
    for source in sources.iter_mut() {
        if source.name.is_none() {
            let kind = source.kind().map_or("source", SourceKind::as_str);
            let mut name = kind.to_owned();
            let mut number = 2;
            while seen.contains_key(&name) {
                name = format!("{kind}-{number}");
                number += 1;
            }
            seen.insert(name.clone(), 1);
            source.name = Some(name);
        }
        check(source, &mut errors);
    }
    if errors.is_empty() { Ok(()) } else { Err(errors) }
}

fn check(source: &SourceSettings, errors: &mut Vec<SettingsError>) {
    let name = source.name.clone().unwrap_or_default();
    let mut error = |message: &str| {
        errors.push(SettingsError { name: name.clone(), message: message.to_owned() });
    };
    let usual = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.is_empty() || name.len() > 64 || !name.chars().all(usual) {
        error("a name has 1 to 64 letters, digits, `-`, `_` or `.`");
    }
    match (&source.git, &source.file) {
        (None, None) => error("it says neither `git` nor `file`"),
        (Some(_), Some(_)) => error("it says both `git` and `file`; use two sources"),
        (Some(git), None) if git.url.is_empty() => error("`git.url` is empty"),
        (None, Some(_)) => {
            for (present, key) in [
                (!source.path.is_empty(), "`path` (say `file.path`)"),
                (source.auth.is_some(), "`auth`"),
                (source.tls.is_some(), "`tls`"),
                (source.proxy.is_some(), "`proxy`"),
            ] {
                if present {
                    error(&format!("a file source has no {key}"));
                }
            }
        }
        _ => {}
    }
    let day = Duration::from_secs(24 * 60 * 60);
    if source.interval.is_some_and(|interval| interval < Duration::from_secs(1) || interval > day) {
        error("`interval` is from 1s to 24h");
    }
    if source.timeout.is_some_and(|timeout| timeout < Duration::from_secs(1) || timeout > day) {
        error("`timeout` is from 1s to 24h");
    }
    if let Some(auth) = &source.auth {
        match (&auth.token, &auth.basic) {
            (Some(_), None) => {}
            (None, Some(_)) if auth.username.is_none() => {}
            (None, Some(_)) => error("`auth.username` goes with `auth.token`; `basic` has its own"),
            _ => error("`auth` says exactly one of `token` and `basic`"),
        }
    }
    if source.tls.as_ref().is_some_and(|tls| tls.cert.is_some() != tls.key.is_some()) {
        error("`tls.cert` and `tls.key` go together");
    }
}

/// For the schema: what [`one_or_many`] accepts.
#[derive(JsonSchema)]
#[schemars(untagged, inline)]
#[expect(dead_code, reason = "only its schema is used")]
enum OneOrManyTexts {
    One(String),
    Many(Vec<String>),
}

/// Accepts a text or a list of texts.
fn one_or_many<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    struct OneOrMany;

    impl<'de> Visitor<'de> for OneOrMany {
        type Value = Vec<String>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("a path or a list of paths")
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<Vec<String>, E> {
            Ok(vec![text.to_owned()])
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Vec<String>, A::Error> {
            let mut paths = Vec::new();
            while let Some(path) = sequence.next_element()? {
                paths.push(path);
            }
            Ok(paths)
        }
    }

    deserializer.deserialize_any(OneOrMany)
}

#[cfg(test)]
mod tests;

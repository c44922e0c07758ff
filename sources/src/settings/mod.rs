//! The `[[source]]` tables of `invar.toml`, and the checks that need no network.

mod auth;
mod connection;
mod file;
mod git;
mod http;
mod limits;
mod oci;
mod s3;
mod verify;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::de::{self, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

pub use self::auth::{
    AuthSettings, AuthorizationSettings, AwsSettings, BasicSettings, GithubAppSettings, HostKeyPolicy,
    OAuth2Settings, SshSettings,
};
pub use self::connection::{ProxySettings, TlsSettings};
pub use self::file::FileSettings;
pub use self::git::{GitSettings, HistoryPolicy, Submodules};
pub use self::http::{HttpSettings, Notify, SignatureSettings};
pub use self::limits::LimitSettings;
pub use self::oci::OciSettings;
pub use self::s3::S3Settings;
pub use self::verify::{OfflineVerification, VerifyMode, VerifySettings};
use crate::snapshot::{SourceKind, SourceName};
use crate::substitute::{AgentAttributes, SubstituteError, substitute};
use crate::units::{DurationText, deserialize_duration};

/// One `[[source]]` table. Exactly one of `git`, `s3`, `http`, `oci` and `file` is present.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SourceSettings {
    /// Unique among the sources; by default the kind, with a number when there are several.
    #[serde(default)]
    pub name: Option<String>,
    /// A Git repository.
    #[serde(default)]
    pub git: Option<GitSettings>,
    /// Objects of an S3-compatible store.
    #[serde(default)]
    pub s3: Option<S3Settings>,
    /// A document behind an HTTP address.
    #[serde(default)]
    pub http: Option<HttpSettings>,
    /// An artifact of an OCI registry.
    #[serde(default)]
    pub oci: Option<OciSettings>,
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
    /// Who has to have signed what is read.
    #[serde(default)]
    pub verify: VerifySettings,
    /// How much the source may bring.
    #[serde(default)]
    pub limits: LimitSettings,
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

    /// Settings of an S3 source with defaults for the rest.
    #[must_use]
    pub fn for_s3(s3: S3Settings) -> Self {
        Self { s3: Some(s3), ..Self::empty() }
    }

    /// Settings of an HTTP source with defaults for the rest.
    #[must_use]
    pub fn for_http(http: HttpSettings) -> Self {
        Self { http: Some(http), ..Self::empty() }
    }

    /// Settings of an OCI source with defaults for the rest.
    #[must_use]
    pub fn for_oci(oci: OciSettings) -> Self {
        Self { oci: Some(oci), ..Self::empty() }
    }

    fn empty() -> Self {
        Self {
            name: None,
            git: None,
            s3: None,
            http: None,
            oci: None,
            file: None,
            path: Vec::new(),
            interval: None,
            timeout: None,
            optional: false,
            auth: None,
            tls: None,
            proxy: None,
            history: HistoryPolicy::default(),
            verify: VerifySettings::default(),
            limits: LimitSettings::default(),
        }
    }

    /// The kind the settings describe; `None` before [`normalize`] has refused such settings.
    #[must_use]
    pub fn kind(&self) -> Option<SourceKind> {
        match self.kinds().as_slice() {
            [kind] => Some(*kind),
            _ => None,
        }
    }

    /// Every kind that has a table here.
    fn kinds(&self) -> Vec<SourceKind> {
        [
            (SourceKind::Git, self.git.is_some()),
            (SourceKind::S3, self.s3.is_some()),
            (SourceKind::Http, self.http.is_some()),
            (SourceKind::Oci, self.oci.is_some()),
            (SourceKind::File, self.file.is_some()),
        ]
        .into_iter()
        .filter_map(|(kind, present)| present.then_some(kind))
        .collect()
    }

    /// The name, once [`normalize`] has given every source one.
    #[must_use]
    pub fn source_name(&self) -> SourceName {
        SourceName::new(self.name.as_deref().unwrap_or("source"))
    }

    /// Replaces `${agent.…}` in `path`, in addresses, and in what names repositories, objects and files; a single pass.
    ///
    /// # Errors
    /// An expression that is not one of the agent's attributes, or an attribute without a value.
    pub fn substitute(&mut self, agent: &AgentAttributes) -> Result<(), SettingsError> {
        let name = self.source_name();
        let failed =
            |error: SubstituteError| SettingsError { name: name.to_string(), message: error.to_string() };
        let mut texts: Vec<&mut String> = self.path.iter_mut().collect();
        if let Some(git) = &mut self.git {
            texts.push(&mut git.url);
        }
        if let Some(S3Settings { bucket, key, prefix, manifest, .. }) = &mut self.s3 {
            texts.push(bucket);
            texts.extend([key, prefix, manifest].into_iter().flatten());
        }
        if let Some(http) = &mut self.http {
            texts.push(&mut http.url);
            texts.extend(&mut http.notify_url);
        }
        if let Some(OciSettings { repository, tag, .. }) = &mut self.oci {
            texts.push(repository);
            texts.extend(tag);
        }
        for text in texts {
            *text = substitute(text, agent).map_err(failed)?;
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
    let kinds = source.kinds();
    let names: Vec<&str> = kinds.iter().map(|kind| kind.as_str()).collect();
    match kinds.as_slice() {
        [] => error("it says none of `git`, `s3`, `http`, `oci` and `file`"),
        [_] => {}
        _ => error(&format!("it says {}; use a source for each", names.join(" and "))),
    }
    let is = |kind: SourceKind| kinds.as_slice() == [kind];
    if source.git.as_ref().is_some_and(|git| git.url.is_empty()) {
        error("`git.url` is empty");
    }
    for problem in source.s3.iter().flat_map(S3Settings::problems) {
        error(problem);
    }
    for problem in source.auth.iter().filter_map(|auth| auth.aws.as_ref()).flat_map(AwsSettings::problems) {
        error(problem);
    }
    for problem in source.oci.iter().flat_map(crate::oci::problems) {
        error(&problem);
    }
    for problem in source.http.iter().flat_map(HttpSettings::problems) {
        error(problem);
    }
    let selects = is(SourceKind::Git) || is(SourceKind::S3) || is(SourceKind::Oci);
    for (present, allowed, key) in [
        (!source.path.is_empty(), selects, "`path`"),
        (source.auth.is_some(), !is(SourceKind::File), "`auth`"),
        (source.tls.is_some(), !is(SourceKind::File), "`tls`"),
        (source.proxy.is_some(), !is(SourceKind::File), "`proxy`"),
        (source.verify.mode != VerifyMode::None, is(SourceKind::Git), "`verify`"),
        (source.history != HistoryPolicy::default(), is(SourceKind::Git), "`history`"),
    ] {
        if present && !allowed && kinds.len() == 1 {
            let hint = if key == "`path`" && is(SourceKind::File) { " (say `file.path`)" } else { "" };
            error(&format!("{} source has no {key}{hint}", indefinite(names[0])));
        }
    }
    let day = Duration::from_secs(24 * 60 * 60);
    if source.interval.is_some_and(|interval| interval < Duration::from_secs(1) || interval > day) {
        error("`interval` is from 1s to 24h");
    }
    if source.timeout.is_some_and(|timeout| timeout < Duration::from_secs(1) || timeout > day) {
        error("`timeout` is from 1s to 24h");
    }
    if let Some(auth) = &source.auth {
        let ways = auth.ways();
        if ways.len() != 1 {
            let said =
                if ways.is_empty() { "nothing".to_owned() } else { format!("`{}`", ways.join("` and `")) };
            error(&format!("`auth` says {said}; it is exactly one way"));
        } else if let Some(taken) = kinds.first().filter(|_| kinds.len() == 1).map(|kind| ways_of(*kind))
            && !taken.contains(&ways[0])
        {
            let taken = taken.join("`, `");
            error(&format!("{} source has no `auth.{}`; it has `{taken}`", indefinite(names[0]), ways[0]));
        }
        if auth.username.is_some() && auth.token.is_none() {
            error("`auth.username` goes with `auth.token`");
        }
    }
    if source.tls.as_ref().is_some_and(|tls| tls.cert.is_some() != tls.key.is_some()) {
        error("`tls.cert` and `tls.key` go together");
    }
}

/// The ways of `auth` that a kind of source takes.
fn ways_of(kind: SourceKind) -> &'static [&'static str] {
    match kind {
        SourceKind::Git => &["token", "basic", "ssh", "github_app"],
        SourceKind::S3 => &["aws"],
        SourceKind::Http => &["token", "basic", "authorization", "oauth2"],
        SourceKind::Oci => &["token", "basic"],
        SourceKind::File | SourceKind::RemoteConfig => &[],
    }
}

fn indefinite(kind: &str) -> String {
    let article = if kind.starts_with(['a', 'e', 'i', 'o', 'u']) || kind == "s3" { "an" } else { "a" };
    format!("{article} {kind}")
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

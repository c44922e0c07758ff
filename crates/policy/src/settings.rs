//! `[policy]` of the settings, as it is written.

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::pattern::PatternError;

/// `[policy]`: the ceiling over all sources. A key that is absent restricts nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PolicySettings {
    /// The environment variables that `sys.env` may read; `*` stands for any text.
    pub environment_variables: Option<Vec<String>>,
    /// The folders and files below which pipelines may read and write files of this host.
    pub file_roots: Option<Vec<PathBuf>>,
    /// The addresses that components may listen on, such as `127.0.0.1:*`.
    pub listen: Option<Vec<String>>,
    /// The hosts that components may connect to, such as `*.example.com:443` or `10.0.0.0/8`.
    pub egress: Option<Vec<String>>,
    /// The component types that may be used; `*` stands for any text.
    pub components: Option<Vec<String>>,
    /// Component types that may not be used whatever `components` says.
    pub deny_components: Vec<String>,
    /// For each source the secrets that it may name, such as `vault/kv/platform/*`. A source that is not named here may
    /// name none.
    pub secrets: Option<BTreeMap<String, Vec<String>>>,
    /// Whether `convert.nonsensitive` may be used.
    pub nonsensitive: Option<bool>,
    /// Whether anything of a pipeline may run a program. Off unless it is set.
    pub exec: bool,
    /// How much there may be.
    pub limits: PolicyLimits,
    /// Narrower ceilings for single sources, by their names. They hold together with the general one.
    pub source: BTreeMap<String, SourcePolicySettings>,
}

/// `[policy.source.NAME]`: what one source may use of what `[policy]` leaves.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SourcePolicySettings {
    /// As in `[policy]`.
    pub environment_variables: Option<Vec<String>>,
    /// As in `[policy]`.
    pub file_roots: Option<Vec<PathBuf>>,
    /// As in `[policy]`.
    pub listen: Option<Vec<String>>,
    /// As in `[policy]`.
    pub egress: Option<Vec<String>>,
    /// As in `[policy]`.
    pub components: Option<Vec<String>>,
    /// As in `[policy]`.
    pub deny_components: Vec<String>,
    /// As in `[policy]`.
    pub nonsensitive: Option<bool>,
    /// Whether this source may run programs where `[policy]` allows it.
    pub exec: Option<bool>,
    /// How much of it there may be from this source.
    pub limits: PolicyLimits,
}

/// How much there may be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PolicyLimits {
    /// Components, those of modules and of `foreach` included.
    pub components: Option<usize>,
    /// Pipeline files.
    pub files: Option<usize>,
}

/// Why `[policy]` cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// A pattern cannot be read.
    #[error("[{table}] {key}: {error}")]
    Pattern {
        /// The table of the settings.
        table: String,
        /// The key in it.
        key: &'static str,
        /// What is wrong.
        error: PatternError,
    },
    /// A root is no absolute path.
    #[error("[{table}] file_roots: `{root}` is no absolute path")]
    RelativeRoot {
        /// The table of the settings.
        table: String,
        /// The path.
        root: String,
    },
    /// A source is named that does not exist: a ceiling that holds nobody.
    #[error("[{table}] names the source `{name}`, which does not exist{}", known(.sources))]
    UnknownSource {
        /// The table of the settings.
        table: String,
        /// The name.
        name: String,
        /// The sources that exist.
        sources: Vec<String>,
    },
}

fn known(sources: &[String]) -> String {
    if sources.is_empty() { String::new() } else { format!("; there are {}", sources.join(", ")) }
}

impl SourcePolicySettings {
    pub(crate) fn general(settings: &PolicySettings) -> Self {
        Self {
            environment_variables: settings.environment_variables.clone(),
            file_roots: settings.file_roots.clone(),
            listen: settings.listen.clone(),
            egress: settings.egress.clone(),
            components: settings.components.clone(),
            deny_components: settings.deny_components.clone(),
            nonsensitive: settings.nonsensitive,
            exec: Some(settings.exec),
            limits: settings.limits,
        }
    }
}

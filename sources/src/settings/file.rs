//! `file = { … }`: what of this host is read.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;

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

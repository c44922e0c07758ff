//! `limits = { … }`: how much a source may bring.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::units::{SizeText, deserialize_size};

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

//! `s3 = { … }`: which objects of which store.

use schemars::JsonSchema;
use serde::Deserialize;

/// `s3 = { … }`: exactly one of `key`, `prefix` and `manifest` says what is read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct S3Settings {
    /// The bucket.
    pub bucket: String,
    /// One object.
    #[serde(default)]
    pub key: Option<String>,
    /// Every object whose key begins so; the empty text is the whole bucket.
    #[serde(default)]
    pub prefix: Option<String>,
    /// An object that names the others with their digests.
    #[serde(default)]
    pub manifest: Option<String>,
    /// A version of `key` or `manifest` in a bucket that keeps versions.
    #[serde(default)]
    pub version: Option<String>,
    /// The region; `us-east-1` by default, which compatible stores do not mind.
    #[serde(default)]
    pub region: Option<String>,
    /// The address of a compatible store.
    #[serde(default)]
    pub endpoint: Option<String>,
    /// Whether the bucket is the first part of the path instead of a part of the host's name; the default with `endpoint`.
    #[serde(default)]
    pub path_style: Option<bool>,
}

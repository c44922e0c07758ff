//! `s3 = { … }`: which objects of which store.

use schemars::JsonSchema;
use serde::Deserialize;

use super::http::SignatureSettings;

/// `s3 = { … }`: exactly one of `key`, `prefix` and `manifest` says what is read.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct S3Settings {
    /// The bucket.
    pub bucket: String,
    /// One object.
    #[serde(default)]
    pub key: Option<String>,
    /// Every object below this folder; the empty text is the whole bucket.
    #[serde(default)]
    pub prefix: Option<String>,
    /// An object that names the others with their digests.
    #[serde(default)]
    pub manifest: Option<String>,
    /// A signature that has to lie beside the manifest, as `<manifest>.minisig` or `<manifest>.sig`.
    #[serde(default)]
    pub signature: Option<SignatureSettings>,
    /// A version of `key` or `manifest` in a bucket that keeps versions.
    #[serde(default)]
    pub version: Option<String>,
    /// The region; that of `AWS_REGION`, else `us-east-1` by default, which compatible stores do not mind.
    #[serde(default)]
    pub region: Option<String>,
    /// The address of a compatible store.
    #[serde(default)]
    pub endpoint: Option<String>,
    /// Whether the bucket is the first part of the path instead of a part of the host's name; the default with `endpoint`.
    #[serde(default)]
    pub path_style: Option<bool>,
    /// The most objects that a prefix or a manifest may have; 1000 by default.
    #[serde(default = "most_objects")]
    pub objects: usize,
}

fn most_objects() -> usize {
    1000
}

impl Default for S3Settings {
    fn default() -> Self {
        Self {
            bucket: String::new(),
            key: None,
            prefix: None,
            manifest: None,
            signature: None,
            version: None,
            region: None,
            endpoint: None,
            path_style: None,
            objects: most_objects(),
        }
    }
}

impl S3Settings {
    /// What is wrong with these settings, apart from what only the store knows.
    pub(crate) fn problems(&self) -> Vec<&'static str> {
        let modes = [&self.key, &self.prefix, &self.manifest].into_iter().flatten().count();
        let signature = self.signature.as_ref();
        let mut problems = Vec::new();
        for (wrong, problem) in [
            (self.bucket.is_empty(), "`s3.bucket` is empty"),
            (modes != 1, "`s3` says exactly one of `key`, `prefix` and `manifest`"),
            (
                self.version.is_some() && self.prefix.is_some(),
                "`s3.version` goes with `s3.key` and `s3.manifest`",
            ),
            (self.signature.is_some() && self.manifest.is_none(), "`s3.signature` goes with `s3.manifest`"),
            (
                signature.is_some_and(|signature| signature.minisign.is_empty() == signature.ssh.is_none()),
                "`s3.signature` says exactly one of `minisign` and `ssh`",
            ),
            (
                signature.is_some_and(|signature| signature.url.is_some()),
                "`s3.signature` has no `url`: the signature lies beside the manifest",
            ),
            (self.objects == 0, "`s3.objects` is at least 1"),
        ] {
            if wrong {
                problems.push(problem);
            }
        }
        problems
    }
}

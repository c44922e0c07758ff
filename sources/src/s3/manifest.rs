//! The manifest: a JSON document that names the files of one state of the configuration with their digests.
//!
//! ```json
//! {
//!   "version": 42,
//!   "objects": "objects/",
//!   "files": { "base/main.alloy": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08" }
//! }
//! ```
//!
//! With `objects` a file's object is called by its digest below that folder, so that an upload replaces nothing; without it,
//! by the file's name. Both lie beside the manifest.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::path::{check_name, normalize_path};
use crate::s3::catalog::file_and_folder;

/// The longest manifest, in bytes.
pub(super) const LONGEST: usize = 4 * 1024 * 1024;
const PREFIX: &str = "manifest-";
const MIDDLE: &str = "@sha256:";

/// A manifest that was understood: its names are safe, its digests are digests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// Goes up with each state; a lower one than before is refused.
    pub version: u64,
    /// The folder in which objects are called by their digest, `/` at the end; `None` where they are called by name.
    pub objects: Option<String>,
    /// SHA-256 in lowercase hexadecimal digits, by the file's name.
    pub files: BTreeMap<String, String>,
}

/// Why a document is no manifest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// Not JSON, or not of this shape.
    #[error("the manifest is not what it should be: {0}")]
    Json(String),
    /// A name of a file that is not safe.
    #[error("in the manifest {0}")]
    Name(String),
    /// Something else than a SHA-256.
    #[error("in the manifest the digest of `{0}` is not 64 hexadecimal digits")]
    Digest(String),
    /// The folder of objects leads elsewhere.
    #[error("in the manifest `objects` is not a folder beside it")]
    Objects,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    version: u64,
    #[serde(default)]
    objects: Option<String>,
    files: Unique,
}

/// A table of texts in which each key is there once: of two equal ones a reader elsewhere might take the other.
struct Unique(BTreeMap<String, String>);

impl<'de> Deserialize<'de> for Unique {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Unique;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("names of files with their digests")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Unique, A::Error> {
                let mut texts = BTreeMap::new();
                while let Some((name, digest)) = map.next_entry::<String, String>()? {
                    if texts.insert(name, digest).is_some() {
                        return Err(A::Error::custom("a file is there twice"));
                    }
                }
                Ok(Unique(texts))
            }
        }
        deserializer.deserialize_map(Reader)
    }
}

// === impl Manifest ===

impl Manifest {
    /// Reads a document.
    ///
    /// # Errors
    /// [`ManifestError`].
    pub fn parse(document: &[u8]) -> Result<Self, ManifestError> {
        let document: Document = serde_json::from_slice(document)
            .map_err(|error| ManifestError::Json(error.to_string().chars().take(200).collect()))?;
        let mut files = BTreeMap::new();
        for (name, digest) in document.files.0 {
            for part in name.split('/') {
                check_name(part.as_bytes()).map_err(|failure| ManifestError::Name(failure.message))?;
            }
            if digest.len() != 64 || !digest.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                return Err(ManifestError::Digest(name));
            }
            files.insert(name, digest.to_ascii_lowercase());
        }
        if let Some(name) = file_and_folder(&files) {
            return Err(ManifestError::Name(format!("`{name}` is both a file and a folder")));
        }
        let objects = match document.objects {
            None => None,
            Some(folder) => {
                let safe = !folder.starts_with('/') && !folder.split('/').any(|name| name == "..");
                let folder = normalize_path(&folder).filter(|_| safe).ok_or(ManifestError::Objects)?;
                Some(if folder.is_empty() { folder } else { format!("{folder}/") })
            }
        };
        Ok(Self { version: document.version, objects, files })
    }
}

/// The text of the revision: `manifest-42@sha256:<64 hex>`.
pub(super) fn revision(version: u64, digest: &str) -> String {
    format!("{PREFIX}{version}{MIDDLE}{digest}")
}

/// The version in the text of a revision.
pub(super) fn version_of(revision: &str) -> Option<u64> {
    revision.strip_prefix(PREFIX)?.split_once(MIDDLE)?.0.parse().ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> Result<Manifest, String> {
        Manifest::parse(text.as_bytes()).map_err(|error| error.to_string())
    }

    #[test]
    fn names_and_digests_are_read() {
        let digest = "AB".repeat(32);
        let manifest =
            parse(&format!(r#"{{"version": 7, "files": {{"base/a.alloy": "{digest}"}}}}"#)).unwrap();
        assert_eq!(manifest.version, 7);
        assert_eq!(manifest.objects, None);
        assert_eq!(manifest.files["base/a.alloy"], "ab".repeat(32));
        let manifest = parse(r#"{"version": 0, "objects": "objects", "files": {}}"#).unwrap();
        assert_eq!(manifest.objects.as_deref(), Some("objects/"));
        let manifest = parse(r#"{"version": 0, "objects": "", "files": {}}"#).unwrap();
        assert_eq!(manifest.objects.as_deref(), Some(""));
    }

    #[test]
    fn what_is_not_as_it_should_be_is_refused() {
        let digest = "ab".repeat(32);
        for (text, part) in [
            ("", "not what it should be"),
            ("<html>", "not what it should be"),
            (r#"{"files": {}}"#, "missing field `version`"),
            (r#"{"version": -1, "files": {}}"#, "invalid value"),
            (r#"{"version": 1, "files": {}, "filez": 1}"#, "unknown field"),
            (r#"{"version": 1, "files": {"a": "00"}}"#, "64 hexadecimal digits"),
            (r#"{"version": 1, "objects": "../x", "files": {}}"#, "`objects`"),
            (r#"{"version": 1, "objects": "/x", "files": {}}"#, "`objects`"),
            (&format!(r#"{{"version": 1, "files": {{"../a": "{digest}"}}}}"#), "not a name"),
            (&format!(r#"{{"version": 1, "files": {{"/a": "{digest}"}}}}"#), "not a name"),
            (&format!(r#"{{"version": 1, "files": {{"a\u0001": "{digest}"}}}}"#), "control characters"),
            (&format!(r#"{{"version": 1, "files": {{"a": "{digest}", "a": "{digest}"}}}}"#), "there twice"),
            (
                &format!(
                    r#"{{"version": 1, "files": {{"a": "{digest}", "a.x": "{digest}", "a/b": "{digest}"}}}}"#
                ),
                "both a file and a folder",
            ),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn the_version_is_in_the_revision() {
        assert_eq!(version_of(&revision(42, "ab")), Some(42));
        for text in ["", "s3:sha256:00", "manifest-x@sha256:00", "manifest-1"] {
            assert_eq!(version_of(text), None);
        }
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic_and_what_it_gives_is_safe(
            version in any::<u64>(),
            objects in proptest::option::of("[a./]{0,8}"),
            files in proptest::collection::btree_map("[ab./\\\\\u{1}]{0,6}", "[0-9a-fG]{62,66}", 0..6),
            noise in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            drop(Manifest::parse(&noise));
            let document = serde_json::json!({ "version": version, "objects": objects, "files": files });
            if let Ok(manifest) = Manifest::parse(document.to_string().as_bytes()) {
                prop_assert_eq!(manifest.version, version);
                for (name, digest) in &manifest.files {
                    let normal = normalize_path(name);
                    prop_assert_eq!(normal.as_ref(), Some(name));
                    prop_assert_eq!(digest.len(), 64);
                }
                let inside = manifest.objects.is_none_or(|folder| {
                    !folder.starts_with('/') && folder.split('/').all(|name| name != "..")
                });
                prop_assert!(inside);
            }
        }
    }
}

//! What a source yields: an immutable set of files with the revision they come from.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// The name of a source, unique within the settings.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SourceName(Arc<str>);

impl SourceName {
    /// Wraps a name as it stands.
    #[must_use]
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        Self(name.into())
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SourceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<&str> for SourceName {
    fn from(name: &str) -> Self {
        Self::new(name)
    }
}

/// The kinds of sources.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SourceKind {
    /// A Git repository.
    Git,
    /// A file or directory on this host.
    File,
    /// A document behind an HTTP address.
    Http,
    /// Objects in an S3-compatible store.
    S3,
    /// An artifact of an OCI registry.
    Oci,
    /// A control plane that sends configurations (`remotecfg`).
    #[serde(rename = "remotecfg")]
    RemoteConfig,
}

impl SourceKind {
    /// The word used in settings, statuses and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Git => "git",
            Self::File => "file",
            Self::Http => "http",
            Self::S3 => "s3",
            Self::Oci => "oci",
            Self::RemoteConfig => "remotecfg",
        }
    }
}

impl fmt::Display for SourceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Which state of a source a snapshot shows.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Revision {
    /// For people and commit statuses: `main@sha1:<40 hex>`, `file:sha256:<64 hex>`.
    pub text: String,
    /// The commit, in full lowercase hexadecimal digits, where the source has commits.
    pub commit: Option<String>,
    /// What the settings asked for: a branch or tag in short form, `HEAD`, or the commit itself.
    pub reference: Option<String>,
    /// The object the reference itself names where that is not the commit (an annotated tag).
    #[serde(default)]
    pub object: Option<String>,
    /// The commit that the folders shared by all environments are taken from, where the environment pins one.
    #[serde(default)]
    pub pinned: Option<String>,
}

/// What stands in a revision's text before the commit that an environment's base is pinned to.
const PINNED: &str = "+base@";

impl Revision {
    /// A revision of a Git source.
    #[must_use]
    pub fn git(reference: &str, commit: &str) -> Self {
        Self {
            text: format!("{reference}@sha1:{commit}"),
            commit: Some(commit.to_owned()),
            reference: Some(reference.to_owned()),
            object: None,
            pinned: None,
        }
    }

    /// A revision that is the digest of the content itself.
    #[must_use]
    pub fn content(kind: SourceKind, digest: &str) -> Self {
        let text = format!("{kind}:sha256:{digest}");
        Self { text, commit: None, reference: None, object: None, pinned: None }
    }

    /// A revision that has a name of its own and nothing else.
    pub(crate) fn named(text: String) -> Self {
        Self { text, commit: None, reference: None, object: None, pinned: None }
    }

    /// Notes that an environment takes its base from `commit`: `main@sha1:<40 hex>+base@<40 hex>`.
    pub(crate) fn pin(&mut self, commit: &str) {
        self.text = format!("{}{PINNED}{commit}", self.text);
        self.pinned = Some(commit.to_owned());
    }

    /// The commit, and the one that a base is pinned to, of a revision's text.
    pub(crate) fn commits_of(text: &str) -> Option<(String, Option<String>)> {
        let (head, pinned) = match text.rsplit_once(PINNED) {
            Some((head, pinned)) => (head, Some(pinned.to_owned())),
            None => (text, None),
        };
        let commit = head.rsplit_once("@sha1:")?.1.to_owned();
        Some((commit, pinned))
    }

    /// The text with the digits shortened to twelve, for tables.
    #[must_use]
    pub fn short(&self) -> String {
        if let Some((head, pin)) = self.text.split_once(PINNED)
            && pin.is_char_boundary(12.min(pin.len()))
        {
            let head = Self { text: head.to_owned(), ..self.clone() };
            return format!("{}{PINNED}{}", head.short(), &pin[..12.min(pin.len())]);
        }
        match self.text.rsplit_once(':') {
            Some((head, digits)) if digits.len() > 12 && digits.is_char_boundary(12) => {
                format!("{head}:{}", &digits[..12])
            }
            _ => self.text.clone(),
        }
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Something about a change that people should hear of although the snapshot is usable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NoticeKind {
    /// The reference no longer contains the commit it pointed at before (force push).
    HistoryRewritten,
    /// The reference moved back to a commit that the previous one contains.
    Rewind,
    /// It could not be found out within 1000 commits whether the previous commit is contained.
    HistoryUnknown,
    /// The tag names another object than before, which the settings allow.
    TagMoved,
    /// The remote's default branch is another one than before.
    DefaultBranchChanged,
    /// The server answers from another address; the settings should be updated.
    Redirected,
    /// The connection is not encrypted.
    InsecureTransport,
    /// The local clone was damaged or its history vanished; it was wiped and made afresh.
    ClonedAfresh,
    /// File names that differ only in case.
    CaseCollision,
}

/// A notice with its sentence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    /// What it is about.
    pub kind: NoticeKind,
    /// One sentence for people; no secrets.
    pub message: String,
}

/// A file of a snapshot.
///
/// The content is shared and never changes.
pub type Files = BTreeMap<String, Bytes>;

/// The selected files of a source at one revision.
#[derive(Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// The source it comes from.
    pub source: SourceName,
    /// The kind of that source.
    pub kind: SourceKind,
    /// Which state of the source this is.
    pub revision: Revision,
    /// Virtual path (`/` between names, relative, no `.` or `..`) to content.
    pub files: Files,
    /// The selected paths in the order of the settings; later ones override variables of earlier ones.
    /// Empty where the source is one folder.
    pub paths: Vec<String>,
    /// [`tree_digest`] of `files`.
    pub digest: String,
    /// Identifies the settings that chose these files; another value forces a new read.
    pub selection: String,
    /// `Name <mail>` of the commit's author, where there is one. Under the author's control.
    pub author: Option<String>,
    /// First line of the commit message.
    pub subject: Option<String>,
    /// The verified principal that signed the revision.
    pub signer: Option<String>,
    /// The digest of the policy of trust under which that was verified; `None` where nothing has to be signed.
    pub trust: Option<String>,
    /// When the commit says it was made. For display only: nothing is ordered by it.
    pub committed_at: Option<SystemTime>,
    /// When this snapshot was read.
    pub fetched_at: SystemTime,
    /// What happened on the way.
    pub notices: Vec<Notice>,
}

impl fmt::Debug for Snapshot {
    // Contents are left out: they are long, and somebody may have written a password into one.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshot")
            .field("source", &self.source)
            .field("revision", &self.revision.text)
            .field("digest", &self.digest)
            .field("files", &self.files.keys())
            .finish_non_exhaustive()
    }
}

impl Snapshot {
    /// What is read from a source that knows its content alone: no commits, authors or paths.
    #[must_use]
    pub fn of_content(
        source: SourceName,
        kind: SourceKind,
        digest: String,
        files: Files,
        fetched_at: SystemTime,
    ) -> Self {
        Self {
            source,
            kind,
            revision: Revision::content(kind, &digest),
            files,
            paths: Vec::new(),
            digest,
            selection: String::new(),
            author: None,
            subject: None,
            signer: None,
            trust: None,
            committed_at: None,
            fetched_at,
            notices: Vec::new(),
        }
    }

    /// The sum of the sizes of all files, in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.files.values().map(|content| content.len() as u64).sum()
    }
}

/// SHA-256, in hexadecimal digits, over the sorted paths and the SHA-256 of each content: the same
/// whenever the selected files are the same, whatever else the commit changed.
#[must_use]
pub fn tree_digest(files: &Files) -> String {
    let mut digest = Sha256::new();
    for (path, content) in files {
        digest.update((path.len() as u64).to_be_bytes());
        digest.update(path.as_bytes());
        // One class of mode is all a virtual tree has: links are resolved, nothing is executable.
        digest.update(b"file");
        digest.update(Sha256::digest(content));
    }
    hexadecimal(&digest.finalize())
}

/// Lowercase hexadecimal digits of `bytes`.
pub(crate) fn hexadecimal(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(entries: &[(&str, &str)]) -> Files {
        entries
            .iter()
            .map(|(path, content)| ((*path).to_owned(), Bytes::copy_from_slice(content.as_bytes())))
            .collect()
    }

    #[test]
    fn digest_depends_on_paths_and_contents_alone() {
        let one = tree_digest(&files(&[("a", "x"), ("b", "y")]));
        assert_eq!(one, tree_digest(&files(&[("b", "y"), ("a", "x")])));
        assert_ne!(one, tree_digest(&files(&[("a", "x"), ("b", "z")])));
        assert_ne!(one, tree_digest(&files(&[("a", "x"), ("c", "y")])));
        assert_ne!(tree_digest(&files(&[("a", ""), ("b", "")])), tree_digest(&files(&[("ab", "")])));
        assert_eq!(one.len(), 64);
    }

    #[test]
    fn revisions_are_shortened_to_twelve_digits() {
        let revision = Revision::git("main", &"ab".repeat(20));
        assert_eq!(revision.text, format!("main@sha1:{}", "ab".repeat(20)));
        assert_eq!(revision.short(), "main@sha1:abababababab");
        let mut pinned = revision;
        pinned.pin(&"cd".repeat(20));
        assert_eq!(pinned.text, format!("main@sha1:{}+base@{}", "ab".repeat(20), "cd".repeat(20)));
        assert_eq!(pinned.short(), "main@sha1:abababababab+base@cdcdcdcdcdcd");
        let commits = Some(("ab".repeat(20), Some("cd".repeat(20))));
        assert_eq!(Revision::commits_of(&pinned.text), commits);
        assert_eq!(Revision::commits_of("file:sha256:00"), None);
    }

    #[test]
    fn contents_do_not_appear_in_debug_output() {
        let snapshot = Snapshot {
            source: "s".into(),
            kind: SourceKind::File,
            revision: Revision::content(SourceKind::File, "00"),
            files: files(&[("a.alloy", "password-in-clear")]),
            paths: Vec::new(),
            digest: String::new(),
            selection: String::new(),
            author: None,
            subject: None,
            signer: None,
            trust: None,
            committed_at: None,
            fetched_at: SystemTime::UNIX_EPOCH,
            notices: Vec::new(),
        };
        let text = format!("{snapshot:?}");
        assert!(text.contains("a.alloy") && !text.contains("password"), "{text}");
    }
}

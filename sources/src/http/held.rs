//! The document that was read last, with what the server calls it. It is kept on disk as well, so that a restart need not
//! move it again: validators are worth nothing without the content that they are for, hence both are in one file.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, header};
use invar_durable::{make_directory, replace};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::snapshot::hexadecimal;

const FORMAT: u32 = 1;
/// The longest first line that is believed.
const HEAD_LIMIT: usize = 64 * 1024;

/// A document that was read and found right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) content: Bytes,
    /// SHA-256 of the content, in hexadecimal digits.
    pub(super) sha256: String,
    /// The signature it was accepted with.
    pub(super) signature: Option<Bytes>,
    pub(super) entity_tag: Option<String>,
    pub(super) last_modified: Option<String>,
    /// Whether something on the way was not encrypted, and where it is if it has moved: a 304 comes the same way.
    pub(super) insecure: bool,
    pub(super) moved: Option<String>,
}

/// What stands in the first line of the file, before the content and the signature.
#[derive(Debug, Serialize, Deserialize)]
struct Head {
    format: u32,
    selection: String,
    sha256: String,
    length: usize,
    signature: Option<usize>,
    entity_tag: Option<String>,
    last_modified: Option<String>,
    #[serde(default)]
    insecure: bool,
    #[serde(default)]
    moved: Option<String>,
}

impl Held {
    /// Takes the names that an answer gives its content.
    pub(super) fn name(&mut self, headers: &HeaderMap) {
        // Only what can be sent back as it came.
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        self.entity_tag = text(header::ETAG);
        self.last_modified = text(header::LAST_MODIFIED);
    }

    /// The conditions under which the server need not send the content again. None without something to go by.
    pub(super) fn conditions(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in
            [(header::IF_NONE_MATCH, &self.entity_tag), (header::IF_MODIFIED_SINCE, &self.last_modified)]
        {
            if let Some(value) = value.as_deref().and_then(|value| HeaderValue::from_str(value).ok()) {
                headers.insert(name, value);
            }
        }
        headers
    }
}

/// Where the document of one source is kept between runs.
#[derive(Clone, Debug)]
pub(super) struct HeldFile {
    path: PathBuf,
    /// Identifies the settings that it was read under.
    selection: String,
}

impl HeldFile {
    /// `identity` says whose view of `url` it is.
    pub(super) fn new(state: &Path, url: &str, identity: &str, selection: &str) -> Self {
        let name = hexadecimal(&Sha256::digest(format!("{url}\n{identity}")));
        Self { path: state.join("http").join(name), selection: selection.to_owned() }
    }

    /// What an earlier run left, if all of it is still there and right.
    pub(super) fn read(&self) -> Option<Held> {
        let file = Bytes::from(fs::read(&self.path).ok()?);
        let end = file.iter().take(HEAD_LIMIT).position(|byte| *byte == b'\n')?;
        let head: Head = serde_json::from_slice(&file[..end]).ok()?;
        let rest = file.slice(end + 1..);
        let whole = head.length.checked_add(head.signature.unwrap_or(0))? == rest.len();
        if head.format != FORMAT || head.selection != self.selection || !whole {
            return None;
        }
        let content = rest.slice(..head.length);
        let signature = head.signature.map(|_| rest.slice(head.length..));
        let sha256 = hexadecimal(&Sha256::digest(&content));
        (sha256 == head.sha256).then_some(Held {
            content,
            sha256,
            signature,
            entity_tag: head.entity_tag,
            last_modified: head.last_modified,
            insecure: head.insecure,
            moved: head.moved,
        })
    }

    /// Keeps a document for the next run; the file is replaced whole or not at all.
    pub(super) fn write(&self, held: &Held) -> io::Result<()> {
        let head = Head {
            format: FORMAT,
            selection: self.selection.clone(),
            sha256: held.sha256.clone(),
            length: held.content.len(),
            signature: held.signature.as_ref().map(Bytes::len),
            entity_tag: held.entity_tag.clone(),
            last_modified: held.last_modified.clone(),
            insecure: held.insecure,
            moved: held.moved.clone(),
        };
        make_directory(self.path.parent().unwrap_or(Path::new(".")))?;
        let head = serde_json::to_vec(&head)?;
        replace(&self.path, &[&head, b"\n", &held.content, held.signature.as_deref().unwrap_or_default()])
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn held() -> Held {
        let content = Bytes::from_static(b"logging { }\n");
        Held {
            sha256: hexadecimal(&Sha256::digest(&content)),
            content,
            signature: Some(Bytes::from_static(b"signed")),
            entity_tag: Some("W/\"a\"".to_owned()),
            last_modified: Some("Sun, 06 Nov 1994 08:49:37 GMT".to_owned()),
            insecure: false,
            moved: None,
        }
    }

    fn file(folder: &Path, selection: &str) -> HeldFile {
        HeldFile::new(folder, "https://host/x", "", selection)
    }

    #[test]
    fn what_was_written_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let kept = file(folder.path(), "s");
        assert_eq!(kept.read(), None);
        kept.write(&held()).unwrap();
        assert_eq!(kept.read(), Some(held()));
        assert_eq!(file(folder.path(), "other").read(), None, "read under other settings");
        let unsigned = Held { signature: None, ..held() };
        kept.write(&unsigned).unwrap();
        assert_eq!(kept.read(), Some(unsigned));
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            let mode = fs::metadata(&kept.path).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
    }

    #[test]
    fn nothing_torn_or_changed_is_believed() {
        let folder = tempfile::tempdir().unwrap();
        let kept = file(folder.path(), "s");
        kept.write(&held()).unwrap();
        let whole = fs::read(&kept.path).unwrap();
        for length in 0..whole.len() {
            fs::write(&kept.path, &whole[..length]).unwrap();
            assert_eq!(kept.read(), None, "{length} bytes of {}", whole.len());
        }
        let mut changed = whole.clone();
        let at = whole.iter().position(|byte| *byte == b'\n').unwrap() + 2;
        changed[at] ^= 1;
        fs::write(&kept.path, &changed).unwrap();
        assert_eq!(kept.read(), None);
        fs::write(&kept.path, [&whole[..], b"x"].concat()).unwrap();
        assert_eq!(kept.read(), None);
    }

    #[test]
    fn validators_are_sent_back_as_they_came() {
        let conditions = held().conditions();
        assert_eq!(conditions[header::IF_NONE_MATCH], "W/\"a\"");
        assert_eq!(conditions[header::IF_MODIFIED_SINCE], "Sun, 06 Nov 1994 08:49:37 GMT");
    }
}

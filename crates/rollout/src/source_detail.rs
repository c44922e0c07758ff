//! What `GET /api/v1/sources/NAME` answers: one source in full. Changes here are additive only.

use invar_sources::NoticeKind;
use serde::{Deserialize, Serialize};

use crate::status::SourceState;
use crate::time::Timestamp;

const VERSION: u32 = 1;

/// One source, or one module that is polled as one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceDetail {
    /// Version of this shape.
    pub version: u32,
    /// What the list says of it.
    #[serde(flatten)]
    pub state: SourceState,
    /// Where it reads from, redacted; empty where that is not known.
    pub description: String,
    /// Whether a configuration needs it.
    pub required: bool,
    /// Whether it is being asked right now.
    pub polling: bool,
    /// How long to wait between two checks, before jitter and backoff.
    pub interval_seconds: Option<u64>,
    /// The next check; none while the source is stalled.
    pub next: Option<Timestamp>,
    /// Checks in a row that found nothing where something was.
    pub missing_polls: u32,
    /// What a person can do about the error.
    pub help: Option<String>,
    /// What it holds.
    pub content: Option<ContentDetail>,
}

/// What a source holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContentDetail {
    /// Digest of the selected files.
    pub digest: String,
    /// How many files.
    pub files: usize,
    /// Their size together.
    pub bytes: u64,
    /// The selected paths; empty means all of it.
    pub paths: Vec<String>,
    /// Who wrote the revision.
    pub author: Option<String>,
    /// First line of its message.
    pub subject: Option<String>,
    /// Who signed it, where signatures are verified.
    pub signer: Option<String>,
    /// When the revision says it was made.
    pub committed: Option<Timestamp>,
    /// When it was read.
    pub fetched: Timestamp,
    /// What was odd about it.
    pub notices: Vec<NoticeDetail>,
}

/// Something odd about a revision that is usable all the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NoticeDetail {
    /// What it is about.
    pub kind: NoticeKind,
    /// One sentence.
    pub message: String,
}

impl SourceDetail {
    /// What the state alone tells.
    #[must_use]
    pub fn of(state: SourceState) -> Self {
        Self {
            version: VERSION,
            state,
            description: String::new(),
            required: false,
            polling: false,
            interval_seconds: None,
            next: None,
            missing_polls: 0,
            help: None,
            content: None,
        }
    }
}

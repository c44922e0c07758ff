//! What is remembered about revisions after they were tried: verdicts, quarantine, hold.

use serde::{Deserialize, Serialize};

use crate::time::Timestamp;

/// One line of the history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevisionRecord {
    /// Order of appearance, unique in this state directory.
    pub sequence: u64,
    /// Generation; null for what never ran.
    pub generation: Option<u64>,
    /// Revision text, full commit ids.
    pub revision: String,
    /// Digest of the candidate.
    pub digest: String,
    /// Who wrote it.
    pub author: Option<String>,
    /// First line of its message.
    pub subject: Option<String>,
    /// Who signed it.
    pub signer: Option<String>,
    /// When it was first seen.
    pub observed: Timestamp,
    /// When it was swapped in.
    pub swapped: Option<Timestamp>,
    /// When the verdict fell.
    pub decided: Option<Timestamp>,
    /// What became of it.
    pub verdict: Verdict,
    /// Why, for everything but a plain commit.
    pub note: Option<String>,
    /// Hash of the plan that was applied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<String>,
    /// Stage at which it was rejected or undone.
    pub stage: Option<String>,
    /// Where the fault is.
    pub file: Option<String>,
    /// Line in that file, from 1.
    pub line: Option<u32>,
}

/// What became of a revision.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// No verdict yet.
    Pending,
    /// Was or is last known good.
    Committed,
    /// Never ran.
    Rejected,
    /// Ran, was bad, was undone.
    RolledBack,
    /// A newer candidate took its place before its verdict.
    Superseded,
    /// Same content as what runs: nothing was swapped.
    NoEffectiveChange,
}

impl Verdict {
    /// The text that metrics and the API show.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Committed => "committed",
            Self::Rejected => "rejected",
            Self::RolledBack => "rolled_back",
            Self::Superseded => "superseded",
            Self::NoEffectiveChange => "no_effective_change",
        }
    }
}

/// Content that ran and was bad, and is not tried until `until` or until an operator says so.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuarantineEntry {
    /// Digest of the candidate.
    pub digest: String,
    /// Revisions that carried this content.
    pub revisions: Vec<String>,
    /// Where it failed: `prepare`, `probation`, `process`.
    pub stage: String,
    /// What was seen.
    pub reason: String,
    /// Since when.
    pub since: Timestamp,
    /// End of the quarantine: one automatic retry follows. Null: only another binary version or an operator ends it.
    pub until: Option<Timestamp>,
    /// How often this content failed.
    pub strikes: u32,
    /// Whether the content itself, not the world, was the cause.
    pub deterministic: bool,
    /// Version of the agent that saw it fail.
    pub agent_version: String,
}

/// A hold: revisions are fetched, checked and planned, not applied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    /// Who asked.
    pub by: String,
    /// Why.
    pub reason: String,
    /// Since when.
    pub since: Timestamp,
    /// End; null: until lifted.
    pub until: Option<Timestamp>,
    /// Content that lifts the hold by itself when it becomes the desired one (after a manual rollback).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
}

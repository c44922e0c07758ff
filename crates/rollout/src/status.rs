//! What `GET /api/v1/status` and `invar status -o json` answer. Running, desired and last known good
//! are three separate answers, with the reason why they differ. Changes here are additive only.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::condition::Condition;
use crate::record::{Hold, QuarantineEntry};
use crate::time::Timestamp;

/// The whole answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Version of this shape.
    pub version: u32,
    /// Who answers.
    pub agent: AgentIdentity,
    /// Whether what runs is well.
    pub health: OverallHealth,
    /// Whether what runs is what the sources want.
    pub in_sync: bool,
    /// Where the newest candidate is on its way.
    pub phase: Phase,
    /// What runs.
    pub running: Option<RevisionSummary>,
    /// What the sources want.
    pub desired: Option<RevisionSummary>,
    /// What a rollback or a start returns to.
    pub last_known_good: Option<RevisionSummary>,
    /// Why `desired` is not `running`, or what is wrong with what runs.
    pub reason: Option<Reason>,
    /// The sources, in declared order.
    pub sources: Vec<SourceState>,
    /// Number of components by health.
    pub components: BTreeMap<String, u64>,
    /// Rollbacks since the state directory was created.
    pub rollback_count: u64,
    /// Contents that are not tried.
    pub quarantined: Vec<QuarantineEntry>,
    /// An operator's hold.
    pub hold: Option<Hold>,
    /// The probation under way.
    pub probation: Option<ProbationStatus>,
    /// Whether a start without any source could run from disk.
    pub offline_boot: bool,
    /// The last known good was committed without enough traffic to judge it.
    pub unproven: bool,
    /// The same once more, as a list of yes, no and not known.
    #[serde(default)]
    pub conditions: Vec<Condition>,
}

/// The agent that answers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentIdentity {
    /// `[agent] name`, by default the host name.
    pub name: String,
    /// `[agent] environment`.
    pub environment: String,
    /// `[agent] labels`.
    pub labels: BTreeMap<String, String>,
    /// Version of the binary.
    pub version: String,
}

/// Whether what runs is well.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OverallHealth {
    /// All components are well and so is the state directory.
    Healthy,
    /// Something needs attention; `reason` or `components` says what.
    Degraded,
}

/// A state of a revision's life (design: from source to generation).
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// No source has delivered anything yet.
    Waiting,
    /// A source changed; waiting for quiet.
    Observed,
    /// All required sources have a snapshot.
    Fetched,
    /// The union of the sources' files exists.
    Composed,
    /// The candidate passed every static check.
    Validated,
    /// The plan exists.
    Planned,
    /// Applying is stopped by a hold, a quarantine or the flap breaker.
    Held,
    /// INTENT is durable, states and instances are being made.
    Prepared,
    /// The candidate runs; its probation has not begun.
    Swapped,
    /// The candidate runs and is watched.
    Probation,
    /// The candidate is last known good.
    Committed,
    /// The candidate never ran.
    Rejected,
    /// The candidate ran, was bad and was undone.
    RolledBack,
}

impl Phase {
    /// The text that the API shows.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Observed => "observed",
            Self::Fetched => "fetched",
            Self::Composed => "composed",
            Self::Validated => "validated",
            Self::Planned => "planned",
            Self::Held => "held",
            Self::Prepared => "prepared",
            Self::Swapped => "swapped",
            Self::Probation => "probation",
            Self::Committed => "committed",
            Self::Rejected => "rejected",
            Self::RolledBack => "rolled_back",
        }
    }

    /// Whether a candidate rests here: nothing more happens by itself, or not soon.
    #[must_use]
    pub fn is_at_rest(self) -> bool {
        matches!(self, Self::Waiting | Self::Held | Self::Committed | Self::Rejected | Self::RolledBack)
    }
}

/// One revision, as far as it got.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevisionSummary {
    /// Its generation; null for what never ran.
    pub generation: Option<u64>,
    /// `main@sha1:4be2…`, with the full commit id; sources are joined with ` + `.
    pub revision: String,
    /// Digest of the candidate (of its raw files, where it does not parse).
    pub digest: String,
    /// When it began to be what it is (running, desired, last known good).
    pub since: Timestamp,
    /// Who wrote it.
    pub author: Option<String>,
    /// First line of its message.
    pub subject: Option<String>,
    /// Who signed it, where signatures are verified.
    pub signer: Option<String>,
}

/// Why what is desired does not run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    /// Where in its life it stopped: `fetch`, `compose`, `validate`, `plan`, `prepare`, `swap`, `probation`, `boot` …
    pub stage: String,
    /// What stopped it: `rejected`, `quarantined`, `held`, `flapping`, `persist_failed`, `inconclusive` …
    pub kind: String,
    /// The cause, and what to do next.
    pub message: String,
    /// File, where there is one.
    pub file: Option<String>,
    /// Line in that file, from 1.
    pub line: Option<u32>,
    /// When this ends by itself.
    pub until: Option<Timestamp>,
}

/// One source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceState {
    /// Its name in the settings.
    pub name: String,
    /// `git`, `file`, `http` or `s3`.
    pub kind: String,
    /// What it holds.
    pub revision: Option<String>,
    /// Last time it answered.
    pub checked: Option<Timestamp>,
    /// Last time it had something new.
    pub changed: Option<Timestamp>,
    /// What is wrong with it.
    pub error: Option<SourceErrorState>,
    /// How often it was asked, and what came of it.
    #[serde(default)]
    pub checks: SourceChecks,
    /// Whether somebody should look: it was missing three times in a row, or its content was not what was promised.
    #[serde(default)]
    pub alarm: bool,
}

/// How often a source was asked since the agent started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SourceChecks {
    /// Checks that ended.
    pub total: u64,
    /// Those that brought another revision.
    pub changed: u64,
    /// Those that failed, aborted ones among them.
    pub failed: u64,
    /// Those that were aborted because they took far too long.
    pub aborted: u64,
    /// How long all of them took together, in milliseconds.
    pub millis: u64,
}

/// What is wrong with a source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceErrorState {
    /// Error class: `transient`, `rate_limited`, `forbidden` …
    pub class: String,
    /// The cause and what to do next.
    pub message: String,
    /// Since when.
    pub since: Timestamp,
    /// Why a revision that was reached was refused: `verification`, `history`, `limits` …
    #[serde(default)]
    pub rejection: Option<String>,
}

/// The probation under way.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProbationStatus {
    /// When the candidate was swapped in.
    pub since: Timestamp,
    /// When it is committed if nothing happens.
    pub until: Timestamp,
    /// Whether the window was extended.
    pub extended: bool,
    /// What the last sample found, worst first; empty when all is well.
    pub findings: Vec<String>,
}

//! The control state: everything a start needs to decide what to run. It is small, it is written
//! whole, and the rules that change it are plain functions.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::record::{Hold, QuarantineEntry};
use crate::status::RevisionSummary;
use crate::time::Timestamp;

/// Quarantine entries that are kept; the oldest go first. Bounded, so that the head has a fixed size.
const QUARANTINE_LIMIT: usize = 32;
const STRIKES_LIMIT: usize = 64;
const TEXT_LIMIT: usize = 240;
const FIRST_QUARANTINE: Duration = Duration::from_secs(30 * 60);
const LONGEST_QUARANTINE: Duration = Duration::from_secs(24 * 3600);

/// All control state.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Control {
    /// The highest generation ever used.
    pub last_generation: u64,
    /// What runs.
    pub running: Option<Pointer>,
    /// What a rollback or a start returns to. Moves only on commit.
    pub last_known_good: Option<Pointer>,
    /// The last known good was committed without traffic.
    pub unproven: bool,
    /// The candidate that runs and has no verdict yet.
    pub probation: Option<ProbationMark>,
    /// The candidate that is being prepared.
    pub intent: Option<IntentMark>,
    /// Failures by digest.
    pub strikes: BTreeMap<String, Strikes>,
    /// What is not tried.
    pub quarantine: Vec<QuarantineEntry>,
    /// An operator's hold.
    pub hold: Option<Hold>,
    /// Rollbacks ever.
    pub rollback_count: u64,
    /// The flap breaker's memory.
    pub breaker: crate::breaker::Breaker,
    /// Starts whose pipeline has not come up.
    pub starts: Vec<Timestamp>,
    /// Boot id of the host under which this was written.
    pub boot_id: String,
}

/// A revision that can be run from disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pointer {
    /// Its generation.
    pub generation: u64,
    /// Sequence of its record.
    pub sequence: u64,
    /// Name of its manifest in the CAS.
    pub manifest: String,
    /// Digest of the candidate.
    pub digest: String,
    /// Revision text.
    pub revision: String,
    /// Since when it is what it is.
    pub since: Timestamp,
    /// Author.
    pub author: Option<String>,
    /// First line of the message.
    pub subject: Option<String>,
    /// Signer.
    pub signer: Option<String>,
}

impl Pointer {
    /// What the status shows of it.
    #[must_use]
    pub fn summary(&self) -> RevisionSummary {
        RevisionSummary {
            generation: Some(self.generation),
            revision: self.revision.clone(),
            digest: self.digest.clone(),
            since: self.since,
            author: self.author.clone(),
            subject: self.subject.clone(),
            signer: self.signer.clone(),
        }
    }
}

/// A candidate without a verdict.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbationMark {
    /// The candidate.
    pub candidate: Pointer,
    /// The process was told to stop: its end says nothing about the candidate.
    pub clean: bool,
    /// It was resumed after a restart already.
    pub resumed: bool,
    /// Boot id of the host under which it ran.
    pub boot_id: String,
}

/// A candidate that is being prepared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IntentMark {
    /// Digest of the candidate.
    pub digest: String,
    /// Its revision.
    pub revision: String,
    /// Boot id of the host.
    pub boot_id: String,
}

/// How often one content failed.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Strikes {
    /// Deaths of the process while it was being prepared.
    pub prepare_deaths: u32,
    /// Deaths under it while there was nothing good to return to.
    pub cold_deaths: u32,
    /// Quarantines so far.
    pub failures: u32,
    /// When it last failed; the oldest entries are forgotten first.
    pub last: Timestamp,
}

/// Why content is quarantined.
#[derive(Clone, Debug)]
pub struct Condemnation<'a> {
    /// Digest of the candidate.
    pub digest: &'a str,
    /// Revision that carried it.
    pub revision: &'a str,
    /// Where it failed.
    pub stage: &'a str,
    /// What was seen.
    pub reason: &'a str,
    /// The content is the cause.
    pub deterministic: bool,
    /// Version of this binary.
    pub agent_version: &'a str,
}

impl Control {
    /// Adds a strike and a quarantine entry (or prolongs the one there is). Returns the entry.
    pub fn condemn(&mut self, case: &Condemnation<'_>, now: Timestamp) -> QuarantineEntry {
        let strikes = self.strikes.entry(case.digest.to_owned()).or_default();
        strikes.failures = strikes.failures.saturating_add(1);
        strikes.last = now;
        let failures = strikes.failures;
        let doubled = FIRST_QUARANTINE.saturating_mul(1 << (failures - 1).min(16));
        let until = (!case.deterministic).then(|| now.plus(doubled.min(LONGEST_QUARANTINE)));
        let mut revisions = Vec::new();
        if let Some(at) = self.quarantine.iter().position(|entry| entry.digest == case.digest) {
            revisions = self.quarantine.remove(at).revisions;
        }
        push_revision(&mut revisions, case.revision);
        let entry = QuarantineEntry {
            digest: case.digest.to_owned(),
            revisions,
            stage: case.stage.to_owned(),
            reason: shortened(case.reason),
            since: now,
            until,
            strikes: failures,
            deterministic: case.deterministic,
            agent_version: case.agent_version.to_owned(),
        };
        self.quarantine.push(entry.clone());
        if self.quarantine.len() > QUARANTINE_LIMIT {
            self.quarantine.remove(0);
        }
        self.forget_old_strikes();
        entry
    }

    /// The entry that keeps `digest` from being tried.
    #[must_use]
    pub fn quarantined(&self, digest: &str) -> Option<&QuarantineEntry> {
        self.quarantine.iter().find(|entry| entry.digest == digest)
    }

    /// Notes that `revision` carries quarantined content too. Returns whether that is news.
    pub fn note_carrier(&mut self, digest: &str, revision: &str) -> bool {
        match self.quarantine.iter_mut().find(|entry| entry.digest == digest) {
            Some(entry) if !entry.revisions.iter().any(|known| known == revision) => {
                push_revision(&mut entry.revisions, revision);
                true
            }
            _ => false,
        }
    }

    /// Takes out entries whose time is over. Their strikes stay, so that the next failure weighs more.
    pub fn expire_quarantine(&mut self, now: Timestamp) -> Vec<QuarantineEntry> {
        self.release(|entry| entry.until.is_some_and(|until| until <= now))
    }

    /// Takes out the entries that `choose` names.
    pub fn release(&mut self, mut choose: impl FnMut(&QuarantineEntry) -> bool) -> Vec<QuarantineEntry> {
        let (out, kept) = std::mem::take(&mut self.quarantine).into_iter().partition(|entry| choose(entry));
        self.quarantine = kept;
        out
    }

    /// A digest proved itself: nothing is held against it any more.
    pub fn absolve(&mut self, digest: &str) {
        self.strikes.remove(digest);
        self.quarantine.retain(|entry| entry.digest != digest);
    }

    /// The strikes of `digest`, to be changed.
    pub fn strikes_of(&mut self, digest: &str, now: Timestamp) -> &mut Strikes {
        self.forget_old_strikes();
        let strikes = self.strikes.entry(digest.to_owned()).or_default();
        strikes.last = now;
        strikes
    }

    fn forget_old_strikes(&mut self) {
        while self.strikes.len() > STRIKES_LIMIT {
            let oldest =
                self.strikes.iter().min_by_key(|(_, strikes)| strikes.last).map(|(digest, _)| digest.clone());
            match oldest {
                Some(digest) => self.strikes.remove(&digest),
                None => break,
            };
        }
    }
}

fn push_revision(revisions: &mut Vec<String>, revision: &str) {
    let revision = shortened(revision);
    if !revisions.contains(&revision) {
        revisions.push(revision);
    }
    if revisions.len() > 4 {
        revisions.remove(0);
    }
}

/// Texts in the head are bounded: they come from outside and the head does not grow.
pub(crate) fn shortened(text: &str) -> String {
    if text.len() <= TEXT_LIMIT {
        return text.to_owned();
    }
    let mut end = TEXT_LIMIT;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}…", &text[..end])
}

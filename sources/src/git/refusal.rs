//! What was refused, remembered so that it is not fetched again to be refused again.

use std::time::{Duration, SystemTime};

use super::reference::Resolved;
use crate::error::{ErrorClass, Failure, Rejection};

/// How long the refusal of a signature is taken for an answer: keys become valid with time.
const REFUSED_SIGNATURE: Duration = Duration::from_secs(60 * 60);

/// A revision that was refused, and why.
#[derive(Clone, Debug)]
pub(super) struct Refusal {
    pub(super) object: String,
    pub(super) commit: String,
    /// What was selected and whom was trusted.
    pub(super) selection: String,
    pub(super) at: SystemTime,
    pub(super) failure: Failure,
}

/// Fewer digits of a commit's id may be meant for another one.
const DIGITS: usize = 7;

/// A refusal that a person may lift, for how the branch moved.
pub(super) fn unless_accepted(failure: Failure, commit: &str) -> Failure {
    let failure = failure.with_help(format!("if that is intended: invar accept-history {commit:.12}"));
    Failure { may_be_accepted: true, ..failure }
}

impl Refusal {
    /// Whether a person may lift it, and means this commit by the beginning of its id.
    pub(super) fn waits_for(&self, commit: &str) -> bool {
        self.failure.may_be_accepted
            && commit.len() >= DIGITS
            && self.commit.starts_with(&commit.to_ascii_lowercase())
    }

    /// Whether the same would be refused again. What time alone can change is looked at again after a while.
    pub(super) fn holds(&self, resolved: &Resolved, selection: &str, now: SystemTime) -> bool {
        let passes = self.failure.class == ErrorClass::Rejected(Rejection::Verification);
        let old = now.duration_since(self.at).map_or(true, |age| age > REFUSED_SIGNATURE);
        self.object == resolved.object
            && self.commit == resolved.commit
            && self.selection == selection
            && !(passes && old)
    }
}

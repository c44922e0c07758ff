//! Finds out how a branch moved: forward, back, or to another history.

use std::collections::{HashSet, VecDeque};

use git2::{Oid, Repository};

/// How the new commit relates to the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Movement {
    /// The new commit contains the old one.
    Forward,
    /// The old commit contains the new one.
    Back,
    /// Neither contains the other, as far as everything there is was looked at.
    Rewritten,
    /// It could not be found out within the commits that were looked at.
    Unknown,
}

/// What a walk from one commit towards another found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ancestry {
    Contains,
    /// All ancestors were looked at.
    Lacks,
    /// Some ancestors are not here.
    Unclear,
}

/// The most commits a walk looks at.
const WALK_LIMIT: usize = 20_000;

/// Whether `ancestor` is among `commit` and its ancestors, as far as they are in the repository.
pub(super) fn contains(repository: &Repository, commit: Oid, ancestor: Oid) -> Ancestry {
    let mut seen = HashSet::from([commit]);
    let mut queue = VecDeque::from([commit]);
    let mut complete = true;
    while let Some(id) = queue.pop_front() {
        if id == ancestor {
            return Ancestry::Contains;
        }
        match repository.find_commit(id) {
            Ok(commit) => {
                for parent in commit.parent_ids() {
                    if seen.len() < WALK_LIMIT {
                        if seen.insert(parent) {
                            queue.push_back(parent);
                        }
                    } else {
                        complete = false;
                    }
                }
            }
            Err(_) => complete = false,
        }
    }
    if complete { Ancestry::Lacks } else { Ancestry::Unclear }
}

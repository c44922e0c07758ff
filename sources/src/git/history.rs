//! Finds out how a branch moved: forward, back, or to another history.

use std::collections::{HashSet, VecDeque};

use git2::{Oid, Repository};

use super::protocol::FetchRequest;
use super::refusal::unless_accepted;
use super::repository::object_id;
use super::tree::Reading;
use super::wire::RemoteWire;
use super::{GitSource, Wire};
use crate::error::{Failure, Rejection};
use crate::settings::HistoryPolicy;
use crate::snapshot::{Notice, NoticeKind};
use crate::source::PollContext;

/// How far back the commit before is looked for, in steps.
pub(super) const HISTORY_DEPTHS: [u32; 3] = [50, 200, 1000];

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
pub(super) const WALK_LIMIT: usize = 20_000;

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

impl GitSource {
    /// Refuses or notes a branch that does not contain the commit before, as the settings say.
    pub(super) async fn check_history(
        &self,
        old: &str,
        new: &str,
        reading: &Reading,
        notices: &mut Vec<Notice>,
        context: &PollContext,
    ) -> Result<(), Failure> {
        if self.settings.history == HistoryPolicy::Any || reading.parents.iter().any(|parent| parent == old) {
            return Ok(());
        }
        let movement = match &self.wire {
            Wire::Remote(wire) => {
                let movement = self.probe_history(wire, old, new, context).await;
                self.blocking(|clone| clone.for_history().wipe()).await?;
                movement
            }
            Wire::Local(_) => {
                let (old, new) = (object_id(old)?, object_id(new)?);
                self.blocking_read(move |clone| {
                    let repository = clone.open()?;
                    Ok(match (contains(&repository, new, old), contains(&repository, old, new)) {
                        (Ancestry::Contains, _) => Movement::Forward,
                        (_, Ancestry::Contains) => Movement::Back,
                        (Ancestry::Lacks, _) => Movement::Rewritten,
                        (Ancestry::Unclear, _) => Movement::Unknown,
                    })
                })
                .await
                .unwrap_or(Movement::Unknown)
            }
        };
        let (kind, what) = match movement {
            Movement::Forward => return Ok(()),
            Movement::Back => (NoticeKind::Rewind, "went back to a commit before"),
            Movement::Rewritten => (NoticeKind::HistoryRewritten, "no longer contains"),
            Movement::Unknown => {
                (NoticeKind::HistoryUnknown, "is not known, within 1000 commits, to contain")
            }
        };
        let message = format!("the branch is at {new:.12}, which {what} {old:.12}");
        let accepted = self.memory.lock().accepted.as_deref() == Some(new);
        if self.settings.history == HistoryPolicy::FastForward && !accepted {
            return Err(unless_accepted(Failure::rejected(Rejection::History, message), new));
        }
        notices.push(Notice { kind, message });
        Ok(())
    }

    /// Fetches commits, without files where the server can, in growing steps and into a folder of their
    /// own, until it is clear how the two are related.
    pub(super) async fn probe_history(
        &self,
        wire: &RemoteWire,
        old: &str,
        new: &str,
        context: &PollContext,
    ) -> Movement {
        let mut lacks = false;
        for (from, to, found) in [(new, old, Movement::Forward), (old, new, Movement::Back)] {
            for depth in HISTORY_DEPTHS {
                let into = self.clone.for_history();
                let request = FetchRequest { want: from.to_owned(), have: None, depth, commits_only: true };
                let cleared = self.blocking(|clone| clone.for_history().wipe()).await;
                if cleared.is_err() || self.transfer(wire, &request, into, context).await.is_err() {
                    // The old commit may be out of reach after a force push; unknown counts as not.
                    break;
                }
                let (Ok(from), Ok(to)) = (object_id(from), object_id(to)) else { break };
                let ancestry = self
                    .blocking_read(move |clone| Ok(contains(&clone.for_history().open()?, from, to)))
                    .await;
                match ancestry {
                    Ok(Ancestry::Contains) => return found,
                    Ok(Ancestry::Lacks) => {
                        lacks |= found == Movement::Forward;
                        break;
                    }
                    Ok(Ancestry::Unclear) => {}
                    Err(_) => break,
                }
            }
        }
        if lacks { Movement::Rewritten } else { Movement::Unknown }
    }
}

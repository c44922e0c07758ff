//! Pins: an environment may take what all environments share from an earlier commit than the branch's head. The pin
//! itself is read from the head, so that it is as trusted as everything else there.

use super::fetch::BRANCH_DEPTH;
use super::history::{Ancestry, Movement, contains};
use super::protocol::FetchRequest;
use super::repository::{ReadError, holds, object_id};
use super::tree::{self, Reading};
use super::{GitSource, Wire};
use crate::error::{ErrorClass, Failure, Rejection};
use crate::pin::{Pin, is_pinned, pin_path};
use crate::source::PollContext;

impl GitSource {
    /// Puts the pinned folders of the selection as they are at the pinned commit in place of those of the head, if the
    /// selected environment has a pin. Gives the commit.
    pub(super) async fn follow_pin(
        &self,
        reading: &mut Reading,
        head: &str,
        context: &PollContext,
    ) -> Result<Option<String>, Failure> {
        let Some(path) = pin_path(&self.settings.paths) else { return Ok(None) };
        let Some(content) = reading.files.get(&path) else { return Ok(None) };
        let pin = Pin::parse(content).map_err(|error| {
            let line = content.iter().take(error.span.start).filter(|byte| **byte == b'\n').count() + 1;
            Failure::rejected(Rejection::Shape, format!("{path}:{line}: {}", error.message))
        })?;
        let commit = pin.commit;
        if commit == head {
            return Ok(Some(commit));
        }
        let because = |failure: Failure| Failure {
            message: format!("{path} pins commit {commit:.12}: {}", failure.message),
            ..failure
        };
        self.fetch_pinned(&commit, head, context).await.map_err(because)?;
        let paths: Vec<String> = self.settings.paths.iter().filter(|path| is_pinned(path)).cloned().collect();
        reading.files.retain(|path, _| !is_pinned(path));
        if !paths.is_empty() {
            let (id, limits) = (object_id(&commit)?, self.settings.limits);
            let modules = self.modules();
            let read = self
                .blocking_read(move |clone| {
                    tree::read(&clone.open()?, id, &paths, tree::Depth::All, &limits, modules)
                })
                .await;
            match read {
                Ok(mut pinned) => {
                    self.follow_submodules(&mut pinned, &commit, context).await.map_err(because)?;
                    reading.files.extend(pinned.files);
                }
                Err(ReadError::Failed(failure)) => return Err(because(failure)),
                Err(ReadError::Damaged(reason)) => {
                    // The next poll makes the clone afresh, with everything that is needed in it.
                    self.blocking(|clone| clone.wipe()).await?;
                    return Err(because(Failure::transient(format!("it is not complete here: {reason}"))));
                }
            }
        }
        Ok(Some(commit))
    }

    /// Sees to it that the commit is here, and that the head contains it.
    async fn fetch_pinned(&self, commit: &str, head: &str, context: &PollContext) -> Result<(), Failure> {
        let not_contained = |why: &str| {
            Failure::rejected(Rejection::History, format!("{why} among the commits that the branch contains"))
                .with_help("pin a commit of the branch's own history")
        };
        let known = self.memory.lock().contained.as_deref() == Some(commit);
        let here = {
            let commit = commit.to_owned();
            self.present(commit).await?
        };
        if here && known {
            return Ok(());
        }
        match &self.wire {
            Wire::Local(_) => {
                // Copied whole when the head was fetched, unless that was here already.
                let (id, tip) = (object_id(commit)?, object_id(head)?);
                let ancestry = self
                    .blocking_read(move |clone| Ok(contains(&clone.open()?, tip, id)))
                    .await
                    .unwrap_or(Ancestry::Unclear);
                if ancestry != Ancestry::Contains {
                    return Err(not_contained("it is not"));
                }
            }
            Wire::Remote(wire) => {
                if !known {
                    let movement = self.probe_history(wire, commit, head, context).await;
                    self.blocking(|clone| clone.for_history().wipe()).await?;
                    match movement {
                        Movement::Forward => {}
                        Movement::Unknown => return Err(not_contained("it was not found")),
                        Movement::Back | Movement::Rewritten => return Err(not_contained("it is not")),
                    }
                }
                if !here {
                    let one =
                        FetchRequest { want: commit.to_owned(), have: None, depth: 1, commits_only: false };
                    match self.transfer(wire, &one, self.clone.clone(), context).await {
                        Err(ReadError::Failed(failure)) if failure.class == ErrorClass::NotFound => {
                            // The server hands out only what a reference names: go back from the branch.
                            let many = FetchRequest { want: head.to_owned(), depth: BRANCH_DEPTH, ..one };
                            self.transferred(self.transfer(wire, &many, self.clone.clone(), context).await)?;
                        }
                        outcome => self.transferred(outcome)?,
                    }
                    if !self.present(commit.to_owned()).await? {
                        return Err(not_contained("it was not found"));
                    }
                }
            }
        }
        self.memory.lock().contained = Some(commit.to_owned());
        Ok(())
    }

    async fn present(&self, commit: String) -> Result<bool, Failure> {
        let held = self.blocking_read(move |clone| Ok(holds(&clone.open()?, &commit))).await;
        self.transferred(held)
    }

    fn transferred<T>(&self, outcome: Result<T, ReadError>) -> Result<T, Failure> {
        outcome.map_err(|error| match error {
            ReadError::Failed(failure) => failure,
            ReadError::Damaged(reason) => Failure::transient(reason),
        })
    }
}

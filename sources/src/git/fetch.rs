//! Brings the commit that is asked for into the local clone, from a server or another repository of the host, and reads
//! it there.

use tokio::sync::mpsc;

use super::protocol::FetchRequest;
use super::reference::Wanted;
use super::repository::{CloneDirectory, ReadError, holds, object_id};
use super::tree::{self, Found, Modules, Reading};
use super::wire::RemoteWire;
use super::{GitSource, Wire};
use crate::error::{ErrorClass, Failure};
use crate::source::{PollContext, TreeEntry};

/// How far back a branch is followed for a commit that the server does not hand out by its id.
pub(super) const BRANCH_DEPTH: u32 = 1000;
/// Parts of a pack between the network and the indexer.
const PACK_QUEUE: usize = 16;

impl GitSource {
    /// What becomes of submodules.
    pub(super) fn modules(&self) -> Modules {
        if self.family.is_some() { Modules::Listed } else { Modules::Off }
    }

    pub(super) async fn fetch_and_read(
        &self,
        commit: &str,
        old: Option<&str>,
        context: &PollContext,
    ) -> Result<Reading, ReadError> {
        let present = {
            let (commit, old) = (commit.to_owned(), old.map(str::to_owned));
            self.blocking_read(move |clone| {
                if clone.is_fragmented() {
                    clone.wipe()?;
                }
                let repository = clone.open()?;
                let old = old.filter(|old| holds(&repository, old));
                Ok((holds(&repository, &commit), old))
            })
            .await?
        };
        let (is_here, old) = present;
        if !is_here {
            self.fetch(commit, old, context).await?;
        }
        let (paths, limits) = (self.settings.paths.clone(), self.settings.limits);
        let depth = self.settings.depth;
        let commit = object_id(commit)?;
        let modules = self.modules();
        self.blocking_read(move |clone| tree::read(&clone.open()?, commit, &paths, depth, &limits, modules))
            .await
    }

    /// What is at a path of a commit; fetched once more where it is not here any more.
    pub(super) async fn read_of(
        &self,
        commit: &str,
        path: &str,
        context: &PollContext,
    ) -> Result<Option<TreeEntry>, Failure> {
        let (id, limits, modules) = (object_id(commit)?, self.settings.limits, self.modules());
        let read = |path: String| {
            self.blocking_read(move |clone| tree::read_entry(&clone.open()?, id, &path, &limits, modules))
        };
        let reason = match read(path.to_owned()).await {
            Ok(found) => return self.found(commit, found, context).await,
            Err(ReadError::Failed(failure)) => return Err(failure),
            Err(ReadError::Damaged(reason)) => reason,
        };
        let _busy = self.busy.lock().await;
        tracing::debug!(source = %self.name, commit, reason, "fetched once more for what it imports");
        let again = async {
            self.fetch(commit, None, context).await?;
            read(path.to_owned()).await
        };
        let found = again.await.map_err(|error| match error {
            ReadError::Failed(failure) => failure,
            ReadError::Damaged(reason) => {
                Failure::transient(format!("commit {commit:.12} is not complete here: {reason}"))
            }
        })?;
        self.found(commit, found, context).await
    }

    async fn found(
        &self,
        commit: &str,
        found: Option<Found>,
        context: &PollContext,
    ) -> Result<Option<TreeEntry>, Failure> {
        match found {
            None => Ok(None),
            Some(Found::Entry(entry)) => Ok(Some(entry)),
            Some(Found::Submodule(link)) => self.entry_of_submodule(link, commit, context).await,
        }
    }

    async fn fetch(
        &self,
        commit: &str,
        have: Option<String>,
        context: &PollContext,
    ) -> Result<(), ReadError> {
        let wire = match &self.wire {
            Wire::Local(wire) => {
                let (wire, commit) = (wire.clone(), commit.to_owned());
                return self
                    .blocking_read(move |clone| {
                        let repository = clone.open()?;
                        wire.fetch(&repository)?;
                        if holds(&repository, &commit) {
                            return Ok(());
                        }
                        let message = format!("{} has no commit {commit} on a branch or tag", wire.url);
                        Err(Failure::new(ErrorClass::NotFound, message).into())
                    })
                    .await;
            }
            Wire::Remote(wire) => wire,
        };
        let request = FetchRequest { want: commit.to_owned(), have, depth: 1, commits_only: false };
        let outcome = self.transfer(wire, &request, self.clone.clone(), context).await;
        match (&outcome, &self.settings.wanted) {
            (Err(ReadError::Failed(failure)), Wanted::Commit { branch: Some(branch), .. })
                if failure.class == ErrorClass::NotFound =>
            {
                // The server hands out only what a reference names: go back from the branch.
                let tip = self.resolve(&Wanted::Branch(branch.clone()), context).await?.commit;
                let request =
                    FetchRequest { want: tip, have: None, depth: BRANCH_DEPTH, commits_only: false };
                self.transfer(wire, &request, self.clone.clone(), context).await?;
                let wanted = commit.to_owned();
                if self.blocking_read(move |clone| Ok(holds(&clone.open()?, &wanted))).await? {
                    return Ok(());
                }
                let message =
                    format!("commit {commit} is not among the last {BRANCH_DEPTH} commits of `{branch}`");
                Err(Failure::new(ErrorClass::NotFound, message).into())
            }
            (Err(ReadError::Failed(failure)), Wanted::Commit { branch: None, .. })
                if failure.class == ErrorClass::NotFound =>
            {
                Err(failure.clone().with_help("name the `branch` that contains the commit").into())
            }
            (Err(ReadError::Failed(failure)), Wanted::Revision(name))
                if failure.class == ErrorClass::NotFound && name.eq_ignore_ascii_case(commit) =>
            {
                let help =
                    "the server hands out only commits that a branch or tag leads to, or only their tips";
                Err(failure.clone().with_help(help).into())
            }
            (Err(ReadError::Failed(failure)), _) if failure.class == ErrorClass::NotFound => {
                // It was there a moment ago: the branch moved between the two requests.
                let message = format!("{}; the branch may have just moved", failure.message);
                Err(Failure::transient(message).into())
            }
            _ => outcome,
        }
    }

    /// Passes a pack from the network to the indexer.
    pub(super) async fn transfer(
        &self,
        wire: &RemoteWire,
        request: &FetchRequest,
        into: CloneDirectory,
        context: &PollContext,
    ) -> Result<(), ReadError> {
        let (sender, receiver) = mpsc::channel(PACK_QUEUE);
        let indexer = tokio::task::spawn_blocking(move || into.store_pack(receiver));
        let sent = wire.fetch(request, self.settings.limits.pack, sender, context).await;
        let stored =
            indexer.await.unwrap_or_else(|_| Err(Failure::transient("storing was interrupted").into()));
        let bytes = sent?;
        stored?;
        tracing::debug!(source = %self.name, bytes, commit = request.want, "fetched");
        Ok(())
    }
}

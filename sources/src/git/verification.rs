//! Which objects of a repository have to be signed, by the mode of the settings, and whether they are: the commit that is
//! read, the tag that names it, or every commit that a branch was led through since the one before.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::SystemTime;

use git2::{ObjectType, Odb, Oid, Repository};

use super::history::{HISTORY_DEPTHS, WALK_LIMIT};
use super::protocol::FetchRequest;
use super::reference::{Resolved, Wanted};
use super::refusal::unless_accepted;
use super::repository::{CloneDirectory, ReadError, holds, object_id};
use super::signed::{SignedCommit, SignedTag};
use super::tree::COMMIT_LIMIT;
use super::{GitSource, Wire, blocking};
use crate::error::{Failure, Rejection};
use crate::settings::{VerifyMode, VerifySettings};
use crate::source::PollContext;
use crate::units::display_size;
use crate::verify::{SignatureError, Signer, TrustPolicy};

/// What is verified, and by what.
#[derive(Clone, Debug)]
pub(super) struct Verification {
    pub(super) settings: VerifySettings,
    pub(super) trust: Arc<TrustPolicy>,
    pub(super) now: SystemTime,
}

/// How far a branch could be followed back.
enum Followed {
    /// To the commit before, or one that it contains, or the very first one.
    Back,
    /// To a commit whose parent is not here.
    Short,
}

impl GitSource {
    /// What identifies a snapshot beside its commit: under another policy of trust it is another one.
    pub(super) fn selection(&self, trust: Option<&TrustPolicy>) -> String {
        match trust {
            None => self.settings.selection.clone(),
            Some(trust) => format!("{}-{}", self.settings.selection, trust.digest()),
        }
    }

    /// The policy as it is now: the files of keys are read anew, since the operator may have changed them. `None` where
    /// nothing has to be signed.
    pub(super) async fn trust(&self) -> Result<Option<Arc<TrustPolicy>>, Failure> {
        if self.settings.verify.mode == VerifyMode::None {
            return Ok(None);
        }
        let settings = self.settings.verify.clone();
        let loaded = blocking(move || {
            TrustPolicy::load(&settings).map_err(|error| {
                Failure::rejected(Rejection::Verification, error.to_string())
                    .with_help("nothing new is read until the keys can be; the last good revision stays")
            })
        });
        loaded.await.map(|policy| Some(Arc::new(policy)))
    }

    /// Checks what the mode asks for; gives who signed the commit or tag itself.
    pub(super) async fn verify(
        &self,
        verification: &Verification,
        resolved: &Resolved,
        before: Option<&str>,
        pinned: Option<&str>,
        context: &PollContext,
    ) -> Result<Signer, Failure> {
        let head = resolved.commit.as_str();
        if verification.settings.mode == VerifyMode::Tag {
            return self.verify_tag(verification, resolved, context).await;
        }
        let signer = self.verify_commit(verification, head, false).await?;
        if verification.settings.mode == VerifyMode::Range
            && let Some(before) = before.filter(|before| *before != head)
            && self.memory.lock().accepted.as_deref() != Some(head)
        {
            self.verify_range(verification, before, head, context).await?;
        }
        if let Some(pinned) = pinned.filter(|pinned| *pinned != head) {
            self.verify_commit(verification, pinned, true).await?;
        }
        Ok(signer)
    }

    async fn verify_commit(
        &self,
        verification: &Verification,
        commit: &str,
        is_pinned: bool,
    ) -> Result<Signer, Failure> {
        let (verification, id) = (verification.clone(), object_id(commit)?);
        let verified =
            self.blocking_read(move |clone| verification.of_commit(&clone.open()?, id, is_pinned)).await;
        self.settle(verified).await
    }

    async fn verify_tag(
        &self,
        verification: &Verification,
        resolved: &Resolved,
        context: &PollContext,
    ) -> Result<Signer, Failure> {
        let name = resolved.name.clone();
        let refused = |reason: &str| {
            Failure::rejected(Rejection::Verification, format!("{name} {reason}"))
                .with_help("`verify.mode = \"tag\"` reads what a signed tag names; make one with git tag -s")
        };
        if !resolved.is_tag {
            return Err(refused("is not a tag"));
        }
        if resolved.object == resolved.commit {
            return Err(refused("is a tag without a message, which cannot be signed"));
        }
        let (tag, object) = (object_id(&resolved.object)?, resolved.object.clone());
        let here = self.blocking_read(move |clone| Ok(holds(&clone.open()?, &object))).await;
        if !self.settle(here).await? {
            self.fetch_tag(resolved, context).await?;
        }
        let (verification, resolved) = (verification.clone(), resolved.clone());
        let verified =
            self.blocking_read(move |clone| verification.of_tag(&clone.open()?, tag, &resolved)).await;
        self.settle(verified).await
    }

    async fn fetch_tag(&self, resolved: &Resolved, context: &PollContext) -> Result<(), Failure> {
        let fetched = match &self.wire {
            Wire::Local(wire) => {
                let wire = wire.clone();
                self.blocking_read(move |clone| Ok(wire.fetch(&clone.open()?)?)).await
            }
            Wire::Remote(wire) => {
                let request = FetchRequest {
                    want: resolved.object.clone(),
                    have: Some(resolved.commit.clone()),
                    depth: 1,
                    commits_only: false,
                };
                self.transfer(wire, &request, self.clone.clone(), context).await
            }
        };
        self.settle(fetched).await
    }

    /// Every commit that the branch was led through has to be signed: from the head along the first parents to the commit
    /// before, or to one that it contains.
    async fn verify_range(
        &self,
        verification: &Verification,
        before: &str,
        head: &str,
        context: &PollContext,
    ) -> Result<(), Failure> {
        let (from, to) = (object_id(head)?, object_id(before)?);
        let follow = |history: bool| {
            let verification = verification.clone();
            self.blocking_read(move |clone| {
                let repositories = match history {
                    true => vec![clone.for_history().open()?, clone.open()?],
                    false => vec![clone.open()?],
                };
                follow(&repositories, from, to, &verification)
            })
        };
        let here = follow(false).await;
        if let Followed::Back = self.settle(here).await? {
            return Ok(());
        }
        let mut outcome = Ok(Followed::Short);
        if let Wire::Remote(wire) = &self.wire {
            for depth in HISTORY_DEPTHS {
                let into = self.clone.for_history();
                let request = FetchRequest { want: head.to_owned(), have: None, depth, commits_only: true };
                self.blocking(|clone| clone.for_history().wipe()).await?;
                let fetched = self.transfer(wire, &request, into, context).await;
                outcome = match fetched {
                    Ok(()) => follow(true).await,
                    Err(error) => Err(error),
                };
                if !matches!(outcome, Ok(Followed::Short)) {
                    break;
                }
            }
            self.blocking(|clone| clone.for_history().wipe()).await?;
        }
        match self.settle(outcome).await? {
            Followed::Back => Ok(()),
            Followed::Short => {
                let message = format!(
                    "the commits from {before:.12} to {head:.12} cannot all be verified: there are more than 1000, or \
                     not all of them are to be had"
                );
                Err(unless_accepted(Failure::rejected(Rejection::Verification, message), head))
            }
        }
    }

    /// What is damaged here is fetched afresh with the next poll: nothing is taken for verified on its account.
    async fn settle<T>(&self, outcome: Result<T, ReadError>) -> Result<T, Failure> {
        match outcome {
            Ok(value) => Ok(value),
            Err(ReadError::Failed(failure)) => Err(failure),
            Err(ReadError::Damaged(reason)) => {
                self.blocking(|clone: &CloneDirectory| clone.wipe()).await?;
                Err(Failure::transient(format!("the local copy was damaged and is fetched afresh: {reason}")))
            }
        }
    }
}

/// Whether the settings of trust can work, without looking at the keys.
pub(super) fn check_verify(verify: &VerifySettings, wanted: &Wanted) -> Result<(), Failure> {
    if verify.mode == VerifyMode::None {
        return Ok(());
    }
    if verify.ssh.is_none() && verify.openpgp.is_none() {
        return Err(Failure::stalled("`verify` does not say whom to trust").with_help(
            "name a file of keys: `verify.ssh` (allowed_signers) or `verify.openpgp` (public keys)",
        ));
    }
    if verify.seal && verify.mode != VerifyMode::Range {
        return Err(Failure::stalled("`verify.seal` goes with `verify.mode = \"range\"`"));
    }
    let never_a_tag = matches!(wanted, Wanted::Commit { .. } | Wanted::Branch(_) | Wanted::Head);
    if verify.mode == VerifyMode::Tag && never_a_tag {
        return Err(Failure::stalled(
            "`verify.mode = \"tag\"` goes with a `tag`, not with a branch or a commit",
        ));
    }
    Ok(())
}

impl Verification {
    /// Who signed a commit of the repository.
    pub(super) fn of_commit(
        &self,
        repository: &Repository,
        id: Oid,
        is_pinned: bool,
    ) -> Result<Signer, ReadError> {
        let verdict = read_commit(&repository.odb()?, id)?
            .and_then(|commit| self.check(&commit.payload, &commit.signature));
        let pinned = if is_pinned { "the pinned " } else { "" };
        Ok(verdict.map_err(|error| self.refusal(&format!("{pinned}commit {id:.12}"), &error, false))?)
    }

    /// Who signed a tag, if it is the tag that was asked for and names the commit. Whoever can write to a repository can
    /// give a signed tag any name and put it anywhere: only what is signed counts.
    pub(super) fn of_tag(
        &self,
        repository: &Repository,
        id: Oid,
        resolved: &Resolved,
    ) -> Result<Signer, ReadError> {
        let shown = format!("the tag {}", resolved.name);
        let refused = |error: &SignatureError| self.refusal(&shown, error, true);
        let bytes = read_object(&repository.odb()?, id, ObjectType::Tag)?;
        let tag = SignedTag::parse(&bytes).map_err(|error| refused(&error))?;
        let signer = self.check(&tag.payload, &tag.signature).map_err(|error| refused(&error))?;
        let wrong = |what: String| {
            Failure::rejected(Rejection::Verification, format!("{shown} {what}"))
                .with_help("a tag that was signed for something else was put in its place")
        };
        if tag.name != resolved.name {
            return Err(wrong(format!("holds a signed tag with the name {}", tag.name)).into());
        }
        if tag.kind != "commit" || tag.object != resolved.commit {
            let what = format!("is of the {} {:.12}, not of the commit itself", tag.kind, tag.object);
            return Err(wrong(what).into());
        }
        Ok(signer)
    }

    fn check(&self, payload: &[u8], signature: &[u8]) -> Result<Signer, SignatureError> {
        if signature.trim_ascii().is_empty() {
            return Err(SignatureError::Unsigned);
        }
        self.trust.verify(payload, signature, self.now)
    }

    /// The failure that says what is wrong with what, and what to do.
    fn refusal(&self, what: &str, error: &SignatureError, is_tag: bool) -> Failure {
        let files: Vec<String> = [&self.settings.ssh, &self.settings.openpgp]
            .into_iter()
            .flatten()
            .map(|path| path.display().to_string())
            .collect();
        let files = files.join(" or ");
        let command = if is_tag { "git tag -s" } else { "git commit -S" };
        let help = match error {
            SignatureError::Unsigned => format!("sign it ({command}) with a key of {files}"),
            SignatureError::UnknownKey { .. } => format!("if that key is to be trusted, add it to {files}"),
            SignatureError::NotASigner { .. } => {
                "add who signed to `verify.signers`, or let somebody else sign".to_owned()
            }
            SignatureError::NotYetValid { .. } | SignatureError::Expired { .. } => {
                format!("sign with a key that is valid now, or change how long that one is in {files}")
            }
            SignatureError::Revoked { .. } => "sign with another key".to_owned(),
            _ => format!("sign it again ({command})"),
        };
        Failure::rejected(Rejection::Verification, format!("{what} {error}")).with_help(help)
    }
}

/// Reads an object of the kind; the library compares what it reads with the id.
fn read_object(database: &Odb<'_>, id: Oid, kind: ObjectType) -> Result<Vec<u8>, ReadError> {
    let (size, found) = database.read_header(id)?;
    if found != kind {
        return Err(ReadError::Damaged(format!("{id} is no {}", kind.str())));
    }
    if size > COMMIT_LIMIT {
        let message = format!("the {} {id:.12} is {} long", kind.str(), display_size(size as u64));
        return Err(Failure::rejected(Rejection::Limits, message).into());
    }
    Ok(database.read(id)?.data().to_vec())
}

fn read_commit(database: &Odb<'_>, id: Oid) -> Result<Result<SignedCommit, SignatureError>, ReadError> {
    Ok(SignedCommit::parse(&read_object(database, id, ObjectType::Commit)?))
}

/// Verifies along the first parents of `from`, itself excluded, until `to` or what it contains.
fn follow(
    repositories: &[Repository],
    from: Oid,
    to: Oid,
    verification: &Verification,
) -> Result<Followed, ReadError> {
    let databases: Vec<Odb<'_>> = repositories.iter().map(Repository::odb).collect::<Result<_, _>>()?;
    let read = |id: Oid| match databases.iter().find(|database| database.exists(id)) {
        Some(database) => read_commit(database, id).map(Some),
        None => Ok(None),
    };
    let mut contained = Contained { seen: HashSet::from([to]), pending: vec![to] };
    let mut id = from;
    for _ in 0..WALK_LIMIT {
        let Some(commit) = read(id)? else { return Ok(Followed::Short) };
        let shown = format!("commit {id:.12}, between {to:.12} and {from:.12},");
        let refused = |error: &SignatureError| verification.refusal(&shown, error, false);
        let commit = commit.map_err(|error| refused(&error))?;
        if id != from {
            verification.check(&commit.payload, &commit.signature).map_err(|error| refused(&error))?;
        }
        // Who signs a merge answers for what the branch was before it, where the settings have it so.
        if verification.settings.seal && commit.parents.len() > 1 {
            return Ok(Followed::Back);
        }
        let Some(parent) = commit.parents.first() else { return Ok(Followed::Back) };
        id = object_id(parent)?;
        if contained.holds(id, |id| Ok(read(id)?.and_then(Result::ok).map(|commit| commit.parents)))? {
            return Ok(Followed::Back);
        }
    }
    Ok(Followed::Short)
}

/// The commits that one commit contains, as far as they are here; looked up when somebody asks.
struct Contained {
    seen: HashSet<Oid>,
    pending: Vec<Oid>,
}

impl Contained {
    fn holds(
        &mut self,
        commit: Oid,
        parents: impl Fn(Oid) -> Result<Option<Vec<String>>, ReadError>,
    ) -> Result<bool, ReadError> {
        while !self.seen.contains(&commit) && self.seen.len() < WALK_LIMIT {
            let Some(id) = self.pending.pop() else { break };
            for parent in parents(id)?.unwrap_or_default() {
                let parent = object_id(&parent)?;
                if self.seen.insert(parent) {
                    self.pending.push(parent);
                }
            }
        }
        Ok(self.seen.contains(&commit))
    }
}

//! Whether a revision that was stored by an earlier run is trusted still, although the remote may be out of reach: by the
//! policy it was verified under, else by its objects, which the clone keeps. Nothing is fetched and nothing is mended here.

use std::time::SystemTime;

use super::GitSource;
use super::accepted::Accepted;
use super::reference::Resolved;
use super::repository::{ReadError, object_id};
use super::verification::Verification;
use crate::error::{Failure, Rejection};
use crate::settings::{OfflineVerification, VerifyMode};
use crate::snapshot::Revision;
use crate::source::Vouched;

impl GitSource {
    /// Vouches for the revision of this text, which was verified under the policy with the digest `trust`.
    pub(super) async fn vouch_for(
        &self,
        revision: &str,
        trust: Option<&str>,
        now: SystemTime,
    ) -> Result<Vouched, Failure> {
        match self.verified_earlier(revision, trust, now).await {
            Ok(()) => Ok(Vouched::Trusted),
            Err(failure) if self.settings.verify.offline == OfflineVerification::Strict => {
                let message = format!("{}; `verify.offline` is strict", failure.message);
                Err(Failure { message, ..failure })
            }
            Err(failure) => Ok(Vouched::Doubted(failure.message)),
        }
    }

    async fn verified_earlier(
        &self,
        revision: &str,
        trust: Option<&str>,
        now: SystemTime,
    ) -> Result<(), Failure> {
        let Some(policy) = self.trust().await? else { return Ok(()) };
        if trust == Some(policy.digest()) {
            return Ok(());
        }
        let unclear = |reason: &str| {
            let message = format!("whom to trust changed, and {revision} cannot be verified anew: {reason}");
            Failure::rejected(Rejection::Verification, message)
        };
        let (commit, pinned) = Revision::commits_of(revision).ok_or_else(|| unclear("it is of no commit"))?;
        let accepted = self.recall().await?.filter(|accepted| accepted.commit == commit);
        if accepted.as_ref().and_then(|accepted| accepted.trust.as_deref()) == Some(policy.digest()) {
            return Ok(());
        }
        let verification = Verification { settings: self.settings.verify.clone(), trust: policy, now };
        let tag = match (self.settings.verify.mode, accepted) {
            (VerifyMode::Tag, Some(Accepted { reference: Some(name), object: Some(object), .. })) => {
                Some(Resolved { name, object, commit: commit.clone(), is_tag: true, target: None })
            }
            (VerifyMode::Tag, _) => return Err(unclear("the tag that named it is not known")),
            _ => None,
        };
        let (id, pinned) = (object_id(&commit)?, pinned.map(|pinned| object_id(&pinned)).transpose()?);
        let verified = self.blocking_read(move |clone| {
            let missing = || ReadError::Damaged("its objects are not kept here".to_owned());
            let repository = clone.existing()?.ok_or_else(missing)?;
            if let Some(tag) = tag {
                return verification.of_tag(&repository, object_id(&tag.object)?, &tag).map(drop);
            }
            verification.of_commit(&repository, id, false)?;
            if let Some(pinned) = pinned.filter(|pinned| *pinned != id) {
                verification.of_commit(&repository, pinned, true)?;
            }
            Ok(())
        });
        verified.await.map_err(|error| match error {
            ReadError::Failed(failure) => failure,
            ReadError::Damaged(reason) => unclear(&reason),
        })
    }
}

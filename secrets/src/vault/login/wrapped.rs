//! Answers that arrive wrapped. A wrapping token is used once; one that has been used before, or was made by somebody
//! else, means that others may know what was in it, and is never tried again.

use std::collections::BTreeMap;

use invar_syntax::Secret;
use parking_lot::Mutex;

use crate::vault::answer::{Answer, Tree};
use crate::vault::body::{Field, object};
use crate::vault::failure::{VaultFailure, VaultFailureKind};
use crate::vault::link::Link;
use crate::vault::transport::VaultRequest;

/// What came of a wrapping token; kept so that it is never used a second time.
type Outcome = Result<Answer, VaultFailure>;

/// The wrapping tokens that this process has used, by what they are for. A new one in a place replaces the old one.
#[derive(Default)]
pub(crate) struct Wrapped {
    used: Mutex<BTreeMap<String, (Secret, Outcome)>>,
}

impl Wrapped {
    /// A wrapped token.
    pub(crate) async fn token(
        &self,
        link: &Link,
        wrapping: &Secret,
        expected: Option<&str>,
    ) -> Result<Secret, VaultFailure> {
        let expected = |path: &str| expected.is_none_or(|expected| expected == path);
        let answer = self.answer("token", link, wrapping, &expected).await?;
        let token = answer.auth.map(|auth| auth.token).or_else(|| field(answer.data.as_ref(), "token"));
        token.ok_or_else(|| VaultFailure::invalid("`auth.wrapped_token`: what was wrapped holds no token"))
    }

    /// A wrapped secret id, of a role below `roles`.
    pub(crate) async fn secret_id(
        &self,
        link: &Link,
        wrapping: &Secret,
        roles: &str,
    ) -> Result<Secret, VaultFailure> {
        let made_by_role = |path: &str| {
            path.strip_prefix(roles)
                .and_then(|rest| rest.split_once('/'))
                .is_some_and(|(_, last)| matches!(last, "secret-id" | "custom-secret-id"))
        };
        let answer = self.answer("secret id", link, wrapping, &made_by_role).await?;
        let id = field(answer.data.as_ref(), "secret_id");
        id.ok_or_else(|| VaultFailure::invalid("`auth.approle.secret_id`: what was wrapped is no secret id"))
    }

    /// What is wrapped, unwrapped once: whoever asks with the same token again gets what came of it.
    pub(crate) async fn answer(
        &self,
        what: &str,
        link: &Link,
        wrapping: &Secret,
        expected: &(dyn Fn(&str) -> bool + Sync),
    ) -> Outcome {
        if let Some((used, outcome)) = self.used.lock().get(what)
            && used == wrapping
        {
            return outcome.clone();
        }
        let outcome = unwrap(link, wrapping, expected).await;
        let outcome = outcome.map_err(|failure| failure.prefixed(&format!("the wrapped {what}")));
        if !matches!(&outcome, Err(failure) if failure.is_transient()) {
            self.used.lock().insert(what.to_owned(), (wrapping.clone(), outcome.clone()));
        }
        outcome
    }
}

/// Looks at who made the wrapping token, and unwraps it.
pub(crate) async fn unwrap(
    link: &Link,
    wrapping: &Secret,
    expected: &(dyn Fn(&str) -> bool + Sync),
) -> Result<Answer, VaultFailure> {
    let mut lookup = VaultRequest::post("sys/wrapping/lookup", object([("token", Field::Secret(wrapping))]));
    lookup.namespace.clone_from(&link.namespace);
    let reply = link.exchange(lookup).await?;
    if !reply.is_success() {
        return Err(used(reply.status(), &reply.words(": ")));
    }
    let answer = reply.answer()?;
    let made_by = answer.data.as_ref().and_then(|data| data.get("creation_path")).and_then(Tree::as_text);
    let made_by = made_by.unwrap_or_default();
    if !expected(made_by) {
        let reason = format!(
            "it was made by `{made_by}`, which is not what is expected: somebody may have replaced it"
        );
        tracing::error!(creation_path = made_by, "a wrapping token was made by something else than expected");
        return Err(VaultFailure::compromised(reason));
    }
    let mut request = VaultRequest::post("sys/wrapping/unwrap", object([]));
    request.namespace.clone_from(&link.namespace);
    request.token = Some(wrapping.clone());
    let reply = link.exchange(request).await?;
    match reply.is_success() {
        true => reply.answer(),
        false => Err(used(reply.status(), &reply.words(": "))),
    }
}

fn used(status: u16, words: &str) -> VaultFailure {
    tracing::error!(status, "a wrapping token had been used before, or has expired");
    VaultFailure::new(
        VaultFailureKind::Compromised,
        format!(
            "the wrapping token has been used before, or has expired ({status}{words}): if nobody of yours unwrapped it, \
             somebody else did; revoke what was in it, and make a new one"
        ),
    )
}

fn field(data: Option<&Tree>, name: &str) -> Option<Secret> {
    data?.get(name)?.to_secret()
}

//! What a refusal means: that the token is dead, that it may not do this one thing, or that it was granted for less than a
//! login would grant now.

use std::time::Duration;

use tokio::time::Instant;

use super::{Another, Look, Session};
use crate::vault::failure::VaultFailure;
use crate::vault::token::Token;

/// As often a token is replaced after a refusal where it may not be looked at.
const UNSEEN: Duration = Duration::from_secs(5 * 60);

/// What a look at a refused token shows.
pub(crate) enum Verdict {
    /// It works: the path itself is forbidden.
    Alive,
    /// It does not, and a newer one can be had.
    Replaced,
}

impl Session {
    /// Finds out, once for all who ask at the same time, whether `token` still works. `since` is when the request that
    /// was refused began.
    ///
    /// # Errors
    /// When it cannot be found out, or there is no other token.
    pub(crate) async fn examine(&self, token: &Token, since: Instant) -> Result<Verdict, VaultFailure> {
        let mut looked_up = self.shared.looked_up.lock().await;
        let (newest, may_not_look) = {
            let state = self.shared.state.lock();
            (state.token.as_ref().map(|newest| newest.generation), state.may_not_look)
        };
        if newest.is_some_and(|newest| newest > token.generation) {
            return Ok(Verdict::Replaced);
        }
        if may_not_look {
            // Then logging in now and then is the only way to find out.
            if token.term.received.elapsed() < UNSEEN {
                return Ok(Verdict::Alive);
            }
            drop(looked_up);
            return self.token_beyond(token.generation).await.map(|_| Verdict::Replaced);
        }
        let earlier = looked_up.filter(|look| look.generation == token.generation && look.began >= since);
        let alive = match earlier {
            Some(look) => look.alive,
            None => {
                let began = Instant::now();
                let alive = self.shared.lookup(&token.secret).await?.is_success();
                *looked_up = Some(Look { generation: token.generation, began, alive });
                alive
            }
        };
        drop(looked_up);
        if alive {
            return Ok(Verdict::Alive);
        }
        tracing::info!(
            method = self.method(),
            "the token of the secret store is not valid any more, logging in again"
        );
        self.token_beyond(token.generation).await.map(|_| Verdict::Replaced)
    }

    /// A request was refused with a token that had just been granted.
    ///
    /// # Errors
    /// When it cannot be found out what that means.
    pub(crate) async fn examine_fresh(&self, token: &Token) -> Result<(), VaultFailure> {
        if !self.shared.state.lock().may_not_look && !self.shared.lookup(&token.secret).await?.is_success() {
            tracing::info!(
                "the token of the secret store may not look at itself; a policy with `auth/token/lookup-self` saves logins"
            );
            self.shared.state.lock().may_not_look = true;
        }
        Ok(())
    }

    /// Logs in though `token` works, if an earlier process had it: a role may grant more by now. Once; where that fails, the
    /// token stays. Whether there is another one.
    pub(crate) async fn outgrow(&self, token: &Token) -> bool {
        let mut tried = self.shared.tried.subscribe();
        loop {
            {
                let mut state = self.shared.state.lock();
                if state.token.as_ref().is_some_and(|newest| newest.generation > token.generation) {
                    return true;
                }
                if state.closed || !token.resumed || state.another == Another::Tried {
                    return false;
                }
                state.another = Another::Wanted;
            }
            self.ensure_task();
            self.shared.wanted.notify_one();
            if tried.changed().await.is_err() {
                return false;
            }
        }
    }
}

//! The token over a restart. What was granted under a token ends with it: where leases are kept for the next start, so is the
//! token they were granted under, in the place that the store itself has in that memory. It is written when the first
//! lease is granted under it, and used once, by the same login at the same server.

use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::time::Duration;

use invar_syntax::Secret;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::body::object;
use super::failure::VaultFailure;
use super::link::Link;
use super::token::{Term, Token};
use super::transport::VaultRequest;
use crate::memory::StoreMemory;
use crate::snapshot::{Lease, SecretSnapshot};

/// What is kept of one store's token.
#[derive(Default)]
pub(crate) struct Carry {
    memory: OnceLock<StoreMemory>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// What an earlier process kept was used, or is of no use.
    seen: bool,
    /// What it kept, if it was had by another login; to be given back.
    outdated: Option<Secret>,
    /// Of which token what was written: its generation, and when it had its term.
    written: Option<(u64, Instant)>,
}

/// A token of an earlier process.
struct Carried {
    secret: Secret,
    login: Secret,
    /// How much was left of it when it was kept.
    lifetime: Duration,
    renewable: bool,
}

impl Carry {
    pub(crate) fn attach(&self, memory: StoreMemory) {
        // There is one memory for the life of a store; the first one stays.
        drop(self.memory.set(memory));
    }

    pub(crate) fn is_attached(&self) -> bool {
        self.memory.get().is_some()
    }

    /// The token of an earlier process, if the same `login` had it at the same server, and it still works.
    ///
    /// # Errors
    /// When it cannot be found out; the next time it is tried again.
    pub(crate) async fn resume(
        &self,
        link: &Link,
        login: Option<&str>,
    ) -> Result<Option<(Secret, Term)>, VaultFailure> {
        let Some(carried) = self.recall(&place(link)) else { return Ok(None) };
        if login != Some(carried.login.expose()) {
            tracing::info!("the token of an earlier process was had by another login, logging in anew");
            let mut state = self.state.lock();
            state.seen = true;
            state.outdated = Some(carried.secret);
            return Ok(None);
        }
        let request = match carried.renewable {
            true => VaultRequest::post("auth/token/renew-self", object([])),
            false => VaultRequest::get("auth/token/lookup-self"),
        };
        let received = Instant::now();
        let reply = link.ask_as(&carried.secret, request).await?;
        let mut term = None;
        if reply.is_success() {
            let answer = reply.answer()?;
            term = match carried.renewable {
                true => answer.auth.map(|grant| Term::of_grant(&grant, received)),
                false => answer.data.map(|data| Term::of_lookup(&data, received)),
            };
        }
        self.state.lock().seen = true;
        // It had an end: one of which none is said has come to it.
        let Some(mut term) = term.filter(|term| term.lifetime.is_some()) else {
            tracing::info!("the token of an earlier process is not valid any more, logging in anew");
            self.forget();
            return Ok(None);
        };
        let before = Term { lifetime: Some(carried.lifetime), ..term };
        term.renewable = term.renewable && carried.renewable && !term.is_shorter_than(&before);
        Ok(Some((carried.secret, term)))
    }

    /// What an earlier process kept, until it is clear what becomes of it.
    fn recall(&self, place: &str) -> Option<Carried> {
        let memory = self.memory.get()?;
        if self.state.lock().seen {
            return None;
        }
        let carried = memory.recall().and_then(|mut kept| {
            let lease = kept.lease.take()?;
            let of_here = kept.fields.remove("place").is_some_and(|of| of.expose() == place);
            let fields = of_here.then(|| Some((kept.fields.remove("token")?, kept.fields.remove("login")?)));
            let (secret, login) = fields.flatten()?;
            Some(Carried { secret, login, lifetime: lease.duration, renewable: lease.renewable })
        });
        if carried.is_none() {
            self.state.lock().seen = true;
        }
        carried
    }

    /// What is to be given back, now that there is another token.
    pub(crate) fn take_outdated(&self) -> Option<Secret> {
        let outdated = self.state.lock().outdated.take()?;
        self.forget();
        Some(outdated)
    }

    /// Keeps a token for the next start, if it is one that may be kept.
    pub(crate) fn keep(&self, link: &Link, token: &Token) {
        let (Some(memory), Some(login), Some(lifetime)) =
            (self.memory.get(), &token.login, token.term.lifetime)
        else {
            return;
        };
        let this = (token.generation, token.term.received);
        if self.state.lock().written.replace(this) == Some(this) {
            return;
        }
        let left = (token.term.received + lifetime).saturating_duration_since(Instant::now());
        let fields = BTreeMap::from([
            ("token".to_owned(), token.secret.clone()),
            ("place".to_owned(), Secret::new(place(link))),
            ("login".to_owned(), Secret::new(&**login)),
        ]);
        let lease = Lease { id: String::new(), duration: left, renewable: token.term.renewable };
        memory.remember(&SecretSnapshot::new(fields).with_lease(lease));
    }

    /// Whether a token of this generation is the one that is kept.
    pub(crate) fn keeps(&self, generation: u64) -> bool {
        self.state.lock().written.is_some_and(|(of, _)| of == generation)
    }

    /// Keeps nothing any more.
    pub(crate) fn forget(&self) {
        self.state.lock().written = None;
        if let Some(memory) = self.memory.get() {
            memory.forget();
        }
    }
}

/// Which server, and where in it: nobody else is to see the token.
fn place(link: &Link) -> String {
    format!("{} {}", link.transport.server(), link.namespace)
}

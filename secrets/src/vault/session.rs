//! The token by which everything is asked: one at a time, got by one login at a time, renewed well before its end, and
//! replaced while it still works.
//!
//! One task owns all of it, so that who waits for a login and goes away does not break it off: a proof may be good for
//! one use only. The task begins with the first token that somebody wants and ends with the session.

mod examine;

use std::sync::Arc;
use std::time::Duration;

use invar_syntax::Secret;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

pub(crate) use self::examine::Verdict;
use super::answer::Tree;
use super::body::object;
use super::carry::Carry;
use super::failure::{VaultFailure, VaultFailureKind};
use super::link::{Link, Reply};
use super::login::{Login, Proof};
use super::token::{Clock, Term, Token};
use super::transport::VaultRequest;
use crate::memory::StoreMemory;

/// The session with one server.
pub(crate) struct Session {
    shared: Arc<Shared>,
    task: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    link: Arc<Link>,
    login: Login,
    /// What the next process takes over.
    carry: Carry,
    state: Mutex<State>,
    /// Somebody wants a token.
    wanted: Notify,
    /// Counts the logins that were tried.
    tried: watch::Sender<u64>,
    /// The generation of the newest token.
    generation: watch::Sender<u64>,
    /// The last look at a token after a refusal.
    looked_up: tokio::sync::Mutex<Option<Look>>,
}

/// What was seen of a token.
#[derive(Clone, Copy)]
struct Look {
    generation: u64,
    began: Instant,
    alive: bool,
}

#[derive(Default)]
struct State {
    token: Option<Arc<Token>>,
    failures: u32,
    refused: Option<(VaultFailure, Instant)>,
    /// A token that had just been granted may not look at itself: what that says of any token is nothing.
    may_not_look: bool,
    /// Another token is wanted though there is one that works.
    another: Another,
    closed: bool,
}

/// Whether a token of an earlier process is replaced by one of a login, for what that may be allowed beyond.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Another {
    #[default]
    Unwanted,
    Wanted,
    /// Once is enough.
    Tried,
}

/// What a login gives.
struct Made {
    secret: Secret,
    term: Term,
    /// By which login, if the token may be kept.
    login: Option<String>,
    /// Whether an earlier process had it.
    resumed: bool,
}

/// What the task does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Renew,
    Login,
    Lookup,
}

impl Session {
    pub(crate) fn new(link: Arc<Link>, login: Login) -> Self {
        let shared = Shared {
            link,
            login,
            carry: Carry::default(),
            state: Mutex::default(),
            wanted: Notify::new(),
            tried: watch::Sender::new(0),
            generation: watch::Sender::new(0),
            looked_up: tokio::sync::Mutex::default(),
        };
        Self { shared: Arc::new(shared), task: Mutex::default() }
    }

    /// How the session logs in.
    pub(crate) fn method(&self) -> &'static str {
        self.shared.login.method()
    }

    pub(crate) fn login(&self) -> &Login {
        &self.shared.login
    }

    /// Gives a place for the token, where the next process finds it.
    pub(crate) fn remember_by(&self, memory: StoreMemory) {
        self.shared.carry.attach(memory);
    }

    /// Something was granted under the token of this generation: where that is kept for the next start, so is the token.
    pub(crate) fn keep_for_next(&self, generation: u64) {
        if let Some(token) = self.shared.current().filter(|token| token.generation == generation) {
            self.shared.carry.keep(&self.shared.link, &token);
        }
    }

    /// The generation of the newest token, as it changes.
    pub(crate) fn generations(&self) -> watch::Receiver<u64> {
        self.shared.generation.subscribe()
    }

    /// A token that has not ended.
    ///
    /// # Errors
    /// Why there is none, and when one is tried for again.
    pub(crate) async fn token(&self) -> Result<Arc<Token>, VaultFailure> {
        self.token_beyond(0).await
    }

    /// A token of a generation after `generation`.
    pub(crate) async fn token_beyond(&self, generation: u64) -> Result<Arc<Token>, VaultFailure> {
        // Looked at first: a login that ends in between is then seen.
        let mut tried = self.shared.tried.subscribe();
        loop {
            {
                let mut state = self.shared.state.lock();
                if state.closed {
                    return Err(VaultFailure::unavailable("the store is closed"));
                }
                let now = Instant::now();
                if let Some(token) = &state.token {
                    if token.generation > generation && !token.term.has_ended(now) {
                        return Ok(Arc::clone(token));
                    }
                    if token.generation <= generation {
                        // Nobody else is to try it.
                        state.token = None;
                    }
                }
                if let Some((failure, until)) = &state.refused
                    && *until > now
                {
                    return Err(failure.clone().after(*until - now));
                }
            }
            self.ensure_task();
            self.shared.wanted.notify_one();
            if tried.changed().await.is_err() {
                return Err(VaultFailure::unavailable("the store is closed"));
            }
        }
    }

    /// What the server knows of the token.
    pub(crate) async fn lookup(&self) -> Result<Tree, VaultFailure> {
        let token = self.token().await?;
        let reply = self.shared.lookup(&token.secret).await?;
        if !reply.is_success() {
            let server = self.shared.link.transport.server();
            return Err(reply.failure(VaultFailureKind::Denied, &server));
        }
        reply
            .answer()?
            .data
            .ok_or_else(|| VaultFailure::unavailable("the server says nothing about the token"))
    }

    /// Ends the task. No token is had afterwards.
    pub(crate) async fn shutdown(&self) {
        self.shared.state.lock().closed = true;
        let task = self.task.lock().take();
        if let Some(task) = task {
            task.abort();
            // Cancelled is what it was meant to be.
            drop(task.await);
        }
        self.shared.tried.send_modify(|count| *count += 1);
    }

    /// Gives the token back, and with it whatever was granted under it, unless it was not made by a login.
    pub(crate) async fn revoke_token(&self) -> Result<(), VaultFailure> {
        let token = self.shared.state.lock().token.take();
        let Some(token) = token.filter(|_| self.method() != "token") else { return Ok(()) };
        self.shared.carry.forget();
        self.shared.revoke(&token.secret).await
    }

    fn ensure_task(&self) {
        let mut task = self.task.lock();
        // One that panicked must not leave everybody waiting.
        if task.as_ref().is_none_or(JoinHandle::is_finished) {
            *task = Some(tokio::spawn(keep(Arc::clone(&self.shared))));
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if let Some(task) = self.task.get_mut().take() {
            task.abort();
        }
    }
}

/// Logs in when somebody wants a token, and keeps it alive.
async fn keep(shared: Arc<Shared>) {
    let mut clock = Clock::new(&shared.link.world);
    let mut next: Option<(Instant, Step)> = None;
    let mut failures = 0;
    loop {
        let wake = match next {
            Some((at, _)) => at.min(Instant::now() + shared.link.pace.nap),
            None => Instant::now() + shared.link.pace.nap,
        };
        let wanted = tokio::select! {
            () = shared.wanted.notified() => true,
            () = tokio::time::sleep_until(wake) => false,
        };
        if wanted {
            // Whoever asked may have been served by a login that was on its way.
            if (!shared.has_token() || shared.wants_another()) && !shared.waits() {
                shared.log_in().await;
                failures = 0;
            }
            shared.tried.send_modify(|count| *count += 1);
            next = shared.plan();
            clock = Clock::new(&shared.link.world);
            continue;
        }
        let Some(token) = shared.current() else {
            next = None;
            continue;
        };
        if let Some(kept) = shared.login.kept_token().await
            && kept != token.secret
        {
            tracing::debug!("the file with the token of the secret store has changed");
            shared.log_in().await;
            next = shared.plan();
            continue;
        }
        let step = match next {
            Some((at, step)) if at <= Instant::now() => step,
            _ if clock.jumped(&shared.link.world) => {
                // Not all who were suspended together ask together.
                tokio::time::sleep(shared.link.world.part(Duration::from_secs(5))).await;
                Step::Lookup
            }
            _ => continue,
        };
        let done = match step {
            Step::Renew => shared.renew(&token).await,
            Step::Lookup => shared.look_again(&token).await,
            Step::Login => Done::Login,
        };
        clock = Clock::new(&shared.link.world);
        next = match done {
            Done::Planned => {
                failures = 0;
                shared.plan()
            }
            Done::Failed => {
                failures += 1;
                Some((Instant::now() + shared.wait(failures), shared.after_failure(&token, step)))
            }
            Done::Login => match shared.log_in().await {
                true => {
                    failures = 0;
                    shared.plan()
                }
                // The old token serves until it ends.
                false => {
                    failures += 1;
                    let at = shared.state.lock().refused.as_ref().map(|(_, until)| *until);
                    Some((at.unwrap_or_else(|| Instant::now() + shared.wait(failures)), Step::Login))
                }
            },
        };
    }
}

/// What came of a step.
enum Done {
    /// The token has a new term.
    Planned,
    /// Another time it may work.
    Failed,
    /// Only a login helps.
    Login,
}

impl Shared {
    fn has_token(&self) -> bool {
        let state = self.state.lock();
        state.token.as_ref().is_some_and(|token| !token.term.has_ended(Instant::now()))
    }

    /// Whether somebody wants another token than there is; once.
    fn wants_another(&self) -> bool {
        let mut state = self.state.lock();
        let wanted = state.another == Another::Wanted;
        if wanted {
            state.another = Another::Tried;
        }
        wanted
    }

    /// Whether the last login failed a short while ago.
    fn waits(&self) -> bool {
        self.state.lock().refused.as_ref().is_some_and(|(_, until)| *until > Instant::now())
    }

    fn current(&self) -> Option<Arc<Token>> {
        self.state.lock().token.clone()
    }

    fn wait(&self, failures: u32) -> Duration {
        let pace = &self.link.pace;
        self.link.world.backoff(failures, pace.login_first, pace.login_longest)
    }

    /// When what is to be done for the current token.
    fn plan(&self) -> Option<(Instant, Step)> {
        let token = self.current()?;
        let world = &self.link.world;
        Some(match token.term.lifetime {
            None => (token.term.received + self.link.pace.lookup, Step::Lookup),
            Some(lifetime) if token.term.renewable => {
                let grace = lifetime / 10 + world.part(lifetime / 10);
                (token.term.received + lifetime * 2 / 3 + world.part(grace / 3), Step::Renew)
            }
            Some(lifetime) => {
                (token.term.received + lifetime * 4 / 5 + world.part(lifetime / 10), Step::Login)
            }
        })
    }

    /// A renewal is tried again until there is just time left to log in.
    fn after_failure(&self, token: &Token, step: Step) -> Step {
        let Some(lifetime) = token.term.lifetime else { return step };
        let left = (token.term.received + lifetime).saturating_duration_since(Instant::now());
        if left <= lifetime / 5 { Step::Login } else { step }
    }

    /// One login. The token that there is stays until the new one is there.
    async fn log_in(&self) -> bool {
        let made = self.try_login().await;
        if made.as_ref().is_err_and(|failure| failure.kind == VaultFailureKind::Denied) {
            self.login.refused();
        }
        let done = self.take(made);
        if done
            && let Some(outdated) = self.carry.take_outdated()
            && let Err(error) = self.revoke(&outdated).await
        {
            tracing::info!(%error, "the token of an earlier process ends by itself only, and with it its leases");
        }
        done
    }

    /// Takes up what a login gave; whether that is a token.
    fn take(&self, made: Result<Made, VaultFailure>) -> bool {
        let mut state = self.state.lock();
        match made {
            Ok(Made { secret, term, login, resumed }) => {
                state.failures = 0;
                state.refused = None;
                let generation = *self.generation.borrow() + 1;
                let login = login.map(Arc::from);
                state.token = Some(Arc::new(Token { secret, generation, term, login, resumed }));
                drop(state);
                tracing::debug!(method = self.login.method(), lifetime = ?term.lifetime, "logged in to the secret store");
                self.generation.send_replace(generation);
                true
            }
            Err(failure) => {
                state.failures = state.failures.saturating_add(1);
                let wait = self.wait(state.failures).max(failure.retry_after.unwrap_or_default());
                tracing::warn!(method = self.login.method(), error = %failure, again_in = ?wait, "the login to the secret store failed");
                state.refused = Some((failure, Instant::now() + wait));
                false
            }
        }
    }

    async fn try_login(&self) -> Result<Made, VaultFailure> {
        // Not before the proof is made, which may be good for one use.
        self.link.in_service().await?;
        let login = match self.carry.is_attached() {
            true => self.login.identity().await?,
            false => None,
        };
        if let Some((secret, term)) = self.carry.resume(&self.link, login.as_deref()).await? {
            tracing::info!("the token of an earlier process goes on, no login was needed");
            return Ok(Made { secret, term, login, resumed: true });
        }
        let server = self.link.transport.server();
        let received = Instant::now();
        match self.login.proof(&self.link).await? {
            Proof::Token(secret) => {
                let reply = self.lookup(&secret).await?;
                if !reply.is_success() {
                    let failure = reply.failure(VaultFailureKind::Denied, &server);
                    return Err(failure
                        .prefixed(&format!("the token of `auth.{}` is not valid", self.login.method())));
                }
                let data = reply.answer()?.data.unwrap_or(Tree::Null);
                Ok(Made { secret, term: Term::of_lookup(&data, received), login: None, resumed: false })
            }
            Proof::Write { path, namespace, body } => {
                let mut request = VaultRequest::post(path.clone(), body);
                request.namespace = namespace.unwrap_or_else(|| self.link.namespace.clone());
                let reply = self.link.exchange(request).await?;
                if !reply.is_success() {
                    let failure = reply.failure(VaultFailureKind::Denied, &server);
                    return Err(failure.prefixed(&format!("the login at `{path}` is refused")));
                }
                let grant = reply.answer()?.auth;
                let grant = grant.ok_or_else(|| {
                    VaultFailure::denied(format!(
                        "the login at `{path}` gives no token; a second factor is not supported"
                    ))
                })?;
                let term = Term::of_grant(&grant, received);
                let login = login.filter(|_| !grant.batch);
                Ok(Made { secret: grant.token, term, login, resumed: false })
            }
        }
    }

    async fn lookup(&self, token: &Secret) -> Result<Reply, VaultFailure> {
        self.link.ask_as(token, VaultRequest::get("auth/token/lookup-self")).await
    }

    async fn revoke(&self, token: &Secret) -> Result<(), VaultFailure> {
        self.link.ask_as(token, VaultRequest::post("auth/token/revoke-self", object([]))).await.map(drop)
    }

    async fn renew(&self, token: &Token) -> Done {
        let request = VaultRequest::post("auth/token/renew-self", object([]));
        let received = Instant::now();
        let reply = match self.link.ask_as(&token.secret, request).await {
            Ok(reply) if reply.is_success() => reply,
            Ok(reply) => {
                tracing::info!(
                    status = reply.status(),
                    "the token of the secret store is not renewed, logging in again"
                );
                return Done::Login;
            }
            Err(failure) => {
                tracing::info!(error = %failure, "the token of the secret store could not be renewed");
                return Done::Failed;
            }
        };
        let Ok(Some(grant)) = reply.answer().map(|answer| answer.auth) else { return Done::Failed };
        let mut term = Term::of_grant(&grant, received);
        if term.is_shorter_than(&token.term) {
            tracing::info!(granted = ?term.lifetime, "the token of the secret store nears its longest time, logging in anew before");
            term.renewable = false;
        }
        self.set_term(token, term)
    }

    async fn look_again(&self, token: &Token) -> Done {
        let received = Instant::now();
        match self.lookup(&token.secret).await {
            Ok(reply) if reply.is_success() => match reply.answer() {
                Ok(answer) => {
                    let found = Term::of_lookup(answer.data.as_ref().unwrap_or(&Tree::Null), received);
                    let renewable = found.renewable && token.term.renewable;
                    self.set_term(token, Term { renewable, ..found })
                }
                Err(_) => Done::Failed,
            },
            Ok(_) => Done::Login,
            Err(_) => Done::Failed,
        }
    }

    fn set_term(&self, token: &Token, term: Term) -> Done {
        let mut state = self.state.lock();
        if let Some(current) = &mut state.token
            && current.generation == token.generation
        {
            let generation = current.generation;
            *current = Arc::new(Token { term, ..Token::clone(current) });
            let renewed = Arc::clone(current);
            drop(state);
            if self.carry.keeps(generation) {
                self.carry.keep(&self.link, &renewed);
            }
        }
        Done::Planned
    }
}

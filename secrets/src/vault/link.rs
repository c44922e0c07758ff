//! One exchange with a server, and what all exchanges share: whether it is out of service, and how new its state was.

use std::sync::Arc;
use std::time::Duration;

use invar_syntax::Secret;
use invar_syntax::secret::REDACTED;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::answer::{Answer, Tree, decode_answer, decode_errors, decode_health};
use super::failure::{VaultFailure, VaultFailureKind};
use super::pace::{Pace, World};
use super::transport::{VaultRequest, VaultResponse, VaultTransport, VaultTransportError};

/// As many times state that is not there yet is asked for again.
const REPLICATION_ATTEMPTS: u32 = 10;

/// The way to one server.
pub(crate) struct Link {
    pub(crate) transport: Arc<dyn VaultTransport>,
    pub(crate) namespace: String,
    pub(crate) timeout: Duration,
    pub(crate) pace: Pace,
    pub(crate) world: World,
    index: Mutex<Option<String>>,
    outage: Mutex<Option<Outage>>,
    /// Held by whoever asks the server how it is.
    probing: tokio::sync::Mutex<()>,
}

/// A server that answers but serves nothing.
#[derive(Clone, Debug)]
struct Outage {
    reason: String,
    began: Instant,
    interval: Duration,
    probe_at: Instant,
    /// Set once it serves again: everybody waits for a time of their own.
    resume_at: Option<Instant>,
}

/// An answer that is neither an outage nor a limit.
#[derive(Debug)]
pub(crate) struct Reply {
    response: VaultResponse,
    /// What the request told in confidence: words of the server that repeat it are not passed on.
    told: Vec<Secret>,
}

impl Link {
    pub(crate) fn new(
        transport: Arc<dyn VaultTransport>,
        namespace: String,
        timeout: Duration,
        pace: Pace,
        world: World,
    ) -> Self {
        Self {
            transport,
            namespace,
            timeout,
            pace,
            world,
            index: Mutex::default(),
            outage: Mutex::default(),
            probing: tokio::sync::Mutex::default(),
        }
    }

    /// Sends a request, again while the server has not replicated what it is about.
    ///
    /// # Errors
    /// When there is no answer, or one that another request would get as well.
    pub(crate) async fn exchange(&self, mut request: VaultRequest) -> Result<Reply, VaultFailure> {
        self.in_service().await?;
        request.timeout = self.timeout;
        let mut attempts = 0;
        let response = loop {
            request.index.clone_from(&self.index.lock());
            let response = self.send(&request).await?;
            attempts += 1;
            if response.status != 412 || attempts > REPLICATION_ATTEMPTS {
                break response;
            }
            tokio::time::sleep(self.pace.replication).await;
        };
        if let Some(index) = &response.index {
            *self.index.lock() = Some(index.clone());
        }
        let told = if response.status < 300 { Vec::new() } else { confidences(&request) };
        let reply = Reply { response, told };
        match reply.status() {
            412 => Err(VaultFailure::unavailable(format!(
                "{} has not replicated what is asked for yet",
                self.transport.server()
            ))),
            429 => {
                let wait = reply.response.retry_after.unwrap_or(Duration::from_secs(1));
                let server = self.transport.server();
                Err(VaultFailure::limited(format!("{server} limits how much it is asked (429)"), wait))
            }
            status @ (472 | 473 | 501 | 503) => Err(self.out_of_service(status, &reply)),
            500.. => Err(reply.failure(VaultFailureKind::Unavailable, &self.transport.server())),
            300..=399 => Err(VaultFailure::unavailable(format!(
                "{} sends from one node to the other ({})",
                self.transport.server(),
                reply.status()
            ))),
            _ => Ok(reply),
        }
    }

    /// The same as whoever has this token, in the namespace of all paths.
    ///
    /// # Errors
    /// As for [`Self::exchange`].
    pub(crate) async fn ask_as(
        &self,
        token: &Secret,
        mut request: VaultRequest,
    ) -> Result<Reply, VaultFailure> {
        request.namespace.clone_from(&self.namespace);
        request.token = Some(token.clone());
        self.exchange(request).await
    }

    async fn send(&self, request: &VaultRequest) -> Result<VaultResponse, VaultFailure> {
        self.transport.send(request).await.map_err(|error| match error {
            VaultTransportError::Settings(reason) => {
                VaultFailure::invalid(format!("{}: {reason}", self.transport.server()))
            }
            VaultTransportError::Connection(reason) => {
                VaultFailure::unavailable(format!("{} is not reached: {reason}", self.transport.server()))
            }
        })
    }

    fn out_of_service(&self, status: u16, reply: &Reply) -> VaultFailure {
        let server = self.transport.server();
        let reason = match status {
            501 => format!("{server} is not initialised"),
            472 => format!("{server} is a secondary for disaster recovery"),
            473 => format!("{server} is a standby that serves nothing"),
            _ => format!("{server} does not serve ({status}{})", reply.words(": ")),
        };
        let mut outage = self.outage.lock();
        let now = Instant::now();
        let held = outage.get_or_insert_with(|| {
            tracing::warn!(reason, "the secret store is out of service, values that are held stay in use");
            let interval = self.pace.probe_first;
            Outage { reason: reason.clone(), began: now, interval, probe_at: now + interval, resume_at: None }
        });
        if held.resume_at.take().is_some() {
            held.probe_at = now + held.interval;
        }
        held.reason = reason;
        held.failure(now)
    }

    /// Asks how the server is if it was out of service and it is time to.
    ///
    /// # Errors
    /// While it is, and for a while of each agent's own afterwards.
    pub(crate) async fn in_service(&self) -> Result<(), VaultFailure> {
        let due = {
            let mut outage = self.outage.lock();
            let now = Instant::now();
            match &*outage {
                None => return Ok(()),
                Some(held) if held.resume_at.is_some_and(|at| at <= now) => {
                    tracing::info!(outage = ?held.began.elapsed(), "the secret store is in service again");
                    *outage = None;
                    return Ok(());
                }
                Some(held) if held.resume_at.is_some() || held.probe_at > now => {
                    return Err(held.failure(now));
                }
                Some(held) => held.clone(),
            }
        };
        let Ok(_probing) = self.probing.try_lock() else { return Err(due.failure(Instant::now())) };
        let serves = self.probe().await;
        {
            let mut outage = self.outage.lock();
            let Some(held) = outage.as_mut() else { return Ok(()) };
            let now = Instant::now();
            match serves {
                Ok(()) => {
                    let wait = self.world.part(self.pace.after_unseal);
                    held.resume_at = Some(now + wait);
                    if !wait.is_zero() {
                        return Err(held.failure(now));
                    }
                    *outage = None;
                }
                Err(reason) => {
                    held.reason = reason;
                    held.interval = (held.interval * 2).min(self.pace.probe_longest);
                    held.probe_at = now + held.interval;
                    return Err(held.failure(now));
                }
            }
        }
        Ok(())
    }

    /// Whether the server serves; the reason if it does not.
    async fn probe(&self) -> Result<(), String> {
        let server = self.transport.server();
        let mut request = VaultRequest::get("sys/health");
        request.timeout = self.timeout;
        let response = self.transport.send(&request).await;
        let response = response.map_err(|error| format!("{server} is not reached: {error}"))?;
        let health = decode_health(&response.body).unwrap_or_default();
        match response.status {
            // Standbys answer with 429 and 473, and pass on what they are asked.
            200 | 429 | 473 => Ok(()),
            501 => Err(format!("{server} is not initialised")),
            503 if health.sealed => Err(format!("{server} is sealed")),
            472 => Err(format!("{server} is a secondary for disaster recovery")),
            status => Err(format!("{server} does not serve (its health is {status})")),
        }
    }

    /// One line on how the server is.
    pub(crate) async fn describe(&self) -> Option<String> {
        let mut request = VaultRequest::get("sys/health");
        request.timeout = self.timeout;
        let response = self.transport.send(&request).await.ok()?;
        let health = decode_health(&response.body)?;
        let role = if health.standby { "standby" } else { "active" };
        Some(format!("{role}, version {}", health.version))
    }
}

/// The token, and every text of the body that is long enough to be one or a password.
fn confidences(request: &VaultRequest) -> Vec<Secret> {
    const SHORTEST: usize = 6;
    fn collect(tree: Tree, found: &mut Vec<Secret>) {
        match tree {
            Tree::Text(text) => found.push(text),
            Tree::List(items) => items.into_iter().for_each(|item| collect(item, found)),
            Tree::Map(fields) => fields.into_values().for_each(|item| collect(item, found)),
            Tree::Null | Tree::Bool(_) | Tree::Number(_) => {}
        }
    }
    let mut found: Vec<Secret> = request.token.iter().cloned().collect();
    if let Some(body) = request.body.as_ref().and_then(|body| serde_json::from_slice(body).ok()) {
        collect(body, &mut found);
    }
    found.retain(|text| text.expose().len() >= SHORTEST);
    found
}

impl Outage {
    fn failure(&self, now: Instant) -> VaultFailure {
        let until = self.resume_at.unwrap_or(self.probe_at);
        VaultFailure::unavailable(self.reason.clone()).after(until.saturating_duration_since(now))
    }
}

impl Reply {
    pub(crate) fn status(&self) -> u16 {
        self.response.status
    }

    pub(crate) fn is_success(&self) -> bool {
        (200..300).contains(&self.status())
    }

    pub(crate) fn body(&self) -> &[u8] {
        &self.response.body
    }

    /// Whether the server says this, in any of its errors.
    pub(crate) fn says(&self, words: &str) -> bool {
        decode_errors(self.body()).iter().any(|error| error.contains(words))
    }

    /// What the server says is wrong, after `separator`; nothing if it says nothing.
    pub(crate) fn words(&self, separator: &str) -> String {
        let mut errors = decode_errors(self.body());
        for secret in &self.told {
            for error in &mut errors {
                if error.contains(secret.expose()) {
                    *error = error.replace(secret.expose(), REDACTED);
                }
            }
        }
        if errors.is_empty() { String::new() } else { format!("{separator}{}", errors.join("; ")) }
    }

    pub(crate) fn failure(&self, kind: VaultFailureKind, server: &str) -> VaultFailure {
        VaultFailure::new(kind, format!("{server} answers with {}{}", self.status(), self.words(": ")))
    }

    /// The answer; one without a body is empty.
    pub(crate) fn answer(&self) -> Result<Answer, VaultFailure> {
        if self.body().iter().all(u8::is_ascii_whitespace) {
            return Ok(Answer { lease: None, data: None, auth: None, wrapping: None, warnings: Vec::new() });
        }
        decode_answer(self.body()).map_err(VaultFailure::unavailable)
    }
}

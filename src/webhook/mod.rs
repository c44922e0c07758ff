//! Webhooks: somebody else's word that there is something new, which only ever means "look now". A body is authenticated
//! and thrown away: no reference, address or content is taken from it. Reached over `POST /api/v1/webhooks/NAME`, without
//! the credentials of the API, so that everything that costs something is bounded here.

mod allowance;
mod deliveries;
mod keyring;
mod settings;
mod signature;
mod target;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, header};
use invar_secrets::SecretStores;
use invar_sources::SourceName;
use parking_lot::Mutex;
use prometheus::{IntCounterVec, Opts, Registry};
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use self::allowance::Allowances;
use self::deliveries::Deliveries;
use self::keyring::Keyring;
pub(crate) use self::settings::{WebhookKind, WebhookSettings, check};
pub(crate) use self::target::{AgentTarget, Target};

/// Longest body, in bytes.
const BODY_LIMIT: usize = 1 << 20;
/// How long a body may take to come.
const BODY_DEADLINE: Duration = Duration::from_secs(10);
/// Deliveries that are read at the same time, over all webhooks.
const READING: usize = 16;

/// What becomes of a delivery. The words are those of the answer and of the metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The sources look now.
    Accepted,
    /// It came before.
    Duplicate,
    /// Applying is held.
    Ignored,
}

impl Outcome {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Duplicate => "duplicate",
            Self::Ignored => "ignored",
        }
    }
}

/// Why a delivery is refused. Nothing here tells a caller more than that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// No webhook has that name.
    Unknown,
    /// The signature or the token is missing or wrong.
    Unauthenticated,
    /// Too many deliveries; come back after this.
    Limited(Duration),
    /// The body is too long.
    TooLarge,
    /// The body did not come in time, or broke off.
    TimedOut,
    /// The secret cannot be had.
    Unavailable,
}

impl Refused {
    fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Unauthenticated => "unauthenticated",
            Self::Limited(_) => "limited",
            Self::TooLarge => "too_large",
            Self::TimedOut => "timed_out",
            Self::Unavailable => "unavailable",
        }
    }
}

/// The webhooks of the settings.
pub(crate) struct Webhooks {
    hooks: BTreeMap<String, Webhook>,
    target: Arc<dyn Target>,
    stores: SecretStores,
    reading: Semaphore,
    counted: IntCounterVec,
}

struct Webhook {
    settings: WebhookSettings,
    keyring: Mutex<Keyring>,
    allowances: Mutex<Allowances>,
    deliveries: Mutex<Deliveries>,
    /// One permit: deliveries while one is about to be acted on are one.
    dirty: Arc<Notify>,
    task: JoinHandle<()>,
}

impl Drop for Webhook {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Webhooks {
    /// Starts what the settings say. Must be called within a runtime.
    ///
    /// # Errors
    /// The metrics exist already.
    pub(crate) fn start(
        settings: &BTreeMap<String, WebhookSettings>,
        target: Arc<dyn Target>,
        stores: SecretStores,
        metrics: &Registry,
    ) -> Result<Self, prometheus::Error> {
        let help = "Deliveries to webhooks, by what became of them.";
        let counted =
            IntCounterVec::new(Opts::new("invar_webhook_deliveries_total", help), &["webhook", "outcome"])?;
        metrics.register(Box::new(counted.clone()))?;
        let hooks = settings.iter().map(|(name, settings)| {
            let sources: Vec<SourceName> =
                settings.sources.iter().map(|source| SourceName::new(source.as_str())).collect();
            let dirty = Arc::new(Notify::new());
            let acting = act(Arc::clone(&dirty), Arc::clone(&target), sources, settings.jitter);
            let hook = Webhook {
                settings: settings.clone(),
                keyring: Mutex::default(),
                allowances: Mutex::default(),
                deliveries: Mutex::default(),
                dirty,
                task: tokio::spawn(acting),
            };
            (name.clone(), hook)
        });
        let hooks = hooks.collect();
        Ok(Self { hooks, target, stores, reading: Semaphore::new(READING), counted })
    }

    /// One delivery: authenticated, remembered, and acted on after the answer.
    pub(crate) async fn receive(
        &self,
        name: &str,
        peer: Option<IpAddr>,
        headers: &HeaderMap,
        body: Body,
    ) -> Result<(Outcome, Option<String>), Refused> {
        let hook = self.hooks.get(name).ok_or(Refused::Unknown)?;
        let id = deliveries::id_of(hook.settings.kind, headers);
        let result = self.judge(hook, peer, headers, body, id.as_deref()).await;
        let outcome = result.map_or_else(Refused::as_str, Outcome::as_str);
        self.counted.with_label_values(&[name, outcome]).inc();
        let delivery = id.as_deref().unwrap_or("without an id");
        match result {
            Ok(Outcome::Accepted) => {
                let sources = match hook.settings.sources.as_slice() {
                    [] => "all Git sources".to_owned(),
                    sources => sources.join(", "),
                };
                self.target.announce(format!("webhook {name}, delivery {delivery}: {sources}"));
                hook.dirty.notify_one();
            }
            Ok(_) => tracing::info!(webhook = name, delivery, outcome, "a delivery that changes nothing"),
            // The id is a claim: nothing has shown who sends it.
            Err(Refused::Unauthenticated) => {
                tracing::warn!(webhook = name, ?peer, "a delivery without the right signature");
            }
            Err(_) => tracing::debug!(webhook = name, ?peer, outcome, "a delivery is refused"),
        }
        result.map(|outcome| (outcome, id))
    }

    async fn judge(
        &self,
        hook: &Webhook,
        peer: Option<IpAddr>,
        headers: &HeaderMap,
        body: Body,
        id: Option<&str>,
    ) -> Result<Outcome, Refused> {
        hook.allowances.lock().take(peer, Instant::now()).map_err(Refused::Limited)?;
        let length =
            headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        if length.is_some_and(|length: u64| length > BODY_LIMIT as u64) {
            return Err(Refused::TooLarge);
        }
        let _turn = self.reading.try_acquire().map_err(|_| Refused::Limited(Duration::from_secs(1)))?;
        let body = read(body).await?;
        let secret = match hook.settings.secret.resolve(&self.stores).await {
            // Anybody can sign with nothing.
            Ok(secret) if secret.expose().is_empty() => {
                tracing::error!(at = hook.settings.secret.location(), "the secret of a webhook is empty");
                return Err(Refused::Unavailable);
            }
            Ok(secret) => secret,
            Err(error) => {
                tracing::error!(%error, "the secret of a webhook cannot be had");
                return Err(Refused::Unavailable);
            }
        };
        let secrets = hook.keyring.lock().with(secret, Instant::now());
        if !secrets.iter().any(|secret| signature::verify(&hook.settings, headers, &body, secret)) {
            return Err(Refused::Unauthenticated);
        }
        drop(body);
        // Only now: what nobody has authenticated must not be able to use an id up.
        if id.is_some_and(|id| !hook.deliveries.lock().note(id)) {
            return Ok(Outcome::Duplicate);
        }
        Ok(if self.target.is_held() { Outcome::Ignored } else { Outcome::Accepted })
    }

    /// Ends what deliveries set off.
    pub(crate) fn stop(&self) {
        for hook in self.hooks.values() {
            hook.task.abort();
        }
    }
}

/// Makes the sources look, once for all the deliveries that came since.
async fn act(dirty: Arc<Notify>, target: Arc<dyn Target>, sources: Vec<SourceName>, jitter: Duration) {
    loop {
        dirty.notified().await;
        if !jitter.is_zero() {
            tokio::time::sleep(jitter.mul_f64(rand::random::<f64>())).await;
        }
        target.look(&sources);
    }
}

async fn read(body: Body) -> Result<bytes::Bytes, Refused> {
    match tokio::time::timeout(BODY_DEADLINE, axum::body::to_bytes(body, BODY_LIMIT)).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(error)) => {
            let mut cause: Option<&dyn std::error::Error> = Some(&error);
            while let Some(error) = cause {
                if error.is::<http_body_util::LengthLimitError>() {
                    return Err(Refused::TooLarge);
                }
                cause = error.source();
            }
            Err(Refused::TimedOut)
        }
        Err(_) => Err(Refused::TimedOut),
    }
}

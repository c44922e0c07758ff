//! Keeps what is exported current: reads again when it is time to, renews what was granted for a time, and replaces it
//! while it lasts.

use std::convert::Infallible;
use std::time::Duration;

use invar_engine::{Health, RunContext};
use invar_secrets::Lease;
use invar_secrets::schedule::{self, Pauses};
use invar_secrets::vault::{Reading, VaultClient, VaultFailure};
use tokio::time::Instant;

use super::arguments::ClientOptions;
use super::{Instance, Place, RemoteVault, State, VaultExports};

/// However long a server wants to be left alone, it is asked again after this.
const LONGEST_WAIT: Duration = Duration::from_secs(5 * 60);
/// How long the credential that was replaced still serves before it is given back.
const OVERLAP: Duration = Duration::from_secs(30);
/// What is granted for less than this is replaced and not renewed.
const SHORTEST: Duration = Duration::from_secs(1);

/// Reads the secret, as often as the options say.
pub(super) async fn read(
    client: &VaultClient,
    place: &Place,
    options: &ClientOptions,
) -> Result<Reading, VaultFailure> {
    let mut attempts = 0;
    let mut wait = options.min_retry_wait;
    loop {
        let read = match place.key.as_str() {
            "" => client.read(&place.path).await,
            key => client.read_key(&place.path, key).await,
        };
        match read {
            Err(failure) if failure.is_transient() && attempts < options.max_retries => {
                attempts += 1;
                // A server that wants to be left alone for longer is.
                let asked = failure.retry_after.unwrap_or_default();
                if asked > options.max_retry_wait.max(options.min_retry_wait) {
                    return Err(failure);
                }
                tokio::time::sleep(wait.max(asked)).await;
                wait = (wait * 2).min(options.max_retry_wait.max(options.min_retry_wait));
            }
            read => return read,
        }
    }
}

/// What is due, and when.
enum Due {
    Never,
    Read(Instant),
    Renew(Instant, Lease),
}

/// Keeps the exports current until it is dropped.
pub(super) async fn keep(
    instance: &Instance,
    state: &State,
    context: &RunContext<RemoteVault>,
) -> Infallible {
    let mut keeping = Keeping {
        state,
        reading: state.reading.clone(),
        granted: Instant::now(),
        pauses: Pauses::default(),
        retired: None,
    };
    let mut logins = state.client.logins();
    logins.mark_unchanged();
    let mut due = if state.stale { Due::Read(Instant::now()) } else { keeping.due() };
    if !state.stale {
        keeping.publish(instance, context);
    }
    loop {
        let at = match &due {
            Due::Never => None,
            Due::Read(at) | Due::Renew(at, _) => Some(*at),
        };
        let retired = keeping.retired.as_ref().map(|(at, _)| *at);
        tokio::select! {
            () = until(at) => {}
            () = until(retired) => {
                keeping.give_back().await;
                continue;
            }
            // What was granted under a token ends with it.
            changed = logins.changed() => {
                if changed.is_ok() && keeping.reading.lease.is_some() {
                    due = Due::Read(Instant::now());
                }
                continue;
            }
        }
        due = match due {
            Due::Renew(_, lease) => keeping.renew(&lease, context).await,
            _ => keeping.read_again(instance, context).await,
        };
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

struct Keeping<'a> {
    state: &'a State,
    reading: Reading,
    /// When the lease was granted or renewed last.
    granted: Instant,
    pauses: Pauses,
    /// A lease that was replaced, and when it is given back.
    retired: Option<(Instant, Lease)>,
}

impl Keeping<'_> {
    /// When to do what, after a success.
    fn due(&self) -> Due {
        let every = Some(self.state.arguments.reread_frequency).filter(|every| !every.is_zero());
        match (&self.reading.lease, self.reading.read_again) {
            (Some(lease), _) if lease.duration.is_zero() => Due::Never,
            (Some(lease), _) => {
                let at = self.granted + schedule::renewal(lease.duration, rand::random());
                if lease.renewable && lease.duration > SHORTEST {
                    Due::Renew(at, lease.clone())
                } else {
                    Due::Read(at)
                }
            }
            (None, Some(again)) => Due::Read(self.granted + every.map_or(again, |every| every.min(again))),
            (None, None) => every.map_or(Due::Never, |every| Due::Read(self.granted + every)),
        }
    }

    async fn renew(&mut self, lease: &Lease, context: &RunContext<RemoteVault>) -> Due {
        match self.state.client.renew(lease).await {
            Ok(renewed) => {
                self.pauses.reset();
                let grace = schedule::grace(lease.duration, rand::random());
                let ends = schedule::nears_its_end(lease.duration, renewed.duration, grace);
                self.granted = Instant::now();
                self.reading.lease = Some(renewed);
                context.set_health(Health::healthy("lease renewed"));
                // It nears its longest time: another is wanted while it lasts.
                if ends { Due::Read(Instant::now()) } else { self.due() }
            }
            Err(failure) if failure.is_transient() => {
                context.set_health(Health::unhealthy(format!("{failure}; the lease could not be renewed")));
                let left = (self.granted + lease.duration).saturating_duration_since(Instant::now());
                let again = Instant::now() + self.wait(&failure);
                if left < lease.duration / 5 { Due::Read(again) } else { Due::Renew(again, lease.clone()) }
            }
            // The server does not know it any more, or does not renew it.
            Err(_) => Due::Read(Instant::now()),
        }
    }

    async fn read_again(&mut self, instance: &Instance, context: &RunContext<RemoteVault>) -> Due {
        match read(&self.state.client, &self.state.place, &self.state.arguments.client_options).await {
            Ok(reading) => {
                self.pauses.reset();
                self.granted = Instant::now();
                let replaced = std::mem::replace(&mut self.reading, reading);
                if let Some(lease) = replaced.lease {
                    // Two at a time would be strange; the earlier one ends by itself.
                    self.retired = Some((Instant::now() + OVERLAP, lease));
                }
                self.publish(instance, context);
                self.due()
            }
            Err(failure) => {
                context.set_health(Health::unhealthy(format!("{failure}; the data read last stays in use")));
                Due::Read(Instant::now() + self.wait(&failure))
            }
        }
    }

    async fn give_back(&mut self) {
        if let Some((_, lease)) = self.retired.take()
            && let Err(error) = self.state.client.revoke(&lease).await
        {
            tracing::debug!(%error, "a lease that was replaced could not be given back; it ends by itself");
        }
    }

    fn publish(&self, instance: &Instance, context: &RunContext<RemoteVault>) {
        context.set_exports(&VaultExports { data: self.reading.fields.clone() });
        let health = match &self.reading.version {
            Some(version) => format!("secret read, version {version}"),
            None => "secret read".to_owned(),
        };
        context.set_health(Health::healthy(health));
        *instance.last.lock() = Some((self.state.place.clone(), self.reading.clone()));
    }

    fn wait(&mut self, failure: &VaultFailure) -> Duration {
        let wait = self.pauses.next(false, rand::random());
        wait.max(failure.retry_after.unwrap_or_default()).min(LONGEST_WAIT)
    }
}

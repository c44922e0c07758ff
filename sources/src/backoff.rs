//! When to ask a source again: pure functions of the outcome, the count of failures and a random number.

use std::time::Duration;

use tokio::time::Instant;

use crate::error::ErrorClass;

/// A source of numbers from 0 (included) to 1 (excluded) that spreads schedules.
pub trait Jitter: Send + Sync + 'static {
    /// The next number.
    fn unit(&self) -> f64;
}

/// Numbers of the process's random generator.
#[derive(Clone, Copy, Debug, Default)]
pub struct RandomJitter;

impl Jitter for RandomJitter {
    fn unit(&self) -> f64 {
        rand::random::<f64>()
    }
}

/// The same number always; for tests. 0.5 means no jitter.
#[derive(Clone, Copy, Debug)]
pub struct FixedJitter(pub f64);

impl Jitter for FixedJitter {
    fn unit(&self) -> f64 {
        self.0
    }
}

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
pub(crate) const TRANSIENT_CAP: Duration = Duration::from_secs(5 * 60);
const DENIED_CAP: Duration = Duration::from_secs(15 * 60);
const RETRY_AFTER_CAP: Duration = Duration::from_secs(60 * 60);
/// How long nothing may fail after a success for it to count.
const STABLE: Duration = MINUTE;
/// How many intervals a server may ask us to wait between two polls.
const LONGEST_SUGGESTION: u32 = 10;

/// How often a source failed, weighted: a success after which nothing failed for a minute takes two failures off, so that
/// a server that flaps is asked less often than one that recovered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Backoff {
    errors: u32,
    /// Since when nothing failed, or since when it counts again.
    good_since: Option<Instant>,
}

impl Backoff {
    /// The delay after a success: the interval, give or take ten percent.
    pub(crate) fn after_success(&mut self, now: Instant, interval: Duration, unit: f64) -> Duration {
        match self.good_since {
            None => self.good_since = Some(now),
            Some(since) if now.saturating_duration_since(since) >= STABLE => {
                self.errors = self.errors.saturating_sub(2);
                self.good_since = Some(now);
            }
            Some(_) => {}
        }
        spread(interval, unit)
    }

    /// The delay after a failure; `None` when only a person or other settings can help.
    pub(crate) fn after_error(
        &mut self,
        now: Instant,
        class: &ErrorClass,
        interval: Duration,
        unit: f64,
    ) -> Option<Duration> {
        if self.good_since.take().is_some_and(|since| now.saturating_duration_since(since) >= STABLE) {
            self.errors = self.errors.saturating_sub(2);
        }
        Some(match class {
            ErrorClass::Transient => equal_jitter(doubled(SECOND, self.failed(), TRANSIENT_CAP), unit),
            // Not before the server wants it, and not everyone at the moment that it named.
            ErrorClass::RateLimited { after: Some(after) } => {
                self.failed();
                (*after).clamp(SECOND, RETRY_AFTER_CAP).mul_f64(1.0 + unit / 10.0)
            }
            ErrorClass::RateLimited { after: None } | ErrorClass::AuthExpired | ErrorClass::Forbidden => {
                spread(doubled(MINUTE, self.failed(), DENIED_CAP), unit)
            }
            // The server answers, the probe is cheap, and only a new revision can help: keep looking for one.
            ErrorClass::NotFound | ErrorClass::Rejected(_) => spread(interval, unit),
            ErrorClass::Integrity => spread(interval.max(MINUTE), unit),
            ErrorClass::Stalled => return None,
        })
    }

    /// Counts a failure and gives how many there were before it.
    fn failed(&mut self) -> u32 {
        self.errors = self.errors.saturating_add(1).min(64);
        self.errors - 1
    }
}

/// The interval that a source asks for, within what the settings allow a server to ask: never more often, and not more
/// than ten times less often.
pub(crate) fn bounded_interval(configured: Duration, suggested: Option<Duration>) -> Duration {
    suggested.map_or(configured, |suggested| {
        suggested.clamp(configured, configured.saturating_mul(LONGEST_SUGGESTION))
    })
}

/// `base` × 2^`exponent`, at most `cap`.
fn doubled(base: Duration, exponent: u32, cap: Duration) -> Duration {
    base.checked_mul(1_u32.checked_shl(exponent.min(31)).unwrap_or(u32::MAX)).map_or(cap, |d| d.min(cap))
}

/// Half of it fixed, half of it random.
fn equal_jitter(delay: Duration, unit: f64) -> Duration {
    delay.mul_f64(0.5 + unit / 2.0)
}

/// Ninety to a hundred and ten percent.
fn spread(interval: Duration, unit: f64) -> Duration {
    interval.mul_f64(0.9 + unit / 5.0)
}

/// The first poll of a source whose snapshot is in the cache: agents that start together spread over at
/// most 30 s, each always at its own place.
pub(crate) fn first_delay(agent: &str, source: &str, interval: Duration) -> Duration {
    use sha2::{Digest as _, Sha256};
    let digest = Sha256::new_with_prefix(agent.as_bytes()).chain_update([0]).chain_update(source).finalize();
    let number = digest.iter().take(8).fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
    let window = interval.min(Duration::from_secs(30)).as_millis().max(1);
    let milliseconds = u128::from(number) % window;
    Duration::from_millis(u64::try_from(milliseconds).unwrap_or(0))
}

#[cfg(test)]
mod tests;

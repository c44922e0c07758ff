//! When to ask a source again: pure functions of the outcome, the count of failures and a random number.

use std::time::Duration;

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
const TRANSIENT_CAP: Duration = Duration::from_secs(5 * 60);
const DENIED_CAP: Duration = Duration::from_secs(15 * 60);
const RETRY_AFTER_CAP: Duration = Duration::from_secs(60 * 60);

/// How often a source failed, weighted: a success takes two failures off, so that a server that flaps
/// is asked less often than one that recovered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Backoff {
    errors: u32,
}

impl Backoff {
    /// The delay after a success: the interval, give or take ten percent.
    pub(crate) fn after_success(&mut self, interval: Duration, unit: f64) -> Duration {
        self.errors = self.errors.saturating_sub(2);
        spread(interval, unit)
    }

    /// The delay after a failure; `None` when only a person or other settings can help.
    pub(crate) fn after_error(
        &mut self,
        class: &ErrorClass,
        interval: Duration,
        unit: f64,
    ) -> Option<Duration> {
        self.errors = self.errors.saturating_add(1).min(64);
        let exponent = self.errors - 1;
        Some(match class {
            ErrorClass::Transient => equal_jitter(doubled(SECOND, exponent, TRANSIENT_CAP), unit),
            ErrorClass::RateLimited { after: Some(after) } => (*after).clamp(SECOND, RETRY_AFTER_CAP),
            ErrorClass::RateLimited { after: None } | ErrorClass::AuthExpired | ErrorClass::Forbidden => {
                doubled(MINUTE, exponent, DENIED_CAP)
            }
            // The probe is cheap, and only a new revision can help: keep looking for one.
            ErrorClass::NotFound | ErrorClass::Integrity | ErrorClass::Rejected(_) => spread(interval, unit),
            ErrorClass::Stalled => return None,
        })
    }
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
mod tests {
    use super::*;

    #[test]
    fn transient_failures_double_up_to_five_minutes() {
        let mut backoff = Backoff::default();
        let delays: Vec<u64> = (0..11)
            .filter_map(|_| backoff.after_error(&ErrorClass::Transient, MINUTE, 1.0))
            .map(|delay| delay.as_secs())
            .collect();
        assert_eq!(delays, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
        let half = backoff.after_error(&ErrorClass::Transient, MINUTE, 0.0);
        assert_eq!(half, Some(Duration::from_secs(150)));
    }

    #[test]
    fn a_success_takes_two_failures_off() {
        let mut backoff = Backoff::default();
        for _ in 0..5 {
            backoff.after_error(&ErrorClass::Transient, MINUTE, 1.0);
        }
        assert_eq!(backoff.after_success(MINUTE, 0.5), MINUTE);
        // Five failures less two, and the new one: the fourth step.
        let delay = backoff.after_error(&ErrorClass::Transient, MINUTE, 1.0);
        assert_eq!(delay, Some(Duration::from_secs(8)));
    }

    #[test]
    fn each_class_has_its_own_pace() {
        let delay = |class: ErrorClass| Backoff::default().after_error(&class, Duration::from_secs(10), 0.5);
        let limited = |seconds| ErrorClass::RateLimited { after: Some(Duration::from_secs(seconds)) };
        assert_eq!(delay(limited(17)), Some(Duration::from_secs(17)));
        assert_eq!(delay(limited(0)), Some(SECOND));
        assert_eq!(delay(limited(100_000)), Some(RETRY_AFTER_CAP));
        assert_eq!(delay(ErrorClass::RateLimited { after: None }), Some(MINUTE));
        assert_eq!(delay(ErrorClass::Forbidden), Some(MINUTE));
        assert_eq!(delay(ErrorClass::NotFound), Some(Duration::from_secs(10)));
        assert_eq!(delay(ErrorClass::Stalled), None);
        let mut backoff = Backoff::default();
        let delays: Vec<u64> = (0..6)
            .filter_map(|_| backoff.after_error(&ErrorClass::Forbidden, MINUTE, 0.5))
            .map(|delay| delay.as_secs() / 60)
            .collect();
        assert_eq!(delays, [1, 2, 4, 8, 15, 15]);
    }

    #[test]
    fn the_interval_is_spread_by_ten_percent() {
        assert_eq!(Backoff::default().after_success(Duration::from_secs(100), 0.0), Duration::from_secs(90));
        assert_eq!(Backoff::default().after_success(Duration::from_secs(100), 1.0), Duration::from_secs(110));
    }

    #[test]
    fn the_first_poll_has_its_own_place_in_the_window() {
        let delays: std::collections::BTreeSet<Duration> =
            (0..100).map(|n| first_delay(&format!("web-{n}"), "git", MINUTE)).collect();
        assert!(delays.len() > 90 && delays.iter().all(|delay| *delay < Duration::from_secs(30)));
        assert_eq!(first_delay("a", "b", MINUTE), first_delay("a", "b", MINUTE));
        assert!(first_delay("a", "b", SECOND) < SECOND);
    }
}

//! When a value is read again, and when a lease is renewed: pure arithmetic over what a store said, with the randomness
//! given. All of it spreads, so that many agents that began together do not ask together.

use std::time::Duration;

/// The first pause after a failure that may pass by itself, and the longest.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// The same where a person has to do something.
const FIRST_DENIED_PAUSE: Duration = Duration::from_secs(60);
const LONGEST_DENIED_PAUSE: Duration = Duration::from_secs(900);

/// Around the moment when a store replaces a value, how long to wait for it at most.
const LONGEST_ROLL_OVER: Duration = Duration::from_secs(10);

/// Attempts at what is about to end are at least so far apart.
const SHORTEST_NEAR_END: Duration = Duration::from_secs(5);

/// The pauses between attempts, longer each time.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pauses {
    failures: u32,
}

impl Pauses {
    /// The next pause is the first again: something worked.
    pub fn reset(&mut self) {
        self.failures = 0;
    }

    /// The next pause; `unit` is random in 0..1 and takes off up to a quarter. `denied` where a person has to do something.
    #[must_use]
    pub fn next(&mut self, denied: bool, unit: f64) -> Duration {
        let (first, longest) =
            if denied { (FIRST_DENIED_PAUSE, LONGEST_DENIED_PAUSE) } else { (FIRST_PAUSE, LONGEST_PAUSE) };
        let pause = first.saturating_mul(1 << self.failures.min(16)).min(longest);
        self.failures = self.failures.saturating_add(1);
        pause.mul_f64(1.0 - 0.25 * unit)
    }
}

/// When a value without an end of its own is read again: the interval, give or take a tenth.
pub(crate) fn refresh(interval: Duration, unit: f64) -> Duration {
    interval.mul_f64(0.9 + 0.2 * unit)
}

/// When a lease is renewed: after two thirds of it and up to a tenth more.
#[must_use]
pub fn renewal(granted: Duration, unit: f64) -> Duration {
    granted.mul_f64(0.67 + 0.1 * unit)
}

/// How long before its end something is not relied on any more: a tenth to a fifth of it.
#[must_use]
pub fn grace(granted: Duration, unit: f64) -> Duration {
    granted.mul_f64(0.1 + 0.1 * unit)
}

/// Whether a lease that was renewed nears the end of what it can be renewed to: it was granted for less than asked, or for
/// less than twice the grace.
#[must_use]
pub fn nears_its_end(asked: Duration, granted: Duration, grace: Duration) -> bool {
    // Servers cut fractions of a second.
    granted + Duration::from_secs(1) < asked || granted < grace * 2
}

/// A pause before the next attempt at what ends in `left`: the nearer that is, the shorter. What has no end, or has ended,
/// waits for its turn.
pub(crate) fn before_the_end(pause: Duration, left: Duration) -> Duration {
    if left.is_zero() { pause } else { pause.min((left / 4).max(SHORTEST_NEAR_END)) }
}

/// When to read again what its store replaces in `left`; `waits` counts how often it was the old one since that moment came.
pub(crate) fn roll_over(left: Duration, waits: u32) -> Duration {
    if left > Duration::from_secs(2) {
        return left + Duration::from_secs(1);
    }
    Duration::from_secs(1).saturating_mul(1 << waits.min(4)).min(LONGEST_ROLL_OVER)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn pauses_double_to_their_limit_and_begin_anew() {
        let mut pauses = Pauses::default();
        let seconds: Vec<u64> = (0..10).map(|_| pauses.next(false, 0.0).as_secs()).collect();
        assert_eq!(seconds, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300]);
        pauses.reset();
        assert_eq!(pauses.next(false, 1.0), Duration::from_millis(750));
        pauses.reset();
        let seconds: Vec<u64> = (0..6).map(|_| pauses.next(true, 0.0).as_secs()).collect();
        assert_eq!(seconds, [60, 120, 240, 480, 900, 900]);
    }

    #[test]
    fn what_ends_soon_is_tried_again_soon() {
        let pause = SECOND * 300;
        let seconds = |left: u64| before_the_end(pause, Duration::from_secs(left)).as_secs();
        assert_eq!([0, 1, 20, 80, 1200, 90_000].map(seconds), [300, 5, 5, 20, 300, 300]);
        assert_eq!(before_the_end(SECOND, SECOND * 80), SECOND, "never later than otherwise");
    }

    #[test]
    fn a_value_that_is_replaced_by_its_store_is_read_right_after() {
        assert_eq!(roll_over(SECOND * 30, 0), SECOND * 31);
        let waits: Vec<u64> = (0..6).map(|waits| roll_over(SECOND, waits).as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 8, 10, 10]);
    }

    #[test]
    fn a_lease_that_shrinks_nears_its_end() {
        let hour = SECOND * 3600;
        assert!(!nears_its_end(hour, hour - Duration::from_millis(900), SECOND * 360));
        assert!(nears_its_end(hour, SECOND * 1800, SECOND * 360));
        assert!(nears_its_end(SECOND * 600, SECOND * 600, SECOND * 360));
    }

    proptest! {
        #[test]
        fn everything_happens_before_the_end(seconds in 1_u64..1_000_000, unit in 0.0_f64..1.0) {
            let granted = SECOND * u32::try_from(seconds).unwrap_or(u32::MAX);
            prop_assert!(renewal(granted, unit) < granted);
            prop_assert!(renewal(granted, unit) + grace(granted, unit) < granted);
            prop_assert!(refresh(granted, unit) >= granted.mul_f64(0.89));
        }
    }
}

//! When a target is scraped: at a fixed place in every interval, which its key decides, so that targets spread over the interval and
//! keep their place across restarts.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How late a scrape may start and still carry the time it was due: equal distances compress better.
const TIMESTAMP_TOLERANCE: Duration = Duration::from_millis(2);
/// Targets are due at every hundredth of an interval, but at least so often, in milliseconds. Those that share a moment
/// share the process's waking up, which costs more than reading a small page.
const LONGEST_STEP: u64 = 50;

/// The moments at which one target is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Schedule {
    /// In milliseconds.
    interval: u64,
    /// In milliseconds, below the interval.
    offset: u64,
}

/// Unix milliseconds now.
pub(super) fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

// === impl Schedule ===

impl Schedule {
    pub(super) fn new(interval: Duration, key: u64) -> Self {
        let interval = u64::try_from(interval.as_millis()).unwrap_or(u64::MAX).max(1);
        let step = (interval / 100).clamp(1, LONGEST_STEP);
        let offset = key % interval;
        Self { interval, offset: offset - offset % step }
    }

    /// The first moment after `now`, both in Unix milliseconds.
    pub(super) fn after(self, now: u64) -> u64 {
        let into = now % self.interval;
        let start = now - into;
        if into < self.offset {
            start + self.offset
        } else {
            start.saturating_add(self.interval + self.offset)
        }
    }

    /// How many moments lie behind `last` up to and including `now`, without the first one: those that were missed.
    pub(super) fn missed(self, last: u64, now: u64) -> u64 {
        (now.saturating_sub(last) / self.interval).saturating_sub(1)
    }

    /// The timestamp of a scrape that was due at `due` and started at `started`.
    pub(super) fn timestamp(self, due: u64, started: u64) -> i64 {
        let tolerance = (TIMESTAMP_TOLERANCE.as_millis() as u64).min(self.interval / 100);
        let timestamp = if started.abs_diff(due) <= tolerance { due } else { started };
        i64::try_from(timestamp).unwrap_or(i64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn timestamps_snap_to_the_grid_when_close() {
        let schedule = Schedule::new(Duration::from_secs(10), 3);
        assert_eq!(schedule.timestamp(1_000, 1_002), 1_000);
        assert_eq!(schedule.timestamp(1_000, 1_003), 1_003);
        assert_eq!(Schedule::new(Duration::from_millis(100), 3).timestamp(1_000, 1_002), 1_002);
    }

    #[test]
    fn targets_share_moments_that_are_spread_over_the_interval() {
        let moments = |interval: u64| {
            let due = |key| Schedule::new(Duration::from_millis(interval), key).offset;
            (0..interval).map(due).collect::<std::collections::BTreeSet<u64>>()
        };
        assert_eq!(moments(2_000), (0..100).map(|step| step * 20).collect());
        assert_eq!(moments(15_000).len(), 300);
        assert_eq!(moments(50).len(), 50);
    }

    #[test]
    fn missed_moments_are_counted() {
        let schedule = Schedule::new(Duration::from_secs(10), 0);
        assert_eq!(schedule.missed(10_000, 20_000), 0);
        assert_eq!(schedule.missed(10_000, 29_999), 0);
        assert_eq!(schedule.missed(10_000, 45_000), 2);
        assert_eq!(schedule.missed(10_000, 5_000), 0);
    }

    proptest! {
        #[test]
        fn moments_are_one_interval_apart(interval in 1_u64..100_000, key in any::<u64>(), now in 0_u64..1 << 50) {
            let schedule = Schedule::new(Duration::from_millis(interval), key);
            let next = schedule.after(now);
            prop_assert!(next > now && next <= now + interval);
            prop_assert_eq!(schedule.after(next), next + interval);
            let (offset, due) = (key % interval, next % interval);
            prop_assert!(due <= offset && offset - due < LONGEST_STEP);
        }
    }
}

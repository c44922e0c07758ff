//! How many shards a leg needs: worked out from what a sample costs and how many come.

use std::time::Duration;

/// How much of the backlog is to be sent per second, beside what comes new.
const BACKLOG_SHARE: f64 = 0.05;

/// What happened since the last look.
#[derive(Debug, Clone, Copy)]
pub(super) struct Load {
    /// How long that is.
    pub(super) elapsed: Duration,
    /// Samples in accepted requests.
    pub(super) accepted: u64,
    /// Time spent in those requests, of all shards together.
    pub(super) busy: Duration,
    /// Samples read from the log.
    pub(super) read: u64,
    /// Samples in the log that were not read yet, about.
    pub(super) backlog: u64,
}

impl Load {
    /// The number of shards that keeps up, if it differs enough from the `current` one.
    pub(super) fn shards(&self, current: usize, min: usize, max: usize) -> Option<usize> {
        // Without a success there is nothing to learn, and more connections do not help a server that is down.
        if self.accepted == 0 || self.elapsed.is_zero() {
            return None;
        }
        let cost = self.busy.as_secs_f64() / self.accepted as f64;
        let incoming = self.read as f64 / self.elapsed.as_secs_f64();
        let wanted = cost * (incoming + self.backlog as f64 * BACKLOG_SHARE);
        let count = (wanted.ceil() as usize).max(min).min(max);
        let ratio = count as f64 / current as f64;
        (!(0.7..=1.3).contains(&ratio)).then_some(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(accepted: u64, busy: u64, read: u64, backlog: u64) -> Load {
        let (elapsed, busy) = (Duration::from_secs(10), Duration::from_secs(busy));
        Load { elapsed, accepted, busy, read, backlog }
    }

    #[test]
    fn shards_follow_cost_and_rate_within_bounds_and_without_flapping() {
        // A millisecond a sample, and 4000 samples a second come: four shards are busy.
        assert_eq!(load(10_000, 10, 40_000, 0).shards(1, 1, 50), Some(4));
        // Enough as it is, or near enough.
        assert_eq!(load(40_000, 40, 40_000, 0).shards(4, 1, 50), None);
        assert_eq!(load(40_000, 40, 47_000, 0).shards(4, 1, 50), None);
        // A backlog counts in part; bounds hold.
        assert_eq!(load(10_000, 10, 10_000, 100_000).shards(1, 1, 50), Some(6));
        assert_eq!(load(10_000, 10, 10_000, 100_000_000).shards(1, 1, 50), Some(50));
        assert_eq!(load(10_000, 1, 1_000, 0).shards(10, 3, 50), Some(3));
        // A receiver that takes nothing teaches nothing.
        assert_eq!(load(0, 0, 40_000, 1_000_000).shards(1, 1, 50), None);
    }
}

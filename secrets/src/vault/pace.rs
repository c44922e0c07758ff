//! How fast things are done and done again, and where time of day and chance come from.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// Waits and limits. The defaults are what the documentation says; tests take shorter ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// After the first login that failed.
    pub login_first: Duration,
    /// Between two logins at most.
    pub login_longest: Duration,
    /// After a path was denied.
    pub denied_first: Duration,
    /// Between two reads of a denied path at most.
    pub denied_longest: Duration,
    /// Until a server that is sealed is first asked how it is.
    pub probe_first: Duration,
    /// Between two of these questions at most.
    pub probe_longest: Duration,
    /// The longest of the waits, of which each agent draws one, once a server is unsealed.
    pub after_unseal: Duration,
    /// Until state that was not replicated yet is asked for again.
    pub replication: Duration,
    /// Requests to one mount at a time.
    pub at_once: usize,
    /// Requests to one mount within a second.
    pub per_second: usize,
    /// How long the task of a session sleeps at most, so that it notices that the host was suspended, and rewritten files.
    pub nap: Duration,
    /// How often a token that does not end is looked at.
    pub lookup: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self {
            login_first: seconds(1),
            login_longest: seconds(5 * 60),
            denied_first: seconds(60),
            denied_longest: seconds(15 * 60),
            probe_first: seconds(10),
            probe_longest: seconds(60),
            after_unseal: seconds(30),
            replication: Duration::from_millis(100),
            at_once: 4,
            per_second: 10,
            nap: seconds(60),
            lookup: seconds(60 * 60),
        }
    }
}

type Draw = dyn Fn() -> f64 + Send + Sync;
type TimeOfDay = dyn Fn() -> SystemTime + Send + Sync;

/// Chance and the time of day. Cloning shares them.
#[derive(Clone)]
pub struct World {
    draw: Arc<Draw>,
    time_of_day: Arc<TimeOfDay>,
}

impl World {
    /// Those of this host.
    #[must_use]
    pub fn real() -> Self {
        Self::new(rand::random::<f64>, SystemTime::now)
    }

    /// Numbers from 0 up to 1, and times, from elsewhere.
    pub fn new(
        draw: impl Fn() -> f64 + Send + Sync + 'static,
        time_of_day: impl Fn() -> SystemTime + Send + Sync + 'static,
    ) -> Self {
        Self { draw: Arc::new(draw), time_of_day: Arc::new(time_of_day) }
    }

    pub(crate) fn now(&self) -> SystemTime {
        (self.time_of_day)()
    }

    /// A part of `whole`, from nothing up to all of it.
    pub(crate) fn part(&self, whole: Duration) -> Duration {
        whole.mul_f64((self.draw)().clamp(0.0, 1.0))
    }

    /// The wait after `failures` failures: doubled each time up to `longest`, less up to a quarter by chance.
    pub(crate) fn backoff(&self, failures: u32, first: Duration, longest: Duration) -> Duration {
        let doubled = first.saturating_mul(1_u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX));
        let wait = doubled.min(longest);
        wait - self.part(wait / 4)
    }
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("World")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_and_lose_up_to_a_quarter() {
        let drawing = |drawn: f64| World::new(move || drawn, SystemTime::now);
        let pace = Pace::default();
        let wait = |world: &World, failures| world.backoff(failures, pace.login_first, pace.login_longest);
        let least = drawing(1.0);
        let most = drawing(0.0);
        let seconds: Vec<u64> = (1..=11).map(|failures| wait(&most, failures).as_secs()).collect();
        assert_eq!(seconds, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
        assert_eq!(wait(&least, 3), Duration::from_secs(3));
        assert_eq!(wait(&most, u32::MAX), Duration::from_secs(300));
    }
}

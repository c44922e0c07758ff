//! Notices that the host slept. Deadlines run on a clock that stands still meanwhile, and what a store granted does not.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Over how long work is spread that falls due for everybody at once.
pub(crate) const SPREAD: Duration = Duration::from_secs(30);

const LOOK_EVERY: Duration = Duration::from_secs(10);
/// Less than this is no sleep.
const LEAST: Duration = Duration::from_secs(30);

/// Calls `jumped` whenever the host has slept. Never ends.
pub(crate) async fn jumps(mut jumped: impl FnMut()) {
    let mut before = slept();
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let now = slept();
        if now.saturating_sub(before) >= LEAST {
            tracing::info!(slept = ?now.saturating_sub(before), "the host has slept: all secrets are looked at again");
            jumped();
        }
        before = now;
    }
}

/// How long the host has slept since it started.
fn slept() -> Duration {
    let read = |clock| {
        let time = clock_gettime(clock);
        let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
        Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or_default())
    };
    read(ClockId::Boottime).saturating_sub(read(ClockId::Monotonic))
}

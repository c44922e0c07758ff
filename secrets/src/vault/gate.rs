//! Limits what one mount of a server is asked: so many requests at a time, so many within a second, none while it asks to
//! be left alone. A thousand references that are due at once become a queue.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::failure::VaultFailure;
use super::pace::Pace;

/// The mounts.
pub(crate) struct Gates {
    pace: Pace,
    mounts: Mutex<BTreeMap<String, Arc<Gate>>>,
}

/// One mount.
pub(crate) struct Gate {
    per_second: usize,
    slots: Arc<Semaphore>,
    /// When the last requests began or will, as many as are allowed within a second.
    starts: Mutex<VecDeque<Instant>>,
    closed_until: Mutex<Option<Instant>>,
}

impl Gates {
    pub(crate) fn new(pace: Pace) -> Self {
        Self { pace, mounts: Mutex::default() }
    }

    /// The gate of a mount.
    pub(crate) fn of(&self, namespace: &str, mount: &str) -> Arc<Gate> {
        let mut mounts = self.mounts.lock();
        let gate = mounts.entry(format!("{namespace}//{mount}")).or_insert_with(|| {
            Arc::new(Gate {
                per_second: self.pace.per_second.max(1),
                slots: Arc::new(Semaphore::new(self.pace.at_once.max(1))),
                starts: Mutex::default(),
                closed_until: Mutex::default(),
            })
        });
        Arc::clone(gate)
    }
}

impl Gate {
    /// Waits for a turn; who holds the permit may ask.
    ///
    /// # Errors
    /// When the server asked to be left alone.
    pub(crate) async fn enter(&self) -> Result<OwnedSemaphorePermit, VaultFailure> {
        self.open()?;
        let permit = Arc::clone(&self.slots).acquire_owned().await;
        let permit = permit.map_err(|_| VaultFailure::unavailable("the store is closed"))?;
        let start = {
            let mut starts = self.starts.lock();
            let now = Instant::now();
            let start = match starts.len() < self.per_second {
                true => now,
                false => {
                    starts.pop_front().map_or(now, |earliest| now.max(earliest + Duration::from_secs(1)))
                }
            };
            starts.push_back(start);
            start
        };
        tokio::time::sleep_until(start).await;
        self.open()?;
        Ok(permit)
    }

    /// Lets nobody in for a while.
    pub(crate) fn close_for(&self, wait: Duration) {
        *self.closed_until.lock() = Some(Instant::now() + wait);
    }

    fn open(&self) -> Result<(), VaultFailure> {
        let until = *self.closed_until.lock();
        match until.map(|until| until.saturating_duration_since(Instant::now())) {
            Some(left) if !left.is_zero() => Err(VaultFailure::unavailable(
                "the server limits how much it is asked, and wants to be left alone for a while",
            )
            .after(left)),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn ten_within_a_second_and_four_at_a_time() {
        let gates = Gates::new(Pace::default());
        let began = Instant::now();
        let (inside, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let starts = Mutex::new(Vec::new());
        let ask = async || {
            let gate = gates.of("", "kv/");
            let permit = gate.enter().await.unwrap();
            starts.lock().push(began.elapsed());
            most.fetch_max(inside.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(10)).await;
            inside.fetch_sub(1, Ordering::Relaxed);
            drop(permit);
        };
        futures_util::future::join_all((0..50).map(|_| ask())).await;
        assert_eq!(most.into_inner(), 4);
        let starts = starts.into_inner();
        assert_eq!(starts.len(), 50);
        for pair in starts.windows(11) {
            assert!(pair[10] - pair[0] >= Duration::from_secs(1), "{pair:?}");
        }
        assert!(began.elapsed() < Duration::from_millis(4100), "{:?}", began.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_closed_gate_says_for_how_long() {
        let gates = Gates::new(Pace::default());
        gates.of("", "kv/").close_for(Duration::from_secs(7));
        let refused = gates.of("", "kv/").enter().await.unwrap_err();
        assert_eq!(refused.retry_after, Some(Duration::from_secs(7)));
        gates.of("", "db/").enter().await.map(drop).unwrap();
        gates.of("team", "kv/").enter().await.map(drop).unwrap();
        tokio::time::advance(Duration::from_secs(7)).await;
        gates.of("", "kv/").enter().await.map(drop).unwrap();
    }
}

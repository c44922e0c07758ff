//! What all sources together may do: polls at the same time towards one host and towards all, and how many begin in a
//! second. Credentials that many sources share are so asked for as if there were one.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

/// How much the sources may do at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConcurrencyLimits {
    /// Polls at the same time towards one host.
    pub per_host: usize,
    /// Polls at the same time towards all hosts.
    pub total: usize,
    /// Polls started per second towards all hosts.
    pub starts_per_second: u32,
}

impl Default for ConcurrencyLimits {
    fn default() -> Self {
        Self { per_host: 1, total: 4, starts_per_second: 10 }
    }
}

/// The shares that the sources draw on.
pub(super) struct Budget {
    limits: ConcurrencyLimits,
    total: Arc<Semaphore>,
    hosts: Mutex<BTreeMap<String, Arc<Semaphore>>>,
    /// When the next poll may start.
    next_start: Mutex<Option<Instant>>,
}

/// The right to one poll at a time; given back when dropped.
pub(super) struct Share {
    _permits: Vec<OwnedSemaphorePermit>,
}

impl Budget {
    pub(super) fn new(limits: ConcurrencyLimits) -> Self {
        Self {
            limits,
            total: Arc::new(Semaphore::new(limits.total.max(1))),
            hosts: Mutex::default(),
            next_start: Mutex::default(),
        }
    }

    /// Waits for a share of `host`. Whoever waits for a busy host takes nothing of what others could use.
    pub(super) async fn share(&self, host: &str) -> Share {
        let mut permits = Vec::with_capacity(2);
        for semaphore in [self.host(host), Arc::clone(&self.total)] {
            // The semaphores are never closed; without a permit the poll would only be less polite.
            permits.extend(semaphore.acquire_owned().await.ok());
        }
        Share { _permits: permits }
    }

    /// Waits for the moment at which the next poll may begin.
    pub(super) async fn start(&self) {
        tokio::time::sleep_until(self.reserve_start()).await;
    }

    fn host(&self, host: &str) -> Arc<Semaphore> {
        let mut hosts = self.hosts.lock();
        // Modules come and go, and their hosts with them: what nobody holds or waits for is forgotten.
        hosts.retain(|name, semaphore| name == host || Arc::strong_count(semaphore) > 1);
        let fresh = || Arc::new(Semaphore::new(self.limits.per_host.max(1)));
        Arc::clone(hosts.entry(host.to_owned()).or_insert_with(fresh))
    }

    /// Takes the next start and says when it is.
    fn reserve_start(&self) -> Instant {
        let spacing = Duration::from_secs(1) / self.limits.starts_per_second.max(1);
        let mut next = self.next_start.lock();
        let start = next.map_or_else(Instant::now, |next| next.max(Instant::now()));
        *next = Some(start + spacing);
        start
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::atomic::{AtomicUsize, Ordering};

    use proptest::prelude::*;

    use super::*;

    #[tokio::test]
    async fn hosts_that_nobody_asks_are_forgotten() {
        let budget = Budget::new(ConcurrencyLimits::default());
        let held = budget.share("busy").await;
        for number in 0..100 {
            drop(budget.share(&format!("host-{number}")).await);
        }
        assert!(budget.hosts.lock().len() <= 2);
        assert!(budget.hosts.lock().contains_key("busy"), "it is in use");
        drop(held);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        /// However many sources ask however hosts, whenever and for however long: never more at a time than allowed,
        /// never more starts in any second, and everyone gets a turn.
        #[test]
        fn the_limits_hold_for_any_load(
            jobs in proptest::collection::vec((0_usize..4, 0_u64..3000, 0_u64..2000), 1..40),
            per_host in 1_usize..3,
            total in 1_usize..5,
            starts_per_second in 1_u32..20,
        ) {
            let limits = ConcurrencyLimits { per_host, total, starts_per_second };
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
            let count = jobs.len();
            let starts: Vec<Instant> = runtime.block_on(async move {
                let budget = Arc::new(Budget::new(limits));
                let running: Arc<[AtomicUsize; 4]> = Arc::default();
                let tasks: Vec<_> = jobs.into_iter().map(|(host, at, takes)| {
                    let (budget, running) = (Arc::clone(&budget), Arc::clone(&running));
                    tokio::spawn(async move {
                        tokio::time::sleep(Duration::from_millis(at)).await;
                        let share = budget.share(&host.to_string()).await;
                        budget.start().await;
                        let start = Instant::now();
                        running[host].fetch_add(1, Ordering::SeqCst);
                        let now: Vec<usize> = running.iter().map(|host| host.load(Ordering::SeqCst)).collect();
                        assert!(now[host] <= limits.per_host && now.iter().sum::<usize>() <= limits.total);
                        tokio::time::sleep(Duration::from_millis(takes)).await;
                        running[host].fetch_sub(1, Ordering::SeqCst);
                        drop(share);
                        start
                    })
                }).collect();
                let mut starts = Vec::new();
                for task in tasks {
                    starts.push(task.await.unwrap());
                }
                starts
            });
            prop_assert_eq!(starts.len(), count);
            let mut starts = starts;
            starts.sort();
            // Paused time moves in milliseconds.
            let second = Duration::from_millis(998);
            for window in starts.windows(limits.starts_per_second as usize + 1) {
                prop_assert!(window[window.len() - 1] - window[0] >= second, "{:?}", window);
            }
        }
    }
}

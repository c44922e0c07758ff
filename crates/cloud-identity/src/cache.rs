//! Keeps what was fetched until shortly before it expires. One request at a time fetches, the others wait for it or go on
//! with what is still valid.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::IdentityError;

/// Renewed at the latest this long before the end, or at half of the lifetime where that is later.
const MARGIN: Duration = Duration::from_secs(300);
/// Up to so much earlier still, so that a fleet that started together does not ask together.
const SPREAD: Duration = Duration::from_secs(60);
/// Not used any more this long before the end: a request takes its time, and clocks differ.
const GUARD: Duration = Duration::from_secs(10);
/// After a failure nothing is fetched for this long, so that a burst of requests does not become one of logins.
const FAILURE_PAUSE: Duration = Duration::from_secs(1);
/// A server that refuses everybody must not have every request log in anew.
const LEAST_AGE: Duration = Duration::from_secs(60);
/// How long one fetch may take, all of its steps together.
const FETCH_TIMEOUT: Duration = Duration::from_secs(25);

/// Keeps one value.
#[derive(Debug)]
pub(crate) struct Cache<T> {
    cloud: &'static str,
    /// One permit: who holds it fetches.
    fetching: Semaphore,
    kept: Mutex<Kept<T>>,
}

/// What a fetch brought, and for how long it is valid; nothing means until it is refused.
#[derive(Debug)]
pub(crate) struct Fetched<T> {
    pub(crate) value: T,
    pub(crate) lifetime: Option<Duration>,
}

#[derive(Debug)]
struct Kept<T> {
    value: Option<Arc<T>>,
    since: Option<Instant>,
    renew: Option<Instant>,
    end: Option<Instant>,
    failed: Option<(Instant, IdentityError)>,
}

impl<T> Cache<T> {
    /// An empty one for credentials of `cloud`.
    pub(crate) fn new(cloud: &'static str) -> Self {
        let kept = Kept { value: None, since: None, renew: None, end: None, failed: None };
        Self { cloud, fetching: Semaphore::new(1), kept: Mutex::new(kept) }
    }

    /// Forgets the value, unless it was fetched just now.
    pub(crate) fn discard(&self) {
        let mut kept = self.kept.lock();
        if kept.since.is_some_and(|since| since.elapsed() >= LEAST_AGE) {
            kept.value = None;
        }
    }

    /// Forgets the value however old it is.
    pub(crate) fn forget(&self) {
        self.kept.lock().value = None;
    }

    /// The value, fetched by `fetch` if it is due.
    pub(crate) async fn get<F>(&self, fetch: impl FnOnce() -> F) -> Result<Arc<T>, IdentityError>
    where
        F: Future<Output = Result<Fetched<T>, IdentityError>>,
    {
        let permit = match self.look()? {
            Look::Fresh(value) => return Ok(value),
            // Still valid: only one renews it, nobody waits.
            Look::Ageing(value) => match self.fetching.try_acquire() {
                Ok(permit) => permit,
                Err(_) => return Ok(value),
            },
            Look::Missing => {
                let permit = self.fetching.acquire().await.map_err(|_| self.unavailable("shut down"))?;
                // Whoever held the permit before may have fetched it, or failed to.
                match self.look()? {
                    Look::Fresh(value) | Look::Ageing(value) => return Ok(value),
                    Look::Missing => permit,
                }
            }
        };
        let fetched = tokio::time::timeout(FETCH_TIMEOUT, fetch()).await;
        let fetched = fetched.unwrap_or_else(|_| Err(self.unavailable("no answer in time")));
        let mut kept = self.kept.lock();
        let now = Instant::now();
        let outcome = match fetched {
            Ok(Fetched { value, lifetime }) => {
                let value = Arc::new(value);
                let at = |before: Duration| {
                    lifetime.and_then(|lifetime| now.checked_add(lifetime.saturating_sub(before)))
                };
                let half = lifetime.unwrap_or_default() / 2;
                *kept = Kept {
                    value: Some(Arc::clone(&value)),
                    since: Some(now),
                    renew: at((MARGIN + SPREAD.mul_f64(rand::random::<f64>())).min(half)),
                    end: at(GUARD.min(half)),
                    failed: None,
                };
                Ok(value)
            }
            Err(error) => {
                kept.failed = Some((now, error.clone()));
                match kept.valid(now) {
                    Some(value) => {
                        tracing::warn!(%error, "credentials could not be renewed, the previous ones are still valid");
                        Ok(value)
                    }
                    None => Err(error),
                }
            }
        };
        drop(kept);
        drop(permit);
        outcome
    }

    fn look(&self) -> Result<Look<T>, IdentityError> {
        let kept = self.kept.lock();
        let now = Instant::now();
        let paused = kept.failed.as_ref().filter(|(since, _)| now.duration_since(*since) < FAILURE_PAUSE);
        match (kept.valid(now), paused) {
            (Some(value), Some(_)) => Ok(Look::Fresh(value)),
            (Some(value), None) if kept.renew.is_none_or(|renew| now < renew) => Ok(Look::Fresh(value)),
            (Some(value), None) => Ok(Look::Ageing(value)),
            (None, Some((_, error))) => Err(error.clone()),
            (None, None) => Ok(Look::Missing),
        }
    }

    fn unavailable(&self, message: &str) -> IdentityError {
        IdentityError::Unavailable { cloud: self.cloud, message: message.to_owned() }
    }
}

impl<T> Kept<T> {
    fn valid(&self, now: Instant) -> Option<Arc<T>> {
        self.value.clone().filter(|_| self.end.is_none_or(|end| now < end))
    }
}

enum Look<T> {
    Fresh(Arc<T>),
    /// Valid, and due to be renewed.
    Ageing(Arc<T>),
    Missing,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    fn failure() -> IdentityError {
        IdentityError::Unavailable { cloud: "test", message: "down".to_owned() }
    }

    async fn count(fetches: &AtomicU32, lifetime: Option<u64>) -> Result<Fetched<u32>, IdentityError> {
        tokio::task::yield_now().await;
        let value = fetches.fetch_add(1, Ordering::Relaxed) + 1;
        Ok(Fetched { value, lifetime: lifetime.map(Duration::from_secs) })
    }

    #[tokio::test(start_paused = true)]
    async fn many_at_once_share_one_fetch_and_it_is_renewed_before_it_ends() {
        let (cache, fetches) = (Arc::new(Cache::new("test")), Arc::new(AtomicU32::new(0)));
        let get = || {
            let (cache, fetches) = (Arc::clone(&cache), Arc::clone(&fetches));
            async move { *cache.get(|| count(&fetches, Some(3600))).await.unwrap() }
        };
        let asked: Vec<_> = (0..20).map(|_| tokio::spawn(get())).collect();
        for one in asked {
            assert_eq!(one.await.unwrap(), 1);
        }
        tokio::time::advance(Duration::from_secs(3235)).await;
        assert_eq!(get().await, 1);
        tokio::time::advance(Duration::from_secs(75)).await;
        assert_eq!(get().await, 2);
        cache.discard();
        assert_eq!(get().await, 2, "it was fetched just now");
        tokio::time::advance(LEAST_AGE).await;
        cache.discard();
        assert_eq!(get().await, 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_failed_renewal_keeps_what_is_valid_and_a_failure_is_remembered_for_a_moment() {
        let (cache, fetches) = (Cache::new("test"), AtomicU32::new(0));
        assert_eq!(*cache.get(|| count(&fetches, Some(1000))).await.unwrap(), 1);
        tokio::time::advance(Duration::from_secs(900)).await;
        assert_eq!(*cache.get(|| async { Err(failure()) }).await.unwrap(), 1);
        // The pause after a failure.
        assert_eq!(*cache.get(|| count(&fetches, None)).await.unwrap(), 1);
        tokio::time::advance(Duration::from_secs(95)).await;
        assert!(cache.get(|| async { Err(failure()) }).await.is_err());
        assert!(cache.get(|| count(&fetches, None)).await.is_err());
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(*cache.get(|| count(&fetches, None)).await.unwrap(), 2);
        tokio::time::advance(Duration::from_secs(1_000_000)).await;
        assert_eq!(*cache.get(|| count(&fetches, None)).await.unwrap(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_fetch_that_never_ends_is_given_up() {
        let cache = Cache::<u32>::new("test");
        let error = cache.get(std::future::pending).await.unwrap_err();
        assert!(error.to_string().contains("in time"), "{error}");
    }
}

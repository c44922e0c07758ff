//! How often a store is asked when it comes back after an outage, over a scripted one; time is the runtime's own, paused, and
//! randomness comes from a fixed seed.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use invar_syntax::{LiveSecret, Secret};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::*;

const PATHS: usize = 500;
const SECOND: Duration = Duration::from_secs(1);

/// Answers with its value, or with nothing, and counts by the second.
struct Counted {
    began: Instant,
    down: AtomicBool,
    value: Mutex<Secret>,
    by_second: Mutex<BTreeMap<u64, usize>>,
}

impl Counted {
    /// Reads in each second of a span from now on, while it passes.
    async fn during(&self, seconds: u64) -> Vec<usize> {
        let from = self.began.elapsed().as_secs() + 1;
        tokio::time::sleep(SECOND * (u32::try_from(seconds).unwrap() + 1)).await;
        let counted = self.by_second.lock();
        (from..from + seconds).map(|second| counted.get(&second).copied().unwrap_or_default()).collect()
    }
}

impl SecretStore for Counted {
    fn kind(&self) -> StoreKind {
        StoreKind::Vault
    }

    fn read<'a>(&'a self, path: &'a str) -> BoxFuture<'a, Result<SecretSnapshot, SecretError>> {
        Box::pin(async move {
            *self.by_second.lock().entry(self.began.elapsed().as_secs()).or_default() += 1;
            match self.down.load(Ordering::Relaxed) {
                true => Err(SecretError::unavailable(path, "it is gone")),
                false => Ok(SecretSnapshot::single(self.value.lock().clone())),
            }
        })
    }

    fn refresh_interval(&self) -> Option<Duration> {
        Some(Duration::from_secs(300))
    }
}

/// Evenly spread in 0..1, and the same in each run.
fn seeded() -> impl Fn() -> f64 + Send + Sync {
    let state = AtomicU64::new(7);
    move || {
        let next =
            |held: u64| held.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let held = state.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |held| Some(next(held))).unwrap();
        (held >> 11) as f64 / (1_u64 << 53) as f64
    }
}

#[tokio::test(start_paused = true)]
async fn after_an_outage_the_store_is_asked_at_a_bounded_rate() {
    let store = Arc::new(Counted {
        began: Instant::now(),
        down: AtomicBool::new(false),
        value: Mutex::new(Secret::new("first")),
        by_second: Mutex::default(),
    });
    let dynamic: Arc<dyn SecretStore> = store.clone();
    let stores = SecretStores::with_randomness(BTreeMap::from([("vault".to_owned(), dynamic)]), seeded());
    let mut held: Vec<LiveSecret> = Vec::new();
    for path in 0..PATHS {
        // Two users each: they share the reading.
        for _ in 0..2 {
            held.push(stores.live(&format!("vault/kv/{path}").parse().unwrap()).await.unwrap());
        }
    }
    assert_eq!(store.by_second.lock().values().sum::<usize>(), PATHS);

    store.down.store(true, Ordering::Relaxed);
    let down = store.during(3600).await;
    // Each asks after 1 s, then ever later, up to five minutes.
    let (first, last): (usize, usize) = (down[..900].iter().sum(), down[2700..].iter().sum());
    assert!(first > last && last <= PATHS * 5, "{first} in the first quarter of an hour, {last} in the last");

    store.down.store(false, Ordering::Relaxed);
    *store.value.lock() = Secret::new("second");
    let up = store.during(300).await;
    let (most, all): (usize, usize) = (*up.iter().max().unwrap(), up.iter().sum());
    println!("{PATHS} paths: at most {most} reads in a second after the outage, {all} in five minutes");
    assert!(most <= 20, "{most} in one second");
    assert!(all <= PATHS * 5 / 4, "{all} reads");
    assert!(held.iter().all(|secret| secret.read().expose() == "second"), "all have recovered by then");
    stores.shutdown().await;
}

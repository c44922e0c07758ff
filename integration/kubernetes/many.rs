//! Ten thousand secrets of one namespace, each held by somebody: what they take of memory, and of the processor while
//! nothing happens.

use std::sync::Arc;
use std::time::{Duration, Instant};

use invar_integration::{Kubernetes, wait_for};
use invar_secrets::kubernetes::WatchState;
use invar_syntax::LiveSecret;
use serde_json::json;

use crate::stores::Stores;
use crate::{Cluster, SOON, cluster};

/// How many; a plain run of the tests makes a tenth.
fn count() -> usize {
    std::env::var("INVAR_WATCHED").ok().and_then(|count| count.parse().ok()).unwrap_or(1_000)
}

/// What the whole namespace may take for each, in bytes: 40 MB for ten thousand.
const MOST_EACH: u64 = 4_000;
/// How long nothing happens.
const IDLE: Duration = Duration::from_secs(10);

fn name(index: usize) -> String {
    format!("credential-{index:05}")
}

fn make(kubernetes: &Kubernetes, count: usize) {
    let collection = "/api/v1/namespaces/team-a/secrets";
    let objects: Vec<_> = (0..count)
        .map(|index| {
            json!({
                "metadata": { "name": name(index) },
                "stringData": { "user": format!("user-{index}"), "password": format!("password-of-{index}-0001") },
            })
        })
        .collect();
    kubernetes.make_all(collection, &objects).unwrap();
}

/// A figure of this process, from `/proc/self/status`, in bytes.
fn memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("RssAnon:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

/// The processor time of this process.
fn processor() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    let ticks: u64 = [11, 12].iter().map(|at| fields[*at].parse::<u64>().unwrap()).sum();
    Duration::from_millis(ticks * 10)
}

#[test]
fn ten_thousand_secrets_of_a_namespace_cost_little() {
    let Some(Cluster { kubernetes, _one }) = cluster() else { return };
    let count = count();
    make(&kubernetes, count);
    let held = Stores::on(&kubernetes);
    // The client, its connections and buffers are there.
    let one = |index: usize| {
        let stores = held.stores.clone();
        async move { stores.live(&format!("k8s/team-a/{}#password", name(index)).parse().unwrap()).await.unwrap() }
    };
    let first = held.runtime.block_on(one(0));
    assert_eq!(first.read().expose(), "password-of-0-0001");
    let before = memory();
    let begun = Instant::now();
    // As many at a time as a configuration asks for.
    let all: Vec<LiveSecret> = held.runtime.block_on(async {
        let turns = Arc::new(tokio::sync::Semaphore::new(16));
        let opened: Vec<_> = (0..count)
            .map(|index| {
                let (turns, one) = (Arc::clone(&turns), one(index));
                tokio::spawn(async move {
                    let _turn = turns.acquire_owned().await.unwrap();
                    one.await
                })
            })
            .collect();
        let mut all = Vec::with_capacity(count);
        for task in opened {
            all.push(task.await.unwrap());
        }
        all
    });
    let opened = begun.elapsed();
    let watching = || {
        let states = held.store.watched();
        (states.len() == count && states.iter().all(|(_, state)| *state == WatchState::Watching))
            .then_some(())
    };
    wait_for("all to be watched", SOON, watching).unwrap();
    // Until what opening left to do is done.
    wait_for("it to be quiet", SOON, || {
        let before = processor();
        std::thread::sleep(Duration::from_millis(500));
        (processor() - before < Duration::from_millis(50)).then_some(())
    })
    .unwrap();
    let taken = memory().saturating_sub(before);
    let attempts =
        || held.stores.status().iter().map(|status| status.failures + status.rotations).sum::<u64>();
    let (used, happened) = (processor(), attempts());
    std::thread::sleep(IDLE);
    let used = processor() - used;
    println!(
        "{count} secrets: opened in {opened:?}; {:.1} MB, {} bytes each; {used:?} of processor time in {IDLE:?}",
        taken as f64 / 1e6,
        taken / count as u64,
    );
    assert!(taken < MOST_EACH * count as u64 + (4 << 20), "{taken} bytes");
    assert!(used < IDLE / 20, "{used:?}");
    assert_eq!(attempts(), happened);

    // Each of them is told of.
    let begun = Instant::now();
    let last = &all[count - 1];
    kubernetes.secret("team-a", &name(count - 1), &[("user", "u"), ("password", "another")]).unwrap();
    wait_for("the new password", SOON, || (last.read().expose() == "another").then_some(())).unwrap();
    println!("a change of one was there {:?} after it was begun", begun.elapsed());
    assert_eq!(all[0].version(), 1);
}

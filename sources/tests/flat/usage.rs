//! What this process uses, as the kernel counts it.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// What may come and go: pages of the allocator, a pooled connection, a thread that ends.
const MEMORY: u64 = 8 << 20;
const DESCRIPTORS: usize = 8;
const THREADS: usize = 6;
const TASKS: usize = 4;

/// Whoever compares what the process uses is alone in it.
pub(crate) fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A number in `/proc/self/status`.
pub(crate) fn status(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

/// A look at `/proc/self` and at the runtime.
#[derive(Clone, Debug)]
pub(crate) struct Usage {
    memory: u64,
    descriptors: usize,
    threads: usize,
    tasks: usize,
}

impl Usage {
    fn now() -> Self {
        Self {
            memory: status("VmRSS:") * 1024,
            descriptors: std::fs::read_dir("/proc/self/fd").unwrap().count(),
            threads: usize::try_from(status("Threads:")).unwrap(),
            tasks: tokio::runtime::Handle::current().metrics().num_alive_tasks(),
        }
    }

    /// The least that is used while nothing is asked for some seconds: what is about to end gets the time to. With a
    /// usage of before, no longer than until that is reached; a server on a busy host may take long to close what is over.
    pub(crate) async fn at_rest(before: Option<&Self>) -> Self {
        let mut least = Self::now();
        for _ in 0..if before.is_some() { 600 } else { 30 } {
            if before.is_some_and(|before| least.excess(before).is_none()) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
            let now = Self::now();
            least = Self {
                memory: least.memory.min(now.memory),
                descriptors: least.descriptors.min(now.descriptors),
                threads: least.threads.min(now.threads),
                tasks: least.tasks.min(now.tasks),
            };
        }
        least
    }

    /// What has grown by more than it may.
    fn excess(&self, before: &Self) -> Option<String> {
        let grown = [
            ("memory", self.memory > before.memory + MEMORY),
            ("descriptors", self.descriptors > before.descriptors + DESCRIPTORS),
            ("threads", self.threads > before.threads + THREADS),
            ("tasks", self.tasks > before.tasks + TASKS),
        ];
        let grown: Vec<&str> = grown.iter().filter(|(_, grown)| *grown).map(|(name, _)| *name).collect();
        (!grown.is_empty()).then(|| format!("grown: {}; before {before:?}, now {self:?}", grown.join(", ")))
    }

    pub(crate) fn is_like(&self, before: &Self) {
        if let Some(excess) = self.excess(before) {
            panic!("{excess}");
        }
    }
}

#[test]
fn growth_is_seen() {
    let _alone = alone();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let _in_it = runtime.enter();
    let before = Usage::now();
    assert_eq!(before.excess(&before), None);
    let held: Vec<_> = (0..=DESCRIPTORS).map(|_| std::fs::File::open("/proc/self/status").unwrap()).collect();
    let memory = vec![1_u8; 3 * MEMORY as usize];
    let now = Usage::now();
    let excess = now.excess(&before).unwrap();
    assert!(excess.contains("descriptors") && excess.contains("memory"), "{excess}");
    drop((held, memory));
}

//! Memory of this process and the limit of its cgroup, for the memory rule of probation.

use std::fs;
use std::path::PathBuf;

use crate::probation::MemoryVitals;

/// Reads both; `None` where the kernel does not tell.
pub(crate) fn read() -> Option<MemoryVitals> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = resident.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(MemoryVitals { used: kibibytes.saturating_mul(1024), limit: cgroup_limit() })
}

/// The lowest `memory.max` from the process's cgroup upwards.
fn cgroup_limit() -> Option<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let path = groups.lines().find_map(|line| line.strip_prefix("0::"))?;
    let root = PathBuf::from("/sys/fs/cgroup");
    let mut folder = root.join(path.trim_start_matches('/'));
    let mut lowest = None;
    loop {
        if let Some(limit) =
            fs::read_to_string(folder.join("memory.max")).ok().and_then(|text| text.trim().parse().ok())
        {
            lowest = Some(lowest.map_or(limit, |lowest: u64| lowest.min(limit)));
        }
        if folder == root || !folder.pop() || !folder.starts_with(&root) {
            return lowest;
        }
    }
}

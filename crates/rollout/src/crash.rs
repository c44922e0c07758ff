//! Crash points: places, one after every durable step, where a test may end the process as a power
//! cut would. They exist only in tests and under the cargo feature `testing`; there,
//! `INVAR_CRASH_AT=name` or `name:n` kills the process the n-th time `name` is reached.

/// Marks the end of a durable step. In unit tests the directory's own plan may refuse to go on.
macro_rules! crash_point {
    ($state:expr, $name:literal) => {{
        #[cfg(feature = "testing")]
        $crate::crash::reach($name);
        #[cfg(test)]
        $state.faults.reach($name)?;
        #[cfg(not(test))]
        let _ = &$state;
    }};
}
pub(crate) use crash_point;

/// Ends the process, without any cleaning up, if the environment asks for it here.
#[cfg(feature = "testing")]
pub(crate) fn reach(name: &str) {
    use std::sync::atomic::{AtomicU64, Ordering};
    static SEEN: AtomicU64 = AtomicU64::new(0);
    let Ok(wanted) = std::env::var("INVAR_CRASH_AT") else { return };
    let (point, nth) =
        wanted.split_once(':').map_or((wanted.as_str(), 1), |(point, n)| (point, n.parse().unwrap_or(1)));
    if point == name && SEEN.fetch_add(1, Ordering::SeqCst) + 1 == nth {
        std::process::abort();
    }
}

/// Faults that a test arms on one state directory.
#[cfg(test)]
#[derive(Debug, Default)]
pub(crate) struct Faults {
    inner: parking_lot::Mutex<FaultPlan>,
}

#[cfg(test)]
#[derive(Debug, Default)]
struct FaultPlan {
    reached: Vec<&'static str>,
    kill_at: Option<usize>,
    dead: bool,
    files_full: bool,
    heads_fail: bool,
}

#[cfg(test)]
impl Faults {
    /// The points reached so far.
    pub(crate) fn reached(&self) -> Vec<&'static str> {
        self.inner.lock().reached.clone()
    }

    /// Nothing is written after the `n`-th point (from 0) was reached: the process is as good as dead.
    pub(crate) fn kill_at(&self, n: usize) {
        self.inner.lock().kill_at = Some(n);
    }

    pub(crate) fn is_dead(&self) -> bool {
        self.inner.lock().dead
    }

    /// New files cannot be written; the preallocated heads can.
    pub(crate) fn set_files_full(&self, full: bool) {
        self.inner.lock().files_full = full;
    }

    /// The heads cannot be written either.
    pub(crate) fn set_heads_fail(&self, fail: bool) {
        self.inner.lock().heads_fail = fail;
    }

    pub(crate) fn reach(&self, name: &'static str) -> std::io::Result<()> {
        let mut plan = self.inner.lock();
        plan.reached.push(name);
        if plan.kill_at == Some(plan.reached.len() - 1) {
            plan.dead = true;
        }
        if plan.dead { Err(std::io::Error::other("killed by the test")) } else { Ok(()) }
    }

    pub(crate) fn before_file(&self) -> std::io::Result<()> {
        let plan = self.inner.lock();
        if plan.dead {
            return Err(std::io::Error::other("killed by the test"));
        }
        if plan.files_full { Err(std::io::Error::from_raw_os_error(28)) } else { Ok(()) }
    }

    pub(crate) fn before_head(&self) -> std::io::Result<()> {
        let plan = self.inner.lock();
        if plan.dead {
            return Err(std::io::Error::other("killed by the test"));
        }
        if plan.heads_fail { Err(std::io::Error::from_raw_os_error(5)) } else { Ok(()) }
    }
}

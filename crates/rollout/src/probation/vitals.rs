//! A sample of what the running pipeline counts, as probation reads it.

/// One sample.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Vitals {
    /// Endpoints and target groups.
    pub groups: Vec<GroupVitals>,
    /// Components that failed, with the reason.
    pub failed: Vec<FailedComponent>,
    /// Restarts since the cut, by component.
    pub restarts: Vec<(String, u64)>,
    /// Memory of the process.
    pub memory: Option<MemoryVitals>,
}

/// A component that failed or panicked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailedComponent {
    /// Its id.
    pub node: String,
    /// Why.
    pub reason: String,
    /// Whether the candidate changed it.
    pub changed: bool,
    /// Whether it panicked (then the content is the cause).
    pub panicked: bool,
}

/// Counters of one endpoint or target group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupVitals {
    /// Component.
    pub node: String,
    /// Endpoint or target group in it.
    pub key: String,
    /// Whether the candidate changed it.
    pub changed: bool,
    /// Unchanged, but fed by something that the candidate changed.
    pub downstream_of_change: bool,
    /// Whether data leaves the pipeline here. Only groups of one side are compared: a scrape that succeeds says
    /// nothing about the network that deliveries take.
    pub delivers: bool,
    /// Counted since the cut.
    pub counters: Counters,
}

/// Monotonic counters since the cut, and the fill of the queue now.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Deliveries or scrapes begun.
    pub attempts: u64,
    /// Finished well.
    pub ok: u64,
    /// Failed in a way that may pass.
    pub retryable: u64,
    /// Refused for good.
    pub permanent: u64,
    /// Items in finished attempts.
    pub items_attempted: u64,
    /// Items taken.
    pub items_in: u64,
    /// Items delivered.
    pub items_out: u64,
    /// Items dropped.
    pub dropped: u64,
    /// Fill of the queue, in thousandths.
    pub queue_fill: u64,
}

/// Memory of the process.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct MemoryVitals {
    /// Bytes in use now, without what parked instances hold.
    pub used: u64,
    /// Limit of the cgroup or of `[limits] memory`.
    pub limit: Option<u64>,
}

impl Counters {
    /// Attempts that failed.
    #[must_use]
    pub fn failed(&self) -> u64 {
        self.retryable.saturating_add(self.permanent)
    }

    /// Attempts that came to an end.
    #[must_use]
    pub fn finished(&self) -> u64 {
        self.ok.saturating_add(self.failed())
    }
}

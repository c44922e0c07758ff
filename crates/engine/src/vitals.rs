//! Vitals: monotonic counters per endpoint or target group, which a probation reads. Snapshot at the cut; what is *changed* is
//! decided per group by fingerprint, and what is unchanged is the control group.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use foldhash::HashMap;
use jiff::Timestamp;
use parking_lot::Mutex;

use crate::component::VitalGroup;
use crate::generation::{Generation, Occupant, Place, Retained, Slot, Unit};
use crate::node::NodeId;

/// Counts of one endpoint or target group. All but `queue_fill` only grow.
#[derive(Debug, Default)]
pub struct VitalCounters {
    attempts: AtomicU64,
    ok: AtomicU64,
    retryable: AtomicU64,
    permanent: AtomicU64,
    items_attempted: AtomicU64,
    items_in: AtomicU64,
    items_out: AtomicU64,
    dropped: AtomicU64,
    queue_fill: AtomicU64,
    in_flight: AtomicU64,
    /// Milliseconds since the epoch; 0 is never.
    in_flight_since: AtomicU64,
    last_success: AtomicU64,
    first_failure: AtomicU64,
    last_failure: AtomicU64,
}

/// How an attempt ended.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// Accepted.
    Ok,
    /// May be tried again.
    Retryable,
    /// Refused for its content.
    Permanent,
}

/// An attempt in flight. One that is dropped without an outcome counts as none.
#[derive(Debug)]
pub struct Attempt {
    counters: Arc<VitalCounters>,
}

/// The counters at one moment.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default, serde::Serialize)]
pub struct VitalSnapshot {
    /// Finished attempts.
    pub attempts: u64,
    /// Those that were accepted.
    pub ok: u64,
    /// Those that may be tried again.
    pub retryable: u64,
    /// Those that were refused for their content.
    pub permanent: u64,
    /// Items in finished attempts.
    pub items_attempted: u64,
    /// Items taken in.
    pub items_in: u64,
    /// Items delivered.
    pub items_out: u64,
    /// Items dropped.
    pub dropped: u64,
    /// How full the queue is, in thousandths. Not a count.
    pub queue_fill: u64,
    /// Attempts in flight now. Not a count.
    pub in_flight: u64,
    /// Since when, in milliseconds since the epoch, an attempt is in flight and none has finished; 0 if none is.
    pub in_flight_since: u64,
    /// When the last attempt succeeded, in milliseconds since the epoch; 0 if never.
    pub last_success: u64,
    /// When the first failure after the last success was, in milliseconds since the epoch; 0 if none.
    pub first_failure: u64,
    /// When the last failure was, in milliseconds since the epoch; 0 if never.
    pub last_failure: u64,
}

/// The vitals of the running pipeline against what it was cut from.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct VitalsReport {
    /// One entry per endpoint or target group.
    pub groups: Vec<GroupVitals>,
    /// Nodes that failed or panicked since the cut, and why.
    pub failed: Vec<NodeFailure>,
    /// Nodes with restarts.
    pub restarts: Vec<NodeRestarts>,
}

/// The vitals of one endpoint or target group.
#[derive(Clone, Debug, serde::Serialize)]
pub struct GroupVitals {
    /// Its node.
    pub node: NodeId,
    /// Names it within the node; empty for the node as a whole.
    pub key: String,
    /// Whether its settings differ from the retained configuration's, which may lack it.
    pub changed: bool,
    /// Whether it is unchanged but takes data from a changed node.
    pub downstream_of_change: bool,
    /// Whether data leaves the pipeline here, for the node forwards to no other. What takes data in and what delivers it
    /// fail for different reasons, so that only groups of one side are compared with each other.
    pub delivers: bool,
    /// The counters now.
    pub now: VitalSnapshot,
    /// The counters at the cut.
    pub at_cut: VitalSnapshot,
}

/// A node that failed since the cut.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
pub struct NodeFailure {
    /// The node.
    pub node: NodeId,
    /// Why.
    pub reason: String,
    /// Whether the candidate changed it.
    pub changed: bool,
    /// Whether it panicked.
    pub panicked: bool,
}

/// How often a node's task was restarted.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
pub struct NodeRestarts {
    /// The node.
    pub node: NodeId,
    /// Since the cut.
    pub since_cut: u64,
    /// In the life of the instance before the cut.
    pub before_cut: u64,
    /// Whether the candidate changed it.
    pub changed: bool,
}

/// What the counters of the running instances were at the cut.
#[derive(Debug, Default)]
pub(crate) struct Baseline {
    instances: HashMap<u64, InstanceBaseline>,
}

#[derive(Debug, Default)]
struct InstanceBaseline {
    groups: HashMap<String, VitalSnapshot>,
    restarts: u64,
    panics: u64,
}

/// The counters of one instance by group key.
#[derive(Debug, Default)]
pub(crate) struct NodeVitals {
    groups: Mutex<HashMap<String, Arc<VitalCounters>>>,
}

// === impl VitalCounters ===

impl VitalCounters {
    /// Starts an attempt.
    #[must_use]
    pub fn attempt(self: &Arc<Self>) -> Attempt {
        if self.in_flight.fetch_add(1, Ordering::Relaxed) == 0 {
            self.in_flight_since.store(now(), Ordering::Relaxed);
        }
        Attempt { counters: Arc::clone(self) }
    }

    /// Counts a finished attempt of `items` that was not started with [`VitalCounters::attempt`].
    pub fn record(&self, outcome: Outcome, items: u64) {
        self.attempts.fetch_add(1, Ordering::Relaxed);
        self.items_attempted.fetch_add(items, Ordering::Relaxed);
        match outcome {
            Outcome::Ok => {
                self.ok.fetch_add(1, Ordering::Relaxed);
                self.last_success.store(now(), Ordering::Relaxed);
                self.first_failure.store(0, Ordering::Relaxed);
                return;
            }
            Outcome::Retryable => self.retryable.fetch_add(1, Ordering::Relaxed),
            Outcome::Permanent => self.permanent.fetch_add(1, Ordering::Relaxed),
        };
        let now = now();
        self.last_failure.store(now, Ordering::Relaxed);
        // Another failure may have been first: then its time stays.
        let _first = self.first_failure.compare_exchange(0, now, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Counts items taken in.
    pub fn add_in(&self, items: u64) {
        self.items_in.fetch_add(items, Ordering::Relaxed);
    }

    /// Counts items delivered.
    pub fn add_out(&self, items: u64) {
        self.items_out.fetch_add(items, Ordering::Relaxed);
    }

    /// Counts items dropped.
    pub fn add_dropped(&self, items: u64) {
        self.dropped.fetch_add(items, Ordering::Relaxed);
    }

    /// Says how full the queue is, in thousandths.
    pub fn set_queue_fill(&self, permille: u64) {
        self.queue_fill.store(permille, Ordering::Relaxed);
    }

    /// The counters now. Each is exact; together they may be a moment apart.
    #[must_use]
    pub fn snapshot(&self) -> VitalSnapshot {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        VitalSnapshot {
            attempts: read(&self.attempts),
            ok: read(&self.ok),
            retryable: read(&self.retryable),
            permanent: read(&self.permanent),
            items_attempted: read(&self.items_attempted),
            items_in: read(&self.items_in),
            items_out: read(&self.items_out),
            dropped: read(&self.dropped),
            queue_fill: read(&self.queue_fill),
            in_flight: read(&self.in_flight),
            in_flight_since: read(&self.in_flight_since),
            last_success: read(&self.last_success),
            first_failure: read(&self.first_failure),
            last_failure: read(&self.last_failure),
        }
    }
}

fn now() -> u64 {
    u64::try_from(Timestamp::now().as_millisecond()).unwrap_or(0)
}

// === impl Attempt ===

impl Attempt {
    /// The attempt, of `items`, is over.
    pub fn finish(self, outcome: Outcome, items: u64) {
        self.counters.record(outcome, items);
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        let others = self.counters.in_flight.fetch_sub(1, Ordering::Relaxed) - 1;
        self.counters.in_flight_since.store(if others == 0 { 0 } else { now() }, Ordering::Relaxed);
    }
}

// === impl Baseline ===

impl Baseline {
    /// The counters now.
    pub(crate) fn of(generation: &Generation) -> Self {
        let instances = generation.units().map(|unit| {
            let cell = &unit.cell;
            let groups = cell.vitals().snapshot().into_iter().collect();
            (cell.number(), InstanceBaseline { groups, restarts: cell.restarts(), panics: cell.panics() })
        });
        Self { instances: instances.collect() }
    }
}

// === impl VitalsReport ===

impl VitalsReport {
    /// Compares the running generation with what it was cut from.
    pub(crate) fn compare(running: &Generation, retained: Option<&Retained>, baseline: &Baseline) -> Self {
        let changed: Vec<bool> = (running.graph.nodes.iter().zip(&running.slots))
            .map(|(node, slot)| retained.is_some_and(|retained| differs(retained.place(&node.id), slot)))
            .collect();
        let downstream = downstream_of(&changed, running);
        let mut report = Self::default();
        for (index, (node, slot)) in running.graph.nodes.iter().zip(&running.slots).enumerate() {
            let unit = match &slot.place.occupant {
                Occupant::Ready(unit) => unit,
                Occupant::Value(_) => continue,
                Occupant::Failed(failure) => {
                    report.failed.push(NodeFailure {
                        node: node.id.clone(),
                        reason: failure.reason.clone(),
                        changed: changed[index],
                        panicked: false,
                    });
                    continue;
                }
            };
            let before = retained.and_then(|retained| retained.place(&node.id));
            report.add_groups(unit, before, changed[index], downstream[index], baseline);
            report.add_failures(unit, changed[index], baseline);
        }
        report
    }

    fn add_groups(
        &mut self,
        unit: &Unit,
        before: Option<&Place>,
        node_changed: bool,
        downstream: bool,
        baseline: &Baseline,
    ) {
        let cell = &unit.cell;
        let at_cut = baseline.instances.get(&cell.number());
        let groups_of = |unit: &Unit| {
            let mut groups = unit.cell.definition().vital_groups(&unit.state);
            if groups.is_empty() {
                groups.push(VitalGroup { key: String::new(), fingerprint: 0 });
            }
            groups
        };
        let fingerprints: HashMap<String, u64> = match before.and_then(Place::unit) {
            Some(before) if node_changed => {
                groups_of(before).into_iter().map(|group| (group.key, group.fingerprint)).collect()
            }
            _ => HashMap::default(),
        };
        for VitalGroup { key, fingerprint } in groups_of(unit) {
            // A node without groups of its own is one group, which changes with the node.
            let same = !key.is_empty() && fingerprints.get(&key) == Some(&fingerprint);
            let changed = node_changed && !same;
            self.groups.push(GroupVitals {
                node: cell.node().clone(),
                changed,
                downstream_of_change: downstream && !changed,
                delivers: unit.receivers.is_empty(),
                now: cell.vitals().get(&key).map(|counters| counters.snapshot()).unwrap_or_default(),
                at_cut: at_cut.and_then(|at_cut| at_cut.groups.get(&key)).copied().unwrap_or_default(),
                key,
            });
        }
    }

    fn add_failures(&mut self, unit: &Unit, changed: bool, baseline: &Baseline) {
        let cell = &unit.cell;
        let at_cut = baseline.instances.get(&cell.number());
        let panicked = cell.panics() > at_cut.map_or(0, |at_cut| at_cut.panics);
        let failure = cell.health().failure().or_else(|| panicked.then(|| "panicked".to_owned()));
        if let Some(reason) = failure {
            self.failed.push(NodeFailure { node: cell.node().clone(), reason, changed, panicked });
        }
        let before_cut = at_cut.map_or(0, |at_cut| at_cut.restarts);
        let restarts = cell.restarts();
        if restarts > 0 {
            self.restarts.push(NodeRestarts {
                node: cell.node().clone(),
                since_cut: restarts - before_cut,
                before_cut,
                changed,
            });
        }
    }
}

/// Whether a node runs on another instance or state than before.
fn differs(before: Option<&Place>, slot: &Slot) -> bool {
    match (before.and_then(Place::unit), slot.unit()) {
        (Some(before), Some(now)) => !Arc::ptr_eq(before, now),
        (None, None) => false,
        _ => true,
    }
}

/// Which slots take data, directly or not, from those marked.
fn downstream_of(marked: &[bool], generation: &Generation) -> Vec<bool> {
    let mut reached = vec![false; marked.len()];
    let mut pending: Vec<usize> = (0..marked.len()).filter(|index| marked[*index]).collect();
    while let Some(index) = pending.pop() {
        for output in &generation.slots[index].outputs {
            let target = output.slot as usize;
            if !reached[target] {
                reached[target] = true;
                pending.push(target);
            }
        }
    }
    reached
}

// === impl NodeVitals ===

impl NodeVitals {
    /// The counters of a group, made on first use.
    pub(crate) fn counters(&self, key: &str) -> Arc<VitalCounters> {
        let mut groups = self.groups.lock();
        if let Some(counters) = groups.get(key) {
            return Arc::clone(counters);
        }
        Arc::clone(groups.entry(key.to_owned()).or_default())
    }

    /// The counters of a group, if it was ever used.
    pub(crate) fn get(&self, key: &str) -> Option<Arc<VitalCounters>> {
        self.groups.lock().get(key).cloned()
    }

    /// All groups with their counters now.
    pub(crate) fn snapshot(&self) -> Vec<(String, VitalSnapshot)> {
        self.groups.lock().iter().map(|(key, counters)| (key.clone(), counters.snapshot())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_in_flight_are_seen_until_they_finish() {
        let counters = Arc::new(VitalCounters::default());
        let first = counters.attempt();
        let second = counters.attempt();
        let flying = counters.snapshot();
        assert_eq!((flying.in_flight, flying.attempts), (2, 0));
        assert!(flying.in_flight_since > 0);
        first.finish(Outcome::Ok, 10);
        assert!(counters.snapshot().in_flight_since > 0, "one is in flight still");
        drop(second);
        let landed = counters.snapshot();
        assert_eq!((landed.in_flight, landed.in_flight_since), (0, 0));
        assert_eq!(
            (landed.attempts, landed.ok, landed.items_attempted),
            (1, 1, 10),
            "a dropped attempt is none"
        );
    }

    #[test]
    fn a_success_ends_a_run_of_failures() {
        let counters = VitalCounters::default();
        counters.record(Outcome::Retryable, 1);
        counters.record(Outcome::Permanent, 1);
        let failing = counters.snapshot();
        assert_eq!((failing.retryable, failing.permanent), (1, 1));
        assert!(failing.first_failure > 0 && failing.last_failure >= failing.first_failure);
        counters.record(Outcome::Ok, 1);
        assert_eq!(counters.snapshot().first_failure, 0);
    }
}

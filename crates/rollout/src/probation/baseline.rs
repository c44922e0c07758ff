//! The baseline: what the pipeline did in the five minutes before the cut.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

use super::vitals::{Counters, Vitals};

const SPAN: Duration = Duration::from_secs(5 * 60);

/// What was usual before the cut.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Baseline {
    /// By component and key.
    pub groups: BTreeMap<(String, String), GroupBaseline>,
    /// Components that restarted in that time.
    pub restarted: BTreeSet<String>,
    /// Bytes of memory in use.
    pub memory: Option<u64>,
}

/// What was usual for one endpoint or target group.
#[derive(Copy, Clone, Debug, Default, PartialEq)]
pub struct GroupBaseline {
    /// Failed attempts among finished ones, 0 to 1.
    pub error_ratio: f64,
    /// Dropped items among those taken, 0 to 1.
    pub drop_ratio: f64,
    /// Items taken per second.
    pub in_rate: f64,
    /// Items delivered per second.
    pub out_rate: f64,
}

/// Keeps samples of the last five minutes.
#[derive(Debug, Default)]
pub(crate) struct BaselineRecorder {
    samples: VecDeque<(Instant, Vitals)>,
}

impl BaselineRecorder {
    /// Adds a sample.
    pub(crate) fn record(&mut self, now: Instant, vitals: Vitals) {
        while self.samples.front().is_some_and(|(time, _)| now.duration_since(*time) > SPAN) {
            self.samples.pop_front();
        }
        self.samples.push_back((now, vitals));
    }

    /// Counters start again at a cut: older samples do not compare with newer ones.
    pub(crate) fn clear(&mut self) {
        self.samples.clear();
    }

    /// The baseline of what was recorded.
    pub(crate) fn baseline(&self) -> Baseline {
        let (Some((begin, first)), Some((end, last))) = (self.samples.front(), self.samples.back()) else {
            return Baseline::default();
        };
        let seconds = end.duration_since(*begin).as_secs_f64();
        let before: BTreeMap<_, Counters> = first
            .groups
            .iter()
            .map(|group| ((group.node.as_str(), group.key.as_str()), group.counters))
            .collect();
        let mut groups = BTreeMap::new();
        for group in &last.groups {
            let start = before.get(&(group.node.as_str(), group.key.as_str())).copied().unwrap_or_default();
            groups.insert((group.node.clone(), group.key.clone()), usual(start, group.counters, seconds));
        }
        let restarts_before: BTreeMap<_, _> = first.restarts.iter().cloned().collect();
        let restarted = last
            .restarts
            .iter()
            .filter(|(node, count)| restarts_before.get(node).copied().unwrap_or(0) < *count)
            .map(|(node, _)| node.clone())
            .collect();
        let memory =
            self.samples.iter().filter_map(|(_, vitals)| vitals.memory.map(|memory| memory.used)).max();
        Baseline { groups, restarted, memory }
    }
}

fn usual(start: Counters, end: Counters, seconds: f64) -> GroupBaseline {
    let delta = |before: u64, after: u64| after.saturating_sub(before) as f64;
    let failed = delta(start.failed(), end.failed());
    let finished = delta(start.finished(), end.finished());
    let taken = delta(start.items_in, end.items_in);
    let ratio = |part: f64, whole: f64| if whole > 0.0 { part / whole } else { 0.0 };
    GroupBaseline {
        error_ratio: ratio(failed, finished),
        drop_ratio: ratio(delta(start.dropped, end.dropped), taken),
        in_rate: ratio(taken, seconds),
        out_rate: ratio(delta(start.items_out, end.items_out), seconds),
    }
}

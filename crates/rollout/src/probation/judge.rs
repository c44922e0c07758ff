//! The judge: sample after sample it says whether a candidate goes on, fails, or is good.

use std::collections::BTreeMap;
use std::time::Duration;

use super::baseline::Baseline;
use super::rules::{Finding, GroupTrack, SoftRule, apply};
use super::vitals::{GroupVitals, Vitals};
use crate::settings::OnInconclusive;

/// Consecutive samples for which a soft rule, or the memory rule, must hold.
const CONSECUTIVE: u32 = 3;
/// Changes of one rule between good and bad that count as bad.
const FLIPS: u32 = 3;
const RESTARTS: u64 = 3;
/// Failed attempts without a success that fail a small endpoint.
const SMALL_NUMBER: u64 = 3;

/// Which rules apply.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum RuleSet {
    /// All.
    Full,
    /// Hard and small-number rules: a probation that was resumed has no baseline.
    HardAndSmallNumber,
    /// Hard rules only: nothing is known to be good yet, or an operator asked for this revision.
    Hard,
}

/// How a probation is judged.
#[derive(Clone, Debug)]
pub struct JudgeOptions {
    /// The window.
    pub window: Duration,
    /// Which rules apply.
    pub rules: RuleSet,
    /// What was usual before.
    pub baseline: Baseline,
    /// Verdict where the world seems to be the cause.
    pub on_inconclusive: OnInconclusive,
}

/// What the judge says after a sample.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// Go on watching.
    Continue,
    /// The window becomes longer, once.
    Extend(String),
    /// The candidate is bad.
    Fail {
        /// What was seen.
        reason: String,
        /// The content itself is the cause.
        deterministic: bool,
    },
    /// The candidate is good.
    Commit {
        /// Too little happened to be sure.
        unproven: bool,
        /// What a person should know.
        warning: Option<String>,
    },
}

/// Judges one candidate.
#[derive(Clone, Debug)]
pub struct Judge {
    options: JudgeOptions,
    window: Duration,
    extended: bool,
    tracks: BTreeMap<(String, String), GroupTrack>,
    rules: BTreeMap<(String, String, SoftRule), RuleTrack>,
    small: BTreeMap<(String, String), SmallTrack>,
    memory_samples: u32,
    findings: Vec<String>,
}

#[derive(Clone, Debug, Default)]
struct RuleTrack {
    bad: bool,
    in_a_row: u32,
    flips: u32,
}

/// Failures of a group that has no success yet.
#[derive(Clone, Debug, Default)]
struct SmallTrack {
    failed: u64,
    first: Option<Duration>,
    last: Duration,
    in_flight_since: Option<Duration>,
    finished: u64,
}

impl Judge {
    /// A judge who has seen nothing yet.
    #[must_use]
    pub fn new(options: JudgeOptions) -> Self {
        Self {
            window: options.window,
            options,
            extended: false,
            tracks: BTreeMap::new(),
            rules: BTreeMap::new(),
            small: BTreeMap::new(),
            memory_samples: 0,
            findings: Vec::new(),
        }
    }

    /// Time between two samples.
    #[must_use]
    pub fn interval(&self) -> Duration {
        (self.options.window / 12).clamp(Duration::from_millis(10), Duration::from_secs(5))
    }

    /// The window as it is now.
    #[must_use]
    pub fn window(&self) -> Duration {
        self.window
    }

    /// Whether the window was extended.
    #[must_use]
    pub fn extended(&self) -> bool {
        self.extended
    }

    /// What the last sample found.
    #[must_use]
    pub fn findings(&self) -> &[String] {
        &self.findings
    }

    /// Judges a sample taken `at` after the cut. Samples come in order.
    pub fn sample(&mut self, at: Duration, vitals: &Vitals) -> Judgement {
        self.findings.clear();
        if let Some(failed) = self.hard(vitals) {
            return failed;
        }
        let (mut candidate, mut world) = (None, None);
        if self.options.rules != RuleSet::Hard {
            if let Some(reason) = self.small_numbers(at, vitals) {
                return Judgement::Fail { reason, deterministic: false };
            }
            if self.options.rules == RuleSet::Full {
                (candidate, world) = self.soft(at, vitals);
            }
        }
        if let Some(reason) = candidate {
            return Judgement::Fail { reason, deterministic: false };
        }
        if at < self.window {
            return Judgement::Continue;
        }
        self.conclude(vitals, world)
    }

    fn conclude(&mut self, vitals: &Vitals, world: Option<String>) -> Judgement {
        if let Some(reason) = world {
            if !self.extended {
                return self.extend(format!("unchanged components suffer too: {reason}"));
            }
            return match self.options.on_inconclusive {
                OnInconclusive::Commit => Judgement::Commit { unproven: false, warning: Some(reason) },
                OnInconclusive::Rollback => Judgement::Fail { reason, deterministic: false },
                OnInconclusive::Hold => Judgement::Continue,
            };
        }
        let concerned: Vec<&GroupVitals> =
            vitals.groups.iter().filter(|group| group.changed || group.downstream_of_change).collect();
        let silent = !concerned.is_empty() && concerned.iter().all(|group| group.counters.finished() == 0);
        if silent && self.options.rules != RuleSet::Hard {
            if !self.extended {
                return self.extend("nothing passed through what changed yet".to_owned());
            }
            return Judgement::Commit {
                unproven: true,
                warning: Some("nothing passed through what changed: committed unproven".to_owned()),
            };
        }
        Judgement::Commit { unproven: false, warning: None }
    }

    fn extend(&mut self, reason: String) -> Judgement {
        self.extended = true;
        self.window = self.window.saturating_mul(2);
        Judgement::Extend(reason)
    }

    fn hard(&mut self, vitals: &Vitals) -> Option<Judgement> {
        let deterministic = |failed: &super::FailedComponent| failed.panicked;
        if let Some(failed) = vitals.failed.iter().find(|failed| failed.changed) {
            let verb = if failed.panicked { "panicked" } else { "failed" };
            return Some(Judgement::Fail {
                reason: format!("{} {verb}: {}", failed.node, failed.reason),
                deterministic: deterministic(failed),
            });
        }
        let restarts = vitals
            .restarts
            .iter()
            .find(|(node, count)| *count >= RESTARTS && !self.options.baseline.restarted.contains(node));
        if let Some((node, count)) = restarts {
            return Some(Judgement::Fail {
                reason: format!("{node} restarted {count} times"),
                deterministic: false,
            });
        }
        let memory = vitals.memory.zip(self.options.baseline.memory);
        let over = memory.is_some_and(|(memory, usual)| {
            // used > 1.5 × usual and used > 80 % of the limit
            memory.used / 3 > usual / 2 && memory.limit.is_some_and(|limit| memory.used / 4 > limit / 5)
        });
        self.memory_samples = if over { self.memory_samples + 1 } else { 0 };
        if self.memory_samples >= CONSECUTIVE {
            let used = vitals.memory.map_or(0, |memory| memory.used >> 20);
            let usual = self.options.baseline.memory.map_or(0, |usual| usual >> 20);
            return Some(Judgement::Fail {
                reason: format!("memory {used} MiB, near the limit (was {usual} MiB)"),
                deterministic: false,
            });
        }
        None
    }

    /// A changed group without a success fails after three failures over a third of the window,
    /// unless the control group only fails as well.
    fn small_numbers(&mut self, at: Duration, vitals: &Vitals) -> Option<String> {
        let third = self.options.window / 3;
        let control = |side: bool, get: fn(&GroupVitals) -> u64| -> u64 {
            let of_side = |group: &&GroupVitals| is_control(group) && group.delivers == side;
            vitals.groups.iter().filter(of_side).map(get).sum()
        };
        let control_fails = |side: bool| {
            control(side, |group| group.counters.failed()) > 0
                && control(side, |group| group.counters.ok) == 0
        };
        let mut verdict = None;
        for group in vitals.groups.iter().filter(|group| group.changed) {
            let counters = group.counters;
            let track = self.small.entry((group.node.clone(), group.key.clone())).or_default();
            if counters.failed() > track.failed {
                track.first.get_or_insert(at);
                track.last = at;
                track.failed = counters.failed();
            }
            let in_flight = counters.attempts > counters.finished();
            if !in_flight || counters.finished() > track.finished {
                track.in_flight_since = in_flight.then_some(at);
            } else {
                track.in_flight_since.get_or_insert(at);
            }
            track.finished = counters.finished();
            if counters.ok > 0 {
                continue;
            }
            let span = track.first.map_or(Duration::ZERO, |first| track.last.saturating_sub(first));
            let stuck = track.in_flight_since.is_some_and(|since| at.saturating_sub(since) > third);
            let place = format!("{} {}", group.node, group.key);
            if counters.failed() >= SMALL_NUMBER && span >= third {
                self.findings.push(format!("{place}: no success in {} attempts", counters.failed()));
            } else if stuck {
                self.findings.push(format!(
                    "{place}: no success, an attempt has been under way for {} s",
                    third.as_secs()
                ));
            } else {
                continue;
            }
            if !control_fails(group.delivers) && verdict.is_none() {
                verdict = self.findings.last().cloned();
            }
        }
        verdict
    }

    /// The soft rules: a reason to fail, and a reason to suspect the world.
    fn soft(&mut self, at: Duration, vitals: &Vitals) -> (Option<String>, Option<String>) {
        let mut steps = Vec::new();
        for group in &vitals.groups {
            let key = (group.node.clone(), group.key.clone());
            let usual = self.options.baseline.groups.get(&key).copied();
            let step = self.tracks.entry(key.clone()).or_default().step(group.counters, at);
            steps.push((group, key, usual.unwrap_or_default(), step));
        }
        let world_suffers = |rule: SoftRule, side: bool| {
            steps.iter().any(|(group, _, usual, step)| {
                is_control(group)
                    && group.delivers == side
                    && matches!(apply(rule, step, usual, true, false), Finding::Bad(_))
            })
        };
        let (mut candidate, mut world) = (None, None);
        for (group, key, usual, step) in &steps {
            if is_control(group) {
                continue;
            }
            for rule in SoftRule::ALL {
                let finding = apply(rule, step, usual, group.changed, true);
                let track = self.rules.entry((key.0.clone(), key.1.clone(), rule)).or_default();
                let text = match finding {
                    Finding::Nothing => continue,
                    Finding::Fine => {
                        track.note(false);
                        continue;
                    }
                    Finding::Bad(text) => text,
                };
                track.note(true);
                let text = format!("{} {}: {text}", group.node, group.key);
                self.findings.push(text.clone());
                let flapping = track.flips > FLIPS;
                if flapping {
                    candidate.get_or_insert(format!(
                        "{text}; {} came and went {} times",
                        rule.name(),
                        track.flips
                    ));
                } else if track.in_a_row >= CONSECUTIVE {
                    if world_suffers(rule, group.delivers) {
                        world.get_or_insert(text);
                    } else {
                        candidate.get_or_insert(format!(
                            "{text}, {} of {CONSECUTIVE} samples",
                            track.in_a_row.min(CONSECUTIVE)
                        ));
                    }
                }
            }
        }
        (candidate, world)
    }
}

impl RuleTrack {
    fn note(&mut self, bad: bool) {
        if bad != self.bad {
            self.flips += 1;
        }
        self.bad = bad;
        self.in_a_row = if bad { self.in_a_row + 1 } else { 0 };
    }
}

fn is_control(group: &GroupVitals) -> bool {
    !group.changed && !group.downstream_of_change
}

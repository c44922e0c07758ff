//! The soft rules: each looks at one endpoint or target group, at what it counted since the last
//! sample, and at what was usual for it.

use std::collections::VecDeque;
use std::time::Duration;

use super::baseline::GroupBaseline;
use super::vitals::Counters;

/// Attempts, or items in finished attempts, below which a ratio says nothing.
const ENOUGH: u64 = 100;
const SILENCE: Duration = Duration::from_secs(60);
const QUEUE_SAMPLES: usize = 6;
/// A rate over less time says more about when batches leave than about how much does.
const RATE_SPAN: Duration = Duration::from_secs(1);

/// The soft rules.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum SoftRule {
    Errors,
    Drops,
    Throughput,
    Silence,
    Queue,
}

impl SoftRule {
    pub(crate) const ALL: [Self; 5] =
        [Self::Errors, Self::Drops, Self::Throughput, Self::Silence, Self::Queue];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Errors => "error ratio",
            Self::Drops => "drop ratio",
            Self::Throughput => "throughput",
            Self::Silence => "silence",
            Self::Queue => "queue",
        }
    }
}

/// What a rule says about one sample.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Finding {
    /// Too little happened to say anything: neither better nor worse than before.
    Nothing,
    Fine,
    Bad(String),
}

/// What one group did up to now.
#[derive(Clone, Debug, Default)]
pub(crate) struct GroupTrack {
    /// Counters at the previous sample.
    previous: Counters,
    /// Time since the cut of the last sample in which something went out.
    last_output: Duration,
    fills: VecDeque<u64>,
    /// Earlier samples, with their time since the cut, back to the last one that is [`RATE_SPAN`] old.
    earlier: VecDeque<(Duration, Counters)>,
}

/// One sample of one group, beside the one before.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Step {
    pub(crate) now: Counters,
    pub(crate) before: Counters,
    /// Items taken and items delivered per second, over [`RATE_SPAN`] at least; none before that has passed.
    pub(crate) rates: Option<(f64, f64)>,
    pub(crate) silent_for: Duration,
    pub(crate) queue_grows: bool,
}

impl GroupTrack {
    pub(crate) fn step(&mut self, now: Counters, at: Duration) -> Step {
        if now.items_out > self.previous.items_out {
            self.last_output = at;
        }
        self.fills.push_back(now.queue_fill);
        if self.fills.len() > QUEUE_SAMPLES {
            self.fills.pop_front();
        }
        let grows = self.fills.len() == QUEUE_SAMPLES
            && self.fills.iter().zip(self.fills.iter().skip(1)).all(|(a, b)| a < b);
        let step = Step {
            now,
            before: self.previous,
            rates: self.rates(now, at),
            silent_for: at.saturating_sub(self.last_output),
            queue_grows: grows,
        };
        self.previous = now;
        step
    }

    fn rates(&mut self, now: Counters, at: Duration) -> Option<(f64, f64)> {
        if self.earlier.is_empty() {
            // At the cut.
            self.earlier.push_back((Duration::ZERO, Counters::default()));
        }
        let spans = |then: &Duration| at.saturating_sub(*then) >= RATE_SPAN;
        while self.earlier.get(1).is_some_and(|(then, _)| spans(then)) {
            self.earlier.pop_front();
        }
        let rates = self.earlier.front().filter(|(then, _)| spans(then)).map(|(then, before)| {
            let seconds = at.saturating_sub(*then).as_secs_f64();
            let rate = |now: u64, before: u64| now.saturating_sub(before) as f64 / seconds;
            (rate(now.items_in, before.items_in), rate(now.items_out, before.items_out))
        });
        self.earlier.push_back((at, now));
        rates
    }
}

/// Applies one rule. `retryable_counts` is false for an unchanged endpoint downstream of a change:
/// what may pass is then held against the world. `enough` is false for the control group, whose
/// failures speak even when they are few.
pub(crate) fn apply(
    rule: SoftRule,
    step: &Step,
    usual: &GroupBaseline,
    retryable_counts: bool,
    need_enough: bool,
) -> Finding {
    let delta = |get: fn(&Counters) -> u64| get(&step.now).saturating_sub(get(&step.before)) as f64;
    let weight = step.now.finished().max(step.now.items_attempted);
    let enough = !need_enough || weight >= ENOUGH;
    match rule {
        SoftRule::Errors => {
            let failed = delta(|c| c.permanent) + if retryable_counts { delta(|c| c.retryable) } else { 0.0 };
            let finished = delta(Counters::finished);
            if finished == 0.0 || !enough {
                return Finding::Nothing;
            }
            let ratio = failed / finished;
            if ratio > usual.error_ratio + 0.05 && ratio > 2.0 * usual.error_ratio {
                Finding::Bad(format!(
                    "error ratio {:.0} % (was {:.1} %)",
                    ratio * 100.0,
                    usual.error_ratio * 100.0
                ))
            } else {
                Finding::Fine
            }
        }
        SoftRule::Drops => {
            let dropped = delta(|c| c.dropped);
            let taken = delta(|c| c.items_in).max(dropped);
            if taken == 0.0 || !enough {
                return Finding::Nothing;
            }
            let ratio = dropped / taken;
            if ratio > usual.drop_ratio + 0.01 {
                Finding::Bad(format!("drops {:.1} % (was {:.1} %)", ratio * 100.0, usual.drop_ratio * 100.0))
            } else {
                Finding::Fine
            }
        }
        SoftRule::Throughput => {
            let Some((taken, delivered)) = step.rates.filter(|_| usual.out_rate > 0.0) else {
                return Finding::Nothing;
            };
            if taken >= 0.8 * usual.in_rate && taken > 0.0 && delivered < 0.5 * usual.out_rate {
                Finding::Bad(format!(
                    "delivers {delivered:.1}/s of {taken:.1}/s taken (was {:.1}/s)",
                    usual.out_rate
                ))
            } else {
                Finding::Fine
            }
        }
        SoftRule::Silence => {
            // What was rarer than once in the time that counts as silence was never regular.
            if usual.out_rate * SILENCE.as_secs_f64() < 1.0 {
                return Finding::Nothing;
            }
            if step.silent_for >= SILENCE {
                Finding::Bad(format!(
                    "nothing delivered for {} s (was {:.1}/s)",
                    step.silent_for.as_secs(),
                    usual.out_rate
                ))
            } else {
                Finding::Fine
            }
        }
        SoftRule::Queue => {
            if step.queue_grows && step.now.queue_fill > 500 {
                Finding::Bad(format!("queue {} % full and growing", step.now.queue_fill / 10))
            } else {
                Finding::Fine
            }
        }
    }
}

//! Sequences of samples and the verdicts they lead to.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use proptest::prelude::*;
use tokio::time::Instant;

use super::*;
use crate::settings::OnInconclusive;

const STEP: Duration = Duration::from_secs(5);

fn judge(rules: RuleSet, baseline: Baseline, on_inconclusive: OnInconclusive) -> Judge {
    Judge::new(JudgeOptions { window: Duration::from_secs(120), rules, baseline, on_inconclusive })
}

fn group(node: &str, changed: bool, counters: Counters) -> GroupVitals {
    GroupVitals {
        node: node.into(),
        key: String::new(),
        changed,
        downstream_of_change: false,
        delivers: true,
        counters,
    }
}

fn usual(node: &str, usual: GroupBaseline) -> Baseline {
    Baseline { groups: [((node.to_owned(), String::new()), usual)].into(), ..Baseline::default() }
}

/// Feeds one sample after the other until there is a verdict; says when.
fn run(judge: &mut Judge, mut sample: impl FnMut(u64) -> Vitals) -> (u64, Judgement) {
    for n in 1..=200 {
        match judge.sample(STEP * u32::try_from(n).unwrap(), &sample(n)) {
            Judgement::Continue | Judgement::Extend(_) => {}
            verdict => return (n, verdict),
        }
    }
    (200, Judgement::Continue)
}

/// `n` samples of an endpoint with `ok` and `failed` attempts each.
fn counters(n: u64, ok: u64, retryable: u64) -> Counters {
    let all = (ok + retryable) * n;
    Counters {
        attempts: all,
        ok: ok * n,
        retryable: retryable * n,
        items_attempted: all * 10,
        items_in: all * 10,
        items_out: ok * n * 10,
        ..Counters::default()
    }
}

fn failed(verdict: &Judgement) -> &str {
    match verdict {
        Judgement::Fail { reason, .. } => reason,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_quiet_good_candidate_is_committed_at_the_end_of_the_window() {
    let mut judge = judge(RuleSet::Full, Baseline::default(), OnInconclusive::Commit);
    let verdict = run(&mut judge, |n| Vitals {
        groups: vec![group("sink", true, counters(n, 20, 0))],
        ..Vitals::default()
    });
    assert_eq!(verdict, (24, Judgement::Commit { unproven: false, warning: None }));
}

#[test]
fn a_failed_changed_component_fails_at_once_and_an_unchanged_one_does_not() {
    for (changed, expected) in [(true, 1), (false, 24)] {
        let mut judge = judge(RuleSet::Hard, Baseline::default(), OnInconclusive::Commit);
        let failure = FailedComponent { node: "a".into(), reason: "no".into(), changed, panicked: true };
        let (n, verdict) = run(&mut judge, |_| Vitals { failed: vec![failure.clone()], ..Vitals::default() });
        assert_eq!(n, expected);
        assert_eq!(matches!(verdict, Judgement::Fail { deterministic: true, .. }), changed);
    }
}

#[test]
fn three_restarts_fail_unless_it_restarted_before() {
    let sample = |n: u64| Vitals { restarts: vec![("a".into(), n)], ..Vitals::default() };
    let mut first = judge(RuleSet::Hard, Baseline::default(), OnInconclusive::Commit);
    let (n, verdict) = run(&mut first, sample);
    assert_eq!((n, failed(&verdict)), (3, "a restarted 3 times"));
    let before = Baseline { restarted: ["a".to_owned()].into(), ..Baseline::default() };
    let mut second = judge(RuleSet::Hard, before, OnInconclusive::Commit);
    assert_eq!(run(&mut second, sample).0, 24);
}

#[test]
fn memory_fails_after_three_samples_over_both_limits() {
    let mib = |mib: u64| mib << 20;
    let baseline = Baseline { memory: Some(mib(200)), ..Baseline::default() };
    let sample = |used: u64| Vitals {
        memory: Some(MemoryVitals { used: mib(used), limit: Some(mib(512)) }),
        ..Vitals::default()
    };
    let mut over = judge(RuleSet::Hard, baseline.clone(), OnInconclusive::Commit);
    assert_eq!(run(&mut over, |_| sample(450)).0, 3);
    let mut spiky = judge(RuleSet::Hard, baseline.clone(), OnInconclusive::Commit);
    assert_eq!(run(&mut spiky, |n| sample(if n % 3 == 0 { 300 } else { 450 })).0, 24);
    let mut below = judge(RuleSet::Hard, baseline, OnInconclusive::Commit);
    assert_eq!(run(&mut below, |_| sample(390)).0, 24, "1.95 times what was usual, but far from the limit");
}

#[test]
fn an_error_ratio_over_its_baseline_fails_after_three_samples() {
    let sample = |n| Vitals { groups: vec![group("sink", true, counters(n, 60, 40))], ..Vitals::default() };
    let mut bad = judge(RuleSet::Full, Baseline::default(), OnInconclusive::Commit);
    let (n, verdict) = run(&mut bad, sample);
    assert_eq!(n, 3);
    assert!(failed(&verdict).contains("error ratio 40 %"), "{verdict:?}");
    let usual_ratio = usual("sink", GroupBaseline { error_ratio: 0.38, ..GroupBaseline::default() });
    let mut same = judge(RuleSet::Full, usual_ratio, OnInconclusive::Commit);
    assert_eq!(run(&mut same, sample).0, 24);
}

#[test]
fn one_failed_attempt_with_many_items_is_not_three_samples() {
    let mut judge = judge(RuleSet::Full, Baseline::default(), OnInconclusive::Commit);
    let counters =
        Counters { attempts: 2, ok: 1, permanent: 1, items_attempted: 1000, ..Counters::default() };
    assert_eq!(
        run(&mut judge, |_| Vitals { groups: vec![group("sink", true, counters)], ..Vitals::default() }).0,
        24
    );
}

#[test]
fn when_the_control_group_suffers_too_the_world_is_to_blame() {
    for (on_inconclusive, expected) in [
        (OnInconclusive::Commit, Some(true)),
        (OnInconclusive::Rollback, Some(false)),
        (OnInconclusive::Hold, None),
    ] {
        let mut judge = judge(RuleSet::Full, Baseline::default(), on_inconclusive);
        let (n, verdict) = run(&mut judge, |n| Vitals {
            groups: vec![group("new", true, counters(n, 60, 40)), group("old", false, counters(n, 60, 40))],
            ..Vitals::default()
        });
        assert!(judge.extended());
        match (expected, verdict) {
            (Some(true), Judgement::Commit { warning: Some(_), .. })
            | (Some(false), Judgement::Fail { .. }) => {
                assert_eq!(n, 48, "the window is extended once");
            }
            (None, Judgement::Continue) => {}
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn downstream_of_a_change_only_refusals_of_content_count() {
    let sample = |counters: Counters| {
        let downstream = GroupVitals { downstream_of_change: true, ..group("sink", false, counters) };
        Vitals { groups: vec![downstream], ..Vitals::default() }
    };
    let mut retryable = judge(RuleSet::Full, Baseline::default(), OnInconclusive::Commit);
    assert_eq!(run(&mut retryable, |n| sample(counters(n, 60, 40))).0, 24);
    let mut permanent = judge(RuleSet::Full, Baseline::default(), OnInconclusive::Commit);
    let refused = |n| Counters { retryable: 0, permanent: 40 * n, ..counters(n, 60, 40) };
    assert_eq!(run(&mut permanent, |n| sample(refused(n))).0, 3);
}

#[test]
fn a_rule_that_comes_and_goes_fails_after_more_than_three_flips() {
    let mut judge = judge(RuleSet::Full, Baseline::default(), OnInconclusive::Commit);
    let mut sum = Counters::default();
    let (n, verdict) = run(&mut judge, |n| {
        let step = if n % 2 == 0 { counters(1, 60, 40) } else { counters(1, 100, 0) };
        sum.ok += step.ok;
        sum.retryable += step.retryable;
        sum.attempts += step.attempts;
        sum.items_attempted += step.items_attempted;
        Vitals { groups: vec![group("sink", true, sum)], ..Vitals::default() }
    });
    assert_eq!(n, 6, "bad, good, bad, good, bad");
    assert!(failed(&verdict).contains("came and went"));
}

#[test]
fn silence_throughput_drops_and_queue_fail() {
    let before = GroupBaseline { in_rate: 100.0, out_rate: 100.0, ..GroupBaseline::default() };
    let run_with = |sample: &dyn Fn(u64) -> Counters| {
        let mut judge = judge(RuleSet::Full, usual("sink", before), OnInconclusive::Commit);
        let (n, verdict) =
            run(&mut judge, |n| Vitals { groups: vec![group("sink", true, sample(n))], ..Vitals::default() });
        (n, failed(&verdict).to_owned())
    };
    let healthy = |n: u64| Counters {
        ok: n,
        attempts: n,
        items_in: 500 * n,
        items_out: 500 * n,
        items_attempted: 500 * n,
        ..Counters::default()
    };
    let (n, reason) = run_with(&|n| Counters { items_in: 0, items_out: 0, ok: 1, attempts: 1, ..healthy(n) });
    assert_eq!(n, 14, "60 s of silence, three samples: {reason}");
    let (n, reason) = run_with(&|n| Counters { items_out: 100 * n, ..healthy(n) });
    assert!(n == 3 && reason.contains("delivers"), "{reason}");
    let (n, reason) = run_with(&|n| Counters { dropped: 20 * n, ..healthy(n) });
    assert!(n == 3 && reason.contains("drops"), "{reason}");
    let (n, reason) = run_with(&|n| Counters { queue_fill: 400 + 30 * n, ..healthy(n) });
    assert!(n == 8 && reason.contains("queue"), "{n} {reason}");
}

#[test]
fn throughput_is_judged_over_a_second_at_least() {
    // Taken all the time, delivered in batches every 200 ms, as a sender does.
    let batches =
        |millis: u64| Counters { items_in: millis, items_out: millis / 200 * 200, ..counters(1, 1, 0) };
    let stuck = |millis: u64| Counters { items_in: millis, ..counters(1, 1, 0) };
    let before = GroupBaseline { in_rate: 1000.0, out_rate: 1000.0, ..GroupBaseline::default() };
    let verdict = |window: u64, sample: &dyn Fn(u64) -> Counters| {
        let mut judge = Judge::new(JudgeOptions {
            window: Duration::from_millis(window),
            rules: RuleSet::Full,
            baseline: usual("sink", before),
            on_inconclusive: OnInconclusive::Commit,
        });
        (1..=24).map(|n| n * window / 12).find_map(|at| {
            let vitals = Vitals { groups: vec![group("sink", true, sample(at))], ..Vitals::default() };
            match judge.sample(Duration::from_millis(at), &vitals) {
                Judgement::Continue | Judgement::Extend(_) => None,
                verdict => Some((at, verdict)),
            }
        })
    };
    let good = Judgement::Commit { unproven: false, warning: None };
    assert_eq!(verdict(300, &batches), Some((300, good.clone())), "six samples without a delivery are usual");
    assert_eq!(verdict(3000, &batches), Some((3000, good.clone())));
    assert_eq!(verdict(300, &stuck), Some((300, good)), "too short a window to tell");
    let (at, bad) = verdict(3000, &stuck).unwrap();
    assert!(at == 1500 && failed(&bad).contains("delivers 0.0/s"), "{at} {bad:?}");
}

#[test]
fn a_small_endpoint_without_any_success_fails_after_a_third_of_the_window() {
    // A scrape every 20 s that always fails.
    let sample = |n: u64| {
        let failures = n / 4;
        let counters = Counters { attempts: failures, retryable: failures, ..Counters::default() };
        Vitals { groups: vec![group("scrape", true, counters)], ..Vitals::default() }
    };
    for rules in [RuleSet::Full, RuleSet::HardAndSmallNumber] {
        let mut small = judge(rules, Baseline::default(), OnInconclusive::Commit);
        let (n, verdict) = run(&mut small, sample);
        assert_eq!((n, failed(&verdict)), (12, "scrape : no success in 3 attempts"));
    }
    let mut hard = judge(RuleSet::Hard, Baseline::default(), OnInconclusive::Commit);
    assert_eq!(
        run(&mut hard, sample).0,
        24,
        "nothing is known to be good yet: a receiver that is down stops nothing"
    );
    let mut world = judge(RuleSet::HardAndSmallNumber, Baseline::default(), OnInconclusive::Commit);
    let (n, _) = run(&mut world, |n| {
        let mut vitals = sample(n);
        vitals.groups.push(group(
            "old",
            false,
            Counters { attempts: 5, retryable: 5, ..Counters::default() },
        ));
        vitals
    });
    assert_eq!(n, 24, "the control group has failures and no success");
}

#[test]
fn scrapes_that_succeed_are_no_control_for_deliveries_that_fail() {
    let mut judge = judge(RuleSet::HardAndSmallNumber, Baseline::default(), OnInconclusive::Commit);
    let (n, _) = run(&mut judge, |n| {
        let failing = Counters { attempts: n, retryable: n, ..Counters::default() };
        let fine = Counters { attempts: n, ok: n, ..Counters::default() };
        let scrape = GroupVitals { delivers: false, ..group("scrape", false, fine) };
        Vitals {
            groups: vec![group("new", true, failing), group("old", false, failing), scrape],
            ..Vitals::default()
        }
    });
    assert_eq!(n, 24, "every delivery fails, so that the world is to blame");
}

#[test]
fn an_attempt_that_never_ends_counts_as_three() {
    let mut judge = judge(RuleSet::HardAndSmallNumber, Baseline::default(), OnInconclusive::Commit);
    let stuck = Counters { attempts: 1, ..Counters::default() };
    let (n, verdict) =
        run(&mut judge, |_| Vitals { groups: vec![group("sink", true, stuck)], ..Vitals::default() });
    assert_eq!(n, 10);
    assert!(failed(&verdict).contains("under way"));
}

#[test]
fn without_traffic_the_window_is_extended_once_and_the_commit_is_unproven() {
    let mut judge = judge(RuleSet::Full, Baseline::default(), OnInconclusive::Commit);
    let silent = Vitals { groups: vec![group("sink", true, Counters::default())], ..Vitals::default() };
    let (n, verdict) = run(&mut judge, |_| silent.clone());
    assert_eq!(n, 48);
    assert!(matches!(verdict, Judgement::Commit { unproven: true, .. }));
}

#[test]
fn the_interval_follows_the_window() {
    let with = |window| {
        Judge::new(JudgeOptions {
            window,
            rules: RuleSet::Full,
            baseline: Baseline::default(),
            on_inconclusive: OnInconclusive::Commit,
        })
        .interval()
    };
    assert_eq!(with(Duration::from_secs(120)), Duration::from_secs(5));
    assert_eq!(with(Duration::from_secs(12)), Duration::from_secs(1));
    assert_eq!(with(Duration::from_millis(60)), Duration::from_millis(10));
}

#[tokio::test(start_paused = true)]
async fn the_baseline_covers_five_minutes() {
    let mut recorder = BaselineRecorder::default();
    let begin = Instant::now();
    for n in 0..=60u64 {
        let sample = Vitals {
            groups: vec![group("sink", false, counters(n, 9, 1))],
            restarts: vec![("flaky".into(), n / 40)],
            memory: Some(MemoryVitals { used: n, limit: None }),
            ..Vitals::default()
        };
        recorder.record(begin + Duration::from_secs(10 * n), sample);
    }
    let baseline = recorder.baseline();
    let usual = baseline.groups[&("sink".to_owned(), String::new())];
    assert!((usual.error_ratio - 0.1).abs() < 1e-9 && (usual.in_rate - 10.0).abs() < 1e-9, "{usual:?}");
    assert_eq!((baseline.memory, baseline.restarted.contains("flaky")), (Some(60), true));
    recorder.clear();
    assert_eq!(recorder.baseline(), Baseline::default());
}

fn any_step() -> impl Strategy<Value = [u64; 8]> {
    prop::array::uniform8(0u64..500)
}

proptest! {
    /// Whatever the counters do, there is no panic, and a verdict by the end of the extended window unless it may hold.
    #[test]
    fn every_sequence_ends(
        steps in prop::collection::vec((any_step(), any_step(), any::<bool>()), 1..30),
        rules in prop::sample::select(vec![RuleSet::Full, RuleSet::HardAndSmallNumber, RuleSet::Hard]),
        rollback in any::<bool>(),
    ) {
        let on_inconclusive = if rollback { OnInconclusive::Rollback } else { OnInconclusive::Commit };
        let mut judge = judge(rules, Baseline::default(), on_inconclusive);
        let mut sums = [Counters::default(), Counters::default()];
        let (n, verdict) = run(&mut judge, |n| {
            let (one, two, downstream) = steps[usize::try_from(n).unwrap() % steps.len()];
            for (sum, step) in sums.iter_mut().zip([one, two]) {
                sum.ok += step[0];
                sum.retryable += step[1];
                sum.permanent += step[2];
                sum.attempts = sum.finished() + step[3] % 2;
                sum.items_attempted += step[4];
                sum.items_in += step[5];
                sum.items_out += step[6];
                sum.dropped += step[7];
                sum.queue_fill = step[3];
            }
            let second = GroupVitals { downstream_of_change: downstream, ..group("two", false, sums[1]) };
            Vitals { groups: vec![group("one", true, sums[0]), second], ..Vitals::default() }
        });
        prop_assert!(n <= 48, "{n}");
        prop_assert!(!matches!(verdict, Judgement::Continue | Judgement::Extend(_)));
    }

    /// An endpoint that always succeeds as before is never condemned.
    #[test]
    fn an_undisturbed_candidate_is_committed(rate in 1u64..1000) {
        let mut judge = judge(RuleSet::Full, Baseline::default(), OnInconclusive::Rollback);
        let (_, verdict) = run(&mut judge, |n| Vitals {
            groups: vec![group("one", true, counters(n, rate, 0)), group("two", false, counters(n, rate, 0))],
            ..Vitals::default()
        });
        prop_assert_eq!(verdict, Judgement::Commit { unproven: false, warning: None });
    }
}

//! The recovery table, row by row.

#![allow(clippy::unwrap_used)]

use super::*;
use crate::state::{IntentMark, ProbationMark};

const NOW: Timestamp = Timestamp::from_millis(1_790_000_000_000);

fn pointer(generation: u64, digest: &str) -> Pointer {
    Pointer {
        generation,
        sequence: generation,
        manifest: format!("manifest of {digest}"),
        digest: digest.into(),
        revision: format!("main@{digest}"),
        since: NOW,
        author: None,
        subject: None,
        signer: None,
    }
}

fn facts() -> BootFacts<'static> {
    BootFacts { now: NOW, boot_id: "one", panic_note: None, agent_version: "1.0.0", has_fallback: false }
}

fn with_good() -> Control {
    Control {
        last_generation: 2,
        last_known_good: Some(pointer(1, "a")),
        running: Some(pointer(1, "a")),
        ..Control::default()
    }
}

fn in_probation(clean: bool, resumed: bool, boot_id: &str) -> Control {
    let candidate = pointer(2, "b");
    Control {
        running: Some(candidate.clone()),
        probation: Some(ProbationMark { candidate, clean, resumed, boot_id: boot_id.into() }),
        ..with_good()
    }
}

#[test]
fn neither_intent_nor_probation_runs_last_known_good() {
    let mut control = with_good();
    let decision = recover(&mut control, &facts());
    assert_eq!(decision.run, Run::LastKnownGood);
    assert!(decision.remarks.is_empty() && decision.undone.is_empty());
}

#[test]
fn a_death_while_preparing_strikes_and_the_second_one_quarantines() {
    let mut control = with_good();
    for strike in 1..=2 {
        control.intent =
            Some(IntentMark { digest: "b".into(), revision: "main@b".into(), boot_id: "one".into() });
        control.starts.clear();
        let decision = recover(&mut control, &facts());
        assert_eq!(decision.run, Run::LastKnownGood);
        assert_eq!(control.intent, None);
        assert_eq!(control.strikes["b"].prepare_deaths, strike);
    }
    let entry = control.quarantined("b").unwrap();
    assert!(!entry.deterministic && entry.stage == "prepare" && entry.until.is_some());
}

#[test]
fn a_clean_stop_in_probation_is_resumed_and_marked() {
    let mut control = in_probation(true, false, "one");
    let decision = recover(&mut control, &facts());
    assert_eq!(decision.run, Run::Resume(pointer(2, "b")));
    let mark = control.probation.unwrap();
    assert!(!mark.clean && mark.resumed && mark.boot_id == "one");
    assert!(control.quarantine.is_empty());
}

#[test]
fn a_death_under_a_candidate_quarantines_it() {
    for (note, deterministic) in [(None, false), (Some("panic at x.rs:1:1"), true)] {
        let mut control = in_probation(false, false, "one");
        let decision = recover(&mut control, &BootFacts { panic_note: note, ..facts() });
        assert_eq!(decision.run, Run::LastKnownGood);
        assert_eq!(control.running, control.last_known_good);
        assert_eq!(control.probation, None);
        assert_eq!(control.rollback_count, 1);
        let entry = control.quarantined("b").unwrap();
        assert_eq!((entry.deterministic, entry.until.is_none()), (deterministic, deterministic));
        assert_eq!(decision.undone.len(), 1);
    }
}

#[test]
fn a_host_that_went_down_resumes_once() {
    let mut control = in_probation(false, false, "zero");
    assert_eq!(recover(&mut control, &facts()).run, Run::Resume(pointer(2, "b")));
    let again = BootFacts { boot_id: "two", ..facts() };
    assert_eq!(recover(&mut control, &again).run, Run::LastKnownGood);
    assert!(!control.quarantined("b").unwrap().deterministic);
}

#[test]
fn without_last_known_good_the_candidate_is_tried_again_more_slowly() {
    let mut control = Control { last_known_good: None, ..in_probation(false, false, "one") };
    let mut waits = Vec::new();
    for _ in 0..10 {
        control.starts.clear();
        match recover(&mut control, &facts()).run {
            Run::StartAgain { after, candidate } => {
                assert_eq!(candidate.digest, "b");
                waits.push(after.as_secs());
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(waits, [0, 0, 5, 10, 20, 40, 80, 160, 300, 300]);
    assert!(control.quarantine.is_empty(), "there is nothing else to run");
    let with_fallback = BootFacts { has_fallback: true, ..facts() };
    control.starts.clear();
    assert_eq!(recover(&mut control, &with_fallback).run, Run::Fallback);
    assert!(control.quarantined("b").is_some());
}

#[test]
fn three_starts_that_died_early_run_the_fallback_under_a_hold() {
    for (has_fallback, expected) in [(true, Run::Fallback), (false, Run::Nothing)] {
        let facts = BootFacts { has_fallback, ..facts() };
        let mut control = with_good();
        for _ in 0..3 {
            assert_eq!(recover(&mut control, &facts).run, Run::LastKnownGood);
            assert_eq!(control.hold, None);
        }
        assert_eq!(recover(&mut control, &facts).run, expected);
        assert_eq!(control.hold.unwrap().by, "agent");
    }
}

#[test]
fn starts_that_came_up_or_are_long_ago_are_no_loop() {
    let mut control = with_good();
    for n in 0..10 {
        let facts = BootFacts { now: NOW.plus(Duration::from_secs(n * 150)), ..facts() };
        assert_eq!(recover(&mut control, &facts).run, Run::LastKnownGood, "{n}");
    }
}

#[test]
fn another_version_of_the_agent_ends_a_deterministic_quarantine() {
    let mut control = in_probation(false, false, "one");
    recover(&mut control, &BootFacts { panic_note: Some("panic"), ..facts() });
    recover(&mut control, &facts());
    assert!(control.quarantined("b").is_some());
    recover(&mut control, &BootFacts { agent_version: "1.0.1", ..facts() });
    assert!(control.quarantined("b").is_none());
}

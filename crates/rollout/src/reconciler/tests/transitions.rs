//! The life of a revision.

use super::*;
use crate::event::EventKind;
use crate::pipeline::Failure;
use crate::settings::{OnInconclusive, RollbackMode};

#[tokio::test(start_paused = true)]
async fn a_good_revision_is_committed_after_its_window() {
    let fixture = Start::new(None).start();
    let mut events = fixture.rollout.events(None);
    fixture.feed.push("git", "r1", "a");
    let status = fixture.in_probation("r1").await;
    assert!(status.in_sync);
    assert_eq!(status.last_known_good, None, "last known good moves on commit only");
    let began = tokio::time::Instant::now();
    let status = fixture.committed("r1").await;
    assert!(began.elapsed() >= Duration::from_secs(119), "{:?}", began.elapsed());
    assert_eq!(status.last_known_good.as_ref().unwrap().generation, Some(1));
    assert_eq!(status.running.as_ref().unwrap().author.as_deref(), Some("ana"));
    let mut kinds = Vec::new();
    kinds.extend(events.missed.iter().map(|event| event.kind));
    while let Ok(event) = events.live.try_recv() {
        kinds.push(event.kind);
    }
    use EventKind::{Committed, Composed, Observed, Planned, Preparing, Swapped, Validated};
    kinds.retain(|kind| *kind != EventKind::Booted);
    assert_eq!(kinds, [Observed, Composed, Validated, Planned, Preparing, Swapped, Committed]);
}

#[tokio::test(start_paused = true)]
async fn what_is_kept_of_the_plan_is_what_was_applied() {
    let fixture = Start::new(None).start();
    let mut events = fixture.rollout.events(None);
    fixture.feed.push("git", "r1", "a");
    fixture.until("prepares", |status| status.phase == Phase::Prepared).await;
    assert_eq!(fixture.rollout.plan().await.unwrap().unwrap().hash, "a");
    fixture.pipeline.move_on(" beside b");
    fixture.in_probation("r1").await;
    assert_eq!(fixture.rollout.plan().await.unwrap().unwrap().hash, "a beside b");
    assert_eq!(fixture.rollout.history().await.unwrap()[0].plan.as_deref(), Some("a beside b"));
    let mut planned: Vec<_> = events.missed.drain(..).collect();
    while let Ok(event) = events.live.try_recv() {
        planned.push(event);
    }
    planned.retain(|event| event.kind == EventKind::Planned);
    assert_eq!(planned.len(), 2, "{planned:?}");
    assert!(planned[1].message.contains("has changed since it was planned"), "{}", planned[1].message);
}

#[tokio::test(start_paused = true)]
async fn a_revision_that_does_not_parse_leaves_everything_as_it_is() {
    let fixture = Start::new(None).start();
    fixture.feed.push("git", "r1", "a");
    fixture.committed("r1").await;
    let before = fixture.pipeline.log();
    fixture.feed.push("git", "r2", "b\nsyntax error");
    let status = fixture.reason("rejected").await;
    assert_eq!(running(&status), "r1");
    let reason = status.reason.clone().unwrap();
    assert_eq!(
        (reason.stage.as_str(), reason.file.as_deref(), reason.line),
        ("validate", Some("main.alloy"), Some(2))
    );
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert_eq!(fixture.pipeline.log(), before, "never tried again");
    assert_eq!(fixture.verdicts().await[0], ("r2".into(), Verdict::Rejected));
    fixture.feed.push("git", "r3", "c");
    fixture.committed("r3").await;
}

#[tokio::test(start_paused = true)]
async fn a_panic_while_checking_is_a_rejection() {
    let fixture = Start::new(None).start();
    fixture.feed.push("git", "r1", "parser panic");
    let status = fixture.reason("rejected").await;
    assert!(status.reason.as_ref().unwrap().message.contains("panicked"));
}

#[tokio::test(start_paused = true)]
async fn a_port_that_is_taken_is_tried_again() {
    let fixture = Start::new(None).start();
    fixture.pipeline.fail_prepare("a", Some(Failure::environment("address in use")));
    fixture.feed.push("git", "r1", "a");
    let status = fixture.reason("rejected").await;
    assert!(status.reason.as_ref().unwrap().until.is_some());
    tokio::time::sleep(Duration::from_secs(120)).await;
    let tries = fixture.pipeline.count("prepare a");
    assert!((4..=12).contains(&tries), "backs off: {tries}");
    fixture.pipeline.fail_prepare("a", None);
    fixture.committed("r1").await;
}

#[tokio::test(start_paused = true)]
async fn content_that_cannot_be_prepared_is_not_tried_again() {
    let fixture = Start::new(None).start();
    fixture.pipeline.fail_prepare("a", Some(Failure::content("two components claim one directory")));
    fixture.feed.push("git", "r1", "a");
    fixture.reason("rejected").await;
    tokio::time::sleep(Duration::from_secs(7200)).await;
    assert_eq!(fixture.pipeline.count("prepare a"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_preparation_that_hangs_is_dropped_after_its_deadline() {
    let fixture = Start::new(None).start();
    fixture.pipeline.hang_prepare("a");
    fixture.feed.push("git", "r1", "a");
    let began = tokio::time::Instant::now();
    let status = fixture.reason("rejected").await;
    assert!(began.elapsed() >= Duration::from_secs(60) && began.elapsed() < Duration::from_secs(62));
    assert!(status.reason.as_ref().unwrap().message.contains("60 s"));
}

#[tokio::test(start_paused = true)]
async fn a_newer_revision_cancels_one_that_is_being_prepared() {
    let fixture = Start::new(None).start();
    fixture.pipeline.hang_prepare("a");
    fixture.feed.push("git", "r1", "a");
    fixture.until("preparing", |status| status.phase == Phase::Prepared).await;
    fixture.feed.push("git", "r2", "b");
    fixture.committed("r2").await;
    assert_eq!(fixture.pipeline.count("cut a"), 0);
    assert!(fixture.verdicts().await.contains(&("r1".into(), Verdict::Superseded)));
}

#[tokio::test(start_paused = true)]
async fn a_cut_that_was_outdated_prepares_again() {
    let fixture = Start::new(None).start();
    fixture.pipeline.outdate(2);
    fixture.feed.push("git", "r1", "a");
    fixture.committed("r1").await;
    assert_eq!(fixture.pipeline.count("prepare a"), 3);
}

#[tokio::test(start_paused = true)]
async fn a_bad_revision_is_undone_and_quarantined_by_content() {
    let fixture = Start::new(None).start();
    fixture.pipeline.bad("b");
    fixture.feed.push("git", "r1", "a");
    fixture.committed("r1").await;
    fixture.feed.push("git", "r2", "b");
    let status = fixture.reason("quarantined").await;
    assert_eq!(fixture.pipeline.running().as_deref(), Some("a"));
    assert_eq!(
        status.running.as_ref().unwrap().generation,
        Some(3),
        "the rollback is a generation of its own"
    );
    assert_eq!(status.last_known_good.as_ref().unwrap().revision, "r1");
    assert_eq!(status.rollback_count, 1);
    assert!(!status.in_sync);
    let entry = &status.quarantined[0];
    assert!(!entry.deterministic && entry.strikes == 1 && entry.stage == "probation");
    assert_eq!(entry.until.unwrap().since(entry.since), Duration::from_secs(1800));
    // A cosmetic recommit carries the same content.
    fixture.feed.push("git", "r3", "// same\nb");
    let status = fixture
        .until("carried", |status| status.quarantined.iter().any(|entry| entry.revisions.len() == 2))
        .await;
    assert_eq!(running(&status), "r1");
    assert_eq!(fixture.pipeline.count("prepare b"), 1);
    // A fix goes through.
    fixture.feed.push("git", "r4", "c");
    fixture.committed("r4").await;
}

#[tokio::test(start_paused = true)]
async fn an_environmental_quarantine_ends_and_its_strikes_stay() {
    let fixture = Start::new(None).start();
    fixture.pipeline.bad("b");
    fixture.feed.push("git", "r1", "a");
    fixture.committed("r1").await;
    fixture.feed.push("git", "r2", "b");
    fixture.reason("quarantined").await;
    let status = fixture
        .until("struck twice", |status| status.quarantined.iter().any(|entry| entry.strikes == 2))
        .await;
    let entry = &status.quarantined[0];
    assert_eq!(entry.until.unwrap().since(entry.since), Duration::from_secs(3600));
    fixture.pipeline.heal("b");
    let status = fixture
        .until("healed", |status| status.last_known_good.as_ref().is_some_and(|good| good.revision == "r2"))
        .await;
    assert!(status.quarantined.is_empty() && status.in_sync);
}

#[tokio::test(start_paused = true)]
async fn a_panic_is_quarantined_without_end() {
    let fixture = Start::new(None).start();
    fixture.pipeline.panicking("b");
    fixture.feed.push("git", "r1", "a");
    fixture.committed("r1").await;
    fixture.feed.push("git", "r2", "b");
    let status = fixture.reason("quarantined").await;
    assert!(status.quarantined[0].deterministic && status.quarantined[0].until.is_none());
}

#[tokio::test(start_paused = true)]
async fn two_bad_revisions_in_a_row_return_to_the_same_good_one() {
    let fixture = Start::new(None).start();
    fixture.pipeline.bad("b");
    fixture.pipeline.bad("c");
    fixture.feed.push("git", "r1", "a");
    fixture.committed("r1").await;
    fixture.feed.push("git", "r2", "b");
    fixture.in_probation("r2").await;
    fixture.feed.push("git", "r3", "c");
    let status = fixture
        .until("c quarantined", |status| {
            status.quarantined.iter().any(|entry| entry.revisions.contains(&"r3".to_owned()))
        })
        .await;
    assert_eq!((running(&status), fixture.pipeline.running().as_deref()), ("r1", Some("a")));
}

#[tokio::test(start_paused = true)]
async fn a_newer_revision_supersedes_one_in_probation_and_good_does_not_move() {
    let fixture = Start::new(None).start();
    fixture.feed.push("git", "r1", "a");
    fixture.committed("r1").await;
    fixture.feed.push("git", "r2", "b");
    fixture.in_probation("r2").await;
    fixture.feed.push("git", "r3", "c");
    let status = fixture.in_probation("r3").await;
    assert_eq!(status.last_known_good.as_ref().unwrap().revision, "r1");
    assert_eq!(fixture.pipeline.count("commit b"), 0);
    assert!(fixture.verdicts().await.contains(&("r2".into(), Verdict::Superseded)));
    fixture.committed("r3").await;
}

#[tokio::test(start_paused = true)]
async fn a_revert_during_probation_returns_at_once_and_condemns_nothing() {
    let fixture = Start::new(None).start();
    fixture.feed.push("git", "r1", "a");
    fixture.committed("r1").await;
    fixture.feed.push("git", "r2", "b");
    fixture.in_probation("r2").await;
    fixture.feed.push("git", "r3", "a");
    let status =
        fixture.until("reverted", |status| running(status) == "r3" && status.probation.is_none()).await;
    assert!(status.quarantined.is_empty() && status.in_sync);
    assert_eq!(status.rollback_count, 0);
    assert_eq!(fixture.pipeline.count("prepare a"), 1, "the retained states are published, nothing is built");
}

#[tokio::test(start_paused = true)]
async fn the_same_content_under_another_revision_is_not_swapped() {
    let fixture = Start::new(None).start();
    fixture.feed.push("git", "r1", "a");
    fixture.committed("r1").await;
    fixture.feed.push("git", "r2", "// a comment\na");
    let status = fixture.until("advanced", |status| running(status) == "r2").await;
    assert!(status.in_sync);
    assert_eq!(fixture.pipeline.count("cut a"), 1);
    assert_eq!(fixture.verdicts().await[0], ("r2".into(), Verdict::NoEffectiveChange));
}

#[tokio::test(start_paused = true)]
async fn three_bad_contents_open_the_breaker_and_a_revert_passes_it() {
    let fixture = Start::new(None).start();
    for bad in ["b", "c", "d"] {
        fixture.pipeline.bad(bad);
    }
    fixture.feed.push("git", "r0", "z");
    fixture.committed("r0").await;
    fixture.feed.push("git", "r1", "a");
    fixture.committed("r1").await;
    for (revision, text) in [("r2", "b"), ("r3", "c"), ("r4", "d")] {
        fixture.feed.push("git", revision, text);
        fixture
            .until(revision, |status| {
                status.quarantined.iter().any(|entry| entry.revisions.contains(&revision.to_owned()))
            })
            .await;
    }
    fixture.feed.push("git", "r5", "e");
    let status = fixture.reason("flapping").await;
    assert_eq!(running(&status), "r1");
    assert!(status.reason.as_ref().unwrap().until.is_some());
    fixture.feed.push("git", "r6", "z");
    fixture.in_probation("r6").await;
    fixture.committed("r6").await;
    fixture.feed.push("git", "r7", "e");
    fixture.committed("r7").await;
}

#[tokio::test(start_paused = true)]
async fn several_sources_are_composed_once_they_are_quiet() {
    let feed = ScriptedFeed::new(&[("one", true, false), ("two", true, false), ("extra", false, false)]);
    let fixture = Start { feed, ..Start::new(None) }.start();
    fixture.feed.push("one", "o1", "a");
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(fixture.rollout.status().desired, None, "a required source is missing");
    fixture.feed.push("two", "t1", "b");
    tokio::time::sleep(Duration::from_millis(100)).await;
    fixture.feed.push("extra", "e1", "c");
    let status = fixture.committed("o1 + t1 + e1").await;
    assert!(status.in_sync);
    assert_eq!(fixture.pipeline.log().iter().filter(|line| line.starts_with("prepare")).count(), 1);
}

#[tokio::test(start_paused = true)]
async fn applies_keep_their_distance() {
    let settings = RolloutSettings { min_gap: Duration::from_secs(600), ..RolloutSettings::default() };
    let fixture = Start { settings, ..Start::new(None) }.start();
    fixture.feed.push("git", "r1", "a");
    fixture.in_probation("r1").await;
    let began = tokio::time::Instant::now();
    fixture.feed.push("git", "r2", "b");
    fixture.feed.push("git", "r3", "c");
    fixture.in_probation("r3").await;
    assert!(began.elapsed() >= Duration::from_secs(599), "{:?}", began.elapsed());
    assert_eq!(fixture.pipeline.count("prepare b"), 0, "coalesced to the newest");
}

#[tokio::test(start_paused = true)]
async fn without_a_window_a_swap_is_a_commit() {
    let mut settings = RolloutSettings::default();
    settings.probation.window = Duration::ZERO;
    let fixture = Start { settings, ..Start::new(None) }.start();
    fixture.feed.push("git", "r1", "a");
    let began = tokio::time::Instant::now();
    fixture.committed("r1").await;
    assert!(began.elapsed() < Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn manual_rollback_mode_reports_and_waits() {
    let mut settings = RolloutSettings { rollback: RollbackMode::Manual, ..RolloutSettings::default() };
    settings.probation.on_inconclusive = OnInconclusive::Hold;
    let fixture = Start { settings, ..Start::new(None) }.start();
    fixture.pipeline.bad("b");
    fixture.feed.push("git", "r1", "a");
    fixture.committed("r1").await;
    fixture.feed.push("git", "r2", "b");
    fixture.reason("failed").await;
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert_eq!(fixture.pipeline.running().as_deref(), Some("b"));
    fixture.rollout.rollback(None, "ana", "it fails").await.unwrap();
    assert_eq!(fixture.pipeline.running().as_deref(), Some("a"));
}

#[tokio::test(start_paused = true)]
async fn a_source_without_pipeline_files_is_refused_and_what_runs_stays() {
    let feed = ScriptedFeed::new(&[("git", true, true), ("extra", false, true)]);
    let fixture = Start { feed, ..Start::new(None) }.start();
    fixture.feed.push("git", "r1", "a");
    fixture.committed("r1").await;
    fixture.feed.push_files("git", "r2", &[("readme.md", "x"), ("notes.md", "y")]);
    let status = fixture.reason("rejected").await;
    assert_eq!(status.reason.as_ref().unwrap().stage, "compose");
    assert_eq!(fixture.pipeline.running().as_deref(), Some("a"));
}

#[tokio::test(start_paused = true)]
async fn a_full_disk_refuses_new_revisions_and_keeps_the_pipeline() {
    let directory = tempfile::tempdir().unwrap();
    let fixture = Start::new(Some(directory.path())).start();
    fixture.feed.push("git", "r1", "a");
    fixture.committed("r1").await;
    assert!(directory.path().join("ballast").exists());
    fixture.faults.set_files_full(true);
    fixture.feed.push("git", "r2", "b");
    let status = fixture.reason("persist_failed").await;
    assert_eq!(running(&status), "r1");
    assert!(!directory.path().join("ballast").exists(), "released, so that the refusal can be journalled");
    assert_eq!(fixture.pipeline.count("prepare b"), 0);
    fixture.faults.set_files_full(false);
    fixture.committed("r2").await;
}

#[tokio::test(start_paused = true)]
async fn a_commit_that_cannot_be_written_stays_in_probation() {
    let directory = tempfile::tempdir().unwrap();
    let fixture = Start::new(Some(directory.path())).start();
    fixture.feed.push("git", "r1", "a");
    fixture.committed("r1").await;
    fixture.feed.push("git", "r2", "b");
    fixture.in_probation("r2").await;
    fixture.faults.set_heads_fail(true);
    let status = fixture.reason("persist_failed").await;
    assert_eq!(status.last_known_good.as_ref().unwrap().revision, "r1");
    assert_eq!(fixture.pipeline.count("commit b"), 0, "last known good stays parked");
    fixture.faults.set_heads_fail(false);
    fixture.committed("r2").await;
}

#[tokio::test(start_paused = true)]
async fn a_rollback_does_not_wait_for_the_disk() {
    let directory = tempfile::tempdir().unwrap();
    let fixture = Start::new(Some(directory.path())).start();
    fixture.pipeline.bad("b");
    fixture.feed.push("git", "r1", "a");
    fixture.committed("r1").await;
    fixture.feed.push("git", "r2", "b");
    fixture.in_probation("r2").await;
    fixture.faults.set_heads_fail(true);
    let status = fixture.until("rolled back", |status| running(status) == "r1").await;
    assert_eq!(fixture.pipeline.running().as_deref(), Some("a"));
    assert_eq!(status.quarantined.len(), 1);
    fixture.faults.set_heads_fail(false);
    tokio::time::sleep(Duration::from_secs(10)).await;
    drop(fixture);
    let control = crate::state::newest_control(directory.path()).unwrap();
    assert_eq!((control.probation, control.quarantine.len()), (None, 1), "written once it could be");
}

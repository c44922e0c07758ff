//! Kill at every durable step, then start again from what the disk holds.

use super::*;
use crate::state::newest_control;

/// A runtime of its own: dropping it ends every task at once, as a kill would.
pub(super) fn in_a_process<T>(work: impl Future<Output = T>) -> T {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(work)
}

/// A life: a good revision, a bad one, a good one; ends early when the disk is dead.
async fn life(fixture: &Fixture) {
    let story = async {
        fixture.feed.push("git", "r1", "a");
        fixture.committed("r1").await;
        fixture.feed.push("git", "r2", "bad");
        fixture.reason("quarantined").await;
        fixture.feed.push("git", "r3", "c");
        fixture.in_probation("r3").await;
        fixture.committed("r3").await;
    };
    let death = async {
        while !fixture.faults.is_dead() {
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
    };
    tokio::select! {
        () = story => {}
        () = death => {}
    }
}

fn pipeline_with_bad() -> Arc<ScriptedPipeline> {
    let pipeline = Arc::<ScriptedPipeline>::default();
    pipeline.bad("bad");
    pipeline
}

#[test]
fn whatever_step_the_process_dies_at_the_next_one_does_what_the_table_says() {
    let reference = tempfile::tempdir().unwrap();
    let points = in_a_process(async {
        let fixture = Start { pipeline: pipeline_with_bad(), ..Start::new(Some(reference.path())) }.start();
        life(&fixture).await;
        fixture.faults.reached()
    });
    assert!(points.len() > 20, "{points:?}");
    for boot_id in ["boot-1", "boot-2"] {
        for (n, point) in points.iter().enumerate() {
            let directory = tempfile::tempdir().unwrap();
            in_a_process(async {
                let start = Start {
                    pipeline: pipeline_with_bad(),
                    kill_at: Some(n),
                    ..Start::new(Some(directory.path()))
                };
                let fixture = start.start();
                life(&fixture).await;
            });
            check_next_start(
                directory.path(),
                boot_id,
                &format!("killed at {point} ({n}), started under {boot_id}"),
            );
        }
    }
}

/// One row of the recovery table, chosen by what the disk holds.
fn check_next_start(directory: &Path, boot_id: &str, case: &str) {
    let found = newest_control(directory).unwrap_or_default();
    let good = found.last_known_good.as_ref().map(|good| good.revision.clone());
    let mark = found.probation.clone();
    let resumes = mark.as_ref().is_some_and(|mark| mark.clean || mark.boot_id != boot_id || good.is_none());
    let expected = match &mark {
        Some(mark) if resumes => Some(mark.candidate.revision.clone()),
        _ => good,
    };
    in_a_process(async {
        let start = Start {
            boot_id,
            pipeline: pipeline_with_bad(),
            now: 1_790_000_600_000,
            ..Start::new(Some(directory))
        };
        let fixture = start.start();
        // No source answers: what runs comes from the disk.
        if let Some(expected) = &expected {
            fixture.until(&format!("{case}: runs {expected}"), |status| running(status) == expected).await;
        } else {
            tokio::time::sleep(Duration::from_secs(1)).await;
            assert_eq!(fixture.pipeline.running(), None, "{case}");
        }
        let status = fixture.rollout.status();
        assert_ne!(
            fixture.rollout.status().last_known_good.as_ref().map(|good| good.revision.as_str()),
            Some("r2"),
            "{case}"
        );
        if let Some(intent) = &found.intent {
            let control = newest_control(directory).unwrap();
            assert_eq!(control.strikes[&intent.digest].prepare_deaths, 1, "{case}: the intent is struck");
            assert_eq!(control.intent, None, "{case}");
        }
        if let Some(mark) = &mark {
            let quarantined = status.quarantined.iter().any(|entry| entry.digest == mark.candidate.digest);
            assert_eq!(quarantined, !resumes, "{case}: died under {}", mark.candidate.revision);
        }
        for stale in fixture.rollout.history().await.unwrap() {
            let open = mark.as_ref().filter(|_| resumes).map(|mark| mark.candidate.revision.as_str());
            if stale.verdict == Verdict::Pending {
                assert_eq!(Some(stale.revision.as_str()), open, "{case}: a record without verdict");
            }
        }
        // The sources answer again: it converges, and the generations go on.
        let last = found.last_generation;
        fixture.feed.push("git", "r4", "d");
        let status = fixture.committed("r4").await;
        assert!(
            status.running.as_ref().unwrap().generation.unwrap() > last,
            "{case}: a generation was used twice"
        );
        assert_eq!(fixture.pipeline.running().as_deref(), Some("d"), "{case}");
    });
}

#[test]
fn a_clean_stop_resumes_the_probation_on_top_of_last_known_good() {
    let directory = tempfile::tempdir().unwrap();
    in_a_process(async {
        let fixture = Start::new(Some(directory.path())).start();
        fixture.feed.push("git", "r1", "a");
        fixture.committed("r1").await;
        fixture.feed.push("git", "r2", "b");
        fixture.in_probation("r2").await;
        fixture.rollout.shutdown().await;
    });
    let mark = newest_control(directory.path()).unwrap().probation.unwrap();
    assert!(mark.clean && !mark.resumed);
    in_a_process(async {
        let fixture = Start::new(Some(directory.path())).start();
        let status = fixture.in_probation("r2").await;
        assert_eq!(status.last_known_good.as_ref().unwrap().revision, "r1");
        assert_eq!(status.running.as_ref().unwrap().generation, Some(2), "the same generation goes on");
        let log = fixture.pipeline.log();
        assert_eq!(log, ["prepare a", "retain a", "prepare b", "cut b"]);
        let mark = newest_control(directory.path()).unwrap().probation.unwrap();
        assert!(!mark.clean && mark.resumed, "durable before anything starts");
        fixture.committed("r2").await;
    });
}

#[test]
fn a_resumed_candidate_that_kills_the_process_is_quarantined() {
    let directory = tempfile::tempdir().unwrap();
    in_a_process(async {
        let fixture = Start::new(Some(directory.path())).start();
        fixture.feed.push("git", "r1", "a");
        fixture.committed("r1").await;
        fixture.feed.push("git", "r2", "b");
        fixture.in_probation("r2").await;
        fixture.rollout.shutdown().await;
    });
    in_a_process(async {
        let fixture = Start::new(Some(directory.path())).start();
        fixture.in_probation("r2").await;
        std::fs::write(directory.path().join("panic-note"), "panic at src/x.rs:1:1 in thread main").unwrap();
    });
    in_a_process(async {
        let fixture = Start::new(Some(directory.path())).start();
        let status = fixture.until("good runs", |status| running(status) == "r1").await;
        assert!(status.quarantined[0].deterministic, "a panic note says that the content is the cause");
        assert_eq!(status.running.as_ref().unwrap().generation, Some(3));
        let verdicts = fixture.verdicts().await;
        assert!(verdicts.contains(&("r2".into(), Verdict::RolledBack)), "{verdicts:?}");
    });
}

#[test]
fn both_heads_bad_runs_the_newest_committed_manifest_that_verifies() {
    let directory = tempfile::tempdir().unwrap();
    in_a_process(async {
        let fixture = Start::new(Some(directory.path())).start();
        fixture.feed.push("git", "r1", "a");
        fixture.committed("r1").await;
        fixture.feed.push("git", "r2", "b");
        fixture.committed("r2").await;
    });
    for head in ["head-0", "head-1"] {
        let path = directory.path().join(head);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[100] ^= 0x40;
        std::fs::write(path, bytes).unwrap();
    }
    in_a_process(async {
        let fixture = Start::new(Some(directory.path())).start();
        fixture.until("newest committed", |status| running(status) == "r2").await;
    });
    // Rot in its content: the next older one runs.
    let rotten = directory.path().join("cas").join(blob_path("b"));
    std::fs::write(rotten, "rot").unwrap();
    in_a_process(async {
        let fixture = Start::new(Some(directory.path())).start();
        fixture.until("next older", |status| running(status) == "r1").await;
        // Fetching again heals the blob.
        fixture.feed.push("git", "r2", "b");
        fixture.committed("r2").await;
    });
    in_a_process(async {
        let fixture = Start::new(Some(directory.path())).start();
        fixture.until("healed", |status| running(status) == "r2").await;
    });
}

fn blob_path(text: &str) -> String {
    let name = crate::state::manifest_sha256(text.as_bytes());
    format!("{}/{name}", &name[..2])
}

#[test]
fn a_rotten_manifest_is_healed_from_its_other_copy() {
    let directory = tempfile::tempdir().unwrap();
    in_a_process(async {
        let fixture = Start::new(Some(directory.path())).start();
        fixture.feed.push("git", "r1", "a");
        fixture.committed("r1").await;
    });
    let name = newest_control(directory.path()).unwrap().last_known_good.unwrap().manifest;
    let path = directory.path().join("cas").join(&name[..2]).join(&name);
    std::fs::write(&path, "rot").unwrap();
    in_a_process(async {
        let fixture = Start::new(Some(directory.path())).start();
        fixture.until("good runs", |status| running(status) == "r1").await;
    });
    assert_eq!(crate::state::manifest_sha256(&std::fs::read(path).unwrap()), name);
}

#[test]
fn a_cold_start_without_sources_runs_the_fallback_and_leaves_it_for_a_real_revision() {
    let directory = tempfile::tempdir().unwrap();
    let fallback = directory.path().join("fallback.alloy");
    std::fs::write(&fallback, "f").unwrap();
    in_a_process(async {
        let settings = RolloutSettings { fallback: Some(fallback.clone()), ..RolloutSettings::default() };
        let fixture = Start { settings, ..Start::new(Some(&directory.path().join("state"))) }.start();
        let began = tokio::time::Instant::now();
        let status = fixture.until("fallback", |status| running(status).starts_with("fallback:")).await;
        assert!(began.elapsed() >= Duration::from_secs(59));
        assert_eq!(status.health, crate::status::OverallHealth::Degraded);
        fixture.pipeline.bad("bad");
        fixture.feed.push("git", "r1", "bad");
        let status = fixture.until("back", |status| !status.quarantined.is_empty()).await;
        assert!(
            running(&status).starts_with("fallback:"),
            "hard rules stop it even without a last known good"
        );
        assert_eq!(fixture.pipeline.running().as_deref(), Some("f"));
        fixture.feed.push("git", "r2", "a");
        fixture.committed("r2").await;
    });
}

#[test]
fn a_first_candidate_that_kills_the_process_is_tried_three_times_then_the_fallback_runs() {
    let directory = tempfile::tempdir().unwrap();
    let fallback = directory.path().join("fallback.alloy");
    std::fs::write(&fallback, "f").unwrap();
    let state = directory.path().join("state");
    let start = |now| Start {
        settings: RolloutSettings { fallback: Some(fallback.clone()), ..RolloutSettings::default() },
        now,
        ..Start::new(Some(&state))
    };
    for n in 0..3 {
        in_a_process(async {
            let fixture = start(1_790_000_000_000 + n * 1_000_000).start();
            fixture.feed.push("git", "r1", "a");
            fixture.in_probation("r1").await;
        });
    }
    in_a_process(async {
        let fixture = start(1_790_009_000_000).start();
        let status = fixture.until("fallback", |status| running(status).starts_with("fallback:")).await;
        assert_eq!(status.quarantined.len(), 1);
    });
}

#[test]
fn a_state_directory_that_cannot_be_written_is_memory_only() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    std::fs::write(&file, "").unwrap();
    in_a_process(async {
        let fixture = Start::new(Some(&file.join("state"))).start();
        fixture.feed.push("git", "r1", "a");
        let status = fixture.committed("r1").await;
        assert!(!status.offline_boot);
        fixture.feed.push("git", "r2", "b");
        fixture.committed("r2").await;
        assert_eq!(fixture.rollout.rollback(Some(1), "ana", "from memory").await, Ok(3));
    });
}

//! What operators ask for.

use super::*;
use crate::handle::RolloutError;
use crate::pipeline::Failure;

#[tokio::test(start_paused = true)]
async fn a_hold_stops_applying_and_lets_go() {
    let fixture = Start::new(None).start();
    fixture.feed.push("git", "r1", "a");
    fixture.committed("r1").await;
    fixture.rollout.hold("ana", "release freeze", None).await.unwrap();
    fixture.feed.push("git", "r2", "b");
    let status = fixture.reason("held").await;
    assert_eq!((running(&status), status.phase), ("r1", Phase::Held));
    assert!(fixture.rollout.plan().await.unwrap().is_some(), "fetched, checked and planned");
    assert!(fixture.rollout.unhold("ana").await.unwrap());
    fixture.committed("r2").await;
    assert!(!fixture.rollout.unhold("ana").await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn a_hold_ends_by_itself() {
    let fixture = Start::new(None).start();
    fixture.feed.push("git", "r1", "a");
    let now = fixture.committed("r1").await.last_known_good.as_ref().unwrap().since;
    fixture.rollout.hold("ana", "lunch", Some(now.plus(Duration::from_secs(3000)))).await.unwrap();
    fixture.feed.push("git", "r2", "b");
    fixture.reason("held").await;
    let status = fixture.committed("r2").await;
    assert!(status.hold.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_rollback_goes_to_a_committed_generation_and_holds_it() {
    let directory = tempfile::tempdir().unwrap();
    let fixture = Start::new(Some(directory.path())).start();
    for (revision, text) in [("r1", "a"), ("r2", "b"), ("r3", "c")] {
        fixture.feed.push("git", revision, text);
        fixture.committed(revision).await;
    }
    assert_eq!(fixture.rollout.rollback(Some(1), "ana", "b is worse").await, Ok(4));
    assert_eq!(fixture.pipeline.running().as_deref(), Some("a"));
    let status = fixture.reason("held").await;
    assert_eq!(status.hold.as_ref().unwrap().by, "ana");
    let status = fixture
        .until("good", |status| {
            status.last_known_good.as_ref().is_some_and(|good| good.generation == Some(4))
        })
        .await;
    assert_eq!(running(&status), "r1");
    // The desired revision becomes the held one: the hold has done its work.
    fixture.feed.push("git", "r4", "a");
    let status = fixture.until("lifted", |status| status.in_sync && status.hold.is_none()).await;
    assert_eq!(running(&status), "r4");
}

#[tokio::test(start_paused = true)]
async fn a_rollback_that_cannot_be_prepared_sets_no_hold() {
    let fixture = Start::new(None).start();
    fixture.feed.push("git", "r1", "a");
    fixture.committed("r1").await;
    fixture.feed.push("git", "r2", "b");
    fixture.committed("r2").await;
    fixture.pipeline.fail_prepare("a", Some(Failure::environment("port taken")));
    let refused = fixture.rollout.rollback(None, "ana", "try").await;
    assert!(matches!(&refused, Err(RolloutError::Refused(why)) if why.contains("port taken")), "{refused:?}");
    assert_eq!(fixture.rollout.status().hold, None);
    assert_eq!(fixture.pipeline.running().as_deref(), Some("b"));
    let missing = fixture.rollout.rollback(Some(99), "ana", "try").await;
    assert!(matches!(missing, Err(RolloutError::NotFound(_))));
}

#[tokio::test(start_paused = true)]
async fn a_rollback_during_probation_is_immediate() {
    let fixture = Start::new(None).start();
    fixture.feed.push("git", "r1", "a");
    fixture.committed("r1").await;
    fixture.feed.push("git", "r2", "b");
    fixture.in_probation("r2").await;
    assert_eq!(fixture.rollout.rollback(None, "ana", "looks odd").await, Ok(3));
    assert_eq!(fixture.pipeline.running().as_deref(), Some("a"));
    assert_eq!(fixture.pipeline.count("prepare a"), 1, "nothing is built");
    let status = fixture.reason("held").await;
    assert!(status.quarantined.is_empty(), "an operator's rollback is not a quarantine");
    fixture.rollout.unhold("ana").await.unwrap();
    fixture.committed("r2").await;
}

#[tokio::test(start_paused = true)]
async fn a_quarantine_is_retried_and_cleared_by_hand() {
    let fixture = Start::new(None).start();
    fixture.pipeline.panicking("b");
    fixture.feed.push("git", "r1", "a");
    fixture.committed("r1").await;
    fixture.feed.push("git", "r2", "b");
    let status = fixture.reason("quarantined").await;
    assert!(fixture.rollout.quarantine_retry("nothing").await.is_err());
    let released = fixture.rollout.quarantine_retry(&status.quarantined[0].digest[..12]).await.unwrap();
    assert_eq!(released[0].revisions, ["r2"]);
    let status = fixture
        .until("struck twice", |status| status.quarantined.iter().any(|entry| entry.strikes == 2))
        .await;
    assert_eq!(running(&status), "r1");
    fixture.rollout.quarantine_clear(Some("r2")).await.unwrap();
    let status = fixture
        .until("struck once", |status| status.quarantined.iter().any(|entry| entry.strikes == 1))
        .await;
    assert_eq!(running(&status), "r1");
}

#[tokio::test(start_paused = true)]
async fn reconcile_waits_until_the_verdict() {
    let fixture = Start::new(None).start();
    fixture.feed.push("git", "r1", "a");
    let status = fixture.rollout.reconcile(&[], "a test", Duration::from_secs(600)).await.unwrap();
    assert_eq!((status.phase, running(&status)), (Phase::Committed, "r1"));
    fixture.feed.push("git", "r2", "b");
    assert_eq!(
        fixture.rollout.reconcile(&[], "a test", Duration::from_secs(5)).await,
        Err(RolloutError::TimedOut)
    );
    let unknown = fixture.rollout.reconcile(&["nope".into()], "a test", Duration::from_secs(5)).await;
    assert!(matches!(unknown, Err(RolloutError::NotFound(_))));
}

#[tokio::test(start_paused = true)]
async fn a_request_is_not_waited_for_and_knows_its_sources() {
    let fixture = Start::new(None).start();
    fixture.feed.push("git", "r1", "a");
    fixture.in_probation("r1").await;
    let began = tokio::time::Instant::now();
    fixture.rollout.request(&["git".into()], "SIGHUP").await.unwrap();
    assert!(began.elapsed() < Duration::from_millis(5));
    let unknown = fixture.rollout.request(&["nope".into()], "SIGHUP").await;
    assert!(matches!(unknown, Err(RolloutError::NotFound(_))));
}

#[tokio::test(start_paused = true)]
async fn after_shutdown_requests_are_refused() {
    let fixture = Start::new(None).start();
    fixture.feed.push("git", "r1", "a");
    fixture.in_probation("r1").await;
    fixture.rollout.shutdown().await;
    assert_eq!(fixture.rollout.history().await, Err(RolloutError::Stopped));
}

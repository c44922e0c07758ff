//! What was stored under another policy of trust than there is now.

use super::crashes::in_a_process;
use super::*;

/// Two committed revisions on disk.
fn two_revisions(directory: &Path) {
    in_a_process(async {
        let fixture = Start::new(Some(directory)).start();
        fixture.feed.push("git", "r1", "a");
        fixture.committed("r1").await;
        fixture.feed.push("git", "r2", "b");
        fixture.committed("r2").await;
    });
}

#[test]
fn a_stored_revision_that_is_not_trusted_any_more_does_not_run_at_a_start() {
    let directory = tempfile::tempdir().unwrap();
    two_revisions(directory.path());
    in_a_process(async {
        let start = Start::new(Some(directory.path()));
        start.feed.distrust("r2", true);
        let fixture = start.start();
        fixture.until("an older one runs", |status| running(status) == "r1").await;
        assert_eq!(fixture.pipeline.running().as_deref(), Some("a"));
    });
    // Nor does anything where nothing is trusted.
    in_a_process(async {
        let start = Start::new(Some(directory.path()));
        start.feed.distrust("r1", true);
        start.feed.distrust("r2", true);
        let fixture = start.start();
        let says = |status: &Status| {
            status.reason.as_ref().is_some_and(|reason| reason.message.contains("whom to trust changed"))
        };
        fixture.until("it says why nothing runs", says).await;
        assert_eq!(fixture.pipeline.running(), None);
        fixture.feed.push("git", "r3", "c");
        fixture.committed("r3").await;
    });
}

#[test]
fn a_doubt_is_said_and_the_revision_runs() {
    let directory = tempfile::tempdir().unwrap();
    two_revisions(directory.path());
    in_a_process(async {
        let start = Start::new(Some(directory.path()));
        start.feed.distrust("r2", false);
        let fixture = start.start();
        fixture.until("it runs", |status| running(status) == "r2").await;
        let events = fixture.rollout.events(None);
        let said = |event: &Arc<crate::event::Event>| event.message.contains("whom to trust changed");
        assert!(events.missed.iter().any(said), "{:?}", events.missed);
    });
}

#[tokio::test(start_paused = true)]
async fn nobody_rolls_back_to_what_is_not_trusted() {
    let fixture = Start::new(None).start();
    fixture.feed.push("git", "r1", "a");
    fixture.committed("r1").await;
    fixture.feed.push("git", "r2", "b");
    fixture.committed("r2").await;
    fixture.feed.distrust("r1", true);
    let refused = fixture.rollout.rollback(Some(1), "ana", "try").await.unwrap_err();
    assert!(refused.to_string().contains("whom to trust changed"), "{refused}");
    assert_eq!(fixture.pipeline.running().as_deref(), Some("b"));
}

//! Modules: candidates with a life of their own.

use super::*;
use crate::pipeline::Failure;

const IMPORT: &str = "import.http \"net\" { url = \"http://modules/net\" }";

fn root(text: &str) -> String {
    format!("{text}\n{IMPORT}")
}

/// `a` with the module `m1` is committed.
async fn begun(directory: Option<&Path>) -> Fixture {
    let fixture = Start::new(directory).start();
    fixture.feed.push("git", "r1", &root("a"));
    fixture.modules.push("net", "v1", "m1");
    fixture.committed("r1").await;
    assert_eq!(fixture.pipeline.running().as_deref(), Some("a[m1]"));
    fixture
}

fn error_of(status: &Status) -> Option<String> {
    let module = status.sources.iter().find(|source| source.name == "import.http.net").unwrap();
    module.error.as_ref().map(|error| format!("{}: {}", error.class, error.message))
}

#[tokio::test(start_paused = true)]
async fn a_configuration_waits_for_a_module_it_never_had() {
    let fixture = Start::new(None).start();
    fixture.feed.push("git", "r1", &root("a"));
    let waits =
        |status: &Status| status.reason.as_ref().is_some_and(|reason| reason.message.contains("\"net\""));
    let status = fixture.until("it waits", waits).await;
    assert_eq!(status.reason.as_ref().unwrap().kind, "waiting");
    assert_eq!((status.phase, running(&status)), (Phase::Fetched, "nothing"));
    assert_eq!(fixture.modules.followed(), ["net"]);
    fixture.modules.fail("net", Failure::environment("no route"));
    let status = fixture.reason("rejected").await;
    let reason = status.reason.clone().unwrap();
    assert_eq!((reason.stage.as_str(), reason.line), ("fetch", Some(1)), "{reason:?}");
    assert!(reason.message.contains("\"net\"") && reason.message.contains("no route"), "{reason:?}");
    let rejections = fixture.verdicts().await.len();
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(fixture.verdicts().await.len(), rejections, "the same failure is told once");
    fixture.modules.push("net", "v1", "m1");
    let status = fixture.in_probation("r1").await;
    assert!(status.in_sync && status.reason.is_none(), "{status:#?}");
    assert_eq!(fixture.pipeline.running().as_deref(), Some("a[m1]"));
}

#[tokio::test(start_paused = true)]
async fn a_module_that_moves_is_a_candidate_and_the_revision_names_it() {
    let fixture = begun(None).await;
    fixture.modules.push("net", "v2", "m2");
    let status = fixture.committed("r1 + net=v2").await;
    assert_eq!(fixture.pipeline.running().as_deref(), Some("a[m2]"));
    assert!(status.in_sync, "{status:#?}");
    // Another revision of the same content is nothing new.
    let cuts = fixture.pipeline.log().len();
    fixture.modules.push("net", "v3", "m2");
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(fixture.pipeline.log().len(), cuts);
    assert_eq!(running(&fixture.rollout.status()), "r1 + net=v2");
    fixture.feed.push("git", "r2", &root("b"));
    fixture.committed("r2").await;
    assert_eq!(fixture.pipeline.running().as_deref(), Some("b[m2]"));
}

#[tokio::test(start_paused = true)]
async fn a_bad_module_stays_out_and_blocks_nobody() {
    let fixture = begun(None).await;
    let before = fixture.pipeline.log();
    fixture.modules.push("net", "v2", "syntax error");
    let status = fixture.reason("rejected").await;
    let reason = status.reason.clone().unwrap();
    assert_eq!((reason.file.as_deref(), reason.line), (Some("net.alloy"), Some(7)), "{reason:?}");
    assert!(reason.message.contains("net=v2") && reason.message.contains("unexpected token"), "{reason:?}");
    assert!(!status.in_sync, "{status:#?}");
    assert_eq!((running(&status), status.phase), ("r1", Phase::Committed));
    assert_eq!(status.desired.as_ref().unwrap().revision, "r1 + net=v2");
    assert!(error_of(&status).unwrap().contains("net.alloy:7"), "{status:#?}");
    assert_eq!(fixture.pipeline.log(), before, "nothing was even prepared");
    assert_eq!(fixture.verdicts().await[0], ("r1 + net=v2".into(), Verdict::Rejected));

    // Somebody else's change goes through, with the module as it was.
    fixture.feed.push("git", "r2", &root("b"));
    let status = fixture.committed("r2").await;
    assert_eq!(fixture.pipeline.running().as_deref(), Some("b[m1]"));
    assert!(!status.in_sync && status.reason.as_ref().unwrap().file.as_deref() == Some("net.alloy"));

    fixture.modules.push("net", "v3", "m3");
    let status = fixture.committed("r2 + net=v3").await;
    assert!(status.in_sync && status.reason.is_none(), "{status:#?}");
    assert_eq!(error_of(&status), None);
}

#[tokio::test(start_paused = true)]
async fn a_module_that_breaks_those_who_use_it_stays_out_too() {
    let fixture = begun(None).await;
    // The error shows in a file of the root; the root is what it was.
    fixture.modules.push("net", "v2", "invalid for its users");
    let status = fixture.reason("rejected").await;
    assert!(status.reason.as_ref().unwrap().message.contains("net=v2"), "{status:#?}");
    fixture.feed.push("git", "r2", &root("b"));
    fixture.committed("r2").await;
    assert_eq!(fixture.pipeline.running().as_deref(), Some("b[m1]"));
}

#[tokio::test(start_paused = true)]
async fn a_bad_root_is_not_blamed_on_the_module_that_moved_with_it() {
    let fixture = begun(None).await;
    fixture.feed.push("git", "r2", &root("invalid"));
    fixture.modules.push("net", "v2", "m2");
    let status = fixture.reason("rejected").await;
    assert!(!status.reason.as_ref().unwrap().message.contains("net=v2"), "{status:#?}");
    assert_eq!(running(&status), "r1");
    fixture.feed.push("git", "r3", &root("c"));
    fixture
        .until("the next one runs with both", |_| fixture.pipeline.running().as_deref() == Some("c[m2]"))
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_module_that_cannot_be_prepared_does_not_keep_the_root_back() {
    let fixture = begun(None).await;
    fixture.pipeline.fail_prepare("b[m2]", Some(Failure::content("no such option")));
    fixture.feed.push("git", "r2", &root("b"));
    fixture.modules.push("net", "v2", "m2");
    let status = fixture.committed("r2").await;
    assert_eq!(fixture.pipeline.running().as_deref(), Some("b[m1]"));
    assert!(status.reason.as_ref().unwrap().message.contains("no such option"), "{status:#?}");
    // Under another root it is tried again.
    fixture.feed.push("git", "r3", &root("c"));
    fixture.until("it runs", |_| fixture.pipeline.running().as_deref() == Some("c[m2]")).await;
}

#[tokio::test(start_paused = true)]
async fn a_module_that_is_bad_after_the_swap_is_undone_and_quarantined_by_itself() {
    let fixture = begun(None).await;
    fixture.pipeline.bad("a[m2]");
    fixture.pipeline.bad("b[m2]");
    fixture.modules.push("net", "v2", "m2");
    let status = fixture.reason("quarantined").await;
    assert_eq!((running(&status), status.rollback_count), ("r1", 1), "{status:#?}");
    assert!(!status.in_sync && status.quarantined[0].revisions == ["r1 + net=v2"], "{status:#?}");
    assert!(error_of(&status).unwrap().starts_with("quarantined"), "{status:#?}");
    // Under another root it is not tried either.
    fixture.feed.push("git", "r2", &root("b"));
    fixture.committed("r2").await;
    assert_eq!(fixture.pipeline.running().as_deref(), Some("b[m1]"));
    assert_eq!(fixture.rollout.status().rollback_count, 1);
    // An operator lets it be tried again.
    fixture.pipeline.heal("b[m2]");
    let digest = fixture.rollout.status().quarantined[0].digest.clone();
    fixture.rollout.quarantine_retry(&digest[..12]).await.unwrap();
    let status = fixture.committed("r2 + net=v2").await;
    assert!(status.in_sync && status.quarantined.is_empty(), "{status:#?}");
}

#[tokio::test(start_paused = true)]
async fn a_start_with_every_remote_down_runs_the_modules_of_the_manifest() {
    let directory = tempfile::tempdir().unwrap();
    let fixture = begun(Some(directory.path())).await;
    fixture.rollout.shutdown().await;
    let modules = ScriptedModules::new();
    modules.fail("net", Failure::environment("no route"));
    let fixture = Start { modules, ..Start::new(Some(directory.path())) }.start();
    let status = fixture.until("it runs", |status| running(status) == "r1").await;
    assert_eq!(fixture.pipeline.running().as_deref(), Some("a[m1]"));
    assert_eq!(status.running.as_ref().unwrap().generation, Some(1));
    assert_eq!(fixture.modules.followed(), ["net"], "followed from the first moment");
    let status = fixture.until("its error is shown", |status| error_of(status).is_some()).await;
    assert!(error_of(&status).unwrap().contains("no route"));
    // The repository answers, the server of the module does not: others' changes go on, with what it had.
    fixture.feed.push("git", "r2", &root("b"));
    let status = fixture.committed("r2").await;
    assert_eq!(fixture.pipeline.running().as_deref(), Some("b[m1]"));
    assert!(status.in_sync, "what was never seen is not missed: {status:#?}");
    fixture.modules.push("net", "v2", "m2");
    fixture.committed("r2 + net=v2").await;
}

#[tokio::test(start_paused = true)]
async fn a_module_the_process_died_under_is_quarantined_by_itself() {
    let directory = tempfile::tempdir().unwrap();
    let fixture = begun(Some(directory.path())).await;
    fixture.modules.push("net", "v2", "m2");
    fixture.in_probation("r1 + net=v2").await;
    // Killed: nothing more reaches the disk.
    fixture.faults.set_heads_fail(true);
    fixture.faults.set_files_full(true);
    fixture.rollout.shutdown().await;
    let modules = ScriptedModules::new();
    modules.push("net", "v2", "m2");
    let fixture = Start { modules, ..Start::new(Some(directory.path())) }.start();
    fixture.until("it runs", |status| running(status) == "r1").await;
    fixture.feed.push("git", "r2", &root("b"));
    let status = fixture.committed("r2").await;
    assert_eq!(fixture.pipeline.running().as_deref(), Some("b[m1]"));
    assert_eq!(status.reason.as_ref().unwrap().kind, "quarantined", "{status:#?}");
}

#[tokio::test(start_paused = true)]
async fn what_a_source_imports_of_its_own_tree_moves_with_it() {
    let fixture = Start::new(None).start();
    let main = "a\nimport.file \"net\" { filename = \"modules/net.alloy\" }";
    fixture.feed.push_files(
        "git",
        "r1",
        &[("main.alloy", main), ("modules/net.alloy", "declare \"m1\" { }")],
    );
    fixture.committed("r1").await;
    assert_eq!(
        fixture.pipeline.running().as_deref(),
        Some("a[declare \"m1\" { }]"),
        "a file that is imported is no pipeline"
    );
    assert_eq!(fixture.modules.followed(), [""; 0]);
    fixture.feed.push_files(
        "git",
        "r2",
        &[("main.alloy", main), ("modules/net.alloy", "declare \"m2\" { }")],
    );
    fixture.committed("r2").await;
    assert_eq!(fixture.pipeline.running().as_deref(), Some("a[declare \"m2\" { }]"));
    fixture.feed.push_files("git", "r3", &[("main.alloy", main)]);
    let status = fixture.reason("rejected").await;
    let reason = status.reason.clone().unwrap();
    assert!(reason.message.contains("modules/net.alloy") && reason.message.contains("r3"), "{reason:?}");
    assert_eq!((running(&status), reason.line), ("r2", Some(1)));
}

#[tokio::test(start_paused = true)]
async fn what_was_decided_about_a_module_is_not_decided_again_with_every_commit() {
    let fixture = begun(None).await;
    fixture.modules.push("net", "v2", "syntax error");
    fixture.reason("rejected").await;
    let verdicts = fixture.verdicts().await.len();
    // The same files under another revision, as a commit elsewhere in the repository brings them.
    fixture.feed.push("git", "r2", &root("a"));
    let status = fixture.until("the revision advances", |status| running(status) == "r2").await;
    assert_eq!(status.desired.as_ref().unwrap().revision, "r2 + net=v2", "{status:#?}");
    assert!(!status.in_sync && status.reason.as_ref().unwrap().line == Some(7), "{status:#?}");
    let after = fixture.verdicts().await;
    let rejected = |verdicts: &[(String, Verdict)]| {
        verdicts.iter().filter(|(_, verdict)| *verdict == Verdict::Rejected).count()
    };
    assert_eq!((after.len(), rejected(&after)), (verdicts + 1, 1), "{after:?}");
}

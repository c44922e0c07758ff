//! G6: killed at any durable step of an apply, with its repository gone, its clone corrupted, its state torn or its
//! disk full: the agent boots, runs what the recovery table says, and has lost no sample.

use std::fs;
use std::os::unix::fs::FileExt;
use std::process::Command;

use serde_json::Value;

use crate::fleet::{Fleet, Plan, SOON, VERDICT, committed, desires, quarantined, runs, scrape_to, write_to};

/// What has to run after a death at one point of an apply of good content, before anything is fetched again.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Then {
    /// The last known good; the candidate is tried again, for its death says nothing of it.
    LastKnownGood,
    /// The last known good; the candidate ran when the process died and is quarantined.
    LastKnownGoodAndQuarantine,
    /// The candidate: its verdict was durable.
    Candidate,
}

/// Kills the agent at `point` while it applies a change of endpoint, starts it again, and checks what it makes of it.
fn killed_at(point: &str, then: Then) {
    let mut fleet = Fleet::planned(Plan { probation: 4, ..Plan::default() }, |receiver, target| {
        scrape_to(receiver, target, "a")
    });
    let good = fleet.repository.head().unwrap();
    fleet.committed(&good);
    // The points are counted from the start of the process; a start of its own makes the next one the first.
    fleet.agent.terminate().unwrap();
    fleet.agent.launch_with(&[("INVAR_CRASH_AT", point)]).unwrap();
    fleet.agent.wait("it runs again", SOON, |status| runs(status, &good)).unwrap();
    let candidate = fleet.push(scrape_to(&fleet.receiver, &fleet.target, "b"), "another endpoint");
    fleet
        .agent
        .exit(VERDICT)
        .unwrap_or_else(|problem| panic!("{point} was not reached: {problem}\n{}", fleet.agent.log()));

    // With the server gone there is nothing but the disk to go by.
    fleet.git.stop_answering();
    fleet.agent.launch().unwrap();
    let status = fleet.agent.wait("something runs", SOON, |status| !status["running"].is_null()).unwrap();
    match then {
        Then::LastKnownGood | Then::LastKnownGoodAndQuarantine => {
            assert!(runs(&status, &good), "{point}: {status:#}");
            assert!(committed(&status, &good), "{point}: {status:#}");
        }
        Then::Candidate => {
            assert!(runs(&status, &candidate), "{point}: {status:#}");
            assert!(committed(&status, &candidate), "{point}: {status:#}");
        }
    }
    assert_eq!(
        quarantined(&status, &candidate),
        then == Then::LastKnownGoodAndQuarantine,
        "{point}: {status:#}"
    );

    // The server is back: what is not quarantined is applied, and every sample is at one of the two endpoints.
    fleet.git.answer_again();
    if then == Then::LastKnownGoodAndQuarantine {
        fleet.agent.wait("Git is seen again", SOON, |status| desires(status, &candidate)).unwrap();
        fleet.nothing_missing_at(&["a", "b"]);
    } else {
        fleet.committed(&candidate);
        fleet.nothing_missing_at(&["a", "b"]);
    }
}

#[test]
fn killed_after_the_intent() {
    killed_at("intent_written", Then::LastKnownGood);
}

#[test]
fn killed_after_the_blobs() {
    killed_at("blobs_written", Then::LastKnownGood);
}

#[test]
fn killed_after_the_manifest() {
    killed_at("manifest_written", Then::LastKnownGood);
}

#[test]
fn killed_after_the_swap_was_recorded() {
    killed_at("swapped_written", Then::LastKnownGoodAndQuarantine);
}

#[test]
fn killed_when_one_head_has_the_verdict() {
    killed_at("verdict_in_first_head", Then::Candidate);
}

#[test]
fn killed_after_the_verdict() {
    killed_at("committed_written", Then::Candidate);
}

#[test]
fn stopped_in_probation_it_resumes_the_candidate() {
    let mut fleet = Fleet::planned(Plan { probation: 8, ..Plan::default() }, |receiver, target| {
        scrape_to(receiver, target, "a")
    });
    let good = fleet.repository.head().unwrap();
    fleet.committed(&good);
    let candidate = fleet.push_and_run(scrape_to(&fleet.receiver, &fleet.target, "b"), "another endpoint");
    fleet.agent.terminate().unwrap();
    fleet.git.stop_answering();
    fleet.agent.launch().unwrap();
    let status = fleet.agent.wait("the candidate runs on", SOON, |status| runs(status, &candidate)).unwrap();
    assert!(committed(&status, &good), "{status:#}");
    fleet.committed(&candidate);
    fleet.nothing_missing_at(&["a", "b"]);
}

#[test]
fn a_candidate_that_is_rolled_back_or_superseded_loses_no_sample() {
    let fleet = Fleet::start(|receiver, target| scrape_to(receiver, target, "a"));
    let good = fleet.repository.head().unwrap();
    fleet.committed(&good);
    fleet.receiver.answer("broken", Some(500));
    // Superseded: the endpoint, the labels and the credentials change before any of it is judged.
    fleet.push_and_run(scrape_to(&fleet.receiver, &fleet.target, "broken"), "broken");
    let labelled =
        |text: String| text.replace("\tendpoint {", "\texternal_labels = {zone = \"z\"}\n\n\tendpoint {");
    fleet.push_and_run(labelled(scrape_to(&fleet.receiver, &fleet.target, "broken")), "broken, with labels");
    let authorized = |text: String| {
        text.replace(
            "\t\tqueue_config {",
            "\t\tbasic_auth {\n\t\t\tusername = \"u\"\n\t\t\tpassword = \"p\"\n\t\t}\n\n\t\tqueue_config {",
        )
    };
    let bad = fleet.push_and_run(
        authorized(labelled(scrape_to(&fleet.receiver, &fleet.target, "broken"))),
        "broken, with both",
    );
    fleet.undone(&bad);
    fleet.nothing_missing("a");
}

#[test]
fn a_repository_that_is_gone_and_a_corrupted_clone_do_not_matter() {
    let mut fleet = Fleet::start(|receiver, target| scrape_to(receiver, target, "a"));
    let good = fleet.repository.head().unwrap();
    fleet.committed(&good);
    fleet.kill();
    fleet.git.stop_answering();
    overwrite_files(&fleet.agent.state_directory().join("git"));
    fleet.agent.launch().unwrap();
    let status = fleet.agent.wait("it runs from disk", SOON, |status| runs(status, &good)).unwrap();
    assert!(committed(&status, &good), "{status:#}");
    let failing = |status: &Value| !status["sources"][0]["error"].is_null();
    fleet.agent.wait("the source's error is shown", SOON, failing).unwrap();

    fleet.git.answer_again();
    let next = fleet.push(scrape_to(&fleet.receiver, &fleet.target, "a").replace("500ms", "400ms"), "go on");
    fleet.agent.wait("it clones afresh", VERDICT, |status| runs(status, &next)).unwrap();
    fleet.nothing_missing("a");
}

/// Fills every file below a folder with rubbish of the same length.
fn overwrite_files(folder: &std::path::Path) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            overwrite_files(&path);
        } else {
            let length = fs::metadata(&path).unwrap().len();
            let mut permissions = fs::metadata(&path).unwrap().permissions();
            #[allow(clippy::permissions_set_readonly_false, reason = "the folder is the test's own")]
            permissions.set_readonly(false);
            fs::set_permissions(&path, permissions).unwrap();
            fs::write(&path, vec![0x5a; usize::try_from(length).unwrap()]).unwrap();
        }
    }
}

#[test]
fn torn_heads_fall_back_to_what_was_committed() {
    for torn in [&["head-0"][..], &["head-1"], &["head-0", "head-1"]] {
        let mut fleet = Fleet::start(|receiver, target| scrape_to(receiver, target, "a"));
        let good = fleet.repository.head().unwrap();
        fleet.committed(&good);
        fleet.agent.kill();
        fleet.git.stop_answering();
        for name in torn {
            let head =
                fs::File::options().write(true).open(fleet.agent.state_directory().join(name)).unwrap();
            // A write that was cut in the middle of a sector.
            head.write_all_at(&[0xff; 300], 40).unwrap();
        }
        fleet.agent.launch().unwrap();
        let status = fleet.agent.wait("it runs from disk", SOON, |status| runs(status, &good)).unwrap();
        assert!(committed(&status, &good), "{torn:?}: {status:#}");
    }
}

#[test]
fn a_torn_journal_and_a_rotten_blob_cost_history_not_the_boot() {
    let mut fleet = Fleet::start(|receiver, target| scrape_to(receiver, target, "a"));
    let first = fleet.repository.head().unwrap();
    fleet.committed(&first);
    let second = fleet
        .push_and_run(scrape_to(&fleet.receiver, &fleet.target, "a").replace("500ms", "400ms"), "second");
    fleet.committed(&second);
    // What never ran is remembered in the journal alone.
    let broken = fleet.push("prometheus.scrape \"x\" {\n", "broken");
    fleet.refused(&broken);
    fleet.agent.kill();
    fleet.git.stop_answering();
    let journal = fleet.agent.state_directory().join("journal.log");
    let length = fs::metadata(&journal).unwrap().len();
    assert!(length > 3);
    fs::File::options().write(true).open(&journal).unwrap().set_len(length - 3).unwrap();
    fleet.agent.launch().unwrap();
    fleet.agent.wait("it runs from disk", SOON, |status| runs(status, &second)).unwrap();
    fleet.agent.kill();

    // The blob that holds the newest pipeline rots: the one before it runs.
    let mut rotten = 0;
    for shard in fs::read_dir(fleet.agent.state_directory().join("cas")).unwrap() {
        for blob in fs::read_dir(shard.unwrap().path()).unwrap() {
            let path = blob.unwrap().path();
            let text = fs::read(&path).unwrap();
            if text.windows(5).any(|window| window == b"400ms") && text.starts_with(b"\nprometheus") {
                fs::remove_file(&path).unwrap();
                fs::write(&path, b"rot").unwrap();
                rotten += 1;
            }
        }
    }
    assert_eq!(rotten, 1);
    fleet.agent.launch().unwrap();
    let status = fleet.agent.wait("the revision before runs", SOON, |status| runs(status, &first)).unwrap();
    assert!(!runs(&status, &second), "{status:#}");
    fleet.git.answer_again();
    let healed = fleet.repository.revert().unwrap();
    fleet.agent.wait("a fetch heals it", VERDICT, |status| runs(status, &healed)).unwrap();
}

#[test]
fn a_full_disk_refuses_the_apply_and_leaves_the_pipeline_alone() {
    let mount = tempfile::tempdir().unwrap();
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=64m", "tmpfs"])
        .arg(mount.path())
        .status()
        .is_ok_and(|status| status.success());
    if !mounted {
        println!("skipped: a file system of limited size cannot be mounted here");
        return;
    }
    let result = std::panic::catch_unwind(|| full_disk(mount.path()));
    drop(Command::new("umount").arg("-l").arg(mount.path()).status());
    result.unwrap();
}

fn full_disk(mount: &std::path::Path) {
    let plan = Plan { settings: String::new(), probation: 3 };
    let fleet = Fleet::planned_in(mount, plan, |receiver, target| scrape_to(receiver, target, "a"));
    let good = fleet.repository.head().unwrap();
    fleet.committed(&good);
    let write_before = fleet.agent.instance("prometheus.remote_write.out").unwrap();
    let candidate = {
        // The commit is made while there is room; then the disk fills up behind it.
        let pipeline = scrape_to(&fleet.receiver, &fleet.target, "a").replace("500ms", "400ms");
        fleet.git.stop_answering();
        let head = fleet.push(pipeline, "while the disk is full");
        let filler = fs::File::create(mount.join("filler")).unwrap();
        let chunk = vec![0_u8; 1 << 16];
        let mut offset = 0;
        while filler.write_at(&chunk, offset).is_ok_and(|written| written > 0) {
            offset += chunk.len() as u64;
        }
        fleet.git.answer_again();
        head
    };
    let status = fleet
        .agent
        .wait("it is refused or the source says that the disk is full", VERDICT, |status| {
            !status["reason"].is_null() || !status["sources"][0]["error"].is_null()
        })
        .unwrap();
    assert!(runs(&status, &good), "{status:#}");
    assert_eq!(fleet.agent.instance("prometheus.remote_write.out").unwrap(), write_before);
    fs::remove_file(mount.join("filler")).unwrap();
    fleet
        .agent
        .wait("there is room again, and it applies", VERDICT, |status| runs(status, &candidate))
        .unwrap();
    fleet.nothing_missing("a");
}

#[test]
fn nothing_to_run_is_no_reason_to_end() {
    let mut fleet = Fleet::start(|receiver, target| scrape_to(receiver, target, "a"));
    fleet.agent.kill();
    fs::remove_dir_all(fleet.agent.state_directory()).unwrap();
    fleet.git.stop_answering();
    fleet.agent.launch().unwrap();
    fleet.agent.wait("it answers", SOON, |status| status["running"].is_null()).unwrap();
    assert_eq!(fleet.agent.text("/-/ready").unwrap().0, 503);
    assert_eq!(fleet.agent.text("/-/healthy").unwrap().0, 200);
    assert!(fleet.agent.is_running());
    fleet.git.answer_again();
    fleet
        .agent
        .wait("it runs what it can reach now", VERDICT, |status| !status["running"].is_null())
        .unwrap();
    assert_eq!(fleet.agent.text("/-/ready").unwrap().0, 200);
}

#[test]
fn credentials_of_an_endpoint_change_without_a_loss() {
    let mut fleet = Fleet::start(|receiver, target| scrape_to(receiver, target, "a"));
    let good = fleet.repository.head().unwrap();
    fleet.committed(&good);
    let authorized = format!(
        "{}\n{}",
        crate::fleet::scrape(&fleet.target, "500ms"),
        write_to(&fleet.receiver, "a").replace(
            "\t\tqueue_config {",
            "\t\tauthorization {\n\t\t\tcredentials = \"first\"\n\t\t}\n\n\t\tqueue_config {"
        )
    );
    let head = fleet.push_and_run(&authorized, "authorize");
    // Killed in the middle of its probation: the same host, so it is the candidate that is held to account.
    fleet.kill();
    fleet.agent.launch().unwrap();
    fleet
        .agent
        .wait("the last known good runs", SOON, |status| runs(status, &good) && quarantined(status, &head))
        .unwrap();
    fleet.nothing_missing("a");
}

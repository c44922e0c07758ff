//! G5: a revision that validates but is bad is undone by the agent within its probation, quarantined, and not tried
//! again; the next good one applies; a revert applies at once. What befalls unchanged components is not blamed on it.

use serde_json::Value;

use crate::fleet::{
    Fleet, Plan, SOON, VERDICT, committed, desires, quarantined, runs, scrape, scrape_to, write_to,
};

/// After an undoing: the bad commit is named everywhere it should be, is not tried again, and data flows.
fn stays_undone(fleet: &Fleet, good: &str, bad: &str) {
    let status = fleet.agent.status().unwrap();
    assert!(runs(&status, good), "{status:#}");
    assert!(desires(&status, bad), "{status:#}");
    assert_eq!(status["in_sync"], Value::Bool(false), "{status:#}");
    assert_eq!(status["reason"]["kind"], "quarantined", "{status:#}");
    let generation = status["running"]["generation"].clone();
    // Several polls later the same generation runs: the content was not tried again.
    let polled = status["sources"][0]["checked"].clone();
    for _ in 0..3 {
        let last = fleet.agent.status().unwrap()["sources"][0]["checked"].clone();
        fleet.agent.wait("another poll", SOON, |status| status["sources"][0]["checked"] != last).unwrap();
    }
    let status = fleet.agent.status().unwrap();
    assert_ne!(status["sources"][0]["checked"], polled);
    assert_eq!(status["running"]["generation"], generation, "{status:#}");
}

fn begin() -> (Fleet, String) {
    let fleet = Fleet::start(|receiver, target| scrape_to(receiver, target, "a"));
    let good = fleet.repository.head().unwrap();
    fleet.committed(&good);
    (fleet, good)
}

#[test]
fn an_endpoint_that_answers_500_is_undone_and_nothing_is_lost() {
    let (fleet, good) = begin();
    fleet.receiver.answer("broken", Some(500));
    let bad =
        fleet.push_and_run(scrape_to(&fleet.receiver, &fleet.target, "broken"), "point at a broken endpoint");
    let status = fleet.undone(&bad);
    assert!(status["rollback_count"].as_u64().is_some_and(|count| count == 1), "{status:#}");
    stays_undone(&fleet, &good, &bad);
    fleet.nothing_missing("a");

    // A revert is content that is known to be good.
    let revert = fleet.repository.revert().unwrap();
    let in_sync = |status: &Value| desires(status, &revert) && status["in_sync"] == Value::Bool(true);
    fleet.agent.wait("the revert is in sync", SOON, in_sync).unwrap();

    // And the next good commit applies.
    let next = scrape_to(&fleet.receiver, &fleet.target, "a").replace("500ms", "400ms");
    let next = fleet.push_and_run(next, "a good one");
    fleet.committed(&next);
    fleet.nothing_missing("a");
}

#[test]
fn a_component_that_panics_is_undone() {
    let (fleet, good) = begin();
    let pipeline = format!(
        "{}\ntesting.fault \"bad\" {{\n\tpanic_in = \"run\"\n\tpanic_after = \"500ms\"\n}}\n",
        scrape_to(&fleet.receiver, &fleet.target, "a")
    );
    let bad = fleet.push_and_run(pipeline, "add a component that panics");
    fleet.undone(&bad);
    stays_undone(&fleet, &good, &bad);
    fleet.nothing_missing("a");
}

#[test]
fn memory_that_runs_away_is_undone() {
    let plan = Plan { settings: "[limits]\nmemory = \"192MiB\"\n".to_owned(), probation: 20 };
    let fleet = Fleet::planned(plan, |receiver, target| scrape_to(receiver, target, "a"));
    let good = fleet.repository.head().unwrap();
    fleet.committed(&good);
    let pipeline = format!(
        "{}\ntesting.fault \"bad\" {{\n\tleak_bytes_per_second = 60000000\n}}\n",
        scrape_to(&fleet.receiver, &fleet.target, "a")
    );
    let bad = fleet.push_and_run(pipeline, "add a component that leaks");
    let status = fleet.undone(&bad);
    assert!(status["quarantined"][0]["reason"].to_string().contains("memory"), "{status:#}");
    stays_undone(&fleet, &good, &bad);
}

#[test]
fn a_revision_that_kills_the_process_is_undone_at_the_next_start() {
    let (mut fleet, good) = begin();
    let pipeline = format!(
        "{}\ntesting.fault \"bad\" {{\n\tabort_after = \"1s\"\n}}\n",
        scrape_to(&fleet.receiver, &fleet.target, "a")
    );
    let bad = fleet.push(pipeline, "add a component that kills the process");
    fleet.agent.exit(SOON).expect("the process aborts");
    fleet.agent.launch().unwrap();
    let back = |status: &Value| runs(status, &good) && quarantined(status, &bad);
    fleet.agent.wait("the last known good runs and the bad one is quarantined", SOON, back).unwrap();
    fleet.agent.wait("Git still says the bad one", SOON, |status| desires(status, &bad)).unwrap();
    stays_undone(&fleet, &good, &bad);
    fleet.nothing_missing("a");
}

#[test]
fn what_befalls_unchanged_components_too_is_not_blamed_on_the_commit() {
    let both = |receiver: &invar_integration::Receiver, target: &invar_integration::Target, label: &str| {
        let second = write_to(receiver, "other").replace("\"out\"", "\"other\"");
        let first = write_to(receiver, "a").replace(
            "\tendpoint {",
            &format!("\texternal_labels = {{release = \"{label}\"}}\n\n\tendpoint {{"),
        );
        let scrape = scrape(target, "500ms").replace(
            "[prometheus.remote_write.out.receiver]",
            "[prometheus.remote_write.out.receiver, prometheus.remote_write.other.receiver]",
        );
        format!("{scrape}{first}{second}")
    };
    let fleet = Fleet::start(|receiver, target| both(receiver, target, "one"));
    let first = fleet.repository.head().unwrap();
    fleet.committed(&first);
    // The world breaks, and only then a commit changes one of the two endpoints.
    fleet.receiver.answer("a", Some(500));
    fleet.receiver.answer("other", Some(500));
    let pipeline = both(&fleet.receiver, &fleet.target, "two");
    let head = fleet.push_and_run(pipeline, "label the release while the world is broken");
    let status = fleet.agent.wait("it is committed", VERDICT, |status| committed(status, &head)).unwrap();
    assert_eq!(status["rollback_count"], Value::from(0), "{status:#}");
    fleet.receiver.answer("a", None);
    fleet.receiver.answer("other", None);
    fleet.nothing_missing("a");
    fleet.nothing_missing("other");
}

#[test]
fn two_bad_commits_in_a_row_are_both_judged_against_the_last_known_good() {
    let (fleet, good) = begin();
    fleet.receiver.answer("broken", Some(500));
    fleet.receiver.answer("worse", Some(503));
    let bad = fleet.push_and_run(scrape_to(&fleet.receiver, &fleet.target, "broken"), "bad");
    fleet.undone(&bad);
    let worse = fleet.push_and_run(scrape_to(&fleet.receiver, &fleet.target, "worse"), "worse");
    let status = fleet.undone(&worse);
    assert!(runs(&status, &good), "{status:#}");
    assert!(committed(&status, &good), "{status:#}");
    fleet.nothing_missing("a");
}

#[test]
fn an_operator_holds_and_goes_back_and_the_agent_says_so() {
    let (fleet, first) = begin();
    let second = fleet.push_and_run(scrape_to(&fleet.receiver, &fleet.target, "b"), "another endpoint");
    fleet.committed(&second);
    let output = fleet.agent.command(&["rollback", "--reason", "a bad feeling"]).unwrap();
    assert!(output.status.success(), "{output:?}");
    let status = fleet.agent.status().unwrap();
    assert!(runs(&status, &first), "{status:#}");
    assert_eq!(status["hold"]["reason"], "a bad feeling", "{status:#}");
    assert!(desires(&status, &second) && status["in_sync"] == Value::Bool(false), "{status:#}");
    let output = fleet.agent.command(&["unhold"]).unwrap();
    assert!(output.status.success(), "{output:?}");
    fleet.agent.wait("it follows Git again", SOON, |status| runs(status, &second)).unwrap();
}

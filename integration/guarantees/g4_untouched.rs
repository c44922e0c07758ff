//! G4: what did not change is not touched, and a good push is live within one poll interval.

use std::time::Instant;

use crate::fleet::{Fleet, INTERVAL, scrape, scrape_to, write_to};

#[test]
fn a_good_push_is_live_within_an_interval_and_leaves_the_rest_alone() {
    let fleet = Fleet::start(|receiver, target| scrape_to(receiver, target, "a"));
    let scrape_before = fleet.agent.instance("prometheus.scrape.page").unwrap();
    let write_before = fleet.agent.instance("prometheus.remote_write.out").unwrap();
    let process = fleet.agent.process();

    let begun = Instant::now();
    let pipeline = format!(
        "{}\ndiscovery.relabel \"new\" {{\n\ttargets = []\n}}\n",
        scrape_to(&fleet.receiver, &fleet.target, "a")
    );
    let head = fleet.push_and_run(pipeline, "add a component");
    // One interval, its jitter, a fetch, a prepare and a debug build on a busy machine.
    assert!(begun.elapsed() < INTERVAL * 8, "live only after {:?}", begun.elapsed());

    assert_eq!(fleet.agent.instance("prometheus.scrape.page").unwrap(), scrape_before);
    assert_eq!(fleet.agent.instance("prometheus.remote_write.out").unwrap(), write_before);
    assert!(fleet.agent.instance("discovery.relabel.new").is_ok());
    assert_eq!(fleet.agent.process(), process);
    fleet.committed(&head);
    fleet.nothing_missing("a");
}

#[test]
fn a_changed_argument_keeps_the_instance_and_its_counters() {
    let fleet = Fleet::start(|receiver, target| scrape_to(receiver, target, "a"));
    let scrape_before = fleet.agent.instance("prometheus.scrape.page").unwrap();
    let write_before = fleet.agent.instance("prometheus.remote_write.out").unwrap();
    let pipeline = format!("{}\n{}", scrape(&fleet.target, "700ms"), write_to(&fleet.receiver, "a"));
    fleet.push_and_run(pipeline, "scrape less often");
    assert_eq!(fleet.agent.instance("prometheus.scrape.page").unwrap(), scrape_before);
    assert_eq!(fleet.agent.instance("prometheus.remote_write.out").unwrap(), write_before);
    fleet.nothing_missing("a");
}

#[test]
fn a_commit_that_changes_only_comments_swaps_nothing() {
    let fleet = Fleet::start(|receiver, target| scrape_to(receiver, target, "a"));
    let generation = fleet.agent.status().unwrap()["running"]["generation"].clone();
    let pipeline = format!("// a remark\n{}", scrape_to(&fleet.receiver, &fleet.target, "a"));
    let head = fleet.push(pipeline, "remark");
    let in_sync = |status: &serde_json::Value| {
        crate::fleet::desires(status, &head) && status["in_sync"] == serde_json::Value::Bool(true)
    };
    let status = fleet.agent.wait("the remark is in sync", crate::fleet::SOON, in_sync).unwrap();
    assert_eq!(status["running"]["generation"], generation);
}

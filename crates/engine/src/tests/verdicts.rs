//! Probation: commit, rollback, superseding, and the vitals a verdict is based on.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::components::{Pass, Sink};
use super::{Rig, configuration};
use crate::engine::PrepareMode;
use crate::health::HealthState;

fn pass(tag: &str, panics: bool) -> String {
    format!(
        "test.sink \"out\" {{ }}
        test.pass \"a\" {{
            forward_to = [test.sink.out.receiver]
            tag        = \"{tag}\"
            panics     = {panics}
        }}"
    )
}

fn nodes(nodes: &[crate::NodeId]) -> Vec<&str> {
    nodes.iter().map(crate::NodeId::as_str).collect()
}

#[tokio::test]
async fn a_panicking_candidate_is_blamed_and_undone() {
    let rig = Rig::new();
    rig.apply(&pass("good", false)).await;
    let state = rig.state_of::<Pass>("test.pass.a");
    rig.candidate(&pass("bad", true)).await;

    let refused = rig.offer("test.pass.a", 1).await.unwrap_err();
    assert!(refused.is_retryable(), "the batch will be accepted after the rollback");
    let vitals = rig.engine.vitals();
    assert_eq!(vitals.failed.len(), 1);
    assert_eq!(vitals.failed[0].node.as_str(), "test.pass.a");
    assert!(vitals.failed[0].changed && vitals.failed[0].panicked);
    assert_eq!(rig.health("test.pass.a"), (HealthState::Unhealthy, "panicked: asked to panic".to_owned()));

    let report = rig.engine.rollback();
    assert_eq!(nodes(&report.restored), ["test.pass.a"]);
    assert_eq!(report.generation, 3);
    assert!(
        Arc::ptr_eq(&state, &rig.state_of::<Pass>("test.pass.a")),
        "the retained state itself runs again"
    );
    assert_eq!(rig.health("test.pass.a").0, HealthState::Healthy);
    rig.offer("test.pass.a", 1).await.unwrap();
    assert!(!rig.engine.generation().on_probation);
    rig.shutdown().await;
}

#[tokio::test]
async fn a_rollback_brings_back_what_was_parked_and_retires_what_is_new() {
    let rig = Rig::new();
    rig.apply(&pass("1", false)).await;
    let number = rig.instance_number("test.pass.a");
    let (a, out) = (rig.instance_of::<Pass>("test.pass.a"), rig.instance_of::<Sink>("test.sink.out"));
    rig.book.take_transitions();
    super::until("both tasks run", || {
        a.started.load(Ordering::SeqCst) == 1 && out.started.load(Ordering::SeqCst) == 1
    })
    .await;

    let report = rig.candidate("test.sink \"new\" { }").await;
    assert_eq!(nodes(&report.parked), ["test.pass.a", "test.sink.out"], "senders stop before receivers");
    let new = rig.instance_of::<Sink>("test.sink.new");
    super::until("the sink's task has ended", || out.ended.load(Ordering::SeqCst) == 1).await;
    let report = rig.engine.rollback();
    assert_eq!(nodes(&report.retired), ["test.sink.new"]);
    rig.engine.drained().await;

    assert_eq!(rig.instance_number("test.pass.a"), number);
    assert_eq!(
        rig.book.take_transitions(),
        ["test.pass.a parked", "test.pass.a unparked", "test.pass.a rolled back"]
    );
    assert_eq!(a.started.load(Ordering::SeqCst), 1, "a task that went on while parked is not started again");
    super::until("the sink's task, which had ended, runs again", || out.started.load(Ordering::SeqCst) == 2)
        .await;
    assert!(new.started.load(Ordering::SeqCst) <= 1);
    assert_eq!(new.started.load(Ordering::SeqCst), new.ended.load(Ordering::SeqCst));
    rig.offer("test.pass.a", 1).await.unwrap();
    rig.shutdown().await;
}

#[tokio::test]
async fn a_parked_node_serves_under_the_generation_it_was_parked_with() {
    let rig = Rig::new();
    rig.apply("test.sink \"out\" { tag = \"old\" }").await;
    rig.candidate("").await;
    let request = http::Request::get("/").body(bytes::Bytes::new()).unwrap();
    let response = rig.engine.serve_component("test.sink.out", request).await;
    assert_eq!(response.body().as_ref(), b"test.sink.out old /");
    rig.engine.commit().await;
    rig.engine.drained().await;
    let request = http::Request::get("/").body(bytes::Bytes::new()).unwrap();
    assert_eq!(rig.engine.serve_component("test.sink.out", request).await.status(), 404);
    rig.shutdown().await;
}

#[tokio::test]
async fn a_newer_candidate_is_judged_against_the_last_committed_configuration() {
    let rig = Rig::new();
    rig.apply(&pass("committed", false)).await;
    let committed = rig.state_of::<Pass>("test.pass.a");
    rig.candidate(&format!("{}\ntest.sink \"first\" {{ }}", pass("first", false))).await;
    let first = rig.instance_of::<Sink>("test.sink.first");
    rig.candidate(&pass("second", false)).await;
    rig.engine.drained().await;
    assert_eq!(first.started.load(Ordering::SeqCst), first.ended.load(Ordering::SeqCst));
    let report = rig.engine.rollback();
    assert_eq!(report.generation, 4);
    assert!(Arc::ptr_eq(&committed, &rig.state_of::<Pass>("test.pass.a")));
    rig.shutdown().await;
}

#[tokio::test]
async fn a_revert_takes_the_retained_states_over() {
    let rig = Rig::new();
    rig.apply(&pass("good", false)).await;
    let good = rig.state_of::<Pass>("test.pass.a");
    rig.candidate(&pass("bad", true)).await;
    rig.candidate(&pass("good", false)).await;
    assert!(Arc::ptr_eq(&good, &rig.state_of::<Pass>("test.pass.a")));
    assert!(rig.engine.vitals().groups.iter().all(|group| !group.changed));
    rig.shutdown().await;
}

#[tokio::test]
async fn vitals_tell_changed_groups_from_the_control_group() {
    let rig = Rig::new();
    let with = |endpoints: &str, tag: &str| {
        format!(
            "test.sink \"out\" {{ endpoints = [{endpoints}] }}
            test.sink \"side\" {{ endpoints = [\"s\"] }}
            test.pass \"a\" {{
                forward_to = [test.sink.side.receiver]
                tag        = \"{tag}\"
            }}"
        )
    };
    rig.apply(&with("\"one\", \"two\"", "1")).await;
    rig.offer("test.sink.out", 1).await.unwrap();
    rig.candidate(&with("\"one\", \"three\"", "2")).await;
    rig.offer("test.sink.out", 2).await.unwrap();
    let vitals = rig.engine.vitals();
    let group = |node: &str, key: &str| {
        vitals.groups.iter().find(|group| group.node.as_str() == node && group.key == key).unwrap()
    };
    assert!(!group("test.sink.out", "one").changed, "the same endpoint of a changed node");
    assert!(group("test.sink.out", "three").changed);
    assert!(group("test.pass.a", "").changed);
    assert!(!group("test.sink.side", "s").changed);
    assert!(group("test.sink.side", "s").downstream_of_change);
    let one = group("test.sink.out", "one");
    assert_eq!((one.at_cut.ok, one.now.ok), (1, 2));
    rig.shutdown().await;
}

#[tokio::test]
async fn a_retained_configuration_starts_only_when_rolled_back_to() {
    let rig = Rig::new();
    let known_good =
        rig.engine.prepare(configuration(&pass("good", false)), PrepareMode::BestEffort).await.unwrap();
    assert!(rig.engine.retain(known_good).is_ok());
    rig.candidate(&pass("candidate", true)).await;
    let a = rig.instance_of::<Pass>("test.pass.a");
    rig.engine.rollback();
    assert_eq!(rig.state_of::<Pass>("test.pass.a").tag(), "good");
    assert!(
        Arc::ptr_eq(&a, &rig.instance_of::<Pass>("test.pass.a")),
        "both configurations share the instance"
    );
    rig.offer("test.pass.a", 1).await.unwrap();
    rig.shutdown().await;
}

//! Changed exports reach dependants, and only them.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::components::{Consumer, Values};
use super::{Rig, until};
use crate::health::HealthState;

fn chain(tag: &str) -> String {
    format!(
        "test.values \"v\" {{ initial = \"one\" }}
        test.consumer \"first\" {{
            input = test.values.v.value
            tag   = \"{tag}\"
        }}
        test.consumer \"second\" {{ input = test.consumer.first.value }}
        test.consumer \"aside\" {{ input = \"constant\" }}"
    )
}

impl Rig {
    fn tell(&self, value: &str) {
        self.instance_of::<Values>("test.values.v").tell(value);
    }

    fn seen_by(&self, node: &str) -> String {
        self.state_of::<Consumer>(node).to_string()
    }
}

#[tokio::test]
async fn a_wave_reaches_dependants_of_dependants_and_nothing_else() {
    let rig = Rig::new();
    rig.apply(&chain("1")).await;
    assert_eq!(rig.seen_by("test.consumer.second"), "ONE");
    let aside = rig.state_of::<Consumer>("test.consumer.aside");
    let first = rig.instance_of::<Consumer>("test.consumer.first");
    rig.tell("two");
    until("the wave has arrived", || rig.seen_by("test.consumer.second") == "TWO").await;
    first.woken.notified().await;
    assert!(Arc::ptr_eq(&aside, &rig.state_of::<Consumer>("test.consumer.aside")));
    let generation = rig.engine.generation();
    assert_eq!((generation.id, generation.epoch > 0), (1, true), "an epoch, not a generation");
    assert_eq!(first.states.load(Ordering::SeqCst), 2);
    rig.shutdown().await;
}

#[tokio::test]
async fn equal_arguments_stop_a_wave() {
    let rig = Rig::new();
    rig.apply(&chain("1")).await;
    let second = rig.state_of::<Consumer>("test.consumer.second");
    // The first consumer exports in upper case: the second sees no difference.
    rig.tell("ONE");
    until("the wave has arrived", || rig.seen_by("test.consumer.first") == "ONE").await;
    assert!(Arc::ptr_eq(&second, &rig.state_of::<Consumer>("test.consumer.second")));
    rig.shutdown().await;
}

#[tokio::test]
async fn a_dependant_that_rejects_keeps_its_state_and_says_so() {
    let rig = Rig::new();
    rig.apply(&chain("1")).await;
    rig.tell("bad");
    until("it is unhealthy", || rig.health("test.consumer.first").0 == HealthState::Unhealthy).await;
    assert!(rig.health("test.consumer.first").1.contains("the input is bad"));
    assert_eq!(rig.seen_by("test.consumer.first"), "one");
    rig.tell("good");
    until("it has recovered", || rig.health("test.consumer.first").0 == HealthState::Healthy).await;
    assert_eq!(rig.seen_by("test.consumer.second"), "GOOD");
    rig.shutdown().await;
}

#[tokio::test]
async fn a_rollback_brings_back_no_outdated_inputs() {
    let rig = Rig::new();
    rig.apply(&chain("1")).await;
    rig.candidate(&chain("2")).await;
    rig.tell("two");
    until("the wave has arrived", || rig.seen_by("test.consumer.second") == "TWO").await;
    let second = rig.state_of::<Consumer>("test.consumer.second");
    let report = rig.engine.rollback();
    assert_eq!(report.restored.len(), 1, "only what the candidate touched: {report:?}");
    assert_eq!(rig.seen_by("test.consumer.first"), "two");
    assert!(Arc::ptr_eq(&second, &rig.state_of::<Consumer>("test.consumer.second")));
    rig.shutdown().await;
}

#[tokio::test]
async fn a_parked_dependant_follows_in_its_state() {
    let rig = Rig::new();
    rig.apply(&chain("1")).await;
    rig.candidate("test.values \"v\" { initial = \"one\" }").await;
    rig.tell("two");
    until("the export has arrived", || rig.engine.generation().epoch > 0).await;
    rig.engine.rollback();
    assert_eq!(rig.seen_by("test.consumer.first"), "two");
    rig.shutdown().await;
}

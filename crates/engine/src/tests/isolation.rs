//! The harness that component crates test with.

use invar_syntax::value::Value;

use super::components::{Pass, Values};
use super::{Book, batch};
use crate::delivery::DeliveryError;
use crate::harness::{Harness, Surroundings};

#[tokio::test]
async fn a_component_runs_between_a_feed_and_a_capture() {
    let surroundings = Surroundings::default();
    surroundings.services.insert(std::sync::Arc::new(Book::default()));
    let forward = "forward_to = [harness.capture.out.receiver]";
    let harness = Harness::<Pass>::within(surroundings, forward).await.unwrap();
    harness.feed(batch(1)).await.unwrap();
    assert_eq!(harness.wait_captured(1).await.len(), 1);
    let instance = harness.instance().unwrap();

    harness.answer_with(|_| Err(DeliveryError::permanent("full")));
    assert_eq!(harness.feed(batch(2)).await, Err(DeliveryError::permanent("full")));
    assert!(harness.captured().is_empty());

    assert_eq!(harness.park().await.parked.len(), 1);
    assert!(harness.feed(batch(3)).await.unwrap_err().is_retryable());
    harness.rollback();
    assert!(std::sync::Arc::ptr_eq(&instance, &harness.instance().unwrap()));
    harness.update(&format!("{forward}\n tag = \"2\"")).await.unwrap();
    assert_eq!(harness.state().unwrap().tag(), "2");
    harness.candidate("tag = 1\n unknown = 2").await.unwrap_err();
    harness.shutdown().await;
}

#[tokio::test]
async fn exports_can_be_waited_for() {
    let harness = Harness::<Values>::new("initial = \"one\"").await.unwrap();
    let value = |exports: &Value| exports.to_object().and_then(|exports| exports.get("value").cloned());
    assert_eq!(value(&harness.exports()), Some(Value::from("one")));
    harness.instance().unwrap().tell("two");
    harness.wait_exports(|exports| value(exports) == Some(Value::from("two"))).await;
    harness.shutdown().await;
}

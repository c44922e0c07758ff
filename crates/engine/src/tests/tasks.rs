//! Tasks of instances: restarts, deadlines, the end of the process.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::components::{Pass, Sink};
use super::{Rig, until};
use crate::health::HealthState;

#[tokio::test]
async fn a_task_that_ends_early_is_started_again_until_its_budget_is_spent() {
    let rig = Rig::with(|options| options.restart_backoff = Duration::from_millis(20));
    rig.apply("test.sink \"out\" { ends = true }").await;
    let sink = rig.instance_of::<Sink>("test.sink.out");
    until("it has ended", || rig.health("test.sink.out").0 == HealthState::Unhealthy).await;
    let refused = rig.offer("test.sink.out", 1).await.unwrap_err();
    assert!(refused.is_retryable(), "data waits while the task is down");
    let vitals = rig.engine.vitals();
    assert!(vitals.restarts[0].since_cut >= 1);

    until("it is given up", || rig.health("test.sink.out").0 == HealthState::Exited).await;
    assert_eq!(sink.started.load(Ordering::SeqCst), 11, "ten restarts, no more");
    assert_eq!(
        rig.health("test.sink.out"),
        (HealthState::Exited, "component ended with error: asked to end".to_owned())
    );
    assert_eq!(rig.engine.vitals().failed.len(), 1);
    rig.shutdown().await;
}

#[tokio::test]
async fn shutdown_ends_senders_before_receivers() {
    let rig = Rig::new();
    let text = "test.sink \"out\" { }\ntest.pass \"a\" { forward_to = [test.sink.out.receiver] }";
    rig.apply(text).await;
    let (a, out) = (rig.instance_of::<Pass>("test.pass.a"), rig.instance_of::<Sink>("test.sink.out"));
    until("both run", || out.started.load(Ordering::SeqCst) == 1 && a.started.load(Ordering::SeqCst) == 1)
        .await;
    let root = std::sync::Arc::downgrade(rig.engine.shared());
    rig.shutdown().await;
    assert_eq!((a.ended.load(Ordering::SeqCst), out.ended.load(Ordering::SeqCst)), (1, 1));
    assert!(root.upgrade().is_none(), "nothing holds the engine any more");
}

#[tokio::test]
async fn the_engine_measures_itself() {
    let rig = Rig::new();
    rig.apply("test.sink \"out\" { }").await;
    let families = rig.engine.metrics().gather();
    let names: Vec<_> = families.iter().map(prometheus::proto::MetricFamily::name).collect();
    for name in [
        "alloy_component_controller_running_components",
        "alloy_component_evaluation_seconds",
        "invar_generations_live",
        "invar_swap_seconds",
    ] {
        assert!(names.contains(&name), "{name} is missing in {names:?}");
    }
    let components = families.iter().find(|family| family.name().ends_with("running_components")).unwrap();
    let healthy: f64 = components
        .get_metric()
        .iter()
        .filter(|metric| metric.get_label().iter().any(|label| label.value() == "healthy"))
        .map(|metric| metric.get_gauge().get_value())
        .sum();
    assert!((healthy - 1.0).abs() < f64::EPSILON);
    rig.shutdown().await;
}

//! Applying configurations: what is kept, what is replaced, and that failures touch nothing.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::components::{Consumer, Pass, Sink};
use super::{Rig, batch, configuration, until};
use crate::delivery::{DeliveryError, PrepareErrorKind};
use crate::engine::{CutError, FailureClass, PrepareMode};
use crate::health::HealthState;
use crate::plan::Action;

/// A sink behind two stages, each with a tag.
fn stages(sink: &str, a: &str, b: &str) -> String {
    format!(
        "test.sink \"out\" {{ tag = \"{sink}\" }}
        test.pass \"a\" {{
            forward_to = [test.sink.out.receiver]
            tag        = \"{a}\"
        }}
        test.pass \"b\" {{
            forward_to = [test.pass.a.receiver]
            tag        = \"{b}\"
        }}"
    )
}

#[tokio::test]
async fn what_did_not_change_keeps_its_instance_and_its_state() {
    let rig = Rig::new();
    rig.apply(&stages("1", "1", "1")).await;
    let instance = rig.instance_of::<Pass>("test.pass.b");
    until("its task runs", || instance.started.load(Ordering::SeqCst) == 1).await;
    let (a, b) = (rig.instance_number("test.pass.a"), rig.instance_number("test.pass.b"));
    let (a_state, b_state) = (rig.state_of::<Pass>("test.pass.a"), rig.state_of::<Pass>("test.pass.b"));

    let report = rig.apply(&format!("// a comment\n{}", stages("1", "1", "2"))).await;

    assert_eq!(
        report.kept.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["test.sink.out", "test.pass.a"]
    );
    assert_eq!(report.updated.iter().map(ToString::to_string).collect::<Vec<_>>(), ["test.pass.b"]);
    assert!(report.started.is_empty() && report.parked.is_empty());
    assert_eq!((a, b), (rig.instance_number("test.pass.a"), rig.instance_number("test.pass.b")));
    assert!(
        Arc::ptr_eq(&a_state, &rig.state_of::<Pass>("test.pass.a")),
        "an unchanged state is the same object"
    );
    assert!(!Arc::ptr_eq(&b_state, &rig.state_of::<Pass>("test.pass.b")));
    assert_eq!(instance.started.load(Ordering::SeqCst), 1, "a kept instance's task goes on");
    rig.shutdown().await;
}

#[tokio::test]
async fn another_identity_is_another_instance() {
    let rig = Rig::new();
    let with = |identity: &str| {
        format!(
            "test.sink \"out\" {{}}\ntest.pass \"a\" {{\n forward_to = [test.sink.out.receiver]\n identity = \"{identity}\"\n}}"
        )
    };
    rig.apply(&with("x")).await;
    let (number, before) = (rig.instance_number("test.pass.a"), rig.instance_of::<Pass>("test.pass.a"));
    let report = rig.candidate(&with("y")).await;
    assert_eq!(report.started.len(), 1);
    assert_eq!(report.parked.len(), 1);
    assert_ne!(number, rig.instance_number("test.pass.a"));
    rig.engine.commit().await;
    rig.engine.drained().await;
    assert_eq!(before.ended.load(Ordering::SeqCst), 1, "the old instance was told to end");
    rig.shutdown().await;
}

#[tokio::test]
async fn a_preparation_that_fails_leaves_everything_untouched() {
    let rig = Rig::new();
    rig.apply(&stages("1", "1", "1")).await;
    let (a, generation) = (rig.instance_number("test.pass.a"), rig.engine.generation());
    let state = rig.state_of::<Pass>("test.pass.a");
    for (broken, class, wanted) in [
        ("refused", FailureClass::Content, "this tag is refused"),
        ("panic while preparing", FailureClass::Content, "panicked while it was prepared: asked to"),
        ("broken", FailureClass::Surroundings(PrepareErrorKind::Resource), "its surroundings are broken"),
    ] {
        if broken == "broken" {
            rig.book.broken.lock().push("test.pass.b".to_owned());
        }
        let failure = rig.prepare(&stages("9", "9", broken)).await.err().unwrap();
        assert!(failure.to_string().contains(wanted), "{failure}");
        assert_eq!(failure.class, class);
        assert_eq!(rig.engine.generation(), generation);
        assert_eq!(rig.instance_number("test.pass.a"), a);
        assert!(Arc::ptr_eq(&state, &rig.state_of::<Pass>("test.pass.a")));
        rig.offer("test.pass.b", 1).await.unwrap();
    }
    rig.shutdown().await;
}

#[tokio::test]
async fn all_errors_of_a_configuration_are_reported() {
    let rig = Rig::new();
    let failure = rig
        .prepare("test.sink \"out\" { tagg = 1 }\ntest.values \"v\" { initial = [] }\ntest.consumer \"c\" { input = test.values.v.value }")
        .await
        .err()
        .unwrap();
    assert_eq!(failure.diagnostics.len(), 2, "{failure}");
    rig.shutdown().await;
}

#[tokio::test]
async fn an_announcement_that_cannot_be_recorded_stops_the_cut() {
    let rig = Rig::new();
    rig.apply(&stages("1", "1", "1")).await;
    let generation = rig.engine.generation();
    let prepared = rig.prepare("").await.unwrap();
    let result = rig.engine.cut(prepared, |_| Err("disk full")).await;
    assert!(matches!(result, Err(CutError::Record("disk full"))));
    assert_eq!(rig.engine.generation(), generation);
    let report = rig.candidate("").await;
    assert_eq!(report.generation, generation.id + 1, "the id is used by the next one");
    rig.shutdown().await;
}

#[tokio::test]
async fn a_preparation_against_a_replaced_configuration_is_refused() {
    let rig = Rig::new();
    let prepared = rig.prepare(&stages("1", "1", "1")).await.unwrap();
    rig.apply("test.sink \"other\" { }").await;
    assert!(matches!(rig.cut(prepared).await, Err(CutError::Superseded)));
    rig.shutdown().await;
}

#[tokio::test]
async fn a_batch_in_flight_finishes_under_the_generation_it_entered() {
    let rig = Rig::with(|options| options.drain_deadline = Duration::from_millis(50));
    let blocked =
        "test.sink \"out\" { blocks = true }\ntest.pass \"a\" { forward_to = [test.sink.out.receiver] }";
    rig.apply(blocked).await;
    let engine = rig.engine.clone();
    let call = tokio::spawn(async move { engine.offer_metrics("test.pass.a", "receiver", batch(7)).await });
    until("the call is under way", || rig.engine.shared().root.current().word().count() == 1).await;

    rig.apply(&blocked.replace("true", "false")).await;
    assert_eq!(rig.engine.shared().meters.generations_live.get(), 2);
    // The sink of the old generation never answers: at the drain deadline the call is cancelled, and offered again.
    assert_eq!(call.await.unwrap(), Err(DeliveryError::Cancelled));
    rig.offer("test.pass.a", 7).await.unwrap();
    assert!(rig.book.delivered().contains_key(&7));
    until("the old generation is gone", || rig.engine.shared().meters.generations_live.get() == 1).await;
    rig.shutdown().await;
}

#[tokio::test]
async fn best_effort_runs_the_rest_and_tries_again() {
    let rig = Rig::new();
    rig.book.broken.lock().push("test.pass.a".to_owned());
    let prepared =
        rig.engine.prepare(configuration(&stages("1", "1", "1")), PrepareMode::BestEffort).await.unwrap();
    let report = rig.cut(prepared).await.unwrap();
    rig.engine.commit().await;
    assert_eq!(report.failed.len(), 1);
    assert_eq!(rig.health("test.pass.a").0, HealthState::Unhealthy);
    assert_eq!(rig.health("test.pass.b").0, HealthState::Healthy);
    rig.offer("test.sink.out", 1).await.unwrap();
    let refused = rig.offer("test.pass.b", 2).await.unwrap_err();
    assert!(refused.is_retryable(), "what leads to the failed node may be offered again");

    rig.book.broken.lock().clear();
    until("the node was tried again", || rig.health("test.pass.a").0 == HealthState::Healthy).await;
    rig.offer("test.pass.b", 2).await.unwrap();
    let instance = rig.instance_of::<Pass>("test.pass.a");
    until("its task runs", || instance.started.load(Ordering::SeqCst) == 1).await;
    rig.shutdown().await;
}

#[tokio::test]
async fn a_cut_catches_up_with_exports_that_changed_since_the_preparation() {
    let rig = Rig::new();
    let with = |tag: &str| {
        format!(
            "test.values \"v\" {{ initial = \"one\" }}\ntest.consumer \"c\" {{\n input = test.values.v.value\n tag = \"{tag}\"\n}}"
        )
    };
    rig.apply(&with("1")).await;
    let prepared = rig.prepare(&with("2")).await.unwrap();
    rig.instance_of::<super::Values>("test.values.v").tell("two");
    until("the wave has run", || *rig.state_of::<Consumer>("test.consumer.c") == "two").await;
    rig.cut(prepared).await.unwrap();
    assert_eq!(*rig.state_of::<Consumer>("test.consumer.c"), "two");
    rig.shutdown().await;
}

#[tokio::test]
async fn a_plan_says_what_a_cut_then_does() {
    let rig = Rig::new();
    rig.apply(&format!("{}\ntest.values \"old\" {{}}", stages("1", "1", "1"))).await;
    let next = format!(
        "{}\ntest.values \"new\" {{}}\ntest.consumer \"c\" {{ input = test.values.new.value }}",
        stages("2", "1", "1")
    );
    let plan = rig.engine.plan(&configuration(&next)).unwrap();
    let actions: Vec<_> = plan.changes.iter().map(|change| (change.node.as_str(), change.action)).collect();
    assert_eq!(
        actions,
        [
            ("test.sink.out", Action::Update),
            ("test.pass.a", Action::Keep),
            ("test.pass.b", Action::Keep),
            ("test.values.new", Action::Create),
            ("test.consumer.c", Action::Create),
            ("test.values.old", Action::Destroy),
        ]
    );
    let change = &plan.changes[0].arguments[0];
    assert_eq!(
        (change.path.as_str(), change.old.as_deref(), change.new.as_deref()),
        ("tag", Some("\"1\""), Some("\"2\""))
    );
    assert_eq!(plan.changes[4].notes, ["some arguments are known only after preparing"]);
    assert_eq!(plan.hash, rig.engine.plan(&configuration(&next)).unwrap().hash);
    assert!(rig.engine.plan(&configuration(&stages("1", "1", "1"))).unwrap().hash != plan.hash);
    rig.shutdown().await;
}

#[tokio::test]
async fn requests_reach_the_running_state() {
    let rig = Rig::new();
    rig.apply("test.sink \"out\" { tag = \"1\" }").await;
    let request = || http::Request::get("/metrics").body(bytes::Bytes::new()).unwrap();
    let response = rig.engine.serve_component("test.sink.out", request()).await;
    assert_eq!(response.body().as_ref(), b"test.sink.out 1 /metrics");
    assert_eq!(rig.engine.serve_component("test.sink.none", request()).await.status(), 404);
    let sink = rig.instance_of::<Sink>("test.sink.out");
    until("its task runs", || sink.started.load(Ordering::SeqCst) == 1).await;
    assert!(rig.directory.path().exists());
    rig.shutdown().await;
}

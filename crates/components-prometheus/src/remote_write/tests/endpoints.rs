//! Several endpoints in one component, and what an endpoint drops.

use super::*;

fn block(url: &str, more: &str) -> String {
    endpoint(url, more).split("external_labels").next().unwrap().to_owned()
}

#[tokio::test]
async fn an_endpoint_that_is_down_holds_nobody_up_and_a_change_of_one_leaves_the_other_alone() {
    let (first, second) = (Receiver::start().await, Receiver::start().await);
    second.answer(|_| DOWN.to_owned());
    let both = |token: &str| {
        let token = format!("name = \"b\"\nbearer_token = \"{token}\"");
        format!("{}\n{}", block(&first.url, "name = \"a\""), block(&second.url, &token))
    };
    let harness = Harness::<RemoteWrite>::new(&both("x")).await.unwrap();
    let list = list();
    feed(&harness, &list, 1..20).await;
    first.wait_for(1..20).await;
    assert!(second.accepted.lock().is_empty());
    let legs = |harness: &Harness<RemoteWrite>| harness.instance().unwrap().log.legs();
    let before = legs(&harness);
    harness.update(&both("y")).await.unwrap();
    let after = legs(&harness);
    let leg = |legs: &[(crate::wal::Leg, Option<Arc<Endpoint>>)], key: &str| {
        legs.iter().map(|(leg, _)| leg).find(|leg| leg.key == key).unwrap().clone()
    };
    let (kept, kept_before) = (leg(&after, "a"), leg(&before, "a"));
    assert_eq!((kept.id, kept.to, kept.rewinds), (kept_before.id, None, 0));
    assert_ne!(leg(&after, "b").id, leg(&before, "b").id);
    second.answer(|_| OK.to_owned());
    feed(&harness, &list, 20..25).await;
    first.wait_for(20..25).await;
    second.wait_for(1..25).await;
    // Ten series of twenty-four times, each once: the change had the other endpoint send nothing again.
    assert_eq!(first.timestamps().len(), 240);
    harness.shutdown().await;
}

#[tokio::test]
async fn endpoints_are_told_apart_by_name_or_url_and_ordinal() {
    let receiver = Receiver::start().await;
    let named = block(&receiver.url, "name = \"n\"");
    let unnamed = block(&receiver.url, "");
    let other = block("http://127.0.0.1:1/other", "");
    let text = [&*unnamed, &named, &other, &unnamed].map(ToString::to_string).join("\n");
    let harness = Harness::<RemoteWrite>::new(&text).await.unwrap();
    let keys: Vec<_> =
        harness.state().unwrap().endpoints.iter().map(|endpoint| endpoint.identity.key.clone()).collect();
    let url = &receiver.url;
    let wanted = [format!("{url}#0"), "n".into(), "http://127.0.0.1:1/other#0".into(), format!("{url}#1")];
    assert_eq!(keys, wanted);
    harness.engine().shutdown(Duration::from_millis(50)).await;
}

#[tokio::test]
async fn samples_beyond_the_age_limit_are_dropped_and_counted() {
    for message in ["prometheus.WriteRequest", "io.prometheus.write.v2.Request"] {
        let receiver = Receiver::start().await;
        let text = endpoint(&receiver.url, &format!("protobuf_message = \"{message}\""))
            .replace("queue_config {", "queue_config {\nsample_age_limit = \"1h\"");
        let harness = Harness::<RemoteWrite>::new(&text).await.unwrap();
        let now = jiff::Timestamp::now().as_millisecond();
        let list = list();
        harness.feed(batch(&list, now - 7_200_000)).await.unwrap();
        harness.feed(batch(&list, now)).await.unwrap();
        receiver.wait_for([now]).await;
        assert!(receiver.timestamps().iter().all(|timestamp| *timestamp == now));
        eventually(|| harness.vitals().groups[0].now.dropped == 10).await;
        harness.shutdown().await;
    }
}

#[tokio::test]
async fn version_one_sends_metadata_in_requests_of_their_own() {
    use invar_telemetry::{MetricKind, MetricMetadata};
    let receiver = Receiver::start().await;
    let more = "metadata_config {\n send_interval = \"50ms\"\n}";
    let harness = Harness::<RemoteWrite>::new(&endpoint(&receiver.url, more)).await.unwrap();
    let mut with_metadata = MetricBatch::clone(&batch(&list(), 1));
    with_metadata.metadata.push(Arc::new(MetricMetadata {
        family: "metric".into(),
        kind: MetricKind::Gauge,
        help: "Help.".into(),
        unit: String::new(),
    }));
    harness.feed(Arc::new(with_metadata)).await.unwrap();
    let alone = |received: &Received| received.metadata == 1 && received.samples.is_empty();
    eventually(|| receiver.accepted.lock().iter().any(alone)).await;
    harness.shutdown().await;
}

#[tokio::test]
async fn what_a_laggard_loses_at_the_limit_of_the_log_is_counted_as_its_loss() {
    let (first, second) = (Receiver::start().await, Receiver::start().await);
    second.answer(|_| DOWN.to_owned());
    let services = Services::new();
    services.insert(Arc::new(LogLimit(256 << 10)));
    let surroundings = Surroundings { services, ..Surroundings::default() };
    let text = format!("{}\n{}", block(&first.url, "name = \"a\""), block(&second.url, "name = \"b\""))
        .replace(
            "queue_config {",
            "queue_config {\ncapacity = 1000\nmax_samples_per_send = 1000\nmax_shards = 1",
        );
    let harness = Harness::<RemoteWrite>::within(surroundings, &text).await.unwrap();
    let index = |index: usize| {
        let index = index.to_string();
        Series::new(&[("__name__", "wide"), ("index", &*index)].into_iter().collect::<Labels>())
    };
    let list = SeriesList::new((0..1000).map(index).collect::<Vec<_>>());
    let mut timestamp = 0;
    let dropped = |key: &str| {
        let groups = harness.vitals().groups;
        groups.iter().find(|group| group.key == key).map_or(0, |group| group.now.dropped)
    };
    while timestamp < 80 {
        timestamp += 1;
        harness.feed(batch(&list, timestamp)).await.unwrap();
    }
    let arrived = |receiver: &Receiver| {
        receiver.accepted.lock().iter().map(|received| received.samples.len() as u64).sum::<u64>()
    };
    eventually(|| arrived(&first) == 1000 * timestamp as u64).await;
    eventually(|| dropped("b") > 0).await;
    assert_eq!(dropped("a"), 0);
    second.answer(|_| OK.to_owned());
    // Whatever did not arrive was counted, sample by sample, and nothing else was.
    eventually(|| arrived(&second) + dropped("b") == 1000 * timestamp as u64).await;
    harness.shutdown().await;
}

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

/// How many batches of a thousand samples a laggard's log gets: more than twice what it holds.
const FED: i64 = 80;
const ALL: u64 = 1000 * FED as u64;

/// Two endpoints and a log at its limit: `a` has got everything, `b` is down and has lost some.
struct Laggard {
    first: Receiver,
    second: Receiver,
    harness: Harness<RemoteWrite>,
    metrics: Arc<Metrics>,
    directory: tempfile::TempDir,
}

impl Laggard {
    async fn new() -> Self {
        let (first, second) = (Receiver::start().await, Receiver::start().await);
        second.answer(|_| DOWN.to_owned());
        let directory = tempfile::tempdir().unwrap();
        let services = Services::new();
        services.insert(Arc::new(LogLimit(256 << 10)));
        let metrics = Metrics::of(&services);
        let surroundings = Surroundings { services, ..inside(directory.path()) };
        let text = Self::text(&first, &second, "x");
        let harness = Harness::<RemoteWrite>::within(surroundings, &text).await.unwrap();
        let laggard = Self { first, second, harness, metrics, directory };
        let list = Self::list();
        for timestamp in 1..=FED {
            laggard.harness.feed(batch(&list, timestamp)).await.unwrap();
        }
        eventually(|| Self::arrived(&laggard.first) == ALL).await;
        eventually(|| laggard.dropped("b").get() > 0).await;
        assert_eq!(laggard.dropped("a").get(), 0);
        laggard
    }

    fn text(first: &Receiver, second: &Receiver, token: &str) -> String {
        let token = format!("name = \"b\"\nbearer_token = \"{token}\"");
        format!("{}\n{}", block(&first.url, "name = \"a\""), block(&second.url, &token)).replace(
            "queue_config {",
            "queue_config {\ncapacity = 1000\nmax_samples_per_send = 1000\nmax_shards = 1",
        )
    }

    fn list() -> Arc<SeriesList> {
        let index = |index: usize| {
            let index = index.to_string();
            Series::new(&[("__name__", "wide"), ("index", &*index)].into_iter().collect::<Labels>())
        };
        SeriesList::new((0..1000).map(index).collect::<Vec<_>>())
    }

    fn arrived(receiver: &Receiver) -> u64 {
        receiver.accepted.lock().iter().map(|received| received.samples.len() as u64).sum()
    }

    /// What the metrics of an endpoint say that the log lost, over all its generations.
    fn dropped(&self, name: &str) -> prometheus::IntCounter {
        let url = if name == "a" { &self.first.url } else { &self.second.url };
        let node = self.harness.instance().map(|instance| instance.node.to_string());
        let labels = [node.as_deref().unwrap_or_default(), name, url, "log_limit"];
        self.metrics.dropped.with_label_values(&labels)
    }
}

#[tokio::test]
async fn what_a_laggard_loses_at_the_limit_of_the_log_is_counted_as_its_loss() {
    let laggard = Laggard::new().await;
    laggard.second.answer(|_| OK.to_owned());
    // Whatever did not arrive was counted, sample by sample, and nothing else was.
    eventually(|| Laggard::arrived(&laggard.second) + laggard.dropped("b").get() == ALL).await;
    laggard.harness.shutdown().await;
}

#[tokio::test]
async fn what_a_laggard_holds_of_deleted_segments_when_its_endpoint_changes_is_counted() {
    let laggard = Laggard::new().await;
    // Credentials change: the receiver stays, and whoever sends to it is another one.
    laggard.harness.update(&Laggard::text(&laggard.first, &laggard.second, "y")).await.unwrap();
    laggard.second.answer(|_| OK.to_owned());
    laggard.second.wait_for([FED]).await;
    // Never too little: what the old one told before it ended, the new one may count again.
    eventually(|| Laggard::arrived(&laggard.second) + laggard.dropped("b").get() >= ALL).await;
    laggard.harness.shutdown().await;
}

#[tokio::test]
async fn what_a_laggard_holds_of_deleted_segments_when_the_process_ends_is_counted() {
    let laggard = Laggard::new().await;
    let dropped = laggard.dropped("b");
    let Laggard { first, second, harness, directory, .. } = laggard;
    harness.engine().shutdown(Duration::from_secs(5)).await;
    drop(harness);
    second.answer(|_| OK.to_owned());
    let text = Laggard::text(&first, &second, "x");
    let harness = Harness::<RemoteWrite>::within(inside(directory.path()), &text).await.unwrap();
    second.wait_for([FED]).await;
    eventually(|| Laggard::arrived(&second) + dropped.get() == ALL).await;
    harness.shutdown().await;
}

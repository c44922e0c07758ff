//! What becomes of a log whose node went away: undone, died, or removed.

use invar_engine::{Configuration, Engine, EngineOptions, Inputs, PrepareMode};

use super::*;

struct Pipeline {
    engine: Engine,
    services: Services,
}

impl Pipeline {
    /// An engine that runs `text`, committed.
    async fn start(directory: &Path, text: &str) -> Self {
        let services = Services::new();
        let mut options = EngineOptions::new(Registry::new().with::<RemoteWrite>(), directory);
        options.services = services.clone();
        options.drain_deadline = Duration::from_secs(5);
        let pipeline = Self { engine: Engine::new(options), services };
        pipeline.cut(text).await;
        pipeline.engine.commit().await;
        pipeline
    }

    async fn cut(&self, text: &str) {
        let configuration = Configuration::parse([("test.alloy", text)], Inputs::default(), "test").unwrap();
        let prepared = self.engine.prepare(Arc::new(configuration), PrepareMode::AllOrNothing).await.unwrap();
        self.engine.cut(prepared, |_| Ok::<(), std::convert::Infallible>(())).await.unwrap();
    }

    /// Appends to a node's log as the component does.
    async fn feed(&self, label: &str, batch: Arc<MetricBatch>) {
        let node = BTreeSet::from([format!("prometheus.remote_write.{label}")]);
        let log = Siblings::of(&self.services).heir(&node).expect("the node runs");
        log.accepting().await;
        log.log.append(&batch).unwrap();
    }

    fn sweep(&self, directory: &Path, now: jiff::Timestamp) {
        sweep::sweep(directory, &Siblings::of(&self.services), &Metrics::of(&self.services), now);
    }
}

fn node(label: &str, url: &str) -> String {
    format!("prometheus.remote_write \"{label}\" {{\n{}\n}}\n", endpoint(url, ""))
}

/// A batch that also has an exemplar and metadata.
fn rich(list: &Arc<SeriesList>, timestamp: i64) -> Arc<MetricBatch> {
    use invar_telemetry::batch::{Exemplar, ExemplarSample};
    use invar_telemetry::{MetricKind, MetricMetadata};
    let mut rich = MetricBatch::clone(&batch(list, timestamp));
    rich.exemplars.push(ExemplarSample {
        series: list[0].clone(),
        exemplar: Exemplar {
            labels: [("trace", "1")].into_iter().collect(),
            value: 1.0,
            timestamp: Some(timestamp),
        },
    });
    rich.metadata.push(Arc::new(MetricMetadata {
        family: "metric".into(),
        kind: MetricKind::Gauge,
        help: "Help.".into(),
        unit: String::new(),
    }));
    Arc::new(rich)
}

fn directories_with_logs(directory: &Path) -> BTreeSet<String> {
    let entries = std::fs::read_dir(directory).unwrap().flatten();
    let with_log = entries.filter(|entry| entry.path().join("wal").is_dir());
    with_log.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

fn copy_directory(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().flatten() {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_directory(&entry.path(), &target);
        } else if std::fs::copy(entry.path(), &target).is_err() {
            // A temporary file that was renamed meanwhile.
            assert!(entry.path().extension().is_some_and(|extension| extension == "new"));
        }
    }
}

#[tokio::test]
async fn what_an_undone_component_could_not_deliver_goes_to_the_one_it_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let (good, bad) = (Receiver::start().await, Receiver::start().await);
    bad.answer(|_| DOWN.to_owned());
    let pipeline = Pipeline::start(directory.path(), &node("good", &good.url)).await;
    let list = list();
    pipeline.feed("good", batch(&list, 1)).await;
    pipeline.cut(&node("new", &bad.url)).await;
    for timestamp in 2..6 {
        pipeline.feed("new", rich(&list, timestamp)).await;
    }
    pipeline.engine.rollback();
    pipeline.feed("good", batch(&list, 6)).await;
    good.wait_for(1..7).await;
    let exemplars = || good.accepted.lock().iter().map(|received| received.exemplars).sum::<usize>();
    eventually(|| exemplars() > 0).await;
    // Once the undone node has let go of it, nothing of its log is left.
    eventually(|| {
        pipeline.sweep(directory.path(), jiff::Timestamp::now());
        directories_with_logs(directory.path()).len() == 1
    })
    .await;
    pipeline.engine.shutdown(Duration::from_secs(5)).await;
}

#[tokio::test]
async fn what_a_dead_candidate_could_not_deliver_goes_to_the_one_it_replaced_at_boot() {
    let (directory, after) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (good, bad) = (Receiver::start().await, Receiver::start().await);
    bad.answer(|_| DOWN.to_owned());
    let list = list();
    let pipeline = Pipeline::start(directory.path(), &node("good", &good.url)).await;
    pipeline.feed("good", batch(&list, 1)).await;
    pipeline.cut(&node("new", &bad.url)).await;
    for timestamp in 2..6 {
        pipeline.feed("new", batch(&list, timestamp)).await;
    }
    // What a process that is killed now leaves behind.
    copy_directory(directory.path(), after.path());
    pipeline.engine.shutdown(Duration::from_millis(50)).await;
    assert!(good.timestamps().iter().all(|timestamp| *timestamp == 1));
    let pipeline = Pipeline::start(after.path(), &node("good", &good.url)).await;
    good.wait_for(1..6).await;
    eventually(|| directories_with_logs(after.path()).len() == 1).await;
    pipeline.engine.shutdown(Duration::from_secs(5)).await;
}

#[tokio::test]
async fn a_closed_log_is_adopted_by_its_node_and_deleted_when_it_expires() {
    let directory = tempfile::tempdir().unwrap();
    let down = Receiver::start().await;
    down.answer(|_| DOWN.to_owned());
    let list = list();
    let pipeline = Pipeline::start(directory.path(), &node("old", &down.url)).await;
    pipeline.feed("old", batch(&list, 1)).await;
    let remove = async || {
        pipeline.cut("").await;
        pipeline.engine.commit().await;
        // Its receiver is down: it drains in vain until its deadline.
        pipeline.engine.drained().await;
    };
    remove().await;
    let now = jiff::Timestamp::now();
    pipeline.sweep(directory.path(), now + Duration::from_secs(7 * 3600));
    let name = directories_with_logs(directory.path()).pop_first().unwrap();
    let metrics = Metrics::of(&pipeline.services);
    assert!(metrics.wal_kept.with_label_values(&[&*name]).get() > 0);
    // The node comes back, and with it what it had not delivered.
    let up = Receiver::start().await;
    pipeline.cut(&node("old", &up.url)).await;
    pipeline.engine.commit().await;
    pipeline.sweep(directory.path(), now + Duration::from_secs(9 * 3600));
    up.wait_for([1]).await;
    up.answer(|_| DOWN.to_owned());
    pipeline.feed("old", batch(&list, 2)).await;
    remove().await;
    assert_eq!(metrics.wal_expired.with_label_values(&[&*name]).get(), 0, "open logs do not expire");
    pipeline.sweep(directory.path(), jiff::Timestamp::now() + Duration::from_secs(9 * 3600));
    assert!(directories_with_logs(directory.path()).is_empty());
    assert_eq!(metrics.wal_expired.with_label_values(&[&*name]).get(), 1);
    assert!(metrics.wal_expired_bytes.with_label_values(&[&*name]).get() > 0);
    pipeline.engine.shutdown(Duration::from_secs(5)).await;
}

/// Would not end if the engine's writer waited for the disk.
#[tokio::test]
async fn a_rollback_does_not_wait_for_the_disk() {
    let receiver = Receiver::start().await;
    let text = |token: &str| endpoint(&receiver.url, &format!("bearer_token = \"{token}\""));
    let harness = Harness::<RemoteWrite>::new(&text("x")).await.unwrap();
    let list = list();
    feed(&harness, &list, 1..2).await;
    let instance = harness.instance().unwrap();
    harness.candidate(&text("y")).await.unwrap();
    assert_eq!(instance.log.legs().len(), 2);
    {
        let _blocked = instance.log.block_disk();
        harness.rollback();
        assert_eq!(instance.log.legs().len(), 1);
    }
    feed(&harness, &list, 2..4).await;
    receiver.wait_for(1..4).await;
    harness.shutdown().await;
}

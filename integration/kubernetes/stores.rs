//! The store `k8s` behind [`SecretStores`]: what becomes of a secret that somebody holds, whatever happens to the object,
//! the permission and the API server; and a pipeline that uses one.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use invar_integration::{Kubernetes, Receiver, canary, wait_for};
use invar_secrets::kubernetes::{
    ClusterSettings, ClusterTransport, KubernetesApi, KubernetesStore, WatchState,
};
use invar_secrets::{SecretState, SecretStatus, SecretStore, SecretStores, WhenMissing};
use invar_syntax::LiveSecret;
use serde_json::json;

use crate::{Cluster, Running, SOON, TOKEN, USER, cluster, named, settings};

/// Until somebody who is denied is asked again without being told: the longest first pause, and some.
const ASKED_AGAIN: Duration = Duration::from_secs(90);

/// Stores of which one is the cluster's, and a runtime for them.
pub(crate) struct Stores {
    pub(crate) runtime: tokio::runtime::Runtime,
    pub(crate) stores: SecretStores,
    pub(crate) store: Arc<KubernetesStore>,
}

impl Stores {
    pub(crate) fn on(kubernetes: &Kubernetes) -> Self {
        Self::with(kubernetes, WhenMissing::Keep)
    }

    fn with(kubernetes: &Kubernetes, when_missing: WhenMissing) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let transport = ClusterTransport::new(ClusterSettings::Server(Box::new(settings(kubernetes))));
        let store = Arc::new(KubernetesStore::new(KubernetesApi::new(transport)).when_missing(when_missing));
        let dynamic: Arc<dyn SecretStore> = store.clone();
        Self { runtime, stores: SecretStores::new(BTreeMap::from([("k8s".to_owned(), dynamic)])), store }
    }

    fn live(&self, reference: &str) -> LiveSecret {
        self.runtime.block_on(self.stores.live(&reference.parse().unwrap())).unwrap()
    }

    fn status(&self) -> SecretStatus {
        let mut all = self.stores.status();
        assert_eq!(all.len(), 1, "one path is held");
        all.remove(0)
    }

    fn watching(&self) {
        let watching = || (self.store.watched().first()?.1 == WatchState::Watching).then_some(());
        wait_for("the name to be watched", SOON, watching).unwrap();
    }

    /// Waits for a state; gives the reason.
    fn becomes(&self, state: SecretState, limit: Duration) -> String {
        let is = || Some(self.status()).filter(|status| status.state == state);
        let status = wait_for(&format!("the state {state:?}"), limit, is)
            .unwrap_or_else(|problem| panic!("{problem}: {:?}", self.status()));
        status.reason.unwrap_or_default()
    }

    /// Waits for a text by what is told of changes, and says how long it took.
    fn reads(&self, secret: &LiveSecret, text: &str) -> Duration {
        let begun = Instant::now();
        let mut changes = self.stores.changes();
        let reading = async {
            while secret.read().expose() != text {
                changes.changed().await.unwrap();
            }
        };
        let read = self.runtime.block_on(async { tokio::time::timeout(SOON, reading).await });
        read.unwrap_or_else(|_| panic!("{:?}", self.status()));
        begun.elapsed()
    }
}

impl Drop for Stores {
    fn drop(&mut self) {
        self.runtime.block_on(async {
            self.stores.shutdown().await;
            self.store.shutdown().await;
        });
    }
}

fn password(kubernetes: &Kubernetes, password: &str) {
    kubernetes.secret("team-a", "login", &[("user", "me"), ("password", password)]).unwrap();
}

#[test]
fn a_rotation_reaches_who_holds_the_secret_within_a_second() {
    let Some(Cluster { kubernetes, _one }) = cluster() else { return };
    let held = Stores::on(&kubernetes);
    let (user, secret) = (held.live("k8s/team-a/login#user"), held.live("k8s/team-a/login#password"));
    held.watching();
    let mut latencies = Vec::new();
    for round in 0..20 {
        let new = format!("round-{round}");
        password(&kubernetes, &new);
        latencies.push(held.reads(&secret, &new));
        assert_eq!((secret.version(), user.version()), (round + 2, round + 2));
    }
    latencies.sort();
    println!(
        "from the answer to a write until the secret is new: median {:?}, at most {:?}",
        latencies[10], latencies[19]
    );
    assert!(latencies[19] < Duration::from_secs(1), "{latencies:?}");
    assert_eq!(secret.previous().unwrap().expose(), "round-18");
    assert_eq!(held.status().state, SecretState::Ready);
}

#[test]
fn a_deleted_secret_keeps_its_value_and_is_missing_until_it_is_made_again() {
    let Some(Cluster { kubernetes, _one }) = cluster() else { return };
    let held = Stores::on(&kubernetes);
    let secret = held.live("k8s/team-a/login#password");
    held.watching();
    kubernetes.delete("/api/v1/namespaces/team-a/secrets/login").unwrap();
    let reason = held.becomes(SecretState::Missing, SOON);
    assert!(reason.contains("team-a/login") && reason.contains("does not exist"), "{reason}");
    assert_eq!((secret.read().expose(), secret.version()), ("first", 1));
    // Another object of the same name: just a new value.
    password(&kubernetes, "second");
    held.reads(&secret, "second");
    held.becomes(SecretState::Ready, SOON);
    // A key that is taken away is a value that nobody could use.
    kubernetes.secret("team-a", "login", &[("user", "me")]).unwrap();
    let reason = held.becomes(SecretState::Missing, SOON);
    assert!(reason.contains("`password`"), "{reason}");
    assert_eq!(secret.read().expose(), "second");
    password(&kubernetes, "third");
    held.reads(&secret, "third");
    held.becomes(SecretState::Ready, SOON);
}

#[test]
fn a_deleted_secret_and_a_deleted_key_are_empty_texts_where_the_settings_say_so() {
    let Some(Cluster { kubernetes, _one }) = cluster() else { return };
    let held = Stores::with(&kubernetes, WhenMissing::Empty);
    let (user, secret) = (held.live("k8s/team-a/login#user"), held.live("k8s/team-a/login#password"));
    held.watching();
    kubernetes.secret("team-a", "login", &[("user", "you")]).unwrap();
    held.reads(&secret, "");
    assert!(held.becomes(SecretState::Missing, SOON).contains("`password`"));
    assert_eq!(user.read().expose(), "you");
    kubernetes.delete("/api/v1/namespaces/team-a/secrets/login").unwrap();
    held.reads(&user, "");
    let gone = || held.status().reason.filter(|reason| reason.contains("does not exist"));
    wait_for("what is missing now", SOON, gone).unwrap();
    password(&kubernetes, "second");
    held.reads(&secret, "second");
    held.becomes(SecretState::Ready, SOON);
    assert_eq!(user.read().expose(), "me");
}

#[test]
fn a_watch_that_is_forbidden_is_told_and_a_change_is_found_by_looking() {
    let Some(Cluster { kubernetes, _one }) = cluster() else { return };
    kubernetes.allow("team-a", USER, &named(&["get"])).unwrap();
    let held = Stores::on(&kubernetes);
    let secret = held.live("k8s/team-a/login#password");
    let note = || held.status().note.filter(|note| note.contains(r#"verbs: ["watch"]"#));
    wait_for("why it is not watched", SOON, note).unwrap();
    assert_eq!(held.status().state, SecretState::Ready);
    // Once a minute, give or take a tenth.
    password(&kubernetes, "second");
    let read = || (secret.read().expose() == "second").then_some(());
    wait_for("the new value", Duration::from_secs(80), read).unwrap();
    kubernetes.allow("team-a", USER, &named(&["get", "watch"])).unwrap();
    let watched = || held.status().note.is_none().then_some(());
    wait_for("a watch, now that it is allowed", ASKED_AGAIN, watched).unwrap();
}

#[test]
fn a_permission_that_is_taken_away_leaves_the_value_and_is_named_until_it_is_given_back() {
    let Some(Cluster { kubernetes, _one }) = cluster() else { return };
    kubernetes.allow("team-a", USER, &named(&["get", "watch"])).unwrap();
    let held = Stores::on(&kubernetes);
    let secret = held.live("k8s/team-a/login#password");
    held.watching();
    kubernetes.allow("team-a", USER, &json!([])).unwrap();
    // The watch that is open tells of it; reading is what is forbidden.
    password(&kubernetes, "second");
    let reason = held.becomes(SecretState::Denied, SOON);
    let rule = "{apiGroups: [\"\"], resources: [\"secrets\"], resourceNames: [\"login\"], verbs: [\"get\"]}";
    assert!(reason.contains(rule) && reason.contains("namespace team-a"), "{reason}");
    assert_eq!((secret.read().expose(), secret.version()), ("first", 1));
    kubernetes.allow("team-a", USER, &named(&["get", "watch"])).unwrap();
    held.becomes(SecretState::Ready, ASKED_AGAIN);
    assert_eq!((secret.read().expose(), secret.version()), ("second", 2));
}

#[test]
fn an_api_server_that_is_gone_leaves_the_value_and_a_rotation_meanwhile_is_found() {
    let Some(Cluster { mut kubernetes, _one }) = cluster() else { return };
    let held = Stores::on(&kubernetes);
    let secret = held.live("k8s/team-a/login#password");
    held.watching();
    kubernetes.kill_api();
    let reason = held.becomes(SecretState::Stale, SOON);
    assert!(reason.contains(&kubernetes.url()), "{reason}");
    assert_eq!(secret.read().expose(), "first");
    kubernetes.start_api().unwrap();
    password(&kubernetes, "second");
    held.reads(&secret, "second");
    held.becomes(SecretState::Ready, SOON);
    held.watching();
    password(&kubernetes, "third");
    assert!(held.reads(&secret, "third") < Duration::from_secs(5), "it is told again");
}

/// The settings of an agent with the cluster as the store `k8s`, and its token in a file.
fn agent_settings(kubernetes: &Kubernetes, token: &std::path::Path) -> String {
    std::fs::write(token, TOKEN).unwrap();
    std::fs::set_permissions(token, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    format!(
        "[secrets.k8s]\nkind = \"kubernetes\"\naddress = \"{}\"\nauth = {{ token = {{ file = \"{}\" }} }}\n\
         tls = {{ ca = \"{}\" }}\n",
        kubernetes.url(),
        token.display(),
        kubernetes.authority().display()
    )
}

#[test]
fn a_password_of_the_store_is_rotated_under_a_running_endpoint() {
    let Some(Cluster { kubernetes, _one }) = cluster() else { return };
    let marker = |round: usize| canary::secret(format!("marker-store-password-{round}-5b90"));
    password(&kubernetes, &marker(0));
    let receiver = Receiver::start().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let pipeline = format!(
        r#"
logging {{
	level = "debug"
}}

prometheus.exporter.self "own" {{ }}

prometheus.scrape "own" {{
	targets         = prometheus.exporter.self.own.targets
	scrape_interval = "20ms"
	scrape_timeout  = "20ms"
	forward_to      = [prometheus.remote_write.out.receiver]
}}

prometheus.relabel "unrelated" {{
	forward_to = []
}}

prometheus.remote_write "out" {{
	endpoint {{
		url = "{}"
		basic_auth {{
			username = secret("k8s/team-a/login#user")
			password = secret("k8s/team-a/login#password")
		}}
		queue_config {{
			batch_send_deadline = "5ms"
		}}
	}}
}}
"#,
        receiver.url("a")
    );
    let running = Running::start_with(&pipeline, &agent_settings(&kubernetes, &folder.path().join("token")));
    let header = |round: usize| {
        use base64::Engine as _;
        let text = format!("me:marker-store-password-{round}-5b90");
        format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(text))
    };
    let uses = |round: usize| {
        let begun = Instant::now();
        let header = header(round);
        while !receiver.authorization("a").contains(&header) {
            assert!(begun.elapsed() < SOON, "password {round} is not used:\n{}", running.agent.log());
            std::thread::sleep(Duration::from_millis(1));
        }
        begun.elapsed()
    };
    uses(0);
    let state = || running.agent.get("/api/v1/secrets/k8s%2Fteam-a%2Flogin").unwrap();
    // The first change may be found by looking again; after it the name is watched.
    password(&kubernetes, &marker(1));
    uses(1);
    let ids = ["prometheus.remote_write.out", "prometheus.scrape.own", "prometheus.relabel.unrelated"];
    let (before, process) = (running.instances(&ids), running.agent.process());
    let generation = running.agent.status().unwrap()["running"]["generation"].clone();
    let evaluations = |id: &str| {
        let page = running.agent.text("/metrics").unwrap().1;
        let of = format!("alloy_component_evaluation_seconds_count{{component_id=\"{id}\"");
        page.lines().find(|line| line.starts_with(&of)).map(str::to_owned)
    };
    let evaluated = evaluations("prometheus.remote_write.out");
    let rounds = 11;
    let mut latencies = Vec::new();
    for round in 2..=rounds {
        password(&kubernetes, &marker(round));
        latencies.push(uses(round));
    }
    latencies.sort();
    println!(
        "from the answer to a write until a request has the new password: median {:?}, at most {:?}; a request is made every 20 ms",
        latencies[latencies.len() / 2],
        latencies[latencies.len() - 1]
    );
    // Nothing was started anew or evaluated, no request had parts of two versions, and none was refused.
    assert_eq!((running.instances(&ids), running.agent.process()), (before, process));
    assert_eq!(running.agent.status().unwrap()["running"]["generation"], generation);
    assert_eq!(evaluations("prometheus.remote_write.out"), evaluated);
    let seen: Vec<String> = receiver.authorization("a");
    assert_eq!(seen, (0..=rounds).map(header).collect::<Vec<_>>());
    assert_eq!(receiver.requests("a").1, 0);
    let status = state();
    assert_eq!((&status["rotations"], &status["state"]), (&json!(rounds), &json!("ready")), "{status:#}");
    running.agent.search().unwrap();
}

//! Against a real Kubernetes API server: `remote.kubernetes.*` in a running agent, and the store `k8s`.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod many;
mod stores;

use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use invar_integration::{Agent, AgentOptions, Kubernetes, Receiver, canary, wait_for};
use invar_secrets::kubernetes::{
    ClusterSettings, ClusterTransport, KubernetesApi, KubernetesStore, ServerSettings, WatchState,
};
use invar_secrets::{Secret, SecretError, SecretSnapshot, SecretStore};
use serde_json::{Value, json};
use tempfile::TempDir;

const SOON: Duration = Duration::from_secs(60);
const USER: &str = "agent";
const TOKEN: &str = "marker-of-the-agents-token-41c6";

/// An API server takes hundreds of megabytes: one at a time.
static ONE: Mutex<()> = Mutex::new(());

/// A cluster with a namespace and a user that may read and watch both kinds of objects there.
struct Cluster {
    kubernetes: Kubernetes,
    _one: MutexGuard<'static, ()>,
}

/// The server, or nothing where it is missing and nobody insists.
fn cluster() -> Option<Cluster> {
    let Some(binary) = Kubernetes::built() else {
        assert!(
            std::env::var_os("INVAR_REQUIRE_SERVERS").is_none(),
            "the Kubernetes API server is missing: run `make integration`"
        );
        eprintln!("skipped: the Kubernetes API server is missing; `make integration` provides it");
        return None;
    };
    let one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let kubernetes = Kubernetes::start(&binary, &[(USER, TOKEN)]).unwrap();
    kubernetes.namespace("team-a").unwrap();
    kubernetes.allow("team-a", USER, &everything()).unwrap();
    kubernetes.config_map("team-a", "settings", &[("color", "red")]).unwrap();
    kubernetes.secret("team-a", "login", &[("user", "me"), ("password", "first")]).unwrap();
    Some(Cluster { kubernetes, _one: one })
}

fn everything() -> Value {
    json!([{ "apiGroups": [""], "resources": ["secrets", "configmaps"], "verbs": ["get", "list", "watch"] }])
}

/// Only these verbs, and only on the two names.
fn named(verbs: &[&str]) -> Value {
    json!([{
        "apiGroups": [""],
        "resources": ["secrets", "configmaps"],
        "resourceNames": ["settings", "login"],
        "verbs": verbs,
    }])
}

fn client(kubernetes: &Kubernetes) -> String {
    format!(
        "client {{\n\t\tapi_server = \"{}\"\n\t\tbearer_token = \"{TOKEN}\"\n\t\ttls_config {{\n\t\t\tca_file = \"{}\"\n\t\t}}\n\t}}",
        kubernetes.url(),
        kubernetes.authority().display()
    )
}

/// Both components, one that shows their data, and one that has nothing to do with them.
fn pipeline(client: &str, poll: &str) -> String {
    let object = |kind: &str, label: &str, name: &str| {
        format!(
            "remote.kubernetes.{kind} \"{label}\" {{\n\tnamespace = \"team-a\"\n\tname = \"{name}\"\n\tpoll_frequency = \"{poll}\"\n\t{client}\n}}\n\n"
        )
    };
    object("configmap", "map", "settings")
        + &object("secret", "login", "login")
        + r#"
discovery.relabel "shown" {
	targets = [{"__address__" = "a"}]
	rule {
		target_label = "color"
		replacement  = remote.kubernetes.configmap.map.data.color
	}
	rule {
		target_label = "password"
		replacement  = convert.nonsensitive(remote.kubernetes.secret.login.data.password)
	}
}

discovery.relabel "unrelated" {
	targets = [{"__address__" = "b"}]
}

prometheus.exporter.self "unrelated" { }
"#
}

const MAP: &str = "remote.kubernetes.configmap.map";
const LOGIN: &str = "remote.kubernetes.secret.login";

/// An agent on a file.
struct Running {
    agent: Agent,
    directory: TempDir,
}

impl Running {
    fn start(pipeline: &str) -> Self {
        Self::start_with(pipeline, "")
    }

    fn start_with(pipeline: &str, settings: &str) -> Self {
        if pipeline.contains(TOKEN) {
            canary::written(TOKEN)
        } else {
            canary::secret(TOKEN)
        };
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("main.alloy");
        std::fs::write(&file, pipeline).unwrap();
        let agent = Agent::start(AgentOptions {
            binary: PathBuf::from(env!("CARGO_BIN_EXE_invar")),
            directory: directory.path().to_path_buf(),
            settings: format!(
                "[[source]]\nname = \"file\"\nfile = {{ path = \"{}\" }}\n\n{settings}",
                file.display()
            ),
            environment: Vec::new(),
        })
        .unwrap();
        agent.wait("the pipeline runs", SOON, |status| !status["running"].is_null()).unwrap();
        Self { agent, directory }
    }

    fn write(&self, pipeline: &str) {
        std::fs::write(self.directory.path().join("main.alloy"), pipeline).unwrap();
    }

    fn component(&self, id: &str) -> Value {
        self.agent.get(&format!("/api/v1/components/{id}")).unwrap()
    }

    /// Waits until what depends on the data shows these texts; says how long it took.
    fn shows(&self, texts: &[&str]) -> Duration {
        let begun = Instant::now();
        let shown = || {
            let exports = self.component("discovery.relabel.shown")["exports"].to_string();
            texts.iter().all(|text| exports.contains(text)).then_some(())
        };
        wait_for(&format!("{texts:?} to be shown"), SOON, shown).unwrap_or_else(|problem| {
            panic!("{problem}\n{:#}\n{}", self.component(MAP), self.agent.log());
        });
        begun.elapsed()
    }

    /// Waits until a component's health begins with this state and has these parts in its message.
    fn health(&self, id: &str, state: &str, parts: &[&str]) -> String {
        let healthy = || {
            let health = self.component(id)["health"].clone();
            let message = health["message"].as_str().unwrap_or_default().to_owned();
            (health["state"] == state && parts.iter().all(|part| message.contains(part))).then_some(message)
        };
        wait_for(&format!("{id} to be {state} with {parts:?}"), SOON, healthy).unwrap_or_else(|problem| {
            panic!("{problem}\n{:#}\n{}", self.component(id), self.agent.log());
        })
    }

    fn instances(&self, ids: &[&str]) -> Vec<String> {
        ids.iter().map(|id| self.agent.instance(id).unwrap()).collect()
    }
}

#[test]
fn changes_come_by_the_watch_and_touch_nothing_else() {
    let Some(Cluster { kubernetes, _one }) = cluster() else { return };
    // Polling is as good as off.
    let running = Running::start(&pipeline(&client(&kubernetes), "1h"));
    running.shows(&["red", "first"]);
    for id in [MAP, LOGIN] {
        running.health(id, "healthy", &["changes are watched"]);
    }
    let ids = [
        MAP,
        LOGIN,
        "discovery.relabel.shown",
        "discovery.relabel.unrelated",
        "prometheus.exporter.self.unrelated",
    ];
    let before = running.instances(&ids);
    let process = running.agent.process();
    let mut slowest = Duration::ZERO;
    for round in 0..5 {
        let (color, password) = (format!("blue-{round}"), format!("second-{round}"));
        kubernetes.config_map("team-a", "settings", &[("color", &color)]).unwrap();
        slowest = slowest.max(running.shows(&[&color]));
        kubernetes.secret("team-a", "login", &[("user", "me"), ("password", &password)]).unwrap();
        slowest = slowest.max(running.shows(&[&password]));
    }
    println!("from the answer to a write until it is shown: at most {slowest:?} (looked at every 50 ms)");
    assert_eq!(running.instances(&ids), before);
    assert_eq!(running.agent.process(), process);

    // Deleted: what was there stays in use, and is said to be gone.
    kubernetes.delete("/api/v1/namespaces/team-a/secrets/login").unwrap();
    running.health(LOGIN, "unhealthy", &["Secret team-a/login", "does not exist", "stays in use"]);
    kubernetes.delete("/api/v1/namespaces/team-a/configmaps/settings").unwrap();
    running.health(MAP, "unhealthy", &["ConfigMap team-a/settings", "does not exist"]);
    running.shows(&["blue-4", "second-4"]);
    // Made again: just a new value.
    kubernetes.secret("team-a", "login", &[("user", "me"), ("password", "third")]).unwrap();
    kubernetes.config_map("team-a", "settings", &[("color", "green")]).unwrap();
    running.shows(&["green", "third"]);
    for id in [MAP, LOGIN] {
        running.health(id, "healthy", &["changes are watched"]);
    }
    assert_eq!(running.instances(&ids), before);

    // A key that is taken away is an error of what uses it; the others go on.
    kubernetes.config_map("team-a", "settings", &[("colour", "green")]).unwrap();
    let log = || running.agent.log().contains("color").then_some(());
    wait_for("the missing key to be named", SOON, log).unwrap();
    running.shows(&["green", "third"]);
    kubernetes.config_map("team-a", "settings", &[("color", "white")]).unwrap();
    running.shows(&["white", "third"]);
}

#[test]
fn the_permission_to_get_one_name_is_enough_and_may_come_and_go() {
    let Some(Cluster { kubernetes, _one }) = cluster() else { return };
    kubernetes.allow("team-a", USER, &named(&["get"])).unwrap();
    let running = Running::start(&pipeline(&client(&kubernetes), "1s"));
    running.shows(&["red", "first"]);
    for id in [MAP, LOGIN] {
        running.health(id, "healthy", &["only polled for", "verbs: [\"watch\"]", "resourceNames"]);
    }
    kubernetes.config_map("team-a", "settings", &[("color", "blue")]).unwrap();
    kubernetes.secret("team-a", "login", &[("password", "second")]).unwrap();
    running.shows(&["blue", "second"]);
    // Taken away.
    kubernetes.allow("team-a", USER, &json!([])).unwrap();
    let rule = "{apiGroups: [\"\"], resources: [\"secrets\"], resourceNames: [\"login\"], verbs: [\"get\"]}";
    running.health(LOGIN, "unhealthy", &["cannot get resource", "stays in use", rule]);
    running.health(MAP, "unhealthy", &["cannot get resource"]);
    running.shows(&["blue", "second"]);
    // Given back.
    kubernetes.config_map("team-a", "settings", &[("color", "green")]).unwrap();
    kubernetes.allow("team-a", USER, &named(&["get"])).unwrap();
    running.shows(&["green"]);
    for id in [MAP, LOGIN] {
        running.health(id, "healthy", &["only polled for"]);
    }
}

#[test]
fn the_permission_to_watch_one_name_is_enough_for_a_watch() {
    let Some(Cluster { kubernetes, _one }) = cluster() else { return };
    kubernetes.allow("team-a", USER, &named(&["get", "watch"])).unwrap();
    let running = Running::start(&pipeline(&client(&kubernetes), "1h"));
    running.health(LOGIN, "healthy", &["changes are watched"]);
    kubernetes.secret("team-a", "login", &[("password", "second")]).unwrap();
    running.shows(&["second"]);
}

#[test]
fn an_api_server_that_is_gone_leaves_the_data_and_is_found_again() {
    let Some(Cluster { mut kubernetes, _one }) = cluster() else { return };
    let running = Running::start(&pipeline(&client(&kubernetes), "2s"));
    running.shows(&["red", "first"]);
    kubernetes.kill_api();
    for id in [MAP, LOGIN] {
        running.health(id, "unhealthy", &[&kubernetes.url(), "stays in use"]);
    }
    running.shows(&["red", "first"]);
    kubernetes.start_api().unwrap();
    kubernetes.secret("team-a", "login", &[("password", "second")]).unwrap();
    running.shows(&["red", "second"]);
    for id in [MAP, LOGIN] {
        running.health(id, "healthy", &["changes are watched"]);
    }
}

#[test]
fn a_first_failure_refuses_the_configuration_and_is_named() {
    let Some(Cluster { kubernetes, _one }) = cluster() else { return };
    let good = client(&kubernetes);
    let running = Running::start(&pipeline(&good, "1h"));
    running.shows(&["red", "first"]);
    let running_revision = || running.agent.status().unwrap()["running"].to_string();
    let before = running_revision();
    let other = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap().cert.pem();
    let other_authority = running.directory.path().join("other.crt");
    std::fs::write(&other_authority, other).unwrap();
    let authority = kubernetes.authority().display().to_string();
    let base = pipeline(&good, "1h");
    // What runs already goes on with what it has, so these are new components.
    let new = |text: &str| {
        base.replace("\"login\" {", "\"other\" {")
            .replace("secret.login", "secret.other")
            .replace("\"login\"\n", text)
    };
    let cases = [
        (
            "wrong CA",
            new("\"login\"\n").replace(&authority, &other_authority.display().to_string()),
            "certificate",
        ),
        (
            "wrong token",
            new("\"login\"\n").replace(TOKEN, "not-the-token"),
            "does not accept the credentials",
        ),
        ("missing object", new("\"logout\"\n"), "Secret team-a/logout"),
        ("another namespace", new("\"login\"\n").replace("\"team-a\"", "\"team-b\""), "namespace team-b"),
        ("missing key", base.replace("data.password", "data.pasword"), "pasword"),
        (
            "no API server",
            new("\"login\"\n").replace(&kubernetes.url(), "https://127.0.0.1:9"),
            "127.0.0.1:9",
        ),
        ("a bad name", new("\"Log/in\"\n"), "lower case"),
        (
            "two ways",
            new("\"login\"\n").replace("bearer_token =", "kubeconfig_file = \"/x\"\n\t\tbearer_token ="),
            "at most one of",
        ),
    ];
    for (what, text, part) in cases {
        running.write(&text);
        let said = || {
            let status = running.agent.status().unwrap().to_string();
            (status.contains(part) || running.agent.log().contains(part)).then_some(())
        };
        wait_for(&format!("{what}: {part:?} to be said"), SOON, said)
            .unwrap_or_else(|problem| panic!("{problem}\n{}", running.agent.log()));
        assert_eq!(running_revision(), before, "{what}");
        running.shows(&["red", "first"]);
    }
}

#[test]
fn a_password_is_rotated_under_a_running_endpoint_and_appears_nowhere() {
    const FIRST: &str = "marker-password-one-88d1";
    const SECOND: &str = "marker-password-two-93f7";
    let Some(Cluster { mut kubernetes, _one }) = cluster() else { return };
    kubernetes.secret("team-a", "login", &[("user", "me"), ("password", canary::secret(FIRST))]).unwrap();
    let receiver = Receiver::start().unwrap();
    let kubeconfig_folder = tempfile::tempdir().unwrap();
    let kubeconfig = kubeconfig_folder.path().join("config");
    std::fs::write(&kubeconfig, kubeconfig_text(&kubernetes)).unwrap();
    let text = format!(
        r#"
remote.kubernetes.secret "login" {{
	namespace = "team-a"
	name      = "login"
	poll_frequency = "2s"
	client {{
		kubeconfig_file = "{}"
	}}
}}

prometheus.exporter.self "own" {{ }}

prometheus.scrape "own" {{
	targets         = prometheus.exporter.self.own.targets
	scrape_interval = "500ms"
	scrape_timeout  = "500ms"
	forward_to      = [prometheus.remote_write.out.receiver]
}}

prometheus.remote_write "out" {{
	endpoint {{
		url = "{}"
		basic_auth {{
			username = convert.nonsensitive(remote.kubernetes.secret.login.data.user)
			password = remote.kubernetes.secret.login.data.password
		}}
		queue_config {{
			batch_send_deadline = "200ms"
		}}
	}}
}}
"#,
        kubeconfig.display(),
        receiver.url("a")
    );
    let running = Running::start(&text);
    let used = |count: usize| {
        let seen = || (receiver.authorization("a").len() >= count).then_some(());
        wait_for(&format!("{count} passwords to be used"), SOON, seen).unwrap();
    };
    used(1);
    let before = running.instances(&["prometheus.remote_write.out", "prometheus.scrape.own"]);
    kubernetes.secret("team-a", "login", &[("user", "me"), ("password", canary::secret(SECOND))]).unwrap();
    used(2);
    assert_eq!(running.instances(&["prometheus.remote_write.out", "prometheus.scrape.own"]), before);
    // Error paths speak, too.
    kubernetes.allow("team-a", USER, &json!([])).unwrap();
    running.health(LOGIN, "unhealthy", &["cannot get resource"]);
    kubernetes.kill_api();
    running.health(LOGIN, "unhealthy", &["the API server of"]);

    running.agent.search().unwrap();
}

fn kubeconfig_text(kubernetes: &Kubernetes) -> String {
    format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: test\n\
         contexts:\n- name: test\n  context: {{cluster: test, user: agent}}\n\
         clusters:\n- name: test\n  cluster:\n    server: {}\n    certificate-authority: {}\n\
         users:\n- name: agent\n  user: {{token: {TOKEN}}}\n",
        kubernetes.url(),
        kubernetes.authority().display()
    )
}

/// A store on the cluster, and a runtime for it.
fn store(settings: ServerSettings) -> (tokio::runtime::Runtime, KubernetesStore) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let transport = ClusterTransport::new(ClusterSettings::Server(Box::new(settings)));
    (runtime, KubernetesStore::new(KubernetesApi::new(transport)))
}

fn settings(kubernetes: &Kubernetes) -> ServerSettings {
    ServerSettings {
        api_server: kubernetes.url(),
        token: Some(Secret::new(TOKEN)),
        ca_file: Some(kubernetes.authority()),
        ..ServerSettings::default()
    }
}

#[test]
fn the_store_reads_fields_of_one_version_and_says_why_not() {
    let Some(Cluster { kubernetes, _one }) = cluster() else { return };
    let good = settings(&kubernetes);
    let read = |settings: &ServerSettings, path: &str| {
        let (runtime, store) = store(settings.clone());
        runtime.block_on(store.read(path))
    };
    let snapshot = read(&good, "team-a/login").unwrap();
    assert_eq!(snapshot.fields["user"].expose(), "me");
    assert_eq!(snapshot.fields["password"].expose(), "first");

    let ca_pem = Some(std::fs::read_to_string(kubernetes.authority()).unwrap());
    let as_text = ServerSettings { ca_pem, ca_file: None, ..good.clone() };
    assert!(read(&as_text, "team-a/login").is_ok());
    let folder = tempfile::tempdir().unwrap();
    let token_file = folder.path().join("token");
    std::fs::write(&token_file, TOKEN).unwrap();
    let by_file = ServerSettings { token: None, token_file: Some(token_file), ..good.clone() };
    assert!(read(&by_file, "team-a/login").is_ok());
    let unverified = ServerSettings { ca_file: None, insecure_skip_verify: true, ..good.clone() };
    assert!(read(&unverified, "team-a/login").is_ok());

    let wrong_ca = ServerSettings { ca_file: None, ..good.clone() };
    let error = read(&wrong_ca, "team-a/login").unwrap_err();
    assert!(
        matches!(&error, SecretError::Unavailable { reason, .. } if reason.contains("certificate")),
        "{error}"
    );
    let wrong_token = ServerSettings { token: Some(Secret::new("wrong-token")), ..good.clone() };
    let error = read(&wrong_token, "team-a/login").unwrap_err();
    assert!(
        matches!(&error, SecretError::Denied { reason, .. } if reason.contains("credentials")),
        "{error}"
    );
    let error = read(&good, "team-a/logout").unwrap_err();
    assert!(matches!(error, SecretError::Missing { .. }), "{error}");
    let error = read(&good, "team-b/login").unwrap_err();
    assert!(
        matches!(&error, SecretError::Denied { reason, .. } if reason.contains("namespace team-b")),
        "{error}"
    );
    let error = read(&good, "login").unwrap_err();
    assert!(matches!(error, SecretError::Invalid { .. }), "{error}");
}

/// Waits until a change is told with which the store reads what is wanted, and says how long it took.
fn told(
    runtime: &tokio::runtime::Runtime,
    store: &KubernetesStore,
    changes: &mut tokio::sync::watch::Receiver<u64>,
    path: &str,
    wanted: impl Fn(Result<SecretSnapshot, SecretError>) -> bool,
) -> Duration {
    let begun = Instant::now();
    let telling = async {
        loop {
            changes.changed().await.unwrap();
            if wanted(store.read(path).await) {
                return;
            }
        }
    };
    runtime.block_on(async { tokio::time::timeout(SOON, telling).await }).unwrap();
    begun.elapsed()
}

#[test]
fn the_store_tells_changes_of_one_name_and_of_many() {
    let Some(Cluster { mut kubernetes, _one }) = cluster() else { return };
    let (runtime, store) = store(settings(&kubernetes));
    let watch = |path: &str| {
        let _entered = runtime.enter();
        store.watch(path).unwrap()
    };
    let mut login = watch("team-a/login");
    let watching = |count: usize| {
        let states = || {
            let states = store.watched();
            let all = states.iter().all(|(_, state)| *state == WatchState::Watching);
            (states.len() == count && all).then_some(())
        };
        wait_for(&format!("{count} names to be watched"), SOON, states)
            .unwrap_or_else(|problem| panic!("{problem}: {:?}", store.watched()));
    };
    watching(1);
    let password = |password: String| {
        move |read: Result<SecretSnapshot, SecretError>| {
            read.is_ok_and(|snapshot| snapshot.fields["password"].expose() == password)
        }
    };
    let mut latencies = Vec::new();
    for round in 0..10 {
        let new = format!("round-{round}");
        kubernetes.secret("team-a", "login", &[("password", &new)]).unwrap();
        latencies.push(told(&runtime, &store, &mut login, "team-a/login", password(new)));
    }
    latencies.sort();
    println!("from a write until it is told and read: median {:?}, at most {:?}", latencies[5], latencies[9]);

    let mut others: Vec<_> = (0..20).map(|index| watch(&format!("team-a/other-{index}"))).collect();
    watching(21);
    kubernetes.secret("team-a", "other-7", &[("password", "made")]).unwrap();
    let made = password("made".to_owned());
    told(&runtime, &store, &mut others[7], "team-a/other-7", made);
    kubernetes.delete("/api/v1/namespaces/team-a/secrets/other-7").unwrap();
    let gone = |read: Result<SecretSnapshot, SecretError>| matches!(read, Err(SecretError::Missing { .. }));
    told(&runtime, &store, &mut others[7], "team-a/other-7", gone);

    // The server goes and comes again; after that, changes are told as before.
    kubernetes.kill_api();
    let interrupted = || {
        let states = store.watched();
        states.iter().all(|(_, state)| matches!(state, WatchState::Interrupted(_))).then_some(())
    };
    wait_for("the watches to be interrupted", SOON, interrupted).unwrap();
    kubernetes.start_api().unwrap();
    watching(21);
    kubernetes.secret("team-a", "login", &[("password", "after")]).unwrap();
    told(&runtime, &store, &mut login, "team-a/login", password("after".to_owned()));
    runtime.block_on(store.shutdown());
    assert!(store.watched().is_empty());
}

#[test]
fn a_store_of_the_settings_reads_with_the_token_of_now() {
    let Some(cluster) = cluster() else { return };
    let directory = tempfile::tempdir().unwrap();
    let (token, file) = (directory.path().join("token"), directory.path().join("main.alloy"));
    std::fs::write(&file, "prometheus.exporter.self \"a\" { }\n").unwrap();
    std::fs::write(&token, "wrong").unwrap();
    let settings = format!(
        "[[source]]\nname = \"file\"\nfile = {{ path = \"{}\" }}\n\n\
         [secrets.k8s]\nkind = \"kubernetes\"\naddress = \"{}\"\nauth = {{ token = {{ file = \"{}\" }} }}\n\
         tls = {{ ca = \"{}\" }}\n",
        file.display(),
        cluster.kubernetes.url(),
        token.display(),
        cluster.kubernetes.authority().display()
    );
    let agent = Agent::start(AgentOptions {
        binary: PathBuf::from(env!("CARGO_BIN_EXE_invar")),
        directory: directory.path().to_path_buf(),
        settings,
        environment: Vec::new(),
    })
    .unwrap();
    agent.wait("it runs", SOON, |status| status["running"]["revision"].is_string()).unwrap();
    let trial = |name: &str| {
        let output = agent.command(&["secrets", "test", name]).unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&text).into_owned())
    };
    let (worked, text) = trial("k8s/team-a/login");
    assert!(!worked && text.contains("denied") && text.contains("401"), "{text}");
    // Refused credentials are looked up again.
    std::fs::write(&token, TOKEN).unwrap();
    let (worked, text) = trial("k8s/team-a/login");
    assert!(worked && text.contains("has 2 fields: password, user"), "{text}");
    assert!(!text.contains("first") && !text.contains(TOKEN), "{text}");
    let (worked, text) = trial("k8s/team-a/absent");
    assert!(!worked && text.contains("missing"), "{text}");
    cluster.kubernetes.allow("team-a", USER, &named(&["watch"])).unwrap();
    let forbidden = || {
        let (worked, text) = trial("k8s/team-a/login");
        (!worked && text.contains("verbs: [\"get\"]")).then_some(())
    };
    wait_for("the permission is gone, and the rule that grants it is named", SOON, forbidden).unwrap();
}

//! Against a real Vault: `remote.vault` in a running agent, and values of a store in its remote write. The store by itself is
//! played in `secrets/tests/vault`.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use invar_integration::{Agent, AgentOptions, Receiver, wait_for};
use serde_json::{Value, json};
use tempfile::TempDir;

#[path = "servers/vault/server.rs"]
#[allow(dead_code, missing_docs, unreachable_pub, clippy::expect_used)]
mod server;

use server::{Storage, Vault};

const SOON: Duration = Duration::from_secs(60);
const ID: &str = "remote.vault.es";
const PASSWORD: &str = "marker-password-of-the-agent-93b1";
const POLICY: &str = "path \"kv/data/team/*\" { capabilities = [\"read\"] }";

/// A server takes hundreds of megabytes: one at a time.
static ONE: Mutex<()> = Mutex::new(());

struct Played {
    vault: Vault,
    _folder: TempDir,
    _one: MutexGuard<'static, ()>,
}

/// A server with a value and somebody who may read it, or nothing where it is missing and nobody insists.
fn played() -> Option<Played> {
    let one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = tempfile::tempdir().unwrap();
    let vault = Vault::start(folder.path(), Storage::File, None)?;
    vault.write("sys/mounts/kv", &json!({ "type": "kv", "options": { "version": "2" } }));
    vault.write("sys/policies/acl/obs", &json!({ "policy": POLICY }));
    vault.write("sys/auth/userpass", &json!({ "type": "userpass" }));
    let user =
        json!({ "password": PASSWORD, "token_policies": "obs", "token_ttl": "5s", "token_max_ttl": "15s" });
    vault.write("auth/userpass/users/agent", &user);
    let first = json!({ "data": { "password": "first" } });
    wait_for("the engine", SOON, || {
        (vault.ask("POST", "kv/data/team/es", &vault.root, Some(&first)).0 == 200).then_some(())
    })
    .unwrap();
    Some(Played { vault, _folder: folder, _one: one })
}

fn pipeline(vault: &Vault, path: &str) -> String {
    format!(
        r#"remote.vault "es" {{
	server           = "{}"
	path             = "{path}"
	reread_frequency = "200ms"

	auth.userpass {{
		username = "agent"
		password = "{PASSWORD}"
	}}
}}

discovery.relabel "shown" {{
	targets = [{{"__address__" = "a"}}]
	rule {{
		target_label = "password"
		replacement  = convert.nonsensitive(remote.vault.es.data.password)
	}}
}}

discovery.relabel "unrelated" {{
	targets = [{{"__address__" = "b"}}]
}}
"#,
        vault.url()
    )
}

struct Running {
    agent: Agent,
    directory: TempDir,
}

impl Running {
    fn start(pipeline: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("main.alloy");
        std::fs::write(&file, pipeline).unwrap();
        let agent = Agent::start(AgentOptions {
            binary: PathBuf::from(env!("CARGO_BIN_EXE_invar")),
            directory: directory.path().to_path_buf(),
            settings: format!("[[source]]\nname = \"file\"\nfile = {{ path = \"{}\" }}\n", file.display()),
            environment: Vec::new(),
        })
        .unwrap();
        Self { agent, directory }
    }

    fn component(&self, id: &str) -> Value {
        self.agent.get(&format!("/api/v1/components/{id}")).unwrap_or_default()
    }

    fn shows(&self, text: &str) {
        let shown =
            || self.component("discovery.relabel.shown")["exports"].to_string().contains(text).then_some(());
        wait_for(&format!("{text} to be shown"), SOON, shown).unwrap_or_else(|problem| {
            panic!("{problem}\n{:#}\n{}", self.component(ID), self.agent.log());
        });
    }

    fn health(&self, state: &str, part: &str) {
        let healthy = || {
            let health = &self.component(ID)["health"];
            let message = health["message"].as_str().unwrap_or_default();
            (health["state"] == state && message.contains(part)).then_some(())
        };
        let waited = wait_for(&format!("{ID} to be {state} with {part:?}"), SOON, healthy);
        waited.unwrap_or_else(|problem| panic!("{problem}\n{:#}", self.component(ID)));
    }
}

#[test]
fn a_secret_rotates_under_a_running_pipeline_and_outlives_an_outage() {
    let Some(played) = played() else { return };
    let vault = &played.vault;
    let running = Running::start(&pipeline(vault, "kv/team/es"));
    running.shows("first");
    let unrelated = running.component("discovery.relabel.unrelated")["instance"].clone();
    let instance = running.component(ID)["instance"].clone();
    for turn in 0..20 {
        vault.write("kv/data/team/es", &json!({ "data": { "password": format!("turn-{turn}-") } }));
        running.shows(&format!("turn-{turn}-"));
    }
    running.health("healthy", "version 21");

    vault.seal();
    running.health("unhealthy", "stays in use");
    running.shows("turn-19-");
    vault.unseal();
    vault.write("kv/data/team/es", &json!({ "data": { "password": "unsealed" } }));
    running.shows("unsealed");

    vault.delete("kv/data/team/es");
    running.health("unhealthy", "was deleted at");
    running.shows("unsealed");
    vault.write("kv/data/team/es", &json!({ "data": { "password": "again" } }));
    running.shows("again");
    running.health("healthy", "secret read");

    assert_eq!(running.component(ID)["instance"], instance);
    assert_eq!(running.component("discovery.relabel.unrelated")["instance"], unrelated);
    let log = running.agent.log();
    assert!(!log.contains(PASSWORD) && !log.contains("turn-19-"), "{log}");
}

#[test]
fn what_cannot_be_read_refuses_a_new_configuration_and_leaves_the_running_one() {
    let Some(played) = played() else { return };
    let running = Running::start(&pipeline(&played.vault, "kv/team/es"));
    running.shows("first");
    std::fs::write(running.directory.path().join("main.alloy"), pipeline(&played.vault, "kv/others/es"))
        .unwrap();
    let refused = running
        .agent
        .wait("the refusal", SOON, |status| status["reason"].to_string().contains("kv/data/others/es"));
    let status = refused.unwrap();
    assert!(!status.to_string().contains(PASSWORD));
    running.shows("first");
    // The old session goes on: its tokens live for fifteen seconds at most, and then others have to be had.
    let logins = || {
        let audit = std::fs::read_to_string(played.vault.audit_file()).unwrap();
        audit
            .lines()
            .filter(|line| line.contains("auth/userpass/login") && line.contains("\"response\""))
            .count()
    };
    let before = logins();
    wait_for("another token", SOON, || (logins() > before + 1).then_some(())).unwrap();
    played.vault.write("kv/data/team/es", &json!({ "data": { "password": "second" } }));
    running.shows("second");
}

/// Names a value of the store `vault` in the credentials of a remote write.
fn written(receiver: &Receiver) -> String {
    format!(
        r#"prometheus.exporter.self "own" {{ }}

prometheus.scrape "own" {{
	targets         = prometheus.exporter.self.own.targets
	scrape_interval = "200ms"
	scrape_timeout  = "200ms"
	forward_to      = [prometheus.remote_write.out.receiver]
}}

prometheus.remote_write "out" {{
	endpoint {{
		url = "{}"

		basic_auth {{
			username = secret("vault/kv/team/login#user")
			password = secret("vault/kv/team/login#password")
		}}

		queue_config {{
			batch_send_deadline = "100ms"
		}}
	}}
}}

discovery.relabel "unrelated" {{
	targets = [{{"__address__" = "b"}}]
}}
"#,
        receiver.url("out")
    )
}

/// What an `Authorization` header says of a user and a password.
fn basic(user: &str, password: &str) -> String {
    use base64::Engine as _;
    let pair = format!("{user}:{password}");
    format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair))
}

#[test]
fn a_value_of_a_store_turns_under_remote_write_and_a_wrong_one_is_undone() {
    let Some(played) = played() else { return };
    let vault = &played.vault;
    let put = |number: usize| {
        let (user, password) = (format!("user-{number}"), format!("marker-password-{number}-7f3a"));
        vault.write("kv/data/team/login", &json!({ "data": { "user": user, "password": password } }));
        basic(&user, &password)
    };
    let first = put(0);
    let receiver = Receiver::start().unwrap();
    receiver.require("out", &[&first]);

    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("main.alloy");
    std::fs::write(&file, written(&receiver)).unwrap();
    let settings = format!(
        "[[source]]\nname = \"file\"\nfile = {{ path = \"{}\" }}\n\n\
         [secrets.vault]\nkind = \"vault\"\naddress = \"{}\"\nrefresh = \"1s\"\n\
         auth = {{ userpass = {{ username = \"agent\", password = \"{PASSWORD}\" }} }}\n",
        file.display(),
        vault.url()
    );
    let options = AgentOptions {
        binary: PathBuf::from(env!("CARGO_BIN_EXE_invar")),
        directory: directory.path().to_path_buf(),
        settings,
        environment: Vec::new(),
    };
    let mut agent = Agent::start(options).unwrap();
    let arrives = |header: &str, since: Instant| {
        let seen =
            || (receiver.authorization("out").last().map(String::as_str) == Some(header)).then_some(());
        let waited = wait_for("requests with the new value", SOON, seen);
        waited.unwrap_or_else(|problem| panic!("{problem}\n{}", agent.log()));
        since.elapsed()
    };
    arrives(&first, Instant::now());
    let instance = |id: &str| agent.instance(id).unwrap();
    let before = [instance("prometheus.remote_write.out"), instance("discovery.relabel.unrelated")];
    let generation = agent.status().unwrap()["running"]["generation"].clone();

    let mut slowest = Duration::ZERO;
    for number in 1..=5 {
        // Whoever rotates first admits the new one, then tells the store, then stops admitting the old one.
        let (user, password) = (format!("user-{number}"), format!("marker-password-{number}-7f3a"));
        let (old, new) = (receiver.authorization("out").last().cloned().unwrap(), basic(&user, &password));
        receiver.require("out", &[&old, &new]);
        let since = Instant::now();
        assert_eq!(put(number), new);
        slowest = slowest.max(arrives(&new, since));
        receiver.require("out", &[&new]);
    }
    println!("from writing a value to the first request with it: {slowest:?} at most, read every second");

    // A value that nobody admits: what is in use stays, and the wrong one is named.
    let good = receiver.authorization("out").last().cloned().unwrap();
    put(99);
    let secret = |agent: &Agent, state: &str| {
        let look = || {
            let all = agent.get("/api/v1/secrets").ok()?;
            let found = all.as_array()?.iter().find(|one| one["reference"] == "vault/kv/team/login")?.clone();
            (found["state"] == state).then_some(found)
        };
        wait_for(&format!("the secret to be {state}"), SOON, look)
            .unwrap_or_else(|problem| panic!("{problem}\n{}", agent.log()))
    };
    let rejected = secret(&agent, "rejected");
    assert!(rejected["reason"].to_string().contains("refused"), "{rejected:#}");
    let users = rejected["users"].as_array().unwrap();
    assert_eq!(users.len(), 1, "{rejected:#}");
    assert_eq!(
        (&users[0]["component"], &users[0]["class"]),
        (&"prometheus.remote_write.out".into(), &"per_use".into())
    );
    // Only the one before is admitted.
    let requests = receiver.requests("out").0;
    wait_for("requests with the value before", SOON, || {
        (receiver.requests("out").0 > requests + 3).then_some(())
    })
    .unwrap();
    let (user, password) = ("user-100", "marker-password-100-7f3a");
    receiver.require("out", &[&good, &basic(user, password)]);
    put(100);
    arrives(&basic(user, password), Instant::now());
    secret(&agent, "ready");

    // The store is sealed, and opened again.
    vault.seal();
    secret(&agent, "stale");
    let message = agent.command(&["secrets"]).unwrap();
    let message = String::from_utf8_lossy(&message.stdout).into_owned();
    assert!(message.contains("sealed"), "{message}");
    let condition = |status: &Value, wanted: &str| {
        let conditions = status["conditions"].as_array().cloned().unwrap_or_default();
        conditions.iter().any(|one| one["name"] == "SecretsReady" && one["status"] == wanted)
    };
    agent.wait("SecretsReady to be false", SOON, |status| condition(status, "false")).unwrap();
    vault.unseal();
    secret(&agent, "ready");
    agent.wait("SecretsReady to be true", SOON, |status| condition(status, "true")).unwrap();

    let after = [instance("prometheus.remote_write.out"), instance("discovery.relabel.unrelated")];
    assert_eq!(after, before, "nothing was replaced");
    assert_eq!(agent.status().unwrap()["running"]["generation"], generation, "and no revision was needed");
    let metrics = agent.text("/metrics").unwrap().1;
    let dropped: Vec<&str> = metrics
        .lines()
        .filter(|line| line.starts_with("prometheus_remote_storage_samples_failed_total{"))
        .filter(|line| !line.ends_with(" 0"))
        .collect();
    assert!(dropped.is_empty(), "{dropped:?}");
    let events = agent.text("/api/v1/events").map(|(_, text)| text).unwrap_or_default();
    for (place, text) in
        [("log", agent.log()), ("metrics", metrics), ("events", events), ("secrets", message)]
    {
        assert!(!text.contains("marker-password"), "{place}: {text}");
    }
    agent.terminate().unwrap();
}

/// An engine that grants tokens of a Consul of a few lines, to whoever logs in as `restarts`; and a log of what is granted.
fn grant_leases(vault: &Vault) -> PathBuf {
    let consul = server::serve(|line, _| match line.split(' ').next() {
        Some("PUT") if line.contains("/v1/acl/token") => {
            let unique =
                std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos();
            let token = json!({ "AccessorID": format!("accessor-{unique}"), "Description": "", "Local": false,
                "SecretID": format!("marker-consul-{unique}") });
            (200, token)
        }
        Some("DELETE") => (200, json!(true)),
        _ => (404, json!({})),
    });
    vault.write("sys/mounts/consul", &json!({ "type": "consul" }));
    let access = json!({ "address": consul.to_string(), "scheme": "http", "token": "t" });
    vault.write("consul/config/access", &access);
    vault.write("consul/roles/app", &json!({ "consul_policies": ["p"], "ttl": "1h", "max_ttl": "24h" }));
    let policy = "path \"consul/creds/app\" { capabilities = [\"read\"] }\n\
                  path \"sys/leases/revoke\" { capabilities = [\"update\"] }";
    vault.write("sys/policies/acl/leases", &json!({ "policy": policy }));
    let user = json!({ "password": PASSWORD, "token_policies": "leases", "token_ttl": "1h" });
    vault.write("auth/userpass/users/restarts", &user);
    let plain = vault.audit_file().with_file_name("plain.log");
    vault.write(
        "sys/audit/plain",
        &json!({ "type": "file", "options": { "file_path": plain, "log_raw": "true" } }),
    );
    plain
}

/// Leases that live, and logins so far.
fn granted(vault: &Vault) -> (usize, usize) {
    let (status, answer) =
        vault.ask("GET", "sys/leases/lookup/consul/creds/app?list=true", &vault.root, None);
    assert!(status == 200 || status == 404, "{status}: {answer}");
    let leases = answer["data"]["keys"].as_array().map_or(0, Vec::len);
    (leases, vault.audited("auth/userpass/login/restarts").len())
}

#[test]
fn a_lease_outlives_the_agent_where_there_is_a_key_and_ends_with_it_where_there_is_none() {
    use invar_integration::canary;
    let Some(played) = played() else { return };
    let vault = &played.vault;
    let plain = grant_leases(vault);
    let receiver = Receiver::start().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let (file, key) = (directory.path().join("main.alloy"), directory.path().join("key"));
    let basic = written(&receiver);
    let (before, after) = (basic.find("\t\tbasic_auth").unwrap(), basic.find("\t\tqueue_config").unwrap());
    let bearer = "\t\tbearer_token = secret(\"vault/consul/creds/app#token\")\n\n";
    std::fs::write(&file, format!("{}{bearer}{}", &basic[..before], &basic[after..])).unwrap();
    std::fs::write(&key, canary::secret("a-key-of-this-test-that-is-long-enough")).unwrap();
    let options = |offline: &str| AgentOptions {
        binary: PathBuf::from(env!("CARGO_BIN_EXE_invar")),
        directory: directory.path().to_path_buf(),
        settings: format!(
            "offline_secrets = {offline}\n\n[[source]]\nname = \"file\"\nfile = {{ path = \"{}\" }}\n\n\
             [secrets.vault]\nkind = \"vault\"\naddress = \"{}\"\n\
             auth = {{ userpass = {{ username = \"restarts\", password = \"{PASSWORD}\" }} }}\n",
            file.display(),
            vault.url()
        ),
        environment: Vec::new(),
    };
    let sends = |agent: &Agent| {
        let before = receiver.requests("out").0;
        let more = || (receiver.requests("out").0 > before + 2).then_some(());
        let waited = wait_for("requests", SOON, more);
        waited.unwrap_or_else(|problem| panic!("{problem}\n{}", agent.log()));
    };
    let mut agent =
        Agent::start(options(&format!("{{ key = {{ file = \"{}\" }} }}", key.display()))).unwrap();
    sends(&agent);
    let first = receiver.authorization("out")[0].clone();
    canary::secret(first.strip_prefix("Bearer ").unwrap());
    let log = std::fs::read_to_string(&plain).unwrap();
    let tokens = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let tokens = tokens.filter(|entry| entry["request"]["path"] == "auth/userpass/login/restarts");
    let tokens: Vec<String> = tokens
        .filter_map(|entry| entry["response"]["auth"]["client_token"].as_str().map(str::to_owned))
        .collect();
    assert!(tokens.len() == 1 && tokens[0].starts_with("hvs."), "the token as it is");
    canary::secret(&tokens[0]);
    let kept = agent.state_directory().join("secrets");
    let is_kept = || (std::fs::read_dir(&kept).is_ok_and(|records| records.count() == 2)).then_some(());
    wait_for("the value and the token to be kept", SOON, is_kept).unwrap();

    for restart in 0..4 {
        match restart % 2 {
            0 => drop(agent.terminate().unwrap()),
            _ => agent.kill(),
        }
        assert_eq!(granted(vault), (1, 1), "after {restart} restarts");
        agent.launch().unwrap();
        sends(&agent);
    }
    assert_eq!(granted(vault), (1, 1));
    assert_eq!(
        receiver.authorization("out"),
        std::slice::from_ref(&first),
        "one credential, whichever process it was"
    );
    // Beside the agent, that runs commands which log in for themselves, and leave nothing either.
    agent.search().unwrap();
    let (leases, logins) = granted(vault);
    assert_eq!((leases, logins - 1), (1, vault.audited("auth/token/revoke-self").len()));
    // While the server is away, and when it is back.
    agent.terminate().unwrap();
    vault.seal();
    agent.launch().unwrap();
    sends(&agent);
    vault.unseal();
    let state = |agent: &Agent| agent.get("/api/v1/secrets").unwrap_or_default()[0]["state"].clone();
    wait_for("the lease to be confirmed", SOON * 2, || (state(&agent) == "ready").then_some(()))
        .unwrap_or_else(|problem| panic!("{problem}\n{}", agent.log()));
    assert_eq!((granted(vault), receiver.authorization("out")), ((1, logins), vec![first]));
    agent.terminate().unwrap();
    agent.search().unwrap();
    drop(agent);

    // Without a key: what was kept is removed, and an end in order leaves nothing that this agent was granted.
    vault.write("sys/leases/revoke-prefix/consul/creds/app", &json!({}));
    let mut agent = Agent::start(options("\"deny\"")).unwrap();
    sends(&agent);
    assert!(!kept.exists());
    assert_eq!(granted(vault), (1, logins + 1));
    agent.terminate().unwrap();
    assert_eq!(granted(vault).0, 0, "{}", agent.log());
    assert_eq!(vault.audited("auth/token/revoke-self").len(), logins, "its token neither");
    agent.launch().unwrap();
    sends(&agent);
    agent.terminate().unwrap();
    assert_eq!((granted(vault), receiver.authorization("out").len()), ((0, logins + 2), 3));
}

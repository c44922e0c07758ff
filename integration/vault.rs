//! Against a real Vault: `remote.vault` in a running agent. The store is played in `secrets/tests/vault`.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use invar_integration::{Agent, AgentOptions, wait_for};
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
    // The old session goes on: its tokens live for fifteen seconds at most.
    std::thread::sleep(Duration::from_secs(16));
    played.vault.write("kv/data/team/es", &json!({ "data": { "password": "second" } }));
    running.shows("second");
}

//! A whole agent whose configuration comes from a real S3 server: it follows the bucket, goes on with what it has when the
//! bucket is emptied or the store is gone, starts without it, and leaves the key nowhere.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::path::Path;
use std::time::Duration;

use invar_integration::{Agent, AgentOptions, canary};
use serde_json::Value;

#[path = "servers/versitygw/server.rs"]
#[allow(dead_code, missing_docs, unreachable_pub)]
mod server;
#[path = "servers/versitygw/writer.rs"]
#[allow(unreachable_pub)]
mod writer;

use server::{ACCESS_KEY, FaultProxy, Instead, SECRET_KEY, Versitygw};

const SOON: Duration = Duration::from_secs(60);
const BUCKET: &str = "fleet";

struct Store {
    proxy: FaultProxy,
    client: aws_sdk_s3::Client,
    runtime: tokio::runtime::Runtime,
    _server: Versitygw,
}

impl Store {
    fn start(folder: &Path) -> Option<Self> {
        let server = Versitygw::start(folder, None)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let client = writer::writer(&format!("http://{}", server.address()), ACCESS_KEY, SECRET_KEY);
        runtime.block_on(client.create_bucket().bucket(BUCKET).send()).unwrap();
        let proxy = FaultProxy::start(server.address()).unwrap();
        Some(Self { proxy, client, runtime, _server: server })
    }

    fn put(&self, key: &str, content: &str) {
        let body = content.as_bytes().to_vec().into();
        self.runtime.block_on(self.client.put_object().bucket(BUCKET).key(key).body(body).send()).unwrap();
    }

    fn delete(&self, key: &str) {
        self.runtime.block_on(self.client.delete_object().bucket(BUCKET).key(key).send()).unwrap();
    }
}

fn file(folder: &Path, content: &str) -> String {
    let file = folder.join("content");
    std::fs::write(&file, content).unwrap();
    format!("local.file \"{content}\" {{\n  filename = {file:?}\n}}\n")
}

fn runs(status: &Value, agent: &Agent, component: &str) -> bool {
    status["in_sync"] == true && agent.get(&format!("/api/v1/components/local.file.{component}")).is_ok()
}

#[test]
fn an_agent_follows_a_bucket_and_outlives_it() {
    let folder = tempfile::tempdir().unwrap();
    let Some(store) = Store::start(folder.path()) else { return };
    let (directory, content) = (folder.path().join("agent"), folder.path().join("files"));
    std::fs::create_dir_all(&directory).unwrap();
    std::fs::create_dir_all(&content).unwrap();
    store.put("production/base/main.alloy", &file(&content, "first"));
    let settings = format!(
        "[[source]]\ns3 = {{ bucket = \"{BUCKET}\", prefix = \"production\", endpoint = \"{}\", region = \"us-east-1\" }}\n\
         path = \"base\"\ninterval = \"1s\"\n\n[source.auth.aws]\naccess_key = \"{ACCESS_KEY}\"\n\
         secret_key = {{ env = \"THE_KEY\" }}\n",
        store.proxy.url()
    );
    let mut agent = Agent::start(AgentOptions {
        binary: env!("CARGO_BIN_EXE_invar").into(),
        directory,
        settings,
        environment: vec![("THE_KEY".to_owned(), canary::secret(SECRET_KEY).to_owned())],
    })
    .unwrap();
    let status = agent.wait("the first content runs", SOON, |status| runs(status, &agent, "first")).unwrap();
    assert_eq!(status["sources"][0]["kind"], "s3");
    store.put("production/base/main.alloy", &file(&content, "second"));
    agent.wait("the second content runs", SOON, |status| runs(status, &agent, "second")).unwrap();
    // Emptied, the bucket changes nothing but what is said of it.
    store.delete("production/base/main.alloy");
    let status = agent
        .wait("the empty bucket is told", SOON, |status| {
            status["sources"][0]["error"]["message"].as_str().is_some_and(|text| text.contains("stay in use"))
        })
        .unwrap();
    assert!(agent.get("/api/v1/components/local.file.second").is_ok(), "{status:#}");
    // So does a store that is gone, and an agent starts without it.
    store.proxy.script(|_| Some(Instead::Close));
    agent.terminate().unwrap();
    agent.launch().unwrap();
    agent
        .wait("it starts with what it has", SOON, |_| {
            agent.get("/api/v1/components/local.file.second").is_ok()
        })
        .unwrap();
    store.proxy.behave();
    store.put("production/base/main.alloy", &file(&content, "third"));
    agent.wait("the third content runs", SOON, |status| runs(status, &agent, "third")).unwrap();
    agent.terminate().unwrap();
    agent.search().unwrap();
}

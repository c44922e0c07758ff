//! The canary sings for every way to authenticate: an agent with a source for each, whose servers accept, refuse, break off
//! and throw the credential back in every place an answer has; then nothing that the agent said or keeps holds it.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use invar_integration::fault_proxy::{Fault, FaultProxy, Protocol};
use invar_integration::{Agent, AgentOptions, GitServer, Repository, http_backend};
use serde_json::Value;

use crate::{matrix, secrets};

const SOON: Duration = Duration::from_secs(60);

/// A way to authenticate.
struct Way {
    name: &'static str,
    /// The source's table, beside its name, interval and timeout.
    settings: fn(&Setting<'_>) -> String,
}

/// What a source's table is made of.
struct Setting<'a> {
    at: SocketAddr,
    secret: &'a str,
    /// A file that holds the secret.
    file: &'a Path,
    /// An environment variable that holds it.
    variable: &'a str,
}

fn git(setting: &Setting<'_>, auth: &str) -> String {
    format!("git = {{ url = \"http://{}/fleet.git\", branch = \"main\" }}\nauth = {{ {auth} }}\n", setting.at)
}

/// Every way there is, each with its credential in one of the places it can come from.
const WAYS: [Way; 6] = [
    Way { name: "git_token", settings: |given| git(given, &format!("token = \"{}\"", given.secret)) },
    Way {
        name: "git_token_in_a_file",
        settings: |given| git(given, &format!("token = {{ file = \"{}\" }}", given.file.display())),
    },
    Way {
        name: "git_token_in_the_environment",
        settings: |given| {
            git(given, &format!("token = {{ env = \"{}\" }}, username = \"ada\"", given.variable))
        },
    },
    Way {
        name: "git_token_in_a_store",
        settings: |given| git(given, &format!("token = {{ secret = \"env/{}\" }}", given.variable)),
    },
    Way {
        name: "git_basic",
        settings: |given| {
            git(given, &format!("basic = {{ username = \"ada\", password = \"{}\" }}", given.secret))
        },
    },
    Way {
        name: "proxy_password",
        settings: |given| {
            format!(
                "git = {{ url = \"http://git.example/fleet.git\", branch = \"main\" }}\n\
                 proxy = {{ url = \"http://{}\", username = \"ada\", password = \"{}\" }}\n",
                given.at, given.secret
            )
        },
    },
];

/// Answers that show the secret wherever a careless message would take it from.
fn mirrors(secret: &str) -> Vec<Fault> {
    // A fault is told in constants; a test's few may stay for the life of the process.
    let constant = |text: String| -> &'static str { Box::leak(text.into_boxed_str()) };
    let said = constant(format!("your credential {secret} is wrong"));
    let answer = |status, name, value: String| Fault::Answer {
        status,
        headers: vec![(name, constant(value)), ("x-seen", said)],
        body: said,
    };
    let refusal = format!("ERR {said}");
    vec![
        answer(401, "www-authenticate", format!("Basic realm=\"{secret}\"")),
        answer(403, "x-reason", secret.to_owned()),
        answer(429, "retry-after", secret.to_owned()),
        answer(500, "server", secret.to_owned()),
        answer(302, "location", format!("https://x:{secret}@127.0.0.1/login?as={secret}")),
        answer(301, "location", format!("http://127.0.0.1:9/{secret}/info/refs")),
        answer(200, "content-type", format!("text/html; title={secret}")),
        Fault::Answer {
            status: 200,
            headers: vec![("content-type", "application/x-git-upload-pack-advertisement")],
            body: constant(format!("{:04x}{refusal}", refusal.len() + 4)),
        },
        Fault::Reset,
        Fault::TooShort,
        Fault::Hang,
    ]
}

#[test]
fn no_credential_of_a_source_is_found_in_any_output_or_file() {
    if !http_backend::is_available() {
        return matrix::skip("git with http-backend is not installed");
    }
    let directory = tempfile::tempdir().unwrap();
    let repository = Repository::create(directory.path()).unwrap();
    // Two files: a source that is one file says with that that it is a pipeline.
    repository.write("README.md", "nothing to run").unwrap();
    repository.push_file("notes.md", "nor this", "begin").unwrap();
    let server = GitServer::start(directory.path()).unwrap();
    let local = directory.path().join("local.alloy");
    std::fs::write(&local, "prometheus.exporter.self \"this\" { }\n").unwrap();
    let mut settings = format!(
        "[[source]]\nname = \"local\"\nfile = {{ path = \"{}\", allow_insecure_permissions = true }}\n\n",
        local.display()
    );
    let mut environment = Vec::new();
    let mut proxies = Vec::new();
    for (number, way) in WAYS.iter().enumerate() {
        let secret = format!("marker-{number}-{}-9d41c7", way.name.replace('_', "-"));
        let host = format!("127.0.1.{}:0", number + 10);
        let proxy = FaultProxy::start_at(&host, server.address(), Protocol::Http).unwrap();
        let file = directory.path().join(format!("{}.secret", way.name));
        std::fs::write(&file, &secret).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
        let variable = format!("INVAR_TEST_{}", way.name.to_uppercase());
        let setting = Setting { at: proxy.address(), secret: &secret, file: &file, variable: &variable };
        // Optional: what they bring is of no interest, only that they authenticate.
        writeln!(
            settings,
            "[[source]]\nname = \"{}\"\noptional = true\ninterval = \"1s\"\ntimeout = \"1s\"\n{}",
            way.name,
            (way.settings)(&setting)
        )
        .unwrap();
        environment.push((variable, secret.clone()));
        proxies.push((proxy, secret));
    }
    settings.push_str("[rollout]\nprobation = { window = \"0s\" }\n");
    let binary = PathBuf::from(env!("CARGO_BIN_EXE_invar"));
    let folder = directory.path().join("agent");
    std::fs::create_dir(&folder).unwrap();
    let agent = Agent::start(AgentOptions { binary, directory: folder, settings, environment }).unwrap();
    let asked = |status: &Value| {
        let sources = status["sources"].as_array().into_iter().flatten();
        !status["running"].is_null()
            && sources.into_iter().all(|source| !source["revision"].is_null() || !source["error"].is_null())
    };
    agent.wait("every source has asked", SOON, asked).unwrap();

    let secrets: Vec<String> = proxies.iter().map(|(_, secret)| secret.clone()).collect();
    for round in 0..mirrors("").len() {
        let before: Vec<u64> = proxies.iter().map(|(proxy, _)| proxy.counts().faults).collect();
        for (proxy, secret) in &proxies {
            proxy.fail(mirrors(secret).remove(round));
        }
        // What becomes of it is said in the exit code; here only that each is asked matters.
        drop(agent.command(&["reconcile", "--timeout", "30s"]).unwrap());
        let met = || {
            let mut pairs = proxies.iter().zip(&before);
            pairs.all(|((proxy, _), before)| proxy.counts().faults > *before).then_some(())
        };
        invar_integration::wait_for("every source to meet the fault", SOON, met).unwrap();
        secrets::are_not_said(&agent, &secrets).unwrap_or_else(|problem| panic!("round {round}: {problem}"));
    }
    drop(agent.command(&["reconcile", "--timeout", "1s"]).unwrap());
    secrets::are_nowhere(&agent, &secrets).unwrap();
}

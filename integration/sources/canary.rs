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

use crate::nginx::{self, Nginx};
use crate::registry::{self, DockerRegistry};
use crate::sshd::{self, Sshd, SshdOptions};
use crate::versitygw::Versitygw;
use crate::{matrix, oci, ssh};

const SOON: Duration = Duration::from_secs(60);

/// What is behind the proxy of a way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Server {
    Git,
    Documents,
    Bucket,
    Registry,
    Ssh,
}

/// A way to authenticate.
struct Way {
    name: &'static str,
    server: Server,
    /// The source's table, beside its name, interval and timeout.
    settings: fn(&Setting<'_>) -> String,
    /// What servers see of it, where that is not the secret itself.
    token: Option<&'static str>,
}

/// What a source's table is made of.
struct Setting<'a> {
    at: SocketAddr,
    secret: &'a str,
    /// A file that holds the secret.
    file: &'a Path,
    /// An environment variable that holds it.
    variable: &'a str,
    /// A private key in PEM form, in whose stead the secret is a passphrase where it has one.
    key: &'a Path,
    known_hosts: &'a Path,
    repository: &'a Path,
}

/// What the server for documents hands out as tokens.
const OAUTH2_TOKEN: &str = "marker-oauth2-token-7c20d9";
const GITHUB_TOKEN: &str = "marker-github-token-1fe8b3";

fn git(setting: &Setting<'_>, auth: &str) -> String {
    format!("git = {{ url = \"http://{}/fleet.git\", branch = \"main\" }}\nauth = {{ {auth} }}\n", setting.at)
}

fn document(setting: &Setting<'_>, more: &str) -> String {
    format!("http = {{ url = \"http://{}/notes.alloy\" }}\n{more}", setting.at)
}

fn oauth2(given: &Setting<'_>) -> String {
    let auth = format!(
        "auth = {{ oauth2 = {{ client_id = \"ada\", client_secret = \"{}\", token_url = \"http://{}/token\" }} }}\n",
        given.secret, given.at
    );
    document(given, &auth)
}

/// Every way there is, each with its credential in one of the places it can come from.
const WAYS: [Way; 14] = [
    Way {
        name: "git_token",
        server: Server::Git,
        token: None,
        settings: |given| git(given, &format!("token = \"{}\"", given.secret)),
    },
    Way {
        name: "git_token_in_a_file",
        server: Server::Git,
        token: None,
        settings: |given| git(given, &format!("token = {{ file = \"{}\" }}", given.file.display())),
    },
    Way {
        name: "git_token_in_the_environment",
        server: Server::Git,
        token: None,
        settings: |given| {
            git(given, &format!("token = {{ env = \"{}\" }}, username = \"ada\"", given.variable))
        },
    },
    Way {
        name: "git_token_in_a_store",
        server: Server::Git,
        token: None,
        settings: |given| git(given, &format!("token = {{ secret = \"env/{}\" }}", given.variable)),
    },
    Way {
        name: "git_basic",
        server: Server::Git,
        token: None,
        settings: |given| {
            git(given, &format!("basic = {{ username = \"ada\", password = \"{}\" }}", given.secret))
        },
    },
    Way {
        name: "proxy_password",
        server: Server::Git,
        token: None,
        settings: |given| {
            format!(
                "git = {{ url = \"http://git.example/fleet.git\", branch = \"main\" }}\n\
                 proxy = {{ url = \"http://{}\", username = \"ada\", password = \"{}\" }}\n",
                given.at, given.secret
            )
        },
    },
    Way {
        name: "authorization",
        server: Server::Documents,
        token: None,
        settings: |given| {
            document(
                given,
                &format!("auth = {{ authorization = {{ credentials = \"{}\" }} }}\n", given.secret),
            )
        },
    },
    Way { name: "oauth2", server: Server::Documents, token: None, settings: oauth2 },
    Way { name: "oauth2_token", server: Server::Documents, token: Some(OAUTH2_TOKEN), settings: oauth2 },
    Way {
        name: "headers",
        server: Server::Documents,
        token: None,
        settings: |given| {
            format!(
                "http = {{ url = \"http://{}/notes.alloy\", headers = {{ \"x-key\" = \"{}\" }} }}\n",
                given.at, given.secret
            )
        },
    },
    Way {
        name: "github_app",
        server: Server::Documents,
        token: Some(GITHUB_TOKEN),
        settings: |given| {
            let app = format!(
                "github_app = {{ app_id = \"7\", installation_id = 1, key = {{ file = \"{}\" }}, api_url = \"http://{}/\" }}",
                given.key.display(),
                given.at
            );
            git(given, &app)
        },
    },
    Way {
        name: "aws",
        server: Server::Bucket,
        token: None,
        settings: |given| {
            format!(
                "s3 = {{ bucket = \"fleet\", key = \"notes.alloy\", endpoint = \"http://{}\", region = \"us-east-1\" }}\n\
                 auth = {{ aws = {{ access_key = \"AKIDTEST\", secret_key = \"{secret}-key\", session_token = \"{secret}\" }} }}\n",
                given.at,
                secret = given.secret
            )
        },
    },
    Way {
        name: "oci_basic",
        server: Server::Registry,
        token: None,
        settings: |given| {
            format!(
                "oci = {{ repository = \"{}/obs/fleet\" }}\n\
                 auth = {{ basic = {{ username = \"ada\", password = \"{}\" }} }}\n",
                given.at, given.secret
            )
        },
    },
    Way {
        name: "ssh_passphrase",
        server: Server::Ssh,
        token: None,
        settings: |given| {
            format!(
                "git = {{ url = \"ssh://{}@{}{}\", branch = \"main\" }}\n\
                 auth = {{ ssh = {{ key = {{ file = \"{}\" }}, passphrase = \"{}\", known_hosts = \"{}\" }} }}\n",
                sshd::user(),
                given.at,
                given.repository.display(),
                given.key.display(),
                given.secret,
                given.known_hosts.display()
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
        Fault::Answer {
            status: 400,
            headers: vec![("content-type", "application/xml")],
            body: constant(format!("<Error><Code>{secret}</Code><Message>{said}</Message></Error>")),
        },
        Fault::Answer {
            status: 200,
            headers: vec![("content-type", "application/json"), ("etag", said)],
            body: constant(format!("{{\"error\": \"{said}\", \"expires_at\": \"{secret}\"}}")),
        },
        Fault::Reset,
        Fault::TooShort,
        Fault::Hang,
    ]
}

/// The servers behind the proxies; those that are not installed are not there.
struct Servers {
    git: GitServer,
    documents: Option<Nginx>,
    bucket: Option<Versitygw>,
    registry: Option<DockerRegistry>,
    ssh: Option<Sshd>,
}

impl Servers {
    fn start(directory: &Path) -> Self {
        let directives = format!(
            "default_type application/json;\n\
             location = /token {{ return 200 '{{\"access_token\":\"{OAUTH2_TOKEN}\",\"expires_in\":3600}}'; }}\n\
             location /app/ {{ return 201 '{{\"token\":\"{GITHUB_TOKEN}\",\"expires_at\":\"2999-01-01T00:00:00Z\"}}'; }}\n"
        );
        let special = nginx::Special { directives: &directives, ..nginx::Special::default() };
        let documents =
            nginx::is_available().then(|| Nginx::start(&directory.join("documents"), &special).unwrap());
        if let Some(server) = &documents {
            server.publish("notes.alloy", "// nothing to run\n").unwrap();
        }
        let registry = registry::is_available().then(|| {
            // It knows another password.
            let special = registry::Special { user: Some(oci::USER), ..registry::Special::default() };
            DockerRegistry::start(&directory.join("registry"), &special).unwrap()
        });
        let bucket = Versitygw::start(&directory.join("bucket"), None);
        let ssh = if sshd::is_available() {
            Some(Sshd::start(&directory.join("sshd"), &SshdOptions::default()).unwrap())
        } else {
            matrix::skip("sshd, ssh-keygen and git are not installed");
            None
        };
        Self { git: GitServer::start(directory).unwrap(), documents, bucket, registry, ssh }
    }

    fn address(&self, server: Server) -> Option<SocketAddr> {
        match server {
            Server::Git => Some(self.git.address()),
            Server::Documents => self.documents.as_ref().map(Nginx::address),
            Server::Bucket => self.bucket.as_ref().map(Versitygw::address),
            Server::Registry => self.registry.as_ref().map(DockerRegistry::address),
            Server::Ssh => self.ssh.as_ref().map(Sshd::address),
        }
    }
}

/// Makes a private key; gives what of it is secret.
fn make_key(key: &Path, kind: &str, passphrase: &str) -> Vec<String> {
    let mut command = std::process::Command::new("ssh-keygen");
    // One round, for speed; only what the agent says of it matters.
    command.args(["-q", "-t", kind, "-N", passphrase, "-a", "1", "-C", "test", "-f"]).arg(key);
    if kind == "rsa" {
        command.args(["-b", "2048", "-m", "PEM"]);
    }
    assert!(command.status().expect("ssh-keygen runs").success(), "ssh-keygen makes a key");
    ssh::lines_of(key)
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
    let servers = Servers::start(directory.path());
    let mut secrets = vec![OAUTH2_TOKEN.to_owned(), GITHUB_TOKEN.to_owned()];
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
        let Some(upstream) = servers.address(way.server) else { continue };
        let host = format!("127.0.1.{}:0", number + 10);
        let protocol = if way.server == Server::Ssh { Protocol::Raw(600) } else { Protocol::Http };
        let proxy = FaultProxy::start_at(&host, upstream, protocol).unwrap();
        let file = directory.path().join(format!("{}.secret", way.name));
        std::fs::write(&file, &secret).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
        let variable = format!("INVAR_TEST_{}", way.name.to_uppercase());
        // Beside a key its public half has its own ending.
        let (key, known_hosts) = (file.with_extension(""), file.with_extension("known_hosts"));
        match (way.name, &servers.ssh) {
            ("github_app", _) => secrets.extend(make_key(&key, "rsa", "")),
            ("ssh_passphrase", Some(server)) => {
                secrets.extend(make_key(&key, "ed25519", &secret));
                server.admit(&key);
                std::fs::write(&known_hosts, server.known_hosts_at(proxy.address(), "ed25519")).unwrap();
            }
            _ => {}
        }
        let setting = Setting {
            at: proxy.address(),
            secret: &secret,
            file: &file,
            variable: &variable,
            key: &key,
            known_hosts: &known_hosts,
            repository: repository.bare(),
        };
        // Optional: what they bring is of no interest, only that they authenticate.
        writeln!(
            settings,
            "[[source]]\nname = \"{}\"\noptional = true\ninterval = \"1s\"\ntimeout = \"{}\"\n{}",
            way.name,
            // A passphrase takes its time in a binary that is not optimized.
            if way.server == Server::Ssh { "10s" } else { "1s" },
            (way.settings)(&setting)
        )
        .unwrap();
        environment.push((variable, secret.clone()));
        proxies.push((proxy, secret, way.token));
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

    secrets.extend(proxies.iter().map(|(_, secret, _)| secret.clone()));
    secrets.iter().for_each(|secret| agent.canary().add(secret));
    for round in 0..mirrors("").len() {
        let before: Vec<u64> = proxies.iter().map(|(proxy, ..)| proxy.counts().faults).collect();
        for (proxy, secret, token) in &proxies {
            proxy.fail(mirrors(token.unwrap_or(secret)).remove(round));
        }
        // What becomes of it is said in the exit code; here only that each is asked matters.
        drop(agent.command(&["reconcile", "--timeout", "30s"]).unwrap());
        let met = || {
            let mut pairs = proxies.iter().zip(&before);
            pairs.all(|((proxy, ..), before)| proxy.counts().faults > *before).then_some(())
        };
        invar_integration::wait_for("every source to meet the fault", SOON, met).unwrap();
        agent.search_what_is_said().unwrap_or_else(|problem| panic!("round {round}: {problem}"));
    }
    drop(agent.command(&["reconcile", "--timeout", "1s"]).unwrap());
    agent.search().unwrap();
}

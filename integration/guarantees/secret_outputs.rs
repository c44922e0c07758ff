//! G8 on stores: an agent whose secrets come from every store that a host has, and are used in every place; everything goes
//! wrong that can, before servers that show the credential wherever a careless message would take it from; and nothing that
//! the agent says or keeps holds one.

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use invar_integration::{Agent, AgentOptions, GitServer, Receiver, Repository, Target, canary, wait_for};

use crate::fleet::{SOON, binary, runs};

/// What a credential of an endpoint is called, and the expression that names it.
const USED: [(&str, &str); 6] = [
    ("file", "secret(\"team/file\")"),
    ("exec", "secret(\"command/login#password\")"),
    ("systemd", "secret(\"creds/api\")"),
    ("age", "secret(\"sealed/token.age\")"),
    ("derived", "string.format(\"%s.%s\", \"made\", secret(\"team/derived\"))"),
    ("local", "local.file.local.content"),
];

fn marker(name: &str, round: u32) -> String {
    canary::secret(format!("marker-out-{name}-{round}-77e0c2"))
}

fn keep(path: &Path, content: &[u8], mode: u32) {
    let beside = path.with_extension("new");
    std::fs::write(&beside, content).unwrap();
    std::fs::set_permissions(&beside, std::fs::Permissions::from_mode(mode)).unwrap();
    std::fs::rename(&beside, path).unwrap();
}

struct Everywhere {
    agent: Agent,
    host: Host,
}

/// What is around the agent.
struct Host {
    receiver: Receiver,
    target: Target,
    identity: age::x25519::Identity,
    repository: Repository,
    git: GitServer,
    directory: tempfile::TempDir,
}

impl Everywhere {
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        for folder in ["team", "creds"] {
            std::fs::create_dir(at(folder)).unwrap();
        }
        let repository = Repository::create(directory.path()).unwrap();
        let git = GitServer::start(directory.path()).unwrap();
        git.require_basic("x-access-token", &marker("source", 1));
        let identity = age::x25519::Identity::generate();
        let text = {
            use age::secrecy::ExposeSecret as _;
            canary::secret(identity.to_string().expose_secret().to_owned())
        };
        let settings = format!(
            "[[source]]\nname = \"fleet\"\ngit = {{ url = \"{url}\", branch = \"main\" }}\ninterval = \"1s\"\n\
             auth = {{ token = {{ secret = \"team/source\" }} }}\n\n\
             [webhook.git]\nkind = \"gitlab\"\nsecret = {{ secret = \"team/webhook\" }}\nsources = [\"fleet\"]\n\n\
             [secrets.team]\nkind = \"file\"\nroot = \"{team}\"\n\n\
             [secrets.creds]\nkind = \"systemd\"\ndirectory = \"{creds}\"\n\n\
             [secrets.command]\nkind = \"exec\"\n\
             commands = {{ login = {{ command = [\"/bin/cat\", \"{login}\"], output = \"json\" }} }}\n\n\
             [secrets.sealed]\nkind = \"age\"\nidentity = {{ file = \"{identity}\" }}\n\n\
             [policy]\nexec = true\n\n[rollout]\nmin_gap = \"0s\"\nprobation = {{ window = \"0s\" }}\n",
            url = git.url("fleet.git"),
            team = at("team").display(),
            creds = at("creds").display(),
            login = at("login.json").display(),
            identity = at("identity").display(),
        );
        keep(&at("identity"), text.as_bytes(), 0o600);
        let host = Host {
            receiver: Receiver::start().unwrap(),
            target: Target::start("steady 1\n").unwrap(),
            identity,
            repository,
            git,
            directory,
        };
        host.rotate(1);
        for name in ["source", "webhook"] {
            keep(&host.at("team").join(name), marker(name, 1).as_bytes(), 0o600);
        }
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate =
            rcgen::CertificateParams::new(["client".to_owned()]).unwrap().self_signed(&key).unwrap();
        keep(&host.at("team/key"), canary::secret(key.serialize_pem()).as_bytes(), 0o600);
        keep(&host.at("client.crt"), certificate.pem().as_bytes(), 0o644);
        let head = host.pipeline("");
        let agent = Agent::start(AgentOptions {
            binary: binary(),
            directory: host.directory.path().to_path_buf(),
            settings,
            environment: Vec::new(),
        })
        .unwrap();
        agent.wait("it runs", SOON, |status| runs(status, &head)).unwrap();
        Self { agent, host }
    }

    fn uses(&self, name: &str, round: u32) {
        let wanted = if name == "derived" {
            format!("Bearer made.{}", marker(name, round))
        } else {
            format!("Bearer {}", marker(name, round))
        };
        let seen = || self.host.receiver.authorization(name).contains(&wanted).then_some(());
        wait_for(&format!("{name} {round} to be used"), SOON, seen)
            .unwrap_or_else(|problem| panic!("{problem}\n{}", self.agent.log()));
    }

    fn command(&self, arguments: &[&str]) -> String {
        let output = self.agent.command(arguments).unwrap();
        String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
    }

    /// Waits until the status has this part, and the log says nothing of what it should not.
    fn says(&self, part: &str) {
        let said = || {
            let status = self.agent.status().ok()?.to_string();
            (status.contains(part) || self.agent.log().contains(part)).then_some(())
        };
        wait_for(&format!("{part:?} to be said"), SOON, said)
            .unwrap_or_else(|problem| panic!("{problem}\n{}", self.agent.log()));
    }
}

impl Host {
    fn at(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Writes other values; gives the commit with the one that is in Git.
    fn rotate(&self, round: u32) -> String {
        for (name, file, mode) in [
            ("file", "team/file", 0o600),
            ("derived", "team/derived", 0o600),
            ("systemd", "creds/api", 0o600),
            ("local", "local.secret", 0o600),
        ] {
            keep(&self.at(file), marker(name, round).as_bytes(), mode);
        }
        let login = format!("{{\"user\": \"me\", \"password\": \"{}\"}}", marker("exec", round));
        keep(&self.at("login.json"), login.as_bytes(), 0o600);
        let recipient = self.identity.to_public();
        let recipients = std::iter::once(&recipient as &dyn age::Recipient);
        let mut sealed = Vec::new();
        let mut writer =
            age::Encryptor::with_recipients(recipients).unwrap().wrap_output(&mut sealed).unwrap();
        writer.write_all(marker("age", round).as_bytes()).unwrap();
        writer.finish().unwrap();
        self.repository.push_file("token.age", &sealed, "seal").unwrap()
    }

    /// Pushes the pipeline with something more in it; gives the commit.
    fn pipeline(&self, more: &str) -> String {
        let endpoints: String = USED
            .iter()
            .map(|(name, expression)| {
                format!(
                    "\tendpoint {{\n\t\turl = \"{}\"\n\t\tbearer_token = {expression}\n\t\ttls_config {{\n\t\t\tcert_file = \"{}\"\n\
                     \t\t\tkey_pem = secret(\"team/key\")\n\t\t}}\n\t\tqueue_config {{\n\t\t\tbatch_send_deadline = \"50ms\"\n\t\t\tmin_backoff = \"50ms\"\n\
                     \t\t\tmax_backoff = \"100ms\"\n\t\t}}\n\t}}\n",
                    self.receiver.url(name),
                    self.at("client.crt").display()
                )
            })
            .collect();
        let text = format!(
            "logging {{\n\tlevel = \"debug\"\n}}\n\n\
             local.file \"local\" {{\n\tfilename = \"{}\"\n\tis_secret = true\n}}\n\n\
             prometheus.scrape \"a\" {{\n\ttargets = [{{\"__address__\" = \"{}\"}}]\n\tscrape_interval = \"100ms\"\n\
             \tscrape_timeout = \"100ms\"\n\tforward_to = [prometheus.remote_write.out.receiver]\n}}\n\n\
             prometheus.remote_write \"out\" {{\n{endpoints}}}\n{more}",
            self.at("local.secret").display(),
            self.target.address(),
        );
        self.repository.push_file("main.alloy", &text, "change").unwrap()
    }
}

#[test]
fn no_secret_of_any_store_is_found_in_any_output_whatever_goes_wrong() {
    let all = Everywhere::start();
    for (name, _) in USED {
        all.uses(name, 1);
    }
    all.agent.search().unwrap();

    // Rotated: by notice or when it is asked for.
    let head = all.host.rotate(2);
    all.agent.wait("the sealed file is there", SOON, |status| runs(status, &head)).unwrap();
    for name in ["command/login", "creds/api", "sealed/token.age"] {
        let said = all.command(&["secrets", "rotate", name]);
        assert!(said.contains("ready"), "{name}: {said}");
    }
    for (name, _) in USED {
        all.uses(name, 2);
    }

    // A wrong value: the server refuses it, and quotes it; the one before is back in use, and the rotation is rejected.
    for name in ["file", "exec"] {
        all.host.receiver.require(name, &[&format!("Bearer {}", marker(name, 2))]);
    }
    all.host.rotate(3);
    all.command(&["secrets", "rotate", "command/login"]);
    for name in ["file", "exec"] {
        all.uses(name, 3);
    }
    for name in ["team/file", "command/login"] {
        let rejected = || all.command(&["secrets", name]).contains("rejected").then_some(());
        wait_for(&format!("the rotation of {name} to be rejected"), SOON, rejected)
            .unwrap_or_else(|problem| panic!("{problem}\n{}", all.command(&["secrets", name])));
    }
    all.agent.search_what_is_said().unwrap();
    // Servers that refuse everything, and quote what they were sent.
    for (name, _) in USED {
        all.host.receiver.answer(name, Some(if name == "age" { 403 } else { 400 }));
    }
    let refused = || USED.iter().all(|(name, _)| all.host.receiver.requests(name).1 > 2).then_some(());
    wait_for("all to be refused", SOON, refused).unwrap();
    all.agent.search_what_is_said().unwrap();
    for (name, _) in USED {
        all.host.receiver.answer(name, None);
    }

    // So does the server of the source.
    all.host.git.answer_with(403);
    drop(all.command(&["reconcile", "--timeout", "5s"]));
    let failing = |status: &serde_json::Value| !status["sources"][0]["error"].is_null();
    all.agent.wait("the source's error is shown", SOON, failing).unwrap();
    all.agent.search_what_is_said().unwrap();
    all.host.git.answer_again();

    // Values of another shape.
    keep(&all.host.at("login.json"), format!("{{\"user\": \"{}\"}}", marker("half", 1)).as_bytes(), 0o600);
    assert!(all.command(&["secrets", "rotate", "command/login"]).contains("lacks the field `password`"));
    keep(
        &all.host.at("login.json"),
        format!("{{\"password\": \"{}\", broken", marker("broken", 1)).as_bytes(),
        0o600,
    );
    all.command(&["secrets", "rotate", "command/login"]);
    keep(&all.host.at("team/file"), marker("open", 1).as_bytes(), 0o666);
    all.command(&["secrets", "rotate", "team/file"]);
    keep(
        &all.host.at("team/key"),
        format!("-----BEGIN PRIVATE KEY-----\n{}", marker("key", 1)).as_bytes(),
        0o600,
    );
    assert!(all.command(&["secrets", "rotate", "team/key"]).contains("no PEM"));
    // What is not encrypted is in Git, and so in the state.
    let unsealed = format!("age-encryption.org/v1\n{}", canary::written(marker("unsealed", 1)));
    all.host.repository.push_file("token.age", unsealed, "break").unwrap();
    drop(all.command(&["reconcile", "--timeout", "20s"]));
    all.command(&["secrets", "rotate", "sealed/token.age"]);
    all.agent.search_what_is_said().unwrap();

    // Configurations that are refused for a secret, or because of where one is put.
    for (more, said) in [
        (
            "prometheus.remote_write \"x\" {\n\tendpoint {\n\t\turl = \"http://127.0.0.1:9\"\n\t\tbearer_token = secret(\"command/login#absent\")\n\t}\n}\n",
            "absent",
        ),
        (
            "prometheus.relabel \"x\" {\n\tforward_to = []\n\tmax_cache_size = secret(\"team/file\")\n}\n",
            "max_cache_size",
        ),
        ("discovery.relabel \"x\" {\n\ttargets = [{\"a\" = secret(\"team/file\")}]\n}\n", "secret"),
        ("discovery.relabel \"x\" {\n\ttargets = [{\"a\" = local.file.local.content}]\n}\n", "secret"),
    ] {
        all.host.pipeline(more);
        drop(all.command(&["reconcile", "--timeout", "20s"]));
        all.says(said);
        all.agent.search_what_is_said().unwrap();
    }
    // And one that panics while it runs.
    all.host.pipeline("testing.fault \"x\" {\n\tforward_to = []\n\tpanic_after = \"100ms\"\n}\n");
    drop(all.command(&["reconcile", "--timeout", "20s"]));
    all.says("panic");
    all.agent.search().unwrap();
}

//! `invar doctor` and `invar sources` on real servers: what is wrong is found, named and given a fix, whether or not an
//! agent runs, and no secret is shown on the way.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output};
use std::sync::Arc;
use std::time::Duration;

use invar_integration::http_backend::HttpBackend;
use invar_integration::{Agent, AgentOptions, GitServer, Repository, free_address, wait_for};
use serde_json::Value;
use tempfile::TempDir;

const TOKEN: &str = "marker-token-0d3f7a";
const SOON: Duration = Duration::from_secs(30);
/// `nobody`, on every Linux there is.
const NOBODY: u32 = 65_534;

struct World {
    folder: TempDir,
    repository: Repository,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let repository = Repository::create(folder.path()).unwrap();
        repository.push_file("base/main.alloy", "logging { level = \"warn\" }\n", "begin").unwrap();
        Self { folder, repository }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes settings with a port and a state directory of their own.
    fn settings(&self, sources: &str) -> PathBuf {
        let text = format!(
            "[agent]\nname = \"web-17\"\n[server]\nlisten = \"{}\"\n[state]\ndir = \"{}\"\n{sources}",
            free_address().unwrap(),
            self.path("state").display(),
        );
        let path = self.path("invar.toml");
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        path
    }
}

fn source(url: &str, more: &str) -> String {
    format!(
        "[[source]]\nname = \"platform\"\ngit = {{ url = \"{url}\", branch = \"main\" }}\npath = [\"base\"]\n{more}"
    )
}

fn doctor(settings: &Path, more: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_invar"));
    command.arg("doctor").arg(settings).args(more).env("TMPDIR", std::env::temp_dir());
    command
}

/// What the doctor finds, and how it exits.
fn examined(settings: &Path) -> (Value, Option<i32>) {
    report(doctor(settings, &["-o", "json"]).output().unwrap())
}

fn report(output: Output) -> (Value, Option<i32>) {
    let text = String::from_utf8(output.stdout).unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!text.contains(TOKEN) && !complaint.contains(TOKEN), "a secret is shown:\n{text}\n{complaint}");
    let json = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}{complaint}"));
    (json, output.status.code())
}

/// The finding of a check.
fn finding<'a>(report: &'a Value, area: &str, check: &str) -> &'a Value {
    let findings = report["findings"].as_array().unwrap();
    let found = findings.iter().find(|finding| finding["area"] == area && finding["check"] == check);
    found.unwrap_or_else(|| panic!("no finding {area}/{check} in {report:#}"))
}

/// The check of the source that is a problem; there is exactly one.
fn problem(report: &Value) -> &Value {
    let findings = report["findings"].as_array().unwrap();
    let problems: Vec<&Value> = findings
        .iter()
        .filter(|finding| finding["area"] == "source" && finding["severity"] == "problem")
        .collect();
    assert_eq!(problems.len(), 1, "{report:#}");
    assert!(problems[0]["fix"].is_string(), "{:#}", problems[0]);
    problems[0]
}

#[test]
fn a_source_in_order_is_read_with_its_credential_and_leaves_nothing_behind() {
    let world = World::new();
    let git = GitServer::start(world.folder.path()).unwrap();
    git.require_basic("x-access-token", TOKEN);
    let file = world.path("token");
    std::fs::write(&file, TOKEN).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    let auth = format!("auth = {{ token = {{ file = \"{}\" }} }}", file.display());
    let settings = world.settings(&source(&git.url("fleet.git"), &auth));
    let trials = world.path("tmp");
    std::fs::create_dir(&trials).unwrap();
    let output = doctor(&settings, &["-o", "json"]).env("TMPDIR", &trials).output().unwrap();
    let (found, exit) = report(output);
    assert_eq!(exit, Some(0), "{found:#}");
    for check in ["credential", "connect", "content"] {
        assert_eq!(finding(&found, "source", check)["severity"], "ok", "{found:#}");
    }
    assert!(finding(&found, "source", "content")["what"].as_str().unwrap().contains("1 file"));
    assert_eq!(std::fs::read_dir(&trials).unwrap().count(), 0, "the trial is gone");
    assert!(!world.path("state").exists(), "looking makes no state");

    // For people, the section of the source reads so.
    let output = doctor(&settings, &["--color", "never"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let head = world.repository.head().unwrap();
    let place = git.url("fleet.git").trim_start_matches("http://").split('/').next().unwrap().to_owned();
    let section = text.split("source platform\n").nth(1).unwrap();
    let expected = format!(
        "  hint     nobody has to have signed what is read (`verify.mode = \"none\"`)
           why  whoever may push decides what this host runs
           fix  verify = {{ mode = \"head\", ssh = \"/etc/invar/allowed_signers\" }}
  ok       `auth.token` is there ({})
  ok       {place} is reached
  ok       main@sha1:{}: 1 file, 27 bytes
",
        file.display(),
        &head[..12]
    );
    assert!(section.starts_with(&expected), "{section}\nexpected\n{expected}");
}

#[test]
fn wrong_credentials_are_told_from_missing_ones() {
    let world = World::new();
    let git = GitServer::start(world.folder.path()).unwrap();
    git.require_basic("x-access-token", "another");
    let auth = format!("auth = {{ token = \"{TOKEN}\" }}");
    let (found, exit) = examined(&world.settings(&source(&git.url("fleet.git"), &auth)));
    assert_eq!(exit, Some(1));
    assert_eq!(problem(&found)["check"], "authentication");
    assert!(problem(&found)["what"].as_str().unwrap().contains("does not accept the credential"));
    assert_eq!(finding(&found, "source", "written_out")["severity"], "hint");
    let (found, _) = examined(&world.settings(&source(&git.url("fleet.git"), "")));
    assert!(problem(&found)["what"].as_str().unwrap().contains("asks for a credential"), "{found:#}");
    git.answer_with(403);
    let (found, _) = examined(&world.settings(&source(&git.url("fleet.git"), &auth)));
    assert_eq!(problem(&found)["check"], "permission");
    // A variable that is not there keeps the poll from being tried at all.
    let auth = "auth = { token = { env = \"INVAR_NO_SUCH_VARIABLE\" } }";
    let (found, _) = examined(&world.settings(&source(&git.url("fleet.git"), auth)));
    assert_eq!(problem(&found)["check"], "credential");
}

#[test]
fn a_branch_and_a_path_that_are_not_there() {
    let world = World::new();
    let git = GitServer::start(world.folder.path()).unwrap();
    let text = source(&git.url("fleet.git"), "").replace("branch = \"main\"", "branch = \"mian\"");
    let (found, exit) = examined(&world.settings(&text));
    assert_eq!(exit, Some(1));
    assert_eq!(problem(&found)["check"], "reference");
    assert!(problem(&found)["fix"].as_str().unwrap().contains("did you mean `main`"), "{found:#}");
    let text = source(&git.url("fleet.git"), "").replace("\"base\"", "\"base\", \"environments/prod\"");
    let (found, exit) = examined(&world.settings(&text));
    assert_eq!(exit, Some(0));
    let path = finding(&found, "source", "path");
    assert_eq!(path["severity"], "warning");
    assert!(path["what"].as_str().unwrap().contains("environments/prod"));
    let denied = doctor(&world.path("invar.toml"), &["--deny-warnings"]).output().unwrap();
    assert_eq!(denied.status.code(), Some(3));
    let (found, _) = examined(&world.settings(&source(&git.url("other.git"), "")));
    assert_eq!(problem(&found)["check"], "reference", "{found:#}");
}

/// A server whose certificate is valid between these years, and the file that holds it.
fn with_tls(world: &World, from: i32, to: i32) -> (HttpBackend, PathBuf) {
    let mut parameters = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    parameters.not_before = rcgen::date_time_ymd(from, 1, 1);
    parameters.not_after = rcgen::date_time_ymd(to, 1, 1);
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = parameters.self_signed(&key).unwrap();
    let path = world.path("ca.pem");
    std::fs::write(&path, certificate.pem()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.der().clone()],
            rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
        )
        .unwrap();
    (HttpBackend::start_tls(world.folder.path(), Arc::new(config)).unwrap(), path)
}

#[test]
fn certificates_that_are_good_that_ended_and_that_nobody_trusts() {
    let world = World::new();
    let (server, authority) = with_tls(&world, 2020, 2090);
    let tls = format!("tls = {{ ca = \"{}\" }}", authority.display());
    let (found, exit) = examined(&world.settings(&source(&server.url("fleet.git"), &tls)));
    assert_eq!(exit, Some(0), "{found:#}");
    let what = finding(&found, "source", "tls")["what"].as_str().unwrap();
    assert!(what.contains("TLS 1.3") && what.contains("ca.pem") && what.ends_with(" days"), "{what}");
    let (found, _) = examined(&world.settings(&source(&server.url("fleet.git"), "")));
    assert_eq!(problem(&found)["check"], "tls");
    assert!(problem(&found)["what"].as_str().unwrap().contains("not trusted"), "{found:#}");
    let named = format!("tls = {{ ca = \"{}\", server_name = \"other.example\" }}", authority.display());
    let (found, _) = examined(&world.settings(&source(&server.url("fleet.git"), &named)));
    assert!(problem(&found)["what"].as_str().unwrap().contains("another name"), "{found:#}");
    drop(server);
    let (server, authority) = with_tls(&world, 2020, 2021);
    let tls = format!("tls = {{ ca = \"{}\" }}", authority.display());
    let (found, exit) = examined(&world.settings(&source(&server.url("fleet.git"), &tls)));
    assert_eq!(exit, Some(1));
    let what = problem(&found)["what"].as_str().unwrap();
    assert!(what.contains("has expired") && what.ends_with("days ago"), "{what}");
}

#[test]
fn a_closed_port_and_no_network() {
    let world = World::new();
    let url = format!("http://{}/fleet.git", free_address().unwrap());
    let settings = world.settings(&source(&url, ""));
    let (found, exit) = examined(&settings);
    assert_eq!((problem(&found)["check"].as_str(), exit), (Some("connect"), Some(1)));
    let (found, exit) = report(doctor(&settings, &["-o", "json", "--offline"]).output().unwrap());
    assert_eq!(exit, Some(0), "{found:#}");
    assert!(found["findings"].as_array().unwrap().iter().all(|finding| finding["check"] != "connect"));
}

/// A real nginx that has nothing to serve.
struct Nginx {
    process: Child,
    address: String,
}

impl Nginx {
    fn start(folder: &Path) -> Option<Self> {
        const BINARY: &str = "/usr/sbin/nginx";
        if !Path::new(BINARY).is_file() {
            eprintln!("skipped: there is no {BINARY}");
            assert!(std::env::var_os("INVAR_REQUIRE_SERVERS").is_none(), "it is required");
            return None;
        }
        let address = free_address().unwrap();
        let place = folder.display();
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|kind| format!("{kind}_temp_path {place}/{kind};"))
            .concat();
        let text = format!(
            "daemon off; pid {place}/nginx.pid; error_log {place}/nginx.log; events {{}}\n\
             http {{ access_log off; {temporary} server {{ listen {address}; location / {{ return 404; }} }} }}"
        );
        std::fs::write(folder.join("nginx.conf"), text).unwrap();
        let process = Command::new(BINARY)
            .arg("-c")
            .arg(folder.join("nginx.conf"))
            .args(["-e", &format!("{place}/nginx.log")])
            .spawn()
            .unwrap();
        let server = Self { process, address };
        let up = || std::net::TcpStream::connect(&server.address).ok().map(drop);
        wait_for("nginx", SOON, up).unwrap();
        Some(server)
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // The master ends its workers at SIGTERM; killed, it would leave them.
        drop(Command::new("kill").args(["-TERM", &self.process.id().to_string()]).status());
        drop(self.process.wait());
    }
}

#[test]
fn the_clock_of_a_real_server_and_a_server_that_is_not_git() {
    let world = World::new();
    let folder = world.path("nginx");
    std::fs::create_dir(&folder).unwrap();
    let Some(nginx) = Nginx::start(&folder) else { return };
    let (found, exit) = examined(&world.settings(&source(&format!("http://{}/x.git", nginx.address), "")));
    assert_eq!(exit, Some(1));
    let clock = finding(&found, "host", "clock");
    assert_eq!(clock["severity"], "ok", "nginx runs on this host's clock: {clock:#}");
    assert_eq!(problem(&found)["check"], "reference", "{found:#}");
}

#[test]
fn production_should_not_follow_a_rewritten_branch() {
    let world = World::new();
    let git = GitServer::start(world.folder.path()).unwrap();
    let settings = world.settings(&source(&git.url("fleet.git"), ""));
    let output = doctor(&settings, &["-o", "json", "--environment", "production"]).output().unwrap();
    let (found, exit) = report(output);
    assert_eq!(exit, Some(0));
    let history = finding(&found, "source", "history");
    assert_eq!(history["severity"], "warning");
    assert!(history["fix"].as_str().unwrap().contains("fast-forward"));
    assert_eq!(found["environment"], "production");
}

#[test]
fn several_sources_come_in_the_order_of_the_settings() {
    let world = World::new();
    let git = GitServer::start(world.folder.path()).unwrap();
    let dead = format!("http://{}/x.git", free_address().unwrap());
    let more = format!(
        "{}\n[[source]]\nname = \"dead\"\noptional = true\ngit = {{ url = \"{dead}\" }}\n\
         [[source]]\nname = \"site\"\nfile = {{ path = \"{}\" }}\n",
        source(&git.url("fleet.git"), ""),
        world.repository.clone_directory().join("base").display(),
    );
    let (found, exit) = examined(&world.settings(&more));
    assert_eq!(exit, Some(0), "an optional source is no problem: {found:#}");
    let mut subjects: Vec<&str> = found["findings"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|finding| finding["subject"].as_str())
        .collect();
    subjects.dedup();
    assert_eq!(subjects, ["platform", "dead", "site"]);
}

#[test]
fn settings_that_are_wrong_are_a_finding_and_show_no_value() {
    let world = World::new();
    let settings = world.settings(&format!("[[source]]\nauth = {{ token = \"{TOKEN}\", tokn = \"x\" }}\n"));
    let (found, exit) = examined(&settings);
    assert_eq!(exit, Some(1));
    let refused = finding(&found, "settings", "settings");
    assert_eq!(refused["severity"], "problem");
    assert!(refused["fix"].as_str().unwrap().contains("did you mean `token`"), "{refused:#}");
    let (found, _) = examined(&world.settings(&format!("[[source]]\nauth = \"{TOKEN}\"\n")));
    assert_eq!(finding(&found, "settings", "settings")["severity"], "problem");
    let (found, exit) = examined(&world.path("absent.toml"));
    assert_eq!(exit, Some(1));
    assert!(finding(&found, "settings", "settings")["what"].as_str().unwrap().contains("absent.toml"));
    // An address with a credential in it, as `invar run` takes it.
    let address = format!("git+http://x:{TOKEN}@{}/fleet.git", free_address().unwrap());
    let output =
        doctor(Path::new(&address), &["-o", "json"]).current_dir(world.folder.path()).output().unwrap();
    let (found, _) = report(output);
    assert_eq!(problem(&found)["check"], "connect");
}

/// Runs a command as somebody who owns nothing, if this is root.
fn as_nobody(mut command: Command) -> Option<Output> {
    let root = Command::new("id").arg("-u").output().is_ok_and(|id| id.stdout == b"0\n");
    let output = root.then(|| command.uid(NOBODY).gid(NOBODY).env("TMPDIR", "/tmp").output());
    match output {
        Some(Ok(output)) => Some(output),
        other => {
            eprintln!("skipped: only root can be somebody else ({other:?})");
            assert!(std::env::var_os("INVAR_REQUIRE_SERVERS").is_none(), "it is required");
            None
        }
    }
}

#[test]
fn files_and_folders_that_the_agents_user_may_not_use() {
    let world = World::new();
    let git = GitServer::start(world.folder.path()).unwrap();
    std::fs::set_permissions(world.folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let key = world.path("key");
    std::fs::write(&key, TOKEN).unwrap();
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
    let auth = format!("auth = {{ token = {{ file = \"{}\" }} }}", key.display());
    let settings = world.settings(&source(&git.url("fleet.git"), &auth));
    std::fs::set_permissions(&settings, std::fs::Permissions::from_mode(0o644)).unwrap();
    let Some(output) = as_nobody(doctor(&settings, &["-o", "json"])) else { return };
    let (found, exit) = report(output);
    assert_eq!(exit, Some(1));
    assert_eq!(problem(&found)["check"], "credential");
    assert!(problem(&found)["fix"].as_str().unwrap().contains("chmod 600"), "{found:#}");
    let state = finding(&found, "state", "state");
    assert_eq!(state["severity"], "problem", "nobody cannot make it: {state:#}");
    std::fs::create_dir(world.path("state")).unwrap();
    std::fs::set_permissions(world.path("state"), std::fs::Permissions::from_mode(0o755)).unwrap();
    let (found, _) = report(as_nobody(doctor(&settings, &["-o", "json"])).unwrap());
    let state = finding(&found, "state", "state");
    assert!(state["what"].as_str().unwrap().contains("cannot be written by this user"), "{state:#}");
    std::fs::set_permissions(world.path("state"), std::fs::Permissions::from_mode(0o777)).unwrap();
    let (found, _) = examined(&settings);
    assert_eq!(finding(&found, "state", "state")["severity"], "warning", "everybody may write");
    // A key that everybody may read works, and should not.
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    let (found, _) = examined(&settings);
    assert_eq!(finding(&found, "source", "file")["severity"], "warning");
}

/// A file system of one megabyte at a folder, unmounted at the end.
struct Mounted(PathBuf);

impl Mounted {
    fn at(folder: &Path) -> Option<Self> {
        std::fs::create_dir_all(folder).unwrap();
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"]).arg(folder).output();
        if mounted.is_ok_and(|output| output.status.success()) {
            return Some(Self(folder.to_path_buf()));
        }
        eprintln!("skipped: this user cannot mount a file system");
        assert!(std::env::var_os("INVAR_REQUIRE_SERVERS").is_none(), "it is required");
        None
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        drop(Command::new("umount").arg(&self.0).status());
    }
}

#[test]
fn a_full_and_a_read_only_file_system_under_the_state() {
    let world = World::new();
    let git = GitServer::start(world.folder.path()).unwrap();
    let settings = world.settings(&source(&git.url("fleet.git"), ""));
    let Some(mounted) = Mounted::at(&world.path("state")) else { return };
    std::fs::set_permissions(&mounted.0, std::fs::Permissions::from_mode(0o700)).unwrap();
    let (found, exit) = examined(&settings);
    assert_eq!(exit, Some(1));
    let space = finding(&found, "state", "space");
    assert_eq!(space["severity"], "problem", "{space:#}");
    let remounted = Command::new("mount").args(["-o", "remount,ro"]).arg(&mounted.0).status().unwrap();
    assert!(remounted.success());
    let (found, exit) = examined(&settings);
    assert_eq!(exit, Some(1));
    assert!(finding(&found, "state", "state")["what"].as_str().unwrap().contains("read-only"), "{found:#}");
}

#[test]
fn a_port_that_another_program_holds_is_a_problem() {
    let world = World::new();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let git = GitServer::start(world.folder.path()).unwrap();
    let settings = world.settings(&source(&git.url("fleet.git"), ""));
    let text = std::fs::read_to_string(&settings).unwrap();
    let line = text.lines().find(|line| line.starts_with("listen")).unwrap();
    let taken = format!("listen = \"{}\"", listener.local_addr().unwrap());
    std::fs::write(&settings, text.replace(line, &taken)).unwrap();
    let (found, exit) = examined(&settings);
    assert_eq!(exit, Some(1));
    let listen = finding(&found, "agent", "listen");
    assert_eq!(listen["severity"], "problem");
    assert!(listen["what"].as_str().unwrap().contains("another program"), "{listen:#}");
}

#[test]
fn beside_a_running_agent_nothing_is_disturbed_and_its_sources_are_told() {
    let world = World::new();
    let git = GitServer::start(world.folder.path()).unwrap();
    git.require_basic("x-access-token", TOKEN);
    let auth = format!(
        "auth = {{ token = \"{TOKEN}\" }}\ninterval = \"1s\"\n[rollout]\nprobation = {{ window = \"1s\" }}\n"
    );
    let mut agent = Agent::start(AgentOptions {
        binary: env!("CARGO_BIN_EXE_invar").into(),
        directory: world.folder.path().to_path_buf(),
        settings: source(&git.url("fleet.git"), &auth),
        environment: Vec::new(),
    })
    .unwrap();
    let head = world.repository.head().unwrap();
    let runs = |status: &Value| {
        status["in_sync"] == true
            && status["running"]["revision"].as_str().is_some_and(|text| text.contains(&head))
    };
    agent.wait("it runs", SOON, runs).unwrap();
    let before = agent.status().unwrap();

    let (found, exit) = examined(&world.path("invar.toml"));
    assert_eq!(exit, Some(0), "{found:#}");
    let said = |area, check| finding(&found, area, check)["what"].as_str().unwrap().to_owned();
    assert!(said("agent", "listen").contains("is held by `demo`"), "{found:#}");
    assert!(said("state", "lock").contains(&format!("process {}", agent.process())), "{found:#}");
    assert!(said("host", "files").contains(&format!("process {}", agent.process())), "{found:#}");
    assert_eq!(finding(&found, "host", "core")["severity"], "ok", "the agent leaves no core files");
    assert_eq!(finding(&found, "agent", "agent")["severity"], "ok");
    assert_eq!(finding(&found, "state", "heads")["severity"], "ok");
    assert!(agent.is_running());
    assert_eq!(agent.status().unwrap()["running"], before["running"]);

    let output = agent.command(&["sources"]).unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert!(text.lines().nth(1).unwrap().starts_with("platform  git   main@sha1:"), "{text}");
    assert!(text.lines().nth(1).unwrap().ends_with("  ok"), "{text}");
    let output = agent.command(&["sources", "platform"]).unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    for part in
        ["reads     http://", "paths     base", "holds     1 file", "auth      token", "verify    none"]
    {
        assert!(text.contains(part), "{part} in\n{text}");
    }
    assert!(!text.contains(TOKEN));
    let json: Value =
        serde_json::from_slice(&agent.command(&["sources", "-o", "json"]).unwrap().stdout).unwrap();
    assert_eq!((json["version"].as_u64(), json["sources"][0]["name"].as_str()), (Some(1), Some("platform")));
    assert!(json["sources"][0]["checks"]["total"].as_u64().unwrap() >= 1);
    let output = agent.command(&["sources", "platfrom"]).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("did you mean `platform`"));

    git.answer_with(403);
    let failing = |status: &Value| status["sources"][0]["error"]["class"] == "forbidden";
    agent.wait("the source fails", SOON, failing).unwrap();
    let text = String::from_utf8(agent.command(&["sources"]).unwrap().stdout).unwrap();
    assert!(text.contains("forbidden for") && text.contains("next: invar sources platform"), "{text}");
    let (found, _) = examined(&world.path("invar.toml"));
    assert_eq!(problem(&found)["check"], "permission");
    let counted = || {
        let metrics = agent.text("/metrics").unwrap().1;
        let failed = "invar_config_source_checks_total{result=\"failed\",source=\"platform\"} ";
        let failed = metrics.lines().find_map(|line| line.strip_prefix(failed)?.parse::<f64>().ok());
        let class = metrics.contains("invar_config_source_error{class=\"forbidden\",source=\"platform\"} 1");
        let seconds = metrics.contains("invar_config_source_fetch_seconds_count{source=\"platform\"}");
        (failed.is_some_and(|count| count >= 1.0) && class && seconds).then_some(())
    };
    wait_for("metrics of the source", SOON, counted).unwrap();
    let (code, text) = agent.text("/api/v1/sources/platform").unwrap();
    assert_eq!(code, 200);
    assert!(!text.contains(TOKEN), "{text}");
    agent.terminate().unwrap();
    let output = agent.command(&["sources"]).unwrap();
    assert_eq!(output.status.code(), Some(69));
}

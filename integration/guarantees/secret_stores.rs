//! Secret stores of the settings on a real agent: a source's token comes from one and is rotated, the commands and the API
//! show how they do and never a value, settings that cannot work are refused, and the process leaves no memory behind.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use invar_integration::{Agent, AgentOptions, GitServer, Repository, canary, wait_for};

use crate::fleet::{SOON, binary, runs};

const FIRST: &str = "marker-first-token-6c1d";
const SECOND: &str = "marker-second-token-9e2f";
const PIPELINE: &str = "prometheus.relabel \"a\" {\n\tforward_to = []\n}\n";

fn keep(path: &Path, content: &str, mode: u32) {
    std::fs::write(path, content).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

fn text(output: &std::process::Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn a_token_comes_from_a_store_is_rotated_and_never_shown() {
    let directory = tempfile::tempdir().unwrap();
    let folder = directory.path().join("secrets");
    std::fs::create_dir(&folder).unwrap();
    keep(&folder.join("token"), canary::secret(FIRST), 0o600);
    let script = directory.path().join("token.sh");
    keep(&script, &format!("#!/bin/sh\nexec cat {}/token\n", folder.display()), 0o755);
    let repository = Repository::create(directory.path()).unwrap();
    let git = GitServer::start(directory.path()).unwrap();
    git.require_basic("x-access-token", FIRST);
    let head = repository.push_file("main.alloy", PIPELINE, "begin").unwrap();
    let settings = format!(
        "[[source]]\nname = \"fleet\"\ngit = {{ url = \"{}\", branch = \"main\" }}\ninterval = \"1s\"\n\
         auth = {{ token = {{ secret = \"command/token\" }} }}\n\n\
         [rollout]\nmin_gap = \"0s\"\nprobation = {{ window = \"0s\" }}\n\n[policy]\nexec = true\n\n\
         [secrets.team]\nkind = \"file\"\nroot = \"{}\"\n\n\
         [secrets.command]\nkind = \"exec\"\ncommands = {{ token = {{ command = [\"{}\"], environment = [\"PATH\"] }} }}\n",
        git.url("fleet.git"),
        folder.display(),
        script.display()
    );
    let options = AgentOptions {
        binary: binary(),
        directory: directory.path().to_path_buf(),
        settings,
        environment: Vec::new(),
    };
    let agent = Agent::start(options).unwrap();
    agent.wait("the first commit runs", SOON, |status| runs(status, &head)).unwrap();

    let said = |arguments: &[&str], success: bool| {
        let output = agent.command(arguments).unwrap();
        assert_eq!(output.status.success(), success, "{arguments:?}: {}", text(&output));
        text(&output)
    };
    let list = said(&["secrets"], true);
    assert!(list.contains("token  command  ready"), "{list}");
    assert!(list.contains("source fleet") && list.contains("per use"), "{list}");
    keep(&folder.join("token"), canary::secret(SECOND), 0o600);
    git.require_basic("x-access-token", SECOND);
    // A command is run again after five minutes by itself.
    let rotated = said(&["secrets", "rotate", "command/token"], true);
    assert!(rotated.contains("1 since the start, 0 failures"), "{rotated}");
    let changed = PIPELINE.replace("[]", "[]\n\tmax_cache_size = 7");
    let head = repository.push_file("main.alloy", &changed, "change").unwrap();
    said(&["reconcile", "--timeout", "30s"], true);
    agent.wait("the second commit runs", SOON, |status| runs(status, &head)).unwrap();

    let doctor = ["doctor", directory.path().join("invar.toml").to_str().unwrap()].map(str::to_owned);
    let list = said(&["secrets", "-o", "json"], true);
    assert_eq!(serde_json::from_str::<serde_json::Value>(&list).unwrap()["version"], 1);
    let metrics = agent.text("/metrics").unwrap().1;
    assert!(metrics.contains("invar_secret_rotations_total{store=\"command\"} 1"), "{metrics}");
    let store = said(&["secrets", "test", "team"], true);
    assert!(store.contains(&format!("store team (file): files below {}", folder.display())), "{store}");
    for name in ["team/token", "command/token#value"] {
        let trial = said(&["secrets", "test", name], true);
        assert!(trial.contains("has 1 field: value"), "{trial}");
    }
    let json = said(&["secrets", "test", "team/token", "-o", "json"], true);
    assert!(!json.contains(SECOND), "{json}");
    let missing = said(&["secrets", "test", "team/absent"], false);
    assert!(missing.contains("missing reading it: there is no such file"), "{missing}");
    let unknown = said(&["secrets", "test", "bao/kv/x"], false);
    assert!(
        unknown.contains("there is no secret store `bao`; there are: command, env, file, team"),
        "{unknown}"
    );
    let unused = said(&["secrets", "rotate", "vault/kv/nothing"], false);
    assert!(unused.contains("no secret `vault/kv/nothing` is in use"), "{unused}");
    let output = Command::new(binary()).args(&doctor).output().unwrap();
    let found = text(&output);
    assert!(found.contains("secret store command") && found.contains("exec: 1 command"), "{found}");
    assert!(found.contains("secret store team"), "{found}");
    agent.search().unwrap();
}

#[test]
fn settings_of_stores_that_cannot_work_are_refused_before_the_start() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("invar.toml");
    let source = format!(
        "[server]\nlisten = \"127.0.0.1:0\"\n[state]\ndir = \"{}\"\n\
         [[source]]\nname = \"a\"\ngit = {{ url = \"https://git.invalid/x\" }}\n",
        directory.path().join("state").display()
    );
    for (more, said) in [
        (
            "auth = { token = { secret = \"bao/kv/x\" } }\n",
            "`source a: auth.token` is in the store `bao`, which there is not; there are: env, file",
        ),
        (
            "[secrets.a]\nkind = \"age\"\nidentity = { secret = \"b/x\" }\n[secrets.b]\nkind = \"age\"\nidentity = { secret = \"a/x\" }\n",
            "the stores need each other: a → b → a",
        ),
        ("[secrets.x]\nkind = \"exec\"\ncommands = { a = { command = [\"/bin/true\"] } }\n", "`exec = true`"),
        ("[secrets.x]\nkind = \"valt\"\n", "unknown variant"),
    ] {
        std::fs::write(&file, format!("{source}{more}")).unwrap();
        let output = Command::new(binary()).arg("run").arg(&file).output().unwrap();
        assert_eq!(output.status.code(), Some(64), "{}", text(&output));
        assert!(text(&output).contains(said), "{}", text(&output));
    }
}

/// As another user where the test may do that: only then does it show whether what the agent reads of itself is still its
/// own to read.
fn unprivileged(directory: &Path) -> Option<std::path::PathBuf> {
    let root = std::fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0);
    let setpriv = ["/usr/bin/setpriv", "/bin/setpriv"].into_iter().find(|path| Path::new(path).is_file())?;
    if !root {
        return None;
    }
    let script = directory.join("invar.sh");
    let line = format!(
        "#!/bin/sh\nexec {setpriv} --reuid 65534 --regid 65534 --clear-groups {} \"$@\"\n",
        binary().display()
    );
    keep(&script, &line, 0o755);
    chown(directory, Some(65534), Some(65534)).unwrap();
    Some(script)
}

#[test]
fn a_process_that_dies_leaves_no_core_and_still_knows_itself() {
    let directory = tempfile::tempdir().unwrap();
    let pipeline = directory.path().join("main.alloy");
    std::fs::write(&pipeline, "prometheus.exporter.self \"self\" { }\n").unwrap();
    let other_user = unprivileged(directory.path());
    if other_user.is_none() {
        eprintln!("not root, or no setpriv: the agent runs as this user");
    }
    let settings = format!("[[source]]\nname = \"local\"\nfile = {{ path = \"{}\" }}\n", pipeline.display());
    let options = AgentOptions {
        binary: other_user.clone().unwrap_or_else(binary),
        directory: directory.path().to_path_buf(),
        settings,
        environment: Vec::new(),
    };
    let mut agent = Agent::start(options).unwrap();
    let running = |status: &serde_json::Value| status["running"]["revision"].is_string();
    agent.wait("it runs", SOON, running).unwrap();

    let process = format!("/proc/{}", agent.process());
    let limits = std::fs::read_to_string(format!("{process}/limits")).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_ascii_whitespace().skip(4).take(2).collect::<Vec<_>>(), ["0", "0"], "{core}");
    if other_user.is_some() {
        // The kernel gives what is beside a closed memory to root.
        let status = std::fs::read_to_string(format!("{process}/status")).unwrap();
        assert!(status.contains("Uid:\t65534"), "{status}");
        let memory = std::fs::metadata(format!("{process}/mem")).unwrap();
        assert_eq!(memory.uid(), 0, "its own user could read the memory");
    }
    for path in ["/metrics", "/api/v0/component/prometheus.exporter.self.self/metrics"] {
        let (_, metrics) = agent.text(path).unwrap();
        for name in [
            "process_open_fds",
            "process_max_fds",
            "process_resident_memory_bytes",
            "process_virtual_memory_bytes",
            "process_start_time_seconds",
            "process_threads",
        ] {
            let line = metrics.lines().find(|line| line.starts_with(&format!("{name} ")));
            let value: f64 = line.and_then(|line| line.split(' ').nth(1)?.parse().ok()).unwrap_or_default();
            assert!(value > 0.0, "{path}: {name} in\n{metrics}");
        }
    }
    Command::new("kill").args(["-ABRT", &agent.process().to_string()]).status().unwrap();
    let ended = agent.exit(Duration::from_secs(20)).unwrap();
    assert_eq!(ended.signal(), Some(6));
    assert!(!ended.core_dumped());
}

#[test]
fn a_start_without_the_store_uses_what_was_kept_and_the_disk_shows_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let folder = directory.path().join("secrets");
    std::fs::create_dir(&folder).unwrap();
    keep(&folder.join("token"), FIRST, 0o600);
    keep(&directory.path().join("key"), "0123456789abcdef0123456789abcdef", 0o600);
    let script = directory.path().join("token.sh");
    keep(&script, &format!("#!/bin/sh\nexec cat {}/token\n", folder.display()), 0o755);
    let repository = Repository::create(directory.path()).unwrap();
    let git = GitServer::start(directory.path()).unwrap();
    git.require_basic("x-access-token", FIRST);
    let head = repository.push_file("main.alloy", PIPELINE, "begin").unwrap();
    let settings = |offline: &str| {
        format!(
            "offline_secrets = {offline}\n\n\
             [[source]]\nname = \"fleet\"\ngit = {{ url = \"{}\", branch = \"main\" }}\ninterval = \"1s\"\n\
             auth = {{ token = {{ secret = \"command/token\" }} }}\n\n\
             [rollout]\nmin_gap = \"0s\"\nprobation = {{ window = \"0s\" }}\n\n[policy]\nexec = true\n\n\
             [secrets.command]\nkind = \"exec\"\ncommands = {{ token = {{ command = [\"{}\"], environment = [\"PATH\"] }} }}\n",
            git.url("fleet.git"),
            script.display()
        )
    };
    let key = format!("{{ key = {{ file = \"{}\" }} }}", directory.path().join("key").display());
    let options = |settings: String| AgentOptions {
        binary: binary(),
        directory: directory.path().to_path_buf(),
        settings,
        environment: Vec::new(),
    };
    let mut agent = Agent::start(options(settings(&key))).unwrap();
    agent.wait("the first commit runs", SOON, |status| runs(status, &head)).unwrap();
    agent.terminate().unwrap();
    let kept = agent.state_directory().join("secrets");
    let records: Vec<_> = std::fs::read_dir(&kept).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(records.len(), 1);
    let record = std::fs::read(&records[0]).unwrap();
    assert!(!record.windows(FIRST.len()).any(|part| part == FIRST.as_bytes()));

    // The store is gone, and something new is there to be fetched with its token.
    std::fs::rename(folder.join("token"), folder.join("away")).unwrap();
    let changed = PIPELINE.replace("[]", "[]\n\tmax_cache_size = 7");
    let head = repository.push_file("main.alloy", &changed, "change").unwrap();
    agent.launch().unwrap();
    agent.wait("the second commit runs", SOON, |status| runs(status, &head)).unwrap();
    assert!(agent.log().contains("its store is out of reach"), "{}", agent.log());
    assert!(!agent.log().contains(FIRST));
    agent.terminate().unwrap();

    // Who denies it finds nothing of before.
    let mut agent = Agent::start(options(settings("\"deny\""))).unwrap();
    let failing = |status: &serde_json::Value| !status["sources"][0]["error"].is_null();
    agent.wait("the source has no token", SOON, failing).unwrap();
    assert!(!kept.exists());
    agent.terminate().unwrap();
}

#[test]
fn a_start_without_a_store_runs_what_needs_nothing_of_it_and_the_rest_when_it_is_back() {
    let directory = tempfile::tempdir().unwrap();
    let folder = directory.path().join("secrets");
    std::fs::create_dir(&folder).unwrap();
    keep(&folder.join("token"), canary::secret(FIRST), 0o600);
    let script = directory.path().join("token.sh");
    keep(&script, &format!("#!/bin/sh\nexec cat {}/token\n", folder.display()), 0o755);
    let pipeline = directory.path().join("main.alloy");
    std::fs::write(
        &pipeline,
        "prometheus.remote_write \"out\" {\n\tendpoint {\n\t\turl = \"http://127.0.0.1:9/\"\n\t\tbearer_token = secret(\"command/token\")\n\t}\n}\n\n\
         discovery.relabel \"unrelated\" {\n\ttargets = []\n}\n",
    )
    .unwrap();
    let settings = format!(
        "[[source]]\nname = \"file\"\nfile = {{ path = \"{}\" }}\n\n\
         [rollout]\nprobation = {{ window = \"0s\" }}\n\n[policy]\nexec = true\n\n\
         [secrets.command]\nkind = \"exec\"\ncommands = {{ token = {{ command = [\"{}\"], environment = [\"PATH\"] }} }}\n",
        pipeline.display(),
        script.display()
    );
    let options = AgentOptions {
        binary: binary(),
        directory: directory.path().to_path_buf(),
        settings,
        environment: Vec::new(),
    };
    let mut agent = Agent::start(options).unwrap();
    agent.wait("it is committed", SOON, |status| !status["last_known_good"].is_null()).unwrap();
    agent.terminate().unwrap();

    std::fs::rename(folder.join("token"), folder.join("away")).unwrap();
    agent.launch().unwrap();
    agent.wait("it runs from disk", SOON, |status| !status["running"].is_null()).unwrap();
    let health = |id: &str| agent.get(&format!("/api/v1/components/{id}")).unwrap()["health"].clone();
    assert_eq!(health("discovery.relabel.unrelated")["state"], "healthy");
    let out = health("prometheus.remote_write.out");
    assert!(out["state"] != "healthy" && out["message"].to_string().contains("command/token"), "{out:#}");
    // Who waits for what is seen where the secrets are, too.
    let waited_for = agent.get("/api/v1/secrets/command%2Ftoken").unwrap();
    assert!(waited_for["version"].is_null() && waited_for["state"] != "ready", "{waited_for:#}");
    assert_eq!(waited_for["users"][0]["component"], "prometheus.remote_write.out", "{waited_for:#}");
    let named = |status: &serde_json::Value| {
        let all = status["conditions"].as_array().unwrap();
        let ready = all.iter().find(|condition| condition["name"] == "SecretsReady").unwrap();
        ready["message"].to_string().contains("command/token")
    };
    agent.wait("the condition names it", SOON, named).unwrap();

    std::fs::rename(folder.join("away"), folder.join("token")).unwrap();
    let recovered = || (health("prometheus.remote_write.out")["state"] == "healthy").then_some(());
    wait_for("the component to have its secret", SOON, recovered)
        .unwrap_or_else(|problem| panic!("{problem}\n{}", agent.log()));
    agent.terminate().unwrap();
}

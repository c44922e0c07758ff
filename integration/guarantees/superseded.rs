//! D22: what was replaced is not in memory. A whole agent uses passwords and tokens from stores, in its pipeline and for its
//! sources, and all are rotated; when the time is over for which the value before is kept, all memory that the process can
//! write to is searched for it.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use invar_integration::{Agent, AgentOptions, Receiver, Target, canary, find_in_memory, wait_for};

use crate::fleet::{SOON, binary};

/// For how long the value before is kept here, in seconds.
const OVERLAP: &str = "2";
/// After that: until who keeps it has woken, and requests under way are done.
const WIPED: Duration = Duration::from_secs(20);

/// A marker that is long, as tokens are, and of one length, as they are too.
fn marker(name: &str, round: u32) -> String {
    canary::secret(format!("marker-{name}-{round}-8c1f27d0b6e94a35907bd2e4f1a8c6535d0e97b1264fa8c3-end"))
}

fn keep(path: &Path, content: &str, mode: u32) {
    // At once, as those who rotate do it.
    let beside = path.with_extension("new");
    std::fs::write(&beside, content).unwrap();
    std::fs::set_permissions(&beside, std::fs::Permissions::from_mode(mode)).unwrap();
    std::fs::rename(&beside, path).unwrap();
}

/// What the stores hold: a password and a token in files, and a login that a command prints as JSON.
const NAMES: [&str; 4] = ["password", "token", "json", "derived"];

fn write_all(folder: &Path, round: u32) {
    for name in ["password", "token", "derived"] {
        keep(&folder.join(name), &marker(name, round), 0o600);
    }
    keep(
        &folder.join("login.json"),
        &format!("{{\"user\": \"me\", \"password\": \"{}\"}}", marker("json", round)),
        0o600,
    );
}

#[test]
fn a_superseded_value_is_not_in_memory() {
    let directory = tempfile::tempdir().unwrap();
    let folder = directory.path().join("secrets");
    std::fs::create_dir(&folder).unwrap();
    write_all(&folder, 1);
    let receiver = Receiver::start().unwrap();
    let target = Target::start("steady 1\n").unwrap();
    let endpoint = |name: &str, authentication: &str| {
        format!(
            "\tendpoint {{\n\t\tname = \"{name}\"\n\t\turl = \"{}\"\n{authentication}\n\t\tqueue_config {{\n\t\t\tbatch_send_deadline = \"50ms\"\n\t\t}}\n\t}}\n",
            receiver.url(name)
        )
    };
    let basic = |password: &str| {
        format!("\t\tbasic_auth {{\n\t\t\tusername = \"me\"\n\t\t\tpassword = {password}\n\t\t}}")
    };
    let text = format!(
        "logging {{\n\tlevel = \"debug\"\n}}\n\n\
         prometheus.scrape \"a\" {{\n\ttargets = [{{\"__address__\" = \"{}\"}}]\n\tscrape_interval = \"100ms\"\n\tscrape_timeout = \"100ms\"\n\
         \tforward_to = [prometheus.remote_write.out.receiver]\n}}\n\n\
         prometheus.remote_write \"out\" {{\n{}{}{}{}}}\n",
        target.address(),
        endpoint("password", &basic("secret(\"team/password\")")),
        endpoint("token", "\t\tbearer_token = secret(\"team/token\")"),
        endpoint("json", &basic("secret(\"command/login#password\")")),
        endpoint("derived", &basic("string.format(\"%s-made\", secret(\"team/derived\"))")),
    );
    let pipeline = directory.path().join("main.alloy");
    std::fs::write(&pipeline, text).unwrap();
    let settings = format!(
        "[[source]]\nname = \"local\"\nfile = {{ path = \"{}\" }}\n\n[policy]\nexec = true\n\n\
         [secrets.team]\nkind = \"file\"\nroot = \"{}\"\n\n\
         [secrets.command]\nkind = \"exec\"\n\
         commands = {{ login = {{ command = [\"/bin/cat\", \"{}\"], output = \"json\", environment = [\"PATH\"] }} }}\n\n\
         [rollout]\nprobation = {{ window = \"0s\" }}\n",
        pipeline.display(),
        folder.display(),
        folder.join("login.json").display(),
    );
    let agent = Agent::start(AgentOptions {
        binary: binary(),
        directory: directory.path().to_path_buf(),
        settings,
        environment: vec![("INVAR_SECRET_OVERLAP".to_owned(), OVERLAP.to_owned())],
    })
    .unwrap();
    agent.wait("it runs", SOON, |status| !status["running"].is_null()).unwrap();
    let used = |count: usize| {
        for name in NAMES {
            let seen = || (receiver.authorization(name).len() == count).then_some(());
            wait_for(&format!("value {count} of {name} to be used"), SOON, seen)
                .unwrap_or_else(|problem| panic!("{problem}\n{}", agent.log()));
        }
    };
    used(1);
    let found = |name: &str, round: u32| find_in_memory(agent.process(), &marker(name, round)).unwrap();
    for round in 2..4 {
        for name in NAMES {
            let Some(places) = found(name, round - 1) else {
                eprintln!("skipped: only root may look into the memory of an agent");
                return;
            };
            assert!(!places.is_empty(), "the {name} in use is found, or nothing would be");
        }
        write_all(&folder, round);
        // A command is asked by time only.
        let rotated = agent.command(&["secrets", "rotate", "command/login"]).unwrap();
        assert!(rotated.status.success(), "{rotated:?}");
        used(round as usize);
        let begun = Instant::now();
        for name in NAMES {
            loop {
                let places = found(name, round - 1).unwrap();
                if places.is_empty() {
                    break;
                }
                assert!(begun.elapsed() < WIPED, "the {name} before is in memory:\n{}", places.join("\n"));
                std::thread::sleep(Duration::from_millis(200));
            }
            assert!(!found(name, round).unwrap().is_empty(), "the {name} in use is found");
        }
        println!(
            "round {round}: nothing of the values before {:?} after the last use of one",
            begun.elapsed()
        );
    }
}

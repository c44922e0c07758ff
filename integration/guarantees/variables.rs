//! Variables: one repository, several environments, and what a change of a variable does to what runs.

use invar_integration::{Agent, AgentOptions, GitServer, Receiver, Repository, Target};
use serde_json::{Value, json};

use crate::fleet::{SOON, VERDICT, binary, committed, desires, runs};

/// A repository with a base and two environments, and what its pipeline needs.
struct Ground {
    directory: tempfile::TempDir,
    repository: Repository,
    git: GitServer,
    _receiver: Receiver,
    _target: Target,
}

const PRODUCTION: &str = "environments/production/variables.toml";

impl Ground {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let receiver = Receiver::start().unwrap();
        let target = Target::start("steady 1\n").unwrap();
        let repository = Repository::create(directory.path()).unwrap();
        let git = GitServer::start(directory.path()).unwrap();
        let pipeline = r#"
prometheus.scrape "page" {
	targets         = [{__address__ = var.page}]
	scrape_interval = var.scrape.interval
	scrape_timeout  = "200ms"
	forward_to      = [prometheus.relabel.tidy.receiver]
}

prometheus.relabel "tidy" {
	forward_to = [prometheus.remote_write.out.receiver]

	rule {
		target_label = "environment"
		replacement  = agent.environment
	}
}

prometheus.remote_write "out" {
	external_labels = var.labels

	endpoint {
		url = var.endpoint
	}
}
"#;
        let base = format!(
            "page = \"{}\"\nendpoint = \"{}\"\nspare = 1\n\n[scrape]\ninterval = \"500ms\"\n\n[labels]\nfleet = \"f\"\nstage = \"none\"\n",
            target.address(),
            receiver.url("a"),
        );
        repository.write("base/main.alloy", pipeline).unwrap();
        repository.write("base/variables.toml", base).unwrap();
        repository.write("environments/dev/variables.toml", "labels.stage = \"dev\"\n").unwrap();
        repository.write(PRODUCTION, "labels.stage = \"production\"\nscrape.interval = \"400ms\"\n").unwrap();
        repository.push("begin").unwrap();
        Self { directory, repository, git, _receiver: receiver, _target: target }
    }

    fn agent(&self, environment: &str) -> Agent {
        let directory = self.directory.path().join(environment);
        std::fs::create_dir_all(&directory).unwrap();
        let settings = format!(
            "[[source]]\nname = \"fleet\"\ngit = {{ url = \"{}\", branch = \"main\" }}\ninterval = \"1s\"\n\
             path = [\"base\", \"environments/${{agent.environment}}\", \"hosts/${{agent.name}}\"]\n\n\
             [rollout]\nprobation = {{ window = \"3s\" }}\nmin_gap = \"100ms\"\n",
            self.git.url("fleet.git")
        );
        let options = AgentOptions { binary: binary(), directory, settings, environment: Vec::new() };
        let agent = Agent::start_as(options, "web-17", environment).unwrap();
        let head = self.repository.head().unwrap();
        agent.wait("the first commit runs", SOON, |status| runs(status, &head)).unwrap();
        agent
    }
}

fn arguments(agent: &Agent, component: &str) -> String {
    agent.get(&format!("/api/v1/components/{component}")).unwrap()["arguments"].to_string()
}

#[test]
fn a_changed_variable_touches_only_what_uses_it() {
    let ground = Ground::new();
    let agent = ground.agent("production");
    let instances = || {
        ["prometheus.scrape.page", "prometheus.relabel.tidy", "prometheus.remote_write.out"]
            .map(|component| agent.instance(component).unwrap())
    };
    let before = instances();
    let changed = "labels.stage = \"production\"\nscrape.interval = \"300ms\"\n";
    let head = ground.repository.push_file(PRODUCTION, changed, "scrape faster").unwrap();
    agent.wait("the change runs", SOON, |status| runs(status, &head)).unwrap();
    assert!(arguments(&agent, "prometheus.scrape.page").contains("300ms"));
    assert_eq!(instances(), before);
    let plan = agent.get("/api/v1/plan").unwrap();
    assert_eq!(plan["counts"], json!({ "keep": 2, "update": 1 }), "{plan:#}");
    agent.wait("it is committed", VERDICT, |status| committed(status, &head)).unwrap();

    // A variable that nothing uses changes the revision and nothing else.
    let generation = agent.status().unwrap()["running"]["generation"].clone();
    let unused = format!("{changed}spare = 2\n");
    let head = ground.repository.push_file(PRODUCTION, unused, "a spare one").unwrap();
    let status = agent.wait("the revision advances", SOON, |status| runs(status, &head)).unwrap();
    assert_eq!(status["running"]["generation"], generation);
    assert_eq!(status["in_sync"], Value::Bool(true));
}

#[test]
fn a_broken_variables_file_is_refused_with_its_line() {
    let ground = Ground::new();
    let agent = ground.agent("production");
    let before = agent.status().unwrap()["running"]["revision"].clone();
    for (text, line, says) in [
        ("labels.stage = \"x\"\nscrape = = 1\n", 2, "this is not TOML"),
        ("labels.stage = \"x\"\nscrape.interval = 1979-05-27\n", 2, "no type for dates"),
    ] {
        let head = ground.repository.push_file(PRODUCTION, text, "break the variables").unwrap();
        let refused = |status: &Value| desires(status, &head) && !status["reason"].is_null();
        let status = agent.wait("it is refused", SOON, refused).unwrap();
        let reason = &status["reason"];
        assert_eq!((&reason["file"], &reason["line"]), (&json!(PRODUCTION), &json!(line)), "{reason:#}");
        assert!(reason["message"].as_str().unwrap().contains(says), "{reason:#}");
        assert_eq!(status["running"]["revision"], before);
    }
    // A value that does not fit names the use, and where it was defined.
    let head = ground.repository.push_file(PRODUCTION, "\nscrape.interval = 5\n", "a number").unwrap();
    let refused = |status: &Value| desires(status, &head) && !status["reason"].is_null();
    let status = agent.wait("it is refused", SOON, refused).unwrap();
    let message = status["reason"]["message"].as_str().unwrap();
    assert!(message.contains("base/main.alloy:4:20"), "{message}");
    assert!(message.contains(&format!("var.scrape.interval is defined here: {PRODUCTION}:2:8")), "{message}");
    // One that is not there names the file it belongs in.
    let pipeline = ground.repository.read("base/main.alloy").unwrap();
    ground.repository.write(PRODUCTION, "labels.stage = \"production\"\n").unwrap();
    let head = ground
        .repository
        .push_file("base/main.alloy", pipeline.replace("var.endpoint", "var.endpont"), "a typo")
        .unwrap();
    let refused = |status: &Value| desires(status, &head) && !status["reason"].is_null();
    let reason = agent.wait("it is refused", SOON, refused).unwrap()["reason"].clone();
    assert!(
        reason["message"].as_str().unwrap().contains(&format!("define it in {PRODUCTION}")),
        "{reason:#}"
    );
}

#[test]
fn environments_of_one_repository_differ_and_survive_its_loss() {
    let ground = Ground::new();
    let (dev, mut production) = (ground.agent("dev"), ground.agent("production"));
    let told = |agent: &Agent| {
        (arguments(agent, "prometheus.scrape.page"), arguments(agent, "prometheus.remote_write.out"))
    };
    let (scrape, write) = told(&dev);
    assert!(scrape.contains("500ms") && write.contains("dev") && write.contains("\"f\""), "{scrape} {write}");
    assert!(arguments(&dev, "prometheus.relabel.tidy").contains("dev"));
    let (scrape, write) = told(&production);
    assert!(scrape.contains("400ms") && write.contains("production"), "{scrape} {write}");

    // Offline, everything comes from the state directory, the variables too.
    let head = ground.repository.head().unwrap();
    production.wait("it is committed", VERDICT, |status| committed(status, &head)).unwrap();
    ground.repository.vanish().unwrap();
    production.kill();
    std::fs::remove_dir_all(production.state_directory().join("git")).unwrap();
    production.launch().unwrap();
    production.wait("it runs from disk", SOON, |status| runs(status, &head)).unwrap();
    assert_eq!(told(&production), (scrape, write));
}

/// Runs an `invar` command in a folder; gives its exit code, output and complaints.
fn invar(folder: &std::path::Path, arguments: &[&str]) -> (i32, String, String) {
    let output = std::process::Command::new(binary()).current_dir(folder).args(arguments).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr))
}

fn findings(folder: &std::path::Path, arguments: &[&str]) -> (i32, Vec<Value>) {
    let (code, out, complaints) = invar(folder, arguments);
    let report: Value =
        serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}{complaints}"));
    (code, report["diagnostics"].as_array().unwrap().clone())
}

#[test]
fn every_environment_is_checked_off_the_host_with_its_pin() {
    let ground = Ground::new();
    let folder = ground.repository.clone_directory().to_path_buf();
    let address = format!("git+file://{}?ref=main", ground.repository.bare().display());
    let good = ground.repository.head().unwrap();
    assert_eq!(invar(&folder, &["validate", ".", "--all-environments"]).0, 0);
    assert_eq!(invar(&folder, &["validate", &address, "--all-environments"]).0, 0);
    assert_eq!(invar(&folder, &["validate", "base", "--all-environments"]).0, 1, "no fleet");

    // One environment is broken; what all have in common is said once.
    ground.repository.write("environments/dev/variables.toml", "scrape.interval = 7\n").unwrap();
    ground.repository.write("base/more.alloy", "no.such \"x\" { }\n").unwrap();
    ground.repository.push("break two things").unwrap();
    for place in [".", address.as_str()] {
        let (code, found) = findings(&folder, &["validate", place, "--all-environments", "-o", "json"]);
        assert_eq!(code, 4);
        let common: Vec<_> =
            found.iter().filter(|finding| finding["place"]["file"] == "base/more.alloy").collect();
        assert_eq!(common.len(), 1, "{found:#?}");
        assert_eq!(common[0]["environments"], json!(["dev", "production"]));
        let broken =
            found.iter().find(|finding| finding["place"]["file"] == "environments/dev/variables.toml");
        assert_eq!(broken.unwrap()["environments"], json!(["dev"]), "{found:#?}");
    }
    let (code, _, complaints) = invar(&folder, &["validate", ".", "--env", "productoin"]);
    assert_eq!(code, 1);
    assert!(complaints.contains("did you mean production?"), "{complaints}");

    // Pinned to the commit before, production does not have the fault of the base.
    let pin = "environments/production/pin.toml";
    ground.repository.push_file(pin, format!("commit = \"{good}\"\n"), "pin production").unwrap();
    for place in [".", address.as_str()] {
        assert_eq!(invar(&folder, &["validate", place, "--environment", "production"]).0, 0, "{place}");
        let (code, found) = findings(&folder, &["validate", place, "--all-environments", "-o", "json"]);
        assert_eq!(code, 4);
        assert!(found.iter().all(|finding| finding["environments"] == json!(["dev"])), "{found:#?}");
    }
    // And an agent of that environment sees the same.
    let agent = ground.agent("production");
    let revision = agent.status().unwrap()["running"]["revision"].as_str().unwrap().to_owned();
    assert!(revision.ends_with(&format!("+base@{good}")), "{revision}");

    // A pin that cannot be followed is a finding of its own.
    ground.repository.write(pin, format!("\ncommit = \"{}\"\n", "ab".repeat(20))).unwrap();
    let (code, found) = findings(&folder, &["validate", ".", "--env", "production", "-o", "json"]);
    assert_eq!(code, 4);
    let about_pin = found.iter().find(|finding| finding["place"]["file"] == pin).unwrap();
    assert_eq!(about_pin["place"]["start"]["line"], 2, "{about_pin:#}");
}

#[test]
fn variables_are_explained_at_hand_and_in_the_running_agent() {
    let ground = Ground::new();
    let folder = ground.repository.clone_directory().to_path_buf();
    let arguments = ["explain", "var.scrape.interval", ".", "--environment", "production", "-o", "json"];
    let (code, out, complaints) = invar(&folder, &arguments);
    assert_eq!(code, 0, "{complaints}");
    let at_hand: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(at_hand["value"], "400ms");
    assert_eq!(
        (&at_hand["defined"]["file"], &at_hand["defined"]["line"], &at_hand["defined"]["layer"]),
        (&json!(PRODUCTION), &json!(2), &json!("environments/production"))
    );
    assert_eq!(at_hand["overrode"][0]["file"], "base/variables.toml");
    assert_eq!(at_hand["overrode"][0]["text"], "\"500ms\"");

    let agent = ground.agent("production");
    let told = agent.command(&["explain", "var.scrape.interval", "-o", "json"]).unwrap();
    let running: Value = serde_json::from_slice(&told.stdout).unwrap();
    assert_eq!(running["value"], "400ms");
    assert_eq!(running["defined"]["source"], "fleet");
    let all = agent.command(&["explain", "var"]).unwrap();
    let all = String::from_utf8(all.stdout).unwrap();
    assert!(all.contains("var.labels.stage") && all.contains("base/variables.toml"), "{all}");
    let missing = agent.command(&["explain", "var.scrape.intervall"]).unwrap();
    assert_eq!(missing.status.code(), Some(1));
    let complaint = String::from_utf8_lossy(&missing.stderr).into_owned();
    assert!(complaint.contains("did you mean var.scrape.interval?"), "{complaint}");

    // A plan for another environment than the one at hand is composed as an agent would compose it.
    let plan = ["plan", folder.to_str().unwrap(), "--environment", "production", "-o", "json"];
    let plan: Value = serde_json::from_slice(&agent.command(&plan).unwrap().stdout).unwrap();
    assert_eq!(plan["counts"], json!({ "keep": 3 }), "{plan:#}");
    let plan = ["plan", folder.to_str().unwrap(), "--environment", "dev", "-o", "json"];
    let plan: Value = serde_json::from_slice(&agent.command(&plan).unwrap().stdout).unwrap();
    assert_eq!(plan["counts"], json!({ "keep": 1, "update": 2 }), "{plan:#}");
}

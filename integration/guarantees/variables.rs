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

//! What every test here is played on: a repository behind a real Git server over HTTP, an agent that follows it with
//! short intervals, a receiver and pages to scrape. Everything is on loopback, in a folder of its own, and ends with
//! the test.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use invar_integration::{Agent, AgentOptions, GitServer, Receiver, Repository, Target};
use serde_json::Value;
use tempfile::TempDir;

/// The poll interval of the agents under test.
pub(crate) const INTERVAL: Duration = Duration::from_secs(1);
/// Long enough for anything that happens within an interval or two on a busy machine.
pub(crate) const SOON: Duration = Duration::from_secs(30);
/// Long enough for a probation, its extension and a rollback.
pub(crate) const VERDICT: Duration = Duration::from_secs(90);

/// The path of the binary under test.
pub(crate) fn binary() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_invar"))
}

/// How a fleet is set up.
pub(crate) struct Plan {
    /// Probation window in seconds.
    pub(crate) probation: u64,
    /// More settings, as TOML.
    pub(crate) settings: String,
}

impl Default for Plan {
    fn default() -> Self {
        Self { probation: 6, settings: String::new() }
    }
}

/// A fleet of one.
pub(crate) struct Fleet {
    pub(crate) agent: Agent,
    pub(crate) repository: Repository,
    pub(crate) git: GitServer,
    pub(crate) receiver: Receiver,
    pub(crate) target: Target,
    _directory: Option<TempDir>,
}

impl Fleet {
    /// Starts everything on a first commit with this pipeline, and waits until it runs.
    pub(crate) fn start(pipeline: impl FnOnce(&Receiver, &Target) -> String) -> Self {
        Self::planned(Plan::default(), pipeline)
    }

    /// As [`Self::start`], with settings of the test's own.
    pub(crate) fn planned(plan: Plan, pipeline: impl FnOnce(&Receiver, &Target) -> String) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let fleet = Self::planned_in(directory.path(), plan, pipeline);
        Self { _directory: Some(directory), ..fleet }
    }

    /// As [`Self::planned`], in a folder that the test takes care of.
    pub(crate) fn planned_in(
        directory: &Path,
        plan: Plan,
        pipeline: impl FnOnce(&Receiver, &Target) -> String,
    ) -> Self {
        let receiver = Receiver::start().unwrap();
        let target = Target::start("steady 1\n").unwrap();
        target.number("numbered_total");
        let repository = Repository::create(directory).unwrap();
        let git = GitServer::start(directory).unwrap();
        let head = repository.push_file("main.alloy", pipeline(&receiver, &target), "begin").unwrap();
        let mut settings = format!(
            "[[source]]\nname = \"fleet\"\ngit = {{ url = \"{}\", branch = \"main\" }}\ninterval = \"1s\"\n\n",
            git.url("fleet.git")
        );
        writeln!(
            settings,
            "[rollout]\nprobation = {{ window = \"{}s\" }}\nmin_gap = \"100ms\"\n\n{}",
            plan.probation, plan.settings
        )
        .expect("writing to a string cannot fail");
        let agent = Agent::start(AgentOptions {
            binary: binary(),
            directory: directory.to_path_buf(),
            settings,
            environment: Vec::new(),
        })
        .unwrap();
        let fleet = Self { agent, repository, git, receiver, target, _directory: None };
        fleet.agent.wait("the first commit runs", SOON, |status| runs(status, &head)).unwrap();
        fleet
    }

    /// Pushes this pipeline; gives the commit's id.
    pub(crate) fn push(&self, pipeline: impl AsRef<[u8]>, subject: &str) -> String {
        self.repository.push_file("main.alloy", pipeline, subject).unwrap()
    }

    /// Pushes this pipeline and waits until it runs.
    pub(crate) fn push_and_run(&self, pipeline: impl AsRef<[u8]>, subject: &str) -> String {
        let head = self.push(pipeline, subject);
        self.agent.wait(subject, SOON, |status| runs(status, &head)).unwrap();
        head
    }

    /// Kills the agent when the newest scrape is in its log, and before the next: what a process was still reading when it
    /// died it had not accepted.
    pub(crate) fn kill(&mut self) {
        let settled = || {
            let served = self.target.scrapes();
            std::thread::sleep(Duration::from_millis(100));
            let appended = self.appended();
            assert!(appended > 0.0, "there is a log to be killed with");
            (self.target.scrapes() == served).then_some((served, appended))
        };
        let (served, appended) =
            invar_integration::wait_for("a pause between scrapes", SOON, settled).unwrap();
        let accepted = || (self.target.scrapes() > served && self.appended() > appended).then_some(());
        invar_integration::wait_for("the next scrape to be in the log", SOON, accepted).unwrap();
        self.agent.kill();
    }

    /// How many samples the process has appended to its logs, as the logs themselves count them: the metric is brought up to
    /// date once a second only.
    fn appended(&self) -> f64 {
        let components = self.agent.get("/api/v1/components").unwrap();
        let ids = components.as_array().unwrap().iter().filter_map(|component| component["id"].as_str());
        let logs = ids.filter(|id| id.contains("prometheus.remote_write."));
        logs.filter_map(|id| {
            let component = self.agent.get(&format!("/api/v1/components/{id}")).ok()?;
            plain(&component["debug_info"])["samples_appended"].as_f64()
        })
        .sum()
    }

    /// Waits until this commit is the last known good.
    pub(crate) fn committed(&self, commit: &str) -> Value {
        self.agent.wait("it is committed", VERDICT, |status| committed(status, commit)).unwrap()
    }

    /// Waits until the agent says that this commit is not applied, and why.
    pub(crate) fn refused(&self, commit: &str) -> Value {
        let refused = |status: &Value| desires(status, commit) && !status["reason"].is_null();
        self.agent.wait("it is refused", SOON, refused).unwrap()
    }

    /// Waits until what runs is not this commit any more.
    pub(crate) fn undone(&self, commit: &str) -> Value {
        let undone = |status: &Value| {
            !status["running"].is_null() && !runs(status, commit) && quarantined(status, commit)
        };
        self.agent.wait("it is undone and quarantined", VERDICT, undone).unwrap()
    }

    /// The numbers of the target's numbered samples that arrived at an endpoint. Not put together by time: of one
    /// millisecond there may be a sample of one series and the end of another.
    pub(crate) fn numbers(&self, endpoint: &str) -> Vec<u64> {
        let samples = self.receiver.samples_with_duplicates(endpoint, &[("__name__", "numbered_total")]);
        let mut numbers: Vec<u64> =
            samples.into_iter().filter(|value| value.is_finite()).map(|value| value as u64).collect();
        numbers.sort_unstable();
        numbers.dedup();
        numbers
    }

    /// How many scrapes of the target the agent gave up and said so: on a machine that is slow for a moment, the page
    /// was served after the scrape's timeout, and its number was never the agent's to lose.
    fn given_up(&self, endpoints: &[&str]) -> usize {
        let instance = self.target.address();
        let wanted = [("__name__", "up"), ("instance", instance.as_str())];
        let ups =
            endpoints.iter().flat_map(|endpoint| self.receiver.samples_with_duplicates(endpoint, &wanted));
        ups.filter(|up| *up == 0.0).count()
    }

    /// Waits until every number from the first that arrived up to the newest scrape of now has arrived.
    pub(crate) fn nothing_missing(&self, endpoint: &str) {
        self.nothing_missing_at(&[endpoint]);
    }

    /// As [`Self::nothing_missing`], at several endpoints together.
    pub(crate) fn nothing_missing_at(&self, endpoints: &[&str]) {
        let upto = self.target.scrapes();
        let arrived = || {
            let mut numbers: Vec<u64> =
                endpoints.iter().flat_map(|endpoint| self.numbers(endpoint)).collect();
            numbers.sort_unstable();
            numbers.dedup();
            numbers
        };
        let whole = || {
            let numbers = arrived();
            let last = *numbers.last()?;
            (last >= upto && missing(&numbers).len() <= self.given_up(endpoints)).then_some(())
        };
        if let Err(problem) = invar_integration::wait_for("every sample up to now to arrive", SOON, whole) {
            let (numbers, given_up) = (arrived(), self.given_up(endpoints));
            println!("{}", self.agent.log());
            panic!(
                "{problem}; up to {upto}, arrived {}, last {:?}, missing {:?}, {given_up} scrapes given up",
                numbers.len(),
                numbers.last(),
                missing(&numbers),
            );
        }
    }
}

/// The numbers between the first and the last that are not there.
pub(crate) fn missing(numbers: &[u64]) -> Vec<u64> {
    numbers.windows(2).flat_map(|pair| pair[0] + 1..pair[1]).collect()
}

fn names(part: &Value, commit: &str) -> bool {
    part["revision"].as_str().is_some_and(|revision| revision.contains(commit))
}

/// Whether this commit runs.
pub(crate) fn runs(status: &Value, commit: &str) -> bool {
    names(&status["running"], commit)
}

/// Whether the sources say this commit.
pub(crate) fn desires(status: &Value, commit: &str) -> bool {
    names(&status["desired"], commit)
}

/// Whether this commit is the last known good.
pub(crate) fn committed(status: &Value, commit: &str) -> bool {
    names(&status["last_known_good"], commit)
}

/// Whether this commit's content is quarantined.
pub(crate) fn quarantined(status: &Value, commit: &str) -> bool {
    status["quarantined"]
        .as_array()
        .is_some_and(|entries| entries.iter().any(|entry| entry["revisions"].to_string().contains(commit)))
}

/// A scrape of the target that feeds one endpoint of a remote write: the pipeline most tests begin with.
pub(crate) fn scrape_to(receiver: &Receiver, target: &Target, endpoint: &str) -> String {
    format!("{}\n{}", scrape(target, "500ms"), write_to(receiver, endpoint))
}

/// The scraping half.
pub(crate) fn scrape(target: &Target, interval: &str) -> String {
    format!(
        r#"
prometheus.scrape "page" {{
	targets         = [{{__address__ = "{}"}}]
	scrape_interval = "{interval}"
	scrape_timeout  = "{interval}"
	forward_to      = [prometheus.remote_write.out.receiver]
}}
"#,
        target.address()
    )
}

/// The writing half.
pub(crate) fn write_to(receiver: &Receiver, endpoint: &str) -> String {
    format!(
        r#"
prometheus.remote_write "out" {{
	endpoint {{
		url = "{}"

		queue_config {{
			batch_send_deadline = "200ms"
			min_backoff         = "50ms"
			max_backoff         = "500ms"
		}}
	}}
}}
"#,
        receiver.url(endpoint)
    )
}

/// A value of the API without its types.
pub(crate) fn plain(value: &Value) -> Value {
    let Some(of) = value["type"].as_str() else { return value.clone() };
    let inner = &value["value"];
    match (of, inner) {
        ("array", Value::Array(elements)) => elements.iter().map(plain).collect(),
        ("object", Value::Array(fields)) => fields
            .iter()
            .filter_map(|field| Some((field["key"].as_str()?.to_owned(), plain(&field["value"]))))
            .collect(),
        _ => inner.clone(),
    }
}

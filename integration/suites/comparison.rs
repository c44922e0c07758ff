//! What both suites against a real Prometheus share: one server scrapes the targets itself and takes what the agent
//! scraped from the same targets; the label `via` tells the two apart, and everything else has to be equal.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use invar_integration::{Agent, AgentOptions, Instant, Prometheus, Target};
use tempfile::TempDir;

const SOON: Duration = Duration::from_secs(60);

/// A server, an agent, and pages that both scrape.
pub(crate) struct Comparison {
    pub(crate) server: Prometheus,
    pub(crate) agent: Agent,
    _directory: TempDir,
}

/// What differs between the suites.
pub(crate) struct Setup<'a> {
    pub(crate) binary: &'a Path,
    /// Flags of the server.
    pub(crate) flags: &'a [&'a str],
    /// More of the server's scrape configuration, YAML of one job, indented by two.
    pub(crate) scrape_yaml: &'a str,
    /// More arguments of `prometheus.scrape`.
    pub(crate) scrape_arguments: &'a str,
    /// More arguments of the endpoint.
    pub(crate) endpoint_arguments: &'a str,
}

/// The server to test against, or nothing where it is missing and nobody insists.
pub(crate) fn server(found: Option<PathBuf>, what: &str) -> Option<PathBuf> {
    if found.is_none() {
        assert!(
            std::env::var_os("INVAR_REQUIRE_SERVERS").is_none(),
            "{what} is missing: run `make integration`"
        );
        println!("skipped: {what} is missing; `make integration` provides it");
    }
    found
}

impl Comparison {
    pub(crate) fn start(setup: &Setup<'_>, targets: &[&Target]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let addresses: Vec<String> = targets.iter().map(|target| target.address()).collect();
        let configuration = format!(
            "global:\n  scrape_interval: 1s\n  scrape_timeout: 1s\nscrape_configs:\n- job_name: compared\n{}  static_configs:\n  - targets: [{}]\n    labels: {{via: direct}}\n",
            setup.scrape_yaml,
            addresses.iter().map(|address| format!("'{address}'")).collect::<Vec<_>>().join(", ")
        );
        let server = Prometheus::start(setup.binary, directory.path(), &configuration, setup.flags).unwrap();
        let pipeline = format!(
            r#"
prometheus.scrape "compared" {{
	targets         = [{}]
	job_name        = "compared"
	scrape_interval = "1s"
	scrape_timeout  = "1s"
	forward_to      = [prometheus.remote_write.server.receiver]
{}
}}

prometheus.remote_write "server" {{
	endpoint {{
		url = "{}"
{}
		queue_config {{
			batch_send_deadline = "200ms"
		}}
		metadata_config {{
			send_interval = "1s"
		}}
	}}
}}
"#,
            addresses
                .iter()
                .map(|address| format!("{{__address__ = \"{address}\", via = \"invar\"}}"))
                .collect::<Vec<_>>()
                .join(", "),
            setup.scrape_arguments,
            server.write_url(),
            setup.endpoint_arguments,
        );
        let file = directory.path().join("main.alloy");
        std::fs::write(&file, pipeline).unwrap();
        let agent = Agent::start(AgentOptions {
            binary: PathBuf::from(env!("CARGO_BIN_EXE_invar")),
            directory: directory.path().to_path_buf(),
            settings: format!("[[source]]\nname = \"file\"\nfile = {{ path = \"{}\" }}\n", file.display()),
            environment: Vec::new(),
        })
        .unwrap();
        agent.wait("the pipeline runs", SOON, |status| !status["running"].is_null()).unwrap();
        Self { server, agent, _directory: directory }
    }

    /// What is there by one way, without the label that names the way. Durations differ from scrape to scrape.
    pub(crate) fn by(&self, via: &str) -> Instant {
        let series =
            self.server.query(&format!("{{via=\"{via}\", __name__!=\"scrape_duration_seconds\"}}")).unwrap();
        series.into_iter().map(|(labels, value)| (without_via(labels), value)).collect()
    }

    /// Waits until both ways show the same series with the same values.
    pub(crate) fn agree(&self, what: &str, at_least: usize) {
        let agreed = || {
            let (direct, ours) = (self.by("direct"), self.by("invar"));
            (direct.len() >= at_least && direct == ours).then_some(direct.len())
        };
        match invar_integration::wait_for(what, SOON, agreed) {
            Ok(count) => println!("{what}: {count} series agree"),
            Err(problem) => panic!("{problem}\n{}\n{}", self.difference(), self.agent.log()),
        }
    }

    fn difference(&self) -> String {
        let (direct, ours) = (self.by("direct"), self.by("invar"));
        let mut text = format!("direct {}, ours {}\n", direct.len(), ours.len());
        let differing = direct
            .iter()
            .filter(|(labels, value)| ours.get(*labels) != Some(value))
            .map(|(labels, value)| format!("direct {labels:?} = {value}, ours {:?}\n", ours.get(labels)));
        let surplus = ours
            .iter()
            .filter(|(labels, _)| !direct.contains_key(*labels))
            .map(|(labels, value)| format!("only ours {labels:?} = {value}\n"));
        text.extend(differing.chain(surplus).take(20));
        text
    }

    /// Waits until a series is gone by both ways: a stale marker, not the five minutes of the look-back.
    pub(crate) fn gone(&self, name: &str) {
        let gone = || {
            let left = self.server.query(&format!("{{__name__=\"{name}\"}}")).unwrap();
            left.is_empty().then_some(())
        };
        invar_integration::wait_for(&format!("{name} to be stale"), SOON, gone)
            .map_err(|problem| {
                format!("{problem}: {:?}", self.server.query(&format!("{{__name__=\"{name}\"}}")))
            })
            .unwrap();
    }
}

/// Prometheus 3 writes bounds as floats (`1.0`), as the agent does; 2.42 leaves them as the page has them (`1`).
fn without_via(mut labels: BTreeMap<String, String>) -> BTreeMap<String, String> {
    labels.remove("via");
    for bound in ["le", "quantile"] {
        if let Some(value) = labels.get_mut(bound)
            && value.bytes().all(|byte| byte.is_ascii_digit())
        {
            value.push_str(".0");
        }
    }
    labels
}

/// A page with every classic kind of family, odd values, escapes, and labels that clash with the target's.
pub(crate) const SYNTHETIC: &str = r#"# HELP requests_total Requests.
# TYPE requests_total counter
requests_total{code="200",method="get"} 1027
requests_total{code="400",method="post"} 3
# HELP temperature Odd values.
# TYPE temperature gauge
temperature{room="nan"} NaN
temperature{room="inf"} +Inf
temperature{room="minus"} -Inf
temperature{room="small"} 1.5e-9
temperature{room="large"} 1.7976931348623157e+308
temperature{room="esc\\aped \"quote\" and \n newline"} 1
# TYPE clash gauge
clash{job="theirs",instance="theirs",via="theirs"} 5
# HELP latency_seconds A histogram.
# TYPE latency_seconds histogram
latency_seconds_bucket{le="0.1"} 10
latency_seconds_bucket{le="0.5"} 15
latency_seconds_bucket{le="+Inf"} 20
latency_seconds_sum 7.5
latency_seconds_count 20
# TYPE size_bytes summary
size_bytes{quantile="0.5"} 100
size_bytes{quantile="0.99"} 900
size_bytes_sum 12345
size_bytes_count 67
untyped_thing 42
"#;

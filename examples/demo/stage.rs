//! What the story is played on: a folder, a receiver, a repository and an agent, torn down together.

use std::path::PathBuf;

use invar_integration::{Agent, AgentOptions, Outcome, Prometheus, Receiver, Repository};

use super::Arguments;

/// The receiver's endpoint that works, and the one that answers 500.
pub(crate) const GOOD: &str = "good";
pub(crate) const BROKEN: &str = "broken";

/// What differs in the environment of the demo.
pub(crate) const VARIABLES: &str = "environments/demo/variables.toml";

/// Everything the story needs.
pub(crate) struct Stage {
    pub(crate) agent: Agent,
    pub(crate) receiver: Receiver,
    pub(crate) repository: Repository,
    pub(crate) binary: PathBuf,
    prometheus: Option<Prometheus>,
    temporary: Option<PathBuf>,
}

impl Stage {
    pub(crate) fn set(arguments: &Arguments) -> Outcome<Self> {
        let directory = match &arguments.directory {
            Some(directory) => directory.clone(),
            None => std::env::temp_dir().join(format!("invar-demo-{}", std::process::id())),
        };
        std::fs::create_dir_all(&directory).map_err(|error| format!("{}: {error}", directory.display()))?;
        let directory = directory.canonicalize().map_err(|error| error.to_string())?;
        let receiver = Receiver::start()?;
        receiver.answer(BROKEN, Some(500));
        // The story counts samples, which it can do only where it holds them itself.
        let prometheus = match Prometheus::installed() {
            Some(binary) if !arguments.auto && !arguments.builtin_receiver => {
                Some(Prometheus::start(&binary, &directory, "scrape_configs: []\n", &[])?)
            }
            _ => None,
        };
        let good = prometheus.as_ref().map_or_else(|| receiver.url(GOOD), Prometheus::write_url);
        let repository = Repository::create(&directory)?;
        repository.write("base/metrics.alloy", include_str!("../fleet/base/metrics.alloy"))?;
        repository.write("base/variables.toml", include_str!("../fleet/base/variables.toml"))?;
        let environment = include_str!("../fleet/environments/demo/variables.toml");
        repository.write(VARIABLES, environment.replace("http://127.0.0.1:9009/api/v1/write", &good))?;
        repository.push("start the fleet")?;
        let binary = arguments.invar.canonicalize().map_err(|error| {
            format!("{}: {error}; build it with `cargo build`", arguments.invar.display())
        })?;
        // Short intervals, so that nobody waits.
        let settings = format!(
            "[[source]]\nname = \"fleet\"\ngit = {{ url = \"file://{}\", branch = \"main\" }}\n\
             path = [\"base\", \"environments/${{agent.environment}}\"]\ninterval = \"1s\"\n\n\
             [rollout]\nprobation = {{ window = \"12s\" }}\n",
            repository.bare().display(),
        );
        let options = AgentOptions {
            binary: binary.clone(),
            directory: directory.clone(),
            settings,
            environment: Vec::new(),
        };
        let agent = Agent::start(options)?;
        let temporary = arguments.directory.is_none().then_some(directory);
        Ok(Self { agent, receiver, repository, binary, prometheus, temporary })
    }

    /// The page on which a person sees what arrives.
    pub(crate) fn receiver_page(&self) -> String {
        match &self.prometheus {
            Some(prometheus) => format!("http://{}/graph?g0.expr=up", prometheus.address()),
            None => self.receiver.page(),
        }
    }

    pub(crate) fn strike(mut self) {
        self.agent.kill();
        if let Some(directory) = &self.temporary
            && let Err(error) = std::fs::remove_dir_all(directory)
        {
            eprintln!("demo: {} is left behind: {error}", directory.display());
        }
    }
}

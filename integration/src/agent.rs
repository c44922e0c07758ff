//! An agent's process: its settings, its life and death, and what it says of itself over its API.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::Outcome;
use crate::canary::{Canary, Outputs};

/// How an agent is set up.
pub struct AgentOptions {
    /// The binary.
    pub binary: PathBuf,
    /// Folder for `invar.toml`, `state/` and `agent.log`.
    pub directory: PathBuf,
    /// The `[[source]]` tables and whatever else the settings shall say, as TOML. `[agent]`, `[server]` and `[state]`
    /// are written by [`Agent::start`].
    pub settings: String,
    /// Environment variables of the process.
    pub environment: Vec<(String, String)>,
}

/// An agent. When it is dropped, what it said and keeps is searched for the secrets of its test ([`crate::canary`]).
pub struct Agent {
    options: AgentOptions,
    canary: Canary,
    address: String,
    child: Option<Child>,
    http: reqwest::Client,
    runtime: tokio::runtime::Runtime,
}

/// A loopback address with a port that was free a moment ago.
///
/// # Errors
/// No port can be bound.
pub fn free_address() -> Outcome<String> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").map_err(|error| error.to_string())?;
    Ok(listener.local_addr().map_err(|error| error.to_string())?.to_string())
}

impl Agent {
    /// Writes the settings and starts the agent; does not wait for anything.
    ///
    /// # Errors
    /// The settings cannot be written or the binary cannot be started.
    pub fn start(options: AgentOptions) -> Outcome<Self> {
        Self::start_as(options, "demo", "demo")
    }

    /// As [`Self::start`], under a name and in an environment of its own.
    ///
    /// # Errors
    /// The settings cannot be written or the binary cannot be started.
    pub fn start_as(options: AgentOptions, name: &str, environment: &str) -> Outcome<Self> {
        let address = free_address()?;
        let settings = format!(
            "[agent]\nname = \"{name}\"\nenvironment = \"{environment}\"\n\n[server]\nlisten = \"{address}\"\n\n\
             [state]\ndir = \"{}\"\n\n{}",
            options.directory.join("state").display(),
            options.settings,
        );
        let canary = Canary::of_thread();
        canary.add_markers_of(&settings);
        options.environment.iter().for_each(|(_, value)| canary.add_markers_of(value));
        std::fs::write(options.directory.join("invar.toml"), settings).map_err(|error| error.to_string())?;
        // A second installation in one process finds the first one, which is what is wanted.
        drop(rustls::crypto::ring::default_provider().install_default());
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| error.to_string())?;
        // A connection that is kept would be one to a process that has been restarted since.
        let client = reqwest::Client::builder().no_proxy().pool_max_idle_per_host(0);
        let http = client.build().map_err(|error| error.to_string())?;
        let mut agent = Self { options, canary, address, child: None, http, runtime };
        agent.launch()?;
        Ok(agent)
    }

    /// Starts the process; its log goes to `agent.log`.
    ///
    /// # Errors
    /// The binary cannot be started.
    pub fn launch(&mut self) -> Outcome {
        self.launch_with(&[])
    }

    /// Starts the process with more environment variables than it is set up with.
    ///
    /// # Errors
    /// The binary cannot be started.
    pub fn launch_with(&mut self, environment: &[(&str, &str)]) -> Outcome {
        let path = self.log_path();
        let log = File::options().create(true).append(true).open(&path);
        let log = log.map_err(|error| format!("{}: {error}", path.display()))?;
        let binary = &self.options.binary;
        let child = Command::new(binary)
            .arg("run")
            .arg(self.options.directory.join("invar.toml"))
            .envs(self.options.environment.iter().map(|(name, value)| (name, value)))
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .map_err(|error| format!("{}: {error}", binary.display()))?;
        self.child = Some(child);
        Ok(())
    }

    /// `HOST:PORT` of its API.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The file its log goes to.
    #[must_use]
    pub fn log_path(&self) -> PathBuf {
        self.options.directory.join("agent.log")
    }

    /// Its log so far.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// Its state directory.
    #[must_use]
    pub fn state_directory(&self) -> PathBuf {
        self.options.directory.join("state")
    }

    /// The folder it was set up in.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.options.directory
    }

    /// The process id; it stays the same for as long as nothing restarted the agent.
    #[must_use]
    pub fn process(&self) -> u32 {
        self.child.as_ref().map_or(0, Child::id)
    }

    /// `kill -9`, and waits for the end.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // Already gone is as good.
            drop(child.kill());
            drop(child.wait());
        }
    }

    /// SIGTERM, and waits for the end.
    ///
    /// # Errors
    /// It does not end within 40 seconds.
    pub fn terminate(&mut self) -> Outcome<ExitStatus> {
        let id = self.process().to_string();
        drop(Command::new("kill").args(["-TERM", &id]).status());
        self.exit(Duration::from_secs(40))
    }

    /// Waits for the process to end by itself.
    ///
    /// # Errors
    /// It does not end within `limit`; it is killed then.
    pub fn exit(&mut self, limit: Duration) -> Outcome<ExitStatus> {
        let Some(child) = self.child.as_mut() else { return Err("the agent does not run".to_owned()) };
        let start = Instant::now();
        while start.elapsed() < limit {
            if let Ok(Some(status)) = child.try_wait() {
                self.child = None;
                return Ok(status);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        self.kill();
        Err(format!("the agent did not end within {} s", limit.as_secs()))
    }

    /// Whether the process runs.
    pub fn is_running(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// What `GET path` answers, as JSON.
    ///
    /// # Errors
    /// No answer, or not in JSON.
    pub fn get(&self, path: &str) -> Outcome<Value> {
        let (_, text) = self.request(reqwest::Method::GET, path, None)?;
        serde_json::from_str(&text).map_err(|error| format!("{path}: {error}: {text}"))
    }

    /// What `GET path` answers: status code and text.
    ///
    /// # Errors
    /// No answer.
    pub fn text(&self, path: &str) -> Outcome<(u16, String)> {
        self.request(reqwest::Method::GET, path, None)
    }

    /// What `POST path` answers: status code and text.
    ///
    /// # Errors
    /// No answer.
    pub fn post(&self, path: &str, body: &Value) -> Outcome<(u16, String)> {
        self.request(reqwest::Method::POST, path, Some(body.to_string()))
    }

    fn request(&self, method: reqwest::Method, path: &str, body: Option<String>) -> Outcome<(u16, String)> {
        let address = format!("http://{}{path}", self.address);
        self.runtime.block_on(async {
            let mut request = self.http.request(method, &address).timeout(Duration::from_secs(60));
            if let Some(body) = body {
                request = request.header("content-type", "application/json").body(body);
            }
            let answer = request.send().await.map_err(|error| format!("{address}: {error}"))?;
            let status = answer.status().as_u16();
            let text = answer.text().await.map_err(|error| format!("{address}: {error}"))?;
            Ok((status, text))
        })
    }

    /// Runs an `invar` command against this agent.
    ///
    /// # Errors
    /// The binary cannot be started.
    pub fn command(&self, arguments: &[&str]) -> Outcome<Output> {
        Command::new(&self.options.binary)
            .args(arguments)
            .env("INVAR_SERVER", format!("http://{}", self.address))
            .output()
            .map_err(|error| format!("{}: {error}", self.options.binary.display()))
    }

    /// The secrets that it is searched for.
    #[must_use]
    pub fn canary(&self) -> &Canary {
        &self.canary
    }

    /// Looks for the secrets of the test in all that the agent says and keeps; of one that does not run, in its log and
    /// its state.
    ///
    /// # Errors
    /// Where one is, with what stands around it.
    pub fn search(&self) -> Outcome {
        let (log, state) = (self.log_path(), self.state_directory());
        self.canary.search(&self.outputs(&log, &state))
    }

    /// As [`Self::search`], without the state on disk: for what is said in between.
    ///
    /// # Errors
    /// As there.
    pub fn search_what_is_said(&self) -> Outcome {
        let (log, state) = (self.log_path(), self.state_directory());
        self.canary.search_what_is_said(&self.outputs(&log, &state))
    }

    fn outputs<'a>(&'a self, log: &'a Path, state: &'a Path) -> Outputs<'a> {
        Outputs {
            binary: &self.options.binary,
            address: self.child.is_some().then_some(&*self.address),
            process: self.child.as_ref().map(Child::id),
            directory: &self.options.directory,
            log,
            state,
        }
    }

    /// Its status.
    ///
    /// # Errors
    /// No answer.
    pub fn status(&self) -> Outcome<Value> {
        self.get("/api/v1/status")
    }

    /// Waits until the status satisfies `wanted`.
    ///
    /// # Errors
    /// It does not within `limit`; the last status and the end of the log are told.
    pub fn wait(&self, what: &str, limit: Duration, wanted: impl Fn(&Value) -> bool) -> Outcome<Value> {
        let mut last = Err("no answer yet".to_owned());
        crate::wait_for(what, limit, || {
            last = self.status();
            last.as_ref().ok().filter(|status| wanted(status)).cloned()
        })
        .map_err(|problem| {
            let seen = match &last {
                Ok(status) => format!("{status:#}"),
                Err(reason) => reason.clone(),
            };
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            let end = lines[lines.len().saturating_sub(25)..].join("\n");
            format!("{problem}\nlast status: {seen}\nend of the log:\n{end}")
        })
    }

    /// The identity of a component's instance.
    ///
    /// # Errors
    /// There is no such component.
    pub fn instance(&self, component: &str) -> Outcome<String> {
        let answer = self.get(&format!("/api/v1/components/{component}"))?;
        match &answer["instance"] {
            Value::Null => Err(format!("{component} has no instance: {answer:#}")),
            identity => Ok(identity.to_string()),
        }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let found = if std::thread::panicking() { Ok(()) } else { self.search() };
        self.kill();
        if let Err(problem) = found {
            panic!("{problem}");
        }
    }
}

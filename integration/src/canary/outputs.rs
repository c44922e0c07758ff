//! Every place where an agent says or keeps something.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use super::compressed;
use crate::Outcome;

/// How long is listened to a stream of events.
const LISTEN: Duration = Duration::from_millis(300);
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// Commands that run at the same time.
const AT_ONCE: usize = 8;
/// The most that is looked at of one answer.
const LARGEST: usize = 64 << 20;

/// All routes that answer to `GET`. What stands in braces is filled in from what the lists name.
pub(super) const ROUTES: [&str; 21] = [
    "/-/ready",
    "/-/healthy",
    "/-/insync",
    "/metrics",
    "/api/v0/component/{*path}",
    "/api/v0/web/debug/{*id}",
    "/api/v1/status",
    "/api/v1/sources",
    "/api/v1/sources/{*name}",
    "/api/v1/secrets",
    "/api/v1/secrets/{name}",
    "/api/v1/revisions",
    "/api/v1/revisions/{generation}",
    "/api/v1/plan",
    "/api/v1/graph",
    "/api/v1/variables/{name}",
    "/api/v1/components",
    "/api/v1/components/{*id}",
    "/api/v1/events",
    "/api/v1/quarantine",
    "/",
];

/// What its commands print, each also as JSON.
const COMMANDS: [&[&str]; 9] = [
    &["status"],
    &["history", "--all"],
    &["plan"],
    &["quarantine", "list"],
    &["sources"],
    &["secrets"],
    &["components"],
    &["explain", "var"],
    &["doctor"],
];

/// Where an agent says and keeps something.
#[derive(Clone, Copy, Debug)]
pub struct Outputs<'a> {
    /// The binary whose commands are run.
    pub binary: &'a Path,
    /// `HOST:PORT` of its API, as long as it runs.
    pub address: Option<&'a str>,
    /// Its process, as long as it runs.
    pub process: Option<u32>,
    /// The folder with its settings, `invar.toml`.
    pub directory: &'a Path,
    /// The file its log goes to.
    pub log: &'a Path,
    /// Its state directory.
    pub state: &'a Path,
}

type Look<'a> = dyn FnMut(&str, &[u8]) -> Outcome + 'a;

impl Outputs<'_> {
    /// Shows the log, what the API answers, and what commands print.
    pub(super) fn said(&self, look: &mut Look<'_>) -> Outcome {
        look("the log", &std::fs::read(self.log).unwrap_or_default())?;
        let Some(address) = self.address else { return Ok(()) };
        if let Some(process) = self.process {
            let line = std::fs::read(format!("/proc/{process}/cmdline")).unwrap_or_default();
            look("the command line", &line)?;
        }
        let Some(names) = self.api(address, look)? else { return Ok(()) };
        self.commands(address, &names, look)
    }

    /// Shows all files of the state directory, and their names.
    pub(super) fn kept(&self, look: &mut Look<'_>) -> Outcome {
        if self.state.is_dir() { folder(self.state, look) } else { Ok(()) }
    }

    fn api(&self, address: &str, look: &mut Look<'_>) -> Outcome<Option<Names>> {
        // A second installation in one process finds the first one, which is what is wanted.
        drop(rustls::crypto::ring::default_provider().install_default());
        let text = |error: std::io::Error| error.to_string();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(text)?;
        runtime.block_on(async {
            let http = reqwest::Client::builder().no_proxy().pool_max_idle_per_host(0).build();
            let http = http.map_err(|error| error.to_string())?;
            let get = async |path: &str| answer(&http, &format!("http://{address}{path}")).await;
            // Whoever does not listen says nothing.
            let Ok(status) = get("/api/v1/status").await else { return Ok(None) };
            look("/api/v1/status", &status.0)?;
            let list = async |path: &str, member: &str| Ok::<_, String>(listed(&get(path).await?.1, member));
            let names = Names {
                sources: list("/api/v1/sources", "name").await?,
                secrets: list("/api/v1/secrets", "reference").await?,
                components: list("/api/v1/components", "id").await?,
                generations: list("/api/v1/revisions", "generation").await?,
            };
            for path in ROUTES.iter().flat_map(|route| names.paths(route)) {
                let (headers, body) = get(&path).await?;
                look(&path, &headers)?;
                look(&path, &body)?;
            }
            Ok(Some(names))
        })
    }

    fn commands(&self, address: &str, names: &Names, look: &mut Look<'_>) -> Outcome {
        let settings = self.directory.join("invar.toml").display().to_string();
        let mut all: Vec<Vec<&str>> = COMMANDS.iter().map(|command| command.to_vec()).collect();
        all.extend(names.sources.iter().map(|name| vec!["sources", name]));
        for name in &names.secrets {
            all.push(vec!["secrets", name]);
            all.push(vec!["secrets", "test", name]);
        }
        all.push(vec!["validate", &settings]);
        let doctor = all.iter_mut().find(|arguments| arguments[..] == ["doctor"]);
        doctor.into_iter().for_each(|arguments| arguments.push(&settings));
        let all: Vec<_> = all.iter().flat_map(|command| [(command, "text"), (command, "json")]).collect();
        let problem = |error: std::io::Error| format!("{}: {error}", self.binary.display());
        for some in all.chunks(AT_ONCE) {
            let mut running = Vec::new();
            for (arguments, format) in some {
                let child = Command::new(self.binary)
                    .args(*arguments)
                    .args(["-o", format])
                    .env("INVAR_SERVER", format!("http://{address}"))
                    .stdin(Stdio::null())
                    .stdout(Stdio::piped())
                    .stderr(Stdio::piped())
                    .spawn();
                running.push((arguments, child.map_err(problem)?));
            }
            for (arguments, child) in running {
                let output = child.wait_with_output().map_err(problem)?;
                look(&arguments.join(" "), &[output.stdout, output.stderr].concat())?;
            }
        }
        Ok(())
    }
}

/// What the lists of the API name.
struct Names {
    sources: Vec<String>,
    secrets: Vec<String>,
    components: Vec<String>,
    generations: Vec<String>,
}

impl Names {
    /// The paths that a route stands for.
    fn paths(&self, route: &str) -> Vec<String> {
        let Some((before, name)) = route.split_once('{') else { return vec![route.to_owned()] };
        let filled = |names: &[String], after: &str| {
            let escaped = |name: &String| name.replace('/', "%2F").replace('#', "%23");
            names.iter().map(|name| format!("{before}{}{after}", escaped(name))).collect()
        };
        match (before, name.trim_end_matches('}')) {
            ("/api/v1/secrets/", _) => filled(&self.secrets, ""),
            ("/api/v1/sources/", _) => {
                self.sources.iter().map(|name| format!("/api/v1/sources/{name}")).collect()
            }
            (_, "generation") => filled(&self.generations, ""),
            ("/api/v1/variables/", _) => vec!["/api/v1/variables/var".to_owned()],
            ("/api/v0/component/", _) => filled(&self.components, "/metrics"),
            _ => filled(&self.components, ""),
        }
    }
}

/// A member of each object of a list, as text.
fn listed(answer: &[u8], member: &str) -> Vec<String> {
    let list: Value = serde_json::from_slice(answer).unwrap_or_default();
    let values = list.as_array().into_iter().flatten().map(|object| &object[member]);
    let text = |value: &Value| match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    };
    values.filter_map(text).collect()
}

/// Headers and body of an answer; of a stream, what comes of it at first.
async fn answer(http: &reqwest::Client, url: &str) -> Outcome<(Vec<u8>, Vec<u8>)> {
    let problem = |error: reqwest::Error| format!("{url}: {error}");
    let sent = tokio::time::timeout(PATIENCE, http.get(url).send()).await;
    let mut response = sent.map_err(|_| format!("{url}: no answer"))?.map_err(problem)?;
    let (mut headers, mut said) = (Vec::new(), Vec::new());
    for (name, value) in response.headers() {
        headers.extend_from_slice(&[name.as_str().as_bytes(), b": ", value.as_bytes(), b"\n"].concat());
    }
    let endless = ["/events", "/debug/"].iter().any(|part| url.contains(part));
    let patience = if endless { LISTEN } else { PATIENCE };
    while said.len() < LARGEST {
        match tokio::time::timeout(patience, response.chunk()).await {
            Ok(chunk) => match chunk.map_err(problem)? {
                Some(chunk) => said.extend_from_slice(&chunk),
                None => break,
            },
            Err(_) => break,
        }
    }
    Ok((headers, said))
}

fn folder(path: &Path, look: &mut Look<'_>) -> Outcome {
    for entry in std::fs::read_dir(path).map_err(|error| error.to_string())?.flatten() {
        let path = entry.path();
        let name = path.display().to_string();
        look(&format!("the name of {name}"), path.as_os_str().as_encoded_bytes())?;
        let Ok(kind) = entry.file_type() else { continue };
        if kind.is_dir() {
            folder(&path, look)?;
        } else if kind.is_file()
            && let Ok(content) = std::fs::read(&path)
        {
            look(&name, &content)?;
            look(&format!("{name}, decompressed,"), &compressed::contents(&content))?;
        }
    }
    Ok(())
}

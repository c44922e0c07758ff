//! Configurations that a command is given by path or address: read once and composed without an agent, as one would
//! compose them.
//!
//! A repository of a fleet (`base/`, `environments/`) is composed for an environment: the base, what the environment adds
//! and overrides, and for a named host its own folder. [`fleet`] does that; here files get in.

mod fleet;
mod tree;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use invar_engine::{Inputs, ValidateOptions};
use invar_policy::Policy;
use invar_rollout::{
    Composed, ComposedFile, Composition, Origin, SourceContent, SourceState, SourceView, VariableLayers,
};
use invar_sources::AgentAttributes;
use invar_syntax::value::{Object, Value};
use invar_syntax::{Diagnostic, Diagnostics, Span};

pub(crate) use self::fleet::fetch;
use super::imports::{self, Import, Imported, Surroundings};
use super::run::is_address;

/// The name of the one source there is.
pub(crate) const SOURCE: &str = "local";

/// The agent that a configuration is composed and checked for; what is not given is not known.
#[derive(clap::Args, Clone, Debug, Default)]
pub(crate) struct Host {
    /// Environment to compose for: the folder environments/NAME, and `agent.environment`
    #[arg(long, visible_alias = "env", value_name = "NAME")]
    pub(crate) environment: Option<String>,
    /// Name of the agent: the folder hosts/NAME, and `agent.name`
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// Label of the agent, as `agent.labels` has it; may be repeated
    #[arg(long = "label", value_name = "NAME=VALUE", value_parser = label)]
    pub(crate) labels: Vec<(String, String)>,
}

/// Stands for standard input.
const STANDARD_INPUT: &str = "-";

/// One agent, or one of every environment.
#[derive(clap::Args, Clone, Debug, Default)]
pub(crate) struct Hosts {
    #[command(flatten)]
    pub(crate) host: Host,
    /// Compose and check every folder in environments/, each with its pin
    #[arg(long, conflicts_with = "environment")]
    pub(crate) all_environments: bool,
}

/// What a host allows to one of its sources.
#[derive(Clone, Debug)]
pub(crate) struct Ceiling {
    pub(crate) policy: Arc<Policy>,
    pub(crate) source: String,
}

impl Default for Ceiling {
    fn default() -> Self {
        Self { policy: Arc::default(), source: SOURCE.to_owned() }
    }
}

/// A configuration as an agent would compose it.
#[derive(Debug)]
pub(crate) struct Candidate {
    /// The environment it is for, where the configuration knows environments.
    pub(crate) environment: Option<String>,
    /// The files.
    pub(crate) composition: Composition,
    /// What expressions may use beside the variables.
    pub(crate) inputs: Inputs,
    /// What is wrong with what it was composed from.
    pub(crate) faults: Diagnostics,
    /// What it imports.
    pub(crate) imported: Imported,
}

/// A finding, and whom it concerns.
#[derive(Debug)]
pub(crate) struct Finding {
    pub(crate) diagnostic: Diagnostic,
    /// The environments it was found in, in order; empty where only one configuration was checked.
    pub(crate) environments: Vec<String>,
}

fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("a label is given as NAME=VALUE".to_owned()),
    }
}

/// Reads what a path (file, directory) or an address (`git+https://…`) stands for, composes it for the hosts, and follows
/// its imports as far as they can be without a network.
///
/// # Errors
/// It cannot be read, or there is nothing to compose; a sentence for people.
pub(crate) fn read(what: &str, hosts: &Hosts) -> Result<Vec<Candidate>, String> {
    read_under(what, hosts, &Ceiling::default())
}

/// As [`read`], under the ceiling of a host for one of its sources.
///
/// # Errors
/// As [`read`].
pub(crate) fn read_under(what: &str, hosts: &Hosts, ceiling: &Ceiling) -> Result<Vec<Candidate>, String> {
    let mut candidates = compose_all(what, hosts)?;
    let (surroundings, paths) = surroundings(what, hosts)?;
    for candidate in &mut candidates {
        candidate.inputs.policy = Arc::clone(&ceiling.policy);
        for file in &mut candidate.composition.files {
            file.source.clone_from(&ceiling.source);
        }
        let module_path = match &surroundings {
            Surroundings::Host => paths.first().cloned().unwrap_or_default(),
            _ => module_path(candidate, &paths),
        };
        for origin in &mut candidate.composition.origins {
            origin.module_path.clone_from(&module_path);
        }
        candidate.imported = imports::follow(&mut candidate.composition, &candidate.inputs, &surroundings);
    }
    Ok(candidates)
}

/// What a configuration imports from, and the folder that it is, or the folders selected of a repository.
fn surroundings(what: &str, hosts: &Hosts) -> Result<(Surroundings, Vec<String>), String> {
    if is_address(what) {
        let mut settings = invar_sources::parse_address(what).map_err(|error| error.to_string())?;
        let environment = hosts.host.environment.as_deref();
        settings.substitute(&hosts.host.attributes(environment)).map_err(|error| error.to_string())?;
        let paths = settings.path.clone();
        return Ok((Surroundings::address(settings), paths));
    }
    let path = Path::new(what);
    if fleet::is_fleet(path) {
        return Ok((Surroundings::Folder(path.to_path_buf()), Vec::new()));
    }
    let folder = if path.is_dir() { Some(path) } else { path.parent() };
    Ok((Surroundings::Host, folder.map(|folder| folder.display().to_string()).into_iter().collect()))
}

/// Where relative paths of a repository's files begin: the one selected folder, or the root.
fn module_path(candidate: &Candidate, paths: &[String]) -> String {
    let files = &candidate.composition.files;
    let folder = match paths {
        [path] if files.iter().any(|file| file.path == *path) => {
            path.rsplit_once('/').map_or("", |(folder, _)| folder)
        }
        [path] => path.trim_matches('/'),
        [] if candidate.environment.is_none() && files.iter().all(|file| file.path.starts_with("base/")) => {
            "base"
        }
        _ => "",
    };
    if folder.is_empty() { format!("/@{SOURCE}") } else { format!("/@{SOURCE}/{folder}") }
}

fn compose_all(what: &str, hosts: &Hosts) -> Result<Vec<Candidate>, String> {
    if is_address(what) {
        return fleet::of_address(what, hosts);
    }
    let path = Path::new(what);
    if path.is_dir() {
        return fleet::of_folder(path, hosts);
    }
    only_one(what, hosts)?;
    let (shown, content) = if what == STANDARD_INPUT {
        let mut content = Vec::new();
        std::io::stdin().read_to_end(&mut content).map_err(|error| format!("standard input: {error}"))?;
        ("<stdin>", content)
    } else {
        (what, std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?)
    };
    // The name of a pipeline's file, whatever it is called here.
    let name = if shown.ends_with(".alloy") { shown.to_owned() } else { format!("{shown}.alloy") };
    let files = BTreeMap::from([(name.clone(), Bytes::from(content))]);
    compose(files, vec![name.clone()], hosts.host.environment.clone(), &hosts.host, &|path| {
        if path == name { shown.to_owned() } else { path.to_owned() }
    })
    .map(|candidate| vec![candidate])
}

/// As [`read`], for one agent.
///
/// # Errors
/// As [`read`]; also where the environment is needed and was not given.
pub(crate) fn read_for(what: &str, host: &Host) -> Result<Candidate, String> {
    let mut candidates = read(what, &Hosts { host: host.clone(), all_environments: false })?;
    match (candidates.pop(), candidates.is_empty()) {
        (Some(candidate), true) => Ok(candidate),
        _ => Err(format!("{what} has several environments; say which one with --environment")),
    }
}

fn only_one(what: &str, hosts: &Hosts) -> Result<(), String> {
    if hosts.all_environments {
        return Err(format!("{what} is no fleet's repository: there is no folder environments/ in it"));
    }
    Ok(())
}

impl Host {
    fn attributes(&self, environment: Option<&str>) -> AgentAttributes {
        AgentAttributes {
            name: self.name.clone().unwrap_or_default(),
            environment: environment.map(str::to_owned),
            labels: self.labels.iter().cloned().collect(),
        }
    }

    /// What expressions see of the agent: what was given; the rest stays unknown.
    fn inputs(&self, environment: Option<&str>) -> Inputs {
        let mut agent = Object::new();
        for (field, value) in [("name", self.name.as_deref()), ("environment", environment)] {
            if let Some(value) = value {
                agent.insert(field, Value::from(value));
            }
        }
        let labels = self.labels.iter().map(|(name, value)| (name.as_str(), Value::from(value.as_str())));
        agent.insert("labels", Value::object(labels));
        Inputs { agent: agent.into(), off_host: true, ..Inputs::default() }
    }
}

/// Composes files along a path list. `shown` gives the name of a path for people.
fn compose(
    files: BTreeMap<String, Bytes>,
    paths: Vec<String>,
    environment: Option<String>,
    host: &Host,
    shown: &dyn Fn(&str) -> String,
) -> Result<Candidate, String> {
    let content = SourceContent {
        origin: Origin {
            source: SOURCE.to_owned(),
            kind: "file".to_owned(),
            revision: String::new(),
            digest: String::new(),
            author: None,
            subject: None,
            signer: None,
            trust: None,
            module_path: String::new(),
        },
        files: files.into_iter().collect(),
        paths,
    };
    let state = SourceState {
        name: SOURCE.to_owned(),
        kind: "file".to_owned(),
        revision: None,
        checked: None,
        changed: None,
        error: None,
        checks: Default::default(),
        alarm: false,
    };
    let view = SourceView { state, required: true, atomic: true, content: Some(content.into()) };
    let mut composition = match invar_rollout::compose(&[view]) {
        Composed::Candidate(composition) => composition,
        Composed::Missing(_) | Composed::Empty => {
            return Err("there is no file that ends in .alloy".to_owned());
        }
    };
    for file in composition.files.iter_mut().chain(&mut composition.variables.files) {
        file.name = shown(&file.path);
    }
    for name in &mut composition.variables.searched {
        *name = shown(name);
    }
    let inputs = host.inputs(environment.as_deref());
    let imported = Imported::default();
    Ok(Candidate { environment, composition, inputs, faults: Diagnostics::new(), imported })
}

/// Everything that can be said about texts that an editor holds, composed with the variables of these folders; nothing is
/// known of the agent that will run them.
pub(crate) fn check_texts(texts: Vec<(String, Vec<u8>)>, layers: &[PathBuf]) -> Diagnostics {
    let file = |name: String, content: Vec<u8>| ComposedFile {
        source: "local".to_owned(),
        path: name.clone(),
        name,
        content: Bytes::from(content),
    };
    let variables: Vec<PathBuf> =
        layers.iter().map(|layer| layer.join(invar_rollout::VARIABLES_FILE)).collect();
    let searched = variables.iter().map(|path| path.display().to_string()).collect();
    let variables = variables.into_iter().filter_map(|path| {
        // A folder without variables is a normal one; so is one that an editor just made up.
        let content = std::fs::read(&path).ok()?;
        Some(file(path.display().to_string(), content))
    });
    let folder = texts.first().and_then(|(name, _)| Path::new(name).parent());
    let mut inputs = Host::default().inputs(None);
    inputs.module_path = folder.map(|folder| folder.display().to_string()).unwrap_or_default();
    let composition = Composition {
        origins: Vec::new(),
        files: texts.into_iter().map(|(name, content)| file(name, content)).collect(),
        modules: Vec::new(),
        variables: VariableLayers { files: variables.collect(), searched },
    };
    let (faults, imported) = (Diagnostics::new(), Imported::default());
    let mut candidate = Candidate { environment: None, composition, inputs, faults, imported };
    candidate.imported = imports::follow(&mut candidate.composition, &candidate.inputs, &Surroundings::Host);
    candidate.check(&crate::registry::components(), ValidateOptions::default())
}

/// Everything that can be said about the candidates without running them; what several have in common is said once.
pub(crate) fn check(
    candidates: &[Candidate],
    registry: &invar_engine::Registry,
    options: ValidateOptions,
) -> Vec<Finding> {
    let mut findings: Vec<Finding> = Vec::new();
    // Where those with one place and message are.
    let mut known: HashMap<_, Vec<usize>> = HashMap::new();
    for candidate in candidates {
        let mut diagnostics = candidate.faults.clone();
        diagnostics.extend(candidate.check(registry, options));
        let environment = candidate.environment.as_ref().filter(|_| candidates.len() > 1);
        for diagnostic in diagnostics {
            let alike = known.entry(place_and_message(&diagnostic)).or_default();
            match alike.iter().find(|&&index| findings[index].diagnostic == diagnostic) {
                Some(&index) => {
                    let environments = &mut findings[index].environments;
                    if environments.last() != environment {
                        environments.extend(environment.cloned());
                    }
                }
                None => {
                    alike.push(findings.len());
                    findings.push(Finding {
                        diagnostic,
                        environments: environment.cloned().into_iter().collect(),
                    });
                }
            }
        }
    }
    findings
}

/// What few different diagnostics have in common.
fn place_and_message(diagnostic: &Diagnostic) -> (Option<(Arc<str>, Span)>, String) {
    let place = diagnostic.primary().map(|label| (Arc::clone(&label.source.name), label.span));
    (place, diagnostic.message.clone())
}

/// How many different files the candidates have.
pub(crate) fn count_files(candidates: &[Candidate]) -> usize {
    let files = candidates.iter().flat_map(|candidate| {
        candidate.composition.files.iter().chain(&candidate.composition.variables.files)
    });
    let modules = candidates.iter().flat_map(|candidate| &candidate.composition.modules);
    let modules = modules.flat_map(|module| &module.files).map(|(name, _)| name.as_str());
    files.map(|file| file.name.as_str()).chain(modules).collect::<std::collections::BTreeSet<_>>().len()
}

/// What the candidates import; what several have in common once.
pub(crate) fn imports(candidates: &[Candidate]) -> Vec<Import> {
    let mut imports: Vec<Import> = Vec::new();
    for import in candidates.iter().flat_map(|candidate| &candidate.imported.imports) {
        if !imports.contains(import) {
            imports.push(import.clone());
        }
    }
    imports
}

impl Candidate {
    fn check(&self, registry: &invar_engine::Registry, options: ValidateOptions) -> Diagnostics {
        let (_, mut diagnostics) = invar_rollout::read_variables(&self.composition.variables);
        let modules = self.imported.modules.clone();
        match invar_rollout::configuration_with(&self.composition, self.inputs.clone(), modules) {
            Ok(configuration) => {
                diagnostics.extend(invar_engine::validate_with(registry, &configuration, options));
            }
            // Those of the variables are there already.
            Err(more) => {
                let known: HashSet<_> = diagnostics.iter().map(place_and_message).collect();
                diagnostics
                    .extend(more.into_iter().filter(|found| !known.contains(&place_and_message(found))));
            }
        }
        diagnostics
    }
}

impl Finding {
    /// The finding with the environments in its message.
    pub(crate) fn in_words(&self) -> Diagnostic {
        let mut diagnostic = self.diagnostic.clone();
        if !self.environments.is_empty() {
            let word = if self.environments.len() == 1 { "environment" } else { "environments" };
            diagnostic.message = format!("{} ({word} {})", diagnostic.message, self.environments.join(", "));
        }
        diagnostic
    }
}

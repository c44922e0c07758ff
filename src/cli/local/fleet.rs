//! A fleet's repository, from a folder or through Git: which environments there are, what each is composed of, and the
//! commit its base is pinned to.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use invar_secrets::SecretStores;
use invar_sources::{
    PINNED_FOLDERS, Pin, Poll, PollContext, Snapshot, SourceEnvironment, SourceSettings, is_pinned, pin_path,
};
use invar_syntax::{Diagnostic, Source, Span, nearest};
use tokio_util::sync::CancellationToken;

use super::tree::Walk;
use super::{Candidate, Host, Hosts, compose, only_one};
use crate::cli::client::block_on_plain;

/// How long reading may take: a first clone may be large.
const DEADLINE: Duration = Duration::from_secs(300);

/// Folders of a fleet's repository; others are none of the configuration's business.
const FOLDERS: [&str; 4] = ["base", "environments", "hosts", "modules"];

/// The code of pins that cannot be followed.
const PIN: &str = "E306";

type Tree = BTreeMap<String, Bytes>;

/// Gives the pinned folders as they are at a commit, or says why not, and what to do about it.
type AtCommit<'a> = dyn FnMut(&str) -> Result<Tree, (String, Option<String>)> + 'a;

/// Whether a folder is a fleet's repository.
pub(super) fn is_fleet(folder: &Path) -> bool {
    ["base", "environments"].iter().any(|name| folder.join(name).is_dir())
}

/// What is in a folder of this host.
pub(super) fn of_folder(folder: &Path, hosts: &Hosts) -> Result<Vec<Candidate>, String> {
    let is_fleet = is_fleet(folder);
    let shown = |path: &str| name_in(folder, path);
    let mut walk = Walk::new();
    if !is_fleet {
        only_one(&folder.display().to_string(), hosts)?;
        walk.read(folder, "", false, 0)?;
        let environment = hosts.host.environment.clone();
        return compose(walk.files, Vec::new(), environment, &hosts.host, &shown)
            .map(|candidate| vec![candidate])
            .map_err(|problem| format!("{}: {problem} in this folder", folder.display()));
    }
    for name in FOLDERS {
        let below = folder.join(name);
        if below.is_dir() {
            walk.read(&below, name, true, 0)?;
        }
    }
    let mut at_commit = |commit: &str| {
        invar_sources::read_commit(folder, commit, &PINNED_FOLDERS)
            .map_err(|error| (error.message, error.help))
    };
    of_tree(&folder.display().to_string(), &walk.files, hosts, &shown, &mut at_commit)
}

/// A path in a folder as people would type it from here.
fn name_in(folder: &Path, path: &str) -> String {
    let folder = folder.strip_prefix(".").unwrap_or(folder);
    folder.join(path).display().to_string()
}

/// What is behind an address.
pub(super) fn of_address(address: &str, hosts: &Hosts) -> Result<Vec<Candidate>, String> {
    let mut settings = invar_sources::parse_address(address).map_err(|error| error.to_string())?;
    let shown = |path: &str| path.to_owned();
    if !settings.path.is_empty() {
        if hosts.all_environments {
            return Err("with --all-environments the address names no folders: leave `path` out".to_owned());
        }
        let environment = hosts.host.environment.as_deref();
        settings.substitute(&hosts.host.attributes(environment)).map_err(|error| error.to_string())?;
    }
    let snapshot = fetch(settings.clone())?;
    let files: Tree = snapshot.files.clone().into_iter().collect();
    let is_fleet = settings.path.is_empty()
        && files.keys().any(|path| path.starts_with("base/") || path.starts_with("environments/"));
    let mut at_commit = |commit: &str| at_commit(&settings, commit).map_err(|problem| (problem, None));
    let shown_address = invar_sources::redact(address);
    if is_fleet {
        return of_tree(&shown_address, &files, hosts, &shown, &mut at_commit);
    }
    only_one(&shown_address, hosts)?;
    let mut pins = Pins { at_commit: &mut at_commit, known: BTreeMap::new() };
    let environment = hosts.host.environment.clone();
    pins.compose(&files, snapshot.paths, environment, &hosts.host, &shown).map(|candidate| vec![candidate])
}

/// What is in the tree of a fleet's repository.
fn of_tree(
    what: &str,
    files: &Tree,
    hosts: &Hosts,
    shown: &dyn Fn(&str) -> String,
    at_commit: &mut AtCommit<'_>,
) -> Result<Vec<Candidate>, String> {
    let known: BTreeSet<&str> = files
        .keys()
        .filter_map(|path| path.strip_prefix("environments/")?.split_once('/'))
        .map(|(name, _)| name)
        .collect();
    let chosen: Vec<Option<String>> = match &hosts.host.environment {
        Some(environment) if known.contains(environment.as_str()) => vec![Some(environment.clone())],
        Some(environment) => {
            let near = nearest(environment, known.iter().copied());
            let there = match near {
                Some(near) => format!("did you mean {near}?"),
                None if known.is_empty() => "there is no folder environments/".to_owned(),
                None => format!("there are {}", known.iter().copied().collect::<Vec<_>>().join(", ")),
            };
            return Err(format!("{what} has no environments/{environment}; {there}"));
        }
        None if known.is_empty() => {
            only_one(what, hosts)?;
            vec![None]
        }
        None => known.iter().map(|name| Some((*name).to_owned())).collect(),
    };
    let mut pins = Pins { at_commit, known: BTreeMap::new() };
    let mut candidates = Vec::with_capacity(chosen.len());
    for environment in chosen {
        let mut paths = vec!["base".to_owned()];
        paths.extend(environment.iter().map(|name| format!("environments/{name}")));
        paths.extend(hosts.host.name.iter().map(|name| format!("hosts/{name}")));
        let candidate =
            pins.compose(files, paths, environment.clone(), &hosts.host, shown).map_err(|problem| {
                match &environment {
                    Some(environment) => format!("{what}, environment {environment}: {problem}"),
                    None => format!("{what}: {problem}"),
                }
            })?;
        candidates.push(candidate);
    }
    Ok(candidates)
}

/// Pinned folders, each commit read once.
struct Pins<'a, 'b> {
    at_commit: &'a mut AtCommit<'b>,
    known: BTreeMap<String, Result<Tree, (String, Option<String>)>>,
}

impl Pins<'_, '_> {
    /// Composes along `paths`, with what a pin of the environment says taken from its commit.
    fn compose(
        &mut self,
        files: &Tree,
        paths: Vec<String>,
        environment: Option<String>,
        host: &Host,
        shown: &dyn Fn(&str) -> String,
    ) -> Result<Candidate, String> {
        let selected = |path: &str| {
            paths.iter().any(|folder| {
                path.strip_prefix(folder.as_str())
                    .is_some_and(|rest| rest.starts_with('/') || folder.is_empty())
            })
        };
        let pin = pin_path(&paths).and_then(|path| files.get_key_value(&path));
        let mut chosen: Tree = files
            .iter()
            .filter(|(path, _)| selected(path))
            .map(|(path, content)| (path.clone(), content.clone()))
            .collect();
        let Some((pin_path, content)) = pin else { return compose(chosen, paths, environment, host, shown) };
        match self.follow(&shown(pin_path), content) {
            Ok((commit, pinned)) => {
                chosen.retain(|path, _| !is_pinned(path));
                chosen.extend(pinned.into_iter().filter(|(path, _)| selected(path)));
                // Another text than the one at hand: the name says so.
                let shown = |path: &str| match is_pinned(path) {
                    true => format!("{}@{commit:.12}", shown(path)),
                    false => shown(path),
                };
                compose(chosen, paths, environment, host, &shown)
            }
            Err(fault) => {
                let mut candidate = compose(chosen, paths, environment, host, shown)?;
                candidate.faults.push(*fault);
                Ok(candidate)
            }
        }
    }

    fn follow(&mut self, name: &str, content: &[u8]) -> Result<(String, Tree), Box<Diagnostic>> {
        let text = String::from_utf8_lossy(content);
        let source = Arc::new(Source::new(name, &*text));
        let offset = |offset: usize| u32::try_from(offset).unwrap_or(u32::MAX);
        let pin = Pin::parse(content).map_err(|error| {
            let span = Span::new(offset(error.span.start), offset(error.span.end));
            Box::new(Diagnostic::error(PIN, error.message).with_label(&source, span, ""))
        })?;
        let at_commit = &mut *self.at_commit;
        let read = self.known.entry(pin.commit.clone()).or_insert_with(|| at_commit(&pin.commit));
        read.clone().map(|tree| (pin.commit.clone(), tree)).map_err(|(message, help)| {
            let at = text.to_lowercase().find(&pin.commit).unwrap_or_default();
            let span = Span::new(offset(at), offset(at + pin.commit.len()));
            let diagnostic = Diagnostic::error(PIN, format!("the pin cannot be followed: {message}"))
                .with_label(&source, span, "");
            Box::new(match help {
                Some(help) => diagnostic.with_help(help),
                None => diagnostic,
            })
        })
    }
}

/// The pinned folders at a commit of the repository that the settings name.
fn at_commit(settings: &SourceSettings, commit: &str) -> Result<Tree, String> {
    let mut settings = settings.clone();
    settings.path = PINNED_FOLDERS.map(str::to_owned).into();
    if let Some(git) = &mut settings.git {
        git.commit = Some(commit.to_owned());
        git.branch = git.branch.take().or_else(|| git.reference.take());
        git.tag = None;
        git.semver = None;
        git.reference = None;
    }
    fetch(settings).map(|snapshot| snapshot.files.into_iter().collect())
}

/// Reads a source once.
pub(crate) fn fetch(mut settings: SourceSettings) -> Result<Snapshot, String> {
    crate::tls::install_provider();
    invar_sources::normalize(std::slice::from_mut(&mut settings))
        .map_err(|errors| errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))?;
    let scratch = std::env::temp_dir().join(format!("invar-fetch-{}", std::process::id()));
    let environment = SourceEnvironment { state_directory: scratch.clone(), secrets: SecretStores::local() };
    let fetched = block_on_plain(async {
        let source = invar_sources::open(&settings, &environment).map_err(|error| error.to_string())?;
        let context = PollContext {
            deadline: tokio::time::Instant::now() + DEADLINE,
            cancellation: CancellationToken::new(),
            now: SystemTime::now(),
        };
        match source.poll(None, &context).await {
            Ok(Poll::Changed(snapshot)) => Ok(*snapshot),
            Ok(Poll::Unchanged) => {
                Err("the source says that nothing changed, and nothing was there".to_owned())
            }
            Err(error) => Err(match &error.help {
                Some(help) => format!("{error}\n  help: {help}"),
                None => error.to_string(),
            }),
        }
    });
    // A clone made for one look; one that cannot be removed is only rubbish.
    drop(std::fs::remove_dir_all(&scratch));
    fetched?
}

//! `discovery.file`: targets from files in the format of Prometheus's file-based service discovery. A file that is broken
//! keeps the groups it had; a file that is gone takes its groups with it.

mod groups;
mod pattern;
#[cfg(test)]
mod tests;
mod yaml;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use invar_blocks::file_watch::directory_of;
use invar_blocks::{FileWatch, Target, targets_equal};
use invar_engine::{
    Check, Component, ExportContext, Health, InstanceContext, PrepareError, RunContext, RunError,
    StateContext,
};
use invar_policy::Access;
use invar_syntax::arguments::Arguments;
use invar_syntax::schema::Stability;
use parking_lot::Mutex;
use tokio::time::Instant;

use self::pattern::Pattern;
use crate::TargetsExports;

/// Discovery components publish at most once in this time; the first publication is immediate.
const PUBLICATION_INTERVAL: Duration = Duration::from_secs(5);
/// How long looking at all files may take (they may lie on a network file system).
const SCAN_TIMEOUT: Duration = Duration::from_secs(60);
/// Looking more often than this only burns CPU.
const MIN_REFRESH: Duration = Duration::from_millis(100);

/// The component type.
#[derive(Debug)]
pub struct DiscoveryFile;

/// What the block says.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct DiscoveryFileArguments {
    /// Files with target groups, JSON or YAML by their extension; the last element of each path may be a pattern.
    #[argument(required, names = "file")]
    pub files: Vec<String>,
    /// How often all files are read in any case.
    #[argument(default = "\"5m\"")]
    pub refresh_interval: Duration,
}

/// The targets of each file as they were last read; outlives configurations.
#[derive(Debug, Default)]
pub struct Instance {
    files: Mutex<BTreeMap<PathBuf, Vec<Target>>>,
}

/// Which files to read, and what they held when the configuration was prepared.
#[derive(Debug)]
pub struct State {
    patterns: Arc<[Pattern]>,
    access: Access,
    refresh_interval: Duration,
    targets: Vec<Target>,
}

/// What a look at the files found.
#[derive(Debug, Default)]
struct Scan {
    files: BTreeMap<PathBuf, Vec<Target>>,
    /// In the order of the patterns, each file once.
    order: Vec<PathBuf>,
    problems: Vec<String>,
}

impl Component for DiscoveryFile {
    const NAME: &'static str = "discovery.file";
    const STABILITY: Stability = Stability::GenerallyAvailable;
    const SUMMARY: &'static str = "Reads targets from JSON and YAML files and follows their changes.";

    type Arguments = DiscoveryFileArguments;
    type Exports = TargetsExports;
    type Instance = Instance;
    type State = State;

    fn check(arguments: &Self::Arguments, check: &mut Check) {
        if arguments.files.is_empty() {
            check.error("files", "must name at least one file");
        }
        for file in &arguments.files {
            if let Err(message) = Pattern::parse(file) {
                check.error("files", message);
            }
        }
        if arguments.refresh_interval.is_zero() {
            check.error("refresh_interval", "must be greater than 0");
        }
    }

    fn instance(_arguments: &Self::Arguments, _context: &InstanceContext) -> Result<Instance, PrepareError> {
        Ok(Instance::default())
    }

    async fn state(
        arguments: Arc<Self::Arguments>,
        instance: Arc<Instance>,
        context: StateContext,
    ) -> Result<State, PrepareError> {
        let patterns: Result<Vec<Pattern>, String> =
            arguments.files.iter().map(|file| Pattern::parse(file)).collect();
        let patterns: Arc<[Pattern]> = patterns.map_err(PrepareError::invalid)?.into();
        let known = instance.files.lock().clone();
        let access = context.access().clone();
        let scan = scan(Arc::clone(&patterns), known, access.clone()).await;
        Ok(State {
            patterns,
            access,
            refresh_interval: arguments.refresh_interval.max(MIN_REFRESH),
            targets: scan.targets(),
        })
    }

    fn exports(_instance: &Instance, state: &State, _context: &ExportContext) -> TargetsExports {
        TargetsExports { targets: state.targets.clone() }
    }

    async fn run(instance: Arc<Instance>, context: RunContext<Self>) -> Result<(), RunError> {
        let mut published: Option<Instant> = None;
        loop {
            let state = Arc::clone(context.enter().state());
            tokio::select! {
                () = context.stopped() => return Ok(()),
                () = context.changed() => {}
                () = follow(&instance, &state, &context, &mut published) => {}
            }
        }
    }
}

/// Keeps the exports equal to what the files hold until it is dropped.
async fn follow(
    instance: &Instance,
    state: &State,
    context: &RunContext<DiscoveryFile>,
    published: &mut Option<Instant>,
) {
    // What the preparation read is exported already.
    let mut exported = state.targets.clone();
    loop {
        let watch = FileWatch::directories(
            state.patterns.iter().map(|pattern| directory_of(&pattern.path).to_owned()),
        );
        let refresh = tokio::time::sleep(state.refresh_interval);
        tokio::pin!(refresh);
        loop {
            let known = instance.files.lock().clone();
            let scan = scan(Arc::clone(&state.patterns), known, state.access.clone()).await;
            let targets = scan.targets();
            context.set_health(scan.health(watch.problem()));
            *instance.files.lock() = scan.files;
            if !targets_equal(&targets, &exported) {
                if let Some(last) = *published {
                    // What changes meanwhile is read together with this.
                    let due = last + PUBLICATION_INTERVAL;
                    if Instant::now() < due {
                        tokio::time::sleep_until(due).await;
                        continue;
                    }
                }
                context.set_exports(&TargetsExports { targets: targets.clone() });
                *published = Some(Instant::now());
                exported = targets;
            }
            tokio::select! {
                () = watch.changed() => {}
                () = &mut refresh => break,
            }
        }
    }
}

/// Reads all files, keeping of `known` what is there but cannot be read now.
async fn scan(patterns: Arc<[Pattern]>, known: BTreeMap<PathBuf, Vec<Target>>, access: Access) -> Scan {
    let kept = known.clone();
    let scanning = tokio::task::spawn_blocking(move || Scan::of(&patterns, known, &access));
    match tokio::time::timeout(SCAN_TIMEOUT, scanning).await {
        Ok(Ok(scan)) => scan,
        Ok(Err(error)) => Scan::kept(kept, format!("reading the files failed: {error}")),
        Err(_) => {
            Scan::kept(kept, format!("reading the files took longer than {} s", SCAN_TIMEOUT.as_secs()))
        }
    }
}

// === impl Scan ===

impl Scan {
    fn of(patterns: &[Pattern], mut known: BTreeMap<PathBuf, Vec<Target>>, access: &Access) -> Self {
        let mut scan = Self::default();
        for pattern in patterns {
            let paths = match pattern.expand(access) {
                Ok(paths) => paths,
                Err(error) => {
                    // What its files held stays until they can be seen to be gone.
                    scan.problems.push(format!("{}: {error}", directory_of(&pattern.path).display()));
                    known.keys().filter(|path| pattern.matches(path)).cloned().collect()
                }
            };
            for path in paths {
                if scan.files.contains_key(&path) {
                    continue;
                }
                let targets = match groups::read(&path, access) {
                    Ok(Some(targets)) => targets,
                    Ok(None) => continue,
                    Err(error) => {
                        scan.problems.push(format!("{}: {error}", path.display()));
                        match known.remove(&path) {
                            Some(targets) => targets,
                            None => continue,
                        }
                    }
                };
                scan.order.push(path.clone());
                scan.files.insert(path, targets);
            }
        }
        scan
    }

    fn kept(files: BTreeMap<PathBuf, Vec<Target>>, problem: String) -> Self {
        Self { order: files.keys().cloned().collect(), files, problems: vec![problem] }
    }

    fn targets(&self) -> Vec<Target> {
        self.order.iter().filter_map(|path| self.files.get(path)).flatten().cloned().collect()
    }

    fn health(&self, unwatched: Option<&str>) -> Health {
        if !self.problems.is_empty() {
            return Health::unhealthy(self.problems.join("; "));
        }
        match unwatched {
            None => Health::healthy(format!("{} files read", self.order.len())),
            Some(why) => Health::healthy(format!(
                "{} files read; changes are only polled for: {why}",
                self.order.len()
            )),
        }
    }
}

//! `prometheus.scrape`: fetches the pages of targets at an interval and forwards what they say as samples.
//!
//! The instance has one task per target ([`target_task`]), which a [`pool`] keeps in step with the running configuration. Each reads
//! pages ([`page`]) with the memory of those before, so that a steady target costs a comparison per line and its batches share one list
//! of series.

mod arguments;
mod error;
mod fetch;
mod metadata;
mod meters;
mod page;
mod page_body;
mod pool;
mod report;
mod schedule;
mod settings;
mod status;
mod target;
mod target_task;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::hash::{BuildHasher, Hash, Hasher};
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use foldhash::fast::FixedState;
use invar_engine::{
    Check, Component, ExportContext, InstanceContext, PrepareError, RunContext, RunError, StateContext,
    Transition, VitalGroup,
};
use invar_syntax::schema::Stability;
use invar_syntax::value::Value;
use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::sync::Notify;

pub use self::arguments::{ClusteringBlock, ScrapeArguments};
use self::meters::Meters;
use self::page_body::PageBuffers;
use self::pool::Pool;
use self::settings::ScrapeSettings;
use self::status::StatusBoard;
use self::target::ResolvedTargets;
use self::target_task::Assignment;
use crate::InProcessAddress;
use crate::meters::Registration;

/// The component type.
#[derive(Debug)]
pub struct Scrape;

/// What outlives configurations, besides the tasks themselves.
#[derive(Debug)]
pub struct Instance {
    node: String,
    /// The address that is reached within the process.
    in_process: Option<String>,
    registry: Option<Arc<prometheus::Registry>>,
    meters: Meters,
    board: Mutex<StatusBoard>,
    /// Wakes the pool when a target went up or down.
    turned: Notify,
    buffers: Arc<PageBuffers>,
    /// Whether the component left the configuration for good.
    retired: AtomicBool,
}

/// The targets and how they are scraped.
#[derive(Debug)]
pub struct State {
    settings: Arc<ScrapeSettings>,
    resolved: ResolvedTargets,
    /// The default of the label `job`.
    job: String,
    groups: Vec<VitalGroup>,
}

impl Component for Scrape {
    const NAME: &'static str = "prometheus.scrape";
    const STABILITY: Stability = Stability::GenerallyAvailable;
    const SUMMARY: &'static str = "Fetches metrics from targets over HTTP at an interval and passes them on.";

    type Arguments = ScrapeArguments;
    type Exports = ();
    type Instance = Instance;
    type State = State;

    fn check(arguments: &ScrapeArguments, check: &mut Check) {
        arguments.check(check);
    }

    fn instance(_arguments: &ScrapeArguments, context: &InstanceContext) -> Result<Instance, PrepareError> {
        let services = context.services();
        Ok(Instance {
            node: context.node().to_string(),
            in_process: services.get::<InProcessAddress>().map(|address| address.0.clone()),
            registry: services.get(),
            meters: Meters::new(context.node().as_str()),
            board: Mutex::default(),
            turned: Notify::new(),
            buffers: PageBuffers::new(context.resources())?,
            retired: AtomicBool::new(false),
        })
    }

    async fn state(
        arguments: Arc<ScrapeArguments>,
        instance: Arc<Instance>,
        context: StateContext,
    ) -> Result<State, PrepareError> {
        let previous = context.previous::<Self>();
        let previous = previous.as_deref();
        let settings =
            ScrapeSettings::new(&arguments, previous.map(|state| &state.settings), context.access()).await?;
        let job =
            if arguments.job_name.is_empty() { instance.node.clone() } else { arguments.job_name.clone() };
        let known = previous
            .filter(|state| Arc::ptr_eq(&state.settings, &settings) && state.job == job)
            .map(|state| &state.resolved);
        let resolved = ResolvedTargets::new(&arguments, &job, known);
        let groups = groups(&settings, &resolved);
        Ok(State { settings, resolved, job, groups })
    }

    fn exports(_instance: &Instance, _state: &State, _context: &ExportContext) {}

    async fn run(instance: Arc<Instance>, context: RunContext<Self>) -> Result<(), RunError> {
        let _registration = Registration::new(instance.registry.clone(), instance.meters.collectors());
        Pool::new(context, Arc::clone(&instance)).run().await;
        Ok(())
    }

    fn transition(instance: &Arc<Instance>, transition: Transition<'_, Self>) {
        if matches!(transition, Transition::Retired) {
            instance.retired.store(true, Ordering::Relaxed);
        }
    }

    fn vital_groups(state: &State) -> Vec<VitalGroup> {
        state.groups.clone()
    }

    fn debug_info(instance: &Instance) -> Value {
        instance.board.lock().to_value()
    }
}

/// One group per job. A group changes with its targets and with the settings, which equal states share.
fn groups(settings: &Arc<ScrapeSettings>, resolved: &ResolvedTargets) -> Vec<VitalGroup> {
    let mut jobs: BTreeMap<&str, Vec<(u64, Duration, Duration)>> = BTreeMap::new();
    for target in &resolved.targets {
        jobs.entry(target.job()).or_default().push((target.key, target.interval, target.timeout));
    }
    let groups = jobs.into_iter().map(|(job, mut targets)| {
        targets.sort_unstable();
        let mut hasher = FixedState::default().build_hasher();
        // Not their text, which does not show secrets.
        Arc::as_ptr(settings).hash(&mut hasher);
        targets.hash(&mut hasher);
        VitalGroup { key: job.to_owned(), fingerprint: hasher.finish() }
    });
    groups.collect()
}

// === impl Instance ===

impl Instance {
    fn is_retired(&self) -> bool {
        self.retired.load(Ordering::Relaxed)
    }

    /// Logs a failed scrape, and writes it to the file for failures where there is one.
    fn log_failure(&self, assignment: &Assignment, error: &str) {
        let url = &assignment.target.url;
        tracing::debug!(node = self.node, %url, error, "scrape failed");
        let path = &assignment.settings.arguments.scrape_failure_log_file;
        if path.is_empty() {
            return;
        }
        let line = serde_json::json!({
            "time": Timestamp::now().to_string(),
            "level": "ERROR",
            "msg": error,
            "job_name": assignment.target.job(),
            "target": url.as_str(),
            "component_id": self.node,
        });
        let (path, access) = (path.clone(), assignment.settings.access.clone());
        // Not waited for: a file that cannot be written must not hold up a scrape.
        drop(tokio::task::spawn_blocking(move || {
            let file = access.open_with(Path::new(&path), OpenOptions::new().create(true).append(true));
            if let Err(error) = file.and_then(|mut file| writeln!(file, "{line}")) {
                tracing::warn!(path, %error, "a failed scrape cannot be written to its file");
            }
        }));
    }
}

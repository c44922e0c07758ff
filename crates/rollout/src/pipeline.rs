//! What the reconciler needs of the thing that runs configurations. The engine implements it;
//! tests script it. Nothing here names a component.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::sync::Arc;

use invar_engine::modules::{ImportRequest, ModuleKey};
use invar_secrets::SecretState;
use serde::{Deserialize, Serialize};

use crate::compose::Composition;
use crate::probation::Vitals;

/// Why a candidate could not go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Whether trying the same content again can help.
    pub class: FailureClass,
    /// The cause, all of it.
    pub message: String,
    /// What to do next.
    pub help: Option<String>,
    /// File of the first fault.
    pub file: Option<String>,
    /// Line in that file, from 1.
    pub line: Option<u32>,
}

impl Failure {
    /// A fault of the content: trying it again without a change is pointless.
    #[must_use]
    pub fn content(message: impl Into<String>) -> Self {
        Self { class: FailureClass::Content, message: message.into(), help: None, file: None, line: None }
    }

    /// A fault of the world (port taken, permission, secret unavailable): retried with back-off.
    #[must_use]
    pub fn environment(message: impl Into<String>) -> Self {
        Self { class: FailureClass::Environment, message: message.into(), help: None, file: None, line: None }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// Whether trying the same content again can help.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureClass {
    /// The content is at fault.
    Content,
    /// The world is at fault: fetch, secrets, a port, a permission.
    Environment,
}

/// A composition that parsed.
#[derive(Debug)]
pub struct Parsed<C> {
    /// What prepare takes.
    pub candidate: Arc<C>,
    /// Digest of what it means: equal digests need no swap.
    pub digest: String,
    /// The imports whose content is fetched, as far as they can be told while some are missing.
    pub imports: Vec<ImportRequest>,
    /// Those of them that the composition has no content for.
    pub missing: Vec<ImportRequest>,
    /// What is wrong with the content of modules.
    pub faults: Vec<(ModuleKey, Failure)>,
}

/// The plan as the rollout stores and shows it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PlanSummary {
    /// Covers actions and expressions, not values from exports.
    pub hash: String,
    /// Number of nodes by action: `keep`, `update`, `replace`, `create`, `destroy`.
    pub counts: BTreeMap<String, u64>,
    /// The changes themselves, as the API shows them.
    pub changes: serde_json::Value,
}

/// How far `prepare` must get.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Any error drops everything: candidates.
    AllOrNothing,
    /// What cannot start is unhealthy and retries, the rest runs: last known good at a start.
    BestEffort,
}

/// A cut did not happen.
#[derive(Debug)]
pub enum CutFailure {
    /// The `swapped` hook refused: nothing was stored.
    Persist(String),
    /// The pipeline moved on since prepare: prepare again.
    Outdated,
    /// Anything else.
    Failed(Failure),
}

/// Makes SWAPPED durable; called with the new generation right before the store.
pub type SwappedHook = Box<dyn FnOnce(u64) -> Result<(), String> + Send>;

/// What the reconciler needs of the engine.
pub trait Pipeline: Send + Sync + 'static {
    /// A parsed configuration.
    type Candidate: Send + Sync + 'static;
    /// Prepared states and instances; dropping it undoes them.
    type Prepared: Send + 'static;

    /// Parses a composition.
    ///
    /// # Errors
    /// The faults of the text; those of modules are in the answer.
    fn parse(&self, composition: &Composition) -> Result<Parsed<Self::Candidate>, Failure>;

    /// Static checks that need no running pipeline.
    ///
    /// # Errors
    /// The faults of the candidate.
    fn check(&self, candidate: &Arc<Self::Candidate>) -> Result<(), Failure>;

    /// What a swap to the candidate would do; no effects.
    ///
    /// # Errors
    /// The faults that evaluation finds.
    fn plan(&self, candidate: &Arc<Self::Candidate>) -> Result<PlanSummary, Failure>;

    /// Builds what changed, beside what runs. Dropping the future undoes it.
    fn prepare(
        &self,
        candidate: Arc<Self::Candidate>,
        mode: Mode,
    ) -> impl Future<Output = Result<Self::Prepared, Failure>> + Send;

    /// Keeps what was prepared as what a rollback returns to, without running it. Only while nothing runs.
    fn retain(&self, prepared: Self::Prepared);

    /// Numbers up to this one are taken: the next cut counts on from it. Never counts backwards.
    fn set_last_generation(&self, generation: u64);

    /// Calls `swapped` with the new generation's number, then publishes it; the committed one is retained.
    fn cut(
        &self,
        prepared: Self::Prepared,
        swapped: SwappedHook,
    ) -> impl Future<Output = Result<(), CutFailure>> + Send;

    /// Keeps what runs as what a rollback returns to, and retires what the verdict made superfluous.
    fn commit(&self) -> impl Future<Output = ()> + Send;

    /// Publishes the retained configuration as a new generation and returns its number. Infallible; touches no disk
    /// and no network.
    fn rollback(&self) -> u64;

    /// What probation judges.
    fn vitals(&self) -> Vitals;

    /// The secrets that what runs names and that are not to be had: how each is lacking, and why.
    fn lacking_secrets(&self) -> Vec<(String, SecretState, String)> {
        Vec::new()
    }

    /// Number of components by health.
    fn component_counts(&self) -> BTreeMap<String, u64>;
}

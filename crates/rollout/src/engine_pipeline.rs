//! The engine as the reconciler's pipeline: configurations in, diagnostics out as failures.

use std::collections::BTreeMap;
use std::sync::Arc;

use invar_engine::modules::ModuleSet;
use invar_engine::{
    Authors, Configuration, CutError, Engine, Inputs, PrepareErrorKind, PrepareFailure, PrepareMode,
    Prepared, SecretLack, Secrets,
};
use invar_policy::Policy;
use invar_secrets::SecretState;
use invar_syntax::diagnostic::{Diagnostic, Diagnostics, Severity};
use invar_syntax::source::Source;
use invar_syntax::span::Span;
use invar_syntax::value::Value;

use crate::compose::{ComposedFile, Composition};
use crate::memory;
use crate::module::module_set;
use crate::pipeline::{CutFailure, Failure, FailureClass, Mode, Parsed, Pipeline, PlanSummary, SwappedHook};
use crate::probation::{Counters, FailedComponent, GroupVitals, Vitals};
use crate::status::AgentIdentity;
use crate::variables::read_variables;

/// Messages of a failure that are kept; a file full of faults has many.
const MESSAGES: usize = 20;

/// An engine with the inputs that this agent's configurations are evaluated with.
#[derive(Clone)]
pub struct EnginePipeline {
    engine: Engine,
    inputs: Inputs,
}

impl std::fmt::Debug for EnginePipeline {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EnginePipeline").field("inputs", &self.inputs).finish_non_exhaustive()
    }
}

impl EnginePipeline {
    /// An engine whose configurations see this agent as `agent`, and their files below `module_path`.
    #[must_use]
    pub fn new(engine: Engine, agent: &AgentIdentity, module_path: impl Into<String>) -> Self {
        let inputs =
            Inputs { agent: agent_value(agent), module_path: module_path.into(), ..Inputs::default() };
        Self { engine, inputs }
    }

    /// What its configurations may use of the host.
    #[must_use]
    pub fn under(mut self, policy: Arc<Policy>) -> Self {
        self.inputs.policy = policy;
        self
    }

    /// Where its configurations have their secrets from.
    #[must_use]
    pub fn with_secrets(mut self, secrets: Secrets) -> Self {
        self.inputs.secrets = secrets;
        self
    }

    /// The engine.
    #[must_use]
    pub fn engine(&self) -> &Engine {
        &self.engine
    }
}

/// `agent.name`, `agent.environment` and `agent.labels`, as expressions see them.
#[must_use]
pub fn agent_value(agent: &AgentIdentity) -> Value {
    let text = |text: &str| Value::string(text.to_owned());
    Value::object([
        ("name", text(&agent.name)),
        ("environment", text(&agent.environment)),
        ("labels", Value::object(agent.labels.iter().map(|(name, value)| (name.as_str(), text(value))))),
    ])
}

/// The configuration of a composition, with its variables in `inputs`, and its modules.
///
/// # Errors
/// All faults of the variables and all syntax errors of the files; those of modules are in the configuration.
pub fn configuration(composition: &Composition, inputs: Inputs) -> Result<Configuration, Diagnostics> {
    configuration_with(composition, inputs, module_set(&composition.modules))
}

/// As [`configuration`], with these modules instead of its own.
///
/// # Errors
/// As [`configuration`].
pub fn configuration_with(
    composition: &Composition,
    inputs: Inputs,
    modules: ModuleSet,
) -> Result<Configuration, Diagnostics> {
    let (variables, mut faults) = read_variables(&composition.variables);
    faults.0.retain(|diagnostic| diagnostic.severity == Severity::Error);
    faults.extend(too_many_files(composition, &inputs.policy));
    let files = composition.files.iter().map(|file| (file.name.as_str(), &file.content[..]));
    let authors = Authors::of(composition.files.iter().map(|file| (&*file.name, &*file.source)));
    let mut inputs = Inputs { variables, authors, ..inputs };
    if let Some(origin) = composition.origins.first() {
        inputs.module_path.clone_from(&origin.module_path);
    }
    match Configuration::builder(inputs, composition.revision()).files(files).modules(modules).parse() {
        Ok(configuration) if faults.is_empty() => Ok(configuration),
        Ok(_) => Err(faults),
        Err(more) => {
            faults.extend(more);
            Err(faults)
        }
    }
}

/// The first file beyond what the ceilings allow, for each of them.
fn too_many_files(composition: &Composition, policy: &Policy) -> Diagnostics {
    let mut found = Diagnostics::new();
    let mut refuse = |files: &mut dyn Iterator<Item = &ComposedFile>, limit: Option<usize>, table: &str| {
        let Some(limit) = limit else { return };
        if let Some(file) = files.nth(limit) {
            let message = format!(
                "there are more than {limit} pipeline files, the most that `limits` of {table} allows"
            );
            let source = Arc::new(Source::new(file.name.as_str(), String::from_utf8_lossy(&file.content)));
            let help = format!("raise `files` in `limits` of {table} in this host's settings, or join files");
            let diagnostic = Diagnostic::error(invar_engine::codes::NOT_ALLOWED, message).with_help(help);
            found.push(diagnostic.with_label(&source, Span::default(), ""));
        }
    };
    refuse(&mut composition.files.iter(), policy.limits().files, "[policy]");
    for origin in &composition.origins {
        let mut of_source = composition.files.iter().filter(|file| file.source == origin.source);
        let table = format!("[policy.source.{}]", origin.source);
        refuse(&mut of_source, policy.limits_of(&origin.source).files, &table);
    }
    found
}

impl Pipeline for EnginePipeline {
    type Candidate = Configuration;
    type Prepared = Prepared;

    fn parse(&self, composition: &Composition) -> Result<Parsed<Configuration>, Failure> {
        let configuration = configuration(composition, self.inputs.clone())
            .map_err(|diagnostics| failure(&diagnostics, FailureClass::Content))?;
        let faults = configuration.module_faults().iter().filter_map(|fault| {
            Some((fault.key.clone()?, failure(&fault.diagnostics, FailureClass::Content)))
        });
        Ok(Parsed {
            digest: configuration.digest.clone(),
            imports: configuration.modules().to_vec(),
            missing: configuration.missing_modules().to_vec(),
            faults: faults.collect(),
            candidate: Arc::new(configuration),
        })
    }

    fn check(&self, candidate: &Arc<Configuration>) -> Result<(), Failure> {
        let diagnostics = self.engine.check(candidate);
        if diagnostics.has_errors() { Err(failure(&diagnostics, FailureClass::Content)) } else { Ok(()) }
    }

    fn plan(&self, candidate: &Arc<Configuration>) -> Result<PlanSummary, Failure> {
        let plan = self
            .engine
            .plan(candidate)
            .map_err(|diagnostics| failure(&diagnostics, FailureClass::Content))?;
        let mut counts = BTreeMap::new();
        for change in &plan.changes {
            *counts.entry(format!("{:?}", change.action).to_lowercase()).or_default() += 1;
        }
        let changes = serde_json::to_value(&plan.changes).unwrap_or_default();
        Ok(PlanSummary { hash: plan.hash, counts, changes })
    }

    async fn prepare(&self, candidate: Arc<Configuration>, mode: Mode) -> Result<Prepared, Failure> {
        let mode = match mode {
            Mode::AllOrNothing => PrepareMode::AllOrNothing,
            Mode::BestEffort => PrepareMode::BestEffort,
        };
        self.engine.prepare(Arc::clone(&candidate), mode).await.map_err(|mut error| {
            candidate.point_at_variables(&mut error.diagnostics);
            prepare_failure(&error)
        })
    }

    fn retain(&self, prepared: Prepared) {
        if self.engine.retain(prepared).is_err() {
            tracing::error!("the engine runs already: what was prepared cannot be kept ready");
        }
    }

    fn set_last_generation(&self, generation: u64) {
        self.engine.set_last_generation(generation);
    }

    async fn cut(&self, prepared: Prepared, swapped: SwappedHook) -> Result<(), CutFailure> {
        match self.engine.cut(prepared, swapped).await {
            Ok(_) => Ok(()),
            Err(CutError::Superseded) => Err(CutFailure::Outdated),
            Err(CutError::Prepare(error)) => Err(CutFailure::Failed(prepare_failure(&error))),
            Err(CutError::Record(error)) => Err(CutFailure::Persist(error)),
        }
    }

    async fn commit(&self) {
        self.engine.commit().await;
    }

    fn rollback(&self) -> u64 {
        self.engine.rollback().generation
    }

    fn vitals(&self) -> Vitals {
        let report = self.engine.vitals();
        Vitals {
            groups: report
                .groups
                .iter()
                .map(|group| {
                    let since = |now: u64, then: u64| now.saturating_sub(then);
                    let (now, then) = (&group.now, &group.at_cut);
                    let finished = since(now.attempts, then.attempts);
                    GroupVitals {
                        node: group.node.to_string(),
                        key: group.key.clone(),
                        changed: group.changed,
                        downstream_of_change: group.downstream_of_change,
                        delivers: group.delivers,
                        counters: Counters {
                            attempts: finished.saturating_add(now.in_flight),
                            ok: since(now.ok, then.ok),
                            retryable: since(now.retryable, then.retryable),
                            permanent: since(now.permanent, then.permanent),
                            items_attempted: since(now.items_attempted, then.items_attempted),
                            items_in: since(now.items_in, then.items_in),
                            items_out: since(now.items_out, then.items_out),
                            dropped: since(now.dropped, then.dropped),
                            queue_fill: now.queue_fill,
                        },
                    }
                })
                .collect(),
            failed: report
                .failed
                .iter()
                .map(|failed| FailedComponent {
                    node: failed.node.to_string(),
                    reason: failed.reason.clone(),
                    changed: failed.changed,
                    panicked: failed.panicked,
                })
                .collect(),
            restarts: report.restarts.iter().map(|node| (node.node.to_string(), node.since_cut)).collect(),
            memory: memory::read(),
        }
    }

    fn lacking_secrets(&self) -> Vec<(String, SecretState, String)> {
        let failures = self.engine.secret_failures().into_iter();
        failures
            .map(|(reference, failure)| (reference, secret_state_of(failure.lack), failure.message))
            .collect()
    }

    fn component_counts(&self) -> BTreeMap<String, u64> {
        let health = serde_json::to_value(self.engine.health()).unwrap_or_default();
        let counts = health.as_object().into_iter().flatten();
        counts.filter_map(|(state, count)| Some((state.clone(), count.as_u64()?))).collect()
    }
}

/// How a secret does that is lacking.
#[must_use]
pub fn secret_state_of(lack: SecretLack) -> SecretState {
    match lack {
        SecretLack::Missing => SecretState::Missing,
        SecretLack::Denied => SecretState::Denied,
        SecretLack::Unavailable => SecretState::Unavailable,
        SecretLack::Unusable => SecretState::Rejected,
    }
}

fn prepare_failure(error: &PrepareFailure) -> Failure {
    let class = match error.class {
        // A panic while preparing is the content's doing, as far as anybody can tell.
        invar_engine::FailureClass::Content
        | invar_engine::FailureClass::Surroundings(PrepareErrorKind::Invalid | PrepareErrorKind::Panic) => {
            FailureClass::Content
        }
        invar_engine::FailureClass::Surroundings(_) => FailureClass::Environment,
    };
    failure(&error.diagnostics, class)
}

/// All errors in one message; the first one's place and help.
fn failure(diagnostics: &Diagnostics, class: FailureClass) -> Failure {
    let errors: Vec<_> =
        diagnostics.0.iter().filter(|diagnostic| diagnostic.severity == Severity::Error).collect();
    let mut messages: Vec<String> = errors
        .iter()
        .take(MESSAGES)
        .map(|diagnostic| match diagnostic.labels.first() {
            Some(label) => {
                let place = label.source.location(label.span.start);
                let more = diagnostic.labels.iter().skip(1).filter(|label| !label.text.is_empty());
                let more = more
                    .map(|label| format!("; {}: {}", label.text, label.source.location(label.span.start)));
                format!("{place}: {} [{}]{}", diagnostic.message, diagnostic.code, more.collect::<String>())
            }
            None => format!("{} [{}]", diagnostic.message, diagnostic.code),
        })
        .collect();
    if errors.len() > MESSAGES {
        messages.push(format!("and {} more", errors.len() - MESSAGES));
    }
    let first = errors.first().and_then(|diagnostic| diagnostic.labels.first());
    Failure {
        class,
        message: messages.join("\n"),
        help: errors.first().and_then(|diagnostic| diagnostic.help.clone()),
        file: first.map(|label| label.source.name.to_string()),
        line: first.map(|label| label.source.position(label.span.start).line),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::time::Duration;

    use invar_engine::{EngineOptions, Registry};

    use super::*;
    use crate::handle::{Rollout, RolloutOptions};
    use crate::scripted::ScriptedFeed;
    use crate::state::StateDirectory;
    use crate::status::Phase;

    #[tokio::test(start_paused = true)]
    async fn the_engine_goes_through_swap_rejection_and_commit() {
        let directory = tempfile::tempdir().unwrap();
        let engine = Engine::new(EngineOptions::new(Registry::new(), directory.path()));
        let agent = AgentIdentity { name: "web-17".into(), ..AgentIdentity::default() };
        let pipeline = Arc::new(EnginePipeline::new(engine.clone(), &agent, "/"));
        let feed = ScriptedFeed::new(&[("git", true, true)]);
        let options = RolloutOptions { agent, ..RolloutOptions::new(StateDirectory::in_memory()) };
        let rollout = Rollout::start(options, pipeline, Arc::clone(&feed) as _).unwrap();
        feed.push("git", "r1", "logging {\n}\n");
        let status = rollout.reconcile(&[], "a test", Duration::from_secs(600)).await.unwrap();
        assert_eq!((status.phase, status.in_sync), (Phase::Committed, true), "{status:#?}");
        feed.push("git", "r2", "logging {\n}\n\nno.such_component \"x\" {\n}\n");
        let status = rollout.reconcile(&[], "a test", Duration::from_secs(600)).await.unwrap();
        let reason = status.reason.clone().unwrap();
        assert_eq!(
            (reason.kind.as_str(), reason.file.as_deref(), reason.line),
            ("rejected", Some("main.alloy"), Some(4))
        );
        feed.push("git", "r3", "logging {\n");
        let status = rollout.reconcile(&[], "a test", Duration::from_secs(600)).await.unwrap();
        assert_eq!(status.phase, Phase::Rejected, "{status:#?}");
        assert_eq!(status.running.as_ref().unwrap().revision, "r1");
        rollout.shutdown().await;
        engine.shutdown(Duration::from_secs(1)).await;
    }
}

//! Secrets that a configuration names, by `secret("store/path#field")`. Which ones it names is known before anything runs,
//! so they are all asked for while it is prepared; what its expressions get are live secrets, which show a rotation to
//! whoever reads them at each use. Where a text was taken instead, the node is evaluated again, alone, in a wave. The engine
//! keeps no store: whoever has some implements [`SecretSource`].

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream;
use invar_policy::Access;
use invar_syntax::diagnostic::{Diagnostic, Diagnostics};
use invar_syntax::evaluate::{EvaluatedBlock, EvaluatedBody, calls, evaluate, references_of};
use invar_syntax::function::{Function, FunctionError};
use invar_syntax::live_secret::{Frozen, LiveSecret};
use invar_syntax::schema::Type;
use invar_syntax::span::Span;
use invar_syntax::stdlib;
use invar_syntax::value::Value;
use parking_lot::Mutex;
use serde::Serialize;
use tokio::sync::watch;

use crate::block::BodyRef;
use crate::codes;
use crate::configuration::{Configuration, InputScope};
use crate::delivery::PrepareErrorKind;
use crate::engine::{FailureClass, PrepareFailure, PrepareMode, Shared};
use crate::graph::GraphNode;
use crate::inputs::Inputs;

/// The function's name.
pub(crate) const SECRET: &str = "secret";

/// How many secrets are asked for at a time.
const AT_A_TIME: usize = 16;

/// How long a start waits for secrets: what needs none of them is to run.
const LONGEST_AT_START: Duration = Duration::from_secs(5);

/// How long asking for one may take.
const LONGEST_RESOLUTION: Duration = Duration::from_secs(30);

/// Whoever has secrets.
pub trait SecretSource: Send + Sync + 'static {
    /// A secret that is held already.
    fn find(&self, reference: &str) -> Option<LiveSecret>;

    /// Asks for a secret. The error says why it is not to be had, and what to do; never its text.
    fn resolve(&self, reference: String) -> BoxFuture<'_, Result<LiveSecret, SecretFailure>>;

    /// Counts up with every change of any secret.
    fn changes(&self) -> watch::Receiver<u64>;
}

/// Why a secret is not to be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretFailure {
    /// All of it.
    pub message: String,
    /// What to do.
    pub help: Option<String>,
    /// In which way it is lacking.
    pub lack: SecretLack,
}

/// In which way a secret is lacking.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum SecretLack {
    /// Its store does not have it, or there is no such store.
    Missing,
    /// Its store says no.
    Denied,
    /// Its store does not answer now.
    Unavailable,
    /// What there is cannot be used.
    Unusable,
}

/// A secret that the running pipeline names, and that is not to be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LackingSecret {
    /// `store/path#field`.
    pub reference: String,
    /// Why.
    pub failure: SecretFailure,
    /// The components that name it.
    pub components: Vec<String>,
}

/// Where the inputs of a configuration have secrets from.
#[derive(Clone, Default)]
pub struct Secrets(Option<Arc<dyn SecretSource>>);

/// What a configuration names, and what came of asking for it.
#[derive(Debug, Default)]
pub(crate) struct SecretTable {
    requests: Vec<SecretRequest>,
    /// References that are not known before anything runs.
    faults: Diagnostics,
    /// Keeps what is held, for as long as the configuration is.
    answers: Mutex<BTreeMap<String, Result<LiveSecret, SecretFailure>>>,
    /// Whether somebody asks for what is lacking.
    asking: AtomicBool,
    /// Whether something that was lacking is there, and no wave has taken that up.
    arrived: AtomicBool,
}

/// One place that names a secret.
#[derive(Clone, Debug)]
struct SecretRequest {
    reference: String,
    body: BodyRef,
    span: Span,
}

/// How a change of a secret reaches whoever uses it.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SecretUse {
    /// It is read at each use: a change costs nothing.
    PerUse,
    /// It is part of what new connections are made with; connections that exist go on.
    TlsReload,
    /// The component is given new arguments, alone, as if the configuration had changed there.
    Rebuild,
}

/// A component that uses a secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SecretUser {
    /// `store/path#field`.
    pub reference: String,
    /// The component.
    pub component: String,
    /// How a change reaches it.
    pub on_change: SecretUse,
}

/// What a node has of secrets: texts it took, and live ones it reads itself.
#[derive(Clone, Debug, Default)]
pub(crate) struct NodeSecrets {
    frozen: Vec<Frozen>,
    live: Vec<(SecretUse, LiveSecret)>,
}

// === impl Secrets ===

impl Secrets {
    /// From there.
    pub fn of(source: Arc<dyn SecretSource>) -> Self {
        Self(Some(source))
    }
}

/// Where secrets come from does not make a configuration another one.
impl PartialEq for Secrets {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Secrets(from a source)" } else { "Secrets(none)" })
    }
}

// === impl SecretTable ===

impl SecretTable {
    /// What the bodies name. Modules are not among them: they get secrets as arguments.
    pub(crate) fn of<'a>(bodies: impl Iterator<Item = &'a BodyRef>, inputs: &Inputs) -> Self {
        let mut table = Self::default();
        for body in bodies {
            for (call, arguments) in calls(body.get(), SECRET) {
                let [argument] = arguments else { continue };
                let mut names = Vec::new();
                references_of(argument, &mut names);
                let fixed = names.iter().all(|name| {
                    let path: Vec<&str> = name.path.iter().map(|part| &**part).collect();
                    let of_library = || stdlib::is_pure(&path.join("."));
                    matches!(path.first(), Some(&("var" | "agent"))) || of_library()
                });
                let refuse = |message: String| {
                    let diagnostic = Diagnostic::error(codes::SECRET_REFERENCE, message).with_help(
                        "write it as text, with variables (var.…) and attributes of the agent (agent.…)",
                    );
                    body.label(diagnostic, argument.span, "")
                };
                if !fixed {
                    table.faults.push(refuse(
                        "which secret is meant has to be known before anything runs".to_owned(),
                    ));
                    continue;
                }
                let access = inputs.access_of([&*body.file_of().source.name]);
                let scope = InputScope { inputs, module_path: &inputs.module_path, access: access.clone() };
                match evaluate(argument, &scope) {
                    // Nobody reads what its author may not name; that it is refused is said where it is evaluated.
                    Ok(Value::String(reference)) if access.secret(&reference).is_err() => {}
                    Ok(Value::String(reference)) => table.requests.push(SecretRequest {
                        reference: reference.to_string(),
                        body: body.clone(),
                        span: call.span,
                    }),
                    Ok(value) if value.has_unknown() => {}
                    Ok(other) => table.faults.push(refuse(format!(
                        "a secret is named by text, store/path#field, and not by {}",
                        other.describe()
                    ))),
                    // What is wrong with the expression is said where it is evaluated.
                    Err(_) => {}
                }
            }
        }
        table
    }

    pub(crate) fn faults(&self) -> &Diagnostics {
        &self.faults
    }

    /// What asking for a secret came to.
    fn answer(&self, reference: &str) -> Option<Result<LiveSecret, SecretFailure>> {
        self.answers.lock().get(reference).cloned()
    }

    fn is_named(&self, reference: &str) -> bool {
        self.requests.iter().any(|request| request.reference == reference)
    }

    /// Whether nodes that failed may have what they lacked; forgotten by [`Self::take_arrived`].
    pub(crate) fn has_arrived(&self) -> bool {
        self.arrived.load(Ordering::Acquire)
    }

    pub(crate) fn take_arrived(&self) -> bool {
        self.arrived.swap(false, Ordering::AcqRel)
    }

    /// What nothing was said of yet is not to be had for now.
    fn note_unanswered(&self) {
        for reference in self.lacking() {
            let failure = SecretFailure {
                message: format!("secret `{reference}`: its store has not answered yet"),
                help: None,
                lack: SecretLack::Unavailable,
            };
            self.answers.lock().entry(reference).or_insert(Err(failure));
        }
    }

    /// What is not held yet, each once.
    fn lacking(&self) -> Vec<String> {
        let answers = self.answers.lock();
        let mut lacking: Vec<String> = self
            .requests
            .iter()
            .filter(|request| !matches!(answers.get(&request.reference), Some(Ok(_))))
            .map(|request| request.reference.clone())
            .collect();
        lacking.sort();
        lacking.dedup();
        lacking
    }
}

// === impl Configuration ===

impl Configuration {
    /// The secrets that it names, each once.
    #[must_use]
    pub fn secret_references(&self) -> Vec<String> {
        let all = self.secrets.requests.iter().map(|request| request.reference.clone());
        let mut all: Vec<String> = all.collect();
        all.sort();
        all.dedup();
        all
    }

    /// The value of `secret` for authors who may use so much.
    pub(crate) fn secret_function(&self, access: &Access) -> Value {
        let (access, table) = (access.clone(), Arc::clone(&self.secrets));
        let source = self.inputs.secrets.0.clone();
        Value::Function(Function::new(SECRET, move |arguments| {
            let [Value::String(reference)] = arguments else {
                return Err(FunctionError::call("takes one text, store/path#field"));
            };
            access.secret(reference).map_err(|refusal| FunctionError::call(refusal.to_string()))?;
            match table.answer(reference) {
                Some(Ok(secret)) => return Ok(Value::LiveSecret(secret)),
                Some(Err(failure)) => return Err(FunctionError::call(failure.message)),
                None => {}
            }
            if !table.is_named(reference) {
                let message = "a module names no secrets: give it this one as an argument";
                return Err(FunctionError::call(message));
            }
            // Held for what runs, or not asked for yet.
            let held = source.as_ref().and_then(|source| source.find(reference));
            Ok(held.map_or(Value::Unknown(Type::Secret), Value::LiveSecret))
        }))
    }
}

// === impl NodeSecrets ===

impl NodeSecrets {
    pub(crate) fn new(body: &EvaluatedBody, frozen: Vec<Frozen>) -> Self {
        let mut live = Vec::new();
        visit(body, false, &mut |of_tls, secret| {
            // What a text was taken of is updated, whatever else reads it.
            if !frozen.iter().any(|taken| taken.secret == *secret) {
                let class = if of_tls { SecretUse::TlsReload } else { SecretUse::PerUse };
                live.push((class, secret.clone()));
            }
        });
        Self { frozen, live }
    }

    pub(crate) fn taken(frozen: Vec<Frozen>) -> Self {
        Self { frozen, live: Vec::new() }
    }

    /// Whether a text in use is not the newest any more.
    pub(crate) fn is_outdated(&self) -> bool {
        self.frozen.iter().any(Frozen::is_outdated)
    }

    /// What a plan says of each.
    pub(crate) fn notes(&self) -> Vec<String> {
        let mut classes: BTreeMap<String, SecretUse> = BTreeMap::new();
        self.visit(&mut |class, reference| {
            let known = classes.entry(reference.to_owned()).or_insert(class);
            // Where it is used in several ways, the costlier one counts.
            *known = class.max(*known);
        });
        let note = |(reference, class)| match class {
            SecretUse::PerUse => format!("uses secret {reference}, class per-use: a rotation is free"),
            SecretUse::TlsReload => {
                format!("uses secret {reference}, class tls-reload: a rotation costs new connections")
            }
            SecretUse::Rebuild => {
                format!(
                    "uses secret {reference}, class rebuild: a rotation gives this component new arguments"
                )
            }
        };
        classes.into_iter().map(note).collect()
    }

    fn visit(&self, found: &mut dyn FnMut(SecretUse, &str)) {
        for taken in &self.frozen {
            taken.secret.visit_references(&mut |reference| found(SecretUse::Rebuild, reference));
        }
        for (class, secret) in &self.live {
            secret.visit_references(&mut |reference| found(*class, reference));
        }
    }
}

/// Calls `found` for each live secret in a body, with whether it stands in settings of TLS.
fn visit(body: &EvaluatedBody, of_tls: bool, found: &mut dyn FnMut(bool, &LiveSecret)) {
    for attribute in &body.attributes {
        attribute.value.visit_live_secrets(&mut |secret| found(of_tls, secret));
    }
    for block in &body.blocks {
        visit(&block.body, of_tls || is_tls(block), found);
    }
}

fn is_tls(block: &EvaluatedBlock) -> bool {
    block.name.iter().any(|part| part.name.starts_with("tls"))
}

impl Shared {
    /// Asks for what a configuration names and is not held yet; whether any of it is from now on.
    async fn resolve_secrets(&self, configuration: &Configuration) -> bool {
        let lacking = configuration.secrets.lacking();
        let Some(source) = &configuration.inputs.secrets.0 else {
            let message = "there are no secret stores here".to_owned();
            let failure = SecretFailure { message, help: None, lack: SecretLack::Missing };
            let answers = lacking.into_iter().map(|reference| (reference, Err(failure.clone())));
            configuration.secrets.answers.lock().extend(answers);
            return false;
        };
        let asked = stream::iter(lacking).map(|reference| async {
            let asking = source.resolve(reference.clone());
            let answer = tokio::time::timeout(LONGEST_RESOLUTION, asking).await.unwrap_or_else(|_| {
                Err(SecretFailure {
                    message: format!("secret `{reference}`: no answer within {LONGEST_RESOLUTION:?}"),
                    help: None,
                    lack: SecretLack::Unavailable,
                })
            });
            let held = answer.is_ok();
            // Each as it comes: whoever does not wait for all has what came.
            configuration.secrets.answers.lock().insert(reference, answer);
            held
        });
        asked.buffer_unordered(AT_A_TIME).fold(false, async |any, held| any || held).await
    }

    /// Asks for what the running configuration lacks, beside everything else: a store that says nothing delays no wave.
    pub(crate) fn ask_for_secrets(self: &Arc<Self>, configuration: &Arc<Configuration>) {
        let table = &configuration.secrets;
        if table.lacking().is_empty() || table.asking.swap(true, Ordering::AcqRel) {
            return;
        }
        let (shared, configuration) = (Arc::clone(self), Arc::clone(configuration));
        self.spawn(self.tasks.track_future(async move {
            let any = tokio::select! {
                () = shared.stop.cancelled() => false,
                any = shared.resolve_secrets(&configuration) => any,
            };
            configuration.secrets.asking.store(false, Ordering::Release);
            if any {
                configuration.secrets.arrived.store(true, Ordering::Release);
                shared.root.wake_waves();
            }
        }));
    }

    /// Asks for all that a configuration names. Where all of it is to be there, whatever is not to be had is an error; else
    /// it is waited for no longer than a start may take, and asked for again with the nodes that lack it.
    pub(crate) async fn require_secrets(
        &self,
        configuration: &Configuration,
        mode: PrepareMode,
    ) -> Result<(), PrepareFailure> {
        if mode == PrepareMode::BestEffort {
            let asking = self.resolve_secrets(configuration);
            if tokio::time::timeout(LONGEST_AT_START, asking).await.is_err() {
                configuration.secrets.note_unanswered();
            }
            return Ok(());
        }
        self.resolve_secrets(configuration).await;
        let mut diagnostics = Diagnostics::new();
        for request in &configuration.secrets.requests {
            if let Some(Err(failure)) = configuration.secrets.answer(&request.reference) {
                let mut diagnostic = Diagnostic::error(codes::SECRET_UNAVAILABLE, failure.message);
                diagnostic.help = failure.help;
                diagnostics.push(request.body.label(diagnostic, request.span, ""));
            }
        }
        if diagnostics.is_empty() {
            return Ok(());
        }
        Err(PrepareFailure { diagnostics, class: FailureClass::Surroundings(PrepareErrorKind::Secret) })
    }

    /// Wakes the waves with every change of a secret, until the engine stops.
    pub(crate) async fn follow_secrets(self: Arc<Self>) {
        let Some(source) = self.options.secrets.0.clone() else { return };
        let mut changes = source.changes();
        loop {
            tokio::select! {
                () = self.stop.cancelled() => return,
                changed = changes.changed() => if changed.is_err() { return },
            }
            self.root.wake_waves();
        }
    }

    /// Who uses which secrets in the running pipeline.
    pub(crate) fn secret_users(&self) -> Vec<SecretUser> {
        let generation = self.root.current();
        let mut users = Vec::new();
        for (node, slot) in generation.graph.nodes.iter().zip(&generation.slots) {
            slot.place.secrets.visit(&mut |on_change, reference| {
                let user =
                    SecretUser { reference: reference.to_owned(), component: node.id.to_string(), on_change };
                if !users.contains(&user) {
                    users.push(user);
                }
            });
        }
        users
    }

    /// Why each of the secrets is not to be had that the running pipeline names and has not.
    pub(crate) fn secret_failures(&self) -> Vec<(String, SecretFailure)> {
        let generation = self.root.current();
        let table = &generation.configuration.secrets;
        let failures = table.lacking().into_iter().filter_map(|reference| {
            let failure = table.answer(&reference)?.err()?;
            Some((reference, failure))
        });
        failures.collect()
    }

    /// The same, with the components that name each.
    pub(crate) fn lacking_secrets(&self) -> Vec<LackingSecret> {
        let generation = self.root.current();
        let requests = &generation.configuration.secrets.requests;
        let lacking = self.secret_failures().into_iter().map(|(reference, failure)| {
            let places: Vec<&SecretRequest> =
                requests.iter().filter(|request| request.reference == reference).collect();
            let names_it = |node: &&GraphNode| {
                let (inside, span) = (node.block.body(), node.block.get().span);
                places.iter().any(|place| {
                    std::ptr::eq(place.body.file_of(), inside.file_of())
                        && span.start <= place.span.start
                        && place.span.end <= span.end
                })
            };
            let nodes = generation.graph.nodes.iter().filter(names_it);
            let components = nodes.map(|node| node.id.to_string()).collect();
            LackingSecret { reference, failure, components }
        });
        lacking.collect()
    }
}

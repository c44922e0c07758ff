//! A scripted pipeline and scripted sources, for tests of the reconciler.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::compose::Composition;
use crate::feed::{Origin, SnapshotFeed, SourceContent, SourceView};
use crate::pipeline::{CutFailure, Failure, Mode, Parsed, Pipeline, PlanSummary, SwappedHook};
use crate::probation::{FailedComponent, Vitals};
use crate::state::manifest_sha256;
use crate::status::{SourceErrorState, SourceState};
use crate::time::Timestamp;

/// What a text means is the text without its `//` lines.
#[derive(Debug, Default)]
pub(crate) struct ScriptedPipeline {
    inner: Mutex<Script>,
}

#[derive(Debug, Default)]
struct Script {
    running: Option<String>,
    committed: Option<String>,
    generation: u64,
    log: Vec<String>,
    prepare_failures: HashMap<String, Failure>,
    hanging: HashSet<String>,
    outdated: u32,
    bad: HashSet<String>,
    panicking: HashSet<String>,
    vitals: Vitals,
    /// What of the plan depends on what runs.
    surroundings: String,
}

impl ScriptedPipeline {
    /// What runs changes by itself, and with it every plan.
    pub(crate) fn move_on(&self, surroundings: &str) {
        self.inner.lock().surroundings = surroundings.to_owned();
    }

    pub(crate) fn running(&self) -> Option<String> {
        self.inner.lock().running.clone()
    }

    pub(crate) fn log(&self) -> Vec<String> {
        self.inner.lock().log.clone()
    }

    pub(crate) fn count(&self, line: &str) -> usize {
        self.inner.lock().log.iter().filter(|entry| *entry == line).count()
    }

    pub(crate) fn fail_prepare(&self, text: &str, failure: Option<Failure>) {
        let mut script = self.inner.lock();
        match failure {
            Some(failure) => script.prepare_failures.insert(text.to_owned(), failure),
            None => script.prepare_failures.remove(text),
        };
    }

    pub(crate) fn hang_prepare(&self, text: &str) {
        self.inner.lock().hanging.insert(text.to_owned());
    }

    pub(crate) fn outdate(&self, times: u32) {
        self.inner.lock().outdated = times;
    }

    /// A component fails whenever this runs.
    pub(crate) fn bad(&self, text: &str) {
        self.inner.lock().bad.insert(text.to_owned());
    }

    pub(crate) fn panicking(&self, text: &str) {
        self.inner.lock().panicking.insert(text.to_owned());
    }

    pub(crate) fn heal(&self, text: &str) {
        self.inner.lock().bad.remove(text);
    }
}

impl Pipeline for ScriptedPipeline {
    type Candidate = String;
    type Prepared = String;

    fn parse(&self, composition: &Composition) -> Result<Parsed<String>, Failure> {
        let mut meaning = String::new();
        let mut imports = String::new();
        for file in &composition.files {
            let text = std::str::from_utf8(&file.content).unwrap();
            for (number, line) in text.lines().enumerate() {
                if line.contains("syntax error") {
                    let failure = Failure::content("unexpected token");
                    let line = u32::try_from(number + 1).ok();
                    return Err(Failure { file: Some(file.name.clone()), line, ..failure });
                }
                if line.contains("parser panic") {
                    panic!("scripted");
                }
                if line.starts_with("import.") {
                    imports.push_str(line);
                    imports.push('\n');
                    continue;
                }
                if !line.starts_with("//") {
                    meaning.push_str(line);
                }
            }
        }
        let inputs = invar_engine::Inputs { module_path: "/@git".into(), ..invar_engine::Inputs::default() };
        let modules = invar_engine::Configuration::builder(inputs, "")
            .files([("main.alloy", &imports)])
            .modules(crate::module::module_set(&[]))
            .parse()
            .unwrap();
        let mut faults = Vec::new();
        let mut missing = Vec::new();
        for request in modules.modules() {
            let Some(module) = composition.module(&request.key) else {
                missing.push(request.clone());
                continue;
            };
            for (name, content) in &module.files {
                let text = std::str::from_utf8(content).unwrap();
                if text.contains("syntax error") {
                    let failure = Failure::content("unexpected token in the module");
                    faults.push((
                        request.key.clone(),
                        Failure { file: Some(name.clone()), line: Some(7), ..failure },
                    ));
                }
                meaning.push_str(&format!("[{text}]"));
            }
        }
        Ok(Parsed {
            digest: manifest_sha256(meaning.as_bytes()),
            candidate: Arc::new(meaning),
            imports: modules.modules().to_vec(),
            missing,
            faults,
        })
    }

    fn check(&self, candidate: &Arc<String>) -> Result<(), Failure> {
        if candidate.contains("invalid") { Err(Failure::content("unknown component")) } else { Ok(()) }
    }

    fn plan(&self, candidate: &Arc<String>) -> Result<PlanSummary, Failure> {
        Ok(PlanSummary {
            hash: format!("{candidate}{}", self.inner.lock().surroundings),
            counts: BTreeMap::from([("update".into(), 1)]),
            changes: serde_json::Value::Null,
        })
    }

    async fn prepare(&self, candidate: Arc<String>, mode: Mode) -> Result<String, Failure> {
        let (failure, hangs) = {
            let mut script = self.inner.lock();
            script.log.push(format!("prepare {candidate}"));
            (script.prepare_failures.get(&*candidate).cloned(), script.hanging.contains(&*candidate))
        };
        if hangs {
            std::future::pending::<()>().await;
        }
        tokio::time::sleep(Duration::from_millis(3)).await;
        match failure {
            Some(failure) if mode == Mode::AllOrNothing => Err(failure),
            _ => Ok(candidate.to_string()),
        }
    }

    fn retain(&self, prepared: String) {
        let mut script = self.inner.lock();
        script.log.push(format!("retain {prepared}"));
        script.committed = Some(prepared);
    }

    fn set_last_generation(&self, generation: u64) {
        let mut script = self.inner.lock();
        script.generation = script.generation.max(generation);
    }

    async fn cut(&self, prepared: String, swapped: SwappedHook) -> Result<(), CutFailure> {
        let mut script = self.inner.lock();
        if script.outdated > 0 {
            script.outdated -= 1;
            return Err(CutFailure::Outdated);
        }
        swapped(script.generation + 1).map_err(CutFailure::Persist)?;
        script.generation += 1;
        script.log.push(format!("cut {prepared}"));
        script.running = Some(prepared);
        Ok(())
    }

    async fn commit(&self) {
        let mut script = self.inner.lock();
        script.committed = script.running.clone();
        let line = format!("commit {}", script.committed.as_deref().unwrap_or("nothing"));
        script.log.push(line);
    }

    fn rollback(&self) -> u64 {
        let mut script = self.inner.lock();
        script.generation += 1;
        script.running = script.committed.clone();
        let line = format!("rollback to {}", script.committed.as_deref().unwrap_or("nothing"));
        script.log.push(line);
        script.generation
    }

    fn vitals(&self) -> Vitals {
        let script = self.inner.lock();
        let mut vitals = script.vitals.clone();
        let running = script.running.clone().unwrap_or_default();
        let panicked = script.panicking.contains(&running);
        if panicked || script.bad.contains(&running) {
            vitals.failed.push(FailedComponent {
                node: "testing.fail.default".into(),
                reason: "on command".into(),
                changed: script.running != script.committed,
                panicked,
            });
        }
        vitals
    }

    fn component_counts(&self) -> BTreeMap<String, u64> {
        BTreeMap::from([("healthy".into(), 1)])
    }
}

/// Sources whose content the test sets.
#[derive(Debug)]
pub(crate) struct ScriptedFeed {
    sources: Mutex<Vec<SourceView>>,
    changes: watch::Sender<u64>,
    /// Revisions that are not trusted, and whether they may run all the same.
    distrusted: Mutex<BTreeMap<String, bool>>,
}

impl ScriptedFeed {
    pub(crate) fn new(sources: &[(&str, bool, bool)]) -> Arc<Self> {
        let sources = sources
            .iter()
            .map(|(name, required, atomic)| SourceView {
                state: SourceState {
                    name: (*name).into(),
                    kind: "git".into(),
                    revision: None,
                    checked: None,
                    changed: None,
                    error: None,
                    checks: Default::default(),
                    alarm: false,
                },
                required: *required,
                atomic: *atomic,
                content: None,
            })
            .collect();
        Arc::new(Self {
            sources: Mutex::new(sources),
            changes: watch::Sender::new(0),
            distrusted: Mutex::default(),
        })
    }

    /// From now on a stored revision is not trusted; with `strict` it may not run.
    pub(crate) fn distrust(&self, revision: &str, strict: bool) {
        self.distrusted.lock().insert(revision.to_owned(), strict);
    }

    /// The source fails from now on, or no longer.
    pub(crate) fn fail(&self, name: &str, class: Option<&str>, alarm: bool) {
        {
            let mut sources = self.sources.lock();
            let source = sources.iter_mut().find(|source| source.state.name == name).unwrap();
            source.state.alarm = alarm;
            source.state.error = class.map(|class| SourceErrorState {
                class: class.to_owned(),
                message: "scripted".to_owned(),
                since: Timestamp::default(),
                rejection: None,
            });
        }
        self.changes.send_modify(|count| *count += 1);
    }

    pub(crate) fn push(&self, name: &str, revision: &str, text: &str) {
        self.push_files(name, revision, &[("main.alloy", text)]);
    }

    pub(crate) fn push_files(&self, name: &str, revision: &str, files: &[(&str, &str)]) {
        {
            let mut sources = self.sources.lock();
            let source = sources.iter_mut().find(|source| source.state.name == name).unwrap();
            source.state.revision = Some(revision.into());
            source.content = Some(Arc::new(SourceContent {
                origin: Origin {
                    source: name.into(),
                    kind: "git".into(),
                    revision: revision.into(),
                    digest: manifest_sha256(format!("{files:?}").as_bytes()),
                    author: Some("ana".into()),
                    subject: Some("a change".into()),
                    signer: None,
                    trust: None,
                    module_path: format!("/@{name}"),
                },
                files: files
                    .iter()
                    .map(|(path, text)| ((*path).to_owned(), Bytes::copy_from_slice(text.as_bytes())))
                    .collect(),
                paths: Vec::new(),
            }));
        }
        self.changes.send_modify(|count| *count += 1);
    }
}

impl SnapshotFeed for ScriptedFeed {
    fn sources(&self) -> Vec<SourceView> {
        self.sources.lock().clone()
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    fn vouch<'a>(&'a self, origins: &'a [Origin]) -> BoxFuture<'a, Result<Vec<String>, Failure>> {
        let distrusted = self.distrusted.lock();
        let mut doubts = Vec::new();
        for origin in origins {
            let message = format!("whom to trust changed since {}", origin.revision);
            match distrusted.get(&origin.revision) {
                Some(true) => return Box::pin(std::future::ready(Err(Failure::content(message)))),
                Some(false) => doubts.push(message),
                None => {}
            }
        }
        Box::pin(std::future::ready(Ok(doubts)))
    }

    fn reconcile<'a>(&'a self, names: &'a [String]) -> BoxFuture<'a, Result<(), String>> {
        let unknown =
            names.iter().find(|name| !self.sources.lock().iter().any(|source| source.state.name == **name));
        let result = unknown.map_or(Ok(()), |name| Err(format!("no source is called {name}")));
        Box::pin(std::future::ready(result))
    }
}

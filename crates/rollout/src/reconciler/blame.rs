//! Whose fault it is: which modules of a candidate are held back, blamed and forgiven, and what the status says of them.

use std::collections::BTreeSet;
use std::sync::Arc;

use invar_engine::modules::ModuleKey;

use super::Reconciler;
use super::model::{Pending, Stage};
use super::modules::{HeldBack, Refused, Stock};
use crate::compose::Composition;
use crate::event::EventKind;
use crate::feed::SourceView;
use crate::module::{ComposedModule, ModuleView};
use crate::pipeline::{Failure, Pipeline};
use crate::state::{Condemnation, Control, Pointer};
use crate::status::{SourceErrorState, SourceState};

impl<P: Pipeline> Reconciler<P> {
    /// What a failure may be due to, of the modules whose content is not what the last good revision has: the one in whose
    /// files it is, else all of them.
    pub(super) fn suspects(
        &self,
        composition: &Composition,
        failure: &Failure,
        stock: &Stock,
    ) -> Vec<BTreeSet<ModuleKey>> {
        let mut moved = BTreeSet::new();
        let mut in_its_files = BTreeSet::new();
        for module in &composition.modules {
            let before = stock.bases.iter().find_map(|base| base.module(&module.key));
            if before.is_some_and(|before| before.digest() == module.digest()) {
                continue;
            }
            let Some(whole) = whole_of(module, composition) else { continue };
            // Without an old content there is nothing to put in its place.
            if stock.bases.iter().all(|base| base.module(&whole.key).is_none()) {
                continue;
            }
            moved.insert(whole.key.clone());
            if module.files.iter().any(|(name, _)| failure.file.as_ref() == Some(name)) {
                in_its_files.insert(whole.key.clone());
            }
        }
        let mut suspects = Vec::new();
        if !in_its_files.is_empty() && in_its_files.len() < moved.len() {
            suspects.push(in_its_files);
        }
        if !moved.is_empty() {
            suspects.push(moved);
        }
        suspects
    }

    /// A candidate could not be prepared; where its modules may be why, it is composed once more without them.
    pub(super) async fn refuse_modules(&mut self, failure: &Failure) {
        let Some(composition) = self.desired.as_ref().map(|desired| Arc::clone(&desired.composition)) else {
            return;
        };
        let stock = self.stock().await;
        let Some(suspects) = self.suspects(&composition, failure, &stock).into_iter().next() else { return };
        for key in suspects {
            let Some(module) = composition.module(&key) else { continue };
            let refused = Refused {
                digest: module.digest(),
                under: revisions(&stock.sources),
                failure: failure.clone(),
            };
            self.module_memory.refused.insert(key, refused);
        }
        self.compose_anew();
    }

    /// Composes again although no source changed: what is kept back may have to be another thing.
    pub(super) fn compose_anew(&mut self) {
        if let Some(desired) = &mut self.desired {
            desired.content.0.clear();
        }
        let moment = tokio::time::Instant::now();
        self.pending = Some(Pending { first: moment, last: moment, at_once: true });
    }

    /// The module that an undone candidate differs in from last known good, if that is all it differs in.
    pub(super) async fn blamed_module(
        &mut self,
        bad: &Pointer,
        good: Option<&Pointer>,
    ) -> Option<ComposedModule> {
        let good = self.composition_of(&good?.manifest).await?;
        let bad = self.composition_of(&bad.manifest).await?;
        let same_sources = good.files == bad.files && good.variables == bad.variables;
        if !same_sources || good.modules.len() != bad.modules.len() {
            return None;
        }
        let mut differing = bad.modules.iter().filter(|module| {
            good.module(&module.key).is_none_or(|before| before.digest() != module.digest())
        });
        let module = differing.next()?;
        // What is a part of a source is judged with it.
        (differing.next().is_none() && !module.revision.is_empty()).then(|| module.clone())
    }

    /// At a start: a candidate that the process died under is quarantined as a whole; if it was one module that made it
    /// another candidate, that module is instead.
    pub(super) async fn blame_modules(&mut self, undone: &[Pointer]) {
        let good = self.control.last_known_good.clone();
        for pointer in undone {
            let Some(module) = self.blamed_module(pointer, good.as_ref()).await else { continue };
            let now = self.now();
            for entry in self.control.release(|entry| entry.digest == pointer.digest) {
                self.control.condemn(
                    &Condemnation {
                        digest: &module.digest(),
                        revision: &pointer.revision,
                        stage: &entry.stage,
                        reason: &entry.reason,
                        deterministic: entry.deterministic,
                        agent_version: &self.agent.version,
                    },
                    now,
                );
            }
        }
    }

    /// The contents of a committed revision proved themselves.
    pub(super) async fn absolve_modules(&mut self, control: &mut Control, pointer: &Pointer) {
        if control.quarantine.is_empty() && control.strikes.is_empty() {
            return;
        }
        let Some(composition) = self.composition_of(&pointer.manifest).await else { return };
        for module in &composition.modules {
            control.absolve(&module.digest());
        }
    }

    /// A quarantine ended: a module that is kept back may be tried again.
    pub(super) fn reconsider_modules(&mut self) {
        if self.desired.as_ref().is_some_and(|desired| !desired.held_back.is_empty()) {
            self.compose_anew();
        }
    }

    /// The modules as the status lists them beside the sources.
    pub(super) fn module_states(&self) -> Vec<SourceState> {
        let held_back = self.desired.as_ref().map(|desired| desired.held_back.as_slice()).unwrap_or_default();
        let state = |view: ModuleView| {
            let mut state = view.state;
            if let Some(held) = held_back.iter().find(|held| held.key == view.key)
                && state.error.is_none()
            {
                let place = match (&held.reason.file, held.reason.line) {
                    (Some(file), Some(line)) => format!("{file}:{line}"),
                    _ => String::new(),
                };
                // The message of a diagnostic has its place already.
                let message = match held.reason.message.contains(&place) {
                    true => held.reason.message.clone(),
                    false => format!("{place}: {}", held.reason.message),
                };
                let (class, since) = (held.reason.kind.clone(), held.since);
                state.error = Some(SourceErrorState { class, message, since, rejection: None });
            }
            state
        };
        self.modules.modules().into_iter().map(state).collect()
    }

    /// Whether the desired revision waits for a module to be fetched for the first time.
    pub(super) fn waits_for_modules(&self) -> bool {
        matches!(self.desired.as_ref().map(|desired| &desired.stage), Some(Stage::Waiting(_)))
    }

    /// Says that content is kept back, once.
    pub(super) fn tell_held_back(&self, held_back: &[HeldBack], before: &[HeldBack]) {
        for held in held_back {
            let known = before.iter().any(|other| other.key == held.key && other.reason == held.reason);
            if !known {
                self.emit(EventKind::Stopped, None, format!("{}: {}", held.reason.kind, held.reason.message));
            }
        }
    }
}

/// What is wanted where modules of what is applied are held back: its revision names theirs.
pub(super) fn wanted(applied: &Composition, held_back: &[HeldBack]) -> Composition {
    let mut wanted = applied.clone();
    for module in &mut wanted.modules {
        if let Some(held) = held_back.iter().find(|held| held.key == module.key) {
            module.revision.clone_from(&held.revision);
            module.named = !held.revision.is_empty();
        }
    }
    wanted
}

/// What a module moves with: itself or, where it is a part of another one's tree, that one. `None` for a part of a source.
fn whole_of<'a>(module: &'a ComposedModule, composition: &'a Composition) -> Option<&'a ComposedModule> {
    if !module.revision.is_empty() {
        return Some(module);
    }
    let root = module.module_path.strip_prefix("/@")?.split('/').next()?;
    composition.module(&ModuleKey::new(root))
}

/// The revisions of the sources: under others, what was refused is tried again.
pub(super) fn revisions(sources: &[SourceView]) -> Vec<String> {
    let contents = sources.iter().filter_map(|source| source.content.as_ref());
    contents.map(|content| content.origin.revision.clone()).collect()
}

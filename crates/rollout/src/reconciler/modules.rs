//! The modules of a candidate: which content it is composed with, what is kept back of it, and what is followed.
//!
//! Nothing here waits for a network. What a source's own tree holds is read from there, at the revision that imports it;
//! everything else is what the feed of modules has by now, and when it has more, the reconciler hears of it and composes
//! again. Content that cannot be had is what the last good revision had; content at fault is kept back in favour of that.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use invar_engine::modules::{
    ImportArguments, ImportRequest, ModuleContent, ModuleFile, ModuleKey, ModuleKind,
};
use invar_sources::TreeEntry;

use super::Reconciler;
use super::blame::revisions;
use super::observe::{CHECK_DEADLINE, panicked, took_too_long};
use crate::compose::{ComposedFile, Composition};
use crate::feed::SourceView;
use crate::module::{ComposedModule, ModuleView, Place, is_module, locate, module_digest, tree_module_path};
use crate::pipeline::{Failure, Parsed, Pipeline};
use crate::status::Reason;
use crate::time::Timestamp;

/// Rounds of parsing and finding what is missing: modules import modules.
const ROUNDS: usize = 40;
/// Modules of one configuration.
const MODULES: usize = 1000;
/// Compositions of committed revisions that are remembered rather than read again.
const REMEMBERED: usize = 2;

/// What the reconciler remembers about modules.
#[derive(Debug, Default)]
pub(super) struct ModuleMemory {
    /// What was followed last.
    followed: Vec<ImportRequest>,
    /// What of each module was seen last: the digest of its content, or whether it fails to have any.
    seen: BTreeMap<ModuleKey, Seen>,
    /// Contents that could not be prepared, with the revisions of the sources they could not be prepared under.
    pub(super) refused: BTreeMap<ModuleKey, Refused>,
    /// Compositions by the name of their manifest.
    remembered: Vec<(String, Arc<Composition>)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    digest: Option<String>,
    fails: bool,
}

/// Content that could not be prepared.
#[derive(Clone, Debug)]
pub(super) struct Refused {
    pub(super) digest: String,
    pub(super) under: Vec<String>,
    pub(super) failure: Failure,
}

/// A module whose newest content is not used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct HeldBack {
    pub(super) key: ModuleKey,
    pub(super) reason: Reason,
    /// The revision that is not used.
    pub(super) revision: String,
    pub(super) since: Timestamp,
}

/// Modules of which the last good content is wanted, and why.
pub(super) type KeepBack = BTreeMap<ModuleKey, Failure>;

/// A composition with its modules, as far as they can be had.
pub(super) struct Assembled<C> {
    pub(super) composition: Composition,
    /// The text parsed, which says nothing yet about the modules.
    pub(super) parsed: Result<Parsed<C>, Failure>,
    /// Newest content that was not used.
    pub(super) held_back: Vec<HeldBack>,
    /// Modules without any content.
    pub(super) lacking: Vec<(ImportRequest, Failure)>,
    /// Whether one of those has not been looked at yet.
    pub(super) pending: bool,
}

/// What contents may be taken from.
pub(super) struct Stock {
    pub(super) sources: Vec<SourceView>,
    views: Vec<ModuleView>,
    /// What runs, and what is last known good.
    pub(super) bases: Vec<Arc<Composition>>,
}

/// Where a content came from.
enum Found {
    Newest(ModuleContent),
    LastGood(ComposedModule),
    Lacking { failure: Failure, pending: bool },
}

impl<P: Pipeline> Reconciler<P> {
    /// Everything that a candidate's modules can be taken from now.
    pub(super) async fn stock(&mut self) -> Stock {
        let mut bases = Vec::new();
        let pointers = [&self.control.running, &self.control.last_known_good];
        let manifests: Vec<String> =
            pointers.into_iter().flatten().map(|pointer| pointer.manifest.clone()).collect();
        for manifest in manifests {
            bases.extend(self.composition_of(&manifest).await);
        }
        Stock { sources: self.feed.sources(), views: self.modules.modules(), bases }
    }

    /// The composition of a stored revision.
    pub(super) async fn composition_of(&mut self, manifest: &str) -> Option<Arc<Composition>> {
        let remembered = &mut self.module_memory.remembered;
        if let Some((_, composition)) = remembered.iter().find(|(name, _)| name == manifest) {
            return Some(Arc::clone(composition));
        }
        let name = manifest.to_owned();
        let composition = Arc::new(self.disk(move |state| state.load(&name)).await?.ok()?);
        let remembered = &mut self.module_memory.remembered;
        if remembered.len() >= REMEMBERED {
            remembered.remove(0);
        }
        remembered.push((manifest.to_owned(), Arc::clone(&composition)));
        Some(composition)
    }

    /// Gives `roots` the modules they import: the newest content of each but of those in `keep_back`, of which the last
    /// good one is taken. Follows what is imported.
    pub(super) async fn assemble(
        &mut self,
        roots: Composition,
        stock: &Stock,
        keep_back: &KeepBack,
    ) -> Assembled<P::Candidate> {
        let mut composition = Composition { modules: Vec::new(), ..roots };
        let mut chosen: BTreeMap<ModuleKey, ComposedModule> = BTreeMap::new();
        let mut from_last_good: BTreeSet<ModuleKey> = BTreeSet::new();
        let mut lacking: BTreeMap<ModuleKey, (ImportRequest, Failure)> = BTreeMap::new();
        let mut held_back = BTreeMap::new();
        let mut pending = false;
        let mut rounds = 0;
        let parsed = loop {
            rounds += 1;
            composition.modules = chosen.values().cloned().collect();
            let parsed = match self.parse(&composition).await {
                Ok(parsed) => parsed,
                Err(failure) => break Err(failure),
            };
            if drop_imported_files(&mut composition.files, &parsed.imports, &stock.sources) {
                continue;
            }
            let wanted: Vec<ImportRequest> = parsed
                .missing
                .iter()
                .filter(|request| !lacking.contains_key(&request.key))
                .cloned()
                .collect();
            if wanted.is_empty() {
                break Ok(parsed);
            }
            if rounds > ROUNDS || chosen.len() + wanted.len() > MODULES {
                let message =
                    format!("more than {MODULES} modules, or modules that import modules endlessly");
                break Err(Failure::content(message));
            }
            // The newest of all that is imported so far is fetched while this goes on.
            self.follow(&parsed.imports, stock);
            for request in wanted {
                let parent_is_last_good = parent_of(&request.module_path, &chosen)
                    .is_some_and(|parent| from_last_good.contains(parent));
                let key = request.key.clone();
                let found = if parent_is_last_good {
                    // What belongs to a tree comes from the same revision of it.
                    match self.last_good(&key, stock).await {
                        Some(module) => Found::LastGood(module),
                        None => self.newest(&request, stock, &chosen).await,
                    }
                } else {
                    self.content_for(&request, stock, &chosen, keep_back, &mut held_back).await
                };
                match found {
                    Found::Newest(content) => {
                        chosen.insert(key, ComposedModule::new(&request, &content));
                    }
                    Found::LastGood(module) => {
                        from_last_good.insert(key.clone());
                        chosen.insert(key, ComposedModule { label: request.namespace.clone(), ..module });
                    }
                    // The local pipeline neither waits for a control plane nor needs it.
                    Found::Lacking { .. } if is_remote_config(&request) => {
                        chosen.insert(key, ComposedModule::new(&request, &ModuleContent::default()));
                    }
                    Found::Lacking { failure, pending: not_yet } => {
                        pending |= not_yet;
                        lacking.insert(key, (request, failure));
                    }
                }
            }
        };
        if let Ok(parsed) = &parsed {
            let used: BTreeSet<&ModuleKey> = parsed.imports.iter().map(|request| &request.key).collect();
            chosen.retain(|key, _| used.contains(key));
            held_back.retain(|key, _| used.contains(key));
            lacking.retain(|key, _| used.contains(key));
            self.follow(&parsed.imports, stock);
        }
        composition.modules = chosen.into_values().collect();
        if let Some(base) = stock.bases.first() {
            name_moved(&mut composition, base);
        }
        Assembled {
            composition,
            parsed,
            held_back: held_back.into_values().collect(),
            lacking: lacking.into_values().collect(),
            pending,
        }
    }

    /// Parses off the runtime's threads and less urgently than data: a panic in there is a fault of the text.
    pub(super) async fn parse(&self, composition: &Composition) -> Result<Parsed<P::Candidate>, Failure> {
        let pipeline = Arc::clone(&self.pipeline);
        let composition = composition.clone();
        let work = invar_engine::compute_aside(move || pipeline.parse(&composition));
        let parsed = tokio::time::timeout(CHECK_DEADLINE, work).await;
        self.panic_note.survived();
        match parsed {
            Ok(parsed) => parsed.unwrap_or_else(|_| Err(panicked())),
            Err(_) => Err(took_too_long()),
        }
    }

    async fn content_for(
        &mut self,
        request: &ImportRequest,
        stock: &Stock,
        chosen: &BTreeMap<ModuleKey, ComposedModule>,
        keep_back: &KeepBack,
        held_back: &mut BTreeMap<ModuleKey, HeldBack>,
    ) -> Found {
        let newest = self.newest(request, stock, chosen).await;
        if is_in_tree(request) {
            // It is a part of what imports it: the two are taken and judged as one.
            return newest;
        }
        let key = &request.key;
        let (digest, revision) = match &newest {
            Found::Newest(content) => (module_digest(content), content.revision.clone()),
            Found::LastGood(_) | Found::Lacking { .. } => {
                return match self.last_good(key, stock).await {
                    Some(module) => Found::LastGood(module),
                    None => newest,
                };
            }
        };
        let quarantined = self.control.quarantined(&digest).map(|entry| {
            let failure = Failure::content(entry.reason.clone());
            ("quarantined", failure, entry.stage.clone(), entry.until)
        });
        let refused = || {
            let refused = self.module_memory.refused.get(key)?;
            let same = refused.digest == digest && refused.under == revisions(&stock.sources);
            same.then(|| ("rejected", refused.failure.clone(), "prepare".to_owned(), None))
        };
        let kept =
            || keep_back.get(key).map(|failure| ("rejected", failure.clone(), "validate".to_owned(), None));
        let Some((kind, failure, stage, until)) = quarantined.or_else(refused).or_else(kept) else {
            return newest;
        };
        // Without anything else to run, it is tried.
        let module = match self.last_good(key, stock).await {
            Some(module) => module,
            None if is_remote_config(request) => ComposedModule::new(request, &ModuleContent::default()),
            None => return newest,
        };
        if module.digest() == digest {
            return newest;
        }
        let what = if revision.is_empty() {
            request.namespace.clone()
        } else {
            format!("{}={revision}", request.namespace)
        };
        let reason = Reason {
            stage,
            kind: kind.to_owned(),
            message: format!("the module {what} is not used, its last good content is: {}", failure.message),
            file: failure.file.clone(),
            line: failure.line,
            until,
        };
        held_back.insert(key.clone(), HeldBack { key: key.clone(), reason, revision, since: self.now() });
        Found::LastGood(module)
    }

    /// What a module held in what runs, in what is last known good, or in the newest committed revision that had it.
    async fn last_good(&self, key: &ModuleKey, stock: &Stock) -> Option<ComposedModule> {
        if let Some(module) = stock.bases.iter().find_map(|base| base.module(key)) {
            return Some(module.clone());
        }
        let key = key.clone();
        self.disk(move |state| state.find_module(&key)).await.flatten()
    }

    /// The newest content there is.
    async fn newest(
        &self,
        request: &ImportRequest,
        stock: &Stock,
        chosen: &BTreeMap<ModuleKey, ComposedModule>,
    ) -> Found {
        let lacking = |failure: Failure| Found::Lacking { failure: placed(failure, request), pending: false };
        if let ImportArguments::File(file) = &request.arguments {
            match locate(&request.module_path, &file.filename) {
                Err(failure) => return lacking(failure),
                Ok(Place::Tree { root, path }) => {
                    return match self.in_tree(&root, &path, stock, chosen).await {
                        Ok(content) => Found::Newest(content),
                        Err(failure) => lacking(failure),
                    };
                }
                Ok(Place::Host(_)) => {}
            }
        }
        match stock.views.iter().find(|view| view.key == request.key) {
            Some(ModuleView { content: Some(content), .. }) => Found::Newest(ModuleContent::clone(content)),
            Some(ModuleView { failure: Some(failure), .. }) => lacking(failure.clone()),
            _ => {
                let failure = Failure::environment("it is being fetched for the first time");
                Found::Lacking { failure: placed(failure, request), pending: true }
            }
        }
    }

    /// A file or folder of the tree of a source or of another module.
    async fn in_tree(
        &self,
        root: &str,
        path: &str,
        stock: &Stock,
        chosen: &BTreeMap<ModuleKey, ComposedModule>,
    ) -> Result<ModuleContent, Failure> {
        let content = |view: &SourceView| view.content.clone();
        let source = stock.sources.iter().find(|view| view.state.name == root).and_then(content);
        let (entry, prefix, place) = if let Some(source) = source {
            let entry = self.feed.read(root, &source.origin.revision, path).await?;
            let prefix = if stock.sources.len() > 1 { format!("{root}:") } else { String::new() };
            (entry, prefix, source.origin.revision.clone())
        } else if let Some(module) = chosen.get(&ModuleKey::new(root)) {
            let entry = self.modules.read(&module.key, &module.revision, path).await?;
            (entry, tree_prefix(module), module.revision_text())
        } else {
            return Err(Failure::content(format!("nothing is called /@{root}")));
        };
        let Some(entry) = entry else {
            return Err(Failure::content(format!("there is no \"{path}\" in {place}")));
        };
        let module_path = tree_module_path(root, path, &entry);
        let file = |name: &str, content| ModuleFile { name: format!("{prefix}{name}"), content };
        let files = match entry {
            TreeEntry::File(content) => vec![file(path, content)],
            TreeEntry::Folder(files) if files.is_empty() => {
                return Err(Failure::content(format!(
                    "the folder \"{path}\" has no *.alloy files in {place}"
                )));
            }
            TreeEntry::Folder(files) => {
                let below = |name: String| if path.is_empty() { name } else { format!("{path}/{name}") };
                files.into_iter().map(|(name, content)| file(&below(name), content)).collect()
            }
        };
        Ok(ModuleContent { files, module_path, revision: String::new() })
    }

    /// Follows these imports, and those of what runs.
    pub(super) fn follow(&mut self, imports: &[ImportRequest], stock: &Stock) {
        let mut wanted: Vec<ImportRequest> = imports.to_vec();
        let runs = |key: &ModuleKey| stock.bases.iter().any(|base| base.module(key).is_some());
        let mut known: BTreeSet<ModuleKey> = wanted.iter().map(|request| request.key.clone()).collect();
        for request in &self.module_memory.followed {
            if runs(&request.key) && known.insert(request.key.clone()) {
                wanted.push(request.clone());
            }
        }
        self.follow_exactly(wanted);
    }

    pub(super) fn follow_exactly(&mut self, mut wanted: Vec<ImportRequest>) {
        wanted.retain(|request| match &request.arguments {
            ImportArguments::File(file) => {
                matches!(locate(&request.module_path, &file.filename), Ok(Place::Host(_)))
            }
            _ => true,
        });
        self.modules.follow(&wanted);
        self.module_memory.followed = wanted;
    }

    /// The modules that changed since this was asked last.
    pub(super) fn moved_modules(&mut self) -> Vec<ModuleView> {
        let views = self.modules.modules();
        let mut seen = BTreeMap::new();
        let mut moved = Vec::new();
        for view in views {
            let now = Seen {
                digest: view.content.as_deref().map(module_digest),
                fails: view.content.is_none() && view.failure.is_some(),
            };
            let nothing_yet = now.digest.is_none() && !now.fails;
            if !nothing_yet && self.module_memory.seen.get(&view.key) != Some(&now) {
                moved.push(view.clone());
            }
            seen.insert(view.key, now);
        }
        self.module_memory.seen = seen;
        moved
    }
}

/// Whether an import is of the tree that it stands in itself.
fn is_in_tree(request: &ImportRequest) -> bool {
    matches!(
        &request.arguments,
        ImportArguments::File(file)
            if matches!(locate(&request.module_path, &file.filename), Ok(Place::Tree { .. }))
    )
}

/// The module whose tree a `module_path` lies in.
fn parent_of<'a>(
    module_path: &str,
    chosen: &'a BTreeMap<ModuleKey, ComposedModule>,
) -> Option<&'a ModuleKey> {
    let root = module_path.strip_prefix("/@")?.split('/').next()?;
    chosen.get_key_value(&ModuleKey::new(root)).map(|(key, _)| key)
}

/// What stands before the paths of a module's tree in diagnostics.
fn tree_prefix(module: &ComposedModule) -> String {
    let first = module.files.first().map(|(name, _)| name.as_str()).unwrap_or_default();
    match first.rsplit_once("//") {
        Some((repository, _)) => format!("{repository}//"),
        None => String::new(),
    }
}

/// Files of a source that are imported and can be modules are no pipelines. Says whether there were any among `files`.
fn drop_imported_files(
    files: &mut Vec<ComposedFile>,
    imports: &[ImportRequest],
    sources: &[SourceView],
) -> bool {
    let before = files.len();
    for request in imports {
        let ImportArguments::File(file) = &request.arguments else { continue };
        let Ok(Place::Tree { root, path }) = locate(&request.module_path, &file.filename) else { continue };
        if !sources.iter().any(|source| source.state.name == root) {
            continue;
        }
        let in_folder = |file: &ComposedFile| {
            let folder = file.path.rsplit_once('/').map_or("", |(folder, _)| folder);
            folder == path && file.path.ends_with(".alloy")
        };
        files.retain(|file| {
            let named = file.source == root && (file.path == path || in_folder(file));
            !(named && is_module(&file.content))
        });
    }
    files.len() < before
}

/// Marks the modules that moved by themselves under the same revisions of the sources.
fn name_moved(composition: &mut Composition, base: &Composition) {
    let origins = |composition: &Composition| -> Vec<String> {
        composition.origins.iter().map(|origin| origin.revision.clone()).collect()
    };
    let same_sources = origins(composition) == origins(base);
    for module in &mut composition.modules {
        let before = base.module(&module.key).filter(|_| !module.revision.is_empty());
        module.named =
            before.is_some_and(|before| before.digest() != module.digest() || (same_sources && before.named));
    }
}

/// A failure to have a module, at the import block.
fn placed(failure: Failure, request: &ImportRequest) -> Failure {
    let line = request.location().strip_prefix(request.file()).and_then(|rest| {
        let mut parts = rest.split(':');
        parts.nth(1)?.parse().ok()
    });
    Failure {
        message: format!("cannot import the module \"{}\": {}", request.namespace, failure.message),
        file: Some(request.file().to_owned()),
        line,
        ..failure
    }
}

/// Whether it is what a control plane sends, without which everything else can run.
fn is_remote_config(request: &ImportRequest) -> bool {
    request.kind() == ModuleKind::RemoteConfig
}

//! Modules as the reconciler sees them: their content in a composition, and the feed that fetches what sources do not hold.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use invar_engine::modules::{ImportRequest, ModuleContent, ModuleFile, ModuleKey, ModuleSet};
use invar_sources::TreeEntry;
use invar_syntax::ast::Statement;
use sha2::{Digest, Sha256};
use tokio::sync::watch;

use crate::hex;
use crate::pipeline::Failure;
use crate::status::SourceState;

/// A module of a composition: what an import block brought in.
#[derive(Clone, PartialEq, Eq)]
pub struct ComposedModule {
    /// Names it.
    pub key: ModuleKey,
    /// The kind of import: `file`, `http` or `git`.
    pub kind: String,
    /// The label of the import block, for people.
    pub label: String,
    /// Its own revision; empty where it is a part of the source that imports it.
    pub revision: String,
    /// Where relative paths in its files begin.
    pub module_path: String,
    /// Whether it moved by itself since the revision of the sources was composed, so that the revision text names it.
    pub named: bool,
    /// Its files, by the name that diagnostics show.
    pub files: Vec<(String, Bytes)>,
}

impl fmt::Debug for ComposedModule {
    // Contents are left out: they are long, and somebody may have written a password into one.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ComposedModule")
            .field("key", &self.key)
            .field("label", &self.label)
            .field("revision", &self.revision)
            .finish_non_exhaustive()
    }
}

impl ComposedModule {
    /// A module with this content.
    #[must_use]
    pub fn new(request: &ImportRequest, content: &ModuleContent) -> Self {
        Self {
            key: request.key.clone(),
            kind: request.kind().as_str().to_owned(),
            label: request.namespace.clone(),
            revision: content.revision.clone(),
            module_path: content.module_path.clone(),
            named: false,
            files: content.files.iter().map(|file| (file.name.clone(), file.content.clone())).collect(),
        }
    }

    /// Digest of its content, whatever revision it is of.
    #[must_use]
    pub fn digest(&self) -> String {
        digest(&self.module_path, self.files.iter().map(|(name, content)| (name.as_str(), &content[..])))
    }

    /// Its name with its revision, as revision texts and quarantine entries have it.
    #[must_use]
    pub fn revision_text(&self) -> String {
        format!("{}={}", self.label, self.revision)
    }

    fn content(&self) -> ModuleContent {
        let file =
            |(name, content): &(String, Bytes)| ModuleFile { name: name.clone(), content: content.clone() };
        ModuleContent {
            files: self.files.iter().map(file).collect(),
            module_path: self.module_path.clone(),
            revision: self.revision.clone(),
        }
    }
}

/// The digest that [`ComposedModule::digest`] gives, of content that no composition has yet.
#[must_use]
pub fn module_digest(content: &ModuleContent) -> String {
    digest(&content.module_path, content.files.iter().map(|file| (file.name.as_str(), &file.content[..])))
}

fn digest<'a>(module_path: &'a str, files: impl Iterator<Item = (&'a str, &'a [u8])>) -> String {
    let mut hash = Sha256::new();
    let mut add = |part: &[u8]| {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    };
    add(module_path.as_bytes());
    for (name, content) in files {
        add(name.as_bytes());
        add(content);
    }
    hex(&hash.finalize())
}

/// The modules as the engine takes them.
pub(crate) fn module_set(modules: &[ComposedModule]) -> ModuleSet {
    let mut set = ModuleSet::new();
    for module in modules {
        set.insert(module.key.clone(), module.content());
    }
    set
}

/// One module that is followed, as it is now.
#[derive(Clone, Debug)]
pub struct ModuleView {
    /// Which one.
    pub key: ModuleKey,
    /// What the status shows.
    pub state: SourceState,
    /// One change is whole, so that it needs no quiet time.
    pub atomic: bool,
    /// What it holds; none until it was fetched for the first time.
    pub content: Option<Arc<ModuleContent>>,
    /// The failure it is in.
    pub failure: Option<Failure>,
}

/// Where the content of modules comes from that no source of the settings holds: Git, HTTP, files of the host.
pub trait ModuleFeed: fmt::Debug + Send + Sync + 'static {
    /// Fetches and watches the modules of these imports, and no others from now on. Does not wait.
    fn follow(&self, requests: &[ImportRequest]);

    /// All that are followed, as they are now.
    fn modules(&self) -> Vec<ModuleView>;

    /// Changes whenever `modules` would answer differently.
    fn changes(&self) -> watch::Receiver<u64>;

    /// Reads in the tree that a module's content at `revision` is a part of, as imports within it do. `None` where nothing
    /// is there.
    fn read<'a>(
        &'a self,
        key: &'a ModuleKey,
        revision: &'a str,
        path: &'a str,
    ) -> BoxFuture<'a, Result<Option<TreeEntry>, Failure>>;

    /// Looks at the module called `name` in the status now (at all of them for `None`) and returns when they have
    /// answered; `false` if none has that name.
    fn reconcile<'a>(&'a self, name: Option<&'a str>) -> BoxFuture<'a, bool>;
}

/// A feed for configurations whose modules all lie within their sources.
#[derive(Debug)]
pub struct NoModules {
    changes: watch::Sender<u64>,
}

impl Default for NoModules {
    fn default() -> Self {
        Self { changes: watch::Sender::new(0) }
    }
}

impl ModuleFeed for NoModules {
    fn follow(&self, _requests: &[ImportRequest]) {}

    fn modules(&self) -> Vec<ModuleView> {
        Vec::new()
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    fn read<'a>(
        &'a self,
        _key: &'a ModuleKey,
        _revision: &'a str,
        _path: &'a str,
    ) -> BoxFuture<'a, Result<Option<TreeEntry>, Failure>> {
        Box::pin(std::future::ready(Ok(None)))
    }

    fn reconcile<'a>(&'a self, name: Option<&'a str>) -> BoxFuture<'a, bool> {
        Box::pin(std::future::ready(name.is_none()))
    }
}

/// Where an imported file is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// In the tree of a source or, under its key, of a module; the path is normalized.
    Tree {
        /// The name of the source or key of the module.
        root: String,
        /// Names joined by `/`; empty for the root.
        path: String,
    },
    /// On the host, by its path.
    Host(String),
}

/// Where `filename` is for a file whose relative paths begin at `module_path`.
///
/// # Errors
/// It leads out of its tree, or from an address to a file.
pub fn locate(module_path: &str, filename: &str) -> Result<Place, Failure> {
    let relative = !filename.starts_with('/');
    if relative && module_path.contains("://") {
        return Err(Failure::content(format!(
            "a module that was fetched over HTTP cannot import the file \"{filename}\"; it can import by http or git"
        )));
    }
    let joined = match module_path {
        folder if relative && !folder.is_empty() => format!("{folder}/{filename}"),
        _ => filename.to_owned(),
    };
    let Some(virtual_path) = joined.strip_prefix("/@") else { return Ok(Place::Host(joined)) };
    let (root, path) = virtual_path.split_once('/').unwrap_or((virtual_path, ""));
    match invar_sources::normalize_path(path) {
        Some(path) => Ok(Place::Tree { root: root.to_owned(), path }),
        None => Err(Failure::content(format!(
            "\"{filename}\" leads out of the snapshot that it is imported from"
        ))),
    }
}

/// Whether a text can be a module: all it has at its top is `declare` and `import` blocks.
#[must_use]
pub fn is_module(text: &[u8]) -> bool {
    let (Some(file), diagnostics) = invar_syntax::parser::parse_bytes("", text) else { return false };
    let allowed = |statement: &Statement| match statement {
        Statement::Block(block) => match block.name.first() {
            Some(first) => &*first.name == "declare" || &*first.name == "import",
            None => false,
        },
        Statement::Attribute(_) => false,
    };
    let statements = &file.body.statements;
    !diagnostics.has_errors() && !statements.is_empty() && statements.iter().all(allowed)
}

/// The `module_path` of what was read at `path` in the tree `root`.
#[must_use]
pub fn tree_module_path(root: &str, path: &str, entry: &TreeEntry) -> String {
    let folder = match entry {
        TreeEntry::File(_) => path.rsplit_once('/').map_or("", |(folder, _)| folder),
        TreeEntry::Folder(_) => path,
    };
    if folder.is_empty() { format!("/@{root}") } else { format!("/@{root}/{folder}") }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn tree(root: &str, path: &str) -> Place {
        Place::Tree { root: root.to_owned(), path: path.to_owned() }
    }

    #[test]
    fn relative_names_begin_at_the_module_path() {
        let at = |folder: &str, name: &str| locate(folder, name).unwrap();
        assert_eq!(at("/@fleet/environments/dev", "net.alloy"), tree("fleet", "environments/dev/net.alloy"));
        assert_eq!(at("/@fleet/environments/dev", "../../modules"), tree("fleet", "modules"));
        assert_eq!(at("/etc/invar", "modules/net.alloy"), Place::Host("/etc/invar/modules/net.alloy".into()));
        assert_eq!(at("", "modules/net.alloy"), Place::Host("modules/net.alloy".into()));
    }

    #[test]
    fn absolute_names_are_of_a_tree_or_of_the_host() {
        let at = |name: &str| locate("/@fleet", name).unwrap();
        assert_eq!(at("/@git-ab/lib/net.alloy"), tree("git-ab", "lib/net.alloy"));
        assert_eq!(at("/@fleet"), tree("fleet", ""));
        assert_eq!(at("/etc/net.alloy"), Place::Host("/etc/net.alloy".into()));
    }

    #[test]
    fn a_module_declares_and_imports_and_nothing_else() {
        assert!(is_module(b"declare \"a\" { }\nimport.file \"b\" {\n\tfilename = \"b\"\n}"));
        for text in ["", "// nothing", "declare \"a\" { }\nlogging { }", "a = 1", "declare \"a\" {"] {
            assert!(!is_module(text.as_bytes()), "{text}");
        }
    }

    #[test]
    fn nothing_leads_out_of_a_tree_or_from_http_to_files() {
        assert!(locate("/@fleet", "../../etc/passwd").is_err());
        assert!(locate("https://host/modules", "net.alloy").is_err());
    }
}

//! Modules: what `import.*` blocks bring in. The engine fetches nothing: it says what a configuration imports, and takes the
//! content as data. Whoever fetches parses again with what was found, until nothing is missing.

mod arguments;
mod lexicon;
mod resolve;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use invar_policy::Access;
use invar_syntax::check::{UnknownTypes, check_block};
use invar_syntax::diagnostic::{Diagnostic, Diagnostics};
use invar_syntax::schema::Schema;

use crate::block::BlockRef;
use crate::ceiling::{self, refused_in};
use crate::codes;
use crate::evaluate::decode_diagnostics;

pub use arguments::{
    FileImport, GitBasicAuth, GitImport, GitSshKey, HttpImport, ImportArguments, ImportDetector, ModuleKind,
};
pub(crate) use arguments::{REMOTE_CONFIG, StringImport};
pub(crate) use lexicon::{Declare, Import, ImportContent, Lexicon, Module, Parameter};
use resolve::CLIENT;
pub(crate) use resolve::{Resolver, TEMPLATE, is_import, text_key};

/// Names the content of a module: a digest of the import's kind and of the arguments that decide what it brings in (not how
/// often it is fetched, nor with which credentials). The same in every process; holds no text of the arguments.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ModuleKey(Arc<str>);

/// One file of a module.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ModuleFile {
    /// What diagnostics call it: a path within the repository or snapshot, or an address.
    pub name: String,
    /// Its text.
    pub content: Bytes,
}

/// What an import brings in.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ModuleContent {
    /// Its files: one, or those of a directory in the order of their names.
    pub files: Vec<ModuleFile>,
    /// The `module_path` its expressions see.
    pub module_path: String,
    /// Which revision it is, for people.
    pub revision: String,
}

/// The contents of modules by key, as far as whoever fetches has them.
#[derive(Clone, Debug, Default)]
pub struct ModuleSet {
    entries: BTreeMap<ModuleKey, Result<Arc<ModuleContent>, String>>,
    open: BTreeSet<ModuleKey>,
}

/// An import that a configuration makes.
#[derive(Clone)]
pub struct ImportRequest {
    /// Names the content.
    pub key: ModuleKey,
    /// The evaluated arguments. May hold credentials.
    pub arguments: ImportArguments,
    /// The label of the import block; of one within another module, the labels on the way joined by `/`.
    pub namespace: String,
    /// The `module_path` of the file that imports.
    pub module_path: String,
    /// What those who wrote the import may use of the host.
    pub access: Access,
    pub(crate) block: BlockRef,
}

/// A module that cannot be used, or an import block that does not say what to import. The rest of the configuration was parsed
/// all the same; checking it reports these errors among the others.
#[derive(Clone, Debug)]
pub struct ModuleFault {
    /// The module at fault; none if it is the import block.
    pub key: Option<ModuleKey>,
    /// What is wrong, with places in the module's own files.
    pub diagnostics: Diagnostics,
}

// === impl ModuleKey ===

impl ModuleKey {
    /// A key read back from where it was stored.
    pub fn new(text: impl Into<Arc<str>>) -> Self {
        Self(text.into())
    }

    /// The key: the kind, a dash and hexadecimal digits. Fit for a file name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ModuleKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ModuleKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

// === impl ModuleSet ===

impl ModuleSet {
    /// A set without modules.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds or replaces the content of a module.
    pub fn insert(&mut self, key: ModuleKey, content: ModuleContent) {
        self.entries.insert(key, Ok(Arc::new(content)));
    }

    /// Notes that a module cannot be had, and why: the import block gets that as an error, and the module does not count as
    /// missing.
    pub fn fail(&mut self, key: ModuleKey, reason: impl Into<String>) {
        self.entries.insert(key, Err(reason.into()));
    }

    /// Notes that a module is not to be had here and that this is no fault, as where a configuration is only checked: the
    /// module does not count as missing, what it declares is not known, and anything is allowed of it.
    pub fn leave_open(&mut self, key: ModuleKey) {
        self.open.insert(key);
    }

    /// Forgets a module.
    pub fn remove(&mut self, key: &ModuleKey) {
        self.entries.remove(key);
        self.open.remove(key);
    }

    /// The content of a module, if the set has it.
    #[must_use]
    pub fn get(&self, key: &ModuleKey) -> Option<&Arc<ModuleContent>> {
        self.entries.get(key).and_then(|entry| entry.as_ref().ok())
    }

    /// The modules that have content, by key.
    pub fn iter(&self) -> impl Iterator<Item = (&ModuleKey, &Arc<ModuleContent>)> {
        self.entries.iter().filter_map(|(key, entry)| entry.as_ref().ok().map(|content| (key, content)))
    }

    pub(crate) fn is_open(&self, key: &ModuleKey) -> bool {
        self.open.contains(key)
    }

    pub(crate) fn entry(&self, key: &ModuleKey) -> Option<&Result<Arc<ModuleContent>, String>> {
        self.entries.get(key)
    }
}

// === impl ImportRequest ===

impl ImportRequest {
    /// The kind of import.
    #[must_use]
    pub fn kind(&self) -> ModuleKind {
        self.arguments.kind()
    }

    /// Where the import block stands: `file:line:column`.
    #[must_use]
    pub fn location(&self) -> String {
        self.block.location()
    }

    /// The name of the file in which the import block stands.
    #[must_use]
    pub fn file(&self) -> &str {
        self.block.file_name()
    }

    /// An error at the import block.
    #[must_use]
    pub fn diagnostic(&self, message: impl Into<String>) -> Diagnostic {
        self.block.label(Diagnostic::error(codes::IMPORT, message), self.block.header(), "")
    }
}

impl ImportRequest {
    /// Checks the `client` block of an `import.http` against what HTTP clients take.
    pub(crate) fn check_client(&self, schema: &Schema) -> Diagnostics {
        let mut found = Diagnostics::new();
        for (place, block) in self.block.body().blocks() {
            if self.kind() == ModuleKind::Http && block.dotted_name() == CLIENT {
                let errors = check_block(block, schema, &UnknownTypes);
                found.extend(decode_diagnostics(&place, errors));
                if let ImportArguments::Http { client: Some(client), .. } = &self.arguments {
                    let refused = refused_in(schema, &client.body, &self.access).into_iter();
                    found.extend(refused.map(|refused| {
                        place.label(ceiling::diagnostic(refused.refusal), place.header(), "")
                    }));
                }
            }
        }
        found
    }
}

impl fmt::Debug for ImportRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ImportRequest")
            .field("key", &self.key)
            .field("namespace", &self.namespace)
            .field("at", &self.location())
            .finish_non_exhaustive()
    }
}

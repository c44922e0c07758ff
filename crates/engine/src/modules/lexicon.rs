//! What a body declares and imports: the names by which blocks in it, and in bodies nested in it, may be custom components.
//! Made once while parsing; instances share it.

use std::sync::Arc;

use foldhash::HashMap;
use invar_syntax::ast::File;

use super::{ModuleKey, ModuleKind};
use crate::block::{BlockRef, BodyRef};

/// The declares and imports of one body. Of several with one label the first counts; the others are reported where the graph is
/// built.
#[derive(Debug, Default)]
pub(crate) struct Lexicon {
    /// What `module_path` is in this body.
    pub(crate) module_path: Arc<str>,
    pub(crate) declares: HashMap<Arc<str>, Arc<Declare>>,
    pub(crate) imports: HashMap<Arc<str>, Arc<Import>>,
    /// What the templates of `foreach` blocks declare and import, by the label of the block.
    pub(crate) templates: HashMap<Arc<str>, Arc<Self>>,
}

/// A `declare` block.
#[derive(Debug)]
pub(crate) struct Declare {
    pub(crate) label: Arc<str>,
    pub(crate) block: BlockRef,
    pub(crate) body: BodyRef,
    /// What its body declares and imports.
    pub(crate) lexicon: Arc<Lexicon>,
}

/// An `import.*` block.
#[derive(Debug)]
pub(crate) struct Import {
    pub(crate) label: Arc<str>,
    pub(crate) kind: ModuleKind,
    pub(crate) block: BlockRef,
    pub(crate) content: ImportContent,
}

/// What an import brings in, as far as the configuration alone can tell.
#[derive(Clone, Debug)]
pub(crate) enum ImportContent {
    /// A module.
    Module(Arc<Module>),
    /// It is a value that only running components give.
    Dynamic,
    /// It cannot be told: it is missing or faulty, which is reported elsewhere, or depends on what is not known here.
    Unknown,
}

/// A parsed module.
#[derive(Debug)]
pub(crate) struct Module {
    pub(crate) key: ModuleKey,
    pub(crate) bodies: Vec<BodyRef>,
    pub(crate) lexicon: Arc<Lexicon>,
}

// === impl Module ===

impl Module {
    /// Its files.
    pub(crate) fn files(&self) -> impl Iterator<Item = &File> {
        self.bodies.iter().map(BodyRef::file_of)
    }
}

// === impl Lexicon ===

impl Lexicon {
    /// Whether a block whose name begins so is a custom component here.
    pub(crate) fn has(&self, first: &str) -> bool {
        self.declares.contains_key(first) || self.imports.contains_key(first)
    }
}

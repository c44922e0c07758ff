//! What a body declares and imports: the names by which blocks in it, and in bodies nested in it, may be custom components.
//! Made once while parsing; instances share it.

use std::sync::{Arc, OnceLock};

use foldhash::HashMap;
use invar_syntax::ast::File;
use invar_syntax::evaluate::evaluate;
use invar_syntax::scope::EmptyScope;
use invar_syntax::value::Value;

use super::{ModuleKey, ModuleKind};
use crate::block::{BlockRef, BodyRef};

/// The declares and imports of one body. Of several with one label the first counts; the others are reported where the graph is
/// built.
#[derive(Debug, Default)]
pub(crate) struct Lexicon {
    /// What `module_path` is in this body.
    pub(crate) module_path: Arc<str>,
    pub(crate) declares: HashMap<Arc<str>, Arc<Declare>>,
    /// Declares without a label, or with one that is taken: nothing can use them, but they are checked all the same.
    pub(crate) refused: Vec<Arc<Declare>>,
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
    interface: OnceLock<Interface>,
}

/// What a `declare` takes and gives, in source order; of several with one name the first.
#[derive(Debug, Default)]
pub(crate) struct Interface {
    pub(crate) arguments: Vec<Parameter>,
    pub(crate) exports: Vec<(Arc<str>, BlockRef)>,
}

/// An `argument` block.
#[derive(Debug)]
pub(crate) struct Parameter {
    pub(crate) name: Arc<str>,
    pub(crate) block: BlockRef,
    /// Whether an instance may leave it out.
    pub(crate) optional: bool,
}

/// An `import.*` block.
#[derive(Debug)]
pub(crate) struct Import {
    pub(crate) label: Arc<str>,
    pub(crate) kind: ModuleKind,
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

// === impl Declare ===

impl Declare {
    pub(crate) fn new(label: &Arc<str>, block: BlockRef, lexicon: Arc<Lexicon>) -> Self {
        let body = block.body();
        Self { label: Arc::clone(label), block, body, lexicon, interface: OnceLock::new() }
    }

    /// What it takes and gives.
    pub(crate) fn interface(&self) -> &Interface {
        self.interface.get_or_init(|| {
            let mut interface = Interface::default();
            for (place, block) in self.body.blocks() {
                let ([name], Some(label)) = (&*block.name, &block.label) else { continue };
                let name_taken = match &*name.name {
                    "argument" => interface.arguments.iter().any(|known| known.name == label.text),
                    "export" => interface.exports.iter().any(|(known, _)| *known == label.text),
                    _ => continue,
                };
                if name_taken {
                    continue;
                }
                if &*name.name == "export" {
                    interface.exports.push((Arc::clone(&label.text), place));
                } else {
                    let given = block.body.attributes().find(|attribute| &*attribute.name.name == "optional");
                    let optional = given.and_then(|attribute| evaluate(&attribute.value, &EmptyScope).ok());
                    let optional = optional == Some(Value::Bool(true));
                    interface.arguments.push(Parameter {
                        name: Arc::clone(&label.text),
                        block: place,
                        optional,
                    });
                }
            }
            interface
        })
    }
}

impl Interface {
    pub(crate) fn has_argument(&self, name: &str) -> bool {
        self.arguments.iter().any(|parameter| &*parameter.name == name)
    }
}

// === impl Import ===

impl Import {
    /// The name of its node within its frame, if it has one.
    pub(crate) fn node_name(&self) -> String {
        format!("{}.{}", self.kind, self.label)
    }
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

//! A configuration: parsed files and the inputs they are evaluated with. Immutable; what generations are made of.

mod builder;
mod digest;

use std::sync::Arc;

use invar_policy::Access;
use invar_syntax::ast::File;
use invar_syntax::diagnostic::Diagnostics;
use invar_syntax::evaluate::Reference;
use invar_syntax::scope::{Missing, Scope};
use invar_syntax::stdlib;
use invar_syntax::value::Value;

use crate::block::BodyRef;
use crate::ceiling::guarded_name;
pub(crate) use crate::inputs::INPUT_NAMES;
use crate::modules::{ImportRequest, Lexicon, ModuleFault, ModuleSet};
use crate::secrets::SecretTable;

pub use builder::ConfigurationBuilder;
pub(crate) use digest::{add_text, hexadecimal};

pub use crate::inputs::Inputs;

/// Parsed files with their inputs and the modules they import.
#[derive(Debug)]
pub struct Configuration {
    /// The files of the local root in composition order; those of other roots and of modules are not among them.
    pub files: Vec<Arc<File>>,
    /// What expressions may use.
    pub inputs: Inputs,
    /// SHA-256, in hexadecimal, over the tokens of each file without comments, its path, the modules, and the inputs that all
    /// these use: two configurations of one digest mean the same.
    pub digest: String,
    /// The revision it came from, for people.
    pub revision: String,
    pub(crate) roots: Vec<ScopeRoot>,
    requests: Vec<ImportRequest>,
    missing: Vec<ImportRequest>,
    faults: Vec<ModuleFault>,
    /// For what is imported by modules that only running components give.
    pub(crate) module_set: Arc<ModuleSet>,
    /// The secrets it names.
    pub(crate) secrets: Arc<SecretTable>,
}

/// Files that see each other, and nothing of other roots.
#[derive(Debug)]
pub(crate) struct ScopeRoot {
    /// What stands before the names of its nodes, with a slash; empty for the local root.
    pub(crate) prefix: String,
    pub(crate) bodies: Vec<BodyRef>,
    pub(crate) lexicon: Arc<Lexicon>,
}

/// The inputs as names, for expressions that must have a value before anything runs.
pub(crate) struct InputScope<'a> {
    pub(crate) inputs: &'a Inputs,
    /// The `module_path` of the file.
    pub(crate) module_path: &'a str,
    /// What those who wrote the expression may use.
    pub(crate) access: Access,
}

// === impl InputScope ===

impl Scope for InputScope<'_> {
    fn resolve(&self, path: &[&str]) -> Option<(Value, usize)> {
        if let Some(guarded) = guarded_name(path, &self.access, !self.inputs.off_host) {
            return Some(guarded);
        }
        match path.first()? {
            &"module_path" => Some((Value::string(self.module_path), 1)),
            _ => self.inputs.resolve(path),
        }
    }

    fn names(&self) -> Vec<String> {
        INPUT_NAMES.map(str::to_owned).to_vec()
    }

    fn missing(&self, path: &[&str]) -> Option<Missing> {
        self.inputs.missing(path)
    }
}

/// Whether a name has the same value before anything runs.
pub(crate) fn is_constant(reference: &Reference) -> bool {
    let Some(first) = reference.path.first() else { return true };
    INPUT_NAMES.contains(&&**first) || stdlib::lookup(first).is_some()
}

// === impl Configuration ===

impl Configuration {
    /// Starts a configuration of several roots or with modules.
    #[must_use]
    pub fn builder(inputs: Inputs, revision: impl Into<String>) -> ConfigurationBuilder {
        ConfigurationBuilder::new(inputs, revision.into())
    }

    /// Parses files given as path and content, in composition order. Modules they import are missing then; see
    /// [`Configuration::builder`].
    ///
    /// # Errors
    /// All syntax errors of all files.
    pub fn parse<N: AsRef<str>, B: AsRef<[u8]>>(
        files: impl IntoIterator<Item = (N, B)>,
        inputs: Inputs,
        revision: impl Into<String>,
    ) -> Result<Self, Diagnostics> {
        Self::builder(inputs, revision).files(files).parse()
    }

    /// A configuration without files.
    #[must_use]
    pub fn empty() -> Self {
        Self::builder(Inputs::default(), "").build()
    }

    /// All imports whose content has to be fetched, each content once, in source order; as far as they can be told while some
    /// are [missing](Self::missing_modules).
    #[must_use]
    pub fn modules(&self) -> &[ImportRequest] {
        &self.requests
    }

    /// The imports whose content the module set does not have. Checking, planning and preparing such a configuration fails with
    /// an error at each of their blocks.
    #[must_use]
    pub fn missing_modules(&self) -> &[ImportRequest] {
        &self.missing
    }

    /// What is wrong with modules and import blocks. Checking, planning and preparing report it too.
    #[must_use]
    pub fn module_faults(&self) -> &[ModuleFault] {
        &self.faults
    }
}

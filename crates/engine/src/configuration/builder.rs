//! Puts a configuration together: files of one or several roots, and the modules they import.

use std::sync::Arc;

use invar_syntax::ast::File;
use invar_syntax::diagnostic::Diagnostics;
use invar_syntax::parser::parse_bytes;

use super::digest::digest;
use super::{Configuration, Inputs, ScopeRoot};
use crate::block::BodyRef;
use crate::modules::{ModuleSet, REMOTE_CONFIG, Resolver};
use crate::secrets::SecretTable;

/// Collects what a [`Configuration`] is made of.
#[derive(Debug)]
pub struct ConfigurationBuilder {
    inputs: Inputs,
    revision: String,
    /// Files by the prefix of their root, that of the local root is empty and comes first.
    roots: Vec<(String, Vec<Arc<File>>)>,
    modules: Arc<ModuleSet>,
    diagnostics: Diagnostics,
}

// === impl ConfigurationBuilder ===

impl ConfigurationBuilder {
    pub(super) fn new(inputs: Inputs, revision: String) -> Self {
        Self {
            inputs,
            revision,
            roots: vec![(String::new(), Vec::new())],
            modules: Arc::default(),
            diagnostics: Diagnostics::new(),
        }
    }

    /// Adds files to the local root, as path and content, in composition order.
    #[must_use]
    pub fn files<N: AsRef<str>, B: AsRef<[u8]>>(self, files: impl IntoIterator<Item = (N, B)>) -> Self {
        self.root("", files)
    }

    /// Adds files to a root of its own, such as `remotecfg`: its nodes are named `remotecfg/…`, and neither side sees the other.
    #[must_use]
    pub fn root<N: AsRef<str>, B: AsRef<[u8]>>(
        mut self,
        name: &str,
        files: impl IntoIterator<Item = (N, B)>,
    ) -> Self {
        let prefix = if name.is_empty() { String::new() } else { format!("{name}/") };
        let mut parsed = Vec::new();
        for (name, content) in files {
            let (file, found) = parse_bytes(name.as_ref(), content.as_ref());
            self.diagnostics.extend(found);
            parsed.extend(file.map(Arc::new));
        }
        match self.roots.iter_mut().find(|(known, _)| *known == prefix) {
            Some((_, files)) => files.append(&mut parsed),
            None => self.roots.push((prefix, parsed)),
        }
        self
    }

    /// The modules that are at hand.
    #[must_use]
    pub fn modules(mut self, modules: impl Into<Arc<ModuleSet>>) -> Self {
        self.modules = modules.into();
        self
    }

    /// The configuration.
    ///
    /// # Errors
    /// All syntax errors of all files. What is wrong with modules is [within](Configuration::module_faults), so that a caller
    /// can tell whose it is.
    pub fn parse(mut self) -> Result<Configuration, Diagnostics> {
        if self.diagnostics.has_errors() {
            return Err(std::mem::take(&mut self.diagnostics));
        }
        Ok(self.build())
    }

    pub(super) fn build(mut self) -> Configuration {
        let module_path = Arc::from(self.inputs.module_path.as_str());
        let mut all = std::mem::take(&mut self.roots);
        let mut resolver = Resolver::new(&self.inputs, &self.modules);
        if let Some((_, files)) = all.first() {
            let bodies: Vec<BodyRef> = files.iter().map(BodyRef::file).collect();
            let remote = resolver.remote_config(&bodies, &module_path);
            if !remote.is_empty() {
                all.push((format!("{REMOTE_CONFIG}/"), remote));
            }
        }
        let mut roots = Vec::with_capacity(all.len());
        for (prefix, files) in &all {
            let bodies: Vec<BodyRef> = files.iter().map(BodyRef::file).collect();
            let lexicon = resolver.lexicon(&bodies, &module_path, prefix);
            roots.push(ScopeRoot { prefix: prefix.clone(), bodies, lexicon });
        }
        let found = resolver.finish();
        let files: Vec<_> = all
            .iter()
            .flat_map(|(prefix, files)| files.iter().map(move |file| (prefix.as_str(), &**file)))
            .collect();
        let modules: Vec<_> = found.modules.iter().map(|module| &**module).collect();
        let digest = digest(&files, &modules, &self.inputs);
        self.inputs.authors = found.authors;
        let secrets = SecretTable::of(roots.iter().flat_map(|root| &root.bodies), &self.inputs);
        let local = all.into_iter().next().map(|(_, files)| files).unwrap_or_default();
        Configuration {
            files: local,
            inputs: self.inputs,
            digest,
            revision: self.revision,
            roots,
            requests: found.requests,
            missing: found.missing,
            faults: found.faults,
            module_set: self.modules,
            secrets: Arc::new(secrets),
        }
    }
}

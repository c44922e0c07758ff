//! Composition: the union of the `*.alloy` files of all sources, in declared order, and the layers of variables along
//! their path lists.

use std::collections::HashMap;

use bytes::Bytes;
use invar_engine::modules::ModuleKey;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::feed::{Origin, SourceContent, SourceView};
use crate::hex;
use crate::module::ComposedModule;
use crate::variables::VARIABLES_FILE;

/// The files of a candidate and where they come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Composition {
    /// One entry a source that contributes, in declared order.
    pub origins: Vec<Origin>,
    /// The files, in order of composition.
    pub files: Vec<ComposedFile>,
    /// The modules they import, by key.
    pub modules: Vec<ComposedModule>,
    /// What `var.NAME` is made of.
    pub variables: VariableLayers,
}

/// The `variables.toml` files of a candidate, in order: later ones override earlier ones by key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VariableLayers {
    /// The files there are.
    pub files: Vec<ComposedFile>,
    /// The names of those that were looked for, in the folders there are. The last one is where a variable that is
    /// missing belongs.
    pub searched: Vec<String>,
}

/// One file of a candidate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ComposedFile {
    /// The name that diagnostics show: the path, after the source's name where there are several sources.
    pub name: String,
    /// The source it is from.
    pub source: String,
    /// Path within the source.
    pub path: String,
    /// Its bytes.
    pub content: Bytes,
}

/// Identity of a composition before it is parsed: what "the same content again" means for rejections.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ContentDigest(pub String);

/// What composing found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Composed {
    /// A candidate.
    Candidate(Composition),
    /// Required sources that have nothing yet.
    Missing(Vec<String>),
    /// All sources answered and none has a pipeline file.
    Empty,
}

/// Makes the union of the files of `sources`.
#[must_use]
pub fn compose(sources: &[SourceView]) -> Composed {
    let missing: Vec<String> = sources
        .iter()
        .filter(|source| source.required && source.content.is_none())
        .map(|source| source.state.name.clone())
        .collect();
    if !missing.is_empty() {
        return Composed::Missing(missing);
    }
    let several = sources.len() > 1;
    let mut composition = Composition {
        origins: Vec::new(),
        files: Vec::new(),
        modules: Vec::new(),
        variables: VariableLayers::default(),
    };
    for content in sources.iter().filter_map(|source| source.content.as_deref()) {
        // A source that is one named file says with that what it is, whatever its extension.
        let single = content.files.len() == 1;
        let source = &content.origin.source;
        let name = |path: &str| if several { format!("{source}:{path}") } else { path.to_owned() };
        let composed = |path: &str, content: &Bytes| ComposedFile {
            name: name(path),
            source: source.clone(),
            path: path.to_owned(),
            content: content.clone(),
        };
        composition.origins.push(content.origin.clone());
        for (path, bytes) in &content.files {
            let pipeline = has_extension(path, "alloy") || (single && !has_extension(path, "toml"));
            if pipeline {
                composition.files.push(composed(path, bytes));
            }
        }
        let files: HashMap<&str, &Bytes> =
            content.files.iter().map(|(path, bytes)| (path.as_str(), bytes)).collect();
        for path in layers(content) {
            composition.variables.files.extend(files.get(path.as_str()).map(|bytes| composed(&path, bytes)));
            composition.variables.searched.push(name(&path));
        }
    }
    if composition.files.is_empty() { Composed::Empty } else { Composed::Candidate(composition) }
}

/// The variables files that a source may have: one in each folder of its path list that exists, each once.
fn layers(content: &SourceContent) -> Vec<String> {
    let root = [String::new()];
    let selected = if content.paths.is_empty() { &root } else { content.paths.as_slice() };
    let mut layers = Vec::new();
    for path in selected {
        let folder = if path.is_empty() { String::new() } else { format!("{path}/") };
        let is_file = content.files.iter().any(|(file, _)| file == path);
        let layer = match (is_file, path.rsplit('/').next()) {
            (true, Some(VARIABLES_FILE)) => path.clone(),
            (true, _) => continue,
            (false, _) => format!("{folder}{VARIABLES_FILE}"),
        };
        let exists = is_file || content.files.iter().any(|(file, _)| file.starts_with(&folder));
        if exists && !layers.contains(&layer) {
            layers.push(layer);
        }
    }
    layers
}

fn has_extension(path: &str, wanted: &str) -> bool {
    std::path::Path::new(path).extension().is_some_and(|extension| extension == wanted)
}

impl Composition {
    /// The revisions of all sources and of the modules that moved by themselves since, joined with ` + `.
    #[must_use]
    pub fn revision(&self) -> String {
        let origins = self.origins.iter().map(|origin| origin.revision.clone());
        let named = self.modules.iter().filter(|module| module.named).map(ComposedModule::revision_text);
        let parts: Vec<String> = origins.chain(named).collect();
        if parts.is_empty() { "(empty)".to_owned() } else { parts.join(" + ") }
    }

    /// A module of it.
    #[must_use]
    pub fn module(&self, key: &ModuleKey) -> Option<&ComposedModule> {
        self.modules.iter().find(|module| module.key == *key)
    }

    /// The origin that a person would name: the only one, else the first that has an author.
    #[must_use]
    pub fn lead(&self) -> Option<&Origin> {
        self.origins.iter().find(|origin| origin.author.is_some()).or_else(|| self.origins.first())
    }

    /// Digest of names and bytes.
    #[must_use]
    pub fn content_digest(&self) -> ContentDigest {
        let mut hash = Sha256::new();
        let (pipeline, variables) = (&self.files, &self.variables.files);
        // Layers override each other: their order means something, so that the count of what comes before is told apart.
        hash.update((pipeline.len() as u64).to_le_bytes());
        for file in pipeline.iter().chain(variables) {
            for part in [file.name.as_bytes(), &file.content] {
                hash.update((part.len() as u64).to_le_bytes());
                hash.update(part);
            }
        }
        for module in &self.modules {
            hash.update(module.key.as_str());
            hash.update(module.digest());
        }
        ContentDigest(hex(&hash.finalize()))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;

    use super::*;
    use crate::feed::SourceContent;
    use crate::status::SourceState;

    fn source(name: &str, required: bool, files: Option<&[(&str, &str)]>) -> SourceView {
        along(name, required, &[], files)
    }

    fn along(name: &str, required: bool, paths: &[&str], files: Option<&[(&str, &str)]>) -> SourceView {
        SourceView {
            state: SourceState {
                name: name.into(),
                kind: "git".into(),
                revision: None,
                checked: None,
                changed: None,
                error: None,
                checks: Default::default(),
                alarm: false,
            },
            required,
            atomic: true,
            content: files.map(|files| {
                Arc::new(SourceContent {
                    origin: Origin {
                        source: name.into(),
                        kind: "git".into(),
                        revision: format!("main@{name}"),
                        digest: String::new(),
                        author: None,
                        subject: None,
                        signer: None,
                        trust: None,
                        module_path: String::new(),
                    },
                    files: files
                        .iter()
                        .map(|(path, text)| ((*path).to_owned(), Bytes::copy_from_slice(text.as_bytes())))
                        .collect(),
                    paths: paths.iter().map(|path| (*path).to_owned()).collect(),
                })
            }),
        }
    }

    #[test]
    fn files_are_joined_in_declared_order_and_name_their_source() {
        let composed = compose(&[
            source("b", true, Some(&[("x.alloy", "1"), ("notes.md", "n")])),
            source("a", false, Some(&[("x.alloy", "2"), ("y.alloy", "3")])),
            source("late", false, None),
        ]);
        let Composed::Candidate(composition) = composed else { panic!("{composed:?}") };
        let names: Vec<_> = composition.files.iter().map(|file| file.name.as_str()).collect();
        assert_eq!(names, ["b:x.alloy", "a:x.alloy", "a:y.alloy"]);
        assert_eq!(composition.revision(), "main@b + main@a");
    }

    #[test]
    fn variables_come_from_the_folders_of_the_path_list_in_its_order() {
        let files = [
            ("base/main.alloy", ""),
            ("base/nested/variables.toml", "not a layer"),
            ("base/variables.toml", "1"),
            ("environments/dev/x.alloy", ""),
            ("shared/variables.toml", "0"),
        ];
        let paths = ["shared", "base", "environments/dev", "hosts/web-17", "base", "shared/variables.toml"];
        let composed = compose(&[
            along("fleet", true, &paths, Some(&files)),
            source("local", false, Some(&[("variables.toml", "2"), ("y.alloy", "")])),
        ]);
        let Composed::Candidate(composition) = composed else { panic!("{composed:?}") };
        let names: Vec<_> = composition.variables.files.iter().map(|file| file.name.as_str()).collect();
        assert_eq!(
            names,
            ["fleet:shared/variables.toml", "fleet:base/variables.toml", "local:variables.toml"]
        );
        assert_eq!(
            composition.variables.searched,
            [
                "fleet:shared/variables.toml",
                "fleet:base/variables.toml",
                "fleet:environments/dev/variables.toml",
                "local:variables.toml"
            ]
        );
        assert_eq!(composition.files.len(), 3);
    }

    #[test]
    fn the_content_digest_sees_variables_and_their_order() {
        let digest = |paths: &[&str]| {
            let files = [("a/x.alloy", ""), ("a/variables.toml", "x = 1"), ("b/variables.toml", "x = 2")];
            match compose(&[along("fleet", true, paths, Some(&files))]) {
                Composed::Candidate(composition) => composition.content_digest(),
                other => panic!("{other:?}"),
            }
        };
        assert_ne!(digest(&["a", "b"]), digest(&["b", "a"]));
        assert_ne!(digest(&["a", "b"]), digest(&["a"]));
    }

    #[test]
    fn a_required_source_without_content_is_waited_for() {
        let composed = compose(&[source("a", true, None), source("b", true, Some(&[("x.alloy", "")]))]);
        assert_eq!(composed, Composed::Missing(vec!["a".into()]));
        assert_eq!(compose(&[source("a", false, None)]), Composed::Empty);
    }

    #[test]
    fn a_single_file_needs_no_extension() {
        let composed = compose(&[source("a", true, Some(&[("config.river", "x")]))]);
        let Composed::Candidate(composition) = composed else { panic!("{composed:?}") };
        assert_eq!(composition.files[0].name, "config.river");
    }

    #[test]
    fn the_content_digest_covers_names_and_bytes() {
        let digest = |files: &[(&str, &str)]| match compose(&[source("a", true, Some(files))]) {
            Composed::Candidate(composition) => composition.content_digest(),
            other => panic!("{other:?}"),
        };
        assert_ne!(digest(&[("a.alloy", "bc")]), digest(&[("a.alloy", "b"), ("c.alloy", "")]));
        assert_ne!(digest(&[("a.alloy", "x")]), digest(&[("b.alloy", "x")]));
    }
}

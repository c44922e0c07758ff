//! Composition: the union of the `*.alloy` files of all sources, in declared order.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::feed::{Origin, SourceView};
use crate::hex;

/// The files of a candidate and where they come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Composition {
    /// One entry a source that contributes, in declared order.
    pub origins: Vec<Origin>,
    /// The files, in order of composition.
    pub files: Vec<ComposedFile>,
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
    let mut composition = Composition { origins: Vec::new(), files: Vec::new() };
    for content in sources.iter().filter_map(|source| source.content.as_deref()) {
        // A source that is one named file says with that what it is, whatever its extension.
        let single = content.files.len() == 1;
        composition.origins.push(content.origin.clone());
        for (path, bytes) in &content.files {
            let pipeline = has_pipeline_extension(path) || (single && !path.ends_with(".toml"));
            if !pipeline {
                continue;
            }
            let source = &content.origin.source;
            composition.files.push(ComposedFile {
                name: if several { format!("{source}:{path}") } else { path.clone() },
                source: source.clone(),
                path: path.clone(),
                content: bytes.clone(),
            });
        }
    }
    if composition.files.is_empty() { Composed::Empty } else { Composed::Candidate(composition) }
}

fn has_pipeline_extension(path: &str) -> bool {
    std::path::Path::new(path).extension().is_some_and(|extension| extension == "alloy")
}

impl Composition {
    /// The revisions of all sources, joined with ` + `.
    #[must_use]
    pub fn revision(&self) -> String {
        match self.origins.as_slice() {
            [] => "(empty)".to_owned(),
            origins => origins.iter().map(|origin| origin.revision.as_str()).collect::<Vec<_>>().join(" + "),
        }
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
        for file in &self.files {
            for part in [file.name.as_bytes(), &file.content] {
                hash.update((part.len() as u64).to_le_bytes());
                hash.update(part);
            }
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
        SourceView {
            state: SourceState {
                name: name.into(),
                kind: "git".into(),
                revision: None,
                checked: None,
                changed: None,
                error: None,
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
                    },
                    files: files
                        .iter()
                        .map(|(path, text)| ((*path).to_owned(), Bytes::copy_from_slice(text.as_bytes())))
                        .collect(),
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

//! Who wrote what: the sources that had a hand in each file of a configuration. A file of a source has one author; a module
//! has those of all files that import it, on whatever way.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use invar_policy::{Access, Policy};

use crate::block::BlockRef;
use crate::graph::Graph;
use crate::inputs::Inputs;

/// The sources behind each file, by the file's name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Authors {
    sources: Arc<BTreeMap<String, BTreeSet<Arc<str>>>>,
}

// === impl Authors ===

impl Authors {
    /// Files with the source that each is from.
    pub fn of<'a>(files: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let mut authors = Self::default();
        for (file, source) in files {
            Arc::make_mut(&mut authors.sources).entry(file.to_owned()).or_default().insert(Arc::from(source));
        }
        authors
    }

    /// The sources that had a hand in a file.
    pub fn sources(&self, file: &str) -> impl Iterator<Item = &str> {
        self.sources.get(file).into_iter().flatten().map(|source| &**source)
    }

    /// Notes that `importer` imports `file`: whoever wrote the one brought the other in.
    pub(crate) fn import(&mut self, importer: &str, file: &str) -> bool {
        let Some(brought) = self.sources.get(importer).cloned() else { return false };
        let sources = Arc::make_mut(&mut self.sources).entry(file.to_owned()).or_default();
        let before = sources.len();
        sources.extend(brought);
        sources.len() > before
    }

    /// As [`Self::import`] for many, until nobody is added any more: modules import modules, in any order.
    pub(crate) fn import_all(&mut self, imports: &[(String, String)]) {
        while imports.iter().fold(false, |added, (importer, file)| self.import(importer, file) || added) {}
    }
}

// === impl Inputs ===

impl Inputs {
    /// What the authors of these files may use.
    pub(crate) fn access_of<'a>(&self, files: impl IntoIterator<Item = &'a str>) -> Access {
        access_of(&self.policy, &self.authors, files)
    }

    /// What may be used by a block in a frame: those who wrote it, who made an instance of what it stands in, and who
    /// imported that all had a hand in it.
    pub(crate) fn access_at(&self, graph: &Graph, frame: u32, block: &BlockRef) -> Access {
        if !self.policy.tells_sources_apart() {
            return self.policy.general().clone();
        }
        self.access_of(files_behind(graph, frame, block))
    }

    /// The sources that had a hand in a block in a frame, each once, in the order of their names.
    pub(crate) fn authors_at(&self, graph: &Graph, frame: u32, block: &BlockRef) -> BTreeSet<&str> {
        let files = files_behind(graph, frame, block);
        files.into_iter().flat_map(|file| self.authors.sources(file)).collect()
    }
}

/// The files behind a block in a frame: its own, and those of what it stands in.
fn files_behind<'a>(graph: &'a Graph, frame: u32, block: &'a BlockRef) -> Vec<&'a str> {
    let mut files = vec![block.file_name()];
    let mut next = Some(frame);
    while let Some(frame) = next.map(|frame| graph.frame(frame)) {
        files.extend(frame.anchor().map(|anchor| graph.node(anchor).block.file_name()));
        next = frame.owner.map(|owner| {
            files.push(graph.node(owner).block.file_name());
            graph.node(owner).frame
        });
    }
    files
}

/// What the authors of these files may use.
pub(crate) fn access_of<'a>(
    policy: &Policy,
    authors: &Authors,
    files: impl IntoIterator<Item = &'a str>,
) -> Access {
    if !policy.tells_sources_apart() {
        return policy.general().clone();
    }
    policy.access(files.into_iter().flat_map(|file| authors.sources(file)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_imports_a_module_is_behind_what_it_imports_in_turn() {
        let mut authors = Authors::of([("a.alloy", "a"), ("b.alloy", "b")]);
        let import = |importer: &str, file: &str| (importer.to_owned(), file.to_owned());
        authors.import_all(&[
            import("m", "n"),
            import("a.alloy", "m"),
            import("b.alloy", "m"),
            import("n", "m"),
        ]);
        assert_eq!(authors.sources("n").collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(authors.sources("a.alloy").collect::<Vec<_>>(), ["a"]);
        assert_eq!(authors.sources("else").count(), 0);
    }
}

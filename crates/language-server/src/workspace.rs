//! The files that make up a configuration: what the editor has open, over what is on disk.
//!
//! A configuration is a folder: all of its `*.alloy` files together, as `invar run FOLDER` takes them, and what they add to
//! ([`crate::layers`]).

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use lsp_types::Url;

use crate::document::{Analysis, Definition, DefinitionKind};
use crate::layers::layers;

/// Files beyond these are left out: nobody writes so many by hand, and each is read.
const MAX_FILES: usize = 1_000;
/// Larger files are left out, as the parser refuses them.
const MAX_BYTES: u64 = 16 << 20;

/// What is open, and what has been read.
#[derive(Debug, Default)]
pub(crate) struct Workspace {
    open: HashMap<Url, Document>,
    read: HashMap<PathBuf, Read>,
    /// Each file is a configuration of its own.
    pub(crate) single_files: bool,
}

/// A text that the editor has.
#[derive(Debug)]
pub(crate) struct Document {
    pub(crate) version: i32,
    pub(crate) analysis: Arc<Analysis>,
}

/// A text that was read from disk, and how the file looked then.
#[derive(Debug)]
struct Read {
    stamp: (SystemTime, u64),
    analysis: Arc<Analysis>,
}

/// The files of one configuration.
#[derive(Debug)]
pub(crate) struct Project {
    /// Where it lies; none for texts that are in no file.
    pub(crate) folder: Option<PathBuf>,
    /// In the order of their names.
    pub(crate) files: Vec<ProjectFile>,
}

#[derive(Clone, Debug)]
pub(crate) struct ProjectFile {
    pub(crate) url: Url,
    pub(crate) analysis: Arc<Analysis>,
}

impl Workspace {
    pub(crate) fn new(single_files: bool) -> Self {
        Self { single_files, ..Self::default() }
    }

    /// The open text of that address.
    pub(crate) fn document(&self, url: &Url) -> Option<&Document> {
        self.open.get(&normalized(url))
    }

    pub(crate) fn set(&mut self, url: &Url, version: i32, text: String) {
        let analysis = Arc::new(Analysis::new(text.into()));
        self.open.insert(normalized(url), Document { version, analysis });
    }

    pub(crate) fn close(&mut self, url: &Url) {
        self.open.remove(&normalized(url));
    }

    /// The open documents of these folders: text and version.
    pub(crate) fn open_in(&self, folders: &[PathBuf]) -> impl Iterator<Item = (Url, (Arc<str>, i32))> {
        let inside = move |url: &Url| folder(url).is_some_and(|folder| folders.contains(&folder));
        let open = self.open.iter().filter(move |(url, _)| inside(url));
        open.map(|(url, document)| (url.clone(), (Arc::clone(&document.analysis.text), document.version)))
    }

    pub(crate) fn open_urls(&self) -> impl Iterator<Item = &Url> {
        self.open.keys()
    }

    /// The configuration that a file belongs to.
    pub(crate) fn project(&mut self, url: &Url) -> Project {
        let url = &normalized(url);
        let folder = folder(url);
        let layers = match &folder {
            Some(folder) if !self.single_files => layers(folder),
            _ => Vec::new(),
        };
        let mut files: Vec<ProjectFile> = layers.iter().flat_map(|folder| self.files_in(folder)).collect();
        // An open file that is not on disk yet belongs to it as well.
        let open = self.open.iter().filter(|(open, _)| {
            *open == url || self::folder(open).is_some_and(|folder| layers.contains(&folder))
        });
        for (url, document) in open {
            if !files.iter().any(|file| file.url == *url) {
                files.push(ProjectFile { url: url.clone(), analysis: Arc::clone(&document.analysis) });
            }
        }
        files.sort_by(|left, right| left.url.as_str().cmp(right.url.as_str()));
        Project { folder, files }
    }

    /// The file at a path: as the editor has it, else as it is on disk.
    pub(crate) fn file(&mut self, path: &Path) -> Option<ProjectFile> {
        let url = Url::from_file_path(path).ok()?;
        if let Some(document) = self.open.get(&url) {
            return Some(ProjectFile { url, analysis: Arc::clone(&document.analysis) });
        }
        let metadata = std::fs::metadata(path).ok().filter(|metadata| metadata.is_file())?;
        if metadata.len() > MAX_BYTES {
            return None;
        }
        let stamp = (metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH), metadata.len());
        if let Some(read) = self.read.get(path).filter(|read| read.stamp == stamp) {
            return Some(ProjectFile { url, analysis: Arc::clone(&read.analysis) });
        }
        let bytes = std::fs::read(path).ok()?;
        let analysis = Arc::new(Analysis::new(String::from_utf8_lossy(&bytes).into()));
        // Nothing that is no longer asked for need be kept: it is read again.
        if self.read.len() >= MAX_FILES {
            self.read.clear();
        }
        self.read.insert(path.to_path_buf(), Read { stamp, analysis: Arc::clone(&analysis) });
        Some(ProjectFile { url, analysis })
    }

    /// The files that an `import.file` block names: one, or all of a folder.
    pub(crate) fn module(&mut self, folder: &Path, filename: &str) -> Vec<ProjectFile> {
        let path = folder.join(filename);
        if path.is_dir() { self.files_in(&path) } else { self.file(&path).into_iter().collect() }
    }

    fn files_in(&mut self, folder: &Path) -> Vec<ProjectFile> {
        paths_in(folder).into_iter().filter_map(|path| self.file(&path)).collect()
    }
}

impl Project {
    pub(crate) fn file(&self, url: &Url) -> Option<&ProjectFile> {
        let url = &normalized(url);
        self.files.iter().find(|file| file.url == *url)
    }

    /// The definitions that are visible in a pipeline of a file, each with its file, nearest first.
    pub(crate) fn visible<'p>(
        &'p self,
        file: &'p ProjectFile,
        scope: Option<usize>,
    ) -> impl Iterator<Item = (&'p ProjectFile, &'p Definition)> {
        let scopes = file.analysis.visible(scope);
        scopes.into_iter().flat_map(move |scope| {
            let files: Box<dyn Iterator<Item = &'p ProjectFile>> = match scope {
                // The pipeline of the configuration is the same in all files.
                None => Box::new(self.files.iter()),
                Some(_) => Box::new(std::iter::once(file)),
            };
            files.flat_map(move |file| {
                let definitions = file.analysis.definitions.iter();
                definitions
                    .filter(move |definition| definition.scope == scope)
                    .map(move |definition| (file, definition))
            })
        })
    }

    /// The `declare` or `import` that a block name refers to: lexical scopes all the way up.
    pub(crate) fn custom<'p>(
        &'p self,
        file: &'p ProjectFile,
        scope: Option<usize>,
        name: &str,
    ) -> Option<(&'p ProjectFile, &'p Definition)> {
        let mut scope = scope;
        loop {
            let found = self.visible(file, scope).find(|(_, definition)| {
                matches!(definition.kind, DefinitionKind::Declare | DefinitionKind::Import)
                    && definition.id == name
            });
            if found.is_some() {
                return found;
            }
            scope = file.analysis.scope(scope?);
        }
    }
}

/// The address of a file as this server writes it: clients escape more or fewer characters than others.
pub(crate) fn normalized(url: &Url) -> Url {
    url.to_file_path().ok().and_then(|path| Url::from_file_path(path).ok()).unwrap_or_else(|| url.clone())
}

/// The folder of a file.
pub(crate) fn folder(url: &Url) -> Option<PathBuf> {
    url.to_file_path().ok()?.parent().map(Path::to_path_buf)
}

/// The `*.alloy` files of a folder, in order.
pub(crate) fn paths_in(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut paths: Vec<PathBuf> = entries
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "alloy") && path.is_file())
        .take(MAX_FILES)
        .collect();
    paths.sort();
    paths
}

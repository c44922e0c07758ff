//! Reads the selected files of a commit from the object database into a virtual tree. No file, link or
//! filter of the repository ever touches the host's file system.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use git2::{ErrorCode, ObjectType, Odb, Oid, Repository, Tree, TreeEntry};

use super::protocol::for_people;
use super::repository::ReadError;
use crate::error::{Failure, Rejection};
use crate::path::{case_collision, check_name, resolve_link};
use crate::settings::LimitSettings;
use crate::snapshot::{Files, Notice};
use crate::source::{TreeEntry as Entry, is_pipeline};
use crate::units::display_size;

/// The most links that may be followed one after the other.
const HOP_LIMIT: usize = 8;
/// The deepest folder.
const DEPTH_LIMIT: usize = 64;
/// The most entries of folders that are looked at, files or not.
const ENTRY_LIMIT: usize = 200_000;
/// The longest target of a link, in bytes.
const TARGET_LIMIT: usize = 4096;
/// The longest commit, in bytes; a message of a hundred megabytes is not worth reading.
pub(super) const COMMIT_LIMIT: usize = 1024 * 1024;
/// The longest list of one folder, in bytes; two hundred thousand names are not as long.
const TREE_LIMIT: usize = 16 * 1024 * 1024;
const LFS_MARK: &[u8] = b"version https://git-lfs.github.com/spec/";

const MODE_LINK: i32 = 0o120_000;
const MODE_COMMIT: i32 = 0o160_000;

/// What a commit holds.
#[derive(Debug, Default)]
pub(super) struct Reading {
    pub(super) files: Files,
    pub(super) author: Option<String>,
    pub(super) subject: Option<String>,
    pub(super) committed_at: Option<SystemTime>,
    pub(super) parents: Vec<String>,
    pub(super) notices: Vec<Notice>,
    /// Submodules in what is selected, where they are to be followed.
    pub(super) links: Vec<Gitlink>,
}

/// A submodule in a tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Gitlink {
    /// Where its files go.
    pub(super) shown: String,
    /// Where it is in the tree, as `.gitmodules` names it.
    pub(super) path: String,
    pub(super) commit: String,
    /// What is selected in it; empty for everything.
    pub(super) rest: String,
}

/// What becomes of submodules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Modules {
    /// They are passed over, and refused where a path leads into one.
    Off,
    /// They are listed for the caller to follow.
    Listed,
}

/// How much of a selected folder is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Depth {
    /// All files below it.
    All,
    /// Its own `*.alloy` files: what a module is made of.
    Own,
}

/// What is at `path` (normalized) of a commit; `None` where nothing is.
pub(super) fn read_entry(
    repository: &Repository,
    commit: Oid,
    path: &str,
    limits: &LimitSettings,
    modules: Modules,
) -> Result<Option<Found>, ReadError> {
    let database = repository.odb()?;
    let root = find_tree(repository, &database, repository.find_commit(commit)?.tree_id())?;
    let mut walk = Walk::new(repository, &database, limits, &root, Depth::Own, modules);
    if !walk.select(path)? {
        return Ok(None);
    }
    if let Some(link) = walk.links.pop() {
        return Ok(Some(Found::Submodule(link)));
    }
    if let Some(content) = walk.files.remove(path) {
        return Ok(Some(Found::Entry(Entry::File(content))));
    }
    let name = |file: String| file.rsplit_once('/').map_or_else(|| file.clone(), |(_, name)| name.to_owned());
    let files = walk.files.into_iter().map(|(file, content)| (name(file), content)).collect();
    Ok(Some(Found::Entry(Entry::Folder(files))))
}

/// What is at a path.
#[derive(Debug)]
pub(super) enum Found {
    Entry(Entry),
    /// It is in a submodule.
    Submodule(Gitlink),
}

/// Reads the files at and below `selected` (normalized; empty means the root) of a commit.
pub(super) fn read(
    repository: &Repository,
    commit: Oid,
    selected: &[String],
    depth: Depth,
    limits: &LimitSettings,
    modules: Modules,
) -> Result<Reading, ReadError> {
    let database = repository.odb()?;
    let (size, kind) = database.read_header(commit)?;
    if kind != ObjectType::Commit {
        let name = kind.str();
        return Err(Failure::rejected(Rejection::Shape, format!("{commit} is a {name}, not a commit")).into());
    }
    if size > COMMIT_LIMIT {
        let message = format!("the commit itself is {} long", display_size(size as u64));
        return Err(Failure::rejected(Rejection::Limits, message).into());
    }
    let commit = repository.find_commit(commit)?;
    let root = find_tree(repository, &database, commit.tree_id())?;
    let mut walk = Walk::new(repository, &database, limits, &root, depth, modules);
    let everything = [String::new()];
    let selected = if selected.is_empty() { &everything } else { selected };
    for path in selected {
        walk.select(path)?;
    }
    let mut reading = Reading { files: walk.files, links: walk.links, ..Reading::default() };
    if reading.files.is_empty() && reading.links.is_empty() {
        let message = match selected {
            [root] if root.is_empty() => "the commit has no files".to_owned(),
            paths => format!("the commit has no files at {}", paths.join(", ")),
        };
        return Err(Failure::rejected(Rejection::EmptySource, message).into());
    }
    reading.notices.extend(case_collision(&reading.files)?);
    let author = commit.author();
    let words = |bytes: &[u8]| Some(for_people(bytes)).filter(|text| !text.is_empty());
    reading.author = match (words(author.name_bytes()), words(author.email_bytes())) {
        (Some(name), Some(mail)) => Some(format!("{name} <{mail}>")),
        (name, mail) => name.or(mail),
    };
    reading.subject = commit.message_bytes().split(|byte| *byte == b'\n').find_map(words);
    reading.committed_at = u64::try_from(commit.time().seconds())
        .ok()
        .and_then(|seconds| SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds)));
    reading.parents = commit.parent_ids().map(|id| id.to_string()).collect();
    Ok(reading)
}

/// Reads the list of a folder, if it is not absurdly long: the library keeps all of it in memory.
fn find_tree<'r>(repository: &'r Repository, database: &Odb<'_>, id: Oid) -> Result<Tree<'r>, ReadError> {
    let (size, _) = database.read_header(id)?;
    if size > TREE_LIMIT {
        let message = format!("a folder's list of files is {} long", display_size(size as u64));
        return Err(Failure::rejected(Rejection::Limits, message).into());
    }
    Ok(repository.find_tree(id)?)
}

struct Walk<'r> {
    repository: &'r Repository,
    database: &'r Odb<'r>,
    limits: &'r LimitSettings,
    root: &'r Tree<'r>,
    depth: Depth,
    modules: Modules,
    files: Files,
    links: Vec<Gitlink>,
    bytes: u64,
    entries: usize,
}

/// Something in the tree with the folder it really is in.
enum Located<'r> {
    File(Oid),
    Folder(Tree<'r>, Vec<String>),
    Submodule(Gitlink),
    Missing,
}

impl<'r> Walk<'r> {
    fn new(
        repository: &'r Repository,
        database: &'r Odb<'r>,
        limits: &'r LimitSettings,
        root: &'r Tree<'r>,
        depth: Depth,
        modules: Modules,
    ) -> Self {
        let (files, links) = (Files::new(), Vec::new());
        Self { repository, database, limits, root, depth, modules, files, links, bytes: 0, entries: 0 }
    }

    /// Takes what is at a path; says whether anything is.
    fn select(&mut self, path: &str) -> Result<bool, ReadError> {
        let names: Vec<String> = path.split('/').filter(|name| !name.is_empty()).map(str::to_owned).collect();
        let mut hops = 0;
        match self.locate(names, path, &mut hops)? {
            Located::File(id) => self.file(path, id).map(|()| true),
            Located::Folder(tree, place) => self.folder(path, &tree, &place, hops, 0).map(|()| true),
            Located::Submodule(link) if self.modules == Modules::Listed => {
                self.links.push(link);
                Ok(true)
            }
            Located::Submodule(_) => Err(Failure::rejected(
                Rejection::Shape,
                format!("`{path}` is in a submodule; submodules are not read"),
            )
            .with_help("`git.submodules = \"shallow\"` reads them")
            .into()),
            // A folder for this very host is rare; whether anything is there at all is checked at the end.
            Located::Missing => Ok(false),
        }
    }

    /// Follows `names` from the root, through links. `shown` is for messages.
    fn locate(
        &mut self,
        names: Vec<String>,
        shown: &str,
        hops: &mut usize,
    ) -> Result<Located<'r>, ReadError> {
        let mut pending = names;
        'again: loop {
            let mut folder = self.root.clone();
            let mut place: Vec<String> = Vec::new();
            for (index, name) in pending.iter().enumerate() {
                let Some(entry) = folder.get_name(name).map(|entry| entry.to_owned()) else {
                    return Ok(Located::Missing);
                };
                match entry.filemode() {
                    MODE_COMMIT => {
                        place.push(name.clone());
                        return Ok(Located::Submodule(Gitlink {
                            shown: shown.to_owned(),
                            path: place.join("/"),
                            commit: entry.id().to_string(),
                            rest: pending[index + 1..].join("/"),
                        }));
                    }
                    MODE_LINK => {
                        let mut target = self.target(&entry, &place, shown, hops)?;
                        target.extend_from_slice(&pending[index + 1..]);
                        pending = target;
                        continue 'again;
                    }
                    _ if entry.kind() == Some(ObjectType::Tree) => {
                        folder = find_tree(self.repository, self.database, entry.id())?;
                        place.push(name.clone());
                    }
                    _ if index + 1 == pending.len() => return Ok(Located::File(entry.id())),
                    _ => return Ok(Located::Missing),
                }
            }
            return Ok(Located::Folder(folder, place));
        }
    }

    /// Where a link in the folder `place` leads.
    fn target(
        &self,
        entry: &TreeEntry<'_>,
        place: &[String],
        shown: &str,
        hops: &mut usize,
    ) -> Result<Vec<String>, ReadError> {
        let escape = |what: &str| {
            Failure::rejected(Rejection::SymlinkEscape, format!("the symbolic link at `{shown}` {what}"))
        };
        *hops += 1;
        if *hops > HOP_LIMIT {
            return Err(escape("goes through more than 8 links, or in a circle").into());
        }
        let (size, _) = self.database.read_header(entry.id())?;
        if size > TARGET_LIMIT {
            return Err(escape("has a target of more than 4096 bytes").into());
        }
        let target = self.database.read(entry.id())?;
        std::str::from_utf8(target.data())
            .ok()
            .and_then(|target| resolve_link(place, target))
            .ok_or_else(|| escape("leads out of the repository").into())
    }

    /// Takes all files below a folder. `place` is where it really is, which relative links start from.
    fn folder(
        &mut self,
        shown: &str,
        tree: &Tree<'r>,
        place: &[String],
        hops: usize,
        depth: usize,
    ) -> Result<(), ReadError> {
        if depth > DEPTH_LIMIT {
            let message = format!("the folder `{shown}` is more than {DEPTH_LIMIT} folders deep");
            return Err(Failure::rejected(Rejection::Limits, message).into());
        }
        for entry in tree {
            self.entries += 1;
            if self.entries > ENTRY_LIMIT {
                let message = format!("the selected folders have more than {ENTRY_LIMIT} entries");
                return Err(Failure::rejected(Rejection::Limits, message).into());
            }
            if self.depth == Depth::Own
                && (entry.kind() == Some(ObjectType::Tree) || !entry.name_bytes().ends_with(b".alloy"))
            {
                continue;
            }
            let name = check_name(entry.name_bytes())?;
            if self.depth == Depth::Own && !is_pipeline(name) {
                continue;
            }
            let path = if shown.is_empty() { name.to_owned() } else { format!("{shown}/{name}") };
            match (entry.filemode(), entry.kind()) {
                (MODE_COMMIT, _) if self.modules == Modules::Listed => {
                    let within = place.iter().map(String::as_str).chain([name]).collect::<Vec<_>>().join("/");
                    let commit = entry.id().to_string();
                    self.links.push(Gitlink { shown: path, path: within, commit, rest: String::new() });
                }
                (MODE_COMMIT, _) => tracing::debug!(path, "a submodule is not read"),
                (MODE_LINK, _) => {
                    let mut hops = hops;
                    let target = self.target(&entry, place, &path, &mut hops)?;
                    match self.locate(target, &path, &mut hops)? {
                        Located::File(id) => self.file(&path, id)?,
                        Located::Folder(..) if self.depth == Depth::Own => {}
                        Located::Folder(tree, place) => {
                            self.folder(&path, &tree, &place, hops, depth + 1)?;
                        }
                        Located::Submodule(link) if self.modules == Modules::Listed => self.links.push(link),
                        Located::Submodule(_) | Located::Missing => {
                            let message = format!("the symbolic link at `{path}` leads nowhere");
                            return Err(Failure::rejected(Rejection::Shape, message).into());
                        }
                    }
                }
                (_, Some(ObjectType::Tree)) => {
                    let below = find_tree(self.repository, self.database, entry.id())?;
                    let mut place = place.to_vec();
                    place.push(name.to_owned());
                    self.folder(&path, &below, &place, hops, depth + 1)?;
                }
                _ => self.file(&path, entry.id())?,
            }
        }
        Ok(())
    }

    fn file(&mut self, path: &str, id: Oid) -> Result<(), ReadError> {
        if self.files.contains_key(path) {
            return Ok(());
        }
        let limits = self.limits;
        let exceeded = |what: String, key: &str| {
            Failure::rejected(Rejection::Limits, what)
                .with_help(format!("select less with `path`, or raise `limits.{key}`"))
        };
        let (size, _) = self.database.read_header(id).map_err(|error| self.missing(path, &error))?;
        let size = size as u64;
        if size > limits.file {
            let (is, most) = (display_size(size), display_size(limits.file));
            return Err(exceeded(format!("`{path}` is {is} long, more than {most}"), "file").into());
        }
        if self.files.len() >= limits.files {
            let most = limits.files;
            return Err(exceeded(format!("more than {most} files are selected"), "files").into());
        }
        self.bytes += size;
        if self.bytes > limits.bytes {
            let most = display_size(limits.bytes);
            return Err(exceeded(format!("the selected files have more than {most}"), "bytes").into());
        }
        let object = self.database.read(id).map_err(|error| self.missing(path, &error))?;
        if object.kind() != ObjectType::Blob {
            return Err(ReadError::Damaged(format!("`{path}` is no file in the object database")));
        }
        if object.data().starts_with(LFS_MARK) {
            return Err(Failure::rejected(Rejection::LfsPointer, format!("`{path}` is a Git LFS pointer"))
                .with_help("store configuration in Git itself, or leave the file out with `path`")
                .into());
        }
        self.files.insert(path.to_owned(), Bytes::copy_from_slice(object.data()));
        Ok(())
    }

    fn missing(&self, path: &str, error: &git2::Error) -> ReadError {
        match error.code() {
            ErrorCode::NotFound => ReadError::Damaged(format!("the content of `{path}` is missing")),
            _ => ReadError::Damaged(format!("the content of `{path}` cannot be read: {}", error.message())),
        }
    }
}

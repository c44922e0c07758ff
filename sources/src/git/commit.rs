//! Files of a commit of a repository on this host, read where the repository is: for commands that compose a checkout
//! as an agent would, pins and all. Nothing is fetched and nothing is written. All of it blocks.

use std::path::Path;

use git2::{ErrorCode, Oid, Repository};

use super::history::{Ancestry, contains};
use super::repository::{ReadError, object_id};
use super::tree;
use crate::error::{ErrorClass, Rejection};
use crate::path::normalize_selected;
use crate::settings::LimitSettings;
use crate::snapshot::Files;

/// Why a commit could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct CommitError {
    /// What is wrong, in one sentence.
    pub message: String,
    /// What to do about it.
    pub help: Option<String>,
}

impl CommitError {
    fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), help: None }
    }

    fn with_help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

/// The files at and below the folders `selected` (relative to `folder`) of a commit of the repository that `folder` is
/// checked out from; paths are relative to `folder` again. Folders that the commit does not have yield nothing.
///
/// # Errors
/// There is no repository, it does not have the commit, or the commit is no ancestor of what is checked out.
pub fn read_commit(folder: &Path, commit: &str, selected: &[&str]) -> Result<Files, CommitError> {
    let shown = folder.display();
    let repository = Repository::discover(folder).map_err(|error| match error.code() {
        ErrorCode::Owner => {
            CommitError::new(format!("the repository of {shown} belongs to another user than this process"))
                .with_help("git config --global --add safe.directory <the repository>")
        }
        _ => CommitError::new(format!("{shown} is not in a Git repository")),
    })?;
    let prefix = prefix_in(&repository, folder)?;
    let id = object_id(commit).map_err(|failure| CommitError::new(failure.message))?;
    if repository.find_commit(id).is_err() {
        return Err(CommitError::new(format!("the repository of {shown} has no commit {commit:.12}"))
            .with_help("a shallow clone lacks what came before: git fetch --unshallow"));
    }
    check_ancestry(&repository, id, commit)?;
    let join = |path: &str| match prefix.as_str() {
        "" => path.to_owned(),
        prefix => format!("{prefix}/{path}"),
    };
    let paths = selected
        .iter()
        .map(|path| normalize_selected(&join(path)).map_err(|failure| CommitError::new(failure.message)))
        .collect::<Result<Vec<String>, _>>()?;
    let files = match tree::read(
        &repository,
        id,
        &paths,
        tree::Depth::All,
        &LimitSettings::default(),
        tree::Modules::Off,
    ) {
        Ok(reading) => reading.files,
        Err(ReadError::Failed(failure)) if failure.class == ErrorClass::Rejected(Rejection::EmptySource) => {
            Files::new()
        }
        Err(ReadError::Failed(failure)) => {
            return Err(CommitError { message: failure.message, help: failure.help });
        }
        Err(ReadError::Damaged(reason)) => {
            return Err(CommitError::new(format!("the repository of {shown} is damaged: {reason}")));
        }
    };
    let beginning = join("");
    let relative = |(path, content): (String, bytes::Bytes)| {
        (path.strip_prefix(&beginning).unwrap_or(&path).to_owned(), content)
    };
    Ok(files.into_iter().map(relative).collect())
}

/// Where the folder is in the repository's tree; empty for its root.
fn prefix_in(repository: &Repository, folder: &Path) -> Result<String, CommitError> {
    let failed = |error: std::io::Error| CommitError::new(format!("{}: {error}", folder.display()));
    let Some(root) = repository.workdir() else { return Ok(String::new()) };
    let root = root.canonicalize().map_err(failed)?;
    let folder = folder.canonicalize().map_err(failed)?;
    let names = folder.strip_prefix(&root).unwrap_or(Path::new(""));
    names
        .to_str()
        .map(|names| names.replace('\\', "/"))
        .ok_or_else(|| CommitError::new(format!("the path {} is not UTF-8", folder.display())))
}

/// A pin that is no ancestor names something that was never on the branch. In a shallow clone nobody can say.
fn check_ancestry(repository: &Repository, pin: Oid, commit: &str) -> Result<(), CommitError> {
    let Some(head) = repository.head().ok().and_then(|head| head.peel_to_commit().ok()) else {
        return Ok(());
    };
    match contains(repository, head.id(), pin) {
        Ancestry::Contains | Ancestry::Unclear => Ok(()),
        Ancestry::Lacks => Err(CommitError::new(format!(
            "the commit {commit:.12} is not an ancestor of what is checked out"
        ))),
    }
}

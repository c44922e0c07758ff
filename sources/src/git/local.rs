//! Repositories on this host (`file://` and plain paths): read and copied whole by the library's own
//! transport, which runs no program. All of it blocks.

use std::path::Path;

use git2::{AutotagOption, Direction, FetchOptions, Remote, Repository};

use super::protocol::RemoteReference;
use crate::error::{ErrorClass, Failure};

/// A repository on this host.
#[derive(Clone, Debug)]
pub(super) struct LocalWire {
    /// A `file://` address or a path.
    pub(super) url: String,
}

impl LocalWire {
    /// All references.
    pub(super) fn list(&self) -> Result<Vec<RemoteReference>, Failure> {
        let mut remote = Remote::create_detached(self.url.as_str()).map_err(|error| self.failure(&error))?;
        let connection =
            remote.connect_auth(Direction::Fetch, None, None).map_err(|error| self.failure(&error))?;
        let heads = connection.list().map_err(|error| self.failure(&error))?;
        let mut references: Vec<RemoteReference> = Vec::with_capacity(heads.len());
        for head in heads {
            let name = head.name();
            if let Some(tag) = name.strip_suffix("^{}") {
                if let Some(last) = references.last_mut().filter(|last| last.name == tag) {
                    last.peeled = Some(head.oid().to_string());
                }
                continue;
            }
            references.push(RemoteReference {
                name: name.to_owned(),
                object: head.oid().to_string(),
                peeled: None,
                target: head.symref_target().map(str::to_owned),
            });
        }
        Ok(references)
    }

    /// Copies all branches and tags.
    pub(super) fn fetch(&self, into: &Repository) -> Result<(), Failure> {
        let mut remote = into.remote_anonymous(&self.url).map_err(|error| self.failure(&error))?;
        let mut options = FetchOptions::new();
        options.download_tags(AutotagOption::None).update_fetchhead(false);
        remote
            .fetch(
                &[
                    "+refs/heads/*:refs/remote/heads/*",
                    "+refs/tags/*:refs/remote/tags/*",
                    "+HEAD:refs/remote/HEAD",
                ],
                Some(&mut options),
                None,
            )
            .map_err(|error| self.failure(&error))
    }

    fn failure(&self, error: &git2::Error) -> Failure {
        let path = self.url.strip_prefix("file://").unwrap_or(&self.url);
        match error.code() {
            git2::ErrorCode::Owner => Failure::new(
                ErrorClass::Forbidden,
                format!("the repository at {} belongs to another user than the agent", self.url),
            ),
            // The library has no code of its own for a path that is not there.
            code if code == git2::ErrorCode::NotFound || !Path::new(path).exists() => {
                Failure::new(ErrorClass::NotFound, format!("there is no Git repository at {}", self.url))
            }
            _ => Failure::transient(format!("{}: {}", self.url, error.message())),
        }
    }
}

//! State on disk.

use std::path::Path;

/// The state directory, locked by this process.
#[derive(Debug)]
pub struct StateDirectory {}

/// The state directory cannot be used at all.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another agent holds the lock.
    #[error(
        "the state directory {directory} is in use by process {pid}; give each agent its own (`[state] dir`, `--storage.path`)"
    )]
    Locked {
        /// The directory.
        directory: String,
        /// The process that holds it, as its lock file says.
        pid: String,
    },
}

impl StateDirectory {
    /// Opens, and where needed makes, the directory. One that cannot be written makes the agent run from memory.
    ///
    /// # Errors
    /// Only when another agent uses it.
    pub fn open(_directory: &Path) -> Result<Self, OpenError> {
        Ok(Self {})
    }

    /// State in memory only: nothing survives the process.
    #[must_use]
    pub fn in_memory() -> Self {
        Self {}
    }
}

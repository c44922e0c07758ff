//! The one table of exit codes that all commands share, so that scripts can branch on what happened.

use std::process::ExitCode;

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Done; nothing to change; healthy and in sync.
    Done = 0,
    /// The operation failed.
    Failed = 1,
    /// Changes are present (only with `--detailed-exitcode`).
    Changes = 2,
    /// Done, with warnings that `--deny-warnings` turned into a refusal.
    Warnings = 3,
    /// The configuration is refused: it does not validate, or policy or a signature forbids it.
    Refused = 4,
    /// Applied, then rolled back.
    RolledBack = 5,
    /// Nothing done: held, awaiting approval, or quarantined.
    Held = 6,
    /// Timed out waiting.
    TimedOut = 7,
    /// `status`: running, but not what is desired.
    NotInSync = 8,
    /// `status`: degraded.
    Degraded = 9,
    /// Bad usage.
    Usage = 64,
    /// The agent cannot be reached.
    Unreachable = 69,
    /// The agent refused the caller.
    NotPermitted = 77,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

//! Places in a log. A position is the only thing a leg has to remember to resume exactly where it was.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A byte offset inside a numbered segment; ordered as the log is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Position {
    /// The segment's number. Numbers only grow.
    pub segment: u64,
    /// Bytes from the start of the segment's file.
    pub offset: u64,
}

impl Position {
    /// The very beginning of segment `segment`.
    pub fn start_of(segment: u64) -> Self {
        Self { segment, offset: 0 }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.segment, self.offset)
    }
}

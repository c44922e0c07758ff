//! Access of the tests to the conformance tables, which lie beside the repository where they are available at all.

#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};

/// The rows of a table; `None`, with a note, where the tables are absent.
pub(crate) fn rows(table: &str) -> Option<Vec<serde_json::Value>> {
    let Some(path) = find(table) else {
        println!("skipped: no shared/conformance/{table} beside the repository");
        return None;
    };
    let text = std::fs::read_to_string(path).unwrap();
    Some(text.lines().map(|line| serde_json::from_str(line).unwrap()).collect())
}

fn find(table: &str) -> Option<PathBuf> {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .map(|folder| folder.join("shared/conformance").join(table))
        .find(|path| path.exists())
}

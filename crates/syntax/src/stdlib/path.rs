//! `file.path_join`: joins and cleans paths by their text alone.

use super::{Outcome, text_argument};
use crate::value::Value;

pub(super) fn join(arguments: &[Value]) -> Outcome {
    let mut parts = Vec::new();
    for index in 0..arguments.len() {
        let part = text_argument(arguments, index)?;
        if !part.is_empty() {
            parts.push(part);
        }
    }
    if parts.is_empty() {
        return Ok(Value::string(""));
    }
    Ok(Value::string(clean(&parts.join("/"))))
}

/// The shortest path that means the same: no `.`, no doubled `/`, `..` resolved.
fn clean(path: &str) -> String {
    let rooted = path.starts_with('/');
    let mut kept: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                if kept.last().is_some_and(|last| *last != "..") {
                    kept.pop();
                } else if !rooted {
                    kept.push("..");
                }
            }
            name => kept.push(name),
        }
    }
    let joined = kept.join("/");
    match (rooted, joined.is_empty()) {
        (true, _) => format!("/{joined}"),
        (false, true) => ".".to_owned(),
        (false, false) => joined,
    }
}

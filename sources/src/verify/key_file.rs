//! Reads files of keys. They belong to the operator; their limits only keep a wrong path from filling the memory.

use std::io::Read as _;
use std::path::Path;

use super::error::KeyError;

/// The largest file of keys.
const LIMIT: u64 = 8 * 1024 * 1024;

/// The content of a file of keys. Blocks.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, KeyError> {
    let failed = |reason: &dyn std::fmt::Display| {
        KeyError(format!("the keys in {} cannot be read: {reason}", path.display()))
    };
    let file = std::fs::File::open(path).map_err(|error| failed(&error))?;
    let mut content = Vec::new();
    file.take(LIMIT + 1).read_to_end(&mut content).map_err(|error| failed(&error))?;
    if content.len() as u64 > LIMIT {
        return Err(failed(&"the file is larger than 8 MiB"));
    }
    Ok(content)
}

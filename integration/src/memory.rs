//! The memory of a running process, searched as a debugger would: what it may write to, and so may have written a secret to.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};

use crate::Outcome;
use crate::canary::Forms;

/// As much is looked at in one step; forms that lie over its end are found as well.
const STEP: usize = 4 << 20;
const OVERLAP: usize = 4096;
/// What is shown around one that was found.
const AROUND: usize = 48;

/// Where a secret is in the memory of a process, in any form: each place with what is around it. `None` where this user may
/// not look, which only root may.
///
/// # Errors
/// The process is gone, or its maps are not as expected.
pub fn find_in_memory(process: u32, secret: &str) -> Outcome<Option<Vec<String>>> {
    let text = |error: std::io::Error| format!("the memory of process {process}: {error}");
    let forms = Forms::of(&[secret.to_owned()]);
    let maps = match std::fs::read_to_string(format!("/proc/{process}/maps")) {
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => return Ok(None),
        maps => maps.map_err(text)?,
    };
    let mut memory = match File::open(format!("/proc/{process}/mem")) {
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => return Ok(None),
        memory => memory.map_err(text)?,
    };
    let mut found = Vec::new();
    for line in maps.lines() {
        let mut parts = line.split_ascii_whitespace();
        let (Some(range), Some(permissions)) = (parts.next(), parts.next()) else { continue };
        let number = |text: &str| u64::from_str_radix(text, 16).map_err(|_| format!("no map: {line}"));
        let (from, to) = range.split_once('-').ok_or_else(|| format!("no map: {line}"))?;
        let (from, to) = (number(from)?, number(to)?);
        if !permissions.contains('w') {
            continue;
        }
        let name = parts.nth(3).unwrap_or("anonymous");
        let mut at = from;
        while at < to {
            let length = usize::try_from(to - at).unwrap_or(STEP).min(STEP);
            let mut bytes = vec![0; length];
            // What was unmapped meanwhile holds nothing.
            if memory.seek(SeekFrom::Start(at)).is_err() || memory.read_exact(&mut bytes).is_err() {
                break;
            }
            let mut from = 0;
            while let Some(next) = forms.find(&bytes[from..]) {
                let place = from + next;
                let around = &bytes[place.saturating_sub(AROUND)..bytes.len().min(place + 2 * AROUND)];
                found.push(format!("{:x} ({name}): {}", at + place as u64, around.escape_ascii()));
                from = place + 1;
            }
            let step = if at + length as u64 == to { length } else { length - OVERLAP };
            at += step as u64;
        }
    }
    Ok(Some(found))
}

//! `pin.toml`: at which commit an environment takes what all environments share. It stands in the environment's own
//! folder and is reviewed like everything in it.

use std::ops::Range;

use toml::de::{DeTable, DeValue};

/// The name of the file in an environment's folder.
pub const PIN_FILE: &str = "pin.toml";

/// The folders that a pin speaks of; everything else is taken as it is at the head.
pub const PINNED_FOLDERS: [&str; 2] = ["base", "modules"];

/// What a `pin.toml` says.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Pin {
    /// The commit, in 40 lowercase hexadecimal digits.
    pub commit: String,
}

/// Why a text is no pin.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct PinError {
    /// What is wrong, in one line.
    pub message: String,
    /// The bytes of the text at fault.
    pub span: Range<usize>,
}

impl Pin {
    /// Reads a `pin.toml`. Keys beside `commit` (`promoted_from`, `evidence` and what other tools may note) are free.
    ///
    /// # Errors
    /// The text is no TOML, or its `commit` is not the full id of one.
    pub fn parse(content: &[u8]) -> Result<Self, PinError> {
        let text = std::str::from_utf8(content).map_err(|error| PinError {
            message: "the pin is not UTF-8".to_owned(),
            span: error.valid_up_to()..error.valid_up_to(),
        })?;
        let table = DeTable::parse(text).map_err(|error| PinError {
            message: format!(
                "the pin is not TOML: {}",
                error.message().lines().collect::<Vec<_>>().join(", ")
            ),
            span: error.span().unwrap_or(0..0),
        })?;
        let Some(commit) = table.get_ref().iter().find(|(key, _)| &**key.get_ref() == "commit") else {
            let message = "the pin has no `commit`".to_owned();
            return Err(PinError { message, span: 0..0 });
        };
        match commit.1.get_ref() {
            DeValue::String(id) if id.len() == 40 && id.bytes().all(|byte| byte.is_ascii_hexdigit()) => {
                Ok(Self { commit: id.to_ascii_lowercase() })
            }
            _ => Err(PinError {
                message: "`commit` has to be the full id of a commit, 40 hexadecimal digits in quotes"
                    .to_owned(),
                span: commit.1.span(),
            }),
        }
    }
}

/// The `pin.toml` that speaks for a selection: that of the last selected folder below `environments/`.
#[must_use]
pub fn pin_path(selected: &[String]) -> Option<String> {
    let environment = |path: &&String| {
        path.strip_prefix("environments/").is_some_and(|name| !name.is_empty() && !name.contains('/'))
    };
    selected.iter().rev().find(environment).map(|folder| format!("{folder}/{PIN_FILE}"))
}

/// Whether a path is one that a pin speaks of.
#[must_use]
pub fn is_pinned(path: &str) -> bool {
    PINNED_FOLDERS
        .iter()
        .any(|folder| path.strip_prefix(folder).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn pins_are_full_commits() {
        let commit = "4be21c09".repeat(5);
        let text = format!("commit = \"{commit}\"\npromoted_from = \"staging\"\nevidence = \"run/8123\"\n");
        assert_eq!(Pin::parse(text.as_bytes()).unwrap().commit, commit);
        for (text, span) in [
            ("commit = \"4be21c09\"", 9..19),
            ("commit = 4", 9..10),
            ("comit = \"x\"", 0..0),
            ("commit = ", 9..9),
        ] {
            assert_eq!(Pin::parse(text.as_bytes()).unwrap_err().span, span, "{text}");
        }
        assert!(Pin::parse(b"commit = '\xff'").is_err());
    }

    #[test]
    fn the_environments_folder_has_the_pin() {
        let selected = |paths: &[&str]| paths.iter().map(|path| (*path).to_owned()).collect::<Vec<_>>();
        let paths = selected(&["base", "environments/production", "hosts/web-17"]);
        assert_eq!(pin_path(&paths).as_deref(), Some("environments/production/pin.toml"));
        assert_eq!(pin_path(&selected(&["base", "environments", "environments/a/b"])), None);
        assert!(is_pinned("base/x.alloy") && is_pinned("modules/a/b.alloy") && is_pinned("base"));
        assert!(!is_pinned("basement/x.alloy") && !is_pinned("environments/base/x.alloy"));
    }
}

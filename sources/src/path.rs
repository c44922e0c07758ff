//! Names and paths of the virtual tree: what a repository may call its files, and how links resolve.

use std::collections::BTreeMap;

use crate::error::{Failure, Rejection};
use crate::snapshot::{Files, Notice, NoticeKind};

/// The longest name of one file or folder, in bytes.
const NAME_LIMIT: usize = 255;

/// Refuses names that mean something else on some file system, although nothing is ever written to one:
/// a name that is safe here is safe wherever the files are looked at.
pub(crate) fn check_name(name: &[u8]) -> Result<&str, Failure> {
    let refuse = |what: &str| {
        let shown: String = String::from_utf8_lossy(name).chars().take(80).collect();
        Err(Failure::rejected(Rejection::Name, format!("the file name `{}` {what}", shown.escape_debug())))
    };
    let Ok(text) = std::str::from_utf8(name) else { return refuse("is not UTF-8") };
    if text.is_empty() || text == "." || text == ".." {
        return refuse("is not a name");
    }
    if text.len() > NAME_LIMIT {
        return refuse("is longer than 255 bytes");
    }
    if text.chars().any(char::is_control) {
        return refuse("has control characters");
    }
    if text.contains(['/', '\\']) {
        return refuse("has a slash or backslash");
    }
    let bytes = text.as_bytes();
    if bytes.len() >= 2 && bytes[0].is_ascii_alphabetic() && bytes[1] == b':' {
        return refuse("looks like a drive");
    }
    if is_git_in_disguise(text) {
        return refuse("reads as `.git` on some file system");
    }
    Ok(text)
}

/// `.git` as HFS+ (ignored code points), NTFS (short names, trailing dots and spaces, streams) and
/// file systems without case see it.
fn is_git_in_disguise(name: &str) -> bool {
    let ignored = |c: &char| matches!(*c, '\u{200c}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}' | '\u{206a}'..='\u{206f}' | '\u{feff}');
    let visible: String = name.chars().filter(|c| !ignored(c)).collect::<String>().to_lowercase();
    let stem = visible.split(':').next().unwrap_or_default().trim_end_matches(['.', ' ']);
    stem == ".git" || stem.strip_prefix("git~").is_some_and(|number| number == "1")
}

/// Normalizes a path of the settings (`base/`, `./environments//x`) to names joined by `/`; the root
/// folder is the empty text.
pub(crate) fn normalize_selected(path: &str) -> Result<String, Failure> {
    let mut names = Vec::new();
    if path.starts_with('/') {
        return Err(Failure::stalled(format!(
            "the path `{path}` is absolute; it is relative to the root of the source"
        )));
    }
    for name in path.split('/') {
        match name {
            "" | "." => {}
            ".." => {
                return Err(Failure::stalled(format!("the path `{path}` may not contain `..`")));
            }
            name => {
                names.push(check_name(name.as_bytes()).map_err(|failure| Failure::stalled(failure.message))?)
            }
        }
    }
    Ok(names.join("/"))
}

/// Normalizes a path of a virtual tree that steps up with `..` where it pleases. `None` where it leaves the root, or a
/// name in it is not safe.
#[must_use]
pub fn normalize_path(path: &str) -> Option<String> {
    let mut names: Vec<&str> = Vec::new();
    for name in path.split('/') {
        match name {
            "" | "." => {}
            ".." => {
                names.pop()?;
            }
            name => names.push(check_name(name.as_bytes()).ok()?),
        }
    }
    Some(names.join("/"))
}

/// Where a link leads: `target` as seen from the folder `folder` (names from the root). `None` if it is
/// absolute or leaves the root.
pub(crate) fn resolve_link(folder: &[String], target: &str) -> Option<Vec<String>> {
    let drive = target.as_bytes().get(1) == Some(&b':');
    if target.is_empty() || target.starts_with('/') || drive || target.contains(['\\', '\0']) {
        return None;
    }
    let mut names = folder.to_vec();
    for name in target.split('/') {
        match name {
            "" | "." => {}
            ".." => {
                names.pop()?;
            }
            name => names.push(name.to_owned()),
        }
    }
    Some(names)
}

/// Two names that a file system without case takes for one: there an error, elsewhere a notice.
pub(crate) fn case_collision(files: &Files) -> Result<Option<Notice>, Failure> {
    let mut folded: BTreeMap<String, &str> = BTreeMap::new();
    for path in files.keys() {
        if let Some(other) = folded.insert(path.to_lowercase(), path) {
            let message = format!("`{other}` and `{path}` differ only in case");
            if cfg!(any(windows, target_os = "macos")) {
                return Err(Failure::rejected(Rejection::Name, message));
            }
            return Ok(Some(Notice { kind: NoticeKind::CaseCollision, message }));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn usual_names_pass() {
        for name in
            ["a.alloy", "variables.toml", "..data", "...", ".gitignore", ".github", "ünïcode.alloy", "git~2"]
        {
            assert_eq!(check_name(name.as_bytes()).unwrap(), name);
        }
    }

    #[test]
    fn unsafe_names_are_refused() {
        let long = "x".repeat(256);
        for name in [
            "",
            ".",
            "..",
            "a/b",
            "a\\b",
            "a\nb",
            "a\0b",
            "C:",
            "c:x",
            ".git",
            ".GIT",
            ".Git. ",
            ".g\u{200c}it",
            "git~1",
            "GIT~1",
            ".git::$INDEX_ALLOCATION",
            "\u{feff}.git",
            long.as_str(),
        ] {
            assert!(check_name(name.as_bytes()).is_err(), "{name:?}");
        }
        assert!(check_name(b"\xff").is_err());
    }

    #[test]
    fn selected_paths_are_normalized() {
        assert_eq!(normalize_selected("./environments//production/").unwrap(), "environments/production");
        assert_eq!(normalize_selected(".").unwrap(), "");
        assert_eq!(normalize_selected("").unwrap(), "");
        for path in ["../x", "/base", "a/../../b", ".git", "a/.GIT/b"] {
            assert!(normalize_selected(path).is_err(), "{path}");
        }
    }

    #[test]
    fn paths_step_up_but_not_out() {
        assert_eq!(
            normalize_path("/environments/dev/../../modules//net.alloy").unwrap(),
            "modules/net.alloy"
        );
        assert_eq!(normalize_path("a/.."), Some(String::new()));
        assert_eq!(normalize_path("a/../../etc/passwd"), None);
        assert_eq!(normalize_path("a/.git/config"), None);
    }

    #[test]
    fn links_stay_below_the_root() {
        let folder = ["a".to_owned(), "b".to_owned()];
        assert_eq!(resolve_link(&folder, "../c/./d").unwrap(), ["a", "c", "d"]);
        assert_eq!(resolve_link(&folder, "../../x").unwrap(), ["x"]);
        for target in ["../../../x", "/etc/passwd", "C:/x", "", "a\\b"] {
            assert_eq!(resolve_link(&folder, target), None, "{target}");
        }
    }

    proptest! {
        #[test]
        fn no_link_escapes(depth in 0_usize..4, target in "[a./\\\\]{0,24}") {
            let folder: Vec<String> = (0..depth).map(|n| n.to_string()).collect();
            if let Some(names) = resolve_link(&folder, &target) {
                prop_assert!(names.iter().all(|name| name != ".." && name != "." && !name.is_empty()));
            }
        }

        #[test]
        fn selected_paths_never_step_up(path in "[a./]{0,24}") {
            if let Ok(path) = normalize_selected(&path) {
                prop_assert!(path.split('/').all(|name| name != ".."));
            }
        }
    }
}

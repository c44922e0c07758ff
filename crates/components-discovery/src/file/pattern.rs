//! Paths whose last element may be a pattern, as Go's `filepath.Match` reads them: `*`, `?`, `[a-z]`, `[^a-z]`, `\x`.

use invar_policy::Access;
use std::io;
use std::path::{Path, PathBuf};

use invar_blocks::file_watch::directory_of;

const EXTENSIONS: [&str; 3] = ["json", "yml", "yaml"];

/// One entry of `files`.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Pattern {
    /// As written.
    pub(super) path: PathBuf,
    /// The last element where it is a pattern.
    element: Option<Vec<Token>>,
}

#[derive(Clone, Debug, PartialEq)]
enum Token {
    Literal(char),
    /// Any text.
    Star,
    /// Any one character.
    Question,
    /// One character in, or not in, these ranges.
    Class {
        negated: bool,
        ranges: Vec<(char, char)>,
    },
}

impl Pattern {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let path = PathBuf::from(text);
        let refused = |why: &str| Err(format!("{text:?} {why}"));
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
            return refused("names no file");
        };
        let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
        if !EXTENSIONS.contains(&extension.to_ascii_lowercase().as_str()) {
            return refused("must end in .json, .yml or .yaml");
        }
        if directory_of(&path).to_str().is_some_and(|directory| directory.contains(['*', '?', '['])) {
            return refused("may be a pattern in its last element only");
        }
        let element = if name.contains(['*', '?', '[', '\\']) {
            match tokens(name) {
                Some(tokens) => Some(tokens),
                None => return refused("is a malformed pattern"),
            }
        } else {
            None
        };
        Ok(Self { path, element })
    }

    /// The files that match now, in order; a plain path always matches.
    pub(super) fn expand(&self, access: &Access) -> io::Result<Vec<PathBuf>> {
        let Some(element) = &self.element else { return Ok(vec![self.path.clone()]) };
        let directory = directory_of(&self.path);
        let mut paths = Vec::new();
        access.file(directory)?;
        let entries = match std::fs::read_dir(directory) {
            Ok(entries) => entries,
            // As a pattern without matches.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(paths),
            Err(error) => return Err(error),
        };
        for entry in entries {
            let name = entry?.file_name();
            if name.to_str().is_some_and(|name| matches(element, name)) {
                // The path as the pattern was written: with no directory where it had none.
                paths.push(self.path.with_file_name(name));
            }
        }
        paths.sort_unstable();
        Ok(paths)
    }

    pub(super) fn matches(&self, path: &Path) -> bool {
        match &self.element {
            None => path == self.path,
            Some(element) => {
                directory_of(path) == directory_of(&self.path)
                    && path
                        .file_name()
                        .and_then(|name| name.to_str())
                        .is_some_and(|name| matches(element, name))
            }
        }
    }
}

fn tokens(pattern: &str) -> Option<Vec<Token>> {
    let mut tokens = Vec::new();
    let mut characters = pattern.chars().peekable();
    while let Some(character) = characters.next() {
        tokens.push(match character {
            '*' => Token::Star,
            '?' => Token::Question,
            '\\' => Token::Literal(characters.next()?),
            '[' => {
                let negated = characters.next_if_eq(&'^').is_some();
                let mut ranges = Vec::new();
                loop {
                    let mut low = characters.next()?;
                    if low == ']' && !ranges.is_empty() {
                        break;
                    }
                    if low == '\\' {
                        low = characters.next()?;
                    } else if matches!(low, ']' | '-') {
                        return None;
                    }
                    let mut high = low;
                    if characters.next_if_eq(&'-').is_some() {
                        high = characters.next()?;
                        if high == '\\' {
                            high = characters.next()?;
                        } else if matches!(high, ']' | '-') {
                            return None;
                        }
                    }
                    ranges.push((low, high));
                }
                Token::Class { negated, ranges }
            }
            other => Token::Literal(other),
        });
    }
    Some(tokens)
}

/// Linear in the product of both lengths: on a mismatch only the last star is tried again.
fn matches(pattern: &[Token], name: &str) -> bool {
    let name: Vec<char> = name.chars().collect();
    let (mut at_pattern, mut at_name) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    loop {
        match pattern.get(at_pattern) {
            Some(Token::Star) => {
                star = Some((at_pattern + 1, at_name));
                at_pattern += 1;
                continue;
            }
            Some(token) if name.get(at_name).is_some_and(|character| token.accepts(*character)) => {
                at_pattern += 1;
                at_name += 1;
                continue;
            }
            None if at_name == name.len() => return true,
            _ => {}
        }
        match star {
            Some((after, from)) if from < name.len() => {
                star = Some((after, from + 1));
                at_pattern = after;
                at_name = from + 1;
            }
            _ => return false,
        }
    }
}

impl Token {
    fn accepts(&self, character: char) -> bool {
        match self {
            Self::Literal(literal) => *literal == character,
            Self::Question => true,
            Self::Class { negated, ranges } => {
                ranges.iter().any(|(low, high)| (*low..=*high).contains(&character)) != *negated
            }
            Self::Star => false,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn matching(pattern: &str, name: &str) -> bool {
        matches(&tokens(pattern).unwrap(), name)
    }

    #[test]
    fn patterns_match_as_in_go() {
        for (pattern, name, expected) in [
            ("*.json", "a.json", true),
            ("*.json", ".json", true),
            ("*.json", "a.jsonl", false),
            ("tg_*.y?ml", "tg_1.yaml", true),
            ("tg_*.yml", "tg_.yml", true),
            ("a*b*c.yml", "aXbYbZc.yml", true),
            ("a*b*c.yml", "aXbYbZ.yml", false),
            ("[a-c]x.yml", "bx.yml", true),
            ("[^a-c]x.yml", "bx.yml", false),
            ("\\*.yml", "*.yml", true),
            ("\\*.yml", "a.yml", false),
            ("?.yml", "é.yml", true),
        ] {
            assert_eq!(matching(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn what_cannot_work_is_refused_with_a_reason() {
        for (text, reason) in [
            ("targets.txt", "must end in"),
            ("", "names no file"),
            ("/etc/*/targets.yml", "last element only"),
            ("/etc/[a.yml", "malformed"),
            ("/etc/[].yml", "malformed"),
        ] {
            let message = Pattern::parse(text).unwrap_err();
            assert!(message.contains(reason), "{text}: {message}");
        }
        assert!(Pattern::parse("/etc/a*.YAML").is_ok());
    }

    #[test]
    fn many_stars_do_not_take_exponential_time() {
        let pattern = "*a".repeat(40) + ".yml";
        assert!(!matching(&pattern, &"a".repeat(4000)));
    }
}

//! The lists of patterns of OpenSSH: names separated by commas, with `*` and `?`, and `!` in front of what is left out.

/// A list of patterns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PatternList {
    patterns: Vec<(bool, String)>,
}

impl PatternList {
    pub(crate) fn parse(text: &str) -> Self {
        let pattern = |text: &str| match text.strip_prefix('!') {
            Some(rest) => (false, rest.to_owned()),
            None => (true, text.to_owned()),
        };
        Self { patterns: text.split(',').filter(|text| !text.is_empty()).map(pattern).collect() }
    }

    /// Whether one of the patterns matches and none of those with `!` does.
    pub(crate) fn matches(&self, name: &str) -> bool {
        let mut found = false;
        for (positive, pattern) in &self.patterns {
            if matches(pattern.as_bytes(), name.as_bytes()) {
                if !positive {
                    return false;
                }
                found = true;
            }
        }
        found
    }

    /// The first pattern that lets something in.
    pub(crate) fn first(&self) -> Option<&str> {
        self.patterns.iter().find(|(positive, _)| *positive).map(|(_, pattern)| pattern.as_str())
    }
}

/// Whether a pattern matches all of a name. Takes at most the product of their lengths: it goes back to the last `*` only.
fn matches(pattern: &[u8], name: &[u8]) -> bool {
    let (mut at, mut reached) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while reached < name.len() {
        match pattern.get(at) {
            Some(b'*') => {
                star = Some((at, reached));
                at += 1;
            }
            Some(byte) if *byte == b'?' || *byte == name[reached] => {
                at += 1;
                reached += 1;
            }
            _ => {
                let Some((place, from)) = star else { return false };
                star = Some((place, from + 1));
                at = place + 1;
                reached = from + 1;
            }
        }
    }
    pattern[at..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_match_as_openssh_matches_them() {
        for (list, name, expected) in [
            ("ada@example.com", "ada@example.com", true),
            ("ada@example.com", "Ada@example.com", false),
            ("*@example.com", "ada@example.com", true),
            ("*@example.com", "ada@example.com.evil.org", false),
            ("*@example.com,!bob@example.com", "bob@example.com", false),
            ("*@example.com,!bob@example.com", "ada@example.com", true),
            ("!bob@example.com", "ada@example.com", false),
            ("gi?", "git", true),
            ("gi?", "gi", false),
            ("a*b*c", "aXbYbZc", true),
            ("a*b*c", "aXbYbZ", false),
            ("*", "", true),
            ("", "", false),
            ("", "x", false),
        ] {
            assert_eq!(PatternList::parse(list).matches(name), expected, "{list} {name}");
        }
    }

    fn slow(pattern: &[u8], name: &[u8]) -> bool {
        match (pattern.first(), name.first()) {
            (None, None) => true,
            (Some(b'*'), _) => slow(&pattern[1..], name) || (!name.is_empty() && slow(pattern, &name[1..])),
            (Some(b'?'), Some(_)) => slow(&pattern[1..], &name[1..]),
            (Some(one), Some(other)) => one == other && slow(&pattern[1..], &name[1..]),
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn the_quick_way_says_what_the_plain_way_says(pattern in "[ab*?]{0,8}", name in "[ab]{0,8}") {
            prop_assert_eq!(matches(pattern.as_bytes(), name.as_bytes()), slow(pattern.as_bytes(), name.as_bytes()));
        }
    }
}

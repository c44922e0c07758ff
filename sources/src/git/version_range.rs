//! Ranges of semantic versions over tags: `^1.2`, `>=1.0 <2`, `1.x || 3.x`.
//!
//! The reading is that of Flux and npm, since that is what people have in their repositories: a version without an operator
//! is meant exactly (`1.2` is `1.2.x`), blanks and commas both mean "and". Pre-releases are candidates only where the range
//! names one.

use std::cmp::Ordering;
use std::fmt;

use semver::{Comparator, Op, Prerelease, Version, VersionReq};

/// The longest range, in bytes.
const LENGTH_LIMIT: usize = 256;

/// A range: alternatives, in each of which everything has to hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VersionRange {
    text: String,
    alternatives: Vec<Vec<Comparator>>,
}

impl fmt::Display for VersionRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl VersionRange {
    /// Reads a range.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.len() > LENGTH_LIMIT {
            return Err(format!("it is longer than {LENGTH_LIMIT} bytes"));
        }
        let alternatives = text.split("||").map(parse_alternative).collect::<Result<Vec<_>, String>>()?;
        Ok(Self { text: text.trim().to_owned(), alternatives })
    }

    /// Whether a version is in the range.
    #[must_use]
    pub fn contains(&self, version: &Version) -> bool {
        self.alternatives.iter().any(|comparators| {
            let names_one = comparators.iter().any(|comparator| !comparator.pre.is_empty());
            (version.pre.is_empty() || names_one)
                && comparators.iter().all(|comparator| holds(comparator, version))
        })
    }

    /// The tag with the highest version in the range, of tags in short form.
    pub fn highest<'a, T: AsRef<str>>(
        &self,
        tags: impl IntoIterator<Item = (&'a T, Version)>,
    ) -> Option<&'a T> {
        let mut best: Option<(&T, Version)> = None;
        for (tag, version) in tags {
            if !self.contains(&version) {
                continue;
            }
            let order = match &best {
                Some((before, highest)) => {
                    let order = version
                        .cmp_precedence(highest)
                        .then_with(|| version.build.as_str().cmp(highest.build.as_str()));
                    if order == Ordering::Equal || version.cmp_precedence(highest) == Ordering::Equal {
                        tracing::info!(
                            one = tag.as_ref(),
                            other = before.as_ref(),
                            "two tags are the same version"
                        );
                    }
                    order.then_with(|| tag.as_ref().cmp(before.as_ref()))
                }
                None => Ordering::Greater,
            };
            if order == Ordering::Greater {
                best = Some((tag, version));
            }
        }
        best.map(|(tag, _)| tag)
    }
}

/// The version that a tag names, with or without one `v` before it.
#[must_use]
pub fn version_of(tag: &str) -> Option<Version> {
    Version::parse(tag.strip_prefix('v').unwrap_or(tag)).ok()
}

fn parse_alternative(text: &str) -> Result<Vec<Comparator>, String> {
    let mut comparators = Vec::new();
    let mut operator = String::new();
    for word in text.split([' ', '\t', ',']).filter(|word| !word.is_empty()) {
        let start = word.find(|c: char| !matches!(c, '<' | '>' | '=' | '~' | '^')).unwrap_or(word.len());
        let (sign, version) = word.split_at(start);
        if !operator.is_empty() && !sign.is_empty() {
            return Err(format!("`{operator}` stands before `{sign}`"));
        }
        operator.push_str(sign);
        if version.is_empty() {
            continue;
        }
        let version = version.strip_prefix('v').unwrap_or(version);
        let sign =
            if operator.is_empty() && !version.contains(['*', 'x', 'X']) { "=" } else { operator.as_str() };
        let one =
            VersionReq::parse(&format!("{sign}{version}")).map_err(|error| format!("`{word}`: {error}"))?;
        comparators.extend(one.comparators);
        // `*` has no comparators: it holds for everything.
        operator.clear();
    }
    if !operator.is_empty() {
        return Err(format!("no version follows `{operator}`"));
    }
    if text.trim().is_empty() {
        return Err("it says nothing".to_owned());
    }
    Ok(comparators)
}

/// The smallest version of these numbers, pre-releases included.
fn floor(major: u64, minor: u64, patch: u64) -> Version {
    Version { pre: Prerelease::new("0").unwrap_or_default(), ..Version::new(major, minor, patch) }
}

/// Whether a version is as a comparator says, by precedence. Where the end of a range is not named as a pre-release, those of
/// that end are beyond it: `<2.0.0` does not let `2.0.0-rc.1` in.
fn holds(comparator: &Comparator, version: &Version) -> bool {
    let (major, minor, patch) = (comparator.major, comparator.minor, comparator.patch);
    let named = Version {
        pre: comparator.pre.clone(),
        ..Version::new(major, minor.unwrap_or(0), patch.unwrap_or(0))
    };
    let at_least = |bound: &Version| version.cmp_precedence(bound) != Ordering::Less;
    let below = |bound: &Version| version.cmp_precedence(bound) == Ordering::Less;
    // The first version that the numbers that are there do not stand for.
    let next = match (minor, patch) {
        (None, _) => floor(major.saturating_add(1), 0, 0),
        (Some(minor), None) => floor(major, minor.saturating_add(1), 0),
        (Some(minor), Some(patch)) => floor(major, minor, patch.saturating_add(1)),
    };
    let partial = patch.is_none();
    match comparator.op {
        Op::Exact | Op::Wildcard if partial => at_least(&named) && below(&next),
        Op::Exact => version.cmp_precedence(&named) == Ordering::Equal,
        Op::Greater if partial => at_least(&Version { pre: Prerelease::EMPTY, ..next }),
        Op::Greater => version.cmp_precedence(&named) == Ordering::Greater,
        Op::GreaterEq => at_least(&named),
        Op::Less if comparator.pre.is_empty() => below(&floor(major, minor.unwrap_or(0), patch.unwrap_or(0))),
        Op::Less => below(&named),
        Op::LessEq if partial => below(&next),
        Op::LessEq => version.cmp_precedence(&named) != Ordering::Greater,
        Op::Tilde => {
            let end = match minor {
                Some(minor) => floor(major, minor.saturating_add(1), 0),
                None => floor(major.saturating_add(1), 0, 0),
            };
            at_least(&named) && below(&end)
        }
        Op::Caret => {
            let end = match (major, minor, patch) {
                (0, Some(0), Some(patch)) => floor(0, 0, patch.saturating_add(1)),
                (0, Some(minor), _) => floor(0, minor.saturating_add(1), 0),
                _ => floor(major.saturating_add(1), 0, 0),
            };
            at_least(&named) && below(&end)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    fn highest(range: &str, tags: &[&str]) -> Option<String> {
        let range = VersionRange::parse(range).unwrap();
        let versions = tags.iter().filter_map(|tag| version_of(tag).map(|version| (tag, version)));
        range.highest(versions).map(|tag| (*tag).to_owned())
    }

    #[test]
    fn ranges() {
        for (range, inside, outside) in [
            ("1.2.3", "1.2.3", "1.2.4"),
            ("1.2", "1.2.9", "1.3.0"),
            ("1", "1.9.9", "2.0.0"),
            ("1.x", "1.9.9", "2.0.0"),
            ("1.2.*", "1.2.9", "1.3.0"),
            ("^1.2.3", "1.9.0", "1.2.2"),
            ("^0.2.3", "0.2.9", "0.3.0"),
            ("^0.0.3", "0.0.3", "0.0.4"),
            ("~1.2.3", "1.2.9", "1.3.0"),
            ("~1", "1.9.0", "2.0.0"),
            (">=1.0.0 <2.0.0", "1.5.0", "2.0.0"),
            (">= 1.0, < 2", "1.5.0", "2.0.0"),
            (">1.2", "1.3.0", "1.2.9"),
            ("<=1.2", "1.2.9", "1.3.0"),
            ("<=1.2.3", "1.2.3", "1.2.4"),
            (">1.2.3", "1.2.4", "1.2.3"),
            ("1.x || 3.x", "3.1.0", "2.0.0"),
            ("*", "7.0.0", "7.0.0-rc.1"),
            ("v1.2.x", "1.2.1", "1.1.0"),
            ("=1.2.3", "1.2.3", "1.2.2"),
            ("^1.2.0-0", "1.3.0-rc.1", "2.0.0-rc.1"),
            (">=1.0.0-0 <2.0.0", "1.9.0-beta", "2.0.0-beta"),
            (">=1.0.0-0 <2.0.0-beta", "2.0.0-alpha", "2.0.0-beta"),
            ("1.2.3-rc.1", "1.2.3-rc.1", "1.2.3"),
        ] {
            let parsed = VersionRange::parse(range).unwrap();
            assert!(parsed.contains(&Version::parse(inside).unwrap()), "{range} {inside}");
            assert!(!parsed.contains(&Version::parse(outside).unwrap()), "{range} {outside}");
        }
        for range in
            ["", "  ", "abc", "1.2.3.4", ">=", "> <1", "1 || ", "1.0.0 - 2.0.0", "=>1", &"1".repeat(300)]
        {
            assert!(VersionRange::parse(range).is_err(), "{range}");
        }
    }

    #[test]
    fn the_highest_tag_in_the_range_wins() {
        let tags = [
            "v1.9.0",
            "v1.10.0",
            "1.2.0",
            "v2.0.0",
            "v1.11.0-rc.1",
            "release-1.12.0",
            "vv1.13.0",
            "v1.14",
            "latest",
        ];
        assert_eq!(highest("1.x", &tags).as_deref(), Some("v1.10.0"), "numbers, not letters");
        assert_eq!(highest(">=1.0.0-0 <2", &tags).as_deref(), Some("v1.11.0-rc.1"));
        assert_eq!(highest("*", &tags).as_deref(), Some("v2.0.0"));
        assert_eq!(highest("3.x", &tags), None);
    }

    #[test]
    fn ties_are_settled_by_build_metadata_then_by_name() {
        assert_eq!(highest("1.x", &["v1.0.0+b", "v1.0.0+a", "v1.0.0"]).as_deref(), Some("v1.0.0+b"));
        assert_eq!(highest("1.x", &["v1.0.0", "1.0.0"]).as_deref(), Some("v1.0.0"));
        assert_eq!(highest("1.x", &["1.0.0", "v1.0.0"]).as_deref(), Some("v1.0.0"));
    }

    proptest! {
        #[test]
        fn any_text_is_a_range_or_refused(text in "[0-9a-z.*<>=~^|, +-]{0,40}", tag in "v?[0-9.a-z+-]{0,20}") {
            if let (Ok(range), Some(version)) = (VersionRange::parse(&text), version_of(&tag)) {
                let unbounded = range.to_string() == "*" && version.pre.is_empty();
                prop_assert!(range.contains(&version) || !unbounded);
            }
        }

        #[test]
        fn for_releases_it_agrees_with_the_library(
            operator in prop::sample::select(vec!["=", ">", ">=", "<", "<=", "~", "^"]),
            parts in prop::collection::vec(0_u64..4, 1..4),
            version in prop::collection::vec(0_u64..4, 3),
        ) {
            let numbers: Vec<String> = parts.iter().map(u64::to_string).collect();
            let text = format!("{operator}{}", numbers.join("."));
            let version = Version::new(version[0], version[1], version[2]);
            let theirs = VersionReq::parse(&text).unwrap().matches(&version);
            prop_assert_eq!(VersionRange::parse(&text).unwrap().contains(&version), theirs, "{} {}", text, version);
        }
    }
}

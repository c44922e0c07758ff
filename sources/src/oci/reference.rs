//! Which artifact is wanted: the registry, the repository in it, and a digest, a range of versions or a tag.

use semver::{Version, VersionReq};
use url::Url;

use crate::connection::is_loopback;
use crate::error::Failure;
use crate::settings::OciSettings;

/// The tag where the settings name none.
const LATEST: &str = "latest";

/// A repository of a registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Repository {
    /// `registry.example:5000/obs/fleet`, as people write it.
    pub(super) shown: String,
    /// `https://registry.example:5000/v2/obs/fleet`.
    pub(super) url: Url,
    /// `obs/fleet`.
    pub(super) name: String,
}

/// What the settings ask for; of several the first in this order decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// `sha256:` and 64 digits, with the tag it is shown with.
    Digest(String, Option<String>),
    Range(VersionReq, String),
    Tag(String),
}

impl Repository {
    /// `encrypted` is whether the settings say something about TLS: then a registry on this host has it too.
    pub(super) fn new(settings: &OciSettings, encrypted: bool) -> Result<Self, Failure> {
        let text = &settings.repository;
        let unusable = |what: &str| {
            Failure::stalled(format!("`oci.repository` {what}"))
                .with_help("it is the registry's host and the repository: registry.example/obs/fleet")
        };
        if text.contains("://") {
            return Err(unusable("has a scheme"));
        }
        let (host, name) = text.split_once('/').ok_or_else(|| unusable("names no repository"))?;
        if host.contains('@') {
            return Err(unusable("holds a credential; use `auth`"));
        }
        if !name.split('/').all(is_component) || name.len() > 255 {
            return Err(unusable(
                "is not the name of a repository: small letters, digits, and `.`, `_`, `-` between",
            ));
        }
        // What the default registry is called is not where it is.
        let server = if host == "docker.io" { "registry-1.docker.io" } else { host };
        let plain = Url::parse(&format!("http://{server}/")).map_err(|_| unusable("names no host"))?;
        let unencrypted = settings.insecure || (is_loopback(&plain) && !encrypted);
        let scheme = if unencrypted { "http" } else { "https" };
        let url =
            Url::parse(&format!("{scheme}://{server}/v2/{name}")).map_err(|_| unusable("names no host"))?;
        Ok(Self { shown: text.clone(), url, name: name.to_owned() })
    }
}

impl Wanted {
    pub(super) fn new(settings: &OciSettings) -> Result<Self, Failure> {
        let tag = settings.tag.as_ref().map(|tag| match is_tag(tag) {
            true => Ok(tag.clone()),
            false => Err(Failure::stalled(format!("`oci.tag`: `{tag}` is not a tag"))),
        });
        let tag = tag.transpose()?;
        if let Some(digest) = &settings.digest {
            if !is_digest(digest) {
                return Err(Failure::stalled("`oci.digest` is not `sha256:` and 64 hexadecimal digits"));
            }
            return Ok(Self::Digest(digest.clone(), tag));
        }
        if let Some(range) = &settings.semver {
            let parsed = VersionReq::parse(range)
                .map_err(|error| Failure::stalled(format!("`oci.semver`: `{range}`: {error}")))?;
            return Ok(Self::Range(parsed, range.clone()));
        }
        Ok(Self::Tag(tag.unwrap_or_else(|| LATEST.to_owned())))
    }

    /// For people.
    pub(super) fn describe(&self) -> String {
        match self {
            Self::Digest(digest, Some(tag)) => format!("{tag}@{digest}"),
            Self::Digest(digest, None) => digest.clone(),
            Self::Range(_, range) => format!("semver {range}"),
            Self::Tag(tag) => tag.clone(),
        }
    }
}

/// The tag of the highest version that a range takes. One leading `v` is no part of a version; what is none is passed
/// over; of versions that differ in their build alone, the one whose build sorts last wins.
pub(super) fn highest<'a>(range: &VersionReq, tags: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    tags.filter_map(|tag| {
        // A tag cannot have the `+` before a build; tools write `_` for it.
        let text = tag.strip_prefix('v').unwrap_or(tag).replacen('_', "+", 1);
        let version = Version::parse(&text).ok()?;
        range.matches(&version).then_some((version, tag))
    })
    .max_by(|(a, one), (b, other)| {
        a.cmp_precedence(b).then_with(|| a.build.as_str().cmp(b.build.as_str())).then_with(|| one.cmp(other))
    })
    .map(|(_, tag)| tag)
}

/// `sha256:` and 64 lowercase digits: other algorithms are not in use.
pub(super) fn is_digest(text: &str) -> bool {
    text.strip_prefix("sha256:").is_some_and(|digits| {
        digits.len() == 64 && digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    })
}

/// As the distribution specification has it: `[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}`.
pub(super) fn is_tag(text: &str) -> bool {
    let usual = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    text.len() <= 128
        && text.bytes().next().is_some_and(usual)
        && text.bytes().all(|byte| usual(byte) || matches!(byte, b'.' | b'-'))
}

/// One part of a repository's name.
fn is_component(text: &str) -> bool {
    let usual = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    !text.is_empty()
        && text.bytes().all(|byte| usual(byte) || matches!(byte, b'.' | b'_' | b'-'))
        && text.bytes().next().is_some_and(usual)
        && text.bytes().next_back().is_some_and(usual)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    fn settings(repository: &str) -> OciSettings {
        OciSettings { repository: repository.to_owned(), ..OciSettings::default() }
    }

    #[test]
    fn registries_are_encrypted_unless_they_are_on_this_host() {
        for (text, encrypted, url) in [
            ("registry.example/obs/fleet", false, "https://registry.example/v2/obs/fleet"),
            ("registry.example:5000/fleet", false, "https://registry.example:5000/v2/fleet"),
            ("localhost:5000/fleet", false, "http://localhost:5000/v2/fleet"),
            ("127.0.0.1:5000/fleet", false, "http://127.0.0.1:5000/v2/fleet"),
            ("localhost:5000/fleet", true, "https://localhost:5000/v2/fleet"),
            ("docker.io/library/x", false, "https://registry-1.docker.io/v2/library/x"),
        ] {
            assert_eq!(Repository::new(&settings(text), encrypted).unwrap().url.as_str(), url, "{text}");
        }
        let insecure = OciSettings { insecure: true, ..settings("registry.example/x") };
        assert_eq!(Repository::new(&insecure, false).unwrap().url.scheme(), "http");
        for text in [
            "",
            "fleet",
            "host/",
            "host/A",
            "host/a//b",
            "host/../x",
            "host/a:b",
            "https://host/x",
            "u@host/x",
        ] {
            assert!(Repository::new(&settings(text), false).is_err(), "{text}");
        }
    }

    #[test]
    fn a_digest_decides_before_a_range_before_a_tag() {
        let digest = format!("sha256:{}", "ab".repeat(32));
        let all = OciSettings {
            tag: Some("v1".to_owned()),
            semver: Some("^1".to_owned()),
            digest: Some(digest.clone()),
            ..settings("h/x")
        };
        assert_eq!(Wanted::new(&all).unwrap(), Wanted::Digest(digest, Some("v1".to_owned())));
        let range = OciSettings { digest: None, ..all };
        assert!(matches!(Wanted::new(&range).unwrap(), Wanted::Range(_, text) if text == "^1"));
        assert_eq!(Wanted::new(&settings("h/x")).unwrap(), Wanted::Tag("latest".to_owned()));
        for wrong in [
            OciSettings { digest: Some("sha256:ab".to_owned()), ..settings("h/x") },
            OciSettings { digest: Some(format!("sha512:{}", "ab".repeat(64))), ..settings("h/x") },
            OciSettings { semver: Some("newest".to_owned()), ..settings("h/x") },
            OciSettings { tag: Some("-x".to_owned()), ..settings("h/x") },
        ] {
            assert!(Wanted::new(&wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn the_highest_version_of_a_range_wins() {
        let tags =
            ["v1.2.0", "1.10.0", "latest", "v2.0.0", "1.11.0-rc.1", "1.10.0_b", "1.10.0_a", "nonsense"];
        let pick = |range: &str| highest(&VersionReq::parse(range).unwrap(), tags.into_iter());
        assert_eq!(pick("^1"), Some("1.10.0_b"));
        assert_eq!(pick("~1.2"), Some("v1.2.0"));
        assert_eq!(pick("*"), Some("v2.0.0"));
        assert_eq!(pick(">=1.11.0-rc.0, <1.12"), Some("1.11.0-rc.1"), "a range that names one takes it");
        assert_eq!(pick("^3"), None);
    }

    proptest! {
        #[test]
        fn any_tags_are_looked_through(tags in proptest::collection::vec("[v0-9._a-z-]{0,12}", 0..20)) {
            let range = VersionReq::parse(">=1").unwrap();
            if let Some(tag) = highest(&range, tags.iter().map(String::as_str)) {
                prop_assert!(tags.iter().any(|known| known == tag));
            }
        }
    }
}

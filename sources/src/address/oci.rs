//! `oci://registry/repository:tag@digest?semver=…&path=…`.

use url::Url;

use super::{AddressError, invalid, redact, take_credential};
use crate::settings::{OciSettings, SourceSettings};

pub(super) const OPTIONS: [&str; 2] = ["semver", "path"];

pub(super) fn parse(text: &str) -> Result<SourceSettings, AddressError> {
    let (place, query) = text.split_once('?').unwrap_or((text, ""));
    // The digest first: its `@` is none of a user's.
    let (place, digest) = match split_digest(place) {
        Some((place, digest)) => (place, Some(digest.to_owned())),
        None => (place, None),
    };
    let mut url = Url::parse(place).map_err(|error| invalid(text, &error.to_string()))?;
    if url.fragment().is_some() {
        return Err(invalid(text, "it has a `#`; options come after `?`"));
    }
    if url.path().contains('@') || query.contains('@') {
        return Err(invalid(
            text,
            "there is an `@` behind the host that begins no digest; a digest is `@sha256:` and 64 digits",
        ));
    }
    let auth = take_credential(&mut url, text)?;
    let host = url.host_str().filter(|host| !host.is_empty());
    let host = host.ok_or_else(|| invalid(text, "it names no registry"))?;
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    let path = url.path().trim_start_matches('/');
    let (name, tag) = match path.rsplit_once(':') {
        Some((name, tag)) => (name, Some(tag.to_owned())),
        None => (path, None),
    };
    if name.is_empty() {
        return Err(invalid(text, "it names no repository"));
    }
    let mut oci =
        OciSettings { repository: format!("{host}{port}/{name}"), tag, digest, ..OciSettings::default() };
    let mut paths = Vec::new();
    for (option, value) in url::form_urlencoded::parse(query.as_bytes()) {
        if value.is_empty() {
            return Err(invalid(text, &format!("the option `{option}` is empty")));
        }
        match &*option {
            "path" => paths.push(value.into_owned()),
            "semver" => {
                if oci.semver.replace(value.into_owned()).is_some() {
                    return Err(invalid(text, "the option `semver` is there twice"));
                }
            }
            other => {
                return Err(AddressError::UnknownOption {
                    address: redact(text),
                    key: other.chars().take(40).collect(),
                    nearest: invar_syntax::nearest(other, OPTIONS.into_iter()).map(str::to_owned),
                });
            }
        }
    }
    Ok(SourceSettings { auth, path: paths, ..SourceSettings::for_oci(oci) })
}

/// What stands before a digest at the end, and the digest.
pub(super) fn split_digest(place: &str) -> Option<(&str, &str)> {
    let (before, digest) = place.rsplit_once('@')?;
    let digits = digest.strip_prefix("sha256:")?;
    (digits.len() == 64 && digits.bytes().all(|byte| byte.is_ascii_hexdigit())).then_some((before, digest))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn oci(text: &str) -> OciSettings {
        parse(text).unwrap().oci.unwrap()
    }

    #[test]
    fn a_repository_with_tag_digest_and_range() {
        let digest = format!("sha256:{}", "ab".repeat(32));
        let found = oci(&format!("oci://registry.example:5000/obs/fleet:v1.2@{digest}"));
        assert_eq!(found.repository, "registry.example:5000/obs/fleet");
        assert_eq!((found.tag.as_deref(), found.digest), (Some("v1.2"), Some(digest.clone())));
        assert_eq!(oci(&format!("oci://h/x@{digest}")).tag, None);
        assert_eq!(oci("oci://localhost:5000/fleet").repository, "localhost:5000/fleet");
        let settings = parse("oci://h/x?semver=^1&path=base&path=hosts/a").unwrap();
        assert_eq!(settings.path, ["base", "hosts/a"]);
        assert_eq!(settings.oci.unwrap().semver.as_deref(), Some("^1"));
        let settings = parse(&format!("oci://me:hunter2@h/x:v1@{digest}")).unwrap();
        assert_eq!(settings.auth.unwrap().basic.unwrap().username, "me");
    }

    #[test]
    fn what_is_none_says_so_without_its_credentials() {
        for text in [
            "oci://",
            "oci://h",
            "oci://h/",
            "oci://h/:v1",
            "oci://me:hunter2@h/x?semver=",
            "oci://me:hunter2@h/x?semver=1&semver=2",
            "oci://me:hunter2@h/x?sember=1",
            "oci://me:hunter2@h/x#y",
            "oci://me:hunt/hunter2@h/x",
            "oci://h/x@sha256:hunter2",
        ] {
            let error = parse(text).unwrap_err();
            assert!(!format!("{error} {error:?}").contains("hunter2") || text.contains("sha256"), "{error}");
        }
    }
}

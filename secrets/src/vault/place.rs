//! Where a value is: a namespace and a logical path within it, as references and settings write them.

/// A path, and the namespace below the store's that it is in.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Place {
    /// Empty for the store's own.
    pub(crate) namespace: String,
    /// Without slashes at its ends.
    pub(crate) path: String,
}

/// A text that Vault's transit engine encrypted, and what decrypts it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Encrypted<'a> {
    /// `<mount>/decrypt/<key>`.
    pub(crate) path: &'a str,
    /// `vault:v1:…`.
    pub(crate) ciphertext: &'a str,
}

impl Place {
    /// Reads `<mount>/<path>` or `/<namespace>//<mount>/<path>`. The slash in front keeps patterns for mounts from ever
    /// matching what is in another namespace.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let (namespace, path) = match text.strip_prefix('/') {
            Some(rest) => rest.split_once("//").ok_or_else(|| {
                "a path with a namespace is `/<namespace>//<mount>/<path>`, one without begins with no slash".to_owned()
            })?,
            None => ("", text),
        };
        if text.starts_with('/') {
            check_path(namespace).map_err(|problem| format!("the namespace before `//`: {problem}"))?;
        }
        let place = Self { namespace: namespace.to_owned(), path: path.to_owned() };
        match place.encrypted() {
            Some(encrypted) => check_path(encrypted.path)?,
            None => check_path(path)?,
        }
        Ok(place)
    }

    /// Whether the path is a text to decrypt: `<mount>/decrypt/<key>/vault:v1:…`.
    pub(crate) fn encrypted(&self) -> Option<Encrypted<'_>> {
        let at = self.path.find("/vault:v")?;
        let (path, ciphertext) = (&self.path[..at], &self.path[at + 1..]);
        let mut segments = path.rsplit('/');
        let (_key, decrypt, mount) = (segments.next()?, segments.next()?, segments.next()?);
        (decrypt == "decrypt" && !mount.is_empty()).then_some(Encrypted { path, ciphertext })
    }
}

/// Whether a path can be sent as it stands: segments that are neither empty nor point elsewhere.
pub(crate) fn check_path(path: &str) -> Result<(), String> {
    if path.chars().any(char::is_control) {
        return Err("a path holds no control characters".to_owned());
    }
    if path.split('/').any(str::is_empty) {
        return Err(
            "a path is `<mount>/<path>`, without slashes at its ends or next to each other".to_owned()
        );
    }
    if path.split('/').any(|segment| matches!(segment, "." | "..")) {
        return Err("a path holds no `.` and no `..`".to_owned());
    }
    Ok(())
}

/// One namespace below another.
pub(crate) fn join_namespace(above: &str, below: &str) -> String {
    let parts = [above.trim_matches('/'), below.trim_matches('/')];
    parts.iter().filter(|part| !part.is_empty()).copied().collect::<Vec<_>>().join("/")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    fn place(namespace: &str, path: &str) -> Place {
        Place { namespace: namespace.to_owned(), path: path.to_owned() }
    }

    #[test]
    fn a_namespace_stands_between_one_slash_and_two() {
        assert_eq!(Place::parse("kv/team/es").unwrap(), place("", "kv/team/es"));
        assert_eq!(Place::parse("/a/b//kv/es").unwrap(), place("a/b", "kv/es"));
        for wrong in
            ["", "/kv", "kv/", "//kv/a", "kv//", "a//b", "/a//b//c", "kv/../sys", "kv/./a", "/a/..//kv/x"]
        {
            assert!(Place::parse(wrong).is_err(), "{wrong}");
        }
        assert_eq!(join_namespace("", "a"), "a");
        assert_eq!(join_namespace("obs/", "/team"), "obs/team");
        assert_eq!(join_namespace("", ""), "");
    }

    #[test]
    fn a_ciphertext_is_taken_as_it_is() {
        let place = Place::parse("/ns//transit/decrypt/app/vault:v1:a//b+c==").unwrap();
        assert_eq!(place.namespace, "ns");
        let encrypted = place.encrypted().unwrap();
        assert_eq!((encrypted.path, encrypted.ciphertext), ("transit/decrypt/app", "vault:v1:a//b+c=="));
        assert!(Place::parse("kv/a/vault:v1").unwrap().encrypted().is_none());
        assert!(Place::parse("decrypt/app/vault:v1:x").unwrap().encrypted().is_none());
    }

    proptest! {
        #[test]
        fn no_text_makes_it_leave_its_place(text in "[a-z./:v1]{0,40}") {
            if let Ok(place) = Place::parse(&text) {
                let path = place.encrypted().map_or(place.path.as_str(), |encrypted| encrypted.path);
                prop_assert!(path.split('/').all(|part| !matches!(part, "" | "." | "..")));
                prop_assert!(place.namespace.split('/').all(|part| !matches!(part, "." | "..")));
            }
        }
    }
}

//! Where a repository behind SSH is: `ssh://user@host:port/path`, `git+ssh://…`, and `user@host:path`.

use std::fmt;

use percent_encoding::percent_decode_str;
use url::Url;

use crate::error::Failure;

/// Who is asked for where the address names nobody: what forges call everybody.
const DEFAULT_USER: &str = "git";
const DEFAULT_PORT: u16 = 22;

/// A repository behind SSH.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::git) struct SshAddress {
    pub(in crate::git) user: String,
    /// Without brackets, where it is an IPv6 address.
    pub(in crate::git) host: String,
    pub(in crate::git) port: u16,
    /// As the server is to take it: absolute, or relative to the user's home.
    pub(super) path: String,
}

/// `git@host:path`, which is SSH without saying so.
pub(in crate::git) fn is_scp_like(url: &str) -> bool {
    url.split_once(':').is_some_and(|(host, _)| host.len() > 1 && !host.contains(['/', '\\']))
}

impl SshAddress {
    /// Takes an address apart.
    pub(in crate::git) fn parse(url: &str) -> Result<Self, Failure> {
        let address = if url.contains("://") { Self::from_url(url)? } else { Self::from_scp(url)? };
        let unusable = |what: &str| Err(Failure::stalled(format!("`git.url`: the {what} cannot be used")));
        let odd = |text: &str| {
            text.is_empty() || text.starts_with('-') || text.chars().any(|c| c.is_control() || c == ' ')
        };
        if odd(&address.host) || address.host.contains(['/', '@', '*', '?', ',', '!']) {
            return unusable("host");
        }
        if odd(&address.user) {
            return unusable("user name");
        }
        // A path that begins with a dash would be an option of the program that is run with it.
        if address.path.is_empty()
            || address.path.starts_with('-')
            || address.path == "/"
            || address.path.chars().any(char::is_control)
        {
            return unusable("path of the repository");
        }
        Ok(address)
    }

    fn from_url(url: &str) -> Result<Self, Failure> {
        let plain = url.strip_prefix("git+").unwrap_or(url);
        let invalid = || {
            Failure::stalled(format!("`git.url` is not an address: {}", crate::redact(url)))
                .with_help("such as ssh://git@host/path")
        };
        let parsed = Url::parse(plain).map_err(|_| invalid())?;
        if parsed.password().is_some() {
            return Err(Failure::stalled("`git.url` holds a password; Git over SSH takes `auth.ssh`"));
        }
        if parsed.query().is_some() || parsed.fragment().is_some() {
            return Err(invalid());
        }
        let decode = |text: &str| -> Result<String, Failure> {
            Ok(percent_decode_str(text).decode_utf8().map_err(|_| invalid())?.into_owned())
        };
        let host = parsed.host_str().map(decode).transpose()?.unwrap_or_default();
        let mut path = decode(parsed.path())?;
        // As Git does: a home directory is not below the root.
        if path.starts_with("/~") {
            path.remove(0);
        }
        let user = decode(parsed.username())?;
        Ok(Self {
            user: if user.is_empty() { DEFAULT_USER.to_owned() } else { user },
            host: host.trim_matches(['[', ']']).to_owned(),
            port: parsed.port().unwrap_or(DEFAULT_PORT),
            path,
        })
    }

    fn from_scp(url: &str) -> Result<Self, Failure> {
        let invalid = |what: &str| {
            Failure::stalled(format!("`git.url` is not an address: {what}"))
                .with_help("such as git@host:path, or ssh://git@host/path")
        };
        let (user, rest) = match url.split_once(':') {
            Some((before, _)) if before.contains('@') => url.split_once('@').unwrap_or((DEFAULT_USER, url)),
            _ => (DEFAULT_USER, url),
        };
        let (host, path) = match rest.strip_prefix('[') {
            Some(rest) => rest.split_once("]:").ok_or_else(|| invalid("a `[` without `]:`"))?,
            None => rest.split_once(':').ok_or_else(|| invalid("it has no `:`"))?,
        };
        // To Git that would be a program of its own, which is never run here.
        if path.starts_with(':') {
            return Err(invalid("there is a `::`"));
        }
        // `user:password@host:path` would be shown as a path.
        if path.contains('@') {
            return Err(invalid("there is an `@` behind the `:`"));
        }
        Ok(Self { user: user.to_owned(), host: host.to_owned(), port: DEFAULT_PORT, path: path.to_owned() })
    }

    /// The command that serves the repository, quoted for a shell.
    pub(super) fn command(&self) -> String {
        let quoted = self.path.replace('\'', "'\\''").replace('!', "'\\!'");
        format!("git-upload-pack '{quoted}'")
    }
}

impl fmt::Display for SshAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        write!(f, "ssh://{}@{host}", self.user)?;
        if self.port != DEFAULT_PORT {
            write!(f, ":{}", self.port)?;
        }
        let separator = if self.path.starts_with('/') { "" } else { "/" };
        write!(f, "{separator}{}", self.path)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_forms_of_an_address() {
        for (text, user, host, port, path) in [
            ("ssh://git@git.example/obs/fleet.git", "git", "git.example", 22, "/obs/fleet.git"),
            ("git+ssh://ada@git.example:2222/x", "ada", "git.example", 2222, "/x"),
            ("ssh://git.example/~/x", "git", "git.example", 22, "~/x"),
            ("ssh://git@[::1]:2222/x%20y", "git", "::1", 2222, "/x y"),
            ("git@git.example:obs/fleet.git", "git", "git.example", 22, "obs/fleet.git"),
            ("git.example:/srv/fleet.git", "git", "git.example", 22, "/srv/fleet.git"),
            ("git@[::1]:fleet.git", "git", "::1", 22, "fleet.git"),
        ] {
            let address = SshAddress::parse(text).unwrap();
            let expected = SshAddress { user: user.into(), host: host.into(), port, path: path.into() };
            assert_eq!(address, expected, "{text}");
        }
        assert_eq!(SshAddress::parse("ssh://[::1]:2222/x").unwrap().to_string(), "ssh://git@[::1]:2222/x");
        assert_eq!(SshAddress::parse("git@h:x").unwrap().to_string(), "ssh://git@h/x");
    }

    #[test]
    fn what_is_no_address_or_would_be_an_option_is_refused() {
        for text in [
            "ssh://git:hunter2@git.example/x",
            "git:hunter2@git.example:x",
            "ssh://git@git.example",
            "ssh://git@git.example/",
            "ssh:///x",
            "ssh://-oProxyCommand=x/x",
            "git@-oProxyCommand=x:x",
            "git@git.example:-x",
            "git@git.example:",
            "ext::sh -c id",
            "ssh://git@git.example/x%0ay",
            "ssh://git@git.example/x?branch=main",
        ] {
            let failure = SshAddress::parse(text).unwrap_err();
            assert_eq!(failure.class, crate::ErrorClass::Stalled, "{text}");
            assert!(!format!("{failure:?}").contains("hunter2"), "{failure:?}");
        }
    }

    #[test]
    fn the_path_is_quoted() {
        let address = SshAddress::parse("git@h:it's $(x)!").unwrap();
        assert_eq!(address.command(), "git-upload-pack 'it'\\''s $(x)'\\!''");
    }
}

//! `known_hosts` files (sshd(8), "SSH_KNOWN_HOSTS FILE FORMAT"): plain, hashed and wildcard names, `[host]:port`,
//! `@revoked` and `@cert-authority`. Text in, keys out: nothing here touches files or the network.

use base64::Engine as _;
use ring::hmac;
use russh::keys::PublicKey;

/// The port that is not written down.
const DEFAULT_PORT: u16 = 22;
/// More lines than this are not read.
const LINE_LIMIT: usize = 100_000;

/// The entries of one file.
#[derive(Clone, Debug, Default)]
pub struct KnownHosts {
    entries: Vec<Entry>,
}

/// An entry that is about a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// The line in the file, from 1.
    pub line: usize,
    /// What the key is for.
    pub mark: Mark,
    /// The key.
    pub key: PublicKey,
    /// Whether the entry names the port too where that is not 22. Another key under the bare name says nothing about a
    /// server at another port.
    pub exact: bool,
}

/// What a line says about its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// The host has it.
    Host,
    /// Certificates that it signed are as good as known keys.
    Authority,
    /// It is never to be accepted.
    Revoked,
}

#[derive(Clone, Debug)]
struct Entry {
    line: usize,
    mark: Mark,
    names: Names,
    key: PublicKey,
}

#[derive(Clone, Debug)]
enum Names {
    /// An HMAC of the name with SHA-1, so that the file does not tell which hosts it is about.
    Hashed {
        salt: Vec<u8>,
        hash: Vec<u8>,
    },
    Patterns(Vec<String>),
}

impl KnownHosts {
    /// Reads a file's text. Lines that say nothing usable are passed over, as OpenSSH does.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let entries = text
            .lines()
            .take(LINE_LIMIT)
            .enumerate()
            .filter_map(|(index, line)| Entry::parse(index + 1, line))
            .collect();
        Self { entries }
    }

    /// The entries about a host, in the order of the file.
    #[must_use]
    pub fn find(&self, host: &str, port: u16) -> Vec<Known> {
        let bare = host.to_ascii_lowercase();
        let named = host_name(&bare, port);
        let known = |entry: &Entry, exact: bool| Known {
            line: entry.line,
            mark: entry.mark,
            key: entry.key.clone(),
            exact,
        };
        self.entries
            .iter()
            .filter_map(|entry| {
                if entry.names.include(&named) {
                    return Some(known(entry, true));
                }
                let is_bare = named != bare && entry.names.include(&bare) && !entry.names.exclude(&named);
                is_bare.then(|| known(entry, false))
            })
            .collect()
    }
}

/// How a file calls a host at a port.
pub(super) fn host_name(host: &str, port: u16) -> String {
    if port == DEFAULT_PORT { host.to_owned() } else { format!("[{host}]:{port}") }
}

impl Entry {
    fn parse(number: usize, line: &str) -> Option<Self> {
        let mut words = line.split([' ', '\t']).filter(|word| !word.is_empty());
        let mut first = words.next()?;
        if first.starts_with('#') {
            return None;
        }
        let mark = match first {
            "@cert-authority" => Mark::Authority,
            "@revoked" => Mark::Revoked,
            other if other.starts_with('@') => return None,
            _ => Mark::Host,
        };
        if mark != Mark::Host {
            first = words.next()?;
        }
        let names = Names::parse(first)?;
        let (kind, content) = (words.next()?, words.next()?);
        let key = PublicKey::from_openssh(&format!("{kind} {content}")).ok()?;
        Some(Self { line: number, mark, names, key })
    }
}

impl Names {
    fn parse(text: &str) -> Option<Self> {
        let Some(hashed) = text.strip_prefix("|1|") else {
            return Some(Self::Patterns(text.split(',').map(str::to_ascii_lowercase).collect()));
        };
        let (salt, hash) = hashed.split_once('|')?;
        let decode = |text: &str| base64::engine::general_purpose::STANDARD.decode(text).ok();
        Some(Self::Hashed { salt: decode(salt)?, hash: decode(hash)? })
    }

    fn include(&self, name: &str) -> bool {
        match self {
            Self::Hashed { salt, hash } => {
                let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, salt);
                hmac::sign(&key, name.as_bytes()).as_ref() == hash.as_slice()
            }
            Self::Patterns(patterns) => {
                patterns.iter().any(|pattern| matches(pattern, name)) && !self.exclude(name)
            }
        }
    }

    fn exclude(&self, name: &str) -> bool {
        let Self::Patterns(patterns) = self else { return false };
        patterns.iter().filter_map(|pattern| pattern.strip_prefix('!')).any(|pattern| matches(pattern, name))
    }
}

/// Whether a name is what a pattern with `*` and `?` describes. Goes back to the last star only, so the time is bounded by
/// the product of both lengths.
pub(super) fn matches(pattern: &str, name: &str) -> bool {
    let (pattern, name) = (pattern.as_bytes(), name.as_bytes());
    let (mut at, mut read) = (0, 0);
    let mut star = None;
    while read < name.len() {
        match pattern.get(at) {
            Some(b'*') => {
                star = Some((at, read));
                at += 1;
            }
            Some(byte) if *byte == b'?' || *byte == name[read] => {
                at += 1;
                read += 1;
            }
            _ => {
                let Some((place, from)) = star else { return false };
                star = Some((place, from + 1));
                at = place + 1;
                read = from + 1;
            }
        }
    }
    pattern[at..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    const ED25519: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ";
    const ECDSA: &str = "ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBAmKeFYnuFXAAIiQXKcBzMcQCULLVKIKnxz+5vR5oPTyAqQmlPHoLBXhZyPuUYMEKfIJCLvt7bM2sIkUkeJJjw0=";

    fn lines(text: &str, host: &str, port: u16) -> Vec<(usize, Mark, bool)> {
        let found = KnownHosts::parse(text).find(host, port);
        found.into_iter().map(|known| (known.line, known.mark, known.exact)).collect()
    }

    #[test]
    fn names_ports_and_wildcards() {
        let text = format!(
            "# a comment\n\ngit.example,10.0.0.7 {ED25519} a comment\n[git.example]:2222 {ED25519}\n\
             *.example,!bad.example {ED25519}\n"
        );
        assert_eq!(lines(&text, "git.example", 22), [(3, Mark::Host, true), (5, Mark::Host, true)]);
        assert_eq!(lines(&text, "GIT.Example", 22).len(), 2, "names have no case");
        assert_eq!(lines(&text, "10.0.0.7", 22), [(3, Mark::Host, true)]);
        assert_eq!(lines(&text, "bad.example", 22), []);
        let other_port = lines(&text, "git.example", 2222);
        assert_eq!(other_port, [(3, Mark::Host, false), (4, Mark::Host, true), (5, Mark::Host, false)]);
        assert_eq!(lines(&text, "example", 22), []);
    }

    #[test]
    fn marks() {
        let text = format!("@cert-authority *.example {ED25519}\n@revoked * {ED25519}\n@new * {ED25519}\n");
        assert_eq!(lines(&text, "git.example", 22), [(1, Mark::Authority, true), (2, Mark::Revoked, true)]);
    }

    #[test]
    fn hashed_names() {
        let salt = [7_u8; 20];
        let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &salt);
        let encode = |bytes: &[u8]| base64::engine::general_purpose::STANDARD.encode(bytes);
        let hash = hmac::sign(&key, b"[git.example]:2222");
        let text = format!("|1|{}|{} {ED25519}\n", encode(&salt), encode(hash.as_ref()));
        assert_eq!(lines(&text, "git.example", 2222), [(1, Mark::Host, true)]);
        assert_eq!(lines(&text, "git.example", 22), []);
    }

    #[test]
    fn unusable_lines_are_passed_over() {
        let text = format!(
            "git.example\ngit.example ssh-ed25519\ngit.example ssh-ed25519 AAAA\n|1|x {ED25519}\n\
             git.example ssh-rsa {}\n@revoked\n\tgit.example\t{ED25519}\n",
            &ED25519[12..]
        );
        assert_eq!(lines(&text, "git.example", 22), [(7, Mark::Host, true)]);
    }

    proptest! {
        #[test]
        fn any_text_is_read(text in "[ -~\t\n]{0,200}", host in "[a-z.*\\[\\]:]{0,20}", port in any::<u16>()) {
            let found = KnownHosts::parse(&text).find(&host, port);
            prop_assert!(found.len() <= text.lines().count());
        }

        #[test]
        fn what_is_written_is_found(host in "[a-z][a-z0-9.-]{0,20}", port in 1_u16.., second in any::<bool>()) {
            let text = format!("{} {}\n", host_name(&host, port), if second { ECDSA } else { ED25519 });
            let found = KnownHosts::parse(&text).find(&host, port);
            prop_assert_eq!(found.len(), 1);
            prop_assert!(found[0].exact);
            let other = if port == 22 { 23 } else { port ^ 1 };
            prop_assert!(KnownHosts::parse(&text).find(&host, other).iter().all(|known| !known.exact));
        }

        #[test]
        fn patterns_match_what_they_are_made_of(
            parts in prop::collection::vec("[ab]{0,4}", 1..4),
            between in prop::collection::vec("[ab]{0,4}", 4),
        ) {
            let pattern = parts.join("*");
            let mut name = String::new();
            for (index, part) in parts.iter().enumerate() {
                if index > 0 {
                    name.push_str(&between[index]);
                }
                name.push_str(part);
            }
            prop_assert!(matches(&pattern, &name), "{pattern} {name}");
            let longer = format!("{name}c");
            prop_assert!(!matches(&pattern, &longer) || pattern.ends_with('*'));
        }
    }
}

//! Reads an `allowed_signers` file, as ssh-keygen(1) describes it and Git's `gpg.ssh.allowedSignersFile` names one: a
//! key a line, with whose it is and what it may sign, and when.
//!
//! Where OpenSSH passes over a line that it cannot read, here the file is refused: a key that somebody believes to be
//! trusted, or believes to have expired, is not a thing to be silent about.

use std::path::Path;
use std::time::{Duration, SystemTime};

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use russh::keys::ssh_key::PublicKey;

use super::error::KeyError;
use super::patterns::PatternList;

/// The keys that may sign.
#[derive(Clone, Debug, Default)]
pub(crate) struct AllowedSigners {
    pub(crate) lines: Vec<AllowedSigner>,
}

/// One line.
#[derive(Clone, Debug)]
pub(crate) struct AllowedSigner {
    /// Who signs with the key.
    pub(crate) principals: PatternList,
    /// The key is of an authority, whose certificates sign.
    pub(crate) is_authority: bool,
    /// What may be signed; everything, if nothing is said.
    pub(crate) namespaces: Option<(PatternList, String)>,
    pub(crate) valid_after: Option<SystemTime>,
    pub(crate) valid_before: Option<SystemTime>,
    pub(crate) key: PublicKey,
}

/// A line that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {message}")]
pub(crate) struct LineError {
    line: usize,
    message: String,
}

impl AllowedSigners {
    /// Reads a file. Times without a zone are in `zone`.
    pub(crate) fn parse(text: &str, zone: &TimeZone) -> Result<Self, LineError> {
        let mut lines = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim_matches(is_blank);
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            lines.push(
                AllowedSigner::parse(line, zone).map_err(|message| LineError { line: index + 1, message })?,
            );
        }
        Ok(Self { lines })
    }

    /// As [`AllowedSigners::parse`], of the content of the file at `path`.
    pub(crate) fn read(path: &Path, content: &[u8], zone: &TimeZone) -> Result<Self, KeyError> {
        let shown = path.display();
        let text = std::str::from_utf8(content)
            .map_err(|_| KeyError(format!("{shown} is not an `allowed_signers` file")))?;
        Self::parse(text, zone).map_err(|error| KeyError(format!("{shown}, {error}")))
    }
}

fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r')
}

impl AllowedSigner {
    fn parse(line: &str, zone: &TimeZone) -> Result<Self, String> {
        let (principals, rest) = principals(line)?;
        let list = PatternList::parse(principals);
        if list.first().is_none() {
            return Err("it names no principal".to_owned());
        }
        let (options, key) = match rest.split(is_blank).next() {
            Some(word) if is_key_type(word) => ("", rest),
            _ => split_options(rest)?,
        };
        let mut signer = Self {
            principals: list,
            is_authority: false,
            namespaces: None,
            valid_after: None,
            valid_before: None,
            key: parse_key(key)?,
        };
        for option in Options(options) {
            let (name, value) = option?;
            signer.apply(&name.to_ascii_lowercase(), value, zone)?;
        }
        if let (Some(after), Some(before)) = (signer.valid_after, signer.valid_before)
            && after >= before
        {
            return Err("`valid-before` is not after `valid-after`".to_owned());
        }
        Ok(signer)
    }

    fn apply(&mut self, name: &str, value: Option<String>, zone: &TimeZone) -> Result<(), String> {
        let time = |taken: bool, value: Option<String>| match value {
            _ if taken => Err(format!("`{name}` is said twice")),
            Some(value) => parse_time(&value, zone).map(Some).ok_or_else(|| {
                format!("`{name}`: `{value}` is not a time such as 20270131 or 202701311200Z")
            }),
            None => Err(format!("`{name}` has no value")),
        };
        match (name, value) {
            ("cert-authority", None) => self.is_authority = true,
            ("namespaces", Some(value)) if self.namespaces.is_none() => {
                self.namespaces = Some((PatternList::parse(&value), value));
            }
            ("namespaces", Some(_)) => return Err("`namespaces` is said twice".to_owned()),
            ("valid-after", value) => self.valid_after = time(self.valid_after.is_some(), value)?,
            ("valid-before", value) => self.valid_before = time(self.valid_before.is_some(), value)?,
            ("cert-authority" | "namespaces", _) => return Err(format!("`{name}` is written otherwise")),
            _ => return Err(format!("there is no option `{name}`")),
        }
        Ok(())
    }
}

/// Takes the principals, quoted or not, off a line.
fn principals(line: &str) -> Result<(&str, &str), String> {
    let nothing_else = || "it has no key".to_owned();
    if let Some(quoted) = line.strip_prefix('"') {
        let (principals, rest) = quoted.split_once('"').ok_or("a quotation mark is not closed")?;
        if rest.starts_with(is_blank) {
            return Ok((principals, rest.trim_start_matches(is_blank)));
        }
        return Err(nothing_else());
    }
    let (principals, rest) = line.split_once(is_blank).ok_or_else(nothing_else)?;
    Ok((principals, rest.trim_start_matches(is_blank)))
}

/// Splits options off at the first blank that is not within quotation marks.
fn split_options(text: &str) -> Result<(&str, &str), String> {
    let (mut quoted, mut escaped) = (false, false);
    for (index, c) in text.char_indices() {
        match c {
            '"' if !escaped => quoted = !quoted,
            c if is_blank(c) && !quoted => {
                return Ok((&text[..index], text[index..].trim_start_matches(is_blank)));
            }
            _ => {}
        }
        escaped = c == '\\' && !escaped;
    }
    Err(if quoted { "a quotation mark is not closed" } else { "it has no key" }.to_owned())
}

/// The options of a line, one after the other.
struct Options<'t>(&'t str);

impl<'t> Iterator for Options<'t> {
    type Item = Result<(&'t str, Option<String>), String>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let end = self.0.find(['=', ',']).unwrap_or(self.0.len());
        let (name, rest) = self.0.split_at(end);
        let (value, rest) = match rest.strip_prefix('=') {
            None => (None, rest),
            Some(quoted) => match dequote(quoted) {
                Some((value, rest)) => (Some(value), rest),
                None => {
                    self.0 = "";
                    return Some(Err(format!("the value of `{name}` is not within quotation marks")));
                }
            },
        };
        self.0 = match rest.strip_prefix(',') {
            Some(rest) => rest,
            None if rest.is_empty() => rest,
            None => {
                self.0 = "";
                return Some(Err(format!("something follows the value of `{name}`")));
            }
        };
        Some(Ok((name, value)))
    }
}

/// Takes a quoted value, in which `\"` is a quotation mark, off a text.
fn dequote(text: &str) -> Option<(String, &str)> {
    let quoted = text.strip_prefix('"')?;
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((index, c)) = characters.next() {
        match c {
            '"' => return Some((value, &quoted[index + 1..])),
            '\\' if quoted[index + 1..].starts_with('"') => {
                characters.next();
                value.push('"');
            }
            c => value.push(c),
        }
    }
    None
}

fn is_key_type(word: &str) -> bool {
    ["ssh-", "ecdsa-sha2-", "sk-ssh-", "sk-ecdsa-"].iter().any(|prefix| word.starts_with(prefix))
        && !word.contains(['=', ','])
}

/// Reads `TYPE BASE64 [COMMENT]`. The comment is left out: it is free text.
fn parse_key(text: &str) -> Result<PublicKey, String> {
    let mut words = text.split(is_blank).filter(|word| !word.is_empty());
    let (Some(kind), Some(encoded)) = (words.next(), words.next()) else {
        return Err("it has no key".to_owned());
    };
    let key = PublicKey::from_openssh(&format!("{kind} {encoded}"))
        .map_err(|error| format!("the key of type `{kind}` cannot be read: {error}"))?;
    if key.key_data().is_certificate() || key.key_data().is_other() {
        return Err(format!("a key of type `{kind}` cannot sign here"));
    }
    Ok(key)
}

/// `YYYYMMDD[Z]` or `YYYYMMDDHHMM[SS][Z]`; with a `Z` it is UTC.
fn parse_time(text: &str, zone: &TimeZone) -> Option<SystemTime> {
    let (digits, zone) = match text.strip_suffix(['Z', 'z']) {
        Some(digits) => (digits, &TimeZone::UTC),
        None => (text, zone),
    };
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) || !matches!(digits.len(), 8 | 12 | 14) {
        return None;
    }
    let part =
        |range: std::ops::Range<usize>| digits.get(range).map_or(Some(0), |part| part.parse::<i8>().ok());
    let year = digits[..4].parse::<i16>().ok()?;
    let moment =
        DateTime::new(year, part(4..6)?, part(6..8)?, part(8..10)?, part(10..12)?, part(12..14)?, 0).ok()?;
    let seconds = zone.to_timestamp(moment).ok()?.as_second();
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(u64::try_from(seconds).ok()?))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    const KEY: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILM+rvN+ot98qgEN796jTiQfZfG1KaT0PtFDJ/XFSqti user@example.com";

    fn parse(text: &str) -> Result<AllowedSigners, String> {
        AllowedSigners::parse(text, &TimeZone::UTC).map_err(|error| error.to_string())
    }

    fn at(text: &str) -> SystemTime {
        let moment: jiff::Timestamp = text.parse().unwrap();
        moment.try_into().unwrap()
    }

    #[test]
    fn the_file_of_the_manual() {
        let text = format!(
            "# Comments allowed at start of line\n\n\
             user1@example.com,user2@example.com {KEY}\n\
             \t# and after blanks\n\
             *@example.com cert-authority {KEY} # of the company\r\n\
             user2@example.com namespaces=\"file,git\" {KEY}\n\
             \"with space,other\" valid-after=\"20260101\",valid-before=\"202701311200Z\",namespaces=\"a\\\"b\" {KEY}"
        );
        let signers = parse(&text).unwrap().lines;
        assert_eq!(signers.len(), 4);
        assert!(signers[0].principals.matches("user2@example.com") && !signers[0].is_authority);
        assert!(signers[1].principals.matches("x@example.com") && signers[1].is_authority);
        let (namespaces, text) = signers[2].namespaces.as_ref().unwrap();
        assert!(namespaces.matches("git") && !namespaces.matches("ssh") && text == "file,git");
        assert!(signers[3].principals.matches("with space"));
        assert_eq!(signers[3].valid_after, Some(at("2026-01-01T00:00:00Z")));
        assert_eq!(signers[3].valid_before, Some(at("2027-01-31T12:00:00Z")));
        assert_eq!(signers[3].namespaces.as_ref().unwrap().1, "a\"b");
    }

    #[test]
    fn times_without_a_zone_are_of_the_host() {
        let zone = TimeZone::fixed(jiff::tz::offset(2));
        assert_eq!(parse_time("20260102", &zone), Some(at("2026-01-01T22:00:00Z")));
        assert_eq!(parse_time("20260102030405", &zone), Some(at("2026-01-02T01:04:05Z")));
        assert_eq!(parse_time("20260102030405Z", &zone), Some(at("2026-01-02T03:04:05Z")));
        for text in ["", "2026", "20261301", "202601020304Zx", "+2026010", "20260102 304", "2026010２"] {
            assert_eq!(parse_time(text, &zone), None, "{text}");
        }
    }

    #[test]
    fn lines_that_say_nothing_clear_are_refused() {
        for (line, said) in [
            ("ada@example.com", "has no key"),
            ("ada@example.com ssh-ed25519", "has no key"),
            ("ada@example.com ssh-ed25519 AAAA", "cannot be read"),
            ("\"ada@example.com", "not closed"),
            ("!ada@example.com KEY", "names no principal"),
            ("ada namespaces=git KEY", "quotation marks"),
            ("ada namespaces=\"git KEY", "not closed"),
            ("ada namespaces=\"a\",namespaces=\"b\" KEY", "twice"),
            ("ada valid-before=\"x\" KEY", "is not a time"),
            ("ada valid-before=\"20260101\",valid-after=\"20260102\" KEY", "is not after"),
            ("ada no-touch-required KEY", "no option `no-touch-required`"),
            ("ada cert-authority=\"yes\" KEY", "written otherwise"),
            ("ada namespaces=\"a\"b KEY", "something follows"),
        ] {
            let error = parse(&format!("\n{}", line.replace("KEY", KEY))).unwrap_err();
            assert!(error.starts_with("line 2: ") && error.contains(said), "{line}: {error}");
        }
    }

    proptest! {
        #[test]
        fn nothing_panics(text in "[ -~\n\"\\\\]{0,200}") {
            drop(parse(&text));
        }

        #[test]
        fn options_never_panic(options in "[a-z=,\"\\\\é -]{0,60}") {
            drop(parse(&format!("ada {options} {KEY}")));
        }
    }
}

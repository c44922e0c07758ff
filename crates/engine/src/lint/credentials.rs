//! Text that is a credential by its own look: tokens with a prefix that their issuer registered for the purpose, private keys,
//! addresses with a password. Lengths and alphabets are checked too; what is merely called a token is none.

/// What a text looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A token or key: what it is called.
    Token(&'static str),
    /// An address with a user and a password.
    Url,
}

/// A family of tokens: prefix, shortest rest, which characters the rest has, what it is called.
struct Family {
    prefix: &'static str,
    least: usize,
    alphabet: fn(u8) -> bool,
    name: &'static str,
}

const fn family(prefix: &'static str, least: usize, alphabet: fn(u8) -> bool, name: &'static str) -> Family {
    Family { prefix, least, alphabet, name }
}

fn alphanumeric(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
}

fn upper(byte: u8) -> bool {
    byte.is_ascii_uppercase() || byte.is_ascii_digit()
}

fn hexadecimal(byte: u8) -> bool {
    byte.is_ascii_hexdigit()
}

fn word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

fn dashed(byte: u8) -> bool {
    word(byte) || byte == b'-'
}

fn base64(byte: u8) -> bool {
    dashed(byte) || matches!(byte, b'+' | b'/' | b'=' | b'.')
}

const FAMILIES: &[Family] = &[
    family("ghp_", 36, alphanumeric, "a GitHub token"),
    family("gho_", 36, alphanumeric, "a GitHub token"),
    family("ghu_", 36, alphanumeric, "a GitHub token"),
    family("ghs_", 36, alphanumeric, "a GitHub token"),
    family("ghr_", 36, alphanumeric, "a GitHub token"),
    family("github_pat_", 22, word, "a GitHub token"),
    family("glpat-", 20, dashed, "a GitLab token"),
    family("glsa_", 32, word, "a Grafana service account token"),
    family("glc_", 40, base64, "a Grafana Cloud token"),
    family("xoxb-", 20, dashed, "a Slack token"),
    family("xoxp-", 20, dashed, "a Slack token"),
    family("xoxa-", 20, dashed, "a Slack token"),
    family("AKIA", 16, upper, "an AWS access key"),
    family("ASIA", 16, upper, "an AWS access key"),
    family("AIza", 35, dashed, "a Google API key"),
    family("sk_live_", 24, alphanumeric, "a Stripe key"),
    family("rk_live_", 24, alphanumeric, "a Stripe key"),
    family("hvs.", 24, dashed, "a Vault token"),
    family("hvb.", 24, dashed, "a Vault token"),
    family("dop_v1_", 64, hexadecimal, "a DigitalOcean token"),
    family("npm_", 36, alphanumeric, "an npm token"),
    family("SG.", 60, base64, "a SendGrid key"),
    family("AGE-SECRET-KEY-1", 58, upper, "an age key"),
];

/// What a text looks like, if it holds something that looks like a credential.
pub(super) fn credential(text: &str) -> Option<Kind> {
    if private_key(text) {
        return Some(Kind::Token("a private key"));
    }
    FAMILIES
        .iter()
        .find(|family| holds(text, family))
        .map(|family| Kind::Token(family.name))
        .or_else(|| web_token(text).then_some(Kind::Token("a JSON web token")))
        .or_else(|| password_in_url(text).then_some(Kind::Url))
}

/// Whether a text only stands for a secret that somebody is to fill in.
pub(super) fn is_placeholder(text: &str) -> bool {
    let text = text.trim();
    (text.starts_with('<') && text.ends_with('>'))
        || text.contains("{{")
        || text.contains("${")
        || (text.starts_with('$') && text.bytes().skip(1).all(word))
        || text.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_')
        || distinct(text) < 2
}

/// Whether the name of a header says that its value is a credential.
pub(super) fn names_a_credential(header: &str) -> bool {
    let header = header.to_ascii_lowercase();
    ["authorization", "api-key", "apikey", "token", "secret", "password", "cookie"]
        .iter()
        .any(|word| header.contains(word))
}

/// How many different characters a text has.
fn distinct(text: &str) -> usize {
    text.chars().collect::<std::collections::BTreeSet<char>>().len()
}

fn holds(text: &str, family: &Family) -> bool {
    text.match_indices(family.prefix).any(|(at, _)| {
        let before = text[..at].bytes().next_back();
        let rest = &text[at + family.prefix.len()..];
        let length = rest.bytes().take_while(|byte| (family.alphabet)(*byte)).count();
        let body = &rest[..length];
        length >= family.least
            && !before.is_some_and(dashed)
            // Examples are written with few characters, or say that they are examples.
            && distinct(body) >= 6
            && !body.contains("EXAMPLE")
    })
}

fn private_key(text: &str) -> bool {
    text.split("-----BEGIN ").skip(1).any(|rest| {
        // A header alone, as in a pattern that looks for keys, is none.
        rest.split_once("-----").is_some_and(|(name, body)| {
            name.ends_with("PRIVATE KEY")
                && body.bytes().filter(|byte| base64(*byte)).count() >= 40
                && distinct(body) >= 12
        })
    })
}

/// Header and payload of a web token are JSON objects, hence begin with `eyJ` in base64.
fn web_token(text: &str) -> bool {
    text.match_indices("eyJ").any(|(at, _)| {
        let before = text[..at].bytes().next_back();
        let token: Vec<&str> = text[at..]
            .split(|character: char| {
                !(character.is_ascii_alphanumeric() || matches!(character, '-' | '_' | '.'))
            })
            .next()
            .unwrap_or_default()
            .split('.')
            .collect();
        let [header, payload, signature] = token[..] else { return false };
        !before.is_some_and(dashed)
            && header.len() >= 16
            && payload.starts_with("eyJ")
            && payload.len() >= 16
            && signature.len() >= 20
    })
}

fn password_in_url(text: &str) -> bool {
    text.match_indices("://").any(|(at, separator)| {
        let scheme = text[..at].bytes().next_back().is_some_and(|byte| byte.is_ascii_alphanumeric());
        let rest = &text[at + separator.len()..];
        let end = rest.find(|character: char| "/?#\"'`,;".contains(character) || character.is_whitespace());
        let authority = &rest[..end.unwrap_or(rest.len())];
        let Some((user, host)) = authority.rsplit_once('@') else { return false };
        let Some((_, password)) = user.split_once(':') else { return false };
        let verb = password.len() == 2 && password.starts_with('%');
        scheme && !host.is_empty() && !password.is_empty() && !verb && !is_placeholder(password) && {
            // `(` and the like are those of a pattern.
            !user.contains(['<', '>', '{', '}', '(', ')', '[', ']', '|', '\\'])
        }
    })
}

//! Whether a text looks like a credential: by the name it goes under, or by a form that issuers gave theirs so that it is
//! recognised. A guess, so that it only ever warns.

use invar_syntax::value::Value;

/// Parts of names that say it.
const NAMES: [&str; 9] =
    ["password", "passwd", "passphrase", "secret", "api_key", "apikey", "access_key", "private_key", "token"];

/// Ends of names that speak about a credential and do not hold one.
const ABOUT: [&str; 9] = ["_file", "_path", "_url", "_name", "_id", "_ref", "_field", "_header", "_ttl"];

/// How the credentials of well-known issuers begin, and how many characters more they have at least.
const PREFIXES: [(&str, usize); 12] = [
    ("AKIA", 16),
    ("ASIA", 16),
    ("ghp_", 30),
    ("gho_", 30),
    ("ghs_", 30),
    ("github_pat_", 40),
    ("glpat-", 18),
    ("glc_", 30),
    ("glsa_", 30),
    ("xoxb-", 20),
    ("hvs.", 20),
    ("AGE-SECRET-KEY-", 40),
];

/// Whether the value, or something in it, looks like a credential.
pub(super) fn looks_like_one(name: &str, value: &Value) -> bool {
    match value {
        Value::String(text) => (says_so(name) && is_literal(text)) || has_form(text),
        Value::Array(items) => items.iter().any(|item| looks_like_one(name, item)),
        Value::Object(fields) => fields.iter().any(|(name, value)| looks_like_one(name, value)),
        _ => false,
    }
}

fn says_so(name: &str) -> bool {
    let name = name.to_lowercase().replace('-', "_");
    NAMES.iter().any(|part| name.contains(part)) && !ABOUT.iter().any(|end| name.ends_with(end))
}

/// Not a path, an address or a reference to where the credential is.
fn is_literal(text: &str) -> bool {
    text.len() >= 4 && !text.contains(['/', ' ', '$', '<']) && !text.contains("://")
}

fn has_form(text: &str) -> bool {
    let usual = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    let issued = PREFIXES.iter().any(|(prefix, more)| {
        text.strip_prefix(prefix).is_some_and(|rest| rest.len() >= *more && rest.chars().all(usual))
    });
    let key = text.contains("-----BEGIN ") && text.contains("PRIVATE KEY-----");
    let address = text
        .split_once("://")
        .and_then(|(_, rest)| rest.split(['/', '?', '#']).next()?.rsplit_once('@'))
        .and_then(|(user, _)| user.split_once(':'))
        .is_some_and(|(_, password)| !password.is_empty() && !password.starts_with('$'));
    issued || key || address
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_told_from_what_speaks_about_them() {
        for (name, text) in [
            ("password", "hunter2"),
            ("db_passwd", "hunter2"),
            ("api-key", "0123456789"),
            ("note", "ghp_0123456789abcdefghijklmnopqrstuvwx"),
            ("pem", "-----BEGIN RSA PRIVATE KEY-----\n…"),
            ("url", "https://me:hunter2@host/x"),
        ] {
            assert!(looks_like_one(name, &Value::from(text)), "{name}");
        }
        for (name, text) in [
            ("password_file", "secret.txt"),
            ("token", "/run/secrets/token"),
            ("secret", "vault/kv/db#password"),
            ("token_ttl", "10m"),
            ("interval", "15s"),
            ("url", "https://host/a@b:c"),
            ("user_url", "https://me@host/"),
            ("password", ""),
        ] {
            assert!(!looks_like_one(name, &Value::from(text)), "{name} {text}");
        }
        let nested = Value::object([("auth", Value::object([("password", Value::from("hunter2"))]))]);
        assert!(looks_like_one("clients", &Value::array([nested])));
    }
}

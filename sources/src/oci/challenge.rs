//! What a registry wants to see, and the pages of its lists: `WWW-Authenticate` (RFC 9110, section 11.6.1) and `Link`
//! (RFC 8288), as far as registries use them.

/// How a registry wants to be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Challenge {
    /// User name and password.
    Basic,
    /// A token from elsewhere.
    Bearer {
        /// Where it is handed out.
        realm: String,
        /// For which service.
        service: Option<String>,
    },
}

/// The first challenge that can be met; a token before a password.
#[must_use]
pub fn parse_challenge(text: &str) -> Option<Challenge> {
    let mut basic = None;
    let mut rest = text.trim();
    while !rest.is_empty() {
        let (scheme, after) = rest.split_once(' ').unwrap_or((rest, ""));
        let (parameters, next) = parameters(after);
        if scheme.eq_ignore_ascii_case("bearer") {
            let value = |name: &str| {
                let found = parameters.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
                found.map(|(_, value)| value.clone())
            };
            if let Some(realm) = value("realm") {
                return Some(Challenge::Bearer { realm, service: value("service") });
            }
        } else if scheme.trim_end_matches(',').eq_ignore_ascii_case("basic") {
            basic = Some(Challenge::Basic);
        }
        rest = next;
    }
    basic
}

/// `name=value` pairs up to the next scheme, and what is behind them.
fn parameters(text: &str) -> (Vec<(String, String)>, &str) {
    let mut found = Vec::new();
    let mut rest = text.trim_start_matches([' ', ',']);
    loop {
        let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c)));
        let Some(end) = end.filter(|end| *end > 0 && rest[*end..].starts_with('=')) else {
            return (found, rest);
        };
        let (name, after) = (&rest[..end], &rest[end + 1..]);
        let (value, after) = value(after);
        found.push((name.to_owned(), value));
        rest = after.trim_start_matches([' ', ',']);
    }
}

/// A quoted or plain value, and what is behind it.
fn value(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([',', ' ']).unwrap_or(text.len());
        return (text[..end].to_owned(), &text[end..]);
    };
    let mut value = String::new();
    let mut escaped = false;
    for (at, c) in quoted.char_indices() {
        match c {
            _ if escaped => {
                value.push(c);
                escaped = false;
            }
            '\\' => escaped = true,
            '"' => return (value, &quoted[at + 1..]),
            c => value.push(c),
        }
    }
    (value, "")
}

/// The address of the next page, as it stands in a `Link` header.
#[must_use]
pub fn parse_next(text: &str) -> Option<&str> {
    let mut rest = text;
    loop {
        let start = rest.find('<')?;
        let end = start + rest[start..].find('>')?;
        let (target, after) = (&rest[start + 1..end], &rest[end + 1..]);
        let until = after.find('<').unwrap_or(after.len());
        let is_next = after[..until].split([';', ',']).any(|parameter| {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            name.trim().eq_ignore_ascii_case("rel") && value.trim().trim_matches('"') == "next"
        });
        if is_next {
            return Some(target);
        }
        rest = after;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bearer(realm: &str, service: Option<&str>) -> Option<Challenge> {
        Some(Challenge::Bearer { realm: realm.to_owned(), service: service.map(str::to_owned) })
    }

    #[test]
    fn challenges_of_registries() {
        assert_eq!(
            parse_challenge(
                r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push""#
            ),
            bearer("https://auth.docker.io/token", Some("registry.docker.io"))
        );
        assert_eq!(parse_challenge(r#"bearer realm=https://x/t"#), bearer("https://x/t", None));
        assert_eq!(parse_challenge(r#"Basic realm="Registry""#), Some(Challenge::Basic));
        assert_eq!(parse_challenge("Basic"), Some(Challenge::Basic));
        assert_eq!(
            parse_challenge(r#"Basic realm="a, b", Bearer realm="https://x/\"t""#),
            bearer("https://x/\"t", None)
        );
        assert_eq!(parse_challenge("Negotiate"), None);
        assert_eq!(parse_challenge("Bearer"), None);
    }

    #[test]
    fn links_to_the_next_page() {
        assert_eq!(
            parse_next(r#"</v2/x/tags/list?n=2&last=b>; rel="next""#),
            Some("/v2/x/tags/list?n=2&last=b")
        );
        assert_eq!(parse_next(r#"</a>; rel="prev", </b>; rel=next"#), Some("/b"));
        assert_eq!(parse_next(r#"</a>; rel="prev""#), None);
        assert_eq!(parse_next("nonsense"), None);
    }

    proptest! {
        #[test]
        fn any_header_is_read_or_refused(text in "[ -~]{0,80}") {
            drop(parse_challenge(&text));
            if let Some(target) = parse_next(&text) {
                prop_assert!(text.contains(target));
            }
        }

        #[test]
        fn what_is_quoted_comes_back(realm in "[ -~]{1,30}") {
            let quoted = realm.replace('\\', "\\\\").replace('"', "\\\"");
            let text = format!("Bearer realm=\"{quoted}\",service=x");
            prop_assert_eq!(parse_challenge(&text), bearer(&realm, Some("x")));
        }
    }
}

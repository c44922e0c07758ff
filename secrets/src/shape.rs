//! Whether a value can take the place of another: whoever uses the one has to be able to use the other.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use invar_syntax::Secret;
use zeroize::Zeroizing;

const BEGIN: &str = "-----BEGIN ";

/// The fields that `held` has and `new` has not.
pub(crate) fn lacking<'a>(
    held: &'a BTreeMap<String, Secret>,
    new: &BTreeMap<String, Secret>,
) -> Vec<&'a str> {
    held.keys().filter(|name| !new.contains_key(*name)).map(String::as_str).collect()
}

/// Whether `new` can follow `held`: of the fields that both have none is empty that was not, and where there was PEM is PEM.
///
/// # Errors
/// What is wrong with it, without values.
pub(crate) fn successor(
    held: &BTreeMap<String, Secret>,
    new: &BTreeMap<String, Secret>,
) -> Result<(), String> {
    for (name, before) in held {
        let Some(after) = new.get(name) else { continue };
        if after.is_empty() && !before.is_empty() {
            return Err(format!("the field `{name}` of the new value is empty"));
        }
        if before.expose().trim_start().starts_with(BEGIN)
            && let Err(reason) = pem(after.expose())
        {
            return Err(format!("the field `{name}` of the new value is no PEM: {reason}"));
        }
    }
    Ok(())
}

/// Whether a text is one or several whole PEM sections.
fn pem(text: &str) -> Result<(), &'static str> {
    let mut sections = 0;
    let mut lines = text.lines().map(str::trim);
    while let Some(line) = lines.next() {
        let Some(label) = line.strip_prefix(BEGIN).and_then(|rest| rest.strip_suffix("-----")) else {
            // Text between sections is allowed.
            continue;
        };
        let end = format!("-----END {label}-----");
        // It does not grow, which would leave copies behind.
        let mut content = Zeroizing::new(String::with_capacity(text.len()));
        loop {
            match lines.next() {
                None => return Err("a section has no end"),
                Some(line) if line == end => break,
                // Headers of encrypted keys, and the empty line after them.
                Some(line) if line.contains(':') || line.is_empty() => {}
                Some(line) => content.push_str(line),
            }
        }
        let decoded = STANDARD.decode(&*content).map(Zeroizing::new);
        let whole = decoded.is_ok_and(|bytes| !bytes.is_empty());
        if !whole {
            return Err("a section is not base64");
        }
        sections += 1;
    }
    if sections == 0 { Err("there is no section in it") } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    fn fields(all: &[(&str, &str)]) -> BTreeMap<String, Secret> {
        all.iter().map(|(name, text)| ((*name).to_owned(), Secret::new(*text))).collect()
    }

    const KEY: &str = "-----BEGIN PRIVATE KEY-----\nAAAA\nAAAA\n-----END PRIVATE KEY-----\n";

    #[test]
    fn a_successor_has_the_shape_of_what_it_follows() {
        let held = fields(&[("key", KEY), ("user", "me"), ("none", "")]);
        let fits = |all: &[(&str, &str)]| successor(&held, &fields(all));
        assert_eq!(fits(&[("key", KEY), ("user", "you"), ("none", ""), ("more", "x")]), Ok(()));
        // What is not there at all is another matter.
        assert_eq!(fits(&[("key", KEY), ("none", "")]), Ok(()));
        assert_eq!(lacking(&held, &fields(&[("key", KEY), ("none", ""), ("more", "x")])), ["user"]);
        for (all, wanted) in [
            (&[("key", KEY), ("user", ""), ("none", "")][..], "`user` of the new value is empty"),
            (&[("key", "hunter2"), ("user", "you"), ("none", "")], "no section"),
            (&[("key", "-----BEGIN X-----\nAAAA"), ("user", "you"), ("none", "")], "no end"),
            (
                &[("key", "-----BEGIN X-----\n!\n-----END X-----"), ("user", "you"), ("none", "")],
                "not base64",
            ),
        ] {
            let error = fits(all).unwrap_err();
            assert!(error.contains(wanted) && !error.contains("hunter2"), "{error}");
        }
    }

    proptest! {
        #[test]
        fn text_without_a_section_is_none_and_whole_sections_are(
            text in "[^-]*",
            bytes in proptest::collection::vec(any::<u8>(), 1..200),
            noise in "[ -~\n]{0,80}",
        ) {
            prop_assert!(pem(&text).is_err());
            let body = STANDARD.encode(&bytes);
            let section = format!("{text}\n-----BEGIN A-----\n{body}\n-----END A-----\n");
            prop_assert_eq!(pem(&section), Ok(()));
            // Whatever follows, a section that was cut off is noticed.
            let cut = format!("{section}-----BEGIN B-----\n{}", noise.replace("-----END B-----", ""));
            prop_assert!(pem(&cut).is_err());
        }
    }
}

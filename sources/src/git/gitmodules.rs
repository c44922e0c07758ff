//! `.gitmodules`: which folder of a repository is a submodule, and where that is (gitmodules(5), git-config(1)). Text in,
//! addresses out; of Git's configuration format that is as much as these files use.

use std::collections::BTreeMap;

/// The most submodules that are looked at.
const MODULE_LIMIT: usize = 1000;

/// The addresses by path. Entries without both are left out, and so is what cannot be read: that concerns a submodule only
/// if it is wanted.
#[must_use]
pub fn parse_modules(text: &str) -> BTreeMap<String, String> {
    let mut modules: BTreeMap<String, (Option<String>, Option<String>)> = BTreeMap::new();
    let mut current: Option<String> = None;
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let line = line.trim();
        if let Some(section) = line.strip_prefix('[') {
            current = submodule_name(section);
            continue;
        }
        let (Some(name), Some((key, value))) = (&current, line.split_once('=')) else { continue };
        let mut value = value.trim().to_owned();
        while value.ends_with('\\') && !value.ends_with("\\\\") {
            value.pop();
            value.push_str(lines.next().unwrap_or_default().trim());
        }
        let Some(value) = unquote(&value) else { continue };
        if !modules.contains_key(name) && modules.len() >= MODULE_LIMIT {
            break;
        }
        let entry = modules.entry(name.clone()).or_default();
        // The last one wins, as in all of Git's configuration.
        match key.trim().to_ascii_lowercase().as_str() {
            "path" => entry.0 = Some(value.trim_end_matches('/').to_owned()),
            "url" => entry.1 = Some(value),
            _ => {}
        }
    }
    modules.into_values().filter_map(|(path, url)| Some((path?, url?))).collect()
}

/// The name in `submodule "name"]`.
fn submodule_name(section: &str) -> Option<String> {
    let (kind, rest) = section.split_once([' ', '\t'])?;
    if !kind.eq_ignore_ascii_case("submodule") {
        return None;
    }
    let quoted = rest.trim().strip_prefix('"')?;
    let mut name = String::new();
    let mut characters = quoted.chars();
    loop {
        match characters.next()? {
            '"' => return characters.as_str().trim_start().starts_with(']').then_some(name),
            '\\' => name.push(characters.next()?),
            other => name.push(other),
        }
    }
}

/// A value without its quotes and what is behind a `#` or `;` outside of them.
fn unquote(text: &str) -> Option<String> {
    let mut value = String::new();
    let mut quoted = false;
    // What is kept of the blanks before: those at the end are none of the value.
    let mut kept = 0;
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match character {
            '"' => quoted = !quoted,
            '#' | ';' if !quoted => break,
            '\\' => value.push(match characters.next()? {
                'n' => '\n',
                't' => '\t',
                'b' => '\u{8}',
                other @ ('"' | '\\') => other,
                _ => return None,
            }),
            other => value.push(other),
        }
        if quoted || !character.is_whitespace() {
            kept = value.len();
        }
    }
    value.truncate(kept);
    (!quoted).then_some(value)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> Vec<(String, String)> {
        parse_modules(text).into_iter().collect()
    }

    #[test]
    fn what_git_writes_and_people_edit() {
        let text = "# ours\n[core]\n\tpath = no\n[submodule \"net\"]\n\tpath = modules/net/\n\turl = ../net.git\n\tbranch = main\n\
                    [Submodule \"a \\\"b\\\"\"]\n  PATH=\"b c\"\n  url = https://h/x.git ; ours\n[submodule \"lone\"]\npath = lone\n\
                    [submodule \"long\"]\npath = l\nurl = https://h/\\\n  long\n";
        let expected = [("b c", "https://h/x.git"), ("l", "https://h/long"), ("modules/net", "../net.git")];
        assert_eq!(parse(text), expected.map(|(path, url)| (path.to_owned(), url.to_owned())));
        assert_eq!(
            parse("[submodule \"a\"]\npath = a\nurl = x\nurl = y"),
            [("a".to_owned(), "y".to_owned())]
        );
    }

    #[test]
    fn what_cannot_be_read_is_left_out() {
        for text in [
            "[submodule \"a\npath = a\nurl = b",
            "path = a\nurl = b",
            "[submodule a]\npath = a\nurl = b",
            "[submodule \"a\"]\npath = \"a\nurl = b",
            "[submodule \"a\"]\npath = \\q\nurl = b",
        ] {
            assert_eq!(parse(text), [], "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read(text in "(\\[submodule \"[a-c]\"\\]\n|path = |url = |[ -~\n\\\\\"]{0,8}){0,12}") {
            prop_assert!(parse_modules(&text).len() <= text.lines().count());
        }
    }
}

//! Expansion of `$1`, `${1}` and `${name}` in replacement texts, by the rules of Go's `Regexp.Expand`.

use regex::{Captures, Regex};

/// Replaces the references in a template by what the groups matched. Groups that do not exist or did not match are empty; `$$` is a
/// dollar sign, and so is a `$` that begins no reference.
pub(super) fn expand(template: &str, regex: &Regex, groups: &Captures<'_>) -> String {
    let mut expanded = String::with_capacity(template.len());
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('$') {
        expanded.push_str(before);
        if let Some(after) = after.strip_prefix('$') {
            expanded.push('$');
            rest = after;
        } else if let Some((name, after)) = reference(after) {
            expanded.push_str(group(name, regex, groups));
            rest = after;
        } else {
            expanded.push('$');
            rest = after;
        }
    }
    expanded.push_str(rest);
    expanded
}

/// The name at the start of what follows a dollar sign, and what comes after it.
fn reference(text: &str) -> Option<(&str, &str)> {
    let (braced, inner) = match text.strip_prefix('{') {
        Some(inner) => (true, inner),
        None => (false, text),
    };
    let end = inner.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(inner.len());
    let (name, after) = inner.split_at(end);
    if name.is_empty() {
        return None;
    }
    if braced { Some((name, after.strip_prefix('}')?)) } else { Some((name, after)) }
}

fn group<'t>(name: &str, regex: &Regex, groups: &Captures<'t>) -> &'t str {
    let digits = name.bytes().all(|byte| byte.is_ascii_digit());
    // A number with a leading zero is a name, and no group has it.
    if digits && (name == "0" || !name.starts_with('0')) {
        return name
            .parse()
            .ok()
            .and_then(|number| groups.get(number))
            .map_or("", |matched| matched.as_str());
    }
    regex
        .capture_names()
        .enumerate()
        .filter(|(_, group)| *group == Some(name))
        .find_map(|(number, _)| groups.get(number))
        .map_or("", |matched| matched.as_str())
}

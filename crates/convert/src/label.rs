//! Labels of blocks, made from the names that other configurations give their jobs.

use std::collections::BTreeSet;

use invar_syntax::lexer::is_identifier;

/// Labels in use, by component name, so that two jobs whose names differ only in punctuation do not clash.
#[derive(Debug, Default)]
pub(crate) struct Labels {
    taken: BTreeSet<(String, String)>,
}

impl Labels {
    /// The label for a component: the wanted one, or with `_2`, `_3` … where that is taken.
    pub(crate) fn take(&mut self, component: &str, wanted: &str) -> String {
        let mut label = wanted.to_owned();
        let mut count = 1;
        while !self.taken.insert((component.to_owned(), label.clone())) {
            count += 1;
            label = format!("{wanted}_{count}");
        }
        label
    }
}

/// The name as an identifier: what cannot stand in one becomes `_`, and a digit in front gets one before it.
pub(crate) fn sanitize(name: &str) -> String {
    if is_identifier(name) {
        return name.to_owned();
    }
    let mut label = String::with_capacity(name.len() + 1);
    if name.starts_with(|first: char| first.is_ascii_digit()) {
        label.push('_');
    }
    label.extend(name.chars().map(|c| if is_identifier(&format!("_{c}")) { c } else { '_' }));
    // A keyword, or nothing at all, cannot be a label.
    if is_identifier(&label) { label } else { format!("_{label}") }
}

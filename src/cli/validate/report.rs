//! What a run of `invar validate` found, with the places as people count them, and as JSON.

use invar_syntax::Severity;
use invar_syntax::diagnostic::Label;
use serde_json::{Value, json};

use super::rules::{self, Rule};
use crate::cli::imports::Import;
use crate::cli::local::Finding;

/// One configuration that was checked.
#[derive(Debug, Default)]
pub(super) struct Checked {
    /// The path or address it was given by.
    pub(super) what: String,
    /// How many files it has.
    pub(super) files: usize,
    /// What was found, in order.
    pub(super) findings: Vec<Finding>,
    /// What it imports, and whether that was looked at.
    pub(super) imports: Vec<Import>,
    /// Why it could not be read.
    pub(super) unreadable: Option<String>,
}

/// A place as people count: lines and columns from one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Region {
    /// Line and column.
    pub(super) start: (u32, u32),
    /// Line and column behind the last.
    pub(super) end: (u32, u32),
}

impl Checked {
    pub(super) fn count(&self, severity: Severity) -> usize {
        self.findings.iter().filter(|finding| finding.diagnostic.severity == severity).count()
    }
}

impl Finding {
    pub(super) fn rule(&self) -> Rule {
        rules::of(self.diagnostic.code)
    }

    pub(super) fn is_error(&self) -> bool {
        self.diagnostic.severity == Severity::Error
    }

    /// The message with its help, for formats that have no place for that.
    pub(super) fn words(&self) -> String {
        let mut words = self.in_words().message;
        if let Some(help) = &self.diagnostic.help {
            words.push_str("\nhelp: ");
            words.push_str(help);
        }
        words
    }

    /// File, line and column, where there are any.
    pub(super) fn place(&self) -> Option<(&Label, Region)> {
        self.diagnostic.primary().map(|label| (label, region(label, bytes)))
    }
}

/// The region of a label; `columns` counts what stands before a place on its line.
pub(super) fn region(label: &Label, columns: fn(&str) -> usize) -> Region {
    let place = |offset: u32| {
        let position = label.source.position(offset);
        let line = label.source.line_span(position.line).map_or("", |span| label.source.slice(span));
        let before = line.get(..position.column.saturating_sub(1) as usize).unwrap_or(line);
        (position.line.max(1), u32::try_from(columns(before)).unwrap_or(u32::MAX).saturating_add(1))
    };
    Region { start: place(label.span.start), end: place(label.span.end) }
}

/// Columns as Alloy and compilers count them.
pub(super) fn bytes(text: &str) -> usize {
    text.len()
}

/// Columns as editors count them.
pub(super) fn characters(text: &str) -> usize {
    text.chars().count()
}

/// `-o json`: version 1, to which fields are only added.
pub(super) fn json(checked: &[Checked]) -> Value {
    let place = |label: &Label| {
        let Region { start, end } = region(label, bytes);
        json!({
            "file": &*label.source.name,
            "start": { "line": start.0, "column": start.1 },
            "end": { "line": end.0, "column": end.1 },
        })
    };
    let findings = checked.iter().flat_map(|checked| &checked.findings).map(|finding| {
        let diagnostic = &finding.diagnostic;
        let related = diagnostic.labels.iter().skip(1).map(|label| {
            let mut related = place(label);
            related["text"] = json!(label.text);
            related
        });
        json!({
            "severity": diagnostic.severity.to_string(),
            "code": diagnostic.code,
            "rule": finding.rule().name,
            "message": diagnostic.message,
            "place": diagnostic.primary().map(place),
            "related": related.collect::<Vec<_>>(),
            "help": diagnostic.help,
            "environments": finding.environments,
        })
    });
    let configurations = checked.iter().map(|checked| {
        json!({
            "path": checked.what,
            "valid": checked.unreadable.is_none() && checked.count(Severity::Error) == 0,
            "files": checked.files,
            "errors": checked.count(Severity::Error),
            "warnings": checked.count(Severity::Warning),
            "unreadable": checked.unreadable,
        })
    });
    json!({
        "version": 1,
        "valid": checked.iter().all(|checked| checked.unreadable.is_none() && checked.count(Severity::Error) == 0),
        "diagnostics": findings.collect::<Vec<_>>(),
        "configurations": configurations.collect::<Vec<_>>(),
        "imports": checked.iter().flat_map(|checked| &checked.imports).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::Arc;

    use invar_syntax::{Diagnostic, Source, Span};

    use super::*;

    /// A configuration with an error at the first byte of its first line and a warning at that of its second.
    pub(in super::super) fn checked(name: &str, text: &str) -> Checked {
        let source = Arc::new(Source::new(name, text));
        let second = u32::try_from(text.find('\n').map_or(0, |end| end + 1)).unwrap_or_default();
        let error = Diagnostic::error("E101", "no such \"x\"").with_label(&source, Span::new(0, 1), "");
        let warning = Diagnostic::warning("W403", "50% is too much")
            .with_label(&source, Span::new(second, second + 1), "")
            .with_label(&source, Span::new(0, 1), "compare")
            .with_help("use less");
        let findings = [error, warning].map(|diagnostic| Finding { diagnostic, environments: Vec::new() });
        Checked { what: name.to_owned(), files: 1, findings: findings.into(), ..Checked::default() }
    }

    #[test]
    fn findings_are_placed_and_counted() {
        let shown = json(&[checked("a.alloy", "é = 1\ny = 2\n")]);
        assert_eq!(shown["valid"], false);
        assert_eq!(shown["configurations"][0]["errors"], 1);
        assert_eq!(shown["diagnostics"][0]["rule"], "unknown-name");
        assert_eq!(shown["diagnostics"][1]["place"]["start"], json!({ "line": 2, "column": 1 }));
        assert_eq!(shown["diagnostics"][1]["related"][0]["text"], "compare");
    }

    #[test]
    fn columns_are_counted_in_bytes_or_characters() {
        let source = Arc::new(Source::new("a", "x\néé y"));
        let label = Label { source, span: Span::new(7, 8), text: String::new() };
        assert_eq!(region(&label, bytes), Region { start: (2, 6), end: (2, 7) });
        assert_eq!(region(&label, characters), Region { start: (2, 4), end: (2, 5) });
    }
}

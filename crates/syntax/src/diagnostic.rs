//! What is wrong with a configuration and where: the one error currency of parser, checker, evaluator and engine.

use std::fmt;
use std::sync::Arc;

use crate::source::Source;
use crate::span::Span;

/// How bad it is.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub enum Severity {
    /// The configuration is refused.
    Error,
    /// The configuration is accepted, but something deserves attention.
    Warning,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Warning => "warning",
        })
    }
}

/// A place in a source, and what to say beside its underline.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Label {
    /// The text the span points into.
    pub source: Arc<Source>,
    /// The underlined range.
    pub span: Span,
    /// Said beside the underline; may be empty.
    pub text: String,
}

/// One finding.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// A stable code such as `E012`; the parser's are listed in [`crate::codes`].
    pub code: &'static str,
    /// What is wrong, in one line, without position or code.
    pub message: String,
    /// Where: the first label is the primary one; others add context. May be empty.
    pub labels: Vec<Label>,
    /// What to do about it, if that can be said.
    pub help: Option<String>,
}

impl Diagnostic {
    /// An error without a place.
    #[must_use]
    pub fn error(code: &'static str, message: impl Into<String>) -> Self {
        Self { severity: Severity::Error, code, message: message.into(), labels: Vec::new(), help: None }
    }

    /// A warning without a place.
    #[must_use]
    pub fn warning(code: &'static str, message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(code, message) }
    }

    /// Adds a place; the first one added is the primary one.
    #[must_use]
    pub fn with_label(mut self, source: &Arc<Source>, span: Span, text: impl Into<String>) -> Self {
        self.labels.push(Label { source: Arc::clone(source), span, text: text.into() });
        self
    }

    /// Adds the help line.
    #[must_use]
    pub fn with_help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// The place that `file:line:column` names.
    #[must_use]
    pub fn primary(&self) -> Option<&Label> {
        self.labels.first()
    }
}

/// `file:line:column: message`, or the message alone when there is no place.
impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(label) = self.primary() {
            write!(f, "{}: ", label.source.location(label.span.start))?;
        }
        f.write_str(&self.message)
    }
}

/// A list of findings; as an error, the text of all of them.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Diagnostics(pub Vec<Diagnostic>);

impl Diagnostics {
    /// No findings.
    #[must_use]
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// Adds one.
    pub fn push(&mut self, diagnostic: Diagnostic) {
        self.0.push(diagnostic);
    }

    /// Whether any finding is an error.
    #[must_use]
    pub fn has_errors(&self) -> bool {
        self.0.iter().any(|diagnostic| diagnostic.severity == Severity::Error)
    }

    /// Whether there are no findings at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many findings there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The findings in order.
    pub fn iter(&self) -> std::slice::Iter<'_, Diagnostic> {
        self.0.iter()
    }

    /// Orders by file name, then position; findings without a place come first, equals keep their order.
    pub fn sort(&mut self) {
        fn place(diagnostic: &Diagnostic) -> Option<(&str, Span)> {
            diagnostic.primary().map(|label| (&*label.source.name, label.span))
        }
        self.0.sort_by(|a, b| place(a).cmp(&place(b)));
    }
}

/// Every `file:line:column: message`, one a line.
impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, diagnostic) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            diagnostic.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for Diagnostics {}

impl From<Diagnostic> for Diagnostics {
    fn from(diagnostic: Diagnostic) -> Self {
        Self(vec![diagnostic])
    }
}

impl FromIterator<Diagnostic> for Diagnostics {
    fn from_iter<I: IntoIterator<Item = Diagnostic>>(iter: I) -> Self {
        Self(iter.into_iter().collect())
    }
}

impl Extend<Diagnostic> for Diagnostics {
    fn extend<I: IntoIterator<Item = Diagnostic>>(&mut self, iter: I) {
        self.0.extend(iter);
    }
}

impl IntoIterator for Diagnostics {
    type Item = Diagnostic;
    type IntoIter = std::vec::IntoIter<Diagnostic>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<'a> IntoIterator for &'a Diagnostics {
    type Item = &'a Diagnostic;
    type IntoIter = std::slice::Iter<'a, Diagnostic>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

/// The name most like `wanted`, if any is near enough to be worth suggesting. Ties go to the earlier name.
#[must_use]
pub fn nearest<'a>(wanted: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    // One edit in three characters: enough for slips of the finger, too little for unrelated words.
    let length = wanted.chars().count();
    let allowed = (length / 3).max(1);
    names
        // Cheap, and true of most: among thousands of names it is what counts.
        .filter(|name| name.chars().count().abs_diff(length) <= allowed)
        .map(|name| (strsim::osa_distance(wanted, name), name))
        .filter(|&(distance, _)| distance <= allowed)
        .min_by_key(|&(distance, _)| distance)
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::{Arc, Diagnostic, Diagnostics, Source, Span, nearest};

    #[test]
    fn findings_are_ordered_by_file_and_place() {
        let a = Arc::new(Source::new("a.alloy", "one\ntwo"));
        let b = Arc::new(Source::new("b.alloy", "one"));
        let mut diagnostics = Diagnostics::new();
        diagnostics.push(Diagnostic::error("E3", "fourth").with_label(&b, Span::new(0, 1), ""));
        diagnostics.push(Diagnostic::error("E2", "third").with_label(&a, Span::new(5, 6), ""));
        diagnostics.push(Diagnostic::warning("E1", "second").with_label(&a, Span::new(0, 1), ""));
        assert!(diagnostics.has_errors());
        diagnostics.push(Diagnostic::error("E0", "first"));
        diagnostics.sort();
        let text = "first\na.alloy:1:1: second\na.alloy:2:2: third\nb.alloy:1:1: fourth";
        assert_eq!(diagnostics.to_string(), text);
    }

    #[test]
    fn warnings_are_no_errors() {
        let warnings = Diagnostics::from(Diagnostic::warning("E1", "careful"));
        assert!(!warnings.has_errors());
        assert!(!warnings.is_empty());
    }

    #[test]
    fn only_near_names_are_suggested() {
        let names = ["targets", "scrape_interval", "scrape_timeout", "url"];
        let suggest = |wanted: &str| nearest(wanted, names.into_iter());
        assert_eq!(suggest("target"), Some("targets"));
        assert_eq!(suggest("tragets"), Some("targets"));
        assert_eq!(suggest("scrape_intervall"), Some("scrape_interval"));
        assert_eq!(suggest("ulr"), Some("url"));
        assert_eq!(suggest("password"), None);
        assert_eq!(suggest("x"), None);
        assert_eq!(nearest("ab", ["aa", "bb"].into_iter()), Some("aa"));
    }
}

//! What a conversion has to say: what became what, and what is lost. Severities are those of `alloy convert`.

use std::fmt;

/// How much a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// What was converted, and to what.
    Info,
    /// Converted, but not to quite the same thing.
    Warning,
    /// Lost in the result: it is only written when the person asks for it anyway.
    Error,
    /// There is no result.
    Critical,
}

impl fmt::Display for Severity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Info => "Info",
            Self::Warning => "Warning",
            Self::Error => "Error",
            Self::Critical => "Critical",
        })
    }
}

/// One thing a conversion has to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How much it matters.
    pub severity: Severity,
    /// Line of the original it is about, from 1; 0 where it is about the whole.
    pub line: usize,
    /// The sentence.
    pub message: String,
}

/// Everything a conversion has to say, in the order of the original's lines.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    findings: Vec<Finding>,
}

impl Report {
    /// In the order of the original's lines.
    #[must_use]
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// The worst there is to say.
    #[must_use]
    pub fn worst(&self) -> Option<Severity> {
        self.findings.iter().map(|finding| finding.severity).max()
    }

    /// The report as text, a line a finding: `(Error) prometheus.yml:12: …`. Below a severity nothing is said.
    #[must_use]
    pub fn text(&self, file: &str, least: Severity) -> String {
        let mut text = String::new();
        for finding in self.findings.iter().filter(|finding| finding.severity >= least) {
            let place = if finding.line == 0 { String::new() } else { format!("{file}:{}: ", finding.line) };
            text.push_str(&format!("({}) {place}{}\n", finding.severity, finding.message));
        }
        text
    }

    pub(crate) fn add(&mut self, finding: Finding) {
        // The same thing inherited by several jobs is said once.
        if !self.findings.contains(&finding) {
            self.findings.push(finding);
        }
    }

    pub(crate) fn info(&mut self, line: usize, message: impl Into<String>) {
        self.add(Finding { severity: Severity::Info, line, message: message.into() });
    }

    pub(crate) fn warning(&mut self, line: usize, message: impl Into<String>) {
        self.add(Finding { severity: Severity::Warning, line, message: message.into() });
    }

    pub(crate) fn error(&mut self, line: usize, message: impl Into<String>) {
        self.add(Finding { severity: Severity::Error, line, message: message.into() });
    }

    /// Something that Alloy's components have no argument for.
    pub(crate) fn unsupported(&mut self, line: usize, what: impl fmt::Display) {
        self.error(line, format!("{what} has no equivalent and is left out"));
    }

    /// Something whose component exists in Alloy but not in this binary.
    pub(crate) fn missing_component(&mut self, line: usize, what: impl fmt::Display, component: &str) {
        self.error(
            line,
            format!("{what} needs {component}, which is not built into this version; it is left out"),
        );
    }

    pub(crate) fn sort(&mut self) {
        self.findings.sort_by_key(|finding| finding.line);
    }
}

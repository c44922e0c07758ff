//! Diagnostics as people read them in a terminal: header, place, source lines, underline, help.

use std::sync::Arc;

use crate::diagnostic::{Diagnostic, Diagnostics, Label, Severity};
use crate::source::Source;

mod excerpt;
mod visible;

use excerpt::Excerpt;
use visible::visible;

/// How to print.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
pub struct Style {
    /// Whether to use terminal colours.
    pub color: bool,
}

/// Prints every finding in order, separated by blank lines. Control characters of the text are shown, never sent to the
/// terminal.
#[must_use]
pub fn render(diagnostics: &Diagnostics, style: Style) -> String {
    let mut out = String::new();
    for (index, diagnostic) in diagnostics.iter().enumerate() {
        if index > 0 {
            out.push('\n');
        }
        one(&mut out, diagnostic, Paint { style });
    }
    out
}

/// Wraps text in terminal colours, or does not.
#[derive(Copy, Clone)]
struct Paint {
    style: Style,
}

const BOLD: &str = "1";
const RED: &str = "1;31";
const YELLOW: &str = "1;33";
const BLUE: &str = "1;34";

impl Paint {
    fn paint(self, colour: &str, text: &str) -> String {
        if self.style.color && !text.is_empty() {
            format!("\u{1b}[{colour}m{text}\u{1b}[0m")
        } else {
            text.to_owned()
        }
    }

    /// Gutter and arrows.
    fn frame(self, text: &str) -> String {
        self.paint(BLUE, text)
    }

    fn underline(self, severity: Severity, primary: bool, text: &str) -> String {
        let colour = match (primary, severity) {
            (false, _) => BLUE,
            (true, Severity::Error) => RED,
            (true, Severity::Warning) => YELLOW,
        };
        self.paint(colour, text)
    }
}

fn one(out: &mut String, diagnostic: &Diagnostic, paint: Paint) {
    let header = format!("{}[{}]", diagnostic.severity, diagnostic.code);
    let header = paint.underline(diagnostic.severity, true, &header);
    let message = paint.paint(BOLD, &format!(": {}", visible(&diagnostic.message)));
    line(out, &format!("{header}{message}"));

    let excerpts: Vec<Excerpt<'_>> = by_source(&diagnostic.labels)
        .into_iter()
        .map(|(source, labels)| Excerpt::new(source, &labels, diagnostic.labels.first()))
        .collect();
    let width = excerpts.iter().map(Excerpt::gutter_width).max().unwrap_or(0);
    let blank = " ".repeat(width);
    for (index, excerpt) in excerpts.iter().enumerate() {
        let arrow = paint.frame(if index == 0 { "-->" } else { ":::" });
        line(out, &format!("{blank}{arrow} {}", visible(&excerpt.location())));
        excerpt.draw(out, width, diagnostic.severity, paint);
    }
    if let Some(help) = &diagnostic.help {
        if excerpts.iter().any(Excerpt::has_lines) {
            line(out, &format!("{blank} {}", paint.frame("|")));
        }
        let mark = paint.frame("=");
        line(out, &format!("{blank} {mark} {} {}", paint.paint(BOLD, "help:"), visible(help)));
    }
}

/// Groups labels by source; the primary label's source first.
fn by_source(labels: &[Label]) -> Vec<(&Arc<Source>, Vec<&Label>)> {
    let mut groups: Vec<(&Arc<Source>, Vec<&Label>)> = Vec::new();
    for label in labels {
        let known = groups
            .iter_mut()
            .find(|(source, _)| Arc::ptr_eq(source, &label.source) || **source == label.source);
        match known {
            Some((_, group)) => group.push(label),
            None => groups.push((&label.source, vec![label])),
        }
    }
    groups
}

fn line(out: &mut String, text: &str) {
    out.push_str(text.trim_end());
    out.push('\n');
}

#[cfg(test)]
mod tests;

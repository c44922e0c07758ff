//! A page for a terminal: names in a column of their own, descriptions wrapped beside them.

use crate::page::{Page, Section};

/// What a part of the text is, for those who colour it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Emphasis {
    /// A title or a name.
    Strong,
    /// A type or a default.
    Faint,
}

/// Narrower than this, columns would help nobody.
const LEAST_WIDTH: usize = 60;
/// Longer names get a line of their own rather than push everything else to the right.
const WIDEST_NAME: usize = 28;

impl Page {
    /// The page in at most `width` columns, coloured by `paint`.
    #[must_use]
    pub fn to_text(&self, width: usize, paint: &dyn Fn(Emphasis, &str) -> String) -> String {
        let width = width.max(LEAST_WIDTH);
        let mut lines = vec![format!(
            "{}  {}",
            paint(Emphasis::Strong, &self.title),
            paint(Emphasis::Faint, &format!("({})", self.facts))
        )];
        let mut paragraph = |title: &str, text: Vec<String>| {
            lines.push(String::new());
            if !title.is_empty() {
                lines.push(paint(Emphasis::Strong, title));
            }
            lines.extend(text);
        };
        if !self.summary.is_empty() {
            paragraph("", wrap(&crate::page::one_line(&self.summary), width));
        }
        paragraph(
            "Usage",
            self.usage.lines().map(|line| format!("  {line}").trim_end().to_owned()).collect(),
        );
        for section in &self.sections {
            paragraph(&section.title, section_lines(section, width, paint));
        }
        if !self.notes.is_empty() {
            let notes = self.notes.iter().flat_map(|note| hanging("  ", "  ", &wrap(note, width - 2)));
            paragraph("Notes", notes.collect());
        }
        lines.join("\n")
    }
}

fn section_lines(section: &Section, width: usize, paint: &dyn Fn(Emphasis, &str) -> String) -> Vec<String> {
    let mut lines = Vec::new();
    let description = crate::page::one_line(&section.description);
    if !description.is_empty() {
        lines.extend(hanging("  ", "  ", &wrap(&description, width - 2)));
    }
    let column = section
        .entries
        .iter()
        .map(|entry| entry.name.chars().count())
        .filter(|length| *length <= WIDEST_NAME);
    let column = column.max().unwrap_or(WIDEST_NAME) + 4;
    let indent = " ".repeat(column);
    for entry in &section.entries {
        let facts = [entry.ty.as_str(), entry.presence.as_str()];
        let facts = facts.into_iter().filter(|fact| !fact.is_empty()).collect::<Vec<_>>().join(", ");
        let length = entry.name.chars().count();
        let name = paint(Emphasis::Strong, &entry.name);
        let facts = wrap(&facts, width - column).into_iter().map(|line| paint(Emphasis::Faint, &line));
        let facts: Vec<String> = facts.collect();
        if length + 4 > column {
            lines.push(format!("  {name}"));
            lines.extend(hanging(&indent, &indent, &facts));
        } else {
            lines.extend(hanging(&format!("  {name}{}", " ".repeat(column - 2 - length)), &indent, &facts));
        }
        lines.extend(hanging(&indent, &indent, &wrap(&entry.description, width - column)));
    }
    lines
}

/// Lines with one prefix for the first and another for the rest.
fn hanging(first: &str, rest: &str, lines: &[String]) -> Vec<String> {
    let prefixed = lines.iter().enumerate();
    prefixed.map(|(index, line)| format!("{}{line}", if index == 0 { first } else { rest })).collect()
}

/// Breaks a text at blanks into lines of at most `width` characters; a longer word stands alone.
pub(crate) fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    let mut length = 0;
    for word in text.split_whitespace() {
        let word_length = word.chars().count();
        match lines.last_mut() {
            Some(line) if length + 1 + word_length <= width => {
                line.push(' ');
                line.push_str(word);
                length += 1 + word_length;
            }
            _ => {
                lines.push(word.to_owned());
                length = word_length;
            }
        }
    }
    lines
}

//! A page, a field and a function in Markdown: for documentation sites and for what editors show beside the cursor.

use invar_syntax::Field;
use invar_syntax::stdlib::FunctionInfo;

use crate::page::{Page, entry, one_line};

impl Page {
    /// The whole page.
    #[must_use]
    pub fn to_markdown(&self) -> String {
        let mut text = format!("# {}\n\n*{}*\n", self.title, self.facts);
        if !self.summary.is_empty() {
            text.push_str(&format!("\n{}\n", one_line(&self.summary)));
        }
        text.push_str(&format!("\n## Usage\n\n```alloy\n{}\n```\n", self.usage));
        for section in &self.sections {
            text.push_str(&format!("\n## {}\n", section.title));
            let description = one_line(&section.description);
            if !description.is_empty() {
                text.push_str(&format!("\n{description}\n"));
            }
            text.push_str("\n| Name | Type | | Description |\n|---|---|---|---|\n");
            for entry in &section.entries {
                let cells =
                    [code(&entry.name), code(&entry.ty), presence(&entry.presence), cell(&entry.description)];
                text.push_str(&format!("| {} |\n", cells.join(" | ")));
            }
        }
        if !self.notes.is_empty() {
            text.push_str("\n## Notes\n\n");
            for note in &self.notes {
                text.push_str(&format!("- {note}\n"));
            }
        }
        text
    }

    /// The top of the page: name, summary and usage.
    #[must_use]
    pub fn to_short_markdown(&self) -> String {
        let mut text = format!("**{}** — *{}*", self.title, self.facts);
        if !self.summary.is_empty() {
            text.push_str(&format!("\n\n{}", one_line(&self.summary)));
        }
        text.push_str(&format!("\n\n```alloy\n{}\n```", self.usage));
        text
    }
}

/// An argument, block or export.
#[must_use]
pub fn field_markdown(field: &Field) -> String {
    let entry = entry(field);
    let facts = [entry.ty, entry.presence];
    let facts = facts.iter().filter(|fact| !fact.is_empty()).map(|fact| code(fact)).collect::<Vec<_>>();
    let mut text = format!("**{}** {}", entry.name, facts.join(", "));
    if !entry.description.is_empty() {
        text.push_str(&format!("\n\n{}", entry.description));
    }
    text
}

/// A function of the standard library.
#[must_use]
pub fn function_markdown(function: &FunctionInfo) -> String {
    let mut text = format!("```alloy\n{}\n```\n\n{}", function.signature(), function.summary);
    text.push_str(&format!("\n\nExample: `{}` gives `{}`", function.example, function.gives));
    if function.stability < invar_syntax::Stability::GenerallyAvailable {
        text.push_str(&format!("\n\nStability: {}", function.stability));
    }
    if let Some(old) = function.deprecated_name {
        text.push_str(&format!("\n\nFormerly `{old}`"));
    }
    text
}

fn presence(text: &str) -> String {
    match text.strip_prefix("default ") {
        Some(default) => format!("default {}", code(default)),
        None => text.to_owned(),
    }
}

/// As code within a table: a bar would end the cell.
fn code(text: &str) -> String {
    format!("`{}`", text.replace('|', "\\|"))
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

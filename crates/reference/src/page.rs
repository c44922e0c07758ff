//! The page of a component or block: what is on it and in which order. How it looks is for [`crate::terminal`] and
//! [`crate::markdown`].

use invar_engine::language::{BlockInfo, Place};
use invar_engine::registry::ComponentInfo;
use invar_syntax::{Field, FieldKind, Stability, Type, value_to_expression};

use crate::snippet::{Holes, snippet};
use crate::type_text::type_text;

/// The reference of one component or block.
#[derive(Clone, Debug)]
pub struct Page {
    /// The block name.
    pub title: String,
    /// What kind of thing it is, and how settled: `component, generally-available`.
    pub facts: String,
    /// What it is for.
    pub summary: String,
    /// The smallest use of it.
    pub usage: String,
    /// Its arguments, then those of its blocks, then its exports.
    pub sections: Vec<Section>,
    /// What else to know.
    pub notes: Vec<String>,
}

/// A titled list of entries.
#[derive(Clone, Debug)]
pub struct Section {
    /// `Arguments`, `Block basic_auth`, `Exports`.
    pub title: String,
    /// A sentence about it, maybe empty.
    pub description: String,
    /// In the order of declaration.
    pub entries: Vec<Entry>,
}

/// One argument, block or export.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// Its type, or what kind of block it is.
    pub ty: String,
    /// Whether it must be given, and what holds otherwise: `required`, `default "1m0s"`, or nothing.
    pub presence: String,
    /// What it means.
    pub description: String,
}

/// Blocks nested deeper are only named.
const MAX_DEPTH: usize = 8;

impl Page {
    pub(crate) fn of_component(component: &ComponentInfo) -> Self {
        let community = if component.community { ", community" } else { "" };
        let mut page = Self::of_fields(
            component.name,
            format!("component, {}{community}", component.stability),
            component.summary,
            true,
            &component.arguments.fields,
        );
        page.exports(&component.exports.fields);
        page.needs(component.stability);
        if component.community {
            page.notes.insert(0, "Needs --feature.community-components.enabled.".to_owned());
        }
        page
    }

    pub(crate) fn of_block(block: &BlockInfo) -> Self {
        let place = match block.place {
            Place::Root => "configuration block at the top only",
            Place::Module => "configuration block in a declare only",
            Place::Anywhere => "configuration block",
        };
        let mut page = Self::of_fields(
            block.name,
            format!("{place}, {}", block.stability),
            block.summary,
            block.labelled,
            &block.arguments.fields,
        );
        if block.body_is_pipeline {
            page.usage = format!("{} \"LABEL\" {{ … }}", block.name);
        }
        page.exports(&block.exports.fields);
        page.needs(block.stability);
        page
    }

    fn needs(&mut self, stability: Stability) {
        if stability < Stability::GenerallyAvailable {
            self.notes.insert(0, format!("Needs --stability.level={stability} or lower."));
        }
    }

    pub(crate) fn of_field(path: &str, field: &Field) -> Self {
        if matches!(field.kind, FieldKind::Block | FieldKind::EnumBlocks) {
            let fields = field.nested();
            let labelled = fields.iter().any(|field| field.kind == FieldKind::Label);
            return Self::of_fields(path, block_kind(field), field.documentation, labelled, &fields)
                .within(field);
        }
        let entry = entry(field);
        Self {
            title: path.to_owned(),
            facts: [entry.ty, entry.presence]
                .into_iter()
                .filter(|fact| !fact.is_empty())
                .collect::<Vec<_>>()
                .join(", "),
            summary: entry.description,
            usage: format!("{} = <{}>", field.name, type_text(field)),
            sections: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// The usage of a nested block bears its own name, not the path to it.
    fn within(mut self, field: &Field) -> Self {
        let fields = field.nested();
        let labelled = fields.iter().any(|field| field.kind == FieldKind::Label);
        self.usage = snippet(field.name, labelled, &fields, Holes::Types);
        self
    }

    fn of_fields(name: &str, facts: String, summary: &str, labelled: bool, fields: &[Field]) -> Self {
        let mut sections = Vec::new();
        add_sections("Arguments".to_owned(), "", fields, &mut Vec::new(), &mut sections);
        Self {
            title: name.to_owned(),
            facts,
            summary: summary.to_owned(),
            usage: snippet(name, labelled, fields, Holes::Types),
            sections,
            notes: notes(fields),
        }
    }

    fn exports(&mut self, fields: &[Field]) {
        if fields.is_empty() {
            return;
        }
        let entries = fields.iter().map(|field| Entry { presence: String::new(), ..entry(field) }).collect();
        self.sections.push(Section { title: "Exports".to_owned(), description: String::new(), entries });
        let secret: Vec<&str> =
            fields.iter().filter(|field| holds_secret(&field.ty)).map(|field| field.name).collect();
        if !secret.is_empty() {
            self.notes.push(format!(
                "May export a secret, which stays one wherever it is used: {}.",
                secret.join(", ")
            ));
        }
    }
}

/// The attributes and blocks of a body, then a section for each block.
fn add_sections(
    title: String,
    description: &str,
    fields: &[Field],
    path: &mut Vec<String>,
    sections: &mut Vec<Section>,
) {
    let entries: Vec<Entry> = fields.iter().map(entry).collect();
    if !entries.is_empty() {
        sections.push(Section { title, description: description.to_owned(), entries });
    }
    if path.len() >= MAX_DEPTH {
        return;
    }
    for field in fields {
        // A recursive block holds what has been listed above it.
        if field.recursive.is_some() {
            continue;
        }
        match field.kind {
            FieldKind::Block => {
                path.push(field.name.to_owned());
                let title = format!("Block {}", path.join(" > "));
                add_sections(title, field.documentation, &field.fields, path, sections);
                path.pop();
            }
            FieldKind::EnumBlocks => {
                for kind in &field.fields {
                    path.push(format!("{}.{}", field.name, kind.name));
                    let title = format!("Block {}", path.join(" > "));
                    add_sections(title, kind.documentation, &kind.fields, path, sections);
                    path.pop();
                }
            }
            FieldKind::Attribute | FieldKind::Label => {}
        }
    }
}

pub(crate) fn entry(field: &Field) -> Entry {
    let (name, ty) = match field.kind {
        FieldKind::Attribute => (field.name.to_owned(), type_text(field)),
        FieldKind::Label => ("\"LABEL\"".to_owned(), "label".to_owned()),
        FieldKind::Block => (field.name.to_owned(), block_kind(field)),
        FieldKind::EnumBlocks => (format!("{}.*", field.name), block_kind(field)),
    };
    let presence = match (&field.default, field.required) {
        (_, true) => "required".to_owned(),
        // What a secret would be shows nothing, not even that it is empty.
        (Some(default), false) if !holds_secret(&field.ty) => {
            format!("default {}", value_to_expression(default))
        }
        _ => String::new(),
    };
    let mut description = one_line(field.documentation);
    if let Some(stability) = field.stability {
        description.push_str(&format!(" Stability: {stability}."));
    }
    Entry { name, ty, presence, description }
}

fn block_kind(field: &Field) -> String {
    match (field.kind, field.many) {
        (FieldKind::EnumBlocks, _) => "blocks, in order".to_owned(),
        (_, true) => "block, repeatable".to_owned(),
        (_, false) => "block".to_owned(),
    }
}

/// Documentation comments are wrapped where their authors' lines end; a page wraps anew.
pub(crate) fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

pub(crate) fn holds_secret(ty: &Type) -> bool {
    match ty {
        Type::Secret | Type::OptionalSecret => true,
        Type::List(element) | Type::Map(element) => holds_secret(element),
        Type::Object(fields) => fields.iter().any(|(_, ty)| holds_secret(ty)),
        _ => false,
    }
}

fn notes(fields: &[Field]) -> Vec<String> {
    let mut secret = Vec::new();
    collect(fields, "", 0, &|field| holds_secret(&field.ty), &mut secret);
    let mut early = Vec::new();
    collect(
        fields,
        "",
        0,
        &|field| field.stability.is_some_and(|level| level < Stability::GenerallyAvailable),
        &mut early,
    );
    let mut notes = Vec::new();
    if !secret.is_empty() {
        notes.push(format!("Takes secrets, and never shows them: {}.", secret.join(", ")));
    }
    if !early.is_empty() {
        notes.push(format!("Less settled than the rest: {}.", early.join(", ")));
    }
    notes
}

fn collect(
    fields: &[Field],
    prefix: &str,
    depth: usize,
    wanted: &dyn Fn(&Field) -> bool,
    found: &mut Vec<String>,
) {
    for field in fields {
        let path = format!("{prefix}{}", field.name);
        if wanted(field) {
            found.push(path.clone());
        }
        if depth < MAX_DEPTH {
            collect(&field.fields, &format!("{path}."), depth + 1, wanted, found);
        }
    }
}

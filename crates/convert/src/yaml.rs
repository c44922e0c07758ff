//! YAML with the line of every node, and scalars as they were written: a password `0123` is text, whatever a YAML reader
//! would make of it. Mappings are read through [`Fields`], which notices the keys that nobody asked for.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};

use invar_syntax::nearest;
use saphyr_parser::{Event, Parser, ScalarStyle};

use crate::report::{Finding, Report, Severity};

/// The longest text that is read, in bytes.
const LONGEST: usize = 16 << 20;
/// Deepest nesting.
const DEEPEST: usize = 100;
/// Most nodes, with those that aliases repeat.
const MOST_NODES: usize = 1_000_000;

/// A node and the line it begins on, from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Node {
    pub(crate) line: usize,
    pub(crate) data: Data,
}

/// What a node holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Data {
    Null,
    /// As it was written, without quotes.
    Scalar(String),
    List(Vec<Node>),
    /// In the order of the text.
    Map(Vec<(String, Node)>),
}

/// The first document of a text; a null where it is empty.
pub(crate) fn parse(text: &str) -> Result<Node, Finding> {
    let critical = |line: usize, message: String| Finding { severity: Severity::Critical, line, message };
    if text.len() > LONGEST {
        return Err(critical(0, format!("the file is longer than {} MiB", LONGEST >> 20)));
    }
    let mut builder = Builder::default();
    for event in Parser::new_from_str(text) {
        let (event, span) = event
            .map_err(|error| critical(error.marker().line(), format!("is not YAML: {}", error.info())))?;
        if matches!(event, Event::DocumentEnd) {
            break;
        }
        let line = span.start.line();
        builder
            .event(event, line)
            .map_err(|message| critical(line, format!("is not usable YAML: {message}")))?;
    }
    Ok(builder.document.unwrap_or(Node { line: 1, data: Data::Null }))
}

/// A collection that is being read, with its anchor and line.
struct Open {
    anchor: usize,
    line: usize,
    parts: Parts,
}

enum Parts {
    List(Vec<Node>),
    Map { fields: Vec<(String, Node)>, merged: Vec<Node>, key: Option<String> },
}

#[derive(Default)]
struct Builder {
    open: Vec<Open>,
    anchors: HashMap<usize, Node>,
    document: Option<Node>,
    nodes: usize,
}

// === impl Builder ===

impl Builder {
    fn event(&mut self, event: Event<'_>, line: usize) -> Result<(), String> {
        match event {
            Event::Scalar(text, style, anchor, _) => {
                let null =
                    style == ScalarStyle::Plain && matches!(&*text, "" | "~" | "null" | "Null" | "NULL");
                let data =
                    if null && !self.wants_key() { Data::Null } else { Data::Scalar(text.into_owned()) };
                self.complete(Node { line, data }, anchor)
            }
            Event::SequenceStart(anchor, _) => self.begin(anchor, line, Parts::List(Vec::new())),
            Event::MappingStart(anchor, _) => {
                self.begin(anchor, line, Parts::Map { fields: Vec::new(), merged: Vec::new(), key: None })
            }
            Event::SequenceEnd | Event::MappingEnd => match self.open.pop() {
                Some(Open { anchor, line, parts }) => {
                    self.complete(Node { line, data: finish(parts)? }, anchor)
                }
                None => Ok(()),
            },
            Event::Alias(anchor) => {
                let node = self.anchors.get(&anchor).cloned();
                let node = node.ok_or("an alias stands inside of what it refers to")?;
                self.count(size(&node))?;
                self.complete(node, 0)
            }
            _ => Ok(()),
        }
    }

    fn begin(&mut self, anchor: usize, line: usize, parts: Parts) -> Result<(), String> {
        if self.open.len() >= DEEPEST {
            return Err(format!("it is nested deeper than {DEEPEST} levels"));
        }
        if self.wants_key() {
            return Err("a key must be text".to_owned());
        }
        self.open.push(Open { anchor, line, parts });
        Ok(())
    }

    fn wants_key(&self) -> bool {
        matches!(self.open.last(), Some(Open { parts: Parts::Map { key: None, .. }, .. }))
    }

    fn count(&mut self, more: usize) -> Result<(), String> {
        self.nodes = self.nodes.saturating_add(more);
        if self.nodes > MOST_NODES {
            return Err(format!("it holds more than {MOST_NODES} values, aliases resolved"));
        }
        Ok(())
    }

    fn complete(&mut self, node: Node, anchor: usize) -> Result<(), String> {
        self.count(1)?;
        if anchor > 0 {
            self.anchors.insert(anchor, node.clone());
        }
        match self.open.last_mut().map(|open| &mut open.parts) {
            None => {
                self.document.get_or_insert(node);
            }
            Some(Parts::List(items)) => items.push(node),
            Some(Parts::Map { fields, merged, key }) => match key.take() {
                Some(name) if name == "<<" => merged.push(node),
                Some(name) => fields.push((name, node)),
                None => {
                    let Data::Scalar(name) = node.data else { return Err("a key must be text".to_owned()) };
                    if fields.iter().any(|(other, _)| *other == name) {
                        return Err(format!("the key \"{name}\" stands there twice"));
                    }
                    *key = Some(name);
                }
            },
        }
        Ok(())
    }
}

fn size(node: &Node) -> usize {
    1 + match &node.data {
        Data::Null | Data::Scalar(_) => 0,
        Data::List(items) => items.iter().map(size).sum(),
        Data::Map(fields) => fields.iter().map(|(_, node)| size(node)).sum(),
    }
}

/// Fields of merged mappings stand where the mapping itself has none; of several, the first wins.
fn finish(parts: Parts) -> Result<Data, String> {
    let (mut fields, merged) = match parts {
        Parts::List(items) => return Ok(Data::List(items)),
        Parts::Map { fields, merged, .. } => (fields, merged),
    };
    let mut sources = merged;
    while let Some(source) = (!sources.is_empty()).then(|| sources.remove(0)) {
        match source.data {
            Data::List(inner) => sources.splice(0..0, inner).for_each(drop),
            Data::Map(inherited) => {
                for (name, node) in inherited {
                    if fields.iter().all(|(other, _)| *other != name) {
                        fields.push((name, node));
                    }
                }
            }
            Data::Null => {}
            Data::Scalar(_) => return Err("only mappings can be merged with <<".to_owned()),
        }
    }
    Ok(Data::Map(fields))
}

// === impl Node ===

impl Node {
    /// Whether there is nothing: null, an empty list, an empty mapping.
    pub(crate) fn is_empty(&self) -> bool {
        match &self.data {
            Data::Null => true,
            Data::Scalar(_) => false,
            Data::List(items) => items.is_empty(),
            Data::Map(fields) => fields.is_empty(),
        }
    }

    /// The scalar's text; nothing for a null, an error for a collection.
    pub(crate) fn text(&self, what: &str, report: &mut Report) -> Option<String> {
        match &self.data {
            Data::Scalar(text) => Some(text.clone()),
            Data::Null => None,
            Data::List(_) | Data::Map(_) => {
                report.error(self.line, format!("{what} must be one value"));
                None
            }
        }
    }

    /// The items of a list; a single value is a list of one.
    pub(crate) fn items(&self) -> &[Self] {
        match &self.data {
            Data::Null => &[],
            Data::List(items) => items,
            Data::Scalar(_) | Data::Map(_) => std::slice::from_ref(self),
        }
    }

    /// The fields of a mapping, to be read by name. Anything but a mapping has none, which the report says.
    pub(crate) fn fields<'a>(&'a self, what: &str, report: &mut Report) -> Fields<'a> {
        let fields: &[(String, Self)] = match &self.data {
            Data::Map(fields) => fields,
            Data::Null => &[],
            Data::Scalar(_) | Data::List(_) => {
                report.error(self.line, format!("{what} must be a mapping"));
                &[]
            }
        };
        Fields { line: self.line, what: what.to_owned(), fields, asked: RefCell::default() }
    }
}

/// The fields of a mapping. [`Fields::finish`] reports those that nobody asked for.
pub(crate) struct Fields<'a> {
    pub(crate) line: usize,
    what: String,
    fields: &'a [(String, Node)],
    asked: RefCell<BTreeSet<String>>,
}

// === impl Fields ===

impl<'a> Fields<'a> {
    /// What the mapping is, for messages: `scrape_configs[0]`.
    pub(crate) fn what(&self) -> &str {
        &self.what
    }

    /// A field that is there and not null.
    pub(crate) fn get(&self, name: &str) -> Option<&'a Node> {
        self.asked.borrow_mut().insert(name.to_owned());
        self.fields
            .iter()
            .find(|(field, _)| field == name)
            .map(|(_, node)| node)
            .filter(|node| node.data != Data::Null)
    }

    /// Whether the field is written at all, be it null.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.asked.borrow_mut().insert(name.to_owned());
        self.fields.iter().any(|(field, _)| field == name)
    }

    /// All fields; the names count as asked for.
    pub(crate) fn all(&self) -> impl Iterator<Item = (&'a str, &'a Node)> + use<'a> {
        self.asked.borrow_mut().extend(self.fields.iter().map(|(name, _)| name.clone()));
        self.fields.iter().map(|(name, node)| (name.as_str(), node))
    }

    /// The field's text.
    pub(crate) fn text(&self, name: &str, report: &mut Report) -> Option<String> {
        self.get(name)?.text(name, report)
    }

    /// The field as a truth value, written as YAML 1.1 allows.
    pub(crate) fn flag(&self, name: &str, report: &mut Report) -> Option<bool> {
        let node = self.get(name)?;
        match node.text(name, report)?.to_ascii_lowercase().as_str() {
            "true" | "yes" | "on" | "y" => Some(true),
            "false" | "no" | "off" | "n" => Some(false),
            other => {
                report.error(node.line, format!("{name} is \"{other}\", which is neither true nor false"));
                None
            }
        }
    }

    /// Says that a field that is there has no equivalent.
    pub(crate) fn unsupported(&self, name: &str, report: &mut Report) {
        if let Some(node) = self.get(name).filter(|node| !node.is_empty()) {
            report.unsupported(node.line, format!("{name} of {}", self.what));
        }
    }

    /// Reports what is not known.
    pub(crate) fn finish(self, report: &mut Report) {
        let asked = self.asked.borrow();
        for (name, node) in self.fields.iter().filter(|(name, _)| !asked.contains(name)) {
            let hint = nearest(name, asked.iter().map(String::as_str))
                .map_or_else(String::new, |near| format!("; did you mean {near}?"));
            report.error(node.line, format!("{} has no field {name}{hint}", self.what));
        }
    }
}

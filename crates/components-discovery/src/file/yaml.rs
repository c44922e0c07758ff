//! A YAML document as a tree of texts. Types of scalars do not matter in target groups (`port: 80` is the text `80`), only
//! whether one is null.

use std::collections::HashMap;

use saphyr_parser::{Event, Parser, ScalarStyle};

/// Aliases may multiply what a file holds; a bomb does not.
const MAX_NODES: usize = 4_000_000;
/// Target groups are three deep.
const MAX_DEPTH: usize = 32;

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Node {
    Scalar { text: String, plain: bool },
    Sequence(Vec<Self>),
    Mapping(Vec<(String, Self)>),
}

impl Node {
    pub(super) fn is_null(&self) -> bool {
        matches!(self, Self::Scalar { text, plain: true } if matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL"))
    }

    /// The text of a scalar; a null is the empty text.
    pub(super) fn text(&self) -> Option<String> {
        match self {
            Self::Scalar { .. } if self.is_null() => Some(String::new()),
            Self::Scalar { text, .. } => Some(text.clone()),
            Self::Sequence(_) | Self::Mapping(_) => None,
        }
    }

    fn count(&self) -> usize {
        1 + match self {
            Self::Scalar { .. } => 0,
            Self::Sequence(items) => items.iter().map(Self::count).sum(),
            Self::Mapping(fields) => fields.iter().map(|(_, value)| value.count()).sum(),
        }
    }
}

/// A collection that is being read.
enum Open {
    Sequence(usize, Vec<Node>),
    Mapping(usize, Vec<(String, Node)>, Option<String>),
}

/// The first document of a text; none where there is none.
pub(super) fn parse(text: &str) -> Result<Option<Node>, String> {
    let mut anchors: HashMap<usize, Node> = HashMap::new();
    let mut open: Vec<Open> = Vec::new();
    let mut nodes = 0_usize;
    for event in Parser::new_from_str(text) {
        let (event, place) = event.map_err(|error| error.to_string())?;
        let at = |message: &str| format!("{message} at line {}", place.start.line());
        let (anchor, node) = match event {
            Event::Scalar(text, style, anchor, _) => {
                let node = Node::Scalar { text: text.into_owned(), plain: style == ScalarStyle::Plain };
                (anchor, node)
            }
            Event::SequenceStart(anchor, _) => {
                open.push(Open::Sequence(anchor, Vec::new()));
                if open.len() > MAX_DEPTH {
                    return Err(at("nested too deeply"));
                }
                continue;
            }
            Event::MappingStart(anchor, _) => {
                open.push(Open::Mapping(anchor, Vec::new(), None));
                if open.len() > MAX_DEPTH {
                    return Err(at("nested too deeply"));
                }
                continue;
            }
            Event::SequenceEnd => match open.pop() {
                Some(Open::Sequence(anchor, items)) => (anchor, Node::Sequence(items)),
                _ => return Err(at("malformed")),
            },
            Event::MappingEnd => match open.pop() {
                Some(Open::Mapping(anchor, fields, None)) => (anchor, Node::Mapping(fields)),
                _ => return Err(at("malformed")),
            },
            Event::Alias(anchor) => match anchors.get(&anchor) {
                Some(node) => (0, node.clone()),
                None => return Err(at("an alias without its anchor")),
            },
            Event::DocumentEnd => return Ok(None),
            _ => continue,
        };
        nodes += node.count();
        if nodes > MAX_NODES {
            return Err(at("too much content"));
        }
        if anchor > 0 {
            anchors.insert(anchor, node.clone());
        }
        match open.last_mut() {
            None => return Ok(Some(node)),
            Some(Open::Sequence(_, items)) => items.push(node),
            Some(Open::Mapping(_, fields, key)) => match key.take() {
                Some(name) if name == "<<" => merge(fields, node).map_err(at)?,
                Some(name) => {
                    if fields.iter().any(|(other, _)| *other == name) {
                        return Err(at(&format!("the key {name:?} is given twice")));
                    }
                    fields.push((name, node));
                }
                None => match node {
                    Node::Scalar { text, .. } => *key = Some(text),
                    _ => return Err(at("a key should be text")),
                },
            },
        }
    }
    Ok(None)
}

/// `<<`: the fields of another mapping, or of several, which do not replace those that are there.
fn merge(fields: &mut Vec<(String, Node)>, node: Node) -> Result<(), &'static str> {
    let mappings = match node {
        Node::Sequence(items) => items,
        single => vec![single],
    };
    for mapping in mappings {
        let Node::Mapping(merged) = mapping else { return Err("only mappings can be merged") };
        for (name, value) in merged {
            if !fields.iter().any(|(other, _)| *other == name) {
                fields.push((name, value));
            }
        }
    }
    Ok(())
}

//! `encoding.from_yaml`: the first document of a YAML text as a value. Aliases and merges (`<<`) are resolved within a
//! bound on the size of the result.

use std::collections::HashMap;

use base64::Engine as _;
use saphyr_parser::{Event, Parser, ScalarStyle, Tag};

use super::{Outcome, text_argument, yaml_scalar};
use crate::function::FunctionError;
use crate::number::Number;
use crate::value::{Object, Value};

/// Deepest nesting of a document.
const MAX_DEPTH: usize = 128;
/// Most values a document may hold, with those that aliases repeat.
const MAX_VALUES: usize = 1_000_000;

pub(super) fn decode(arguments: &[Value]) -> Outcome {
    let text = text_argument(arguments, 0)?;
    parse(&text).map_err(|message| FunctionError::argument(0, message))
}

/// A collection that is being read.
enum Open {
    Sequence { anchor: usize, items: Vec<Value> },
    Mapping { anchor: usize, object: Object, merged: Vec<Value>, key: Option<Key> },
}

enum Key {
    Name(String),
    Merge,
}

#[derive(Default)]
struct Builder {
    open: Vec<Open>,
    anchors: HashMap<usize, (Value, usize)>,
    document: Option<Value>,
    values: usize,
    /// How many of the open collections are written in brackets.
    flow: Vec<bool>,
}

fn parse(text: &str) -> Result<Value, String> {
    let mut builder = Builder::default();
    let lines: Vec<&str> = text.split('\n').collect();
    let directives = lines.iter().take_while(|line| line.starts_with(['%', '#']) || line.trim().is_empty());
    let versions = directives.filter_map(|line| line.strip_prefix("%YAML")?.split_whitespace().next());
    if let Some(version) = versions.into_iter().find(|version| *version != "1.1") {
        return Err(format!("is YAML {version}; only documents of YAML 1.1 are read"));
    }
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| format!("is not YAML: {error}"))?;
        if matches!(event, Event::DocumentEnd | Event::StreamEnd) {
            break;
        }
        let line = lines.get(span.start.line().saturating_sub(1)).copied().unwrap_or_default();
        let indentation: String = line.chars().take(span.start.col()).collect();
        let flow = line.chars().nth(span.start.col()).is_some_and(|first| matches!(first, '[' | '{'));
        builder.indented(&event, &indentation, flow).map_err(|error| format!("is not YAML: {error}"))?;
        builder
            .event(event)
            .map_err(|error| format!("is not usable YAML: line {}: {error}", span.start.line()))?;
    }
    Ok(builder.document.unwrap_or(Value::Null))
}

impl Builder {
    /// Refuses tabs as indentation, which only brackets allow.
    fn indented(&mut self, event: &Event<'_>, indentation: &str, bracket: bool) -> Result<(), String> {
        let inside_brackets = self.flow.last().copied().unwrap_or(false);
        match event {
            Event::SequenceStart(..) | Event::MappingStart(..) => self.flow.push(inside_brackets || bracket),
            Event::SequenceEnd | Event::MappingEnd => {
                self.flow.pop();
                return Ok(());
            }
            Event::Scalar(..) | Event::Alias(_) => {}
            _ => return Ok(()),
        }
        if !inside_brackets && indentation.contains('\t') && indentation.trim().is_empty() {
            return Err("a tab cannot indent".to_owned());
        }
        Ok(())
    }

    fn event(&mut self, event: Event<'_>) -> Result<(), String> {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                // Whether a scalar is the merge key shows only where a key is wanted.
                if text == "<<" && style == ScalarStyle::Plain && self.wants_key() {
                    return self.key(Key::Merge);
                }
                let value = scalar(&text, style, tag.as_deref())?;
                self.complete(value, anchor)
            }
            Event::SequenceStart(anchor, _) => self.begin(Open::Sequence { anchor, items: Vec::new() }),
            Event::MappingStart(anchor, _) => {
                self.begin(Open::Mapping { anchor, object: Object::new(), merged: Vec::new(), key: None })
            }
            Event::SequenceEnd | Event::MappingEnd => match self.open.pop() {
                Some(Open::Sequence { anchor, items }) => self.complete(Value::Array(items.into()), anchor),
                Some(Open::Mapping { anchor, object, merged, .. }) => {
                    let value = finish_mapping(object, &merged)?;
                    self.complete(value, anchor)
                }
                None => Ok(()),
            },
            Event::Alias(anchor) => {
                let (value, size) = self
                    .anchors
                    .get(&anchor)
                    .cloned()
                    .ok_or("an alias stands inside of what it refers to")?;
                self.count(size)?;
                self.complete(value, 0)
            }
            Event::Nothing
            | Event::StreamStart
            | Event::StreamEnd
            | Event::DocumentStart(_)
            | Event::DocumentEnd => Ok(()),
        }
    }

    fn begin(&mut self, open: Open) -> Result<(), String> {
        if self.open.len() >= MAX_DEPTH {
            return Err(format!("it is nested deeper than {MAX_DEPTH} levels"));
        }
        if self.wants_key() {
            return Err("a key must be text".to_owned());
        }
        self.open.push(open);
        Ok(())
    }

    fn wants_key(&self) -> bool {
        matches!(self.open.last(), Some(Open::Mapping { key: None, .. }))
    }

    fn count(&mut self, more: usize) -> Result<(), String> {
        self.values += more;
        if self.values > MAX_VALUES {
            return Err(format!("it holds more than {MAX_VALUES} values, aliases resolved"));
        }
        Ok(())
    }

    fn key(&mut self, new: Key) -> Result<(), String> {
        if let Some(Open::Mapping { key, object, .. }) = self.open.last_mut() {
            if let Key::Name(name) = &new
                && object.get(name).is_some()
            {
                return Err(format!("the key \"{name}\" stands there twice"));
            }
            *key = Some(new);
        }
        Ok(())
    }

    fn complete(&mut self, value: Value, anchor: usize) -> Result<(), String> {
        self.count(1)?;
        if anchor > 0 {
            let size = size_of(&value);
            self.anchors.insert(anchor, (value.clone(), size));
        }
        if self.wants_key() {
            return match value {
                Value::String(name) => self.key(Key::Name(name.to_string())),
                other => Err(format!("a key must be text, and this one is {}", other.describe())),
            };
        }
        match self.open.last_mut() {
            Some(Open::Sequence { items, .. }) => items.push(value),
            Some(Open::Mapping { object, merged, key, .. }) => match key.take() {
                Some(Key::Name(name)) => object.insert(name, value),
                Some(Key::Merge) => merged.push(value),
                None => {}
            },
            None => {
                self.document.get_or_insert(value);
            }
        }
        Ok(())
    }
}

fn size_of(value: &Value) -> usize {
    match value {
        Value::Array(items) => items.iter().fold(1, |size: usize, item| size.saturating_add(size_of(item))),
        Value::Object(object) => {
            object.values().fold(1, |size: usize, item| size.saturating_add(size_of(item)))
        }
        _ => 1,
    }
}

/// Fields of merged mappings stand where the mapping itself has none; of several, the first wins.
fn finish_mapping(mut object: Object, merged: &[Value]) -> Result<Value, String> {
    let mut merge = |source: &Value| -> Result<(), String> {
        let Value::Object(fields) = source else {
            return Err("only mappings can be merged with <<".to_owned());
        };
        for (name, value) in fields.iter() {
            if object.get(name).is_none() {
                object.insert(name.clone(), value.clone());
            }
        }
        Ok(())
    };
    for source in merged {
        match source {
            Value::Array(sources) => sources.iter().try_for_each(&mut merge)?,
            single => merge(single)?,
        }
    }
    object.sort();
    Ok(Value::from(object))
}

fn scalar(text: &str, style: ScalarStyle, tag: Option<&Tag>) -> Result<Value, String> {
    let Some(tag) = tag else {
        return Ok(if style == ScalarStyle::Plain {
            yaml_scalar::resolve(text)
        } else {
            Value::string(text)
        });
    };
    let wrong = || format!("\"{text}\" is no {}", tag.suffix);
    if tag.handle != "tag:yaml.org,2002:" {
        return Ok(if style == ScalarStyle::Plain && tag.suffix.is_empty() {
            yaml_scalar::resolve(text)
        } else {
            Value::string(text)
        });
    }
    match tag.suffix.as_str() {
        "int" => yaml_scalar::integer(text).map(Value::Number).ok_or_else(wrong),
        "float" => match yaml_scalar::resolve(text) {
            Value::Number(number) => Ok(Value::Number(Number::Float(number.as_f64()))),
            _ => Err(wrong()),
        },
        "bool" => match yaml_scalar::resolve(text) {
            flag @ Value::Bool(_) => Ok(flag),
            _ => Err(wrong()),
        },
        "null" => Ok(Value::Null),
        "timestamp" => yaml_scalar::timestamp(text).map(Value::string).ok_or_else(wrong),
        "binary" => {
            let compact: String = text.chars().filter(|character| !character.is_whitespace()).collect();
            let bytes = base64::engine::general_purpose::STANDARD.decode(compact).map_err(|_| wrong())?;
            Ok(Value::string(String::from_utf8_lossy(&bytes).into_owned()))
        }
        _ => Ok(Value::string(text)),
    }
}

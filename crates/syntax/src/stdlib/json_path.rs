//! `json_path`: an expression such as `$.a[*].b` over a JSON document; always a list of what it finds.
//!
//! Names, indexes, slices, wildcards, unions, `..` and filters `[?(@.a == 2)]`. The leading `$` may be left out. [`reader`]
//! reads a path, [`filter`] says what a filter keeps.

mod filter;
mod reader;

use filter::Filter;
use reader::Reader;

use super::{Outcome, json_text, text_argument};
use crate::function::FunctionError;
use crate::value::Value;

/// Most values a step may find.
const MAX_FOUND: usize = 100_000;
/// Longest expression, in bytes.
const MAX_LENGTH: usize = 4096;
/// Deepest nesting of parentheses in a filter.
const MAX_DEPTH: usize = 32;

pub(super) fn function(arguments: &[Value]) -> Outcome {
    let text = text_argument(arguments, 0)?;
    let path = text_argument(arguments, 1)?;
    let document = if text.trim().is_empty() {
        // No document at all is null here.
        Value::Null
    } else {
        json_text::parse_with_integers(&text).map_err(|message| FunctionError::argument(0, message))?
    };
    if path.is_empty() {
        return Ok(Value::array([]));
    }
    if path.len() > MAX_LENGTH {
        return Err(FunctionError::argument(1, format!("is longer than {MAX_LENGTH} bytes")));
    }
    let steps = Reader::new(&path)
        .whole_path()
        .map_err(|message| FunctionError::argument(1, format!("is no JSON path: {message}")))?;
    let found = follow(&steps, vec![document.clone()], &document).map_err(FunctionError::call)?;
    Ok(Value::Array(found.into()))
}

/// One step of a path.
#[derive(Debug)]
enum Step {
    /// `.name` or `['name']`.
    Name(String),
    /// `[2]`, from the end if negative.
    Index(i64),
    /// `[start:end:step]`.
    Slice(Option<i64>, Option<i64>, i64),
    /// `.*` or `[*]`.
    Wildcard,
    /// `..` before another step: that step on everything below the value, deepest first, and then on the value.
    Descend,
    /// `..` at the end of a path: everything below the value, and then the value.
    Everything,
    /// `[1, 'a']`.
    Union(Vec<Self>),
    /// `[?(…)]`.
    Filter(Filter),
}

fn follow(steps: &[Step], start: Vec<Value>, root: &Value) -> Result<Vec<Value>, String> {
    let mut current = start;
    for step in steps {
        let mut found = Vec::new();
        for value in &current {
            apply(step, value, root, &mut found)?;
            if found.len() > MAX_FOUND {
                return Err(format!("the path finds more than {MAX_FOUND} values"));
            }
        }
        current = found;
    }
    Ok(current)
}

fn apply(step: &Step, value: &Value, root: &Value, found: &mut Vec<Value>) -> Result<(), String> {
    match (step, value) {
        (Step::Name(name), Value::Object(object)) => found.extend(object.get(name).cloned()),
        (Step::Index(index), Value::Array(items)) => {
            found.extend(position(*index, items.len()).and_then(|place| items.get(place)).cloned());
        }
        (Step::Slice(start, end, step), Value::Array(items)) => slice(*start, *end, *step, items, found),
        (Step::Wildcard, Value::Array(items)) => found.extend(items.iter().cloned()),
        (Step::Wildcard, Value::Object(object)) => found.extend(object.values().cloned()),
        (Step::Descend, _) => descend(value, found)?,
        (Step::Everything, _) => {
            below(value, found)?;
            found.push(value.clone());
        }
        (Step::Union(steps), _) => {
            for step in steps {
                apply(step, value, root, found)?;
            }
        }
        (Step::Filter(filter), Value::Array(items)) => {
            for item in items.iter() {
                if filter.keeps(item, root)? {
                    found.push(item.clone());
                }
            }
        }
        (Step::Filter(filter), Value::Object(object)) => {
            for item in object.values() {
                if filter.keeps(item, root)? {
                    found.push(item.clone());
                }
            }
        }
        _ => {}
    }
    Ok(())
}

fn position(index: i64, length: usize) -> Option<usize> {
    let length = i64::try_from(length).ok()?;
    usize::try_from(if index < 0 { length + index } else { index }).ok()
}

/// Walking backwards begins at the first element where no other is named, and leads nowhere without an end.
fn slice(start: Option<i64>, end: Option<i64>, step: i64, items: &[Value], found: &mut Vec<Value>) {
    let length = i64::try_from(items.len()).unwrap_or(i64::MAX);
    let bound = |index: i64, low: i64, high: i64| {
        (if index < 0 { index.saturating_add(length) } else { index }).clamp(low, high)
    };
    let start = start.unwrap_or(0);
    let (mut place, end) = match step {
        0 => return,
        1.. => (bound(start, 0, length), end.map_or(length, |end| bound(end, 0, length))),
        _ if start >= length => return,
        _ => match end {
            Some(end) => (bound(start, -1, length - 1), bound(end, -1, length - 1)),
            None => return,
        },
    };
    while (step > 0 && place < end) || (step < 0 && place > end) {
        found.extend(usize::try_from(place).ok().and_then(|place| items.get(place)).cloned());
        place = place.saturating_add(step);
    }
}

/// What is directly below a value.
fn children(value: &Value) -> Vec<&Value> {
    match value {
        Value::Array(items) => items.iter().collect(),
        Value::Object(object) => object.values().collect(),
        _ => Vec::new(),
    }
}

/// The lists and objects at and below a value, the deepest first.
fn descend(value: &Value, found: &mut Vec<Value>) -> Result<(), String> {
    children(value).into_iter().try_for_each(|child| descend(child, found))?;
    if matches!(value, Value::Array(_) | Value::Object(_)) {
        found.push(value.clone());
    }
    bounded(found)
}

/// Everything below a value, level by level along each branch.
fn below(value: &Value, found: &mut Vec<Value>) -> Result<(), String> {
    let children = children(value);
    found.extend(children.iter().map(|child| (*child).clone()));
    bounded(found)?;
    children.into_iter().try_for_each(|child| below(child, found))
}

fn bounded(found: &[Value]) -> Result<(), String> {
    if found.len() > MAX_FOUND {
        return Err(format!("the path finds more than {MAX_FOUND} values"));
    }
    Ok(())
}

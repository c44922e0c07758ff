//! `json_path`: an expression such as `$.a[*].b` over a JSON document; always a list of what it finds.
//!
//! Names, indexes, slices, wildcards, unions, `..` and filters `[?(@.a == 2)]`. The leading `$` may be left out.

use std::cmp::Ordering;

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
        json_text::parse(&text).map_err(|message| FunctionError::argument(0, message))?
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
    Filter(Condition),
}

#[derive(Debug)]
enum Condition {
    Either(Box<Self>, Box<Self>),
    Both(Box<Self>, Box<Self>),
    Not(Box<Self>),
    Compare(Operand, Comparison, Operand),
    Exists(Operand),
}

#[derive(Debug)]
enum Operand {
    Literal(Value),
    /// What a path that leads nowhere gives.
    Nothing,
    Path {
        root: bool,
        steps: Vec<Step>,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    Matches,
    /// Among the elements of a list.
    In,
    /// Empty text, list or object, or not, as the right side says.
    Empty,
    /// There, or not, as the right side says.
    Has,
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
        (Step::Filter(condition), Value::Array(items)) => {
            for item in items.iter() {
                if holds(condition, item, root)? {
                    found.push(item.clone());
                }
            }
        }
        (Step::Filter(condition), Value::Object(object)) => {
            for item in object.values() {
                if holds(condition, item, root)? {
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

fn holds(condition: &Condition, item: &Value, root: &Value) -> Result<bool, String> {
    Ok(match condition {
        Condition::Either(left, right) => holds(left, item, root)? || holds(right, item, root)?,
        Condition::Both(left, right) => holds(left, item, root)? && holds(right, item, root)?,
        Condition::Not(inner) => !holds(inner, item, root)?,
        Condition::Exists(operand @ Operand::Literal(_)) => {
            matches!(operand_value(operand, item, root)?, Some(Value::Bool(true)))
        }
        Condition::Exists(operand) => operand_value(operand, item, root)?.is_some(),
        Condition::Compare(left, Comparison::Has, right) => {
            let there = operand_value(left, item, root)?.is_some();
            operand_value(right, item, root)? == Some(Value::Bool(there))
        }
        Condition::Compare(left, comparison, right) => {
            match (operand_value(left, item, root)?, operand_value(right, item, root)?) {
                (Some(left), Some(right)) => compare(&left, *comparison, &right)?,
                // What is not there differs from everything, `null` included.
                (None, None) => *comparison == Comparison::Equal,
                _ => *comparison == Comparison::NotEqual,
            }
        }
    })
}

fn operand_value(operand: &Operand, item: &Value, root: &Value) -> Result<Option<Value>, String> {
    match operand {
        Operand::Literal(value) => Ok(Some(value.clone())),
        Operand::Nothing => Ok(None),
        Operand::Path { root: from_root, steps } => {
            let start = if *from_root { root } else { item };
            Ok(follow(steps, vec![start.clone()], root)?.into_iter().next())
        }
    }
}

fn compare(left: &Value, comparison: Comparison, right: &Value) -> Result<bool, String> {
    let ordering = match (left, right) {
        (Value::Number(left), Value::Number(right)) => left.compare(*right),
        (Value::String(left), Value::String(right)) => Some(left.cmp(right)),
        _ => None,
    };
    Ok(match comparison {
        Comparison::Equal => left == right,
        Comparison::NotEqual => left != right,
        Comparison::Less => ordering == Some(Ordering::Less),
        Comparison::LessOrEqual => matches!(ordering, Some(Ordering::Less | Ordering::Equal)),
        Comparison::Greater => ordering == Some(Ordering::Greater),
        Comparison::GreaterOrEqual => matches!(ordering, Some(Ordering::Greater | Ordering::Equal)),
        Comparison::In => right.to_items().is_some_and(|items| items.contains(left)),
        Comparison::Empty => match left {
            Value::String(text) => *right == Value::Bool(text.is_empty()),
            Value::Array(items) => *right == Value::Bool(items.is_empty()),
            Value::Object(object) => *right == Value::Bool(object.is_empty()),
            _ => false,
        },
        // Decided by the holder: it is about what is not there.
        Comparison::Has => false,
        Comparison::Matches => match (left, right) {
            (Value::String(text), Value::String(pattern)) => regex::RegexBuilder::new(pattern)
                .size_limit(1 << 20)
                .build()
                .map_err(|_| "a pattern of the path is no regular expression".to_owned())?
                .is_match(text),
            _ => false,
        },
    })
}

/// Reads a path.
struct Reader<'a> {
    text: &'a str,
    place: usize,
}

impl<'a> Reader<'a> {
    const fn new(text: &'a str) -> Self {
        Self { text, place: 0 }
    }

    fn rest(&self) -> &'a str {
        self.text.get(self.place..).unwrap_or_default()
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn take(&mut self, wanted: &str) -> bool {
        let taken = self.rest().starts_with(wanted);
        if taken {
            self.place += wanted.len();
        }
        taken
    }

    fn blanks(&mut self) {
        self.place += self.rest().len() - self.rest().trim_start().len();
    }

    fn expect(&mut self, wanted: &str) -> Result<(), String> {
        self.blanks();
        if self.take(wanted) {
            Ok(())
        } else {
            Err(format!("expected \"{wanted}\" at byte {}", self.place + 1))
        }
    }

    fn whole_path(&mut self) -> Result<Vec<Step>, String> {
        let mut steps = Vec::new();
        if !self.take("$") && !self.take("@") && !self.rest().starts_with(['.', '[']) {
            steps.push(self.name_step()?);
        }
        steps.extend(self.steps(0)?);
        match self.peek() {
            None => Ok(steps),
            Some(unexpected) => Err(format!("unexpected \"{unexpected}\" at byte {}", self.place + 1)),
        }
    }

    fn steps(&mut self, depth: usize) -> Result<Vec<Step>, String> {
        let mut steps = Vec::new();
        loop {
            if self.take("..") {
                let last = self.rest().is_empty();
                steps.push(if last { Step::Everything } else { Step::Descend });
                if !last && !self.rest().starts_with('[') {
                    steps.push(self.name_step()?);
                }
            } else if self.take(".") {
                // `.[0]` is the same as `[0]`.
                if !self.rest().starts_with('[') {
                    steps.push(self.name_step()?);
                }
            } else if self.take("[") {
                steps.push(self.bracket(depth)?);
            } else {
                return Ok(steps);
            }
        }
    }

    fn name_step(&mut self) -> Result<Step, String> {
        if self.take("*") {
            return Ok(Step::Wildcard);
        }
        let rest = self.rest();
        // Others have to stand in quotes within brackets.
        let ends = |character: char| {
            character.is_ascii()
                && !character.is_ascii_alphanumeric()
                && !matches!(character, '_' | '#' | '%' | ':' | ';' | '?' | '^' | '{' | '}')
        };
        let length = rest.find(ends).unwrap_or(rest.len());
        if length == 0 {
            return Err(format!("a name is missing at byte {}", self.place + 1));
        }
        self.place += length;
        Ok(Step::Name(rest[..length].to_owned()))
    }

    fn bracket(&mut self, depth: usize) -> Result<Step, String> {
        self.blanks();
        if self.take("?") {
            self.blanks();
            let condition = self.either(depth + 1)?;
            self.expect("]")?;
            return Ok(Step::Filter(condition));
        }
        let mut steps = Vec::new();
        loop {
            self.blanks();
            steps.push(match self.peek() {
                Some('*') => {
                    self.take("*");
                    Step::Wildcard
                }
                Some(quote @ ('\'' | '"')) => Step::Name(self.quoted(quote)?),
                _ => self.index_or_slice()?,
            });
            self.blanks();
            if self.take("]") {
                break;
            }
            self.expect(",")?;
        }
        let single = steps.len() == 1;
        match steps.pop() {
            Some(step) if single => Ok(step),
            last => {
                steps.extend(last);
                Ok(Step::Union(steps))
            }
        }
    }

    fn integer(&mut self) -> Result<Option<i64>, String> {
        self.blanks();
        let rest = self.rest();
        let sign = usize::from(rest.starts_with('-'));
        let digits = rest[sign..].bytes().take_while(u8::is_ascii_digit).count();
        if digits == 0 {
            return Ok(None);
        }
        self.place += sign + digits;
        let number = rest[..sign + digits].parse().map_err(|_| "an index is beyond 64 bits".to_owned())?;
        self.blanks();
        Ok(Some(number))
    }

    fn index_or_slice(&mut self) -> Result<Step, String> {
        let start = self.integer()?;
        if !self.take(":") {
            return start
                .map(Step::Index)
                .ok_or_else(|| format!("an index is missing at byte {}", self.place + 1));
        }
        let end = self.integer()?;
        let step = if self.take(":") { self.integer()?.unwrap_or(1) } else { 1 };
        Ok(Step::Slice(start, end, step))
    }

    fn quoted(&mut self, quote: char) -> Result<String, String> {
        let mut text = String::new();
        let mut characters = self.rest().char_indices().skip(1);
        while let Some((offset, character)) = characters.next() {
            if character == quote {
                self.place += offset + 1;
                return Ok(text);
            }
            if character == '\\' {
                text.push(match characters.next().map(|(_, escaped)| escaped) {
                    Some('n') => '\n',
                    Some('t') => '\t',
                    Some('r') => '\r',
                    Some(other) => other,
                    None => break,
                });
            } else {
                text.push(character);
            }
        }
        Err("a quote is not closed".to_owned())
    }

    fn either(&mut self, depth: usize) -> Result<Condition, String> {
        if depth > MAX_DEPTH {
            return Err("a filter is nested too deeply".to_owned());
        }
        let mut left = self.both(depth)?;
        loop {
            self.blanks();
            if !self.take("||") {
                return Ok(left);
            }
            left = Condition::Either(Box::new(left), Box::new(self.both(depth)?));
        }
    }

    fn both(&mut self, depth: usize) -> Result<Condition, String> {
        let mut left = self.condition(depth)?;
        loop {
            self.blanks();
            if !self.take("&&") {
                return Ok(left);
            }
            left = Condition::Both(Box::new(left), Box::new(self.condition(depth)?));
        }
    }

    fn condition(&mut self, depth: usize) -> Result<Condition, String> {
        if depth > MAX_DEPTH {
            return Err("a filter is nested too deeply".to_owned());
        }
        self.blanks();
        if self.rest().starts_with('!') && !self.rest().starts_with("!=") {
            self.take("!");
            return Ok(Condition::Not(Box::new(self.condition(depth + 1)?)));
        }
        if self.take("(") {
            let inner = self.either(depth + 1)?;
            self.expect(")")?;
            return Ok(inner);
        }
        let left = self.operand(depth)?;
        self.blanks();
        let comparisons = [
            ("==", Comparison::Equal),
            ("!=", Comparison::NotEqual),
            ("<=", Comparison::LessOrEqual),
            (">=", Comparison::GreaterOrEqual),
            ("=~", Comparison::Matches),
            ("~=", Comparison::Matches),
            ("<", Comparison::Less),
            (">", Comparison::Greater),
            ("in ", Comparison::In),
            ("empty ", Comparison::Empty),
            ("has ", Comparison::Has),
            ("exists ", Comparison::Has),
        ];
        for (text, comparison) in comparisons {
            if self.take(text) {
                return Ok(Condition::Compare(left, comparison, self.operand(depth)?));
            }
        }
        Ok(Condition::Exists(left))
    }

    fn operand(&mut self, depth: usize) -> Result<Operand, String> {
        if depth > MAX_DEPTH {
            return Err("a filter is nested too deeply".to_owned());
        }
        self.blanks();
        match self.peek() {
            Some(start @ ('@' | '$')) => {
                self.place += 1;
                Ok(Operand::Path { root: start == '$', steps: self.steps(depth + 1)? })
            }
            Some(quote @ ('\'' | '"')) => Ok(Operand::Literal(Value::string(self.quoted(quote)?))),
            Some('[') => {
                self.take("[");
                let mut items = Vec::new();
                loop {
                    self.blanks();
                    if self.take("]") {
                        return Ok(Operand::Literal(Value::array(items)));
                    }
                    match self.operand(depth + 1)? {
                        Operand::Literal(item) => items.push(item),
                        _ => return Err("a list in a filter holds plain values".to_owned()),
                    }
                    self.blanks();
                    if !self.rest().starts_with(']') {
                        self.expect(",")?;
                    }
                }
            }
            Some('/') => {
                let rest = self.rest();
                let end = rest[1..].find('/').ok_or("a pattern is not closed")?;
                self.place += end + 2;
                Ok(Operand::Literal(Value::string(&rest[1..=end])))
            }
            _ => {
                let rest = self.rest();
                let length = rest
                    .find(|character: char| {
                        !(character.is_alphanumeric() || matches!(character, '-' | '+' | '.' | '_'))
                    })
                    .unwrap_or(rest.len());
                self.place += length;
                if &rest[..length] == "Nothing" {
                    return Ok(Operand::Nothing);
                }
                Ok(Operand::Literal(match &rest[..length] {
                    "true" => Value::Bool(true),
                    "false" => Value::Bool(false),
                    "null" | "nil" => Value::Null,
                    text => Value::from(
                        text.parse::<f64>().map_err(|_| format!("\"{text}\" is no value for a filter"))?,
                    ),
                }))
            }
        }
    }
}

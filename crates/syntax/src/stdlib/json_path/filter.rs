//! What a filter keeps: terms of paths, values, operators and functions, and what they come to for an element.
//!
//! A path that finds something counts as true by itself, whatever it finds; within parentheses it is what it finds. One
//! that finds several values stands for each of them: a filter keeps an element if any choice of them makes it true.

use std::cmp::Ordering;

use super::{MAX_FOUND, Step, follow};
use crate::number::Number;
use crate::value::Value;

/// Most memory that a regular expression may take, in bytes.
const MAX_PATTERN_SIZE: usize = 1 << 20;

/// The level of the operators that bind loosest.
pub(super) const LOOSEST: u8 = 1;

/// `[?(…)]`.
#[derive(Debug)]
pub(super) struct Filter {
    pub(super) condition: Term,
    /// What [`Term::Path`] and [`Function::Count`] refer to.
    pub(super) paths: Vec<FilterPath>,
}

/// A path within a filter.
#[derive(Debug)]
pub(super) struct FilterPath {
    /// `$`, else `@`.
    pub(super) from_root: bool,
    pub(super) steps: Vec<Step>,
    /// How many values there are is asked for, and not which.
    pub(super) counted: bool,
}

/// A part of a filter.
#[derive(Debug)]
pub(super) enum Term {
    Literal(Value),
    /// What a path that leads nowhere gives.
    Nothing,
    Pattern(regex::Regex),
    /// By its place among the paths of the filter.
    Path(usize),
    /// In parentheses.
    Group(Box<Self>),
    Not(Box<Self>),
    Binary(Box<Self>, Operator, Box<Self>),
    Call(Function, Box<Self>, Option<Box<Self>>),
}

/// An operator with two sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operator {
    Or,
    And,
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
    Add,
    Subtract,
    Multiply,
    Divide,
}

impl Operator {
    /// As they are written; none comes behind one that it begins with.
    pub(super) const ALL: [(&'static str, Self); 18] = [
        ("||", Self::Or),
        ("&&", Self::And),
        ("==", Self::Equal),
        ("!=", Self::NotEqual),
        ("<=", Self::LessOrEqual),
        (">=", Self::GreaterOrEqual),
        ("=~", Self::Matches),
        ("~=", Self::Matches),
        ("<", Self::Less),
        (">", Self::Greater),
        ("in", Self::In),
        ("empty", Self::Empty),
        ("has", Self::Has),
        ("exists", Self::Has),
        ("+", Self::Add),
        ("-", Self::Subtract),
        ("*", Self::Multiply),
        ("/", Self::Divide),
    ];

    /// How tightly it binds. `&&` and `||` are of one level: the left one of them comes first.
    pub(super) const fn level(self) -> u8 {
        match self {
            Self::Or | Self::And => LOOSEST,
            Self::Add | Self::Subtract => 3,
            Self::Multiply | Self::Divide => 4,
            _ => 2,
        }
    }
}

/// A function of filters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Function {
    /// Of a text in bytes, of a list or an object in elements.
    Length,
    /// How many values a path finds.
    Count,
    /// Whether the whole of a text matches a pattern.
    Match,
    /// Whether part of a text matches a pattern.
    Search,
}

impl Function {
    pub(super) fn named(name: &str) -> Option<Self> {
        Some(match name {
            "length" => Self::Length,
            "count" => Self::Count,
            "match" => Self::Match,
            "search" => Self::Search,
            _ => return None,
        })
    }

    pub(super) const fn takes_pattern(self) -> bool {
        matches!(self, Self::Match | Self::Search)
    }

    /// The regular expression that a text stands for; none if it is none.
    fn pattern(self, text: &str) -> Option<regex::Regex> {
        if text.is_empty() {
            return None;
        }
        if self == Self::Search {
            return regular_expression(text);
        }
        let start = if text.starts_with('^') { "" } else { "^" };
        let end = if text.ends_with('$') { "" } else { "$" };
        regular_expression(&format!("{start}{text}{end}"))
    }
}

fn regular_expression(text: &str) -> Option<regex::Regex> {
    regex::RegexBuilder::new(text).size_limit(MAX_PATTERN_SIZE).build().ok()
}

/// What a term comes to for an element.
struct Answer {
    /// None if there is nothing.
    value: Option<Value>,
    /// Whether a path found it.
    found: bool,
}

impl Answer {
    fn is_true(&self) -> bool {
        self.found || self.value == Some(Value::Bool(true))
    }
}

impl From<Option<Value>> for Answer {
    fn from(value: Option<Value>) -> Self {
        Self { value, found: false }
    }
}

impl From<bool> for Answer {
    fn from(value: bool) -> Self {
        Some(Value::Bool(value)).into()
    }
}

/// What the paths of a filter find for an element, and which of the values is looked at.
struct Choice {
    found: Vec<Vec<Value>>,
    chosen: Vec<usize>,
}

impl Choice {
    fn value(&self, path: usize) -> Option<Value> {
        self.found.get(path)?.get(*self.chosen.get(path)?).cloned()
    }

    /// Goes on to the next choice; false if there is none.
    fn next(&mut self, paths: &[FilterPath]) -> bool {
        for ((chosen, found), path) in self.chosen.iter_mut().zip(&self.found).zip(paths) {
            if path.counted {
                continue;
            }
            *chosen += 1;
            if *chosen < found.len() {
                return true;
            }
            *chosen = 0;
        }
        false
    }
}

impl Filter {
    /// Whether an element is kept.
    ///
    /// # Errors
    /// Too much is found.
    pub(super) fn keeps(&self, item: &Value, root: &Value) -> Result<bool, String> {
        let find = |path: &FilterPath| {
            let start = if path.from_root { root } else { item };
            follow(&path.steps, vec![start.clone()], root)
        };
        let found = self.paths.iter().map(find).collect::<Result<Vec<_>, _>>()?;
        let mut choice = Choice { chosen: vec![0; found.len()], found };
        for _ in 0..MAX_FOUND {
            if self.condition.answer(&choice).is_true() {
                return Ok(true);
            }
            if !choice.next(&self.paths) {
                return Ok(false);
            }
        }
        Err(format!("a filter has more than {MAX_FOUND} combinations of values to compare"))
    }
}

impl Term {
    /// A regular expression; none if it is none.
    pub(super) fn pattern(text: &str) -> Option<Self> {
        regular_expression(text).map(Self::Pattern)
    }

    /// A term of an operator. A pattern is compiled once, not for each element.
    pub(super) fn binary(left: Self, operator: Operator, right: Self) -> Self {
        let right = match right {
            Self::Literal(Value::String(text)) if operator == Operator::Matches => {
                Self::pattern(&text).unwrap_or(Self::Nothing)
            }
            right => right,
        };
        Self::Binary(Box::new(left), operator, Box::new(right))
    }

    /// A call of a function.
    pub(super) fn call(function: Function, argument: Self, pattern: Option<Self>) -> Self {
        let pattern = pattern.map(|pattern| match pattern {
            Self::Literal(Value::String(text)) => {
                function.pattern(&text).map_or(Self::Nothing, Self::Pattern)
            }
            // These functions take their patterns as text.
            Self::Pattern(_) => Self::Nothing,
            pattern => pattern,
        });
        Self::Call(function, Box::new(argument), pattern.map(Box::new))
    }

    /// Parentheses around the whole of a filter say nothing.
    pub(super) fn without_outer_groups(self) -> Self {
        match self {
            Self::Group(inner) => inner.without_outer_groups(),
            term => term,
        }
    }

    fn answer(&self, choice: &Choice) -> Answer {
        match self {
            Self::Literal(value) => Some(value.clone()).into(),
            Self::Nothing | Self::Pattern(_) => None.into(),
            Self::Path(path) => {
                let value = choice.value(*path);
                Answer { found: value.is_some(), value }
            }
            Self::Group(inner) => inner.answer(choice).value.into(),
            Self::Not(inner) => (!inner.answer(choice).is_true()).into(),
            Self::Binary(left, Operator::Or, right) => {
                (left.answer(choice).is_true() || right.answer(choice).is_true()).into()
            }
            Self::Binary(left, Operator::And, right) => {
                (left.answer(choice).is_true() && right.answer(choice).is_true()).into()
            }
            Self::Binary(left, Operator::Matches, right) => {
                let Some(Value::String(text)) = left.answer(choice).value else { return false.into() };
                right.matches(choice, &text, regular_expression).unwrap_or(false).into()
            }
            Self::Binary(left, operator, right) => {
                let (left, right) = (left.answer(choice).value, right.answer(choice).value);
                match operator {
                    Operator::Add | Operator::Subtract | Operator::Multiply | Operator::Divide => {
                        left.zip(right).and_then(|(left, right)| calculate(&left, *operator, &right)).into()
                    }
                    _ => compare(left.as_ref(), *operator, right.as_ref()).into(),
                }
            }
            Self::Call(function, argument, pattern) => {
                call(*function, argument, pattern.as_deref(), choice).into()
            }
        }
    }

    /// Whether a text matches what the term stands for; none if that is no regular expression.
    fn matches(
        &self,
        choice: &Choice,
        text: &str,
        compile: impl FnOnce(&str) -> Option<regex::Regex>,
    ) -> Option<bool> {
        if let Self::Pattern(pattern) = self {
            return Some(pattern.is_match(text));
        }
        match self.answer(choice).value {
            Some(Value::String(pattern)) => compile(&pattern).map(|pattern| pattern.is_match(text)),
            _ => None,
        }
    }
}

fn call(function: Function, argument: &Term, pattern: Option<&Term>, choice: &Choice) -> Option<Value> {
    let length = |length: usize| i64::try_from(length).ok().map(|length| Value::Number(Number::Int(length)));
    match function {
        Function::Count => match argument {
            Term::Path(path) => length(choice.found.get(*path)?.len()),
            _ => None,
        },
        Function::Length => match argument.answer(choice).value? {
            Value::String(text) => length(text.len()),
            Value::Array(items) => length(items.len()),
            Value::Object(object) => length(object.len()),
            _ => None,
        },
        Function::Match | Function::Search => {
            let Some(Value::String(text)) = argument.answer(choice).value else { return None };
            pattern?.matches(choice, &text, |pattern| function.pattern(pattern)).map(Value::Bool)
        }
    }
}

/// Arithmetic as Go has it: whole numbers stay whole and wrap around. There is no result beyond numbers, but for texts in a
/// row, and none of a division by zero.
fn calculate(left: &Value, operator: Operator, right: &Value) -> Option<Value> {
    let (left, right) = match (left, right) {
        (Value::Number(left), Value::Number(right)) => (*left, *right),
        (Value::String(left), Value::String(right)) if operator == Operator::Add => {
            return Some(Value::string(format!("{left}{right}")));
        }
        _ => return None,
    };
    let number = if let (Number::Int(left), Number::Int(right)) = (left, right) {
        Number::Int(match operator {
            Operator::Add => left.wrapping_add(right),
            Operator::Subtract => left.wrapping_sub(right),
            Operator::Multiply => left.wrapping_mul(right),
            _ if right == 0 => return None,
            _ => left.wrapping_div(right),
        })
    } else {
        let (left, right) = (left.as_f64(), right.as_f64());
        Number::Float(match operator {
            Operator::Add => left + right,
            Operator::Subtract => left - right,
            Operator::Multiply => left * right,
            _ if right == 0.0 => return None,
            _ => left / right,
        })
    };
    Some(Value::Number(number))
}

fn compare(left: Option<&Value>, operator: Operator, right: Option<&Value>) -> bool {
    let ordering = match (left, right) {
        (Some(Value::Number(left)), Some(Value::Number(right))) => left.compare(*right),
        (Some(Value::String(left)), Some(Value::String(right))) => Some(left.cmp(right)),
        _ => None,
    };
    let says = |answer: bool| right == Some(&Value::Bool(answer));
    match operator {
        // What is not there differs from everything, `null` included.
        Operator::Equal => left == right,
        Operator::NotEqual => left != right,
        Operator::Less => ordering == Some(Ordering::Less),
        Operator::LessOrEqual => matches!(ordering, Some(Ordering::Less | Ordering::Equal)),
        Operator::Greater => ordering == Some(Ordering::Greater),
        Operator::GreaterOrEqual => matches!(ordering, Some(Ordering::Greater | Ordering::Equal)),
        Operator::In => left
            .zip(right)
            .is_some_and(|(left, right)| right.to_items().is_some_and(|items| items.contains(left))),
        Operator::Empty => match left {
            Some(Value::String(text)) => says(text.is_empty()),
            Some(Value::Array(items)) => says(items.is_empty()),
            Some(Value::Object(object)) => says(object.is_empty()),
            _ => false,
        },
        Operator::Has => says(left.is_some()),
        // Theirs are no comparisons of two values.
        Operator::Or
        | Operator::And
        | Operator::Matches
        | Operator::Add
        | Operator::Subtract
        | Operator::Multiply
        | Operator::Divide => false,
    }
}

//! Reading a path: its steps, and the terms of its filters.

use super::filter::{Filter, FilterPath, Function, LOOSEST, Operator, Term};
use super::{MAX_DEPTH, Step};
use crate::number::Number;
use crate::value::Value;

/// Reads a path.
pub(super) struct Reader<'a> {
    text: &'a str,
    place: usize,
    /// The paths of the filter that is being read.
    paths: Vec<FilterPath>,
}

impl<'a> Reader<'a> {
    pub(super) const fn new(text: &'a str) -> Self {
        Self { text, place: 0, paths: Vec::new() }
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

    pub(super) fn whole_path(&mut self) -> Result<Vec<Step>, String> {
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
            } else if self.take("*") {
                // `a*` is the same as `a.*`.
                steps.push(Step::Wildcard);
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
            let outer = std::mem::take(&mut self.paths);
            let condition = self.term(LOOSEST, depth + 1)?.without_outer_groups();
            let paths = std::mem::replace(&mut self.paths, outer);
            self.expect("]")?;
            return Ok(Step::Filter(Filter { condition, paths }));
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
                let Some((_, escaped)) = characters.next() else { break };
                let mut code = |digits: usize| {
                    let digits: String = characters.by_ref().take(digits).map(|(_, digit)| digit).collect();
                    let code = u32::from_str_radix(&digits, 16).ok().and_then(char::from_u32);
                    code.ok_or_else(|| format!("\"\\{escaped}{digits}\" stands for no character"))
                };
                text.push(match escaped {
                    'n' => '\n',
                    't' => '\t',
                    'r' => '\r',
                    'b' => '\u{8}',
                    'f' => '\u{c}',
                    'x' => code(2)?,
                    'u' | 'U' => code(4)?,
                    '"' | '\'' | '\\' => escaped,
                    other => {
                        return Err(format!("\"\\{other}\" is no escape; write \"\\\\\" for a backslash"));
                    }
                });
            } else {
                text.push(character);
            }
        }
        Err("a quote is not closed".to_owned())
    }

    /// A term of operators that bind at least as tightly as `level`; all of them go from left to right.
    fn term(&mut self, level: u8, depth: usize) -> Result<Term, String> {
        if depth > MAX_DEPTH {
            return Err("a filter is nested too deeply".to_owned());
        }
        let mut left = self.operand(depth)?;
        loop {
            let place = self.place;
            let Some(operator) = self.operator() else { return Ok(left) };
            if operator.level() < level {
                self.place = place;
                return Ok(left);
            }
            let right = self.term(operator.level() + 1, depth + 1)?;
            left = Term::binary(left, operator, right);
        }
    }

    fn operator(&mut self) -> Option<Operator> {
        self.blanks();
        let rest = self.rest();
        let (text, operator) = Operator::ALL.into_iter().find(|(text, _)| {
            // A word ends where its letters do.
            let is_word = text.starts_with(|first: char| first.is_ascii_lowercase());
            rest.strip_prefix(text)
                .is_some_and(|rest| !is_word || !rest.starts_with(|next: char| next.is_ascii_alphanumeric()))
        })?;
        self.place += text.len();
        Some(operator)
    }

    fn operand(&mut self, depth: usize) -> Result<Term, String> {
        self.blanks();
        match self.peek() {
            // It takes all that follows, whatever the operators.
            Some('!') => {
                self.take("!");
                Ok(Term::Not(Box::new(self.term(LOOSEST, depth + 1)?)))
            }
            Some('(') => {
                self.take("(");
                let inner = self.term(LOOSEST, depth + 1)?;
                self.expect(")")?;
                Ok(Term::Group(Box::new(inner)))
            }
            Some('@' | '$') => {
                let path = self.filter_path(depth)?;
                self.paths.push(path);
                Ok(Term::Path(self.paths.len() - 1))
            }
            Some(quote @ ('\'' | '"')) => Ok(Term::Literal(Value::string(self.quoted(quote)?))),
            Some('[') => self.list(depth),
            Some('/') => self.pattern(),
            _ => self.word(depth),
        }
    }

    fn filter_path(&mut self, depth: usize) -> Result<FilterPath, String> {
        let from_root = self.peek() == Some('$');
        self.place += 1;
        Ok(FilterPath { from_root, steps: self.steps(depth + 1)?, counted: false })
    }

    fn list(&mut self, depth: usize) -> Result<Term, String> {
        self.take("[");
        let mut items = Vec::new();
        loop {
            self.blanks();
            if self.take("]") {
                return Ok(Term::Literal(Value::array(items)));
            }
            match self.term(LOOSEST, depth + 1)? {
                Term::Literal(item) => items.push(item),
                _ => return Err("a list in a filter holds plain values".to_owned()),
            }
            self.blanks();
            if !self.rest().starts_with(']') {
                self.expect(",")?;
            }
        }
    }

    fn pattern(&mut self) -> Result<Term, String> {
        let rest = self.rest();
        let mut escaped = false;
        let closes = |(_, byte): &(usize, u8)| {
            let closes = *byte == b'/' && !escaped;
            escaped = *byte == b'\\' && !escaped;
            closes
        };
        let (end, _) = rest.bytes().enumerate().skip(1).find(closes).ok_or("a pattern is not closed")?;
        self.place += end + 1;
        Term::pattern(&rest[1..end])
            .ok_or_else(|| "a pattern of the path is no regular expression".to_owned())
    }

    /// A number, a name of a value, or a function.
    fn word(&mut self, depth: usize) -> Result<Term, String> {
        let rest = self.rest();
        if rest.starts_with(|first: char| first.is_ascii_digit() || matches!(first, '-' | '+' | '.')) {
            return self.number();
        }
        let length = rest.find(|next: char| !next.is_alphanumeric() && next != '_').unwrap_or(rest.len());
        let word = &rest[..length];
        if let Some(function) = Function::named(word) {
            self.place += length;
            return self.call(function, depth);
        }
        let term = match word {
            "true" => Term::Literal(Value::Bool(true)),
            "false" => Term::Literal(Value::Bool(false)),
            "null" | "nil" => Term::Literal(Value::Null),
            "Nothing" => Term::Nothing,
            _ => return Err(format!("\"{word}\" is no value for a filter")),
        };
        self.place += length;
        Ok(term)
    }

    fn number(&mut self) -> Result<Term, String> {
        let rest = self.rest();
        let mut before = ' ';
        let ends = |next: char| {
            let continues = next.is_ascii_digit()
                || next == '.'
                || matches!(next, 'e' | 'E')
                || (matches!(next, '-' | '+') && matches!(before, ' ' | 'e' | 'E'));
            before = next;
            !continues
        };
        let text = &rest[..rest.find(ends).unwrap_or(rest.len())];
        self.place += text.len();
        let number = match text.parse::<i64>() {
            Ok(integer) => Number::Int(integer),
            Err(_) => {
                Number::Float(text.parse().map_err(|_| format!("\"{text}\" is no value for a filter"))?)
            }
        };
        Ok(Term::Literal(Value::Number(number)))
    }

    fn call(&mut self, function: Function, depth: usize) -> Result<Term, String> {
        self.expect("(")?;
        let argument = self.term(LOOSEST, depth + 1)?;
        if function == Function::Count
            && let Term::Path(path) = &argument
            && let Some(path) = self.paths.get_mut(*path)
        {
            path.counted = true;
            // There, and only there, a path begins at the element in any case.
            path.from_root = false;
        }
        self.blanks();
        let pattern = if function.takes_pattern() && self.take(",") {
            Some(self.term(LOOSEST, depth + 1)?)
        } else {
            None
        };
        self.expect(")")?;
        Ok(Term::call(function, argument, pattern))
    }
}

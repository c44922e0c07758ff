//! `invar eval`: what an expression of the configuration language gives, without an agent. Names come from `--let`, from
//! a configuration, and from the standard library, in this order.

mod text;

use std::io::{BufRead, Read};
use std::sync::Arc;

use invar_syntax::limits::MAX_SOURCE_BYTES;
use invar_syntax::{
    Diagnostic, Diagnostics, EmptyScope, MapScope, Scope, Secret, Source, Style, Value, arguments, evaluate,
    lexer, parse_expression, render, value_to_json,
};
use serde_json::json;

use super::local::{self, Host};
use super::output::{Styling, complain, line};
use super::{Format, Output};
use crate::exit::Exit;

#[derive(Debug, clap::Args)]
pub(crate) struct EvalArguments {
    /// The expression; `-` reads one a line from standard input
    #[arg(value_name = "EXPR", default_value = "-", allow_hyphen_values = true)]
    expression: String,
    /// Give a name to the value of an expression, which may use the names before it
    #[arg(long = "let", value_name = "NAME=EXPR", value_parser = parse_definition)]
    definitions: Vec<Definition>,
    /// Give a name to a secret text
    #[arg(long = "let-secret", value_name = "NAME=TEXT", value_parser = parse_definition)]
    secrets: Vec<Definition>,
    /// Evaluate with the names of this configuration: a file, directory or address. Nothing is run, so what components
    /// export is not known
    #[arg(long, value_name = "PATH|ADDRESS")]
    config: Option<String>,
    #[command(flatten)]
    host: Host,
    #[command(flatten)]
    output: Output,
}

/// A name and what stands behind its `=`.
#[derive(Clone, Debug)]
struct Definition {
    name: String,
    text: String,
}

fn parse_definition(written: &str) -> Result<Definition, String> {
    let (name, text) = written.split_once('=').ok_or("a definition has the form NAME=…")?;
    let name = name.trim();
    if !lexer::is_identifier(name) {
        return Err(format!("`{name}` is not a name that an expression can use"));
    }
    Ok(Definition { name: name.to_owned(), text: text.to_owned() })
}

pub(crate) fn main(arguments: &EvalArguments, styling: Styling) -> Exit {
    let style = Style { color: styling.errors() };
    let configuration: Box<dyn Scope> = match &arguments.config {
        None => Box::new(EmptyScope),
        Some(what) => match scope_of(what, &arguments.host) {
            Ok(scope) => scope,
            Err((exit, problem)) => {
                complain(match &problem {
                    Problem::Text(text) => format!("invar: {text}"),
                    Problem::Diagnostics(diagnostics) => render(diagnostics, style).trim_end().to_owned(),
                });
                return exit;
            }
        },
    };
    let mut scope = MapScope::within(&*configuration);
    for Definition { name, text } in &arguments.secrets {
        scope.insert(name, Value::Secret(Secret::new(text.as_str())));
    }
    for Definition { name, text } in &arguments.definitions {
        match value_of(&format!("--let {name}"), text, &scope) {
            Ok(value) => scope.insert(name, value),
            Err(diagnostics) => {
                complain(render(&diagnostics, style).trim_end());
                return Exit::Failed;
            }
        }
    }
    let console = Console { scope: &scope, format: arguments.output.format, style };
    let good = if arguments.expression == "-" {
        console.lines()
    } else {
        console.answer("expression", &arguments.expression)
    };
    if good { Exit::Done } else { Exit::Failed }
}

/// Why there is no scope.
enum Problem {
    Text(String),
    Diagnostics(Diagnostics),
}

fn scope_of(what: &str, host: &Host) -> Result<Box<dyn Scope>, (Exit, Problem)> {
    let candidate = local::read_for(what, host).map_err(|problem| (Exit::Failed, Problem::Text(problem)))?;
    if candidate.faults.has_errors() {
        return Err((Exit::Refused, Problem::Diagnostics(candidate.faults)));
    }
    let scope = invar_rollout::configuration(&candidate.composition, candidate.inputs)
        .and_then(|configuration| invar_engine::static_scope(&crate::registry::components(), configuration));
    match scope {
        Ok(scope) => Ok(Box::new(scope)),
        Err(diagnostics) => Err((Exit::Refused, Problem::Diagnostics(diagnostics))),
    }
}

fn value_of(name: &str, text: &str, scope: &dyn Scope) -> Result<Value, Diagnostics> {
    let source = Arc::new(Source::new(name, text));
    let expression = parse_expression(Arc::clone(&source))?;
    evaluate(&expression, scope).map_err(|error| {
        let diagnostic = Diagnostic::error(arguments::codes::EVALUATION, error.message);
        let diagnostic = diagnostic.with_label(&source, error.span, "");
        match error.help {
            Some(help) => diagnostic.with_help(help),
            None => diagnostic,
        }
        .into()
    })
}

/// Answers expressions.
struct Console<'a> {
    scope: &'a dyn Scope,
    format: Format,
    style: Style,
}

impl Console<'_> {
    /// Answers each line as it comes. Whether all was well.
    fn lines(&self) -> bool {
        let mut input = std::io::stdin().lock();
        let mut good = true;
        for number in 1.. {
            let mut bytes = Vec::new();
            // One byte more than a source may have is enough to be refused.
            let limit = MAX_SOURCE_BYTES as u64 + 1;
            match input.by_ref().take(limit).read_until(b'\n', &mut bytes) {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) => {
                    complain(format!("invar: standard input: {error}"));
                    return false;
                }
            }
            let name = format!("<stdin>, line {number}");
            match std::str::from_utf8(&bytes) {
                Ok(text) if text.trim().is_empty() => {}
                Ok(text) => good &= self.answer(&name, text.trim_end_matches(['\n', '\r'])),
                Err(_) => {
                    self.refuse(&Diagnostic::error(arguments::codes::EVALUATION, "not UTF-8").into());
                    good = false;
                }
            }
        }
        good
    }

    /// Answers one expression. Whether it has a value.
    fn answer(&self, name: &str, text: &str) -> bool {
        match value_of(name, text, self.scope) {
            Ok(value) => {
                line(match self.format {
                    Format::Json => value_to_json(&value).to_string(),
                    Format::Text => text::pretty(&value),
                });
                true
            }
            Err(diagnostics) => {
                self.refuse(&diagnostics);
                false
            }
        }
    }

    fn refuse(&self, diagnostics: &Diagnostics) {
        match self.format {
            Format::Json => {
                let first = diagnostics.0.first();
                let message = first.map_or("", |first| first.message.as_str());
                let column = first
                    .and_then(Diagnostic::primary)
                    .map(|label| label.source.position(label.span.start).column);
                line(json!({ "error": message, "column": column }).to_string());
            }
            Format::Text => complain(render(diagnostics, self.style).trim_end()),
        }
    }
}

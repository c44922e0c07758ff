//! `invar validate`: the checks that the agent runs before it prepares anything, on any machine, without an agent. All
//! errors at once.

mod annotations;
mod junit;
mod report;
mod rules;
mod sarif;

use std::path::PathBuf;
use std::sync::Arc;

use clap::ValueEnum;
use invar_engine::ValidateOptions;
use invar_syntax::{Diagnostics, Severity, Stability, Style, render};

use super::local;
use super::output::{self, Styling, complain, line};
use crate::exit::Exit;
use crate::settings::Settings;
use report::Checked;

#[derive(Debug, clap::Args)]
pub(crate) struct ValidateArguments {
    /// Files, directories, addresses (git+https://host/repo.git//path?branch=main), or - for standard input; each is a
    /// configuration of its own
    #[arg(value_name = "PATH|ADDRESS", required = true)]
    what: Vec<String>,
    #[command(flatten)]
    hosts: local::Hosts,
    /// Refuse a configuration that has warnings (exit code 3)
    #[arg(long)]
    deny_warnings: bool,
    /// Form of the output
    #[arg(short = 'o', long = "output", value_enum, default_value_t = ReportFormat::Text, value_name = "FORMAT")]
    format: ReportFormat,
    /// Least stability that a component may have; without it, what an agent refuses by default is warned about
    #[arg(long = "stability.level", value_name = "LEVEL")]
    stability: Option<Stability>,
    /// Whether community components may be used; without it, they are warned about
    #[arg(long = "feature.community-components.enabled", num_args = 0..=1, default_missing_value = "true", require_equals = true, value_name = "BOOL")]
    community: Option<bool>,
    /// Settings of a host (invar.toml): what its [policy] does not allow is an error
    #[arg(long, value_name = "PATH")]
    settings: Option<PathBuf>,
    /// Source of the settings whose ceiling counts; needed where there are several with ceilings of their own
    #[arg(long, value_name = "NAME", requires = "settings")]
    source: Option<String>,
    /// Language of the configuration
    #[arg(long = "config.format", value_parser = ["alloy"], default_value = "alloy", value_name = "FORMAT")]
    language: String,
    #[arg(long = "config.bypass-conversion-errors", num_args = 0..=1, default_missing_value = "true", require_equals = true, hide = true)]
    bypass: Option<bool>,
    #[arg(long = "config.extra-args", hide = true)]
    extra: Option<String>,
}

/// Form of what `validate` prints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ReportFormat {
    /// For people; free to improve
    Text,
    /// For programs; changes are additive
    Json,
    /// SARIF 2.1.0, for code scanning
    Sarif,
    /// Workflow commands of GitHub Actions, for annotations
    Github,
    /// JUnit XML, for lists of tests
    Junit,
}

pub(crate) fn main(arguments: &ValidateArguments, styling: Styling) -> Exit {
    let registry = crate::registry::components();
    let options = ValidateOptions { minimum_stability: arguments.stability, community: arguments.community };
    let ceiling = match ceiling(arguments) {
        Ok(ceiling) => ceiling,
        Err(problem) => {
            complain(format!("invar: {problem}"));
            return Exit::Usage;
        }
    };
    let checked: Vec<Checked> = arguments
        .what
        .iter()
        .map(|what| check(what, &arguments.hosts, &ceiling, &registry, options))
        .collect();
    match arguments.format {
        ReportFormat::Text => checked.iter().for_each(|checked| text(checked, styling)),
        ReportFormat::Json => output::json(&report::json(&checked)),
        ReportFormat::Sarif => output::json(&sarif::sarif(&checked)),
        ReportFormat::Github => annotations::annotations(&checked).iter().for_each(line),
        ReportFormat::Junit => line(junit::junit(&checked)),
    }
    exit(&checked, arguments.deny_warnings)
}

/// The ceiling that the settings of a host set for one of its sources.
fn ceiling(arguments: &ValidateArguments) -> Result<local::Ceiling, String> {
    let Some(path) = &arguments.settings else { return Ok(local::Ceiling::default()) };
    let settings = Settings::read(path).map_err(|report| format!("{report:?}"))?;
    let names = settings.source_names()?;
    let policy = settings.policy()?;
    let source = match (&arguments.source, names.as_slice()) {
        (Some(name), names) if names.contains(name) => name.clone(),
        (Some(name), names) => {
            return Err(format!("{}: there is no source `{name}`, but {}", path.display(), names.join(", ")));
        }
        (None, [only]) => only.clone(),
        (None, names) if policy.tells_sources_apart() => {
            let names = names.join(", ");
            return Err(format!("{}: say which source with --source: {names}", path.display()));
        }
        (None, _) => local::SOURCE.to_owned(),
    };
    Ok(local::Ceiling { policy: Arc::new(policy), source })
}

fn exit(checked: &[Checked], deny_warnings: bool) -> Exit {
    let any = |severity| checked.iter().any(|checked| checked.count(severity) > 0);
    if checked.iter().any(|checked| checked.unreadable.is_some()) {
        Exit::Failed
    } else if any(Severity::Error) {
        Exit::Refused
    } else if deny_warnings && any(Severity::Warning) {
        Exit::Warnings
    } else {
        Exit::Done
    }
}

fn check(
    what: &str,
    hosts: &local::Hosts,
    ceiling: &local::Ceiling,
    registry: &invar_engine::Registry,
    options: ValidateOptions,
) -> Checked {
    let mut checked = Checked { what: what.to_owned(), ..Checked::default() };
    match local::read_under(what, hosts, ceiling) {
        Ok(candidates) => {
            checked.files = local::count_files(&candidates);
            checked.imports = local::imports(&candidates);
            checked.findings = local::check(&candidates, registry, options);
        }
        Err(problem) => checked.unreadable = Some(problem),
    }
    checked
}

/// For people: findings where errors go, the verdict where output goes.
fn text(checked: &Checked, styling: Styling) {
    if let Some(problem) = &checked.unreadable {
        return complain(format!("invar: {problem}"));
    }
    let diagnostics: Diagnostics = checked.findings.iter().map(local::Finding::in_words).collect();
    if !diagnostics.is_empty() {
        complain(render(&diagnostics, Style { color: styling.errors() }));
    }
    let (errors, warnings) = (checked.count(Severity::Error), checked.count(Severity::Warning));
    let mut parts = Vec::new();
    if errors > 0 {
        parts.push(counted(errors, "error"));
    }
    if warnings > 0 {
        parts.push(counted(warnings, "warning"));
    }
    if errors > 0 {
        complain(format!("{}: refused, {}", checked.what, parts.join(", ")));
    } else {
        parts.insert(0, counted(checked.files, "file"));
        line(format!("{}: valid ({})", checked.what, parts.join(", ")));
    }
}

fn counted(count: usize, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}

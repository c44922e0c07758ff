//! The command line: one file a command. Commands that speak to a running agent go through [`client`] and the
//! same HTTP API as everything else; those that do not (`validate`, `eval`, `fmt`, `components`) call the rooms below directly.

mod client;
mod components;
mod control;
mod convert;
mod doctor;
mod eval;
mod explain;
mod fmt;
mod history;
mod imports;
mod local;
mod lsp;
mod output;
mod plan;
mod quarantine;
mod run;
mod schema;
mod secrets;
mod sources;
mod status;
mod validate;

use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::exit::Exit;

use output::Styling;

/// A GitOps-native telemetry agent that speaks Grafana Alloy's configuration language.
#[derive(Debug, Parser)]
#[command(
    name = "invar",
    version,
    max_term_width = 110,
    subcommand_required = true,
    arg_required_else_help = true
)]
struct Cli {
    /// When to colour output; NO_COLOR is honoured.
    #[arg(long, global = true, value_enum, default_value_t = Colour::Auto, value_name = "WHEN")]
    color: Colour,
    #[command(subcommand)]
    command: Command,
}

/// When to colour output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Colour {
    /// On a terminal.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// Form of what is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people; free to improve.
    #[default]
    Text,
    /// For programs; changes are additive.
    Json,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the agent on a pipeline, an address (git+https://…), or a settings file (invar.toml)
    Run(Box<run::RunArguments>),
    /// Check a configuration without running it
    Validate(validate::ValidateArguments),
    /// Evaluate expressions of the configuration language
    Eval(eval::EvalArguments),
    /// Put configurations into the canonical form
    #[command(alias = "format")]
    Fmt(fmt::FmtArguments),
    /// Convert a configuration of Prometheus, Promtail or the OpenTelemetry Collector
    Convert(convert::ConvertArguments),
    /// Show what would change if a configuration were applied to the running agent
    Plan(plan::PlanArguments),
    /// Show where a variable comes from and what it overrode
    Explain(explain::ExplainArguments),
    /// Show what runs, whether it is what is desired, and whether it is healthy
    Status(status::StatusArguments),
    /// List the sources and how they are doing; with a name, everything about one
    Sources(sources::SourcesArguments),
    /// List the secrets in use, how they do, who uses them and what a change costs; never a value
    Secrets(secrets::SecretsArguments),
    /// Look for what is wrong: settings, state, host, credentials and the way to each source, each finding with a fix
    Doctor(doctor::DoctorArguments),
    /// List revisions and what became of them
    History(history::HistoryArguments),
    /// Go back to a committed generation (by default the one before) and hold it
    Rollback(control::RollbackArguments),
    /// Keep what runs; new revisions are still fetched and planned, not applied
    Hold(control::HoldArguments),
    /// Lift a hold
    Unhold(control::UnholdArguments),
    /// Revisions that ran, were bad and are not tried again
    Quarantine(quarantine::QuarantineArguments),
    /// Look at the sources now, and wait for what comes of it
    Reconcile(control::ReconcileArguments),
    /// Accept a commit that a source refuses because its branch was rewritten or set back, and wait for what comes of it
    AcceptHistory(control::AcceptHistoryArguments),
    /// List the components that pipelines can use, or print the reference of one
    Components(components::ComponentsArguments),
    /// List the functions that expressions can use, or print the reference of one
    Functions(components::FunctionsArguments),
    /// Serve an editor over standard input and output (Language Server Protocol)
    Lsp(lsp::LspArguments),
    /// Print the schema of the pipeline language, or of invar.toml, for editors
    Schema(schema::SchemaArguments),
}

/// How to reach the agent, and how to print what it says.
#[derive(Args, Clone, Debug)]
pub(crate) struct Remote {
    /// Address of the agent's HTTP API
    #[arg(long, env = "INVAR_SERVER", default_value = "http://127.0.0.1:12345", value_name = "URL")]
    server: String,
    /// How long to wait for an answer
    #[arg(long, default_value = "10s", value_parser = output::parse_duration, value_name = "DURATION")]
    timeout: std::time::Duration,
    #[command(flatten)]
    output: Output,
}

/// The output flag that every command takes.
#[derive(Args, Clone, Debug)]
pub(crate) struct Output {
    /// Form of the output
    #[arg(short = 'o', long = "output", value_enum, default_value_t = Format::Text, value_name = "FORMAT")]
    format: Format,
}

/// Parses the command line, runs the command, and gives the process its exit code.
pub fn main() -> ExitCode {
    keep_pages_small();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let usage = error.use_stderr();
            // Nothing is left to say it with if the terminal is gone.
            drop(error.print());
            return if usage { Exit::Usage.into() } else { ExitCode::SUCCESS };
        }
    };
    let styling = Styling::detect(cli.color);
    let exit = match cli.command {
        Command::Run(arguments) => run::main(*arguments, styling),
        Command::Validate(arguments) => validate::main(&arguments, styling),
        Command::Eval(arguments) => eval::main(&arguments, styling),
        Command::Fmt(arguments) => fmt::main(&arguments, styling),
        Command::Convert(arguments) => convert::main(&arguments),
        Command::Components(arguments) => components::main(&arguments, styling),
        Command::Functions(arguments) => components::functions(&arguments, styling),
        Command::Lsp(arguments) => lsp::main(&arguments),
        Command::Schema(arguments) => schema::main(&arguments),
        Command::Plan(arguments) => client::block_on(plan::main(arguments, styling)),
        Command::Explain(arguments) => client::block_on(explain::main(arguments, styling)),
        Command::Status(arguments) => client::block_on(status::main(arguments, styling)),
        Command::Sources(arguments) => client::block_on(sources::main(arguments, styling)),
        Command::Secrets(arguments) => client::block_on(secrets::main(arguments, styling)),
        Command::Doctor(arguments) => doctor::main(&arguments, styling),
        Command::History(arguments) => client::block_on(history::main(arguments, styling)),
        Command::Rollback(arguments) => client::block_on(control::rollback(arguments, styling)),
        Command::Hold(arguments) => client::block_on(control::hold(arguments, styling)),
        Command::Unhold(arguments) => client::block_on(control::unhold(arguments, styling)),
        Command::Quarantine(arguments) => client::block_on(quarantine::main(arguments, styling)),
        Command::Reconcile(arguments) => client::block_on(control::reconcile(arguments, styling)),
        Command::AcceptHistory(arguments) => client::block_on(control::accept_history(arguments, styling)),
    };
    exit.into()
}

/// An agent touches little memory in many places. Backed by huge pages, the allocator's arenas cost several times what
/// they hold. Before anything else, because a page that is huge stays so.
fn keep_pages_small() {
    // A kernel without huge pages has nothing to switch off, and nothing is lost where it cannot be done.
    let _without = rustix::thread::disable_transparent_huge_pages(true);
}

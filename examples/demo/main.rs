//! `make demo`: a Git repository of collector configurations on this machine, an agent that follows it, and a
//! receiver that shows what arrives. By hand it prints what to try; with `--auto` it plays the whole story, checks
//! every step, and exits 1 at the first one that is not as it should be. It needs `git` and nothing else; where
//! Prometheus is installed, that is the receiver.

mod stage;
mod story;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

use invar_integration::Outcome;
use stage::Stage;

/// Play the main job of Invar on this machine.
#[derive(Debug, Parser)]
pub(crate) struct Arguments {
    /// The agent's binary
    #[arg(long)]
    pub(crate) invar: PathBuf,
    /// Play the story and check it instead of waiting for a person
    #[arg(long)]
    pub(crate) auto: bool,
    /// Folder for the repository and the agent's state (default: a new one, removed at the end)
    #[arg(long)]
    pub(crate) directory: Option<PathBuf>,
    /// Use the built-in receiver even where Prometheus is installed
    #[arg(long)]
    pub(crate) builtin_receiver: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match play(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("\ndemo: {problem}");
            ExitCode::FAILURE
        }
    }
}

pub(crate) fn play(arguments: &Arguments) -> Outcome {
    let mut stage = Stage::set(arguments)?;
    let result = if arguments.auto { story::auto(&mut stage) } else { story::by_hand(&mut stage) };
    stage.strike();
    result
}

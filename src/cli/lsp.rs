//! `invar lsp`: a language server for editors, with the check of `invar validate` and the formatter of `invar fmt`.

use std::sync::Arc;

use invar_language_server::{CheckInput, Host, serve_stdio};
use invar_reference::Reference;
use invar_syntax::{Source, format, parse_file};

use super::local;
use super::output::complain;
use crate::exit::Exit;

#[derive(Debug, clap::Args)]
pub(crate) struct LspArguments {
    /// Accepted for editors that pass it; standard input and output are all there is
    #[arg(long, hide = true)]
    stdio: bool,
}

pub(crate) fn main(arguments: &LspArguments) -> Exit {
    let LspArguments { stdio: _ } = arguments;
    let host = Host {
        reference: Reference::new(&crate::registry::components()),
        check: Arc::new(|input: CheckInput| local::check_texts(input.files, &input.layers)),
        format: Arc::new(formatted),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    match serve_stdio(host) {
        Ok(()) => Exit::Done,
        Err(error) => {
            complain(format!("invar: {error}"));
            Exit::Failed
        }
    }
}

/// The text in canonical form, as `invar fmt` writes it.
fn formatted(text: &str) -> Result<String, String> {
    let (file, diagnostics) = parse_file(Arc::new(Source::new("buffer", text)));
    let file = file.ok_or_else(|| diagnostics.to_string())?;
    format(&file).map_err(|error| error.to_string())
}

//! `invar schema`: what editors and other programs need to know of the two languages, from the declarations themselves.

use invar_reference::{Reference, language_schema};

use super::output::{json, line};
use crate::exit::Exit;
use crate::settings::Settings;

#[derive(Debug, clap::Args)]
pub(crate) struct SchemaArguments {
    /// Print the JSON Schema of invar.toml instead of the language of pipelines
    #[arg(long)]
    settings: bool,
    /// On one line
    #[arg(long)]
    compact: bool,
}

pub(crate) fn main(arguments: &SchemaArguments) -> Exit {
    let schema = if arguments.settings {
        Settings::json_schema()
    } else {
        language_schema(&Reference::new(&crate::registry::components()), env!("CARGO_PKG_VERSION"))
    };
    if arguments.compact {
        line(schema.to_string());
    } else {
        json(&schema);
    }
    Exit::Done
}

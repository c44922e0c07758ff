//! `invar components` and `invar functions`: what pipelines can use, from the components' and functions' own declarations.

use invar_engine::registry::ComponentInfo;
use invar_reference::{Emphasis, Page, Reference, function_markdown};
use invar_syntax::schema_to_json;
use invar_syntax::stdlib::FunctionInfo;
use serde_json::json;

use super::output::{Styling, Table, Tone, complain, line};
use crate::exit::Exit;

#[derive(Debug, clap::Args)]
pub(crate) struct ComponentsArguments {
    /// Print the reference of this component or configuration block; a dotted path leads into its blocks
    /// (prometheus.remote_write.endpoint)
    name: Option<String>,
    #[command(flatten)]
    output: ReferenceOutput,
}

#[derive(Debug, clap::Args)]
pub(crate) struct FunctionsArguments {
    /// Print the reference of this function
    name: Option<String>,
    #[command(flatten)]
    output: ReferenceOutput,
}

/// The output flag of commands that print documentation.
#[derive(clap::Args, Clone, Debug)]
struct ReferenceOutput {
    /// Form of the output
    #[arg(short = 'o', long = "output", value_enum, default_value_t, value_name = "FORMAT")]
    format: ReferenceFormat,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum ReferenceFormat {
    /// For a terminal.
    #[default]
    Text,
    /// For programs; changes are additive.
    Json,
    /// For documentation.
    Markdown,
}

/// Wider lines are hard to read, however wide the terminal is.
const WIDTH: usize = 100;

pub(crate) fn main(arguments: &ComponentsArguments, styling: Styling) -> Exit {
    let reference = Reference::new(&crate::registry::components());
    let format = arguments.output.format;
    let Some(name) = &arguments.name else {
        match format {
            // A line a component, so that it can be read with line tools.
            ReferenceFormat::Json => {
                reference.components.iter().for_each(|info| line(declaration(info).to_string()))
            }
            ReferenceFormat::Text => list(&reference, styling),
            ReferenceFormat::Markdown => pages(&reference).for_each(|page| line(page.to_markdown())),
        }
        return Exit::Done;
    };
    let Some(page) = reference.page(name) else {
        return unknown(&reference, name);
    };
    match format {
        ReferenceFormat::Text => line(page.to_text(WIDTH, &painted(styling))),
        ReferenceFormat::Markdown => line(page.to_markdown().trim_end()),
        ReferenceFormat::Json => match (reference.component(name), reference.block(name)) {
            (Some(component), _) => line(declaration(component).to_string()),
            (None, Some(block)) => line(
                json!({
                    "name": block.name,
                    "arguments": schema_to_json(&block.arguments),
                    "exports": schema_to_json(&block.exports),
                })
                .to_string(),
            ),
            (None, None) => {
                complain(format!(
                    "invar: `{name}` is part of a component; ask for the component, or for -o text"
                ));
                return Exit::Usage;
            }
        },
    }
    Exit::Done
}

pub(crate) fn functions(arguments: &FunctionsArguments, styling: Styling) -> Exit {
    let reference = Reference::new(&crate::registry::components());
    let chosen: Vec<&FunctionInfo> = match &arguments.name {
        None => reference.functions.iter().collect(),
        Some(name) => match reference.function(name) {
            Some(function) => vec![function],
            None => {
                let near = said(&reference.function_suggestions(name));
                complain(format!("invar: there is no function `{name}`{near}"));
                return Exit::Failed;
            }
        },
    };
    match (arguments.output.format, &arguments.name) {
        (ReferenceFormat::Json, _) => {
            let schema = invar_reference::language_schema(&reference, env!("CARGO_PKG_VERSION"));
            let described = schema["functions"].as_array().into_iter().flatten();
            for entry in
                described.filter(|entry| chosen.iter().any(|function| entry["name"] == function.name))
            {
                line(entry.to_string());
            }
        }
        (ReferenceFormat::Markdown, _) => {
            for function in chosen {
                line(format!("## {}\n\n{}\n", function.name, function_markdown(function)));
            }
        }
        (ReferenceFormat::Text, None) => {
            let mut table = Table::new(&["FUNCTION", "FOR"]);
            for function in chosen {
                table.row([
                    (Tone::Plain, function.name.to_owned()),
                    (Tone::Faint, first_sentence(function.summary)),
                ]);
            }
            table.print(styling);
        }
        (ReferenceFormat::Text, Some(_)) => {
            chosen.into_iter().for_each(|function| print_function(function, styling))
        }
    }
    Exit::Done
}

fn print_function(function: &FunctionInfo, styling: Styling) {
    line(format!("{}  ({})", styling.paint(Tone::Strong, &function.signature()), function.stability));
    line(format!("\n{}", function.summary));
    line(format!(
        "\n{}\n  {}\n  gives {}",
        styling.paint(Tone::Strong, "Example"),
        function.example,
        function.gives
    ));
    if let Some(old) = function.deprecated_name {
        line(format!(
            "\n{}\n  Also known as `{old}`, which is deprecated.",
            styling.paint(Tone::Strong, "Notes")
        ));
    }
}

fn list(reference: &Reference, styling: Styling) {
    let mut table = Table::new(&["COMPONENT", "STABILITY", "EXPORTS", "FOR"]);
    for info in &reference.components {
        let exports = info.exports.fields.iter().map(|field| field.name).collect::<Vec<_>>().join(", ");
        table.row([
            (Tone::Plain, info.name.to_owned()),
            (Tone::Plain, info.stability.to_string()),
            (Tone::Plain, exports),
            (Tone::Faint, info.summary.to_owned()),
        ]);
    }
    table.print(styling);
    line(String::new());
    let mut table = Table::new(&["CONFIGURATION BLOCK", "FOR"]);
    for block in &reference.blocks {
        table.row([(Tone::Plain, block.name.to_owned()), (Tone::Faint, block.summary.to_owned())]);
    }
    table.print(styling);
}

fn pages(reference: &Reference) -> impl Iterator<Item = Page> + '_ {
    let components = reference.components.iter().map(|component| component.name);
    components.chain(reference.blocks.iter().map(|block| block.name)).filter_map(|name| reference.page(name))
}

/// A component as Alloy's own list of components has it.
fn declaration(info: &ComponentInfo) -> serde_json::Value {
    json!({
        "name": info.name,
        "stability": format!("{:?}", info.stability.as_str()),
        "community": info.community,
        "arguments": schema_to_json(&info.arguments),
        "exports": schema_to_json(&info.exports),
    })
}

fn unknown(reference: &Reference, name: &str) -> Exit {
    if let Some(function) = reference.function(name) {
        complain(format!("invar: `{name}` is a function; see `invar functions {}`", function.name));
    } else {
        complain(format!("invar: there is no component `{name}`{}", said(&reference.suggestions(name))));
    }
    Exit::Failed
}

/// `; did you mean `a` or `b`?`, or nothing.
fn said(names: &[&str]) -> String {
    let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    match names.split_last() {
        None => String::new(),
        Some((only, [])) => format!("; did you mean {only}?"),
        Some((last, others)) => format!("; did you mean {} or {last}?", others.join(", ")),
    }
}

fn first_sentence(text: &str) -> String {
    text.split_once(". ").map_or_else(|| text.to_owned(), |(first, _)| format!("{first}."))
}

fn painted(styling: Styling) -> impl Fn(Emphasis, &str) -> String {
    move |emphasis, text| {
        let tone = match emphasis {
            Emphasis::Strong => Tone::Strong,
            Emphasis::Faint => Tone::Faint,
        };
        styling.paint(tone, text)
    }
}

//! `invar components`: what pipelines can use, from the components' own declarations.

use invar_engine::registry::ComponentInfo;
use invar_syntax::{Field, FieldKind, Stability, schema_to_json, value_to_expression};
use serde_json::json;

use super::output::{Styling, Table, Tone, complain, line};
use super::{Format, Output};
use crate::exit::Exit;

#[derive(Debug, clap::Args)]
pub(crate) struct ComponentsArguments {
    /// Print the reference of this component
    name: Option<String>,
    #[command(flatten)]
    output: Output,
}

pub(crate) fn main(arguments: &ComponentsArguments, styling: Styling) -> Exit {
    let registry = crate::registry::components();
    let chosen: Vec<ComponentInfo> = match &arguments.name {
        None => registry.iter().collect(),
        Some(name) => match registry.get(name) {
            Some(info) => vec![info],
            None => {
                let nearest = invar_syntax::nearest(name, registry.names());
                let hint = nearest.map_or_else(String::new, |nearest| format!("; did you mean `{nearest}`?"));
                complain(format!("invar: there is no component `{name}`{hint}"));
                return Exit::Failed;
            }
        },
    };
    match (arguments.output.format, &arguments.name) {
        (Format::Json, _) => {
            // A line a component, so that it can be read with line tools.
            for info in &chosen {
                line(declaration(info).to_string());
            }
        }
        (Format::Text, None) => {
            let mut table = Table::new(&["COMPONENT", "STABILITY", "EXPORTS"]);
            for info in &chosen {
                let exports =
                    info.exports.fields.iter().map(|field| field.name).collect::<Vec<_>>().join(", ");
                table.row([
                    (Tone::Plain, info.name.to_owned()),
                    (Tone::Plain, stability(info.stability).to_owned()),
                    (Tone::Plain, exports),
                ]);
            }
            table.print(styling);
        }
        (Format::Text, Some(_)) => chosen.iter().for_each(|info| reference(info, styling)),
    }
    Exit::Done
}

fn declaration(info: &ComponentInfo) -> serde_json::Value {
    json!({
        "name": info.name,
        "stability": format!("{:?}", stability(info.stability)),
        "community": false,
        "arguments": schema_to_json(&info.arguments),
        "exports": schema_to_json(&info.exports),
    })
}

fn stability(level: Stability) -> &'static str {
    match level {
        Stability::Experimental => "experimental",
        Stability::PublicPreview => "public-preview",
        Stability::GenerallyAvailable => "generally-available",
    }
}

fn reference(info: &ComponentInfo, styling: Styling) {
    line(format!("{}  ({})", styling.paint(Tone::Strong, info.name), stability(info.stability)));
    for (title, fields) in [("Arguments", &info.arguments.fields), ("Exports", &info.exports.fields)] {
        if fields.is_empty() {
            continue;
        }
        line(String::new());
        line(styling.paint(Tone::Strong, title));
        describe(fields, 1, styling);
    }
}

fn describe(fields: &[Field], depth: usize, styling: Styling) {
    for field in fields {
        let indent = "  ".repeat(depth);
        let mut facts = Vec::new();
        match field.kind {
            FieldKind::Block | FieldKind::EnumBlocks => facts.push("block".to_owned()),
            FieldKind::Attribute | FieldKind::Label => facts.push(field.ty.to_string()),
        }
        if field.required {
            facts.push("required".to_owned());
        }
        if field.many {
            facts.push("repeatable".to_owned());
        }
        if let Some(default) = &field.default {
            facts.push(format!("default {}", value_to_expression(default)));
        }
        line(format!("{indent}{}  {}", styling.paint(Tone::Strong, field.name), facts.join(", ")));
        for text in field.documentation.lines().filter(|text| !text.trim().is_empty()) {
            line(format!("{indent}    {}", text.trim()));
        }
        describe(&field.fields, depth + 1, styling);
    }
}

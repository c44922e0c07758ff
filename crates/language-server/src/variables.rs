//! `variables.toml` beside the pipeline: what `var.NAME` refers to.

use invar_syntax::Span;

/// A variable and where it is set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Variable {
    pub(crate) name: String,
    /// The value as it is written, shortened.
    pub(crate) value: String,
    /// The place of the key.
    pub(crate) span: Span,
}

/// Values longer than this are cut in what is shown.
const MAX_SHOWN: usize = 80;

/// The keys at the top of a TOML text. One that cannot be read has none.
pub(crate) fn read(text: &str) -> Vec<Variable> {
    let Ok(table) = text.parse::<toml::Table>() else { return Vec::new() };
    table
        .into_iter()
        .map(|(name, value)| {
            let span = key_span(text, &name).unwrap_or_default();
            let mut value = value.to_string().trim().to_owned();
            if let Some((cut, _)) = value.char_indices().nth(MAX_SHOWN) {
                value.truncate(cut);
                value.push('…');
            }
            Variable { name, value, span }
        })
        .collect()
}

/// Where a key is set: at the beginning of a line, plain or in quotes, or as the name of a table.
fn key_span(text: &str, name: &str) -> Option<Span> {
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        let blank = line.len() - line.trim_start_matches([' ', '\t', '[']).len();
        let rest = &line[blank..];
        let quote = usize::from(rest.starts_with(['"', '\'']));
        if let Some(after) = rest.get(quote..).and_then(|rest| rest.strip_prefix(name))
            && after.trim_start_matches(['"', '\'', ' ', '\t']).starts_with(['=', '.', ']'])
        {
            let begin = start + blank + quote;
            return Some(Span::new(u32::try_from(begin).ok()?, u32::try_from(begin + name.len()).ok()?));
        }
        start += line.len();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_have_places_and_values() {
        let text = "# about\nregion = \"eu\"\n[limits]\ncpu = 1\n";
        let variables = read(text);
        let shown: Vec<_> = variables
            .iter()
            .map(|variable| {
                (variable.name.as_str(), &text[variable.span.start as usize..variable.span.end as usize])
            })
            .collect();
        assert_eq!(shown, [("limits", "limits"), ("region", "region")]);
        assert!(read("= broken").is_empty());
    }
}

//! Variables files are read or refused with a place, and every value that is read has one.
#![no_main]

use invar_rollout::{ComposedFile, VariableLayers, explain_variable, read_variables};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|layers: Vec<&[u8]>| {
    let file = |(index, content): (usize, &&[u8])| ComposedFile {
        name: format!("{index}/variables.toml"),
        source: "fuzz".to_owned(),
        path: format!("{index}/variables.toml"),
        content: content.to_vec().into(),
    };
    let files: Vec<_> = layers.iter().take(4).enumerate().map(file).collect();
    let searched = files.iter().map(|file| file.name.clone()).collect();
    let (variables, diagnostics) = read_variables(&VariableLayers { files, searched });
    for diagnostic in diagnostics.iter() {
        let place = diagnostic.primary().expect("every finding has a place");
        let _ = place.source.location(place.span.start);
    }
    let _ = invar_syntax::render(&diagnostics, invar_syntax::Style::default());
    for path in variables.paths() {
        assert!(variables.get(path).is_some());
        for definition in variables.definitions(path) {
            let _ = (definition.text(), definition.location());
        }
    }
    let _ = explain_variable(&variables, "var");
});

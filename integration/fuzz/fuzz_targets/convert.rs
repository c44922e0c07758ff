//! Any text of any format is converted or reported, and what comes of it is a configuration in canonical form.
#![no_main]

use std::sync::{Arc, LazyLock};

use invar_convert::{Format, convert};
use invar_engine::Registry;
use invar_syntax::{Source, format, parse_file};
use libfuzzer_sys::fuzz_target;

static REGISTRY: LazyLock<Registry> = LazyLock::new(|| {
    invar_components_discovery::register(invar_components_prometheus::register(Registry::new()))
});

fuzz_target!(|input: (u8, &str)| {
    let (choice, text) = input;
    let (_, from) = Format::NAMES[usize::from(choice) % Format::NAMES.len()];
    let conversion = convert(from, text, &REGISTRY);
    if conversion.pipeline.is_empty() {
        return;
    }
    let (file, diagnostics) = parse_file(Arc::new(Source::new("converted", &*conversion.pipeline)));
    let Some(file) = file else { panic!("{diagnostics:?} in {:?}", conversion.pipeline) };
    assert_eq!(format(&file).as_deref(), Ok(&*conversion.pipeline));
});

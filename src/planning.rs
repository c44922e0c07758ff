//! Plans for configurations that are in no source: what `invar plan PATH` asks the agent for. The functions are those
//! that the reconciler uses for a candidate.

use bytes::Bytes;
use invar_rollout::{ComposedFile, Composition, EnginePipeline, Failure, Pipeline, PlanSummary};

/// The plan against what runs, or the faults of the text for people.
pub(crate) fn plan(pipeline: &EnginePipeline, files: Vec<(String, Vec<u8>)>) -> Result<PlanSummary, String> {
    let planned = || {
        let parsed = pipeline.parse(&composition(files))?;
        pipeline.check(&parsed.candidate)?;
        pipeline.plan(&parsed.candidate)
    };
    planned().map_err(|failure| said(&failure))
}

/// Files as a composition that comes from no source.
fn composition(files: Vec<(String, Vec<u8>)>) -> Composition {
    let files = files.into_iter().map(|(path, content)| ComposedFile {
        name: path.clone(),
        source: "local".to_owned(),
        path,
        content: Bytes::from(content),
    });
    Composition { origins: Vec::new(), files: files.collect() }
}

fn said(failure: &Failure) -> String {
    let place = match (&failure.file, failure.line) {
        (Some(file), Some(line)) => format!("{file}:{line}: "),
        (Some(file), None) => format!("{file}: "),
        _ => String::new(),
    };
    let help = failure.help.as_ref().map_or_else(String::new, |help| format!("\n  help: {help}"));
    format!("{place}{}{help}", failure.message)
}

//! Plans for configurations that are in no source: what `invar plan PATH` asks the agent for. The functions are those
//! that the reconciler uses for a candidate.

use std::collections::BTreeMap;

use bytes::Bytes;
use invar_rollout::{
    ComposedFile, Composition, EnginePipeline, Failure, Pipeline, PlanSummary, VariableLayers,
};
use serde::{Deserialize, Serialize};

/// A configuration that is in no source, as the API takes it.
#[derive(Debug, Default, Deserialize, Serialize)]
pub(crate) struct Proposal {
    /// Path to text.
    pub(crate) files: BTreeMap<String, String>,
    /// The layers of variables, later ones over earlier ones.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) variables: Vec<ProposedLayer>,
    /// The names of the variables files that were looked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) searched: Vec<String>,
}

/// One `variables.toml`.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct ProposedLayer {
    /// Its path.
    pub(crate) file: String,
    /// What it says.
    pub(crate) text: String,
}

impl Proposal {
    /// The files of a composition; none where one is not UTF-8.
    pub(crate) fn of(composition: &Composition) -> Option<Self> {
        let text = |file: &ComposedFile| {
            String::from_utf8(file.content.to_vec()).ok().map(|text| (file.name.clone(), text))
        };
        let layers = composition.variables.files.iter().map(text).collect::<Option<Vec<_>>>()?;
        let layers = layers.into_iter().map(|(file, text)| ProposedLayer { file, text });
        Some(Self {
            files: composition.files.iter().map(text).collect::<Option<_>>()?,
            variables: layers.collect(),
            searched: composition.variables.searched.clone(),
        })
    }
}

/// The plan against what runs, or the faults of the text for people.
pub(crate) fn plan(pipeline: &EnginePipeline, proposal: Proposal) -> Result<PlanSummary, String> {
    let planned = || {
        let parsed = pipeline.parse(&composition(proposal))?;
        pipeline.check(&parsed.candidate)?;
        pipeline.plan(&parsed.candidate)
    };
    planned().map_err(|failure| said(&failure))
}

/// Files as a composition that comes from no source.
fn composition(proposal: Proposal) -> Composition {
    let file = |(path, text): (String, String)| ComposedFile {
        name: path.clone(),
        source: "local".to_owned(),
        path,
        content: Bytes::from(text),
    };
    let layers = proposal.variables.into_iter().map(|layer| (layer.file, layer.text));
    Composition {
        origins: Vec::new(),
        files: proposal.files.into_iter().map(file).collect(),
        variables: VariableLayers { files: layers.map(file).collect(), searched: proposal.searched },
    }
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

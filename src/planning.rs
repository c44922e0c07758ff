//! Plans for configurations that are in no source: what `invar plan PATH` asks the agent for. The functions are those
//! that the reconciler uses for a candidate.

use std::collections::BTreeMap;

use bytes::Bytes;
use invar_engine::modules::ModuleKey;
use invar_rollout::{
    ComposedFile, ComposedModule, Composition, EnginePipeline, Failure, ModuleView, Origin, Pipeline,
    PlanSummary, VariableLayers,
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
    /// Where relative paths in the files begin.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) module_path: String,
    /// The modules they import that only the caller can read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) modules: Vec<ProposedModule>,
}

/// A module that goes along with a configuration.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct ProposedModule {
    key: String,
    kind: String,
    label: String,
    module_path: String,
    /// Name and text of each file.
    files: Vec<(String, String)>,
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
        let modules = composition.modules.iter().map(ProposedModule::of).collect::<Option<_>>()?;
        let origin = composition.origins.first();
        Some(Self {
            modules,
            module_path: origin.map(|origin| origin.module_path.clone()).unwrap_or_default(),
            files: composition.files.iter().map(text).collect::<Option<_>>()?,
            variables: layers.collect(),
            searched: composition.variables.searched.clone(),
        })
    }
}

impl ProposedModule {
    /// A module; none where a file of it is not UTF-8.
    fn of(module: &ComposedModule) -> Option<Self> {
        let file = |(name, content): &(String, Bytes)| {
            String::from_utf8(content.to_vec()).ok().map(|text| (name.clone(), text))
        };
        Some(Self {
            key: module.key.to_string(),
            kind: module.kind.clone(),
            label: module.label.clone(),
            module_path: module.module_path.clone(),
            files: module.files.iter().map(file).collect::<Option<_>>()?,
        })
    }

    fn composed(self) -> ComposedModule {
        ComposedModule {
            key: ModuleKey::new(self.key),
            kind: self.kind,
            label: self.label,
            revision: String::new(),
            module_path: self.module_path,
            named: false,
            files: self.files.into_iter().map(|(name, text)| (name, Bytes::from(text))).collect(),
        }
    }
}

/// The plan against what runs, or the faults of the text for people. Modules that do not go along with the configuration are
/// taken from what the agent has `fetched` for what it follows.
pub(crate) fn plan(
    pipeline: &EnginePipeline,
    proposal: Proposal,
    fetched: &[ModuleView],
) -> Result<PlanSummary, String> {
    let planned = || {
        let mut composition = composition(proposal);
        let parsed = loop {
            let parsed = pipeline.parse(&composition)?;
            let before = composition.modules.len();
            for request in &parsed.missing {
                let view = fetched.iter().find(|view| view.key == request.key);
                if let Some(content) = view.and_then(|view| view.content.as_ref()) {
                    composition.modules.push(ComposedModule::new(request, content));
                }
            }
            if composition.modules.len() == before {
                break parsed;
            }
        };
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
    let origin = Origin {
        source: "local".to_owned(),
        kind: "file".to_owned(),
        revision: String::new(),
        digest: String::new(),
        author: None,
        subject: None,
        signer: None,
        trust: None,
        module_path: proposal.module_path,
    };
    Composition {
        origins: vec![origin],
        modules: proposal.modules.into_iter().map(ProposedModule::composed).collect(),
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

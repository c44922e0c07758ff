//! What a configuration imports, as far as it can be had without an agent: files of its own repository or of this host.
//! What is behind Git and HTTP is not fetched; what it declares is not known then, and everything is allowed of it.

use std::cell::OnceCell;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use invar_engine::modules::{
    ImportArguments, ImportRequest, ModuleContent, ModuleFile, ModuleKey, ModuleSet,
};
use invar_engine::{Configuration, Inputs};
use invar_rollout::{ComposedModule, Composition, Place, is_module, locate, tree_module_path};
use invar_sources::{SourceSettings, TreeEntry};
use serde::Serialize;

use super::local::SOURCE;

/// The largest file of a module, in bytes.
const LIMIT: u64 = 8 << 20;

/// What the files of a configuration import from.
pub(crate) enum Surroundings {
    /// This host.
    Host,
    /// A repository's folder on this host, which stands for the repository.
    Folder(PathBuf),
    /// A repository behind an address, of which only a part was read; the rest is, once it is needed.
    Address { settings: Box<SourceSettings>, whole: OnceCell<Result<invar_sources::Files, String>> },
}

/// What a configuration imports.
#[derive(Debug, Default)]
pub(crate) struct Imported {
    /// The contents there are, the failures, and what is left open.
    pub(crate) modules: ModuleSet,
    /// The imports themselves.
    pub(crate) imports: Vec<Import>,
}

/// An import, for programs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Import {
    kind: String,
    /// The label; of one within another module the labels on the way.
    label: String,
    /// `file:line:column` of the block.
    at: String,
    /// Whether its content was read and checked.
    followed: bool,
}

impl Surroundings {
    /// A repository behind an address.
    pub(crate) fn address(settings: SourceSettings) -> Self {
        Self::Address { settings: Box::new(settings), whole: OnceCell::new() }
    }

    /// The content at a path; `None` where it cannot be known here.
    fn content(&self, module_path: &str, filename: &str) -> Result<Option<ModuleContent>, String> {
        match locate(module_path, filename).map_err(|failure| failure.message)? {
            Place::Tree { root, path } if root == SOURCE => match self {
                Self::Host => Ok(None),
                Self::Folder(folder) => {
                    let mut content = of_host(&folder.join(&path))?;
                    let entry = match content.files.as_slice() {
                        [_] if !folder.join(&path).is_dir() => TreeEntry::File(Bytes::new()),
                        _ => TreeEntry::Folder(invar_sources::Files::new()),
                    };
                    content.module_path = tree_module_path(&root, &path, &entry);
                    Ok(Some(content))
                }
                Self::Address { settings, whole } => {
                    let fetched = whole.get_or_init(|| {
                        let everything =
                            SourceSettings { path: Vec::new(), ..SourceSettings::clone(settings) };
                        super::local::fetch(everything).map(|snapshot| snapshot.files)
                    });
                    of_tree(fetched.as_ref().map_err(Clone::clone)?, &root, &path).map(Some)
                }
            },
            Place::Tree { .. } => Ok(None),
            Place::Host(path) => match self {
                Self::Host => {
                    // As Alloy reads it where it is not beside: from the working directory.
                    let (beside, given) = (Path::new(&path), Path::new(filename));
                    of_host(if !beside.exists() && given.exists() { given } else { beside }).map(Some)
                }
                // What a repository imports of the hosts it is for is not on this one.
                Self::Folder(_) | Self::Address { .. } => Ok(None),
            },
        }
    }
}

/// Reads what a configuration imports, and what that imports; what is found becomes a part of the composition.
pub(crate) fn follow(
    composition: &mut Composition,
    inputs: &Inputs,
    surroundings: &Surroundings,
) -> Imported {
    let mut imported = Imported::default();
    let mut known: Vec<ModuleKey> = Vec::new();
    let configuration = loop {
        let parsed = invar_rollout::configuration_with(composition, inputs.clone(), imported.modules.clone());
        let Ok(configuration) = parsed else { return imported };
        if drop_imported(composition, configuration.modules()) {
            continue;
        }
        let missing = configuration.missing_modules();
        let fresh: Vec<ImportRequest> =
            missing.iter().filter(|request| !known.contains(&request.key)).cloned().collect();
        if fresh.is_empty() {
            break configuration;
        }
        for request in fresh {
            known.push(request.key.clone());
            let content = match &request.arguments {
                ImportArguments::File(file) => surroundings.content(&request.module_path, &file.filename),
                _ => Ok(None),
            };
            match content {
                Ok(Some(content)) => {
                    composition.modules.push(ComposedModule::new(&request, &content));
                    imported.modules.insert(request.key, content);
                }
                Ok(None) => imported.modules.leave_open(request.key),
                Err(reason) => imported.modules.fail(request.key, reason),
            }
        }
    };
    let used = |key: &ModuleKey| configuration.modules().iter().any(|request| request.key == *key);
    composition.modules.retain(|module| used(&module.key));
    imported.imports = imports(&configuration, &imported.modules);
    imported
}

fn imports(configuration: &Configuration, modules: &ModuleSet) -> Vec<Import> {
    let import = |request: &ImportRequest| Import {
        kind: request.kind().to_string(),
        label: request.namespace.clone(),
        at: request.location(),
        followed: modules.get(&request.key).is_some(),
    };
    configuration.modules().iter().map(import).collect()
}

/// Files of the repository that are imported and can be modules are no pipelines.
fn drop_imported(composition: &mut Composition, imports: &[ImportRequest]) -> bool {
    let before = composition.files.len();
    for request in imports {
        let ImportArguments::File(file) = &request.arguments else { continue };
        let Ok(Place::Tree { root, path }) = locate(&request.module_path, &file.filename) else { continue };
        composition.files.retain(|file| {
            let folder = file.path.rsplit_once('/').map_or("", |(folder, _)| folder);
            let named = root == SOURCE && (file.path == path || folder == path);
            !(named && is_module(&file.content))
        });
    }
    composition.files.len() < before
}

fn of_tree(tree: &invar_sources::Files, root: &str, path: &str) -> Result<ModuleContent, String> {
    let entry =
        TreeEntry::among(tree, path).ok_or_else(|| format!("there is no \"{path}\" in the repository"))?;
    let module_path = tree_module_path(root, path, &entry);
    let files = match entry {
        TreeEntry::File(content) => vec![ModuleFile { name: path.to_owned(), content }],
        TreeEntry::Folder(files) if files.is_empty() => {
            return Err(format!("the folder \"{path}\" has no *.alloy files"));
        }
        TreeEntry::Folder(files) => {
            let below = |name: String| if path.is_empty() { name } else { format!("{path}/{name}") };
            files.into_iter().map(|(name, content)| ModuleFile { name: below(name), content }).collect()
        }
    };
    Ok(ModuleContent { files, module_path, revision: String::new() })
}

fn of_host(path: &Path) -> Result<ModuleContent, String> {
    let failed = |path: &Path, error: std::io::Error| format!("{}: {error}", path.display());
    let read = |path: &Path| {
        let metadata = std::fs::metadata(path).map_err(|error| failed(path, error))?;
        if metadata.len() > LIMIT {
            return Err(format!("{}: larger than 8 MiB", path.display()));
        }
        let content = std::fs::read(path).map_err(|error| failed(path, error))?;
        Ok(ModuleFile { name: path.display().to_string(), content: Bytes::from(content) })
    };
    if !path.is_dir() {
        let folder = path.parent().unwrap_or(Path::new("")).display().to_string();
        return Ok(ModuleContent { files: vec![read(path)?], module_path: folder, revision: String::new() });
    }
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path).map_err(|error| failed(path, error))? {
        let file = entry.map_err(|error| failed(path, error))?.path();
        if file.extension().is_some_and(|extension| extension == "alloy") && file.is_file() {
            files.push(read(&file)?);
        }
    }
    if files.is_empty() {
        return Err(format!("{}: no *.alloy file in this folder", path.display()));
    }
    files.sort_by(|left, right| left.name.cmp(&right.name));
    Ok(ModuleContent { files, module_path: path.display().to_string(), revision: String::new() })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tempfile::TempDir;

    use super::*;
    use crate::cli::local::{self, Hosts};

    const USE: &str = "net.scrape \"page\" {\n\ttarget = \"localhost\"\n}\n";
    const MODULE: &str = "declare \"scrape\" {\n\targument \"target\" { }\n}\n";

    fn folder(files: &[(&str, &str)]) -> TempDir {
        let folder = tempfile::tempdir().expect("a folder can be made");
        for (name, text) in files {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().expect("it is in the folder")).expect("folders can be made");
            fs::write(path, text).expect("files can be written");
        }
        folder
    }

    fn errors(what: &Path) -> (Vec<String>, Vec<Import>) {
        let candidates = local::read(&what.display().to_string(), &Hosts::default()).expect("it is there");
        let said = |finding: &local::Finding| {
            let diagnostic = &finding.diagnostic;
            let place = diagnostic.labels.first().map(|label| label.source.location(label.span.start));
            format!("{}: {}", place.unwrap_or_default(), diagnostic.message)
        };
        let registry = crate::registry::components();
        let findings = local::check(&candidates, &registry, invar_engine::ValidateOptions::default());
        (findings.iter().map(said).collect(), local::imports(&candidates))
    }

    fn import(filename: &str) -> String {
        format!("import.file \"net\" {{\n\tfilename = \"{filename}\"\n}}\n\n{USE}")
    }

    #[test]
    fn what_lies_in_the_repository_is_checked_wherever_it_is() {
        let main = import("../library/net.alloy");
        let good = folder(&[("base/main.alloy", &main), ("library/net.alloy", MODULE)]);
        let (found, imports) = errors(good.path());
        assert_eq!(found, Vec::<String>::new());
        assert!(imports[0].followed && imports.len() == 1);
        let module = MODULE.replace("argument", "argment");
        let bad = folder(&[("base/main.alloy", &main), ("library/net.alloy", &module)]);
        let (found, _) = errors(bad.path());
        assert!(found.iter().any(|error| error.contains("library/net.alloy:2")), "{found:?}");
        let (found, _) = errors(folder(&[("base/main.alloy", &main)]).path());
        assert!(found[0].contains("main.alloy:1") && found[0].contains("net.alloy"), "{found:?}");
    }

    #[test]
    fn a_file_that_is_imported_is_no_pipeline() {
        let library = folder(&[
            ("base/main.alloy", &import("modules")),
            ("base/modules/one.alloy", MODULE),
            ("base/modules/two.alloy", "declare \"other\" { }\n"),
        ]);
        assert_eq!(errors(library.path()).0, Vec::<String>::new());
    }

    #[test]
    fn what_lies_on_this_host_is_checked_for_a_local_configuration() {
        let good = folder(&[("main.alloy", &import("net.river")), ("net.river", MODULE)]);
        assert_eq!(errors(&good.path().join("main.alloy")).0, Vec::<String>::new());
        assert_eq!(errors(good.path()).0, Vec::<String>::new());
        let main = import("net.river").replace("target = \"localhost\"", "");
        let wrong = folder(&[("main.alloy", &main), ("net.river", MODULE)]);
        let (found, _) = errors(&wrong.path().join("main.alloy"));
        assert!(found.iter().any(|error| error.contains("target")), "{found:?}");
    }

    #[test]
    fn what_is_behind_a_network_is_listed_and_not_asked() {
        let text = format!("import.http \"net\" {{\n\turl = \"http://127.0.0.1:1/net.alloy\"\n}}\n\n{USE}");
        let (found, imports) = errors(&folder(&[("main.alloy", &text)]).path().join("main.alloy"));
        assert_eq!(found, Vec::<String>::new());
        let import = &imports[0];
        assert_eq!(
            (import.kind.as_str(), import.label.as_str(), import.followed),
            ("import.http", "net", false)
        );
    }
}

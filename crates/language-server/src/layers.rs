//! Which folders make up a configuration. Mostly one; in a fleet's repository the base and what an environment or a host
//! adds to it.

use std::path::{Path, PathBuf};

/// Folders whose subfolders each add to the base.
const PARENTS: [&str; 2] = ["environments", "hosts"];
/// Environments beyond these are left out.
const MAX_ENVIRONMENTS: usize = 50;
const VARIABLES: &str = "variables.toml";

/// The folders of the configuration that a folder belongs to, in order of composition, itself last.
pub(crate) fn layers(folder: &Path) -> Vec<PathBuf> {
    let base = root(folder).map(|root| root.join("base")).filter(|base| base.is_dir());
    base.into_iter().chain([folder.to_path_buf()]).collect()
}

/// The folders on top of which a folder is used: the environments of a base, otherwise itself.
pub(crate) fn tops(folder: &Path) -> Vec<PathBuf> {
    let environments = environments(folder);
    if environments.is_empty() { vec![folder.to_path_buf()] } else { environments }
}

/// The variables files that concern a folder, the one that holds first. A base is used by every environment, so that any of
/// theirs may say what its variables are.
pub(crate) fn variables(folder: &Path) -> Vec<PathBuf> {
    let folders = layers(folder).into_iter().rev().chain(environments(folder));
    folders.map(|folder| folder.join(VARIABLES)).filter(|path| path.is_file()).collect()
}

/// The environments that stand on a base, in order; none of a folder that is no base.
fn environments(folder: &Path) -> Vec<PathBuf> {
    if folder.file_name().is_none_or(|name| name != "base") {
        return Vec::new();
    }
    let Some(root) = folder.parent() else { return Vec::new() };
    let entries = std::fs::read_dir(root.join("environments")).into_iter().flatten().flatten();
    let folders = entries.map(|entry| entry.path()).filter(|path| path.is_dir());
    let mut environments: Vec<PathBuf> = folders.take(MAX_ENVIRONMENTS).collect();
    environments.sort();
    environments
}

/// The root of the fleet's repository whose environment or host a folder is.
fn root(folder: &Path) -> Option<&Path> {
    let parent = folder.parent()?;
    let name = parent.file_name()?.to_str()?;
    PARENTS.contains(&name).then(|| parent.parent())?
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn an_environment_stands_on_the_base() {
        let root = tempfile::tempdir().unwrap();
        let (base, environment) = (root.path().join("base"), root.path().join("environments/dev"));
        std::fs::create_dir_all(&base).unwrap();
        std::fs::create_dir_all(&environment).unwrap();
        assert_eq!(layers(&environment), [base.clone(), environment.clone()]);
        assert_eq!(layers(&base), std::slice::from_ref(&base));
        assert_eq!(tops(&base), std::slice::from_ref(&environment));
        assert_eq!(tops(&environment), std::slice::from_ref(&environment));
        assert_eq!(layers(root.path()), [root.path()]);
        std::fs::write(environment.join(VARIABLES), "").unwrap();
        assert_eq!(variables(&base), [environment.join(VARIABLES)]);
        std::fs::write(base.join(VARIABLES), "").unwrap();
        assert_eq!(variables(&environment), [environment.join(VARIABLES), base.join(VARIABLES)]);
        assert_eq!(variables(&base), [base.join(VARIABLES), environment.join(VARIABLES)]);
    }
}

//! Target groups in a file: a list of `{targets, labels}` in JSON or YAML, decoded as strictly as Prometheus does.

use invar_policy::Access;
use std::collections::BTreeMap;
use std::io::{self, Read as _};
use std::path::Path;
use std::sync::Arc;

use invar_blocks::Target;
use serde::Deserialize;

use super::yaml::{self, Node};

/// Larger files are a mistake.
const MAX_BYTES: u64 = 64 << 20;
/// The label that tells where a target comes from.
const FILEPATH_LABEL: &str = "__meta_filepath";
const ADDRESS_LABEL: &str = "__address__";

/// Why a file's groups cannot be had.
#[derive(Debug, thiserror::Error)]
pub(super) enum GroupsError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("{0}")]
    Content(String),
}

#[derive(Debug, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
struct Group {
    #[serde(default)]
    targets: Option<Vec<String>>,
    #[serde(default)]
    labels: Option<BTreeMap<String, String>>,
}

/// The targets of a file; none where there is no such file.
pub(super) fn read(path: &Path, access: &Access) -> Result<Option<Vec<Target>>, GroupsError> {
    let file = match access.open_blocking(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let mut content = Vec::new();
    file.take(MAX_BYTES + 1).read_to_end(&mut content)?;
    if content.len() as u64 > MAX_BYTES {
        return Err(GroupsError::Content("larger than 64 MiB".to_owned()));
    }
    let json = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("json"));
    let groups = if json { from_json(&content)? } else { from_yaml(&content)? };
    targets(path, groups).map(Some)
}

fn from_json(content: &[u8]) -> Result<Vec<Group>, GroupsError> {
    let groups: Option<Vec<Group>> =
        serde_json::from_slice(content).map_err(|error| GroupsError::Content(error.to_string()))?;
    Ok(groups.unwrap_or_default())
}

fn from_yaml(content: &[u8]) -> Result<Vec<Group>, GroupsError> {
    let text = std::str::from_utf8(content).map_err(|_| GroupsError::Content("not UTF-8 text".to_owned()))?;
    let wrong = |message: String| GroupsError::Content(message);
    let list = match yaml::parse(text).map_err(wrong)? {
        None => return Ok(Vec::new()),
        Some(node) if node.is_null() => return Ok(Vec::new()),
        Some(Node::Sequence(list)) => list,
        Some(_) => return Err(GroupsError::Content("should be a list of target groups".to_owned())),
    };
    let mut groups = Vec::with_capacity(list.len());
    for (index, node) in list.iter().enumerate() {
        groups.push(group(node).map_err(|message| wrong(format!("group {}: {message}", index + 1)))?);
    }
    Ok(groups)
}

fn group(node: &Node) -> Result<Group, String> {
    let Node::Mapping(fields) = node else {
        return Err("should have the fields targets and labels".to_owned());
    };
    let mut group = Group::default();
    for (name, value) in fields {
        match name.as_str() {
            "targets" if value.is_null() => {}
            "targets" => {
                let Node::Sequence(addresses) = value else {
                    return Err("targets should be a list".to_owned());
                };
                let addresses: Option<Vec<String>> = addresses.iter().map(Node::text).collect();
                group.targets = Some(addresses.ok_or("targets should be a list of addresses")?);
            }
            "labels" if value.is_null() => {}
            "labels" => {
                let Node::Mapping(labels) = value else {
                    return Err("labels should be a mapping".to_owned());
                };
                let labels: Option<BTreeMap<String, String>> =
                    labels.iter().map(|(name, value)| Some((name.clone(), value.text()?))).collect();
                group.labels = Some(labels.ok_or("the value of a label should be text")?);
            }
            other => return Err(format!("unknown field {other:?}: a group has targets and labels")),
        }
    }
    Ok(group)
}

fn targets(path: &Path, groups: Vec<Group>) -> Result<Vec<Target>, GroupsError> {
    let shown: Arc<str> = path.to_string_lossy().into();
    let mut targets = Vec::new();
    for group in groups {
        let mut shared: Vec<(Arc<str>, Arc<str>)> = Vec::new();
        for (name, value) in group.labels.unwrap_or_default() {
            if !invar_telemetry::labels::is_legacy_label_name(&name) {
                return Err(GroupsError::Content(format!("{name:?} is no label name")));
            }
            shared.push((name.into(), value.into()));
        }
        shared.push((FILEPATH_LABEL.into(), Arc::clone(&shown)));
        for address in group.targets.unwrap_or_default() {
            let own = (Arc::from(ADDRESS_LABEL), Arc::from(address));
            // Of equal names the last one counts: a target's own label wins over its group's.
            targets.push(shared.iter().cloned().chain([own]).collect());
        }
    }
    Ok(targets)
}

//! Which commit of a repository is wanted: from the settings to what the server lists.

use super::protocol::RemoteReference;
use super::repository::object_id;
use super::version_range::{VersionRange, version_of};
use crate::error::Failure;
use crate::settings::GitSettings;

/// What the full names of tags begin with.
const TAGS: &str = "refs/tags/";

/// What the settings ask for; of several the first in this order decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    Commit {
        id: String,
        branch: Option<String>,
    },
    /// A reference in full.
    Reference(String),
    /// A branch or tag in short form.
    Short(String),
    /// The highest version among the tags.
    Semver(VersionRange),
    Tag(String),
    Branch(String),
    /// A tag, else a branch, else a commit in full: what modules ask for.
    Revision(String),
    Head,
}

/// What the reference named when it was looked up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Resolved {
    /// The short form, for revisions.
    pub(super) name: String,
    /// The object the reference names; of an annotated tag this is not the commit.
    pub(super) object: String,
    pub(super) commit: String,
    /// Whether the reference is a tag, which is not expected to move.
    pub(super) is_tag: bool,
    /// The branch behind `HEAD`.
    pub(super) target: Option<String>,
}

impl Wanted {
    pub(super) fn new(git: &GitSettings) -> Result<Self, Failure> {
        if let Some(commit) = &git.commit {
            let id = object_id(&commit.to_ascii_lowercase())
                .map_err(|failure| failure.with_help("`git.commit` is a full id; use `ref` for names"))?;
            return Ok(Self::Commit { id: id.to_string(), branch: git.branch.clone() });
        }
        let checked = |name: &String, key: &str| {
            let full = format!("refs/heads/{name}");
            let usable = git2::Reference::is_valid_name(&full) && name.len() <= 255;
            if usable {
                Ok(name.clone())
            } else {
                Err(Failure::stalled(format!("`git.{key}`: `{name}` is not a reference's name")))
            }
        };
        match (&git.reference, &git.semver, &git.tag, &git.branch) {
            (Some(name), ..) if name == "HEAD" => Ok(Self::Head),
            (Some(name), ..) if name.starts_with("refs/") => checked(name, "ref").map(Self::Reference),
            (Some(name), ..) => checked(name, "ref").map(Self::Short),
            (None, Some(range), ..) => VersionRange::parse(range).map(Self::Semver).map_err(|why| {
                Failure::stalled(format!("`git.semver`: `{range}` is not a range of versions: {why}"))
                    .with_help("such as `1.x`, `^1.2` or `>=1.0 <2`")
            }),
            (None, None, Some(tag), _) => checked(tag, "tag").map(Self::Tag),
            (None, None, None, Some(branch)) => checked(branch, "branch").map(Self::Branch),
            (None, None, None, None) => Ok(Self::Head),
        }
    }

    /// What a module's `revision` asks for.
    pub(super) fn revision(name: &str) -> Result<Self, Failure> {
        if name.is_empty() {
            return Err(Failure::stalled("`revision` is empty; name a tag, a branch or a commit"));
        }
        // Names that Git itself gives another meaning in every clone.
        if name == "@" || name == "HEAD" || name.ends_with("_HEAD") {
            return Err(Failure::stalled(format!("`revision` cannot be `{name}`"))
                .with_help("name a tag, a branch or a commit"));
        }
        if name.starts_with("refs/") {
            let usable = git2::Reference::is_valid_name(name) && name.len() <= 255;
            return match usable {
                true => Ok(Self::Reference(name.to_owned())),
                false => Err(Failure::stalled(format!("`revision`: `{name}` is not a reference's name"))),
            };
        }
        let usable = git2::Reference::is_valid_name(&format!("refs/heads/{name}")) && name.len() <= 255;
        if usable {
            Ok(Self::Revision(name.to_owned()))
        } else {
            Err(Failure::stalled(format!("`revision`: `{name}` is not a reference's name")))
        }
    }

    /// The commit that this asks for where no reference has the name.
    pub(super) fn as_commit(&self) -> Option<Resolved> {
        let Self::Revision(name) = self else { return None };
        let id = object_id(&name.to_ascii_lowercase()).ok()?.to_string();
        Some(Resolved {
            name: id.chars().take(12).collect(),
            object: id.clone(),
            commit: id,
            is_tag: false,
            target: None,
        })
    }

    /// For people, and part of what identifies the selection.
    pub(super) fn describe(&self) -> String {
        match self {
            Self::Commit { id, .. } => id.chars().take(12).collect(),
            Self::Reference(name)
            | Self::Short(name)
            | Self::Tag(name)
            | Self::Branch(name)
            | Self::Revision(name) => name.clone(),
            Self::Semver(range) => range.to_string(),
            Self::Head => "HEAD".to_owned(),
        }
    }

    /// The full names to look for, the preferred one first, or what they begin with; empty for a commit.
    pub(super) fn candidates(&self) -> Vec<String> {
        match self {
            Self::Commit { .. } => Vec::new(),
            Self::Reference(name) => vec![name.clone()],
            Self::Short(name) => vec![format!("refs/heads/{name}"), format!("refs/tags/{name}")],
            Self::Semver(_) => vec![TAGS.to_owned()],
            Self::Tag(name) => vec![format!("refs/tags/{name}")],
            Self::Branch(name) => vec![format!("refs/heads/{name}")],
            Self::Revision(name) => vec![format!("refs/tags/{name}"), format!("refs/heads/{name}")],
            Self::Head => vec!["HEAD".to_owned()],
        }
    }

    /// Picks the reference out of those a server lists.
    pub(super) fn resolve(&self, references: &[RemoteReference]) -> Option<Resolved> {
        let found = match self {
            Self::Semver(range) => highest(range, references),
            _ => self
                .candidates()
                .iter()
                .find_map(|name| references.iter().find(|reference| &reference.name == name)),
        };
        let found = found.filter(|reference| !reference.object.is_empty())?;
        Some(Resolved {
            name: short(&found.name).to_owned(),
            object: found.object.clone(),
            commit: found.peeled.clone().unwrap_or_else(|| found.object.clone()),
            is_tag: found.name.starts_with("refs/tags/"),
            target: found.target.clone(),
        })
    }
}

/// The tag with the highest version in the range; tags that are no versions are not looked at.
fn highest<'a>(range: &VersionRange, references: &'a [RemoteReference]) -> Option<&'a RemoteReference> {
    let tags = references.iter().filter(|reference| reference.name.starts_with(TAGS));
    let versions = tags.filter_map(|tag| Some((&tag.name, version_of(short(&tag.name))?)));
    let name = range.highest(versions)?;
    references.iter().find(|reference| reference.name == *name)
}

/// `main` for `refs/heads/main`.
pub(super) fn short(name: &str) -> &str {
    name.strip_prefix("refs/heads/").or_else(|| name.strip_prefix("refs/tags/")).unwrap_or(name)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::error::ErrorClass;

    fn reference(name: &str, object: &str) -> RemoteReference {
        RemoteReference { name: name.to_owned(), object: object.to_owned(), peeled: None, target: None }
    }

    #[test]
    fn the_first_of_commit_ref_semver_tag_branch_decides() {
        let mut git = GitSettings { branch: Some("main".to_owned()), ..GitSettings::default() };
        assert_eq!(Wanted::new(&git).unwrap(), Wanted::Branch("main".to_owned()));
        git.tag = Some("v1".to_owned());
        assert_eq!(Wanted::new(&git).unwrap(), Wanted::Tag("v1".to_owned()));
        git.semver = Some("1.x".to_owned());
        assert!(matches!(Wanted::new(&git).unwrap(), Wanted::Semver(_)));
        git.reference = Some("refs/heads/x".to_owned());
        assert_eq!(Wanted::new(&git).unwrap(), Wanted::Reference("refs/heads/x".to_owned()));
        git.commit = Some("AB".repeat(20));
        let commit = Wanted::Commit { id: "ab".repeat(20), branch: Some("main".to_owned()) };
        assert_eq!(Wanted::new(&git).unwrap(), commit);
        assert_eq!(Wanted::new(&GitSettings::default()).unwrap(), Wanted::Head);
    }

    #[test]
    fn a_modules_revision_is_a_tag_before_a_branch_before_a_commit() {
        let listed =
            [reference("refs/heads/x", "1"), reference("refs/tags/x", "2"), reference("refs/heads/y", "3")];
        let resolve = |name: &str| {
            let wanted = Wanted::revision(name).unwrap();
            wanted.resolve(&listed).or_else(|| wanted.as_commit()).map(|resolved| resolved.commit)
        };
        assert_eq!(resolve("x").as_deref(), Some("2"));
        assert_eq!(resolve("y").as_deref(), Some("3"));
        assert_eq!(resolve(&"AB".repeat(20)), Some("ab".repeat(20)));
        assert_eq!(resolve("z"), None);
        for name in ["HEAD", "FETCH_HEAD", "ORIG_HEAD", "@", "", "a..b", "a\nwant b"] {
            assert_eq!(Wanted::revision(name).unwrap_err().class, ErrorClass::Stalled, "{name}");
        }
    }

    #[test]
    fn unusable_names_stall() {
        for git in [
            GitSettings { branch: Some("a..b".to_owned()), ..GitSettings::default() },
            GitSettings { branch: Some("a\nwant x".to_owned()), ..GitSettings::default() },
            GitSettings { commit: Some("abc".to_owned()), ..GitSettings::default() },
            GitSettings { semver: Some("latest".to_owned()), ..GitSettings::default() },
        ] {
            assert_eq!(Wanted::new(&git).unwrap_err().class, ErrorClass::Stalled, "{git:?}");
        }
    }

    #[test]
    fn a_short_name_is_a_branch_before_it_is_a_tag() {
        let listed =
            [reference("refs/tags/x", "2"), reference("refs/heads/x", "1"), reference("refs/heads/xy", "3")];
        let resolved = Wanted::Short("x".to_owned()).resolve(&listed).unwrap();
        assert_eq!((resolved.commit.as_str(), resolved.is_tag), ("1", false));
        assert_eq!(Wanted::Branch("xyz".to_owned()).resolve(&listed), None);
    }
}

//! Submodules, where the settings ask for them: the commit that the parent names is fetched with depth 1, and its files take
//! their place in the snapshot. What `.gitmodules` says is the repository's word: it may name the source's own host and those
//! that the settings allow, over HTTPS or SSH, and no credential goes anywhere but to the source's own origin.

use std::collections::BTreeMap;

use git2::Repository;
use url::Url;

use super::gitmodules::parse_modules;
use super::reference::Wanted;
use super::repository::{ReadError, object_id};
use super::ssh::{SshAddress, is_scp_like};
use super::tree::{Gitlink, Reading};
use super::{GitSource, Wire, is_ssh};
use crate::SourceEnvironment;
use crate::error::{ErrorClass, Failure, Rejection};
use crate::settings::{GitSettings, SourceSettings, Submodules};
use crate::snapshot::Files;
use crate::source::{BoxFuture, PollContext, TreeEntry};
use crate::units::display_size;

/// How deep submodules may be nested.
const LEVEL_LIMIT: u8 = 3;
/// How many submodules one level may have in what is selected.
const MODULE_LIMIT: usize = 100;
/// The longest `.gitmodules`, in bytes.
const FILE_LIMIT: usize = 1024 * 1024;

/// What a source needs to reach its submodules.
#[derive(Debug)]
pub(super) struct Family {
    settings: SourceSettings,
    environment: SourceEnvironment,
    /// The source's own address: hosts and credentials are measured against it on every level.
    root: String,
    level: u8,
}

impl Family {
    /// `None` where submodules are left out.
    pub(super) fn of(
        settings: &SourceSettings,
        git: &GitSettings,
        environment: &SourceEnvironment,
    ) -> Option<Self> {
        (git.submodules == Submodules::Shallow).then(|| Self {
            settings: settings.clone(),
            environment: environment.clone(),
            root: git.url.clone(),
            level: 0,
        })
    }
}

/// Who is behind an address: the same origin may get the same credential.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Origin {
    scheme: String,
    host: String,
    port: u16,
    /// Whoever is asked for at an SSH server.
    user: Option<String>,
}

impl Origin {
    fn of(url: &str) -> Option<Self> {
        if is_ssh(url) {
            let address = SshAddress::parse(url).ok()?;
            return Some(Self {
                scheme: "ssh".to_owned(),
                host: address.host.to_ascii_lowercase(),
                port: address.port,
                user: Some(address.user),
            });
        }
        let parsed = Url::parse(url).ok()?;
        Some(Self {
            scheme: parsed.scheme().to_owned(),
            host: parsed.host_str()?.to_owned(),
            port: parsed.port_or_known_default()?,
            user: None,
        })
    }
}

impl GitSource {
    /// Fetches the submodules that a reading came across, and puts their files into their places.
    pub(super) fn follow_submodules<'a>(
        &'a self,
        reading: &'a mut Reading,
        commit: &'a str,
        context: &'a PollContext,
    ) -> BoxFuture<'a, Result<(), Failure>> {
        Box::pin(async move {
            let links = std::mem::take(&mut reading.links);
            let Some(family) = self.family.as_ref().filter(|_| !links.is_empty()) else { return Ok(()) };
            if family.level >= LEVEL_LIMIT {
                let message =
                    format!("submodules are nested more than {LEVEL_LIMIT} deep at `{}`", links[0].shown);
                return Err(Failure::rejected(Rejection::Limits, message));
            }
            if links.len() > MODULE_LIMIT {
                let message = format!("more than {MODULE_LIMIT} submodules are selected");
                return Err(
                    Failure::rejected(Rejection::Limits, message).with_help("select less with `path`")
                );
            }
            let id = object_id(commit)?;
            let places = self
                .blocking_read(move |clone| modules_of(&clone.open()?, id))
                .await
                .map_err(|error| self.whole(error))?;
            for link in links {
                let shown = link.shown.clone();
                let files = self.submodule(family, link, &places, context).await.map_err(|failure| {
                    Failure { message: format!("submodule `{shown}`: {}", failure.message), ..failure }
                })?;
                for (path, content) in files {
                    let path = match (shown.as_str(), path.as_str()) {
                        ("", path) => path.to_owned(),
                        (shown, "") => shown.to_owned(),
                        (shown, path) => format!("{shown}/{path}"),
                    };
                    reading.files.insert(path, content);
                }
                self.check_size(&reading.files)?;
            }
            if reading.files.is_empty() {
                let message = format!("the commit has no files at {}", self.settings.paths.join(", "));
                return Err(Failure::rejected(Rejection::EmptySource, message));
            }
            Ok(())
        })
    }

    /// What a file of the snapshot imports out of a submodule.
    pub(super) async fn entry_of_submodule(
        &self,
        link: Gitlink,
        commit: &str,
        context: &PollContext,
    ) -> Result<Option<TreeEntry>, Failure> {
        let path = link.shown.clone();
        let mut reading = Reading { links: vec![link], ..Reading::default() };
        match self.follow_submodules(&mut reading, commit, context).await {
            Ok(()) => Ok(TreeEntry::among(&reading.files, &path)),
            Err(failure) if failure.class == ErrorClass::Rejected(Rejection::EmptySource) => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    /// The files of one submodule, relative to where it was selected.
    async fn submodule(
        &self,
        family: &Family,
        link: Gitlink,
        places: &BTreeMap<String, String>,
        context: &PollContext,
    ) -> Result<Files, Failure> {
        let Some(url) = places.get(&link.path) else {
            return Err(Failure::rejected(Rejection::Shape, "`.gitmodules` does not say where it is"));
        };
        let child = self.child(family, url, &link)?;
        let mut read = child.fetch_and_read(&link.commit, None, context).await;
        if let Err(ReadError::Damaged(_)) = &read {
            child.blocking(|clone| clone.wipe()).await?;
            read = child.fetch_and_read(&link.commit, None, context).await;
        }
        let followed = match read {
            Ok(mut reading) => {
                let followed = child.follow_submodules(&mut reading, &link.commit, context).await;
                followed.map(|()| reading.files)
            }
            Err(error) => Err(child.whole(error)),
        };
        if let Wire::Remote(wire) = &child.wire {
            wire.rest().await;
        }
        let files = match followed {
            Ok(files) => files,
            // What is selected need not be everywhere.
            Err(failure) if failure.class == ErrorClass::Rejected(Rejection::EmptySource) => Files::new(),
            Err(failure) if failure.class == ErrorClass::NotFound => {
                let message = format!(
                    "{} does not have, or does not hand out, commit {:.12}",
                    child.settings.git.url, link.commit
                );
                return Err(Failure::new(ErrorClass::NotFound, message).with_help(
                    "push the commit to the submodule's repository; it has to be on a branch or tag",
                ));
            }
            Err(failure) => return Err(failure),
        };
        let below = link.rest.as_str();
        let relative = |path: String| match path.strip_prefix(below) {
            Some(rest) => rest.trim_start_matches('/').to_owned(),
            None => path,
        };
        Ok(files.into_iter().map(|(path, content)| (relative(path), content)).collect())
    }

    fn child(&self, family: &Family, url: &str, link: &Gitlink) -> Result<Self, Failure> {
        let refused = |why: String| Err(Failure::rejected(Rejection::Shape, why));
        let shown = crate::redact(url);
        let Some(url) = resolve(&self.settings.git.url, url) else {
            return refused(format!("its address `{shown}` leads nowhere"));
        };
        let (Some(root), Some(origin)) = (Origin::of(&family.root), Origin::of(&url)) else {
            return refused(format!("its address `{shown}` is not one of a server"));
        };
        let is_same = origin == root;
        if !matches!(origin.scheme.as_str(), "https" | "ssh") && !is_same {
            return refused(format!("its address `{shown}` is neither https:// nor ssh://"));
        }
        let allowed = &self.settings.git.submodule_hosts;
        if origin.host != root.host && !allowed.iter().any(|host| host.eq_ignore_ascii_case(&origin.host)) {
            return Err(Failure::rejected(
                Rejection::Shape,
                format!("it is on the host `{}`, which the settings do not allow", origin.host),
            )
            .with_help("add the host to `git.submodule_hosts`"));
        }
        if origin.scheme == "ssh" && !is_same {
            return Err(Failure::rejected(
                Rejection::Shape,
                format!("`{shown}` is reached over SSH, which needs a key, and the source's own is for its own server"),
            )
            .with_help("use a relative address in `.gitmodules`, such as ../module.git"));
        }
        let mut settings = family.settings.clone();
        settings.path = vec![link.rest.clone()];
        if !is_same {
            settings.auth = None;
            if let Some(tls) = &mut settings.tls {
                (tls.cert, tls.key, tls.server_name) = (None, None, None);
            }
        }
        let git = GitSettings {
            url,
            submodules: Submodules::Shallow,
            submodule_hosts: allowed.clone(),
            ..GitSettings::default()
        };
        let wanted = Wanted::Commit { id: link.commit.clone(), branch: None };
        let depth = self.settings.depth;
        let mut child =
            Self::assemble(&settings, git, wanted, depth, &family.environment, self.name.clone())?;
        child.family = Some(Family {
            settings,
            environment: family.environment.clone(),
            root: family.root.clone(),
            level: family.level + 1,
        });
        Ok(child)
    }

    fn whole(&self, error: ReadError) -> Failure {
        match error {
            ReadError::Failed(failure) => failure,
            ReadError::Damaged(reason) => Failure::transient(format!(
                "{} sends a commit that is not complete: {reason}",
                self.settings.git.url
            )),
        }
    }

    /// The limits hold for all submodules together.
    fn check_size(&self, files: &Files) -> Result<(), Failure> {
        let limits = &self.settings.limits;
        let bytes: u64 = files.values().map(|content| content.len() as u64).sum();
        let exceeded = |what: String, key: &str| {
            Err(Failure::rejected(Rejection::Limits, what)
                .with_help(format!("select less with `path`, or raise `limits.{key}`")))
        };
        if files.len() > limits.files {
            return exceeded(format!("more than {} files are selected", limits.files), "files");
        }
        if bytes > limits.bytes {
            return exceeded(
                format!("the selected files have more than {}", display_size(limits.bytes)),
                "bytes",
            );
        }
        Ok(())
    }
}

/// What `.gitmodules` of a commit says; blocks.
fn modules_of(repository: &Repository, commit: git2::Oid) -> Result<BTreeMap<String, String>, ReadError> {
    let tree = repository.find_commit(commit)?.tree()?;
    let Some(entry) = tree.get_name(".gitmodules") else { return Ok(BTreeMap::new()) };
    let database = repository.odb()?;
    let (size, kind) = database.read_header(entry.id())?;
    if size > FILE_LIMIT || kind != git2::ObjectType::Blob || entry.filemode() == 0o120_000 {
        let message = "`.gitmodules` is no file, or one of more than 1 MiB";
        return Err(Failure::rejected(Rejection::Shape, message).into());
    }
    Ok(parse_modules(&String::from_utf8_lossy(database.read(entry.id())?.data())))
}

/// The address of a submodule, which may be relative to its parent's.
fn resolve(parent: &str, url: &str) -> Option<String> {
    if !url.starts_with("./") && !url.starts_with("../") {
        return Some(url.to_owned());
    }
    let start = match parent.split_once("://") {
        Some((scheme, rest)) => scheme.len() + 3 + rest.find('/')?,
        None if is_scp_like(parent) => parent.find(':')? + 1,
        None => return None,
    };
    let (place, path) = parent.split_at(start);
    let rooted = path.starts_with('/');
    let mut names: Vec<&str> = path.split('/').filter(|name| !name.is_empty()).collect();
    for name in url.split('/') {
        match name {
            "" | "." => {}
            ".." => drop(names.pop()?),
            name => names.push(name),
        }
    }
    if names.is_empty() {
        return None;
    }
    Some(format!("{place}{}{}", if rooted { "/" } else { "" }, names.join("/")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relative_addresses_begin_at_the_parent() {
        for (parent, url, expected) in [
            ("https://h/obs/fleet.git", "../net.git", Some("https://h/obs/net.git")),
            ("https://h:8443/obs/fleet.git/", "../../x/net.git", Some("https://h:8443/x/net.git")),
            ("https://h/obs/fleet.git", "./net", Some("https://h/obs/fleet.git/net")),
            ("https://h/fleet.git", "../../x", None),
            ("https://h/fleet.git", "../", None),
            ("git@h:obs/fleet.git", "../net.git", Some("git@h:obs/net.git")),
            ("ssh://git@h:22/obs/fleet.git", "../net.git", Some("ssh://git@h:22/obs/net.git")),
            ("/srv/fleet.git", "../net.git", None),
            ("https://h/x", "https://other/y", Some("https://other/y")),
        ] {
            assert_eq!(resolve(parent, url).as_deref(), expected, "{parent} {url}");
        }
    }

    #[test]
    fn an_origin_is_scheme_host_port_and_the_user_of_ssh() {
        assert_eq!(Origin::of("https://h/x"), Origin::of("https://h:443/y"));
        assert_eq!(Origin::of("git@h:x"), Origin::of("ssh://git@H/y"));
        for (one, other) in [
            ("https://h/x", "http://h/x"),
            ("https://h/x", "https://h:8443/x"),
            ("https://h/x", "ssh://git@h/x"),
            ("git@h:x", "ada@h:x"),
            ("https://h/x", "https://h.example/x"),
        ] {
            assert_ne!(Origin::of(one), Origin::of(other), "{one} {other}");
        }
        for url in ["/srv/x", "file:///srv/x", "ext::sh -c x", "-oProxyCommand=x:y"] {
            assert_eq!(Origin::of(url), None, "{url}");
        }
    }
}

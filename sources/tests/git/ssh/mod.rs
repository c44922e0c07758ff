//! Git over SSH against a real `sshd`: what a poll costs, who is let in, and what is said when nobody is.

mod access;
mod faults;
mod host_keys;
mod proxies;

use std::path::PathBuf;

use invar_secrets::{Credential, Secret};
use invar_sources::{AuthSettings, HostKeyPolicy, SshSettings};

use super::sshd::{Sshd, SshdOptions, generate_key};
use super::*;

/// A repository behind an SSH server that lets in who has the key.
pub(super) struct SshWorld {
    pub(super) folder: TempDir,
    pub(super) repository: TestRepository,
    pub(super) server: Sshd,
    pub(super) key: PathBuf,
}

/// `None`, with a note, where `sshd` is not installed.
pub(super) fn ssh_world(options: &SshdOptions) -> Option<SshWorld> {
    if !sshd::is_available() {
        skipped("sshd, ssh-keygen and git are not installed");
        return None;
    }
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("repositories");
    std::fs::create_dir_all(&root).unwrap();
    let repository = TestRepository::create(&root, "fleet.git");
    let bare = repository.path().to_str().unwrap().to_owned();
    repository.git(&["--git-dir", &bare, "config", "uploadpack.allowFilter", "true"]);
    let server = Sshd::start(&folder.path().join("sshd"), options).unwrap();
    let key = folder.path().join("id_ed25519");
    generate_key(&key, "ed25519", "");
    server.admit(&key);
    Some(SshWorld { folder, repository, server, key })
}

impl SshWorld {
    pub(super) fn environment(&self) -> SourceEnvironment {
        SourceEnvironment {
            state_directory: self.folder.path().join("state"),
            secrets: SecretStores::local(),
        }
    }

    /// Writes a `known_hosts` file.
    pub(super) fn known_hosts(&self, text: &str) -> PathBuf {
        let file = self.folder.path().join("known_hosts");
        std::fs::write(&file, text).unwrap();
        file
    }

    /// The key of the settings, and the server's key in `known_hosts`.
    pub(super) fn ssh(&self) -> SshSettings {
        SshSettings {
            key: Some(Credential::File(self.key.clone())),
            known_hosts: Some(self.known_hosts(&self.server.known_hosts("ed25519"))),
            ..SshSettings::default()
        }
    }

    pub(super) fn settings(&self, ssh: SshSettings) -> SourceSettings {
        SourceSettings {
            name: Some("platform".to_owned()),
            auth: Some(AuthSettings { ssh: Some(ssh), ..AuthSettings::default() }),
            ..SourceSettings::for_git(GitSettings {
                url: self.server.url(self.repository.path()),
                branch: Some("main".to_owned()),
                ..GitSettings::default()
            })
        }
    }

    pub(super) fn open(&self, ssh: SshSettings) -> GitSource {
        GitSource::open(&self.settings(ssh), &self.environment()).unwrap()
    }

    pub(super) fn source(&self) -> GitSource {
        self.open(self.ssh())
    }
}

#[tokio::test]
async fn a_poll_makes_one_connection_whatever_it_finds() {
    let Some(world) = ssh_world(&SshdOptions::default()) else { return };
    let one = world.repository.commit("One", &[("base/a.alloy", "one"), ("README.md", "x")]);
    let source = world.source();
    let first = changed(&source, None).await;
    assert_eq!(first.revision.text, format!("main@sha1:{one}"));
    assert_eq!(first.files["base/a.alloy"], "one");
    assert!(first.notices.is_empty(), "{:?}", first.notices);
    assert_eq!(world.server.logins(), 1, "listing and fetching share a connection");
    for polls in 2..5 {
        assert_eq!(poll(&source, Some(&first)).await.unwrap(), None);
        assert_eq!(world.server.logins(), polls);
    }
    world.repository.commit("Two", &[("base/a.alloy", "two")]);
    let second = changed(&source, Some(&first)).await;
    assert_eq!(second.files["base/a.alloy"], "two");
    assert_eq!(second.files["README.md"], "x");
    assert_eq!(world.server.logins(), 5);
    // A force push is looked into on the same connection, with several fetches.
    world.repository.git(&["checkout", "-q", "--orphan", "fresh"]);
    world.repository.git(&["branch", "-D", "-q", "main"]);
    world.repository.git(&["branch", "-m", "main"]);
    world.repository.commit("Three", &[("base/a.alloy", "three")]);
    let third = changed(&source, Some(&second)).await;
    assert!(third.notices.iter().any(|notice| notice.kind == NoticeKind::HistoryRewritten));
    assert_eq!(world.server.logins(), 6);
    let shown = format!("{source:?} {}", source.description());
    assert!(!shown.contains("PRIVATE"), "{shown}");
}

#[tokio::test]
async fn a_server_that_refuses_the_environment_is_spoken_to_in_the_old_version() {
    let options = SshdOptions { old_protocol: true, ..SshdOptions::default() };
    let Some(world) = ssh_world(&options) else { return };
    world.repository.commit("One", &[("a.alloy", "one")]);
    let source = world.source();
    let first = changed(&source, None).await;
    assert_eq!(poll(&source, Some(&first)).await.unwrap(), None);
    world.repository.commit("Two", &[("a.alloy", "two")]);
    let second = changed(&source, Some(&first)).await;
    assert_eq!(second.files["a.alloy"], "two");
    assert!(second.notices.is_empty(), "{:?}", second.notices);
    // Several fetches are several runs of the command on one connection.
    world.repository.git(&["reset", "-q", "--hard", "HEAD~1"]);
    world.repository.commit("Three", &[("a.alloy", "three")]);
    let third = changed(&source, Some(&second)).await;
    assert!(third.notices.iter().any(|notice| notice.kind == NoticeKind::HistoryRewritten));
    assert_eq!(world.server.logins(), 4);
}

#[tokio::test]
async fn the_forms_of_an_address_lead_to_the_same_repository() {
    let Some(world) = ssh_world(&SshdOptions::default()) else { return };
    let one = world.repository.commit("One", &[("a.alloy", "one")]);
    let plain = world.server.url(world.repository.path());
    let repository = world.repository.path().to_str().unwrap();
    for url in [plain.clone(), format!("git+{plain}"), plain.replace("127.0.0.1", "localhost")] {
        let mut settings = world.settings(world.ssh());
        settings.git.as_mut().unwrap().url.clone_from(&url);
        let known = world.server.known_hosts("ed25519");
        world.known_hosts(&format!("{known}{}", known.replace("127.0.0.1", "localhost")));
        let source = GitSource::open(&settings, &world.environment()).unwrap();
        assert_eq!(changed(&source, None).await.revision.commit.as_deref(), Some(one.as_str()), "{url}");
    }
    let parsed = invar_sources::parse_address(&format!("git+{plain}//base?branch=main")).unwrap();
    assert_eq!(parsed.git.unwrap().url, plain);
    assert_eq!(parsed.path, ["base"]);
    // In this form there is no place for a port, so that only its reading is shown here.
    let parsed = invar_sources::parse_address(&format!("git@localhost:{repository}?tag=v1")).unwrap();
    assert_eq!(parsed.git.unwrap().tag.as_deref(), Some("v1"));
}

#[tokio::test]
async fn references_are_found_over_ssh_as_over_http() {
    let Some(world) = ssh_world(&SshdOptions::default()) else { return };
    let one = world.repository.commit("One", &[("a.alloy", "one")]);
    world.repository.git(&["tag", "-a", "-m", "v1", "v1"]);
    world.repository.git(&["push", "-q", "origin", "v1"]);
    world.repository.commit("Two", &[("a.alloy", "two")]);
    let with = |change: &dyn Fn(&mut GitSettings)| {
        let mut settings = world.settings(world.ssh());
        change(settings.git.as_mut().unwrap());
        GitSource::open(&settings, &world.environment()).unwrap()
    };
    let tag = with(&|git| git.tag = Some("v1".to_owned()));
    assert_eq!(changed(&tag, None).await.files["a.alloy"], "one");
    let commit = with(&|git| git.commit = Some(one.clone()));
    assert_eq!(changed(&commit, None).await.files["a.alloy"], "one");
    let head = with(&|git| git.branch = None);
    assert_eq!(changed(&head, None).await.files["a.alloy"], "two");
    let absent = with(&|git| git.branch = Some("mian".to_owned()));
    let error = failed(&absent, None).await;
    assert_eq!(error.class, ErrorClass::NotFound);
    assert_eq!(error.help.as_deref(), Some("did you mean `main`?"));
}

#[tokio::test]
async fn a_module_is_read_over_ssh() {
    let Some(world) = ssh_world(&SshdOptions::default()) else { return };
    world.repository.commit("One", &[("net/a.alloy", "a"), ("net/README.md", "r")]);
    let module = invar_sources::GitModule {
        name: "import.git.net".into(),
        repository: world.server.url(world.repository.path()),
        revision: "main".to_owned(),
        path: "net".to_owned(),
        auth: world.settings(world.ssh()).auth,
        interval: Some(Duration::from_secs(60)),
    };
    let source = GitSource::for_module(&module, &world.environment()).unwrap();
    let first = changed(&source, None).await;
    assert_eq!(paths(&first), ["net/a.alloy"]);
    assert_eq!(poll(&source, Some(&first)).await.unwrap(), None);
    assert_eq!(world.server.logins(), 2);
}

#[tokio::test]
async fn submodules_are_followed_over_ssh() {
    let Some(world) = ssh_world(&SshdOptions::default()) else { return };
    let root = world.repository.path().parent().unwrap();
    let net = TestRepository::create(root, "net.git");
    let bare = net.path().to_str().unwrap().to_owned();
    net.git(&["--git-dir", &bare, "config", "uploadpack.allowAnySHA1InWant", "true"]);
    let commit = net.commit("Net", &[("n.alloy", "net")]);
    world.repository.commit("One", &[("a.alloy", "one")]);
    let work = world.repository.work();
    std::fs::write(work.join(".gitmodules"), "[submodule \"net\"]\n\tpath = net\n\turl = ../net.git\n")
        .unwrap();
    world.repository.git(&["add", ".gitmodules"]);
    world.repository.git(&["update-index", "--add", "--cacheinfo", &format!("160000,{commit},net")]);
    world.repository.git(&["commit", "-q", "-m", "Module"]);
    world.repository.git(&["push", "-q", "origin", "HEAD"]);
    let mut settings = world.settings(world.ssh());
    settings.git.as_mut().unwrap().submodules = invar_sources::Submodules::Shallow;
    let source = GitSource::open(&settings, &world.environment()).unwrap();
    assert_eq!(changed(&source, None).await.files["net/n.alloy"], "net");
    assert_eq!(world.server.logins(), 2, "one connection for each repository");
}

/// Keys can be given as text too, as stores of secrets do.
pub(super) fn text(path: &Path) -> Credential {
    Credential::Text(Secret::new(std::fs::read_to_string(path).unwrap()))
}

pub(super) fn tofu(ssh: SshSettings) -> SshSettings {
    SshSettings { host_key: HostKeyPolicy::Tofu, ..ssh }
}

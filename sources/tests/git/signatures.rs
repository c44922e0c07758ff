//! Repositories that are signed, half signed, and attacked: histories made with real `git commit -S`.

use std::path::{Path, PathBuf};
use std::process::Command;

use invar_sources::{HistoryPolicy, NoticeKind, OfflineVerification, VerifyMode, VerifySettings, Vouched};

use super::*;

#[path = "../../../integration/servers/git/gpg.rs"]
#[allow(dead_code, unreachable_pub)]
mod gpg;

const ADA: &str = "ada@example.com";

/// A repository whose commits Ada signs, unless told otherwise.
struct Signed {
    world: World,
}

/// `None`, with a note, where what is needed is not installed.
fn signed() -> Option<Signed> {
    let world = world()?;
    let keys = world.folder.path().join("keys");
    std::fs::create_dir_all(&keys).unwrap();
    for name in ["ada", "bob", "eve"] {
        let made = Command::new("ssh-keygen")
            .args(["-q", "-t", "ed25519", "-N", "", "-C", name, "-f"])
            .arg(keys.join(name))
            .status();
        if !made.is_ok_and(|status| status.success()) {
            assert!(std::env::var_os("INVAR_REQUIRE_SERVERS").is_none(), "ssh-keygen is not installed");
            eprintln!("skipped: ssh-keygen is not installed");
            return None;
        }
    }
    let signed = Signed { world };
    signed.git(&["config", "gpg.format", "ssh"]);
    signed.sign_as("ada");
    signed.allow("ada@example.com ADA\nbob@example.com BOB\n");
    Some(signed)
}

impl Signed {
    fn git(&self, arguments: &[&str]) -> String {
        self.world.repository.git(arguments)
    }

    fn key(&self, name: &str) -> PathBuf {
        self.world.folder.path().join("keys").join(name)
    }

    fn sign_as(&self, name: &str) {
        self.git(&["config", "user.signingkey", self.key(name).to_str().unwrap()]);
        self.git(&["config", "commit.gpgsign", "true"]);
    }

    fn sign_no_more(&self) {
        self.git(&["config", "commit.gpgsign", "false"]);
    }

    fn allowed(&self) -> PathBuf {
        self.world.folder.path().join("allowed_signers")
    }

    /// Writes the file of keys; `ADA`, `BOB` and `EVE` stand for their public keys.
    fn allow(&self, lines: &str) {
        let public = |name: &str| {
            let text = std::fs::read_to_string(self.key(&format!("{name}.pub"))).unwrap();
            text.trim().to_owned()
        };
        let lines = lines
            .replace("ADA", &public("ada"))
            .replace("BOB", &public("bob"))
            .replace("EVE", &public("eve"));
        std::fs::write(self.allowed(), lines).unwrap();
    }

    fn commit(&self, content: &str) -> String {
        self.world.repository.commit(content, &[("a.alloy", content)])
    }

    /// A commit of somebody who can push and does not sign.
    fn unsigned(&self, content: &str) -> String {
        self.sign_no_more();
        let commit = self.commit(content);
        self.sign_as("ada");
        commit
    }

    fn push(&self) {
        self.git(&["push", "-q", "--force", "--tags", "origin", "HEAD"]);
    }

    fn settings(&self, mode: VerifyMode) -> SourceSettings {
        let ssh = Some(self.allowed());
        SourceSettings {
            verify: VerifySettings { mode, ssh, ..VerifySettings::default() },
            ..self.world.settings()
        }
    }

    fn source(&self, mode: VerifyMode) -> GitSource {
        self.world.open(&self.settings(mode))
    }

    fn tag_source(&self, tag: &str, allow_tag_move: bool) -> GitSource {
        let mut settings = self.settings(VerifyMode::Tag);
        let git = settings.git.as_mut().unwrap();
        (git.branch, git.tag, git.allow_tag_move) = (None, Some(tag.to_owned()), allow_tag_move);
        self.world.open(&settings)
    }

    fn url(&self) -> String {
        format!("file://{}", self.world.repository.path().display())
    }
}

fn refused(error: &SourceError, said: &[&str]) {
    assert_eq!(error.class, ErrorClass::Rejected(Rejection::Verification), "{error}");
    let text = format!("{error}; {}", error.help.as_deref().unwrap_or_default());
    for said in said {
        assert!(text.contains(said), "`{said}` is not in: {text}");
    }
}

async fn poll_at(
    source: &GitSource,
    previous: Option<&Snapshot>,
    now: &str,
) -> Result<Option<Snapshot>, SourceError> {
    let now: jiff::Timestamp = now.parse().unwrap();
    let context = PollContext { now: now.try_into().unwrap(), ..context() };
    Ok(match source.poll(previous, &context).await? {
        Poll::Unchanged => None,
        Poll::Changed(snapshot) => Some(*snapshot),
    })
}

#[tokio::test]
async fn a_signed_head_is_read_and_says_who_signed() {
    let Some(signed) = signed() else { return };
    let one = signed.commit("one");
    for url in [None, Some(signed.url())] {
        let mut settings = signed.settings(VerifyMode::Head);
        if let Some(url) = url {
            settings.git.as_mut().unwrap().url = url;
        }
        let source = signed.world.open(&settings);
        let first = changed(&source, None).await;
        assert_eq!(first.signer.as_deref(), Some(ADA));
        assert!(first.trust.is_some());
        assert_eq!(first.revision.commit.as_deref(), Some(one.as_str()));
        assert_eq!(poll(&source, Some(&first)).await.unwrap(), None);
    }
    let source = signed.source(VerifyMode::Head);
    let first = changed(&source, None).await;
    signed.sign_as("bob");
    signed.commit("two");
    assert_eq!(changed(&source, Some(&first)).await.signer.as_deref(), Some("bob@example.com"));
}

#[tokio::test]
async fn an_unsigned_head_is_refused_and_the_next_signed_one_is_read() {
    let Some(signed) = signed() else { return };
    signed.commit("one");
    let source = signed.source(VerifyMode::Head);
    let first = changed(&source, None).await;
    let two = signed.unsigned("two");
    let error = failed(&source, Some(&first)).await;
    let said = [format!("commit {two:.12} is not signed"), "git commit -S".to_owned()];
    refused(&error, &[&said[0], &said[1], "allowed_signers"]);
    signed.world.server.take_log();
    assert_eq!(failed(&source, Some(&first)).await, error);
    assert_eq!(signed.world.server.take_log().len(), 1, "it is not fetched again");
    signed.commit("three");
    assert_eq!(changed(&source, Some(&first)).await.files["a.alloy"], "three");
}

#[tokio::test]
async fn keys_that_are_not_trusted_do_not_count() {
    let Some(signed) = signed() else { return };
    signed.sign_as("eve");
    let one = signed.commit("one");
    let fingerprint =
        Command::new("ssh-keygen").arg("-lf").arg(signed.key("eve.pub")).output().unwrap().stdout;
    let fingerprint = String::from_utf8(fingerprint).unwrap().split(' ').nth(1).unwrap().to_owned();
    let error = failed(&signed.source(VerifyMode::Head), None).await;
    refused(&error, &[&one[..12], &fingerprint, "not among the trusted keys", "add it to"]);
}

#[tokio::test]
async fn a_key_for_files_does_not_sign_commits() {
    let Some(signed) = signed() else { return };
    signed.commit("one");
    signed.allow("ada@example.com namespaces=\"file\" ADA");
    refused(&failed(&signed.source(VerifyMode::Head), None).await, &["`file`, where `git` is asked for"]);
}

#[tokio::test]
async fn of_the_trusted_only_the_signers_may_sign() {
    let Some(signed) = signed() else { return };
    signed.sign_as("bob");
    signed.commit("one");
    let mut settings = signed.settings(VerifyMode::Head);
    settings.verify.signers = vec![ADA.to_owned()];
    let source = signed.world.open(&settings);
    refused(&failed(&source, None).await, &["bob@example.com", "who is not among the `signers`"]);
    signed.sign_as("ada");
    signed.commit("two");
    assert_eq!(changed(&source, None).await.signer.as_deref(), Some(ADA));
}

#[tokio::test]
async fn a_key_that_expired_signs_nothing_new_whatever_date_the_commit_has() {
    let Some(signed) = signed() else { return };
    // The commit says that it is of 2023.
    signed.commit("one");
    signed.allow("ada@example.com valid-before=\"20260101Z\" ADA");
    let source = signed.source(VerifyMode::Head);
    let error = poll_at(&source, None, "2026-06-01T00:00:00Z").await.unwrap_err();
    refused(&error, &["not valid any more since 2026-01-01T00:00:00Z", "valid now"]);
    let early = poll_at(&source, None, "2025-06-01T00:00:00Z").await;
    assert!(early.unwrap().is_some(), "a refusal for the time it is is looked at again");
}

#[tokio::test]
async fn a_tampered_commit_is_refused() {
    let Some(signed) = signed() else { return };
    let one = signed.commit("one");
    let text = signed.git(&["cat-file", "commit", &one]);
    let path = signed.world.folder.path().join("tampered");
    std::fs::write(&path, format!("{}\n", text.replace("\none", "\nOne"))).unwrap();
    let tampered = signed.git(&["hash-object", "-t", "commit", "-w", path.to_str().unwrap()]);
    assert_ne!(tampered, one);
    signed.git(&["reset", "-q", "--hard", &tampered]);
    signed.push();
    let error = failed(&signed.source(VerifyMode::Head), None).await;
    refused(&error, &[&tampered[..12], "is not of this content"]);
}

#[tokio::test]
async fn the_branch_is_verified_commit_by_commit() {
    let Some(signed) = signed() else { return };
    signed.commit("one");
    let source = signed.source(VerifyMode::Range);
    let first = changed(&source, None).await;
    let two = signed.unsigned("two");
    signed.commit("three");
    for url in [None, Some(signed.url())] {
        let mut settings = signed.settings(VerifyMode::Range);
        if let Some(url) = url {
            settings.git.as_mut().unwrap().url = url;
        }
        let source = signed.world.open(&settings);
        let error = failed(&source, Some(&first)).await;
        refused(&error, &[&two[..12], "between", "is not signed"]);
    }
    // Who looks at the head only does not see it.
    assert_eq!(changed(&signed.source(VerifyMode::Head), Some(&first)).await.files["a.alloy"], "three");
    assert_eq!(signed.world.clones().len(), 2, "what was fetched to look back is gone");
}

#[tokio::test]
async fn many_signed_commits_are_followed_back() {
    let Some(signed) = signed() else { return };
    signed.commit("one");
    let source = signed.source(VerifyMode::Range);
    let first = changed(&source, None).await;
    for number in 0..60 {
        signed.git(&["commit", "-q", "--allow-empty", "-m", &number.to_string()]);
    }
    signed.commit("last");
    let second = changed(&source, Some(&first)).await;
    assert_eq!(second.files["a.alloy"], "last");
    assert_eq!(second.signer.as_deref(), Some(ADA));
}

#[tokio::test]
async fn what_a_restart_missed_is_verified_too() {
    let Some(signed) = signed() else { return };
    let one = signed.commit("one");
    changed(&signed.source(VerifyMode::Range), None).await;
    let two = signed.unsigned("two");
    signed.commit("three");
    // Another process, which holds no snapshot yet.
    let restarted = signed.source(VerifyMode::Range);
    refused(&failed(&restarted, None).await, &[&two[..12], &one[..12]]);
    // Not even without the clone.
    for clone in signed.world.clones() {
        std::fs::remove_dir_all(clone).unwrap();
    }
    refused(&failed(&signed.source(VerifyMode::Range), None).await, &[&two[..12]]);
}

#[tokio::test]
async fn a_merge_needs_signatures_on_the_branch_itself_only() {
    let Some(signed) = signed() else { return };
    signed.commit("one");
    let source = signed.source(VerifyMode::Range);
    let first = changed(&source, None).await;
    signed.git(&["checkout", "-q", "-b", "feature"]);
    signed.sign_no_more();
    signed.world.repository.commit("aside", &[("b.alloy", "b")]);
    signed.sign_as("ada");
    signed.git(&["checkout", "-q", "main"]);
    signed.git(&["merge", "-q", "--no-ff", "-S", "-m", "Merge", "feature"]);
    signed.push();
    assert_eq!(changed(&source, Some(&first)).await.files["b.alloy"], "b");
}

#[tokio::test]
async fn a_signed_merge_seals_what_lies_below_where_that_is_asked_for() {
    let Some(signed) = signed() else { return };
    signed.commit("one");
    let mut settings = signed.settings(VerifyMode::Range);
    let strict = signed.world.open(&settings);
    settings.verify.seal = true;
    let sealing = signed.world.open(&settings);
    let first = changed(&sealing, None).await;
    let two = signed.unsigned("two");
    signed.git(&["checkout", "-q", "-b", "feature"]);
    signed.world.repository.commit("aside", &[("b.alloy", "b")]);
    signed.git(&["checkout", "-q", "main"]);
    signed.git(&["merge", "-q", "--no-ff", "-S", "-m", "Merge", "feature"]);
    signed.push();
    refused(&failed(&strict, Some(&first)).await, &[&two[..12]]);
    let merged = changed(&sealing, Some(&first)).await;
    assert_eq!(merged.files["b.alloy"], "b");
    // An ordinary commit seals nothing.
    let three = signed.unsigned("three");
    signed.commit("four");
    refused(&failed(&sealing, Some(&merged)).await, &[&three[..12]]);
    // Nor does a merge that nobody signed.
    signed.git(&["reset", "-q", "--hard", "HEAD~2"]);
    signed.git(&["checkout", "-q", "-b", "another"]);
    signed.commit("five");
    signed.git(&["checkout", "-q", "main"]);
    signed.git(&["merge", "-q", "--no-ff", "--no-gpg-sign", "-m", "Merge", "another"]);
    signed.push();
    refused(&failed(&sealing, Some(&merged)).await, &["is not signed"]);
}

#[tokio::test]
async fn a_forced_branch_is_verified_from_where_it_parted() {
    let Some(signed) = signed() else { return };
    signed.unsigned("root");
    signed.commit("base");
    signed.commit("old");
    let source = signed.source(VerifyMode::Range);
    let first = changed(&source, None).await;
    signed.git(&["reset", "-q", "--hard", "HEAD~1"]);
    let unsigned = signed.unsigned("new");
    signed.commit("newer");
    refused(&failed(&source, Some(&first)).await, &[&unsigned[..12]]);
    signed.git(&["reset", "-q", "--hard", "HEAD~2"]);
    signed.commit("new and signed");
    let second = changed(&source, Some(&first)).await;
    assert_eq!(second.files["a.alloy"], "new and signed");
    assert_eq!(
        second.notices.iter().map(|notice| notice.kind).collect::<Vec<_>>(),
        [NoticeKind::HistoryRewritten]
    );
}

#[tokio::test]
async fn a_branch_that_goes_back_is_refused_although_it_was_signed_once() {
    let Some(signed) = signed() else { return };
    let one = signed.commit("one");
    let settings =
        SourceSettings { history: HistoryPolicy::FastForward, ..signed.settings(VerifyMode::Range) };
    let source = signed.world.open(&settings);
    let first = changed(&source, None).await;
    signed.commit("two");
    let second = changed(&source, Some(&first)).await;
    signed.git(&["reset", "-q", "--hard", &one]);
    signed.push();
    // Neither while it runs nor after a restart, which is what an attacker would wait for.
    let restarted = signed.world.open(&settings);
    for (source, previous) in [(&source, Some(&second)), (&restarted, None)] {
        let error = failed(source, previous).await;
        assert_eq!(error.class, ErrorClass::Rejected(Rejection::History), "{error}");
        assert!(error.message.contains("went back"), "{error}");
    }
    restarted.accept_history(&one);
    assert_eq!(changed(&restarted, None).await.files["a.alloy"], "one");
    // What was accepted is where the branch is from now on.
    assert_eq!(changed(&signed.world.open(&settings), None).await.files["a.alloy"], "one");
}

#[tokio::test]
async fn a_signed_tag_is_read_for_what_it_names() {
    let Some(signed) = signed() else { return };
    signed.sign_no_more();
    let one = signed.commit("one");
    signed.git(&["tag", "-s", "-m", "Release", "v1"]);
    signed.git(&["tag", "light"]);
    signed.git(&["tag", "-a", "-m", "No signature", "plain"]);
    signed.push();
    for url in [None, Some(signed.url())] {
        let mut settings = signed.settings(VerifyMode::Tag);
        let git = settings.git.as_mut().unwrap();
        (git.branch, git.tag) = (None, Some("v1".to_owned()));
        if let Some(url) = url {
            git.url = url;
        }
        let source = signed.world.open(&settings);
        let first = changed(&source, None).await;
        assert_eq!(first.signer.as_deref(), Some(ADA));
        assert_eq!(first.revision.commit.as_deref(), Some(one.as_str()));
        assert_eq!(poll(&source, Some(&first)).await.unwrap(), None);
    }
    refused(
        &failed(&signed.tag_source("light", false), None).await,
        &["light", "cannot be signed", "git tag -s"],
    );
    refused(&failed(&signed.tag_source("plain", false), None).await, &["the tag plain is not signed"]);
    // The commit that a tag names need not be signed: the tag is.
    assert!(failed(&signed.source(VerifyMode::Head), None).await.message.contains("is not signed"));
}

#[tokio::test]
async fn a_signed_tag_under_another_name_is_refused() {
    let Some(signed) = signed() else { return };
    signed.commit("old and weak");
    signed.git(&["tag", "-s", "-m", "Release", "v1"]);
    signed.commit("new");
    // Whoever can push gives an old signed tag the name of a new one.
    let tag = signed.git(&["rev-parse", "v1"]);
    signed.git(&["update-ref", "refs/tags/v2", &tag]);
    signed.push();
    let error = failed(&signed.tag_source("v2", false), None).await;
    refused(&error, &["the tag v2", "a signed tag with the name v1", "was put in its place"]);
    assert_eq!(changed(&signed.tag_source("v1", false), None).await.files["a.alloy"], "old and weak");
}

#[tokio::test]
async fn a_tag_of_a_tag_is_refused() {
    let Some(signed) = signed() else { return };
    signed.commit("one");
    signed.git(&["tag", "-s", "-m", "Inner", "inner"]);
    signed.git(&["tag", "-s", "-m", "Outer", "outer", "inner"]);
    signed.push();
    refused(&failed(&signed.tag_source("outer", false), None).await, &["is of the tag"]);
}

#[tokio::test]
async fn a_tag_that_moved_needs_permission_and_a_signature() {
    let Some(signed) = signed() else { return };
    signed.commit("one");
    signed.git(&["tag", "-s", "-m", "Release", "v1"]);
    signed.push();
    let (strict, following) = (signed.tag_source("v1", false), signed.tag_source("v1", true));
    let first = changed(&strict, None).await;
    signed.commit("two");
    signed.git(&["tag", "-f", "-a", "-m", "Moved", "v1"]);
    signed.push();
    assert_eq!(failed(&strict, Some(&first)).await.class, ErrorClass::Rejected(Rejection::TagMoved));
    refused(&failed(&following, Some(&first)).await, &["the tag v1 is not signed"]);
    // The same commit again, under a tag that is signed.
    signed.git(&["tag", "-f", "-s", "-m", "Moved", "v1"]);
    signed.push();
    assert_eq!(changed(&following, Some(&first)).await.files["a.alloy"], "two");
}

#[tokio::test]
async fn other_keys_verify_what_is_held_without_fetching() {
    let Some(signed) = signed() else { return };
    signed.commit("one");
    let source = signed.source(VerifyMode::Head);
    let first = changed(&source, None).await;
    assert_eq!(poll(&source, Some(&first)).await.unwrap(), None);
    signed.world.server.take_log();

    signed.allow("bob@example.com BOB");
    refused(&failed(&source, Some(&first)).await, &["not among the trusted keys"]);
    signed.allow("ada@work.example ADA");
    let second = changed(&source, Some(&first)).await;
    assert_eq!(second.signer.as_deref(), Some("ada@work.example"));
    assert_eq!((&second.digest, &second.revision), (&first.digest, &first.revision));
    assert_ne!(second.trust, first.trust);
    assert_eq!(poll(&source, Some(&second)).await.unwrap(), None);

    let mut settings = signed.settings(VerifyMode::Head);
    settings.verify.signers = vec!["bob@example.com".to_owned()];
    refused(&failed(&signed.world.open(&settings), Some(&second)).await, &["who is not among the `signers`"]);
    std::fs::remove_file(signed.allowed()).unwrap();
    refused(&failed(&source, Some(&second)).await, &["cannot be read", "the last good revision stays"]);
    signed.allow("ada@work.example ADA");
    assert_eq!(poll(&source, Some(&second)).await.unwrap(), None);
    let fetched = |request: &http_backend::Logged| request.says("command=fetch");
    assert!(!signed.world.server.take_log().iter().any(fetched));
}

#[tokio::test]
async fn trust_that_begins_later_is_asked_of_what_is_there() {
    let Some(signed) = signed() else { return };
    signed.unsigned("one");
    let first = changed(&signed.world.source(), None).await;
    assert_eq!((&first.signer, &first.trust), (&None, &None));
    refused(&failed(&signed.source(VerifyMode::Head), Some(&first)).await, &["is not signed"]);
}

#[tokio::test]
async fn a_clone_that_was_tampered_with_does_not_pass() {
    let Some(signed) = signed() else { return };
    let one = signed.commit("one");
    let source = signed.source(VerifyMode::Head);
    let first = changed(&source, None).await;
    let clone = signed.world.clones().remove(0);
    let in_clone = |arguments: &[&str], input: Option<&Path>| {
        let input =
            input.map_or(std::process::Stdio::null(), |path| std::fs::File::open(path).unwrap().into());
        let run =
            Command::new("git").arg("--git-dir").arg(&clone).args(arguments).stdin(input).output().unwrap();
        assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
        String::from_utf8_lossy(&run.stdout).trim().to_owned()
    };
    // Every object on its own, and in the place of the file another one with another content.
    for entry in std::fs::read_dir(clone.join("objects/pack")).unwrap() {
        let path = entry.unwrap().path();
        let aside = signed.world.folder.path().join(path.file_name().unwrap());
        std::fs::rename(&path, &aside).unwrap();
    }
    for entry in std::fs::read_dir(signed.world.folder.path()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "pack") {
            in_clone(&["unpack-objects", "-q"], Some(&path));
        }
    }
    let file = |id: &str| clone.join("objects").join(&id[..2]).join(&id[2..]);
    let evil = signed.world.folder.path().join("evil");
    std::fs::write(&evil, "evil").unwrap();
    let evil = in_clone(&["hash-object", "-w", evil.to_str().unwrap()], None);
    let content = in_clone(&["rev-parse", &format!("{one}:a.alloy")], None);
    std::fs::remove_file(file(&content)).unwrap();
    std::fs::rename(file(&evil), file(&content)).unwrap();
    // Something makes it read again.
    signed.allow("ada@example.com ADA\n");
    let second = changed(&source, Some(&first)).await;
    assert_eq!(second.files["a.alloy"], "one");
    assert_eq!(second.notices[0].kind, NoticeKind::ClonedAfresh);
}

#[tokio::test]
async fn a_pinned_commit_has_to_be_signed_itself() {
    let Some(signed) = signed() else { return };
    let pin = "environments/production/pin.toml";
    let repository = &signed.world.repository;
    signed.sign_no_more();
    let unsigned = repository.commit("One", &[("base/a.alloy", "one")]);
    signed.sign_as("ada");
    let good = repository.commit("Two", &[("base/a.alloy", "two")]);
    repository.commit("Three", &[("base/a.alloy", "three"), (pin, &format!("commit = \"{unsigned}\"\n"))]);
    for mode in [VerifyMode::Head, VerifyMode::Range] {
        let mut settings = signed.settings(mode);
        settings.path = ["base", "environments/production"].map(str::to_owned).into();
        let source = signed.world.open(&settings);
        let error = failed(&source, None).await;
        refused(&error, &["the pinned commit", &unsigned[..12], "is not signed"]);
    }
    repository.commit("Four", &[(pin, &format!("commit = \"{good}\"\n"))]);
    let mut settings = signed.settings(VerifyMode::Head);
    settings.path = ["base", "environments/production"].map(str::to_owned).into();
    assert_eq!(changed(&signed.world.open(&settings), None).await.files["base/a.alloy"], "two");
}

#[tokio::test]
async fn openpgp_signs_commits_and_tags() {
    let Some(signed) = signed() else { return };
    let Some(gpg) = gpg::Gpg::start() else { return };
    gpg.set_time("20260101T000000");
    let key = gpg.generate("Ada Lovelace <ada@example.com>", "ed25519", "cert", "never");
    let subkey = gpg.add_subkey(&key, "ed25519", "sign", "2026-09-01");
    let program = signed.world.folder.path().join("gpg");
    std::fs::write(&program, format!("#!/bin/sh\nGNUPGHOME={} exec gpg \"$@\"\n", gpg.home().display()))
        .unwrap();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    signed.git(&["config", "gpg.format", "openpgp"]);
    signed.git(&["config", "gpg.program", program.to_str().unwrap()]);
    signed.git(&["config", "user.signingkey", &key]);
    signed.commit("one");
    signed.git(&["tag", "-s", "-m", "Release", "v1"]);
    signed.push();

    let ring = signed.world.folder.path().join("keys.asc");
    let write = |options: &[&str]| std::fs::write(&ring, gpg.export(options, &[&key])).unwrap();
    write(&["--armor"]);
    let with = |mode: VerifyMode, tag: Option<&str>| {
        let mut settings = signed.settings(mode);
        (settings.verify.ssh, settings.verify.openpgp) = (None, Some(ring.clone()));
        settings.verify.signers = vec![ADA.to_owned()];
        if let Some(tag) = tag {
            let git = settings.git.as_mut().unwrap();
            (git.branch, git.tag) = (None, Some(tag.to_owned()));
        }
        signed.world.open(&settings)
    };
    let now = "2026-06-01T00:00:00Z";
    for source in [with(VerifyMode::Head, None), with(VerifyMode::Tag, Some("v1"))] {
        let snapshot = poll_at(&source, None, now).await.unwrap().unwrap();
        assert_eq!(snapshot.signer.as_deref(), Some("Ada Lovelace <ada@example.com>"));
        write(&[]);
    }
    let source = with(VerifyMode::Head, None);
    refused(
        &poll_at(&source, None, "2026-10-01T00:00:00Z").await.unwrap_err(),
        &[&subkey, "not valid any more since 2026-09-01"],
    );
    gpg.revoke_subkey(&key);
    write(&[]);
    refused(&poll_at(&source, None, now).await.unwrap_err(), &[&subkey, "which is revoked", "another key"]);
}

#[tokio::test]
async fn settings_that_cannot_work_are_refused_at_once() {
    let Some(signed) = signed() else { return };
    let open = |change: fn(&mut SourceSettings)| {
        let mut settings = signed.settings(VerifyMode::Head);
        change(&mut settings);
        GitSource::open(&settings, &signed.world.environment()).unwrap_err()
    };
    for (change, said) in [
        ((|settings| settings.verify.ssh = None) as fn(&mut SourceSettings), "whom to trust"),
        (|settings| settings.verify.mode = VerifyMode::Tag, "goes with a `tag`"),
        (|settings| settings.verify.seal = true, "`verify.seal` goes with"),
    ] {
        let error = open(change);
        assert_eq!(error.class, ErrorClass::Stalled);
        assert!(error.message.contains(said), "{error}");
    }
    signed.commit("one");
    std::fs::write(signed.allowed(), "ada@example.com not-a-key").unwrap();
    refused(&failed(&signed.source(VerifyMode::Head), None).await, &["allowed_signers, line 1"]);
}

#[tokio::test]
async fn a_stored_revision_is_vouched_for_by_its_policy_or_its_objects() {
    let Some(signed) = signed() else { return };
    signed.commit("one");
    let first = changed(&signed.source(VerifyMode::Head), None).await;
    let revision = first.revision.text.as_str();
    let mut strict = signed.settings(VerifyMode::Head);
    strict.verify.offline = OfflineVerification::Strict;
    let vouch = async |settings: &SourceSettings, trust: Option<&str>| {
        signed.world.open(settings).vouch(revision, trust, SystemTime::UNIX_EPOCH).await
    };
    let lenient = signed.settings(VerifyMode::Head);
    signed.world.server.take_log();
    assert_eq!(vouch(&strict, first.trust.as_deref()).await.unwrap(), Vouched::Trusted);
    assert_eq!(
        vouch(&signed.world.settings(), None).await.unwrap(),
        Vouched::Trusted,
        "nothing is asked for"
    );

    // Another policy: verified anew from what the clone keeps.
    signed.allow("ada@example.com ADA");
    assert_eq!(vouch(&strict, first.trust.as_deref()).await.unwrap(), Vouched::Trusted);
    signed.allow("bob@example.com BOB");
    let error = vouch(&strict, first.trust.as_deref()).await.unwrap_err();
    refused(&error, &["not among the trusted keys", "`verify.offline` is strict"]);
    let Vouched::Doubted(reason) = vouch(&lenient, first.trust.as_deref()).await.unwrap() else {
        panic!("it is doubted");
    };
    assert!(reason.contains("not among the trusted keys"), "{reason}");

    // Without the clone there is only the word of the policy.
    for clone in signed.world.clones() {
        std::fs::remove_dir_all(clone).unwrap();
    }
    signed.allow("ada@work.example ADA");
    let error = vouch(&strict, first.trust.as_deref()).await.unwrap_err();
    refused(&error, &["whom to trust changed", "are not kept here"]);
    assert!(matches!(vouch(&lenient, None).await.unwrap(), Vouched::Doubted(_)));
    std::fs::remove_file(signed.allowed()).unwrap();
    refused(&vouch(&strict, first.trust.as_deref()).await.unwrap_err(), &["cannot be read"]);
    assert!(signed.world.server.take_log().is_empty(), "the remote may be down");
}

#[tokio::test]
async fn a_stored_tag_is_vouched_for_too() {
    let Some(signed) = signed() else { return };
    signed.commit("one");
    signed.git(&["tag", "-s", "-m", "Release", "v1"]);
    signed.push();
    let source = signed.tag_source("v1", false);
    let first = changed(&source, None).await;
    let vouched = async || source.vouch(&first.revision.text, None, SystemTime::UNIX_EPOCH).await.unwrap();
    assert_eq!(vouched().await, Vouched::Trusted, "it was accepted under this policy");
    signed.allow("ada@example.com ADA");
    assert_eq!(vouched().await, Vouched::Trusted);
    signed.allow("bob@example.com BOB");
    assert!(matches!(vouched().await, Vouched::Doubted(_)));
}

//! Repositories made to do harm. Each is refused, or read without harm, and nothing outside the state directory is touched.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use invar_sources::LimitSettings;

use super::*;

/// A repository into which objects are put that `git add` would refuse.
struct Hostile {
    world: World,
    /// Everything around the state directory, before anything was read.
    before: BTreeMap<PathBuf, String>,
}

fn hostile() -> Option<Hostile> {
    let world = world()?;
    world.repository.commit("One", &[("base/a.alloy", "a")]);
    // What an escaping path would reach.
    std::fs::write(world.folder.path().join("secret"), "outside").unwrap();
    Some(Hostile { world, before: BTreeMap::new() })
}

impl Hostile {
    fn run(&self, arguments: &[&str], input: &[u8]) -> String {
        let mut child = Command::new("git")
            .args(["-c", "core.protectNTFS=false", "-c", "core.protectHFS=false"])
            .args(arguments)
            .current_dir(self.world.repository.work())
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_AUTHOR_NAME", "Eve")
            .env("GIT_AUTHOR_EMAIL", "eve@example.com")
            .env("GIT_COMMITTER_NAME", "Eve")
            .env("GIT_COMMITTER_EMAIL", "eve@example.com")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    fn blob(&self, content: &[u8]) -> String {
        self.run(&["hash-object", "-w", "--stdin"], content)
    }

    /// A tree of entries `(mode, name, id)`, whatever they say.
    fn tree(&self, entries: &[(&str, &[u8], &str)]) -> String {
        let mut bytes = Vec::new();
        for (mode, name, id) in entries {
            bytes.extend_from_slice(mode.as_bytes());
            bytes.push(b' ');
            bytes.extend_from_slice(name);
            bytes.push(0);
            let digit = |index: usize| u8::from_str_radix(&id[index..index + 2], 16).unwrap();
            bytes.extend((0..40).step_by(2).map(digit));
        }
        self.run(&["hash-object", "-t", "tree", "-w", "--literally", "--stdin"], &bytes)
    }

    fn commit(&self, tree: &str, message: &str) -> String {
        self.run(&["commit-tree", tree], message.as_bytes())
    }

    /// Puts the branch there, past what a server would check.
    fn publish(&mut self, commit: &str) {
        let bare = self.world.repository.path().to_str().unwrap().to_owned();
        self.run(&["push", "-q", "--force", &bare, &format!("{commit}:refs/heads/main")], b"");
        self.before = listing(self.world.folder.path());
    }

    fn publish_tree(&mut self, tree: &str) {
        let commit = self.commit(tree, "Harmless");
        self.publish(&commit);
    }

    /// Polls with a fresh source; then nothing around the state directory may have changed.
    async fn poll(&self, change: impl FnOnce(&mut SourceSettings)) -> Result<Snapshot, SourceError> {
        let mut settings = self.world.settings();
        change(&mut settings);
        let polled = poll(&self.world.open(&settings), None).await;
        assert_eq!(listing(self.world.folder.path()), self.before, "something outside was touched");
        no_surprises(&self.world.folder.path().join("state"));
        polled.map(|snapshot| snapshot.expect("the first look finds something"))
    }

    async fn refused(&self, rejection: Rejection) -> String {
        let error = self.poll(|_| {}).await.expect_err("it is refused");
        assert_eq!(error.class, ErrorClass::Rejected(rejection), "{error}");
        error.message
    }
}

/// Every file and folder but those of the state, with what they hold.
fn listing(root: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut folders = vec![root.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap().flatten() {
            let path = entry.path();
            if path == root.join("state") {
                continue;
            }
            let data = std::fs::symlink_metadata(&path).unwrap();
            let what = format!("{:?} {} {:?}", data.file_type(), data.len(), data.modified().ok());
            if data.is_dir() {
                folders.push(path.clone());
                found.insert(path, "folder".to_owned());
            } else {
                found.insert(path, what);
            }
        }
    }
    found
}

/// In the state there are objects and bookkeeping: no link, nothing that runs, no file of the repository.
fn no_surprises(state: &Path) {
    let mut folders = vec![state.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            let data = std::fs::symlink_metadata(&path).unwrap();
            assert!(!data.file_type().is_symlink(), "{}", path.display());
            assert_ne!(
                path.extension().and_then(|extension| extension.to_str()),
                Some("alloy"),
                "{}",
                path.display()
            );
            if data.is_dir() {
                folders.push(path);
                continue;
            }
            #[cfg(unix)]
            {
                use std::os::unix::fs::PermissionsExt as _;
                assert_eq!(data.permissions().mode() & 0o111, 0, "{} can be run", path.display());
            }
        }
    }
}

#[tokio::test]
async fn names_that_step_out_or_disguise_themselves() {
    let Some(mut hostile) = hostile() else { return };
    let blob = hostile.blob(b"evil");
    let long = vec![b'x'; 300];
    let names: [&[u8]; 19] = [
        b"..",
        b".",
        b".git",
        b".GIT",
        b".Git",
        b"git~1",
        b"GIT~1",
        b".git ",
        b".git.",
        b".git::$INDEX_ALLOCATION",
        ".g\u{200c}it".as_bytes(),
        ".gi\u{feff}t".as_bytes(),
        b"C:evil",
        b"a\\..\\..\\evil",
        b"evil\x01name",
        b"evil\nname",
        b"\xff\xfe",
        "right\u{202e}\u{1}to-left".as_bytes(),
        &long,
    ];
    for name in names {
        let tree = hostile.tree(&[("100644", name, &blob)]);
        hostile.publish_tree(&tree);
        hostile.refused(Rejection::Name).await;
        // As a folder too, with something in it.
        let inner = hostile.tree(&[("100644", b"evil.alloy", &blob)]);
        let tree = hostile.tree(&[("40000", name, &inner)]);
        hostile.publish_tree(&tree);
        hostile.refused(Rejection::Name).await;
    }
    let tree = hostile.tree(&[("100644", b"../../secret", &blob)]);
    hostile.publish_tree(&tree);
    hostile.refused(Rejection::Name).await;
}

#[tokio::test]
async fn links_that_lead_out_or_in_circles() {
    let Some(mut hostile) = hostile() else { return };
    let long = "x/".repeat(4000);
    for target in [
        "/etc/passwd",
        "../secret",
        "../../../../../../etc/passwd",
        "a/../../secret",
        "self",
        ".",
        "C:\\Windows",
        "..\\secret",
        "nul\0byte",
        "",
        long.as_str(),
    ] {
        let link = hostile.blob(target.as_bytes());
        let tree = hostile.tree(&[("120000", b"self", &link)]);
        hostile.publish_tree(&tree);
        let error = hostile.poll(|_| {}).await.expect_err("it is refused");
        let class = &error.class;
        assert!(
            matches!(class, ErrorClass::Rejected(Rejection::SymlinkEscape | Rejection::Shape)),
            "{target:?}: {error}"
        );
    }
    // A folder that holds itself, and two that hold each other.
    let up = hostile.blob(b"..");
    let inner = hostile.tree(&[("120000", b"up", &up)]);
    let tree = hostile.tree(&[("40000", b"down", &inner)]);
    hostile.publish_tree(&tree);
    hostile.refused(Rejection::SymlinkEscape).await;
    let (a, b) = (hostile.blob(b"b"), hostile.blob(b"a"));
    let tree = hostile.tree(&[("120000", b"a", &a), ("120000", b"b", &b)]);
    hostile.publish_tree(&tree);
    hostile.refused(Rejection::SymlinkEscape).await;
}

#[tokio::test]
async fn folders_without_end() {
    let Some(mut hostile) = hostile() else { return };
    let blob = hostile.blob(b"evil");
    // Ten folders that are each ten times the one below: ten thousand million files in a kilobyte.
    let mut tree = hostile.tree(&[("100644", b"f.alloy", &blob)]);
    for _ in 0..10 {
        let names: Vec<String> = (0..10).map(|number| format!("d{number}")).collect();
        let entries: Vec<_> = names.iter().map(|name| ("40000", name.as_bytes(), tree.as_str())).collect();
        tree = hostile.tree(&entries);
    }
    hostile.publish_tree(&tree);
    hostile.refused(Rejection::Limits).await;
    // And one that is deep.
    let mut tree = hostile.tree(&[("100644", b"f.alloy", &blob)]);
    for _ in 0..200 {
        tree = hostile.tree(&[("40000", b"d", &tree)]);
    }
    hostile.publish_tree(&tree);
    let message = hostile.refused(Rejection::Limits).await;
    assert!(message.contains("folders deep"), "{message}");
}

#[tokio::test]
async fn a_million_entries() {
    let Some(mut hostile) = hostile() else { return };
    let blob = hostile.blob(b"evil");
    let names: Vec<String> = (0..1_000_000).map(|number| format!("{number:07}.alloy")).collect();
    let entries: Vec<_> = names.iter().map(|name| ("100644", name.as_bytes(), blob.as_str())).collect();
    let tree = hostile.tree(&entries);
    hostile.publish_tree(&tree);
    let message = hostile.refused(Rejection::Limits).await;
    assert!(message.contains("list of files"), "{message}");
    // Beside what is selected it is in nobody's way.
    let good = hostile.blob(b"good");
    let base = hostile.tree(&[("100644", b"a.alloy", &good)]);
    let root = hostile.tree(&[("40000", b"base", &base), ("40000", b"evil", &tree)]);
    hostile.publish_tree(&root);
    let snapshot = hostile.poll(|settings| settings.path = vec!["base".to_owned()]).await.unwrap();
    assert_eq!(paths(&snapshot), ["base/a.alloy"]);
}

#[tokio::test]
async fn content_that_unpacks_to_a_thousand_times_its_size() {
    let Some(mut hostile) = hostile() else { return };
    // 256 MiB of nothing, a quarter of a megabyte on the way.
    let bomb = hostile.blob(&vec![0; 256 << 20]);
    let good = hostile.blob(b"good");
    let tree = hostile.tree(&[("100644", b"bomb.alloy", &bomb), ("100644", b"good.alloy", &good)]);
    hostile.publish_tree(&tree);
    let message = hostile.refused(Rejection::Limits).await;
    assert!(message.contains("256 MiB"), "{message}");
    let snapshot = hostile.poll(|settings| settings.path = vec!["good.alloy".to_owned()]).await.unwrap();
    assert_eq!(snapshot.files["good.alloy"], "good");
    // Many that are small enough each.
    let seven = hostile.blob(&vec![0; 7 << 20]);
    let names: Vec<String> = (0..100).map(|number| format!("{number:03}.alloy")).collect();
    let entries: Vec<_> = names.iter().map(|name| ("100644", name.as_bytes(), seven.as_str())).collect();
    let tree = hostile.tree(&entries);
    hostile.publish_tree(&tree);
    let message = hostile.refused(Rejection::Limits).await;
    assert!(message.contains("the selected files have more than 64 MiB"), "{message}");
    let error =
        hostile.poll(|settings| settings.limits = LimitSettings { pack: 1024, ..LimitSettings::default() });
    let error = error.await.unwrap_err();
    assert_eq!(error.class, ErrorClass::Rejected(Rejection::Limits));
}

#[tokio::test]
async fn a_message_of_a_hundred_megabytes() {
    let Some(mut hostile) = hostile() else { return };
    let blob = hostile.blob(b"good");
    let tree = hostile.tree(&[("100644", b"a.alloy", &blob)]);
    let commit = hostile.commit(&tree, &"x".repeat(100 << 20));
    hostile.publish(&commit);
    let message = hostile.refused(Rejection::Limits).await;
    assert!(message.contains("the commit itself is 100"), "{message}");
    // Words that a terminal would obey do not get to one.
    let commit = hostile.commit(&tree, "\u{1b}]0;evil\u{7}\u{1b}[2Jsubject\u{202e}");
    hostile.publish(&commit);
    let snapshot = hostile.poll(|_| {}).await.unwrap();
    let subject = snapshot.subject.unwrap();
    assert!(!subject.chars().any(char::is_control), "{subject:?}");
}

#[tokio::test]
async fn modules_and_filters_that_would_run_or_reach_something() {
    let Some(mut hostile) = hostile() else { return };
    let attributes = hostile.blob(b"* filter=evil\n*.alloy filter=lfs diff=evil merge=evil\n");
    // Where it would be seen afterwards.
    let evil = hostile.world.folder.path().join("evil").display().to_string();
    let modules = format!(
        "[submodule \"x\"]\n\tpath = x\n\turl = file:///etc\n\tupdate = !touch {evil}\n[submodule \"y\"]\n\tpath = y\n\
          \turl = ext::sh -c touch% {evil}\n"
    );
    let modules = hostile.blob(modules.as_bytes());
    let config =
        hostile.blob(format!("[core]\n\tfsmonitor = touch {evil}\n\thooksPath = hooks\n").as_bytes());
    let hook = hostile.blob(format!("#!/bin/sh\ntouch {evil}\n").as_bytes());
    let good = hostile.blob(b"good");
    let hooks = hostile.tree(&[("100755", b"post-checkout", &hook)]);
    let link = "12".repeat(20);
    let tree = hostile.tree(&[
        ("100644", b".gitattributes", &attributes),
        ("100644", b".gitmodules", &modules),
        ("100644", b"a.alloy", &good),
        ("100644", b"config", &config),
        ("40000", b"hooks", &hooks),
        ("160000", b"x", &link),
        ("160000", b"y", &link),
    ]);
    hostile.publish_tree(&tree);
    let snapshot = hostile.poll(|_| {}).await.unwrap();
    assert_eq!(snapshot.files["a.alloy"], "good", "no filter has touched it");
    assert!(!snapshot.files.keys().any(|path| path.starts_with("x") || path.starts_with("y")));
    let through = hostile.poll(|settings| settings.path = vec!["x/etc".to_owned()]).await.unwrap_err();
    assert!(through.message.contains("submodule"), "{through}");

    let pointer = hostile.blob(b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n");
    let tree = hostile.tree(&[("100644", b"a.alloy", &pointer)]);
    hostile.publish_tree(&tree);
    hostile.refused(Rejection::LfsPointer).await;
}

#[tokio::test]
async fn names_that_look_alike() {
    let Some(mut hostile) = hostile() else { return };
    let (one, two) = (hostile.blob(b"one"), hostile.blob(b"two"));
    // Composed and decomposed, and a letter of another script: different names, kept apart byte for byte.
    let composed = "caf\u{e9}.alloy".as_bytes();
    let decomposed = "cafe\u{301}.alloy".as_bytes();
    let tree = hostile.tree(&[("100644", decomposed, &one), ("100644", composed, &two)]);
    hostile.publish_tree(&tree);
    let snapshot = hostile.poll(|_| {}).await.unwrap();
    assert_eq!(snapshot.files.len(), 2);
    // The same name twice in one folder is for whoever reads last to choose: here the first counts, always.
    let tree = hostile.tree(&[("100644", b"a.alloy", &one), ("100644", b"a.alloy", &two)]);
    hostile.publish_tree(&tree);
    match hostile.poll(|_| {}).await {
        Ok(snapshot) => assert_eq!(snapshot.files["a.alloy"], "one"),
        Err(error) => {
            assert!(matches!(error.class, ErrorClass::Rejected(_) | ErrorClass::Transient), "{error}")
        }
    }
    // Entries of kinds that do not exist.
    for mode in ["0", "000000", "777777", "140000", "100"] {
        let tree = hostile.tree(&[(mode, b"a.alloy", &one)]);
        hostile.publish_tree(&tree);
        if let Ok(snapshot) = hostile.poll(|_| {}).await {
            assert!(snapshot.files.get("a.alloy").is_none_or(|content| content == "one"), "{mode}");
        }
    }
}

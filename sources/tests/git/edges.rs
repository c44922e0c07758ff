//! What else happens to repositories: emptied, recreated, moved, dated in the future, or of another kind.

use http_backend::Fault;

use super::*;

fn kinds(snapshot: &Snapshot) -> Vec<NoticeKind> {
    snapshot.notices.iter().map(|notice| notice.kind).collect()
}

/// Replaces the repository by one that never had anything to do with it.
fn recreate(world: &World) -> TestRepository {
    let root = world.repository.path().parent().unwrap();
    std::fs::remove_dir_all(world.repository.path()).unwrap();
    std::fs::remove_dir_all(world.repository.work()).unwrap();
    TestRepository::create(root, "fleet.git")
}

#[tokio::test]
async fn a_repository_that_is_emptied_keeps_the_last_good() {
    let Some(world) = world() else { return };
    world.repository.commit("One", &[("a.alloy", "one")]);
    let source = world.source();
    let first = changed(&source, None).await;
    let fresh = recreate(&world);
    for _ in 0..3 {
        let error = failed(&source, Some(&first)).await;
        assert_eq!(error.class, ErrorClass::Rejected(Rejection::EmptySource), "{error}");
        assert!(error.message.contains("has no commits"), "{error}");
    }
    fresh.commit("Two", &[("a.alloy", "two")]);
    assert_eq!(changed(&source, Some(&first)).await.files["a.alloy"], "two");
}

#[tokio::test]
async fn a_branch_that_loses_its_files_is_not_an_empty_configuration() {
    let Some(world) = world() else { return };
    world.repository.commit("One", &[("a.alloy", "one")]);
    let source = world.source();
    let first = changed(&source, None).await;
    world.repository.git(&["rm", "-q", "a.alloy"]);
    world.repository.git(&["commit", "-q", "-m", "Nothing"]);
    world.repository.git(&["push", "-q", "origin", "HEAD"]);
    let error = failed(&source, Some(&first)).await;
    assert_eq!(error.class, ErrorClass::Rejected(Rejection::EmptySource), "{error}");
}

#[tokio::test]
async fn a_recreated_repository_has_an_unrelated_history() {
    let Some(world) = world() else { return };
    world.repository.commit("One", &[("a.alloy", "one")]);
    let source = world.source();
    let first = changed(&source, None).await;
    let fresh = recreate(&world);
    fresh.commit("Two", &[("a.alloy", "two")]);
    let second = changed(&source, Some(&first)).await;
    assert_eq!(second.files["a.alloy"], "two");
    assert_eq!(kinds(&second), [NoticeKind::HistoryRewritten]);
    let strict = SourceSettings { history: invar_sources::HistoryPolicy::FastForward, ..world.settings() };
    let error = failed(&world.open(&strict), Some(&first)).await;
    assert_eq!(error.class, ErrorClass::Rejected(Rejection::History), "{error}");
}

#[tokio::test]
async fn a_deleted_branch_stays_missing_until_it_is_back() {
    let Some(world) = world() else { return };
    world.repository.commit("One", &[("a.alloy", "one")]);
    world.repository.git(&["push", "-q", "origin", "HEAD:refs/heads/other"]);
    let source = world.source();
    let first = changed(&source, None).await;
    world.repository.git(&["push", "-q", "origin", ":refs/heads/main"]);
    for _ in 0..3 {
        assert_eq!(failed(&source, Some(&first)).await.class, ErrorClass::NotFound);
    }
    world.repository.git(&["push", "-q", "origin", "HEAD:refs/heads/main"]);
    assert_eq!(poll(&source, Some(&first)).await.unwrap(), None);
}

#[tokio::test]
async fn a_transferred_repository_is_followed_on_the_same_host_alone() {
    let Some(world) = world() else { return };
    world.repository.commit("One", &[("a.alloy", "one")]);
    let root = world.repository.path().parent().unwrap();
    std::fs::create_dir_all(root.join("new")).unwrap();
    std::fs::rename(world.repository.path(), root.join("new/name.git")).unwrap();
    let moved = format!("{}/info/refs?service=git-upload-pack", world.server.url("new/name.git"));
    let source = world.source();
    world.server.inject([Fault::Status(301, vec![("location", moved)])]);
    let first = changed(&source, None).await;
    assert_eq!(kinds(&first), [NoticeKind::Redirected]);
    assert!(first.notices[0].message.contains("update the address"), "{:?}", first.notices);
    // The new place is remembered, so that a poll stays at one request.
    world.server.take_log();
    assert_eq!(poll(&source, Some(&first)).await.unwrap(), None);
    assert_eq!(world.server.take_log().len(), 1);

    let elsewhere = world.server.url("new/name.git").replace("127.0.0.1", "localhost");
    let location = format!("{elsewhere}/info/refs?service=git-upload-pack");
    world.server.inject([Fault::Status(301, vec![("location", location)])]);
    let error = failed(&world.source(), None).await;
    assert_eq!(error.class, ErrorClass::Integrity);
    assert!(error.message.contains("to another host"), "{error}");
    assert!(error.help.is_some_and(|help| help.contains("git.url")), "it says what to do");
}

#[tokio::test]
async fn dates_of_commits_order_nothing() {
    let Some(world) = world() else { return };
    world.repository.commit("One", &[("a.alloy", "one")]);
    let source = world
        .open(&SourceSettings { history: invar_sources::HistoryPolicy::FastForward, ..world.settings() });
    let first = changed(&source, None).await;
    // The next commit claims to be from the year 1990, and the one after it from 2099.
    let mut last = first;
    for (date, content) in [("631152000 +0000", "two"), ("4070908800 +0000", "three")] {
        std::fs::write(world.repository.work().join("a.alloy"), content).unwrap();
        let status = std::process::Command::new("git")
            .args([
                "-c",
                "user.name=Ada",
                "-c",
                "user.email=ada@example.com",
                "commit",
                "-q",
                "-a",
                "-m",
                content,
            ])
            .current_dir(world.repository.work())
            .env("GIT_AUTHOR_DATE", date)
            .env("GIT_COMMITTER_DATE", date)
            .status();
        assert!(status.unwrap().success());
        world.repository.git(&["push", "-q", "origin", "HEAD"]);
        let next = changed(&source, Some(&last)).await;
        assert_eq!(next.files["a.alloy"], content);
        assert!(next.notices.is_empty(), "{:?}", next.notices);
        last = next;
    }
}

#[tokio::test]
async fn a_repository_of_sha_256_is_refused_clearly() {
    let Some(world) = world() else { return };
    let root = world.repository.path().parent().unwrap();
    let made = std::process::Command::new("git")
        .args(["init", "-q", "--bare", "--object-format=sha256", "-b", "main"])
        .arg(root.join("sha256.git"))
        .status();
    if !made.is_ok_and(|status| status.success()) {
        skipped("this git knows no SHA-256 repositories");
        return;
    }
    let source = world.with_git(|git| git.url = world.server.url("sha256.git"));
    let error = failed(&source, None).await;
    assert_eq!(error.class, ErrorClass::Stalled);
    assert!(error.message.contains("SHA-256"), "{error}");
}

#[cfg(not(any(windows, target_os = "macos")))]
#[tokio::test]
async fn names_that_differ_in_case_alone_are_noticed() {
    let Some(world) = world() else { return };
    world
        .repository
        .commit("One", &[("a.alloy", "a"), ("A.alloy", "b"), ("ü/x.alloy", "c"), ("Ü/X.alloy", "d")]);
    let first = changed(&world.source(), None).await;
    assert_eq!(kinds(&first), [NoticeKind::CaseCollision]);
}

#[tokio::test]
async fn names_that_no_host_should_have_are_refused() {
    let Some(world) = world() else { return };
    let content = world.repository.git(&["hash-object", "-w", "/dev/null"]).trim().to_owned();
    for name in ["a\u{1}b", "C:x", "x/.git", "x/.GIT", "x/git~1", "x/.g\u{200c}it", &"n".repeat(256)] {
        // As a hostile server could send it: no command of Git would make such a tree.
        let mut tree = Vec::new();
        let (folder, leaf) = name.split_once('/').unwrap_or(("", name));
        tree.extend_from_slice(format!("100644 {leaf}\0").as_bytes());
        let digits = |at: usize| u8::from_str_radix(&content[at..at + 2], 16).unwrap();
        tree.extend((0..content.len()).step_by(2).map(digits));
        let store = |bytes: &[u8]| {
            let file = world.folder.path().join("object");
            std::fs::write(&file, bytes).unwrap();
            let path = file.to_str().unwrap();
            world.repository.git(&["hash-object", "-t", "tree", "-w", "--literally", path]).trim().to_owned()
        };
        let mut root = store(&tree);
        if !folder.is_empty() {
            let mut above = format!("40000 {folder}\0").into_bytes();
            above.extend((0..40).step_by(2).map(|at| u8::from_str_radix(&root[at..at + 2], 16).unwrap()));
            root = store(&above);
        }
        let commit = world.repository.git(&["commit-tree", "-m", "Hostile", &root]).trim().to_owned();
        world.repository.git(&["push", "-q", "-f", "origin", &format!("{commit}:refs/heads/main")]);
        let error = failed(&world.source(), None).await;
        assert_eq!(error.class, ErrorClass::Rejected(Rejection::Name), "{name:?}: {error}");
    }
}

#[tokio::test]
async fn a_server_that_leaves_objects_out_is_transient_and_leaves_a_clean_clone() {
    let Some(world) = world() else { return };
    let one = world.repository.commit("One", &[("a.alloy", "one"), ("b.alloy", "b")]);
    let source = world.source();
    let first = changed(&source, None).await;
    world.repository.commit("Two", &[("a.alloy", "two"), ("b.alloy", "b")]);
    // The server sends the difference to what is here; what is here loses the rest meanwhile.
    for clone in world.clones() {
        for entry in std::fs::read_dir(clone.join("objects/pack")).unwrap().flatten() {
            std::fs::remove_file(entry.path()).unwrap();
        }
    }
    let second = changed(&source, Some(&first)).await;
    assert_eq!((&second.files["a.alloy"][..], &second.files["b.alloy"][..]), (&b"two"[..], &b"b"[..]));
    assert_ne!(second.revision.commit.as_deref(), Some(one.as_str()));
}

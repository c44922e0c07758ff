//! Branches, tags, commits, `HEAD`, and what happens when they move or vanish.

use super::*;
use http_backend::Fault;

#[tokio::test]
async fn a_missing_branch_names_what_is_there() {
    let Some(world) = world() else { return };
    let source = world.source();
    let error = failed(&source, None).await;
    assert_eq!(error.class, ErrorClass::Rejected(Rejection::EmptySource), "{error}");
    world.repository.commit("One", &[("a.alloy", "one")]);
    let first = changed(&source, None).await;
    let other = world.with_git(|git| git.branch = Some("mian".to_owned()));
    let error = failed(&other, None).await;
    assert_eq!(error.class, ErrorClass::NotFound);
    assert_eq!(error.help.as_deref(), Some("did you mean `main`?"));

    world.repository.git(&["push", "-q", "origin", "HEAD:refs/heads/other"]);
    world.repository.git(&["push", "-q", "origin", ":refs/heads/main"]);
    let error = failed(&source, Some(&first)).await;
    assert_eq!(error.class, ErrorClass::NotFound);
    assert!(error.message.contains("has no `main`"), "{error}");
}

#[tokio::test]
async fn tags_are_peeled_and_may_not_move() {
    let Some(world) = world() else { return };
    let one = world.repository.commit("One", &[("a.alloy", "one")]);
    world.repository.git(&["tag", "-a", "-m", "v1", "v1"]);
    world.repository.git(&["push", "-q", "origin", "v1"]);
    let source = world.with_git(|git| git.tag = Some("v1".to_owned()));
    let first = changed(&source, None).await;
    assert_eq!(first.revision.text, format!("v1@sha1:{one}"));
    assert_ne!(first.revision.object, first.revision.commit);
    assert_eq!(poll(&source, Some(&first)).await.unwrap(), None);

    world.repository.commit("Two", &[("a.alloy", "two")]);
    world.repository.git(&["tag", "-f", "v1"]);
    world.repository.git(&["push", "-q", "-f", "origin", "v1"]);
    let error = failed(&source, Some(&first)).await;
    assert_eq!(error.class, ErrorClass::Rejected(Rejection::TagMoved));
    let tolerant = world.with_git(|git| {
        git.tag = Some("v1".to_owned());
        git.allow_tag_move = true;
    });
    let second = changed(&tolerant, Some(&first)).await;
    assert_eq!(second.files["a.alloy"], "two");
    assert!(second.notices.iter().any(|notice| notice.kind == NoticeKind::TagMoved));
}

#[tokio::test]
async fn a_commit_stays_and_costs_nothing() {
    let Some(world) = world() else { return };
    let one = world.repository.commit("One", &[("a.alloy", "one")]);
    world.repository.commit("Two", &[("a.alloy", "two")]);
    let source = world.with_git(|git| {
        git.commit = Some(one.clone());
        git.branch = None;
    });
    let first = changed(&source, None).await;
    assert_eq!(first.files["a.alloy"], "one");
    assert_eq!(first.revision.commit.as_deref(), Some(one.as_str()));
    world.server.take_log();
    assert_eq!(poll(&source, Some(&first)).await.unwrap(), None);
    assert!(world.server.take_log().is_empty());

    let absent = world.with_git(|git| {
        git.commit = Some("1".repeat(40));
        git.branch = None;
    });
    let error = failed(&absent, None).await;
    assert_eq!(error.class, ErrorClass::NotFound, "{error}");
    assert!(error.help.unwrap().contains("branch"));
}

#[tokio::test]
async fn a_commit_that_is_not_handed_out_is_found_on_its_branch() {
    let Some(world) = world() else { return };
    let one = world.repository.commit("One", &[("a.alloy", "one")]);
    world.repository.commit("Two", &[("a.alloy", "two")]);
    let source = world.with_git(|git| git.commit = Some(one.clone()));
    world.server.inject([Fault::Delay(Duration::ZERO), Fault::Refuse("upload-pack: not our ref x")]);
    let first = changed(&source, None).await;
    assert_eq!(first.files["a.alloy"], "one");
    let log = world.server.take_log();
    assert!(log.iter().any(|request| request.says("deepen 1000")), "the branch was followed");
    let absent = world.with_git(|git| git.commit = Some("1".repeat(40)));
    let error = failed(&absent, None).await;
    assert_eq!(error.class, ErrorClass::NotFound);
    assert!(error.message.contains("last 1000 commits of `main`"), "{error}");
}

#[tokio::test]
async fn head_follows_the_default_branch() {
    let Some(world) = world() else { return };
    world.repository.commit("One", &[("a.alloy", "one")]);
    let source = world.with_git(|git| git.branch = None);
    let first = changed(&source, None).await;
    world.repository.git(&["checkout", "-q", "-b", "next"]);
    world.repository.commit("Two", &[("a.alloy", "two")]);
    assert_eq!(poll(&source, Some(&first)).await.unwrap(), None);
    let bare = world.repository.path().to_str().unwrap().to_owned();
    world.repository.git(&["--git-dir", &bare, "symbolic-ref", "HEAD", "refs/heads/next"]);
    let second = changed(&source, Some(&first)).await;
    assert_eq!(second.files["a.alloy"], "two");
    assert!(second.notices.iter().any(|notice| notice.kind == NoticeKind::DefaultBranchChanged));

    // A poll that fails on the way does not swallow the notice.
    world.repository.git(&["checkout", "-q", "-b", "last"]);
    world.repository.commit("Three", &[("a.alloy", "three")]);
    world.repository.git(&["--git-dir", &bare, "symbolic-ref", "HEAD", "refs/heads/last"]);
    world.server.inject([Fault::Delay(Duration::ZERO), Fault::Status(500, Vec::new())]);
    assert_eq!(failed(&source, Some(&second)).await.class, ErrorClass::Transient);
    let third = changed(&source, Some(&second)).await;
    assert_eq!(third.files["a.alloy"], "three");
    assert!(third.notices.iter().any(|notice| notice.kind == NoticeKind::DefaultBranchChanged));
    assert_eq!(poll(&source, Some(&third)).await.unwrap(), None);
}

#[tokio::test]
async fn full_and_short_references() {
    let Some(world) = world() else { return };
    let one = world.repository.commit("One", &[("a.alloy", "one")]);
    world.repository.git(&["push", "-q", "origin", "HEAD:refs/changes/17"]);
    for name in ["refs/heads/main", "main", "refs/changes/17"] {
        let source = world.with_git(|git| git.reference = Some(name.to_owned()));
        assert_eq!(changed(&source, None).await.revision.commit.as_deref(), Some(one.as_str()), "{name}");
    }
}

fn tag(world: &World, name: &str, content: &str) -> String {
    let commit = world.repository.commit(name, &[("a.alloy", content)]);
    world.repository.git(&["tag", "-a", "-m", name, name]);
    world.repository.git(&["push", "-q", "origin", name]);
    commit
}

#[tokio::test]
async fn a_range_of_versions_follows_the_highest_tag() {
    let Some(world) = world() else { return };
    let one = tag(&world, "v1.9.0", "1.9.0");
    tag(&world, "nightly", "nightly");
    let source = world.with_git(|git| git.semver = Some("1.x".to_owned()));
    let first = changed(&source, None).await;
    assert_eq!(first.revision.text, format!("v1.9.0@sha1:{one}"), "the tag is peeled, others are ignored");
    world.server.take_log();
    assert_eq!(poll(&source, Some(&first)).await.unwrap(), None);
    let log = world.server.take_log();
    assert!(log.len() == 1 && log[0].says("ref-prefix refs/tags/"), "one request, over the tags alone");
    // A pre-release and another major version are not in the range.
    tag(&world, "v1.11.0-rc.1", "1.11.0-rc.1");
    tag(&world, "v2.0.0", "2.0.0");
    assert_eq!(poll(&source, Some(&first)).await.unwrap(), None);
    let two = tag(&world, "1.10.0", "1.10.0");
    let second = changed(&source, Some(&first)).await;
    assert_eq!(second.revision.text, format!("1.10.0@sha1:{two}"), "10 is more than 9");
    assert!(second.notices.is_empty(), "{:?}", second.notices);
    // The highest tag names another commit now.
    world.repository.git(&["tag", "-f", "-a", "-m", "again", "1.10.0"]);
    world.repository.git(&["push", "-q", "-f", "origin", "1.10.0"]);
    assert_eq!(failed(&source, Some(&second)).await.class, ErrorClass::Rejected(Rejection::TagMoved));
    let none = world.with_git(|git| git.semver = Some("^7".to_owned()));
    let error = failed(&none, None).await;
    assert_eq!(error.class, ErrorClass::NotFound);
    assert!(error.message.contains("no tag in the range `^7`"), "{error}");
    // The same in a repository of this host.
    let path = world.repository.path().to_str().unwrap().to_owned();
    let local = world.with_git(|git| {
        git.url = path;
        git.semver = Some(">=1.0.0-0 <2".to_owned());
    });
    assert_eq!(changed(&local, None).await.files["a.alloy"], "1.11.0-rc.1");
}

#[tokio::test]
async fn the_first_of_commit_ref_semver_tag_branch_decides() {
    let Some(world) = world() else { return };
    let zero = world.repository.commit("Zero", &[("a.alloy", "commit")]);
    tag(&world, "v1.0.0", "semver");
    tag(&world, "plain", "tag");
    world.repository.commit("Full", &[("a.alloy", "ref")]);
    world.repository.git(&["push", "-q", "origin", "HEAD:refs/changes/1"]);
    world.repository.commit("Main", &[("a.alloy", "branch")]);
    let mut git = GitSettings {
        url: world.server.url("fleet.git"),
        branch: Some("main".to_owned()),
        tag: Some("plain".to_owned()),
        semver: Some("1.x".to_owned()),
        reference: Some("refs/changes/1".to_owned()),
        commit: Some(zero),
        ..GitSettings::default()
    };
    let drop_next: [&dyn Fn(&mut GitSettings); 5] = [
        &|git| git.commit = None,
        &|git| git.reference = None,
        &|git| git.semver = None,
        &|git| git.tag = None,
        &|git| git.branch = None,
    ];
    for (number, expected) in ["commit", "ref", "semver", "tag", "branch", "branch"].into_iter().enumerate() {
        let source = world.open(&SourceSettings { git: Some(git.clone()), ..world.settings() });
        assert_eq!(changed(&source, None).await.files["a.alloy"], expected);
        if let Some(drop_next) = drop_next.get(number) {
            drop_next(&mut git);
        }
    }
}

//! Branches, tags, commits, `HEAD`, and what happens when they move or vanish.

use http_backend::Fault;
use invar_sources::NoticeKind;

use super::*;

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

//! How a branch moved: force pushes, rewinds and long jumps.

use invar_sources::HistoryPolicy;

use super::*;

fn policy(world: &World, history: HistoryPolicy) -> GitSource {
    world.open(&SourceSettings { history, ..world.settings() })
}

fn kinds(snapshot: &Snapshot) -> Vec<NoticeKind> {
    snapshot.notices.iter().map(|notice| notice.kind).collect()
}

#[tokio::test]
async fn a_force_push_is_noticed_and_refused_where_that_is_asked_for() {
    let Some(world) = world() else { return };
    world.repository.commit("Root", &[("a.alloy", "root")]);
    world.repository.commit("One", &[("a.alloy", "one")]);
    let source = policy(&world, HistoryPolicy::Warn);
    let first = changed(&source, None).await;
    world.repository.git(&["reset", "-q", "--hard", "HEAD~1"]);
    let two = world.repository.commit("Two", &[("a.alloy", "two")]);

    let strict = policy(&world, HistoryPolicy::FastForward);
    let error = failed(&strict, Some(&first)).await;
    assert_eq!(error.class, ErrorClass::Rejected(Rejection::History), "{error}");
    assert!(error.message.contains("no longer contains"), "{error}");
    assert_eq!(strict.accept_history("0000000"), None, "another commit");
    assert_eq!(strict.accept_history(&two[..6]), None, "too few digits");
    assert_eq!(strict.accept_history(&two[..12]), Some(two.clone()));
    assert_eq!(strict.accept_history(&two), None, "nothing is refused any more");
    assert_eq!(kinds(&changed(&strict, Some(&first)).await), [NoticeKind::HistoryRewritten]);
    // It was accepted once.
    assert_eq!(failed(&strict, Some(&first)).await.class, ErrorClass::Rejected(Rejection::History));

    let second = changed(&source, Some(&first)).await;
    assert_eq!(second.files["a.alloy"], "two");
    assert_eq!(kinds(&second), [NoticeKind::HistoryRewritten]);
    let careless = policy(&world, HistoryPolicy::Any);
    assert_eq!(kinds(&changed(&careless, Some(&first)).await), []);
}

#[tokio::test]
async fn a_rewind_is_told_from_a_rewrite() {
    let Some(world) = world() else { return };
    world.repository.commit("One", &[("a.alloy", "one")]);
    world.repository.commit("Two", &[("a.alloy", "two")]);
    let source = policy(&world, HistoryPolicy::Warn);
    let first = changed(&source, None).await;
    world.repository.git(&["reset", "-q", "--hard", "HEAD~1"]);
    world.repository.git(&["push", "-q", "-f", "origin", "HEAD"]);
    let second = changed(&source, Some(&first)).await;
    assert_eq!(second.files["a.alloy"], "one");
    assert_eq!(kinds(&second), [NoticeKind::Rewind]);
}

#[tokio::test]
async fn many_commits_at_once_are_still_forward() {
    let Some(world) = world() else { return };
    world.repository.commit("One", &[("a.alloy", "one")]);
    let source = policy(&world, HistoryPolicy::FastForward);
    let first = changed(&source, None).await;
    for number in 0..60 {
        world.repository.git(&["commit", "-q", "--allow-empty", "-m", &number.to_string()]);
    }
    world.repository.commit("Two", &[("a.alloy", "two")]);
    world.server.take_log();
    let second = changed(&source, Some(&first)).await;
    assert_eq!(second.files["a.alloy"], "two");
    assert_eq!(kinds(&second), []);
    let log = world.server.take_log();
    assert!(log.iter().any(|request| request.says("deepen 200") && request.says("filter tree:0")));
    assert!(!log.iter().any(|request| request.says("deepen 1000")));
    assert_eq!(world.clones().len(), 1, "what was fetched to look back is gone");
}

#[tokio::test]
async fn a_jump_of_more_than_a_thousand_commits_counts_as_rewritten() {
    let Some(world) = world() else { return };
    world.repository.commit("One", &[("a.alloy", "one")]);
    let strict = policy(&world, HistoryPolicy::FastForward);
    let first = changed(&strict, None).await;
    append(&world, 990);
    assert_eq!(kinds(&changed(&strict, Some(&first)).await), []);
    append(&world, 1010);
    let error = failed(&strict, Some(&first)).await;
    assert_eq!(error.class, ErrorClass::Rejected(Rejection::History), "{error}");
    assert!(error.message.contains("is not known, within 1000 commits"), "{error}");
    let tolerant = changed(&policy(&world, HistoryPolicy::Warn), Some(&first)).await;
    assert_eq!(kinds(&tolerant), [NoticeKind::HistoryUnknown]);
}

/// Puts the branch so many commits above that of the work tree.
fn append(world: &World, commits: usize) {
    use std::io::Write as _;
    let mut child = std::process::Command::new("git")
        .arg("--git-dir")
        .arg(world.repository.path())
        .args(["fast-import", "--quiet", "--force"])
        .stdin(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let from = world.repository.git(&["rev-parse", "HEAD"]);
    let mut text = format!("reset refs/heads/main\nfrom {from}\n\n");
    for number in 0..commits {
        let content = format!("step {number}");
        text.push_str(&format!(
            "commit refs/heads/main\ncommitter Ada <ada@example.com> 1700000000 +0000\ndata 4\nstep\n\
             M 100644 inline a.alloy\ndata {}\n{content}\n\n",
            content.len()
        ));
    }
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
}

#[tokio::test]
async fn unrelated_history_in_a_local_repository() {
    let Some(world) = world() else { return };
    world.repository.commit("One", &[("a.alloy", "one")]);
    let path = world.repository.path().to_str().unwrap().to_owned();
    let source = world.with_git(|git| git.url = path);
    let first = changed(&source, None).await;
    world.repository.git(&["checkout", "-q", "--orphan", "fresh"]);
    world.repository.git(&["branch", "-D", "-q", "main"]);
    world.repository.git(&["branch", "-m", "main"]);
    world.repository.commit("Two", &[("a.alloy", "two")]);
    let second = changed(&source, Some(&first)).await;
    assert_eq!(kinds(&second), [NoticeKind::HistoryRewritten]);
}

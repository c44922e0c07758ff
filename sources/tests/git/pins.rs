//! Environments that take their base from an earlier commit than the head.

use invar_sources::read_commit;

use super::*;

const PIN: &str = "environments/production/pin.toml";

fn production(world: &World, url: Option<String>) -> GitSource {
    let mut settings = world.settings();
    settings.path = ["base", "environments/production", "hosts/web-17"].map(str::to_owned).into();
    if let (Some(url), Some(git)) = (url, settings.git.as_mut()) {
        git.url = url;
    }
    world.open(&settings)
}

fn pin(commit: &str) -> String {
    format!("commit = \"{commit}\"\npromoted_from = \"staging\"\n")
}

#[tokio::test]
async fn the_base_comes_from_the_pinned_commit_and_the_rest_from_the_head() {
    let Some(world) = world() else { return };
    let one = world.repository.commit(
        "One",
        &[("base/a.alloy", "one"), ("base/gone.alloy", "x"), ("environments/production/x.alloy", "one")],
    );
    world.repository.git(&["rm", "-q", "base/gone.alloy"]);
    world.repository.commit("Two", &[("base/a.alloy", "two"), ("base/new.alloy", "x")]);
    let files = [(PIN, pin(&one)), ("environments/production/x.alloy", "three".to_owned())];
    let files = files.each_ref().map(|(path, text)| (*path, text.as_str()));
    let three = world.repository.commit("Three", &files);

    for url in [None, Some(format!("file://{}", world.repository.path().display()))] {
        let source = production(&world, url.clone());
        let snapshot = changed(&source, None).await;
        assert_eq!(snapshot.revision.text, format!("main@sha1:{three}+base@{one}"), "{url:?}");
        assert_eq!(snapshot.revision.commit.as_deref(), Some(three.as_str()));
        assert_eq!(snapshot.revision.pinned.as_deref(), Some(one.as_str()));
        assert_eq!(
            paths(&snapshot),
            ["base/a.alloy", "base/gone.alloy", PIN, "environments/production/x.alloy"]
        );
        assert_eq!(snapshot.files["base/a.alloy"], "one");
        assert_eq!(snapshot.files["environments/production/x.alloy"], "three");
        assert_eq!(snapshot.subject.as_deref(), Some("Three"));
        assert_eq!(poll(&source, Some(&snapshot)).await.unwrap(), None);
    }

    // Without its pin the environment follows the head again.
    world.repository.git(&["rm", "-q", PIN]);
    let four = world.repository.commit_all("Four");
    let snapshot = changed(&production(&world, None), None).await;
    assert_eq!(snapshot.revision.text, format!("main@sha1:{four}"));
    assert_eq!(snapshot.files["base/a.alloy"], "two");
}

#[tokio::test]
async fn a_pin_that_stays_costs_no_more_requests() {
    let Some(world) = world() else { return };
    let one = world.repository.commit("One", &[("base/a.alloy", "one")]);
    world.repository.commit("Two", &[("base/a.alloy", "two"), (PIN, &pin(&one))]);
    let source = production(&world, None);
    let first = changed(&source, None).await;
    world.server.take_log();
    world.repository.commit("Three", &[("base/a.alloy", "three")]);
    let second = changed(&source, Some(&first)).await;
    assert_eq!(second.files["base/a.alloy"], "one");
    assert_eq!(world.server.take_log().len(), 2, "one look and one fetch");
    assert_eq!(second.digest, first.digest);
}

#[tokio::test]
async fn a_commit_from_elsewhere_is_refused() {
    let Some(world) = world() else { return };
    world.repository.commit("One", &[("base/a.alloy", "one")]);
    world.repository.git(&["checkout", "-q", "-b", "aside"]);
    let aside = world.repository.commit("Aside", &[("base/a.alloy", "aside")]);
    world.repository.git(&["checkout", "-q", "main"]);
    world.repository.commit("Two", &[(PIN, &pin(&aside))]);
    for url in [None, Some(format!("file://{}", world.repository.path().display()))] {
        let error = failed(&production(&world, url), None).await;
        assert_eq!(error.class, ErrorClass::Rejected(Rejection::History), "{error}");
        assert!(error.message.contains(PIN) && error.message.contains(&aside[..12]), "{error}");
    }
    world.repository.commit("Three", &[(PIN, "\ncommit = \"main\"\n")]);
    let error = failed(&production(&world, None), None).await;
    assert!(error.message.starts_with(&format!("{PIN}:2: `commit` has to be")), "{error}");
}

#[tokio::test]
async fn commits_of_a_checkout_are_read_in_place() {
    let Some(world) = world() else { return };
    let one = world.repository.commit("One", &[("fleet/base/a.alloy", "one"), ("other/base/b.alloy", "x")]);
    world.repository.commit("Two", &[("fleet/base/a.alloy", "two")]);
    let folder = world.repository.work().join("fleet");
    let files = read_commit(&folder, &one, &["base", "modules"]).unwrap();
    assert_eq!(files.keys().collect::<Vec<_>>(), ["base/a.alloy"]);
    assert_eq!(files["base/a.alloy"], "one");
    assert!(read_commit(&folder, &one, &["modules"]).unwrap().is_empty());

    let missing = read_commit(&folder, &"ab".repeat(20), &["base"]).unwrap_err();
    assert!(missing.message.contains("has no commit abababababab"), "{missing}");
    assert!(missing.help.is_some());
    world.repository.git(&["checkout", "-q", "-b", "aside"]);
    let aside = world.repository.commit("Aside", &[("fleet/base/a.alloy", "aside")]);
    world.repository.git(&["checkout", "-q", "main"]);
    let elsewhere = read_commit(&folder, &aside, &["base"]).unwrap_err();
    assert!(elsewhere.message.contains("is not an ancestor"), "{elsewhere}");
    let outside = read_commit(world.folder.path(), &one, &["base"]).unwrap_err();
    assert!(outside.message.contains("is not in a Git repository"), "{outside}");
}

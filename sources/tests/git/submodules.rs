//! Submodules: left out unless they are asked for, and then fetched at the commit that the parent names.

use base64::Engine as _;
use http_backend::Access;
use invar_secrets::{Credential, Secret};
use invar_sources::{AuthSettings, Submodules, TreeEntry};

use super::*;

const TOKEN: &str = "hunter2-hunter2";

/// A repository with two more beside it: `fleet` has `net` at `base/net`, and `net` has `deep` at `deep`.
struct Nested {
    world: World,
    net: TestRepository,
    deep: TestRepository,
}

fn entry(repository: &TestRepository, path: &str, commit: &str, url: &str) {
    let work = repository.work();
    // An empty folder is a submodule that is not checked out; a missing one would be one that was removed.
    std::fs::create_dir_all(work.join(path)).unwrap();
    let modules = format!("[submodule \"{path}\"]\n\tpath = {path}\n\turl = {url}\n");
    std::fs::write(work.join(".gitmodules"), modules).unwrap();
    repository.git(&["add", ".gitmodules"]);
    repository.git(&["update-index", "--add", "--cacheinfo", &format!("160000,{commit},{path}")]);
    repository.git(&["commit", "-q", "-m", "Module"]);
    repository.git(&["push", "-q", "origin", "HEAD"]);
}

fn nested(net_url: &str) -> Option<Nested> {
    let world = world()?;
    let root = world.repository.path().parent().unwrap().to_path_buf();
    let (net, deep) = (TestRepository::create(&root, "net.git"), TestRepository::create(&root, "deep.git"));
    let commit = deep.commit("Deep", &[("d.alloy", "deep one")]);
    net.commit("Net", &[("n.alloy", "net one"), ("other/o.alloy", "other")]);
    entry(&net, "deep", &commit, "../deep.git");
    let commit = net.git(&["rev-parse", "HEAD"]).trim().to_owned();
    world.repository.commit("One", &[("base/a.alloy", "one")]);
    entry(&world.repository, "base/net", &commit, net_url);
    // What comes later in the submodules is not what the parent names.
    net.commit("Later", &[("n.alloy", "net two")]);
    deep.commit("Later", &[("d.alloy", "deep two")]);
    Some(Nested { world, net, deep })
}

fn following(world: &World, change: impl FnOnce(&mut SourceSettings)) -> SourceSettings {
    let mut settings = world.settings();
    settings.git.as_mut().unwrap().submodules = Submodules::Shallow;
    change(&mut settings);
    settings
}

fn token() -> Option<AuthSettings> {
    Some(AuthSettings { token: Some(Credential::Text(Secret::new(TOKEN))), ..AuthSettings::default() })
}

#[tokio::test]
async fn the_commit_that_is_named_is_fetched_and_not_the_branch() {
    let Some(Nested { world, .. }) = nested("../net.git") else { return };
    let off = changed(&world.source(), None).await;
    assert_eq!(paths(&off), [".gitmodules", "base/a.alloy"]);
    let source = world.open(&following(&world, |_| {}));
    world.server.take_log();
    let first = changed(&source, Some(&off)).await;
    assert_eq!(
        paths(&first),
        [
            ".gitmodules",
            "base/a.alloy",
            "base/net/.gitmodules",
            "base/net/deep/d.alloy",
            "base/net/n.alloy",
            "base/net/other/o.alloy"
        ]
    );
    assert_eq!(first.files["base/net/n.alloy"], "net one");
    assert_eq!(first.files["base/net/deep/d.alloy"], "deep one");
    let log = world.server.take_log();
    let fetches = log.iter().filter(|request| request.says("command=fetch"));
    assert!(fetches.clone().count() >= 2 && fetches.clone().all(|request| request.says("deepen 1")));
    // Nothing of the submodules is asked for while the parent stays.
    assert_eq!(poll(&source, Some(&first)).await.unwrap(), None);
    assert_eq!(world.server.take_log().len(), 1);
}

#[tokio::test]
async fn paths_lead_into_submodules() {
    let Some(Nested { world, .. }) = nested("../net.git") else { return };
    let select =
        |path: &str| world.open(&following(&world, |settings| settings.path = vec![path.to_owned()]));
    for (path, expected) in [
        ("base/net/other", vec!["base/net/other/o.alloy"]),
        ("base/net/n.alloy", vec!["base/net/n.alloy"]),
        ("base/net/deep", vec!["base/net/deep/d.alloy"]),
    ] {
        let snapshot = changed(&select(path), None).await;
        assert_eq!(paths(&snapshot), expected, "{path}");
    }
    let error = failed(&select("base/net/nowhere"), None).await;
    assert_eq!(error.class, ErrorClass::Rejected(Rejection::EmptySource), "{error}");
    // Imports reach there too.
    let source = select("base/a.alloy");
    let snapshot = changed(&source, None).await;
    let context = context();
    let read = source.read(&snapshot, "base/net/n.alloy", &context).await.unwrap();
    assert_eq!(read, Some(TreeEntry::File("net one".into())));
    let Some(TreeEntry::Folder(files)) = source.read(&snapshot, "base/net", &context).await.unwrap() else {
        panic!("it is a folder");
    };
    assert_eq!(files.keys().collect::<Vec<_>>(), ["n.alloy"]);
}

#[tokio::test]
async fn credentials_go_to_the_same_origin_alone() {
    let Some(Nested { world, .. }) = nested("../net.git") else { return };
    let joined = base64::engine::general_purpose::STANDARD.encode(format!("x-access-token:{TOKEN}"));
    world.server.set_access(Access::Header(format!("Basic {joined}")));
    let source = world.open(&following(&world, |settings| settings.auth = token()));
    assert_eq!(
        changed(&source, None).await.files["base/net/n.alloy"],
        "net one",
        "a relative address is the same origin"
    );

    // Another port of the same host is allowed, over HTTPS, and gets nothing.
    let Some(Nested { world, .. }) = nested("https://127.0.0.1:1/net.git") else { return };
    let source = world.open(&following(&world, |settings| settings.auth = token()));
    let error = failed(&source, None).await;
    assert_eq!(error.class, ErrorClass::Transient, "{error}");
    assert!(error.message.starts_with("submodule `base/net`: https://127.0.0.1:1/"), "{error}");
    assert!(!format!("{error:?} {source:?}").contains(TOKEN));
}

#[tokio::test]
async fn addresses_that_gitmodules_may_not_name_are_refused() {
    for (url, part) in [
        ("https://elsewhere.example/net.git", "which the settings do not allow"),
        ("http://elsewhere.example/net.git", "neither https:// nor ssh://"),
        ("/srv/net.git", "not one of a server"),
        ("file:///srv/net.git", "not one of a server"),
        ("ext::sh -c id", "not one of a server"),
        ("git@127.0.0.1:net.git", "reached over SSH"),
        ("ssh://-oProxyCommand=id/x", "not one of a server"),
        ("../../../x", "leads nowhere"),
        ("https://me:hunter2@127.0.0.1/x", "holds a credential"),
    ] {
        let Some(Nested { world, .. }) = nested(url) else { return };
        let error = failed(&world.open(&following(&world, |_| {})), None).await;
        assert!(
            matches!(error.class, ErrorClass::Rejected(Rejection::Shape) | ErrorClass::Stalled),
            "{url}: {error}"
        );
        assert!(error.message.contains(part), "{url}: {error}");
        assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
    }
    let Some(Nested { world, .. }) = nested("https://elsewhere.invalid/net.git") else { return };
    let source = world.open(&following(&world, |settings| {
        settings.git.as_mut().unwrap().submodule_hosts = vec!["elsewhere.invalid".to_owned()];
    }));
    assert_eq!(failed(&source, None).await.class, ErrorClass::Transient, "it is allowed, and not there");
}

#[tokio::test]
async fn submodules_nest_three_deep_and_count_towards_the_limits() {
    let Some(Nested { world, net, deep }) = nested("../net.git") else { return };
    let limited = world.open(&following(&world, |settings| settings.limits.files = 4));
    let error = failed(&limited, None).await;
    assert_eq!(error.class, ErrorClass::Rejected(Rejection::Limits), "{error}");
    // A circle ends.
    let head = |repository: &TestRepository| repository.git(&["rev-parse", "HEAD"]).trim().to_owned();
    entry(&deep, "back", &head(&net), "../net.git");
    entry(&net, "deep", &head(&deep), "../deep.git");
    entry(&deep, "back", &head(&net), "../net.git");
    entry(&net, "deep", &head(&deep), "../deep.git");
    entry(&world.repository, "base/net", &head(&net), "../net.git");
    let error = failed(&world.open(&following(&world, |_| {})), None).await;
    assert_eq!(error.class, ErrorClass::Rejected(Rejection::Limits), "{error}");
    assert!(error.message.contains("more than 3 deep"), "{error}");
}

#[tokio::test]
async fn a_submodule_whose_commit_was_not_pushed_keeps_the_last_good() {
    let Some(Nested { world, .. }) = nested("../net.git") else { return };
    let source = world.open(&following(&world, |_| {}));
    let first = changed(&source, None).await;
    entry(&world.repository, "base/net", &"1".repeat(40), "../net.git");
    let error = failed(&source, Some(&first)).await;
    assert_eq!(error.class, ErrorClass::NotFound, "{error}");
    assert!(
        error.message.starts_with("submodule `base/net`:") && error.message.contains("111111111111"),
        "{error}"
    );
    assert!(error.help.unwrap().contains("push the commit"));
    std::fs::remove_file(world.repository.work().join(".gitmodules")).unwrap();
    world.repository.git(&["rm", "-q", "--cached", ".gitmodules"]);
    world.repository.git(&["commit", "-q", "-m", "Lost"]);
    world.repository.git(&["push", "-q", "origin", "HEAD"]);
    let error = failed(&source, Some(&first)).await;
    assert!(error.message.contains("`.gitmodules` does not say where it is"), "{error}");
}

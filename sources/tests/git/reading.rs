//! What is read of a commit: selected paths, links, names and limits.

#[cfg(unix)]
use std::os::unix::fs::symlink;

use invar_sources::LimitSettings;

use super::*;

fn selecting(world: &World, path: &[&str]) -> GitSource {
    let path = path.iter().map(|path| (*path).to_owned()).collect();
    world.open(&SourceSettings { path, ..world.settings() })
}

#[tokio::test]
async fn only_selected_paths_are_read_and_keep_their_order() {
    let Some(world) = world() else { return };
    world.repository.commit(
        "One",
        &[
            ("base/a.alloy", "a"),
            ("base/deep/b.alloy", "b"),
            ("environments/production/variables.toml", "x = 1"),
            ("environments/staging/variables.toml", "x = 2"),
            ("src/main.c", "no"),
        ],
    );
    let source = selecting(&world, &["environments/production/", "./base", "hosts/web-17"]);
    let first = changed(&source, None).await;
    assert_eq!(first.paths, ["environments/production", "base", "hosts/web-17"]);
    assert_eq!(
        paths(&first),
        ["base/a.alloy", "base/deep/b.alloy", "environments/production/variables.toml"]
    );

    world.repository.commit("Elsewhere", &[("src/main.c", "other")]);
    let second = changed(&source, Some(&first)).await;
    assert_ne!(second.revision, first.revision);
    assert_eq!(second.digest, first.digest, "the selected files are the same");

    let single = selecting(&world, &["base/a.alloy"]);
    assert_eq!(paths(&changed(&single, None).await), ["base/a.alloy"]);
    let error = failed(&selecting(&world, &["nothing", "here"]), None).await;
    assert_eq!(error.class, ErrorClass::Rejected(Rejection::EmptySource));
    assert!(error.message.contains("nothing, here"), "{error}");
    let escaping = SourceSettings { path: vec!["../x".to_owned()], ..world.settings() };
    let error = GitSource::open(&escaping, &world.environment()).unwrap_err();
    assert_eq!(error.class, ErrorClass::Stalled);
}

#[tokio::test]
async fn limits_are_measured() {
    let Some(world) = world() else { return };
    world.repository.commit("One", &[("a.alloy", "0123456789"), ("b.alloy", "0123456789")]);
    let limits = LimitSettings::default();
    for (limits, word) in [
        (LimitSettings { file: 9, ..limits }, "10 bytes"),
        (LimitSettings { bytes: 19, ..limits }, "19 bytes"),
        (LimitSettings { files: 1, ..limits }, "more than 1 files"),
        (LimitSettings { pack: 100, ..limits }, "100 bytes"),
    ] {
        // An own folder each, so that the pack is fetched.
        let environment = SourceEnvironment {
            state_directory: world.folder.path().join(format!("{limits:?}")),
            secrets: SecretStores::default(),
        };
        let settings = SourceSettings { limits, ..world.settings() };
        let source = GitSource::open(&settings, &environment).unwrap();
        let error = failed(&source, None).await;
        assert_eq!(error.class, ErrorClass::Rejected(Rejection::Limits), "{error}");
        assert!(error.message.contains(word), "{error}");
    }
}

#[cfg(unix)]
#[tokio::test]
async fn links_are_resolved_inside_the_repository() {
    let Some(world) = world() else { return };
    let work = world.repository.work().to_path_buf();
    world.repository.commit("One", &[("shared/deep/a.alloy", "a"), ("base/b.alloy", "b")]);
    symlink("../shared/deep/a.alloy", work.join("base/a.alloy")).unwrap();
    symlink("../shared", work.join("base/linked")).unwrap();
    symlink("shared", work.join("alias")).unwrap();
    world.repository.commit_all("Links");
    let first = changed(&selecting(&world, &["base"]), None).await;
    assert_eq!(paths(&first), ["base/a.alloy", "base/b.alloy", "base/linked/deep/a.alloy"]);
    assert_eq!(first.files["base/a.alloy"], "a");
    let through = changed(&selecting(&world, &["alias/deep"]), None).await;
    assert_eq!(paths(&through), ["alias/deep/a.alloy"]);
}

#[cfg(unix)]
#[tokio::test]
async fn links_that_leave_or_circle_are_refused() {
    let Some(world) = world() else { return };
    let work = world.repository.work().to_path_buf();
    world.repository.commit("One", &[("base/b.alloy", "b")]);
    for target in ["/etc/passwd", "../../etc/passwd", "a.alloy", ".", "other"] {
        let link = work.join("base/a.alloy");
        drop(std::fs::remove_file(&link));
        symlink(target, &link).unwrap();
        drop(std::fs::remove_file(work.join("base/other")));
        symlink("a.alloy", work.join("base/other")).unwrap();
        world.repository.commit_all(target);
        let error = failed(&selecting(&world, &["base"]), None).await;
        assert_eq!(error.class, ErrorClass::Rejected(Rejection::SymlinkEscape), "{target}: {error}");
    }
    drop(std::fs::remove_file(work.join("base/other")));
    drop(std::fs::remove_file(work.join("base/a.alloy")));
    symlink("absent", work.join("base/a.alloy")).unwrap();
    world.repository.commit_all("dangling");
    let error = failed(&selecting(&world, &["base"]), None).await;
    assert_eq!(error.class, ErrorClass::Rejected(Rejection::Shape));
    assert!(error.message.contains("leads nowhere"), "{error}");
}

#[cfg(unix)]
#[tokio::test]
async fn eight_links_are_followed_and_nine_are_not() {
    let Some(world) = world() else { return };
    let work = world.repository.work().to_path_buf();
    world.repository.commit("One", &[("base/0", "a"), ("pipelines/b.alloy", "b")]);
    for number in 1..8 {
        symlink((number - 1).to_string(), work.join(format!("base/{number}"))).unwrap();
    }
    let link = work.join("pipelines/a.alloy");
    symlink("../base/7", &link).unwrap();
    world.repository.commit_all("Eight");
    let source = selecting(&world, &["pipelines"]);
    let first = changed(&source, None).await;
    assert_eq!(first.files["pipelines/a.alloy"], "a");
    symlink("7", work.join("base/8")).unwrap();
    std::fs::remove_file(&link).unwrap();
    symlink("../base/8", &link).unwrap();
    world.repository.commit_all("Nine");
    let error = failed(&source, Some(&first)).await;
    assert_eq!(error.class, ErrorClass::Rejected(Rejection::SymlinkEscape), "{error}");
    assert!(error.message.contains("more than 8 links"), "{error}");
}

#[tokio::test]
async fn pointers_and_unsafe_names_are_refused() {
    let Some(world) = world() else { return };
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n";
    world.repository.commit("Pointer", &[("a.alloy", pointer)]);
    let source = world.source();
    assert_eq!(failed(&source, None).await.class, ErrorClass::Rejected(Rejection::LfsPointer));
    world.repository.commit("Name", &[("a.alloy", "a"), ("back\\slash.alloy", "b")]);
    let error = failed(&source, None).await;
    assert_eq!(error.class, ErrorClass::Rejected(Rejection::Name), "{error}");
    // Elsewhere in the repository it does no harm.
    world.repository.commit("Beside", &[("base/a.alloy", "a")]);
    assert_eq!(paths(&changed(&selecting(&world, &["base"]), None).await), ["base/a.alloy"]);
}

#[tokio::test]
async fn submodules_are_left_out() {
    let Some(world) = world() else { return };
    let one = world.repository.commit("One", &[("base/a.alloy", "a")]);
    let entry = format!("160000,{one},base/module");
    world.repository.git(&["update-index", "--add", "--cacheinfo", &entry]);
    world.repository.git(&["commit", "-q", "-m", "Module"]);
    world.repository.git(&["push", "-q", "origin", "HEAD"]);
    assert_eq!(paths(&changed(&world.source(), None).await), ["base/a.alloy"]);
    let error = failed(&selecting(&world, &["base/module/x"]), None).await;
    assert!(error.message.contains("submodule"), "{error}");
}

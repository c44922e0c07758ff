//! Modules in a repository: what `import.git` reads, and what a snapshot can read beyond its selection.

use bytes::Bytes;
use invar_sources::{GitModule, TreeEntry};

use super::*;

fn module(world: &World, revision: &str, path: &str) -> GitSource {
    let module = GitModule {
        name: "import.git.net".into(),
        repository: world.server.url("fleet.git"),
        revision: revision.to_owned(),
        path: path.to_owned(),
        auth: None,
        interval: Some(Duration::from_secs(60)),
    };
    GitSource::for_module(&module, &world.environment()).unwrap()
}

#[tokio::test]
async fn a_module_is_a_file_or_the_own_files_of_a_folder() {
    let Some(world) = world() else { return };
    world.repository.commit(
        "One",
        &[
            ("net/a.alloy", "a"),
            ("net/b.alloy", "b"),
            ("net/deep/c.alloy", "c"),
            ("net/README.md", "r"),
            ("net/.alloy", "hidden"),
            ("other/d.river", "d"),
        ],
    );
    assert_eq!(paths(&changed(&module(&world, "main", "net"), None).await), ["net/a.alloy", "net/b.alloy"]);
    assert_eq!(paths(&changed(&module(&world, "main", "other/d.river"), None).await), ["other/d.river"]);
    let error = failed(&module(&world, "main", "nowhere"), None).await;
    assert_eq!(error.class, ErrorClass::Rejected(Rejection::EmptySource), "{error}");
    let error = failed(&module(&world, "develop", "net"), None).await;
    assert_eq!(error.class, ErrorClass::NotFound, "{error}");
}

#[tokio::test]
async fn a_revision_is_a_tag_before_a_branch_before_a_commit_and_may_move() {
    let Some(world) = world() else { return };
    let first = world.repository.commit("One", &[("m.alloy", "one")]);
    world.repository.git(&["tag", "release"]);
    world.repository.git(&["push", "-q", "origin", "release"]);
    let second = world.repository.commit("Two", &[("m.alloy", "two")]);
    world.repository.git(&["push", "-q", "origin", "HEAD:refs/heads/release"]);
    let source = module(&world, "release", "m.alloy");
    let held = changed(&source, None).await;
    assert_eq!(held.revision.commit.as_deref(), Some(first.as_str()));
    world.repository.git(&["tag", "-f", "release"]);
    world.repository.git(&["push", "-q", "-f", "origin", "refs/tags/release"]);
    let moved = changed(&source, Some(&held)).await;
    assert_eq!(moved.revision.commit.as_deref(), Some(second.as_str()));
    let pinned = changed(&module(&world, &second, "m.alloy"), None).await;
    assert_eq!(pinned.files["m.alloy"], "two");
    assert_eq!(pinned.revision.text, format!("{}@sha1:{second}", &second[..12]));
}

#[tokio::test]
async fn a_snapshot_reads_beyond_its_selection_at_its_own_commit() {
    let Some(world) = world() else { return };
    let selected = SourceSettings { path: vec!["environments/dev".to_owned()], ..world.settings() };
    let source = world.open(&selected);
    world.repository.commit(
        "One",
        &[
            ("environments/dev/main.alloy", "m"),
            ("modules/net/a.alloy", "one"),
            ("modules/net/deep/b.alloy", "deep"),
            ("modules/net/notes.md", "n"),
        ],
    );
    let first = changed(&source, None).await;
    assert_eq!(paths(&first), ["environments/dev/main.alloy"]);
    world.repository.commit("Two", &[("modules/net/a.alloy", "two")]);
    let second = changed(&source, Some(&first)).await;
    assert_eq!(second.digest, first.digest);
    for (snapshot, text) in [(&first, "one"), (&second, "two")] {
        let context = context();
        let read = |path: &'static str| source.read(snapshot, path, &context);
        let text = Bytes::from_static(text.as_bytes());
        assert_eq!(read("modules/net/a.alloy").await.unwrap(), Some(TreeEntry::File(text.clone())));
        let folder = [("a.alloy".to_owned(), text)].into();
        assert_eq!(read("modules/net").await.unwrap(), Some(TreeEntry::Folder(folder)));
        assert_eq!(read("modules/web").await.unwrap(), None);
    }
    // The clone is gone: what is imported is fetched once more, at the commit that imports it.
    for clone in world.clones() {
        std::fs::remove_dir_all(clone).unwrap();
    }
    let read = source.read(&second, "modules/net/a.alloy", &context()).await.unwrap();
    assert_eq!(read, Some(TreeEntry::File(Bytes::from_static(b"two"))));
}

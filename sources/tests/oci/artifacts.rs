//! Artifacts of a real registry: by tag, digest and version, whole and in part.

use invar_sources::{SourceKind, TreeEntry};

use super::*;
use crate::publish::{INDEX, MANIFEST, descriptor, manifest};

#[tokio::test]
async fn an_artifact_is_read_by_its_tag_and_a_change_of_the_tag_is_seen() {
    let Some(world) = world() else { return };
    let one = world.publisher.push("production", &[("base/a.alloy", "one"), ("README.md", "x")]).await;
    let source = world.tagged("production");
    let first = changed(&source, None).await;
    assert_eq!(first.kind, SourceKind::Oci);
    assert_eq!(first.revision.text, format!("production@{one}"));
    assert_eq!(first.files.keys().collect::<Vec<_>>(), ["README.md", "base/a.alloy"]);
    assert_eq!(first.files["base/a.alloy"], "one");
    assert_eq!(first.subject.as_deref(), Some("main@sha1:4be21c09"));
    assert_eq!(first.committed_at, Some(SystemTime::UNIX_EPOCH + Duration::from_secs(1_714_979_289)));
    assert!(first.notices.is_empty(), "{:?}", first.notices);
    assert_eq!(poll(&source, Some(&first)).await.unwrap(), None);
    assert_eq!(poll(&world.tagged("production"), Some(&first)).await.unwrap(), None, "after a restart");

    let two = world.publisher.push("production", &[("base/a.alloy", "two")]).await;
    let second = changed(&source, Some(&first)).await;
    assert_eq!(second.revision.text, format!("production@{two}"));
    assert_eq!(second.files["base/a.alloy"], "two");
}

#[tokio::test]
async fn a_digest_needs_no_look_once_it_was_read() {
    let Some(world) = world() else { return };
    let one = world.publisher.push("v1", &[("a.alloy", "one")]).await;
    world.publisher.push("v1", &[("a.alloy", "two")]).await;
    let source = world.with(|settings| settings.oci.as_mut().unwrap().digest = Some(one.clone()));
    let first = changed(&source, None).await;
    assert_eq!((first.files["a.alloy"].as_ref(), first.revision.text.as_str()), (&b"one"[..], one.as_str()));
    drop(world.registry);
    assert_eq!(poll(&source, Some(&first)).await.unwrap(), None, "whether the registry is there or not");
}

#[tokio::test]
async fn the_highest_version_of_a_range_is_followed() {
    let Some(world) = world() else { return };
    for tag in ["v1.2.0", "1.10.0", "2.0.0", "1.11.0-rc.1", "latest"] {
        world.publisher.push(tag, &[("a.alloy", tag)]).await;
    }
    let source = world.with(|settings| settings.oci.as_mut().unwrap().semver = Some("^1".to_owned()));
    let first = changed(&source, None).await;
    assert_eq!(first.files["a.alloy"], "1.10.0");
    assert_eq!(poll(&source, Some(&first)).await.unwrap(), None);
    world.publisher.push("v1.11.0", &[("a.alloy", "newer")]).await;
    let second = changed(&source, Some(&first)).await;
    assert!(second.revision.text.starts_with("v1.11.0@sha256:"), "{}", second.revision);
    let none = world.with(|settings| settings.oci.as_mut().unwrap().semver = Some("^3".to_owned()));
    assert_eq!(failed(&none, None).await.class, ErrorClass::NotFound);
}

#[tokio::test]
async fn folders_and_files_of_it_are_selected() {
    let Some(world) = world() else { return };
    let files = [("base/a.alloy", "one"), ("env/dev/b.alloy", "two"), ("env/prod/c.alloy", "three")];
    world.publisher.push("latest", &files).await;
    let source = world.with(|settings| settings.path = vec!["base/".to_owned(), "env/dev".to_owned()]);
    let first = changed(&source, None).await;
    assert_eq!(first.files.keys().collect::<Vec<_>>(), ["base/a.alloy", "env/dev/b.alloy"]);
    assert_eq!(first.paths, ["base", "env/dev"]);
    // A change elsewhere is another revision of the same files.
    world.publisher.push("latest", &[files[0], files[1], ("env/prod/c.alloy", "four")]).await;
    let second = changed(&source, Some(&first)).await;
    assert_ne!(second.revision, first.revision);
    assert_eq!(second.digest, first.digest);
    let nothing = world.with(|settings| settings.path = vec!["nothing".to_owned()]);
    assert_eq!(failed(&nothing, None).await.class, ErrorClass::Rejected(Rejection::EmptySource));
}

#[tokio::test]
async fn what_a_file_refers_to_need_not_be_selected() {
    let Some(world) = world() else { return };
    let files = [("base/a.alloy", "one"), ("modules/net/b.alloy", "two"), ("modules/net/notes.md", "x")];
    world.publisher.push("latest", &files).await;
    let source = world.with(|settings| settings.path = vec!["base".to_owned()]);
    let first = changed(&source, None).await;
    // Whatever the tag names by now, it is read of the same artifact.
    world.publisher.push("latest", &[("base/a.alloy", "three")]).await;
    let context = context();
    let read = async |path: &str| source.read(&first, path, &context).await.unwrap();
    assert_eq!(read("base/a.alloy").await, Some(TreeEntry::File("one".into())));
    assert_eq!(read("modules/net/b.alloy").await, Some(TreeEntry::File("two".into())));
    let folder = [("b.alloy".to_owned(), "two".into())].into();
    assert_eq!(read("modules/net").await, Some(TreeEntry::Folder(folder)));
    assert_eq!(read("modules/nothing").await, None);
}

#[tokio::test]
async fn what_is_not_there_says_that_it_may_be_hidden() {
    let Some(world) = world() else { return };
    let one = world.publisher.push("v1", &[("a.alloy", "one")]).await;
    let source = world.tagged("v1");
    let first = changed(&source, None).await;
    world.publisher.delete(&one).await;
    let error = failed(&source, Some(&first)).await;
    assert_eq!(error.class, ErrorClass::NotFound);
    assert!(
        error.message.contains("obs/fleet:v1") && error.message.contains("needs a credential"),
        "{error}"
    );
    world.publisher.push("v1", &[("a.alloy", "one")]).await;
    assert_eq!(poll(&source, Some(&first)).await.unwrap(), None);
}

#[tokio::test]
async fn an_index_of_one_is_followed_and_of_several_is_refused() {
    let Some(world) = world() else { return };
    let layers = [archive(&[("a.alloy", "one")]), archive(&[("a.alloy", "two")])];
    let mut parts = Vec::new();
    for (number, layer) in layers.iter().enumerate() {
        world.publisher.push_layer(&format!("part-{number}"), publish::FLUX_CONTENT, layer).await;
        parts.push(descriptor(MANIFEST, manifest(publish::FLUX_CONTENT, layer).as_bytes()));
    }
    let index = |parts: &[String]| {
        format!(r#"{{"schemaVersion":2,"mediaType":"{INDEX}","manifests":[{}]}}"#, parts.join(","))
    };
    let one = world.publisher.put_manifest("one", INDEX, &index(&parts[..1])).await;
    let first = changed(&world.tagged("one"), None).await;
    assert_eq!(first.files["a.alloy"], "one");
    assert_eq!(first.revision.text, format!("one@{one}"), "it is the index that the tag names");
    world.publisher.put_manifest("two", INDEX, &index(&parts)).await;
    let error = failed(&world.tagged("two"), None).await;
    assert_eq!(error.class, shape());
    assert!(error.message.contains("index of 2"), "{error}");
}

#[tokio::test]
async fn what_is_no_artifact_of_files_is_refused() {
    let Some(world) = world() else { return };
    world.publisher.push_layer("plain", "text/plain", b"just a text").await;
    let error = failed(&world.tagged("plain"), None).await;
    assert_eq!(error.class, shape());
    assert!(
        error.message.contains("text/plain") && error.help.unwrap().contains("flux push"),
        "{}",
        error.message
    );
    world.publisher.push_layer("broken", publish::FLUX_CONTENT, b"no archive at all").await;
    assert_eq!(failed(&world.tagged("broken"), None).await.class, shape());
    world
        .publisher
        .push_layer("image", "application/vnd.oci.image.layer.v1.tar+gzip", &archive(&[("a.alloy", "x")]))
        .await;
    assert_eq!(changed(&world.tagged("image"), None).await.files["a.alloy"], "x");
}

#[tokio::test]
async fn bombs_and_large_artifacts_are_refused() {
    let Some(world) = world() else { return };
    let bomb = archive(&[("a.alloy", &" ".repeat(32 << 20))]);
    world.publisher.push_layer("bomb", publish::FLUX_CONTENT, &bomb).await;
    let limits = ErrorClass::Rejected(Rejection::Limits);
    assert_eq!(failed(&world.tagged("bomb"), None).await.class, limits);
    world.publisher.push("v1", &[("a.alloy", "0123456789")]).await;
    for change in [
        (|settings| settings.limits.file = 5) as fn(&mut SourceSettings),
        |settings| settings.limits.bytes = 5,
        |settings| settings.limits.pack = 5,
    ] {
        let source = world.with(|settings| {
            settings.oci.as_mut().unwrap().tag = Some("v1".to_owned());
            change(settings);
        });
        assert_eq!(failed(&source, None).await.class, limits);
    }
}

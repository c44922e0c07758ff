//! What a manifest names.

use std::path::PathBuf;

use server::Asked;
use sha2::{Digest as _, Sha256};

use super::*;

fn digest(content: &str) -> String {
    Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Uploads the objects by their digest, and then the manifest.
async fn publish(world: &World, version: u64, files: &[(&str, &str)]) {
    for (_, content) in files {
        world.put(&format!("fleet/objects/{}", digest(content)), content).await;
    }
    let names: serde_json::Map<String, serde_json::Value> =
        files.iter().map(|(name, content)| ((*name).to_owned(), digest(content).into())).collect();
    let manifest = serde_json::json!({ "version": version, "objects": "objects/", "files": names });
    world.put("fleet/manifest.json", &manifest.to_string()).await;
}

fn settings(world: &World) -> SourceSettings {
    world.settings(|s3| s3.manifest = Some("fleet/manifest.json".to_owned()))
}

#[tokio::test]
async fn files_are_what_the_manifest_says_and_an_unchanged_one_is_answered_with_304() {
    let Some(world) = World::start().await else { return };
    publish(&world, 7, &[("base/a.alloy", "one"), ("hosts/b.alloy", "two")]).await;
    let source = world.open(&settings(&world));
    let first = changed(&source, None).await;
    assert_eq!(files(&first), [("base/a.alloy", "one"), ("hosts/b.alloy", "two")]);
    assert!(first.revision.text.starts_with("manifest-7@sha256:"), "{}", first.revision.text);
    world.proxy.take();
    unchanged(&source, &first).await;
    let asked = world.proxy.take();
    assert_eq!(asked.len(), 1);
    assert!(!asked[0].header("if-none-match").is_empty());
    // A later process has no ETag, and still downloads nothing but the manifest.
    unchanged(&world.open(&settings(&world)), &first).await;
    assert_eq!(world.proxy.take().len(), 1);
    // Of a new state what is known by its digest is not downloaded again.
    publish(&world, 8, &[("base/a.alloy", "one"), ("hosts/b.alloy", "three")]).await;
    let second = changed(&world.open(&settings(&world)), Some(&first)).await;
    assert_eq!(files(&second)[1], ("hosts/b.alloy", "three"));
    assert_eq!(world.proxy.take().len(), 2);
}

#[tokio::test]
async fn paths_select_from_a_manifest() {
    let Some(world) = World::start().await else { return };
    publish(&world, 1, &[("base/a.alloy", "one"), ("hosts/b.alloy", "two")]).await;
    let mut settings = settings(&world);
    settings.path = vec!["base".to_owned()];
    let source = world.open(&settings);
    let snapshot = changed(&source, None).await;
    assert_eq!(files(&snapshot), [("base/a.alloy", "one")]);
    let read = world.open(&settings);
    let entry = read.read(&snapshot, "hosts/b.alloy", &context(30)).await.unwrap();
    assert!(matches!(entry, Some(invar_sources::TreeEntry::File(content)) if content == "two"));
}

#[tokio::test]
async fn an_older_manifest_is_refused_also_by_a_later_process() {
    let Some(world) = World::start().await else { return };
    publish(&world, 7, &[("a.alloy", "seven")]).await;
    let source = world.open(&settings(&world));
    let seventh = changed(&source, None).await;
    publish(&world, 6, &[("a.alloy", "six")]).await;
    for source in [source, world.open(&settings(&world))] {
        let error = refused(&source, Some(&seventh)).await;
        rejected(&error, Rejection::History, "has version 6 after version 7");
        assert!(error.help.unwrap().contains("higher `version`"));
    }
}

#[tokio::test]
async fn two_manifests_of_one_version_are_refused() {
    let Some(world) = World::start().await else { return };
    publish(&world, 7, &[("a.alloy", "one")]).await;
    let source = world.open(&settings(&world));
    let first = changed(&source, None).await;
    publish(&world, 7, &[("a.alloy", "two")]).await;
    rejected(&refused(&source, Some(&first)).await, Rejection::History, "still has version 7");
}

#[tokio::test]
async fn an_object_that_is_not_what_the_manifest_says_is_never_used() {
    let Some(world) = World::start().await else { return };
    publish(&world, 1, &[("a.alloy", "one")]).await;
    world.put(&format!("fleet/objects/{}", digest("one")), "something else").await;
    let error = refused(&world.open(&settings(&world)), None).await;
    assert_eq!(error.class, ErrorClass::Integrity, "{error}");
    assert!(error.message.contains("another object than was expected"), "{error}");
}

#[tokio::test]
async fn a_manifest_that_is_uploaded_before_its_objects_is_waited_for() {
    let Some(world) = World::start().await else { return };
    publish(&world, 1, &[("a.alloy", "one")]).await;
    let key = format!("fleet/objects/{}", digest("one"));
    world.delete(&key).await;
    let source = world.open(&settings(&world));
    let uploaded = async {
        // The first read of the object has failed.
        while !world.proxy.take().iter().any(|asked| asked.target.contains("objects")) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        world.put(&key, "one").await;
    };
    let (snapshot, ()) = tokio::join!(changed(&source, None), uploaded);
    assert_eq!(files(&snapshot), [("a.alloy", "one")]);
}

#[tokio::test]
async fn objects_by_name_lie_beside_the_manifest() {
    let Some(world) = World::start().await else { return };
    world.put("fleet/base/a.alloy", "one").await;
    let manifest = format!(r#"{{"version": 1, "files": {{"base/a.alloy": "{}"}}}}"#, digest("one"));
    world.put("fleet/manifest.json", &manifest).await;
    assert_eq!(files(&changed(&world.open(&settings(&world)), None).await), [("base/a.alloy", "one")]);
}

#[tokio::test]
async fn what_is_no_manifest_is_refused_and_one_without_files_is_empty() {
    let Some(world) = World::start().await else { return };
    let source = world.open(&settings(&world));
    for (text, rejection, part) in [
        ("{", Rejection::Shape, "not what it should be"),
        (r#"{"version": 1, "files": {"../a": "00"}}"#, Rejection::Shape, "not a name"),
        (r#"{"version": 1, "files": {}}"#, Rejection::EmptySource, "names no files"),
    ] {
        world.put("fleet/manifest.json", text).await;
        rejected(&refused(&source, None).await, rejection, part);
    }
    let mut small = settings(&world);
    small.s3.as_mut().unwrap().objects = 1;
    publish(&world, 1, &[("a.alloy", "one"), ("b.alloy", "two")]).await;
    rejected(&refused(&world.open(&small), None).await, Rejection::Limits, "names 2 files");
    assert!(world.proxy.take().iter().all(|asked: &Asked| asked.target.contains("manifest.json")));
}

/// A key of `ssh-keygen`; `None`, with a note, where that is not installed.
fn signing_key(folder: &Path) -> Option<PathBuf> {
    let key = folder.join("key");
    let made = std::process::Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-C", "test", "-f"])
        .arg(&key)
        .status();
    if !made.is_ok_and(|status| status.success()) {
        assert!(std::env::var_os("INVAR_REQUIRE_SERVERS").is_none(), "ssh-keygen is not installed");
        eprintln!("skipped: ssh-keygen is not installed");
        return None;
    }
    Some(key)
}

/// Signs the manifest as it is in the bucket and uploads the signature beside it.
async fn sign(world: &World, key: &Path, manifest: &str) {
    let document = key.with_file_name("manifest.json");
    std::fs::write(&document, manifest).unwrap();
    let signed = std::process::Command::new("ssh-keygen")
        .args(["-q", "-Y", "sign", "-n", "file", "-f"])
        .arg(key)
        .arg(&document)
        .stderr(std::process::Stdio::null())
        .status();
    assert!(signed.unwrap().success());
    let signature = document.with_file_name("manifest.json.sig");
    world.put("fleet/manifest.json.sig", &std::fs::read_to_string(&signature).unwrap()).await;
    std::fs::remove_file(signature).unwrap();
}

fn manifest(version: u64) -> String {
    format!(r#"{{"version": {version}, "files": {{"a.alloy": "{}"}}}}"#, digest("one"))
}

#[tokio::test]
async fn a_signed_manifest_is_believed_and_no_other() {
    let Some(world) = World::start().await else { return };
    let folder = tempfile::tempdir().unwrap();
    let Some(key) = signing_key(folder.path()) else { return };
    let public = std::fs::read_to_string(key.with_extension("pub")).unwrap();
    let allowed = folder.path().join("allowed_signers");
    std::fs::write(&allowed, format!("ada@example.com {public}")).unwrap();
    let mut settings = settings(&world);
    settings.s3.as_mut().unwrap().signature =
        Some(invar_sources::SignatureSettings { ssh: Some(allowed.clone()), ..Default::default() });

    world.put("fleet/a.alloy", "one").await;
    world.put("fleet/manifest.json", &manifest(1)).await;
    let source = world.open(&settings);
    let unsigned = refused(&source, None).await;
    rejected(&unsigned, Rejection::Verification, "is not signed");

    sign(&world, &key, &manifest(1)).await;
    let first = changed(&source, None).await;
    assert_eq!(files(&first), [("a.alloy", "one")]);
    assert_eq!(first.signer.as_deref(), Some("ada@example.com"));
    world.proxy.take();
    unchanged(&source, &first).await;
    assert_eq!(world.proxy.take().len(), 1, "an unchanged manifest under the same keys is not read again");

    // The signature is of another manifest.
    world.put("fleet/manifest.json", &manifest(2)).await;
    let other = refused(&source, Some(&first)).await;
    assert_eq!(other.class, ErrorClass::Rejected(Rejection::Verification), "{other}");
    sign(&world, &key, &manifest(2)).await;
    let second = changed(&source, Some(&first)).await;

    // The key is taken away: what is held is verified anew, and refused.
    std::fs::write(&allowed, format!("ada@example.com namespaces=\"git\" {public}")).unwrap();
    let distrusted = refused(&source, Some(&second)).await;
    assert_eq!(distrusted.class, ErrorClass::Rejected(Rejection::Verification), "{distrusted}");
}

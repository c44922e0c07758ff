//! One object.

use aws_sdk_s3::types::ChecksumAlgorithm;

use super::*;

fn key(world: &World, key: &str) -> SourceSettings {
    world.settings(|s3| s3.key = Some(key.to_owned()))
}

#[tokio::test]
async fn an_object_is_one_file_and_an_unchanged_one_is_answered_with_304() {
    let Some(world) = World::start().await else { return };
    world.put("a/main.alloy", "one").await;
    let source = world.open(&key(&world, "a/main.alloy"));
    let first = changed(&source, None).await;
    assert_eq!(files(&first), [("main.alloy", "one")]);
    assert_eq!(first.paths, ["main.alloy"]);
    assert!(first.revision.text.starts_with("s3:sha256:"), "{}", first.revision.text);
    world.proxy.take();
    unchanged(&source, &first).await;
    let asked = world.proxy.take();
    assert_eq!(asked.len(), 1);
    assert!(!asked[0].header("if-none-match").is_empty());
    // The same content under another ETag is a download, and no change.
    let copy = world.open(&key(&world, "a/main.alloy"));
    unchanged(&copy, &first).await;
    world.put("a/main.alloy", "two").await;
    let second = changed(&source, Some(&first)).await;
    assert_eq!(files(&second), [("main.alloy", "two")]);
    assert_ne!(first.revision, second.revision);
}

#[tokio::test]
async fn a_version_is_read_and_stays() {
    let Some(world) = World::start().await else { return };
    world.keep_versions().await;
    world.put("main.alloy", "one").await;
    let listed = world.client.list_object_versions().bucket(BUCKET).send().await.unwrap();
    let version = listed.versions()[0].version_id().unwrap().to_owned();
    world.put("main.alloy", "two").await;
    let source = world.open(&world.settings(|s3| {
        s3.key = Some("main.alloy".to_owned());
        s3.version = Some(version);
    }));
    let snapshot = changed(&source, None).await;
    assert_eq!(files(&snapshot), [("main.alloy", "one")]);
    unchanged(&source, &snapshot).await;
}

#[tokio::test]
async fn a_missing_object_and_a_missing_bucket_are_not_found_and_say_what_s3_hides() {
    let Some(world) = World::start().await else { return };
    let error = refused(&world.open(&key(&world, "nothing.alloy")), None).await;
    assert_eq!(error.class, ErrorClass::NotFound, "{error}");
    assert!(
        error.message.contains("s3://fleet/nothing.alloy") && error.message.contains("who may list"),
        "{error}"
    );
    let elsewhere = world.settings(|s3| {
        s3.key = Some("x".to_owned());
        s3.bucket = "nowhere".to_owned();
    });
    let error = refused(&world.open(&elsewhere), None).await;
    assert_eq!(error.class, ErrorClass::NotFound, "{error}");
    assert!(error.message.contains("no such bucket"), "{error}");
}

#[tokio::test]
async fn an_object_that_became_empty_is_refused() {
    let Some(world) = World::start().await else { return };
    world.put("main.alloy", "one").await;
    let source = world.open(&key(&world, "main.alloy"));
    let first = changed(&source, None).await;
    world.put("main.alloy", "").await;
    rejected(&refused(&source, Some(&first)).await, Rejection::EmptySource, "those stay in use");
}

#[tokio::test]
async fn an_object_beyond_the_limit_is_refused() {
    let Some(world) = World::start().await else { return };
    world.put("main.alloy", &"x".repeat(2000)).await;
    let mut settings = key(&world, "main.alloy");
    settings.limits.file = 1000;
    rejected(&refused(&world.open(&settings), None).await, Rejection::Limits, "longer than");
}

#[tokio::test]
async fn a_compressed_object_is_refused_with_a_hint() {
    let Some(world) = World::start().await else { return };
    let put = world.client.put_object().bucket(BUCKET).key("main.alloy").content_encoding("gzip");
    put.body(b"\x1f\x8b".to_vec().into()).send().await.unwrap();
    let error = refused(&world.open(&key(&world, "main.alloy")), None).await;
    rejected(&error, Rejection::Shape, "content encoding `gzip`");
    assert!(error.help.unwrap().contains("uncompressed"));
}

#[tokio::test]
async fn a_checksum_is_asked_for_and_held_against_the_content() {
    let Some(world) = World::start().await else { return };
    let put = world.client.put_object().bucket(BUCKET).key("main.alloy").body(b"right".to_vec().into());
    put.checksum_algorithm(ChecksumAlgorithm::Sha256).send().await.unwrap();
    let source = world.open(&key(&world, "main.alloy"));
    changed(&source, None).await;
    assert_eq!(world.proxy.take()[0].header("x-amz-checksum-mode"), "ENABLED");
    world.proxy.script(|_| Some(server::Instead::Replace("right".to_owned(), "wrong".to_owned())));
    let error = refused(&world.open(&key(&world, "main.alloy")), None).await;
    assert_eq!(error.class, ErrorClass::Integrity, "{error}");
    assert!(error.message.contains("checksum"), "{error}");
}

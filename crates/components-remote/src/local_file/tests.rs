//! `local.file` in a running engine, on real files.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use crate::running::Running;

/// The component that is looked at.
const NODE: &str = "local.file.x";

fn block(file: &std::path::Path, more: &str) -> String {
    format!("local.file \"x\" {{\n  filename = {file:?}\n  {more}\n}}\n")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_content_follows_the_file() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("content");
    std::fs::write(&file, " first\n").unwrap();
    let running = Running::start(&block(&file, "poll_frequency = \"1h\"")).await.unwrap();
    assert!(running.shown(NODE).0.contains(" first"), "nothing is trimmed: {:?}", running.shown(NODE));
    std::fs::write(&file, "second").unwrap();
    running.until(NODE, |exports, health| exports.contains("second") && health.starts_with("healthy")).await;
    // Replaced by a rename, as editors do.
    let other = directory.path().join("other");
    std::fs::write(&other, "third").unwrap();
    std::fs::rename(&other, &file).unwrap();
    running.until(NODE, |exports, _| exports.contains("third")).await;
    std::fs::remove_file(&file).unwrap();
    running.until(NODE, |exports, health| exports.contains("third") && health.starts_with("unhealthy")).await;
    // While it is gone other arguments may change.
    running.apply(&block(&file, "poll_frequency = \"2h\"")).await.unwrap();
    assert!(running.shown(NODE).0.contains("third"));
    std::fs::write(&file, "fourth").unwrap();
    running.until(NODE, |exports, health| exports.contains("fourth") && health.starts_with("healthy")).await;
    running.engine.shutdown(Duration::from_secs(5)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn symbolic_links_are_followed_when_they_are_swapped() {
    use std::os::unix::fs::symlink;
    // As Kubernetes mounts a ConfigMap: content -> ..data/content, ..data -> ..1.
    let directory = tempfile::tempdir().unwrap();
    for (version, content) in [("..1", "first"), ("..2", "second")] {
        std::fs::create_dir(directory.path().join(version)).unwrap();
        std::fs::write(directory.path().join(version).join("content"), content).unwrap();
    }
    symlink("..1", directory.path().join("..data")).unwrap();
    let file = directory.path().join("content");
    symlink("..data/content", &file).unwrap();
    let running = Running::start(&block(&file, "poll_frequency = \"1h\"")).await.unwrap();
    assert!(running.shown(NODE).0.contains("first"));
    symlink("..2", directory.path().join("..data_tmp")).unwrap();
    std::fs::rename(directory.path().join("..data_tmp"), directory.path().join("..data")).unwrap();
    std::fs::remove_dir_all(directory.path().join("..1")).unwrap();
    running.until(NODE, |exports, health| exports.contains("second") && health.starts_with("healthy")).await;
    running.engine.shutdown(Duration::from_secs(5)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn polling_notices_too() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("content");
    std::fs::write(&file, "first").unwrap();
    let text = block(&file, "detector = \"poll\"\n  poll_frequency = \"100ms\"");
    let running = Running::start(&text).await.unwrap();
    std::fs::write(&file, "second").unwrap();
    running.until(NODE, |exports, _| exports.contains("second")).await;
    running.engine.shutdown(Duration::from_secs(5)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_secret_is_exported_as_one() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("content");
    std::fs::write(&file, "hunter2").unwrap();
    let running = Running::start(&block(&file, "is_secret = true")).await.unwrap();
    let (exports, _) = running.shown(NODE);
    assert!(exports.contains("(secret)") && !exports.contains("hunter2"), "{exports}");
    running.engine.shutdown(Duration::from_secs(5)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_work_refuses_the_configuration() {
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("missing");
    let binary = directory.path().join("binary");
    std::fs::write(&binary, [0xff, 0xfe]).unwrap();
    for (text, part) in [
        (block(&missing, ""), "missing"),
        (block(&binary, ""), "UTF-8"),
        (block(directory.path(), ""), "directory"),
        (block(&binary, "poll_frequency = \"0s\""), "greater than 0"),
        (block(&binary, "detector = \"inotify\""), "fsnotify"),
    ] {
        let error = Running::start(&text).await.err().unwrap();
        assert!(error.contains(part), "{text}: {error}");
    }
}

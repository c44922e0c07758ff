#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;
use std::time::SystemTime;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::error::{ErrorClass, Rejection};

fn context() -> PollContext {
    PollContext {
        deadline: Instant::now() + Duration::from_secs(10),
        cancellation: CancellationToken::new(),
        now: SystemTime::UNIX_EPOCH,
    }
}

fn source(path: &Path) -> FileSource {
    FileSource::open(&SourceSettings::for_file(path)).unwrap()
}

fn write(path: impl AsRef<Path>, content: &str) {
    fs::write(&path, content).unwrap();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    }
}

async fn changed(source: &FileSource, previous: Option<&Snapshot>) -> Snapshot {
    match source.poll(previous, &context()).await.unwrap() {
        Poll::Changed(snapshot) => *snapshot,
        Poll::Unchanged => panic!("unchanged"),
    }
}

#[tokio::test]
async fn a_directory_gives_its_own_pipelines_and_variables() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    write(path.join("b.alloy"), "b");
    write(path.join("a.alloy"), "a");
    write(path.join("variables.toml"), "x = 1");
    write(path.join("README.md"), "no");
    fs::create_dir(path.join("deeper")).unwrap();
    write(path.join("deeper/c.alloy"), "c");
    let source = source(path);
    let first = changed(&source, None).await;
    assert_eq!(first.files.keys().collect::<Vec<_>>(), ["a.alloy", "b.alloy", "variables.toml"]);
    assert_eq!(first.revision.text, format!("file:sha256:{}", first.digest));
    assert!(matches!(source.poll(Some(&first), &context()).await.unwrap(), Poll::Unchanged));

    write(path.join("a.alloy"), "other");
    let second = changed(&source, Some(&first)).await;
    assert_ne!(second.digest, first.digest);
    fs::remove_file(path.join("b.alloy")).unwrap();
    let third = changed(&source, Some(&second)).await;
    assert_eq!(third.files.len(), 2);
}

#[tokio::test]
async fn what_is_missing_or_too_large_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let class = async |path: &Path, limits: LimitSettings| {
        let settings = SourceSettings { limits, ..SourceSettings::for_file(path) };
        FileSource::open(&settings).unwrap().poll(None, &context()).await.unwrap_err().class
    };
    let limits = LimitSettings::default();
    assert_eq!(class(&path.join("none.alloy"), limits).await, ErrorClass::NotFound);
    assert_eq!(class(path, limits).await, ErrorClass::Rejected(Rejection::EmptySource));
    write(path.join("a.alloy"), "0123456789");
    write(path.join("b.alloy"), "0123456789");
    let exceeded = ErrorClass::Rejected(Rejection::Limits);
    assert_eq!(class(path, LimitSettings { file: 9, ..limits }).await, exceeded);
    assert_eq!(class(path, LimitSettings { bytes: 19, ..limits }).await, exceeded);
    assert_eq!(class(path, LimitSettings { files: 1, ..limits }).await, exceeded);
    assert_eq!(changed(&source(path), None).await.size(), 20);
}

#[tokio::test]
async fn an_emptied_file_is_believed_only_after_a_while() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.alloy");
    write(&path, "");
    let source = source(&path);
    let started = std::time::Instant::now();
    assert_eq!(changed(&source, None).await.files["a.alloy"], "");
    assert!(started.elapsed() >= DEBOUNCE * 2);
}

#[cfg(unix)]
#[tokio::test]
async fn a_swapped_folder_is_noticed() {
    use std::os::unix::fs::symlink;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    for (version, content) in [("..one", "1"), ("..two", "2")] {
        fs::create_dir(path.join(version)).unwrap();
        write(path.join(version).join("a.alloy"), content);
    }
    symlink("..one", path.join("..data")).unwrap();
    symlink("..data/a.alloy", path.join("a.alloy")).unwrap();
    for place in [path.to_path_buf(), path.join("a.alloy")] {
        let source = source(&place);
        let mut events = source.watch().unwrap();
        let first = changed(&source, None).await;
        assert_eq!(first.files["a.alloy"], "1");
        events.borrow_and_update();
        symlink("..two", path.join("..tmp")).unwrap();
        fs::rename(path.join("..tmp"), path.join("..data")).unwrap();
        tokio::time::timeout(Duration::from_secs(10), events.changed()).await.unwrap().unwrap();
        let second = changed(&source, Some(&first)).await;
        assert_eq!(second.files["a.alloy"], "2");
        symlink("..one", path.join("..tmp")).unwrap();
        fs::rename(path.join("..tmp"), path.join("..data")).unwrap();
    }
}

#[cfg(unix)]
#[tokio::test]
async fn a_link_elsewhere_is_watched_at_its_target() {
    use std::os::unix::fs::symlink;
    let folder = tempfile::tempdir().unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    write(elsewhere.path().join("real.alloy"), "1");
    let link = folder.path().join("a.alloy");
    symlink(elsewhere.path().join("real.alloy"), &link).unwrap();
    let source = source(&link);
    let mut events = source.watch().unwrap();
    let first = changed(&source, None).await;
    events.borrow_and_update();
    write(elsewhere.path().join("real.alloy"), "2");
    tokio::time::timeout(Duration::from_secs(10), events.changed()).await.unwrap().unwrap();
    assert_eq!(changed(&source, Some(&first)).await.files["a.alloy"], "2");
}

#[cfg(unix)]
#[tokio::test]
async fn root_reads_nothing_that_others_may_write() {
    use std::os::unix::fs::PermissionsExt as _;
    if !rustix::process::geteuid().is_root() {
        println!("skipped: it takes root");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.alloy");
    write(&path, "x");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
    let error = source(&path).poll(None, &context()).await.unwrap_err();
    assert_eq!(error.class, ErrorClass::Forbidden);
    let mut settings = SourceSettings::for_file(&path);
    settings.file.as_mut().unwrap().allow_insecure_permissions = true;
    let source = FileSource::open(&settings).unwrap();
    assert!(source.poll(None, &context()).await.is_ok());
}

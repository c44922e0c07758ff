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

/// As git-sync swaps: a link to the folder of a revision is replaced by one to the next, the old folder goes.
#[cfg(unix)]
#[tokio::test]
async fn a_git_sync_link_that_is_swapped_is_noticed() {
    use std::os::unix::fs::symlink;
    let root = tempfile::tempdir().unwrap();
    let path = root.path();
    for (revision, content) in [("1111", "1"), ("2222", "2")] {
        fs::create_dir_all(path.join(".worktrees").join(revision).join("pipelines")).unwrap();
        write(path.join(".worktrees").join(revision).join("pipelines/a.alloy"), content);
    }
    symlink(".worktrees/1111", path.join("current")).unwrap();
    for place in [path.join("current/pipelines"), path.join("current/pipelines/a.alloy")] {
        let source = source(&place);
        let mut events = source.watch().unwrap();
        let first = changed(&source, None).await;
        assert_eq!(first.files["a.alloy"], "1");
        events.borrow_and_update();
        symlink(".worktrees/2222", path.join("tmp-link")).unwrap();
        fs::rename(path.join("tmp-link"), path.join("current")).unwrap();
        tokio::time::timeout(Duration::from_secs(10), events.changed()).await.unwrap().unwrap();
        let second = changed(&source, Some(&first)).await;
        assert_eq!(second.files["a.alloy"], "2");
        symlink(".worktrees/1111", path.join("tmp-link")).unwrap();
        fs::rename(path.join("tmp-link"), path.join("current")).unwrap();
    }
}

/// The real order of Kubernetes' atomic writer: a new dated folder, `..data_tmp`, a rename over `..data`, the old folder gone.
#[cfg(unix)]
#[tokio::test]
async fn a_projected_volume_is_read_whole_before_and_after_its_swap() {
    use std::os::unix::fs::symlink;
    let root = tempfile::tempdir().unwrap();
    let path = root.path();
    let publish = |stamp: &str, old: Option<&str>, content: &str| {
        fs::create_dir(path.join(stamp)).unwrap();
        for name in ["a.alloy", "b.alloy"] {
            write(path.join(stamp).join(name), content);
        }
        symlink(stamp, path.join("..data_tmp")).unwrap();
        fs::rename(path.join("..data_tmp"), path.join("..data")).unwrap();
        if let Some(old) = old {
            fs::remove_dir_all(path.join(old)).unwrap();
        }
    };
    publish("..2026_01", None, "1");
    for name in ["a.alloy", "b.alloy"] {
        symlink(format!("..data/{name}"), path.join(name)).unwrap();
    }
    let source = source(path);
    let mut events = source.watch().unwrap();
    let mut last = changed(&source, None).await;
    for (stamp, old, content) in [("..2026_02", "..2026_01", "2"), ("..2026_03", "..2026_02", "3")] {
        events.borrow_and_update();
        publish(stamp, Some(old), content);
        tokio::time::timeout(Duration::from_secs(10), events.changed()).await.unwrap().unwrap();
        last = changed(&source, Some(&last)).await;
        assert_eq!(
            (&last.files["a.alloy"][..], &last.files["b.alloy"][..]),
            (content.as_bytes(), content.as_bytes())
        );
    }
}

#[cfg(unix)]
#[tokio::test]
async fn each_link_of_a_chain_is_watched() {
    use std::os::unix::fs::symlink;
    let folders: Vec<_> = (0..4).map(|_| tempfile::tempdir().unwrap()).collect();
    let at = |index: usize| folders[index].path().join("a.alloy");
    write(at(3), "old");
    for index in (0..3).rev() {
        symlink(at(index + 1), at(index)).unwrap();
    }
    let source = source(&at(0));
    let mut events = source.watch().unwrap();
    let mut last = changed(&source, None).await;
    let other = tempfile::tempdir().unwrap();
    // From the end of the chain to its beginning: each is replaced by a link to something new.
    for index in (0..3).rev() {
        let target = other.path().join(format!("{index}.alloy"));
        write(&target, &index.to_string());
        events.borrow_and_update();
        symlink(&target, folders[index].path().join("tmp")).unwrap();
        fs::rename(folders[index].path().join("tmp"), at(index)).unwrap();
        tokio::time::timeout(Duration::from_secs(10), events.changed()).await.unwrap().unwrap();
        last = changed(&source, Some(&last)).await;
        assert_eq!(last.files["a.alloy"], index.to_string());
    }
}

#[cfg(unix)]
#[tokio::test]
async fn a_loop_of_links_is_an_error_and_no_endless_search() {
    use std::os::unix::fs::symlink;
    let folder = tempfile::tempdir().unwrap();
    symlink(folder.path().join("b"), folder.path().join("a")).unwrap();
    symlink(folder.path().join("a"), folder.path().join("b")).unwrap();
    let error = source(&folder.path().join("a")).poll(None, &context()).await.unwrap_err();
    assert_eq!(error.class, ErrorClass::Transient, "{error:?}");
}

/// The file is rewritten for as long as it is read: that is said, and nothing is taken before it holds still. On paused time,
/// which stands still while somebody reads, whatever else the host does.
#[tokio::test(start_paused = true)]
async fn a_file_that_is_being_written_is_taken_only_when_it_holds_still() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.alloy");
    write(&path, "begin...");
    let source = source(&path);
    let writing = async {
        for count in 0_u64.. {
            write(&path, &format!("{count:08}"));
            tokio::time::sleep(DEBOUNCE / 3).await;
        }
    };
    let context = context();
    let error = tokio::select! {
        polled = source.poll(None, &context) => polled.unwrap_err(),
        () = writing => unreachable!("it is written for ever"),
    };
    assert!(error.message.contains("does not hold still"), "{error:?}");
    write(&path, "the end.");
    assert_eq!(changed(&source, None).await.files["a.alloy"], "the end.");
}

/// Truncated and written again, as many editors do: the moment between never counts.
#[tokio::test(start_paused = true)]
async fn a_file_that_is_truncated_and_written_is_never_seen_empty() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.alloy");
    write(&path, "one");
    let source = source(&path);
    let first = changed(&source, None).await;
    // Written half a debounce, and one and a half, after it was truncated.
    let mut last = first;
    for (content, halves) in [("two", 1), ("three", 3)] {
        fs::write(&path, "").unwrap();
        let written = async {
            tokio::time::sleep(DEBOUNCE * halves / 2).await;
            write(&path, content);
        };
        let (next, ()) = tokio::join!(changed(&source, Some(&last)), written);
        assert_eq!(next.files["a.alloy"], content);
        last = next;
    }
}

#[cfg(unix)]
#[tokio::test]
async fn root_reads_no_folder_that_others_may_write() {
    use std::os::unix::fs::PermissionsExt as _;
    if !rustix::process::geteuid().is_root() {
        println!("skipped: it takes root");
        return;
    }
    let outer = tempfile::tempdir().unwrap();
    let folder = outer.path().join("conf.d");
    fs::create_dir(&folder).unwrap();
    let file = folder.join("a.alloy");
    write(&file, "x");
    for (mode, of_folder, of_file) in
        [(0o755, true, true), (0o775, false, false), (0o777, false, false), (0o1777, false, true)]
    {
        fs::set_permissions(&folder, fs::Permissions::from_mode(mode)).unwrap();
        for (place, allowed) in [(&folder, of_folder), (&file, of_file)] {
            let polled = source(place).poll(None, &context()).await;
            assert_eq!(polled.is_ok(), allowed, "{mode:o} {}: {polled:?}", place.display());
            if let Err(error) = polled {
                assert_eq!(error.class, ErrorClass::Forbidden);
                assert!(error.help.unwrap_or_default().contains("allow_insecure_permissions"));
            }
        }
    }
}

/// In a namespace of its own, where the kernel gives no inotify instance: files are polled, and that is no error.
#[cfg(target_os = "linux")]
#[test]
fn without_inotify_files_are_polled() {
    let script = "echo 0 > /proc/sys/user/max_inotify_instances && exec \"$0\" --exact file::tests::polls_where_nothing_can_be_watched --ignored --nocapture";
    let output = std::process::Command::new("unshare")
        .args(["--user", "--map-root-user", "sh", "-c", script])
        .arg(std::env::current_exe().unwrap())
        .output();
    let Ok(output) = output else { return eprintln!("skipped: there is no unshare") };
    let text =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if !text.contains("running 1 test") {
        assert!(std::env::var_os("INVAR_REQUIRE_SERVERS").is_none(), "{text}");
        return eprintln!("skipped: no namespace without inotify can be had: {text}");
    }
    assert!(output.status.success(), "{text}");
}

#[cfg(target_os = "linux")]
#[tokio::test]
#[ignore = "run by without_inotify_files_are_polled, in a namespace of its own"]
async fn polls_where_nothing_can_be_watched() {
    assert!(notify::recommended_watcher(|_| {}).is_err(), "there is inotify here");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.alloy");
    write(&path, "1");
    let source = source(&path);
    let first = changed(&source, None).await;
    assert!(source.watch.is_degraded());
    write(&path, "2");
    assert_eq!(changed(&source, Some(&first)).await.files["a.alloy"], "2");
}

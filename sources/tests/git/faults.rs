//! Servers that fail, and clones that are damaged.

use super::*;
use http_backend::Fault;

#[tokio::test]
async fn each_status_has_its_class() {
    let Some(world) = world() else { return };
    world.repository.commit("One", &[("a.alloy", "one")]);
    let source = world.source();
    let first = changed(&source, None).await;
    let limited = |seconds| ErrorClass::RateLimited { after: Some(Duration::from_secs(seconds)) };
    for (status, headers, class) in [
        (500, vec![], ErrorClass::Transient),
        (502, vec![], ErrorClass::Transient),
        (403, vec![], ErrorClass::Forbidden),
        (429, vec![("retry-after", "17".to_owned())], limited(17)),
        (403, vec![("retry-after", "18".to_owned())], limited(18)),
        (503, vec![("retry-after", "19".to_owned())], limited(19)),
    ] {
        world.server.inject([Fault::Status(status, headers)]);
        assert_eq!(failed(&source, Some(&first)).await.class, class, "{status}");
        assert_eq!(poll(&source, Some(&first)).await.unwrap(), None, "the server is well again");
    }
    // A surprise makes the advertisement be asked anew; only if that fails as well it is an error.
    world.server.inject([Fault::Status(404, vec![])]);
    assert_eq!(poll(&source, Some(&first)).await.unwrap(), None);
    world.server.inject([Fault::Status(404, vec![]), Fault::Status(404, vec![])]);
    let error = failed(&source, Some(&first)).await;
    assert_eq!(error.class, ErrorClass::NotFound);
    assert!(error.message.contains("or it needs a credential"), "{error}");
    let absent = world.with_git(|git| git.url = world.server.url("absent.git"));
    assert_eq!(failed(&absent, None).await.class, ErrorClass::NotFound);
}

#[tokio::test]
async fn a_page_is_not_a_repository() {
    let Some(world) = world() else { return };
    world.repository.commit("One", &[("a.alloy", "one")]);
    world.server.inject([Fault::Page]);
    let error = failed(&world.source(), None).await;
    assert_eq!(error.class, ErrorClass::Rejected(Rejection::Shape));
    assert!(error.message.contains("does not answer like a Git server"), "{error}");
}

#[tokio::test]
async fn transfers_that_break_off_leave_nothing_behind() {
    let Some(world) = world() else { return };
    let filler: String = (0..2000).map(|n| format!("{n} ")).collect();
    world.repository.commit("One", &[("a.alloy", &filler)]);
    let source = world.source();
    for length in [0, 3, 200, 1000] {
        for before in 0..3 {
            world.server.clear_faults();
            world.server.inject((0..before).map(|_| Fault::Delay(Duration::ZERO)));
            world.server.inject([Fault::Truncate(length)]);
            let outcome = poll(&world.source(), None).await;
            match outcome {
                Err(error) => assert_eq!(error.class, ErrorClass::Transient, "{length} {before}: {error}"),
                Ok(snapshot) => assert_eq!(snapshot.unwrap().files["a.alloy"], filler),
            }
            for clone in world.clones() {
                std::fs::remove_dir_all(clone).unwrap();
            }
        }
    }
    world.server.clear_faults();
    world.server.inject([Fault::Close]);
    // The client tries a closed connection again by itself, or reports it; both are fine.
    if let Err(error) = poll(&source, None).await {
        assert_eq!(error.class, ErrorClass::Transient);
    }
    assert_eq!(changed(&source, None).await.files["a.alloy"], filler);
}

#[tokio::test]
async fn a_server_that_is_gone_or_slow_is_transient() {
    let Some(world) = world() else { return };
    world.repository.commit("One", &[("a.alloy", "one")]);
    let source = world.source();
    let first = changed(&source, None).await;
    world.server.inject([Fault::Delay(Duration::from_secs(5))]);
    let context =
        PollContext { deadline: tokio::time::Instant::now() + Duration::from_millis(300), ..context() };
    let error = source.poll(Some(&first), &context).await.unwrap_err();
    assert_eq!(error.class, ErrorClass::Transient);
    assert!(error.message.contains("does not answer in time"), "{error}");
    let World { folder, repository, server } = world;
    drop(server);
    let error = failed(&source, Some(&first)).await;
    assert_eq!(error.class, ErrorClass::Transient);
    assert!(error.message.contains("cannot be reached") || error.message.contains("broke"), "{error}");
    drop((folder, repository));
}

#[tokio::test]
async fn a_damaged_clone_is_made_afresh() {
    let Some(world) = world() else { return };
    world.repository.commit("One", &[("a.alloy", "one")]);
    let source = world.source();
    changed(&source, None).await;
    let clone = world.clones().remove(0);
    let damage: [&dyn Fn(); 4] = [
        &|| {
            for entry in std::fs::read_dir(clone.join("objects/pack")).unwrap().flatten() {
                if entry.path().extension().is_some_and(|extension| extension == "pack") {
                    make_writable(&entry.path());
                    std::fs::write(entry.path(), b"PACK and nothing more").unwrap();
                }
            }
        },
        &|| std::fs::write(clone.join("HEAD"), b"\0\0\0").unwrap(),
        &|| std::fs::write(clone.join("config"), b"[[[").unwrap(),
        &|| std::fs::remove_dir_all(clone.join("objects/pack")).unwrap(),
    ];
    for (number, damage) in damage.iter().enumerate() {
        damage();
        let fresh = changed(&world.source(), None).await;
        assert_eq!(fresh.files["a.alloy"], "one", "{number}");
        // The others leave a repository that opens; a plain fetch mends it.
        if number == 2 {
            assert!(fresh.notices.iter().any(|notice| notice.kind == NoticeKind::ClonedAfresh), "{number}");
        }
        let again = changed(&world.source(), None).await;
        assert!(again.notices.is_empty(), "{number}");
    }
}

#[tokio::test]
async fn stale_locks_are_removed() {
    let Some(world) = world() else { return };
    world.repository.commit("One", &[("a.alloy", "one")]);
    let source = world.source();
    let first = changed(&source, None).await;
    let lock = world.clones()[0].join("config.lock");
    let file = std::fs::File::create(&lock).unwrap();
    file.set_modified(SystemTime::now() - Duration::from_secs(3600)).unwrap();
    world.repository.commit("Two", &[("a.alloy", "two")]);
    assert_eq!(changed(&source, Some(&first)).await.files["a.alloy"], "two");
    assert!(!lock.exists());
}

fn make_writable(path: &Path) {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o644)).unwrap();
    }
    #[cfg(not(unix))]
    let _ = path;
}

//! Servers that refuse, break off, are slow, or are no servers at all.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;

#[tokio::test]
async fn a_repository_that_is_not_there_or_not_readable() {
    let Some(world) = ssh_world(&SshdOptions::default()) else { return };
    let mut settings = world.settings(world.ssh());
    settings.git.as_mut().unwrap().url = world.server.url(&world.folder.path().join("absent.git"));
    let source = GitSource::open(&settings, &world.environment()).unwrap();
    let error = failed(&source, None).await;
    assert_eq!(error.class, ErrorClass::NotFound, "{error}");
    assert!(error.message.contains("or this key may not see it"), "{error}");
    let error = failed(&world.source(), None).await;
    assert_eq!(error.class, ErrorClass::Rejected(Rejection::EmptySource), "{error}");
}

#[tokio::test]
async fn what_the_command_does_instead_of_serving_has_a_class() {
    for (command, class, part) in [
        ("echo ERROR: Repository not found. >&2; exit 1", ErrorClass::NotFound, "Repository not found"),
        ("echo access denied >&2; exit 1", ErrorClass::Forbidden, "access denied"),
        ("exit 127", ErrorClass::Transient, "no `git-upload-pack`"),
        ("echo come back later >&2; exit 1", ErrorClass::Transient, "come back later"),
        ("exit 0", ErrorClass::Transient, "ended early"),
        ("echo Welcome to this host", ErrorClass::Rejected(Rejection::Shape), "like a Git server"),
        (
            "printf '003aERR access denied or repository not exported: /fleet.x'",
            ErrorClass::Forbidden,
            "access denied",
        ),
        ("printf 001e; exit 1", ErrorClass::Transient, "ended early"),
    ] {
        let options = SshdOptions { force_command: Some(command.to_owned()), ..SshdOptions::default() };
        let Some(world) = ssh_world(&options) else { return };
        let error = failed(&world.source(), None).await;
        assert_eq!(error.class, class, "{command}: {error}");
        assert!(error.message.contains(part), "{command}: {error}");
    }
}

#[tokio::test]
async fn a_commit_that_is_not_handed_out_is_found_on_its_branch() {
    // Version 0 hands out tips alone, unless the repository says otherwise.
    let options = SshdOptions { old_protocol: true, ..SshdOptions::default() };
    let Some(world) = ssh_world(&options) else { return };
    let one = world.repository.commit("One", &[("a.alloy", "one")]);
    world.repository.commit("Two", &[("a.alloy", "two")]);
    let mut settings = world.settings(world.ssh());
    settings.git.as_mut().unwrap().commit = Some(one);
    let source = GitSource::open(&settings, &world.environment()).unwrap();
    assert_eq!(changed(&source, None).await.files["a.alloy"], "one");
    settings.git.as_mut().unwrap().branch = None;
    settings.limits.files = 17;
    let environment =
        SourceEnvironment { state_directory: world.folder.path().join("other"), ..world.environment() };
    let error = failed(&GitSource::open(&settings, &environment).unwrap(), None).await;
    assert_eq!(error.class, ErrorClass::NotFound, "{error}");
    assert!(error.help.unwrap().contains("branch"));
}

#[tokio::test]
async fn limits_hold_over_ssh_too() {
    let Some(world) = ssh_world(&SshdOptions::default()) else { return };
    world.repository.commit("One", &[("a.alloy", &"0123456789".repeat(100))]);
    let mut settings = world.settings(world.ssh());
    settings.limits.pack = 100;
    let source = GitSource::open(&settings, &world.environment()).unwrap();
    let error = failed(&source, None).await;
    assert_eq!(error.class, ErrorClass::Rejected(Rejection::Limits), "{error}");
}

#[tokio::test]
async fn a_server_that_is_gone_or_silent_is_transient_and_cancellation_ends_the_connection() {
    let Some(world) = ssh_world(&SshdOptions::default()) else { return };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut settings = world.settings(world.ssh());
    let port = listener.local_addr().unwrap().port();
    settings.git.as_mut().unwrap().url = format!("ssh://git@127.0.0.1:{port}/x");
    let source = GitSource::open(&settings, &world.environment()).unwrap();
    let short =
        PollContext { deadline: tokio::time::Instant::now() + Duration::from_millis(300), ..context() };
    let error = source.poll(None, &short).await.unwrap_err();
    assert_eq!(error.class, ErrorClass::Transient);
    assert!(error.message.contains("in time"), "{error}");
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut everything = Vec::new();
    // The end of the stream comes because the other side gave up.
    tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut everything))
        .await
        .unwrap()
        .unwrap();

    let cancelled = context();
    let (outcome, ()) = tokio::join!(source.poll(None, &cancelled), async {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(b"SSH-2.0-test\r\n").await.unwrap();
        let mut some = [0; 64];
        assert!(stream.read(&mut some).await.unwrap() > 0);
        cancelled.cancellation.cancel();
        let ended = stream.read_to_end(&mut everything);
        drop(tokio::time::timeout(Duration::from_secs(10), ended).await.expect("the connection ends"));
    });
    assert_eq!(outcome.unwrap_err().class, ErrorClass::Transient);

    let long = short_of(60);
    let (outcome, ()) = tokio::join!(source.poll(None, &long), async {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
        drop(stream);
    });
    let error = outcome.unwrap_err();
    assert!(matches!(error.class, ErrorClass::Transient | ErrorClass::Rejected(Rejection::Shape)), "{error}");
    drop(listener);
    let error = failed(&source, None).await;
    assert_eq!(error.class, ErrorClass::Transient);
    assert!(error.message.contains("cannot be reached"), "{error}");
}

fn short_of(seconds: u64) -> PollContext {
    PollContext { deadline: tokio::time::Instant::now() + Duration::from_secs(seconds), ..context() }
}

#[tokio::test]
async fn a_connection_that_breaks_in_the_middle_leaves_nothing_behind() {
    let Some(world) = ssh_world(&SshdOptions::default()) else { return };
    let filler: String = (0..4000).map(|number| format!("{number} ")).collect();
    world.repository.commit("One", &[("a.alloy", &filler)]);
    // Forwards to the server, and breaks off after so many bytes of its answers.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let through = listener.local_addr().unwrap().port();
    let server = world.server.address();
    let allowed = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let budget = std::sync::Arc::clone(&allowed);
    let forwarder = tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let budget = budget.load(std::sync::atomic::Ordering::SeqCst);
            let server = tokio::net::TcpStream::connect(server).await.unwrap();
            let (mut from_server, mut to_server) = server.into_split();
            let (mut from_client, mut to_client) = client.into_split();
            let there = tokio::io::copy(&mut from_client, &mut to_server);
            let back =
                async { tokio::io::copy(&mut (&mut from_server).take(budget as u64), &mut to_client).await };
            tokio::select! {
                _ = there => {}
                _ = back => {}
            }
        }
    });
    let mut settings = world.settings(world.ssh());
    settings.git.as_mut().unwrap().url =
        world.server.url(world.repository.path()).replace(&server.port().to_string(), &through.to_string());
    let known = world.server.known_hosts("ed25519").replace(&server.port().to_string(), &through.to_string());
    world.known_hosts(&known);
    let source = GitSource::open(&settings, &world.environment()).unwrap();
    for bytes in [0, 10, 300, 1000, 1500, 2000, 3000, 4000, 6000, 8000] {
        allowed.store(bytes, std::sync::atomic::Ordering::SeqCst);
        if let Err(error) = poll(&source, None).await {
            assert_eq!(error.class, ErrorClass::Transient, "{bytes}: {error}");
        }
    }
    allowed.store(usize::MAX >> 1, std::sync::atomic::Ordering::SeqCst);
    assert_eq!(changed(&source, None).await.files["a.alloy"], filler);
    forwarder.abort();
}

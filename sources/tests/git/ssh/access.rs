//! Who is let in: kinds of keys, encrypted ones, agents, rotation, and refusals.

use super::*;

#[tokio::test]
async fn every_usual_kind_of_key_opens_the_repository() {
    let Some(world) = ssh_world(&SshdOptions::default()) else { return };
    world.repository.commit("One", &[("a.alloy", "one")]);
    for kind in ["ed25519", "ecdsa", "rsa"] {
        for passphrase in ["", "hunter2-hunter2"] {
            let key = world.folder.path().join(format!("{kind}{}", passphrase.len()));
            generate_key(&key, kind, passphrase);
            world.server.admit(&key);
            let passphrase = (!passphrase.is_empty()).then(|| Credential::Text(Secret::new(passphrase)));
            let source = world.open(SshSettings { key: Some(text(&key)), passphrase, ..world.ssh() });
            assert_eq!(changed(&source, None).await.files["a.alloy"], "one", "{kind}");
        }
    }
    // As older tools wrote keys.
    let key = world.folder.path().join("pem");
    let made = std::process::Command::new("ssh-keygen")
        .args(["-q", "-t", "rsa", "-b", "2048", "-m", "PEM", "-N", "", "-f"])
        .arg(&key)
        .status();
    assert!(made.unwrap().success());
    world.server.admit(&key);
    let source = world.open(SshSettings { key: Some(text(&key)), ..world.ssh() });
    assert_eq!(changed(&source, None).await.files["a.alloy"], "one");
}

#[tokio::test]
async fn a_key_that_is_not_accepted_is_named_by_its_fingerprint() {
    let Some(world) = ssh_world(&SshdOptions::default()) else { return };
    world.repository.commit("One", &[("a.alloy", "one")]);
    let source = world.source();
    let first = changed(&source, None).await;
    world.server.admit_nobody();
    let error = failed(&source, Some(&first)).await;
    assert_eq!(error.class, ErrorClass::AuthExpired, "{error}");
    assert!(
        error.message.contains("does not accept the key for") && error.message.contains("SHA256:"),
        "{error}"
    );
    world.server.admit(&world.key);
    assert_eq!(poll(&source, Some(&first)).await.unwrap(), None);
}

#[tokio::test]
async fn keys_that_cannot_be_used_say_why_and_never_what_is_in_them() {
    let Some(world) = ssh_world(&SshdOptions::default()) else { return };
    let encrypted = world.folder.path().join("encrypted");
    generate_key(&encrypted, "ed25519", "right");
    let wrong = Some(Credential::Text(Secret::new("hunter2-hunter2")));
    let nonsense = Some(Credential::Text(Secret::new("hunter2-hunter2 is no key")));
    let absent = Some(Credential::File(world.folder.path().join("absent")));
    for (key, passphrase, part) in [
        (Some(text(&encrypted)), None, "is encrypted"),
        (Some(text(&encrypted)), wrong, "the passphrase is wrong"),
        (nonsense, None, "no private key in OpenSSH or PEM form"),
        (absent, None, "there is no such file"),
    ] {
        let source = world.open(SshSettings { key, passphrase, ..world.ssh() });
        let error = failed(&source, None).await;
        assert_eq!(error.class, ErrorClass::AuthExpired, "{error}");
        assert!(error.message.contains(part), "{error}");
        assert!(!format!("{error:?} {source:?}").contains("hunter2"), "{error:?}");
    }
    assert_eq!(world.server.logins(), 0, "no connection is made without a key");
}

#[tokio::test]
async fn a_rotated_key_is_picked_up() {
    let Some(world) = ssh_world(&SshdOptions::default()) else { return };
    world.repository.commit("One", &[("a.alloy", "one")]);
    let source = world.source();
    let first = changed(&source, None).await;
    for name in ["", ".pub"] {
        std::fs::remove_file(format!("{}{name}", world.key.display())).unwrap();
    }
    generate_key(&world.key, "ed25519", "");
    let error = failed(&source, Some(&first)).await;
    assert_eq!(error.class, ErrorClass::Transient, "right after a rotation servers may lag: {error}");
    world.server.admit(&world.key);
    assert_eq!(poll(&source, Some(&first)).await.unwrap(), None);
}

#[tokio::test]
async fn settings_that_do_not_fit_are_refused_at_once() {
    let Some(world) = ssh_world(&SshdOptions::default()) else { return };
    let both = SshSettings { agent: true, ..world.ssh() };
    let lone = SshSettings { key: None, passphrase: Some(Credential::Text(Secret::new("x"))), ..world.ssh() };
    let mut token = world.settings(world.ssh());
    token.auth =
        Some(AuthSettings { token: Some(Credential::Text(Secret::new("x"))), ..AuthSettings::default() });
    let mut tls = world.settings(world.ssh());
    tls.tls = Some(invar_sources::TlsSettings::default());
    let mut http = world.settings(world.ssh());
    http.git.as_mut().unwrap().url = "https://git.example/x".to_owned();
    for settings in [world.settings(both), world.settings(lone), token, tls, http] {
        let error = GitSource::open(&settings, &world.environment()).unwrap_err();
        assert_eq!(error.class, ErrorClass::Stalled, "{error}");
    }
}

/// The part of the test below that runs in a process of its own, with an agent in its environment.
#[tokio::test]
#[ignore = "run by keys_of_an_agent_open_the_repository"]
async fn with_an_agent() {
    let variable = |name: &str| std::env::var(name).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let ssh = SshSettings {
        agent: true,
        known_hosts: Some(variable("TEST_KNOWN_HOSTS").into()),
        ..SshSettings::default()
    };
    let settings = SourceSettings {
        auth: Some(AuthSettings { ssh: Some(ssh), ..AuthSettings::default() }),
        ..SourceSettings::for_git(GitSettings { url: variable("TEST_URL"), ..GitSettings::default() })
    };
    let environment =
        SourceEnvironment { state_directory: folder.path().to_path_buf(), secrets: SecretStores::local() };
    let source = GitSource::open(&settings, &environment).unwrap();
    match variable("TEST_EXPECTED").as_str() {
        "" => assert_eq!(changed(&source, None).await.files["a.alloy"], "one"),
        part => {
            let error = failed(&source, None).await;
            assert!(error.message.contains(part), "{error}");
        }
    }
}

#[test]
fn keys_of_an_agent_open_the_repository() {
    let Some(world) = ssh_world(&SshdOptions::default()) else { return };
    world.repository.commit("One", &[("a.alloy", "one")]);
    let known_hosts = world.known_hosts(&world.server.known_hosts("ed25519"));
    let socket = world.folder.path().join("agent");
    let Ok(mut agent) = std::process::Command::new("ssh-agent")
        .arg("-D")
        .arg("-a")
        .arg(&socket)
        .stdout(std::process::Stdio::null())
        .spawn()
    else {
        skipped("ssh-agent is not installed");
        return;
    };
    let end = std::time::Instant::now() + Duration::from_secs(10);
    while !socket.exists() && std::time::Instant::now() < end {
        std::thread::sleep(Duration::from_millis(10));
    }
    let add = |key: &Path| {
        let mut command = std::process::Command::new("ssh-add");
        let status = command.arg("-q").arg(key).env("SSH_AUTH_SOCK", &socket).status();
        assert!(status.unwrap().success());
    };
    let run = |expected: &str, socket: &Path| {
        let output = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "ssh::access::with_an_agent", "--ignored", "--nocapture"])
            .env("SSH_AUTH_SOCK", socket)
            .env("TEST_URL", world.server.url(world.repository.path()))
            .env("TEST_KNOWN_HOSTS", &known_hosts)
            .env("TEST_EXPECTED", expected)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success() && text.contains("1 passed"), "{text}");
    };
    run("holds no key", &socket);
    // A key that the server does not know comes first, and one of RSA is signed with as the server wants.
    for (name, kind) in [("stranger", "ecdsa"), ("friend", "rsa")] {
        let key = world.folder.path().join(name);
        generate_key(&key, kind, "");
        add(&key);
        world.server.admit(&key);
    }
    run("", &socket);
    world.server.admit_nobody();
    run("does not accept the key", &socket);
    run("cannot be reached", &world.folder.path().join("no-agent"));
    run("SSH_AUTH_SOCK is not set", Path::new(""));
    agent.kill().unwrap();
    agent.wait().unwrap();
}

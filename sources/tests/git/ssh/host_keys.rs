//! Which server it is: `known_hosts` in all its forms, and trust on first use.

use super::*;

#[tokio::test]
async fn an_unknown_host_is_refused_with_the_line_to_add() {
    let options = SshdOptions { host_keys: vec!["ed25519", "ecdsa"], ..SshdOptions::default() };
    let Some(world) = ssh_world(&options) else { return };
    world.repository.commit("One", &[("a.alloy", "one")]);
    let ssh = SshSettings { known_hosts: Some(world.known_hosts("# nobody\n")), ..world.ssh() };
    world.known_hosts("# nobody\n");
    let source = world.open(ssh);
    let error = failed(&source, None).await;
    assert_eq!(error.class, ErrorClass::Integrity);
    assert!(error.message.contains("is not known: ssh-ed25519 SHA256:"), "{error}");
    let help = error.help.unwrap();
    let line = help.rsplit_once(": ").unwrap().1.to_owned();
    assert_eq!(world.server.logins(), 0, "nobody is shown a key");
    world.known_hosts(&format!("{line}\n"));
    assert_eq!(changed(&source, None).await.files["a.alloy"], "one", "{line}");
}

#[tokio::test]
async fn a_changed_key_is_an_integrity_failure() {
    let Some(world) = ssh_world(&SshdOptions::default()) else { return };
    world.repository.commit("One", &[("a.alloy", "one")]);
    let other = world.folder.path().join("other");
    generate_key(&other, "ed25519", "");
    let public = std::fs::read_to_string(other.with_extension("pub")).unwrap();
    let port = world.server.address().port();
    let source = world.source();
    world.known_hosts(&format!("[127.0.0.1]:{port} {public}"));
    let error = failed(&source, None).await;
    assert_eq!(error.class, ErrorClass::Integrity);
    assert!(
        error.message.contains("is not the one that is known") && error.message.contains("known_hosts:1"),
        "{error}"
    );
    assert_eq!(world.server.logins(), 0);
    // Another key under the name without the port says nothing about this server.
    world.known_hosts(&format!("127.0.0.1 {public}"));
    let error = failed(&source, None).await;
    assert!(error.message.contains("is not known"), "{error}");
}

#[tokio::test]
async fn known_hosts_may_be_hashed_or_have_wildcards() {
    let Some(world) = ssh_world(&SshdOptions::default()) else { return };
    world.repository.commit("One", &[("a.alloy", "one")]);
    let source = world.source();
    let plain = world.server.known_hosts("ed25519");
    let key = plain.split_once(' ').unwrap().1.to_owned();
    let port = world.server.address().port();
    for names in [
        format!("[127.0.0.*]:{port}"),
        format!("[other],[127.0.0.1]:{port}"),
        "127.0.0.1".to_owned(),
        "*".to_owned(),
    ] {
        world.known_hosts(&format!("{names} {key}"));
        assert!(poll(&source, None).await.is_ok(), "{names}");
    }
    for names in [format!("*,![127.0.0.1]:{port}"), "127.0.0.2".to_owned()] {
        world.known_hosts(&format!("{names} {key}"));
        let outcome = poll(&source, None).await;
        assert_eq!(outcome.unwrap_err().class, ErrorClass::Integrity, "{names}");
    }
    let file = world.known_hosts(&plain);
    let hashed = std::process::Command::new("ssh-keygen").args(["-H", "-f"]).arg(&file).output().unwrap();
    assert!(hashed.status.success());
    assert!(std::fs::read_to_string(&file).unwrap().starts_with("|1|"));
    assert!(poll(&source, None).await.is_ok());
}

#[tokio::test]
async fn the_host_is_asked_for_the_kind_of_key_that_is_known() {
    let options = SshdOptions { host_keys: vec!["ed25519", "ecdsa", "rsa"], ..SshdOptions::default() };
    let Some(world) = ssh_world(&options) else { return };
    world.repository.commit("One", &[("a.alloy", "one")]);
    let source = world.source();
    for kind in ["rsa", "ecdsa", "ed25519"] {
        world.known_hosts(&world.server.known_hosts(kind));
        assert!(poll(&source, None).await.is_ok(), "{kind}");
    }
    // With two known kinds either will do.
    world.known_hosts(&format!("{}{}", world.server.known_hosts("rsa"), world.server.known_hosts("ecdsa")));
    assert!(poll(&source, None).await.is_ok());
}

#[tokio::test]
async fn a_host_without_the_known_kind_of_key_is_not_asked_for_another() {
    let options = SshdOptions { host_keys: vec!["ecdsa"], ..SshdOptions::default() };
    let Some(world) = ssh_world(&options) else { return };
    let other = world.folder.path().join("other");
    generate_key(&other, "ed25519", "");
    let public = std::fs::read_to_string(other.with_extension("pub")).unwrap();
    let ssh = SshSettings {
        key: Some(Credential::File(world.key.clone())),
        known_hosts: Some(world.known_hosts(&format!("[127.0.0.1]:* {public}"))),
        ..SshSettings::default()
    };
    let error = failed(&world.open(ssh), None).await;
    assert_eq!(error.class, ErrorClass::Integrity);
    assert!(error.message.contains("has no key of the kinds that are known"), "{error}");
}

#[tokio::test]
async fn a_revoked_key_is_refused_even_if_it_is_known() {
    let Some(world) = ssh_world(&SshdOptions::default()) else { return };
    let known = world.server.known_hosts("ed25519");
    let key = known.split_once(' ').unwrap().1;
    let source = world.source();
    world.known_hosts(&format!("{known}@revoked * {key}"));
    let error = failed(&source, None).await;
    assert_eq!(error.class, ErrorClass::Integrity);
    assert!(error.message.contains("is revoked by"), "{error}");
}

#[tokio::test]
async fn certificates_of_a_known_authority_are_accepted() {
    let options = SshdOptions { certificate_for: Some("127.0.0.1".to_owned()), ..SshdOptions::default() };
    let Some(world) = ssh_world(&options) else { return };
    world.repository.commit("One", &[("a.alloy", "one")]);
    let public = std::fs::read_to_string(world.folder.path().join("sshd/authority.pub")).unwrap();
    let source = world.source();
    world.known_hosts(&format!("@cert-authority * {public}"));
    let context = PollContext { now: SystemTime::now(), ..context() };
    assert!(source.poll(None, &context).await.is_ok());
    let later = PollContext { now: SystemTime::now() + Duration::from_secs(7200), ..context.clone() };
    let error = source.poll(None, &later).await.unwrap_err();
    assert_eq!(error.class, ErrorClass::Integrity);
    assert!(error.message.contains("not valid now"), "{error}");
    // An authority that is revoked, or another one, makes it a key like any other.
    world.known_hosts(&format!("@cert-authority * {public}@revoked * {public}"));
    assert!(source.poll(None, &context).await.unwrap_err().message.contains("revoked"));
    let other = world.folder.path().join("other");
    generate_key(&other, "ed25519", "");
    let stranger = std::fs::read_to_string(other.with_extension("pub")).unwrap();
    world.known_hosts(&format!("@cert-authority * {stranger}"));
    assert!(source.poll(None, &context).await.unwrap_err().message.contains("is not known"));
    world.known_hosts(&format!("@cert-authority * {stranger}{}", world.server.known_hosts("ed25519")));
    assert!(source.poll(None, &context).await.is_ok());
}

#[tokio::test]
async fn a_certificate_for_other_names_is_refused() {
    let options = SshdOptions { certificate_for: Some("git.example".to_owned()), ..SshdOptions::default() };
    let Some(world) = ssh_world(&options) else { return };
    let public = std::fs::read_to_string(world.folder.path().join("sshd/authority.pub")).unwrap();
    let source = world.source();
    world.known_hosts(&format!("@cert-authority * {public}"));
    let context = PollContext { now: SystemTime::now(), ..context() };
    let error = source.poll(None, &context).await.unwrap_err();
    assert_eq!(error.class, ErrorClass::Integrity);
    assert!(error.message.contains("it is for other names"), "{error}");
}

#[tokio::test]
async fn trust_on_first_use_remembers_the_key_and_refuses_another() {
    let Some(world) = ssh_world(&SshdOptions::default()) else { return };
    world.repository.commit("One", &[("a.alloy", "one")]);
    let ssh = SshSettings { known_hosts: Some(world.known_hosts("")), ..world.ssh() };
    world.known_hosts("");
    let source = world.open(tofu(ssh.clone()));
    let first = changed(&source, None).await;
    let remembered: Vec<PathBuf> = std::fs::read_dir(world.folder.path().join("state/ssh/hosts"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    assert_eq!(remembered.len(), 1);
    assert_eq!(
        std::fs::read_to_string(&remembered[0]).unwrap().trim(),
        world.server.known_hosts("ed25519").trim().trim_end_matches(" test")
    );
    // Another process trusts what this one saw.
    assert_eq!(poll(&world.open(tofu(ssh.clone())), Some(&first)).await.unwrap(), None);
    // Who does not trust first uses does not trust this one either.
    assert_eq!(failed(&world.open(ssh), Some(&first)).await.class, ErrorClass::Integrity);

    let other = world.folder.path().join("other");
    generate_key(&other, "ed25519", "");
    let public = std::fs::read_to_string(other.with_extension("pub")).unwrap();
    let port = world.server.address().port();
    std::fs::write(&remembered[0], format!("[127.0.0.1]:{port} {public}")).unwrap();
    let error = failed(&source, Some(&first)).await;
    assert_eq!(error.class, ErrorClass::Integrity);
    assert!(error.message.contains("is not the one that is known"), "{error}");
    assert!(error.message.contains("state/ssh/hosts"), "it says where to look: {error}");
}

#[tokio::test]
async fn a_known_hosts_file_that_is_named_has_to_be_there() {
    let Some(world) = ssh_world(&SshdOptions::default()) else { return };
    let absent = world.folder.path().join("absent");
    let error = failed(&world.open(SshSettings { known_hosts: Some(absent), ..world.ssh() }), None).await;
    assert_eq!(error.class, ErrorClass::Transient);
    assert!(error.message.contains("the known_hosts file"), "{error}");
}

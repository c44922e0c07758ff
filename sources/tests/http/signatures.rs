//! Documents that have to be signed, with signatures that `ssh-keygen` makes.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use invar_sources::SignatureSettings;

use super::*;

/// A key of somebody, who can sign.
struct Signer {
    folder: TempDir,
}

/// `None`, with a note, where `ssh-keygen` is not installed.
fn signer() -> Option<Signer> {
    let folder = tempfile::tempdir().unwrap();
    let made = Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-C", "test", "-f"])
        .arg(folder.path().join("key"))
        .stdin(Stdio::null())
        .status();
    if !made.is_ok_and(|status| status.success()) {
        assert!(std::env::var_os("INVAR_REQUIRE_SERVERS").is_none(), "ssh-keygen is not installed");
        eprintln!("skipped: ssh-keygen is not installed");
        return None;
    }
    Some(Signer { folder })
}

impl Signer {
    fn sign(&self, content: &str) -> String {
        let document = self.folder.path().join("document");
        std::fs::write(&document, content).unwrap();
        let output = Command::new("ssh-keygen")
            .args(["-q", "-Y", "sign", "-n", "file", "-f"])
            .arg(self.folder.path().join("key"))
            .arg(&document)
            .stderr(Stdio::null())
            .status();
        assert!(output.unwrap().success());
        let signature = document.with_extension("sig");
        let text = std::fs::read_to_string(&signature).unwrap();
        std::fs::remove_file(signature).unwrap();
        text
    }

    /// Writes the file of those who may sign.
    fn allow(&self, path: &Path, principal: &str) {
        let key = std::fs::read_to_string(self.folder.path().join("key.pub")).unwrap();
        std::fs::write(path, format!("{principal} namespaces=\"file\" {key}")).unwrap();
    }
}

fn allowed(world: &World) -> PathBuf {
    world.folder.path().join("allowed_signers")
}

fn signed(world: &World, url: &str) -> HttpSource {
    world.with(url, |http| {
        http.signature =
            Some(SignatureSettings { ssh: Some(allowed(world)), ..SignatureSettings::default() });
    })
}

fn refused() -> ErrorClass {
    ErrorClass::Rejected(Rejection::Verification)
}

#[tokio::test]
async fn a_signed_document_names_its_signer() {
    let world = world();
    let (Some(server), Some(ada)) = (nginx(&world, &Special::default()), signer()) else { return };
    ada.allow(&allowed(&world), "ada@example.com");
    server.publish("fleet.alloy.sig", ada.sign(CONTENT)).unwrap();
    let url = server.url("/fleet.alloy");
    let source = signed(&world, &url);
    let first = changed(&source, None).await;
    assert_eq!(first.signer.as_deref(), Some("ada@example.com"));
    assert_eq!(first.files.len(), 1, "the signature is no part of it");
    // An unchanged document is verified again with the signature it came with, and neither travels.
    assert_eq!(poll(&source, Some(&first)).await.unwrap(), None);
    assert_eq!(server.served(3).unwrap()[2].status, 304);
    // And so it is after a restart.
    assert_eq!(poll(&signed(&world, &url), Some(&first)).await.unwrap(), None);
    assert_eq!(server.served(4).unwrap()[3].status, 304);
}

#[tokio::test]
async fn an_unsigned_or_wrongly_signed_document_is_refused_after_a_second_look() {
    let world = world();
    let (Some(server), Some(ada), Some(eve)) = (nginx(&world, &Special::default()), signer(), signer())
    else {
        return;
    };
    ada.allow(&allowed(&world), "ada@example.com");
    let source = signed(&world, &server.url("/fleet.alloy"));
    let error = failed(&source, None).await;
    assert_eq!(error.class, refused());
    assert!(error.message.contains("is not signed"), "{error}");
    assert_eq!(server.served(4).unwrap().len(), 4, "both are asked for twice");
    for signature in [eve.sign(CONTENT), ada.sign(OTHER), "nonsense".to_owned()] {
        server.publish("fleet.alloy.sig", signature).unwrap();
        assert_eq!(failed(&source, None).await.class, refused());
    }
    server.publish("fleet.alloy.sig", ada.sign(CONTENT)).unwrap();
    changed(&source, None).await;
}

#[tokio::test]
async fn a_change_that_is_caught_half_way_is_read_again() {
    let Some(ada) = signer() else { return };
    let world = world();
    ada.allow(&allowed(&world), "ada@example.com");
    let (old, new) = (ada.sign(CONTENT), ada.sign(OTHER));
    // The signature is replaced a moment after the document.
    let signatures = AtomicUsize::new(0);
    let server = Scripted::start(move |request| {
        if !request.target.contains(".sig") {
            return Reply::ok(OTHER);
        }
        let first = signatures.fetch_add(1, Ordering::SeqCst) == 0;
        Reply::ok(if first { old.clone() } else { new.clone() })
    });
    let first = changed(&signed(&world, &server.url("/fleet.alloy?v=1")), None).await;
    assert_eq!(first.files["fleet.alloy"], OTHER);
    let targets: Vec<String> = server.take_log().into_iter().map(|request| request.target).collect();
    let (document, signature) = ("/fleet.alloy?v=1", "/fleet.alloy.sig?v=1");
    assert_eq!(targets, [document, signature, document, signature]);
}

#[tokio::test]
async fn keys_that_change_are_asked_again_about_what_is_there() {
    let world = world();
    let (Some(ada), Some(bob)) = (signer(), signer()) else { return };
    ada.allow(&allowed(&world), "ada@example.com");
    let signature = std::sync::Arc::new(Mutex::new(ada.sign(CONTENT)));
    let served = std::sync::Arc::clone(&signature);
    let server = Scripted::start(move |request| match request.target.as_str() {
        "/x.sig" => Reply::ok(served.lock().unwrap().clone()),
        _ if request.header("if-none-match").is_some() => Reply::status(304),
        _ => Reply::ok(CONTENT).with("etag", "\"one\""),
    });
    let source = signed(&world, &server.url("/x"));
    let first = changed(&source, None).await;
    bob.allow(&allowed(&world), "bob@example.com");
    assert_eq!(
        failed(&source, Some(&first)).await.class,
        refused(),
        "the document did not change, the keys did"
    );
    *signature.lock().unwrap() = bob.sign(CONTENT);
    let second = changed(&source, Some(&first)).await;
    assert_eq!((second.signer.as_deref(), &second.digest), (Some("bob@example.com"), &first.digest));
    std::fs::remove_file(allowed(&world)).unwrap();
    assert_eq!(failed(&source, Some(&second)).await.class, ErrorClass::Transient);
}

#[tokio::test]
async fn minisign_signs_too() {
    // The example of minisign's own documentation: the key and signature of the text `test`.
    const KEY: &str = "RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3";
    const SIGNATURE: &str = "untrusted comment: signature from minisign secret key\n\
        RUQf6LRCGA9i559r3g7V1qNyJDApGip8MfqcadIgT9CuhV3EMhHoN1mGTkUidF/z7SrlQgXdy8ofjb7bNJJylDOocrCo8KLzZwo=\n\
        trusted comment: timestamp:1556193335\tfile:test\n\
        y/rUw2y8/hOUYjZU71eHp/Wo1KZ40fGy2VJEDl34XMJM+TX48Ss/17u3IvIfbVR1FkZZSNCisQbuQY+bHwhEBg==\n";
    let world = world();
    let server = Scripted::start(|request| match request.target.as_str() {
        "/x.minisig" => Reply::ok(SIGNATURE),
        _ => Reply::ok("test"),
    });
    let source = world.with(&server.url("/x"), |http| {
        http.signature =
            Some(SignatureSettings { minisign: vec![KEY.to_owned()], ..SignatureSettings::default() });
    });
    assert!(changed(&source, None).await.signer.is_some());
    server.set(|request| match request.target.as_str() {
        "/x.minisig" => Reply::ok(SIGNATURE),
        _ => Reply::ok("Test"),
    });
    assert_eq!(failed(&source, None).await.class, refused());
}

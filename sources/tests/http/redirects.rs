//! Where servers send us, and where not.

use invar_sources::{AuthSettings, NoticeKind};

use super::*;

#[tokio::test]
async fn five_redirects_are_followed_and_six_are_not() {
    let world = world();
    let server = Scripted::start(|request| match request.target.trim_start_matches('/').parse::<u32>() {
        Ok(0) => Reply::ok(CONTENT),
        Ok(left) => Reply::redirect(302, format!("/{}", left - 1)),
        Err(_) => Reply::status(404),
    });
    let first = changed(&world.at(&server.url("/5")), None).await;
    assert_eq!(first.files["5"], CONTENT, "the name is that of the settings");
    assert!(first.notices.is_empty(), "for now only: {:?}", first.notices);
    let error = failed(&world.at(&server.url("/6")), None).await;
    assert_eq!(error.class, ErrorClass::Integrity);
    server.set(|_| Reply::redirect(302, "/x"));
    assert_eq!(failed(&world.at(&server.url("/x")), None).await.class, ErrorClass::Integrity, "in a circle");
}

#[tokio::test]
async fn a_move_for_good_is_noticed() {
    for status in [301, 308] {
        let world = world();
        let server = Scripted::start(move |request| match request.target.as_str() {
            "/old.alloy" => Reply::redirect(status, "/new.alloy?token=hunter2-hunter2"),
            _ => Reply::ok(CONTENT),
        });
        let first = changed(&world.at(&server.url("/old.alloy")), None).await;
        let [notice] = first.notices.as_slice() else { panic!("{:?}", first.notices) };
        assert_eq!(notice.kind, NoticeKind::Redirected);
        assert!(notice.message.contains("/new.alloy"), "{}", notice.message);
        assert!(!notice.message.contains(MARKER), "{}", notice.message);
    }
}

#[tokio::test]
async fn authorization_and_headers_never_cross_the_origin() {
    let world = world();
    let other = Scripted::start(|_| Reply::ok(CONTENT));
    let location = other.url("/there.alloy");
    let server = Scripted::start(move |_| Reply::redirect(307, location.clone()));
    let mut settings = settings(&server.url("/x"));
    settings.auth = Some(AuthSettings { token: Some(text(MARKER)), ..AuthSettings::default() });
    settings.http.as_mut().unwrap().headers.insert("x-api-key".to_owned(), text(MARKER));
    changed(&world.open(&settings), None).await;
    let own = server.take_log();
    assert_eq!(own[0].header("authorization"), Some("Bearer hunter2-hunter2"));
    assert_eq!(own[0].header("x-api-key"), Some(MARKER));
    let log = other.take_log();
    assert_eq!((log[0].header("authorization"), log[0].header("x-api-key")), (None, None));
    assert_eq!(log[0].header("referer"), None);
}

#[tokio::test]
async fn no_redirect_leads_to_less_encryption_or_out_of_http() {
    let world = world();
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let plain = Scripted::start(|_| Reply::ok(CONTENT));
    let location = plain.url("/x");
    let server =
        Scripted::start_tls(access::server_config(&made), move |_| Reply::redirect(302, location.clone()));
    let mut encrypted = settings(&server.url("/x"));
    encrypted.tls = Some(access::trusting(&world, &made));
    let error = failed(&world.open(&encrypted), None).await;
    assert_eq!(error.class, ErrorClass::Integrity);
    assert!(error.message.contains("without encryption"), "{error}");
    assert!(plain.take_log().is_empty());

    for location in ["ftp://host/x", "file:///etc/passwd", "javascript:1", "http://", "https://me:pw@host/x"]
    {
        let server = Scripted::start(move |_| Reply::redirect(302, location));
        assert_eq!(
            failed(&world.at(&server.url("/x")), None).await.class,
            ErrorClass::Integrity,
            "{location}"
        );
    }
}

#[tokio::test]
async fn link_local_and_metadata_addresses_are_refused_unless_allowed() {
    let world = world();
    for host in ["169.254.169.254", "[fe80::1]", "[::ffff:169.254.169.254]", "2852039166"] {
        let location = format!("http://{host}/latest/meta-data/iam");
        let error = failed(&world.at(&location), None).await;
        assert_eq!(error.class, ErrorClass::Integrity, "{host}");
        assert!(error.help.unwrap().contains("allow_link_local"));
        let server = Scripted::start(move |_| Reply::redirect(302, location.clone()));
        let error = failed(&world.at(&server.url("/x")), None).await;
        assert_eq!(error.class, ErrorClass::Integrity, "{host}");
    }
    // Allowed, it is tried; whatever the network of this host makes of that, it is not refused here.
    let source = world.with("http://169.254.254.254:9/x", |http| http.allow_link_local = true);
    let result = source.poll(None, &within(Duration::from_millis(300))).await;
    assert_ne!(result.unwrap_err().class, ErrorClass::Integrity);
}

#[tokio::test]
async fn a_credential_in_a_redirect_is_not_quoted() {
    let world = world();
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let to = format!("http://{nobody}/as/{MARKER}/fleet.alloy");
    let server = Scripted::start(move |_| Reply::redirect(302, to.clone()));
    let source = world.with(&server.url("/x"), |http| {
        http.headers.insert("x-key".to_owned(), text(MARKER));
    });
    let error = failed(&source, None).await;
    assert_eq!(error.class, ErrorClass::Transient, "{error}");
    assert!(!format!("{error:?}").contains(MARKER), "{error:?}");
}

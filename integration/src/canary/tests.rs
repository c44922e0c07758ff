//! A marker is planted in each kind of place, and has to be found there; in none it must not be.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::Router;
use axum::http::{HeaderMap, Uri};
use parking_lot::Mutex;

use super::outputs::ROUTES;
use super::*;

const SECRET: &str = "marker-canary/3f9c1a+\"x";

/// An agent as a play: a page, a header and a command may show something, and so may its log and a file.
struct Play {
    address: String,
    shows: Arc<Mutex<(String, String)>>,
    directory: tempfile::TempDir,
}

impl Play {
    fn start() -> Self {
        let shows: Arc<Mutex<(String, String)>> = Arc::default();
        let at = Arc::clone(&shows);
        let page = move |uri: Uri| {
            let (path, text) = at.lock().clone();
            let mut headers = HeaderMap::new();
            if path == "a header" && uri.path() == "/metrics" {
                headers.insert("x-seen", text.parse().unwrap());
            }
            let lists = match uri.path() {
                "/api/v1/sources" => r#"[{"name":"fleet/a"}]"#,
                "/api/v1/secrets" => r#"[{"reference":"k8s/a/b"}]"#,
                "/api/v1/components" => r#"[{"id":"a.b"}]"#,
                "/api/v1/revisions" => r#"[{"generation":7}]"#,
                _ => "{}",
            };
            // Beside a list, which stays one.
            let planted = format!("[{{\"id\":\"{text}\"}}");
            let body = match path == uri.path() {
                true if lists == "{}" => planted,
                true => lists.replacen('{', &format!("{{\"note\":\"{text}\","), 1),
                false => lists.to_owned(),
            };
            std::future::ready((headers, body))
        };
        let address = crate::serve(Router::new().fallback(page)).unwrap().to_string();
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(directory.path().join("state/a/b")).unwrap();
        let play = Self { address, shows, directory };
        play.command("nothing");
        play
    }

    /// The binary prints the marker when its arguments begin so.
    fn command(&self, arguments: &str) {
        let script =
            format!("#!/bin/sh\ncase \"$*\" in '{arguments}'*) cat \"$(dirname $0)/shown\" >&2;; esac\n");
        std::fs::write(self.binary(), script).unwrap();
        std::fs::write(self.directory.path().join("shown"), SECRET).unwrap();
        std::fs::set_permissions(self.binary(), std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn binary(&self) -> PathBuf {
        self.directory.path().join("invar")
    }

    fn state(&self) -> PathBuf {
        self.directory.path().join("state")
    }

    fn file(&self, content: &[u8]) {
        std::fs::write(self.state().join("a/b/file"), content).unwrap();
    }

    fn search(&self) -> crate::Outcome {
        let canary = Canary::default();
        canary.add(SECRET);
        let (binary, log, state) = (self.binary(), self.directory.path().join("log"), self.state());
        canary.search(&Outputs {
            binary: &binary,
            address: Some(&self.address),
            process: Some(std::process::id()),
            directory: self.directory.path(),
            log: &log,
            state: &state,
        })
    }

    /// It is found, and it is said where.
    fn finds(&self, place: &str) {
        let found = self.search().expect_err(place);
        assert!(found.contains(place) && found.contains("shows a secret"), "{place}: {found}");
    }
}

#[test]
fn a_marker_is_found_wherever_it_is_planted() {
    let play = Play::start();
    play.search().unwrap();
    std::fs::write(play.directory.path().join("log"), format!("level=debug error=\"{SECRET}\"\n")).unwrap();
    play.finds("the log");
    std::fs::write(play.directory.path().join("log"), "level=debug\n").unwrap();

    for (path, place) in
        ROUTES.into_iter().filter(|route| !route.contains('{')).map(|route| (route, route)).chain([
            ("/api/v1/sources/fleet/a", "/api/v1/sources/fleet/a"),
            ("/api/v1/secrets/k8s%2Fa%2Fb", "/api/v1/secrets/k8s%2Fa%2Fb"),
            ("/api/v1/revisions/7", "/api/v1/revisions/7"),
            ("/api/v1/components/a.b", "/api/v1/components/a.b"),
            ("/api/v0/component/a.b/metrics", "/api/v0/component/a.b/metrics"),
            ("/api/v0/web/debug/a.b", "/api/v0/web/debug/a.b"),
            ("a header", "/metrics"),
        ])
    {
        // In base64, as a header would show it.
        *play.shows.lock() = (path.to_owned(), "x bWFya2VyLWNhbmFyeS8zZjljMWErIng=".to_owned());
        play.finds(place);
    }
    *play.shows.lock() = Default::default();

    for command in [
        "status -o text",
        "status -o json",
        "history",
        "plan",
        "quarantine list",
        "sources -o json",
        "sources fleet/a",
        "secrets -o text",
        "secrets k8s/a/b",
        "secrets test k8s/a/b",
        "components",
        "explain var",
        "doctor",
        "validate",
    ] {
        play.command(command);
        play.finds(command.split(" -o").next().unwrap());
    }
    play.command("nothing");
    play.search().unwrap();
}

#[test]
fn a_marker_is_found_in_files_and_what_is_compressed_in_them() {
    let play = Play::start();
    let text = format!("blob 30\0password = {SECRET}\n").into_bytes();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    gzip.write_all(&text).unwrap();
    let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
    zlib.write_all(&text).unwrap();
    let mut framed = snap::write::FrameEncoder::new(Vec::new());
    framed.write_all(&text.repeat(3)).unwrap();
    let raw = snap::raw::Encoder::new().compress_vec(&[b"marker-canary ".to_vec(), text.clone()].concat());
    let raw = raw.unwrap();
    let record = [b"crc.".to_vec(), (raw.len() as u32).to_le_bytes().to_vec(), vec![1], raw.clone()].concat();
    let log = [b"invarwal\x01\0\0\0\0\0\0\0".to_vec(), record.clone(), record].concat();
    for (what, content) in [
        ("plain", text),
        ("gzip", [b"before".to_vec(), gzip.finish().unwrap()].concat()),
        ("zlib in a pack", [b"PACK....".to_vec(), zlib.finish().unwrap(), b"after".to_vec()].concat()),
        ("framed snappy", framed.into_inner().unwrap()),
        ("raw snappy", raw),
        ("a log", log),
    ] {
        play.search().unwrap();
        play.file(&content);
        let found = play.search().expect_err(what);
        assert!(found.contains("state/a/b/file"), "{what}: {found}");
        play.file(b"");
    }
    std::fs::write(play.state().join("marker-named-5e1d"), "").unwrap();
    let canary = Canary::default();
    canary.add_markers_of("token = \"marker-named-5e1d\"");
    assert!(!canary.is_empty());
    let found = canary.search(&Outputs {
        binary: Path::new("/bin/true"),
        address: None,
        process: None,
        directory: play.directory.path(),
        log: Path::new("/dev/null"),
        state: &play.state(),
    });
    assert!(found.unwrap_err().starts_with("the name of"));
}

#[test]
fn a_marker_is_found_in_every_form_and_nothing_else_is() {
    use base64::Engine as _;
    let secret = "marker-canary/3f9c1a?\"\n".trim_end();
    let forms = Forms::of(&[secret.to_owned()]);
    for before in ["", "u:", "user:", "x-access-token:"] {
        let text = base64::engine::general_purpose::URL_SAFE.encode(format!("{before}{secret} and more"));
        assert!(forms.find(format!("Authorization: Basic {text}").as_bytes()).is_some(), "{text}");
    }
    for text in [
        "at https://x/?t=marker-canary%2F3f9c1a%3F%22",
        r#"{"a":"marker-canary/3f9c1a?\""}"#,
        r#"{"a":"{\"a\":\"marker-canary/3f9c1a?\\\""}"#,
        "6d61726b65722d63616e6172792f3366396331613f22",
        "6D61726B65722D63616E6172792F3366396331613F22",
    ] {
        assert!(forms.find(text.as_bytes()).is_some(), "{text}");
    }
    assert!(forms.find(b"marker-canary/3f9c1b? and nothing else").is_none());
    let lines = Canary::default();
    lines.add("-----BEGIN KEY-----\nMIIEvQIBADANBg\n-----END KEY-----\n");
    let held: BTreeSet<String> = lines.0.lock().all.clone();
    assert_eq!(held, BTreeSet::from(["MIIEvQIBADANBg".to_owned()]));
}

/// The routes that the server has are those that are asked.
#[test]
fn no_route_is_forgotten() {
    let sources = [
        ("/api/v1", include_str!("../../../src/server/api.rs")),
        ("", include_str!("../../../src/server/alloy.rs")),
        ("", include_str!("../../../src/server/mod.rs")),
    ];
    let mut found = 0;
    for (prefix, text) in sources {
        for line in text.lines().filter_map(|line| line.trim().strip_prefix(".route(\"")) {
            let (path, handlers) = line.split_once('"').unwrap();
            found += 1;
            let path = format!("{prefix}{path}");
            // To ask for this one is to change something.
            if path != "/-/reload" && (handlers.contains("get(") || handlers.contains("any(")) {
                assert!(ROUTES.contains(&path.as_str()), "{path} is not searched for secrets");
            }
        }
    }
    assert!(found >= 20, "{found} routes are found: they are written in another way now");
}

/// What the agent can compress with is what is decompressed here.
#[test]
fn no_kind_of_compression_is_forgotten() {
    let lock = include_str!("../../../Cargo.lock");
    for package in ["zstd", "zstd-safe", "ruzstd", "brotli", "lz4", "lz4_flex", "xz2", "bzip2", "lzma-rs"] {
        assert!(
            !lock.contains(&format!("name = \"{package}\"")),
            "files may be compressed with {package} now"
        );
    }
}

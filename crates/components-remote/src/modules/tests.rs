#![allow(clippy::unwrap_used)]

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::time::Instant;

use invar_engine::{Configuration, Inputs};
use invar_secrets::SecretStores;
use invar_sources::ErrorClass;
use tempfile::TempDir;

use super::*;

/// A server that keeps what it is asked and answers what it is told.
struct Server {
    address: String,
    answer: Arc<Mutex<(u16, String, String)>>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Server {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let answer = Arc::new(Mutex::new((200, String::new(), String::new())));
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let (answers, log) = (Arc::clone(&answer), Arc::clone(&asked));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let mut head = String::new();
                let mut lines = BufReader::new(&stream);
                while lines.read_line(&mut head).is_ok_and(|read| read > 2) {}
                log.lock().push(head.clone());
                let (mut status, headers, mut body) = answers.lock().clone();
                let tag = headers.strip_prefix("etag: ").map(str::trim);
                if tag.is_some_and(|tag| head.contains(&format!("if-none-match: {tag}"))) {
                    (status, body) = (304, String::new());
                }
                let length = body.len();
                // The client may be gone.
                drop(write!(
                    &stream,
                    "HTTP/1.1 {status} X\r\n{headers}content-length: {length}\r\nconnection: close\r\n\r\n{body}"
                ));
            }
        });
        Self { address, answer, asked }
    }

    fn answer(&self, status: u16, headers: &str, body: &str) {
        *self.answer.lock() = (status, headers.to_owned(), body.to_owned());
    }
}

fn requests(module_path: &str, text: &str) -> Vec<ImportRequest> {
    let inputs = Inputs { module_path: module_path.to_owned(), ..Inputs::default() };
    let parsed = Configuration::builder(inputs, "").files([("main.alloy", text)]).parse().unwrap();
    assert!(parsed.module_faults().is_empty(), "{:?}", parsed.module_faults());
    parsed.modules().to_vec()
}

fn loader(folder: &TempDir) -> ModuleLoader {
    let environment =
        SourceEnvironment { state_directory: folder.path().to_path_buf(), secrets: SecretStores::local() };
    ModuleLoader::new(&Poller::start(PollerOptions::new(Vec::new())), environment)
}

/// Follows and waits until the first module satisfies `wanted`.
async fn until(loader: &ModuleLoader, what: &str, wanted: impl Fn(&LoadedModule) -> bool) -> LoadedModule {
    let start = Instant::now();
    let mut changes = loader.subscribe();
    loop {
        if let Some(module) = loader.modules().into_iter().next().filter(|module| wanted(module)) {
            return module;
        }
        assert!(start.elapsed() < Duration::from_secs(20), "waited for {what}: {:?}", loader.modules());
        drop(tokio::time::timeout(Duration::from_secs(1), changes.changed()).await);
    }
}

fn text(module: &LoadedModule) -> String {
    let content = module.content.as_ref().unwrap();
    let file = |file: &ModuleFile| String::from_utf8(file.content.to_vec()).unwrap();
    content.files.iter().map(file).collect::<Vec<_>>().join("|")
}

#[tokio::test]
async fn http_is_asked_conditionally_and_keeps_what_it_had() {
    let server = Server::start();
    let folder = tempfile::tempdir().unwrap();
    let loader = loader(&folder);
    let url = format!("http://{}/lib/net.alloy?token=hidden", server.address);
    server.answer(200, "etag: \"one\"\r\n", "\n  declare \"a\" { }  \n\n");
    loader.follow(&requests(
        "",
        &format!(
            "import.http \"net\" {{ url = \"{url}\"\n poll_frequency = \"200ms\"\n headers = {{ \"x-team\" = \"net\" }}\n \
             client {{ bearer_token = \"secret\" }}\n}}"
        ),
    ));
    let module = until(&loader, "the first content", |module| module.content.is_some()).await;
    assert_eq!(text(&module), "declare \"a\" { }");
    let content = module.content.unwrap();
    assert_eq!(content.files[0].name, format!("http://{}/lib/net.alloy", server.address));
    assert_eq!(content.module_path, format!("http://{}/lib", server.address));
    assert_eq!(module.status.name.as_str(), "import.http.net");
    let polls = module.status.polls;
    let same = until(&loader, "another poll", |module| module.status.polls > polls).await;
    assert_eq!(same.status.revision.unwrap().text, content.revision);
    let asked = server.asked.lock().clone();
    assert!(
        asked[0].contains("authorization: Bearer secret") && asked[0].contains("x-team: net"),
        "{asked:?}"
    );
    assert!(asked.last().unwrap().contains("if-none-match: \"one\""), "{asked:?}");

    for (status, headers, body, class) in [
        (500, "", "", ErrorClass::Transient),
        (404, "", "", ErrorClass::NotFound),
        (204, "", "", ErrorClass::Integrity),
        (200, "content-type: text/html\r\n", "<html>", ErrorClass::Rejected(invar_sources::Rejection::Shape)),
        (200, "", "  \n", ErrorClass::Rejected(invar_sources::Rejection::Shape)),
    ] {
        server.answer(status, headers, body);
        loader.reconcile(None).await.unwrap();
        let module = loader.modules().remove(0);
        let error = module.status.error.clone().unwrap();
        if status != 204 {
            assert_eq!(error.class, class, "{status}: {error:?}");
        }
        assert!(!error.message.contains("hidden"), "{error:?}");
        assert_eq!(text(&module), "declare \"a\" { }", "what was good stays");
    }
    server.answer(200, "", "declare \"b\" { }");
    loader.reconcile(Some("import.http.net")).await.unwrap();
    let module = loader.modules().remove(0);
    assert_eq!((text(&module).as_str(), module.status.error), ("declare \"b\" { }", None));
    assert!(loader.reconcile(Some("import.http.web")).await.is_err());
    loader.shutdown().await;
}

#[tokio::test]
async fn a_file_of_the_host_is_watched() {
    let folder = tempfile::tempdir().unwrap();
    let loader = loader(&folder);
    let path = folder.path().join("net.alloy");
    std::fs::write(&path, "one").unwrap();
    let base = folder.path().display().to_string();
    loader.follow(&requests(
        &base,
        "import.file \"net\" {\n filename = \"net.alloy\"\n poll_frequency = \"1h\"\n}",
    ));
    let module = until(&loader, "the file", |module| module.content.is_some()).await;
    assert_eq!(text(&module), "one");
    let content = module.content.unwrap();
    assert_eq!(
        (content.files[0].name.as_str(), content.module_path.as_str()),
        (path.to_str().unwrap(), base.as_str())
    );
    std::fs::write(&path, "two").unwrap();
    let two = |module: &LoadedModule| module.content.is_some() && text(module) == "two";
    until(&loader, "the change", two).await;
    std::fs::remove_file(&path).unwrap();
    let gone = until(&loader, "the end", |module| module.status.error.is_some()).await;
    assert_eq!(text(&gone), "two");
    loader.shutdown().await;
}

#[tokio::test]
async fn a_folder_is_the_files_in_it() {
    let folder = tempfile::tempdir().unwrap();
    let loader = loader(&folder);
    let library = folder.path().join("library");
    std::fs::create_dir_all(library.join("deep")).unwrap();
    for (name, content) in [
        ("b.alloy", "b"),
        ("a.alloy", "a"),
        ("deep/c.alloy", "c"),
        ("variables.toml", "x = 1"),
        ("notes.md", "n"),
    ] {
        std::fs::write(library.join(name), content).unwrap();
    }
    let text_of = format!(
        "import.file \"net\" {{\n filename = \"{}\"\n detector = \"poll\"\n poll_frequency = \"100ms\"\n}}",
        library.display()
    );
    loader.follow(&requests("/@fleet", &text_of));
    let module = until(&loader, "the folder", |module| module.content.is_some()).await;
    assert_eq!(text(&module), "a|b");
    assert_eq!(module.content.unwrap().module_path, library.display().to_string());
    std::fs::write(library.join("d.alloy"), "d").unwrap();
    until(&loader, "the new file", |module| text(module) == "a|b|d").await;
    loader.shutdown().await;
}

#[tokio::test]
async fn what_cannot_work_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let loader = loader(&folder);
    for (import, message, help) in [
        (
            "import.git \"a\" { repository = \"ssh://git:hidden@host/a.git\"\n path = \"a\" }",
            "holds a password",
            "",
        ),
        (
            "import.git \"a\" { repository = \"https://host/a.git\"\n path = \"a\"\n ssh_key { username = \"git\"\n key = \"k\" } }",
            "does not go with",
            "basic_auth",
        ),
        ("import.git \"a\" { repository = \"https://host/a.git\"\n path = \"../a\" }", "..", ""),
        ("import.http \"a\" { url = \"ftp://user:hidden@host/a\" }", "is not an http", ""),
        (
            "import.http \"a\" { url = \"http://host/a\"\n client { basic_auth { usrname = \"x\" } } }",
            "usrname",
            "",
        ),
    ] {
        let import = import.replace("{ ", "{\n").replace(" }", "\n}");
        loader.follow(&requests("/@fleet", &import));
        let module = until(&loader, "the reason", |module| module.status.error.is_some()).await;
        let error = module.status.error.unwrap();
        assert_eq!(error.class, ErrorClass::Stalled, "{error:?}");
        assert!(error.message.contains(message), "{error:?}");
        assert!(error.help.unwrap_or_default().contains(help), "{import}");
        assert!(!error.message.contains("hidden"));
    }
    // What comes from the host itself may.
    let local = format!("import.file \"a\" {{\n filename = \"{}/a.alloy\"\n}}", folder.path().display());
    std::fs::write(folder.path().join("a.alloy"), "a").unwrap();
    loader.follow(&requests("/etc/invar", &local));
    until(&loader, "the file", |module| module.content.is_some()).await;
    loader.shutdown().await;
}

#[tokio::test]
async fn the_same_module_with_other_settings_keeps_its_name_and_content() {
    let server = Server::start();
    server.answer(200, "", "one");
    let folder = tempfile::tempdir().unwrap();
    let loader = loader(&folder);
    let import = |label: &str, path: &str, frequency: &str| {
        let url = format!("http://{}/{path}", server.address);
        format!("import.http \"{label}\" {{\n url = \"{url}\"\n poll_frequency = \"{frequency}\"\n}}\n")
    };
    loader.follow(&requests("", &import("net", "a", "1h")));
    until(&loader, "the content", |module| module.content.is_some()).await;
    server.answer(503, "", "");
    let nested = format!("declare \"d\" {{\n{}}}\n{}", import("net", "b", "1h"), import("net", "a", "2h"));
    loader.follow(&requests("", &nested));
    let modules = loader.modules();
    let names: Vec<_> = modules.iter().map(|module| module.status.name.to_string()).collect();
    assert!(names.contains(&"import.http.net".to_owned()) && names.len() == 2, "{names:?}");
    let kept = modules.iter().find(|module| module.status.name.as_str() == "import.http.net").unwrap();
    assert_eq!(text(kept), "one", "until the new settings brought something");
    loader.follow(&[]);
    assert!(loader.modules().is_empty());
    loader.shutdown().await;
}

#[tokio::test]
async fn files_of_the_host_are_imported_below_roots_only_and_beside_what_imports_them() {
    let folder = tempfile::tempdir().unwrap();
    let base = folder.path().canonicalize().unwrap();
    let (allowed, forbidden) = (base.join("allowed"), base.join("forbidden"));
    for directory in [&allowed, &forbidden] {
        std::fs::create_dir_all(directory.join("folder")).unwrap();
        std::fs::write(directory.join("a.alloy"), "a").unwrap();
        std::fs::write(directory.join("folder/b.alloy"), "b").unwrap();
    }
    std::os::unix::fs::symlink(forbidden.join("a.alloy"), allowed.join("link.alloy")).unwrap();
    std::fs::create_dir(allowed.join("mixed")).unwrap();
    std::os::unix::fs::symlink(forbidden.join("a.alloy"), allowed.join("mixed/c.alloy")).unwrap();
    let settings =
        invar_policy::PolicySettings { file_roots: Some(vec![allowed.clone()]), ..Default::default() };
    let policy = Arc::new(invar_policy::Policy::new(&settings, &[]).unwrap());
    let loader = loader(&folder);
    let import = |module_path: &Path, path: &Path| {
        let text = format!("import.file \"a\" {{\n filename = \"{}\"\n}}", path.display());
        let module_path = module_path.display().to_string();
        let inputs = Inputs { module_path, policy: Arc::clone(&policy), ..Inputs::default() };
        let parsed = Configuration::builder(inputs, "").files([("main.alloy", text)]).parse().unwrap();
        (parsed.modules().to_vec(), parsed.module_faults().to_vec())
    };
    let nowhere = Path::new("/@fleet");
    for path in [allowed.join("a.alloy"), allowed.join("folder")] {
        loader.follow(&import(nowhere, &path).0);
        until(&loader, "what is allowed", |module| module.content.is_some()).await;
        loader.follow(&[]);
    }
    // What is written down is refused where it is parsed, what a link does where it is read.
    let (requests, faults) = import(nowhere, &forbidden.join("a.alloy"));
    assert!(requests.is_empty() && faults[0].diagnostics.to_string().contains("may not be used"));
    for path in [allowed.join("link.alloy"), allowed.join("mixed")] {
        loader.follow(&import(nowhere, &path).0);
        let refused = until(&loader, "the refusal", |module| module.status.error.is_some()).await;
        let error = refused.status.error.unwrap();
        assert!(error.message.contains("which leads to"), "{error:?}");
        assert!(refused.content.is_none());
        loader.follow(&[]);
    }
    // Files that come from this host bring what lies beside them.
    loader.follow(&import(&forbidden, &forbidden.join("a.alloy")).0);
    until(&loader, "what lies beside", |module| module.content.is_some()).await;
    loader.shutdown().await;
}

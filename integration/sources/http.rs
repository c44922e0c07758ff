//! Documents over HTTP and HTTPS: one a case, on a real nginx that compresses, for those who authenticate and send a header.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use invar_integration::fault_proxy::Fault;

use crate::faults;
use crate::matrix::{Case, Kind, Outcomes, Place, Trouble, play};
use crate::nginx::{self, Nginx, Special};
use crate::sshd::generate_key;

const PASSWORD: &str = "marker-password-51d2a0e7";
const HEADER: &str = "marker-header-c83e16b4";
/// The case whose document has no validators, so that no question about it has a condition.
const WITHOUT_VALIDATORS: &str = "not_modified";

/// The case whose document is signed.
const SIGNED: &str = "signature_of_before";

struct Http {
    server: Nginx,
    scheme: &'static str,
    /// What came while a case was spoilt: its text, or nothing yet.
    aside: RefCell<BTreeMap<String, Option<String>>>,
    directory: tempfile::TempDir,
}

impl Http {
    fn start(scheme: &'static str) -> Option<Box<dyn Kind>> {
        if !nginx::is_available() {
            return None;
        }
        let directory = tempfile::tempdir().unwrap();
        let directives = format!(
            "gzip on;\nlocation = /{WITHOUT_VALIDATORS}.alloy {{\n\
             etag off; if_modified_since off; add_header Last-Modified \"\"; gzip_types text/plain; gzip_min_length 1;\n}}\n"
        );
        let special =
            Special { basic: Some(("ada", PASSWORD)), directives: &directives, ..Special::default() };
        let server = Nginx::start(directory.path(), &special).unwrap();
        Some(Box::new(Self { server, scheme, aside: RefCell::default(), directory }))
    }

    fn file(&self, case: &str) -> String {
        format!("{case}.alloy")
    }

    fn key(&self) -> PathBuf {
        self.directory.path().join("key")
    }

    /// Publishes a text, and its signature where the case has one.
    fn put(&self, case: &str, text: &str) {
        self.server.publish(&self.file(case), text).unwrap();
        if case == SIGNED {
            let document = self.directory.path().join("document");
            std::fs::write(&document, text).unwrap();
            let mut sign = std::process::Command::new("ssh-keygen");
            sign.args(["-q", "-Y", "sign", "-n", "file", "-f"]).arg(self.key()).arg(&document);
            assert!(sign.stderr(std::process::Stdio::null()).status().unwrap().success());
            let signature = document.with_extension("sig");
            self.server
                .publish(&format!("{}.sig", self.file(case)), std::fs::read(&signature).unwrap())
                .unwrap();
            std::fs::remove_file(signature).unwrap();
        }
    }

    /// Who may sign; made when it is asked for first.
    fn allowed_signers(&self) -> PathBuf {
        let file = self.directory.path().join("allowed_signers");
        if !file.exists() {
            generate_key(&self.key(), "ed25519", "");
            let public = std::fs::read_to_string(self.key().with_extension("pub")).unwrap();
            std::fs::write(&file, format!("ada@example.com {public}")).unwrap();
        }
        file
    }
}

impl Kind for Http {
    fn upstream(&self) -> Option<SocketAddr> {
        Some(self.server.address())
    }

    fn settings(&self, place: &Place<'_>) -> String {
        let (at, case, scheme) = (place.address.unwrap(), place.case, self.scheme);
        let (signature, more) = match case {
            // An unsigned document is looked at again after two seconds.
            SIGNED => {
                let keys = self.allowed_signers();
                (format!(", signature = {{ ssh = \"{}\" }}", keys.display()), "timeout = \"10s\"\n")
            }
            "large" => (String::new(), "limits = { file = \"64KiB\" }\n"),
            _ => (String::new(), ""),
        };
        format!(
            "http = {{ url = \"{scheme}://{at}/{case}.alloy\", headers = {{ \"x-key\" = \"{HEADER}\" }}{signature} }}\n\
             auth = {{ basic = {{ username = \"ada\", password = \"{PASSWORD}\" }} }}\n{more}"
        )
    }

    fn publish(&self, texts: &[(&str, String)]) {
        for (case, text) in texts {
            match self.aside.borrow_mut().get_mut(*case) {
                Some(aside) => *aside = Some(text.clone()),
                None => self.put(case, text),
            }
        }
    }

    fn spoil(&self, case: &str) {
        self.aside.borrow_mut().insert(case.to_owned(), None);
        let content: Vec<u8> = match case {
            "empty" => Vec::new(),
            "blank" => b" \n\t\n".to_vec(),
            "no_text" => b"\x7fELF\xff\xfe".to_vec(),
            "page_by_another_name" => b"<!doctype html><html><body>please sign in</body></html>".to_vec(),
            "large" => (0..30_000_u32)
                .flat_map(|n| format!("// {}\n", n.wrapping_mul(2_654_435_761)).into_bytes())
                .collect(),
            "bomb" => vec![b' '; 32 << 20],
            SIGNED => b"// whoever can write to the server\n".to_vec(),
            "deleted" => return std::fs::remove_file(self.server.file(&self.file(case))).unwrap(),
            other => panic!("{other} cannot be spoilt"),
        };
        self.server.publish(&self.file(case), content).unwrap();
    }

    fn mend(&self, case: &str) {
        if let Some(text) = self.aside.borrow_mut().remove(case) {
            self.put(case, &text.unwrap());
        }
    }

    fn secrets(&self) -> Vec<String> {
        vec![PASSWORD.to_owned(), HEADER.to_owned()]
    }
}

/// As with every HTTP server, but for what a document is and a repository is not.
fn of_documents() -> Vec<Case> {
    let usual =
        faults::of_http().into_iter().filter(|case| !["too_short", "not_modified"].contains(&case.name));
    let case = |name, fault| Case::new(name, Trouble::Proxy(fault));
    usual
        .chain([
            // Half of what is compressed is noticed; of plain text any half is a document, too.
            case("too_short", Fault::TooShort).fails("transient", &["no gzip"]),
            case(WITHOUT_VALIDATORS, Fault::not_modified())
                .fails("rejected", &["did not change (304)", "without having been asked"]),
            // Asked with a condition, a server may say this, and it means that nothing is new.
            case("not_modified_when_asked", Fault::not_modified()).hides(),
        ])
        .collect()
}

/// What is published, and what stands before the server, where it is no document or not the right one.
pub(crate) fn of_contents() -> Option<Outcomes> {
    let content = |name, class, says| Case::new(name, Trouble::Content).fails(class, says);
    let answer = |name, status, headers, body, says| {
        Case::new(name, Trouble::Proxy(Fault::Answer { status, headers, body })).fails("rejected/shape", says)
    };
    let text = vec![("content-type", "text/plain")];
    let cases = vec![
        content("deleted", "not_found", &["is not there", "or this credential may not see it", "404"])
            .alarms(),
        content("empty", "rejected/shape", &["nothing"]),
        content("blank", "rejected/shape", &["nothing"]),
        content("no_text", "rejected/shape", &["text"]),
        content("page_by_another_name", "rejected/shape", &["a web page", "login page"]),
        content("large", "rejected/limits", &["64 KiB", "raise `limits`"]),
        content("bomb", "rejected/limits", &["100 times"]),
        content(SIGNED, "rejected/verification", &["signature"]).alarms(),
        answer("accepted", 202, text.clone(), "// soon", &["202"]),
        answer("no_content", 204, Vec::new(), "", &["204"]),
        answer("part_of_it", 206, text.clone(), "// half", &["206"]),
        answer("sent_nowhere", 302, Vec::new(), "elsewhere", &["without saying where to"]),
    ];
    play("contents", Http::start("http"), cases)
}

/// What looks as if somebody were tampering is not asked for again before a minute.
fn of_suspicion() -> Vec<Case> {
    let case = |name, status, headers, body, says| {
        let fault = Fault::Answer { status, headers, body };
        Case::new(name, Trouble::Proxy(fault)).fails("integrity", says).alarms().patient()
    };
    let to = |place| vec![("location", place)];
    let wrong = vec![("content-type", "text/plain"), ("content-digest", "sha-256=:AAAA:")];
    vec![
        case("sent_in_a_circle", 302, to("/elsewhere.alloy"), "", &["redirects"]),
        case(
            "sent_to_metadata",
            302,
            to("http://169.254.169.254/latest"),
            "",
            &["link-local", "allow_link_local"],
        ),
        case("sent_out_of_http", 302, to("ftp://files.example/x"), "", &["redirects"]),
        case("wrong_digest", 200, wrong, "// another document", &["digest"]),
    ]
}

pub(crate) fn over_http() -> Option<Outcomes> {
    play("http", Http::start("http"), faults::of_connections().into_iter().chain(of_documents()).collect())
}

pub(crate) fn over_http_denied() -> Option<Outcomes> {
    play("http_denied", Http::start("http"), faults::of_denial().into_iter().chain(of_suspicion()).collect())
}

pub(crate) fn over_https() -> Option<Outcomes> {
    let inside = faults::of_connections().into_iter().chain(faults::of_http());
    let inside = inside.filter(|case| ["reset", "clock_ahead"].contains(&case.name));
    play("https", Http::start("https"), faults::of_tls().into_iter().chain(inside).collect())
}

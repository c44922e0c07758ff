//! Artifacts of OCI registries: a repository a case in a real registry, for those who know the password.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::SocketAddr;

use invar_integration::fault_proxy::Fault;

use crate::faults;
use crate::matrix::{Case, Kind, Outcomes, Place, Trouble, play};
use crate::publisher::{self, FLUX_CONTENT, Publisher};
use crate::registry::{self, DockerRegistry, Special};

const PASSWORD: &str = "hunter2-hunter2";
/// The name `ada` and the bcrypt hash of the password, as `htpasswd -B` makes it.
pub(crate) const USER: &str = "ada:$2b$05$abcdefghijklmnopqrstuuM6LdIRFtSO2kPdsnQR8QqPt6tFqthsy";

struct Oci {
    server: DockerRegistry,
    runtime: tokio::runtime::Runtime,
    /// What came while a case was spoilt: its text, or nothing yet.
    aside: RefCell<BTreeMap<String, Option<String>>>,
    /// What each case published last, by digest.
    published: RefCell<BTreeMap<String, String>>,
    _directory: tempfile::TempDir,
}

impl Oci {
    fn start() -> Option<Box<dyn Kind>> {
        if !registry::is_available() {
            return None;
        }
        let directory = tempfile::tempdir().unwrap();
        let special = Special { user: Some(USER), ..Special::default() };
        let server = DockerRegistry::start(directory.path(), &special).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (aside, published) = Default::default();
        Some(Box::new(Self { server, runtime, aside, published, _directory: directory }))
    }

    fn publisher(&self, case: &str) -> Publisher {
        let registry = format!("http://{}", self.server.address());
        let client = reqwest::Client::builder().no_proxy();
        Publisher::with_client(client, &registry, &format!("obs/{case}"), Some(("ada", PASSWORD)))
    }

    fn push(&self, case: &str, files: &[(&str, &str)]) -> String {
        self.runtime.block_on(self.publisher(case).push("latest", files))
    }

    fn push_layer(&self, case: &str, media_type: &str, layer: &[u8]) {
        self.runtime.block_on(self.publisher(case).push_layer("latest", media_type, layer));
    }
}

impl Kind for Oci {
    fn upstream(&self) -> Option<SocketAddr> {
        Some(self.server.address())
    }

    fn settings(&self, place: &Place<'_>) -> String {
        let (at, case) = (place.address.unwrap(), place.case);
        let more = match case {
            "large" => "limits = { file = \"64KiB\" }\n",
            "files_gone" => "path = \"pipelines\"\n",
            _ => "",
        };
        format!(
            "oci = {{ repository = \"{at}/obs/{case}\", tag = \"latest\" }}\n\
             auth = {{ basic = {{ username = \"ada\", password = \"{PASSWORD}\" }} }}\n{more}"
        )
    }

    fn publish(&self, texts: &[(&str, String)]) {
        for (case, text) in texts {
            match self.aside.borrow_mut().get_mut(*case) {
                Some(aside) => *aside = Some(text.clone()),
                None => {
                    let digest = self.push(case, &[("pipelines/main.alloy", text)]);
                    self.published.borrow_mut().insert((*case).to_owned(), digest);
                }
            }
        }
    }

    fn spoil(&self, case: &str) {
        self.aside.borrow_mut().insert(case.to_owned(), None);
        match case {
            "deleted" => {
                self.runtime.block_on(self.publisher(case).delete(&self.published.borrow()[case]));
            }
            "no_files" => self.push_layer(case, "text/plain", b"just a text"),
            "no_archive" => self.push_layer(case, FLUX_CONTENT, b"no archive at all"),
            "bomb" => {
                let bomb = publisher::archive(&[("pipelines/main.alloy", &" ".repeat(32 << 20))]);
                self.push_layer(case, FLUX_CONTENT, &bomb);
            }
            "large" => drop(self.push(case, &[("pipelines/main.alloy", &"\n".repeat(100 << 10))])),
            "files_gone" => drop(self.push(case, &[("elsewhere/main.alloy", "// not selected\n")])),
            other => panic!("{other} cannot be spoilt"),
        }
    }

    fn mend(&self, case: &str) {
        if let Some(text) = self.aside.borrow_mut().remove(case) {
            self.push(case, &[("pipelines/main.alloy", &text.unwrap())]);
        }
    }

    fn secrets(&self) -> Vec<String> {
        vec![PASSWORD.to_owned()]
    }
}

/// As with every HTTP server, but for what a digest proves.
fn of_registries() -> Vec<Case> {
    let usual = faults::of_http().into_iter().filter(|case| !["too_short", "page"].contains(&case.name));
    let page = Case::new("page", Trouble::Proxy(Fault::page()));
    usual.chain([page.fails("rejected", &["no manifest"])]).collect()
}

/// What is in registries where it cannot be read, or should not be.
pub(crate) fn of_contents() -> Option<Outcomes> {
    let content = |name, class, says| Case::new(name, Trouble::Content).fails(class, says);
    let cases = vec![
        content("deleted", "not_found", &["is not there", "or this credential may not see it"]).alarms(),
        content("no_files", "rejected/shape", &["text/plain", "flux push"]),
        content("no_archive", "rejected/shape", &["archive"]),
        content("bomb", "rejected/limits", &["32 MiB long", "raise `limits.file`"]),
        content("large", "rejected/limits", &["64 KiB", "limits.file"]),
        content("files_gone", "rejected/empty_source", &["pipelines"]),
    ];
    play("oci_contents", Oci::start(), cases)
}

pub(crate) fn over_https() -> Option<Outcomes> {
    // What is inside TLS is as without.
    let inside = faults::of_connections().into_iter().filter(|case| case.name == "reset");
    play("oci_https", Oci::start(), faults::of_tls().into_iter().chain(inside).collect())
}

pub(crate) fn of_a_registry() -> Option<Outcomes> {
    let cases = faults::of_connections().into_iter().chain(of_registries()).collect();
    play("oci", Oci::start(), cases)
}

pub(crate) fn of_a_registry_denied() -> Option<Outcomes> {
    let short = Case::new("too_short", Trouble::Proxy(Fault::TooShort)).patient();
    let short = short.fails("integrity", &["is not what its digest says"]);
    play("oci_denied", Oci::start(), faults::of_denial().into_iter().chain([short]).collect())
}

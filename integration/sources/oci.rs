//! Artifacts of OCI registries: a repository a case in a real registry, for those who know the password.

use std::net::SocketAddr;

use invar_integration::fault_proxy::Fault;

use crate::faults;
use crate::matrix::{Case, Kind, Outcomes, Place, Trouble, play};
use crate::publisher::Publisher;
use crate::registry::{self, DockerRegistry, Special};

const PASSWORD: &str = "hunter2-hunter2";
/// The name `ada` and the bcrypt hash of the password, as `htpasswd -B` makes it.
pub(crate) const USER: &str = "ada:$2b$05$abcdefghijklmnopqrstuuM6LdIRFtSO2kPdsnQR8QqPt6tFqthsy";

struct Oci {
    server: DockerRegistry,
    runtime: tokio::runtime::Runtime,
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
        Some(Box::new(Self { server, runtime, _directory: directory }))
    }
}

impl Kind for Oci {
    fn upstream(&self) -> Option<SocketAddr> {
        Some(self.server.address())
    }

    fn settings(&self, place: &Place<'_>) -> String {
        let (at, case) = (place.address.unwrap(), place.case);
        format!(
            "oci = {{ repository = \"{at}/obs/{case}\", tag = \"latest\" }}\n\
             auth = {{ basic = {{ username = \"ada\", password = \"{PASSWORD}\" }} }}\n"
        )
    }

    fn publish(&self, texts: &[(&str, String)]) {
        let registry = format!("http://{}", self.server.address());
        for (case, text) in texts {
            let client = reqwest::Client::builder().no_proxy();
            let repository = format!("obs/{case}");
            let publisher = Publisher::with_client(client, &registry, &repository, Some(("ada", PASSWORD)));
            self.runtime.block_on(publisher.push("latest", &[("main.alloy", text)]));
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

pub(crate) fn of_a_registry() -> Option<Outcomes> {
    let cases = faults::of_connections().into_iter().chain(of_registries()).collect();
    play("oci", Oci::start(), cases)
}

pub(crate) fn of_a_registry_denied() -> Option<Outcomes> {
    let short = Case::new("too_short", Trouble::Proxy(Fault::TooShort)).patient();
    let short = short.fails("integrity", &["is not what its digest says"]);
    play("oci_denied", Oci::start(), faults::of_denial().into_iter().chain([short]).collect())
}

//! Git over HTTP and HTTPS: one repository with a folder a case, behind the real `git http-backend`, for those who
//! authenticate.

use std::net::SocketAddr;

use invar_integration::fault_proxy::Fault;
use invar_integration::{GitServer, Repository, http_backend};

use crate::faults;
use crate::matrix::{self, Case, Kind, Outcomes, Place, Trouble, play};

const TOKEN: &str = "marker-token-0b71f3c9";

struct Git {
    repository: Repository,
    server: GitServer,
    scheme: &'static str,
    _directory: tempfile::TempDir,
}

impl Git {
    fn start(scheme: &'static str) -> Option<Box<dyn Kind>> {
        if !http_backend::is_available() {
            matrix::skip("git with http-backend is not installed");
            return None;
        }
        let directory = tempfile::tempdir().unwrap();
        let repository = Repository::create(directory.path()).unwrap();
        let server = GitServer::start(directory.path()).unwrap();
        server.require_basic("x-access-token", TOKEN);
        Some(Box::new(Self { repository, server, scheme, _directory: directory }))
    }
}

impl Kind for Git {
    fn upstream(&self) -> Option<SocketAddr> {
        Some(self.server.address())
    }

    fn settings(&self, place: &Place<'_>) -> String {
        let at = place.address.unwrap();
        format!(
            "git = {{ url = \"{}://{at}/fleet.git\", branch = \"main\" }}\npath = \"{}\"\nauth = {{ token = \"{TOKEN}\" }}\n",
            self.scheme, place.case
        )
    }

    fn publish(&self, texts: &[(&str, String)]) {
        for (case, text) in texts {
            self.repository.write(&format!("{case}/main.alloy"), text).unwrap();
        }
        self.repository.push("another step").unwrap();
    }

    fn secrets(&self) -> Vec<String> {
        vec![TOKEN.to_owned()]
    }
}

pub(crate) fn over_http() -> Option<Outcomes> {
    let cases: Vec<Case> = faults::of_connections().into_iter().chain(faults::of_http()).collect();
    play("git_http", Git::start("http"), cases)
}

pub(crate) fn over_http_denied() -> Option<Outcomes> {
    // A host that has been renamed is followed, one that sends to another host is not.
    let location = "http://elsewhere.example/fleet.git/info/refs?service=git-upload-pack";
    let moved = Fault::Answer { status: 301, headers: vec![("location", location)], body: "moved" };
    let moved = Case::new("moved_to_another_host", Trouble::Proxy(moved)).patient();
    let moved = moved.fails("integrity", &["to another host", "git.url"]).alarms();
    play("git_http_denied", Git::start("http"), faults::of_denial().into_iter().chain([moved]).collect())
}

pub(crate) fn over_https() -> Option<Outcomes> {
    // What is inside TLS is as without; a few show that it is.
    let inside = faults::of_connections().into_iter().chain(faults::of_http());
    let inside = inside.filter(|case| ["reset", "clock_ahead"].contains(&case.name));
    play("git_https", Git::start("https"), faults::of_tls().into_iter().chain(inside).collect())
}

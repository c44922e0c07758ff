//! Documents over HTTP and HTTPS: one a case, on a real nginx that compresses, for those who authenticate and send a header.

use std::net::SocketAddr;

use invar_integration::fault_proxy::Fault;

use crate::faults;
use crate::matrix::{Case, Kind, Outcomes, Place, Trouble, play};
use crate::nginx::{self, Nginx, Special};

const PASSWORD: &str = "marker-password-51d2a0e7";
const HEADER: &str = "marker-header-c83e16b4";
/// The case whose document has no validators, so that no question about it has a condition.
const WITHOUT_VALIDATORS: &str = "not_modified";

struct Http {
    server: Nginx,
    scheme: &'static str,
    _directory: tempfile::TempDir,
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
        Some(Box::new(Self { server, scheme, _directory: directory }))
    }
}

impl Kind for Http {
    fn upstream(&self) -> Option<SocketAddr> {
        Some(self.server.address())
    }

    fn settings(&self, place: &Place<'_>) -> String {
        let (at, case, scheme) = (place.address.unwrap(), place.case, self.scheme);
        format!(
            "http = {{ url = \"{scheme}://{at}/{case}.alloy\", headers = {{ \"x-key\" = \"{HEADER}\" }} }}\n\
             auth = {{ basic = {{ username = \"ada\", password = \"{PASSWORD}\" }} }}\n"
        )
    }

    fn publish(&self, texts: &[(&str, String)]) {
        for (case, text) in texts {
            self.server.publish(&format!("{case}.alloy"), text).unwrap();
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

pub(crate) fn over_http() -> Option<Outcomes> {
    play("http", Http::start("http"), faults::of_connections().into_iter().chain(of_documents()).collect())
}

pub(crate) fn over_http_denied() -> Option<Outcomes> {
    play("http_denied", Http::start("http"), faults::of_denial())
}

pub(crate) fn over_https() -> Option<Outcomes> {
    let inside = faults::of_connections().into_iter().chain(faults::of_http());
    let inside = inside.filter(|case| ["reset", "clock_ahead"].contains(&case.name));
    play("https", Http::start("https"), faults::of_tls().into_iter().chain(inside).collect())
}

//! Git over SSH: one repository with a folder a case, behind a real `sshd`, with a key a case. What is spoken is encrypted,
//! so that the faults are those of connections; they hit while keys are agreed on, or later, while Git speaks.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use invar_integration::Repository;
use invar_integration::fault_proxy::{Fault, Protocol};
use parking_lot::Mutex;

use crate::faults;
use crate::file::Careless;
use crate::matrix::{self, Case, Kind, Outcomes, Place, Trouble, play};
use crate::sshd::{self, Sshd, SshdOptions, generate_key};

/// In the middle of the algorithms that the server offers.
const EARLY: usize = 600;
/// Where keys are agreed on, and Git begins to speak.
const LATE: usize = 3000;

struct Ssh {
    repository: Repository,
    server: Sshd,
    admitted: Mutex<Vec<PathBuf>>,
    directory: tempfile::TempDir,
}

impl Ssh {
    fn start() -> Option<Box<dyn Kind>> {
        if !sshd::is_available() {
            matrix::skip("sshd, ssh-keygen and git are not installed");
            return None;
        }
        let directory = tempfile::tempdir().unwrap();
        let repository = Repository::create(directory.path()).unwrap();
        let server = Sshd::start(&directory.path().join("sshd"), &SshdOptions::default()).unwrap();
        Some(Box::new(Self { repository, server, admitted: Mutex::default(), directory }))
    }

    fn key(&self, case: &str) -> PathBuf {
        self.directory.path().join(format!("{case}_key"))
    }

    fn admit(&self) {
        self.server.admit_all(self.admitted.lock().iter().map(PathBuf::as_path));
    }
}

impl Kind for Ssh {
    fn upstream(&self) -> Option<SocketAddr> {
        Some(self.server.address())
    }

    fn protocol(&self, case: &str) -> Protocol {
        Protocol::Raw(if case.ends_with("_late") { LATE } else { EARLY })
    }

    fn settings(&self, place: &Place<'_>) -> String {
        let (at, case) = (place.address.unwrap(), place.case);
        let key = self.key(case);
        generate_key(&key, "ed25519", "");
        self.admitted.lock().push(key.clone());
        self.admit();
        let known_hosts = self.directory.path().join(format!("{case}_known_hosts"));
        std::fs::write(&known_hosts, self.server.known_hosts_at(at, "ed25519")).unwrap();
        format!(
            "git = {{ url = \"ssh://{}@{at}{}\", branch = \"main\" }}\npath = \"{case}\"\ntimeout = \"4s\"\n\
             auth = {{ ssh = {{ key = {{ file = \"{}\" }}, known_hosts = \"{}\" }} }}\n",
            sshd::user(),
            self.repository.bare().display(),
            key.display(),
            known_hosts.display()
        )
    }

    fn publish(&self, texts: &[(&str, String)]) {
        for (case, text) in texts {
            self.repository.write(&format!("{case}/main.alloy"), text).unwrap();
        }
        self.repository.push("another step").unwrap();
    }

    fn secrets(&self) -> Vec<String> {
        self.admitted.lock().iter().flat_map(|key| lines_of(key)).collect()
    }

    fn begin(&self, case: &str, careless: Careless) {
        assert!(matches!(careless, Careless::LockOut), "{careless:?} is not for servers");
        let key = self.key(case);
        self.admitted.lock().retain(|admitted| *admitted != key);
        self.admit();
    }

    fn end(&self, case: &str, _careless: Careless) {
        self.admitted.lock().push(self.key(case));
        self.admit();
    }
}

/// The lines of a private key that no other key has: the first two begin like those of every key of its kind.
pub(crate) fn lines_of(key: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(key).unwrap();
    text.lines()
        .filter(|line| !line.starts_with("-----") && line.len() >= 40)
        .skip(2)
        .map(str::to_owned)
        .collect()
}

pub(crate) fn over_ssh() -> Option<Outcomes> {
    let case = |name, fault, says: &'static [&'static str]| {
        Case::new(name, Trouble::Proxy(fault)).fails("transient", says)
    };
    let mut cases: Vec<Case> = faults::of_connections()
        .into_iter()
        .filter(|case| ["refuse", "reset", "truncate"].contains(&case.name))
        .collect();
    cases.extend([
        // Each step says in its own words that it had no more time.
        case("hang", Fault::Hang, &["in time"]),
        case("drip", Fault::Drip(faults::DRIP), &["in time"]),
        case("half_open", Fault::HalfOpen, &["in time"]),
        case("reset_late", Fault::Reset, &["ended early"]),
        case("truncate_late", Fault::Truncate, &["ended early"]),
        case("half_open_late", Fault::HalfOpen, &["does not answer in time"]),
        Case::new("locked_out", Trouble::Host(Careless::LockOut))
            .fails("auth_expired", &["does not accept the key for", "SHA256:"])
            .patient(),
    ]);
    play("git_ssh", Ssh::start(), cases)
}

//! Which key a host may show: what the `known_hosts` files say about it, what was seen at the first meeting where the
//! settings trust that, and the verdict on the key it does show.

use std::fmt;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use russh::keys::ssh_key::certificate::CertType;
use russh::keys::ssh_key::public::KeyData;
use russh::keys::{Algorithm, Certificate, HashAlg, PublicKey, PublicKeyOrCertificate};

use super::address::SshAddress;
use super::known_hosts::{Known, KnownHosts, Mark, host_name, matches};
use crate::error::{ErrorClass, Failure};
use crate::settings::{HostKeyPolicy, SshSettings};

/// The longest file that is read.
const FILE_LIMIT: u64 = 16 * 1024 * 1024;
const SYSTEM_FILE: &str = "/etc/ssh/ssh_known_hosts";

/// Where the keys of one host are written down.
#[derive(Clone, Debug)]
pub(super) struct HostKeys {
    host: String,
    port: u16,
    /// The file of the settings, which has to be there.
    file: Option<PathBuf>,
    policy: HostKeyPolicy,
    /// What was seen at the first meeting.
    remembered: PathBuf,
}

/// What is known about a host.
#[derive(Debug)]
pub(super) struct Expectation {
    host: String,
    port: u16,
    known: Vec<(PathBuf, Known)>,
    policy: HostKeyPolicy,
    remembered: PathBuf,
    /// Where a person would write a key down.
    writable: PathBuf,
}

/// What follows from the key that a host shows.
#[derive(Debug)]
pub(super) enum Verdict {
    Known,
    /// It is the first key that the host shows, and the settings trust that.
    First(PublicKey),
    Refused(Failure),
}

impl HostKeys {
    pub(super) fn new(address: &SshAddress, settings: &SshSettings, state: &Path) -> Self {
        let name: String = format!("{}_{}", address.host, address.port)
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_') { c } else { '_' })
            .collect();
        Self {
            host: address.host.clone(),
            port: address.port,
            file: settings.known_hosts.clone(),
            policy: settings.host_key,
            remembered: state.join("ssh").join("hosts").join(name),
        }
    }

    /// Reads the files; blocks.
    pub(super) fn expect(&self) -> Result<Expectation, Failure> {
        let home = std::env::var_os("HOME").map(|home| Path::new(&home).join(".ssh").join("known_hosts"));
        let mut files: Vec<(PathBuf, bool)> = match &self.file {
            Some(file) => vec![(file.clone(), true)],
            None => home.iter().cloned().chain([SYSTEM_FILE.into()]).map(|file| (file, false)).collect(),
        };
        if self.policy == HostKeyPolicy::Tofu {
            files.push((self.remembered.clone(), false));
        }
        let mut known = Vec::new();
        for (file, required) in files {
            let text = match read(&file) {
                Ok(text) => text,
                Err(error) if !required && error.kind() == std::io::ErrorKind::NotFound => continue,
                Err(error) => {
                    // It may be written later, hence not stalled.
                    let message = format!("the known_hosts file {} cannot be read: {error}", file.display());
                    return Err(Failure::transient(message));
                }
            };
            let found = KnownHosts::parse(&text).find(&self.host, self.port);
            known.extend(found.into_iter().map(|entry| (file.clone(), entry)));
        }
        Ok(Expectation {
            host: self.host.clone(),
            port: self.port,
            known,
            policy: self.policy,
            remembered: self.remembered.clone(),
            writable: self.file.clone().or(home).unwrap_or_else(|| SYSTEM_FILE.into()),
        })
    }
}

impl Expectation {
    fn marked(&self, mark: Mark) -> impl Iterator<Item = &(PathBuf, Known)> {
        self.known.iter().filter(move |(_, known)| known.mark == mark)
    }

    /// The kinds of keys to ask for, the best first: those that are known, if any are. Asking for others would make a
    /// host with several keys look like another host.
    pub(super) fn algorithms(&self) -> Vec<Algorithm> {
        let all = usable_algorithms();
        let known = |only_exact: bool| -> Vec<Algorithm> {
            let is_known = |algorithm: &&Algorithm| {
                self.marked(Mark::Host).any(|(_, known)| {
                    (known.exact || !only_exact) && is_same_kind(&known.key.algorithm(), algorithm)
                })
            };
            all.iter().filter(is_known).cloned().collect()
        };
        let exact = known(true);
        if !exact.is_empty() {
            return exact;
        }
        let mut ordered = known(false);
        for algorithm in all {
            if !ordered.contains(&algorithm) {
                ordered.push(algorithm);
            }
        }
        ordered
    }

    /// The kinds of certificates to ask for: none unless an authority is known for the host.
    pub(super) fn certificates(&self) -> Vec<Algorithm> {
        match self.marked(Mark::Authority).next() {
            Some(_) => usable_algorithms(),
            None => Vec::new(),
        }
    }

    /// Whether the key is the host's.
    pub(super) fn judge(&self, shown: &PublicKeyOrCertificate, now: SystemTime) -> Verdict {
        match shown {
            PublicKeyOrCertificate::PublicKey { key, .. } => self.judge_key(key),
            PublicKeyOrCertificate::Certificate(certificate) => self.judge_certificate(certificate, now),
        }
    }

    fn judge_key(&self, key: &PublicKey) -> Verdict {
        if let Some((file, known)) = self.find(Mark::Revoked, key.key_data()) {
            return Verdict::Refused(self.revoked(key, file, known));
        }
        if self.find(Mark::Host, key.key_data()).is_some() {
            return Verdict::Known;
        }
        if let Some((file, known)) = self.marked(Mark::Host).find(|(_, known)| known.exact) {
            return Verdict::Refused(self.changed(key, file, known));
        }
        if self.policy == HostKeyPolicy::Tofu {
            return Verdict::First(key.clone());
        }
        Verdict::Refused(self.unknown(key))
    }

    fn judge_certificate(&self, certificate: &Certificate, now: SystemTime) -> Verdict {
        let key = PublicKey::new(certificate.public_key().clone(), "");
        let authority = PublicKey::new(certificate.signature_key().clone(), "");
        for revoked in [&key, &authority] {
            if let Some((file, known)) = self.find(Mark::Revoked, revoked.key_data()) {
                return Verdict::Refused(self.revoked(revoked, file, known));
            }
        }
        if self.find(Mark::Authority, authority.key_data()).is_none() {
            // As if it had shown the key alone.
            return self.judge_key(&key);
        }
        let refused = |why: &str| {
            Verdict::Refused(Failure::new(
                ErrorClass::Integrity,
                format!("the certificate of the host {self} cannot be accepted: {why}"),
            ))
        };
        let name = self.host.to_ascii_lowercase();
        if certificate.cert_type() != CertType::Host {
            return refused("it is a user's");
        }
        // Without a name it would be good for every host, which nobody means who signs one.
        if !certificate.valid_principals().iter().any(|pattern| matches(&pattern.to_ascii_lowercase(), &name))
        {
            return refused("it is for other names");
        }
        if !certificate.critical_options().is_empty() {
            return refused("it has conditions that are not understood");
        }
        let seconds = now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
        if seconds < certificate.valid_after() || seconds >= certificate.valid_before() {
            return refused("it is not valid now; check the clock of this host as well");
        }
        match certificate.validate_at(seconds, [&authority.fingerprint(HashAlg::Sha256)]) {
            Ok(()) => Verdict::Known,
            Err(_) => refused("its signature is wrong"),
        }
    }

    fn find(&self, mark: Mark, key: &KeyData) -> Option<&(PathBuf, Known)> {
        self.marked(mark).find(|(_, known)| known.key.key_data() == key)
    }

    fn line(&self, key: &PublicKey) -> String {
        let plain = PublicKey::new(key.key_data().clone(), "");
        format!("{} {}", host_name(&self.host, self.port), plain.to_openssh().unwrap_or_default())
    }

    fn unknown(&self, key: &PublicKey) -> Failure {
        let message = format!("the key of the host {self} is not known: {}", shown(key));
        Failure::new(ErrorClass::Integrity, message).with_help(format!(
            "if that is the fingerprint the host's owner names, add to {}: {}",
            self.writable.display(),
            self.line(key)
        ))
    }

    fn changed(&self, key: &PublicKey, file: &Path, known: &Known) -> Failure {
        let message = format!(
            "the key of the host {self} is not the one that is known: it shows {}, and {}:{} has {}",
            shown(key),
            file.display(),
            known.line,
            shown(&known.key)
        );
        Failure::new(ErrorClass::Integrity, message).with_help(format!(
            "somebody may sit in between; only if the host's owner says that the key was changed, replace the line by: {}",
            self.line(key)
        ))
    }

    fn revoked(&self, key: &PublicKey, file: &Path, known: &Known) -> Failure {
        let (file, line) = (file.display(), known.line);
        let message = format!("the key of the host {self} is revoked by {file}:{line}: {}", shown(key));
        Failure::new(ErrorClass::Integrity, message)
    }

    /// The host has none of the kinds of keys that are known.
    pub(super) fn other_kinds(&self, theirs: &[String]) -> Failure {
        let places: Vec<String> = self
            .marked(Mark::Host)
            .map(|(file, known)| format!("{}:{} ({})", file.display(), known.line, known.key.algorithm()))
            .collect();
        let message = format!(
            "the host {self} has no key of the kinds that are known, {}; it has {}",
            places.join(", "),
            theirs.join(", ")
        );
        Failure::new(ErrorClass::Integrity, message)
            .with_help("ask the host's owner for its keys, and write them down anew")
    }

    /// Writes the first key down; blocks.
    pub(super) fn remember(&self, key: &PublicKey) -> Result<(), Failure> {
        let failed = |error: std::io::Error| {
            Failure::transient(format!("{} cannot be written: {error}", self.remembered.display()))
        };
        let folder = self.remembered.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(folder).map_err(failed)?;
        // Two sources may meet the same host at the same moment.
        let temporary = folder.join(format!(".{:016x}", rand::random::<u64>()));
        let mut file = fs::File::create(&temporary).map_err(failed)?;
        file.write_all(format!("{}\n", self.line(key)).as_bytes()).map_err(failed)?;
        file.sync_all().map_err(failed)?;
        fs::rename(&temporary, &self.remembered).map_err(failed)?;
        #[cfg(unix)]
        fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)?;
        tracing::warn!(host = %self, key = shown(key), "the first key of this host is trusted from now on");
        Ok(())
    }
}

impl fmt::Display for Expectation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&host_name(&self.host, self.port))
    }
}

fn read(file: &Path) -> std::io::Result<String> {
    if fs::metadata(file)?.len() > FILE_LIMIT {
        return Err(std::io::Error::other("it is longer than 16 MiB"));
    }
    Ok(String::from_utf8_lossy(&fs::read(file)?).into_owned())
}

/// A key for people: its kind and fingerprint.
pub(super) fn shown(key: &PublicKey) -> String {
    format!("{} {}", key.algorithm(), key.fingerprint(HashAlg::Sha256))
}

/// Whether a key of one kind can be used as the other says; keys of RSA go with several hashes.
fn is_same_kind(one: &Algorithm, other: &Algorithm) -> bool {
    one == other || matches!((one, other), (Algorithm::Rsa { .. }, Algorithm::Rsa { .. }))
}

/// Kinds of host keys that are accepted; signatures with SHA-1 are not.
fn usable_algorithms() -> Vec<Algorithm> {
    use russh::keys::EcdsaCurve::{NistP256, NistP384, NistP521};
    vec![
        Algorithm::Ed25519,
        Algorithm::Ecdsa { curve: NistP256 },
        Algorithm::Ecdsa { curve: NistP384 },
        Algorithm::Ecdsa { curve: NistP521 },
        Algorithm::Rsa { hash: Some(HashAlg::Sha512) },
        Algorithm::Rsa { hash: Some(HashAlg::Sha256) },
    ]
}

//! Whether each credential and key file of a source can be had, and who else can read it. Values are read, since that is
//! the only proof, and forgotten at once; no finding holds one.

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use invar_secrets::{Credential, SecretError, SecretStores};

use super::Finding;
use crate::settings::SourceSettings;

/// Every credential of the settings, by the key it stands under.
#[must_use]
pub fn credentials_of(settings: &SourceSettings) -> Vec<(String, &Credential)> {
    let mut found: Vec<(&str, Option<&Credential>)> = Vec::new();
    if let Some(auth) = &settings.auth {
        found.push(("auth.token", auth.token.as_ref()));
        found.push(("auth.basic.password", auth.basic.as_ref().map(|basic| &basic.password)));
        if let Some(ssh) = &auth.ssh {
            found.push(("auth.ssh.key", ssh.key.as_ref()));
            found.push(("auth.ssh.passphrase", ssh.passphrase.as_ref()));
        }
        found.push(("auth.github_app.key", auth.github_app.as_ref().map(|app| &app.key)));
        let authorization = auth.authorization.as_ref();
        found.push(("auth.authorization.credentials", authorization.map(|header| &header.credentials)));
        found.push(("auth.oauth2.client_secret", auth.oauth2.as_ref().map(|oauth2| &oauth2.client_secret)));
        if let Some(aws) = &auth.aws {
            found.push(("auth.aws.secret_key", aws.secret_key.as_ref()));
            found.push(("auth.aws.session_token", aws.session_token.as_ref()));
        }
    }
    found.push(("proxy.password", settings.proxy.as_ref().and_then(|proxy| proxy.password.as_ref())));
    let headers = settings.http.iter().flat_map(|http| &http.headers);
    let headers = headers.map(|(name, credential)| (format!("http.headers.{name}"), credential));
    found
        .into_iter()
        .filter_map(|(key, credential)| Some((key.to_owned(), credential?)))
        .chain(headers)
        .collect()
}

/// Files that settings name beside credentials.
fn files_of(settings: &SourceSettings) -> Vec<(&'static str, &Path, FileUse)> {
    let mut found: Vec<(&'static str, Option<&PathBuf>, FileUse)> = Vec::new();
    if let Some(tls) = &settings.tls {
        found.push(("tls.ca", tls.ca.as_ref(), FileUse::Trust));
        found.push(("tls.cert", tls.cert.as_ref(), FileUse::Public));
        found.push(("tls.key", tls.key.as_ref(), FileUse::Secret));
    }
    if let Some(auth) = &settings.auth {
        let known = auth.ssh.as_ref().and_then(|ssh| ssh.known_hosts.as_ref());
        found.push(("auth.ssh.known_hosts", known, FileUse::Trust));
        let token = auth.aws.as_ref().and_then(|aws| aws.web_identity_token_file.as_ref());
        found.push(("auth.aws.web_identity_token_file", token, FileUse::Secret));
    }
    found.push(("verify.ssh", settings.verify.ssh.as_ref(), FileUse::Trust));
    found.push(("verify.openpgp", settings.verify.openpgp.as_ref(), FileUse::Trust));
    let signature = settings.http.as_ref().and_then(|http| http.signature.as_ref());
    found.push((
        "http.signature.ssh",
        signature.and_then(|signature| signature.ssh.as_ref()),
        FileUse::Trust,
    ));
    let cosign = settings.oci.iter().flat_map(|oci| &oci.cosign).map(Some);
    found.extend(cosign.map(|path| ("oci.cosign", path, FileUse::Trust)));
    found.into_iter().filter_map(|(key, path, what)| Some((key, path?.as_path(), what))).collect()
}

/// What a file is good for, which says who may read and write it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FileUse {
    /// Only the agent may read it.
    Secret,
    /// Whoever can write it decides whom the agent trusts.
    Trust,
    /// Anybody may read it.
    Public,
}

/// What is to be known of a file.
#[derive(Clone, Debug)]
struct FileReading {
    /// Permission bits.
    mode: u32,
    is_file: bool,
    /// Whether it could be opened.
    readable: bool,
}

fn read(path: &Path) -> Result<FileReading, io::ErrorKind> {
    let metadata = std::fs::metadata(path).map_err(|error| error.kind())?;
    // A pipe would wait for its writer.
    let readable = metadata.is_file() && std::fs::File::open(path).is_ok();
    Ok(FileReading { mode: metadata.mode() & 0o777, is_file: metadata.is_file(), readable })
}

/// Findings on all credentials and files of a source.
pub(super) async fn findings_of(settings: &SourceSettings, secrets: &SecretStores) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (key, credential) in credentials_of(settings) {
        let resolved = credential.resolve(secrets).await.map(drop);
        let had = resolved.is_ok();
        findings.push(credential_finding(&key, credential, resolved));
        if let (true, Credential::File(path)) = (had, credential) {
            let reading = reading_of(path).await;
            findings.extend(file_finding(&key, path, FileUse::Secret, &reading).filter(is_notable));
        }
    }
    for (key, path, what) in files_of(settings) {
        let reading = reading_of(path).await;
        findings.extend(file_finding(key, path, what, &reading));
    }
    findings
}

fn is_notable(finding: &Finding) -> bool {
    finding.severity != super::Severity::Ok
}

async fn reading_of(path: &Path) -> Result<FileReading, io::ErrorKind> {
    let path = path.to_path_buf();
    tokio::task::spawn_blocking(move || read(&path)).await.unwrap_or(Err(io::ErrorKind::Interrupted))
}

fn credential_finding(key: &str, credential: &Credential, resolved: Result<(), SecretError>) -> Finding {
    let place = match credential {
        Credential::Text(_) => {
            return Finding::hint(super::WRITTEN_OUT, format!("`{key}` is written out in the settings"))
                .because("it is in every copy and backup of them")
                .fix("keep it in a file of its own: { file = \"…\" }, or { env = \"…\" }");
        }
        Credential::Secret(reference) => format!("secret `{reference}`"),
        Credential::File(path) => path.display().to_string(),
        Credential::Environment(name) => format!("the variable {name}"),
    };
    let Err(error) = resolved else {
        return Finding::ok("credential", format!("`{key}` is there ({place})"));
    };
    let fix = match (&error, credential) {
        (SecretError::Missing { .. }, Credential::Environment(name)) => {
            format!(
                "set {name} for the agent, with Environment= or EnvironmentFile= of its unit; here, for this command"
            )
        }
        (SecretError::Missing { .. }, Credential::File(_)) => {
            "write it there, or correct the path".to_owned()
        }
        (SecretError::Denied { .. }, Credential::File(path)) => format!(
            "let the agent's user, and no other, read it: chown invar {0} && chmod 600 {0}; is this that user?",
            path.display()
        ),
        (SecretError::UnknownStore { .. }, _) => {
            "give the store its table in the settings, or correct the name before the first `/`".to_owned()
        }
        (SecretError::Unavailable { .. }, _) => "is the store up, and reached from here?".to_owned(),
        (SecretError::Compromised { .. }, _) => "find out who unwrapped it, and issue a new one".to_owned(),
        (SecretError::Invalid { .. }, _) => "it has to be text, and not empty".to_owned(),
        _ => "give the agent's identity the right to read it".to_owned(),
    };
    Finding::problem("credential", format!("`{key}` cannot be had ({place})"))
        .because(error.to_string())
        .fix(fix)
}

fn file_finding(
    key: &str,
    path: &Path,
    what: FileUse,
    reading: &Result<FileReading, io::ErrorKind>,
) -> Option<Finding> {
    let place = path.display();
    let reading = match reading {
        Ok(reading) => reading,
        Err(io::ErrorKind::NotFound) => {
            return Some(
                Finding::problem("file", format!("`{key}`: there is no {place}"))
                    .fix("write it there, or correct the path"),
            );
        }
        Err(kind) => {
            return Some(
                Finding::problem("file", format!("`{key}`: {place} cannot be looked at"))
                    .because(kind.to_string())
                    .fix("let the agent's user read the file and pass through the folders above it"),
            );
        }
    };
    if !reading.is_file {
        return Some(
            Finding::problem("file", format!("`{key}`: {place} is not a file")).fix("correct the path"),
        );
    }
    if !reading.readable {
        return Some(
            Finding::problem("file", format!("`{key}`: {place} cannot be read"))
                .because(format!("its mode is {:04o}", reading.mode))
                .fix("let the agent's user read it; is this that user?"),
        );
    }
    let others_write = reading.mode & 0o022 != 0;
    // A group of the agent's own that may read is common (`root:invar 0640`).
    let others_read = what == FileUse::Secret && reading.mode & 0o007 != 0;
    if others_write && what != FileUse::Public {
        let why = match what {
            FileUse::Secret => "others could put their own there",
            _ => "others could decide whom the agent trusts",
        };
        return Some(
            Finding::warning("file", format!("`{key}`: {place} can be written by others"))
                .because(format!("its mode is {:04o}; {why}", reading.mode))
                .fix(format!("chmod go-w {place}")),
        );
    }
    if others_read {
        return Some(
            Finding::warning("file", format!("`{key}`: {place} can be read by everybody on this host"))
                .because(format!("its mode is {:04o}", reading.mode))
                .fix(format!("chmod o-rwx {place}")),
        );
    }
    Some(Finding::ok("file", format!("`{key}`: {place}")))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use invar_secrets::Secret;

    use super::super::Severity;
    use super::*;

    const MARK: &str = "hunter2-hunter2";

    fn found(text: &str) -> Vec<Finding> {
        let settings: SourceSettings = toml::from_str(text).unwrap();
        tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap()
            .block_on(findings_of(&settings, &SecretStores::local()))
    }

    #[test]
    fn every_credential_of_the_settings_is_looked_at() {
        let settings: SourceSettings = toml::from_str(
            "[auth]\ntoken = { env = 'A' }\nbasic = { username = 'u', password = { env = 'B' } }\n\
             ssh = { key = { env = 'C' }, passphrase = { env = 'D' } }\n\
             github_app = { app_id = '1', installation_id = 2, key = { env = 'E' } }\n\
             authorization = { credentials = { env = 'F' } }\n\
             oauth2 = { client_id = 'x', client_secret = { env = 'G' }, token_url = 'https://x' }\n\
             aws = { secret_key = { env = 'H' }, session_token = { env = 'I' } }\n\
             [proxy]\nurl = 'http://x'\npassword = { env = 'J' }\n\
             [http]\nurl = 'https://x'\nheaders = { X-Token = { env = 'K' } }",
        )
        .unwrap();
        let places: Vec<String> =
            credentials_of(&settings).iter().map(|(_, credential)| credential.location()).collect();
        assert_eq!(
            places,
            ["A", "B", "C", "D", "E", "F", "G", "H", "I", "J", "K"].map(|name| format!("env {name}"))
        );
        assert_eq!(credentials_of(&settings).last().unwrap().0, "http.headers.X-Token");
    }

    #[test]
    fn a_variable_that_is_not_set_and_a_store_that_is_not_there_are_problems_with_a_fix() {
        let findings = found("auth = { token = { env = 'INVAR_NO_SUCH_VARIABLE' } }");
        assert_eq!(findings[0].severity, Severity::Problem);
        assert!(findings[0].fix.as_ref().unwrap().contains("set INVAR_NO_SUCH_VARIABLE"), "{findings:?}");
        let findings = found("auth = { token = { secret = 'nope/kv/git#token' } }");
        assert!(findings[0].why.as_ref().unwrap().contains("no secret store `nope`"), "{findings:?}");
    }

    #[test]
    fn a_text_in_the_settings_is_a_hint_and_is_not_shown() {
        let findings = found(&format!("auth = {{ token = '{MARK}' }}"));
        assert_eq!(findings[0].severity, Severity::Hint);
        assert!(!format!("{findings:?}").contains(MARK));
    }

    #[test]
    fn files_are_judged_by_who_else_reads_or_writes_them() {
        let of = |mode, what| {
            let reading = Ok(FileReading { mode, is_file: true, readable: true });
            file_finding("tls.key", Path::new("/etc/key"), what, &reading).unwrap().severity
        };
        for mode in [0o600, 0o400, 0o640, 0o440] {
            assert_eq!(of(mode, FileUse::Secret), Severity::Ok, "{mode:o}");
        }
        for mode in [0o644, 0o604, 0o660, 0o606] {
            assert_eq!(of(mode, FileUse::Secret), Severity::Warning, "{mode:o}");
        }
        assert_eq!(of(0o644, FileUse::Trust), Severity::Ok);
        assert_eq!(of(0o664, FileUse::Trust), Severity::Warning);
        assert_eq!(of(0o666, FileUse::Public), Severity::Ok);
        let not = |reading| file_finding("tls.ca", Path::new("/x"), FileUse::Trust, &reading).unwrap();
        for reading in [
            Err(io::ErrorKind::NotFound),
            Err(io::ErrorKind::PermissionDenied),
            Ok(FileReading { mode: 0o755, is_file: false, readable: false }),
            Ok(FileReading { mode: 0o000, is_file: true, readable: false }),
        ] {
            let finding = not(reading);
            assert_eq!(finding.severity, Severity::Problem);
            assert!(finding.fix.is_some());
        }
    }

    #[test]
    fn what_a_file_holds_is_not_shown() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        std::fs::write(&path, MARK).unwrap();
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
        let findings = found(&format!("auth = {{ token = {{ file = '{}' }} }}", path.display()));
        assert_eq!(findings.len(), 2, "{findings:?}");
        assert_eq!((findings[0].severity, findings[1].severity), (Severity::Ok, Severity::Warning));
        assert!(!format!("{findings:?}").contains(MARK));
        let resolved = Err(SecretError::Denied { reference: "file/x".to_owned(), reason: "no".to_owned() });
        let denied = credential_finding("auth.token", &Credential::File(path), resolved);
        assert!(denied.fix.unwrap().contains("chmod 600"));
        let text = Credential::Text(Secret::new(MARK));
        assert!(!format!("{:?}", credential_finding("auth.token", &text, Ok(()))).contains(MARK));
    }
}

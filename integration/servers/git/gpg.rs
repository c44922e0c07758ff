//! A GnuPG of its own for a test: a folder with keys that can be made at any time, expire, and be revoked.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use tempfile::TempDir;

/// A folder with keys. Dropping it ends the agent that GnuPG started for it.
pub struct Gpg {
    home: TempDir,
}

impl Gpg {
    /// `None`, with a note, where GnuPG is not installed.
    #[must_use]
    pub fn start() -> Option<Self> {
        if Command::new("gpg").arg("--version").output().is_err() {
            assert!(std::env::var_os("INVAR_REQUIRE_SERVERS").is_none(), "gpg is not installed");
            eprintln!("skipped: gpg is not installed");
            return None;
        }
        // The agent's socket lies in it, and may not have a long name.
        let home = tempfile::Builder::new().prefix("gpg").tempdir_in("/tmp").expect("a folder");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            let private = std::fs::Permissions::from_mode(0o700);
            std::fs::set_permissions(home.path(), private).expect("permissions");
        }
        Some(Self { home })
    }

    /// What `GNUPGHOME` has to be.
    #[must_use]
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// From now on it is this time (`20260102T030405`) for GnuPG.
    pub fn set_time(&self, time: &str) {
        std::fs::write(self.home.path().join("gpg.conf"), format!("faked-system-time {time}!\n"))
            .expect("a file");
    }

    /// Runs `gpg`; gives what it prints.
    pub fn run(&self, arguments: &[&str], input: &[u8]) -> Vec<u8> {
        let mut child = Command::new("gpg")
            .env("GNUPGHOME", self.home.path())
            .args(["--quiet", "--no-tty", "--pinentry-mode", "loopback", "--passphrase", ""])
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("gpg starts");
        child.stdin.take().expect("it has an input").write_all(input).expect("it reads");
        let output = child.wait_with_output().expect("gpg ends");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "gpg {arguments:?}: {errors}");
        output.stdout
    }

    /// Makes a key that signs, and gives its fingerprint. `expires` as `--quick-generate-key` takes it.
    pub fn generate(&self, user: &str, algorithm: &str, usage: &str, expires: &str) -> String {
        self.run(&["--batch", "--quick-generate-key", user, algorithm, usage, expires], b"");
        self.fingerprints(user).remove(0)
    }

    /// Adds a subkey, and gives its fingerprint.
    pub fn add_subkey(&self, key: &str, algorithm: &str, usage: &str, expires: &str) -> String {
        self.run(&["--batch", "--quick-add-key", key, algorithm, usage, expires], b"");
        self.fingerprints(key).pop().expect("there is one")
    }

    /// The fingerprints of a key and its subkeys.
    pub fn fingerprints(&self, key: &str) -> Vec<String> {
        let listed = self.run(&["--batch", "--with-colons", "--list-keys", key], b"");
        let listed = String::from_utf8(listed).expect("text");
        let fingerprint =
            |line: &str| line.strip_prefix("fpr:").map(|rest| rest.trim_matches(':').to_owned());
        listed.lines().filter_map(fingerprint).collect()
    }

    /// Revokes a key, with the certificate that was made with it.
    pub fn revoke(&self, key: &str) {
        let path = self.home.path().join("openpgp-revocs.d").join(format!("{key}.rev"));
        let text = std::fs::read_to_string(path).expect("there is a revocation certificate");
        self.run(&["--batch", "--import"], text.replace(":-----BEGIN", "-----BEGIN").as_bytes());
    }

    /// Revokes the only subkey of a key.
    pub fn revoke_subkey(&self, key: &str) {
        self.run(&["--command-fd", "0", "--edit-key", key], b"key 1\nrevkey\ny\n0\n\ny\nsave\n");
    }

    /// A detached armored signature; with `!` behind a fingerprint it is of exactly that key.
    pub fn sign(&self, key: &str, options: &[&str], content: &[u8]) -> Vec<u8> {
        let mut arguments = vec!["--batch", "--armor", "--local-user", key];
        arguments.extend_from_slice(options);
        arguments.push("--detach-sign");
        self.run(&arguments, content)
    }

    /// The public keys.
    pub fn export(&self, options: &[&str], keys: &[&str]) -> Vec<u8> {
        let mut arguments = vec!["--batch"];
        arguments.extend_from_slice(options);
        arguments.push("--export");
        arguments.extend_from_slice(keys);
        self.run(&arguments, b"")
    }
}

impl Drop for Gpg {
    fn drop(&mut self) {
        let ended =
            Command::new("gpgconf").env("GNUPGHOME", self.home.path()).args(["--kill", "gpg-agent"]).status();
        if let Err(error) = ended {
            eprintln!("the agent of GnuPG was not ended: {error}");
        }
    }
}

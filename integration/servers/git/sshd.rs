//! A real `sshd` of a test's own, in front of real repositories: own configuration, own host keys, an unprivileged port of
//! this host. It uses the standard library alone, so that any test can include it by path.

use std::fs;
use std::io::{self, BufRead as _, BufReader, Read as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

const DAEMON: &str = "/usr/sbin/sshd";

/// How a server is set up.
#[derive(Clone, Debug, Default)]
pub struct SshdOptions {
    /// Kinds of host keys, as `ssh-keygen -t` names them; `ed25519` alone where there are none.
    pub host_keys: Vec<&'static str>,
    /// Do not pass `GIT_PROTOCOL` on, as old servers do not.
    pub old_protocol: bool,
    /// Runs instead of what the client asks for.
    pub force_command: Option<String>,
    /// Further lines of the configuration.
    pub lines: Vec<String>,
    /// Sign the host keys with an authority, for these names.
    pub certificate_for: Option<String>,
}

/// A running server; dropping it ends it.
pub struct Sshd {
    folder: PathBuf,
    address: SocketAddr,
    child: Child,
    log: Arc<Mutex<Vec<String>>>,
    reader: Option<std::thread::JoinHandle<()>>,
}

/// Whether `sshd`, `ssh-keygen` and `git` are installed and may serve the current user.
pub fn is_available() -> bool {
    let runs = |program: &str, argument: &str| {
        Command::new(program).arg(argument).stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
    };
    if !Path::new(DAEMON).exists() || !runs("git", "--version") || !runs("ssh-keygen", "-?") {
        return false;
    }
    // A daemon of root wants this folder, which the system's own service would make.
    user() != "root" || fs::create_dir_all("/run/sshd").is_ok()
}

/// The name of the current user, whom the server lets in.
pub fn user() -> String {
    let output = Command::new("id").arg("-un").output();
    output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default()
}

/// Makes a key pair: `path` and `path.pub`.
pub fn generate_key(path: &Path, kind: &str, passphrase: &str) {
    let mut command = Command::new("ssh-keygen");
    command.args(["-q", "-t", kind, "-N", passphrase, "-C", "test", "-f"]).arg(path);
    if kind == "rsa" {
        command.args(["-b", "2048"]);
    }
    assert!(command.status().expect("ssh-keygen runs").success(), "ssh-keygen makes a key");
}

impl Sshd {
    /// Starts a server with its files below `folder`.
    pub fn start(folder: &Path, options: &SshdOptions) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        let kinds = if options.host_keys.is_empty() { vec!["ed25519"] } else { options.host_keys.clone() };
        let mut configuration = String::from(
            "ListenAddress 127.0.0.1\nUsePAM no\nStrictModes no\nPidFile none\nPasswordAuthentication no\n\
             KbdInteractiveAuthentication no\nPermitRootLogin prohibit-password\nLogLevel VERBOSE\nMaxStartups 100\n",
        );
        for kind in kinds {
            let key = folder.join(format!("host_{kind}"));
            if !key.exists() {
                generate_key(&key, kind, "");
            }
            configuration.push_str(&format!("HostKey {}\n", key.display()));
            if let Some(names) = &options.certificate_for {
                let authority = folder.join("authority");
                if !authority.exists() {
                    generate_key(&authority, "ed25519", "");
                }
                let signed = Command::new("ssh-keygen")
                    .args(["-q", "-h", "-I", "host", "-n", names, "-V", "-1h:+1h", "-s"])
                    .arg(&authority)
                    .arg(key.with_extension("pub"))
                    .status()?;
                assert!(signed.success(), "ssh-keygen signs a key");
                configuration.push_str(&format!("HostCertificate {}-cert.pub\n", key.display()));
            }
        }
        configuration.push_str(&format!("AuthorizedKeysFile {}\n", folder.join("authorized_keys").display()));
        if !options.old_protocol {
            configuration.push_str("AcceptEnv GIT_PROTOCOL\n");
        }
        if let Some(command) = &options.force_command {
            configuration.push_str(&format!("ForceCommand {command}\n"));
        }
        for line in &options.lines {
            configuration.push_str(line);
            configuration.push('\n');
        }
        let file = folder.join("sshd_config");
        fs::write(&file, configuration)?;
        fs::OpenOptions::new().create(true).append(true).open(folder.join("authorized_keys"))?;
        // Another process may take the port in between; then the next one is tried.
        for _ in 0..5 {
            let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
            if let Some(server) = Self::try_start(folder, &file, address)? {
                return Ok(server);
            }
        }
        Err(io::Error::other("sshd does not start"))
    }

    fn try_start(folder: &Path, file: &Path, address: SocketAddr) -> io::Result<Option<Self>> {
        let mut child = Command::new(DAEMON)
            .args(["-D", "-e", "-f"])
            .arg(file)
            .args(["-p", &address.port().to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        let log = Arc::new(Mutex::new(Vec::new()));
        let output = child.stderr.take().ok_or_else(|| io::Error::other("no output"))?;
        let lines = Arc::clone(&log);
        let reader = std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                lines.lock().unwrap_or_else(PoisonError::into_inner).push(line);
            }
        });
        let mut server = Self { folder: folder.to_path_buf(), address, child, log, reader: Some(reader) };
        let end = Instant::now() + Duration::from_secs(10);
        while Instant::now() < end {
            if server.child.try_wait()?.is_some() {
                return Ok(None);
            }
            if let Ok(mut stream) = TcpStream::connect(address) {
                let mut banner = [0; 4];
                stream.set_read_timeout(Some(Duration::from_secs(5)))?;
                if stream.read_exact(&mut banner).is_ok() && &banner == b"SSH-" {
                    return Ok(Some(server));
                }
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(None)
    }

    /// The port.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The address of a repository.
    pub fn url(&self, repository: &Path) -> String {
        format!("ssh://{}@127.0.0.1:{}{}", user(), self.address.port(), repository.display())
    }

    /// Lets who has this key in. The server reads the file at every login.
    pub fn admit(&self, key: &Path) {
        self.admit_all([key]);
    }

    /// Lets who has one of these keys in, and nobody else.
    pub fn admit_all<'a>(&self, keys: impl IntoIterator<Item = &'a Path>) {
        let public = |key: &Path| fs::read_to_string(key.with_extension("pub"));
        let public: io::Result<String> = keys.into_iter().map(public).collect();
        // Logins go on meanwhile, and each reads the whole file.
        let fresh = self.folder.join("authorized_keys.new");
        fs::write(&fresh, public.expect("the public keys are there")).expect("the folder can be written");
        fs::rename(fresh, self.folder.join("authorized_keys")).expect("the folder can be written");
    }

    /// Lets nobody in any more.
    pub fn admit_nobody(&self) {
        fs::write(self.folder.join("authorized_keys"), "").expect("the folder can be written");
    }

    /// Host keys in the form of `known_hosts`, of one kind.
    pub fn known_hosts(&self, kind: &str) -> String {
        self.known_hosts_at(self.address, kind)
    }

    /// As [`Sshd::known_hosts`], for who reaches the server at another address.
    pub fn known_hosts_at(&self, address: SocketAddr, kind: &str) -> String {
        let file = self.folder.join(format!("host_{kind}.pub"));
        let public = fs::read_to_string(file).expect("the public key is there");
        format!("[{}]:{} {public}", address.ip(), address.port())
    }

    /// What the server says.
    pub fn log(&self) -> Vec<String> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How many connections were made by somebody who was let in.
    pub fn logins(&self) -> usize {
        self.log().iter().filter(|line| line.contains("Accepted publickey")).count()
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
        // Sessions that are still open hold the other end of the output; they end with their connections.
        drop(self.reader.take());
    }
}

//! A real OCI registry (Debian's `docker-registry`) on a free port of this host, for tests, with TLS and passwords where
//! asked for; and what a test publishes artifacts with.
//!
//! It uses the standard library alone, so that any test can include it by path.

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// What is special about a registry.
#[derive(Clone, Debug, Default)]
pub struct Special<'a> {
    /// Certificate and key, in PEM form.
    pub tls: Option<(&'a str, &'a str)>,
    /// A line of a file of users: a name, and the bcrypt hash of a password.
    pub user: Option<&'a str>,
}

/// A running registry; dropping it ends the process.
pub struct DockerRegistry {
    child: Child,
    address: SocketAddr,
}

fn program() -> Option<PathBuf> {
    ["/usr/bin/docker-registry", "/usr/local/bin/registry", "/usr/bin/registry"]
        .iter()
        .map(PathBuf::from)
        .find(|path| path.exists())
}

/// Whether a registry is installed. Says so on stderr where it is not; where servers are required, that is an error.
pub fn is_available() -> bool {
    let available = program().is_some();
    if !available {
        assert!(std::env::var_os("INVAR_REQUIRE_SERVERS").is_none(), "docker-registry is not installed");
        eprintln!("skipped: docker-registry is not installed");
    }
    available
}

impl DockerRegistry {
    /// Keeps what is pushed below `folder`.
    pub fn start(folder: &Path, special: &Special<'_>) -> io::Result<Self> {
        let program = program().ok_or_else(|| io::Error::other("docker-registry is not installed"))?;
        fs::create_dir_all(folder.join("data"))?;
        // Somebody else may take the port in between.
        let mut last = io::Error::other("the registry does not start");
        for _ in 0..5 {
            let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
            fs::write(folder.join("config.yml"), configuration(folder, address, special)?)?;
            let log = fs::File::create(folder.join("registry.log"))?;
            let child = Command::new(&program)
                .arg("serve")
                .arg(folder.join("config.yml"))
                .env("OTEL_TRACES_EXPORTER", "none")
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(log)
                .spawn()?;
            let mut registry = Self { child, address };
            match registry.wait_until_ready() {
                Ok(()) => return Ok(registry),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn wait_until_ready(&mut self) -> io::Result<()> {
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(20) {
            if let Some(status) = self.child.try_wait()? {
                return Err(io::Error::other(format!("the registry ended with {status}")));
            }
            if TcpStream::connect(self.address).is_ok() {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Err(io::Error::other("the registry does not listen after 20 s"))
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `localhost` and the port.
    pub fn host(&self) -> String {
        format!("localhost:{}", self.address.port())
    }
}

impl Drop for DockerRegistry {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn configuration(folder: &Path, address: SocketAddr, special: &Special<'_>) -> io::Result<String> {
    let mut text = format!(
        "version: 0.1\nlog: {{ level: error, accesslog: {{ disabled: true }} }}\n\
         storage: {{ filesystem: {{ rootdirectory: {} }}, delete: {{ enabled: true }} }}\n",
        folder.join("data").display()
    );
    if let Some(user) = special.user {
        fs::write(folder.join("users"), format!("{user}\n"))?;
        text.push_str(&format!(
            "auth: {{ htpasswd: {{ realm: test, path: {} }} }}\n",
            folder.join("users").display()
        ));
    }
    text.push_str(&format!("http:\n  addr: {address}\n  secret: test\n"));
    if let Some((certificate, key)) = special.tls {
        let (cert, private) = (folder.join("cert.pem"), folder.join("key.pem"));
        fs::write(&cert, certificate)?;
        fs::write(&private, key)?;
        text.push_str(&format!("  tls: {{ certificate: {}, key: {} }}\n", cert.display(), private.display()));
    }
    Ok(text)
}

//! A real nginx on a free port of this host, for tests: a folder of files, with conditional requests as it does them,
//! and where asked for, TLS and authentication.
//!
//! It uses the standard library alone, so that any test can include it by path.

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A running nginx; dropping it ends the process.
pub struct Nginx {
    child: Child,
    address: SocketAddr,
    folder: PathBuf,
    tls: bool,
}

/// One line of its log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Served {
    /// The path.
    pub path: String,
    /// The status.
    pub status: u16,
    /// All bytes that were sent, and those of the body.
    pub bytes: (u64, u64),
}

/// What is special about a server.
#[derive(Clone, Debug, Default)]
pub struct Special<'a> {
    /// Certificate and key, in PEM form.
    pub tls: Option<(&'a str, &'a str)>,
    /// The authority that clients' certificates have to come from.
    pub client_authority: Option<&'a str>,
    /// User name and password.
    pub basic: Option<(&'a str, &'a str)>,
    /// Further directives of the server.
    pub directives: &'a str,
}

fn program() -> Option<PathBuf> {
    ["/usr/sbin/nginx", "/usr/local/sbin/nginx", "/usr/bin/nginx"]
        .iter()
        .map(PathBuf::from)
        .find(|path| path.exists())
}

/// Whether nginx is installed. Says so on stderr where it is not; where servers are required, that is an error.
pub fn is_available() -> bool {
    let available = program().is_some();
    if !available {
        assert!(std::env::var_os("INVAR_REQUIRE_SERVERS").is_none(), "nginx is not installed");
        eprintln!("skipped: nginx is not installed");
    }
    available
}

impl Nginx {
    /// Serves what is in `folder`/www.
    pub fn start(folder: &Path, special: &Special<'_>) -> io::Result<Self> {
        let program = program().ok_or_else(|| io::Error::other("nginx is not installed"))?;
        fs::create_dir_all(folder.join("www"))?;
        // Somebody else may take the port in between.
        let mut last = io::Error::other("nginx does not start");
        for _ in 0..5 {
            let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
            fs::write(folder.join("nginx.conf"), configuration(folder, address, special)?)?;
            let child = Command::new(&program)
                .arg("-p")
                .arg(folder)
                .arg("-c")
                .arg(folder.join("nginx.conf"))
                .arg("-e")
                .arg(folder.join("error.log"))
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()?;
            let mut server =
                Self { child, address, folder: folder.to_path_buf(), tls: special.tls.is_some() };
            match server.wait_until_ready() {
                Ok(()) => return Ok(server),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn wait_until_ready(&mut self) -> io::Result<()> {
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(10) {
            if let Some(status) = self.child.try_wait()? {
                let log = fs::read_to_string(self.folder.join("error.log")).unwrap_or_default();
                return Err(io::Error::other(format!("nginx ended with {status}: {log}")));
            }
            if TcpStream::connect(self.address).is_ok() {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Err(io::Error::other("nginx does not listen after 10 s"))
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The address of a file.
    pub fn url(&self, path: &str) -> String {
        let (scheme, host) = if self.tls { ("https", "localhost") } else { ("http", "127.0.0.1") };
        format!("{scheme}://{host}:{}{path}", self.address.port())
    }

    /// Where a file of the server is.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.join("www").join(name)
    }

    /// Replaces a file, as publishing does: whole, under a new inode.
    pub fn publish(&self, name: &str, content: impl AsRef<[u8]>) -> io::Result<()> {
        let fresh = self.folder.join("fresh");
        fs::write(&fresh, content)?;
        fs::rename(&fresh, self.file(name))
    }

    /// What was served so far, once there are at least `count` lines of it.
    pub fn served(&self, count: usize) -> io::Result<Vec<Served>> {
        let start = Instant::now();
        loop {
            let log = fs::read_to_string(self.folder.join("access.log")).unwrap_or_default();
            let lines: Vec<Served> = log.lines().filter_map(line).collect();
            if lines.len() >= count {
                return Ok(lines);
            }
            if start.elapsed() > Duration::from_secs(10) {
                return Err(io::Error::other(format!("only {} requests came", lines.len())));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn line(line: &str) -> Option<Served> {
    let mut words = line.split(' ');
    Some(Served {
        path: words.next()?.to_owned(),
        status: words.next()?.parse().ok()?,
        bytes: (words.next()?.parse().ok()?, words.next()?.parse().ok()?),
    })
}

fn configuration(folder: &Path, address: SocketAddr, special: &Special<'_>) -> io::Result<String> {
    let mut server = String::new();
    let mut ssl = "";
    if let Some((certificate, key)) = special.tls {
        fs::write(folder.join("cert.pem"), certificate)?;
        fs::write(folder.join("key.pem"), key)?;
        server.push_str("ssl_certificate cert.pem; ssl_certificate_key key.pem;\n");
        ssl = " ssl";
    }
    if let Some(authority) = special.client_authority {
        fs::write(folder.join("clients.pem"), authority)?;
        server.push_str("ssl_client_certificate clients.pem; ssl_verify_client on;\n");
    }
    if let Some((user, password)) = special.basic {
        fs::write(folder.join("users"), format!("{user}:{{PLAIN}}{password}\n"))?;
        server.push_str("auth_basic test; auth_basic_user_file users;\n");
    }
    server.push_str(special.directives);
    let folder = folder.display();
    Ok(format!(
        "daemon off; master_process off; pid {folder}/nginx.pid; worker_processes 1;\n\
         events {{ worker_connections 256; }}\n\
         http {{\n\
           log_format served '$uri $status $bytes_sent $body_bytes_sent';\n\
           access_log {folder}/access.log served;\n\
           client_body_temp_path {folder}/t1; proxy_temp_path {folder}/t2; fastcgi_temp_path {folder}/t3;\n\
           uwsgi_temp_path {folder}/t4; scgi_temp_path {folder}/t5;\n\
           types {{ text/plain alloy txt toml minisig sig; text/html html; }}\n\
           gzip_types text/plain; gzip_min_length 1;\n\
           server {{ listen {address}{ssl}; root {folder}/www; {server} }}\n\
         }}\n"
    ))
}

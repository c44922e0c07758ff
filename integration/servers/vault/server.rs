//! A real Vault for tests, initialised and unsealed by the test, so that it can be sealed, stepped down, killed and started
//! again; and a server of a few lines for what Vault itself asks others.
//!
//! It uses the standard library and `serde_json` alone, so that any test can include it by path.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

#[path = "../built.rs"]
mod built;

/// Below the folder of built servers.
const BINARY: &str = "vault-1.21.1/vault";

/// Starting, unsealing and electing are done within this time, on a busy machine too.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running server.
pub struct Vault {
    child: Option<Child>,
    folder: PathBuf,
    address: SocketAddr,
    encrypted: SocketAddr,
    /// The root token.
    pub root: String,
    key: String,
}

/// Where it keeps what it knows.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Storage {
    /// In files, by itself.
    File,
    /// As one node of a cluster, which can lose its leader.
    Raft,
}

/// Certificate and key of its encrypted listener, as files.
pub struct Certificate<'a> {
    pub certificate: &'a Path,
    pub key: &'a Path,
}

impl Vault {
    /// The binary, if it is built.
    pub fn binary() -> Option<PathBuf> {
        Some(built::built_servers().join(BINARY)).filter(|binary| binary.is_file())
    }

    /// Whether there is one to start. Says so on stderr where there is not; where servers are required, that is an error.
    pub fn is_available() -> bool {
        built::is_built("Vault", BINARY)
    }

    /// Starts one below `folder`, initialised and unsealed, with an audit log; `None`, with a note, where there is none.
    pub fn start(folder: &Path, storage: Storage, certificate: Option<&Certificate<'_>>) -> Option<Self> {
        if !Self::is_available() {
            return None;
        }
        let (address, encrypted, cluster) = (free_address(), free_address(), free_address());
        let data = folder.join("data");
        std::fs::create_dir_all(&data).expect("the folder is the test's own");
        let mut config = format!(
            "disable_mlock = true\napi_addr = \"http://{address}\"\ncluster_addr = \"https://{cluster}\"\n\
             listener \"tcp\" {{\n  address = \"{address}\"\n  cluster_address = \"{cluster}\"\n  tls_disable = true\n}}\n"
        );
        match storage {
            Storage::File => config.push_str(&format!("storage \"file\" {{\n  path = {data:?}\n}}\n")),
            Storage::Raft => config.push_str(&format!(
                "storage \"raft\" {{\n  path = {data:?}\n  node_id = \"one\"\n  performance_multiplier = 1\n}}\n"
            )),
        }
        if let Some(Certificate { certificate, key }) = certificate {
            config.push_str(&format!(
                "listener \"tcp\" {{\n  address = \"{encrypted}\"\n  cluster_address = \"{}\"\n  \
                 tls_cert_file = {certificate:?}\n  tls_key_file = {key:?}\n}}\n",
                free_address()
            ));
        }
        std::fs::write(folder.join("vault.hcl"), config).expect("the folder is the test's own");
        let mut vault = Self {
            child: None,
            folder: folder.to_path_buf(),
            address,
            encrypted,
            root: String::new(),
            key: String::new(),
        };
        vault.launch();
        let keys = json!({ "secret_shares": 1, "secret_threshold": 1 });
        let made = vault.ask("PUT", "sys/init", "", Some(&keys));
        assert_eq!(made.0, 200, "{made:?}");
        vault.key = made.1["keys_base64"][0].as_str().expect("a key").to_owned();
        vault.root = made.1["root_token"].as_str().expect("a token").to_owned();
        vault.unseal();
        let audit = json!({ "type": "file", "options": { "file_path": vault.audit_file(), "mode": "0644" } });
        vault.write("sys/audit/file", &audit);
        Some(vault)
    }

    /// Starts the process, sealed. It keeps its addresses and what it stored.
    pub fn launch(&mut self) {
        let binary = Self::binary().expect("it was there when the first one was started");
        let log = File::options().create(true).append(true).open(self.folder.join("vault.log"));
        let log = log.expect("the folder is the test's own");
        let child = Command::new(binary)
            .arg("server")
            .arg("-config")
            .arg(self.folder.join("vault.hcl"))
            .env_remove("VAULT_ADDR")
            .env_remove("VAULT_TOKEN")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn();
        self.child = Some(child.expect("the binary is there"));
        self.wait("listens", |vault| {
            std::panic::catch_unwind(|| vault.ask("GET", "sys/seal-status", "", None).0 == 200)
                .unwrap_or(false)
        });
    }

    /// Kills the process; what it stored stays.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // Already gone is as good.
            drop(child.kill());
            drop(child.wait());
        }
    }

    /// Seals it: it answers, and serves nothing.
    pub fn seal(&self) {
        self.write("sys/seal", &json!({}));
    }

    /// Unseals it, and waits until it serves.
    pub fn unseal(&self) {
        let said = self.ask("PUT", "sys/unseal", "", Some(&json!({ "key": self.key })));
        assert_eq!((said.0, &said.1["sealed"]), (200, &json!(false)), "{said:?}");
        self.wait_until_active();
    }

    /// Waits until it is the active node.
    pub fn wait_until_active(&self) {
        self.wait("is active", |vault| vault.ask("GET", "sys/health", "", None).0 == 200);
    }

    /// Where it is, without encryption.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Where it is, encrypted.
    pub fn encrypted_url(&self) -> String {
        format!("https://{}", self.encrypted)
    }

    /// Writes as root; gives what it answers.
    pub fn write(&self, path: &str, body: &Value) -> Value {
        self.succeed("POST", path, Some(body))
    }

    /// Reads as root.
    pub fn read(&self, path: &str) -> Value {
        self.succeed("GET", path, None)
    }

    /// Deletes as root.
    pub fn delete(&self, path: &str) {
        self.succeed("DELETE", path, None);
    }

    /// Writes as root; gives the token that what it answers is wrapped in.
    pub fn write_wrapped(&self, path: &str, body: &Value) -> String {
        let (status, answer) = self.request("POST", path, &self.root, "60s", Some(body));
        assert_eq!(status, 200, "{path}: {answer}");
        answer["wrap_info"]["token"].as_str().expect("a wrapping token").to_owned()
    }

    /// What was asked so far whose path begins like this: each answer's entry in the audit log.
    pub fn audited(&self, path: &str) -> Vec<Value> {
        let log = std::fs::read_to_string(self.audit_file()).unwrap_or_default();
        let entries = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let is_asked = |entry: &Value| {
            entry["type"] == "response"
                && entry["request"]["path"].as_str().is_some_and(|asked| asked.starts_with(path))
        };
        entries.filter(is_asked).collect()
    }

    /// Asks something; gives the status and what it answers.
    pub fn ask(&self, method: &str, path: &str, token: &str, body: Option<&Value>) -> (u16, Value) {
        self.request(method, path, token, "", body)
    }

    fn succeed(&self, method: &str, path: &str, body: Option<&Value>) -> Value {
        let (status, answer) = self.ask(method, path, &self.root, body);
        assert!((200..300).contains(&status), "{method} {path}: {status}: {answer}");
        answer
    }

    fn request(
        &self,
        method: &str,
        path: &str,
        token: &str,
        wrap: &str,
        body: Option<&Value>,
    ) -> (u16, Value) {
        let body = body.map(Value::to_string).unwrap_or_default();
        let wrap = if wrap.is_empty() { String::new() } else { format!("x-vault-wrap-ttl: {wrap}\r\n") };
        let head = format!(
            "{method} /v1/{path} HTTP/1.0\r\nhost: {}\r\nx-vault-token: {token}\r\n{wrap}content-length: {}\r\n\r\n",
            self.address,
            body.len()
        );
        let mut stream = TcpStream::connect(self.address).expect("the server listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a duration that is not zero");
        stream
            .write_all(head.as_bytes())
            .and_then(|()| stream.write_all(body.as_bytes()))
            .expect("it listens");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).expect("the server answers");
        let answer = String::from_utf8(answer).expect("answers are text");
        let (head, body) = answer.split_once("\r\n\r\n").expect("an answer has a head");
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
        (status, serde_json::from_str(body).unwrap_or(Value::Null))
    }

    /// The end of what it told about itself.
    pub fn log(&self) -> String {
        let log = std::fs::read_to_string(self.folder.join("vault.log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    pub fn audit_file(&self) -> PathBuf {
        self.folder.join("audit.log")
    }

    fn wait(&self, what: &str, mut look: impl FnMut(&Self) -> bool) {
        let began = Instant::now();
        loop {
            let listens = TcpStream::connect(self.address).is_ok();
            if listens && look(self) {
                return;
            }
            if began.elapsed() > PATIENCE {
                panic!("waited until Vault {what}\n{}", self.log());
            }
            sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Vault {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Answers whatever is asked by a function of the first line and the body, in JSON; gives its address. It ends with the
/// test's process.
pub fn serve(answer: impl Fn(&str, &Value) -> (u16, Value) + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has free ports");
    let address = listener.local_addr().expect("it is bound");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(stream) = stream else { return };
            // A client that goes away is its own business.
            drop(answer_one(&stream, &answer));
        }
    });
    address
}

fn answer_one(mut stream: &TcpStream, answer: &impl Fn(&str, &Value) -> (u16, Value)) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    let (mut line, mut length) = (String::new(), 0);
    reader.read_line(&mut line)?;
    loop {
        let mut header = String::new();
        reader.read_line(&mut header)?;
        let Some((name, value)) = header.trim_end().split_once(": ") else { break };
        if name.eq_ignore_ascii_case("content-length") {
            length = value.parse().unwrap_or(0);
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let (status, body) = answer(line.trim_end(), &serde_json::from_slice(&body).unwrap_or(Value::Null));
    let body = body.to_string();
    write!(
        stream,
        "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// An address of loopback that nobody listens on.
fn free_address() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has free ports");
    listener.local_addr().expect("it is bound")
}

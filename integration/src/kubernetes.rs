//! A real Kubernetes API server on a real etcd, without nodes or controllers: objects, watches, and permissions by RBAC.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{Outcome, free_address, wait_for};

/// The token of a user that may do everything.
const ADMIN: &str = "admin-of-the-test-cluster";

/// A running API server.
pub struct Kubernetes {
    binary: PathBuf,
    etcd: Child,
    api: Option<Child>,
    etcd_url: String,
    address: String,
    http: reqwest::Client,
    runtime: tokio::runtime::Runtime,
    /// Dropped last, when nothing writes to it any more.
    directory: TempDir,
}

impl Kubernetes {
    /// The binary that is both servers, if it is built.
    #[must_use]
    pub fn built() -> Option<PathBuf> {
        let binary = crate::built_servers().join("kubernetes-1.35.4/kubernetes");
        binary.is_file().then_some(binary)
    }

    /// Starts both servers; gives them when they are ready. Every user is its own token's bearer, and may do nothing yet.
    ///
    /// # Errors
    /// They cannot be started, or are not ready within a minute.
    pub fn start(binary: &Path, users: &[(&str, &str)]) -> Outcome<Self> {
        let text = |error: std::io::Error| error.to_string();
        let directory = tempfile::tempdir().map_err(text)?;
        let key = rcgen::KeyPair::generate().map_err(|error| error.to_string())?;
        let mut tokens = format!("{ADMIN},admin,0,\"system:masters\"\n");
        for (index, (user, token)) in users.iter().enumerate() {
            tokens.push_str(&format!("{token},{user},{}\n", index + 1));
        }
        for (name, content) in
            [("key.pem", key.serialize_pem()), ("public.pem", key.public_key_pem()), ("tokens.csv", tokens)]
        {
            std::fs::write(directory.path().join(name), content).map_err(text)?;
        }
        let (client, peer) = (free_address()?, free_address()?);
        let etcd_url = format!("http://{client}");
        let etcd = Command::new(binary)
            .arg("etcd")
            .arg(format!("--data-dir={}", directory.path().join("etcd").display()))
            .arg(format!("--listen-client-urls={etcd_url}"))
            .arg(format!("--advertise-client-urls={etcd_url}"))
            .arg(format!("--listen-peer-urls=http://{peer}"))
            .arg(format!("--initial-advertise-peer-urls=http://{peer}"))
            .arg(format!("--initial-cluster=default=http://{peer}"))
            .args(["--unsafe-no-fsync", "--log-level=error"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(directory.path().join("etcd.log")).map_err(text)?)
            .spawn()
            .map_err(|error| format!("{}: {error}", binary.display()))?;
        // A second installation in one process finds the first one, which is what is wanted.
        drop(rustls::crypto::ring::default_provider().install_default());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(text)?;
        let http = reqwest::Client::builder().no_proxy().tls_danger_accept_invalid_certs(true).build();
        let http = http.map_err(|error| error.to_string())?;
        let mut kubernetes = Self {
            binary: binary.to_path_buf(),
            etcd,
            api: None,
            etcd_url,
            address: free_address()?,
            http,
            runtime,
            directory,
        };
        kubernetes.start_api()?;
        Ok(kubernetes)
    }

    /// Starts the API server on the address it had, and waits until it is ready.
    ///
    /// # Errors
    /// It cannot be started, or is not ready within a minute; the end of its log is told.
    pub fn start_api(&mut self) -> Outcome {
        let at = |name: &str| self.directory.path().join(name).display().to_string();
        let log = File::options().create(true).append(true).open(at("api.log"));
        let port = self.address.rsplit(':').next().unwrap_or_default();
        let child = Command::new(&self.binary)
            .arg("apiserver")
            .arg(format!("--etcd-servers={}", self.etcd_url))
            .arg(format!("--secure-port={port}"))
            .arg(format!("--cert-dir={}", at("certificates")))
            .arg(format!("--service-account-key-file={}", at("public.pem")))
            .arg(format!("--service-account-signing-key-file={}", at("key.pem")))
            .arg(format!("--token-auth-file={}", at("tokens.csv")))
            .args([
                "--bind-address=127.0.0.1",
                "--service-account-issuer=https://kubernetes.default.svc",
                "--authorization-mode=RBAC",
                "--service-cluster-ip-range=10.0.0.0/24",
                "--disable-admission-plugins=ServiceAccount",
                // Ends connections at once when it is told to end.
                "--shutdown-delay-duration=0s",
            ])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log.map_err(|error| error.to_string())?)
            .spawn()
            .map_err(|error| format!("{}: {error}", self.binary.display()))?;
        self.api = Some(child);
        wait_for("the API server to be ready", Duration::from_secs(60), || {
            self.request(Method::GET, "/readyz", None).ok().filter(|(status, _)| *status == 200).map(|_| ())
        })
        .map_err(|problem| {
            let log = std::fs::read_to_string(at("api.log")).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            format!("{problem}\n{}", lines[lines.len().saturating_sub(20)..].join("\n"))
        })
    }

    /// Kills the API server; etcd keeps what it knows.
    pub fn kill_api(&mut self) {
        if let Some(mut child) = self.api.take() {
            // Already gone is as good.
            drop(child.kill());
            drop(child.wait());
        }
    }

    /// Where the API is.
    #[must_use]
    pub fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// The certificates to trust.
    #[must_use]
    pub fn authority(&self) -> PathBuf {
        self.directory.path().join("certificates/apiserver.crt")
    }

    fn request(&self, method: Method, path: &str, body: Option<&Value>) -> Outcome<(u16, String)> {
        let url = format!("{}{path}", self.url());
        self.runtime.block_on(async {
            let mut request =
                self.http.request(method, &url).timeout(Duration::from_secs(20)).bearer_auth(ADMIN);
            if let Some(body) = body {
                request = request.header("content-type", "application/json").body(body.to_string());
            }
            let answer = request.send().await.map_err(|error| format!("{url}: {error}"))?;
            let status = answer.status().as_u16();
            answer.text().await.map(|text| (status, text)).map_err(|error| format!("{url}: {error}"))
        })
    }

    fn succeed(&self, method: Method, path: &str, body: Option<&Value>) -> Outcome {
        match self.request(method.clone(), path, body)? {
            (200..=299, _) => Ok(()),
            (status, text) => Err(format!("{method} {path}: {status}: {text}")),
        }
    }

    /// Makes an object, or replaces it if it is there. `collection` is its path without its name.
    ///
    /// # Errors
    /// The server refuses it.
    pub fn put(&self, collection: &str, object: &Value) -> Outcome {
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        match self.request(Method::POST, collection, Some(object))? {
            (200..=299, _) => Ok(()),
            (409, _) => self.succeed(Method::PUT, &format!("{collection}/{name}"), Some(object)),
            (status, text) => Err(format!("{collection}/{name}: {status}: {text}")),
        }
    }

    /// Makes many objects, several at a time.
    ///
    /// # Errors
    /// The server refuses one.
    pub fn make_all(&self, collection: &str, objects: &[Value]) -> Outcome {
        let url = format!("{}{collection}", self.url());
        self.runtime.block_on(async {
            for some in objects.chunks(32) {
                let mut sent = tokio::task::JoinSet::new();
                for object in some {
                    let (http, url, object) = (self.http.clone(), url.clone(), object.to_string());
                    sent.spawn(async move {
                        let mut last = String::new();
                        // Now and then it closes a connection that a request is about to go over.
                        for _ in 0..5 {
                            let request = http.post(&url).timeout(Duration::from_secs(60)).bearer_auth(ADMIN);
                            let request = request.header("content-type", "application/json");
                            match request.body(object.clone()).send().await {
                                // It may have been made, and the answer lost.
                                Ok(answer) if answer.status().is_success() || answer.status() == 409 => {
                                    return Ok(());
                                }
                                Ok(answer) => last = answer.status().to_string(),
                                Err(error) => last = error.to_string(),
                            }
                        }
                        Err(format!("{url}: {last}"))
                    });
                }
                while let Some(answer) = sent.join_next().await {
                    answer.map_err(|error| error.to_string())??;
                }
            }
            Ok(())
        })
    }

    /// Deletes an object.
    ///
    /// # Errors
    /// The server refuses it.
    pub fn delete(&self, path: &str) -> Outcome {
        self.succeed(Method::DELETE, path, None)
    }

    /// Makes a namespace.
    ///
    /// # Errors
    /// The server refuses it.
    pub fn namespace(&self, name: &str) -> Outcome {
        self.put("/api/v1/namespaces", &json!({ "metadata": { "name": name } }))
    }

    /// Makes or replaces a Secret.
    ///
    /// # Errors
    /// The server refuses it.
    pub fn secret(&self, namespace: &str, name: &str, data: &[(&str, &str)]) -> Outcome {
        let data: serde_json::Map<_, _> =
            data.iter().map(|(key, value)| ((*key).to_owned(), json!(value))).collect();
        let object = json!({ "metadata": { "name": name }, "stringData": data });
        self.put(&format!("/api/v1/namespaces/{namespace}/secrets"), &object)
    }

    /// Makes or replaces a config map.
    ///
    /// # Errors
    /// The server refuses it.
    pub fn config_map(&self, namespace: &str, name: &str, data: &[(&str, &str)]) -> Outcome {
        let data: serde_json::Map<_, _> =
            data.iter().map(|(key, value)| ((*key).to_owned(), json!(value))).collect();
        let object = json!({ "metadata": { "name": name }, "data": data });
        self.put(&format!("/api/v1/namespaces/{namespace}/configmaps"), &object)
    }

    /// Lets a user do what the rules say in a namespace, instead of what it could do there.
    ///
    /// # Errors
    /// The server refuses it.
    pub fn allow(&self, namespace: &str, user: &str, rules: &Value) -> Outcome {
        let group = format!("/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}");
        self.put(&format!("{group}/roles"), &json!({ "metadata": { "name": user }, "rules": rules }))?;
        let binding = json!({
            "metadata": { "name": user },
            "subjects": [{ "kind": "User", "name": user, "apiGroup": "rbac.authorization.k8s.io" }],
            "roleRef": { "kind": "Role", "name": user, "apiGroup": "rbac.authorization.k8s.io" },
        });
        self.put(&format!("{group}/rolebindings"), &binding)
    }
}

impl Drop for Kubernetes {
    fn drop(&mut self) {
        self.kill_api();
        // Already gone is as good.
        drop(self.etcd.kill());
        drop(self.etcd.wait());
    }
}

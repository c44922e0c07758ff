//! A real Prometheus: of Debian's package (2.42) or built from the Go module proxy (3.12).

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::{Outcome, free_address, wait_for};

/// A running Prometheus that takes remote write.
pub struct Prometheus {
    child: Child,
    address: String,
    http: reqwest::Client,
    runtime: tokio::runtime::Runtime,
}

/// A series as an instant query answers it: labels, and the value or native histogram as JSON.
pub type Instant = BTreeMap<BTreeMap<String, String>, Value>;

impl Prometheus {
    /// The installed one, if there is one.
    #[must_use]
    pub fn installed() -> Option<PathBuf> {
        let found =
            Command::new("prometheus").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
        found.is_ok_and(|status| status.success()).then(|| PathBuf::from("prometheus"))
    }

    /// The one built into the cache of servers, if it is there.
    #[must_use]
    pub fn built() -> Option<PathBuf> {
        let binary = crate::built_servers().join("prometheus-0.312.0/prometheus");
        binary.is_file().then_some(binary)
    }

    /// Starts one with this configuration; gives it when it is ready.
    ///
    /// # Errors
    /// It cannot be started, or is not ready within 30 seconds.
    pub fn start(binary: &Path, directory: &Path, configuration: &str, flags: &[&str]) -> Outcome<Self> {
        let address = free_address()?;
        let file = directory.join("prometheus.yml");
        std::fs::write(&file, configuration).map_err(|error| error.to_string())?;
        let log = File::create(directory.join("prometheus.log")).map_err(|error| error.to_string())?;
        let child = Command::new(binary)
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", directory.join("prometheus").display()))
            .arg(format!("--web.listen-address={address}"))
            .arg("--web.enable-remote-write-receiver")
            .args(flags)
            .stdin(Stdio::null())
            .stdout(log.try_clone().map_err(|error| error.to_string())?)
            .stderr(log)
            .spawn()
            .map_err(|error| format!("{}: {error}", binary.display()))?;
        // A second installation in one process finds the first one, which is what is wanted.
        drop(rustls::crypto::ring::default_provider().install_default());
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| error.to_string())?;
        let http = reqwest::Client::builder().no_proxy().build().map_err(|error| error.to_string())?;
        let prometheus = Self { child, address, http, runtime };
        wait_for("Prometheus to be ready", Duration::from_secs(30), || {
            prometheus.get("/-/ready", &[]).ok().filter(|(status, _)| *status == 200).map(|_| ())
        })?;
        Ok(prometheus)
    }

    /// `HOST:PORT`.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Where remote write goes.
    #[must_use]
    pub fn write_url(&self) -> String {
        format!("http://{}/api/v1/write", self.address)
    }

    /// What `GET path` answers, as bytes, when asked for this content type.
    ///
    /// # Errors
    /// No answer.
    pub fn page(&self, path: &str, accept: &str) -> Outcome<Vec<u8>> {
        let address = format!("http://{}{path}", self.address);
        self.runtime.block_on(async {
            let request = self.http.get(&address).header("accept", accept).timeout(Duration::from_secs(10));
            let answer = request.send().await.map_err(|error| format!("{address}: {error}"))?;
            answer.bytes().await.map(|body| body.to_vec()).map_err(|error| format!("{address}: {error}"))
        })
    }

    fn get(&self, path: &str, query: &[(&str, &str)]) -> Outcome<(u16, String)> {
        let mut url = format!("http://{}{path}", self.address);
        for (index, (name, value)) in query.iter().enumerate() {
            url.push(if index == 0 { '?' } else { '&' });
            url.push_str(name);
            url.push('=');
            for byte in value.bytes() {
                url.push_str(&format!("%{byte:02X}"));
            }
        }
        self.runtime.block_on(async {
            let answer = self.http.get(&url).timeout(Duration::from_secs(20)).send().await;
            let answer = answer.map_err(|error| format!("{path}: {error}"))?;
            let status = answer.status().as_u16();
            answer.text().await.map(|text| (status, text)).map_err(|error| format!("{path}: {error}"))
        })
    }

    /// The answer to an instant query: every series with its newest value, in its text form, or its histogram.
    ///
    /// # Errors
    /// No answer, or an error of the query.
    pub fn query(&self, query: &str) -> Outcome<Instant> {
        let (status, text) = self.get("/api/v1/query", &[("query", query)])?;
        let answer: Value =
            serde_json::from_str(&text).map_err(|error| format!("{status}: {error}: {text}"))?;
        let Some(result) = answer["data"]["result"].as_array() else {
            return Err(format!("{query}: {text}"));
        };
        Ok(result
            .iter()
            .map(|series| {
                let labels = series["metric"].as_object().into_iter().flatten();
                let labels =
                    labels.map(|(name, value)| (name.clone(), value.as_str().unwrap_or_default().to_owned()));
                let value =
                    if series["histogram"].is_null() { &series["value"][1] } else { &series["histogram"][1] };
                (labels.collect(), value.clone())
            })
            .collect())
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        // Already gone is as good.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

//! Prometheus as the demo's receiver, where it is installed.

use std::path::Path;
use std::process::{Child, Command, Stdio};

/// A running Prometheus that takes remote write.
pub(crate) struct Prometheus {
    child: Child,
    address: String,
}

impl Prometheus {
    /// Starts it, or gives nothing where there is none.
    pub(crate) fn start(directory: &Path) -> Option<Self> {
        Command::new("prometheus")
            .arg("--version")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .ok()?;
        let address = invar_integration::free_address().ok()?;
        let configuration = directory.join("prometheus.yml");
        std::fs::write(&configuration, "scrape_configs: []\n").ok()?;
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", configuration.display()))
            .arg(format!("--storage.tsdb.path={}", directory.join("prometheus").display()))
            .arg(format!("--web.listen-address={address}"))
            .arg("--web.enable-remote-write-receiver")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        Some(Self { child, address })
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/api/v1/write", self.address)
    }

    pub(crate) fn page(&self) -> String {
        format!("http://{}/graph?g0.expr=up", self.address)
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        // Already gone is as good.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

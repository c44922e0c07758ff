//! The agent's configuration, and what is changed in it from swap to swap.

use std::fmt::Write;
use std::net::TcpListener;
use std::path::{Path, PathBuf};

use crate::{Arguments, Change};

pub(crate) struct Configuration {
    path: PathBuf,
    api: String,
    receiver: String,
    sink: String,
    change: Change,
    bystanders: usize,
    version: usize,
    /// How often each component was changed.
    rule: usize,
    server: usize,
    exporter: usize,
}

impl Configuration {
    pub(crate) fn new(arguments: &Arguments, directory: &Path, sink: &str) -> std::io::Result<Self> {
        // Bound together, so that they differ.
        let listeners = [TcpListener::bind("127.0.0.1:0")?, TcpListener::bind("127.0.0.1:0")?];
        let [api, receiver] =
            listeners.map(|listener| listener.local_addr().map(|address| address.to_string()));
        Ok(Self {
            path: directory.join("load.alloy"),
            api: api?,
            receiver: receiver?,
            sink: sink.to_owned(),
            change: arguments.change,
            bystanders: arguments.bystanders,
            version: 0,
            rule: 0,
            server: 0,
            exporter: 0,
        })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Address of the agent's API.
    pub(crate) fn api(&self) -> &str {
        &self.api
    }

    /// Address that samples are pushed to.
    pub(crate) fn receiver(&self) -> &str {
        &self.receiver
    }

    /// Changes one component.
    pub(crate) fn change(&mut self) {
        self.version += 1;
        match (self.change, self.version % 3) {
            (Change::Rule, _) | (Change::All, 0) => self.rule += 1,
            (Change::Receiver, _) | (Change::All, 1) => self.server += 1,
            (Change::Exporter, _) | (Change::All, _) => self.exporter += 1,
        }
    }

    /// Puts the file in place at once.
    pub(crate) fn write(&self) -> std::io::Result<()> {
        let (address, port) = self.receiver.rsplit_once(':').unwrap_or((&self.receiver, ""));
        let mut text = format!(
            r#"prometheus.receive_http "push" {{
	http {{
		listen_address = "{address}"
		listen_port = {port}
	}}
	append_metadata = {metadata}
	forward_to = [prometheus.relabel.rules.receiver]
}}
prometheus.relabel "rules" {{
	rule {{
		target_label = "rule"
		replacement = "r{rule}"
	}}
	forward_to = [prometheus.remote_write.sink.receiver]
}}
prometheus.remote_write "sink" {{
	external_labels = {{ version = "v{exporter}" }}
	endpoint {{
		url = "http://{sink}/api/v1/write"
	}}
}}
"#,
            metadata = self.server.is_multiple_of(2),
            rule = self.rule,
            exporter = self.exporter,
            sink = self.sink,
        );
        for number in 0..self.bystanders {
            let next = match (number + 1) % 10 {
                0 => "rules".to_owned(),
                _ if number + 1 == self.bystanders => "rules".to_owned(),
                _ => format!("bystander_{}", number + 1),
            };
            writeln!(
                text,
                "prometheus.relabel \"bystander_{number}\" {{\n\trule {{\n\t\ttarget_label = \"n\"\n\t\treplacement = \"{number}\"\n\t}}\n\tforward_to = [prometheus.relabel.{next}.receiver]\n}}"
            )
            .expect("writing to a string cannot fail");
        }
        let draft = self.path.with_extension("draft");
        std::fs::write(&draft, text)?;
        std::fs::rename(&draft, &self.path)
    }
}

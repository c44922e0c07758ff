//! What is measured: an agent with its configuration for the load.

use std::fmt::Write;
use std::path::Path;
use std::process::Command;

use invar_benches::process::{Process, pinned};

use crate::Arguments;

/// Makes the commands that run subjects.
pub(crate) struct Subject;

impl Subject {
    pub(crate) fn invar(
        arguments: &Arguments,
        directory: &Path,
        pages: &str,
        sink: &str,
    ) -> std::io::Result<Process> {
        let mut text = String::from("prometheus.scrape \"load\" {\n\ttargets = [\n");
        for target in 0..arguments.targets {
            writeln!(
                text,
                "\t\t{{__address__ = \"{pages}\", __metrics_path__ = \"/{target}/metrics\", instance = \"host-{target}\", zone = \"z{}\", cluster = \"bench\"}},",
                target % 3
            ).expect("writing to a string cannot fail");
        }
        let receiver = if arguments.rules > 0 {
            "prometheus.relabel.rules.receiver"
        } else {
            "prometheus.remote_write.sink.receiver"
        };
        writeln!(
            text,
            "\t]\n\tjob_name = \"load\"\n\tscrape_interval = \"{interval}s\"\n\tscrape_timeout = \"{interval}s\"\n\tforward_to = [{receiver}]\n}}",
            interval = arguments.interval
        ).expect("writing to a string cannot fail");
        if arguments.rules > 0 {
            text.push_str(
                "prometheus.relabel \"rules\" {\n\tforward_to = [prometheus.remote_write.sink.receiver]\n",
            );
            for rule in 0..arguments.rules {
                writeln!(
                    text,
                    "\trule {{\n\t\tsource_labels = [\"handler\"]\n\t\tregex = \"handler_(\\\\d*){rule}\"\n\t\ttarget_label = \"rule_{rule}\"\n\t}}"
                ).expect("writing to a string cannot fail");
            }
            text.push_str("}\n");
        }
        let message =
            if arguments.v2 { "\n\t\tprotobuf_message = \"io.prometheus.write.v2.Request\"" } else { "" };
        writeln!(
            text,
            "prometheus.remote_write \"sink\" {{\n\tendpoint {{\n\t\turl = \"{sink}\"{message}\n\t}}\n}}"
        )
        .expect("writing to a string cannot fail");
        let pipeline = directory.join("load.alloy");
        std::fs::write(&pipeline, text)?;
        let mut command = pinned(&arguments.invar);
        command
            .arg("run")
            .arg(&pipeline)
            .arg(format!("--storage.path={}", directory.join("invar").display()))
            .arg("--server.http.listen-addr=127.0.0.1:0");
        Process::start(command, &directory.join("invar.log"))
    }

    pub(crate) fn prometheus(
        arguments: &Arguments,
        binary: &Path,
        directory: &Path,
        pages: &str,
        sink: &str,
    ) -> std::io::Result<Process> {
        let mut text = format!(
            "global:\n  scrape_interval: {interval}s\n  scrape_timeout: {interval}s\nscrape_configs:\n- job_name: load\n  static_configs:\n",
            interval = arguments.interval
        );
        for target in 0..arguments.targets {
            writeln!(
                text,
                "  - targets: ['{pages}']\n    labels: {{__metrics_path__: '/{target}/metrics', instance: 'host-{target}', zone: 'z{}', cluster: bench}}",
                target % 3
            ).expect("writing to a string cannot fail");
        }
        if arguments.rules > 0 {
            text.push_str("  metric_relabel_configs:\n");
            for rule in 0..arguments.rules {
                writeln!(
                    text,
                    "  - source_labels: [handler]\n    regex: 'handler_(\\d*){rule}'\n    target_label: rule_{rule}"
                ).expect("writing to a string cannot fail");
            }
        }
        writeln!(text, "remote_write:\n- url: {sink}").expect("writing to a string cannot fail");
        if arguments.v2 && supports_v2(binary) {
            text.push_str("  protobuf_message: io.prometheus.write.v2.Request\n");
        }
        let configuration = directory.join("prometheus.yml");
        std::fs::write(&configuration, text)?;
        let mut command = pinned(binary);
        command.arg(format!("--config.file={}", configuration.display()));
        command.arg(format!("--storage.agent.path={}", directory.join("prometheus").display()));
        command.arg("--web.listen-address=127.0.0.1:0");
        command.arg(if major(binary) >= 3 { "--agent" } else { "--enable-feature=agent" });
        command.env("GOMAXPROCS", "1");
        Process::start(command, &directory.join("prometheus.log"))
    }
}

fn version(binary: &Path) -> String {
    let output = Command::new(binary).arg("--version").output();
    output.map_or_else(
        |_| String::new(),
        |output| {
            let text = [output.stdout, output.stderr].concat();
            String::from_utf8_lossy(&text).into_owned()
        },
    )
}

fn major(binary: &Path) -> u32 {
    let text = version(binary);
    let after = text.split("version ").nth(1).unwrap_or_default();
    // A build from the module proxy calls itself by the module's version, 0.3xx for 3.xx, or by nothing.
    let number = after.split(['.', ',', ' ']).next().unwrap_or_default();
    match number.parse() {
        Ok(number) if number > 0 => number,
        _ => 3,
    }
}

fn supports_v2(binary: &Path) -> bool {
    major(binary) >= 3
}

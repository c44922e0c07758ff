//! Whole conversions. Expected pipelines are written out: they are what a person gets to read.

use invar_engine::Registry;

use crate::{Conversion, Format, Severity, convert};

fn registry() -> Registry {
    invar_components_discovery::register(invar_components_prometheus::register(Registry::new()))
}

fn converted(format: Format, text: &str) -> Conversion {
    convert(format, text, &registry())
}

/// Lines and messages of everything that is lost or fails.
fn losses(conversion: &Conversion) -> Vec<(usize, &str)> {
    let findings = conversion.report.findings().iter();
    findings
        .filter(|finding| finding.severity >= Severity::Error)
        .map(|finding| (finding.line, finding.message.as_str()))
        .collect()
}

#[test]
fn a_prometheus_configuration_becomes_a_pipeline() {
    let conversion = converted(
        Format::Prometheus,
        r#"
global:
  scrape_interval: 15s
  external_labels:
    cluster: prod
    host: "node-${HOSTNAME}"
scrape_configs:
  - job_name: api-server
    scrape_timeout: 1d
    honor_timestamps: true
    static_configs:
      - targets: ["a:80", "b:80"]
        labels: {zone: eu, "a-b": x}
    file_sd_configs:
      - files: ["/etc/targets/*.json"]
        refresh_interval: 5m
    relabel_configs:
      - source_labels: [__address__]
        target_label: node
        regex: '(.*)'
        replacement: null
    metric_relabel_configs:
      - {action: Drop, source_labels: [__name__], regex: 'go_.*'}
    basic_auth: {username: 0123, password_file: /run/pw}
remote_write:
  - url: https://one/api/v1/write
    headers: {X-Scope: "1"}
    tls_config: {ca_file: /ca.pem}
    queue_config: {max_shards: 50, capacity: 5000, retry_on_http_429: true}
"#,
    );
    assert_eq!(losses(&conversion), []);
    assert_eq!(
        conversion.pipeline,
        r#"discovery.file "api_server" {
	files = ["/etc/targets/*.json"]
}

discovery.relabel "api_server" {
	targets = array.concat(
		discovery.file.api_server.targets,
		[{
			__address__ = "a:80",
			"a-b"       = "x",
			zone        = "eu",
		}],
		[{
			__address__ = "b:80",
			"a-b"       = "x",
			zone        = "eu",
		}],
	)

	rule {
		source_labels = ["__address__"]
		target_label  = "node"
		replacement   = ""
	}
}

prometheus.scrape "api_server" {
	targets         = discovery.relabel.api_server.output
	forward_to      = [prometheus.relabel.api_server.receiver]
	job_name        = "api-server"
	scrape_interval = "15s"
	scrape_timeout  = "24h0m0s"

	basic_auth {
		username      = "0123"
		password_file = "/run/pw"
	}
}

prometheus.relabel "api_server" {
	forward_to = [prometheus.remote_write.default.receiver]

	rule {
		source_labels = ["__name__"]
		regex         = "go_.*"
		action        = "drop"
	}
}

prometheus.remote_write "default" {
	external_labels = {
		cluster = "prod",
		host    = "node-" + sys.env("HOSTNAME"),
	}

	endpoint {
		url     = "https://one/api/v1/write"
		headers = {
			"X-Scope" = "1",
		}

		tls_config {
			ca_file = "/ca.pem"
		}

		queue_config {
			capacity = 5000
		}

		metadata_config { }
	}
}
"#
    );
}

#[test]
fn what_is_lost_is_named_with_its_line() {
    let conversion = converted(
        Format::Prometheus,
        "global:
  evaluation_interval: 15s
rule_files: [a.yml]
scrape_configs:
  - job_name: x
    ec2_sd_configs:
      - region: eu
    scrape_intervall: 10s
  - job_name: y
    keep_dropped_targets: 3
remote_write:
  - url: http://r
    tls_config: {max_version: TLS13}
",
    );
    let lost = losses(&conversion);
    let lines: Vec<usize> = lost.iter().map(|(line, _)| *line).collect();
    assert_eq!(lines, [2, 3, 7, 8, 10, 13], "{lost:#?}");
    assert!(lost[2].1.contains("discovery.ec2, which is not built into this version"), "{lost:#?}");
    assert!(lost[3].1.contains("did you mean scrape_interval?"), "{lost:#?}");
}

#[test]
fn names_that_differ_only_in_punctuation_get_labels_of_their_own() {
    let conversion = converted(
        Format::Prometheus,
        "scrape_configs:
  - job_name: a.b
  - job_name: a-b
  - job_name: 1st
  - job_name: 'true'
remote_write: [{url: http://r}]
",
    );
    for label in ["\"a_b\"", "\"a_b_2\"", "\"_1st\"", "\"_true\""] {
        assert!(conversion.pipeline.contains(label), "{label} in\n{}", conversion.pipeline);
    }
}

#[test]
fn anchors_and_merges_are_resolved() {
    let conversion = converted(
        Format::Prometheus,
        "scrape_configs:
  - &base
    job_name: a
    scrape_interval: 30s
  - <<: *base
    job_name: b
",
    );
    assert_eq!(losses(&conversion), []);
    assert_eq!(
        conversion.pipeline.matches("scrape_interval = \"30s\"").count(),
        2,
        "{}",
        conversion.pipeline
    );
}

#[test]
fn text_that_is_no_yaml_is_critical_and_writes_nothing() {
    for text in ["a: [", "a: b: c", "{a: 1, a: 2}", "- 1", "\t- x"] {
        let conversion = converted(Format::Prometheus, text);
        assert!(!conversion.report.findings().is_empty(), "{text:?}");
        assert_eq!(conversion.pipeline, "", "{text:?}");
    }
    let nested = "[".repeat(100_000);
    assert_eq!(converted(Format::Prometheus, &nested).report.worst(), Some(Severity::Critical));
    let bomb = "a: &a [x,x,x,x,x,x,x,x,x,x]\n".to_owned()
        + &('b'..='i').map(|c| {
            let before = char::from(c as u8 - 1);
            format!("{c}: &{c} [*{before},*{before},*{before},*{before},*{before},*{before},*{before},*{before},*{before},*{before}]\n")
        }).collect::<String>();
    assert_eq!(converted(Format::Prometheus, &bomb).report.worst(), Some(Severity::Critical));
}

#[test]
fn of_promtail_the_discovery_and_the_log_level_are_converted() {
    let conversion = converted(
        Format::Promtail,
        "server: {log_level: debug, http_listen_port: 9080}
clients: [{url: 'http://loki/push'}]
positions: {filename: /tmp/positions.yaml}
scrape_configs:
  - job_name: system
    static_configs:
      - targets: [localhost]
        labels: {__path__: /var/log/*.log}
    relabel_configs:
      - {source_labels: [__path__], target_label: path}
    pipeline_stages: [{docker: {}}]
",
    );
    assert!(
        conversion.pipeline.starts_with("logging {\n\tlevel = \"debug\"\n}\n"),
        "{}",
        conversion.pipeline
    );
    assert!(conversion.pipeline.contains("discovery.relabel \"system\""), "{}", conversion.pipeline);
    let lost = losses(&conversion);
    let lines: Vec<usize> = lost.iter().map(|(line, _)| *line).collect();
    assert_eq!(lines, [2, 3, 5, 11], "{lost:#?}");
}

#[test]
fn a_collector_that_scrapes_and_writes_prometheus_is_converted() {
    let conversion = converted(
        Format::OpenTelemetryCollector,
        r#"receivers:
  prometheus:
    config:
      scrape_configs:
        - job_name: self
          static_configs: [{targets: ["127.0.0.1:8888"]}]
  otlp: {protocols: {grpc: {}}}
processors: {batch: {}}
exporters:
  prometheusremotewrite:
    endpoint: "https://${env:REMOTE}/push"
    external_labels: {region: "${env:REGION:-eu}"}
  debug: {}
service:
  telemetry: {logs: {level: WARN, encoding: json}}
  pipelines:
    metrics: {receivers: [prometheus], processors: [batch], exporters: [prometheusremotewrite]}
    traces: {receivers: [otlp], exporters: [debug]}
"#,
    );
    assert_eq!(
        conversion.pipeline,
        r#"logging {
	level  = "warn"
	format = "json"
}

prometheus.scrape "self" {
	targets = [{
		__address__ = "127.0.0.1:8888",
	}]
	forward_to = [prometheus.remote_write.default.receiver]
	job_name   = "self"
}

prometheus.remote_write "default" {
	external_labels = {
		region = coalesce(sys.env("REGION"), "eu"),
	}

	endpoint {
		url = "https://" + sys.env("REMOTE") + "/push"
	}
}
"#
    );
    let lost = losses(&conversion);
    assert_eq!(lost.len(), 2, "{lost:#?}");
    assert!(lost.iter().any(|(_, message)| message.contains("otelcol.receiver.otlp")), "{lost:#?}");
}

mod properties {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// No text makes a converter panic, and what it writes can be read.
        #[test]
        fn any_text_is_answered(text in "[a-z_:\\-\\[\\]{}, \n\"'&*<$0-9]{0,200}") {
            for (_, format) in Format::NAMES {
                let conversion = converted(format, &text);
                prop_assert!(readable(&conversion.pipeline));
            }
        }

        /// Names and values of any kind come out as they went in: quoted.
        #[test]
        fn any_name_is_carried_over(job in "[^\\pC]{1,20}", label in "[^\\pC]{1,10}", value in "[^\\pC]{0,20}") {
            let quoted = |text: &str| format!("'{}'", text.replace('\'', "''"));
            let text = format!(
                "scrape_configs:\n- job_name: {}\n  static_configs:\n  - targets: [x]\n    labels:\n      {}: {}\n",
                quoted(&job), quoted(&label), quoted(&value)
            );
            let conversion = converted(Format::Prometheus, &text);
            prop_assert!(readable(&conversion.pipeline), "{}", conversion.pipeline);
        }
    }

    fn readable(pipeline: &str) -> bool {
        let source = std::sync::Arc::new(invar_syntax::Source::new("converted.alloy", pipeline));
        invar_syntax::parse_file(source).0.is_some()
    }
}

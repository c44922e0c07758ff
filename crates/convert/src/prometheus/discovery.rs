//! Where targets come from: lists in the configuration, and service discovery.

use invar_syntax::Value;

use super::scalar::{duration_value, texts};
use crate::block::{Block, Pipeline, Place};
use crate::report::Report;
use crate::targets::Targets;
use crate::yaml::Fields;

/// Kinds of discovery by the field that configures them, and their components.
const KINDS: [(&str, &str); 26] = [
    ("azure_sd_configs", "discovery.azure"),
    ("consul_sd_configs", "discovery.consul"),
    ("consulagent_sd_configs", "discovery.consulagent"),
    ("digitalocean_sd_configs", "discovery.digitalocean"),
    ("dns_sd_configs", "discovery.dns"),
    ("docker_sd_configs", "discovery.docker"),
    ("dockerswarm_sd_configs", "discovery.dockerswarm"),
    ("ec2_sd_configs", "discovery.ec2"),
    ("eureka_sd_configs", "discovery.eureka"),
    ("gce_sd_configs", "discovery.gce"),
    ("hetzner_sd_configs", "discovery.hetzner"),
    ("http_sd_configs", "discovery.http"),
    ("ionos_sd_configs", "discovery.ionos"),
    ("kubernetes_sd_configs", "discovery.kubernetes"),
    ("kuma_sd_configs", "discovery.kuma"),
    ("lightsail_sd_configs", "discovery.lightsail"),
    ("linode_sd_configs", "discovery.linode"),
    ("marathon_sd_configs", "discovery.marathon"),
    ("nerve_sd_configs", "discovery.nerve"),
    ("nomad_sd_configs", "discovery.nomad"),
    ("openstack_sd_configs", "discovery.openstack"),
    ("ovhcloud_sd_configs", "discovery.ovhcloud"),
    ("puppetdb_sd_configs", "discovery.puppetdb"),
    ("scaleway_sd_configs", "discovery.scaleway"),
    ("serverset_sd_configs", "discovery.serverset"),
    ("triton_sd_configs", "discovery.triton"),
];
/// Kinds that Alloy has no component for either.
const WITHOUT_COMPONENT: [&str; 4] =
    ["uyuni_sd_configs", "vultr_sd_configs", "xds_sd_configs", "stackit_sd_configs"];

/// The targets of a job: what it discovers, then what it lists.
pub(crate) fn convert(
    job: &Fields<'_>,
    label: &str,
    pipeline: &mut Pipeline<'_>,
    report: &mut Report,
) -> Vec<Targets> {
    let mut targets = Vec::new();
    for (field, component) in KINDS {
        if let Some(node) = job.get(field).filter(|node| !node.is_empty()) {
            report.missing_component(node.line, format!("{field} of {}", job.what()), component);
        }
    }
    for field in WITHOUT_COMPONENT {
        job.unsupported(field, report);
    }
    for node in job.get("file_sd_configs").map_or(&[][..], |node| node.items()) {
        let fields = node.fields("file_sd_configs", report);
        let mut block = Block::default();
        block.set_some("files", texts(&fields, "files", report));
        block.set_some("refresh_interval", duration_value(&fields, "refresh_interval", report));
        fields.finish(report);
        let label = pipeline.labels.take("discovery.file", label);
        pipeline.component(Place::Discovery, "discovery.file", &label, &block, node.line, report);
        targets.push(Targets::Export(format!("discovery.file.{label}.targets")));
    }
    for node in job.get("static_configs").map_or(&[][..], |node| node.items()) {
        let group = node.fields("static_configs", report);
        let mut labels: Vec<(String, String)> = Vec::new();
        if let Some(node) = group.get("labels") {
            for (name, value) in node.fields("labels", report).all() {
                labels.push((name.to_owned(), value.text(name, report).unwrap_or_default()));
            }
        }
        for target in group.get("targets").map_or(&[][..], |node| node.items()) {
            let Some(address) = target.text("targets", report) else { continue };
            let mut target = labels.clone();
            target.retain(|(name, _)| name != "__address__");
            target.push(("__address__".to_owned(), address));
            target.sort();
            targets.push(Targets::Literal(target));
        }
        group.finish(report);
    }
    targets
}

/// Puts `discovery.relabel` behind targets where there are rules.
pub(crate) fn relabel(
    job: &Fields<'_>,
    targets: Vec<Targets>,
    label: &str,
    pipeline: &mut Pipeline<'_>,
    report: &mut Report,
) -> Vec<Targets> {
    let Some(rules) = job.get("relabel_configs").filter(|rules| !rules.is_empty()) else { return targets };
    let mut block = Block::default();
    block.set_expression("targets", crate::targets::expression(&targets));
    super::relabel::rules(rules, "rule", &mut block, report);
    let label = pipeline.labels.take("discovery.relabel", label);
    pipeline.component(Place::DiscoveryRelabel, "discovery.relabel", &label, &block, rules.line, report);
    vec![Targets::Export(format!("discovery.relabel.{label}.output"))]
}

/// The files of a `file_sd_configs` entry and the like, as a value; for agents that configure discovery their own way.
pub(crate) fn value_list(items: impl IntoIterator<Item = String>) -> Value {
    Value::array(items.into_iter().map(Value::string).collect::<Vec<_>>())
}

//! Against Prometheus 2.42 (remote write 1.0): what it stores of the agent's scrapes is, series by series, what it
//! stores of its own scrapes of the same pages.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "suites/comparison.rs"]
mod comparison;

use std::process::{Command, Stdio};
use std::time::Duration;

use comparison::{Comparison, SYNTHETIC, Setup};
use invar_integration::{Prometheus, Target};

#[test]
fn values_labels_and_staleness_match_what_prometheus_scrapes_itself() {
    let Some(binary) = comparison::server(Prometheus::installed(), "Prometheus 2.42") else { return };
    let synthetic = Target::start(SYNTHETIC).unwrap();
    let setup =
        Setup { binary: &binary, flags: &[], scrape_yaml: "", scrape_arguments: "", endpoint_arguments: "" };
    let comparison = Comparison::start(&setup, &[&synthetic]);
    comparison.agree("the synthetic page", 20);

    // A series goes: stale by both ways, the others stay.
    synthetic.show(SYNTHETIC.replace("untyped_thing 42\n", ""));
    comparison.gone("untyped_thing");
    comparison.agree("the page without a series", 19);

    // The page fails: everything but the report series is stale.
    synthetic.status(500);
    comparison.gone("requests_total");
    comparison.agree("the page that fails", 4);
    synthetic.status(200);
    comparison.agree("the page again", 19);

    // Malformed: the whole scrape fails. (At the beginning, because Prometheus leaves unmarked what stands before.)
    synthetic.show(format!("broken{{ 1\n{SYNTHETIC}"));
    comparison.gone("requests_total");
    comparison.agree("the malformed page", 4);
}

#[test]
fn a_page_of_node_exporter_matches() {
    let Some(binary) = comparison::server(Prometheus::installed(), "Prometheus 2.42") else { return };
    let Some(page) = node_exporter_page() else {
        assert!(std::env::var_os("INVAR_REQUIRE_SERVERS").is_none(), "node_exporter is missing");
        println!("skipped: node_exporter is missing; `make integration` provides it");
        return;
    };
    // Both scrape one page that was taken once: what a live exporter says changes between two scrapes.
    let target = Target::start(page).unwrap();
    let setup =
        Setup { binary: &binary, flags: &[], scrape_yaml: "", scrape_arguments: "", endpoint_arguments: "" };
    let comparison = Comparison::start(&setup, &[&target]);
    comparison.agree("node_exporter's page", 300);
}

/// What node_exporter shows of this machine.
fn node_exporter_page() -> Option<Vec<u8>> {
    let address = invar_integration::free_address().unwrap();
    let mut exporter = Command::new("prometheus-node-exporter")
        .arg(format!("--web.listen-address={address}"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    let page = invar_integration::wait_for("node_exporter's page", Duration::from_secs(30), || {
        invar_integration::fetch(&format!("http://{address}/metrics")).ok().filter(|page| page.len() > 1000)
    });
    drop(exporter.kill());
    drop(exporter.wait());
    Some(page.unwrap())
}

#[test]
fn labels_of_the_page_win_where_they_are_honoured() {
    let Some(binary) = comparison::server(Prometheus::installed(), "Prometheus 2.42") else { return };
    let page = SYNTHETIC.replace(",via=\"theirs\"", "");
    let synthetic = Target::start(page).unwrap();
    let setup = Setup {
        binary: &binary,
        flags: &[],
        scrape_yaml: "  honor_labels: true\n",
        scrape_arguments: "\thonor_labels = true\n",
        endpoint_arguments: "",
    };
    Comparison::start(&setup, &[&synthetic]).agree("the page whose labels win", 20);
}

//! Against Prometheus 3.12 (remote write 2.0, native histograms): what it stores of the agent's scrapes is, series by
//! series, what it stores of its own scrapes of the same pages.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "suites/comparison.rs"]
mod comparison;

use comparison::{Comparison, SYNTHETIC, Setup};
use invar_integration::{Prometheus, Target};

const SECOND: &str =
    "\t\tprotobuf_message = \"io.prometheus.write.v2.Request\"\n\t\tsend_native_histograms = true\n";

#[test]
fn values_labels_and_staleness_match_over_remote_write_2() {
    let Some(binary) = comparison::server(Prometheus::built(), "Prometheus 3.12") else { return };
    let synthetic = Target::start(SYNTHETIC).unwrap();
    let setup = Setup {
        binary: &binary,
        flags: &[],
        scrape_yaml: "",
        scrape_arguments: "",
        endpoint_arguments: SECOND,
    };
    let comparison = Comparison::start(&setup, &[&synthetic]);
    comparison.agree("the synthetic page", 20);
    synthetic.show(SYNTHETIC.replace("untyped_thing 42\n", ""));
    comparison.gone("untyped_thing");
    comparison.agree("the page without a series", 19);
    synthetic.status(500);
    comparison.gone("requests_total");
    comparison.agree("the page that fails", 4);
}

#[test]
fn values_match_over_remote_write_1() {
    let Some(binary) = comparison::server(Prometheus::built(), "Prometheus 3.12") else { return };
    let synthetic = Target::start(SYNTHETIC).unwrap();
    let setup =
        Setup { binary: &binary, flags: &[], scrape_yaml: "", scrape_arguments: "", endpoint_arguments: "" };
    Comparison::start(&setup, &[&synthetic]).agree("the synthetic page", 20);
}

#[test]
fn native_histograms_match() {
    let Some(binary) = comparison::server(Prometheus::built(), "Prometheus 3.12") else { return };
    // Prometheus itself is an exporter of native histograms; its page is taken once and then stands still.
    let directory = tempfile::tempdir().unwrap();
    let own = "scrape_configs: []\n";
    let exporter =
        Prometheus::start(&binary, directory.path(), own, &["--enable-feature=native-histograms"]).unwrap();
    let accept = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited";
    for _ in 0..20 {
        exporter.query("up").unwrap();
    }
    let page = exporter.page("/metrics", accept).unwrap();
    let target = Target::start(page).unwrap();
    target.content_type(accept);
    let setup = Setup {
        binary: &binary,
        flags: &["--enable-feature=native-histograms"],
        scrape_yaml: "  scrape_native_histograms: true\n",
        scrape_arguments: "\tscrape_native_histograms = true\n",
        endpoint_arguments: SECOND,
    };
    let comparison = Comparison::start(&setup, &[&target]);
    comparison.agree("a page with native histograms", 100);
    let histograms = comparison.by("invar").into_values().filter(serde_json::Value::is_object).count();
    assert!(histograms > 0, "the page has no native histogram");
    println!("{histograms} native histograms agree");
}

//! The series that a scrape makes up about its target, such as `up`.

use invar_telemetry::exposition::CacheScrape;
use invar_telemetry::{Labels, LabelsBuilder, METRIC_NAME, Series};

use super::settings::ScrapeSettings;
use super::target::ScrapeTarget;

const NAMES: [&str; 5] = [
    "up",
    "scrape_duration_seconds",
    "scrape_samples_scraped",
    "scrape_samples_post_metric_relabeling",
    "scrape_series_added",
];
const EXTRA_NAMES: [&str; 3] = ["scrape_timeout_seconds", "scrape_sample_limit", "scrape_body_size_bytes"];
/// Stands before the name of a report in the memory of a target: no text of a page begins so.
const KEY_PREFIX: &str = "\u{10ffff}report ";

/// The reports on one target.
#[derive(Debug)]
pub(super) struct ReportSeries {
    series: Box<[Series]>,
}

/// What is reported about one scrape.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Report {
    pub(super) up: bool,
    /// In seconds.
    pub(super) duration: f64,
    pub(super) scraped: usize,
    pub(super) kept: usize,
    pub(super) added: usize,
    /// Bytes of the page; -1 where it was too large.
    pub(super) body_size: i64,
}

// === impl ReportSeries ===

impl ReportSeries {
    pub(super) fn new(target: &Labels, extra: bool) -> Self {
        let mut labels = LabelsBuilder::from_labels(target);
        let series = names(extra).map(|name| {
            labels.set(METRIC_NAME, name);
            labels.series()
        });
        Self { series: series.collect() }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Series> {
        self.series.iter()
    }

    /// Whether a series is one of the reports.
    pub(super) fn contains(&self, series: &Series) -> bool {
        self.series.iter().any(|own| own.same(series))
    }

    pub(super) fn len(&self) -> usize {
        self.series.len()
    }

    /// Appends the reports to a page; answers how many of them the page before did not have.
    pub(super) fn append(&self, page: &mut CacheScrape<'_>) -> usize {
        let mut added = 0;
        let mut key = String::with_capacity(KEY_PREFIX.len() + 48);
        for (name, series) in names(true).zip(&*self.series) {
            key.clear();
            key.push_str(KEY_PREFIX);
            key.push_str(name);
            if page.find(key.as_bytes(), false) == invar_telemetry::exposition::Lookup::Unknown {
                page.insert(key.as_bytes(), false, Some(series.clone()));
                added += 1;
            }
        }
        added
    }
}

fn names(extra: bool) -> impl Iterator<Item = &'static str> {
    NAMES.into_iter().chain(EXTRA_NAMES.into_iter().filter(move |_| extra))
}

// === impl Report ===

impl Report {
    /// Appends the values, in the order of the series.
    pub(super) fn append(&self, target: &ScrapeTarget, settings: &ScrapeSettings, values: &mut Vec<f64>) {
        values.extend([
            f64::from(u8::from(self.up)),
            self.duration,
            self.scraped as f64,
            self.kept as f64,
            self.added as f64,
        ]);
        if settings.page.extra_metrics {
            values.extend([
                target.timeout.as_secs_f64(),
                settings.page.sample_limit as f64,
                self.body_size as f64,
            ]);
        }
    }
}

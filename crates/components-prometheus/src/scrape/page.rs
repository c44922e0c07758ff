//! Reads a page into columns: looks each line up in what is remembered of the target, gives new series their labels, and enforces
//! the limits that a page must keep.

use std::hash::{BuildHasher, Hasher};
use std::sync::{Arc, LazyLock};

use foldhash::HashMap;
use foldhash::fast::RandomState;
use invar_telemetry::exposition::{
    CacheScrape, ExemplarEvent, ExpositionSink, HistogramEvent, Lookup, MetadataEvent, RawSeries,
    SampleEvent, SeriesText,
};
use invar_telemetry::labels::{is_legacy_label_name, is_legacy_metric_name};
use invar_telemetry::relabel::NameValidation;
use invar_telemetry::{
    Exemplar, ExemplarSample, HistogramSample, Labels, LabelsBuilder, METRIC_NAME, MetricKind, Series,
    is_stale,
};

use super::settings::PageRules;

/// A sample further ahead of the scrape than this, in milliseconds, is not taken.
const FUTURE_LIMIT: i64 = 10 * 60 * 1000;
/// Most characters that the labels of an exemplar may have.
const EXEMPLAR_LIMIT: usize = 128;

/// The last exemplar of each series of a target: pages repeat them until there is another.
pub(super) type LastExemplars = HashMap<Series, Exemplar>;

/// Why a page is refused, besides its syntax.
#[derive(Debug, thiserror::Error)]
pub(super) enum PageError {
    /// A series without a name.
    #[error("a metric has no name: {0}")]
    NoName(String),
    /// A name that is not allowed.
    #[error("invalid metric name or label names: {0}")]
    Name(String),
    /// A label name that occurs twice.
    #[error("label name {name:?} occurs twice: {series}")]
    Duplicate { name: String, series: String },
    /// Labels that cannot be read.
    #[error("{0}")]
    Labels(String),
    /// A limit of labels.
    #[error("{what} limit exceeded ({found}, limit: {limit}): {series}")]
    LabelLimit { what: &'static str, found: usize, limit: usize, series: String },
    /// A native histogram that stays too large.
    #[error("histogram bucket limit exceeded: {0}")]
    Buckets(String),
}

/// What a page is read into.
pub(super) struct PageSink<'a> {
    cache: CacheScrape<'a>,
    rules: &'a PageRules,
    target: &'a Labels,
    /// The timestamp of what has none of its own, in Unix milliseconds.
    timestamp: i64,
    exemplars: &'a mut LastExemplars,
    pub(super) columns: Columns,
    raw: LabelsBuilder,
    labels: LabelsBuilder,
    hasher: foldhash::fast::FoldHasher<'static>,
}

/// What a page holds.
#[derive(Default)]
pub(super) struct Columns {
    pub(super) values: Vec<f64>,
    /// Empty while no sample has a timestamp of its own; else one per value.
    pub(super) timestamps: Vec<i64>,
    pub(super) histograms: Vec<HistogramSample>,
    pub(super) exemplars: Vec<ExemplarSample>,
    pub(super) created: Vec<(u32, i64)>,
    /// Samples of the page.
    pub(super) scraped: usize,
    /// Those that relabelling keeps, all things that are.
    pub(super) kept: usize,
    /// Those that count against the limit.
    pub(super) limited: usize,
    /// Indices of values that are too far in the future.
    pub(super) out_of_bounds: Vec<u32>,
    /// Whether a limit of labels was exceeded.
    pub(super) label_limit_exceeded: bool,
}

static METADATA_HASH: LazyLock<RandomState> = LazyLock::new(RandomState::default);

// === impl PageSink ===

impl<'a> PageSink<'a> {
    pub(super) fn new(
        cache: CacheScrape<'a>,
        expected: usize,
        rules: &'a PageRules,
        target: &'a Labels,
        timestamp: i64,
        exemplars: &'a mut LastExemplars,
    ) -> Self {
        let columns = Columns { values: Vec::with_capacity(expected + 8), ..Columns::default() };
        Self {
            cache,
            rules,
            target,
            timestamp,
            exemplars,
            columns,
            raw: LabelsBuilder::new(),
            labels: LabelsBuilder::new(),
            hasher: METADATA_HASH.build_hasher(),
        }
    }

    /// The page's series so far, its columns, and a hash of all it says about metric families.
    pub(super) fn into_parts(self) -> (CacheScrape<'a>, Columns, u64) {
        (self.cache, self.columns, self.hasher.finish())
    }

    fn look_up(&mut self, series: SeriesText<'_>, histogram: bool) -> Result<Lookup, PageError> {
        let raw = match series {
            SeriesText::Expected => return Ok(self.cache.accept()),
            SeriesText::Raw(raw) => raw,
        };
        match self.cache.find(raw.text, histogram) {
            Lookup::Unknown => {
                let series = self.new_series(&raw)?;
                self.cache.insert(raw.text, histogram, Some(series));
                Ok(Lookup::Kept)
            }
            known => Ok(known),
        }
    }

    /// Gives a series of the page the labels of the target, and checks what came out.
    fn new_series(&mut self, raw: &RawSeries<'_>) -> Result<Series, PageError> {
        raw.labels(&mut self.raw).map_err(PageError::Labels)?;
        if let Some(name) = self.raw.duplicate() {
            return Err(PageError::Duplicate {
                name: name.to_owned(),
                series: self.raw.labels().to_string(),
            });
        }
        if self.rules.type_and_unit_labels {
            self.raw.set("__type__", if raw.kind == MetricKind::Unknown { "" } else { raw.kind.as_str() });
            self.raw.set("__unit__", raw.unit);
        }
        self.labels.clear();
        for (name, value) in self.raw.iter() {
            self.labels.set(name, value);
        }
        if self.rules.honor_labels {
            for (name, value) in self.target.iter() {
                // An empty label of the page says that there is to be none.
                if self.raw.get(name).is_none() && !self.raw.was_given_empty(name) {
                    self.labels.set(name, value);
                }
            }
        } else {
            let mut clashes: Vec<(&str, &str)> = Vec::new();
            for (name, value) in self.target.iter() {
                clashes.extend(self.raw.get(name).map(|own| (name, own)));
                self.labels.set(name, value);
            }
            // The shortest name first, so that what it becomes may push a longer one further.
            clashes.sort_by_key(|(name, _)| name.len());
            for (name, own) in clashes {
                let mut name = format!("exported_{name}");
                while self.labels.get(&name).is_some() {
                    name.insert_str(0, "exported_");
                }
                self.labels.set(&name, own);
            }
        }
        self.check_labels()?;
        Ok(self.labels.series())
    }

    fn check_labels(&mut self) -> Result<(), PageError> {
        let shown = |labels: &LabelsBuilder| labels.labels().to_string();
        let Some(name) = self.labels.get(METRIC_NAME) else {
            return Err(PageError::NoName(shown(&self.labels)));
        };
        let valid = match self.rules.names {
            NameValidation::Utf8 => true,
            NameValidation::Legacy => {
                is_legacy_metric_name(name) && self.labels.iter().all(|(name, _)| is_legacy_label_name(name))
            }
        };
        if !valid {
            return Err(PageError::Name(shown(&self.labels)));
        }
        let exceeds = |found: usize, limit: usize| limit > 0 && found > limit;
        let rules = self.rules;
        let mut excess = None;
        if exceeds(self.labels.len(), rules.label_limit) {
            excess = Some(("label", self.labels.len(), rules.label_limit));
        } else if rules.label_name_length_limit > 0 || rules.label_value_length_limit > 0 {
            for (name, value) in self.labels.iter() {
                if exceeds(name.len(), rules.label_name_length_limit) {
                    excess = Some(("label name length", name.len(), rules.label_name_length_limit));
                } else if exceeds(value.len(), rules.label_value_length_limit) {
                    excess = Some(("label value length", value.len(), rules.label_value_length_limit));
                }
            }
        }
        let Some((what, found, limit)) = excess else { return Ok(()) };
        self.columns.label_limit_exceeded = true;
        // What is too long is not repeated in full.
        let series = shown(&self.labels).chars().take(200).collect();
        Err(PageError::LabelLimit { what, found, limit, series })
    }

    /// The timestamp of a sample, and whether it is its own.
    fn time(&mut self, given: Option<i64>) -> (i64, bool) {
        let given = given.filter(|_| self.rules.honor_timestamps);
        self.cache.note_timestamp(given.is_some());
        (given.unwrap_or(self.timestamp), given.is_some())
    }
}

impl ExpositionSink for PageSink<'_> {
    type Error = PageError;

    #[inline]
    fn expect(&mut self, input: &[u8]) -> Option<usize> {
        self.cache.expect(input)
    }

    fn series(&mut self, sample: SampleEvent<'_>) -> Result<(), PageError> {
        self.columns.scraped += 1;
        if self.look_up(sample.series, false)? != Lookup::Kept {
            return Ok(());
        }
        let (timestamp, own) = self.time(sample.timestamp);
        let columns = &mut self.columns;
        columns.kept += 1;
        columns.limited += usize::from(!is_stale(sample.value));
        if own && columns.timestamps.is_empty() {
            columns.timestamps.resize(columns.values.len(), self.timestamp);
            columns.timestamps.push(timestamp);
        } else if !columns.timestamps.is_empty() {
            columns.timestamps.push(timestamp);
        }
        let index = columns.values.len() as u32;
        if timestamp > self.timestamp.saturating_add(FUTURE_LIMIT) {
            columns.out_of_bounds.push(index);
        }
        columns.created.extend(sample.created.map(|created| (index, created)));
        columns.values.push(sample.value);
        Ok(())
    }

    fn histogram(&mut self, sample: HistogramEvent<'_>) -> Result<(), PageError> {
        self.columns.scraped += 1;
        if self.look_up(sample.series, true)? != Lookup::Kept {
            return Ok(());
        }
        let (timestamp, _) = self.time(sample.timestamp);
        let Some(series) = self.cache.last_series().cloned() else { return Ok(()) };
        let mut histogram = sample.histogram;
        let too_many = || PageError::Buckets(series.to_string());
        if self.rules.bucket_limit > 0 {
            histogram.limit_buckets(self.rules.bucket_limit).map_err(|_| too_many())?;
        }
        if let Some(schema) = self.rules.finest_schema
            && !histogram.has_custom_buckets()
            && histogram.schema > schema
        {
            histogram.reduce_resolution(schema).map_err(|_| too_many())?;
        }
        self.columns.kept += 1;
        self.columns.limited += 1;
        if timestamp <= self.timestamp.saturating_add(FUTURE_LIMIT) {
            let created = sample.created;
            let histogram = Arc::new(histogram);
            self.columns.histograms.push(HistogramSample { series, timestamp, histogram, created });
        }
        Ok(())
    }

    fn exemplar(&mut self, exemplar: ExemplarEvent<'_>) -> Result<(), PageError> {
        let Some(series) = self.cache.last_series() else { return Ok(()) };
        let characters: usize =
            exemplar.labels.iter().map(|(name, value)| name.chars().count() + value.chars().count()).sum();
        if characters > EXEMPLAR_LIMIT {
            return Ok(());
        }
        let exemplar = Exemplar {
            labels: exemplar.labels.labels(),
            value: exemplar.value,
            timestamp: exemplar.timestamp,
        };
        if self.exemplars.get(series) == Some(&exemplar) {
            return Ok(());
        }
        self.exemplars.insert(series.clone(), exemplar.clone());
        self.columns.exemplars.push(ExemplarSample {
            series: series.clone(),
            exemplar: Exemplar { timestamp: exemplar.timestamp.or(Some(self.timestamp)), ..exemplar },
        });
        Ok(())
    }

    fn metadata(&mut self, family: &str, metadata: MetadataEvent<'_>) -> Result<(), PageError> {
        if self.rules.metadata || self.rules.type_and_unit_labels {
            let hasher = &mut self.hasher;
            hasher.write(family.as_bytes());
            match metadata {
                MetadataEvent::Kind(kind) => hasher.write_u8(kind as u8),
                MetadataEvent::Help(text) | MetadataEvent::Unit(text) => {
                    hasher.write_u8(0xff);
                    hasher.write(text.as_bytes());
                }
            }
        }
        Ok(())
    }
}

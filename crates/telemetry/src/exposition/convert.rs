//! Classic histograms of the text formats as native ones: a sink in front of another that gathers the buckets, count and sum of a
//! histogram and passes on one histogram with custom bounds instead (or as well).

use crate::batch::MetricKind;
use crate::histogram::ClassicHistogram;
use crate::labels::{LabelsBuilder, METRIC_NAME};

use super::number::parse_float;
use super::protobuf::SEPARATOR;
use super::{
    ExemplarEvent, ExpositionSink, HistogramEvent, MetadataEvent, RawForm, RawSeries, SampleEvent, SeriesText,
};

pub(super) struct Converter<'s, S> {
    inner: &'s mut S,
    keep_classic: bool,
    /// The family that was last said to be of a kind.
    family: String,
    labels: LabelsBuilder,
    /// Name and labels of the histogram that is being gathered.
    key: Vec<u8>,
    next_key: Vec<u8>,
    gathering: bool,
    /// Whether the last sample belongs to what is being gathered.
    gathered_last: bool,
    histogram: ClassicHistogram,
    timestamp: Option<i64>,
    created: Option<i64>,
    exemplars: Vec<(LabelsBuilder, f64, Option<i64>)>,
}

/// Which part of a histogram a sample is.
enum Role {
    Bucket(f64),
    Count,
    Sum,
}

impl<'s, S: ExpositionSink> Converter<'s, S> {
    pub(super) fn new(inner: &'s mut S, keep_classic: bool) -> Self {
        Self {
            inner,
            keep_classic,
            family: String::new(),
            labels: LabelsBuilder::new(),
            key: Vec::new(),
            next_key: Vec::new(),
            gathering: false,
            gathered_last: false,
            histogram: ClassicHistogram::default(),
            timestamp: None,
            created: None,
            exemplars: Vec::new(),
        }
    }

    /// Passes on what is still being gathered.
    pub(super) fn finish(&mut self) -> Result<(), S::Error> {
        if !std::mem::take(&mut self.gathering) {
            return Ok(());
        }
        let histogram = self.histogram.convert();
        self.histogram.clear();
        let exemplars = std::mem::take(&mut self.exemplars);
        // As in Prometheus, samples that contradict each other make no histogram and no error.
        let Some(histogram) = histogram.ok().filter(|histogram| histogram.validate().is_ok()) else {
            return Ok(());
        };
        let series = SeriesText::Raw(RawSeries {
            text: &self.key,
            form: RawForm::Separated,
            kind: MetricKind::Histogram,
            unit: "",
        });
        let (timestamp, created) = (self.timestamp, self.created);
        self.inner.histogram(HistogramEvent { series, histogram, timestamp, created })?;
        for (labels, value, timestamp) in &exemplars {
            self.inner.exemplar(ExemplarEvent { labels, value: *value, timestamp: *timestamp })?;
        }
        Ok(())
    }

    /// Which part of a histogram of the current family the series in the builder is.
    fn role(&self) -> Option<Role> {
        let suffix = self.labels.get(METRIC_NAME)?.strip_prefix(self.family.as_str())?;
        match suffix {
            "_bucket" => {
                let bound = parse_float(self.labels.get("le")?.as_bytes()).ok()?;
                (!bound.is_nan()).then_some(Role::Bucket(bound))
            }
            "_count" => Some(Role::Count),
            "_sum" => Some(Role::Sum),
            _ => None,
        }
    }
}

impl<S: ExpositionSink> ExpositionSink for Converter<'_, S> {
    type Error = S::Error;

    fn series(&mut self, sample: SampleEvent<'_>) -> Result<(), Self::Error> {
        self.gathered_last = false;
        let role = match sample.series {
            SeriesText::Raw(raw)
                if raw.kind == MetricKind::Histogram && raw.labels(&mut self.labels).is_ok() =>
            {
                self.role()
            }
            _ => None,
        };
        let Some(role) = role else {
            self.finish()?;
            return self.inner.series(sample);
        };
        self.labels.del("le");
        self.next_key.clear();
        self.next_key.extend_from_slice(self.family.as_bytes());
        for (name, value) in self.labels.iter().filter(|(name, _)| *name != METRIC_NAME) {
            for text in [name, value] {
                self.next_key.push(SEPARATOR);
                self.next_key.extend_from_slice(text.as_bytes());
            }
        }
        if self.gathering && self.key != self.next_key {
            self.finish()?;
        }
        if !self.gathering {
            self.gathering = true;
            std::mem::swap(&mut self.key, &mut self.next_key);
            self.created = sample.created;
        }
        self.gathered_last = true;
        self.timestamp = sample.timestamp;
        match role {
            Role::Bucket(bound) => self.histogram.set_bucket(bound, sample.value),
            Role::Count => self.histogram.set_count(sample.value),
            Role::Sum => self.histogram.set_sum(sample.value),
        }
        if self.keep_classic { self.inner.series(sample) } else { Ok(()) }
    }

    fn histogram(&mut self, sample: HistogramEvent<'_>) -> Result<(), Self::Error> {
        self.finish()?;
        self.inner.histogram(sample)
    }

    fn exemplar(&mut self, exemplar: ExemplarEvent<'_>) -> Result<(), Self::Error> {
        if self.gathered_last {
            self.exemplars.push((exemplar.labels.clone(), exemplar.value, exemplar.timestamp));
            return Ok(());
        }
        self.inner.exemplar(exemplar)
    }

    fn metadata(&mut self, family: &str, metadata: MetadataEvent<'_>) -> Result<(), Self::Error> {
        self.finish()?;
        if matches!(metadata, MetadataEvent::Kind(_)) {
            family.clone_into(&mut self.family);
        }
        self.inner.metadata(family, metadata)
    }
}

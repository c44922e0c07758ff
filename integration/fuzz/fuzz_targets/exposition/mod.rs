//! What the targets of the three exposition formats share: no panic, and what is read of a page does not depend on what
//! was remembered of it.

use std::convert::Infallible;

use invar_telemetry::exposition::{
    CacheScrape, ExpositionFormat, ExpositionSink, HistogramEvent, Lookup, ParseOptions, SampleEvent,
    ScrapeCache, SeriesText, parse,
};
use invar_telemetry::{Labels, LabelsBuilder, Series};

struct Scrape<'c> {
    cache: CacheScrape<'c>,
    labels: LabelsBuilder,
    samples: Vec<(Option<Labels>, u64, Option<i64>)>,
}

impl ExpositionSink for Scrape<'_> {
    type Error = Infallible;

    fn expect(&mut self, input: &[u8]) -> Option<usize> {
        self.cache.expect(input)
    }

    fn series(&mut self, sample: SampleEvent<'_>) -> Result<(), Infallible> {
        match sample.series {
            SeriesText::Expected => {
                self.cache.accept();
            }
            SeriesText::Raw(raw) => {
                if self.cache.find(raw.text, false) == Lookup::Unknown {
                    let series = raw.labels(&mut self.labels).is_ok().then(|| self.labels.series());
                    self.cache.insert(raw.text, false, series);
                }
            }
        }
        let labels = self.cache.last_series().map(Series::to_labels);
        self.samples.push((labels, sample.value.to_bits(), sample.timestamp));
        Ok(())
    }

    fn histogram(&mut self, sample: HistogramEvent<'_>) -> Result<(), Infallible> {
        // Whatever the page says, checking it must be safe.
        let _ = sample.histogram.validate();
        Ok(())
    }
}

pub fn check(format: ExpositionFormat, page: &[u8]) {
    for rich in [false, true] {
        let options = ParseOptions {
            line_limit: 1 << 16,
            native_histograms: rich,
            classic_histograms: rich,
            convert_classic_histograms: rich,
            created_timestamps: rich,
        };
        let mut cache = ScrapeCache::new();
        let mut before = None;
        for _ in 0..2 {
            let mut scrape =
                Scrape { cache: cache.begin(), labels: LabelsBuilder::new(), samples: Vec::new() };
            let result = parse(format, page, &options, &mut scrape);
            let Scrape { cache, samples, .. } = scrape;
            let _ = cache.finish();
            let now = (result, samples);
            if let Some(before) = before.replace(now.clone()) {
                assert_eq!(before, now);
            }
        }
    }
}

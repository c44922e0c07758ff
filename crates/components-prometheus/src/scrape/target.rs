//! From the targets of the arguments to what is scraped: URL, final labels, interval and timeout of each, duplicates collapsed.

use std::sync::Arc;
use std::time::Duration;

use foldhash::HashMap;
use invar_blocks::Target;
use invar_telemetry::{Labels, LabelsBuilder};
use url::Url;
use xxhash_rust::xxh64::Xxh64;

use super::arguments::ScrapeArguments;

/// One thing to scrape.
#[derive(Debug, PartialEq)]
pub(super) struct ScrapeTarget {
    /// Identifies the target by its labels and URL, the same in every process: where in the interval it is scraped depends on it.
    pub(super) key: u64,
    /// The labels its series get.
    pub(super) labels: Labels,
    /// Its page.
    pub(super) url: Url,
    /// How often it is scraped.
    pub(super) interval: Duration,
    /// How long a scrape may take.
    pub(super) timeout: Duration,
}

/// The targets of the arguments, resolved.
#[derive(Debug, Default)]
pub(super) struct ResolvedTargets {
    /// In the order of the arguments, without duplicates.
    pub(super) targets: Vec<Arc<ScrapeTarget>>,
    /// What cannot be scraped, and why.
    pub(super) problems: Vec<String>,
    /// The sources of `targets`, so that an unchanged target is not resolved again.
    known: HashMap<Target, Arc<ScrapeTarget>>,
}

// === impl ScrapeTarget ===

impl ScrapeTarget {
    /// The job of the target: the group it is counted in.
    pub(super) fn job(&self) -> &str {
        self.labels.get("job").unwrap_or_default()
    }

    fn resolve(
        target: &Target,
        arguments: &ScrapeArguments,
        job: &str,
        labels: &mut LabelsBuilder,
    ) -> Result<Self, String> {
        labels.clear();
        for (name, value) in target.iter() {
            labels.set(name, value);
        }
        if labels.get("job").is_none() {
            labels.set("job", job);
        }
        let address = target.get("__address__").filter(|address| !address.is_empty()).ok_or("no address")?;
        if address.contains('/') {
            return Err(format!("{address:?} is not a valid hostname"));
        }
        if labels.get("instance").is_none() {
            labels.set("instance", address);
        }
        let own = |name: &str| target.get(name).filter(|value| !value.is_empty());
        let duration = |name: &str, default: Duration| match own(name) {
            None => Ok(default),
            Some(text) => match parse_duration(text) {
                Some(duration) if !duration.is_zero() => Ok(duration),
                _ => Err(format!("{name} {text:?} is not a duration greater than 0")),
            },
        };
        let interval = duration("__scrape_interval__", arguments.scrape_interval)?;
        let timeout = duration("__scrape_timeout__", arguments.scrape_timeout)?;
        if timeout > interval {
            return Err(format!("scrape timeout {timeout:?} is greater than scrape interval {interval:?}"));
        }
        let url = url_of(
            own("__scheme__").unwrap_or(&arguments.scheme),
            address,
            own("__metrics_path__").unwrap_or(&arguments.metrics_path),
            target,
            arguments,
        )?;
        labels.retain(|name, _| !name.starts_with("__"));
        let labels = labels.labels();
        let mut hasher = Xxh64::new(labels.stable_hash());
        hasher.update(url.as_str().as_bytes());
        Ok(Self { key: hasher.digest(), labels, url, interval, timeout })
    }
}

fn url_of(
    scheme: &str,
    address: &str,
    path: &str,
    target: &Target,
    arguments: &ScrapeArguments,
) -> Result<Url, String> {
    if !matches!(scheme, "http" | "https") {
        return Err(format!("scheme {scheme:?} is neither http nor https"));
    }
    let mut url = Url::parse(&format!("{scheme}://{address}/"))
        .map_err(|error| format!("address {address:?}: {error}"))?;
    if !url.username().is_empty()
        || url.password().is_some()
        || url.query().is_some()
        || url.fragment().is_some()
    {
        return Err(format!("{address:?} is not a valid hostname"));
    }
    url.set_path(path);
    let mut parameters: Vec<(&str, &str)> = Vec::new();
    for (name, values) in &arguments.params {
        let own = target.get(&format!("__param_{name}")).filter(|value| !value.is_empty());
        let first = own.or(values.first().map(String::as_str));
        parameters.extend(first.map(|value| (name.as_str(), value)));
        parameters.extend(values.iter().skip(1).map(|value| (name.as_str(), value.as_str())));
    }
    for (name, value) in target.iter() {
        if let Some(name) = name.strip_prefix("__param_")
            && !name.is_empty()
            && !value.is_empty()
            && !arguments.params.contains_key(name)
        {
            parameters.push((name, value));
        }
    }
    if !parameters.is_empty() {
        // Stable: the values of one parameter keep their order.
        parameters.sort_by_key(|(name, _)| *name);
        url.query_pairs_mut().extend_pairs(parameters);
    }
    Ok(url)
}

// === impl ResolvedTargets ===

impl ResolvedTargets {
    /// Resolves the targets of the arguments. `previous` was resolved with arguments that differ in the list of targets at most.
    pub(super) fn new(arguments: &ScrapeArguments, job: &str, previous: Option<&Self>) -> Self {
        let mut resolved = Self::default();
        let mut keys = foldhash::HashSet::default();
        let mut labels = LabelsBuilder::new();
        for target in &arguments.targets {
            if resolved.known.contains_key(target) {
                continue;
            }
            let known = previous.and_then(|previous| previous.known.get(target)).cloned();
            let result = match known {
                Some(known) => Ok(known),
                None => ScrapeTarget::resolve(target, arguments, job, &mut labels).map(Arc::new),
            };
            match result {
                Ok(scraped) => {
                    resolved.known.insert(target.clone(), Arc::clone(&scraped));
                    if keys.insert(scraped.key) {
                        resolved.targets.push(scraped);
                    }
                }
                Err(message) => {
                    let name = target.get("__address__").unwrap_or("a target without __address__");
                    resolved.problems.push(format!("{name}: {message}"));
                }
            }
        }
        resolved
    }
}

/// Reads a duration as Prometheus writes it: `1h30m`, `15s`, `100ms`; units in descending order, each once.
fn parse_duration(text: &str) -> Option<Duration> {
    const UNITS: [(&str, u64); 7] = [
        ("y", 365 * 86_400_000),
        ("w", 7 * 86_400_000),
        ("d", 86_400_000),
        ("h", 3_600_000),
        ("m", 60_000),
        ("s", 1_000),
        ("ms", 1),
    ];
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut rest = text;
    let mut next = 0;
    let mut total: u64 = 0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let number: u64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let letters = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
        let at = UNITS.iter().position(|(unit, _)| *unit == &rest[..letters])?;
        if at < next {
            return None;
        }
        next = at + 1;
        total = total.checked_add(number.checked_mul(UNITS[at].1)?)?;
        rest = &rest[letters..];
    }
    (!text.is_empty()).then(|| Duration::from_millis(total))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use invar_syntax::arguments::Arguments;

    use super::*;

    fn resolve(targets: &[&[(&str, &str)]], change: impl FnOnce(&mut ScrapeArguments)) -> ResolvedTargets {
        let mut arguments = ScrapeArguments::defaults();
        arguments.targets = targets.iter().map(|labels| labels.iter().copied().collect()).collect();
        change(&mut arguments);
        ResolvedTargets::new(&arguments, "the.job", None)
    }

    fn only(labels: &[(&str, &str)]) -> Arc<ScrapeTarget> {
        let mut resolved = resolve(&[labels], |_| {});
        assert_eq!((resolved.targets.len(), resolved.problems.len()), (1, 0), "{:?}", resolved.problems);
        resolved.targets.remove(0)
    }

    #[test]
    fn labels_of_a_target_decide_how_it_is_scraped_and_then_vanish() {
        let target = only(&[
            ("__address__", "a:1"),
            ("__scheme__", "https"),
            ("__metrics_path__", "/x/y"),
            ("__param_module", "b c"),
            ("__scrape_interval__", "1m30s"),
            ("__scrape_timeout__", "500ms"),
            ("__meta_zone", "z"),
            ("env", "prod"),
        ]);
        assert_eq!(target.url.as_str(), "https://a:1/x/y?module=b+c");
        assert_eq!((target.interval, target.timeout), (Duration::from_secs(90), Duration::from_millis(500)));
        assert_eq!(
            target.labels,
            [("env", "prod"), ("instance", "a:1"), ("job", "the.job")].into_iter().collect()
        );
    }

    #[test]
    fn the_arguments_are_the_default_and_the_target_wins() {
        let params = |arguments: &mut ScrapeArguments| {
            arguments.params.insert("m".to_owned(), vec!["1".to_owned(), "2".to_owned()]);
            arguments.params.insert("z".to_owned(), vec!["9".to_owned()]);
        };
        let labels: &[(&str, &str)] =
            &[("__address__", "a"), ("__param_m", "own"), ("job", "j"), ("instance", "i")];
        let resolved = resolve(&[labels], params);
        assert_eq!(resolved.targets[0].url.as_str(), "http://a/metrics?m=own&m=2&z=9");
        assert_eq!(resolved.targets[0].labels, [("instance", "i"), ("job", "j")].into_iter().collect());
    }

    #[test]
    fn equal_targets_are_scraped_once() {
        let a: &[(&str, &str)] = &[("__address__", "a"), ("__meta_x", "1")];
        let b: &[(&str, &str)] = &[("__address__", "a"), ("__meta_x", "2")];
        let c: &[(&str, &str)] = &[("__address__", "a"), ("__metrics_path__", "/other")];
        assert_eq!(resolve(&[a, b, a, c], |_| {}).targets.len(), 2);
    }

    #[test]
    fn what_cannot_be_scraped_is_named() {
        for (labels, part) in [
            (&[("job", "x")][..], "no address"),
            (&[("__address__", "a/b")], "not a valid hostname"),
            (&[("__address__", "user@host")], "not a valid hostname"),
            (&[("__address__", "a"), ("__scheme__", "ftp")], "neither http nor https"),
            (&[("__address__", "a"), ("__scrape_interval__", "soon")], "not a duration"),
            (&[("__address__", "a"), ("__scrape_timeout__", "2m")], "greater than scrape interval"),
        ] {
            let resolved = resolve(&[labels], |_| {});
            assert!(resolved.targets.is_empty());
            assert!(resolved.problems[0].contains(part), "{:?}", resolved.problems);
        }
    }

    #[test]
    fn an_unchanged_target_is_the_same_object() {
        let mut arguments = ScrapeArguments::defaults();
        arguments.targets = vec![[("__address__", "a")].into_iter().collect()];
        let first = ResolvedTargets::new(&arguments, "j", None);
        arguments.targets.push([("__address__", "b")].into_iter().collect());
        let second = ResolvedTargets::new(&arguments, "j", Some(&first));
        assert!(Arc::ptr_eq(&first.targets[0], &second.targets[0]));
    }

    #[test]
    fn durations_are_prometheus_own() {
        for (text, milliseconds) in
            [("15s", 15_000), ("1h30m", 5_400_000), ("100ms", 100), ("1d", 86_400_000), ("0", 0)]
        {
            assert_eq!(parse_duration(text), Some(Duration::from_millis(milliseconds)), "{text}");
        }
        for text in ["", "1", "s", "1s1m", "1s1s", "1.5s", "-1s", "99999999999999999y", "1 s", "ä"] {
            assert_eq!(parse_duration(text), None, "{text}");
        }
    }
}

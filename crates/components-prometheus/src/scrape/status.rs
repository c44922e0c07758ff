//! How the last scrape of each target went, for people.

use std::sync::Arc;
use std::time::Duration;

use invar_engine::Health;
use invar_syntax::value::Value;
use jiff::Timestamp;
use parking_lot::Mutex;

use super::target::ScrapeTarget;

/// The state of one target.
#[derive(Debug)]
pub(super) struct TargetStatus {
    pub(super) target: Arc<ScrapeTarget>,
    last: Option<LastScrape>,
}

#[derive(Debug)]
struct LastScrape {
    /// Unix milliseconds.
    at: i64,
    duration: Duration,
    error: Option<String>,
}

/// One target's place on the board.
pub(super) type StatusCell = Arc<Mutex<TargetStatus>>;

/// The states of all targets, and what makes the list incomplete.
#[derive(Debug, Default)]
pub(super) struct StatusBoard {
    pub(super) cells: Vec<StatusCell>,
    pub(super) problems: Vec<String>,
}

// === impl TargetStatus ===

impl TargetStatus {
    pub(super) fn new(target: Arc<ScrapeTarget>) -> StatusCell {
        Arc::new(Mutex::new(Self { target, last: None }))
    }

    /// Notes a scrape; answers whether the target went up or down with it.
    pub(super) fn note(&mut self, at: i64, duration: Duration, error: Option<String>) -> bool {
        let turned = match &self.last {
            None => true,
            Some(last) => last.error.is_some() != error.is_some(),
        };
        self.last = Some(LastScrape { at, duration, error });
        turned
    }

    fn to_value(&self) -> Value {
        let labels = self.target.labels.iter().map(|(name, value)| (name, Value::string(value)));
        let mut fields = vec![
            ("job", Value::string(self.target.job())),
            ("url", Value::string(self.target.url.as_str())),
            ("health", Value::string(self.health())),
            ("labels", Value::object(labels)),
        ];
        if let Some(last) = &self.last {
            if let Some(error) = &last.error {
                fields.push(("last_error", Value::string(error.as_str())));
            }
            if let Ok(at) = Timestamp::from_millisecond(last.at) {
                fields.push(("last_scrape", Value::string(at.to_string())));
            }
            fields.push(("last_scrape_duration", Value::string(format!("{:?}", last.duration))));
        }
        Value::object(fields)
    }

    fn health(&self) -> &'static str {
        match &self.last {
            None => "unknown",
            Some(last) if last.error.is_none() => "up",
            Some(_) => "down",
        }
    }
}

// === impl StatusBoard ===

impl StatusBoard {
    pub(super) fn to_value(&self) -> Value {
        Value::object([("target", Value::array(self.cells.iter().map(|cell| cell.lock().to_value())))])
    }

    /// A component is healthy while it scrapes; that a target is down is what it is there to find out.
    pub(super) fn health(&self) -> Health {
        if let [first, rest @ ..] = &*self.problems {
            let more = if rest.is_empty() { String::new() } else { format!(" (and {} more)", rest.len()) };
            return Health::unhealthy(format!("targets that cannot be scraped: {first}{more}"));
        }
        let mut down = 0;
        let mut example = None;
        for cell in &self.cells {
            let status = cell.lock();
            if let Some(error) = status.last.as_ref().and_then(|last| last.error.as_deref()) {
                down += 1;
                example.get_or_insert_with(|| format!("{}: {error}", status.target.url));
            }
        }
        let mut message = format!("{} targets", self.cells.len());
        if let Some(example) = example {
            message.push_str(&format!(", {down} down, such as {example}"));
        }
        Health::healthy(message)
    }
}

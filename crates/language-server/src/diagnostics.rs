//! Findings of the static check, beside the loop that answers questions: one thread, which waits until typing pauses, checks
//! the newest version of what has changed, and publishes unless something newer has arrived meanwhile.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use invar_syntax::{Diagnostic, Diagnostics, Severity};
use lsp_types::{
    DiagnosticRelatedInformation, DiagnosticSeverity, Location, NumberOrString, PublishDiagnosticsParams,
    Range, Url,
};
use parking_lot::{Condvar, Mutex};

use crate::position::{Encoding, LineIndex};
use crate::workspace::paths_in;

/// What the check is given.
#[derive(Clone, Debug, Default)]
pub struct CheckInput {
    /// The folders that the configuration is composed of, in order; none for a text by itself.
    pub layers: Vec<PathBuf>,
    /// Names and contents of the pipeline's files, in order: paths, or addresses of texts that are in no file.
    pub files: Vec<(String, Vec<u8>)>,
}

/// The check that `invar validate` makes.
pub type Check = dyn Fn(CheckInput) -> Diagnostics + Send + Sync;

/// What the published findings are sent with.
pub(crate) type Publish = dyn Fn(PublishDiagnosticsParams) + Send;

/// Findings by file.
type Findings = BTreeMap<Url, Vec<lsp_types::Diagnostic>>;

/// How long typing has to pause, and how long a check is put off at most.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    pub(crate) quiet: Duration,
    pub(crate) longest: Duration,
}

/// A configuration to check.
#[derive(Clone, Debug)]
pub(crate) struct Job {
    /// The folder that relative names begin in.
    pub(crate) folder: Option<PathBuf>,
    /// The folders whose files belong to it, read when the job runs; none if each file is a configuration of its own.
    pub(crate) layers: Vec<PathBuf>,
    /// What the editor has: text and version.
    pub(crate) open: BTreeMap<Url, (Arc<str>, i32)>,
}

/// The thread and what it is to do.
pub(crate) struct Checker {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    wake: Condvar,
}

/// One job per configuration: a newer one replaces it, so that the list is as long as there are open folders.
#[derive(Default)]
struct State {
    jobs: HashMap<String, Waiting>,
    /// Counts replacements, so that a check that was overtaken is not published.
    newest: HashMap<String, u64>,
    stopped: bool,
}

struct Waiting {
    job: Job,
    since: Instant,
    touched: Instant,
    number: u64,
}

impl Checker {
    pub(crate) fn start(
        check: Arc<Check>,
        publish: Box<Publish>,
        pace: Pace,
        encoding: Encoding,
    ) -> std::io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let worker =
            Worker { shared: Arc::clone(&shared), check, publish, pace, encoding, published: HashMap::new() };
        let thread = std::thread::Builder::new().name("check".to_owned()).spawn(move || worker.run())?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Checks a configuration soon; replaces what was to be checked of it before.
    pub(crate) fn submit(&self, key: String, job: Job) {
        let now = Instant::now();
        let mut state = self.shared.state.lock();
        let number = state.newest.entry(key.clone()).or_default();
        *number += 1;
        let number = *number;
        let since = state.jobs.get(&key).map_or(now, |waiting| waiting.since);
        state.jobs.insert(key, Waiting { job, since, touched: now, number });
        drop(state);
        self.shared.wake.notify_one();
    }
}

impl Drop for Checker {
    fn drop(&mut self) {
        self.shared.state.lock().stopped = true;
        self.shared.wake.notify_one();
        if let Some(thread) = self.thread.take() {
            // A panic was reported where it was caught.
            drop(thread.join());
        }
    }
}

struct Worker {
    shared: Arc<Shared>,
    check: Arc<Check>,
    publish: Box<Publish>,
    pace: Pace,
    encoding: Encoding,
    /// What was found last in each configuration.
    published: HashMap<String, Findings>,
}

impl Worker {
    fn run(mut self) {
        while let Some((key, waiting)) = self.next() {
            let findings = self.findings(&waiting.job);
            // What was typed meanwhile is checked next; findings of an older text would only flicker.
            let overtaken = self.shared.state.lock().newest.get(&key) != Some(&waiting.number);
            if !overtaken {
                self.show(key, &waiting.job, findings);
            }
        }
    }

    /// Waits for a job whose time has come; none when there is nothing left to do.
    fn next(&self) -> Option<(String, Waiting)> {
        let mut state = self.shared.state.lock();
        loop {
            if state.stopped {
                return None;
            }
            let due = |waiting: &Waiting| {
                (waiting.touched + self.pace.quiet).min(waiting.since + self.pace.longest)
            };
            let first = state.jobs.iter().min_by_key(|(_, waiting)| due(waiting));
            match first.map(|(key, waiting)| (key.clone(), due(waiting))) {
                None => self.shared.wake.wait(&mut state),
                Some((key, due)) if due <= Instant::now() => {
                    return state.jobs.remove(&key).map(|waiting| (key, waiting));
                }
                Some((_, due)) => {
                    self.shared.wake.wait_until(&mut state, due);
                }
            }
        }
    }

    fn findings(&self, job: &Job) -> Findings {
        let input = input(job);
        let mut findings = Findings::new();
        let checked = catch_unwind(AssertUnwindSafe(|| (self.check)(input)));
        let Ok(diagnostics) = checked else {
            tracing::error!("the check panicked; its findings are missing");
            return findings;
        };
        let mut lines = Lines::default();
        for diagnostic in diagnostics {
            let place = diagnostic.primary().and_then(|label| url_of(&label.source.name, job));
            let shown = shown(&diagnostic, job, &mut lines, self.encoding);
            match place {
                Some(url) => findings.entry(url).or_default().push(shown),
                // What lies in no file an editor can open is shown at the top of every one that is open.
                None => {
                    let message = diagnostic.to_string();
                    let shown = lsp_types::Diagnostic { range: Range::default(), message, ..shown };
                    for url in job.open.keys() {
                        findings.entry(url.clone()).or_default().push(shown.clone());
                    }
                }
            }
        }
        findings
    }

    fn show(&mut self, key: String, job: &Job, mut findings: Findings) {
        // Open files without findings are told so.
        for url in job.open.keys() {
            findings.entry(url.clone()).or_default();
        }
        let shown: Vec<Url> = findings.keys().cloned().collect();
        let before = self.published.insert(key.clone(), findings).unwrap_or_default();
        let concerned: BTreeSet<Url> = before.into_keys().chain(shown).collect();
        for url in concerned {
            // A file may be part of several configurations: what any of them finds is shown, once.
            let mut list: Vec<lsp_types::Diagnostic> = Vec::new();
            for found in self.published.values().filter_map(|findings| findings.get(&url)).flatten() {
                if !list.contains(found) {
                    list.push(found.clone());
                }
            }
            list.sort_by_key(|found| (found.range.start, found.range.end));
            let version = job.open.get(&url).map(|(_, version)| *version);
            (self.publish)(PublishDiagnosticsParams::new(url, list, version));
        }
        if job.open.is_empty() {
            self.published.remove(&key);
        }
    }
}

/// The files of a job, those on disk read now.
fn input(job: &Job) -> CheckInput {
    let mut files: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    for path in job.layers.iter().flat_map(|folder| paths_in(folder)) {
        if let Ok(content) = std::fs::read(&path) {
            files.insert(path.display().to_string(), content);
        }
    }
    for (url, (text, _)) in &job.open {
        files.insert(name_of(url), text.as_bytes().to_vec());
    }
    CheckInput { layers: job.layers.clone(), files: files.into_iter().collect() }
}

/// What a file is called in findings.
fn name_of(url: &Url) -> String {
    url.to_file_path().map_or_else(|()| url.to_string(), |path| path.display().to_string())
}

/// The file that a finding names: one of the job's, or a module that it imports.
fn url_of(name: &str, job: &Job) -> Option<Url> {
    let path = Path::new(name);
    let path = job
        .folder
        .as_ref()
        .filter(|_| path.is_relative())
        .map_or_else(|| path.to_path_buf(), |folder| folder.join(path));
    let on_disk = Url::from_file_path(&path).ok();
    // A text without a file is named by its address.
    let open = Url::parse(name).ok().filter(|url| job.open.contains_key(url));
    open.or_else(|| on_disk.filter(|url| job.open.contains_key(url) || path.is_file()))
}

/// The line indices of the texts that findings point into.
#[derive(Default)]
struct Lines(HashMap<Arc<str>, LineIndex>);

impl Lines {
    fn range(&mut self, label: &invar_syntax::Label, encoding: Encoding) -> Range {
        let text = &label.source.text;
        let index = self.0.entry(Arc::clone(&label.source.name)).or_insert_with(|| LineIndex::new(text));
        index.range(text, label.span, encoding)
    }
}

fn shown(diagnostic: &Diagnostic, job: &Job, lines: &mut Lines, encoding: Encoding) -> lsp_types::Diagnostic {
    let mut message = diagnostic.message.clone();
    if let Some(label) = diagnostic.primary().filter(|label| !label.text.is_empty()) {
        message.push_str(&format!(": {}", label.text));
    }
    if let Some(help) = &diagnostic.help {
        message.push_str(&format!("\nhelp: {help}"));
    }
    let related: Vec<DiagnosticRelatedInformation> = diagnostic
        .labels
        .iter()
        .skip(1)
        .filter_map(|label| {
            let location = Location::new(url_of(&label.source.name, job)?, lines.range(label, encoding));
            Some(DiagnosticRelatedInformation { location, message: label.text.clone() })
        })
        .collect();
    lsp_types::Diagnostic {
        range: diagnostic.primary().map(|label| lines.range(label, encoding)).unwrap_or_default(),
        severity: Some(match diagnostic.severity {
            Severity::Error => DiagnosticSeverity::ERROR,
            Severity::Warning => DiagnosticSeverity::WARNING,
        }),
        code: Some(NumberOrString::String(diagnostic.code.to_owned())),
        source: Some("invar".to_owned()),
        message,
        related_information: Some(related).filter(|related| !related.is_empty()),
        ..lsp_types::Diagnostic::default()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::mpsc::sync_channel;

    use invar_syntax::{Source, Span};

    use super::*;

    const AT_ONCE: Pace = Pace { quiet: Duration::ZERO, longest: Duration::ZERO };

    fn job(version: i32, text: &str) -> Job {
        let url = Url::parse("untitled:a").unwrap();
        Job { folder: None, layers: Vec::new(), open: BTreeMap::from([(url, (text.into(), version))]) }
    }

    /// Finds fault with the first character of every file.
    fn fault(input: CheckInput) -> Diagnostics {
        let faults =
            input.files.into_iter().filter(|(_, content)| !content.is_empty()).map(|(name, content)| {
                let source = Arc::new(Source::new(name, String::from_utf8(content).unwrap()));
                Diagnostic::error("E1", "wrong")
                    .with_label(&source, Span::new(0, 1), "this")
                    .with_help("right it")
            });
        faults.collect()
    }

    #[test]
    fn a_text_that_was_overtaken_is_not_published() {
        let (started, is_started) = sync_channel(1);
        let (go, may_go) = sync_channel::<()>(1);
        let may_go = Mutex::new(may_go);
        let check = move |input| {
            started.send(()).unwrap();
            may_go.lock().recv().unwrap();
            fault(input)
        };
        let (publish, published) = sync_channel(8);
        let publish = Box::new(move |parameters: PublishDiagnosticsParams| publish.send(parameters).unwrap());
        let checker = Checker::start(Arc::new(check), publish, AT_ONCE, Encoding::Utf16).unwrap();
        checker.submit("a".to_owned(), job(1, "x"));
        is_started.recv().unwrap();
        checker.submit("a".to_owned(), job(2, "y"));
        go.send(()).unwrap();
        is_started.recv().unwrap();
        go.send(()).unwrap();
        let first = published.recv().unwrap();
        assert_eq!(first.version, Some(2), "version 1 was overtaken while it was checked");
        assert_eq!(first.diagnostics[0].message, "wrong: this\nhelp: right it");
        // What is right again is shown as such.
        checker.submit("a".to_owned(), job(3, ""));
        is_started.recv().unwrap();
        go.send(()).unwrap();
        let second = published.recv().unwrap();
        assert_eq!((second.version, second.diagnostics.len()), (Some(3), 0));
    }

    #[test]
    fn a_check_that_panics_costs_its_findings_only() {
        let check = |input: CheckInput| {
            assert!(input.files[0].1 != b"bad", "a mistake in the check");
            fault(input)
        };
        let (publish, published) = sync_channel(8);
        let publish = Box::new(move |parameters: PublishDiagnosticsParams| publish.send(parameters).unwrap());
        let checker = Checker::start(Arc::new(check), publish, AT_ONCE, Encoding::Utf16).unwrap();
        checker.submit("a".to_owned(), job(1, "bad"));
        assert!(published.recv().unwrap().diagnostics.is_empty());
        checker.submit("a".to_owned(), job(2, "x"));
        assert_eq!(published.recv().unwrap().diagnostics.len(), 1);
    }
}

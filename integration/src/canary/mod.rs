//! The canary: every secret of a test is a marker that is found nowhere else, and whatever an agent says or keeps is searched
//! for it: its log, all that its API answers, what the commands print, its state on disk (also what is compressed there),
//! and its command line. A marker is looked for as it is and in the forms that a careless print or a cache would give it.
//!
//! [`Agent`](crate::Agent) does this by itself when it is dropped. A test only has to tell what its secrets are: words that
//! begin with `marker-` in an agent's settings and environment are taken as such, and [`secret`] takes any other text.

mod compressed;
mod forms;
mod outputs;
#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::sync::Arc;

use parking_lot::Mutex;

pub(crate) use forms::Forms;
pub use outputs::Outputs;

/// What the secrets of tests begin with.
const MARKER: &str = "marker-";
/// What is shown around one that was found.
const AROUND: usize = 200;

/// The secrets of one test: of those that were told on its thread.
#[derive(Clone, Debug, Default)]
pub struct Canary(Arc<Mutex<Secrets>>);

#[derive(Debug, Default)]
struct Secrets {
    all: BTreeSet<String>,
    /// Those that the text of the pipeline holds, and with it the state.
    written: BTreeSet<String>,
}

thread_local! {
    static OF_THREAD: RefCell<Canary> = RefCell::default();
}

/// Tells that a text is a secret of this test; gives it back.
pub fn secret<T: AsRef<str>>(text: T) -> T {
    Canary::of_thread().add(text.as_ref());
    text
}

/// The same of one that the text of the pipeline holds: with that it is in the state on disk, and nowhere else.
pub fn written<T: AsRef<str>>(text: T) -> T {
    Canary::of_thread().0.lock().written.insert(text.as_ref().to_owned());
    secret(text)
}

impl Canary {
    /// The secrets of the test that runs on this thread, also those that it tells later.
    #[must_use]
    pub fn of_thread() -> Self {
        OF_THREAD.with_borrow(Self::clone)
    }

    /// Adds a secret. One of several lines, as a key is, is looked for line by line.
    pub fn add(&self, text: &str) {
        let lines = text.lines().map(str::trim).filter(|line| !line.starts_with("-----"));
        let long = lines.filter(|line| line.len() >= forms::SHORTEST).map(str::to_owned);
        self.0.lock().all.extend(long);
    }

    /// Adds the words that are markers.
    pub fn add_markers_of(&self, text: &str) {
        for (at, _) in text.match_indices(MARKER) {
            let is_of_word = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'-' || *byte == b'_';
            let length = text.as_bytes()[at..].iter().take_while(|byte| is_of_word(byte)).count();
            self.add(&text[at..at + length]);
        }
    }

    /// Whether there is nothing to look for.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.lock().all.is_empty()
    }

    /// Looks for every secret in all that an agent says and keeps.
    ///
    /// # Errors
    /// Where one is, with what stands around it.
    pub fn search(&self, outputs: &Outputs<'_>) -> crate::Outcome {
        self.look(outputs, true)
    }

    /// As [`Self::search`], without the state on disk, for what is said again and again.
    ///
    /// # Errors
    /// As there.
    pub fn search_what_is_said(&self, outputs: &Outputs<'_>) -> crate::Outcome {
        self.look(outputs, false)
    }

    fn look(&self, outputs: &Outputs<'_>, with_state: bool) -> crate::Outcome {
        let (all, kept) = {
            let held = self.0.lock();
            let kept: Vec<String> = held.all.difference(&held.written).cloned().collect();
            (held.all.iter().cloned().collect::<Vec<_>>(), kept)
        };
        if all.is_empty() {
            return Ok(());
        }
        outputs.said(&mut looking_for(&all))?;
        if with_state { outputs.kept(&mut looking_for(&kept)) } else { Ok(()) }
    }
}

/// Looks for secrets in the content of a place.
fn looking_for(secrets: &[String]) -> impl FnMut(&str, &[u8]) -> crate::Outcome + use<> {
    let forms = Forms::of(secrets);
    move |place, content| match forms.find(content) {
        None => Ok(()),
        Some(at) => {
            let around = &content[at.saturating_sub(AROUND)..content.len().min(at + AROUND)];
            Err(format!("{place} shows a secret: …{}…", String::from_utf8_lossy(around)))
        }
    }
}

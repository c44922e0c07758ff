//! The panic note: a file that a panic leaves, so that the next start can tell a panic (the content
//! is the cause) from a kill (the world may be). A panic that was caught leaves one too; the
//! reconciler takes it away once the process has outlived it.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Name of the file in the state directory.
pub(super) const FILE: &str = "panic-note";

/// Handle on the note of this process.
#[derive(Clone, Debug)]
pub struct PanicNote {
    path: Option<Arc<PathBuf>>,
    left: Arc<AtomicBool>,
}

impl PanicNote {
    pub(super) fn new(root: Option<&Path>) -> Self {
        Self { path: root.map(|root| Arc::new(root.join(FILE))), left: Arc::default() }
    }

    /// Adds leaving the note to the process's panic hook. The binary calls it once, after its own hook is set.
    pub fn install(&self) {
        let note = self.clone();
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let place = info.location().map_or_else(|| "unknown place".to_owned(), ToString::to_string);
            let thread = std::thread::current().name().unwrap_or("unnamed").to_owned();
            note.leave(&format!("panic at {place} in thread {thread}"));
            before(info);
        }));
    }

    /// Writes the note. The message of the panic is left out: it may hold values.
    pub fn leave(&self, text: &str) {
        if let Some(path) = &self.path {
            self.left.store(true, Ordering::Release);
            // Nothing can be done about a failure while panicking.
            drop(fs::write(path.as_path(), text));
        }
    }

    /// Takes the note away: the process lives on.
    pub fn survived(&self) {
        if self.left.swap(false, Ordering::AcqRel)
            && let Some(path) = &self.path
        {
            drop(fs::remove_file(path.as_path()));
        }
    }
}

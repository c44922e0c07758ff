//! Every interleaving of the lease word, by model checking: the same source over loom's atomics.

#![allow(clippy::unwrap_used)]

use loom::sync::Arc;
use loom::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use loom::thread;

mod atomics {
    pub(super) use loom::sync::atomic::{AtomicU64, Ordering};
}

#[path = "word.rs"]
mod word;

use word::LeaseWord;

#[test]
fn exactly_one_caller_learns_that_a_closed_word_is_quiet() {
    loom::model(|| {
        let word = Arc::new(LeaseWord::new());
        let quiet = Arc::new(AtomicU64::new(0));
        let callers: Vec<_> = (0..2)
            .map(|_| {
                let (word, quiet) = (Arc::clone(&word), Arc::clone(&quiet));
                thread::spawn(move || {
                    if word.enter() && word.exit() {
                        quiet.fetch_add(1, Ordering::SeqCst);
                    }
                })
            })
            .collect();
        if word.close() {
            quiet.fetch_add(1, Ordering::SeqCst);
        }
        for caller in callers {
            caller.join().unwrap();
        }
        assert_eq!(word.count(), 0);
        assert_eq!(quiet.load(Ordering::SeqCst), 1);
        assert!(!word.enter(), "a closed word is never reopened");
    });
}

#[test]
fn nobody_is_inside_once_the_word_is_quiet() {
    loom::model(|| {
        let word = Arc::new(LeaseWord::new());
        let retired = Arc::new(AtomicBool::new(false));
        let caller = {
            let (word, retired) = (Arc::clone(&word), Arc::clone(&retired));
            thread::spawn(move || {
                if word.enter() {
                    assert!(!retired.load(Ordering::SeqCst), "retired under a lease");
                    if word.exit() {
                        retired.store(true, Ordering::SeqCst);
                    }
                }
            })
        };
        if word.close() {
            retired.store(true, Ordering::SeqCst);
        }
        caller.join().unwrap();
        assert!(retired.load(Ordering::SeqCst));
    });
}

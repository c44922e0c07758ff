//! The process-wide symbol table: every label name and value that a live [`Series`](crate::Series) uses, stored once.
//!
//! A [`Symbol`] is a 32-bit id. Ids are counted by the series that contain them, once when a series is created and once when its last
//! handle goes. A dropped series never waits for the table: what it cannot release at once it leaves on a list that the next creation
//! drains, so a series may be dropped anywhere, also while a [`SymbolReader`] is held. An id is reused only after its count reached zero.

use std::cell::Cell;
use std::marker::PhantomData;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};

use foldhash::fast::RandomState;
use hashbrown::HashTable;
use parking_lot::{Mutex, RwLock, RwLockReadGuard};
use std::hash::BuildHasher;

/// The id of an interned text. Only meaningful while a series that contains it is alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Symbol(u32);

/// Read access to the texts of symbols.
///
/// It holds the table's read lock: take one for a batch of work, not one per label, and do not keep it longer than that work. It cannot
/// be held across an `.await` of a task that may move between threads, and creating a series while the same thread holds one is a
/// programming error that panics (it could only deadlock).
pub struct SymbolReader {
    table: RwLockReadGuard<'static, Table>,
    // The nesting count is the thread's own.
    _thread: PhantomData<*const ()>,
}

/// How much the symbol table holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SymbolStats {
    /// Texts that are interned now, some of which may be about to be released.
    pub symbols: usize,
    /// Bytes of those texts.
    pub text_bytes: usize,
    /// Bytes that the table takes altogether, estimated from its capacities.
    pub table_bytes: usize,
}

/// A label of a series: the symbols of its name and of its value.
pub(crate) type SymbolPair = (Symbol, Symbol);

struct Entry {
    /// `None` while the id is free.
    text: Option<Box<str>>,
    /// Uses by live series.
    uses: AtomicU32,
}

#[derive(Default)]
struct Table {
    entries: Vec<Entry>,
    free: Vec<u32>,
    index: HashTable<u32>,
    text_bytes: usize,
    /// How often a freed id was given to another text.
    reuses: u64,
}

/// What drops left for the next creation. Its lock is a leaf: nothing else is locked while it is held.
#[derive(Default)]
struct Deferred {
    /// Symbols whose count reached zero; they may have been taken up again since.
    idle: Vec<Symbol>,
    /// Symbols of series that could not be released because the table was being written.
    unreleased: Vec<Symbol>,
}

static TABLE: LazyLock<RwLock<Table>> = LazyLock::new(RwLock::default);
static DEFERRED: Mutex<Deferred> = Mutex::new(Deferred { idle: Vec::new(), unreleased: Vec::new() });
static HASHER: LazyLock<RandomState> = LazyLock::new(RandomState::default);

/// A drop that finds more than this many idle symbols tries, without waiting, to clear them.
const IDLE_LIMIT: usize = 4096;

thread_local! {
    static READERS: Cell<u32> = const { Cell::new(0) };
}

/// Opens the symbol table for reading. Readers do not exclude each other and may nest.
#[must_use]
pub fn symbols() -> SymbolReader {
    READERS.with(|readers| readers.set(readers.get() + 1));
    // Recursive: a second reader of one thread must not queue behind a writer that waits for the first.
    SymbolReader { table: TABLE.read_recursive(), _thread: PhantomData }
}

/// How much the symbol table holds now.
#[must_use]
pub fn symbol_stats() -> SymbolStats {
    let table = TABLE.read_recursive();
    SymbolStats {
        symbols: table.entries.len() - table.free.len(),
        text_bytes: table.text_bytes,
        table_bytes: table.text_bytes
            + table.entries.capacity() * size_of::<Entry>()
            + table.free.capacity() * size_of::<u32>()
            + table.index.allocation_size(),
    }
}

/// Interns the labels of a new series and counts one use of each symbol.
pub(crate) fn acquire<'a>(labels: impl Iterator<Item = (&'a str, &'a str)> + Clone) -> Box<[SymbolPair]> {
    assert!(READERS.with(Cell::get) == 0, "a series was created while this thread reads the symbol table");
    // Most series are made of texts that are known already: then the read lock is enough.
    {
        let table = TABLE.read();
        let known: Option<Box<[SymbolPair]>> =
            labels.clone().map(|(name, value)| Some((table.find(name)?, table.find(value)?))).collect();
        if let Some(pairs) = known {
            for symbol in pairs.iter().flat_map(|&(name, value)| [name, value]) {
                table.entry(symbol).uses.fetch_add(1, Ordering::Relaxed);
            }
            return pairs;
        }
    }
    let mut table = TABLE.write();
    table.clear_deferred();
    labels.map(|(name, value)| (table.intern(name), table.intern(value))).collect()
}

/// Counts the symbols of a dropped series out. Never waits for the table.
pub(crate) fn release(labels: &[SymbolPair]) {
    let symbols = labels.iter().flat_map(|&(name, value)| [name, value]);
    let Some(table) = TABLE.try_read_recursive() else {
        DEFERRED.lock().unreleased.extend(symbols);
        return;
    };
    let mut idle = 0;
    for symbol in symbols {
        if table.entry(symbol).uses.fetch_sub(1, Ordering::Relaxed) == 1 {
            let mut deferred = DEFERRED.lock();
            deferred.idle.push(symbol);
            idle = deferred.idle.len();
        }
    }
    drop(table);
    if idle > IDLE_LIMIT
        && let Some(mut table) = TABLE.try_write()
    {
        table.clear_deferred();
    }
}

impl Table {
    fn entry(&self, symbol: Symbol) -> &Entry {
        &self.entries[symbol.0 as usize]
    }

    fn text(&self, id: u32) -> Option<&str> {
        self.entries[id as usize].text.as_deref()
    }

    fn find(&self, text: &str) -> Option<Symbol> {
        self.index.find(HASHER.hash_one(text), |&id| self.text(id) == Some(text)).map(|&id| Symbol(id))
    }

    fn intern(&mut self, text: &str) -> Symbol {
        if let Some(symbol) = self.find(text) {
            self.entry(symbol).uses.fetch_add(1, Ordering::Relaxed);
            return symbol;
        }
        let entry = Entry { text: Some(text.into()), uses: AtomicU32::new(1) };
        let id = match self.free.pop() {
            Some(id) => {
                self.reuses += 1;
                self.entries[id as usize] = entry;
                id
            }
            None => {
                let id = u32::try_from(self.entries.len())
                    .expect("fewer than 2^32 distinct label texts fit in memory");
                self.entries.push(entry);
                id
            }
        };
        self.text_bytes += text.len();
        let Self { entries, index, .. } = self;
        index.insert_unique(HASHER.hash_one(text), id, |&id| {
            HASHER.hash_one(entries[id as usize].text.as_deref().unwrap_or_default())
        });
        Symbol(id)
    }

    fn clear_deferred(&mut self) {
        let Deferred { idle, unreleased } = std::mem::take(&mut *DEFERRED.lock());
        for &symbol in &unreleased {
            self.entry(symbol).uses.fetch_sub(1, Ordering::Relaxed);
        }
        for symbol in idle.into_iter().chain(unreleased) {
            self.free_if_idle(symbol);
        }
        if self.free.len() > 1024 && self.index.len() * 4 < self.index.capacity() {
            let Self { entries, index, .. } = self;
            index.shrink_to_fit(|&id| {
                HASHER.hash_one(entries[id as usize].text.as_deref().unwrap_or_default())
            });
        }
    }

    fn free_if_idle(&mut self, Symbol(id): Symbol) {
        let entry = &mut self.entries[id as usize];
        if *entry.uses.get_mut() > 0 {
            return;
        }
        // Listed twice: already free.
        let Some(text) = entry.text.take() else { return };
        self.text_bytes -= text.len();
        if let Ok(slot) = self.index.find_entry(HASHER.hash_one(&*text), |&other| other == id) {
            slot.remove();
        }
        self.free.push(id);
    }
}

impl SymbolReader {
    /// The text of a symbol of a live series.
    #[must_use]
    pub fn get(&self, symbol: Symbol) -> &str {
        self.table.text(symbol.0).unwrap_or_default()
    }

    /// Changes whenever an id stands for another text than before. What is remembered by id is worth nothing then,
    /// unless the series it came from are held.
    #[must_use]
    pub(crate) fn reuses(&self) -> u64 {
        self.table.reuses
    }

    /// The symbol of a text that a live series uses, if there is one. It stays valid at least as long as this reader.
    #[must_use]
    pub fn find(&self, text: &str) -> Option<Symbol> {
        self.table.find(text)
    }
}

impl Drop for SymbolReader {
    fn drop(&mut self) {
        READERS.with(|readers| readers.set(readers.get() - 1));
    }
}

impl std::fmt::Debug for SymbolReader {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("SymbolReader").finish_non_exhaustive()
    }
}

impl Symbol {
    /// The bare id, for tables keyed by symbol (such as the symbol table of a remote-write request).
    #[must_use]
    pub fn id(self) -> u32 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Texts of their own, so that tests that run at the same time do not meet.
    fn labels(prefix: &str, value: usize) -> [(String, String); 2] {
        [
            (format!("{prefix}_name"), format!("{prefix}_{value}")),
            (format!("{prefix}_other"), "same".to_owned()),
        ]
    }

    fn make(prefix: &str, value: usize) -> Box<[SymbolPair]> {
        let labels = labels(prefix, value);
        acquire(labels.iter().map(|(name, value)| (name.as_str(), value.as_str())))
    }

    #[test]
    fn equal_texts_have_one_symbol_and_freed_ids_are_reused() {
        let one = make("reuse", 1);
        let two = make("reuse", 1);
        assert_eq!(one, two);
        release(&one);
        assert_eq!(symbols().get(two[0].1), "reuse_1");
        release(&two);
        // The next creation that needs the table clears what is idle.
        let three = make("reuse", 2);
        let reader = symbols();
        assert_eq!(reader.find("reuse_1"), None);
        assert_eq!(reader.get(three[0].1), "reuse_2");
        drop(reader);
        release(&three);
    }

    #[test]
    fn an_idle_symbol_can_be_taken_up_again() {
        let one = make("again", 1);
        release(&one);
        let two = make("again", 1);
        let other = make("again", 2);
        assert_eq!(symbols().get(two[0].1), "again_1");
        release(&two);
        release(&other);
    }

    #[test]
    fn dropping_under_a_reader_does_not_block() {
        let pairs = make("reader", 1);
        let reader = symbols();
        let nested = symbols();
        release(&pairs);
        assert_eq!(nested.get(pairs[0].1), "reader_1");
        drop((reader, nested));
    }

    #[test]
    #[should_panic(expected = "while this thread reads")]
    fn creating_under_a_reader_is_refused() {
        let _reader = symbols();
        make("refused", 1);
    }

    #[test]
    fn many_threads_agree() {
        std::thread::scope(|scope| {
            for thread in 0..4 {
                scope.spawn(move || {
                    for round in 0..2000 {
                        let value = (round * 7 + thread) % 13;
                        let pairs = make("threads", value);
                        let reader = symbols();
                        assert_eq!(reader.get(pairs[0].1), format!("threads_{value}"));
                        if round % 2 == 0 {
                            drop(reader);
                        }
                        release(&pairs);
                    }
                });
            }
        });
        let kept = make("threads", 99);
        assert!(symbol_stats().table_bytes >= symbol_stats().text_bytes);
        release(&kept);
    }

    #[test]
    fn a_long_churn_does_not_grow_the_table() {
        let before = symbol_stats().symbols;
        for value in 0..50_000 {
            release(&make("churn", value));
        }
        // Other tests add a few of their own.
        assert!(symbol_stats().symbols < before + 10_000, "{:?}", symbol_stats());
    }
}

//! The symbol table of one version 2 request: process-wide symbols and plain texts, renumbered densely in the order in
//! which the request first uses them.

use hashbrown::HashTable;
use std::hash::BuildHasher;

use crate::symbol::{Symbol, SymbolReader};

use super::wire::put_bytes_field;

/// A label text as the encoder meets it.
#[derive(Debug, Clone, Copy)]
pub(super) enum Text<'a> {
    /// Part of an interned series.
    Symbol(Symbol),
    /// From elsewhere: external labels.
    Plain(&'a str),
}

impl<'a> Text<'a> {
    pub(super) fn resolve(self, reader: &'a SymbolReader) -> &'a str {
        match self {
            Self::Symbol(symbol) => reader.get(symbol),
            Self::Plain(text) => text,
        }
    }
}

/// Maps texts to references. Entry 0 is the empty text, as the protocol demands.
#[derive(Debug)]
pub(super) struct RequestSymbols {
    /// By symbol id: request number and reference, so that clearing is one increment.
    known: Vec<(u32, u32)>,
    request: u32,
    /// The table's count of reused ids when `known` was last in use.
    reuses: u64,
    /// All texts of the request end to end, and where each ends.
    text: String,
    ends: Vec<usize>,
    index: HashTable<u32>,
    hasher: foldhash::fast::RandomState,
}

impl Default for RequestSymbols {
    fn default() -> Self {
        Self {
            known: Vec::new(),
            request: 1,
            reuses: 0,
            text: String::new(),
            ends: vec![0],
            index: HashTable::new(),
            hasher: foldhash::fast::RandomState::default(),
        }
    }
}

impl RequestSymbols {
    #[inline]
    pub(super) fn reference(&mut self, text: Text<'_>, reader: &SymbolReader) -> u32 {
        match text {
            Text::Plain(text) => self.text(text),
            Text::Symbol(symbol) => {
                if self.reuses != reader.reuses() {
                    // A request is filled in several goes; between two of them a series may die and its ids name
                    // other texts. What is remembered by id is forgotten; texts keep their references.
                    self.reuses = reader.reuses();
                    self.forget();
                }
                let slot = symbol.id() as usize;
                if let Some(&(request, reference)) = self.known.get(slot)
                    && request == self.request
                {
                    return reference;
                }
                let reference = self.text(reader.get(symbol));
                if slot >= self.known.len() {
                    self.known.resize((slot + 1).next_power_of_two(), (0, 0));
                }
                self.known[slot] = (self.request, reference);
                reference
            }
        }
    }

    pub(super) fn text(&mut self, text: &str) -> u32 {
        if text.is_empty() {
            return 0;
        }
        let hash = self.hasher.hash_one(text);
        let (stored, ends) = (&self.text, &self.ends);
        if let Some(&reference) = self.index.find(hash, |&reference| slice(stored, ends, reference) == text) {
            return reference;
        }
        let reference = self.ends.len() as u32;
        self.text.push_str(text);
        self.ends.push(self.text.len());
        let Self { text: stored, ends, hasher, .. } = self;
        self.index.insert_unique(hash, reference, |&other| hasher.hash_one(slice(stored, ends, other)));
        reference
    }

    /// Appends the table as field 4 of the request.
    pub(super) fn put(&self, out: &mut Vec<u8>) {
        for reference in 0..self.ends.len() as u32 {
            put_bytes_field(out, 4, slice(&self.text, &self.ends, reference).as_bytes());
        }
    }

    pub(super) fn clear(&mut self) {
        self.text.clear();
        self.ends.truncate(1);
        self.index.clear();
        self.forget();
    }

    fn forget(&mut self) {
        self.request = self.request.wrapping_add(1);
        if self.request == 0 {
            self.known.clear();
            self.request = 1;
        }
    }
}

fn slice<'a>(text: &'a str, ends: &[usize], reference: u32) -> &'a str {
    let at = reference as usize;
    let start = if at == 0 { 0 } else { ends[at - 1] };
    &text[start..ends[at]]
}

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::labels::Labels;

fn series(name: &str) -> Series {
    Series::new(&[("__name__", name)].iter().copied().collect::<Labels>())
}

/// Reads a page of texts; those that begin with `d` are dropped. Returns the texts of the kept ones as the scrape saw them.
fn scrape(cache: &mut ScrapeCache, page: &[&str]) -> (CacheUpdate, usize) {
    let mut missed = 0;
    let mut page_scrape = cache.begin();
    for text in page {
        // What follows the text on its line must not matter.
        let line = format!("{text} 1\n");
        let lookup = match page_scrape.expect(line.as_bytes()) {
            Some(length) if length == text.len() => page_scrape.accept(),
            _ => {
                missed += 1;
                page_scrape.find(text.as_bytes(), false)
            }
        };
        if lookup == Lookup::Unknown {
            let kept = (!text.starts_with('d')).then(|| series(text));
            page_scrape.insert(text.as_bytes(), false, kept);
        }
        let name =
            page_scrape.last_series().map(|series| series.to_labels().get("__name__").unwrap().to_owned());
        assert_eq!(name.as_deref(), (!text.starts_with('d')).then_some(*text));
    }
    (page_scrape.finish(), missed)
}

fn names(list: &[Series]) -> Vec<String> {
    list.iter().map(|series| series.to_labels().get("__name__").unwrap().to_owned()).collect()
}

fn vanished(update: &CacheUpdate) -> Vec<String> {
    let mut names: Vec<String> = names(&update.vanished.iter().map(|v| v.series.clone()).collect::<Vec<_>>());
    names.sort();
    names
}

#[test]
fn a_steady_page_yields_the_same_list_without_a_miss() {
    let mut cache = ScrapeCache::new();
    let (first, _) = scrape(&mut cache, &["a", "b", "d1", "c"]);
    assert_eq!((names(&first.list), first.added), (vec!["a".into(), "b".into(), "c".into()], 3));
    let (second, missed) = scrape(&mut cache, &["a", "b", "d1", "c"]);
    assert_eq!((missed, second.added), (0, 0));
    assert!(Arc::ptr_eq(&first.list, &second.list));
}

#[test]
fn inserted_and_removed_lines_cost_one_miss_each() {
    let mut cache = ScrapeCache::new();
    scrape(&mut cache, &["a", "b", "c", "e", "f"]);
    let (update, missed) = scrape(&mut cache, &["a", "x", "b", "e", "f"]);
    assert_eq!(missed, 2);
    assert_eq!(names(&update.list), ["a", "x", "b", "e", "f"]);
    assert_eq!(vanished(&update), ["c"]);
    assert_eq!(update.added, 1);
}

#[test]
fn dropped_series_come_and_go_without_a_new_list() {
    let mut cache = ScrapeCache::new();
    let (first, _) = scrape(&mut cache, &["a", "d1", "b"]);
    let (second, _) = scrape(&mut cache, &["a", "b", "d2"]);
    assert!(Arc::ptr_eq(&first.list, &second.list));
    assert_eq!(second.vanished, []);
}

#[test]
fn an_abandoned_page_changes_nothing() {
    let mut cache = ScrapeCache::new();
    let (first, _) = scrape(&mut cache, &["a", "b"]);
    let mut page = cache.begin();
    assert_eq!(page.find(b"z", false), Lookup::Unknown);
    page.insert(b"z", false, Some(series("z")));
    drop(page);
    let (second, missed) = scrape(&mut cache, &["a", "b"]);
    assert_eq!(missed, 0);
    assert!(Arc::ptr_eq(&first.list, &second.list));
}

#[test]
fn ends_are_told_once() {
    let mut cache = ScrapeCache::new();
    scrape(&mut cache, &["a", "b", "d1"]);
    assert_eq!(cache.end_all().len(), 2);
    assert_eq!(cache.end_all(), []);
    // Back again: `b` ended with the failed scrape and is not told to end again.
    let (update, _) = scrape(&mut cache, &["a"]);
    assert_eq!(update.vanished, []);
    let (update, _) = scrape(&mut cache, &[]);
    assert_eq!(vanished(&update), ["a"]);
}

#[test]
fn timestamps_are_remembered() {
    let mut cache = ScrapeCache::new();
    scrape(&mut cache, &["a", "b"]);
    let mut page = cache.begin();
    assert_eq!(page.find(b"a", false), Lookup::Kept);
    page.note_timestamp(true);
    assert_eq!(page.find(b"b", false), Lookup::Kept);
    page.note_timestamp(false);
    // The untimed series `a` ends where its samples begin to carry timestamps.
    let update = page.finish();
    assert_eq!(vanished(&update), ["a"]);
    assert!(!update.vanished[0].timestamped);
    let (update, _) = scrape(&mut cache, &["b"]);
    assert_eq!(vanished(&update), ["a"]);
    assert!(update.vanished[0].timestamped);
}

#[test]
fn a_repeated_text_ends_with_its_last_occurrence() {
    let mut cache = ScrapeCache::new();
    scrape(&mut cache, &["a", "a", "b"]);
    assert!(cache.has_duplicates());
    let (update, missed) = scrape(&mut cache, &["a", "a", "b"]);
    assert_eq!((missed, names(&update.list).len()), (0, 3));
    let (update, _) = scrape(&mut cache, &["a", "b"]);
    assert_eq!(update.vanished, []);
    assert!(!cache.has_duplicates());
    let (update, _) = scrape(&mut cache, &["b"]);
    assert_eq!(vanished(&update), ["a"]);
}

#[test]
fn histograms_have_a_list_of_their_own() {
    let mut cache = ScrapeCache::new();
    for _ in 0..2 {
        let mut page = cache.begin();
        for (text, histogram) in [("a", false), ("h", true), ("h", false)] {
            if page.find(text.as_bytes(), histogram) == Lookup::Unknown {
                page.insert(text.as_bytes(), histogram, Some(series(text)));
            }
        }
        assert_eq!(names(&page.finish().list), ["a", "h"]);
    }
    assert_eq!(cache.end_all().iter().filter(|vanished| vanished.histogram).count(), 1);
}

#[test]
fn memory_is_24_bytes_a_series() {
    let mut cache = ScrapeCache::new();
    let texts: Vec<String> = (0..1000).map(|at| format!("s{at}")).collect();
    let page: Vec<&str> = texts.iter().map(String::as_str).collect();
    scrape(&mut cache, &page);
    assert_eq!(cache.memory(), 24 * 1000);
}

proptest! {
    #[test]
    fn agrees_with_a_naive_model(
        pages in prop::collection::vec(prop::collection::vec(0_usize..14, 0..20), 1..8)
    ) {
        let texts = ["a", "b", "c", "da", "db", "e", "f", "g", "aa", "ab", "dab", "abc", "h", "i"];
        let mut cache = ScrapeCache::new();
        let mut before: BTreeMap<&str, ()> = BTreeMap::new();
        let mut list_before: Option<(Vec<String>, Arc<SeriesList>)> = None;
        for page in pages {
            let page: Vec<&str> = page.into_iter().map(|at| texts[at]).collect();
            let kept: Vec<&str> = page.iter().copied().filter(|text| !text.starts_with('d')).collect();
            let (update, _) = scrape(&mut cache, &page);
            prop_assert_eq!(names(&update.list), kept.clone());
            let now: BTreeMap<&str, ()> = kept.iter().map(|text| (*text, ())).collect();
            let gone: std::collections::BTreeSet<&str> =
                before.keys().copied().filter(|text| !now.contains_key(text)).collect();
            let told: std::collections::BTreeSet<String> = vanished(&update).into_iter().collect();
            prop_assert_eq!(told, gone.iter().map(|text| (*text).to_owned()).collect());
            let new = now.keys().filter(|text| !before.contains_key(*text)).count();
            prop_assert_eq!(update.added, new);
            let owned: Vec<String> = kept.iter().map(|text| (*text).to_owned()).collect();
            if let Some((names_before, list)) = &list_before && *names_before == owned {
                prop_assert!(Arc::ptr_eq(list, &update.list));
            }
            list_before = Some((owned, Arc::clone(&update.list)));
            before = now;
        }
    }
}

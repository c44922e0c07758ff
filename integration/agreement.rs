//! `invar validate` and the recorded verdicts of `alloy validate` on a corpus of configurations: the same verdict, and errors at
//! the same places, but for what is decided otherwise (docs/decisions/0025) and for components that are not built in.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// A component that only Alloy has.
const NOT_AVAILABLE: &str = "E220";
/// A block of the language that only Alloy has.
const UNSUPPORTED: &str = "E206";
const DEPRECATED: &str = "W401";

/// Files on which we say more than Alloy does, by decision.
const DECIDED: &[(&str, &str)] = &[
    (
        "grafana+alloy-scenarios/log-to-metrics/config.alloy",
        "a time-out longer than the interval is certain to fail when run",
    ),
    (
        "grafana+alloy/docs/sources/get-started/syntax.md.01.alloy",
        "Alloy stops at an attribute outside of blocks; the rest is judged here too",
    ),
    (
        "grafana+alloy/docs/sources/reference/components/database_observability/database_observability.postgres.md.01.alloy",
        "an export that the component does not have is found here without running",
    ),
];

type Place = (u64, u64);

struct Row {
    path: String,
    verdict: String,
    /// Where Alloy reports something.
    places: Vec<Place>,
    /// The recorded messages are cut.
    cut: bool,
}

struct Finding {
    code: String,
    place: Place,
    message: String,
}

/// The shared corpus beside the repository, if it is there.
fn corpus() -> Option<PathBuf> {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .map(|folder| folder.join("shared/corpus"))
        .find(|path| path.join("oracle.tsv").is_file())
}

/// The rows that parse.
fn rows(corpus: &Path) -> Vec<Row> {
    let table = std::fs::read_to_string(corpus.join("oracle.tsv")).unwrap();
    let rows = table.lines().skip(1).map(|line| line.split('\t').collect::<Vec<_>>());
    let rows = rows.filter(|columns| columns[1] == "ok").map(|columns| {
        let messages = columns.get(5).copied().unwrap_or_default();
        let places = messages.split(" | ").filter_map(|message| {
            let place = message.split(' ').next()?.trim_end_matches(':');
            let (line, column) = place.split_once(':')?;
            Some((line.parse().ok()?, column.parse().ok()?))
        });
        Row {
            path: columns[0].to_owned(),
            verdict: columns[4].to_owned(),
            places: places.collect(),
            cut: messages.len() >= 239,
        }
    });
    rows.collect()
}

/// What `invar validate` finds in each file.
fn findings(corpus: &Path, rows: &[Row]) -> BTreeMap<String, Vec<Finding>> {
    let mut found: BTreeMap<String, Vec<Finding>> =
        rows.iter().map(|row| (row.path.clone(), Vec::new())).collect();
    for rows in rows.chunks(200) {
        let output = Command::new(env!("CARGO_BIN_EXE_invar"))
            .args(["validate", "-o", "json", "--stability.level=experimental"])
            .arg("--feature.community-components.enabled")
            .args(rows.iter().map(|row| &row.path))
            .current_dir(corpus)
            .output()
            .unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{errors}"));
        assert_eq!(report["configurations"].as_array().unwrap().len(), rows.len());
        for diagnostic in report["diagnostics"].as_array().unwrap() {
            let place = &diagnostic["place"];
            let start = &place["start"];
            found.get_mut(place["file"].as_str().unwrap()).unwrap().push(Finding {
                code: diagnostic["code"].as_str().unwrap().to_owned(),
                place: (start["line"].as_u64().unwrap(), start["column"].as_u64().unwrap()),
                message: diagnostic["message"].as_str().unwrap().to_owned(),
            });
        }
    }
    found
}

/// The lines of the blocks that begin at the given places.
fn blocks_at(file: &Path, places: &BTreeSet<Place>) -> Vec<(u64, u64)> {
    let (parsed, _) = invar_syntax::parse_bytes("", &std::fs::read(file).unwrap());
    let parsed = parsed.unwrap();
    let mut lines = Vec::new();
    let mut bodies = vec![&parsed.body];
    while let Some(body) = bodies.pop() {
        for block in body.blocks() {
            let start = parsed.source.position(block.span.start);
            let end = parsed.source.position(block.span.end);
            if places.contains(&(u64::from(start.line), u64::from(start.column))) {
                lines.push((u64::from(start.line), u64::from(end.line)));
            }
            bodies.push(&block.body);
        }
    }
    lines
}

/// `left` without `right`, of both as bags.
fn without(left: &[Place], right: &[Place]) -> Vec<Place> {
    let mut right = right.to_vec();
    left.iter()
        .filter(|place| match right.iter().position(|other| other == *place) {
            Some(found) => {
                right.swap_remove(found);
                false
            }
            None => true,
        })
        .copied()
        .collect()
}

/// Whether all errors are references that Alloy does not look at and that fail when it runs: in components whose namespace is
/// imported, and to arguments that a `declare` does not have.
fn only_unseen_references(file: &Path, found: &[Finding]) -> bool {
    let (parsed, _) = invar_syntax::parse_bytes("", &std::fs::read(file).unwrap());
    let parsed = parsed.unwrap();
    let imported: Vec<&str> = parsed
        .body
        .blocks()
        .filter(|block| block.dotted_name().starts_with("import."))
        .filter_map(|block| Some(&*block.label.as_ref()?.text))
        .collect();
    let of_import = |line: u64| {
        parsed.body.blocks().any(|block| {
            let lines =
                [block.span.start, block.span.end].map(|at| u64::from(parsed.source.position(at).line));
            (lines[0]..=lines[1]).contains(&line) && imported.contains(&&*block.name[0].name)
        })
    };
    let mut errors =
        found.iter().filter(|finding| finding.code.starts_with('E') && finding.code != NOT_AVAILABLE);
    errors.all(|Finding { code, place, message }| {
        code == "E204" && (message.starts_with("component \"argument.") || of_import(place.0))
    })
}

/// What differs in a row; none if nothing does.
fn difference(corpus: &Path, row: &Row, found: &[Finding]) -> Option<String> {
    let places = |wanted: &dyn Fn(&str) -> bool| -> Vec<Place> {
        found.iter().filter(|finding| wanted(&finding.code)).map(|finding| finding.place).collect()
    };
    let ours = places(&|code| code.starts_with('E') && code != NOT_AVAILABLE && code != UNSUPPORTED);
    let shown = || {
        let shown =
            found.iter().map(|Finding { code, place, message }| format!("\n    {code} {place:?} {message}"));
        shown.collect::<String>()
    };
    let warned = places(&|code| code == DEPRECATED);
    match row.verdict.as_str() {
        // Alloy crashes; any answer is better.
        "panic" => None,
        "ok" | "warning" => {
            if !ours.is_empty() {
                return Some(format!("Alloy accepts it{}", shown()));
            }
            // Of the warnings only one was recorded, the first in the order in which Alloy looks at blocks.
            let recorded = if row.verdict == "warning" { row.places.first() } else { None };
            let agrees = recorded.map_or(warned.is_empty(), |recorded| warned.contains(recorded));
            (!agrees).then(|| format!("Alloy warns at {recorded:?}{}", shown()))
        }
        _ => {
            let more = without(&ours, &row.places);
            if !more.is_empty() && !row.cut {
                return Some(format!("Alloy has nothing at {more:?}{}", shown()));
            }
            // What Alloy finds inside components that are not built in cannot be found here.
            let absent = places(&|code| code == NOT_AVAILABLE || code == UNSUPPORTED);
            let blocks = blocks_at(&corpus.join(&row.path), &absent.into_iter().collect());
            let mut fewer = without(&row.places, &ours);
            fewer.retain(|(line, _)| !blocks.iter().any(|(first, last)| (first..=last).contains(&line)));
            (!fewer.is_empty()).then(|| format!("Alloy has errors at {fewer:?}{}", shown()))
        }
    }
}

#[test]
fn verdicts_and_places_agree_with_alloys() {
    let Some(corpus) = corpus() else {
        println!("skipped: the shared corpus is not at hand");
        return;
    };
    let rows = rows(&corpus);
    assert!(rows.len() > 1_000, "the corpus is incomplete: {} files", rows.len());
    let found = findings(&corpus, &rows);
    let (mut agree, mut decided, mut partly, mut waiting) = (0, 0, 0, 0);
    let mut wrong = Vec::new();
    for row in &rows {
        let found = &found[&row.path];
        let has = |code: &str| found.iter().any(|finding| finding.code == code);
        if has(UNSUPPORTED) && row.verdict != "panic" {
            waiting += 1;
            continue;
        }
        match (difference(&corpus, row, found), DECIDED.iter().find(|(path, _)| *path == row.path)) {
            (None, None) => {
                agree += 1;
                partly += usize::from(has(NOT_AVAILABLE));
            }
            (Some(_), Some(_)) => decided += 1,
            (Some(_), None)
                if row.verdict == "ok" && only_unseen_references(&corpus.join(&row.path), found) =>
            {
                decided += 1;
            }
            (Some(difference), None) => wrong.push(format!("{}: {difference}", row.path)),
            (None, Some((path, _))) => wrong.push(format!("{path}: agrees, and is listed as a deviation")),
        }
    }
    println!(
        "{} files: {agree} agree ({partly} of them but for components that are not built in), {decided} differ by \
         decision, {waiting} wait for blocks of the language",
        rows.len()
    );
    assert!(wrong.is_empty(), "{} deviations:\n{}", wrong.len(), wrong.join("\n"));
}

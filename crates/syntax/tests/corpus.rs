//! Every file of the shared corpus of real configurations: accepted or refused as Alloy does, the first error where Alloy
//! has its first one, and formatted to the same bytes.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};

use invar_syntax::{format, parse_bytes};
use sha2::{Digest, Sha256};

/// The `shared` folder beside the repository, if it is there.
fn shared() -> Option<PathBuf> {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .map(|folder| folder.join("shared"))
        .find(|path| path.is_dir())
}

#[test]
fn corpus_is_accepted_and_refused_like_alloy() {
    let Some(corpus) = shared().map(|shared| shared.join("corpus")) else {
        println!("skipped: no shared corpus beside the repository");
        return;
    };
    let oracle = fs::read_to_string(corpus.join("oracle.tsv")).unwrap();
    let mut wrong = Vec::new();
    let (mut files, mut refused, mut placed) = (0, 0, 0);
    for row in oracle.lines().skip(1) {
        let columns: Vec<&str> = row.split('\t').collect();
        let (path, verdict, messages) = (columns[0], columns[1], columns.get(5).copied().unwrap_or_default());
        files += 1;
        let (file, diagnostics) = parse_bytes(path, &fs::read(corpus.join(path)).unwrap());
        assert_eq!(file.is_none(), diagnostics.has_errors(), "{path}");
        if (verdict == "ok") != file.is_some() {
            wrong.push(format!("{path}: Alloy says {verdict}; we say {diagnostics}"));
            continue;
        }
        let Some(first) = diagnostics.iter().next() else { continue };
        refused += 1;
        let label = first.primary().unwrap();
        let position = label.source.position(label.span.start);
        let ours = format!("{}:{}", position.line, position.column);
        let theirs = messages.split(' ').next().unwrap_or_default();
        if ours == theirs {
            placed += 1;
        } else {
            wrong.push(format!("{path}: first error at {theirs} {messages}; ours {diagnostics}"));
        }
    }
    println!("{files} files, {refused} refused, first error agrees in {placed}");
    assert!(files > 1_000, "the corpus is incomplete: {files} files");
    assert!(wrong.is_empty(), "{} deviations:\n{}", wrong.len(), wrong.join("\n"));
}

/// Rows that are not formatted as Alloy does: its own formatter changes their values.
const CHANGED_BY_ALLOY: &[&str] = &[];

#[test]
fn corpus_is_formatted_like_alloy() {
    let Some(corpus) = shared().map(|shared| shared.join("corpus")) else {
        println!("skipped: no shared corpus beside the repository");
        return;
    };
    let oracle = fs::read_to_string(corpus.join("oracle.tsv")).unwrap();
    let mut wrong = Vec::new();
    let (mut same, mut settled) = (0, 0);
    for row in oracle.lines().skip(1) {
        let columns: Vec<&str> = row.split('\t').collect();
        let [path, "ok", hash, idempotent, ..] = columns[..] else { continue };
        let (file, _) = parse_bytes(path, &fs::read(corpus.join(path)).unwrap());
        let formatted = format(&file.unwrap()).unwrap();
        let (again, _) = parse_bytes(path, formatted.as_bytes());
        assert_eq!(format(&again.unwrap()).unwrap(), formatted, "{path}: formatted again");
        let equal =
            Sha256::digest(&formatted).iter().map(|byte| format!("{byte:02x}")).collect::<String>() == hash;
        match (idempotent, equal) {
            ("yes", true) => same += 1,
            ("no", _) => settled += 1,
            ("yes", false) if CHANGED_BY_ALLOY.contains(&path) => {}
            _ => wrong.push(path),
        }
    }
    println!("{same} files as Alloy formats them, {settled} that it does not settle on");
    assert!(same > 1_000, "the corpus is incomplete: {same} files");
    assert!(wrong.is_empty(), "{} deviations:\n{}", wrong.len(), wrong.join("\n"));
}

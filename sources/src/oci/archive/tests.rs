#![allow(clippy::unwrap_used)]

use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;
use proptest::prelude::*;
use tar::{Builder, Header};

use super::*;
use crate::error::ErrorClass;

fn limits() -> LimitSettings {
    LimitSettings::default()
}

/// An entry with any path, which the library itself would refuse to write.
fn entry(kind: EntryType, path: &str, target: &str, content: &[u8]) -> (Header, Vec<u8>) {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    let raw = header.as_gnu_mut().unwrap();
    raw.name[..path.len()].copy_from_slice(path.as_bytes());
    raw.linkname[..target.len()].copy_from_slice(target.as_bytes());
    header.set_cksum();
    (header, content.to_vec())
}

fn file(path: &str, content: &str) -> (Header, Vec<u8>) {
    entry(EntryType::Regular, path, "", content.as_bytes())
}

fn link(path: &str, target: &str) -> (Header, Vec<u8>) {
    entry(EntryType::Symlink, path, target, b"")
}

fn plain(entries: &[(Header, Vec<u8>)]) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    for (header, content) in entries {
        builder.append(header, content.as_slice()).unwrap();
    }
    builder.into_inner().unwrap()
}

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

fn unpacked(entries: &[(Header, Vec<u8>)], selected: &[&str]) -> Result<Files, Failure> {
    let selected: Vec<String> = selected.iter().map(|path| (*path).to_owned()).collect();
    unpack(&gzip(&plain(entries)), &selected, &limits())
}

fn rejection(result: Result<Files, Failure>) -> Rejection {
    match result.unwrap_err().class {
        ErrorClass::Rejected(rejection) => rejection,
        other => panic!("{other:?}"),
    }
}

#[test]
fn files_come_out_compressed_or_not() {
    let entries = [
        entry(EntryType::Directory, "./", "", b""),
        entry(EntryType::Directory, "base/", "", b""),
        file("./base/a.alloy", "one"),
        file("b.alloy", "two"),
    ];
    let expected = Files::from([
        ("b.alloy".to_owned(), Bytes::from_static(b"two")),
        ("base/a.alloy".to_owned(), Bytes::from_static(b"one")),
    ]);
    assert_eq!(unpacked(&entries, &[]).unwrap(), expected);
    assert_eq!(unpack(&plain(&entries), &[], &limits()).unwrap(), expected);
    assert_eq!(unpacked(&entries, &["base"]).unwrap().into_keys().collect::<Vec<_>>(), ["base/a.alloy"]);
    assert_eq!(unpacked(&entries, &["b.alloy"]).unwrap().len(), 1);
    assert_eq!(rejection(unpacked(&entries, &["bas"])), Rejection::EmptySource);
    assert_eq!(rejection(unpacked(&[], &[])), Rejection::EmptySource);
}

#[test]
fn long_names_are_read() {
    let mut builder = Builder::new(Vec::new());
    let path = format!("{}/{}.alloy", "d".repeat(120), "f".repeat(120));
    let mut header = Header::new_gnu();
    header.set_size(3);
    header.set_cksum();
    builder.append_data(&mut header, &path, &b"one"[..]).unwrap();
    let archive = builder.into_inner().unwrap();
    assert_eq!(unpack(&archive, &[], &limits()).unwrap()[&path], "one");
}

#[test]
fn names_that_lead_elsewhere_are_refused() {
    for path in ["../x", "a/../../x", "/etc/passwd", "a\\b", ".git/config", "a/.GIT/x", "C:x", "a\nb"] {
        assert_eq!(rejection(unpacked(&[file(path, "x")], &[])), Rejection::Name, "{path:?}");
    }
}

#[test]
fn links_stay_within_and_lead_to_files() {
    let entries =
        [file("base/a.alloy", "one"), link("env/a.alloy", "../base/a.alloy"), link("b", "env/a.alloy")];
    let files = unpacked(&entries, &[]).unwrap();
    assert_eq!((files["env/a.alloy"].as_ref(), files["b"].as_ref()), (&b"one"[..], &b"one"[..]));
    // What a selected link leads to need not be selected.
    assert_eq!(unpacked(&entries, &["env"]).unwrap()["env/a.alloy"], "one");
    let hard = [file("a", "one"), entry(EntryType::Link, "x/b", "a", b"")];
    assert_eq!(unpacked(&hard, &[]).unwrap()["x/b"], "one");

    for target in ["../../etc/passwd", "/etc/passwd", "C:/x", "..\\x"] {
        assert_eq!(rejection(unpacked(&[link("env/a", target)], &[])), Rejection::SymlinkEscape, "{target}");
    }
    let hard = [entry(EntryType::Link, "a", "/etc/passwd", b"")];
    assert_eq!(rejection(unpacked(&hard, &[])), Rejection::SymlinkEscape);
    let circle = [link("a", "b"), link("b", "a")];
    assert_eq!(rejection(unpacked(&circle, &[])), Rejection::SymlinkEscape);
    assert_eq!(rejection(unpacked(&[link("a", "nowhere")], &[])), Rejection::Shape);
}

#[test]
fn what_is_no_file_is_refused() {
    for kind in [EntryType::Char, EntryType::Block, EntryType::Fifo] {
        assert_eq!(rejection(unpacked(&[entry(kind, "a", "", b"")], &[])), Rejection::Shape);
    }
    assert_eq!(rejection(unpacked(&[file("a", "1"), file("./a", "2")], &[])), Rejection::Shape, "twice");
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n";
    assert_eq!(rejection(unpacked(&[file("a", pointer)], &[])), Rejection::LfsPointer);
    assert_eq!(rejection(unpack(b"\x1f\x8bnonsense", &[], &limits())), Rejection::Shape);
    assert_eq!(
        rejection(unpack(b"not an archive, but longer than a block".repeat(20).as_slice(), &[], &limits())),
        Rejection::Shape
    );
    let whole = gzip(&plain(&[file("a", &"x".repeat(4000))]));
    assert_eq!(rejection(unpack(&whole[..whole.len() / 2], &[], &limits())), Rejection::Shape);
}

#[test]
fn limits_hold() {
    let small = |change: fn(&mut LimitSettings)| {
        let mut limits = limits();
        change(&mut limits);
        let archive = gzip(&plain(&[file("a", "0123456789"), file("b", "0123456789")]));
        rejection(unpack(&archive, &[], &limits))
    };
    assert_eq!(small(|limits| limits.file = 9), Rejection::Limits);
    assert_eq!(small(|limits| limits.bytes = 19), Rejection::Limits);
    assert_eq!(small(|limits| limits.files = 1), Rejection::Limits);
    // A bomb: given up long before its end.
    let bomb = gzip(&plain(&[file("a", &" ".repeat(64 << 20))]));
    assert!(bomb.len() < 100_000);
    let wide = LimitSettings { file: u64::MAX, bytes: u64::MAX, ..limits() };
    assert_eq!(rejection(unpack(&bomb, &[], &wide)), Rejection::Limits);
    // An entry that says to be larger than anything.
    let (mut header, _) = file("a", "x");
    header.set_size(u64::MAX / 4);
    header.set_cksum();
    let mut lying = header.as_bytes().to_vec();
    lying.extend([0; 2048]);
    assert_eq!(rejection(unpack(&lying, &[], &limits())), Rejection::Limits);
}

proptest! {
    #[test]
    fn any_bytes_are_unpacked_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..1500)) {
        drop(unpack(&bytes, &[], &limits()));
        drop(unpack(&gzip(&bytes), &[], &limits()));
    }

    #[test]
    fn no_path_steps_up(path in "[a./\\\\]{1,20}", target in "[a./]{0,10}") {
        let entries = [file(&path, "x"), link("l", &target)];
        if let Ok(files) = unpacked(&entries, &[]) {
            for path in files.keys() {
                prop_assert!(path.split('/').all(|name| !matches!(name, "" | "." | "..")));
            }
        }
    }
}

#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;

const ONE: &str = "1111111111111111111111111111111111111111";
const TWO: &str = "2222222222222222222222222222222222222222";

fn message(lines: &[&str]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for line in lines {
        match *line {
            "0000" => write_flush(&mut bytes),
            "0001" => write_delimiter(&mut bytes),
            line => write_line(&mut bytes, line),
        }
    }
    bytes
}

fn version_2() -> Advertisement {
    parse_advertisement(&message(&[
        "# service=git-upload-pack",
        "0000",
        "version 2",
        "agent=git/2.39.5",
        "ls-refs=unborn",
        "fetch=shallow wait-for-done filter",
        "object-format=sha1",
        "0000",
    ]))
    .unwrap()
}

#[test]
fn a_version_2_advertisement_lists_capabilities() {
    let advertisement = version_2();
    assert_eq!(advertisement.version, 2);
    assert!(advertisement.has_fetch_feature("filter") && !advertisement.has_fetch_feature("sideband-all"));
    assert!(advertisement.is_sha1());
}

#[test]
fn a_version_1_advertisement_lists_references() {
    let first = format!("{ONE} HEAD\0shallow side-band-64k symref=HEAD:refs/heads/main agent=x");
    let branch = format!("{ONE} refs/heads/main");
    let tag = format!("{TWO} refs/tags/v1");
    let peeled = format!("{ONE} refs/tags/v1^{{}}");
    let lines = ["# service=git-upload-pack", "0000", &first, &branch, &tag, &peeled, "0000"];
    let advertisement = parse_advertisement(&message(&lines)).unwrap();
    assert_eq!(advertisement.version, 1);
    assert_eq!(advertisement.references.len(), 3);
    assert_eq!(advertisement.references[0].target.as_deref(), Some("refs/heads/main"));
    assert_eq!(advertisement.references[2].peeled.as_deref(), Some(ONE));
    assert!(advertisement.has_fetch_feature("shallow"));

    let empty = format!("{} capabilities^{{}}\0agent=x", "0".repeat(40));
    assert!(parse_advertisement(&message(&[&empty, "0000"])).unwrap().references.is_empty());
}

#[test]
fn references_carry_peeled_commits_and_targets() {
    let bytes = message(&[
        &format!("{ONE} HEAD symref-target:refs/heads/main"),
        &format!("{TWO} refs/tags/v1 peeled:{ONE}"),
        "unborn HEAD symref-target:refs/heads/main",
        "0000",
    ]);
    let references = parse_ls_refs(&bytes).unwrap();
    assert_eq!(references[0].target.as_deref(), Some("refs/heads/main"));
    assert_eq!(references[1].peeled.as_deref(), Some(ONE));
    assert_eq!(references[2].object, "");
}

#[test]
fn broken_answers_are_errors() {
    let complete = message(&[&format!("{ONE} HEAD"), "0000"]);
    assert_eq!(parse_ls_refs(&complete[..complete.len() - 4]), Err(ProtocolError::Truncated));
    assert_eq!(parse_ls_refs(&complete[..complete.len() - 9]), Err(ProtocolError::Truncated));
    assert_eq!(parse_ls_refs(&message(&["xyz HEAD", "0000"])), Err(ProtocolError::Unexpected));
    assert_eq!(parse_ls_refs(&message(&["HEAD", "0000"])), Err(ProtocolError::Unexpected));
    assert!(matches!(parse_ls_refs(b"<html>"), Err(ProtocolError::Framing(_))));
    assert_eq!(
        parse_ls_refs(&message(&["ERR access\x1b[31m denied", "0000"])),
        Err(ProtocolError::Refused("access [31m denied".to_owned()))
    );
    assert_eq!(parse_advertisement(b""), Err(ProtocolError::Truncated));
}

#[test]
fn a_fetch_asks_for_one_commit_and_names_the_one_held() {
    let fetch =
        FetchRequest { want: ONE.to_owned(), have: Some(TWO.to_owned()), depth: 1, commits_only: false };
    let request = String::from_utf8(encode_fetch(&version_2(), &fetch)).unwrap();
    for part in [
        "command=fetch",
        &format!("want {ONE}"),
        &format!("shallow {TWO}"),
        &format!("have {TWO}"),
        "deepen 1",
        "done",
    ] {
        assert!(request.contains(part), "{part} in {request}");
    }
    assert!(!request.contains("filter"));
}

#[test]
fn a_pack_is_read_from_its_band() {
    let mut bytes = message(&["shallow-info", &format!("shallow {ONE}"), "0001", "packfile"]);
    bytes.extend_from_slice(b"0009\x01PACK0007\x02hi0008\x01abc0000");
    for step in [1, 7, 1000] {
        let mut reader = FetchReader::new(2);
        let mut pack = Vec::new();
        for chunk in bytes.chunks(step) {
            assert_eq!(reader.finish(), Err(ProtocolError::Truncated));
            pack.extend(reader.push(chunk).unwrap().concat());
        }
        assert_eq!(pack, b"PACKabc");
        reader.finish().unwrap();
    }
    let mut bytes = message(&[&format!("shallow {ONE}"), "0000", "NAK"]);
    bytes.extend_from_slice(b"0009\x01PACK0000");
    let mut reader = FetchReader::new(1);
    assert_eq!(reader.push(&bytes).unwrap().concat(), b"PACK");
    reader.finish().unwrap();
}

#[test]
fn a_refusal_is_passed_on() {
    let mut reader = FetchReader::new(2);
    let refused = reader.push(&message(&["ERR upload-pack: not our ref x"]));
    assert_eq!(refused, Err(ProtocolError::Refused("upload-pack: not our ref x".to_owned())));
    let mut reader = FetchReader::new(2);
    reader.push(&message(&["packfile"])).unwrap();
    assert_eq!(reader.push(b"0009\x03oops"), Err(ProtocolError::Refused("oops".to_owned())));
}

/// Object ids in an advertisement that was accepted are such.
fn check_references(references: &[RemoteReference]) -> Result<(), TestCaseError> {
    for reference in references {
        prop_assert!(reference.object.is_empty() || is_object_id(&reference.object));
        prop_assert!(reference.peeled.as_deref().is_none_or(is_object_id));
    }
    Ok(())
}

fn check_answers(bytes: &[u8]) -> Result<(), TestCaseError> {
    if let Ok(advertisement) = parse_advertisement(bytes) {
        check_references(&advertisement.references)?;
    }
    if let Ok(references) = parse_ls_refs(bytes) {
        check_references(&references)?;
    }
    for version in [1, 2] {
        let whole = FetchReader::new(version).push(bytes);
        let mut reader = FetchReader::new(version);
        let parts: Result<Vec<Vec<Bytes>>, ProtocolError> =
            bytes.chunks(3).map(|chunk| reader.push(chunk)).collect();
        prop_assert_eq!(whole.map(|pack| pack.concat()), parts.map(|parts| parts.concat().concat()));
    }
    Ok(())
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        check_answers(&bytes)?;
    }

    #[test]
    fn any_lines_are_read_or_refused(lines in prop::collection::vec("[0-9a-f]{40} [ -~\0]{0,30}|[ -~]{0,60}|packfile|\x01[a-z]{0,9}", 0..8)) {
        let mut lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        lines.push("0000");
        check_answers(&message(&lines))?;
    }
}

//! What survives on disk: torn writes, rot, full disks, newer formats, retention.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fs;

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::compose::{ComposedFile, VariableLayers};
use crate::record::{Hold, QuarantineEntry};
use crate::state::head::{FORMAT, HEAD_SIZE};
use crate::time::Timestamp;

fn control(generation: u64) -> Control {
    Control { last_generation: generation, boot_id: "boot".into(), ..Control::default() }
}

fn composition(text: &str) -> Composition {
    Composition {
        origins: Vec::new(),
        files: vec![ComposedFile {
            name: "main.alloy".into(),
            source: "git".into(),
            path: "main.alloy".into(),
            content: Bytes::copy_from_slice(text.as_bytes()),
        }],
        modules: Vec::new(),
        variables: VariableLayers {
            files: vec![ComposedFile {
                name: "variables.toml".into(),
                source: "git".into(),
                path: "variables.toml".into(),
                content: Bytes::from(format!("text = {text:?}\n")),
            }],
            searched: vec!["variables.toml".into()],
        },
    }
}

fn record(revision: &str, verdict: Verdict) -> RevisionRecord {
    RevisionRecord {
        sequence: 0,
        generation: None,
        revision: revision.into(),
        digest: revision.into(),
        author: None,
        subject: None,
        signer: None,
        observed: Timestamp::from_millis(0),
        swapped: None,
        decided: None,
        verdict,
        note: None,
        plan: None,
        stage: None,
        file: None,
        line: None,
    }
}

fn open(path: &Path) -> StateDirectory {
    StateDirectory::open_under(path, "boot").unwrap()
}

#[test]
fn a_head_torn_at_any_byte_is_the_old_one_the_new_one_or_nothing() {
    let old = Head { sequence: 8, control: control(3) };
    let new = Head { sequence: 10, control: control(4) };
    let [old_bytes, new_bytes] = [&old, &new].map(|head| {
        let mut bytes = encode_head(head).unwrap();
        bytes.resize(HEAD_SIZE, 0);
        bytes
    });
    let used = 28 + serde_json::to_vec(&new.control).unwrap().len() + 64;
    for cut in 0..=HEAD_SIZE {
        // Past the records both are zeros: every place that can differ is tried.
        if cut > used && cut != HEAD_SIZE {
            continue;
        }
        let mut torn = new_bytes[..cut].to_vec();
        torn.extend_from_slice(&old_bytes[cut..]);
        match decode_head(&torn) {
            Ok(head) => assert!(head == old || head == new, "cut at {cut}"),
            Err(HeadError::Damaged(_)) => {}
            Err(other) => panic!("cut at {cut}: {other}"),
        }
    }
    assert_eq!(decode_head(&new_bytes), Ok(new));
    assert_eq!(decode_head(&vec![0; HEAD_SIZE]), Err(HeadError::Blank));
    assert_eq!(decode_head(&[1]), Err(HeadError::Damaged("too short")));
}

#[test]
fn after_a_torn_write_the_other_head_holds() {
    let directory = tempfile::tempdir().unwrap();
    for cut in [0, 1, 8, 12, 20, 24, 27, 28, 29, 60, 200] {
        let mut state = open(directory.path());
        state.write_control(&control(1), Step::Control).unwrap();
        state.write_control(&control(2), Step::Control).unwrap();
        let newest = directory.path().join(if state.sequence % 2 == 1 { "head-1" } else { "head-0" });
        drop(state);
        let mut bytes = fs::read(&newest).unwrap();
        bytes[cut..cut + 40].fill(0xa5);
        fs::write(&newest, bytes).unwrap();
        let mut state = open(directory.path());
        assert_eq!(state.take_recovered().control.unwrap().last_generation, 1, "torn at {cut}");
        // The next writes use the damaged one again.
        state.write_verdict(&control(3), Step::Committed).unwrap();
        drop(state);
        assert_eq!(open(directory.path()).take_recovered().control.unwrap().last_generation, 3);
    }
}

#[test]
fn a_verdict_is_in_both_heads() {
    let directory = tempfile::tempdir().unwrap();
    let mut state = open(directory.path());
    state.write_verdict(&control(7), Step::Committed).unwrap();
    for name in ["head-0", "head-1"] {
        let head = decode_head(&fs::read(directory.path().join(name)).unwrap()).unwrap();
        assert_eq!(head.control.last_generation, 7);
    }
}

#[test]
fn the_largest_control_state_fits() {
    let mut control = control(u64::MAX);
    let long = "x".repeat(10_000);
    for n in 0..200 {
        let digest = format!("{n:064}");
        for revision in 0..6 {
            control.condemn(
                &Condemnation {
                    digest: &digest,
                    revision: &format!("{revision}{long}"),
                    stage: "probation",
                    reason: &long,
                    deterministic: false,
                    agent_version: "1.0.0",
                },
                Timestamp::from_millis(n),
            );
        }
        control.breaker.note_applied(&digest, Timestamp::from_millis(n));
        control.breaker.note_rolled_back(&digest, Timestamp::from_millis(n));
    }
    control.hold = Some(Hold {
        by: "ana".into(),
        reason: shortened(&long),
        since: Timestamp::default(),
        until: None,
        digest: None,
    });
    let bytes = encode_head(&Head { sequence: 1, control: control.clone() }).unwrap();
    assert_eq!(decode_head(&bytes).unwrap().control, control);
}

#[test]
fn quarantine_doubles_and_is_bounded() {
    let mut control = Control::default();
    let case = Condemnation {
        digest: "b",
        revision: "r",
        stage: "probation",
        reason: "x",
        deterministic: false,
        agent_version: "1",
    };
    let hours: Vec<f64> = (0..8)
        .map(|_| {
            let entry: QuarantineEntry = control.condemn(&case, Timestamp::default());
            entry.until.unwrap().since(entry.since).as_secs_f64() / 3600.0
        })
        .collect();
    assert_eq!(hours, [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 24.0, 24.0]);
    assert_eq!(control.quarantine.len(), 1);
    control.absolve("b");
    assert!(control.quarantine.is_empty() && control.strikes.is_empty());
}

#[test]
fn two_agents_cannot_share_a_directory() {
    let directory = tempfile::tempdir().unwrap();
    let first = open(directory.path());
    let error = StateDirectory::open_under(directory.path(), "boot").unwrap_err();
    assert!(error.to_string().contains(&std::process::id().to_string()), "{error}");
    drop(first);
    open(directory.path());
}

#[test]
fn state_of_a_newer_agent_is_kept_aside() {
    let directory = tempfile::tempdir().unwrap();
    let mut state = open(directory.path());
    state.write_verdict(&control(5), Step::Committed).unwrap();
    state.store_revision(&composition("a"), "a", record("r1", Verdict::Committed)).unwrap();
    drop(state);
    for name in ["head-0", "head-1"] {
        let path = directory.path().join(name);
        let mut bytes = fs::read(&path).unwrap();
        bytes[8..12].copy_from_slice(&(FORMAT + 1).to_le_bytes());
        let length = u32::from_le_bytes(bytes[12..16].try_into().unwrap()) as usize;
        let crc = crc32c::crc32c_append(crc32c::crc32c(&bytes[..24]), &bytes[28..28 + length]);
        bytes[24..28].copy_from_slice(&crc.to_le_bytes());
        fs::write(&path, bytes).unwrap();
    }
    let mut state = open(directory.path());
    let recovered = state.take_recovered();
    assert!(recovered.control.is_none() && !recovered.corrupt);
    assert!(state.history().is_empty());
    assert!(directory.path().join("newer-format-2/head-0").exists());
    assert!(directory.path().join("newer-format-2/revisions/1.json").exists());
    state.write_control(&control(1), Step::Control).unwrap();
}

#[test]
fn retention_never_removes_what_is_pinned() {
    let directory = tempfile::tempdir().unwrap();
    let mut state = open(directory.path());
    for n in 1..=30 {
        let text = format!("text {n}");
        state
            .store_revision(&composition(&text), &text, record(&format!("r{n}"), Verdict::Committed))
            .unwrap();
    }
    state.retain(20, &BTreeSet::from([3])).unwrap();
    let kept: Vec<u64> = state.history().iter().map(|record| record.sequence).collect();
    assert_eq!(kept.len(), 20);
    assert!(kept.contains(&3) && kept.contains(&30) && !kept.contains(&4));
    for sequence in &kept {
        let manifest = state.revisions[sequence].manifest_digest.clone();
        state.load(&manifest).unwrap();
    }
    let blobs = fs::read_dir(directory.path().join("cas"))
        .unwrap()
        .map(|folder| fs::read_dir(folder.unwrap().path()).unwrap().count());
    assert_eq!(blobs.sum::<usize>(), 60, "a pipeline, its variables and a manifest each");
}

#[test]
fn the_journal_is_cut_off_after_its_last_valid_record() {
    let directory = tempfile::tempdir().unwrap();
    let mut state = open(directory.path());
    for n in 0..5 {
        state.note(record(&format!("r{n}"), Verdict::Rejected));
    }
    drop(state);
    let path = directory.path().join("journal.log");
    let whole = fs::read(&path).unwrap();
    let each = whole.len() / 5;
    for cut in [whole.len() - 1, whole.len() - each + 3, each + 1, 3] {
        fs::write(&path, &whole[..cut]).unwrap();
        let mut state = open(directory.path());
        assert_eq!(state.history().len(), cut / each, "cut at {cut}");
        state.note(record("after", Verdict::Rejected));
        drop(state);
        assert_eq!(open(directory.path()).history()[0].revision, "after");
    }
}

#[test]
fn the_journal_stays_small() {
    let directory = tempfile::tempdir().unwrap();
    let mut journal = Journal::open(&directory.path().join("journal.log")).unwrap().0;
    let mut long = record("r", Verdict::Rejected);
    long.note = Some("x".repeat(8_000));
    for n in 0..300 {
        long.sequence = n;
        journal.append(&long).unwrap();
    }
    drop(journal);
    assert!(fs::metadata(directory.path().join("journal.log")).unwrap().len() <= 1024 * 1024);
    let records = Journal::open(&directory.path().join("journal.log")).unwrap().1;
    assert_eq!(records.last().unwrap().sequence, 299);
}

#[test]
fn files_are_for_the_agent_alone() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("state");
    let mut state = open(&root);
    state.store_revision(&composition("a"), "a", record("r1", Verdict::Committed)).unwrap();
    for name in ["head-0", "head-1", "journal.log", "revisions/1.json", "LOCK", "ballast"] {
        let mode = fs::metadata(root.join(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{name}");
    }
    assert_eq!(fs::metadata(&root).unwrap().permissions().mode() & 0o777, 0o700);
}

#[test]
fn a_note_that_the_process_outlived_is_taken_away() {
    let directory = tempfile::tempdir().unwrap();
    let state = open(directory.path());
    let note = state.panic_note();
    note.leave("panic at x");
    note.survived();
    assert!(!directory.path().join("panic-note").exists());
    note.leave("panic at y");
    drop(state);
    assert_eq!(open(directory.path()).take_recovered().panic_note.as_deref(), Some("panic at y"));
    assert_eq!(open(directory.path()).take_recovered().panic_note, None, "read once");
}

proptest! {
    #[test]
    fn no_bytes_make_the_decoders_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        drop(decode_head(&bytes));
        let (records, valid) = decode_journal(&bytes);
        prop_assert!(valid <= bytes.len() as u64);
        prop_assert!(records.len() as u64 * 8 <= valid);
    }

    #[test]
    fn a_flipped_bit_is_noticed(bit in 0usize..(28 + 200) * 8) {
        let head = Head { sequence: 3, control: control(9) };
        let mut bytes = encode_head(&head).unwrap();
        prop_assume!(bit / 8 < 28 + serde_json::to_vec(&head.control).unwrap().len());
        bytes[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(decode_head(&bytes).is_err());
    }

    #[test]
    fn heads_survive_their_bytes(sequence in any::<u64>(), generation in any::<u64>(), digest in "[a-z0-9]{1,64}") {
        let mut control = control(generation);
        control.strikes_of(&digest, Timestamp::from_millis(1)).failures = 2;
        let head = Head { sequence, control };
        prop_assert_eq!(decode_head(&encode_head(&head).unwrap()).unwrap(), head);
    }
}

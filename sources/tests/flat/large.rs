//! A repository of a hundred thousand files of which twenty are read: the peak of memory of a process that follows it,
//! and what it asks afterwards.

use std::fmt::Write as _;
use std::process::Command;
use std::time::Duration;

use invar_secrets::SecretStores;
use invar_sources::{GitSettings, GitSource, Poll, SourceEnvironment, SourceSettings};

use crate::git::git;
use crate::http_backend::{self, HttpBackend};
use crate::{poll, usage};

const FILES: usize = 100_000;
const SELECTED: usize = 20;
/// Files in a folder.
const FOLDER: usize = 100;
const MEMORY: u64 = 150_000_000;
/// Says to the measured process where the repository is, and where its state goes.
const URL: &str = "INVAR_TEST_LARGE_URL";
const STATE: &str = "INVAR_TEST_LARGE_STATE";
/// How the measured process tells its peak.
const PEAK: &str = "peak of memory: ";

#[test]
fn a_hundred_thousand_files_take_little_memory_and_one_request_a_poll() {
    if !http_backend::is_available() {
        assert!(std::env::var_os("INVAR_REQUIRE_SERVERS").is_none(), "git is missing");
        eprintln!("skipped: git with http-backend is not installed");
        return;
    }
    let _alone = usage::alone();
    let directory = tempfile::tempdir().unwrap();
    let repository = directory.path().join("fleet.git");
    std::fs::create_dir(&repository).unwrap();
    git(&repository, &["init", "-q", "--bare", "-b", "main", "."], "");
    git(&repository, &["fast-import", "--quiet"], &many_files());
    let server = HttpBackend::start(directory.path()).unwrap();
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "large::the_measured_process", "--nocapture"])
        .env(URL, server.url("fleet.git"))
        .env(STATE, directory.path().join("state"))
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    let peak = text.lines().find_map(|line| line.split_once(PEAK)).unwrap().1;
    let peak: u64 = peak.trim().parse().unwrap();
    assert!(peak < MEMORY, "{peak} bytes at the peak");
    let log = server.take_log();
    assert_eq!(log.len(), 4, "three for the first poll, one for the second");
    assert!(log[3].says("command=ls-refs"));
}

/// Not a test by itself: what the one above runs in a process of its own.
#[test]
fn the_measured_process() {
    let (Ok(url), Ok(state)) = (std::env::var(URL), std::env::var(STATE)) else { return };
    let git = GitSettings { url, branch: Some("main".to_owned()), ..GitSettings::default() };
    let settings = SourceSettings { path: vec!["selected".to_owned()], ..SourceSettings::for_git(git) };
    let environment = SourceEnvironment { state_directory: state.into(), secrets: SecretStores::local() };
    let source = GitSource::open(&settings, &environment).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let within = Duration::from_secs(300);
        let Poll::Changed(snapshot) = poll(&source, None, within).await.unwrap() else {
            panic!("the first poll brings something");
        };
        assert_eq!(snapshot.files.len(), SELECTED);
        let second = poll(&source, Some(&snapshot), within).await.unwrap();
        assert!(matches!(second, Poll::Unchanged));
    });
    println!("{PEAK}{}", usage::status("VmHWM:") * 1024);
}

/// One commit, as `git fast-import` reads it.
fn many_files() -> String {
    let mut text =
        "commit refs/heads/main\ncommitter Ada <ada@example.com> 1700000000 +0000\ndata 5\nbegin\n"
            .to_owned();
    for number in 0..FILES {
        let folder = match number.checked_sub(SELECTED) {
            None => "selected".to_owned(),
            Some(number) => format!("other/{}", number / FOLDER),
        };
        // Digits that do not compress well, so that the pack has the size of a real one.
        let mut seed = number as u64;
        let mut content = String::new();
        for _ in 0..16 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            writeln!(content, "{seed:016x}").unwrap();
        }
        write!(text, "M 100644 inline {folder}/{number}.alloy\ndata {}\n{content}\n", content.len()).unwrap();
    }
    text
}

//! The state directory as it lies on disk: whose it is, whether it can be written, how much room there is, who holds it,
//! and whether what the agent starts from can be read. Only read, and no lock taken: an agent that starts in the same
//! moment must not find it held.

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use invar_rollout::{HeadError, decode_head};
use invar_sources::Finding;
use rustix::fs::{Access, StatVfsMountFlags, access, statvfs};

use super::super::output::size;

/// Least room for state: what the agent itself keeps back for bad times.
const LEAST: u64 = 16 << 20;
/// Room below which a warning is due.
const LITTLE: u64 = 256 << 20;
/// A head, and a bit.
const HEAD_LIMIT: u64 = 256 << 10;

/// What is to be known of a state directory.
#[derive(Clone, Debug)]
pub(super) struct StateReading {
    pub(super) path: PathBuf,
    pub(super) kind: Kind,
    /// Who looks.
    pub(super) user: u32,
    /// Of the file system it lies on, or would.
    pub(super) file_system: Option<FileSystem>,
    pub(super) ballast: Option<u64>,
    pub(super) holder: Option<u32>,
    /// Which of the two heads are there, and how they are.
    pub(super) heads: [Option<Result<u64, HeadError>>; 2],
}

/// What is at the path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Nothing; whether it can be made.
    Absent { makeable: bool },
    /// Something else.
    NoDirectory,
    /// It is there, but may not be looked at.
    Closed,
    /// A directory.
    Directory { owner: u32, mode: u32, writable: bool },
}

/// A file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FileSystem {
    pub(super) free: u64,
    /// How many files can still be made; none where the file system does not count them.
    pub(super) free_files: Option<u64>,
    pub(super) read_only: bool,
}

/// Looks at the directory.
pub(super) fn read(path: &Path) -> StateReading {
    let writable = |path: &Path| access(path, Access::WRITE_OK | Access::EXEC_OK).is_ok();
    let nearest = path.ancestors().find(|path| path.exists());
    let kind = match fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => {
            Kind::Directory { owner: metadata.uid(), mode: metadata.mode() & 0o777, writable: writable(path) }
        }
        Ok(_) => Kind::NoDirectory,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Kind::Absent { makeable: nearest.is_some_and(|nearest| nearest.is_dir() && writable(nearest)) }
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotADirectory => Kind::Absent { makeable: false },
        Err(_) => Kind::Closed,
    };
    StateReading {
        path: path.to_path_buf(),
        kind,
        user: rustix::process::geteuid().as_raw(),
        file_system: nearest.and_then(file_system),
        ballast: fs::metadata(path.join("ballast")).ok().map(|metadata| metadata.len()),
        holder: holder(path),
        heads: ["head-0", "head-1"].map(|name| head(&path.join(name))),
    }
}

fn file_system(path: &Path) -> Option<FileSystem> {
    let found = statvfs(path).ok()?;
    Some(FileSystem {
        free: found.f_bavail.saturating_mul(found.f_frsize),
        free_files: (found.f_files > 0).then_some(found.f_favail),
        read_only: found.f_flag.contains(StatVfsMountFlags::RDONLY),
    })
}

fn head(path: &Path) -> Option<Result<u64, HeadError>> {
    let decoded = || {
        let mut bytes = Vec::new();
        fs::File::open(path).ok()?.take(HEAD_LIMIT).read_to_end(&mut bytes).ok()?;
        Some(decode_head(&bytes).map(|head| head.sequence))
    };
    match decoded() {
        // A running agent may be writing it: looked at twice, one of the two is whole.
        Some(Err(HeadError::Damaged(_))) => decoded(),
        other => other,
    }
}

/// The process that holds the lock of the directory.
fn holder(path: &Path) -> Option<u32> {
    let lock = path.join("LOCK");
    let metadata = fs::metadata(&lock).ok()?;
    let mut text = String::new();
    fs::File::open(&lock).ok()?.take(256).read_to_string(&mut text).ok()?;
    let said = text.lines().next().and_then(|line| line.trim().parse().ok());
    let locks = fs::read_to_string("/proc/locks").ok()?;
    let device = (rustix::fs::major(metadata.dev()), rustix::fs::minor(metadata.dev()));
    held_by(&locks, device, metadata.ino(), said)
}

/// The process behind a `flock` on a file, out of `/proc/locks`. Some file systems show one device here and another one
/// there; then the process that the file itself names has to agree.
fn held_by(locks: &str, device: (u32, u32), inode: u64, said: Option<u32>) -> Option<u32> {
    locks.lines().find_map(|line| {
        let mut words = line.split_ascii_whitespace().skip(1);
        // `->` marks those who wait.
        if words.next()? != "FLOCK" || words.next().is_none() || words.next()? != "WRITE" {
            return None;
        }
        let process: u32 = words.next()?.parse().ok()?;
        let mut place = words.next()?.split(':');
        let mut number = |radix| u64::from_str_radix(place.next()?, radix).ok();
        let (major, minor, found) = (number(16)?, number(16)?, number(10)?);
        let same = (major, minor) == (u64::from(device.0), u64::from(device.1));
        (found == inode && (same || said == Some(process))).then(|| said.unwrap_or(process))
    })
}

/// What a reading means. `log` is how large the log of one component may become.
pub(super) fn findings_of(reading: &StateReading, log: u64) -> Vec<Finding> {
    let place = reading.path.display();
    let mut findings = Vec::new();
    let read_only = reading.file_system.is_some_and(|found| found.read_only);
    let memory_only =
        "the agent would run from memory: nothing survives a restart, and no start without the sources";
    match reading.kind {
        _ if read_only => findings.push(
            Finding::problem("state", format!("{place} is on a file system that is mounted read-only"))
                .because(memory_only)
                .fix("mount it for writing, or set `[state] dir` to another place"),
        ),
        Kind::Absent { makeable: true } => {
            findings.push(Finding::ok("state", format!("{place} is not there yet; a start makes it")));
        }
        Kind::Absent { makeable: false } => findings.push(
            Finding::problem("state", format!("{place} is not there, and this user cannot make it"))
                .because(memory_only)
                .fix(format!("install -d -m 700 -o invar {place}, or StateDirectory=invar in the unit")),
        ),
        Kind::NoDirectory => findings.push(
            Finding::problem("state", format!("{place} is not a directory"))
                .because(memory_only)
                .fix("set `[state] dir` to another place, or move what is there away"),
        ),
        Kind::Closed => findings.push(
            Finding::problem("state", format!("{place} may not be looked at by this user"))
                .fix("run this as the agent's user, or as root"),
        ),
        Kind::Directory { owner, mode, writable } => {
            findings.push(directory(reading, owner, mode, writable, memory_only));
        }
    }
    if let Some(process) = reading.holder {
        findings.push(Finding::ok("lock", format!("held by process {process}, a running agent")));
    }
    findings.extend(heads(reading));
    findings.extend(room(reading, log));
    findings
}

fn directory(reading: &StateReading, owner: u32, mode: u32, writable: bool, memory_only: &str) -> Finding {
    let place = reading.path.display();
    if mode & 0o022 != 0 {
        return Finding::warning("state", format!("{place} can be written by others (mode {mode:04o})"))
            .because("they could change what the agent starts with")
            .fix(format!("chmod go-w {place}"));
    }
    if !writable {
        let fix = format!("run this as the agent's user; or: chown -R invar {place}");
        return Finding::problem(
            "state",
            format!("{place} cannot be written by this user (uid {})", reading.user),
        )
        .because(format!("it belongs to uid {owner}; without it {memory_only}"))
        .fix(fix);
    }
    if owner != reading.user {
        return Finding::hint(
            "state",
            format!("{place} belongs to uid {owner}, and this is uid {}", reading.user),
        )
        .because("what can be read and written here may differ from what the agent can")
        .fix("run `invar doctor` as the agent's user: sudo -u invar invar doctor");
    }
    Finding::ok("state", format!("{place} belongs to this user and can be written"))
}

fn heads(reading: &StateReading) -> Option<Finding> {
    let place = reading.path.display();
    let [first, second] = &reading.heads;
    let newer = |head: &Option<Result<u64, HeadError>>| match head {
        Some(Err(HeadError::Newer(format))) => Some(*format),
        _ => None,
    };
    if let Some(format) = newer(first).or(newer(second)) {
        return Some(
            Finding::warning("heads", format!("the state is in format {format}, which a newer invar wrote"))
                .because("this version sets it aside and starts from the sources")
                .fix("run the newer version, if that was not meant"),
        );
    }
    let whole = |head: &Option<Result<u64, HeadError>>| matches!(head, Some(Ok(_)));
    let torn = |head: &Option<Result<u64, HeadError>>| matches!(head, Some(Err(HeadError::Damaged(_))));
    match (whole(first) || whole(second), torn(first) || torn(second)) {
        (true, false) => Some(Finding::ok("heads", "what the agent starts from can be read")),
        (true, true) => Some(
            Finding::warning("heads", "one of the two records the agent starts from is damaged; the other is whole")
                .because("power was lost while it was written, or the disk is failing")
                .fix("the next write mends it; if it comes back, look at the disk (dmesg)"),
        ),
        (false, true) => Some(
            Finding::problem("heads", "both records the agent starts from are damaged")
                .because("the last known good, holds and quarantines are lost; the newest manifest that is whole runs")
                .fix(format!("look at the disk (dmesg); if it is sound, a start goes on from the sources ({place})")),
        ),
        // Never written: nothing ran yet.
        (false, false) => None,
    }
}

fn room(reading: &StateReading, log: u64) -> Vec<Finding> {
    let Some(file_system) = reading.file_system.filter(|found| !found.read_only) else { return Vec::new() };
    let free = size(file_system.free);
    let fix = "make room, or set `[state] dir` to a larger file system";
    let mut findings = vec![match file_system.free {
        0..LEAST => Finding::problem("space", format!("{free} are free for state"))
            .because("no new configuration can be applied: what it would return to could not be written")
            .fix(fix),
        LEAST..LITTLE => Finding::warning("space", format!("{free} are free for state"))
            .because("logs of components fill it first; then nothing new can be applied")
            .fix(fix),
        enough if enough < log => Finding::hint("space", format!("{free} are free for state"))
            .because(format!("the log of one component may become {}", size(log)))
            .fix("lower `[limits] log`, or make room"),
        _ => Finding::ok("space", format!("{free} are free for state")),
    }];
    if file_system.free_files.is_some_and(|free| free < 1000) {
        findings.push(
            Finding::problem("space", "hardly any file can be made where state is kept (no inodes)").fix(fix),
        );
    }
    let used = reading.heads.iter().flatten().any(Result::is_ok);
    if used && reading.ballast.is_none_or(|ballast| ballast < LEAST) {
        findings.push(
            Finding::warning("ballast", "the ballast is gone: the disk was full")
                .because("it is given up so that the agent can still note why it applies nothing")
                .fix("make room; the agent puts it back by itself"),
        );
    }
    findings
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use invar_rollout::{Control, Head, encode_head};
    use invar_sources::Severity;
    use proptest::prelude::*;

    use super::*;

    fn well() -> StateReading {
        StateReading {
            path: "/var/lib/invar".into(),
            kind: Kind::Directory { owner: 997, mode: 0o700, writable: true },
            user: 997,
            file_system: Some(FileSystem { free: 10 << 30, free_files: Some(1 << 20), read_only: false }),
            ballast: Some(LEAST),
            holder: None,
            heads: [Some(Ok(7)), Some(Ok(8))],
        }
    }

    fn of(reading: &StateReading) -> Vec<(&'static str, Severity)> {
        let findings = findings_of(reading, 2 << 30);
        for finding in findings.iter().filter(|finding| finding.severity >= Severity::Warning) {
            assert!(finding.fix.is_some(), "{finding:?}");
        }
        findings.iter().map(|finding| (finding.check, finding.severity)).collect()
    }

    fn severity(reading: &StateReading, check: &str) -> Option<Severity> {
        of(reading).into_iter().find(|(found, _)| *found == check).map(|(_, severity)| severity)
    }

    #[test]
    fn a_directory_in_order_gives_no_work() {
        assert_eq!(of(&well()), [("state", Severity::Ok), ("heads", Severity::Ok), ("space", Severity::Ok)]);
        let held = StateReading { holder: Some(42), ..well() };
        assert_eq!(severity(&held, "lock"), Some(Severity::Ok));
    }

    #[test]
    fn who_may_use_the_directory() {
        let kind = |kind| severity(&StateReading { kind, ..well() }, "state").unwrap();
        assert_eq!(kind(Kind::Absent { makeable: true }), Severity::Ok);
        assert_eq!(kind(Kind::Absent { makeable: false }), Severity::Problem);
        assert_eq!(kind(Kind::NoDirectory), Severity::Problem);
        assert_eq!(kind(Kind::Closed), Severity::Problem);
        let directory = |owner, mode, writable| kind(Kind::Directory { owner, mode, writable });
        assert_eq!(directory(997, 0o750, true), Severity::Ok);
        assert_eq!(directory(997, 0o770, true), Severity::Warning);
        assert_eq!(directory(0, 0o700, false), Severity::Problem);
        assert_eq!(directory(1000, 0o700, true), Severity::Hint);
    }

    #[test]
    fn a_read_only_file_system_is_a_problem_and_its_room_is_none() {
        let file_system = Some(FileSystem { free: 0, free_files: None, read_only: true });
        let reading = StateReading { file_system, ..well() };
        assert_eq!(of(&reading), [("state", Severity::Problem), ("heads", Severity::Ok)]);
    }

    #[test]
    fn room_and_ballast() {
        let free = |free| {
            let file_system = Some(FileSystem { free, free_files: Some(1 << 20), read_only: false });
            severity(&StateReading { file_system, ..well() }, "space").unwrap()
        };
        assert_eq!(free(0), Severity::Problem);
        assert_eq!(free(100 << 20), Severity::Warning);
        assert_eq!(free(1 << 30), Severity::Hint);
        assert_eq!(free(3 << 30), Severity::Ok);
        let file_system = Some(FileSystem { free: 3 << 30, free_files: Some(3), read_only: false });
        assert!(of(&StateReading { file_system, ..well() }).contains(&("space", Severity::Problem)));
        assert_eq!(severity(&StateReading { ballast: None, ..well() }, "ballast"), Some(Severity::Warning));
        let fresh = StateReading { ballast: None, heads: [None, None], ..well() };
        assert_eq!(severity(&fresh, "ballast"), None, "a directory that was never used has none");
    }

    #[test]
    fn what_the_agent_starts_from() {
        let heads = |first, second| severity(&StateReading { heads: [first, second], ..well() }, "heads");
        let torn = || Some(Err(HeadError::Damaged("checksum")));
        let blank = || Some(Err(HeadError::Blank));
        assert_eq!(heads(Some(Ok(1)), blank()), Some(Severity::Ok));
        assert_eq!(heads(Some(Ok(1)), torn()), Some(Severity::Warning));
        assert_eq!(heads(torn(), torn()), Some(Severity::Problem));
        assert_eq!(heads(blank(), blank()), None);
        assert_eq!(heads(Some(Err(HeadError::Newer(9))), Some(Ok(1))), Some(Severity::Warning));
    }

    #[test]
    fn a_real_directory_is_read_without_touching_it() {
        let folder = tempfile::tempdir().unwrap();
        let head = Head { sequence: 7, control: Control::default() };
        fs::write(folder.path().join("head-0"), encode_head(&head).unwrap()).unwrap();
        fs::write(folder.path().join("head-1"), b"torn").unwrap();
        let reading = read(folder.path());
        assert_eq!(reading.heads[0], Some(Ok(7)));
        assert!(matches!(reading.heads[1], Some(Err(HeadError::Damaged(_)))));
        assert!(matches!(reading.kind, Kind::Directory { writable: true, .. }), "{reading:?}");
        assert_eq!(reading.holder, None);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
        let below = read(&folder.path().join("head-0/state"));
        assert_eq!(below.kind, Kind::Absent { makeable: false });
        assert_eq!(read(&folder.path().join("a/b")).kind, Kind::Absent { makeable: true });
        assert_eq!(read(&folder.path().join("head-0")).kind, Kind::NoDirectory);
    }

    #[test]
    fn the_holder_of_a_lock_is_found_among_all() {
        let locks = "1: FLOCK  ADVISORY  WRITE 20122 fe:00:5669110 0 EOF\n\
                     2: POSIX  ADVISORY  WRITE 77 fe:00:42 0 EOF\n\
                     3: FLOCK  ADVISORY  READ 78 fe:00:42 0 EOF\n\
                     3: -> FLOCK  ADVISORY  WRITE 79 fe:00:42 0 EOF\n\
                     4: FLOCK  ADVISORY  WRITE 13181 fe:00:42 0 EOF\n";
        assert_eq!(held_by(locks, (0xfe, 0), 42, None), Some(13_181));
        // Another device: only with the word of the file itself.
        assert_eq!(held_by(locks, (0, 31), 42, None), None);
        assert_eq!(held_by(locks, (0, 31), 42, Some(13_181)), Some(13_181));
        assert_eq!(held_by(locks, (0xfe, 0), 43, Some(13_181)), None);
    }

    #[test]
    fn a_lock_that_is_held_is_seen() {
        let folder = tempfile::tempdir().unwrap();
        let lock = fs::File::create(folder.path().join("LOCK")).unwrap();
        fs::write(folder.path().join("LOCK"), format!("{}\nboot\n", std::process::id())).unwrap();
        assert_eq!(holder(folder.path()), None);
        rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive).unwrap();
        assert_eq!(holder(folder.path()), Some(std::process::id()));
    }

    proptest! {
        #[test]
        fn any_list_of_locks_is_read_or_not(text in "([0-9]: (-> )?FLOCK +ADVISORY +WRITE )?[ -~\n]{0,80}") {
            let _held = held_by(&text, (1, 2), 3, Some(4));
        }
    }
}

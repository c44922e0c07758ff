//! The machine: limits of the process, inotify, core files, memory, systemd, and what of the environment is not looked at.
//! Readings of a running agent's own process count where there is one: a shell has other limits than a unit.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use invar_sources::{Finding, Severity};

use super::super::output::size;

/// Open files below which a warning is due: connections, logs and watches of a usual pipeline fit in with room to spare.
const OPEN_FILES: u64 = 4096;
/// Longest time and most entries that counting the host's watches may take.
const COUNTING: Duration = Duration::from_secs(2);
const MOST_FILES: usize = 200_000;
/// Least memory an agent should be given, in bytes.
const LITTLE_MEMORY: u64 = 64 << 20;

/// What is to be known of the host.
#[derive(Clone, Debug, Default)]
pub(super) struct HostReading {
    /// The running agent whose process was looked at; without one it was this command's.
    pub(super) agent: Option<u32>,
    /// Whether the agent's own process could be looked at.
    pub(super) closed: bool,
    /// Soft and hard limit of open files; `u64::MAX` without one.
    pub(super) open_files: Option<(u64, u64)>,
    /// Soft limit of core files, in bytes.
    pub(super) core: Option<u64>,
    /// `/proc/sys/kernel/core_pattern`.
    pub(super) core_pattern: Option<String>,
    pub(super) inotify: Option<Inotify>,
    /// The lowest limit of the control groups, in bytes.
    pub(super) group_memory: Option<u64>,
    /// All memory of the host, in bytes.
    pub(super) memory: Option<u64>,
    /// Variables that name proxies, which are not looked at.
    pub(super) proxies: Vec<String>,
    pub(super) systemd: Option<Systemd>,
}

/// `inotify(7)`: limits of one user, and what is used of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Inotify {
    pub(super) instances: u64,
    pub(super) watches: u64,
    pub(super) used_instances: u64,
    pub(super) used_watches: u64,
}

/// How systemd runs the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Systemd {
    /// It is a service.
    pub(super) service: bool,
    /// It hears when the agent is ready.
    pub(super) notify: bool,
    /// It ends an agent that hangs.
    pub(super) watchdog: bool,
}

/// Looks at the host and at the process of the running agent, or at this one.
pub(super) fn read(agent: Option<u32>) -> HostReading {
    let process = agent.map_or_else(|| "/proc/self".into(), |agent| PathBuf::from(format!("/proc/{agent}")));
    let text = |path: &str| fs::read_to_string(path).ok();
    let limits = fs::read_to_string(process.join("limits")).unwrap_or_default();
    let environment = fs::read(process.join("environ"));
    let groups = fs::read_to_string(process.join("cgroup")).unwrap_or_default();
    let group = groups.lines().find_map(|line| line.strip_prefix("0::"));
    let proxies = ["HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "https_proxy", "http_proxy", "all_proxy"];
    let variables = environment.as_deref().map(names).unwrap_or_default();
    HostReading {
        agent,
        closed: agent.is_some() && environment.is_err(),
        open_files: limit(&limits, "Max open files"),
        core: limit(&limits, "Max core file size").map(|(soft, _)| soft),
        core_pattern: text("/proc/sys/kernel/core_pattern").map(|text| text.trim().to_owned()),
        inotify: inotify(&process),
        group_memory: group.and_then(|group| group_limit(Path::new("/sys/fs/cgroup"), group)),
        memory: text("/proc/meminfo").as_deref().and_then(total_memory),
        proxies: proxies
            .into_iter()
            .filter(|name| variables.iter().any(|variable| variable == name))
            .map(str::to_owned)
            .collect(),
        systemd: (agent.is_some() && environment.is_ok()).then(|| Systemd {
            service: group.is_some_and(|group| group.split('/').any(|part| part.ends_with(".service"))),
            notify: variables.iter().any(|name| name == "NOTIFY_SOCKET"),
            watchdog: variables.iter().any(|name| name == "WATCHDOG_USEC"),
        }),
    }
}

/// The names of variables that have a value; the values are not kept.
fn names(environment: &[u8]) -> Vec<String> {
    environment
        .split(|byte| *byte == 0)
        .filter_map(|variable| {
            let at = variable.iter().position(|byte| *byte == b'=')?;
            let filled = variable.len() > at + 1;
            filled.then(|| String::from_utf8_lossy(&variable[..at]).into_owned())
        })
        .collect()
}

/// Soft and hard limit out of `/proc/PID/limits`.
fn limit(limits: &str, name: &str) -> Option<(u64, u64)> {
    let mut words = limits.lines().find_map(|line| line.strip_prefix(name))?.split_ascii_whitespace();
    let mut number = || match words.next()? {
        "unlimited" => Some(u64::MAX),
        digits => digits.parse().ok(),
    };
    Some((number()?, number()?))
}

fn total_memory(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

/// The lowest `memory.max` from a control group upwards.
fn group_limit(root: &Path, group: &str) -> Option<u64> {
    let mut folder = root.join(group.trim_start_matches('/'));
    let mut lowest: Option<u64> = None;
    loop {
        let found = fs::read_to_string(folder.join("memory.max")).ok();
        if let Some(limit) = found.and_then(|text| text.trim().parse().ok()) {
            lowest = Some(lowest.map_or(limit, |lowest| lowest.min(limit)));
        }
        if folder == root || !folder.pop() || !folder.starts_with(root) {
            return lowest;
        }
    }
}

/// The limits, and what all processes of the user have in use, as far as they may be looked at.
fn inotify(process: &Path) -> Option<Inotify> {
    let number = |name: &str| {
        let text = fs::read_to_string(format!("/proc/sys/fs/inotify/{name}")).ok()?;
        text.trim().parse::<u64>().ok()
    };
    let user = fs::metadata(process).ok()?.uid();
    let mut found = Inotify {
        instances: number("max_user_instances")?,
        watches: number("max_user_watches")?,
        used_instances: 0,
        used_watches: 0,
    };
    let end = Instant::now() + COUNTING;
    let mut seen = 0;
    for entry in fs::read_dir("/proc").ok()?.flatten() {
        let is_process = entry.file_name().to_str().is_some_and(|name| name.parse::<u32>().is_ok());
        if !is_process || !entry.metadata().is_ok_and(|metadata| metadata.uid() == user) {
            continue;
        }
        // A process that ended meanwhile, or may not be looked at, counts for nothing.
        let Ok(files) = fs::read_dir(entry.path().join("fd")) else { continue };
        for file in files.flatten() {
            seen += 1;
            if seen > MOST_FILES || Instant::now() > end {
                return Some(found);
            }
            if !fs::read_link(file.path()).is_ok_and(|target| target == Path::new("anon_inode:inotify")) {
                continue;
            }
            found.used_instances += 1;
            let info = entry.path().join("fdinfo").join(file.file_name());
            let info = fs::read_to_string(info).unwrap_or_default();
            found.used_watches += info.lines().filter(|line| line.starts_with("inotify ")).count() as u64;
        }
    }
    Some(found)
}

/// What a reading means. `memory` is `[limits] memory`, `has_proxy` whether every remote source has one of its own.
pub(super) fn findings_of(reading: &HostReading, memory: Option<u64>, has_proxy: bool) -> Vec<Finding> {
    let mut findings = Vec::new();
    let whose = match reading.agent {
        Some(process) => format!("the agent (process {process})"),
        None => "a process started from here".to_owned(),
    };
    if reading.closed {
        findings.push(
            Finding::hint("process", format!("{whose} may not be looked at in full by this user"))
                .because("an agent closes its memory, and what is beside it in /proc, to other processes")
                .fix("run this as root"),
        );
    }
    findings.extend(reading.open_files.map(|(soft, hard)| {
        let mut finding = open_files(&whose, soft, hard);
        if reading.agent.is_none() && finding.severity == Severity::Warning {
            // The agent's unit may well give it more than this shell has.
            finding.severity = Severity::Hint;
        }
        finding
    }));
    findings.extend(reading.inotify.as_ref().map(watches));
    findings.extend(core_files(reading));
    findings.push(memory_limit(reading, memory));
    if !reading.proxies.is_empty() && !has_proxy {
        findings.push(
            Finding::hint("proxy", format!("{} set, and not looked at", list(&reading.proxies)))
                .because(
                    "sources have a proxy of their own, so that what runs follows from the settings alone",
                )
                .fix(
                    "if sources need it: proxy = { url = \"http://…\", no_proxy = [\"…\"] } in their tables",
                ),
        );
    }
    findings.extend(reading.systemd.and_then(service));
    findings
}

fn list(names: &[String]) -> String {
    match names {
        [name] => format!("{name} is"),
        _ => format!("{} are", names.join(", ")),
    }
}

fn open_files(whose: &str, soft: u64, hard: u64) -> Finding {
    if soft >= OPEN_FILES {
        let count = if soft == u64::MAX { "any number of".to_owned() } else { soft.to_string() };
        return Finding::ok("files", format!("{whose} may open {count} files"));
    }
    let ceiling = if hard > soft { "" } else { " and the hard limit is no higher" };
    Finding::warning("files", format!("{whose} may open {soft} files only{ceiling}"))
        .because(
            "each connection, log and watched file takes one; without any left, nothing is scraped or sent",
        )
        .fix("LimitNOFILE=65536 in the unit, or ulimit -n 65536")
}

fn watches(inotify: &Inotify) -> Finding {
    let Inotify { instances, watches, used_instances, used_watches } = *inotify;
    let used = format!(
        "inotify: {used_instances} of {instances} instances, {used_watches} of {watches} watches are used"
    );
    let fix = "sysctl fs.inotify.max_user_instances=1024 fs.inotify.max_user_watches=524288, and the same in /etc/sysctl.d";
    let why = "without a watch, changes of files are seen at the next poll only";
    if used_instances >= instances || used_watches >= watches {
        return Finding::problem("inotify", format!("no file can be watched: {used}")).because(why).fix(fix);
    }
    let scarce = |used: u64, limit: u64| used.saturating_mul(5) >= limit.saturating_mul(4);
    if scarce(used_instances, instances) || scarce(used_watches, watches) || instances < 64 {
        return Finding::warning("inotify", format!("few files more can be watched: {used}"))
            .because(why)
            .fix(fix);
    }
    Finding::ok("inotify", used)
}

/// An agent forbids core files for itself, which a program that cores are piped to may overlook.
fn core_files(reading: &HostReading) -> Option<Finding> {
    if let Some(process) = reading.agent
        && let Some(limit) = reading.core
        && limit > 0
    {
        return Some(
            Finding::warning("core", format!("process {process} may leave core files"))
                .because("memory holds secrets, and a core file puts them on disk")
                .fix("LimitCORE=0 in the unit; see the agent's log for why it could not switch them off"),
        );
    }
    let program = reading.core_pattern.as_deref().and_then(|pattern| pattern.strip_prefix('|'));
    let program = program.and_then(|command| command.split_ascii_whitespace().next());
    let Some(program) = program else {
        return Some(Finding::ok("core", "no core files: the agent's own limit holds"));
    };
    // These two look at the limit themselves.
    let heeds = ["systemd-coredump", "apport"].iter().any(|name| program.ends_with(name));
    Some(if heeds {
        Finding::ok("core", format!("no core files: {program} heeds the agent's limit"))
    } else {
        Finding::warning("core", format!("core files are piped to {program}"))
            .because("the kernel does so whatever a process's limit is; memory holds secrets")
            .fix("see that it drops those of invar, or: sysctl kernel.core_pattern=core")
    })
}

fn memory_limit(reading: &HostReading, said: Option<u64>) -> Finding {
    match (reading.group_memory, said) {
        (Some(group), Some(said)) if said > group => Finding::warning(
            "memory",
            format!("`[limits] memory` is {}, the control group gives {}", size(said), size(group)),
        )
        .because("the lower one ends the process; what the settings say is not reached")
        .fix("raise MemoryMax= (or the container's limit), or lower `[limits] memory`"),
        (Some(group), _) if group < LITTLE_MEMORY => {
            Finding::warning("memory", format!("the control group gives {}", size(group)))
                .because(
                    "a configuration that is on its way runs beside the old one for a moment, and takes more",
                )
                .fix(format!("give it at least {}", size(LITTLE_MEMORY)))
        }
        (Some(group), _) => Finding::ok("memory", format!("the control group gives {}", size(group))),
        (None, Some(said)) if reading.memory.is_some_and(|all| said > all) => {
            Finding::warning("memory", format!("`[limits] memory` is {}, and this host has less", size(said)))
                .because("the rule that undoes a configuration which takes too much never applies")
                .fix("lower `[limits] memory`")
        }
        (None, Some(said)) => Finding::ok("memory", format!("`[limits] memory` is {}", size(said))),
        (None, None) => Finding::hint("memory", "nothing limits the agent's memory")
            .because(
                "the rule that undoes a configuration which takes too much needs a limit to measure against",
            )
            .fix("MemoryMax=512M in the unit, or memory = \"512MiB\" under [limits]"),
    }
}

fn service(systemd: Systemd) -> Option<Finding> {
    match systemd {
        Systemd { service: false, notify: false, .. } => None,
        Systemd { notify: false, .. } => Some(
            Finding::hint("systemd", "systemd does not hear when the agent is ready")
                .because("what is ordered after it starts too early")
                .fix("Type=notify in the unit"),
        ),
        Systemd { watchdog: false, .. } => Some(
            Finding::hint("systemd", "systemd does not notice if the agent hangs")
                .fix("WatchdogSec=30s in the unit"),
        ),
        _ => Some(Finding::ok("systemd", "systemd hears when the agent is ready, and whether it lives")),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    fn well() -> HostReading {
        HostReading {
            agent: Some(42),
            closed: false,
            open_files: Some((65_536, 65_536)),
            core: Some(0),
            core_pattern: Some("core".to_owned()),
            inotify: Some(Inotify { instances: 128, watches: 65_536, used_instances: 3, used_watches: 20 }),
            group_memory: Some(512 << 20),
            memory: Some(8 << 30),
            proxies: Vec::new(),
            systemd: Some(Systemd { service: true, notify: true, watchdog: true }),
        }
    }

    fn severity(reading: &HostReading, check: &str) -> Option<Severity> {
        of(reading, None, false, check)
    }

    fn of(reading: &HostReading, memory: Option<u64>, has_proxy: bool, check: &str) -> Option<Severity> {
        let findings = findings_of(reading, memory, has_proxy);
        for finding in findings.iter().filter(|finding| finding.severity != Severity::Ok) {
            assert!(finding.fix.is_some(), "{finding:?}");
        }
        findings.into_iter().find(|finding| finding.check == check).map(|finding| finding.severity)
    }

    #[test]
    fn a_host_in_order() {
        let findings = findings_of(&well(), None, false);
        assert!(findings.iter().all(|finding| finding.severity == Severity::Ok), "{findings:?}");
        assert_eq!(findings.len(), 5, "{findings:?}");
    }

    #[test]
    fn few_open_files() {
        let files = |soft, hard| severity(&HostReading { open_files: Some((soft, hard)), ..well() }, "files");
        assert_eq!(files(1024, 524_288), Some(Severity::Warning));
        assert_eq!(files(u64::MAX, u64::MAX), Some(Severity::Ok));
        let shell = HostReading { agent: None, open_files: Some((1024, 4096)), ..well() };
        assert_eq!(severity(&shell, "files"), Some(Severity::Hint), "a unit has limits of its own");
        assert_eq!(severity(&HostReading { open_files: None, ..well() }, "files"), None);
    }

    #[test]
    fn few_watches() {
        let inotify = |instances, watches, used_instances, used_watches| {
            let inotify = Some(Inotify { instances, watches, used_instances, used_watches });
            severity(&HostReading { inotify, ..well() }, "inotify").unwrap()
        };
        assert_eq!(inotify(128, 8192, 128, 10), Severity::Problem);
        assert_eq!(inotify(128, 8192, 3, 8192), Severity::Problem);
        assert_eq!(inotify(128, 8192, 110, 10), Severity::Warning);
        assert_eq!(inotify(128, 8192, 3, 7000), Severity::Warning);
        assert_eq!(inotify(16, 8192, 3, 10), Severity::Warning);
    }

    #[test]
    fn core_files_of_a_process_with_secrets() {
        assert_eq!(
            severity(&HostReading { core: Some(u64::MAX), ..well() }, "core"),
            Some(Severity::Warning)
        );
        let pattern = |pattern: &str| {
            severity(&HostReading { core_pattern: Some(pattern.to_owned()), ..well() }, "core").unwrap()
        };
        assert_eq!(pattern("|/usr/lib/systemd/systemd-coredump %P %u"), Severity::Ok);
        assert_eq!(pattern("|/opt/collect %P"), Severity::Warning);
        assert_eq!(pattern("/var/crash/core.%p"), Severity::Ok);
    }

    #[test]
    fn limits_of_memory() {
        let memory = |group_memory, said| of(&HostReading { group_memory, ..well() }, said, false, "memory");
        assert_eq!(memory(Some(512 << 20), Some(1 << 30)), Some(Severity::Warning));
        assert_eq!(memory(Some(512 << 20), Some(256 << 20)), Some(Severity::Ok));
        assert_eq!(memory(Some(32 << 20), None), Some(Severity::Warning));
        assert_eq!(memory(None, Some(1 << 30)), Some(Severity::Ok));
        assert_eq!(memory(None, Some(16 << 30)), Some(Severity::Warning));
        assert_eq!(memory(None, None), Some(Severity::Hint));
    }

    #[test]
    fn proxies_of_the_environment_and_services() {
        let proxied = HostReading { proxies: vec!["HTTPS_PROXY".to_owned()], ..well() };
        assert_eq!(of(&proxied, None, false, "proxy"), Some(Severity::Hint));
        assert_eq!(of(&proxied, None, true, "proxy"), None);
        let systemd = |service, notify, watchdog| {
            severity(
                &HostReading { systemd: Some(Systemd { service, notify, watchdog }), ..well() },
                "systemd",
            )
        };
        assert_eq!(systemd(true, true, false), Some(Severity::Hint));
        assert_eq!(systemd(true, false, false), Some(Severity::Hint));
        assert_eq!(systemd(false, false, false), None);
        assert_eq!(severity(&HostReading { closed: true, ..well() }, "process"), Some(Severity::Hint));
    }

    #[test]
    fn what_the_kernel_says_is_read() {
        let limits = "Limit                     Soft Limit           Hard Limit           Units     \n\
                      Max core file size        0                    unlimited            bytes     \n\
                      Max open files            1024                 524288               files     \n";
        assert_eq!(limit(limits, "Max open files"), Some((1024, 524_288)));
        assert_eq!(limit(limits, "Max core file size"), Some((0, u64::MAX)));
        assert_eq!(limit(limits, "Max nothing"), None);
        assert_eq!(total_memory("MemTotal:       16318480 kB\nMemFree: 1 kB\n"), Some(16_318_480 << 10));
        assert_eq!(names(b"A=1\0HTTPS_PROXY=http://u:hunter2@p\0EMPTY=\0odd"), ["A", "HTTPS_PROXY"]);
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("system.slice/invar.service")).unwrap();
        fs::write(root.path().join("system.slice/memory.max"), "1000\n").unwrap();
        fs::write(root.path().join("system.slice/invar.service/memory.max"), "max\n").unwrap();
        assert_eq!(group_limit(root.path(), "/system.slice/invar.service"), Some(1000));
        assert_eq!(group_limit(root.path(), "/elsewhere"), None);
    }

    #[test]
    fn this_process_is_read() {
        let reading = read(Some(std::process::id()));
        assert!(reading.open_files.is_some() && !reading.closed, "{reading:?}");
        assert_eq!(reading.agent, Some(std::process::id()));
    }

    proptest! {
        #[test]
        fn any_text_of_the_kernel_is_read_or_not(text in "(Max open files +)?[0-9a-z \n=\0:]{0,60}") {
            let _read = (limit(&text, "Max open files"), total_memory(&text), names(text.as_bytes()));
        }
    }
}

//! Plays the story of every case of one kind of source in one agent: all faults begin together, and all end together. A
//! fault is one of the way to the server, of what it shows, of this host, or of what was published.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Once, OnceLock};
use std::time::{Duration, Instant};

use invar_integration::fault_proxy::{Fault, FaultProxy, Protocol};
use invar_integration::{Agent, AgentOptions, Receiver, Target, wait_for};
use serde_json::Value;

use crate::certificates::{Authority, Shown};
use crate::file::Careless;

/// Until every source has brought its first revision, and until every fault is seen.
const BEGIN: Duration = Duration::from_secs(120);
/// What an ordinary recovery may take: some steps of backoff, and the turns that many sources take.
const SOON: Duration = Duration::from_secs(90);
/// What recovery may take where the agent waits for a minute before it asks again.
const LATER: Duration = Duration::from_secs(110);
/// What the turns of other sources, and the next poll itself, may take.
const TURNS: Duration = Duration::from_secs(30);
/// Suites that are played at the same time: the five that mostly wait, which come first, and a few others.
const AT_ONCE: usize = 8;
/// Until the metrics say what the status says.
const METRICS: Duration = Duration::from_secs(20);
/// Samples that have to arrive from what runs on.
const FLOW: usize = 3;
/// Requests that a fault without an error has to meet.
const HIDDEN: u64 = 3;

/// What is made to happen to a source.
#[derive(Clone, Debug)]
pub(crate) enum Trouble {
    /// The proxy before its server fails.
    Proxy(Fault),
    /// The server shows a certificate that is wrong.
    Certificate(Shown),
    /// Somebody is careless on this host.
    Host(Careless),
    /// What is published cannot be read, or should not be.
    Content,
}

impl Trouble {
    /// What a poll may take: short where the fault is that nothing comes, and else as long as it takes a host that is busy.
    fn timeout(&self) -> &'static str {
        match self {
            Self::Proxy(Fault::Hang | Fault::Drip(_) | Fault::HalfOpen) => "1s",
            _ => "10s",
        }
    }
}

/// A fault, and what has to be seen of it.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) name: &'static str,
    trouble: Trouble,
    /// The class of the error, with the reason of a refusal behind a slash where that is of interest, and words of its
    /// message; without one the fault is none, and the new revision runs.
    error: Option<(&'static str, &'static [&'static str])>,
    /// Somebody has to look.
    alarms: bool,
    /// Words of what is noticed about the new revision.
    notes: &'static [&'static str],
    /// Nobody can tell this fault from a server where nothing is new.
    hidden: bool,
    patience: Duration,
}

impl Case {
    /// A case that does no harm.
    pub(crate) fn new(name: &'static str, trouble: Trouble) -> Self {
        Self { name, trouble, error: None, alarms: false, notes: &[], hidden: false, patience: SOON }
    }

    /// It is an error of this class whose message has these words.
    pub(crate) fn fails(self, class: &'static str, says: &'static [&'static str]) -> Self {
        Self { error: Some((class, says)), ..self }
    }

    /// And somebody is called to look.
    pub(crate) fn alarms(self) -> Self {
        Self { alarms: true, ..self }
    }

    /// The new revision runs, and this is noticed about it.
    pub(crate) fn notes(self, words: &'static [&'static str]) -> Self {
        Self { notes: words, ..self }
    }

    /// It looks as if nothing were new: there is no error, and what ran runs on.
    pub(crate) fn hides(self) -> Self {
        Self { hidden: true, ..self }
    }

    /// It takes more than a minute until the source is asked again.
    pub(crate) fn patient(self) -> Self {
        Self { patience: LATER, ..self }
    }

    /// Whether the revision from before the fault stays.
    pub(crate) fn stands_still(&self) -> bool {
        self.error.is_some() || self.hidden
    }

    fn component(&self) -> String {
        format!("prometheus.scrape.{}", self.name)
    }
}

/// Where the source of a case is.
pub(crate) struct Place<'a> {
    pub(crate) case: &'a str,
    /// The proxy before the server.
    pub(crate) address: Option<SocketAddr>,
}

/// A kind of source with what stands behind it.
pub(crate) trait Kind {
    /// Where the server is that proxies pass connections on to.
    fn upstream(&self) -> Option<SocketAddr> {
        None
    }

    /// What that server speaks to the source of a case.
    fn protocol(&self, _case: &str) -> Protocol {
        Protocol::Http
    }

    /// What the `[[source]]` table of a case says beside name, interval, timeout and `tls`.
    fn settings(&self, place: &Place<'_>) -> String;

    /// Makes these texts the next revision, one a case.
    fn publish(&self, texts: &[(&str, String)]);

    /// What must not be found in anything the agent says or keeps.
    fn secrets(&self) -> Vec<String> {
        Vec::new()
    }

    /// Begins to be careless.
    fn begin(&self, _case: &str, _careless: Careless) {}

    /// Puts everything back.
    fn end(&self, _case: &str, _careless: Careless) {}

    /// Makes what a case has published bad. What is published from now on stays aside, except where the case does no harm.
    fn spoil(&self, _case: &str) {}

    /// Publishes what stayed aside.
    fn mend(&self, _case: &str) {}
}

/// Says that a kind is not played, which is a failure where everything has to be.
pub(crate) fn skip(why: &str) {
    assert!(std::env::var_os("INVAR_REQUIRE_SERVERS").is_none(), "{why}");
    eprintln!("skipped: {why}");
}

/// What became of each case.
pub(crate) type Outcomes = BTreeMap<&'static str, Result<(), String>>;

/// The cases of one kind, played once for all tests that ask.
pub(crate) struct Suite {
    play: fn() -> Option<Outcomes>,
    outcomes: OnceLock<Option<Outcomes>>,
}

impl Suite {
    pub(crate) const fn new(play: fn() -> Option<Outcomes>) -> Self {
        Self { play, outcomes: OnceLock::new() }
    }

    /// What became of the cases; nothing where what they need is not installed.
    fn outcomes(&'static self) -> &'static Option<Outcomes> {
        static ALL: Once = Once::new();
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        // With a filter only what is asked for is played.
        if std::env::args().skip(1).all(|argument| argument.starts_with('-')) {
            ALL.call_once(|| {
                // Whoever asks for one waits for it.
                for _ in 0..AT_ONCE {
                    std::thread::spawn(|| {
                        while let Some(suite) = crate::SUITES.get(NEXT.fetch_add(1, Ordering::SeqCst)) {
                            suite.outcomes.get_or_init(suite.play);
                        }
                    });
                }
            });
        }
        self.outcomes.get_or_init(self.play)
    }

    /// The case went as it should.
    pub(crate) fn shows(&'static self, case: &str) {
        let Some(outcomes) = self.outcomes() else { return };
        if let Err(problem) = &outcomes[case] {
            panic!("{case}: {problem}");
        }
    }

    /// These are all cases there are.
    pub(crate) fn has_exactly(&'static self, names: &[&str]) {
        let Some(outcomes) = self.outcomes() else { return };
        let untested: Vec<_> = outcomes.keys().filter(|name| !names.contains(name)).collect();
        assert!(untested.is_empty(), "without a test: {untested:?}");
    }
}

/// One case while it is played.
struct Played<'a> {
    case: Case,
    proxy: Option<FaultProxy>,
    kind: &'a dyn Kind,
    /// What the source had before the fault.
    revision: Value,
    instance: String,
    /// What went wrong, once something did.
    problem: Option<String>,
}

impl Played<'_> {
    fn blame(&mut self, problem: impl Into<String>) {
        self.problem.get_or_insert(problem.into());
    }

    fn begin(&self, authority: &Authority) {
        match (&self.case.trouble, &self.proxy) {
            (Trouble::Proxy(fault), Some(proxy)) => proxy.fail(fault.clone()),
            (Trouble::Certificate(shown), Some(proxy)) => {
                proxy.set_tls(Some(authority.server(*shown, &proxy.address().ip().to_string())));
            }
            (Trouble::Host(careless), proxy) => {
                self.kind.begin(self.case.name, *careless);
                // Who was let in before is not to read what comes after.
                if let Some(proxy) = proxy {
                    proxy.cut();
                }
            }
            (Trouble::Content, _) => self.kind.spoil(self.case.name),
            _ => panic!("{} needs a proxy", self.case.name),
        }
    }

    fn end(&self, authority: &Authority) {
        match (&self.case.trouble, &self.proxy) {
            (Trouble::Proxy(_), Some(proxy)) => proxy.heal().unwrap(),
            (Trouble::Certificate(_), Some(proxy)) => {
                proxy.set_tls(Some(authority.server(Shown::Good, &proxy.address().ip().to_string())));
            }
            (Trouble::Host(careless), _) => self.kind.end(self.case.name, *careless),
            (Trouble::Content, _) => self.kind.mend(self.case.name),
            _ => {}
        }
    }
}

/// How long a source may be left alone after as many failures as it has had. A machine that is busy adds some to those that
/// a case means to make.
fn longest_pause(source: &Value) -> Duration {
    let failures = source["checks"]["failed"].as_u64().unwrap_or_default().clamp(1, 16);
    let (first, longest) = match source["error"]["class"].as_str() {
        Some("auth_expired" | "forbidden" | "rate_limited") => (60, 15 * 60),
        Some("integrity") => (60, 60),
        _ => (1, 5 * 60),
    };
    Duration::from_secs((first << (failures - 1)).min(longest)).mul_f64(1.1)
}

/// Plays the cases of a kind; nothing where there is no kind.
pub(crate) fn play(name: &str, kind: Option<Box<dyn Kind>>, cases: Vec<Case>) -> Option<Outcomes> {
    let kind = kind?;
    let stage = Stage::build(name, kind.as_ref(), cases);
    Some(stage.play())
}

struct Stage<'a> {
    kind: &'a dyn Kind,
    cases: Vec<Played<'a>>,
    authority: Authority,
    agent: Agent,
    receiver: Receiver,
    target: Target,
    _directory: tempfile::TempDir,
}

impl<'a> Stage<'a> {
    fn build(name: &str, kind: &'a dyn Kind, cases: Vec<Case>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (receiver, target) = (Receiver::start().unwrap(), Target::start("steady 1\n").unwrap());
        let authority = Authority::new();
        std::fs::write(directory.path().join("ca.pem"), authority.pem()).unwrap();
        let shared = directory.path().join("shared.alloy");
        std::fs::write(&shared, write_to(&receiver)).unwrap();
        let mut settings = format!(
            "[[source]]\nname = \"shared\"\nfile = {{ path = \"{}\", allow_insecure_permissions = true }}\n\n",
            shared.display()
        );
        let encrypted = cases.iter().any(|case| matches!(case.trouble, Trouble::Certificate(_)));
        let cases: Vec<Played<'_>> = cases
            .into_iter()
            .enumerate()
            .map(|(number, case)| {
                // One host a source, as it is in the world: what hangs takes up its own host's share of polls.
                let host = format!("127.0.0.{}", number + 10);
                let proxy = kind.upstream().map(|upstream| {
                    FaultProxy::start_at(&format!("{host}:0"), upstream, kind.protocol(case.name)).unwrap()
                });
                if let Some(proxy) = proxy.as_ref().filter(|_| encrypted) {
                    proxy.set_tls(Some(authority.server(Shown::Good, &host)));
                }
                Played { case, proxy, kind, revision: Value::Null, instance: String::new(), problem: None }
            })
            .collect();
        for played in &cases {
            let address = played.proxy.as_ref().map(FaultProxy::address);
            let own = kind.settings(&Place { case: played.case.name, address });
            writeln!(settings, "[[source]]\nname = \"{}\"\ninterval = \"1s\"", played.case.name).unwrap();
            if !own.contains("timeout") {
                writeln!(settings, "timeout = \"{}\"", played.case.trouble.timeout()).unwrap();
            }
            if encrypted {
                let ca = directory.path().join("ca.pem");
                writeln!(settings, "tls = {{ ca = \"{}\" }}", ca.display()).unwrap();
            }
            writeln!(settings, "{own}").unwrap();
        }
        settings.push_str("[rollout]\nprobation = { window = \"0s\" }\nmin_gap = \"100ms\"\n");
        publish(kind, &cases, &target, 1);
        let agent = Agent::start_as(
            AgentOptions {
                binary: PathBuf::from(env!("CARGO_BIN_EXE_invar")),
                directory: directory.path().to_path_buf(),
                settings,
                environment: Vec::new(),
            },
            name,
            "faults",
        )
        .unwrap();
        Self { kind, cases, authority, agent, receiver, target, _directory: directory }
    }

    fn play(mut self) -> Outcomes {
        let played = self.begins().and_then(|()| {
            self.fails()?;
            self.runs_on()?;
            self.recovers()?;
            self.keeps_secrets()
        });
        if let Err(problem) = played {
            for played in &mut self.cases {
                played.blame(&problem);
            }
        }
        let outcome = |played: Played<'_>| (played.case.name, played.problem.map_or(Ok(()), Err));
        self.cases.into_iter().map(outcome).collect()
    }

    /// Everything runs at the first step.
    fn begins(&mut self) -> Result<(), String> {
        let names: Vec<&str> = self.cases.iter().map(|played| played.case.name).collect();
        let status = self.agent.wait("every source brings something", BEGIN, |status| {
            names.iter().all(|name| {
                let source = source_of(status, name);
                !source["revision"].is_null() && source["error"].is_null()
            }) && self.cases.iter().all(|played| self.samples(&played.case, 1) > 0)
        })?;
        for played in &mut self.cases {
            played.revision = source_of(&status, played.case.name)["revision"].clone();
            played.instance = self.agent.instance(&played.case.component())?;
        }
        Ok(())
    }

    /// The faults begin, the second step is published, and the status says what is wrong.
    fn fails(&mut self) -> Result<(), String> {
        for played in &self.cases {
            played.begin(&self.authority);
        }
        publish(self.kind, &self.cases, &self.target, 2);
        let start = Instant::now();
        let mut pending: Vec<usize> = (0..self.cases.len()).collect();
        while !pending.is_empty() {
            let status = self.agent.status()?;
            pending.retain(|index| {
                let case = &self.cases[*index].case;
                let source = source_of(&status, case.name);
                let error = &source["error"];
                !match case.error {
                    Some((class, says)) => {
                        let message = error["message"].as_str().unwrap_or_default();
                        is_class(error, class)
                            && says.iter().all(|words| message.contains(words))
                            && says_what_next(message)
                            && (!case.alarms || source["alarm"] == true)
                    }
                    None if case.hidden => {
                        let met = self.cases[*index].proxy.as_ref().map_or(0, |proxy| proxy.counts().faults);
                        error.is_null() && met >= HIDDEN
                    }
                    None => error.is_null() && self.samples(case, 2) > 0 && self.is_noted(case),
                }
            });
            if start.elapsed() > BEGIN {
                for index in pending.drain(..) {
                    let played = &mut self.cases[index];
                    let source = source_of(&status, played.case.name);
                    let expected = format!("expected {:?}, the source is {source:#}", played.case.error);
                    played.blame(expected);
                }
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// What ran before the fault still runs: the same instances, and their samples arrive.
    fn runs_on(&mut self) -> Result<(), String> {
        let before: Vec<usize> = self.cases.iter().map(|played| self.samples(&played.case, 1)).collect();
        let more = || {
            let flows = |(played, before): (&Played<'_>, &usize)| {
                !played.case.stands_still() || self.samples(&played.case, 1) >= before + FLOW
            };
            self.cases.iter().zip(&before).all(flows).then_some(())
        };
        let flowing = wait_for("samples of all that ran before the faults", SOON, more);
        self.measures(|case, number| match number {
            "failing" => case.error.is_some().then_some(true),
            _ => case.alarms.then_some(true),
        });
        let status = self.agent.status()?;
        for (index, before) in before.into_iter().enumerate() {
            let case = self.cases[index].case.clone();
            if !case.stands_still() {
                continue;
            }
            let (old, new) = (self.samples(&case, 1), self.samples(&case, 2));
            let instance = self.agent.instance(&case.component());
            let revision = source_of(&status, case.name)["revision"].clone();
            let played = &mut self.cases[index];
            if new > 0 {
                played.blame("the new revision ran in spite of the fault");
            }
            if flowing.is_err() && old < before + FLOW {
                played.blame(format!("the samples of what ran before stopped at {old}"));
            }
            if instance.as_ref() != Ok(&played.instance) {
                played.blame(format!("it was instance {}, now it is {instance:?}", played.instance));
            }
            if revision != played.revision {
                played.blame(format!("the source had {}, now it has {revision}", played.revision));
            }
        }
        Ok(())
    }

    /// The faults end, and the second step runs.
    fn recovers(&mut self) -> Result<(), String> {
        for played in &self.cases {
            played.end(&self.authority);
        }
        let start = Instant::now();
        let mut pending: Vec<usize> = (0..self.cases.len()).collect();
        let mut patience: Vec<Duration> = self.cases.iter().map(|played| played.case.patience).collect();
        let mut answered = vec![false; pending.len()];
        while !pending.is_empty() {
            let status = self.agent.status()?;
            let mut late = Vec::new();
            pending.retain(|index| {
                let case = &self.cases[*index].case;
                let source = source_of(&status, case.name);
                let is_well = source["error"].is_null();
                if is_well && self.samples(case, 2) > 0 {
                    return false;
                }
                // While it fails its next turn may be as far away as the schedule says; what it brought then has to be
                // swapped in, and its samples have to arrive.
                let patience = &mut patience[*index];
                if !is_well {
                    *patience = (*patience).max(longest_pause(&source) + TURNS);
                } else if !std::mem::replace(&mut answered[*index], true) {
                    *patience = (*patience).max(start.elapsed() + TURNS);
                }
                if start.elapsed() > *patience {
                    late.push((*index, format!("it did not recover by itself: {source:#}")));
                    return false;
                }
                true
            });
            for (index, problem) in late {
                self.cases[index].blame(format!("{problem}\n{:#}", status["reason"]));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        self.measures(|_, _| Some(false));
        Ok(())
    }

    /// The metrics say of each source whether it fails, and whether somebody has to look, as far as that is expected. Each
    /// has to be seen once: a host that is busy makes others fail for a moment.
    fn measures(&mut self, expected: impl Fn(&Case, &str) -> Option<bool>) {
        let mut unseen = Vec::new();
        for (index, played) in self.cases.iter().enumerate() {
            for number in ["failing", "alarm"] {
                let Some(expected) = expected(&played.case, number) else { continue };
                let (name, value) = (played.case.name, u8::from(expected));
                unseen.push((index, format!("invar_config_source_{number}{{source=\"{name}\"}} {value}\n")));
            }
        }
        let all_seen = || {
            let text = self.agent.text("/metrics").map_or_else(|problem| problem, |(_, text)| text);
            unseen.retain(|(_, line)| !text.contains(line));
            unseen.is_empty().then_some(())
        };
        drop(wait_for("the metrics to say so", METRICS, all_seen));
        for (index, line) in unseen {
            self.cases[index].blame(format!("the metrics lack {line}"));
        }
    }

    /// Nothing that was said or kept on the way holds a credential.
    fn keeps_secrets(&self) -> Result<(), String> {
        self.kind.secrets().iter().for_each(|secret| self.agent.canary().add(secret));
        self.agent.search()
    }

    /// Whether what is odd about the new revision is said.
    fn is_noted(&self, case: &Case) -> bool {
        let detail = self.agent.get(&format!("/api/v1/sources/{}", case.name)).unwrap_or_default();
        let notices = detail["content"]["notices"].to_string();
        case.notes.iter().all(|words| notices.contains(words))
    }

    /// How many samples of a case arrived that its component took at one step.
    fn samples(&self, case: &Case, step: u32) -> usize {
        let labels = [("case", case.name), ("step", if step == 1 { "1" } else { "2" })];
        self.receiver.samples("all", &labels).into_values().filter(|value| value.is_finite()).count()
    }
}

fn source_of(status: &Value, name: &str) -> Value {
    let sources = status["sources"].as_array().into_iter().flatten();
    sources.into_iter().find(|source| source["name"] == name).cloned().unwrap_or_default()
}

/// Whether an error is of a class, and refused for the reason behind a slash where there is one.
fn is_class(error: &Value, expected: &str) -> bool {
    match expected.split_once('/') {
        Some((class, reason)) => error["class"] == class && error["rejection"] == reason,
        None => error["class"] == expected,
    }
}

/// Whether behind what happened stands what the agent does, or what a person can do.
fn says_what_next(message: &str) -> bool {
    let next = message.rsplit_once("; ").map(|(_, next)| next.trim());
    next.is_some_and(|next| next.split(' ').count() >= 3)
}

/// A page for each case, with labels that say which and at which step.
fn publish(kind: &dyn Kind, cases: &[Played<'_>], target: &Target, step: u32) {
    let text = |name: &str| {
        format!(
            r#"prometheus.scrape "{name}" {{
	targets         = [{{__address__ = "{}", case = "{name}", step = "{step}"}}]
	scrape_interval = "300ms"
	scrape_timeout  = "300ms"
	forward_to      = [prometheus.remote_write.out.receiver]
}}
"#,
            target.address()
        )
    };
    let texts: Vec<(&str, String)> =
        cases.iter().map(|played| (played.case.name, text(played.case.name))).collect();
    kind.publish(&texts);
}

/// What all cases send to.
fn write_to(receiver: &Receiver) -> String {
    format!(
        r#"prometheus.remote_write "out" {{
	endpoint {{
		url = "{}"

		queue_config {{
			batch_send_deadline = "200ms"
			min_backoff         = "50ms"
			max_backoff         = "500ms"
		}}
	}}
}}
"#,
        receiver.url("all")
    )
}

//! A thousand agents and one server, on paused time: what reaches the server after an outage, and after a power cut that all
//! of them shared. The bounds follow from the schedule, and without jitter they do not hold.

use parking_lot::Mutex as Lock;

use super::*;
use crate::backoff::TRANSIENT_CAP;

/// Agents of the fleet.
const AGENTS: usize = 1000;
const INTERVAL: Duration = Duration::from_secs(60);
/// Window within which the first polls of a fleet that starts together are spread.
const FIRST_WINDOW: Duration = Duration::from_secs(30);

/// How the server does.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mood {
    Well,
    /// Takes requests and answers none, until it breaks all of them off at once.
    Hanging,
    /// Refuses at once.
    Refusing,
}

/// A server that notes when it is asked.
struct Server {
    mood: watch::Sender<Mood>,
    requests: Lock<Vec<Instant>>,
}

impl Server {
    fn new() -> Arc<Self> {
        Arc::new(Self { mood: watch::Sender::new(Mood::Well), requests: Lock::default() })
    }

    /// The most requests within any second that begins at or after `from`.
    fn peak(&self, from: Instant) -> usize {
        let mut requests: Vec<Instant> =
            self.requests.lock().iter().copied().filter(|at| *at >= from).collect();
        requests.sort();
        let mut first = 0;
        let mut most = 0;
        for (index, at) in requests.iter().enumerate() {
            while *at - requests[first] >= Duration::from_secs(1) {
                first += 1;
            }
            most = most.max(index - first + 1);
        }
        most
    }

    fn count(&self, from: Instant) -> usize {
        self.requests.lock().iter().filter(|at| **at >= from).count()
    }
}

/// The source of one agent.
struct Member {
    name: SourceName,
    server: Arc<Server>,
}

impl Source for Member {
    fn name(&self) -> &SourceName {
        &self.name
    }

    fn kind(&self) -> SourceKind {
        SourceKind::Git
    }

    fn description(&self) -> String {
        "member".to_owned()
    }

    fn interval(&self) -> Duration {
        INTERVAL
    }

    fn timeout(&self, _first: bool) -> Duration {
        Duration::from_secs(60)
    }

    fn poll<'a>(
        &'a self,
        _previous: Option<&'a Snapshot>,
        _context: &'a PollContext,
    ) -> BoxFuture<'a, Result<Poll, SourceError>> {
        Box::pin(async move {
            self.server.requests.lock().push(Instant::now());
            let mut mood = self.server.mood.subscribe();
            let now = *mood.borrow_and_update();
            match now {
                Mood::Well => return Ok(Poll::Unchanged),
                Mood::Hanging => drop(mood.changed().await),
                Mood::Refusing => {}
            }
            Err(Failure::transient("scripted").of(&self.name))
        })
    }

    fn is_atomic(&self) -> bool {
        true
    }

    fn required(&self) -> bool {
        true
    }

    fn host(&self) -> Option<&str> {
        Some("git.example")
    }
}

/// Numbers that are the same in each run of the test.
struct Seeded(Lock<u64>);

impl Jitter for Seeded {
    fn unit(&self) -> f64 {
        let mut state = self.0.lock();
        // splitmix64
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut number = *state;
        number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        number ^= number >> 31;
        (number >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// Starts the fleet at one moment, each agent with something of an earlier run to go on with.
fn fleet(server: &Arc<Server>, jitter: bool) -> Vec<Poller> {
    let member = |number: usize| {
        let source: Arc<dyn Source> = Arc::new(Member { name: "fleet".into(), server: Arc::clone(server) });
        let jittered: Arc<dyn Jitter> = match jitter {
            true => Arc::new(Seeded(Lock::new(number as u64))),
            false => Arc::new(FixedJitter(0.5)),
        };
        Poller::start(PollerOptions {
            warm: true,
            // Without a place of their own they all have the same.
            agent_name: if jitter { format!("web-{number}") } else { "web".to_owned() },
            jitter: jittered,
            clock: Arc::new(PausedClock(Instant::now())),
            ..PollerOptions::new(vec![source])
        })
    };
    (0..AGENTS).map(member).collect()
}

/// What at most arrives in one second, where `expected` do: six standard deviations above, which chance does not reach in
/// an hour of seconds.
fn within_chance(expected: f64) -> usize {
    (expected + 6.0 * expected.sqrt()).ceil() as usize
}

/// After an outage that was long enough for every agent to have reached the longest delay. Its next poll is then anywhere
/// in the second half of that delay: with density 1/150 s. A sum of further random delays is spread no less, so that is a
/// bound for each later poll too. Polls are at least 54 s apart, so that of one agent at most 150/54, rounded up, and one
/// more can fall on the same moment.
fn bound_after_an_outage() -> usize {
    let random_half = TRANSIENT_CAP.as_secs_f64() / 2.0;
    let polls_at_a_moment = (random_half / INTERVAL.mul_f64(0.9).as_secs_f64()).ceil() + 1.0;
    within_chance(AGENTS as f64 * polls_at_a_moment / random_half)
}

/// After a start at the same moment: the first polls are spread over half a minute, and the later ones are spread more.
fn bound_after_a_start() -> usize {
    within_chance(AGENTS as f64 / FIRST_WINDOW.as_secs_f64())
}

/// The fleet runs, the server hangs, breaks every request off at once, refuses for half an hour, and is well again.
/// Gives the server and the moment of its recovery.
async fn outage(jitter: bool) -> (Arc<Server>, Instant, Instant) {
    let server = Server::new();
    let agents = fleet(&server, jitter);
    tokio::time::sleep(Duration::from_secs(600)).await;
    server.mood.send_replace(Mood::Hanging);
    // By then every agent has asked and waits.
    tokio::time::sleep(Duration::from_secs(70)).await;
    let broken_off = Instant::now();
    server.mood.send_replace(Mood::Refusing);
    tokio::time::sleep(Duration::from_secs(1800)).await;
    let recovered = Instant::now();
    server.mood.send_replace(Mood::Well);
    tokio::time::sleep(Duration::from_secs(1800)).await;
    for agent in agents {
        assert_eq!(agent.state().sources[0].status.error, None, "every agent is back");
        agent.shutdown().await;
    }
    (server, broken_off, recovered)
}

async fn reboot(jitter: bool) -> (Arc<Server>, Instant) {
    let server = Server::new();
    let start = Instant::now();
    let agents = fleet(&server, jitter);
    tokio::time::sleep(Duration::from_secs(1800)).await;
    for agent in agents {
        assert!(agent.state().sources[0].status.polls > 25);
        agent.shutdown().await;
    }
    (server, start)
}

#[tokio::test(start_paused = true)]
async fn a_thousand_agents_after_an_outage_stay_under_the_bound() {
    let (server, broken_off, recovered) = outage(true).await;
    let (peak, bound) = (server.peak(recovered), bound_after_an_outage());
    eprintln!("after an outage: at most {peak} requests a second, bound {bound}, {AGENTS} agents");
    assert!(peak <= bound, "{peak} requests in one second, more than {bound}");
    // Nine doublings, and then one each 150 s or less often.
    let during = server.count(broken_off) - server.count(recovered);
    assert!(during <= AGENTS * (10 + 1800 / 150), "{during} requests during the outage");
}

#[tokio::test(start_paused = true)]
async fn a_thousand_agents_without_jitter_would_not() {
    let (server, _, recovered) = outage(false).await;
    assert!(server.peak(recovered) > bound_after_an_outage());
    assert_eq!(server.peak(recovered), AGENTS, "they all come at once");
}

#[tokio::test(start_paused = true)]
async fn a_fleet_that_reboots_together_stays_under_the_bound() {
    let (server, start) = reboot(true).await;
    let (peak, bound) = (server.peak(start), bound_after_a_start());
    eprintln!("after a start together: at most {peak} requests a second, bound {bound}, {AGENTS} agents");
    assert!(peak <= bound, "{peak} requests in one second, more than {bound}");
}

#[tokio::test(start_paused = true)]
async fn a_fleet_that_reboots_together_without_places_of_their_own_would_not() {
    let (server, start) = reboot(false).await;
    assert!(server.peak(start) > bound_after_a_start());
}

//! Secrets turn while configurations come and go: whoever took a text is given the newest, alone, and whoever holds a live
//! secret is left alone; also in the configuration that a rollback goes back to.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::BoxFuture;
use invar_policy::{Policy, PolicySettings};
use invar_syntax::arguments::Arguments;
use invar_syntax::live_secret::{LiveSecret, SecretCell};
use invar_syntax::schema::Stability;
use invar_syntax::secret::Secret;
use parking_lot::Mutex;
use proptest::prelude::*;
use tokio::sync::watch;

use super::components::{Consumer, Values};
use super::{Rig, registry, until};
use crate::authors::Authors;
use crate::component::Component;
use crate::configuration::{Configuration, Inputs};
use crate::context::{ExportContext, InstanceContext, StateContext};
use crate::delivery::PrepareError;
use crate::engine::{CutError, PrepareMode};
use crate::health::HealthState;
use crate::secrets::{SecretFailure, SecretLack, SecretSource, SecretUse, Secrets};

/// Secrets that a test turns by hand; each is its name and how often it was turned.
#[derive(Default)]
struct Scripted {
    cells: Mutex<BTreeMap<String, Arc<Cell>>>,
    changes: watch::Sender<u64>,
    asked: AtomicU64,
    mood: Mutex<Mood>,
}

/// How a store takes questions.
#[derive(Clone, Copy, Default, PartialEq)]
enum Mood {
    #[default]
    Answers,
    Refuses,
    SaysNothing,
}

struct Cell {
    reference: String,
    turns: AtomicU64,
}

impl Scripted {
    fn cell(&self, reference: &str) -> Arc<Cell> {
        let make = || Arc::new(Cell { reference: reference.to_owned(), turns: AtomicU64::new(1) });
        Arc::clone(self.cells.lock().entry(reference.to_owned()).or_insert_with(make))
    }

    fn turn(&self, reference: &str) {
        self.cell(reference).turns.fetch_add(1, Ordering::SeqCst);
        self.changes.send_modify(|count| *count += 1);
    }

    fn newest(&self, reference: &str) -> String {
        self.cell(reference).read().expose().to_owned()
    }
}

impl SecretCell for Cell {
    fn reference(&self) -> &str {
        &self.reference
    }

    fn version(&self) -> u64 {
        self.turns.load(Ordering::SeqCst)
    }

    fn read(&self) -> Secret {
        Secret::new(format!("{}-{}", self.reference, self.version()))
    }
}

impl SecretSource for Scripted {
    fn find(&self, reference: &str) -> Option<LiveSecret> {
        let held = self.cells.lock().get(reference).cloned()?;
        Some(LiveSecret::cell(held))
    }

    fn resolve(&self, reference: String) -> BoxFuture<'_, Result<LiveSecret, SecretFailure>> {
        Box::pin(async move {
            self.asked.fetch_add(1, Ordering::SeqCst);
            tokio::task::yield_now().await;
            let mood = *self.mood.lock();
            match mood {
                Mood::Answers => Ok(LiveSecret::cell(self.cell(&reference))),
                Mood::Refuses => Err(SecretFailure {
                    message: "it is sealed".to_owned(),
                    help: None,
                    lack: SecretLack::Unavailable,
                }),
                Mood::SaysNothing => std::future::pending().await,
            }
        })
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }
}

/// `test.holder`: reads its secret at each use.
struct Holder;

#[derive(Clone, PartialEq, Debug, Arguments)]
struct HolderArguments {
    /// The secret.
    secret: LiveSecret,
    /// Tells configurations apart.
    tag: String,
}

#[derive(Default)]
struct HolderInstance {
    states: AtomicU64,
}

impl Component for Holder {
    const NAME: &'static str = "test.holder";
    const STABILITY: Stability = Stability::GenerallyAvailable;

    type Arguments = HolderArguments;
    type Exports = ();
    type Instance = HolderInstance;
    type State = LiveSecret;

    fn instance(_: &Self::Arguments, _: &InstanceContext) -> Result<Self::Instance, PrepareError> {
        Ok(HolderInstance::default())
    }

    async fn state(
        arguments: Arc<Self::Arguments>,
        instance: Arc<Self::Instance>,
        _: StateContext,
    ) -> Result<Self::State, PrepareError> {
        instance.states.fetch_add(1, Ordering::SeqCst);
        Ok(arguments.secret.clone())
    }

    fn exports(_: &Self::Instance, _: &Self::State, _: &ExportContext) {}
}

/// An engine whose secrets are scripted.
struct Vault {
    rig: Rig,
    source: Arc<Scripted>,
}

impl Vault {
    fn new() -> Self {
        let source = Arc::new(Scripted::default());
        let secrets = Secrets::of(source.clone());
        let rig = Rig::with(|options| {
            options.registry = registry().with::<Holder>();
            options.secrets = secrets;
        });
        Self { rig, source }
    }

    fn configuration(&self, text: &str) -> Arc<Configuration> {
        let inputs = Inputs { secrets: Secrets::of(self.source.clone()), ..Inputs::default() };
        Arc::new(Configuration::parse([("main.alloy", text)], inputs, "test").unwrap())
    }

    async fn prepare(&self, text: &str) -> crate::prepare::Prepared {
        let configuration = self.configuration(text);
        self.rig.engine.prepare(configuration, PrepareMode::AllOrNothing).await.unwrap()
    }

    async fn candidate(&self, text: &str) {
        let prepared = self.prepare(text).await;
        self.rig.cut(prepared).await.unwrap();
    }

    async fn apply(&self, text: &str) {
        self.candidate(text).await;
        self.rig.engine.commit().await;
    }

    fn text_of(&self, node: &str) -> String {
        self.rig.state_of::<Consumer>(node).to_string()
    }

    fn evaluations(&self) -> u64 {
        self.rig.engine.shared().meters.evaluation_seconds.get_sample_count()
    }

    fn waves(&self) -> u64 {
        self.rig.engine.shared().meters.waves.get()
    }

    /// Lets everything happen that is due: time stands still for whoever waits, and goes on when all do.
    async fn quiet(&self) {
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
}

const TEXT: &str = "
    test.consumer \"a\" {
        input = convert.nonsensitive(secret(\"s/a\"))
        tag   = \"TAG\"
    }
    test.consumer \"of_a\" { input = test.consumer.a.value }
    test.consumer \"b\" { input = string.format(\"<%s>\", convert.nonsensitive(secret(\"s/b\"))) }
    test.consumer \"aside\" { input = \"constant\" }
    test.holder \"live\" { secret = secret(\"s/a\") }
";

fn tagged(tag: &str) -> String {
    TEXT.replace("TAG", tag)
}

#[tokio::test(start_paused = true)]
async fn who_took_a_text_is_evaluated_alone_and_in_one_wave() {
    let vault = Vault::new();
    vault.apply(&tagged("1")).await;
    vault.quiet().await;
    let (evaluations, waves) = (vault.evaluations(), vault.waves());
    let aside = vault.rig.state_of::<Consumer>("test.consumer.aside");
    let of_a = vault.rig.state_of::<Consumer>("test.consumer.of_a");
    let live = vault.rig.state_of::<Holder>("test.holder.live");
    let instance = vault.rig.instance_number("test.consumer.b");
    vault.source.turn("s/b");
    vault.quiet().await;
    assert_eq!(vault.text_of("test.consumer.b"), "<s/b-2>");
    assert_eq!((vault.evaluations() - evaluations, vault.waves() - waves), (1, 1), "only what uses it");
    assert_eq!(vault.rig.instance_number("test.consumer.b"), instance, "the same instance goes on");
    assert!(Arc::ptr_eq(&aside, &vault.rig.state_of::<Consumer>("test.consumer.aside")));
    assert!(Arc::ptr_eq(&of_a, &vault.rig.state_of::<Consumer>("test.consumer.of_a")));

    // What it exports goes on; who reads it at each use has it already.
    vault.source.turn("s/a");
    assert_eq!(live.read().expose(), "s/a-2");
    vault.quiet().await;
    assert_eq!(vault.text_of("test.consumer.a"), "s/a-2");
    assert_eq!(vault.text_of("test.consumer.of_a"), "S/A-2");
    assert_eq!(vault.evaluations() - evaluations, 3);
    assert!(Arc::ptr_eq(&live, &vault.rig.state_of::<Holder>("test.holder.live")));
    let generation = vault.rig.engine.generation();
    assert_eq!(generation.id, 1, "a rotation is no generation");
    vault.rig.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_live_secret_alone_turns_a_thousand_times_for_nothing() {
    let vault = Vault::new();
    vault.apply("test.holder \"live\" { secret = secret(\"s/a\") }").await;
    let live = vault.rig.state_of::<Holder>("test.holder.live");
    let instance = vault.rig.instance_of::<Holder>("test.holder.live");
    let (evaluations, waves) = (vault.evaluations(), vault.waves());
    for turn in 2..=1_001 {
        vault.source.turn("s/a");
        assert_eq!(live.read().expose(), format!("s/a-{turn}"));
        tokio::task::yield_now().await;
    }
    vault.quiet().await;
    assert_eq!((vault.evaluations(), vault.waves()), (evaluations, waves));
    assert_eq!(instance.states.load(Ordering::SeqCst), 1);
    assert_eq!(vault.rig.engine.generation().epoch, 0);
    assert_eq!(vault.source.asked.load(Ordering::SeqCst), 1);
    vault.rig.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_rotation_during_a_probation_reaches_both_configurations_and_blames_neither() {
    let vault = Vault::new();
    vault.apply(&tagged("1")).await;
    vault.candidate(&tagged("2")).await;
    let users = vault.rig.engine.secret_users();
    let b = users.iter().find(|user| user.component == "test.consumer.b").unwrap();
    assert_eq!((b.reference.as_str(), b.on_change), ("s/b", SecretUse::Rebuild));
    let b = vault.rig.instance_number("test.consumer.b");
    for secret in ["s/a", "s/b", "s/a"] {
        vault.source.turn(secret);
        vault.quiet().await;
    }
    for node in ["a", "b", "of_a", "aside"] {
        assert_eq!(vault.rig.health(&format!("test.consumer.{node}")).0, HealthState::Healthy, "{node}");
    }
    let states = vault.rig.instance_of::<Consumer>("test.consumer.a").states.load(Ordering::SeqCst);
    vault.rig.engine.rollback();
    // At once, without an evaluation.
    assert_eq!(vault.text_of("test.consumer.a"), "s/a-3");
    assert_eq!(vault.text_of("test.consumer.of_a"), "S/A-3");
    assert_eq!(vault.text_of("test.consumer.b"), "<s/b-2>");
    assert_eq!(vault.rig.instance_number("test.consumer.b"), b);
    let after = vault.rig.instance_of::<Consumer>("test.consumer.a").states.load(Ordering::SeqCst);
    assert_eq!(after, states);
    vault.rig.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_rotation_while_a_candidate_is_prepared_is_in_it_after_the_swap() {
    let vault = Vault::new();
    vault.apply("test.consumer \"aside\" { input = \"constant\" }").await;
    let prepared = vault.prepare(&tagged("1")).await;
    vault.source.turn("s/a");
    vault.quiet().await;
    vault.rig.cut(prepared).await.unwrap();
    vault.quiet().await;
    assert_eq!(vault.text_of("test.consumer.a"), "s/a-2");
    assert_eq!(vault.text_of("test.consumer.of_a"), "S/A-2");
    vault.rig.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_new_text_that_is_not_accepted_leaves_the_old_one_and_recovers() {
    let vault = Vault::new();
    // `bad` is what the component does not accept.
    let text = "test.consumer \"a\" { input = string.replace(convert.nonsensitive(secret(\"s/a\")), \"s/a-2\", \"bad\") }
        test.consumer \"aside\" { input = \"constant\" }";
    vault.apply(text).await;
    vault.source.turn("s/a");
    vault.quiet().await;
    assert_eq!(vault.text_of("test.consumer.a"), "s/a-1");
    let (state, message) = vault.rig.health("test.consumer.a");
    assert_eq!(state, HealthState::Unhealthy, "{message}");
    assert_eq!(vault.rig.health("test.consumer.aside").0, HealthState::Healthy);
    vault.source.turn("s/a");
    vault.quiet().await;
    assert_eq!(vault.text_of("test.consumer.a"), "s/a-3");
    assert_eq!(vault.rig.health("test.consumer.a").0, HealthState::Healthy);
    vault.rig.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_plan_says_what_a_rotation_will_cost() {
    let vault = Vault::new();
    for secret in ["s/a", "s/b"] {
        vault.source.cell(secret);
    }
    let plan = vault.rig.engine.plan(&vault.configuration(&tagged("1"))).unwrap();
    let notes = |name: &str| {
        let change = plan.changes.iter().find(|change| change.node.as_str() == name).unwrap();
        change.notes.join("; ")
    };
    assert!(notes("test.consumer.a").contains("secret s/a, class rebuild"), "{}", notes("test.consumer.a"));
    assert!(notes("test.holder.live").contains("secret s/a, class per-use: a rotation is free"));
    assert!(!notes("test.consumer.aside").contains("secret"));
    vault.apply(&tagged("1")).await;
    let plan = vault.rig.engine.plan(&vault.configuration(&tagged("1"))).unwrap();
    assert!(plan.changes.iter().all(|change| change.notes.is_empty()), "what stays needs no remark");
    vault.rig.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn what_an_author_may_not_name_is_not_read() {
    let vault = Vault::new();
    let settings = PolicySettings {
        secrets: Some(BTreeMap::from([("test".to_owned(), vec!["s/a".to_owned()])])),
        ..PolicySettings::default()
    };
    let policy = Policy::new(&settings, &["test".to_owned()]);
    let inputs = Inputs {
        secrets: Secrets::of(vault.source.clone()),
        policy: Arc::new(policy.unwrap()),
        authors: Authors::of([("main.alloy", "test")]),
        ..Inputs::default()
    };
    let text = "test.holder \"live\" { secret = secret(\"s/b\") }";
    let configuration = Arc::new(Configuration::parse([("main.alloy", text)], inputs, "test").unwrap());
    let Err(failure) = vault.rig.engine.prepare(configuration, PrepareMode::AllOrNothing).await else {
        panic!("it was accepted")
    };
    assert!(failure.diagnostics.to_string().contains("may not be named"), "{}", failure.diagnostics);
    assert_eq!(vault.source.asked.load(Ordering::SeqCst), 0);
    vault.rig.shutdown().await;
}

/// A node that needs a secret, and two that need none.
const PARTLY: &str = "
    test.consumer \"a\" { input = convert.nonsensitive(secret(\"s/a\")) }
    test.values \"v\" { initial = \"one\" }
    test.consumer \"free\" { input = test.values.v.value }";

impl Vault {
    /// Starts from what was good before, as after a reboot.
    async fn boot(&self, text: &str) {
        let configuration = self.configuration(text);
        let prepared = self.rig.engine.prepare(configuration, PrepareMode::BestEffort).await.unwrap();
        self.rig.cut(prepared).await.unwrap();
        self.rig.engine.commit().await;
    }

    fn is_unhealthy(&self, node: &str) -> bool {
        self.rig.health(node).0 != HealthState::Healthy
    }
}

#[tokio::test(start_paused = true)]
async fn a_start_runs_what_needs_no_secret_and_the_rest_as_soon_as_there_is_one() {
    let vault = Vault::new();
    *vault.source.mood.lock() = Mood::Refuses;
    vault.boot(PARTLY).await;
    assert_eq!(vault.text_of("test.consumer.free"), "one");
    assert!(vault.rig.health("test.consumer.a").1.contains("it is sealed"));
    let lacking = vault.rig.engine.lacking_secrets();
    assert_eq!(lacking.len(), 1);
    assert_eq!((lacking[0].reference.as_str(), lacking[0].failure.lack), ("s/a", SecretLack::Unavailable));
    assert_eq!(lacking[0].components, ["test.consumer.a"]);
    vault.quiet().await;
    assert!(vault.is_unhealthy("test.consumer.a"));
    *vault.source.mood.lock() = Mood::Answers;
    until("it is there", || !vault.is_unhealthy("test.consumer.a")).await;
    assert_eq!(vault.text_of("test.consumer.a"), "s/a-1");
    assert_eq!(vault.rig.engine.lacking_secrets(), []);
    vault.rig.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_store_that_says_nothing_holds_up_neither_a_start_nor_a_wave() {
    let vault = Vault::new();
    *vault.source.mood.lock() = Mood::SaysNothing;
    let began = tokio::time::Instant::now();
    vault.boot(PARTLY).await;
    assert!(began.elapsed() < Duration::from_secs(6), "{:?}", began.elapsed());
    assert!(vault.rig.health("test.consumer.a").1.contains("has not answered yet"));
    // Somebody asks again by now, and waits.
    vault.quiet().await;
    let began = tokio::time::Instant::now();
    vault.rig.instance_of::<Values>("test.values.v").tell("two");
    until("the wave has arrived", || vault.text_of("test.consumer.free") == "two").await;
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    *vault.source.mood.lock() = Mood::Answers;
    tokio::time::sleep(Duration::from_secs(120)).await;
    assert_eq!(vault.text_of("test.consumer.a"), "s/a-1");
    vault.rig.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn what_a_verdict_retired_is_not_taken_over_by_what_was_prepared_before() {
    let vault = Vault::new();
    vault.apply(&some(1)).await;
    let without = vault.prepare(&some(0)).await;
    vault.rig.cut(without).await.unwrap();
    // It would take over what is kept for a rollback, which the verdict then ends.
    let with = vault.prepare(&some(1)).await;
    vault.rig.engine.commit().await;
    vault.rig.cut(with).await.unwrap();
    vault.quiet().await;
    are_newest(&vault);
    are_healthy(&vault).await;
    vault.rig.shutdown().await;
}

/// What can happen, in any order.
#[derive(Clone, Debug)]
enum Event {
    Rotate(bool),
    Prepare(u8),
    Cut,
    Commit,
    Rollback,
    Pass(u64),
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        4 => any::<bool>().prop_map(Event::Rotate),
        2 => (0_u8..8).prop_map(Event::Prepare),
        2 => Just(Event::Cut),
        1 => Just(Event::Commit),
        1 => Just(Event::Rollback),
        // Around the interval of waves: some begin, some are in the middle.
        4 => (0_u64..6).prop_map(Event::Pass),
    ];
    proptest::collection::vec(event, 1..60)
}

/// A configuration with some of the users of secrets.
fn some(mask: u8) -> String {
    let mut text = String::from("test.consumer \"aside\" { input = \"constant\" }\n");
    for (bit, secret) in [(1, "a"), (2, "b")] {
        if mask & bit != 0 {
            text += &format!(
                "test.consumer \"{secret}\" {{\n input = convert.nonsensitive(secret(\"s/{secret}\"))\n tag = \"{mask}\"\n}}
                test.consumer \"of_{secret}\" {{ input = test.consumer.{secret}.value }}\n"
            );
        }
    }
    if mask & 4 != 0 {
        text += "test.holder \"live\" { secret = secret(\"s/a\") }\n";
    }
    text
}

async fn play(events: Vec<Event>) {
    let vault = Vault::new();
    vault.apply(&some(7)).await;
    let aside = vault.rig.instance_of::<Consumer>("test.consumer.aside");
    let (mut prepared, mut generation, mut on_probation) = (None, 1, false);
    for event in events {
        match event {
            Event::Rotate(which) => vault.source.turn(if which { "s/a" } else { "s/b" }),
            Event::Prepare(mask) => prepared = Some(vault.prepare(&some(mask)).await),
            Event::Cut => {
                let Some(prepared) = prepared.take() else { continue };
                match vault.rig.cut(prepared).await {
                    Ok(report) => {
                        generation += 1;
                        on_probation = true;
                        assert_eq!(report.generation, generation);
                        assert!(report.failed.is_empty(), "{:?}", report.failed);
                    }
                    Err(CutError::Superseded) => {}
                    Err(other) => panic!("{other:?}"),
                }
            }
            Event::Commit => {
                vault.rig.engine.commit().await;
                on_probation = false;
            }
            Event::Rollback => {
                vault.rig.engine.rollback();
                generation += u64::from(std::mem::take(&mut on_probation));
            }
            Event::Pass(milliseconds) => tokio::time::sleep(Duration::from_millis(milliseconds)).await,
        }
        assert_eq!(vault.rig.engine.generation().id, generation, "generations only as cut");
    }
    drop(prepared);
    vault.quiet().await;
    are_newest(&vault);
    are_healthy(&vault).await;
    if on_probation {
        // What is gone back to is as new, without another evaluation. The tasks of what was parked begin a moment later.
        vault.rig.engine.rollback();
        are_newest(&vault);
        vault.quiet().await;
        are_healthy(&vault).await;
    }
    assert_eq!(
        aside.states.load(Ordering::SeqCst),
        1,
        "what uses no secret was never evaluated to another state"
    );
    let evaluations = vault.evaluations();
    vault.quiet().await;
    assert_eq!(vault.evaluations(), evaluations, "quiet is quiet");
    vault.rig.shutdown().await;
}

/// Every node that takes a text comes to be healthy: the task of one that was parked ends first, and is then started again.
async fn are_healthy(vault: &Vault) {
    for node in ["test.consumer.a", "test.consumer.b"] {
        if vault.rig.engine.component(node).is_some() {
            until(node, || vault.rig.health(node).0 == HealthState::Healthy).await;
        }
    }
}

/// Every node that runs has the newest of what it uses.
fn are_newest(vault: &Vault) {
    for secret in ["a", "b"] {
        let newest = vault.source.newest(&format!("s/{secret}"));
        let (node, dependant) = (format!("test.consumer.{secret}"), format!("test.consumer.of_{secret}"));
        if vault.rig.engine.component(&node).is_some() {
            assert_eq!(vault.text_of(&node), newest);
            assert_eq!(vault.text_of(&dependant), newest.to_uppercase());
        }
    }
    if vault.rig.engine.component("test.holder.live").is_some() {
        let live = vault.rig.state_of::<Holder>("test.holder.live");
        assert_eq!(live.read().expose(), vault.source.newest("s/a"));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn rotations_and_reloads_in_any_order_end_with_the_newest_everywhere(events in events()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(play(events));
    }
}

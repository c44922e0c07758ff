//! Swaps under load, in a seeded random order, while exports change all the time: every batch is delivered exactly once and saw
//! one configuration, and every change of exports arrives.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::Rig;
use super::components::{Consumer, Source, Values};

/// A small generator: the same seed gives the same run.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

const SWAPS: u64 = 1_750;

/// A source, up to three stages that come and go, and a sink, all tagged alike; beside them a value and who uses it.
fn pipeline(tag: u64, stages: u64) -> String {
    let mut text = format!("test.sink \"out\" {{ tag = \"{tag}\" }}\n");
    let mut next = "test.sink.out".to_owned();
    for stage in 0..3 {
        if stages & (1 << stage) != 0 {
            text += &format!(
                "test.pass \"s{stage}\" {{\n forward_to = [{next}.receiver]\n tag = \"{tag}\"\n}}\n"
            );
            next = format!("test.pass.s{stage}");
        }
    }
    text += "test.values \"v\" { }\ntest.consumer \"c\" { input = test.values.v.value }\n";
    text + &format!("test.source \"in\" {{\n forward_to = [{next}.receiver]\n tag = \"{tag}\"\n}}\n")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn swaps_under_load_lose_nothing_repeat_nothing_and_mix_nothing() {
    let rig = Rig::new();
    let mut random = Random(0x5eed_1e57_ab1e);
    rig.apply(&pipeline(0, 1)).await;
    let source = rig.instance_of::<Source>("test.source.in");
    let values = rig.instance_of::<Values>("test.values.v");
    for swap in 1..=SWAPS {
        values.tell(&swap.to_string());
        match random.below(8) {
            // A verdict, if there is anything to judge.
            0 => {
                rig.engine.rollback();
            }
            1 => rig.engine.commit().await,
            // Now and then the source itself goes and comes back.
            2 => {
                rig.candidate("").await;
                rig.engine.rollback();
            }
            _ => {
                rig.candidate(&pipeline(swap, random.below(8))).await;
            }
        }
        if random.below(4) == 0 {
            tokio::task::yield_now().await;
        }
    }
    rig.engine.commit().await;
    let soon = source.accepted.load(Ordering::SeqCst) + 10;
    super::until("batches flow on", || source.accepted.load(Ordering::SeqCst) >= soon).await;
    let last = SWAPS.to_string();
    super::until("the last export has arrived", || *rig.state_of::<Consumer>("test.consumer.c") == last)
        .await;
    assert!(rig.engine.generation().epoch > 0 || rig.engine.shared().meters.waves.get() > 0);
    let panics: u64 = rig.engine.shared().root.current().units().map(|unit| unit.cell.panics()).sum();
    assert_eq!(panics, 0, "no component panicked");
    let book = std::sync::Arc::clone(&rig.book);
    rig.engine.drained().await;
    rig.engine.shutdown(Duration::from_secs(10)).await;

    let accepted = source.accepted.load(Ordering::SeqCst);
    let delivered = book.delivered();
    for number in 1..=accepted {
        let offers = delivered.get(&number).unwrap_or_else(|| panic!("batch {number} of {accepted} is lost"));
        assert_eq!(offers.len(), 1, "batch {number} was delivered {} times", offers.len());
    }
    for (number, offers) in &delivered {
        for stages in offers {
            assert!(stages.iter().all(|tag| tag == &stages[0]), "batch {number} saw {stages:?}");
        }
    }
    assert!(accepted > SWAPS / 10, "the load was no load: {accepted} batches");
}

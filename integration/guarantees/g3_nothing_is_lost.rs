//! G2 and G3: hundreds of swaps under load, valid and invalid mixed; every numbered sample arrives, duplicates are
//! counted, and every batch saw exactly one generation.

use std::io::Write;
use std::time::Duration;

use invar_integration::{Agent, AgentOptions, Receiver, Target};
use serde_json::Value;

use crate::fleet::{binary, missing, scrape, write_to};

/// Two relabelling steps that stamp the same mark: a batch that saw two generations would carry two marks.
fn stamped(receiver: &Receiver, target: &Target, mark: usize) -> String {
    let scrape = scrape(target, "100ms")
        .replace("prometheus.remote_write.out.receiver", "prometheus.relabel.first.receiver");
    let step = |name: &str, next: &str, label: &str| {
        format!(
            "\nprometheus.relabel \"{name}\" {{\n\tforward_to = [{next}]\n\n\trule {{\n\t\ttarget_label = \"{label}\"\n\t\treplacement  = \"{mark}\"\n\t}}\n}}\n"
        )
    };
    format!(
        "{scrape}{}{}{}",
        step("first", "prometheus.relabel.second.receiver", "first"),
        step("second", "prometheus.remote_write.out.receiver", "second"),
        write_to(receiver, "a"),
    )
}

#[test]
fn five_hundred_swaps_under_load_lose_nothing_and_no_batch_sees_two_generations() {
    const SWAPS: usize = 500;
    let directory = tempfile::tempdir().unwrap();
    let receiver = Receiver::start().unwrap();
    let target = Target::start("steady 1\n").unwrap();
    target.number("numbered_total");
    let pipeline = directory.path().join("main.alloy");
    // Written beside and renamed: the agent never sees half a file, and neither does the test depend on its defences.
    let write = |text: &str| {
        let beside = directory.path().join("main.part");
        let mut file = std::fs::File::create(&beside).unwrap();
        file.write_all(text.as_bytes()).unwrap();
        std::fs::rename(&beside, &pipeline).unwrap();
    };
    write(&stamped(&receiver, &target, 0));
    let settings = format!(
        "[[source]]\nname = \"file\"\nfile = {{ path = \"{}\" }}\n\n\
         [rollout]\nquiesce = {{ min = \"1ms\", max = \"50ms\" }}\nmin_gap = \"0ms\"\nprobation = {{ window = \"0s\" }}\n",
        pipeline.display()
    );
    let agent = Agent::start(AgentOptions {
        binary: binary(),
        directory: directory.path().to_path_buf(),
        settings,
        environment: Vec::new(),
    })
    .unwrap();
    let soon = Duration::from_secs(60);
    agent.wait("the pipeline runs", soon, |status| !status["running"].is_null()).unwrap();

    let mut applied = 0;
    for swap in 1..=SWAPS {
        if swap % 7 == 0 {
            write("prometheus.scrape \"broken\" {\n");
        } else {
            write(&stamped(&receiver, &target, swap));
            applied += 1;
        }
        let (code, answer) = agent.post("/api/v1/reconcile", &serde_json::json!({})).unwrap();
        assert_eq!(code, 200, "{answer}");
        let status: Value = serde_json::from_str(&answer).unwrap();
        assert_eq!(status["in_sync"] == Value::Bool(true), swap % 7 != 0, "swap {swap}: {status:#}");
    }
    let generation = agent.status().unwrap()["running"]["generation"].as_u64().unwrap();
    assert!(generation as usize > applied, "{generation} generations for {applied} valid texts");

    let upto = target.scrapes();
    let numbers = || {
        let all = receiver.samples_with_duplicates("a", &[("__name__", "numbered_total")]);
        let mut numbers: Vec<u64> =
            all.into_iter().filter(|value| value.is_finite()).map(|value| value as u64).collect();
        numbers.sort_unstable();
        numbers
    };
    invar_integration::wait_for("every sample to arrive", soon, || {
        numbers().last().is_some_and(|last| *last >= upto).then_some(())
    })
    .unwrap();
    let mut arrived = numbers();
    let before = arrived.len();
    arrived.dedup();
    println!("{applied} swaps, {} samples, {} duplicates", arrived.len(), before - arrived.len());
    assert!(missing(&arrived).is_empty(), "missing {:?}\n{}", missing(&arrived), agent.log());
    for series in receiver.series("a", &[("__name__", "numbered_total")]) {
        assert_eq!(series.labels.get("first"), series.labels.get("second"), "a batch saw two generations");
    }
}

#[test]
fn a_receiver_that_is_down_and_an_agent_that_is_restarted_meanwhile_lose_nothing() {
    let mut fleet =
        crate::fleet::Fleet::start(|receiver, target| crate::fleet::scrape_to(receiver, target, "a"));
    let head = fleet.repository.head().unwrap();
    fleet.committed(&head);
    fleet.receiver.answer("a", Some(503));
    let scraped = fleet.target.scrapes();
    let more = |target: &Target, count: u64| {
        let upto = target.scrapes() + count;
        let enough = || (target.scrapes() >= upto).then_some(());
        invar_integration::wait_for("more scrapes", Duration::from_secs(30), enough).unwrap();
    };
    more(&fleet.target, 6);
    fleet.agent.terminate().unwrap();
    fleet.agent.launch().unwrap();
    more(&fleet.target, 4);
    fleet.kill();
    fleet.agent.launch().unwrap();
    more(&fleet.target, 4);
    fleet.receiver.answer("a", None);
    fleet.nothing_missing("a");
    assert!(fleet.target.scrapes() > scraped + 13);
}

//! The story, step by step: a good push, a broken one, a bad one that is undone, a revert, and an agent that is
//! killed while its Git server is gone. Each step says what it shows and what was checked.

use std::time::{Duration, Instant};

use invar_integration::{Outcome, wait_for};
use serde_json::Value;

use super::stage::{BROKEN, GOOD, Stage, VARIABLES};

const SOON: Duration = Duration::from_secs(30);
const PROBATION: Duration = Duration::from_secs(90);

/// Prints what a person may try, and waits for them to end it.
pub(crate) fn by_hand(stage: &mut Stage) -> Outcome {
    stage.agent.wait("the first configuration runs", SOON, |status| !status["running"].is_null())?;
    let (clone, address) = (stage.repository.clone_directory().display(), stage.agent.address());
    println!(
        "
Invar follows {bare} and collects its own metrics.

  look      export INVAR_SERVER=http://{address}
            {binary} status            also: history, components, plan, explain var
            {page}    what arrives
            {log}     what the agent says
  edit      cd {clone}
            change the interval in {VARIABLES}, commit, push: live within a second or two
  break it  remove a brace, commit, push: nothing happens to what runs; `status` shows the line
  make it bad
            set the receiver's url in {VARIABLES} to {broken}
            commit, push: it is swapped in, seen to fail, and undone; `history` says why
  undo      git revert HEAD, push

Ctrl-C ends it.",
        bare = stage.repository.bare().display(),
        binary = stage.binary.display(),
        page = stage.receiver_page(),
        log = stage.agent.log_path().display(),
        broken = stage.receiver.url(BROKEN),
    );
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| error.to_string())?;
    runtime.block_on(tokio::signal::ctrl_c()).map_err(|error| error.to_string())
}

/// Plays everything and checks it.
pub(crate) fn auto(stage: &mut Stage) -> Outcome {
    let begun = Instant::now();
    first_boot(stage)?;
    good_push(stage)?;
    broken_push(stage)?;
    let bad = bad_push(stage)?;
    revert(stage, &bad)?;
    git_gone_and_killed(stage)?;
    println!("\nAll of it held, in {} s.", begun.elapsed().as_secs());
    Ok(())
}

fn first_boot(stage: &mut Stage) -> Outcome {
    step("an agent and a Git repository", "It clones, validates, swaps, and samples arrive.");
    let head = stage.repository.head()?;
    stage.agent.wait("the first commit runs", SOON, |status| runs(status, &head))?;
    wait_for_samples(stage, &[("__name__", "up"), ("fleet", "demo")])?;
    checked("the commit runs; `up` arrived with the external label fleet=\"demo\"");
    stage.agent.wait("the first commit is committed", PROBATION, |status| committed(status, &head))?;
    checked("it passed probation and is the last known good");
    Ok(())
}

fn good_push(stage: &mut Stage) -> Outcome {
    step("a good push", "A change of one component leaves the others as they are, and no sample is lost.");
    let scrape = stage.agent.instance("prometheus.scrape.agent")?;
    let relabel = stage.agent.instance("prometheus.relabel.tidy")?;
    let text = stage.repository.read(VARIABLES)?;
    stage
        .repository
        .write(VARIABLES, text.replace("fleet = \"demo\"", "fleet = \"demo\"\nrelease = \"two\""))?;
    let begun = Instant::now();
    let head = stage.repository.push("label the release")?;
    stage.agent.wait("the push is live", SOON, |status| runs(status, &head))?;
    let live = begun.elapsed();
    wait_for_samples(stage, &[("__name__", "up"), ("release", "two")])?;
    checked(&format!("live {:.1} s after the push; samples carry the new label", live.as_secs_f64()));
    same(&scrape, &stage.agent.instance("prometheus.scrape.agent")?, "prometheus.scrape.agent")?;
    same(&relabel, &stage.agent.instance("prometheus.relabel.tidy")?, "prometheus.relabel.tidy")?;
    checked("prometheus.scrape.agent and prometheus.relabel.tidy are the same instances as before");
    stage.agent.wait("the push is committed", PROBATION, |status| committed(status, &head))?;
    checked("committed after its probation");
    Ok(())
}

fn broken_push(stage: &mut Stage) -> Outcome {
    step("a broken push", "A commit that does not parse changes nothing; the refusal says where and why.");
    let good = stage.repository.head()?;
    let before = stage.agent.instance("prometheus.remote_write.receiver")?;
    let text = stage.repository.read("base/metrics.alloy")?;
    stage
        .repository
        .write("base/metrics.alloy", text.replacen("regex         = \"go_.*\"", "regex         = ", 1))?;
    let head = stage.repository.push("break the syntax")?;
    let status = stage.agent.wait("the push is refused", SOON, |status| {
        desires(status, &head) && status["reason"]["stage"].as_str().is_some()
    })?;
    let reason = &status["reason"];
    expect(runs(&status, &good), "the good commit runs on", &status)?;
    expect(
        reason["file"].as_str().is_some_and(|file| file.ends_with("base/metrics.alloy")),
        "the file is named",
        &status,
    )?;
    expect(reason["line"].as_u64().is_some_and(|line| line > 1), "the line is named", &status)?;
    checked(&format!(
        "refused: {}:{} {}",
        text_of(&reason["file"]),
        reason["line"],
        text_of(&reason["message"])
    ));
    same(
        &before,
        &stage.agent.instance("prometheus.remote_write.receiver")?,
        "prometheus.remote_write.receiver",
    )?;
    checked("what ran runs on, untouched");
    stage.repository.revert()?;
    let fixed = stage.repository.head()?;
    stage.agent.wait("the fix is in sync", SOON, |status| runs_content_of(status, &fixed))?;
    checked("the revert is in sync at once");
    Ok(())
}

fn bad_push(stage: &mut Stage) -> Outcome<String> {
    step(
        "a push that validates but is bad",
        "Its endpoint answers 500: the agent sees it in probation, goes back by itself, and does not try it again.",
    );
    let text = stage.repository.read(VARIABLES)?;
    let address = stage.receiver.url(GOOD);
    stage.repository.write(VARIABLES, text.replace(&address, &stage.receiver.url(BROKEN)))?;
    let bad = stage.repository.push("point at a broken endpoint")?;
    stage.agent.wait("the bad push runs, on probation", SOON, |status| runs(status, &bad))?;
    checked("it validated and was swapped in");
    let begun = Instant::now();
    let status = stage.agent.wait("it is rolled back", PROBATION, |status| {
        !runs(status, &bad) && status["rollback_count"].as_u64().is_some_and(|count| count > 0)
    })?;
    checked(&format!(
        "undone {:.1} s later; runs {}",
        begun.elapsed().as_secs_f64(),
        text_of(&status["running"]["revision"])
    ));
    expect(
        status["quarantined"]
            .as_array()
            .is_some_and(|list| list.iter().any(|entry| entry.to_string().contains(&bad))),
        "the bad commit is quarantined",
        &status,
    )?;
    expect(desires(&status, &bad), "Git still says the bad commit, and status says so", &status)?;
    expect(status["in_sync"] == Value::Bool(false), "not in sync", &status)?;
    checked("quarantined; status names both revisions and why they differ");
    let last = newest(stage);
    wait_until(stage, "samples flow again", |stage| newest(stage) > last)?;
    no_gap(stage)?;
    checked("no sample is missing: what the bad endpoint refused was sent again to the good one");
    Ok(bad)
}

fn revert(stage: &mut Stage, bad: &str) -> Outcome {
    step(
        "a revert",
        "Content that is known to be good is applied at once; the quarantine does not stand in its way.",
    );
    let head = stage.repository.revert()?;
    let status = stage.agent.wait("the revert is in sync", SOON, |status| runs_content_of(status, &head))?;
    expect(!runs(&status, bad), "the bad commit does not run", &status)?;
    checked("in sync with Git again");
    Ok(())
}

fn git_gone_and_killed(stage: &mut Stage) -> Outcome {
    step(
        "Git gone, and kill -9",
        "An agent that is killed while its repository cannot be reached starts from disk and loses nothing.",
    );
    stage.repository.vanish()?;
    let first = stage.agent.process();
    stage.agent.kill();
    stage.agent.launch()?;
    let status = stage.agent.wait("the last known good runs", SOON, |status| !status["running"].is_null())?;
    expect(stage.agent.process() != first, "it is another process", &status)?;
    checked(&format!("runs {} from disk", text_of(&status["running"]["revision"])));
    let last = newest(stage);
    wait_until(stage, "samples flow", |stage| newest(stage) > last)?;
    stage.agent.wait("the source's error is shown", SOON, |status| {
        status["sources"]
            .as_array()
            .is_some_and(|sources| sources.iter().any(|source| !source["error"].is_null()))
    })?;
    checked("samples flow; status says that the source cannot be reached");
    stage.repository.reappear()?;
    stage.agent.wait("the source is back", SOON, |status| {
        status["sources"]
            .as_array()
            .is_some_and(|sources| sources.iter().all(|source| source["error"].is_null()))
            && status["in_sync"] == Value::Bool(true)
    })?;
    checked("the repository is back, and the agent is in sync with it");
    let history = stage.agent.command(&["history"])?;
    println!("\n{}", String::from_utf8_lossy(&history.stdout).trim_end());
    Ok(())
}

fn step(title: &str, shows: &str) {
    println!("\n── {title}\n   {shows}");
}

fn checked(what: &str) {
    println!("   ✓ {what}");
}

fn expect(holds: bool, what: &str, status: &Value) -> Outcome {
    if holds { Ok(()) } else { Err(format!("expected: {what}\nstatus: {status:#}")) }
}

fn text_of(value: &Value) -> &str {
    value.as_str().unwrap_or("–")
}

fn names(part: &Value, commit: &str) -> bool {
    part["revision"].as_str().is_some_and(|revision| revision.contains(commit))
}

fn runs(status: &Value, commit: &str) -> bool {
    names(&status["running"], commit)
}

fn desires(status: &Value, commit: &str) -> bool {
    names(&status["desired"], commit)
}

fn committed(status: &Value, commit: &str) -> bool {
    names(&status["last_known_good"], commit) && status["in_sync"] == Value::Bool(true)
}

/// In sync with a commit, whose content may have been committed under another id before.
fn runs_content_of(status: &Value, commit: &str) -> bool {
    desires(status, commit) && status["in_sync"] == Value::Bool(true)
}

fn same(before: &str, after: &str, component: &str) -> Outcome {
    if before == after { Ok(()) } else { Err(format!("{component} was replaced: {before} → {after}")) }
}

fn wait_until(stage: &Stage, what: &str, holds: impl Fn(&Stage) -> bool) -> Outcome {
    wait_for(what, SOON, || holds(stage).then_some(()))
}

fn wait_for_samples(stage: &Stage, labels: &[(&str, &str)]) -> Outcome {
    wait_until(stage, &format!("samples with {labels:?}"), |stage| {
        !stage.receiver.samples(GOOD, labels).is_empty()
    })
}

fn timestamps(stage: &Stage) -> Vec<i64> {
    stage.receiver.samples(GOOD, &[("__name__", "up"), ("release", "two")]).into_keys().collect()
}

fn newest(stage: &Stage) -> i64 {
    timestamps(stage).last().copied().unwrap_or_default()
}

/// The scrape runs every second: a lost sample leaves a gap of two seconds or more.
fn no_gap(stage: &Stage) -> Outcome {
    let arrived =
        |stage: &Stage| timestamps(stage).windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default();
    // What was refused is sent again in order, so it may need a moment to arrive.
    wait_until(stage, "every sample of `up` to arrive", |stage| arrived(stage) < 1_900)
        .map_err(|problem| format!("{problem}; the widest gap is {} ms", arrived(stage)))
}

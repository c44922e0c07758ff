//! Modules: what `import.*` blocks bring in is a candidate like any other. It is swapped in where it is used and nowhere
//! else, kept out or undone when it is bad, without keeping others' changes back, and at hand when every remote is down.

use std::fs;
use std::time::Duration;

use invar_integration::{GitServer, Receiver, Repository, Target};
use serde_json::Value;

use crate::fleet::{Fleet, Plan, SOON, VERDICT, committed, desires, runs, scrape, scrape_to, write_to};

/// A module that scrapes what it is given, so often, under a job of this name.
fn module(interval: &str, job: &str) -> String {
    format!(
        r#"declare "scrape" {{
	argument "target" {{ }}

	argument "forward_to" {{ }}

	prometheus.scrape "page" {{
		targets         = [{{__address__ = argument.target.value, release = "{job}"}}]
		scrape_interval = "{interval}"
		scrape_timeout  = "{interval}"
		forward_to      = argument.forward_to.value
	}}
}}
"#
    )
}

/// A pipeline that uses the module, and beside it scrapes another page without it.
fn pipeline(import: &str, receiver: &Receiver, target: &Target, other: &Target, comment: &str) -> String {
    format!(
        r#"// {comment}
{import}

net.scrape "page" {{
	target     = "{}"
	forward_to = [prometheus.remote_write.out.receiver]
}}

{}
{}"#,
        target.address(),
        scrape(other, "500ms").replace("\"page\"", "\"other\""),
        write_to(receiver, "a")
    )
}

fn import_git(url: &str) -> String {
    format!(
        "import.git \"net\" {{\n\trepository     = \"{url}\"\n\tpath           = \"modules/net.alloy\"\n\tpull_frequency = \"1s\"\n}}"
    )
}

fn import_http(server: &Target) -> String {
    format!(
        "import.http \"net\" {{\n\turl            = \"http://{}/metrics\"\n\tpoll_frequency = \"1s\"\n}}",
        server.address()
    )
}

/// What only users of the module may be touched by.
fn untouched(fleet: &Fleet) -> Vec<String> {
    ["prometheus.scrape.other", "prometheus.remote_write.out"]
        .iter()
        .map(|component| fleet.agent.instance(component).unwrap())
        .collect()
}

/// Whether samples of this release of the module have arrived.
fn released(fleet: &Fleet, release: &str) {
    let arrived = || {
        let samples = fleet.receiver.samples("a", &[("__name__", "numbered_total"), ("release", release)]);
        (!samples.is_empty()).then_some(())
    };
    invar_integration::wait_for(&format!("samples of release {release}"), SOON, arrived)
        .map_err(|problem| format!("{problem}\n{:#}\n{}", fleet.agent.status().unwrap(), fleet.agent.log()))
        .unwrap();
}

fn source<'a>(status: &'a Value, name: &str) -> &'a Value {
    let sources = status["sources"].as_array().unwrap();
    sources.iter().find(|source| source["name"] == name).unwrap_or(&Value::Null)
}

/// A fleet whose pipeline imports a module of a repository of its own.
struct Library {
    fleet: Fleet,
    library: Repository,
    other: Target,
    server: GitServer,
}

impl Library {
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap().keep();
        let shelf = directory.join("library");
        fs::create_dir_all(&shelf).unwrap();
        let library = Repository::create(&shelf).unwrap();
        library.push_file("modules/net.alloy", module("500ms", "one"), "begin").unwrap();
        let server = GitServer::start(&directory).unwrap();
        let url = server.url("library/fleet.git");
        let other = Target::start("other 1\n").unwrap();
        let page = other.clone();
        let fleet = Fleet::planned_in(&directory, Plan::default(), |receiver, target| {
            pipeline(&import_git(&url), receiver, target, &page, "one")
        });
        Self { fleet, library, other, server }
    }

    fn url(&self) -> String {
        self.server.url("library/fleet.git")
    }

    fn push_module(&self, text: impl AsRef<[u8]>, subject: &str) -> String {
        self.library.push_file("modules/net.alloy", text, subject).unwrap()
    }
}

impl Drop for Library {
    fn drop(&mut self) {
        self.fleet.agent.kill();
        drop(fs::remove_dir_all(self.fleet.agent.directory()));
    }
}

#[test]
fn a_file_of_the_repository_is_swapped_in_where_it_is_used() {
    let other = Target::start("other 1\n").unwrap();
    let import = "import.file \"net\" {\n\tfilename = file.path_join(module_path, \"modules/net.alloy\")\n}";
    let fleet = Fleet::start(|receiver, target| scrape_to(receiver, target, "a"));
    let text = |comment: &str| pipeline(import, &fleet.receiver, &fleet.target, &other, comment);
    let lacking = fleet.push(text("lacking"), "import what is not there");
    let status = fleet.refused(&lacking);
    assert_eq!(status["reason"]["file"], "main.alloy", "{status:#}");
    assert!(status["reason"]["message"].to_string().contains("modules/net.alloy"), "{status:#}");

    fleet.repository.write("modules/net.alloy", module("500ms", "one")).unwrap();
    let head = fleet.push_and_run(text("there"), "add the module");
    fleet.committed(&head);
    released(&fleet, "one");
    let before = untouched(&fleet);
    let moved = fleet.repository.push_file("modules/net.alloy", module("400ms", "two"), "move").unwrap();
    fleet.agent.wait("the module moved", SOON, |status| runs(status, &moved)).unwrap();
    released(&fleet, "two");
    assert_eq!(untouched(&fleet), before, "only its users are touched");
    fleet.nothing_missing("a");
}

#[test]
fn a_module_of_another_repository_lives_its_own_life() {
    let library = Library::start();
    let fleet = &library.fleet;
    let root = fleet.repository.head().unwrap();
    fleet.committed(&root);
    released(fleet, "one");
    let before = untouched(fleet);
    let moved = library.push_module(module("400ms", "two"), "move");
    let status = fleet
        .agent
        .wait("the module moved", SOON, |status| runs(status, &moved) && runs(status, &root))
        .unwrap();
    assert_eq!(source(&status, "import.git.net")["kind"], "import.git", "{status:#}");
    released(fleet, "two");
    assert_eq!(untouched(fleet), before, "only its users are touched");
    fleet.committed(&moved);

    // Bad content: what runs goes on, and the module's own file and line are named.
    let generation = fleet.agent.status().unwrap()["running"]["generation"].clone();
    let bad =
        library.push_module(module("400ms", "three").replace("scrape_timeout", "scrape_tmeout"), "a typo");
    let status = fleet.refused(&bad);
    assert_eq!(status["reason"]["line"], 9, "{status:#}");
    let file = status["reason"]["file"].as_str().unwrap();
    assert!(file.ends_with("library/fleet.git//modules/net.alloy"), "{status:#}");
    assert_eq!(status["running"]["generation"], generation, "{status:#}");
    assert!(
        source(&status, "import.git.net")["error"]["message"].to_string().contains("net.alloy:9"),
        "{status:#}"
    );

    // Somebody else's change is not kept back by it.
    let text = pipeline(&import_git(&library.url()), &fleet.receiver, &fleet.target, &library.other, "two");
    let next = fleet.push_and_run(text.replace("500ms", "300ms"), "scrape the other page more often");
    let status = fleet.committed(&next);
    assert!(!status["in_sync"].as_bool().unwrap() && !status["reason"].is_null(), "{status:#}");

    let fixed = library.push_module(module("400ms", "four"), "mend it");
    let fine = |status: &Value| committed(status, &fixed) && status["in_sync"] == Value::Bool(true);
    let status = fleet.agent.wait("the mended module is good", VERDICT, fine).unwrap();
    assert!(status["reason"].is_null() && source(&status, "import.git.net")["error"].is_null(), "{status:#}");
    released(fleet, "four");
    fleet.nothing_missing("a");
}

#[test]
fn a_module_that_is_bad_once_it_runs_is_undone_and_quarantined_alone() {
    let library = Library::start();
    let fleet = &library.fleet;
    let root = fleet.repository.head().unwrap();
    fleet.committed(&root);
    let fault = "\ttesting.fault \"bad\" {\n\t\tpanic_in    = \"run\"\n\t\tpanic_after = \"500ms\"\n\t}\n}\n";
    let text = module("500ms", "bad");
    let bad = library.push_module(format!("{}\n{fault}", text.trim_end().trim_end_matches('}')), "panic");
    let status = fleet.undone(&bad);
    assert!(runs(&status, &root) && status["rollback_count"] == 1, "{status:#}");
    let text = pipeline(&import_git(&library.url()), &fleet.receiver, &fleet.target, &library.other, "two");
    let next = fleet.push_and_run(text.replace("500ms", "300ms"), "somebody else's change");
    let status = fleet.committed(&next);
    assert!(status["rollback_count"] == 1 && desires(&status, &bad), "{status:#}");
    let fixed = library.push_module(module("500ms", "fixed"), "mend it");
    fleet.committed(&fixed);
    released(fleet, "fixed");
    fleet.nothing_missing("a");
}

#[test]
fn an_http_module_is_at_hand_when_its_server_is_gone() {
    let server = Target::start(module("500ms", "one")).unwrap();
    let other = Target::start("other 1\n").unwrap();
    let (modules, page) = (server.clone(), other.clone());
    let mut fleet =
        Fleet::start(|receiver, target| pipeline(&import_http(&modules), receiver, target, &page, "one"));
    let root = fleet.repository.head().unwrap();
    fleet.committed(&root);
    server.show(module("500ms", "two"));
    released(&fleet, "two");
    let named = |status: &Value| committed(status, "net=http:sha256:");
    fleet.agent.wait("the module's revision is committed", VERDICT, named).unwrap();

    // A login page is not a module.
    server.content_type("text/html");
    server.show("<html>please sign in</html>");
    let failing = |status: &Value| !source(status, "import.http.net")["error"].is_null();
    let status = fleet.agent.wait("the page is refused", SOON, failing).unwrap();
    assert!(named(&status) && status["in_sync"] == Value::Bool(true), "{status:#}");

    // Nothing is there any more, not even the repository: it runs what it had.
    server.status(503);
    fleet.git.stop_answering();
    fleet.kill();
    fleet.agent.launch().unwrap();
    let status = fleet.agent.wait("it runs from disk", SOON, |status| !status["running"].is_null()).unwrap();
    assert!(named(&status) && runs(&status, &root), "{status:#}");
    fleet.agent.wait("the module's error is shown", SOON, failing).unwrap();

    // The repository is back, the module's server is not: changes go on with the module as it was.
    fleet.git.answer_again();
    let text = pipeline(&import_http(&server), &fleet.receiver, &fleet.target, &other, "two");
    let next = fleet
        .push_and_run(text.replace("scrape_interval = \"500ms\"", "scrape_interval = \"550ms\""), "slower");
    fleet.committed(&next);
    server.status(200);
    server.content_type("text/plain");
    server.show(module("500ms", "three"));
    released(&fleet, "three");
    fleet.nothing_missing("a");
}

/// What the agent says of the import's health.
fn import_health(fleet: &Fleet) -> Value {
    fleet.agent.get("/api/v1/components/import.string.net").unwrap()["health"].clone()
}

#[test]
fn a_module_that_a_component_reads_changes_alive_and_only_for_the_better() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("net.alloy");
    // Replaced at once, as whoever distributes files does.
    let distribute = |text: String| {
        fs::write(file.with_extension("new"), text).unwrap();
        fs::rename(file.with_extension("new"), &file).unwrap();
    };
    distribute(module("500ms", "one"));
    let import = format!(
        "local.file \"module\" {{\n\tfilename       = \"{}\"\n\tpoll_frequency = \"200ms\"\n}}\n\n\
         import.string \"net\" {{\n\tcontent = local.file.module.content\n}}",
        file.display()
    );
    let page = Target::start("other 1\n").unwrap();
    let fleet = Fleet::start(|receiver, target| pipeline(&import, receiver, target, &page, "one"));
    let root = fleet.repository.head().unwrap();
    fleet.committed(&root);
    released(&fleet, "one");
    let before = untouched(&fleet);
    let generation = fleet.agent.status().unwrap()["running"]["generation"].clone();

    distribute(module("400ms", "two"));
    released(&fleet, "two");

    // Neither what is no module nor what a component refuses is taken; each is shown with its place in the module.
    let typo = module("400ms", "three").replace("scrape_timeout", "scrape_tmeout");
    for (bad, place) in
        [("declare \"scrape\" {".to_owned(), "import.string.net:1:"), (typo, "import.string.net:9:")]
    {
        distribute(bad);
        let shown = || {
            let health = import_health(&fleet);
            let message = health["message"].as_str().unwrap_or_default().to_owned();
            (health["state"] == "unhealthy" && message.contains(place)).then_some(())
        };
        invar_integration::wait_for(&format!("the fault at {place}"), SOON, shown)
            .map_err(|problem| format!("{problem}\n{:#}", import_health(&fleet)))
            .unwrap();
        // The import, and the custom component that comes from it.
        let unwell =
            |status: &Value| status["health"] == "degraded" && status["components"]["unhealthy"] == 2;
        fleet.agent.wait("the status says so", SOON, unwell).unwrap();
        let scrapes = fleet.target.scrapes();
        let goes_on = || (fleet.target.scrapes() > scrapes + 2).then_some(());
        invar_integration::wait_for("the module as it was goes on", SOON, goes_on).unwrap();
    }

    distribute(module("400ms", "four"));
    released(&fleet, "four");
    let well = |status: &Value| status["health"] == "healthy" && status["components"]["unhealthy"] == 0;
    let status = fleet.agent.wait("all is well again", SOON, well).unwrap();
    assert_eq!(import_health(&fleet)["state"], "healthy");
    // A value, not a candidate (decision 0018): the same generation, nothing else touched, nothing lost.
    assert_eq!(status["running"]["generation"], generation, "{status:#}");
    assert_eq!(untouched(&fleet), before, "only its users are touched");
    let three = fleet.receiver.samples("a", &[("release", "three")]);
    assert!(three.is_empty(), "what was refused never ran: {three:?}");
    fleet.nothing_missing("a");
}

#[test]
fn a_module_changes_many_times_under_load_and_nothing_is_lost_or_left_behind() {
    // INVAR_MODULE_CHANGES=1000 makes it a soak of some minutes.
    let changes: usize =
        std::env::var("INVAR_MODULE_CHANGES").ok().and_then(|number| number.parse().ok()).unwrap_or(60);
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("net.alloy");
    fs::write(&file, module("250ms", "begin")).unwrap();
    let other = Target::start("other 1\n").unwrap();
    let import = format!("import.file \"net\" {{\n\tfilename = \"{}\"\n}}", file.display());
    let plan = Plan { probation: 1, settings: "quiesce = { min = \"10ms\", max = \"1s\" }\n".to_owned() };
    let fleet = Fleet::planned(plan, |receiver, target| pipeline(&import, receiver, target, &other, "one"));
    released(&fleet, "begin");
    let before = untouched(&fleet);
    let held = |fleet: &Fleet| -> (usize, usize) {
        let count = |folder: &str| {
            fs::read_dir(format!("/proc/{}/{folder}", fleet.agent.process())).map_or(0, Iterator::count)
        };
        (count("fd"), count("task"))
    };
    std::thread::sleep(Duration::from_secs(2));
    let (files, threads) = held(&fleet);
    for change in 0..changes {
        let good = module("250ms", &format!("r{change}"));
        match change % 4 {
            1 => fs::write(&file, "declare \"scrape\" {").unwrap(),
            2 => fs::write(&file, good.replace("scrape_timeout", "no_such_thing")).unwrap(),
            _ => fs::write(&file, good).unwrap(),
        }
        std::thread::sleep(Duration::from_millis(350));
    }
    fs::write(&file, module("250ms", "end")).unwrap();
    released(&fleet, "end");
    let status =
        fleet.agent.wait("it is in sync", VERDICT, |status| status["in_sync"] == Value::Bool(true)).unwrap();
    let generation = status["running"]["generation"].as_u64().unwrap();
    assert!(generation > changes as u64 / 6, "the changes were applied: {status:#}");
    println!(
        "{changes} changes, {generation} generations, {:?} before, {:?} now",
        (files, threads),
        held(&fleet)
    );
    assert_eq!(untouched(&fleet), before, "only its users are touched");
    fleet.nothing_missing("a");
    let settled = || {
        let (now, tasks) = held(&fleet);
        (now <= files + 2 && tasks <= threads + 2).then_some(())
    };
    invar_integration::wait_for("descriptors and threads to be given back", SOON, settled)
        .map_err(|problem| format!("{problem}: {:?} before, {:?} now", (files, threads), held(&fleet)))
        .unwrap();
}

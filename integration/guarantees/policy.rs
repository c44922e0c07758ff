//! The ceiling of the host: what `[policy]` does not allow is refused before anything is applied, whoever asks; no source
//! can widen it; one source may have less than another. And what several sources make together says whose each part is.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use invar_integration::{Target, free_address, wait_for};
use serde_json::Value;

use crate::fleet::{Fleet, Plan, SOON, binary, runs, scrape_to};

/// The ceiling that most tests have.
fn ceiling(directory: &Path) -> String {
    format!(
        r#"[policy]
environment_variables = ["ALLOWED_*", "CARGO*"]
file_roots = ["{}"]
listen = ["127.0.0.1:*"]
egress = ["127.0.0.1"]
deny_components = ["prometheus.exporter.*"]
nonsensitive = false
"#,
        directory.join("allowed").display()
    )
}

/// A file that nobody but its owner may write.
fn write(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap();
}

/// A fleet under a ceiling, with an allowed folder beside it.
struct Ceiled {
    fleet: Fleet,
    pipeline: String,
    directory: tempfile::TempDir,
}

impl Ceiled {
    fn start(settings: impl FnOnce(&Path) -> String) -> Self {
        let directory = tempfile::tempdir().unwrap();
        write(&directory.path().join("allowed/note.txt"), "noted");
        write(&directory.path().join("forbidden/secret.txt"), "hidden-marker");
        symlink(directory.path().join("forbidden/secret.txt"), directory.path().join("allowed/link.txt"))
            .unwrap();
        let plan = Plan { probation: 2, settings: settings(directory.path()) };
        let mut text = String::new();
        let fleet = Fleet::planned_in(directory.path(), plan, |receiver, target| {
            text = scrape_to(receiver, target, "a");
            text.clone()
        });
        Self { fleet, pipeline: text, directory }
    }

    fn path(&self, name: &str) -> String {
        self.directory.path().join(name).display().to_string()
    }

    fn instances(&self) -> Vec<String> {
        let of = |component: &str| self.fleet.agent.instance(component).unwrap();
        vec![of("prometheus.scrape.page"), of("prometheus.remote_write.out")]
    }

    /// Pushes the pipeline with this added, which is to be refused with all of these in the message.
    fn refuses(&self, addition: &str, wanted: &[&str]) {
        let before = self.instances();
        let running = self.fleet.agent.status().unwrap()["running"].clone();
        let commit = self.fleet.push(format!("{}\n{addition}\n", self.pipeline), "ask for more");
        let status = self.fleet.refused(&commit);
        let reason = &status["reason"];
        let message = reason["message"].as_str().unwrap_or_default().to_owned();
        for part in wanted {
            let said = message.contains(part) || reason.to_string().contains(part);
            assert!(said, "{addition}\nwanted {part:?} in {reason:#}");
        }
        assert!(!message.contains("hidden-marker"), "{message}");
        assert!(message.contains("main.alloy:"), "where it stands: {message}");
        assert_eq!(status["running"], running, "{addition}: nothing is applied");
        assert_eq!(self.instances(), before, "{addition}: nothing is touched");
    }
}

impl Drop for Ceiled {
    fn drop(&mut self) {
        self.fleet.agent.kill();
    }
}

/// A remote write beside the one there is.
fn write_with(url: &str, inner: &str) -> String {
    format!("prometheus.remote_write \"more\" {{\n\tendpoint {{\n\t\turl = {url}\n{inner}\n\t}}\n}}")
}

#[test]
fn each_ceiling_refuses_what_is_above_it_and_nothing_is_applied() {
    let test = Ceiled::start(ceiling);
    let loopback = "\"http://127.0.0.1:1/\"";
    let outside = test.path("forbidden/secret.txt");
    let quoted = format!("\"{outside}\"");
    let env = "the environment variable \"SECRET\" may not be read";
    let file = format!("the file {outside} may not be used");
    let link = test.path("allowed/link.txt");
    let far = "192.0.2.1";
    let cases: Vec<(String, Vec<&str>)> = vec![
        (write_with("\"http://127.0.0.1:1/\" + sys.env(\"SECRET\")", ""), vec![env, "environment_variables"]),
        (write_with("\"http://127.0.0.1:1/\" + env(\"SECRET\")", ""), vec![env]),
        (write_with("\"http://127.0.0.1:1/\" + sys[\"env\"](\"SECRET\")", ""), vec![env]),
        (format!("local.file \"x\" {{\n\tfilename = {quoted}\n}}"), vec![&file, "E217", "file_roots"]),
        (format!("local.file \"x\" {{\n\tfilename = \"{link}\"\n}}"), vec!["which leads to", &outside]),
        (
            format!("discovery.file \"x\" {{\n\tfiles = [\"{}/*.json\"]\n}}", test.path("forbidden")),
            vec!["may not be used", "E217"],
        ),
        (write_with(&format!("\"http://{far}/\""), ""), vec!["192.0.2.1:80 may not be connected to", "egress"]),
        (write_with(loopback, &format!("tls_config {{\n ca_file = {quoted}\n}}")), vec![&file, "E217"]),
        (
            write_with(loopback, &format!("basic_auth {{\n username = \"x\"\n password_file = {quoted}\n}}")),
            vec![&file],
        ),
        (
            write_with(loopback, &format!("proxy_url = \"http://{far}:3128\"")),
            vec!["192.0.2.1:3128 may not be connected to"],
        ),
        (
            format!(
                "prometheus.scrape \"x\" {{\n\ttargets = [{{__address__ = \"{far}:9100\"}}]\n\tforward_to = []\n}}"
            ),
            vec!["192.0.2.1:9100 may not be connected to"],
        ),
        (
            "prometheus.receive_http \"x\" {\n\thttp {\n\t\tlisten_address = \"0.0.0.0\"\n\t\tlisten_port = 0\n\t}\n\tforward_to = []\n}".to_owned(),
            vec!["0.0.0.0:0 may not be listened on", "`listen` of [policy]"],
        ),
        (
            // Not said, but it would listen everywhere.
            "prometheus.receive_http \"x\" {\n\tforward_to = []\n}".to_owned(),
            vec![":8080 may not be listened on"],
        ),
        ("prometheus.exporter.self \"x\" { }".to_owned(), vec!["component \"prometheus.exporter.self\"", "deny_components"]),
        (format!("import.file \"x\" {{\n\tfilename = {quoted}\n}}"), vec![&file]),
        (format!("import.http \"x\" {{\n\turl = \"http://{far}/x\"\n}}"), vec!["192.0.2.1:80"]),
        (
            format!("import.git \"x\" {{\n\trepository = \"https://{far}/x.git\"\n\tpath = \"x\"\n}}"),
            vec!["192.0.2.1:443"],
        ),
        (
            format!("import.git \"x\" {{\n\trepository = \"file://{outside}\"\n\tpath = \"x\"\n}}"),
            vec!["may not be used"],
        ),
        (
            write_with("convert.nonsensitive(\"http://127.0.0.1:1/\")", ""),
            vec!["convert.nonsensitive may not be used", "nonsensitive"],
        ),
        (
            format!("http {{\n\ttls {{\n\t\tcert_file = {quoted}\n\t\tkey_file = {quoted}\n\t}}\n}}"),
            vec![&file],
        ),
        (format!("remotecfg {{\n\turl = \"http://{far}/\"\n}}"), vec!["192.0.2.1:80"]),
        (
            format!(
                "declare \"inner\" {{\n\tlocal.file \"x\" {{\n\t\tfilename = {quoted}\n\t}}\n}}\n\ninner \"x\" {{ }}"
            ),
            vec![&file],
        ),
    ];
    for (addition, wanted) in &cases {
        test.refuses(addition, wanted);
    }
    // What is below the ceiling runs.
    let allowed = format!(
        "{}\nlocal.file \"x\" {{\n\tfilename = \"{}\"\n}}\n{}",
        test.pipeline,
        test.path("allowed/note.txt"),
        write_with("\"http://127.0.0.1:1/\" + sys.env(\"ALLOWED_NAME\")", "")
    );
    test.fleet.push_and_run(allowed, "stay below the ceiling");
    let component = test.fleet.agent.get("/api/v1/components/local.file.x").unwrap();
    assert_eq!(component["health"]["state"], "healthy", "{component:#}");
}

#[test]
fn targets_that_are_found_later_are_refused_one_by_one() {
    let test = Ceiled::start(ceiling);
    let page = Target::start("other 1\n").unwrap();
    let targets = format!("[{{\"targets\": [\"{}\", \"192.0.2.1:9100\"]}}]", page.address());
    write(&test.directory.path().join("allowed/targets.json"), &targets);
    let found = format!(
        "{}\ndiscovery.file \"found\" {{\n\tfiles = [\"{}\"]\n}}\n\nprometheus.scrape \"found\" {{\n\ttargets = discovery.file.found.targets\n\tscrape_interval = \"500ms\"\n\tscrape_timeout = \"500ms\"\n\tforward_to = [prometheus.remote_write.out.receiver]\n}}\n",
        test.pipeline,
        test.path("allowed/targets.json")
    );
    test.fleet.push_and_run(found, "scrape what is found");
    let refused = || {
        let component = test.fleet.agent.get("/api/v1/components/prometheus.scrape.found").ok()?;
        component["debug_info"].to_string().contains("may not be connected to").then_some(())
    };
    wait_for("the one target to be refused", SOON, refused).unwrap();
    let arrived = || (!test.fleet.receiver.samples("a", &[("__name__", "other")]).is_empty()).then_some(());
    wait_for("the other target to be scraped", SOON, arrived).unwrap();
}

#[test]
fn a_source_cannot_widen_the_ceiling_nor_reach_the_settings() {
    let test = Ceiled::start(ceiling);
    // A settings file in the repository is a file like any other.
    let wider = "[policy]\nfile_roots = [\"/\"]\nenvironment_variables = [\"*\"]\n";
    test.fleet.repository.write("invar.toml", wider).unwrap();
    test.refuses(
        &format!("local.file \"x\" {{\n\tfilename = \"{}\"\n}}", test.path("forbidden/secret.txt")),
        &["may not be used", "[policy]"],
    );
    // No block says what only the settings say.
    for block in ["policy", "sources", "source", "state", "server"] {
        test.refuses(&format!("{block} {{\n\tfile_roots = [\"/\"]\n}}"), &[block]);
    }
    // Removing all files does not remove the source: it is refused as empty, and followed further.
    test.fleet.repository.git(&["rm", "-q", "main.alloy"]).unwrap();
    let emptied = test.fleet.repository.push("remove everything").unwrap();
    let kept = || {
        let status = test.fleet.agent.status().ok()?;
        let source = &status["sources"][0];
        (!runs(&status, &emptied) && (!source["error"].is_null() || !status["reason"].is_null()))
            .then_some(status)
    };
    let status = wait_for("the empty revision to be refused", SOON, kept).unwrap();
    assert_eq!(status["sources"].as_array().unwrap().len(), 1, "{status:#}");
    test.fleet.push_and_run(format!("{}\n// back\n", test.pipeline), "come back");
}

/// A second source on this host, in its own folder.
fn team(directory: &Path, more: &str) -> String {
    format!(
        "[[source]]\nname = \"team\"\nfile = {{ path = \"{}\" }}\ninterval = \"1s\"\noptional = true\n\n{more}",
        directory.join("team").display()
    )
}

/// Waits until a source of the status satisfies this.
fn source(test: &Ceiled, name: &str, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let look = || {
        let status = test.fleet.agent.status().ok()?;
        let source = status["sources"].as_array()?.iter().find(|source| source["name"] == name)?.clone();
        wanted(&source).then_some(source)
    };
    wait_for(what, SOON, look).unwrap()
}

/// Waits until the status satisfies this.
fn until(test: &Ceiled, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    test.fleet
        .agent
        .wait(what, SOON, wanted)
        .map_err(|problem| format!("{problem}\n{}", test.fleet.agent.log()))
        .unwrap()
}

#[test]
fn one_source_may_have_less_than_another() {
    let test = Ceiled::start(|directory| {
        team(
            directory,
            &format!(
                "[policy]\nfile_roots = [\"{}\"]\n\n[policy.source.team]\ncomponents = [\"local.*\"]\nfile_roots = [\"{}\"]\n",
                directory.display(),
                directory.join("allowed").display()
            ),
        )
    });
    let outside =
        format!("local.file \"NAME\" {{\n\tfilename = \"{}\"\n}}\n", test.path("forbidden/secret.txt"));
    let fleets = format!("{}\n{}", test.pipeline, outside.replace("NAME", "fleets"));
    test.fleet.push_and_run(fleets, "what the fleet may");

    let file = test.directory.path().join("team/team.alloy");
    write(&file, &outside.replace("NAME", "teams"));
    let status = until(&test, "the team to be refused", |status| !status["reason"].is_null());
    let message = status["reason"]["message"].to_string();
    assert!(message.contains("team:team.alloy:2") && message.contains("[policy.source.team]"), "{message}");

    write(&file, "prometheus.exporter.self \"teams\" { }\n");
    let by_component =
        |status: &Value| status["reason"]["message"].to_string().contains("prometheus.exporter.self");
    let status = until(&test, "the component to be refused", by_component);
    assert!(status["reason"]["message"].to_string().contains("team:team.alloy:1"), "{status:#}");

    // What the team makes of a module of the fleet's is the team's doing, too.
    let module = "declare \"reader\" {\n\targument \"name\" { }\n\n\tlocal.file \"read\" {\n\t\tfilename = argument.name.value\n\t}\n}\n";
    test.fleet.push(
        format!("{}\n{}\n{module}", test.pipeline, outside.replace("NAME", "fleets")),
        "declare a reader",
    );
    write(&file, &format!("reader \"teams\" {{\n\tname = \"{}\"\n}}\n", test.path("forbidden/secret.txt")));
    let refused = |status: &Value| status["reason"]["message"].to_string().contains("fleet:main.alloy");
    let status = until(&test, "the use of the module to be refused", refused);
    let message = status["reason"]["message"].to_string();
    assert!(message.contains("[policy.source.team]"), "{message}");

    write(
        &file,
        &format!("local.file \"teams\" {{\n\tfilename = \"{}\"\n}}\n", test.path("allowed/note.txt")),
    );
    until(&test, "what the team may", |status| status["in_sync"] == true);
    let component = |id: &str| test.fleet.agent.get(&format!("/api/v1/components/{id}")).unwrap();
    let teams = component("local.file.teams");
    assert_eq!(
        (&teams["sources"], &teams["file"], &teams["line"]),
        (&serde_json::json!(["team"]), &"team.alloy".into(), &1.into())
    );
    assert_eq!(component("local.file.fleets")["sources"], serde_json::json!(["fleet"]));
}

#[test]
fn two_sources_with_one_component_are_one_error_that_names_both_places() {
    let test = Ceiled::start(|directory| team(directory, ""));
    let file = test.directory.path().join("team/twice.alloy");
    write(&file, &format!("\n\n{}", test.pipeline.trim_start()));
    let status = until(&test, "the duplicate to be refused", |status| !status["reason"].is_null());
    let message = status["reason"]["message"].as_str().unwrap().to_owned();
    assert!(message.contains("team:twice.alloy:3"), "{message}");
    assert!(message.contains("fleet:main.alloy:2"), "{message}");
    fs::remove_file(&file).unwrap();
    write(&test.directory.path().join("team/fine.alloy"), "prometheus.exporter.self \"fine\" { }\n");
    until(&test, "the duplicate to go", |status| status["in_sync"] == true);
}

#[test]
fn an_optional_source_contributes_when_it_is_there_and_a_stale_one_says_so() {
    let test = Ceiled::start(|directory| team(directory, ""));
    source(&test, "team", "the missing source to be told of", |team| !team["error"].is_null());
    let before = test.instances();
    let file = test.directory.path().join("team/team.alloy");
    write(&file, "prometheus.exporter.self \"team\" { }\n");
    let joined = |status: &Value| status["running"]["revision"].to_string().contains("file:");
    until(&test, "the optional source to join", joined);
    assert!(test.fleet.agent.instance("prometheus.exporter.self.team").is_ok());
    assert_eq!(test.instances(), before, "the others are untouched");

    // The required one cannot be reached any more: what it said last is composed with what the other says now.
    test.fleet.git.stop_answering();
    source(&test, "fleet", "the lost source to be told of", |fleet| !fleet["error"].is_null());
    write(&file, "prometheus.exporter.self \"team\" { }\n\nprometheus.exporter.self \"later\" { }\n");
    let later = || test.fleet.agent.instance("prometheus.exporter.self.later").ok();
    wait_for("the change beside a stale source", SOON, later).unwrap();
    let fleet = source(&test, "fleet", "the stale source", |_| true);
    assert!(!fleet["error"]["message"].is_null() && !fleet["error"]["since"].is_null(), "{fleet:#}");
    assert!(!fleet["revision"].is_null(), "its last good revision stays in use: {fleet:#}");
    test.fleet.git.answer_again();
    source(&test, "fleet", "the source to recover", |fleet| fleet["error"].is_null());
}

#[test]
fn two_sources_that_change_together_land_in_one_candidate() {
    let test = Ceiled::start(|directory| {
        write(&directory.join("team/team.alloy"), "prometheus.exporter.self \"team\" { }\n");
        // The first line belongs to the table before it.
        format!("quiesce = {{ min = \"8s\", max = \"20s\" }}\n\n{}", team(directory, ""))
    });
    until(&test, "both to run", |status| status["running"]["revision"].to_string().contains("file:"));
    let generation = |status: &Value| status["running"]["generation"].as_u64().unwrap_or_default();
    let before = generation(&test.fleet.agent.status().unwrap());
    let revision = source(&test, "team", "its revision", |_| true)["revision"].clone();
    write(&test.directory.path().join("team/team.alloy"), "prometheus.exporter.self \"changed\" { }\n");
    // A commit that is seen alone is whole and not waited with, so it has to come second.
    source(&test, "team", "the change of the file", |team| team["revision"] != revision);
    let head = test.fleet.push(
        format!("{}\nlocal.file \"together\" {{\n\tfilename = \"/etc/hostname\"\n}}\n", test.pipeline),
        "together",
    );
    let status = until(&test, "both changes", |status| {
        runs(status, &head) && test.fleet.agent.instance("prometheus.exporter.self.changed").is_ok()
    });
    assert_eq!(generation(&status), before + 1, "one candidate: {status:#}");
}

#[test]
fn a_plan_says_where_each_component_comes_from() {
    let test = Ceiled::start(|directory| team(directory, ""));
    write(&test.directory.path().join("team/team.alloy"), "\nprometheus.exporter.self \"team\" { }\n");
    until(&test, "the optional source to join", |status| {
        status["running"]["revision"].to_string().contains("file:")
    });
    let plan = test.fleet.agent.get("/api/v1/plan").unwrap();
    let changes = plan["changes"].as_array().unwrap();
    let of = |node: &str| changes.iter().find(|change| change["node"] == node).unwrap();
    let teams = of("prometheus.exporter.self.team");
    assert_eq!(teams["sources"], serde_json::json!(["team"]), "{teams:#}");
    assert_eq!((&teams["file"], &teams["line"]), (&"team.alloy".into(), &2.into()));
    assert_eq!(of("prometheus.scrape.page")["sources"], serde_json::json!(["fleet"]));
    let shown = test.fleet.agent.command(&["plan"]).unwrap();
    let text = String::from_utf8_lossy(&shown.stdout);
    assert!(text.contains("team team.alloy:2") || text.contains("No changes"), "{text}");
}

#[test]
fn limits_hold_for_all_sources_and_for_one() {
    let test = Ceiled::start(|directory| {
        team(
            directory,
            "[policy]\nlimits = { components = 6, files = 3 }\n\n[policy.source.team]\nlimits = { components = 1 }\n",
        )
    });
    let file = test.directory.path().join("team/team.alloy");
    write(&file, "prometheus.exporter.self \"one\" { }\n\nprometheus.exporter.self \"two\" { }\n");
    let of_team = |status: &Value| status["reason"]["message"].to_string().contains("[policy.source.team]");
    let status = until(&test, "the second component to be refused", of_team);
    assert!(status["reason"]["message"].to_string().contains("team:team.alloy:3"), "{status:#}");
    fs::remove_file(&file).unwrap();
    let mut many = test.pipeline.clone();
    for number in 0..5 {
        write!(many, "\nprometheus.exporter.self \"n{number}\" {{ }}\n").unwrap();
    }
    let commit = test.fleet.push(many, "many");
    let status = test.fleet.refused(&commit);
    assert!(status["reason"]["message"].to_string().contains("more than 6 components"), "{status:#}");
    for name in ["b.alloy", "c.alloy", "d.alloy"] {
        test.fleet.repository.write(name, "").unwrap();
    }
    let commit = test.fleet.push(format!("{}\n", test.pipeline), "many files");
    let status = test.fleet.refused(&commit);
    assert!(status["reason"]["message"].to_string().contains("more than 3 pipeline files"), "{status:#}");
}

/// An agent that was given an address, and its API.
struct Addressed {
    child: std::process::Child,
    address: String,
}

impl Addressed {
    fn start(fleet: &Fleet, directory: &Path, flags: &[&str]) -> Self {
        let address = free_address().unwrap();
        let state = directory.join(format!("state-{}", address.replace(':', "-")));
        let child = Command::new(binary())
            .arg("run")
            .arg(format!("git+{}?branch=main", fleet.git.url("fleet.git")))
            .args(["--interval=1s", "--probation=1s"])
            .arg(format!("--server.http.listen-addr={address}"))
            .arg(format!("--storage.path={}", state.display()))
            .args(flags)
            .env("ADDRESSED_MARKER", "seen-marker")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self { child, address }
    }

    fn wait(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let look = || {
            let answer = invar_integration::fetch(&format!("http://{}/api/v1/status", self.address)).ok()?;
            let status: Value = serde_json::from_slice(&answer).ok()?;
            wanted(&status).then_some(status)
        };
        wait_for(what, SOON, look).unwrap()
    }
}

impl Drop for Addressed {
    fn drop(&mut self) {
        // Ended already, or ended now: either way there is nothing left to wait for.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[test]
fn an_address_on_the_command_line_starts_closed_and_names_the_flag() {
    let test = Ceiled::start(|_| String::new());
    let reads = |addition: &str| format!("{}\n{addition}\n", test.pipeline);
    let file = format!("local.file \"x\" {{\n\tfilename = \"{}\"\n}}", test.path("allowed/note.txt"));
    let variable = write_with("\"http://127.0.0.1:1/\" + sys.env(\"ADDRESSED_MARKER\")", "");
    for (addition, what, flag) in [
        (&file, "may not be used", "--allow-host-files"),
        (&variable, "\"ADDRESSED_MARKER\" may not be read", "--allow-environment-variable=ADDRESSED_MARKER"),
    ] {
        let head = test.fleet.push(reads(addition), "ask an address for more");
        let closed = Addressed::start(&test.fleet, test.directory.path(), &[]);
        let status = closed.wait("the refusal", |status| !status["reason"]["file"].is_null());
        let reason = status["reason"]["message"].as_str().unwrap().to_owned();
        assert!(reason.contains(what), "{reason}");
        assert!(reason.contains(flag), "{reason}");
        assert!(!reason.contains("seen-marker"), "{reason}");
        assert!(reason.contains("main.alloy:"), "{reason}");
        drop(closed);
        let open = Addressed::start(&test.fleet, test.directory.path(), &[flag]);
        open.wait("it to run with the flag", |status| runs(status, &head));
    }
}

#[test]
fn validation_elsewhere_reports_what_a_host_would_refuse() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).display().to_string();
    write(
        &directory.path().join("main.alloy"),
        "local.file \"x\" {\n\tfilename = \"/etc/passwd\"\n}\n\nprometheus.remote_write \"x\" {\n\tendpoint {\n\t\turl = \"https://\" + sys.env(\"HOST_OF_METRICS\")\n\t}\n}\n",
    );
    let settings = "[[source]]\nname = \"a\"\nfile = { path = \"/etc/invar/a\" }\n\n[[source]]\nname = \"b\"\nfile = { path = \"/etc/invar/b\" }\n\n[policy]\nenvironment_variables = []\n\n[policy.source.b]\nfile_roots = [\"/var/log\"]\n";
    write(&directory.path().join("invar.toml"), settings);
    let validate = |flags: &[&str]| {
        let output =
            Command::new(binary()).arg("validate").arg(path("main.alloy")).args(flags).output().unwrap();
        (output.status.code().unwrap(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let settings = format!("--settings={}", path("invar.toml"));
    assert_eq!(validate(&[]).0, 0);
    let (code, text) = validate(&[&settings, "--source=a"]);
    assert_eq!(code, 4, "{text}");
    assert!(text.contains("HOST_OF_METRICS") && !text.contains("/etc/passwd may"), "{text}");
    let (code, text) = validate(&[&settings, "--source=b"]);
    assert_eq!(code, 4, "{text}");
    assert!(text.contains("the file /etc/passwd may not be used") && text.contains("main.alloy:2"), "{text}");
    assert!(text.contains("[policy.source.b]"), "{text}");
    let (code, text) = validate(&[&settings]);
    assert_ne!(code, 0);
    assert!(text.contains("--source"), "{text}");
}

#[test]
fn a_ceiling_for_a_source_that_does_not_exist_ends_the_start() {
    let directory = tempfile::tempdir().unwrap();
    let settings = directory.path().join("invar.toml");
    let text = format!(
        "[server]\nlisten = \"{}\"\n[state]\ndir = \"{}\"\n[[source]]\nname = \"a\"\nfile = {{ path = \"/etc/invar/a\" }}\n[policy.source.typo]\nlisten = []\n",
        free_address().unwrap(),
        directory.path().join("state").display()
    );
    write(&settings, &text);
    let mut child = Command::new(binary()).arg("run").arg(&settings).stderr(Stdio::piped()).spawn().unwrap();
    let ended = || child.try_wait().ok().flatten();
    let status = wait_for("the process to end", Duration::from_secs(30), ended);
    let output = {
        drop(child.kill());
        child.wait_with_output().unwrap()
    };
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(status.unwrap().code(), Some(64), "bad usage: {said}");
    assert!(said.contains("the source `typo`"), "{said}");
}

#[test]
fn a_value_that_is_known_only_later_is_refused_when_it_is_known() {
    let test = Ceiled::start(ceiling);
    let address = test.directory.path().join("allowed/address.txt");
    let beside = format!(
        "local.file \"address\" {{\n\tfilename = \"{}\"\n\tpoll_frequency = \"500ms\"\n}}\n\n{}",
        address.display(),
        write_with("local.file.address.content", "")
    );
    // When it is prepared: the revision is refused.
    write(&address, "http://192.0.2.1/");
    test.refuses(&beside, &["192.0.2.1:80 may not be connected to", "egress"]);
    // When it runs already: the component keeps what it had and says so.
    write(&address, "http://127.0.0.1:1/");
    test.fleet.push_and_run(format!("{}\n{beside}\n// again\n", test.pipeline), "an address that is allowed");
    let instance = test.fleet.agent.instance("prometheus.remote_write.more").unwrap();
    write(&address, "http://192.0.2.1/");
    let refused = || {
        let component = test.fleet.agent.get("/api/v1/components/prometheus.remote_write.more").ok()?;
        let said =
            component["health"]["message"].to_string().contains("192.0.2.1:80 may not be connected to");
        said.then_some(component)
    };
    let component = wait_for("the new value to be refused", SOON, refused).unwrap();
    assert_eq!(component["health"]["state"], "unhealthy", "{component:#}");
    assert_eq!(test.fleet.agent.instance("prometheus.remote_write.more").unwrap(), instance);
    // And a file that comes to lead elsewhere is not read any more.
    fs::remove_file(&address).unwrap();
    symlink(test.directory.path().join("forbidden/secret.txt"), &address).unwrap();
    let unread = || {
        let component = test.fleet.agent.get("/api/v1/components/local.file.address").ok()?;
        let said = component["health"]["message"].to_string().contains("may not be used");
        (said && !component.to_string().contains("hidden-marker")).then_some(())
    };
    wait_for("the link to be refused", SOON, unread).unwrap();
}

//! Reading files of target groups, and `discovery.file` in a running engine.

#![allow(clippy::unwrap_used)]

use std::path::Path;

use invar_engine::{Configuration, Engine, EngineOptions, Inputs, PrepareMode, Registry};
use tempfile::TempDir;

use super::*;

fn read(directory: &Path, name: &str, content: &str) -> Result<Vec<Target>, String> {
    let path = directory.join(name);
    std::fs::write(&path, content).unwrap();
    groups::read(&path, &Access::unrestricted()).map(Option::unwrap).map_err(|error| error.to_string())
}

#[test]
fn json_and_yaml_say_the_same() {
    let directory = tempfile::tempdir().unwrap();
    let json = r#"[{"targets": ["a:1", "b:2"], "labels": {"env": "prod", "n": "1"}}, {"targets": ["c:3"]}]"#;
    let yaml = "- targets: ['a:1', \"b:2\"]\n  labels:\n    env: prod\n    n: 1\n- targets:\n  - c:3\n";
    let strip = |targets: Vec<Target>| -> Vec<Vec<(String, String)>> {
        let visible = |target: &Target| {
            let labels = target.iter().filter(|(name, _)| *name != "__meta_filepath");
            labels.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
        };
        targets.iter().map(visible).collect()
    };
    let from_json = strip(read(directory.path(), "a.json", json).unwrap());
    assert_eq!(from_json, strip(read(directory.path(), "a.yml", yaml).unwrap()));
    assert_eq!(from_json.len(), 3);
    assert_eq!(from_json[0][0], ("__address__".to_owned(), "a:1".to_owned()));
    let anchored = "- &g\n  targets: [a:1, b:2]\n  labels: {env: prod, n: 1}\n- targets: [c:3]\n";
    assert_eq!(from_json, strip(read(directory.path(), "b.yaml", anchored).unwrap()));
}

#[test]
fn targets_tell_which_file_they_come_from() {
    let directory = tempfile::tempdir().unwrap();
    let targets =
        read(directory.path(), "a.json", r#"[{"targets": ["a"], "labels": {"__meta_filepath": "x"}}]"#);
    let path = directory.path().join("a.json");
    assert_eq!(targets.unwrap()[0].get("__meta_filepath"), path.to_str());
}

#[test]
fn empty_files_hold_no_targets_and_broken_ones_say_why() {
    let directory = tempfile::tempdir().unwrap();
    for (name, content) in [
        ("a.yml", ""),
        ("a.yml", "# nothing\n"),
        ("a.yml", "null"),
        ("a.json", "[]"),
        ("a.yml", "- targets:\n"),
    ] {
        assert_eq!(read(directory.path(), name, content).unwrap(), [], "{name} {content:?}");
    }
    for (name, content, part) in [
        ("a.json", "", "EOF"),
        ("a.json", "{}", "invalid type"),
        ("a.json", r#"[{"target": ["a"]}]"#, "unknown field"),
        ("a.json", r#"[{"targets": ["a"], "labels": {"a-b": "x"}}]"#, "no label name"),
        ("a.yml", "targets: [a]", "list of target groups"),
        ("a.yml", "- target: [a]", "unknown field"),
        ("a.yml", "- targets: [{a: b}]", "addresses"),
        ("a.yml", "- targets: [a\n", "line"),
        ("a.yml", "- targets: [a]\n  targets: [b]", "twice"),
        ("a.yml", "- *nowhere", ""),
        ("a.yml", &"[".repeat(100), ""),
    ] {
        let error = read(directory.path(), name, content).unwrap_err();
        assert!(error.contains(part), "{name} {content:?}: {error}");
    }
}

#[test]
fn a_bomb_of_aliases_is_refused() {
    let mut text = "- &a0 {targets: [x, x, x, x, x, x, x, x, x, x]}\n".to_owned();
    for level in 1..12 {
        let items = vec![format!("*a{}", level - 1); 10].join(", ");
        text.push_str(&format!("- &a{level} [{items}]\n"));
    }
    assert!(yaml::parse(&text).unwrap_err().contains("too much"));
}

#[test]
fn a_broken_file_keeps_its_targets_and_a_removed_one_loses_them() {
    let directory = tempfile::tempdir().unwrap();
    let patterns = [Pattern::parse(directory.path().join("*.json").to_str().unwrap()).unwrap()];
    read(directory.path(), "b.json", r#"[{"targets": ["b"]}]"#).unwrap();
    read(directory.path(), "a.json", r#"[{"targets": ["a"]}]"#).unwrap();
    let addresses = |scan: &Scan| -> Vec<String> {
        scan.targets().iter().map(|target| target.get("__address__").unwrap().to_owned()).collect()
    };
    let first = Scan::of(&patterns, BTreeMap::new(), &Access::unrestricted());
    assert_eq!(addresses(&first), ["a", "b"]);
    std::fs::write(directory.path().join("a.json"), "broken").unwrap();
    std::fs::remove_file(directory.path().join("b.json")).unwrap();
    let second = Scan::of(&patterns, first.files, &Access::unrestricted());
    assert_eq!(addresses(&second), ["a"]);
    assert_eq!(second.problems.len(), 1, "{:?}", second.problems);
    // With the directory its files are gone, too; it may come back.
    directory.close().unwrap();
    let third = Scan::of(&patterns, second.files, &Access::unrestricted());
    assert!(addresses(&third).is_empty() && third.problems.is_empty(), "{third:?}");
}

proptest::proptest! {
    #[test]
    fn no_text_breaks_the_reader(text in "[-\\[\\]{}:,&*<'\"a1 \\n]{0,60}") {
        // Whatever it is, there is an answer.
        drop(yaml::parse(&text));
    }

    #[test]
    fn what_is_written_is_read(addresses in proptest::collection::vec("[a-z]{1,8}:[0-9]{1,5}", 0..6), value in "[^\\x00]{0,12}") {
        let directory = tempfile::tempdir().unwrap();
        let written = serde_json::json!([{"targets": addresses, "labels": {"label": value}}]).to_string();
        // JSON is YAML as well.
        for name in ["a.json", "a.yml"] {
            let Ok(targets) = read(directory.path(), name, &written) else {
                // YAML refuses some control characters that JSON escapes.
                proptest::prop_assert!(name == "a.yml" && value.chars().any(char::is_control));
                continue;
            };
            proptest::prop_assert_eq!(targets.len(), addresses.len());
            for (target, address) in targets.iter().zip(&addresses) {
                proptest::prop_assert_eq!(target.get("__address__"), Some(address.as_str()));
                proptest::prop_assert_eq!(target.get("label"), Some(value.as_str()));
            }
        }
    }
}

struct Running {
    engine: Engine,
    _data: TempDir,
}

impl Running {
    async fn start(directory: &Path) -> Self {
        let data = tempfile::tempdir().unwrap();
        let engine = Engine::new(EngineOptions::new(crate::register(Registry::new()), data.path()));
        let text = format!("discovery.file \"x\" {{\n  files = [{:?}]\n}}\n", directory.join("*.yml"));
        let parsed = Configuration::parse([("main.alloy", text)], Inputs::default(), "test").unwrap();
        let prepared = engine.prepare(parsed.into(), PrepareMode::AllOrNothing).await.unwrap();
        engine.cut(prepared, |_| Ok::<_, String>(())).await.unwrap();
        engine.commit().await;
        Self { engine, _data: data }
    }

    fn addresses(&self) -> Vec<String> {
        let exports = self.engine.component("discovery.file.x").unwrap().exports;
        // An object of one list of capsules, each shown as the object it reads as.
        let targets = exports["value"][0]["value"]["value"].as_array().unwrap().clone();
        let address = |target: &serde_json::Value| {
            let text = target["value"].as_str().unwrap();
            let (_, rest) = text.split_once("__address__").unwrap();
            rest.split('"')
                .find(|part| part.chars().all(char::is_alphanumeric) && !part.is_empty())
                .unwrap()
                .to_owned()
        };
        targets.iter().map(address).collect()
    }

    async fn until(&self, expected: &[&str]) -> Instant {
        let waiting = async {
            while self.addresses() != expected {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let waited = tokio::time::timeout(Duration::from_secs(30), waiting).await;
        assert!(waited.is_ok(), "last seen: {:?}", self.addresses());
        Instant::now()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn targets_follow_the_files_at_the_pace_of_discovery() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("a.yml"), "- targets: [a]").unwrap();
    let running = Running::start(directory.path()).await;
    assert_eq!(running.addresses(), ["a"], "known as soon as the configuration is applied");
    std::fs::write(directory.path().join("b.yml"), "- targets: [b]").unwrap();
    let started = Instant::now();
    let first = running.until(&["a", "b"]).await;
    assert!(first - started < PUBLICATION_INTERVAL, "the first publication is immediate");
    std::fs::remove_file(directory.path().join("a.yml")).unwrap();
    let second = running.until(&["b"]).await;
    let between = second - first;
    assert!(between > PUBLICATION_INTERVAL - Duration::from_millis(500), "published again after {between:?}");
    running.engine.shutdown(Duration::from_secs(5)).await;
}

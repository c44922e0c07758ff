#![allow(clippy::unwrap_used)]

use std::os::unix::fs::symlink;

use super::*;

fn policy(text: &str, sources: &[&str]) -> Result<Policy, Vec<PolicyError>> {
    let sources: Vec<String> = sources.iter().map(|name| (*name).to_owned()).collect();
    Policy::new(&toml::from_str(text).unwrap(), &sources)
}

fn of(text: &str) -> Access {
    policy(text, &["a"]).unwrap().access(["a"])
}

#[test]
fn an_absent_key_restricts_nothing_but_programs() {
    let access = of("");
    assert_eq!(access.environment_variable("ANY"), Ok(()));
    assert_eq!(access.file(Path::new("/etc/shadow")), Ok(()));
    assert_eq!(access.listen("0.0.0.0:80"), Ok(()));
    assert_eq!(access.destination("anywhere.example", Some(443)), Ok(Reach::Anywhere));
    assert_eq!(access.component("prometheus.scrape"), Ok(()));
    assert_eq!(access.secret("vault/kv/x#y"), Ok(()));
    assert_eq!(access.nonsensitive(), Ok(()));
    assert!(access.exec().unwrap_err().help.contains("exec = true"));
    assert_eq!(of("exec = true").exec(), Ok(()));
}

#[test]
fn a_present_key_is_the_ceiling_even_when_it_is_empty() {
    let access = of("environment_variables = []\nlisten = []\negress = []\ncomponents = []\nfile_roots = []");
    assert!(access.environment_variable("HOSTNAME").is_err());
    assert!(access.listen("127.0.0.1:1").is_err());
    assert!(access.destination("x.example", None).is_err());
    assert!(access.component("prometheus.scrape").is_err());
    assert!(access.file(Path::new("/etc/hostname")).is_err());
}

#[test]
fn a_refusal_names_what_by_which_setting_and_what_allows_it() {
    let refusal = of("environment_variables = [\"APP_*\"]").environment_variable("TOKEN").unwrap_err();
    assert_eq!(
        refusal.to_string(),
        "the environment variable \"TOKEN\" may not be read: `environment_variables` of [policy] does not allow it; \
         allow it with \"TOKEN\" in `environment_variables` of [policy] in this host's settings"
    );
    let closed = Policy::closed(&["HOSTNAME".into()], Some(Vec::new())).unwrap();
    assert_eq!(closed.general().environment_variable("HOSTNAME"), Ok(()));
    let refusal = closed.general().environment_variable("TOKEN").unwrap_err();
    assert_eq!(refusal.help, "start the agent with --allow-environment-variable=TOKEN");
    let refusal = closed.general().file(Path::new("/etc/hostname")).unwrap_err();
    assert_eq!(refusal.help, "start the agent with --allow-host-files");
    assert_eq!(Policy::closed(&[], None).unwrap().general().file(Path::new("/etc/hostname")), Ok(()));
}

#[test]
fn a_source_may_have_less_and_never_more() {
    let text = "components = [\"prometheus.*\"]\n[source.b]\ncomponents = [\"*\"]\ndeny_components = [\"prometheus.scrape\"]";
    let policy = policy(text, &["a", "b"]).unwrap();
    assert_eq!(policy.access(["a"]).component("prometheus.scrape"), Ok(()));
    let refusal = policy.access(["b"]).component("prometheus.scrape").unwrap_err();
    assert!(refusal.message.contains("[policy.source.b]"), "{refusal}");
    assert!(policy.access(["b"]).component("local.file").is_err(), "`*` of a source widens nothing");
    assert_eq!(policy.access(["b"]).component("prometheus.relabel"), Ok(()));
    // Who had a hand in something together may what each of them may.
    assert!(policy.access(["a", "b"]).component("prometheus.scrape").is_err());
    assert_eq!(policy.access(["b", "a"]), policy.access(["a", "b"]));
}

#[test]
fn a_source_that_is_not_named_among_secrets_may_name_none() {
    let policy = policy("[secrets]\na = [\"vault/kv/a/*\"]", &["a", "b"]).unwrap();
    assert_eq!(policy.access(["a"]).secret("vault/kv/a/db#password"), Ok(()));
    assert!(policy.access(["a"]).secret("vault/kv/b/db#password").is_err());
    assert!(policy.access(["b"]).secret("vault/kv/a/db#password").is_err());
}

#[test]
fn a_secret_is_no_way_around_what_else_may_be_read() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    std::fs::write(&file, "x").unwrap();
    let reference = format!("file{}", file.display());
    let open = policy("", &["a"]).unwrap();
    assert_eq!(open.general().secret(&reference), Ok(()));
    assert_eq!(open.general().secret("env/TOKEN"), Ok(()));

    let closed = Policy::closed(&["TOKEN".to_owned()], Some(Vec::new())).unwrap();
    let access = closed.general();
    assert_eq!(access.secret("env/TOKEN"), Ok(()));
    assert!(access.secret("env/HOME").unwrap_err().message.contains("HOME"));
    assert!(access.secret(&reference).unwrap_err().message.contains("token"));
    assert!(access.secret(&format!("{reference}#field")).is_err());
    assert!(access.secret("file/../etc/shadow").is_err());
    assert!(access.secret("systemd/token").is_err());
    let rooted = Policy::closed(&[], Some(vec![folder.path().to_owned()])).unwrap();
    assert_eq!(rooted.general().secret(&reference), Ok(()));
}

#[test]
fn mistakes_in_the_settings_are_all_named() {
    let text = "listen = [\"nowhere\"]\nfile_roots = [\"var/log\"]\negress = [\"10.0.0.0/99\"]\n[source.typo]\nlisten = []";
    let errors = policy(text, &["a"]).unwrap_err();
    let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
    assert_eq!(texts.len(), 4, "{texts:?}");
    assert!(texts.iter().any(|text| text.contains("[policy] listen: `nowhere`")), "{texts:?}");
    assert!(
        texts.iter().any(|text| text.contains("the source `typo`") && text.contains("there are a")),
        "{texts:?}"
    );
    assert!(toml::from_str::<PolicySettings>("enviroment = []").is_err(), "unknown keys are errors");
}

#[test]
fn a_file_is_judged_by_where_it_leads() {
    let folder = tempfile::tempdir().unwrap();
    let base = folder.path().canonicalize().unwrap();
    let (root, outside) = (base.join("root"), base.join("outside"));
    std::fs::create_dir_all(root.join("inner")).unwrap();
    std::fs::create_dir(&outside).unwrap();
    std::fs::write(root.join("inner/plain"), "x").unwrap();
    std::fs::write(outside.join("secret"), "x").unwrap();
    symlink(outside.join("secret"), root.join("escape")).unwrap();
    symlink(&outside, root.join("folder")).unwrap();
    symlink(root.join("inner/plain"), root.join("inside")).unwrap();
    symlink(root.join("nothing"), root.join("dangling")).unwrap();
    symlink(root.join("loop"), root.join("loop")).unwrap();
    let access = of(&format!("file_roots = [{:?}]", root.display().to_string()));
    for (path, allowed) in [
        ("root/inner/plain", true),
        ("root/inside", true),
        ("root/inner/../inside", true),
        ("root/not/there/yet", true),
        ("outside/secret", false),
        ("root/../outside/secret", false),
        ("root/escape", false),
        ("root/folder/secret", false),
        ("root/folder/not-there", false),
        ("root/dangling", false),
        ("root/loop", false),
        ("rootless", false),
    ] {
        let checked = access.file(&base.join(path));
        assert_eq!(checked.is_ok(), allowed, "{path}: {checked:?}");
    }
    assert!(access.open_blocking(&root.join("inside")).is_ok());
    let refused = access.open_blocking(&root.join("escape")).unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::PermissionDenied);
    assert!(refused.to_string().contains("outside/secret"), "{refused}");
}

#[test]
fn a_root_that_is_a_link_is_the_folder_it_leads_to() {
    let folder = tempfile::tempdir().unwrap();
    let base = folder.path().canonicalize().unwrap();
    std::fs::create_dir(base.join("real")).unwrap();
    std::fs::write(base.join("real/x"), "x").unwrap();
    symlink(base.join("real"), base.join("root")).unwrap();
    let access = of(&format!("file_roots = [{:?}]", base.join("root").display().to_string()));
    assert_eq!(access.file(&base.join("root/x")), Ok(()));
    assert!(access.open_blocking(&base.join("root/x")).is_ok());
}

#[test]
fn an_open_file_is_judged_by_where_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let base = folder.path().canonicalize().unwrap();
    std::fs::write(base.join("secret"), "x").unwrap();
    symlink(base.join("secret"), base.join("link")).unwrap();
    let file = File::open(base.join("link")).unwrap();
    std::fs::remove_file(base.join("link")).unwrap();
    assert_eq!(files::place_of(&file, &base.join("link")).unwrap(), base.join("secret"));
}

#[test]
fn hosts_are_found_in_urls_and_addresses() {
    for (text, expected) in [
        ("https://a.example/x", Some(("a.example", Some(443)))),
        ("http://user:pass@a.example:8080/x?y#z", Some(("a.example", Some(8080)))),
        ("http://good.example\\@evil.example/", Some(("good.example", Some(80)))),
        ("http://good.example:80@evil.example/", Some(("evil.example", Some(80)))),
        ("https://[2001:db8::1]/x", Some(("2001:db8::1", Some(443)))),
        ("a.example:9090", Some(("a.example", Some(9090)))),
        ("[::1]:9090", Some(("::1", Some(9090)))),
        ("::1", Some(("::1", None))),
        ("ssh://git@host/x", Some(("host", Some(22)))),
        ("", None),
        ("/path", None),
    ] {
        assert_eq!(host_and_port(text), expected, "{text}");
    }
}

#[test]
fn a_name_is_allowed_by_its_addresses_only_where_a_network_is() {
    let access = of("egress = [\"10.0.0.0/8:443\", \"a.example\"]");
    assert_eq!(access.destination("a.example", Some(1)), Ok(Reach::Anywhere));
    assert_eq!(access.destination("b.example", Some(443)), Ok(Reach::ByAddress));
    assert!(access.destination("b.example", Some(80)).is_err());
    assert!(access.destination("11.0.0.1", Some(443)).is_err());
    assert_eq!(access.destination_at("b.example", "10.1.1.1".parse().unwrap()), Ok(()));
    assert!(access.destination_at("b.example", "192.0.2.1".parse().unwrap()).is_err());
    assert_eq!(access.destination_at("a.example", "192.0.2.1".parse().unwrap()), Ok(()));
}

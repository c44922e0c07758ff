#![allow(clippy::unwrap_used)]

use super::*;

fn message(text: &str) -> String {
    let error = Settings::parse("invar.toml", text).unwrap_err();
    let help = error.help().map(|help| help.to_string()).unwrap_or_default();
    format!("{error} / {help}")
}

fn rendered(text: &str) -> String {
    format!("{:?}", Settings::parse("invar.toml", text).unwrap_err())
}

#[test]
fn the_documented_settings_are_accepted() {
    let settings = Settings::parse(
        "invar.toml",
        r#"
        [agent]
        name        = "web-17"
        environment = "production"
        labels      = { region = "eu-1", ring = "canary" }

        [server]
        listen = "127.0.0.1:12346"

        [state]
        dir     = "/var/lib/invar"
        history = 20
        boot    = "cache-first"
        offline_secrets = { key = { secret = "team/offline" }, max_age = "12h" }

        [[source]]
        name     = "platform"
        git      = { url = "https://git.example/obs/fleet.git", branch = "main" }
        path     = ["base", "environments/${agent.environment}", "hosts/${agent.name}"]
        interval = "60s"
        auth     = { token = { file = "/run/secrets/token" } }

        [[source]]
        name = "break-glass"
        file = { path = "/etc/invar/conf.d" }
        optional = true

        [rollout]
        quiesce   = { min = "200ms", max = "10s" }
        probation = { window = "2m", on_inconclusive = "commit" }

        [secrets.team]
        kind = "file"
        root = "/etc/invar/secrets"

        [secrets.command]
        kind     = "exec"
        timeout  = "5s"
        commands = { es = { command = ["/usr/local/bin/es-login"], environment = ["HOME"], output = "json" } }

        [limits]
        log    = "2GiB"
        memory = "512MiB"

        [webhook]
        git = { secret = { file = "/etc/invar/webhook" }, sources = ["platform"], jitter = "0s" }
        "#,
    )
    .unwrap();
    assert_eq!(settings.source.len(), 2);
    assert_eq!(settings.limits.memory, Some(512 << 20));
    assert_eq!(settings.agent_name(), "web-17");
    assert_eq!(settings.webhook["git"].sources, ["platform"]);
    assert_eq!(settings.secrets.keys().collect::<Vec<_>>(), ["command", "team"]);
    assert_eq!(settings.state.offline_secrets.problem(&settings.secrets), None);
}

#[test]
fn an_unknown_key_is_an_error_with_the_nearest_name() {
    assert!(
        message("[agent]\nnmae = \"x\"").contains("did you mean `name`?"),
        "{}",
        message("[agent]\nnmae = \"x\"")
    );
    assert!(message("[rollout]\nmin_gaps = \"1s\"").contains("did you mean `min_gap`?"));
}

#[test]
fn values_are_not_printed_because_they_may_be_credentials() {
    let text =
        "[[source]]\nname = \"a\"\nautth = { token = \"hunter2-é\" }\ngit = { url = \"https://x/y\" }\n";
    let rendered = rendered(text);
    assert!(rendered.contains("autth"), "{rendered}");
    assert!(!rendered.contains("hunter2"), "{rendered}");
}

#[test]
fn sizes_take_units() {
    assert_eq!(parse_size("2GiB"), Ok(2 << 30));
    assert_eq!(parse_size("10"), Ok(10));
    for wrong in ["", "x", "1.5GiB", "1 parsec", "99999999999TiB"] {
        assert!(parse_size(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn a_credential_in_the_wrong_place_is_not_repeated() {
    for text in [
        "[[source]]\nauth = 'hunter2'",
        "[[source]]\nauth = { basic = 'hunter2\", expected x' }",
        "[agent]\nlabels = 'hunter2'",
        "[state]\nhistory = 'hunter2'",
    ] {
        let error = Settings::parse("invar.toml", text).unwrap_err();
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }
    for text in [
        "[state]\noffline_secrets = 'hunter2'",
        "[secrets.x]\nkind = 'age'\nidentity = { fil = 'hunter2' }",
        "[secrets.x]\nkind = 'file'\nroot = ['hunter2']",
        "[secrets.x]\nkind = 'exec'\ncommands = 'hunter2'",
    ] {
        assert!(!rendered(text).contains("hunter2"), "{}", rendered(text));
    }
    let error = Settings::parse("invar.toml", "[state]\nhistory = 'hunter2'").unwrap_err();
    assert_eq!(error.to_string(), "invalid type: a string, expected usize");
}

#[test]
fn the_ceiling_is_read_and_its_mistakes_are_named() {
    let text = "[[source]]\nname = \"a\"\nfile = { path = \"/x\" }\n\n[policy]\negress = [\"*.example.com:443\"]\nlimits = { components = 10 }\n\n[policy.source.a]\nexec = false\n";
    let policy = Settings::parse("invar.toml", text).unwrap().policy().unwrap();
    assert!(policy.tells_sources_apart());
    assert!(policy.general().destination("a.example.com", Some(80)).is_err());
    let wrong = text.replace("source.a", "source.b").replace("*.example.com:443", "a b");
    let problem = Settings::parse("invar.toml", &wrong).unwrap().policy().unwrap_err();
    assert!(problem.contains("`a b`") && problem.contains("the source `b`"), "{problem}");
    assert!(message("[policy]\nfile_root = []\n").contains("file_roots"), "the nearest key is named");
}

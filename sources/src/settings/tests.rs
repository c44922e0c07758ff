#![allow(clippy::unwrap_used)]

use super::*;

#[derive(Debug, Deserialize)]
struct File {
    source: Vec<SourceSettings>,
}

fn parse(text: &str) -> Result<Vec<SourceSettings>, String> {
    toml::from_str::<File>(text).map(|file| file.source).map_err(|error| error.to_string())
}

const FLEET: &str = r#"
[[source]]
name     = "platform"
git      = { url = "https://git.example/obs/fleet.git", branch = "main" }
path     = ["base", "environments/${agent.environment}", "hosts/${agent.name}"]
interval = "1m30s"
auth     = { token = { secret = "vault/kv/git#token" } }
tls      = { ca = "/etc/ca.pem", server_name = "git.internal" }
proxy    = { url = "http://proxy:3128", no_proxy = ["internal"] }
history  = "fast-forward"
limits   = { pack = "1GiB", files = 10 }

[[source]]
git = { url = "/srv/fleet.git", ref = "refs/heads/main" }
path = "base"

[[source]]
file = { path = "/etc/invar/conf.d" }
optional = true
"#;

#[test]
fn the_tables_of_the_documentation() {
    let mut sources = parse(FLEET).unwrap();
    normalize(&mut sources).unwrap();
    assert_eq!(sources[0].interval, Some(Duration::from_secs(90)));
    assert_eq!(sources[0].history, HistoryPolicy::FastForward);
    assert_eq!(sources[0].limits.pack, 1 << 30);
    assert_eq!(sources[0].limits.file, 8 << 20);
    assert_eq!(sources[1].path, ["base"]);
    assert_eq!(sources[1].source_name().as_str(), "git");
    assert_eq!(sources[2].source_name().as_str(), "file");
    assert!(sources[2].optional);
    let agent = AgentAttributes {
        name: "web-17".to_owned(),
        environment: Some("production".to_owned()),
        labels: BTreeMap::new(),
    };
    sources[0].substitute(&agent).unwrap();
    assert_eq!(sources[0].path, ["base", "environments/production", "hosts/web-17"]);
}

#[test]
fn unknown_keys_are_errors() {
    for text in [
        "[[source]]\ngit = { url = 'x' }\nintervall = '1s'",
        "[[source]]\ngit = { url = 'x', banch = 'main' }",
        "[[source]]\ngit = { url = 'x' }\nauth = { tokn = 'x' }",
        "[[source]]\ngit = { url = 'x' }\nverify = { modus = 'range' }",
    ] {
        let error = parse(text).unwrap_err();
        assert!(error.contains("unknown field"), "{error}");
    }
}

#[test]
fn problems_are_all_reported_with_the_source() {
    let mut sources = parse(
        r#"
        [[source]]
        name = "a"
        git = { url = "x" }
        interval = "10ms"
        auth = { basic = { username = "u", password = "hunter2" }, token = "hunter2" }
        [[source]]
        name = "a"
        file = { path = "/x" }
        path = ["base"]
        [[source]]
        name = "bad name"
        tls = { cert = "x" }
        "#,
    )
    .unwrap();
    let errors = normalize(&mut sources).unwrap_err();
    let text = errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
    for part in [
        "2 sources have this name",
        "from 1s to 24h",
        "`auth` says `token` and `basic`",
        "a file source has no `path`",
        "letters, digits",
        "none of `git`",
        "go together",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
    assert!(!format!("{errors:?} {sources:?}").contains("hunter2"));
}

#[test]
fn what_does_not_go_together_in_a_bucket_is_said() {
    let problems = |text: &str| {
        let mut sources = parse(text).unwrap();
        let errors = normalize(&mut sources).err().unwrap_or_default();
        errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
    };
    let good = "[[source]]\ns3 = { bucket = 'b', prefix = '' }\npath = 'base'\n";
    for good in [
        good.to_owned(),
        format!("{good}auth = {{ aws = {{ anonymous = true }} }}"),
        format!(
            "{good}auth = {{ aws = {{ access_key = 'a', secret_key = 'b', role_arn = 'r', external_id = 'e' }} }}"
        ),
        format!("{good}auth = {{ aws = {{ web_identity_token_file = '/t', role_arn = 'r' }} }}"),
    ] {
        assert_eq!(problems(&good), "", "{good}");
    }
    for (text, part) in [
        ("[[source]]\ns3 = { bucket = '', prefix = '' }", "`s3.bucket` is empty"),
        ("[[source]]\ns3 = { bucket = 'b' }", "exactly one of"),
        ("[[source]]\ns3 = { bucket = 'b', key = 'k', prefix = '' }", "exactly one of"),
        ("[[source]]\ns3 = { bucket = 'b', prefix = '', version = 'v' }", "goes with"),
        ("[[source]]\ns3 = { bucket = 'b', prefix = '', objects = 0 }", "at least 1"),
        ("[[source]]\ns3 = { bucket = 'b', key = 'k' }\nauth = { token = 'hunter2' }", "no `auth.token`"),
        (
            "[[source]]\ns3 = { bucket = 'b', key = 'k' }\nauth = { aws = { access_key = 'a' } }",
            "go together",
        ),
        (
            "[[source]]\ns3 = { bucket = 'b', key = 'k' }\nauth = { aws = { session_token = 'hunter2' } }",
            "`auth.aws.session_token` goes with",
        ),
        (
            "[[source]]\ns3 = { bucket = 'b', key = 'k' }\nauth = { aws = { anonymous = true, profile = 'p' } }",
            "says one of",
        ),
        (
            "[[source]]\ns3 = { bucket = 'b', key = 'k' }\nauth = { aws = { web_identity_token_file = '/t' } }",
            "goes with `auth.aws.role_arn`",
        ),
        (
            "[[source]]\ns3 = { bucket = 'b', key = 'k' }\nauth = { aws = { anonymous = true, role_arn = 'r' } }",
            "nobody can assume a role",
        ),
        (
            "[[source]]\ns3 = { bucket = 'b', key = 'k' }\nauth = { aws = { external_id = 'e' } }",
            "`auth.aws.external_id` goes with",
        ),
    ] {
        let said = problems(text);
        assert!(said.contains(part) && !said.contains("hunter2"), "{part} in {said}");
    }
}

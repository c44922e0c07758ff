//! Secrets of a running pipeline change under load, by way of wrong values too: nothing is lost, no component is replaced,
//! nothing that does not use them is evaluated; and what a source may not name is not read.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use invar_integration::{Agent, AgentOptions, Receiver, Target, free_address, wait_for};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use serde_json::{Value, json};

use crate::fleet::{Fleet, Plan, SOON, binary, scrape};

/// Replaces a file in one step, as whoever rotates does.
fn replace(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let beside = path.with_extension("new");
    fs::write(&beside, text).unwrap();
    fs::set_permissions(&beside, fs::Permissions::from_mode(0o600)).unwrap();
    fs::rename(&beside, path).unwrap();
}

/// Two stores: `files` below `secrets/`, and `team`, whose paths `login` and `tls` have several fields each.
fn stores(directory: &Path) -> String {
    let command = |name: &str| {
        format!(
            "{name} = {{ command = [\"/bin/cat\", \"{}\"], output = \"json\" }}",
            directory.join(format!("{name}.json")).display()
        )
    };
    format!(
        "[secrets.files]\nkind = \"file\"\nroot = \"{}\"\n\n[secrets.team]\nkind = \"exec\"\n\
         commands = {{ {}, {} }}\n\n[policy]\nexec = true\n",
        directory.join("secrets").display(),
        command("login"),
        command("tls")
    )
}

/// How a secret in use does.
fn state_of(agent: &Agent, reference: &str) -> Value {
    let all = agent.get("/api/v1/secrets").unwrap();
    let found = all.as_array().unwrap().iter().find(|status| status["reference"] == reference).cloned();
    found.unwrap_or_else(|| panic!("{reference} is not in use: {all:#}"))
}

fn becomes(agent: &Agent, reference: &str, state: &str) -> Value {
    let reached = || Some(state_of(agent, reference)).filter(|status| status["state"] == state);
    wait_for(&format!("{reference} to be {state}"), SOON, reached)
        .unwrap_or_else(|error| panic!("{error}: {:#}\n{}", state_of(agent, reference), agent.log()))
}

/// Has a path read again now.
fn read_again(agent: &Agent, reference: &str) -> (u16, String) {
    let name = reference.replace('/', "%2F");
    agent.post(&format!("/api/v1/secrets/{name}/rotate"), &json!({})).unwrap()
}

/// The sum of a metric of this name.
fn metric(agent: &Agent, name: &str) -> f64 {
    let (_, page) = agent.text("/metrics").unwrap();
    let of_name =
        page.lines().filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with([' ', '{'])));
    of_name.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
}

fn evaluations(agent: &Agent) -> f64 {
    metric(agent, "alloy_component_evaluation_seconds_count")
}

fn instances(agent: &Agent, components: &[&str]) -> Vec<String> {
    components.iter().map(|component| agent.instance(component).unwrap()).collect()
}

/// Nothing was given up by any remote write.
fn nothing_dropped(agent: &Agent) {
    for name in
        ["prometheus_remote_storage_samples_failed_total", "prometheus_remote_storage_samples_dropped_total"]
    {
        assert!(metric(agent, name).abs() < 0.5, "{name}: {}", agent.log());
    }
}

fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}

/// One remote write to one endpoint.
fn writes(name: &str, url: &str, inside: &str, beside: &str) -> String {
    format!(
        r#"
prometheus.remote_write "{name}" {{
	{beside}

	endpoint {{
		url = "{url}"

		{inside}

		queue_config {{
			batch_send_deadline = "100ms"
			min_backoff         = "50ms"
			max_backoff         = "200ms"
		}}
	}}
}}
"#
    )
}

const USERS: [&str; 5] = [
    "prometheus.scrape.page",
    "prometheus.remote_write.login",
    "prometheus.remote_write.token",
    "prometheus.remote_write.labelled",
    "discovery.relabel.aside",
];

/// A page that three remote writes bring to three endpoints: with a user and password, with a token, with a label.
fn pipeline(receiver: &Receiver, target: &Target) -> String {
    let receivers =
        ["login", "token", "labelled"].map(|name| format!("prometheus.remote_write.{name}.receiver"));
    let scrape = scrape(target, "100ms")
        .replace("[prometheus.remote_write.out.receiver]", &format!("[{}]", receivers.join(", ")));
    let login = "basic_auth {\n\t\t\tusername = secret(\"team/login#user\")\n\t\t\tpassword = secret(\"team/login#password\")\n\t\t}";
    let label = "external_labels = { site = convert.nonsensitive(secret(\"files/site\")) }";
    scrape
        + &writes("login", &receiver.url("login"), login, "")
        + &writes("token", &receiver.url("token"), "bearer_token = secret(\"files/token\")", "")
        + &writes("labelled", &receiver.url("labelled"), "", label)
        + "\ndiscovery.relabel \"aside\" {\n\ttargets = []\n}\n"
}

struct Rotated {
    fleet: Fleet,
    directory: PathBuf,
    _kept: tempfile::TempDir,
}

impl Rotated {
    fn start() -> Self {
        let kept = tempfile::tempdir().unwrap();
        let directory = kept.path().to_owned();
        replace(&directory.join("login.json"), &json!({ "user": "u0", "password": "p0" }).to_string());
        replace(&directory.join("secrets/token"), "t0");
        replace(&directory.join("secrets/site"), "site-0");
        let plan = Plan { probation: 1, settings: stores(&directory) };
        let fleet = Fleet::planned_in(&directory, plan, pipeline);
        let rotated = Self { fleet, directory, _kept: kept };
        rotated.accept(&["0"]);
        rotated.more(3);
        rotated
    }

    /// The receivers accept these versions.
    fn accept(&self, versions: &[&str]) {
        let login: Vec<String> =
            versions.iter().map(|version| basic(&format!("u{version}"), &format!("p{version}"))).collect();
        let token: Vec<String> = versions.iter().map(|version| format!("Bearer t{version}")).collect();
        for (endpoint, all) in [("login", login), ("token", token)] {
            self.fleet.receiver.require(endpoint, &all.iter().map(String::as_str).collect::<Vec<_>>());
        }
    }

    /// The stores have this version; waits until it was read.
    fn tell(&self, version: &str) {
        let agent = &self.fleet.agent;
        let rotations = |reference| state_of(agent, reference)["rotations"].as_u64().unwrap();
        let (login, token) = (rotations("team/login"), rotations("files/token"));
        let fields = json!({ "user": format!("u{version}"), "password": format!("p{version}") });
        replace(&self.directory.join("login.json"), &fields.to_string());
        replace(&self.directory.join("secrets/token"), &format!("t{version}"));
        read_again(agent, "team/login");
        let read = || (rotations("team/login") > login && rotations("files/token") > token).then_some(());
        wait_for("the new values to be read", SOON, read).unwrap();
    }

    /// Waits for so many more scrapes.
    fn more(&self, count: u64) {
        let upto = self.fleet.target.scrapes() + count;
        wait_for("more scrapes", SOON, || (self.fleet.target.scrapes() >= upto).then_some(())).unwrap();
    }

    fn nothing_missing(&self) {
        for endpoint in ["login", "token", "labelled"] {
            self.fleet.nothing_missing(endpoint);
        }
        nothing_dropped(&self.fleet.agent);
    }
}

#[test]
fn credentials_turn_under_load_and_nothing_but_requests_notices() {
    let test = Rotated::start();
    let agent = &test.fleet.agent;
    let before = (instances(agent, &USERS), evaluations(agent), agent.status().unwrap()["running"].clone());
    for version in 1..=24_u32 {
        let (old, new) = ((version - 1).to_string(), version.to_string());
        if version % 2 == 0 {
            // Both are accepted for a time.
            test.accept(&[&old, &new]);
            test.tell(&new);
        } else {
            // The receivers learn of it last.
            test.tell(&new);
            test.more(2);
        }
        test.accept(&[&new]);
        test.more(2);
    }
    test.nothing_missing();
    for header in test.fleet.receiver.authorization("login") {
        let pairs = (0..=24).map(|version| basic(&format!("u{version}"), &format!("p{version}")));
        assert!(pairs.into_iter().any(|pair| pair == header), "user and password of two versions");
    }
    assert_eq!(test.fleet.receiver.authorization("login").len(), 25);
    let after = (instances(agent, &USERS), evaluations(agent), agent.status().unwrap()["running"].clone());
    assert_eq!(before, after, "no component is replaced and none is evaluated");
    let retried = metric(agent, "prometheus_remote_storage_samples_retried_total");
    assert!(retried < 0.5, "each request went through at once: {retried}");
    let users = &state_of(agent, "team/login")["users"];
    assert_eq!(users[0]["class"], "per_use", "{users:#}");

    // Who takes a text is given the new one, alone and in one go.
    for turn in 1..=5 {
        let (site, at) = (format!("site-{turn}"), evaluations(agent));
        replace(&test.directory.join("secrets/site"), &site);
        let labels = [("__name__", "numbered_total"), ("site", site.as_str())];
        let arrived = || (!test.fleet.receiver.series("labelled", &labels).is_empty()).then_some(());
        wait_for("the label to be the new one", SOON, arrived).unwrap();
        assert!((evaluations(agent) - at - 1.0).abs() < 0.5, "only the one that uses it");
    }
    assert_eq!(instances(agent, &USERS), before.0);
    assert_eq!(state_of(agent, "files/site")["users"][0]["class"], "rebuild");
    test.nothing_missing();
    let status = agent.status().unwrap();
    assert_eq!(
        (&status["running"]["generation"], &status["rollback_count"]),
        (&before.2["generation"], &json!(0))
    );
}

#[test]
fn a_wrong_new_value_is_rejected_while_the_old_one_stays_in_use() {
    let test = Rotated::start();
    let agent = &test.fleet.agent;
    let before = (instances(agent, &USERS), evaluations(agent));
    test.tell("wrong");
    for reference in ["team/login", "files/token"] {
        let status = becomes(agent, reference, "rejected");
        assert!(status["reason"].as_str().unwrap().contains("refused"), "{status:#}");
    }
    let shown = agent.command(&["secrets"]).unwrap();
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(shown.contains("rejected") && shown.contains("refused"), "{shown}");
    test.more(3);
    test.nothing_missing();
    // A field is missing, then one is empty: no request is made with that.
    let lacking =
        [(json!({ "user": "u1" }), "missing"), (json!({ "user": "u1", "password": "" }), "rejected")];
    for (lacking, state) in lacking {
        replace(&test.directory.join("login.json"), &lacking.to_string());
        let (code, text) = read_again(agent, "team/login");
        assert!(code >= 400 && text.contains("password"), "{code} {text}");
        let status = becomes(agent, "team/login", state);
        assert!(status["reason"].as_str().unwrap().contains("password"), "{status:#}");
    }
    test.more(3);
    test.nothing_missing();
    // Put right, it recovers by itself.
    test.accept(&["0", "1"]);
    test.tell("1");
    for reference in ["team/login", "files/token"] {
        becomes(agent, reference, "ready");
    }
    test.accept(&["1"]);
    test.more(3);
    test.nothing_missing();
    // The receivers are ahead: what they refuse meanwhile is not given up, and the store is asked by itself.
    let refused = test.fleet.receiver.requests("login").1;
    test.accept(&["2"]);
    let seen = || (test.fleet.receiver.requests("login").1 > refused + 2).then_some(());
    wait_for("refusals", SOON, seen).unwrap();
    test.tell("2");
    test.more(3);
    test.nothing_missing();
    assert_eq!((instances(agent, &USERS), evaluations(agent)), before);
}

/// An authority for both ends.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn issue(&self) -> (String, String) {
        let mut params =
            CertificateParams::new(vec!["127.0.0.1".to_owned(), "localhost".to_owned()]).unwrap();
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.0).unwrap().pem(), key.serialize_pem())
    }
}

fn pair(certificate: &str, key: &str) -> String {
    json!({ "crt": certificate, "key": key }).to_string()
}

#[test]
fn certificates_of_both_ends_turn_under_load_and_no_request_fails() {
    let authority = Authority::new();
    let ca = serde_json::to_string(&authority.0.pem()).unwrap();
    let address = free_address().unwrap();
    let port = address.rsplit(':').next().unwrap().to_owned();
    let kept = tempfile::tempdir().unwrap();
    let receiving = kept.path().join("receiving");
    let (certificate, key) = authority.issue();
    replace(&receiving.join("tls.json"), &pair(&certificate, &key));
    let plan = Plan { probation: 1, settings: stores(&receiving) };
    let fleet = Fleet::planned_in(&receiving, plan, |receiver, _| {
        format!(
            r#"
prometheus.receive_http "in" {{
	http {{
		listen_address = "127.0.0.1"
		listen_port    = {port}

		tls {{
			cert_pem         = secret("team/tls#crt")
			key_pem          = secret("team/tls#key")
			client_ca        = {ca}
			client_auth_type = "RequireAndVerifyClientCert"
		}}
	}}
	forward_to = [prometheus.remote_write.out.receiver]
}}
{}"#,
            writes("out", &receiver.url("a"), "", "")
        )
    });
    let sending = kept.path().join("sending");
    let (certificate, key) = authority.issue();
    replace(&sending.join("tls.json"), &pair(&certificate, &key));
    let tls = format!(
        "tls_config {{\n\t\t\tca_pem = {ca}\n\t\t\tcert_pem = secret(\"team/tls#crt\")\n\t\t\tkey_pem = secret(\"team/tls#key\")\n\t\t}}"
    );
    let text = scrape(&fleet.target, "100ms")
        + &writes("out", &format!("https://{address}/api/v1/metrics/write"), &tls, "");
    fs::write(sending.join("main.alloy"), text).unwrap();
    let sender = Agent::start(AgentOptions {
        binary: binary(),
        directory: sending.clone(),
        settings: format!(
            "[[source]]\nname = \"file\"\nfile = {{ path = \"{}\" }}\n\n{}",
            sending.join("main.alloy").display(),
            stores(&sending)
        ),
        environment: Vec::new(),
    })
    .unwrap();
    sender.wait("the sender runs", SOON, |status| !status["running"].is_null()).unwrap();
    let more = |count: u64| {
        let upto = fleet.target.scrapes() + count;
        wait_for("more scrapes", SOON, || (fleet.target.scrapes() >= upto).then_some(())).unwrap();
    };
    more(3);
    let of_both = || {
        let sender = (
            instances(&sender, &["prometheus.scrape.page", "prometheus.remote_write.out"]),
            evaluations(&sender),
        );
        let receiver =
            instances(&fleet.agent, &["prometheus.receive_http.in", "prometheus.remote_write.out"]);
        (sender, (receiver, evaluations(&fleet.agent)))
    };
    let used = |agent: &Agent| agent.log().matches("changed certificates are in use").count();
    let before = of_both();
    for turn in 0..8 {
        for (agent, folder) in [(&fleet.agent, &receiving), (&sender, &sending)] {
            let (certificate, key) = authority.issue();
            if turn % 3 == 0 {
                // A key that does not belong to the certificate.
                replace(&folder.join("tls.json"), &pair(&certificate, &authority.issue().1));
                read_again(agent, "team/tls");
                if std::ptr::eq(agent, &fleet.agent) {
                    // A server looks when somebody connects.
                    drop(std::net::TcpStream::connect(&address).unwrap());
                }
                let status = becomes(agent, "team/tls", "rejected");
                assert!(status["reason"].as_str().unwrap().contains("refused"), "{status:#}");
            }
            let until_now = used(agent);
            replace(&folder.join("tls.json"), &pair(&certificate, &key));
            read_again(agent, "team/tls");
            becomes(agent, "team/tls", "ready");
            let taken = || {
                if std::ptr::eq(agent, &fleet.agent) {
                    drop(std::net::TcpStream::connect(&address).unwrap());
                }
                (used(agent) > until_now).then_some(())
            };
            wait_for("the new certificate to be in use", SOON, taken).unwrap();
            more(2);
        }
    }
    fleet.nothing_missing("a");
    nothing_dropped(&sender);
    assert!(metric(&sender, "prometheus_remote_storage_samples_retried_total") < 0.5, "{}", sender.log());
    assert_eq!(of_both(), before, "no component is replaced and none is evaluated");
    for agent in [&fleet.agent, &sender] {
        assert_eq!(state_of(agent, "team/tls")["users"][0]["class"], "tls_reload");
    }
}

#[test]
fn the_certificate_of_the_api_turns_and_every_connection_is_answered() {
    let authority = Authority::new();
    let kept = tempfile::tempdir().unwrap();
    let secrets = kept.path().join("secrets");
    let write = |(certificate, key): &(String, String)| {
        replace(&secrets.join("api.crt"), certificate);
        replace(&secrets.join("api.key"), key);
    };
    write(&authority.issue());
    let plan = Plan { probation: 1, settings: stores(kept.path()) };
    let fleet = Fleet::planned_in(kept.path(), plan, |_, _| "logging { }\n".to_owned());
    let tls = "http {\n\ttls {\n\t\tcert_pem = secret(\"files/api.crt\")\n\t\tkey_pem = secret(\"files/api.key\")\n\t}\n}\n";
    fleet.push(tls, "speak TLS");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let client = |trusted: &str| {
        reqwest::Client::builder()
            .no_proxy()
            .pool_max_idle_per_host(0)
            .tls_certs_only([reqwest::Certificate::from_pem(trusted.as_bytes()).unwrap()])
            .resolve("localhost", fleet.agent.address().parse().unwrap())
            .timeout(Duration::from_secs(10))
            .build()
            .unwrap()
    };
    let port = fleet.agent.address().rsplit(':').next().unwrap().to_owned();
    let address = format!("https://localhost:{port}/-/ready");
    let ask = |client: &reqwest::Client| runtime.block_on(async { client.get(&address).send().await });
    let trusting = client(&authority.0.pem());
    wait_for("TLS to be spoken", SOON, || ask(&trusting).ok()).unwrap();
    for _ in 0..6 {
        // Self-signed, so that who trusts only this one tells it from the one before.
        let next = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let knows_new = client(&next.cert.pem());
        write(&(next.cert.pem(), next.signing_key.serialize_pem()));
        wait_for("the new certificate to be shown", SOON, || ask(&knows_new).ok()).unwrap();
        // The certificate comes before its key; in between the pair before is shown.
        let issued = authority.issue();
        replace(&secrets.join("api.crt"), &issued.0);
        for _ in 0..10 {
            ask(&knows_new).unwrap();
        }
        replace(&secrets.join("api.key"), &issued.1);
        wait_for("the next certificate to be shown", SOON, || ask(&trusting).ok()).unwrap();
        ask(&trusting).unwrap();
    }
}

#[test]
fn a_secret_that_a_source_may_not_name_is_refused_and_not_read() {
    let kept = tempfile::tempdir().unwrap();
    let directory = kept.path();
    for name in ["team-a", "team-b"] {
        replace(&directory.join(format!("secrets/{name}")), "a-value");
    }
    let settings =
        format!("{}nonsensitive = false\nsecrets = {{ fleet = [\"files/team-a\"] }}\n", stores(directory));
    let plan = Plan { probation: 1, settings };
    let mut text = String::new();
    let fleet = Fleet::planned_in(directory, plan, |receiver, target| {
        let allowed = writes("out", &receiver.url("a"), "bearer_token = secret(\"files/team-a\")", "");
        text = scrape(target, "500ms") + &allowed;
        text.clone()
    });
    becomes(&fleet.agent, "files/team-a", "ready");
    let refused = |text: &str, subject: &str| {
        let status = fleet.refused(&fleet.push(text, subject));
        status["reason"].to_string()
    };
    let reason = refused(&text.replace("team-a", "team-b"), "name the secret of others");
    assert!(reason.contains("files/team-b") && reason.contains("may not be named"), "{reason}");
    assert!(reason.contains("main.alloy:"), "{reason}");
    let both =
        text.replace("secret(\"files/team-a\")", "secret(\"files/team-a\") + secret(\"files/team-b\")");
    assert!(refused(&both, "beside one's own").contains("may not be named"));
    let shown = text.replace("secret(\"files/team-a\")", "convert.nonsensitive(secret(\"files/team-a\"))");
    assert!(refused(&shown, "as text").contains("convert.nonsensitive may not be used"));
    let all = fleet.agent.get("/api/v1/secrets").unwrap().to_string();
    assert!(all.contains("files/team-a") && !all.contains("team-b"), "{all}");
    fleet.nothing_missing("a");
}

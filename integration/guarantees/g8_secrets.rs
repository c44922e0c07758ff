//! G8: a secret given in an address, in the settings or in a pipeline appears in no output: not in the log, the API,
//! the metrics, the state on disk beside what Git itself holds, nor in what commands print.

use invar_integration::{Agent, AgentOptions, GitServer, Receiver, Repository, Target};

use crate::fleet::{SOON, binary, runs, scrape_to};

const TOKEN: &str = "marker-token-5b1f0c";
const PASSWORD: &str = "marker-password-77aa10";

#[test]
fn secrets_in_addresses_and_settings_appear_nowhere() {
    let directory = tempfile::tempdir().unwrap();
    let receiver = Receiver::start().unwrap();
    let target = Target::start("steady 1\n").unwrap();
    let repository = Repository::create(directory.path()).unwrap();
    let git = GitServer::start(directory.path()).unwrap();
    git.require_basic("x-access-token", TOKEN);
    let pipeline = scrape_to(&receiver, &target, "a");
    let head = repository.push_file("main.alloy", &pipeline, "begin").unwrap();
    let settings = format!(
        "[[source]]\nname = \"fleet\"\ngit = {{ url = \"{}\", branch = \"main\" }}\ninterval = \"1s\"\nauth = {{ token = \"{TOKEN}\" }}\n",
        git.url("fleet.git")
    );
    let agent = Agent::start(AgentOptions {
        binary: binary(),
        directory: directory.path().to_path_buf(),
        settings,
        environment: vec![("INVAR_TEST_PASSWORD".to_owned(), PASSWORD.to_owned())],
    })
    .unwrap();
    agent.wait("it runs", SOON, |status| runs(status, &head)).unwrap();
    // A password in the pipeline, by way of the environment: Git never sees it, and nobody else shall.
    let secret = pipeline.replace(
        "\t\tqueue_config {",
        "\t\tbasic_auth {\n\t\t\tusername = \"u\"\n\t\t\tpassword = sys.env(\"INVAR_TEST_PASSWORD\")\n\t\t}\n\n\t\tqueue_config {",
    );
    let head = repository.push_file("main.alloy", &secret, "authorize").unwrap();
    agent.wait("it runs", SOON, |status| runs(status, &head)).unwrap();
    let sent = || receiver.authorization("a").iter().any(|header| header.starts_with("Basic ")).then_some(());
    invar_integration::wait_for("the password is used", SOON, sent).unwrap();
    // The receiver refuses, so that error paths speak, too.
    receiver.answer("a", Some(401));
    git.answer_with(403);
    let failing = |status: &serde_json::Value| !status["sources"][0]["error"].is_null();
    agent.wait("the source's error is shown", SOON, failing).unwrap();

    agent.search().unwrap();
}

#[test]
fn a_token_in_an_address_on_the_command_line_is_moved_out_and_not_printed() {
    let directory = tempfile::tempdir().unwrap();
    // Nothing listens there: the error must not repeat the address as it was given.
    let address = format!("git+http://x:{TOKEN}@127.0.0.1:9/fleet.git?branch=main");
    let output = std::process::Command::new(binary())
        .args(["validate", &address])
        .current_dir(directory.path())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(!output.status.success());
    assert!(!text.contains(TOKEN), "{text}");
    assert!(text.contains("127.0.0.1"), "the error says where: {text}");
}

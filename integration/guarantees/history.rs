//! A branch that is rewritten or set back is refused until a person accepts it: on a running agent, by the command that the
//! message names.

use invar_integration::{Agent, AgentOptions, GitServer, Repository};
use serde_json::Value;

use crate::fleet::{SOON, binary, runs};

fn pipeline(number: u32) -> String {
    format!("prometheus.relabel \"a\" {{\n\tforward_to     = []\n\tmax_cache_size = {number}\n}}\n")
}

fn refused(status: &Value) -> bool {
    let error = &status["sources"][0]["error"];
    error["rejection"] == "history" && status["sources"][0]["alarm"] == true
}

#[test]
fn a_branch_that_is_set_back_waits_until_a_person_accepts_it_also_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let repository = Repository::create(directory.path()).unwrap();
    let git = GitServer::start(directory.path()).unwrap();
    let old = repository.push_file("main.alloy", pipeline(1), "begin").unwrap();
    let settings = format!(
        "[[source]]\nname = \"fleet\"\ngit = {{ url = \"{}\", branch = \"main\" }}\ninterval = \"1s\"\n\
         history = \"fast-forward\"\n\n[rollout]\nmin_gap = \"0s\"\nprobation = {{ window = \"0s\" }}\n",
        git.url("fleet.git")
    );
    let options = AgentOptions {
        binary: binary(),
        directory: directory.path().to_path_buf(),
        settings,
        environment: vec![("USER".to_owned(), "ana".to_owned())],
    };
    let mut agent = Agent::start(options).unwrap();
    agent.wait("the first commit runs", SOON, |status| runs(status, &old)).unwrap();
    // What was not refused cannot be accepted in advance.
    let early = agent.command(&["accept-history", &old]).unwrap();
    assert_eq!(early.status.code(), Some(1));
    let said = String::from_utf8_lossy(&early.stderr).into_owned();
    assert!(said.contains("no source has refused") && said.contains("invar sources"), "{said}");
    let head = repository.push_file("main.alloy", pipeline(2), "go on").unwrap();
    agent.wait("the second commit runs", SOON, |status| runs(status, &head)).unwrap();

    repository.git(&["reset", "--quiet", "--hard", &old]).unwrap();
    repository.git(&["push", "--quiet", "--force", "origin", "HEAD:main"]).unwrap();
    for _ in 0..2 {
        let status = agent.wait("the step back is refused", SOON, refused).unwrap();
        assert!(runs(&status, &head), "what ran runs on: {status:#}");
        let message = status["sources"][0]["error"]["message"].as_str().unwrap();
        assert!(message.contains(&format!("invar accept-history {}", &old[..12])), "{message}");
        // Neither does a restart forget where the branch was.
        agent.terminate().unwrap();
        agent.launch().unwrap();
    }
    agent.wait("the step back is refused", SOON, refused).unwrap();
    for wrong in [&head[..12], "0000000"] {
        assert_eq!(agent.command(&["accept-history", wrong]).unwrap().status.code(), Some(1), "{wrong}");
    }
    assert_eq!(agent.command(&["accept-history", "HEAD"]).unwrap().status.code(), Some(64));
    let accepted = agent.command(&["accept-history", &old[..12]]).unwrap();
    let said = String::from_utf8_lossy(&accepted.stderr).into_owned();
    assert_eq!(accepted.status.code(), Some(0), "{said}");
    let status = agent.status().unwrap();
    assert!(runs(&status, &old) && status["sources"][0]["error"].is_null(), "it waited: {status:#}");
    assert!(agent.log().contains("accepts the history of"), "{}", agent.log());

    // It was for this one step: the next is refused again.
    let next = repository.push_file("main.alloy", pipeline(3), "and on").unwrap();
    agent.wait("the next commit runs", SOON, |status| runs(status, &next)).unwrap();
    repository.git(&["reset", "--quiet", "--hard", &old]).unwrap();
    repository.git(&["push", "--quiet", "--force", "origin", "HEAD:main"]).unwrap();
    let status = agent.wait("the same step back is refused", SOON, refused).unwrap();
    assert!(runs(&status, &next), "{status:#}");
}

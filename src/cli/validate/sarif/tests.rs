use super::super::report::tests::checked;
use super::*;

#[test]
fn results_name_rules_places_and_themselves() {
    let text = sarif(&[checked("some dir/é.alloy", "é = 1\ny = 2\n")]);
    assert_eq!(text["version"], "2.1.0");
    let run = &text["runs"][0];
    assert_eq!(run["tool"]["driver"]["rules"][0]["id"], "E101");
    assert_eq!(run["tool"]["driver"]["rules"][0]["name"], "unknown-name");
    let result = &run["results"][1];
    assert_eq!((&result["ruleId"], &result["ruleIndex"]), (&json!("W403"), &json!(1)));
    assert_eq!(result["level"], "warning");
    assert_eq!(result["message"]["text"], "50% is too much\nhelp: use less");
    let place = &result["locations"][0]["physicalLocation"];
    assert_eq!(place["artifactLocation"]["uri"], "some%20dir/%C3%A9.alloy");
    assert_eq!(place["region"], json!({ "startLine": 2, "startColumn": 1, "endLine": 2, "endColumn": 2 }));
    assert_eq!(result["relatedLocations"][0]["message"]["text"], "compare");
}

#[test]
fn fingerprints_outlive_lines_that_are_added_above() {
    let print = |text: &str| {
        let findings = sarif(&[checked("a.alloy", text)]);
        findings["runs"][0]["results"][1]["partialFingerprints"]["invarFinding/v1"].clone()
    };
    assert_eq!(print("x = 1\ny = 2"), print("x = 5\n  y = 2"));
    assert_ne!(print("x = 1\ny = 2"), print("x = 1\ny = 3"));
    let twice = [checked("a.alloy", "x = 1\ny = 2"), checked("a.alloy", "x = 1\ny = 2")];
    let results = sarif(&twice);
    let results = &results["runs"][0]["results"];
    assert_ne!(results[0]["partialFingerprints"], results[2]["partialFingerprints"]);
}

#[test]
fn absolute_paths_are_file_uris() {
    assert_eq!(uri("/etc/a b.alloy"), "file:///etc/a%20b.alloy");
    assert_eq!(uri("./a.alloy"), "a.alloy");
}

#![allow(clippy::unwrap_used)]

use super::credentials::{Kind, credential};
use crate::tests::{configuration, registry};
use crate::validate::validate;

fn warnings(text: &str) -> Vec<String> {
    validate(&registry(), &configuration(text))
        .iter()
        .filter(|diagnostic| diagnostic.code.starts_with('W'))
        .map(|diagnostic| format!("{} {diagnostic}", diagnostic.code))
        .collect()
}

#[test]
fn tokens_are_known_by_their_look() {
    for (text, what) in [
        ("ghp_A1b2C3d4E5f6G7h8I9j0K1l2M3n4O5p6Q7r8", "a GitHub token"),
        ("Bearer glpat-A1b2C3d4E5f6G7h8I9j0", "a GitLab token"),
        ("glsa_A1b2C3d4E5f6G7h8I9j0K1l2M3n4O5p6_01234567", "a Grafana service account token"),
        ("AKIAQ3EGTIOPS2K4BHWD", "an AWS access key"),
        ("hvs.CAESIJ0a1b2c3d4e5f6g7h8i9j0k1l2", "a Vault token"),
        (
            "-----BEGIN RSA PRIVATE KEY-----\nMIIEowIBAAKCAQEAx0vT5s7Qj2hLw3bYk9ZcPqRfGmNdUeXiVoAtSa==\n",
            "a private key",
        ),
        (
            "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U",
            "a JSON web token",
        ),
    ] {
        assert_eq!(credential(text), Some(Kind::Token(what)), "{text}");
    }
    for text in ["https://ana:s3cr3t@example.org/x", "postgres://app:pw@db:5432/app?sslmode=disable"] {
        assert_eq!(credential(text), Some(Kind::Url), "{text}");
    }
}

#[test]
fn what_only_reminds_of_a_credential_is_none() {
    for text in [
        "",
        "ghp_xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
        "ghp_short",
        "AKIAIOSFODNN7EXAMPLE",
        "AKIA[0-9A-Z]{16}",
        "NAKIAQ3EGTIOPS2K4BHWD",
        "-----BEGIN RSA PRIVATE KEY-----",
        "-----BEGIN CERTIFICATE-----\nMIIEowIBAAKCAQEAx0vT5s7Qj2hLw3bYk9ZcPqRfGmNdUeXiVoAtSa==\n",
        "https://example.org/@user:pass",
        "https://user@example.org",
        "https://user:@example.org",
        "https://<user>:<password>@example.org",
        "http://${USER}:${PASSWORD}@host",
        "http://%s:%s@host",
        "https://USER_ID:API_KEY@logs.example.org",
        "(?:https?://)([^:]+):([^@]+)@(.*)",
        "a://b, c:d@e",
        "task:one@two",
    ] {
        assert_eq!(credential(text), None, "{text}");
    }
}

#[test]
fn unused_declarations_are_warned_about() {
    let text = "import.file \"lib\" { filename = \"a\" }\n\
        import.file \"used\" { filename = \"b\" }\n\
        declare \"idle\" {\n  argument \"x\" { }\n  argument \"y\" { }\n  export \"z\" { value = argument.y.value }\n\
        \x20 declare \"inner\" { }\n}\n\
        declare \"busy\" { used.thing \"t\" { } }\n\
        busy \"one\" { }\n";
    assert_eq!(
        warnings(text),
        [
            "W405 main.alloy:1:1: import.file \"lib\" is unused: no component of that namespace is made",
            "W404 main.alloy:3:1: declare \"idle\" is unused: no component of that name is made",
            "W406 main.alloy:4:3: argument \"x\" is unused: no expression reads its value",
            "W404 main.alloy:7:3: declare \"inner\" is unused: no component of that name is made",
        ]
    );
    // A file that only declares is a module: others use what it declares.
    assert_eq!(warnings("declare \"api\" { }\n"), [""; 0]);
    // With an index, any argument may be read.
    assert_eq!(
        warnings(
            "declare \"api\" {\n  argument \"x\" { }\n  export \"z\" { value = argument[\"x\"].value }\n}\n"
        ),
        [""; 0]
    );
}

#[test]
fn credentials_are_warned_about_and_not_shown() {
    let text = "test.consumer \"c\" { input = \"https://ana:s3cr3t@example.org\" }\nx = 1";
    let diagnostics = validate(&registry(), &configuration(text));
    let shown = invar_syntax::render(&diagnostics, invar_syntax::Style::default());
    assert!(shown.contains("W409"), "{shown}");
    assert!(!shown.contains("s3cr3t"), "{shown}");
    assert!(shown.contains("input = ****"), "{shown}");
}

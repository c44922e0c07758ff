//! What a poll from nothing says of a source: the revision it brings with what is odd about it, or the class of its
//! failure as a finding that says what to do.

use super::{Finding, Severity};
use crate::error::{ErrorClass, Rejection, SourceError};
use crate::snapshot::{NoticeKind, Snapshot};
use crate::source::{Poll, is_pipeline};
use crate::units::display_size;

/// The findings of a poll of a source that a configuration needs, or does not.
pub(crate) fn findings_of(required: bool, polled: Result<Poll, SourceError>) -> Vec<Finding> {
    match polled {
        Ok(Poll::Changed(snapshot)) => content(&snapshot),
        // Not from a poll without a snapshot before it; then there is nothing to say against it.
        Ok(Poll::Unchanged) => vec![Finding::ok("content", "it answers")],
        Err(error) => {
            let mut finding = failure(&error);
            if !required && finding.severity == Severity::Problem {
                finding.severity = Severity::Warning;
                finding.what.push_str(" (the source is optional)");
            }
            vec![finding]
        }
    }
}

fn content(snapshot: &Snapshot) -> Vec<Finding> {
    let bytes: usize = snapshot.files.values().map(|content| content.len()).sum();
    let files = match snapshot.files.len() {
        1 => "1 file".to_owned(),
        count => format!("{count} files"),
    };
    let mut findings = vec![Finding::ok(
        "content",
        format!("{}: {files}, {}", snapshot.revision.short(), display_size(bytes as u64)),
    )];
    if let Some(signer) = &snapshot.signer {
        findings.push(Finding::ok("verification", format!("signed by {signer}")));
    }
    for path in &snapshot.paths {
        let below = |file: &String| {
            path.is_empty()
                || file == path
                || file.strip_prefix(path.as_str()).is_some_and(|rest| rest.starts_with('/'))
        };
        if !snapshot.files.keys().any(below) {
            // A host rarely has files of its own.
            let what = format!("the selected path `{path}` is not there, or empty");
            findings.push(if path.starts_with("hosts/") {
                Finding::ok("path", format!("{what}; few hosts have one"))
            } else {
                Finding::warning("path", what)
                    .because("nothing of it is part of the configuration")
                    .fix("correct `path`, or `[agent] environment` and `name` if it is made of them")
            });
        }
    }
    if !snapshot.files.keys().any(|file| is_pipeline(file)) {
        findings.push(
            Finding::warning("path", "no file is a pipeline (*.alloy)")
                .because("variables alone run nothing")
                .fix("is `path` the right folder?"),
        );
    }
    // Reported once, by the look at the settings.
    let told = snapshot.notices.iter().filter(|notice| notice.kind != NoticeKind::InsecureTransport);
    findings.extend(told.map(|notice| {
        let finding = Finding::warning("notice", notice.message.clone());
        match notice.kind {
            NoticeKind::Redirected => finding.fix("put the new address into the settings"),
            NoticeKind::CaseCollision => finding.fix("rename one of them"),
            _ => finding,
        }
    }));
    findings
}

fn failure(error: &SourceError) -> Finding {
    let (check, usual) = match &error.class {
        ErrorClass::Transient => (
            "connection",
            "is the server up? does this host need a proxy (`proxy = { url = … }`)? it is tried again by itself",
        ),
        ErrorClass::RateLimited { .. } => ("quota", "wait; then a longer `interval`, or a webhook"),
        ErrorClass::AuthExpired => ("authentication", "give the source a credential that is valid"),
        ErrorClass::Forbidden => ("permission", "let this credential read, at the server"),
        ErrorClass::NotFound => ("reference", "correct the address or the reference"),
        ErrorClass::Integrity => {
            ("integrity", "find out who changed what is served there, or what stands in between")
        }
        ErrorClass::Stalled => ("settings", "correct the settings of the source"),
        ErrorClass::Rejected(rejection) => ("content", rejected(*rejection)),
    };
    let fix = error.help.clone().unwrap_or_else(|| usual.to_owned());
    let finding = match error.class {
        ErrorClass::RateLimited { .. } => Finding::warning(check, error.message.clone()),
        _ => Finding::problem(check, error.message.clone()),
    };
    finding.fix(fix)
}

fn rejected(rejection: Rejection) -> &'static str {
    match rejection {
        Rejection::Limits => "select less with `path`, or raise `limits`",
        Rejection::SymlinkEscape => "put the content itself in the place of the link",
        Rejection::LfsPointer => "commit the file itself; LFS is not followed",
        Rejection::Name => "rename the file",
        Rejection::TagMoved => "make a new tag, or set `git.allow_tag_move = true`",
        Rejection::History => "accept the rewritten history, or restore the branch",
        Rejection::EmptySource => "push something, or correct `path`",
        Rejection::Shape => "is that the right address, and the right path?",
        Rejection::Verification => {
            "sign it with a key that `verify` trusts, or trust the key it is signed with"
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::snapshot::{Files, Notice, Revision, SourceKind, SourceName};

    fn snapshot(files: &[&str], paths: &[&str]) -> Snapshot {
        let files: Files = files.iter().map(|file| ((*file).to_owned(), "x = 1".into())).collect();
        let name = SourceName::new("platform");
        let mut snapshot =
            Snapshot::of_content(name, SourceKind::Git, "d".repeat(64), files, SystemTime::UNIX_EPOCH);
        snapshot.revision = Revision::git("main", &"4be21c09".repeat(5));
        snapshot.paths = paths.iter().map(|path| (*path).to_owned()).collect();
        snapshot
    }

    fn of(snapshot: Snapshot) -> Vec<(Severity, String)> {
        let findings = findings_of(true, Ok(Poll::Changed(Box::new(snapshot))));
        findings.into_iter().map(|finding| (finding.severity, finding.what)).collect()
    }

    #[test]
    fn a_revision_says_what_it_brings() {
        let found = of(snapshot(&["base/a.alloy", "base/b.alloy"], &["base"]));
        assert_eq!(found, [(Severity::Ok, "main@sha1:4be21c094be2: 2 files, 10 bytes".to_owned())]);
    }

    #[test]
    fn a_selected_path_without_files_is_a_warning_unless_it_is_the_hosts_own() {
        let found = of(snapshot(&["base/a.alloy"], &["base", "bas", "environments/prod", "hosts/web-17"]));
        let severities: Vec<Severity> = found.iter().map(|(severity, _)| *severity).collect();
        assert_eq!(severities, [Severity::Ok, Severity::Warning, Severity::Warning, Severity::Ok]);
        assert!(found[2].1.contains("`environments/prod`"), "{found:?}");
    }

    #[test]
    fn no_pipeline_is_a_warning_and_a_notice_too() {
        let mut snapshot = snapshot(&["variables.toml"], &[]);
        snapshot.signer = Some("ana".to_owned());
        for kind in [NoticeKind::Redirected, NoticeKind::InsecureTransport] {
            snapshot.notices.push(Notice { kind, message: format!("{kind:?}") });
        }
        let found = of(snapshot);
        let whats: Vec<&str> = found.iter().map(|(_, what)| what.as_str()).collect();
        assert_eq!(whats[1..], ["signed by ana", "no file is a pipeline (*.alloy)", "Redirected"]);
    }

    #[test]
    fn every_class_of_failure_has_its_check_and_a_fix() {
        let finding = |class: ErrorClass, required: bool| {
            let source_name = SourceName::new("platform");
            let error = SourceError { class, message: "it fails".to_owned(), help: None, source_name };
            let mut findings = findings_of(required, Err(error));
            assert_eq!(findings.len(), 1);
            findings.remove(0)
        };
        let classes = [
            (ErrorClass::Transient, "connection"),
            (ErrorClass::AuthExpired, "authentication"),
            (ErrorClass::Forbidden, "permission"),
            (ErrorClass::NotFound, "reference"),
            (ErrorClass::Integrity, "integrity"),
            (ErrorClass::Stalled, "settings"),
            (ErrorClass::Rejected(Rejection::Verification), "content"),
        ];
        for (class, check) in classes {
            let found = finding(class.clone(), true);
            assert_eq!((found.check, found.severity), (check, Severity::Problem));
            assert!(found.fix.is_some());
            let optional = finding(class, false);
            assert_eq!(optional.severity, Severity::Warning);
            assert!(optional.what.contains("optional"));
        }
        let limited = finding(ErrorClass::RateLimited { after: None }, true);
        assert_eq!(limited.severity, Severity::Warning, "it passes by itself");
    }

    #[test]
    fn the_help_of_a_failure_is_its_fix() {
        let error = SourceError {
            class: ErrorClass::NotFound,
            message: "no `mian`".to_owned(),
            help: Some("did you mean `main`?".to_owned()),
            source_name: SourceName::new("platform"),
        };
        assert_eq!(findings_of(true, Err(error))[0].fix.as_deref(), Some("did you mean `main`?"));
    }
}

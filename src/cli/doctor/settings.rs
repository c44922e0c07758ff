//! What is wrong with `invar.toml` itself, before anything it names is looked at.

use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;

use invar_sources::{Finding, SettingsError, SourceSettings};

use crate::settings::Settings;

/// Longest fallback that is read, in bytes.
const FALLBACK_LIMIT: u64 = 8 << 20;

/// Settings that cannot be read. What is quoted in the error has its values blanked, and no line is repeated here.
pub(super) fn refused(shown: &str, error: &miette::Report) -> Finding {
    let label = error.labels().and_then(|mut labels| labels.next());
    let line = label.zip(error.source_code()).and_then(|(label, source)| {
        let read = source.read_span(label.inner(), 0, 0).ok()?;
        Some(read.line() + 1)
    });
    let place = line.map_or_else(|| shown.to_owned(), |line| format!("{shown}:{line}"));
    let finding = Finding::problem("settings", format!("{place}: the settings cannot be used"))
        .because(error.to_string());
    match error.help() {
        Some(help) => finding.fix(help.to_string()),
        None => finding.fix("`invar schema --settings` prints what there is; editors can check against it"),
    }
}

/// Settings that can be read, and their sources with names and the agent's attributes in place.
pub(super) fn findings_of(
    shown: &str,
    settings: &Settings,
    declared: &Result<Vec<SourceSettings>, Vec<SettingsError>>,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    match declared {
        Ok(sources) if sources.is_empty() => findings.push(
            Finding::problem("settings", format!("{shown} names no source"))
                .because("nothing says where configuration comes from")
                .fix("[[source]] with one of git, s3, http, oci and file"),
        ),
        Ok(sources) => {
            let names: Vec<String> = sources.iter().map(|source| source.source_name().to_string()).collect();
            let count = if names.len() == 1 { "1 source" } else { &format!("{} sources", names.len()) };
            findings.push(Finding::ok("settings", format!("{count}: {}", names.join(", "))));
        }
        Err(errors) => findings.extend(errors.iter().map(|error| {
            Finding::problem("settings", error.to_string()).fix(format!("correct it in {shown}"))
        })),
    }
    if let Err(why) = crate::agent::stability(&settings.features.stability) {
        findings.push(
            Finding::problem("settings", why.to_string())
                .fix("stability = \"generally-available\" under [features]"),
        );
    }
    findings.extend(settings.rollout.fallback.as_deref().map(fallback));
    findings
}

/// The local configuration that runs when nothing else can: nobody looks at it until it is needed.
fn fallback(path: &Path) -> Finding {
    let place = path.display();
    let mut bytes = Vec::new();
    let read = std::fs::File::open(path).and_then(|file| file.take(FALLBACK_LIMIT).read_to_end(&mut bytes));
    if let Err(error) = read {
        return Finding::problem("fallback", format!("the fallback {place} cannot be read"))
            .because(error.to_string())
            .fix("write one, or correct `[rollout] fallback`");
    }
    let parsed = String::from_utf8(bytes).map_err(|_| "it is not UTF-8".to_owned()).and_then(|text| {
        let source = Arc::new(invar_syntax::Source::new(place.to_string(), text));
        let (_, diagnostics) = invar_syntax::parse_file(source);
        match diagnostics.has_errors() {
            true => Err(diagnostics.iter().next().map(|first| first.message.clone()).unwrap_or_default()),
            false => Ok(()),
        }
    });
    match parsed {
        Ok(()) => Finding::ok("fallback", format!("the fallback {place} can be read")),
        Err(why) => Finding::problem("fallback", format!("the fallback {place} is no pipeline"))
            .because(why)
            .fix(format!("invar validate {place}")),
    }
}

/// A warning if settings with credentials written out in them can be read by everybody; none for what is no file.
pub(super) fn readable_by_others(path: &Path) -> Option<Finding> {
    let metadata = std::fs::metadata(path).ok().filter(std::fs::Metadata::is_file)?;
    exposed(&path.display().to_string(), metadata.mode() & 0o777)
}

fn exposed(place: &str, mode: u32) -> Option<Finding> {
    (mode & 0o004 != 0).then(|| {
        Finding::warning(
            "settings",
            format!("{place} holds credentials, and everybody on this host can read it"),
        )
        .because(format!("its mode is {mode:04o}"))
        .fix(format!("chmod o-rwx {place}"))
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use invar_sources::Severity;

    use super::*;

    fn of(text: &str) -> Vec<Finding> {
        let settings = Settings::parse("invar.toml", text).unwrap();
        let declared = crate::agent::declared_sources(&settings, &crate::agent::identity(&settings));
        findings_of("invar.toml", &settings, &declared)
    }

    #[test]
    fn settings_that_can_be_used_name_their_sources() {
        let found = of("[[source]]\nfile = { path = '/a' }\n[[source]]\ngit = { url = 'https://x/y' }");
        assert_eq!(found[0].what, "2 sources: file, git");
        assert_eq!(found.len(), 1);
    }

    #[test]
    fn every_problem_of_the_settings_is_told() {
        let found = of("[[source]]\nname = 'a b'\nfile = { path = '/a' }\n[[source]]\nname = 'c'\n\
                        [features]\nstability = 'rock-solid'\n[rollout]\nfallback = '/nonexistent/x.alloy'");
        let problems =
            found.iter().filter(|found| found.severity == Severity::Problem && found.fix.is_some());
        assert_eq!(problems.count(), 4, "{found:#?}");
        assert_eq!(of("")[0].severity, Severity::Problem, "no source at all");
        let found = of("[[source]]\nfile = { path = '/etc/${agent.labels.ring}' }");
        assert!(found[0].what.contains("ring"), "{found:?}");
    }

    #[test]
    fn the_fallback_is_read_before_it_is_needed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("fallback.alloy");
        std::fs::write(&path, "logging { }\n").unwrap();
        assert_eq!(fallback(&path).severity, Severity::Ok);
        for wrong in [&b"logging {\n"[..], b"\xff\xfe"] {
            std::fs::write(&path, wrong).unwrap();
            let found = fallback(&path);
            assert_eq!((found.severity, found.why.is_some()), (Severity::Problem, true), "{found:?}");
        }
    }

    #[test]
    fn settings_that_cannot_be_read_say_where_and_show_no_value() {
        let error = Settings::parse("invar.toml", "[agent]\nnmae = \"hunter2\"\n").unwrap_err();
        let found = refused("invar.toml", &error);
        assert_eq!(found.what, "invar.toml:2: the settings cannot be used");
        assert!(found.fix.as_ref().unwrap().contains("did you mean `name`"), "{found:?}");
        let error =
            Settings::parse("invar.toml", "[[source]]\nauth = { token = 'hunter2', tokn = 'hunter2' }\n")
                .unwrap_err();
        assert!(!format!("{:?}", refused("invar.toml", &error)).contains("hunter2"));
    }

    #[test]
    fn settings_with_credentials_are_for_the_agent_alone() {
        assert_eq!(exposed("invar.toml", 0o644).unwrap().severity, Severity::Warning);
        assert_eq!(exposed("invar.toml", 0o640), None);
    }
}

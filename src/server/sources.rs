//! `/api/v1/sources`: how each source is doing, and with a name everything about one, its settings included as far as
//! they are no secret. Changes to the shape are additive.

use axum::Json;
use axum::extract::{Path, State};
use invar_rollout::{SourceDetail, SourceState};
use invar_sources::{HistoryPolicy, SourceSettings, VerifyMode, redact};
use serde::{Deserialize, Serialize};

use super::{Face, Refusal};

/// A source in full.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SourceAnswer {
    /// How it is doing.
    #[serde(flatten)]
    pub(crate) detail: SourceDetail,
    /// What `invar.toml` says of it; none for modules, which pipelines name.
    pub(crate) settings: Option<SourceDeclaration>,
}

/// What the settings say of a source, without secrets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SourceDeclaration {
    /// Its name.
    pub(crate) name: String,
    /// The selected paths.
    pub(crate) paths: Vec<String>,
    /// How long one check may take, where the settings say so.
    pub(crate) timeout_seconds: Option<u64>,
    /// The way it authenticates: `token`, `basic`, `ssh` …
    pub(crate) auth: Option<String>,
    /// The proxy, redacted.
    pub(crate) proxy: Option<String>,
    /// What happens when a branch is rewritten, for Git.
    pub(crate) history: Option<String>,
    /// Who has to have signed what is read, for Git.
    pub(crate) verify: Option<VerifyDeclaration>,
    /// How much it may bring.
    pub(crate) limits: LimitDeclaration,
}

/// `verify = { … }`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct VerifyDeclaration {
    /// `none`, `head`, `tag` or `range`.
    pub(crate) mode: String,
    /// Files that say whom to trust.
    pub(crate) trusted: Vec<String>,
    /// Who may sign; empty means all in the files.
    pub(crate) signers: Vec<String>,
}

/// `limits = { … }`, in bytes and files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LimitDeclaration {
    pub(crate) pack: u64,
    pub(crate) files: usize,
    pub(crate) file: u64,
    pub(crate) bytes: u64,
}

impl SourceDeclaration {
    /// What may be shown of settings that are normalized.
    pub(crate) fn of(settings: &SourceSettings) -> Self {
        let verify = &settings.verify;
        let trusted = [&verify.ssh, &verify.openpgp].into_iter().flatten();
        let is_git = settings.git.is_some();
        Self {
            name: settings.source_name().to_string(),
            paths: settings.path.clone(),
            timeout_seconds: settings.timeout.map(|timeout| timeout.as_secs()),
            auth: settings.auth.as_ref().and_then(|auth| Some((*auth.ways().first()?).to_owned())),
            proxy: settings.proxy.as_ref().map(|proxy| redact(&proxy.url)),
            history: is_git.then(|| {
                let policy = match settings.history {
                    HistoryPolicy::Any => "any",
                    HistoryPolicy::Warn => "warn",
                    HistoryPolicy::FastForward => "fast-forward",
                };
                policy.to_owned()
            }),
            verify: is_git.then(|| VerifyDeclaration {
                mode: match verify.mode {
                    VerifyMode::None => "none",
                    VerifyMode::Head => "head",
                    VerifyMode::Tag => "tag",
                    VerifyMode::Range => "range",
                }
                .to_owned(),
                trusted: trusted.map(|path| path.display().to_string()).collect(),
                signers: verify.signers.clone(),
            }),
            limits: LimitDeclaration {
                pack: settings.limits.pack,
                files: settings.limits.files,
                file: settings.limits.file,
                bytes: settings.limits.bytes,
            },
        }
    }
}

pub(super) async fn list(State(face): State<Face>) -> Result<Json<Vec<SourceState>>, Refusal> {
    Ok(Json(face.rooms()?.rollout.status().sources.clone()))
}

pub(super) async fn one(
    State(face): State<Face>,
    Path(name): Path<String>,
) -> Result<Json<SourceAnswer>, Refusal> {
    let rooms = face.rooms()?;
    let Some(detail) = rooms.rollout.source(&name) else {
        let status = rooms.rollout.status();
        let names: Vec<&str> = status.sources.iter().map(|source| source.name.as_str()).collect();
        let nearest = invar_syntax::nearest(&name, names.iter().copied());
        let hint = match nearest {
            Some(nearest) => format!("did you mean `{nearest}`?"),
            None => format!("there are: {}", names.join(", ")),
        };
        return Err(Refusal::missing(format!("there is no source `{name}`; {hint}")));
    };
    let settings = rooms.declared.iter().find(|declared| declared.name == detail.state.name).cloned();
    Ok(Json(SourceAnswer { detail, settings }))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn settings_are_shown_without_their_secrets() {
        let settings: SourceSettings = toml::from_str(
            "name = 'platform'\ngit = { url = 'https://git.example/x' }\npath = ['base']\n\
             auth = { token = 'hunter2' }\nproxy = { url = 'http://proxy:3128', password = 'hunter2' }\n\
             verify = { mode = 'head', ssh = '/etc/signers', signers = ['ana'] }\nhistory = 'fast-forward'",
        )
        .unwrap();
        let shown = serde_json::to_string(&SourceDeclaration::of(&settings)).unwrap();
        assert!(!shown.contains("hunter2"), "{shown}");
        for part in ["\"auth\":\"token\"", "proxy:3128", "fast-forward", "\"mode\":\"head\"", "/etc/signers"]
        {
            assert!(shown.contains(part), "{part} in {shown}");
        }
        let file = SourceDeclaration::of(&SourceSettings::for_file("/etc/invar"));
        assert_eq!((file.history, file.verify, file.auth), (None, None, None));
    }
}

//! Configurations that a command is given by path or address: read once, without an agent.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use invar_secrets::SecretStores;
use invar_sources::{Poll, PollContext, SourceEnvironment, SourceSettings};
use tokio_util::sync::CancellationToken;

use super::client::block_on_plain;
use super::run::is_address;

/// How long reading may take: a first clone may be large.
const DEADLINE: Duration = Duration::from_secs(300);

/// The files of a configuration, path and content, in order of composition.
pub(crate) type Files = Vec<(String, Vec<u8>)>;

/// Reads the pipeline files at a path (file, directory) or an address (`git+https://…`).
pub(crate) fn read(what: &str) -> Result<Files, String> {
    if is_address(what) {
        let settings = invar_sources::parse_address(what).map_err(|error| error.to_string())?;
        return fetch(settings);
    }
    let path = Path::new(what);
    let failed = |error: std::io::Error| format!("{}: {error}", path.display());
    if path.is_dir() {
        let mut files = Vec::new();
        for entry in std::fs::read_dir(path).map_err(failed)? {
            let file = entry.map_err(failed)?.path();
            if file.extension().is_some_and(|extension| extension == "alloy") && file.is_file() {
                files.push((file.display().to_string(), std::fs::read(&file).map_err(failed)?));
            }
        }
        files.sort();
        if files.is_empty() {
            return Err(format!("{}: no *.alloy file in this folder", path.display()));
        }
        return Ok(files);
    }
    Ok(vec![(what.to_owned(), std::fs::read(path).map_err(failed)?)])
}

fn fetch(mut settings: SourceSettings) -> Result<Files, String> {
    crate::tls::install_provider();
    invar_sources::normalize(std::slice::from_mut(&mut settings))
        .map_err(|errors| errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))?;
    let scratch = std::env::temp_dir().join(format!("invar-fetch-{}", std::process::id()));
    let environment = SourceEnvironment { state_directory: scratch.clone(), secrets: SecretStores::local() };
    let fetched = block_on_plain(async {
        let source = invar_sources::open(&settings, &environment).map_err(|error| error.to_string())?;
        let context = PollContext {
            deadline: tokio::time::Instant::now() + DEADLINE,
            cancellation: CancellationToken::new(),
            now: SystemTime::now(),
        };
        let source = Arc::clone(&source);
        match source.poll(None, &context).await {
            Ok(Poll::Changed(snapshot)) => {
                let pipeline = snapshot.files.into_iter().filter(|(path, _)| path.ends_with(".alloy"));
                Ok(pipeline.map(|(path, content)| (path, content.to_vec())).collect())
            }
            Ok(Poll::Unchanged) => {
                Err("the source says that nothing changed, and nothing was there".to_owned())
            }
            Err(error) => Err(match &error.help {
                Some(help) => format!("{error}\n  help: {help}"),
                None => error.to_string(),
            }),
        }
    });
    // A clone made for one look; one that cannot be removed is only rubbish.
    drop(std::fs::remove_dir_all(&scratch));
    fetched?
}

//! `import.http`: a module that is what an address answers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use invar_blocks::HttpClientArguments;
use invar_engine::modules::HttpImport;
use invar_policy::Access;
use invar_sources::{
    BoxFuture, ErrorClass, Poll, PollContext, Snapshot, Source, SourceError, SourceKind, SourceName,
    tree_digest,
};
use invar_syntax::arguments::Arguments;
use invar_syntax::decoder::decode_block;
use invar_syntax::evaluate::{EvaluatedBlock, EvaluatedBody};
use parking_lot::Mutex;

use super::SHORTEST_INTERVAL;
use crate::document::{Content, Document, Request};

pub(super) use crate::document::shown;

/// The file of the snapshot.
const FILE: &str = "module.alloy";

struct HttpModule {
    name: SourceName,
    document: Document,
    interval: Duration,
    timeout: Duration,
    /// What was read last, and the digest of the snapshot made of it.
    last: Mutex<Option<(String, Content)>>,
}

/// The source of such a module.
pub(super) fn open(
    name: &SourceName,
    import: &HttpImport,
    client: Option<&EvaluatedBlock>,
    access: &Access,
) -> Result<Arc<dyn Source>, SourceError> {
    let stalled = |message: String| SourceError {
        class: ErrorClass::Stalled,
        message,
        help: None,
        source_name: name.clone(),
    };
    let mut errors = Vec::new();
    let arguments = match client {
        Some(block) => decode_block::<HttpClientArguments>(block, &mut errors),
        None => HttpClientArguments::decode(&EvaluatedBody::default(), &mut errors),
    };
    let arguments = arguments.filter(|_| errors.is_empty()).ok_or_else(|| {
        let texts: Vec<String> = errors.iter().map(|error| error.message.clone()).collect();
        stalled(format!("`client`: {}", texts.join("; ")))
    })?;
    let timeout = import.poll_timeout.max(SHORTEST_INTERVAL);
    let request = Request {
        url: &import.url,
        method: &import.method,
        headers: &import.headers,
        body: &import.body,
        timeout,
    };
    let document = Document::new(name.clone(), &request, arguments, access.clone());
    Ok(Arc::new(HttpModule {
        name: name.clone(),
        document: document.map_err(stalled)?,
        interval: import.poll_frequency.max(SHORTEST_INTERVAL),
        timeout,
        last: Mutex::default(),
    }))
}

/// The folder of an address: the `module_path` of what it answers.
pub(super) fn folder(url: &str) -> String {
    let shown = shown(url);
    let path_begins = shown.find("://").map_or(0, |at| at + 3);
    match shown[path_begins..].rfind('/') {
        Some(slash) => shown[..path_begins + slash].to_owned(),
        None => shown,
    }
}

impl HttpModule {
    async fn look(&self, previous: Option<&Snapshot>, context: &PollContext) -> Result<Poll, SourceError> {
        let known = self.last.lock().clone();
        let known = known.filter(|(digest, _)| previous.is_some_and(|previous| previous.digest == *digest));
        let content = self.document.get(known.as_ref().map(|(_, content)| content), context.now).await?;
        let Some(content) = content else { return Ok(Poll::Unchanged) };
        let files = BTreeMap::from([(FILE.to_owned(), content.text.clone())]);
        let digest = tree_digest(&files);
        *self.last.lock() = Some((digest.clone(), content));
        // What the server calls it may change; the content is what counts.
        if previous.is_some_and(|snapshot| snapshot.digest == digest) {
            return Ok(Poll::Unchanged);
        }
        let source = self.name.clone();
        Ok(Poll::Changed(Box::new(Snapshot::of_content(
            source,
            SourceKind::Http,
            digest,
            files,
            context.now,
        ))))
    }
}

impl Source for HttpModule {
    fn name(&self) -> &SourceName {
        &self.name
    }

    fn kind(&self) -> SourceKind {
        SourceKind::Http
    }

    fn description(&self) -> String {
        self.document.place()
    }

    fn interval(&self) -> Duration {
        self.interval
    }

    fn timeout(&self, _first: bool) -> Duration {
        self.timeout
    }

    fn poll<'a>(
        &'a self,
        previous: Option<&'a Snapshot>,
        context: &'a PollContext,
    ) -> BoxFuture<'a, Result<Poll, SourceError>> {
        Box::pin(async move {
            let transient = |message: String| Err(self.document.error(ErrorClass::Transient, message));
            tokio::select! {
                looked = tokio::time::timeout_at(context.deadline, self.look(previous, context)) => {
                    looked.unwrap_or_else(|_| {
                        transient(format!("{} does not answer in time", self.document.place()))
                    })
                }
                () = context.cancellation.cancelled() => transient("the poll was cancelled".to_owned()),
            }
        })
    }

    fn is_atomic(&self) -> bool {
        true
    }

    fn required(&self) -> bool {
        false
    }

    fn host(&self) -> Option<&str> {
        self.document.host()
    }
}

//! One object: a read on the condition that it is another one than before.

use invar_object_store::{Get, Session, StoreError};
use sha2::{Digest as _, Sha256};

use super::{Attempt, Mode, S3Source};
use crate::error::{Failure, Rejection};
use crate::snapshot::{Files, Revision, Snapshot, SourceKind, hexadecimal};
use crate::source::PollContext;
use crate::units::display_size;

impl S3Source {
    pub(super) async fn read_object(
        &self,
        session: &Session<'_>,
        previous: Option<&Snapshot>,
        context: &PollContext,
    ) -> Result<Attempt, Failure> {
        let Mode::Object { key, version } = &self.mode else {
            return Err(Failure::stalled("the source reads no object"));
        };
        let etag = self.known_etag(previous);
        let get = Get { key, version: version.as_deref(), if_none_match: etag.as_deref(), ..Get::default() };
        let object = match session.get(&get).await {
            Ok(object) => object,
            Err(StoreError::NotModified) if etag.is_some() => return Ok(Attempt::Unchanged),
            Err(error) => return Err(self.access.failure(&self.place, &error)),
        };
        self.refuse_encoding(key, &object)?;
        if object.content.is_empty() {
            return Err(self.empty("is empty", previous));
        }
        let limit = self.limits.file.min(self.limits.bytes);
        if object.content.len() as u64 > limit {
            let message = format!("{} is longer than {}", self.place, display_size(limit));
            return Err(Failure::rejected(Rejection::Limits, message));
        }
        let digest = hexadecimal(&Sha256::digest(&object.content));
        let revision = Revision::content(SourceKind::S3, &digest);
        self.memory.lock().etag = Some((revision.text.clone(), object.etag));
        if previous.is_some_and(|snapshot| snapshot.revision.text == revision.text) {
            return Ok(Attempt::Unchanged);
        }
        let name = key.rsplit('/').next().unwrap_or(key).to_owned();
        let files = Files::from([(name, object.content)]);
        Ok(Attempt::Read(Box::new(self.snapshot(revision, files, context)?)))
    }

    /// The ETag of what `previous` shows.
    pub(super) fn known_etag(&self, previous: Option<&Snapshot>) -> Option<String> {
        let memory = self.memory.lock();
        let (of, etag) = memory.etag.as_ref()?;
        previous.filter(|snapshot| snapshot.revision.text == *of).map(|_| etag.clone())
    }
}

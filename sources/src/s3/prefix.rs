//! All objects below a prefix: list, read what changed, list again. Equal listings before and after mean that what was
//! read is one state of the bucket.

use invar_object_store::Session;

use super::catalog::{Catalog, Downloaded};
use super::{Attempt, Mode, RESTARTS, S3Source};
use crate::error::Failure;
use crate::snapshot::{Revision, Snapshot};
use crate::source::PollContext;

impl S3Source {
    pub(super) async fn list(&self, session: &Session<'_>, folder: &str) -> Result<Catalog, Failure> {
        let listing = session.list(folder, self.objects).await;
        let listing = listing.map_err(|error| self.access.failure(&self.place, &error))?;
        Catalog::of_listing(listing, folder)
    }

    pub(super) async fn read_prefix(
        &self,
        session: &Session<'_>,
        previous: Option<&Snapshot>,
        downloaded: &mut Downloaded,
        context: &PollContext,
    ) -> Result<Attempt, Failure> {
        let Mode::Prefix { folder } = &self.mode else {
            return Err(Failure::stalled("the source reads no prefix"));
        };
        let catalog = self.list(session, folder).await?;
        if catalog.items.is_empty() {
            return Err(self.empty("has no objects", previous));
        }
        let text = catalog.revision();
        if previous.is_some_and(|snapshot| snapshot.revision.text == text) {
            self.memory.lock().catalog = Some((text, catalog));
            return Ok(Attempt::Unchanged);
        }
        let names = catalog.select(&self.paths);
        if names.is_empty() {
            return Err(self.empty(&format!("has no objects at {}", self.paths.join(", ")), previous));
        }
        catalog.check_limits(&names, &self.limits)?;
        let files = match self.download(session, &catalog, &names, previous, downloaded).await? {
            Ok(files) => files,
            Err(stale) => return Ok(self.moved(&stale.message)),
        };
        if self.list(session, folder).await? != catalog {
            return Ok(self.moved("objects came, went or changed while others were read"));
        }
        let snapshot = self.snapshot(Revision::named(text.clone()), files, context)?;
        self.memory.lock().catalog = Some((text, catalog));
        Ok(Attempt::Read(Box::new(snapshot)))
    }

    fn moved(&self, why: &str) -> Attempt {
        let attempts = RESTARTS.len() + 1;
        let message = format!("{} did not hold still over {attempts} attempts: {why}", self.place);
        Attempt::Stale(
            Failure::transient(message)
                .with_help("a manifest that is uploaded last makes a change of many objects one step"),
        )
    }
}

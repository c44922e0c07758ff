//! The file source.
use crate::*;
use std::time::Duration;
/// A file source.
#[derive(Debug)]
pub struct FileSource {}
#[allow(clippy::todo)]
impl FileSource {
    /// Opens.
    /// # Errors
    /// Settings.
    pub fn open(_settings: &SourceSettings) -> Result<Self, SourceError> {
        todo!()
    }
}
#[allow(clippy::todo)]
impl Source for FileSource {
    fn name(&self) -> &SourceName {
        todo!()
    }
    fn kind(&self) -> SourceKind {
        todo!()
    }
    fn description(&self) -> String {
        todo!()
    }
    fn interval(&self) -> Duration {
        todo!()
    }
    fn timeout(&self, _first: bool) -> Duration {
        todo!()
    }
    fn poll<'a>(
        &'a self,
        _p: Option<&'a Snapshot>,
        _c: &'a PollContext,
    ) -> BoxFuture<'a, Result<Poll, SourceError>> {
        todo!()
    }
    fn is_atomic(&self) -> bool {
        todo!()
    }
    fn required(&self) -> bool {
        todo!()
    }
}

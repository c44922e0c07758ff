//! What is made of certificates, and made again when they change: files are looked at when somebody needs them, at most once a
//! second, and secrets are asked for their version each time; so nothing runs in the background and nobody holds a task.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::pem::{Material, Origins, PemError};

/// How long what was replaced is kept: who is connected to may learn of a change later than we do.
const OVERLAP: Duration = Duration::from_secs(60);
/// How often files are looked at, at most.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// Something made of [`Material`], kept up to date with its origins. What cannot be used leaves the last good one in
/// place.
pub struct Watched<T, E = PemError> {
    origins: Origins,
    make: Box<Make<T, E>>,
    current: Mutex<Current<T>>,
    /// One permit: who holds it looks at the files, the others go on with what there is.
    checking: Semaphore,
}

type Make<T, E> = dyn Fn(&Material) -> Result<T, E> + Send + Sync;

struct Current<T> {
    material: Material,
    made: Arc<T>,
    /// What was replaced, and until when it is kept.
    before: Option<(Arc<T>, Instant)>,
    checked: Instant,
    /// The version of the secrets that were looked at last.
    version: u64,
    problem: Option<String>,
}

impl<T, E: From<PemError> + fmt::Display> Watched<T, E> {
    /// Reads the origins and makes the first one.
    ///
    /// # Errors
    /// When something cannot be read or used.
    pub async fn new(
        origins: Origins,
        make: impl Fn(&Material) -> Result<T, E> + Send + Sync + 'static,
    ) -> Result<Self, E> {
        let checked = Instant::now();
        let (version, material) = origins.read_versioned().await;
        let material = material?;
        let made = Arc::new(make(&material)?);
        let current = Mutex::new(Current { material, made, before: None, checked, version, problem: None });
        Ok(Self { origins, make: Box::new(make), current, checking: Semaphore::new(1) })
    }

    /// The newest that could be made. Looks at the files unless somebody did within the last second.
    pub async fn current(&self) -> Arc<T> {
        let (checked, version) = {
            let current = self.current.lock();
            (current.checked, current.version)
        };
        let files = || checked.elapsed() >= CHECK_INTERVAL && self.origins.files().next().is_some();
        if self.origins.version() != version || files() {
            self.refresh().await;
        }
        let mut current = self.current.lock();
        current.before.take_if(|(_, until)| *until <= Instant::now());
        Arc::clone(&current.made)
    }

    /// What the newest has replaced, for some time.
    pub fn before(&self) -> Option<Arc<T>> {
        let current = self.current.lock();
        let before = current.before.as_ref().filter(|(_, until)| *until > Instant::now());
        before.map(|(made, _)| Arc::clone(made))
    }

    /// Tells whoever keeps the secrets that the newest was refused where the one before was accepted.
    pub fn refused(&self) {
        let version = self.current.lock().version;
        self.origins.refused(version);
    }

    /// Why the newest content of the files is not in use.
    pub fn problem(&self) -> Option<String> {
        self.current.lock().problem.clone()
    }

    async fn refresh(&self) {
        let Ok(_permit) = self.checking.try_acquire() else { return };
        let (version, material) = self.origins.read_versioned().await;
        {
            let mut current = self.current.lock();
            current.checked = Instant::now();
            current.version = version;
        }
        let renewed = match material {
            Ok(material) if material == self.current.lock().material => Ok(None),
            Ok(material) => (self.make)(&material).map(|made| Some((material, made))),
            Err(error) => Err(E::from(error)),
        };
        let mut current = self.current.lock();
        match renewed {
            Ok(renewed) => {
                if let Some((material, made)) = renewed {
                    current.material = material;
                    let before = std::mem::replace(&mut current.made, Arc::new(made));
                    current.before = Some((before, Instant::now() + OVERLAP));
                    tracing::info!(from = %self.names(), "changed certificates are in use");
                }
                current.problem = None;
            }
            Err(error) => {
                let problem = error.to_string();
                // Said once, not with every connection.
                if current.problem.as_ref() != Some(&problem) {
                    tracing::warn!(from = %self.names(), %problem, "changed certificates cannot be used, the previous ones stay in use");
                }
                current.problem = Some(problem);
                drop(current);
                self.origins.refused(version);
            }
        }
    }

    fn names(&self) -> String {
        let files = self.origins.files().map(|path| path.display().to_string());
        let mut names: Vec<String> = files.collect();
        self.origins.visit_references(&mut |reference| names.push(reference.to_owned()));
        names.join(", ")
    }
}

impl<T, E> fmt::Debug for Watched<T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watched").field("origins", &self.origins).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::pem::Origin;
    use crate::server::{ServerSettings, ServerTls};

    #[tokio::test(start_paused = true)]
    async fn files_are_looked_at_once_a_second_and_what_does_not_fit_leaves_the_last_good_one() {
        let directory = tempfile::tempdir().unwrap();
        let (certificate, key) = (directory.path().join("certificate"), directory.path().join("key"));
        let issue = || rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let first = issue();
        std::fs::write(&certificate, first.cert.pem()).unwrap();
        std::fs::write(&key, first.signing_key.serialize_pem()).unwrap();
        let origins = Origins {
            certificate: Origin::File(certificate.clone()),
            key: Origin::File(key.clone()),
            ..Origins::default()
        };
        let tls = ServerTls::new(origins, ServerSettings::default()).await.unwrap();
        let before = tls.current().await;
        // A rotation that is half done: the certificate is new, the key is not.
        let second = issue();
        std::fs::write(&certificate, second.cert.pem()).unwrap();
        assert!(Arc::ptr_eq(&before, &tls.current().await), "a second has not passed");
        tokio::time::advance(CHECK_INTERVAL).await;
        assert!(Arc::ptr_eq(&before, &tls.current().await));
        assert!(tls.problem().unwrap().contains("certificate and key cannot be used"));
        std::fs::write(&key, second.signing_key.serialize_pem()).unwrap();
        tokio::time::advance(CHECK_INTERVAL).await;
        assert!(!Arc::ptr_eq(&before, &tls.current().await));
        assert_eq!(tls.problem(), None);
        std::fs::remove_file(&key).unwrap();
        tokio::time::advance(CHECK_INTERVAL).await;
        drop(tls.current().await);
        assert!(tls.problem().unwrap().contains("key"));
        assert!(!format!("{tls:?}").contains("PRIVATE"));
    }
}

//! Which engine a path belongs to, as the server says it, remembered.

use std::collections::BTreeMap;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::answer::Tree;
use super::place::Place;
use super::settings::KvVersion;

/// For how long an assumption is made without asking again.
const ASSUMED: Duration = Duration::from_secs(5 * 60);

/// What answers below a mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Engine {
    /// Keys and values.
    Kv(KvVersion),
    /// Anything else.
    Other,
}

/// A mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mount {
    /// With a slash at its end.
    pub(crate) path: String,
    pub(crate) engine: Engine,
    /// Whether the server said so; it is an assumption otherwise.
    pub(crate) told: bool,
}

/// The mounts that are known.
#[derive(Default)]
pub(crate) struct Mounts {
    /// By namespace, and by path with the slash.
    told: Mutex<BTreeMap<(String, String), Mount>>,
    assumed: Mutex<BTreeMap<Place, (Mount, Instant)>>,
}

impl Mount {
    /// As the server describes it.
    pub(crate) fn of_answer(data: &Tree) -> Option<Self> {
        let path = data.get("path")?.as_text()?;
        let path = format!("{}/", path.trim_matches('/'));
        let version = data.get("options").and_then(|options| options.get("version")).and_then(Tree::as_u64);
        let engine = match data.get("type")?.as_text()? {
            "kv" | "generic" if version == Some(2) => Engine::Kv(KvVersion::Two),
            "kv" | "generic" => Engine::Kv(KvVersion::One),
            _ => Engine::Other,
        };
        Some(Self { path, engine, told: true })
    }

    /// As it probably is.
    pub(crate) fn assumed(path: &str, version: KvVersion) -> Self {
        Self { path: format!("{}/", first_segment(path)), engine: Engine::Kv(version), told: false }
    }

    /// The path within the mount.
    pub(crate) fn within<'a>(&self, path: &'a str) -> &'a str {
        path.strip_prefix(&self.path).unwrap_or_default()
    }
}

impl Mounts {
    pub(crate) fn find(&self, place: &Place) -> Option<Mount> {
        let told = self.told.lock();
        let mut ends = place.path.match_indices('/').map(|(at, _)| at + 1).collect::<Vec<_>>();
        ends.reverse();
        let mut found = ends.into_iter().map(|end| (place.namespace.clone(), place.path[..end].to_owned()));
        if let Some(mount) = found.find_map(|key| told.get(&key)) {
            return Some(mount.clone());
        }
        drop(told);
        let assumed = self.assumed.lock();
        assumed.get(place).filter(|(_, until)| *until > Instant::now()).map(|(mount, _)| mount.clone())
    }

    pub(crate) fn add(&self, place: &Place, mount: &Mount) {
        if mount.told {
            self.assumed.lock().remove(place);
            self.told.lock().insert((place.namespace.clone(), mount.path.clone()), mount.clone());
        } else {
            self.assumed.lock().insert(place.clone(), (mount.clone(), Instant::now() + ASSUMED));
        }
    }

    pub(crate) fn forget(&self, place: &Place, mount: &Mount) {
        self.assumed.lock().remove(place);
        self.told.lock().remove(&(place.namespace.clone(), mount.path.clone()));
    }
}

pub(crate) fn first_segment(path: &str) -> &str {
    path.split('/').next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_longest_mount_wins() {
        let mounts = Mounts::default();
        let place = Place::parse("kv/team/es").unwrap();
        let mount = |path: &str| Mount { path: path.to_owned(), engine: Engine::Other, told: true };
        mounts.add(&place, &mount("kv/"));
        mounts.add(&place, &mount("kv/team/"));
        assert_eq!(mounts.find(&place).unwrap().path, "kv/team/");
        assert_eq!(mounts.find(&Place::parse("kv/other").unwrap()).unwrap().path, "kv/");
        assert_eq!(mounts.find(&Place::parse("kv2/other").unwrap()), None);
        assert_eq!(mounts.find(&Place::parse("/ns//kv/other").unwrap()), None);
        assert_eq!(mount("kv/team/").within("kv/team/es"), "es");
        mounts.forget(&place, &mount("kv/team/"));
        assert_eq!(mounts.find(&place).unwrap().path, "kv/");
    }
}

//! The secret stores of the settings, made once for the whole process; and what the metrics say of the secrets in use.

use std::collections::BTreeMap;
use std::sync::Arc;

use invar_rollout::StateSettings;
use invar_secrets::{
    ChangeClass, Credential, OfflineCache, OfflineSettings, SecretReference, SecretState, SecretStores,
    SecretUser, SnapshotFiles, StoreEnvironment, StoreSettingsError, build, unknown_store,
};
use parking_lot::Mutex;
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{CounterVec, GaugeVec, Opts};

use crate::settings::Settings;

/// The stores, and what they need of what comes after them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Secrets {
    pub(crate) stores: SecretStores,
    /// Where the files of the running configuration are provided.
    pub(crate) snapshot: SnapshotFiles,
    /// What outlives the process, where the settings have a key for it.
    offline: Option<OfflineCache>,
}

impl Secrets {
    /// Makes the stores of the settings. Reads nothing and connects to nothing.
    ///
    /// # Errors
    /// All that is wrong with `[secrets]`, and every credential in a store that there is not; sentences for people.
    pub(crate) fn of(settings: &Settings) -> Result<Self, Vec<String>> {
        let policy = settings.policy().map_err(|error| vec![error])?;
        let exec = match policy.general().exec() {
            Ok(()) => Ok(()),
            Err(refusal) => Err(format!("{}; {}", refusal.message, refusal.help)),
        };
        let snapshot = SnapshotFiles::default();
        let environment = StoreEnvironment::of_process(exec, snapshot.clone());
        let texts = |errors: Vec<StoreSettingsError>| errors.iter().map(ToString::to_string).collect();
        let built = build(&settings.secrets, &environment).map_err(texts)?;
        let unknown: Vec<StoreSettingsError> = credentials(settings)
            .into_iter()
            .filter_map(|(key, credential)| unknown_store(&key, credential, built.keys().map(String::as_str)))
            .collect();
        if let Some(problem) = settings.state.offline_secrets.problem(&settings.secrets) {
            return Err(vec![problem]);
        }
        match unknown.is_empty() {
            true => Ok(Self { stores: overlapping(SecretStores::new(built)), snapshot, offline: None }),
            false => Err(texts(unknown)),
        }
    }

    /// The same, with the values that were kept at the last time, if the settings have a key for them. Whoever calls it
    /// holds the state directory. That they cannot be had is no reason not to start.
    pub(crate) async fn with_offline(mut self, state: &StateSettings) -> Self {
        let directory = state.dir.join("secrets");
        match OfflineCache::open(&state.offline_secrets, &directory, &self.stores).await {
            Ok(cache) if cache.is_open() => {
                let stores = self.stores.stores();
                let stores = stores.map(|(name, store)| (name.to_owned(), Arc::clone(store))).collect();
                self.stores = overlapping(SecretStores::with_memory(stores, Arc::new(cache.clone())));
                self.offline = Some(cache);
            }
            Ok(_) => {}
            Err(error) => {
                tracing::error!(%error, "no value outlives this process, and none of before is used");
            }
        }
        self
    }

    /// Gives back what was granted, or writes down what the next start needs of it.
    pub(crate) async fn shutdown(&self) {
        self.stores.shutdown().await;
        if let Some(offline) = &self.offline {
            offline.flush().await;
        }
    }
}

/// Tests cannot wait for as long as others may take to learn of a rotation.
fn overlapping(stores: SecretStores) -> SecretStores {
    #[cfg(feature = "testing")]
    if let Some(seconds) = std::env::var("INVAR_SECRET_OVERLAP").ok().and_then(|text| text.parse().ok()) {
        return stores.overlapping(std::time::Duration::from_secs(seconds));
    }
    stores
}

/// Every credential of the settings beside those of the stores, by where it stands.
fn credentials(settings: &Settings) -> Vec<(String, &Credential)> {
    let webhooks = settings.webhook.iter();
    let mut found: Vec<(String, &Credential)> =
        webhooks.map(|(name, webhook)| (format!("webhook.{name}.secret"), &webhook.secret)).collect();
    if let OfflineSettings::Encrypted(offline) = &settings.state.offline_secrets {
        found.push(("state.offline_secrets.key".to_owned(), &offline.key));
    }
    for (index, source) in settings.source.iter().enumerate() {
        let name = source.name.clone().unwrap_or_else(|| (index + 1).to_string());
        let of_source = invar_sources::credentials_of(source).into_iter();
        found.extend(of_source.map(|(key, credential)| (format!("source {name}: {key}"), credential)));
    }
    found
}

/// Who beside the pipeline uses which secrets. Each reads the newest value at each use.
pub(crate) fn users(settings: &Settings) -> Vec<(SecretReference, SecretUser)> {
    let of = |component: String, credential: &Credential| {
        let Credential::Secret(reference) = credential else { return None };
        Some((reference.clone(), SecretUser { component, class: ChangeClass::PerUse }))
    };
    let webhooks = settings.webhook.iter();
    let webhooks = webhooks.filter_map(|(name, webhook)| of(format!("webhook {name}"), &webhook.secret));
    let sources = settings.source.iter().enumerate().flat_map(|(index, source)| {
        let name = source.name.clone().unwrap_or_else(|| (index + 1).to_string());
        let credentials = invar_sources::credentials_of(source).into_iter();
        credentials.filter_map(move |(_, credential)| of(format!("source {name}"), credential))
    });
    webhooks.chain(sources).collect()
}

/// What the metrics say: by store, since paths are as many as their users like.
pub(crate) struct SecretMetrics {
    stores: SecretStores,
    paths: GaugeVec,
    oldest: GaugeVec,
    expiry: GaugeVec,
    rotations: CounterVec,
    failures: CounterVec,
    renewals: CounterVec,
    /// How far each path was counted. A path that is not used any more takes nothing back.
    counted: Mutex<BTreeMap<String, Counted>>,
}

/// How far a path was counted.
#[derive(Clone, Copy, Debug, Default)]
struct Counted {
    rotations: u64,
    failures: u64,
    renewals: u64,
    failed_renewals: u64,
}

impl Counted {
    fn of(status: &invar_secrets::SecretStatus) -> Self {
        let invar_secrets::SecretStatus { rotations, failures, renewals, failed_renewals, .. } = *status;
        Self { rotations, failures, renewals, failed_renewals }
    }
}

impl SecretMetrics {
    pub(crate) fn new(stores: SecretStores) -> Result<Self, prometheus::Error> {
        let gauge = |name: &str, help: &str, labels: &[&str]| GaugeVec::new(Opts::new(name, help), labels);
        let counter = |name: &str, help: &str| CounterVec::new(Opts::new(name, help), &["store"]);
        let renewals = Opts::new(
            "invar_secret_lease_renewals_total",
            "Renewals of leases; those that failed, or extended a lease by less than was asked, have the result `failed`.",
        );
        Ok(Self {
            stores,
            paths: gauge(
                "invar_secret_paths",
                "Paths of a secret store that are in use, by how they do.",
                &["store", "state"],
            )?,
            oldest: gauge(
                "invar_secret_oldest_read_age_seconds",
                "How long ago the path that was not read for the longest time was read.",
                &["store"],
            )?,
            expiry: gauge(
                "invar_secret_earliest_expiry_timestamp_seconds",
                "When the next value of a secret store ends.",
                &["store"],
            )?,
            rotations: counter(
                "invar_secret_rotations_total",
                "Changes of values that were taken into use.",
            )?,
            failures: counter("invar_secret_failures_total", "Reads, renewals and rotations that failed.")?,
            renewals: CounterVec::new(renewals, &["store", "result"])?,
            counted: Mutex::default(),
        })
    }
}

impl Collector for SecretMetrics {
    fn desc(&self) -> Vec<&Desc> {
        let gauges = [&self.paths, &self.oldest, &self.expiry].into_iter().flat_map(Collector::desc);
        gauges
            .chain([&self.rotations, &self.failures, &self.renewals].into_iter().flat_map(Collector::desc))
            .collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.take(&self.stores.status(), std::time::SystemTime::now());
        let gauges = [&self.paths, &self.oldest, &self.expiry].into_iter().flat_map(Collector::collect);
        gauges
            .chain([&self.rotations, &self.failures, &self.renewals].into_iter().flat_map(Collector::collect))
            .collect()
    }
}

impl SecretMetrics {
    fn take(&self, statuses: &[invar_secrets::SecretStatus], now: std::time::SystemTime) {
        let mut counted = self.counted.lock();
        for gauge in [&self.paths, &self.oldest, &self.expiry] {
            gauge.reset();
        }
        for status in statuses {
            let store = status.store.as_str();
            for state in SecretState::ALL {
                let one = if state == status.state { 1.0 } else { 0.0 };
                self.paths.with_label_values(&[store, state.as_str()]).add(one);
            }
            if let Some(age) = status.read.and_then(|read| now.duration_since(read).ok()) {
                let oldest = self.oldest.with_label_values(&[store]);
                oldest.set(oldest.get().max(age.as_secs_f64()));
            }
            let ends = status.expires.and_then(|at| at.duration_since(std::time::UNIX_EPOCH).ok());
            if let Some(ends) = ends {
                let earliest = self.expiry.with_label_values(&[store]);
                let before = Some(earliest.get()).filter(|before| *before > 0.0);
                earliest.set(before.map_or(ends.as_secs_f64(), |before| before.min(ends.as_secs_f64())));
            }
            let (before, now) =
                (counted.get(&status.reference).copied().unwrap_or_default(), Counted::of(status));
            let grown = |now: u64, before: u64| {
                // Less than before is a path that was given up and taken up again: it counts from nothing.
                let grown = now.checked_sub(before).unwrap_or(now);
                u32::try_from(grown).map_or(f64::MAX, f64::from)
            };
            let count = |counter: &CounterVec, labels: &[&str], now, before| {
                counter.with_label_values(labels).inc_by(grown(now, before));
            };
            count(&self.rotations, &[store], now.rotations, before.rotations);
            count(&self.failures, &[store], now.failures, before.failures);
            if status.lease {
                count(&self.renewals, &[store, "ok"], now.renewals, before.renewals);
                count(&self.renewals, &[store, "failed"], now.failed_renewals, before.failed_renewals);
            }
        }
        *counted = statuses.iter().map(|status| (status.reference.clone(), Counted::of(status))).collect();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::time::{Duration, SystemTime};

    use invar_secrets::{SecretStatus, StoreKind};

    use super::*;

    fn refusal(text: &str) -> String {
        let settings = Settings::parse("invar.toml", text).unwrap();
        Secrets::of(&settings).unwrap_err().join("\n")
    }

    const SOURCE: &str = "[[source]]\nname = 'a'\ngit = { url = 'https://x/y' }\n";

    #[test]
    fn stores_are_made_of_the_settings() {
        let text = format!(
            "{SOURCE}auth = {{ token = {{ secret = 'team/token' }} }}\n\
             [secrets.team]\nkind = 'file'\nroot = '/run/secrets'\n\
             [webhook.git]\nsecret = {{ secret = 'env/HOOK' }}\nsources = ['a']\n"
        );
        let settings = Settings::parse("invar.toml", &text).unwrap();
        let secrets = Secrets::of(&settings).unwrap();
        for store in ["env", "file", "team"] {
            assert!(secrets.stores.store(store).is_some(), "{store}");
        }
        assert!(secrets.stores.store("vault").is_none());
    }

    #[test]
    fn sources_and_webhooks_are_among_the_users() {
        let text = format!(
            "{SOURCE}auth = {{ token = {{ secret = 'file/run/token' }} }}\n\
             [webhook.git]\nsecret = {{ secret = 'env/HOOK' }}\nsources = ['a']\n"
        );
        let found = users(&Settings::parse("invar.toml", &text).unwrap());
        let found: Vec<_> =
            found.iter().map(|(at, user)| (at.to_string(), user.component.as_str())).collect();
        assert_eq!(
            found,
            [("env/HOOK".to_owned(), "webhook git"), ("file/run/token".to_owned(), "source a")]
        );
    }

    #[test]
    fn credentials_in_a_store_that_there_is_not_are_found_before_the_start() {
        let token = format!("{SOURCE}auth = {{ token = {{ secret = 'bao/kv/git#token' }} }}\n");
        assert_eq!(
            refusal(&token),
            "`source a: auth.token` is in the store `bao`, which there is not; there are: env, file"
        );
        let hook = format!("{SOURCE}[webhook.git]\nsecret = {{ secret = 'bao/x' }}\nsources = ['a']\n");
        assert!(refusal(&hook).contains("`webhook.git.secret` is in the store `bao`"));
    }

    #[test]
    fn commands_need_the_policy() {
        let text = "[secrets.x]\nkind = 'exec'\ncommands = { a = { command = ['/bin/true'] } }\n";
        let refused = refusal(text);
        assert!(refused.contains("no program may be run") && refused.contains("exec = true"), "{refused}");
        let allowed = format!("{text}[policy]\nexec = true\n");
        assert!(Secrets::of(&Settings::parse("invar.toml", &allowed).unwrap()).is_ok());
    }

    fn status(reference: &str, state: SecretState, rotations: u64) -> SecretStatus {
        let lacking =
            SecretStatus::lacking(&reference.parse().unwrap(), StoreKind::Vault, state, String::new());
        SecretStatus { reason: None, version: Some(1), rotations, ..lacking }
    }

    #[test]
    fn metrics_count_by_store_and_never_backwards() {
        let metrics = SecretMetrics::new(SecretStores::default()).unwrap();
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let mut first = status("vault/a", SecretState::Ready, 2);
        first.read = Some(now - Duration::from_secs(60));
        first.expires = Some(now + Duration::from_secs(50));
        let mut second = status("vault/b", SecretState::Denied, 1);
        second.read = Some(now - Duration::from_secs(600));
        second.expires = Some(now + Duration::from_secs(500));
        metrics.take(&[first.clone(), second], now);
        let paths = |state: &str| metrics.paths.with_label_values(&["vault", state]).get() as u64;
        assert_eq!((paths("ready"), paths("denied"), paths("stale")), (1, 1, 0));
        assert_eq!(metrics.oldest.with_label_values(&["vault"]).get() as u64, 600);
        assert_eq!(metrics.expiry.with_label_values(&["vault"]).get() as u64, 1_000_050);
        let rotations = || metrics.rotations.with_label_values(&["vault"]).get() as u64;
        assert_eq!(rotations(), 3);
        first.rotations = 5;
        (first.lease, first.renewals, first.failed_renewals) = (true, 7, 1);
        metrics.take(&[first.clone()], now);
        metrics.take(&[first], now);
        let renewals = |result: &str| metrics.renewals.with_label_values(&["vault", result]).get() as u64;
        assert_eq!((renewals("ok"), renewals("failed")), (7, 1));
        assert_eq!((rotations(), paths("denied")), (6, 0));
        metrics.take(&[], now);
        metrics.take(&[status("vault/b", SecretState::Ready, 1)], now);
        assert_eq!(rotations(), 7);
        let registry = prometheus::Registry::new();
        registry.register(Box::new(metrics)).unwrap();
        registry.gather();
    }
}

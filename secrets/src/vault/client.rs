//! The logical client of one server: reads of any path, by whatever engine is mounted there, leases, and decryption.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use invar_syntax::Secret;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::answer::{Answer, Tree};
use super::auth::VaultAuth;
use super::body::{Field, object};
use super::denied::Denials;
use super::failure::{VaultFailure, VaultFailureKind};
use super::gate::Gates;
use super::link::{Link, Reply};
use super::login::{CloudAccess, Login, unwrap};
use super::mounts::{Engine, Mount, Mounts, first_segment};
use super::pace::{Pace, World};
use super::place::{Encrypted, Place, check_path, join_namespace};
use super::reading::{Reading, absent, gone, rotates_after};
use super::session::{Session, Verdict};
use super::settings::{KvVersion, ReadMethod, VaultRead};
use super::token::{Token, Under};
use super::transport::{VaultMethod, VaultRequest, VaultTransport};
use crate::memory::StoreMemory;
use crate::snapshot::Lease;
use crate::stores::SecretStores;

/// How long one request may take where the settings do not say.
const TIMEOUT: Duration = Duration::from_secs(30);
/// A password that is replaced within this time is waited for.
const TURNING_OVER: Duration = Duration::from_secs(2);
/// As many times it is looked for, at growing intervals.
const TURN_OVER_LOOKS: u32 = 5;
/// The longest of these intervals.
const TURN_OVER_WAIT: Duration = Duration::from_secs(10);

/// What a client is about.
#[derive(Clone, Debug)]
pub struct ClientSettings {
    /// The namespace of all paths; empty for none.
    pub namespace: String,
    /// How it logs in.
    pub auth: VaultAuth,
    /// How long one request may take.
    pub timeout: Option<Duration>,
    /// The version of the key/value engine where the server does not say.
    pub kv_version: KvVersion,
}

/// What a client is made with.
pub struct ClientParts {
    /// The connection.
    pub transport: Arc<dyn VaultTransport>,
    /// Where credentials are kept that the settings name.
    pub credentials: SecretStores,
    /// The way to the clouds.
    pub cloud: CloudAccess,
    /// How fast things are done.
    pub pace: Pace,
    /// Chance and the time of day.
    pub world: World,
}

/// A client of one server. Asks nothing until it is asked.
pub struct VaultClient {
    link: Arc<Link>,
    session: Session,
    gates: Gates,
    denials: Denials,
    mounts: Mounts,
    kv_version: KvVersion,
    /// Where leases were granted, if not in the namespace of the store.
    leases: Mutex<HashMap<Secret, String>>,
}

/// One question, without the token.
struct Question<'a> {
    request: VaultRequest,
    mount: &'a str,
    /// What is remembered if it is denied.
    place: Option<&'a Place>,
}

impl ClientParts {
    /// With this connection, and otherwise as a host is.
    #[must_use]
    pub fn new(transport: Arc<dyn VaultTransport>) -> Self {
        Self {
            transport,
            credentials: SecretStores::default(),
            cloud: CloudAccess::default(),
            pace: Pace::default(),
            world: World::real(),
        }
    }
}

impl VaultClient {
    /// With these settings. Does no input or output.
    #[must_use]
    pub fn new(settings: ClientSettings, parts: ClientParts) -> Self {
        let ClientParts { transport, credentials, cloud, pace, world } = parts;
        let namespace = join_namespace(&settings.namespace, "");
        let timeout = settings.timeout.unwrap_or(TIMEOUT);
        let link = Arc::new(Link::new(transport, namespace, timeout, pace, world));
        let login = Login::new(settings.auth, credentials, cloud);
        Self {
            session: Session::new(Arc::clone(&link), login),
            link,
            gates: Gates::new(pace),
            denials: Denials::new(pace),
            mounts: Mounts::default(),
            kv_version: settings.kv_version,
            leases: Mutex::default(),
        }
    }

    /// The server as messages name it.
    #[must_use]
    pub fn server(&self) -> String {
        self.link.transport.server()
    }

    /// Reads `<mount>/<path>` or `/<namespace>//<mount>/<path>`; decrypts `<mount>/decrypt/<key>/vault:v1:…`.
    ///
    /// # Errors
    /// [`VaultFailure`].
    pub async fn read(&self, path: &str) -> Result<Reading, VaultFailure> {
        let place = Place::parse(path).map_err(VaultFailure::invalid)?;
        if let Some(encrypted) = place.encrypted() {
            return self.decrypt(&place, &encrypted).await;
        }
        let known = self.mounts.find(&place);
        let fresh = known.is_none();
        let mount = match known {
            Some(mount) => mount,
            None => self.ask_for_mount(&place).await?,
        };
        match self.read_within(&place, &mount).await {
            // It may have been mounted anew, as something else.
            Err(failure) if failure.kind == VaultFailureKind::Missing && !fresh => {
                self.mounts.forget(&place, &mount);
                let again = self.ask_for_mount(&place).await?;
                if again == mount { Err(failure) } else { self.read_within(&place, &again).await }
            }
            read => read,
        }
    }

    /// Reads `key` of the key/value engine mounted at `mount`, whatever else may be mounted below.
    ///
    /// # Errors
    /// [`VaultFailure`].
    pub async fn read_key(&self, mount: &str, key: &str) -> Result<Reading, VaultFailure> {
        let (mount, key) = (mount.trim_matches('/'), key.trim_matches('/'));
        check_path(mount).and_then(|()| check_path(key)).map_err(VaultFailure::invalid)?;
        let place = Place { namespace: String::new(), path: format!("{mount}/{key}") };
        let told = match self.mounts.find(&place) {
            Some(mount) => mount,
            None => self.ask_for_mount(&place).await?,
        };
        let engine = match told.engine {
            Engine::Kv(version) => Engine::Kv(version),
            Engine::Other => Engine::Kv(self.kv_version),
        };
        let mount = Mount { path: format!("{mount}/"), engine, told: told.told };
        self.read_within(&place, &mount).await
    }

    /// Reads what settings name.
    ///
    /// # Errors
    /// [`VaultFailure`].
    pub async fn read_named(&self, name: &str, read: &VaultRead) -> Result<Reading, VaultFailure> {
        let now = self.link.world.now();
        if let Some(wrapped) = &read.wrapped {
            let key = format!("read.{name}.wrapped");
            let wrapping = self.session.login().resolve(wrapped, &key).await?;
            let expected = |path: &str| read.creation_path.as_deref().is_none_or(|expected| expected == path);
            let what = format!("answer `@{name}`");
            let wrapped = self.session.login().wrapped();
            let answer = wrapped.answer(&what, &self.link, &wrapping, &expected).await?;
            return Reading::of_unwrapped(answer, now)?.decoded(&read.base64);
        }
        let Some(path) = read.path.as_deref() else {
            return Err(VaultFailure::invalid(format!("`read.{name}` needs a `path`")));
        };
        check_path(path).map_err(VaultFailure::invalid)?;
        let place =
            Place { namespace: read.namespace.clone().unwrap_or_default(), path: format!("@{name}/{path}") };
        let request = match read.method {
            ReadMethod::Get => {
                let text = |value: &serde_json::Value| match value {
                    serde_json::Value::String(text) => text.clone(),
                    other => other.to_string(),
                };
                let query = read.params.iter().map(|(key, value)| (key.clone(), text(value))).collect();
                VaultRequest { query, ..VaultRequest::get(path) }
            }
            ReadMethod::Post => {
                let fields = read.params.iter().map(|(key, value)| (key.as_str(), Field::Json(value)));
                VaultRequest::post(path, object(fields))
            }
        };
        let (answer, token) = self.answer(&place, first_segment(path), request, path, None).await?;
        self.keep_namespace(&place.namespace, answer.lease.as_ref());
        Reading::of_answer(answer, now)?.granted_under(token.under()).decoded(&read.base64)
    }

    /// Extends a lease; the answer says for how long.
    ///
    /// # Errors
    /// [`VaultFailureKind::Missing`] when the server does not know it any more; others as for a read.
    pub async fn renew(&self, lease: &Lease) -> Result<Lease, VaultFailure> {
        let id = Secret::new(lease.id.as_str());
        let body = object([
            ("lease_id", Field::Secret(&id)),
            ("increment", Field::Seconds(lease.duration.as_secs())),
        ]);
        let reply = self.about_lease(lease, VaultRequest::post("sys/leases/renew", body)).await?;
        if !reply.is_success() {
            return Err(self.lease_refusal(&reply, &id));
        }
        let answer = reply.answer()?;
        answer.lease.ok_or_else(|| VaultFailure::unavailable("the renewal says nothing about the lease"))
    }

    /// Takes up a lease that an earlier process was granted in `namespace`, if it is `same`ly marked as what is granted under
    /// the token of now; what is left of it.
    pub(crate) async fn resume(
        &self,
        namespace: &str,
        lease: &Lease,
        same: &(dyn Fn(&str) -> bool + Sync),
    ) -> Result<(Lease, Under), VaultFailure> {
        let under = self.session.token().await?.under();
        if !same(&under.mark) {
            return Err(VaultFailure::invalid(
                "it was granted under a token that is not in use any more, or as the settings were then",
            ));
        }
        self.keep_namespace(namespace, Some(lease));
        let left = match lease.renewable {
            true => self.renew(lease).await?,
            false => self.look_at(lease).await?,
        };
        if left.duration.is_zero() {
            return Err(VaultFailure::missing("nothing is left of the lease"));
        }
        Ok((left, under))
    }

    /// What is left of a lease.
    async fn look_at(&self, lease: &Lease) -> Result<Lease, VaultFailure> {
        let id = Secret::new(lease.id.as_str());
        let body = object([("lease_id", Field::Secret(&id))]);
        let reply = self.about_lease(lease, VaultRequest::post("sys/leases/lookup", body)).await?;
        if !reply.is_success() {
            return Err(self.lease_refusal(&reply, &id));
        }
        let data = reply.answer()?.data.unwrap_or(Tree::Null);
        let seconds = data.get("ttl").and_then(Tree::as_u64).unwrap_or(0);
        Ok(Lease { duration: Duration::from_secs(seconds), ..lease.clone() })
    }

    fn lease_refusal(&self, reply: &Reply, id: &Secret) -> VaultFailure {
        let lost = ["not found", "expired", "invalid lease"].iter().any(|words| reply.says(words));
        if lost || reply.status() == 404 {
            self.leases.lock().remove(id);
            return VaultFailure::missing(format!("{} does not know the lease any more", self.server()));
        }
        reply.failure(VaultFailureKind::Invalid, &self.server())
    }

    /// Gives a lease back.
    ///
    /// # Errors
    /// [`VaultFailure`].
    pub async fn revoke(&self, lease: &Lease) -> Result<(), VaultFailure> {
        let id = Secret::new(lease.id.as_str());
        let body = object([("lease_id", Field::Secret(&id))]);
        let reply = self.about_lease(lease, VaultRequest::post("sys/leases/revoke", body)).await?;
        self.leases.lock().remove(&id);
        if reply.is_success() || reply.says("not found") {
            return Ok(());
        }
        Err(reply.failure(VaultFailureKind::Invalid, &self.server()))
    }

    /// As whom the server lets us in: one line.
    ///
    /// # Errors
    /// [`VaultFailure`].
    pub async fn check(&self) -> Result<String, VaultFailure> {
        let token = self.session.lookup().await?;
        let text = |name: &str| token.get(name).and_then(Tree::as_text).unwrap_or_default().to_owned();
        let policies = match token.get("policies") {
            Some(Tree::List(policies)) => {
                policies.iter().filter_map(Tree::as_text).collect::<Vec<_>>().join(", ")
            }
            _ => String::new(),
        };
        let ttl = token.get("ttl").and_then(Tree::as_u64).unwrap_or(0);
        let ends =
            if ttl == 0 { "does not end".to_owned() } else { format!("ends in {ttl} s unless renewed") };
        let health = self.link.describe().await.unwrap_or_else(|| "its health is not known".to_owned());
        Ok(format!(
            "{} ({health}): logged in by `{}` as `{}` with the policies {policies}; the token {ends}",
            self.server(),
            self.session.method(),
            text("display_name"),
        ))
    }

    /// Counts the logins, as they happen. What was granted under an earlier token ends with it.
    #[must_use]
    pub fn logins(&self) -> tokio::sync::watch::Receiver<u64> {
        self.session.generations()
    }

    /// Gives a place for the token, where the next process finds it.
    pub(crate) fn remember_by(&self, memory: StoreMemory) {
        self.session.remember_by(memory);
    }

    /// Something was granted under this token that the next process may resume.
    pub(crate) fn keep_for_next(&self, under: &Under) {
        self.session.keep_for_next(under.generation);
    }

    /// Ends the task that keeps the token alive, and waits for it. Nothing can be read afterwards.
    pub async fn shutdown(&self) {
        self.session.shutdown().await;
    }

    /// Gives the token back, and with it everything that was granted under it; not one that the settings name.
    ///
    /// # Errors
    /// [`VaultFailure`].
    pub async fn revoke_token(&self) -> Result<(), VaultFailure> {
        self.session.revoke_token().await
    }

    async fn ask_for_mount(&self, place: &Place) -> Result<Mount, VaultFailure> {
        let request = VaultRequest::get(format!("sys/internal/ui/mounts/{}", place.path));
        let mount = first_segment(&place.path);
        let asked = self.ask(Question { request: self.within(place, request), mount, place: None }).await;
        let told = match asked {
            Ok((reply, _)) if reply.is_success() => reply.answer()?.data.as_ref().and_then(Mount::of_answer),
            Ok(_) => None,
            Err(failure) if failure.kind == VaultFailureKind::Denied => None,
            Err(failure) => return Err(failure),
        };
        let told = told.filter(|mount| place.path.starts_with(&mount.path));
        let mount = told.unwrap_or_else(|| Mount::assumed(&place.path, self.kv_version));
        self.mounts.add(place, &mount);
        Ok(mount)
    }

    async fn read_within(&self, place: &Place, mount: &Mount) -> Result<Reading, VaultFailure> {
        let within = mount.within(&place.path);
        if within.is_empty() {
            return Err(VaultFailure::invalid(format!("`{}` is a mount; name a path within it", place.path)));
        }
        match mount.engine {
            Engine::Kv(KvVersion::Two) => {
                let path = format!("{}data/{within}", mount.path);
                let asked = VaultRequest::get(path.as_str());
                let (answer, _) = self.answer(place, &mount.path, asked, &path, Some(mount)).await?;
                Reading::of_kv2(&answer, &place.path)
            }
            Engine::Kv(KvVersion::One) => {
                let asked = VaultRequest::get(place.path.as_str());
                Reading::of_kv1(self.answer(place, &mount.path, asked, &place.path, Some(mount)).await?.0)
            }
            Engine::Other => self.read_other(place, mount).await,
        }
    }

    async fn read_other(&self, place: &Place, mount: &Mount) -> Result<Reading, VaultFailure> {
        let mut looks = 0;
        loop {
            let now = self.link.world.now();
            let asked = VaultRequest::get(place.path.as_str());
            let (answer, token) = self.answer(place, &mount.path, asked, &place.path, Some(mount)).await?;
            let rotates = answer.data.as_ref().and_then(Tree::as_map).and_then(rotates_after);
            if rotates.is_none_or(|after| after > TURNING_OVER) || looks >= TURN_OVER_LOOKS {
                self.keep_namespace(&place.namespace, answer.lease.as_ref());
                return Ok(Reading::of_answer(answer, now)?.granted_under(token.under()));
            }
            // What is read now would be the old password, and then again.
            tokio::time::sleep(Duration::from_secs(1 << looks).min(TURN_OVER_WAIT)).await;
            looks += 1;
        }
    }

    async fn decrypt(&self, place: &Place, encrypted: &Encrypted<'_>) -> Result<Reading, VaultFailure> {
        let body = object([("ciphertext", Field::Plain(encrypted.ciphertext))]);
        let asked = VaultRequest::post(encrypted.path, body);
        let (answer, _) =
            self.answer(place, first_segment(encrypted.path), asked, encrypted.path, None).await?;
        let mut reading = Reading::of_answer(answer, self.link.world.now())?;
        reading.decode("plaintext")?;
        let plaintext = reading.fields.remove("plaintext").unwrap_or_default();
        Ok(Reading::plain(BTreeMap::from([("value".to_owned(), plaintext)])))
    }

    /// Asks, and makes sense of what is no success.
    async fn answer(
        &self,
        place: &Place,
        mount: &str,
        request: VaultRequest,
        path: &str,
        engine: Option<&Mount>,
    ) -> Result<(Answer, Arc<Token>), VaultFailure> {
        let write = request.method == VaultMethod::Post;
        let (reply, token) =
            self.ask(Question { request: self.within(place, request), mount, place: Some(place) }).await?;
        if !reply.is_success() {
            return Err(self.refusal(&reply, path, write, engine));
        }
        let answer = reply.answer()?;
        if !answer.warnings.is_empty() {
            tracing::debug!(path, warnings = answer.warnings.join("; "), "the secret store warns");
        }
        let Some(wrapping) = answer.wrapping else { return Ok((answer, token)) };
        Ok((unwrap(&self.link, &wrapping.token, &|made_by| made_by == path).await?, token))
    }

    fn refusal(&self, reply: &Reply, path: &str, write: bool, mount: Option<&Mount>) -> VaultFailure {
        let server = self.server();
        match reply.status() {
            404 => {
                let gone = reply.answer().ok().and_then(|answer| gone(answer.data.as_ref()?, path));
                gone.unwrap_or_else(|| absent(reply, path, mount))
            }
            405 if !write => VaultFailure::invalid(format!(
                "`{path}` takes no reads: name it under `read` in the settings of the store, with the method POST"
            )),
            _ if !write && reply.says("unsupported operation") => VaultFailure::invalid(format!(
                "`{path}` takes no reads: name it under `read` in the settings of the store, with the method POST"
            )),
            _ => reply.failure(VaultFailureKind::Invalid, &format!("`{path}`: {server}")),
        }
    }

    async fn about_lease(&self, lease: &Lease, mut request: VaultRequest) -> Result<Reply, VaultFailure> {
        let known = self.leases.lock().get(&Secret::new(lease.id.as_str())).cloned();
        request.namespace = known.unwrap_or_else(|| self.link.namespace.clone());
        self.ask(Question { request, mount: first_segment(&lease.id), place: None })
            .await
            .map(|(reply, _)| reply)
    }

    /// Asks with the token of the session. An answer of 403 is about the path or about the token: which, the token's own
    /// lookup says.
    async fn ask(&self, question: Question<'_>) -> Result<(Reply, Arc<Token>), VaultFailure> {
        let (reply, token, began) = self.ask_once(&question).await?;
        if reply.status() != 403 {
            return Ok((reply, token));
        }
        match self.session.examine(&token, began).await? {
            Verdict::Alive if question.place.is_none() || !self.session.outgrow(&token).await => {
                Err(self.denied(&question, &token, &reply))
            }
            Verdict::Alive | Verdict::Replaced => {
                let (reply, token, _) = self.ask_once(&question).await?;
                if reply.status() != 403 {
                    return Ok((reply, token));
                }
                self.session.examine_fresh(&token).await?;
                Err(self.denied(&question, &token, &reply))
            }
        }
    }

    async fn ask_once(&self, question: &Question<'_>) -> Result<(Reply, Arc<Token>, Instant), VaultFailure> {
        self.link.in_service().await?;
        let token = self.session.token().await?;
        if let Some(place) = question.place {
            self.denials.check(place, token.generation)?;
        }
        let mut request = question.request.clone();
        let gate = self.gates.of(&request.namespace, question.mount.trim_end_matches('/'));
        let permit = gate.enter().await?;
        let began = Instant::now();
        request.token = Some(token.secret.clone());
        let reply = self.link.exchange(request).await;
        drop(permit);
        let reply = reply.inspect_err(|failure| {
            if failure.limited {
                gate.close_for(failure.retry_after.unwrap_or_default());
            }
        })?;
        if let (Some(place), true) = (question.place, reply.status() != 403) {
            self.denials.forget(place);
        }
        Ok((reply, token, began))
    }

    fn denied(&self, question: &Question<'_>, token: &Token, reply: &Reply) -> VaultFailure {
        let needed = match question.request.method {
            VaultMethod::Get => "read",
            VaultMethod::Post => "update",
        };
        let failure = VaultFailure::denied(format!(
            "{}: no policy of the token grants `{needed}` on `{}`{}",
            self.server(),
            question.request.path,
            reply.words(": "),
        ));
        if let Some(place) = question.place {
            self.denials.add(place, token.generation, &failure);
        }
        failure
    }

    fn within(&self, place: &Place, mut request: VaultRequest) -> VaultRequest {
        request.namespace = join_namespace(&self.link.namespace, &place.namespace);
        request
    }

    fn keep_namespace(&self, namespace: &str, lease: Option<&Lease>) {
        if let Some(lease) = lease
            && !namespace.is_empty()
        {
            let namespace = join_namespace(&self.link.namespace, namespace);
            self.leases.lock().insert(Secret::new(lease.id.as_str()), namespace);
        }
    }
}

//! Who the agent is towards an SSH server: a private key of the settings, or the keys of the agent at `SSH_AUTH_SOCK`.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use invar_secrets::{Secret, SecretStores};
use parking_lot::Mutex;
use russh::MethodSet;
use russh::client::{AuthResult, Handle, Handler};
use russh::keys::{self, Algorithm, HashAlg, PrivateKey, PrivateKeyWithHashAlg};
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;

use super::host_keys::shown;
use crate::connection::secret_failure;
use crate::error::{ErrorClass, Failure};
use crate::settings::SshSettings;

/// How many keys of an agent are tried: servers close the connection after about six.
const TRY_LIMIT: usize = 5;
/// How long after a rotation a refused key counts as not yet known to every server (D17).
const ROTATION_GRACE: Duration = Duration::from_secs(60);

/// The identity that the settings name.
pub(super) struct Identity {
    settings: SshSettings,
    secrets: SecretStores,
    held: Mutex<Held>,
}

/// The key as it was decoded last: decoding an encrypted one is slow on purpose.
#[derive(Default)]
struct Held {
    fingerprint: Option<[u8; 32]>,
    key: Option<Arc<PrivateKey>>,
    rotated: Option<Instant>,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.settings.key.is_some() { "Identity(key)" } else { "Identity(agent)" })
    }
}

/// Ready to sign.
pub(super) enum Signer {
    Key(Arc<PrivateKey>),
    #[cfg(unix)]
    Agent(Box<keys::agent::client::AgentClient<tokio::net::UnixStream>>),
}

impl Identity {
    pub(super) fn new(settings: SshSettings, secrets: SecretStores) -> Result<Self, Failure> {
        if settings.key.is_some() && settings.agent {
            return Err(Failure::stalled("`auth.ssh` says `key` and `agent`; it is exactly one"));
        }
        if settings.key.is_none() && settings.passphrase.is_some() {
            return Err(Failure::stalled("`auth.ssh.passphrase` goes with `auth.ssh.key`"));
        }
        Ok(Self { settings, secrets, held: Mutex::default() })
    }

    /// Reads the key, or connects to the agent.
    pub(super) async fn signer(&self) -> Result<Signer, Failure> {
        match &self.settings.key {
            Some(key) => {
                let text = key.resolve(&self.secrets).await.map_err(|error| secret_failure(&error))?;
                let passphrase = match &self.settings.passphrase {
                    Some(passphrase) => Some(
                        passphrase.resolve(&self.secrets).await.map_err(|error| secret_failure(&error))?,
                    ),
                    None => None,
                };
                self.decode(text, passphrase).await.map(Signer::Key)
            }
            None => connect_to_agent().await,
        }
    }

    async fn decode(&self, text: Secret, passphrase: Option<Secret>) -> Result<Arc<PrivateKey>, Failure> {
        let mut digest = Sha256::new_with_prefix(text.expose());
        if let Some(passphrase) = &passphrase {
            digest.update([0]);
            digest.update(passphrase.expose());
        }
        let fingerprint: [u8; 32] = digest.finalize().into();
        {
            let held = self.held.lock();
            if let (Some(key), true) = (&held.key, held.fingerprint == Some(fingerprint)) {
                return Ok(Arc::clone(key));
            }
        }
        let has_passphrase = passphrase.is_some();
        let decoded = tokio::task::spawn_blocking(move || {
            keys::decode_secret_key(text.expose(), passphrase.as_ref().map(Secret::expose))
        });
        let decoded = decoded.await.map_err(|_| Failure::transient("reading the key was interrupted"))?;
        // What the library says could quote the key.
        let key = decoded.map_err(|error| match error {
            keys::Error::KeyIsEncrypted => {
                refused("the key of `auth.ssh` is encrypted").with_help("name its `passphrase` beside it")
            }
            _ if has_passphrase => refused(
                "the key of `auth.ssh` cannot be read: the passphrase is wrong, or it is no private key",
            ),
            _ => refused("the key of `auth.ssh` cannot be read: it is no private key in OpenSSH or PEM form")
                .with_help("if it is encrypted, name its `passphrase` beside it"),
        })?;
        let key = Arc::new(key);
        let mut held = self.held.lock();
        if held.fingerprint.is_some_and(|before| before != fingerprint) {
            held.rotated = Some(Instant::now());
        }
        held.fingerprint = Some(fingerprint);
        held.key = Some(Arc::clone(&key));
        Ok(key)
    }

    /// Shows the server who this is. `place` is the address.
    pub(super) async fn authenticate<H: Handler>(
        &self,
        handle: &mut Handle<H>,
        user: &str,
        signer: Signer,
        place: &str,
    ) -> Result<(), Failure> {
        let broken = |error: &dyn fmt::Display| {
            Failure::transient(format!("{place} broke the connection off while it was shown a key: {error}"))
        };
        let mut tried = Vec::new();
        let mut other_ways = None;
        let mut note = |result: AuthResult| match result {
            AuthResult::Success => true,
            AuthResult::Failure { remaining_methods, partial_success } => {
                if partial_success {
                    other_ways = Some(remaining_methods);
                }
                false
            }
        };
        match signer {
            Signer::Key(key) => {
                tried.push(shown(key.public_key()));
                for hash in hashes(handle, &key.algorithm(), place).await? {
                    let signing = PrivateKeyWithHashAlg::new(Arc::clone(&key), hash);
                    let result = handle.authenticate_publickey(user, signing).await;
                    if note(result.map_err(|error| broken(&error))?) {
                        return Ok(());
                    }
                }
            }
            #[cfg(unix)]
            Signer::Agent(mut agent) => {
                let failed = |error: &dyn fmt::Display| {
                    Failure::transient(format!(
                        "the agent at SSH_AUTH_SOCK does not answer properly: {error}"
                    ))
                };
                let identities = agent.request_identities().await.map_err(|error| failed(&error))?;
                if identities.is_empty() {
                    return Err(
                        refused("the agent at SSH_AUTH_SOCK holds no key").with_help("see ssh-add(1)")
                    );
                }
                for identity in identities.into_iter().take(TRY_LIMIT) {
                    let key = identity.public_key().into_owned();
                    tried.push(shown(&key));
                    // The first that the server takes; another hash is not worth one of the few attempts.
                    let hash = hashes(handle, &key.algorithm(), place).await?.into_iter().next().flatten();
                    let result = match identity {
                        keys::agent::AgentIdentity::PublicKey { key, .. } => {
                            handle.authenticate_publickey_with(user, key, hash, agent.as_mut()).await
                        }
                        keys::agent::AgentIdentity::Certificate { certificate, .. } => {
                            handle
                                .authenticate_certificate_with(user, certificate, hash, agent.as_mut())
                                .await
                        }
                    };
                    if note(result.map_err(|error| failed(&error))?) {
                        return Ok(());
                    }
                    if handle.is_closed() {
                        return Err(broken(&"too many keys were tried"));
                    }
                }
            }
        }
        Err(self.not_accepted(user, place, &tried, other_ways.as_ref()))
    }

    fn not_accepted(
        &self,
        user: &str,
        place: &str,
        tried: &[String],
        other_ways: Option<&MethodSet>,
    ) -> Failure {
        if other_ways.is_some() {
            let message = format!("{place} wants more than a key, which the agent cannot give");
            return Failure::new(ErrorClass::Forbidden, message);
        }
        let message = format!("{place} does not accept the key for `{user}`: {}", tried.join(", "));
        let shown = [&self.settings.key, &self.settings.passphrase].into_iter().flatten();
        shown.for_each(|credential| credential.refused(&self.secrets));
        if self.held.lock().rotated.is_some_and(|at| at.elapsed() < ROTATION_GRACE) {
            return Failure::transient(format!("{message}; it changed less than a minute ago"));
        }
        refused(&message)
            .with_help("the public key has to be known to the server, as a deploy key for example")
    }
}

/// The hashes to sign with, the best first; only keys of RSA leave a choice.
async fn hashes<H: Handler>(
    handle: &Handle<H>,
    algorithm: &Algorithm,
    place: &str,
) -> Result<Vec<Option<HashAlg>>, Failure> {
    if !matches!(algorithm, Algorithm::Rsa { .. }) {
        return Ok(vec![None]);
    }
    match handle.best_supported_rsa_hash().await {
        Ok(Some(Some(hash))) => Ok(vec![Some(hash)]),
        Ok(Some(None)) => {
            Err(Failure::new(ErrorClass::Forbidden, format!("{place} takes keys of RSA with SHA-1 only"))
                .with_help("use a key of another kind: ssh-keygen -t ed25519"))
        }
        Ok(None) => Ok(vec![Some(HashAlg::Sha512), Some(HashAlg::Sha256)]),
        Err(error) => Err(Failure::transient(format!("{place} broke the connection off: {error}"))),
    }
}

#[cfg(unix)]
async fn connect_to_agent() -> Result<Signer, Failure> {
    let Some(socket) = std::env::var_os("SSH_AUTH_SOCK").filter(|socket| !socket.is_empty()) else {
        return Err(refused("there is no SSH agent: SSH_AUTH_SOCK is not set")
            .with_help("name a key: auth = { ssh = { key = { file = \"…\" } } }"));
    };
    match keys::agent::client::AgentClient::connect_uds(&socket).await {
        Ok(agent) => Ok(Signer::Agent(Box::new(agent))),
        Err(error) => {
            Err(Failure::transient(format!("the agent at SSH_AUTH_SOCK cannot be reached: {error}")))
        }
    }
}

#[cfg(not(unix))]
#[allow(clippy::unused_async)]
async fn connect_to_agent() -> Result<Signer, Failure> {
    Err(Failure::stalled("agents for SSH keys are not supported on this system")
        .with_help("name a key: auth = { ssh = { key = { file = \"…\" } } }"))
}

fn refused(message: &str) -> Failure {
    Failure::new(ErrorClass::AuthExpired, message)
}

//! How the agent proves who it is: one proof for each method, made anew for every login from files and endpoints as they
//! are then.

mod cloud;
mod wrapped;

use std::collections::BTreeMap;

use invar_syntax::Secret;
use ring::digest::{Context, SHA256};
use zeroize::Zeroizing;

use self::wrapped::Wrapped;
pub(crate) use self::wrapped::unwrap;
use super::auth::{AppRoleAuth, CustomAuth, JwtAuth, PasswordAuth, VaultAuth};
use super::body::{Field, object};
use super::failure::VaultFailure;
use super::http::trimmed;
use super::link::Link;
use super::token::hex;
use crate::credential::Credential;
use crate::stores::SecretStores;

pub use self::cloud::CloudAccess;

/// What a login consists of.
pub(crate) enum Proof {
    /// A token that is there already.
    Token(Secret),
    /// Something to write, for which the server grants a token.
    Write {
        /// Where to.
        path: String,
        /// In which namespace, if not the store's.
        namespace: Option<String>,
        /// What.
        body: Zeroizing<Vec<u8>>,
    },
}

/// Makes proofs.
pub(crate) struct Login {
    auth: VaultAuth,
    credentials: SecretStores,
    cloud: CloudAccess,
    wrapped: Wrapped,
    /// What an instance of AWS says at every login of this process.
    nonce: Secret,
}

impl Login {
    pub(crate) fn new(auth: VaultAuth, credentials: SecretStores, cloud: CloudAccess) -> Self {
        let nonce = Secret::new(format!("{:032x}", rand::random::<u128>()));
        Self { auth, credentials, cloud, wrapped: Wrapped::default(), nonce }
    }

    /// The method, as messages name it.
    pub(crate) fn method(&self) -> &'static str {
        match &self.auth {
            VaultAuth::Token(_) => "token",
            VaultAuth::WrappedToken(_) => "wrapped_token",
            VaultAuth::Approle(_) => "approle",
            VaultAuth::Kubernetes(_) => "kubernetes",
            VaultAuth::Jwt(_) => "jwt",
            VaultAuth::Aws(_) => "aws",
            VaultAuth::Gcp(_) => "gcp",
            VaultAuth::Azure(_) => "azure",
            VaultAuth::Cert(_) => "cert",
            VaultAuth::Userpass(_) => "userpass",
            VaultAuth::Ldap(_) => "ldap",
            VaultAuth::Custom(_) => "custom",
        }
    }

    /// The token that stands where tokens are kept, if that is the method and its place can change.
    pub(crate) async fn kept_token(&self) -> Option<Secret> {
        match &self.auth {
            VaultAuth::Token(credential @ (Credential::File(_) | Credential::Secret(_))) => {
                self.resolve(credential, "auth.token").await.ok()
            }
            _ => None,
        }
    }

    /// Tells this login from others, so that a token is used at the next start only where it is the same one that would be
    /// had. `None` where no token is kept: one that somebody gave, and one that comes of something wrapped, since that is good
    /// for one use and may not be there any more when it is needed.
    ///
    /// # Errors
    /// When the role cannot be had.
    pub(crate) async fn identity(&self) -> Result<Option<String>, VaultFailure> {
        let mut role = None;
        match &self.auth {
            VaultAuth::Token(_) | VaultAuth::WrappedToken(_) => return Ok(None),
            VaultAuth::Approle(auth) if auth.wrapped => return Ok(None),
            // Another one in the same file is another role.
            VaultAuth::Approle(auth) => {
                role = Some(self.resolve(&auth.role_id, "auth.approle.role_id").await?)
            }
            _ => {}
        }
        let mut context = Context::new(&SHA256);
        let mut part = |text: &str| {
            context.update(&u64::try_from(text.len()).unwrap_or(u64::MAX).to_be_bytes());
            context.update(text.as_bytes());
        };
        // Another version of the agent may write it otherwise, and then logs in once more than is needed.
        part(&format!("{:?}", self.auth));
        for (_, credential) in self.auth.credentials() {
            if let Credential::Text(text) = credential {
                part(text.expose());
            }
        }
        part(role.as_ref().map(Secret::expose).unwrap_or_default());
        Ok(Some(hex(context.finish().as_ref())))
    }

    /// Makes a proof.
    ///
    /// # Errors
    /// When what it is made of cannot be had.
    pub(crate) async fn proof(&self, link: &Link) -> Result<Proof, VaultFailure> {
        match &self.auth {
            VaultAuth::Token(token) => Ok(Proof::Token(self.resolve(token, "auth.token").await?)),
            VaultAuth::WrappedToken(auth) => {
                let wrapping = self.resolve(&auth.token, "auth.wrapped_token").await?;
                let expected = auth.creation_path.as_deref();
                Ok(Proof::Token(self.wrapped.token(link, &wrapping, expected).await?))
            }
            VaultAuth::Approle(auth) => self.approle(auth, link).await,
            VaultAuth::Kubernetes(auth) => {
                let token = self.resolve(&auth.token(), "auth.kubernetes.token").await?;
                let fields = [("role", Field::Plain(auth.role.as_str())), ("jwt", Field::Secret(&token))];
                Ok(write(mounted(auth.mount.as_deref(), "kubernetes", "login"), object(fields)))
            }
            VaultAuth::Jwt(auth) => self.jwt(auth).await,
            VaultAuth::Aws(auth) => {
                let nonce = match &auth.nonce {
                    Some(nonce) => self.resolve(nonce, "auth.aws.nonce").await?,
                    None => self.nonce.clone(),
                };
                let body = self.cloud.aws(auth, &nonce).await?;
                Ok(write(mounted(auth.mount.as_deref(), "aws", "login"), body))
            }
            VaultAuth::Gcp(auth) => {
                let token = self.cloud.google(auth).await?;
                let fields = [("role", Field::Plain(auth.role.as_str())), ("jwt", Field::Secret(&token))];
                Ok(write(mounted(auth.mount.as_deref(), "gcp", "login"), object(fields)))
            }
            VaultAuth::Azure(auth) => {
                let body = self.cloud.azure(auth).await?;
                Ok(write(mounted(auth.mount.as_deref(), "azure", "login"), body))
            }
            VaultAuth::Cert(auth) => {
                let fields = auth.name.iter().map(|name| ("name", Field::Plain(name.as_str())));
                Ok(write(mounted(auth.mount.as_deref(), "cert", "login"), object(fields)))
            }
            VaultAuth::Userpass(auth) => self.password(auth, "userpass").await,
            VaultAuth::Ldap(auth) => self.password(auth, "ldap").await,
            VaultAuth::Custom(auth) => self.custom(auth).await,
        }
    }

    async fn approle(&self, auth: &AppRoleAuth, link: &Link) -> Result<Proof, VaultFailure> {
        let mount = auth.mount.as_deref();
        let role_id = self.resolve(&auth.role_id, "auth.approle.role_id").await?;
        let mut secret_id = match &auth.secret_id {
            Some(credential) => Some(self.resolve(credential, "auth.approle.secret_id").await?),
            None => None,
        };
        if auth.wrapped
            && let Some(wrapping) = &secret_id
        {
            // Only the method itself makes secret ids.
            let mount = mounted(mount, "approle", "role/");
            secret_id = Some(self.wrapped.secret_id(link, wrapping, &mount).await?);
        }
        let fields = [("role_id", Field::Secret(&role_id))];
        let fields = fields.into_iter().chain(secret_id.iter().map(|id| ("secret_id", Field::Secret(id))));
        Ok(write(mounted(mount, "approle", "login"), object(fields)))
    }

    async fn jwt(&self, auth: &JwtAuth) -> Result<Proof, VaultFailure> {
        let token = self.resolve(&auth.token, "auth.jwt.token").await?;
        let role = auth.role.iter().map(|role| ("role", Field::Plain(role.as_str())));
        let body = object(role.chain([("jwt", Field::Secret(&token))]));
        Ok(write(mounted(auth.mount.as_deref(), "jwt", "login"), body))
    }

    async fn password(&self, auth: &PasswordAuth, method: &str) -> Result<Proof, VaultFailure> {
        let password = self.resolve(&auth.password, &format!("auth.{method}.password")).await?;
        let last = format!("login/{}", auth.username);
        super::place::check_path(&last).map_err(|_| {
            VaultFailure::invalid(format!("`auth.{method}.username` cannot be a user's name"))
        })?;
        let body = object([("password", Field::Secret(&password))]);
        Ok(write(mounted(auth.mount.as_deref(), method, &last), body))
    }

    async fn custom(&self, auth: &CustomAuth) -> Result<Proof, VaultFailure> {
        let mut fields = BTreeMap::new();
        for (name, credential) in &auth.data {
            let value = self.resolve(credential, &format!("auth.custom.data.{name}")).await?;
            fields.insert(name.as_str(), value);
        }
        let body = object(fields.iter().map(|(name, value)| (*name, Field::Secret(value))));
        let path = auth.path.trim_matches('/').to_owned();
        Ok(Proof::Write { path, namespace: auth.namespace.clone(), body })
    }

    /// Reads a credential, without white space around it.
    pub(crate) async fn resolve(&self, credential: &Credential, key: &str) -> Result<Secret, VaultFailure> {
        let value = credential.resolve(&self.credentials).await;
        let value = value.map_err(|error| VaultFailure::from(error).prefixed(&format!("`{key}`")))?;
        trimmed(&value).ok_or_else(|| {
            VaultFailure::invalid(format!(
                "`{key}` ({}) is empty or longer than 64 KiB",
                credential.location()
            ))
        })
    }

    /// The server does not accept what was shown: whoever keeps that reads it again.
    pub(crate) fn refused(&self) {
        for (_, credential) in self.auth.credentials() {
            credential.refused(&self.credentials);
        }
    }

    pub(crate) fn wrapped(&self) -> &Wrapped {
        &self.wrapped
    }
}

fn write(path: String, body: Zeroizing<Vec<u8>>) -> Proof {
    Proof::Write { path, namespace: None, body }
}

fn mounted(mount: Option<&str>, method: &str, last: &str) -> String {
    format!("auth/{}/{last}", mount.unwrap_or(method).trim_matches('/'))
}

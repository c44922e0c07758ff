//! What the kinds of sources want of a connection beside an address and credentials.

use http::HeaderValue;
use invar_secrets::{Secret, SecretStores};
use reqwest::{Client, ClientBuilder};

use super::oauth2::TokenSource;
use super::peers::GuardedResolver;
use super::{basic, secret_failure, unfit};
use crate::error::Failure;
use crate::settings::AuthSettings;

/// How a connection is used.
pub(crate) enum Style {
    /// For Git: a token is the password of a user, answers are decompressed on the way.
    Git,
    /// For documents: a token is a bearer token, answers come as they are sent.
    Documents {
        /// Whether any address may be reached.
        any_peer: bool,
        /// Where tokens come from, if from elsewhere.
        tokens: Option<Box<TokenSource>>,
    },
    /// For registries, which say with each answer where to get a token: nothing is sent without being asked.
    Registry,
}

impl Style {
    /// For documents, by the settings.
    pub(crate) fn documents(auth: Option<&AuthSettings>, any_peer: bool) -> Result<Self, Failure> {
        let oauth2 = auth.and_then(|auth| auth.oauth2.as_ref());
        let tokens = oauth2.map(TokenSource::new).transpose()?.map(Box::new);
        Ok(Self::Documents { any_peer, tokens })
    }

    /// Whether link-local addresses are out of bounds.
    pub(super) fn guards_peers(&self) -> bool {
        match self {
            Self::Git => false,
            Self::Documents { any_peer, .. } => !any_peer,
            Self::Registry => true,
        }
    }

    /// Sets the client up.
    pub(super) fn apply(&self, builder: ClientBuilder) -> ClientBuilder {
        let builder = match self {
            Self::Git => builder,
            // Only who decompresses can say how far the content was blown up.
            Self::Documents { .. } | Self::Registry => builder.no_gzip(),
        };
        if self.guards_peers() { builder.dns_resolver(GuardedResolver) } else { builder }
    }

    /// The value of the `Authorization` header for `auth`; `None` where this style has no say, or nothing is sent.
    pub(super) async fn authorization(
        &self,
        auth: &AuthSettings,
        client: &Client,
        secrets: &SecretStores,
    ) -> Result<Option<Secret>, Failure> {
        let Self::Documents { tokens, .. } = self else { return Ok(None) };
        let bearer = |token: &Secret| Secret::new(format!("Bearer {}", token.expose()));
        if let Some(tokens) = tokens {
            return Ok(Some(bearer(&tokens.token(client, secrets).await?)));
        }
        let resolve = async |credential: &invar_secrets::Credential| {
            credential.resolve(secrets).await.map_err(|error| secret_failure(&error))
        };
        Ok(match (&auth.token, &auth.basic, &auth.authorization) {
            // With a user name beside it, it is a password after all.
            (Some(token), ..) => match &auth.username {
                Some(username) => Some(basic(username, &resolve(token).await?)),
                None => Some(bearer(&resolve(token).await?)),
            },
            (None, Some(pair), _) => Some(basic(&pair.username, &resolve(&pair.password).await?)),
            (None, None, Some(other)) => {
                let credentials = resolve(&other.credentials).await?;
                Some(Secret::new(format!("{} {}", other.scheme, credentials.expose())))
            }
            (None, None, None) => None,
        })
    }

    /// Whether tokens are fetched for this connection.
    pub(super) fn fetches_tokens(&self) -> bool {
        matches!(self, Self::Documents { tokens: Some(_), .. })
    }

    /// The token that was fetched last for this connection.
    pub(super) fn held(&self) -> Option<Secret> {
        match self {
            Self::Documents { tokens: Some(tokens), .. } => tokens.held(),
            _ => None,
        }
    }

    /// Forgets a token that was refused; whether asking again may help.
    pub(super) fn forget_token(&self) -> bool {
        matches!(self, Self::Documents { tokens: Some(tokens), .. } if tokens.forget())
    }
}

/// The value as a header.
pub(super) fn header_value(text: &Secret) -> Result<HeaderValue, Failure> {
    let mut value = HeaderValue::from_str(text.expose()).map_err(|_| unfit("the credential"))?;
    value.set_sensitive(true);
    Ok(value)
}

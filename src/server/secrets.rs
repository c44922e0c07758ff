//! `/api/v1/secrets`: what is in use of the secret stores, without values; one by its reference; a trial of a reference or
//! a store; and reading one again now. A reference stands in the path with its slashes escaped.

use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use invar_engine::{LackingSecret, SecretUse};
use invar_rollout::secret_state_of;
use invar_secrets::{
    ChangeClass, SecretError, SecretReference, SecretStatus, SecretStores, SecretTrial, SecretUser,
};

use super::{Face, Refusal, Rooms};

/// How long a trial, or reading again, may take.
const PATIENCE: Duration = Duration::from_secs(60);

type Answer<T> = Result<Json<T>, Refusal>;

pub(super) async fn list(State(face): State<Face>) -> Answer<Vec<SecretStatus>> {
    Ok(Json(held(face.rooms()?)))
}

pub(super) async fn one(State(face): State<Face>, Path(name): Path<String>) -> Answer<SecretStatus> {
    find(&held(face.rooms()?), &name).map(|found| Json(found.clone()))
}

/// What is in use or wanted, with who uses it.
fn held(rooms: &Rooms) -> Vec<SecretStatus> {
    let mut held = rooms.secrets.status();
    for lacking in rooms.engine().lacking_secrets() {
        add_lacking(&mut held, &rooms.secrets, lacking);
    }
    for (reference, user) in &*rooms.secret_users {
        let path = format!("{}/{}", reference.store, reference.path);
        if let Some(status) = held.iter_mut().find(|status| status.reference == path)
            && !status.users.contains(user)
        {
            status.users.push(user.clone());
        }
    }
    for user in rooms.pipeline.engine().secret_users() {
        let path = user.reference.rsplit_once('#').map_or(user.reference.as_str(), |(path, _)| path);
        let Some(status) = held.iter_mut().find(|status| status.reference == path) else { continue };
        let class = match user.on_change {
            SecretUse::PerUse => ChangeClass::PerUse,
            SecretUse::TlsReload => ChangeClass::TlsReload,
            SecretUse::Rebuild => ChangeClass::Rebuild,
        };
        let user = SecretUser { component: user.component, class };
        if !status.users.contains(&user) {
            status.users.push(user);
        }
    }
    held
}

/// What components wait for. Of a path that is held for others, the component itself says what it lacks.
fn add_lacking(held: &mut Vec<SecretStatus>, stores: &SecretStores, lacking: LackingSecret) {
    let Ok(reference) = lacking.reference.parse::<SecretReference>() else { return };
    let Some(store) = stores.store(&reference.store) else { return };
    let (failure, name) = (lacking.failure, format!("{}/{}", reference.store, reference.path));
    let at = match held.iter().position(|status| status.reference == name) {
        // Another field of it.
        Some(at) if held[at].version.is_none() => at,
        Some(_) => return,
        None => {
            let state = secret_state_of(failure.lack);
            let status = SecretStatus::lacking(&reference, store.kind(), state, failure.message);
            held.push(SecretStatus { fix: failure.help, ..status });
            held.len() - 1
        }
    };
    for component in lacking.components {
        // It is prepared when the secret is there.
        let user = SecretUser { component, class: ChangeClass::Rebuild };
        if !held[at].users.contains(&user) {
            held[at].users.push(user);
        }
    }
}

/// Reads it again now; the answer says how it does then.
pub(super) async fn rotate(State(face): State<Face>, Path(name): Path<String>) -> Answer<SecretStatus> {
    let rooms = face.rooms()?;
    let stores = &rooms.secrets;
    let (store, path) = {
        let held = held(rooms);
        let found = find(&held, &name)?;
        (found.store.clone(), found.path.clone())
    };
    tracing::info!(secret = %name, "asked to read a secret again");
    in_time(stores.rotate_now(&store, &path)).await?.map_err(|error| refusal_of(&error))?;
    find(&held(rooms), &format!("{store}/{path}")).map(|found| Json(found.clone()))
}

/// Reads a reference, or asks a store, and says what came of it. What is in use stays as it is.
pub(super) async fn test(State(face): State<Face>, Path(name): Path<String>) -> Answer<SecretTrial> {
    let stores = &face.rooms()?.secrets;
    let (store, path) = subject(stores, &name)?;
    if stores.store(&store).is_none() {
        let known: Vec<&str> = stores.stores().map(|(name, _)| name).collect();
        let message = format!("there is no secret store `{store}`; there are: {}", known.join(", "));
        return Err(Refusal::missing(message));
    }
    let trial = in_time(stores.try_out(&store, path.as_deref())).await?;
    trial.map(Json).map_err(|error| refusal_of(&error))
}

async fn in_time<T>(work: impl Future<Output = T>) -> Result<T, Refusal> {
    tokio::time::timeout(PATIENCE, work).await.map_err(|_| {
        let message = format!("the secret store did not answer within {} s", PATIENCE.as_secs());
        Refusal::new(StatusCode::GATEWAY_TIMEOUT, "timed_out", message)
    })
}

/// What a name in the path stands for: a store, a reference, or the path of one that is in use.
fn subject(stores: &SecretStores, name: &str) -> Result<(String, Option<String>), Refusal> {
    if stores.store(name).is_some() {
        return Ok((name.to_owned(), None));
    }
    let held = stores.status();
    if let Ok(found) = find(&held, name) {
        return Ok((found.store.clone(), Some(found.path.clone())));
    }
    let reference: SecretReference = name.parse().map_err(|error| {
        Refusal::missing(format!(
            "there is neither a store nor a secret in use of the name `{name}`: {error}"
        ))
    })?;
    Ok((reference.store, Some(reference.path)))
}

/// The one in use by its reference, or by its path where that is clear.
fn find<'a>(held: &'a [SecretStatus], name: &str) -> Result<&'a SecretStatus, Refusal> {
    // What people copy from a configuration ends with a field.
    let whole = name.rsplit_once('#').map_or(name, |(whole, _)| whole);
    if let Some(found) = held.iter().find(|status| status.reference == whole) {
        return Ok(found);
    }
    let by_path: Vec<&SecretStatus> = held.iter().filter(|status| status.path == whole).collect();
    match by_path.as_slice() {
        [only] => Ok(only),
        [] => {
            let nearest = invar_syntax::nearest(whole, held.iter().map(|status| status.reference.as_str()));
            let hint = nearest.map(|nearest| format!("; did you mean `{nearest}`?")).unwrap_or_default();
            Err(Refusal::missing(format!("no secret `{whole}` is in use{hint}")))
        }
        several => {
            let names: Vec<&str> = several.iter().map(|status| status.reference.as_str()).collect();
            Err(Refusal::missing(format!("`{whole}` is in several stores: {}", names.join(", "))))
        }
    }
}

fn refusal_of(error: &SecretError) -> Refusal {
    let (status, kind) = match error {
        SecretError::Missing { .. } | SecretError::UnknownStore { .. } => {
            (StatusCode::NOT_FOUND, "not_found")
        }
        SecretError::Denied { .. } | SecretError::Compromised { .. } => (StatusCode::CONFLICT, "denied"),
        SecretError::Unavailable { .. } => (StatusCode::BAD_GATEWAY, "unavailable"),
        SecretError::Invalid { .. } => (StatusCode::CONFLICT, "invalid"),
    };
    Refusal::new(status, kind, error.to_string())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use axum::response::IntoResponse as _;
    use invar_engine::{SecretFailure, SecretLack};

    use invar_secrets::SecretState;

    use super::*;

    fn held() -> Vec<SecretStatus> {
        let of = |reference: &str| {
            let (store, path) = reference.split_once('/').unwrap();
            let value = serde_json::json!({
                "reference": reference, "store": store, "path": path, "kind": "vault", "state": "ready",
            });
            serde_json::from_value::<SecretStatus>(value).unwrap()
        };
        ["vault/kv/es", "vault/kv/both", "bao/kv/both"].map(of).to_vec()
    }

    #[test]
    fn names_are_references_or_clear_paths() {
        let held = held();
        let found = |name: &str| find(&held, name).ok().map(|status| status.reference.as_str());
        assert_eq!(found("vault/kv/es"), Some("vault/kv/es"));
        assert_eq!(found("vault/kv/es#password"), Some("vault/kv/es"));
        assert_eq!(found("kv/es"), Some("vault/kv/es"));
        assert_eq!(found("kv/both"), None);
        assert_eq!(found("bao/kv/both"), Some("bao/kv/both"));
        assert_eq!(found("vault/kv/ex"), None);
    }

    #[tokio::test]
    async fn a_trial_is_of_a_store_or_of_any_reference() {
        let stores = SecretStores::local();
        assert_eq!(subject(&stores, "env").ok().unwrap(), ("env".to_owned(), None));
        let reference = subject(&stores, "env/TOKEN#value").ok().unwrap();
        assert_eq!(reference, ("env".to_owned(), Some("TOKEN".to_owned())));
        let response = subject(&stores, "nothing").err().unwrap().into_response();
        assert_eq!(response.status(), StatusCode::NOT_FOUND);
        let unknown = SecretError::UnknownStore { reference: "x/y".to_owned(), store: "x".to_owned() };
        assert_eq!(refusal_of(&unknown).into_response().status(), StatusCode::NOT_FOUND);
    }

    #[test]
    fn what_components_wait_for_is_listed_once_by_path_with_who_waits() {
        let stores = SecretStores::local();
        let lacking = |reference: &str, component: &str| LackingSecret {
            reference: reference.to_owned(),
            failure: SecretFailure {
                message: "it is not there".to_owned(),
                help: Some("write it".to_owned()),
                lack: SecretLack::Missing,
            },
            components: vec![component.to_owned()],
        };
        let mut all = held();
        let before = all.len();
        for (reference, component) in
            [("file/run/x#a", "one"), ("file/run/x#b", "two"), ("file/run/x#b", "two"), ("other/y", "three")]
        {
            add_lacking(&mut all, &stores, lacking(reference, component));
        }
        // Nor is one listed again that is held for others, or one of a store that there is not.
        all[0].reference = "file/run/z".to_owned();
        add_lacking(&mut all, &stores, lacking("file/run/z#field", "four"));
        assert_eq!(all.len(), before + 1);
        let added = all.last().unwrap();
        assert_eq!((added.reference.as_str(), added.state), ("file/run/x", SecretState::Missing));
        assert_eq!((added.version, added.fix.as_deref()), (None, Some("write it")));
        let users: Vec<&str> = added.users.iter().map(|user| user.component.as_str()).collect();
        assert_eq!(users, ["one", "two"]);
    }
}

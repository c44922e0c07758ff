//! `import.git`: a file or folder of a repository, on the Git source that configuration itself comes from.

use std::path::Path;
use std::sync::Arc;

use invar_engine::modules::{GitImport, GitSshKey};
use invar_policy::{Access, Refusal};
use invar_sources::{
    AuthSettings, BasicSettings, Credential, ErrorClass, GitModule, GitSource, Source, SourceEnvironment,
    SourceError, SourceName, SshSettings, ssh_host,
};
use invar_syntax::secret::Secret;
use url::Url;

use super::SHORTEST_INTERVAL;

/// The source of such a module.
pub(super) fn open(
    name: &SourceName,
    import: &GitImport,
    environment: &SourceEnvironment,
    access: &Access,
) -> Result<Arc<dyn Source>, SourceError> {
    let stalled = |message: &str, help: &str| SourceError {
        class: ErrorClass::Stalled,
        message: message.to_owned(),
        help: Some(help.to_owned()),
        source_name: name.clone(),
    };
    let (mut repository, in_address) = without_credentials(&import.repository);
    let allowed = may_reach(&repository, access).and_then(|()| may_use_key(&repository, import, access));
    if let Err(Refusal { message, help }) = allowed {
        return Err(stalled(&message, &help));
    }
    if import.ssh_key.is_some() && repository.starts_with("http") {
        let help = "use basic_auth, or an address that begins with ssh://";
        return Err(stalled("`ssh_key` does not go with an address that is reached over HTTP", help));
    }
    if let Some(key) = &import.ssh_key {
        repository = with_user(&repository, &key.username);
    }
    let basic = match &import.basic_auth {
        Some(basic) => Some((basic.username.clone(), basic.password.clone())),
        None => in_address,
    };
    let basic = basic.filter(|(_, password)| !password.is_empty()).map(|(username, password)| AuthSettings {
        basic: Some(BasicSettings { username, password: Credential::Text(password) }),
        ..AuthSettings::default()
    });
    let auth = import.ssh_key.as_ref().map(with_key).or(basic);
    let module = GitModule {
        name: name.clone(),
        repository,
        revision: import.revision.clone(),
        path: import.path.clone(),
        auth,
        interval: (!import.pull_frequency.is_zero()).then(|| import.pull_frequency.max(SHORTEST_INTERVAL)),
    };
    Ok(Arc::new(GitSource::for_module(&module, environment)?))
}

/// Whether a repository may be fetched from: one on this host is files of this host.
fn may_reach(repository: &str, access: &Access) -> Result<(), Refusal> {
    if let Some((host, port)) = ssh_host(repository) {
        let host = if host.contains(':') { format!("[{host}]") } else { host };
        return crate::reach::by_name(&format!("ssh://{host}:{port}"), access);
    }
    let local = repository.strip_prefix("file://").or((!repository.contains(':')).then_some(repository));
    if let Some(path) = local {
        return access.file(Path::new(path));
    }
    crate::reach::by_name(repository, access)
}

/// Whether the key may be used that this host has for the repository: in a file, or in its agent.
fn may_use_key(repository: &str, import: &GitImport, access: &Access) -> Result<(), Refusal> {
    match &import.ssh_key {
        Some(key) if !key.key_file.is_empty() => access.file(Path::new(&key.key_file)),
        None if ssh_host(repository).is_some() => access.environment_variable("SSH_AUTH_SOCK"),
        _ => Ok(()),
    }
}

/// The settings of a key; the host's key has to be in its `known_hosts`, as for every source.
fn with_key(key: &GitSshKey) -> AuthSettings {
    let credential = match key.key.is_empty() {
        true => Credential::File(key.key_file.clone().into()),
        false => Credential::Text(key.key.clone()),
    };
    let passphrase = (!key.passphrase.is_empty()).then(|| Credential::Text(key.passphrase.clone()));
    let ssh = SshSettings { key: Some(credential), passphrase, ..SshSettings::default() };
    AuthSettings { ssh: Some(ssh), ..AuthSettings::default() }
}

/// The address with the user that the key is for.
fn with_user(repository: &str, username: &str) -> String {
    if let Ok(mut url) = Url::parse(repository.strip_prefix("git+").unwrap_or(repository))
        && url.scheme() == "ssh"
    {
        return match url.set_username(username) {
            Ok(()) => url.to_string(),
            Err(()) => repository.to_owned(),
        };
    }
    match repository.split_once(':') {
        Some((host, path)) if !repository.contains("://") => {
            let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
            format!("{username}@{host}:{path}")
        }
        _ => repository.to_owned(),
    }
}

/// The address without a user name and password in it.
fn without_credentials(repository: &str) -> (String, Option<(String, Secret)>) {
    let Ok(mut url) = Url::parse(repository) else { return (repository.to_owned(), None) };
    let is_http = matches!(url.scheme(), "http" | "https");
    if !is_http || (url.username().is_empty() && url.password().is_none()) {
        return (repository.to_owned(), None);
    }
    let decoded = |text: &str| percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned();
    let (username, password) = (decoded(url.username()), decoded(url.password().unwrap_or_default()));
    // Both can be taken away from any address that can have them.
    if url.set_username("").is_err() || url.set_password(None).is_err() {
        return (repository.to_owned(), None);
    }
    (url.to_string(), Some((username, Secret::new(password))))
}

/// The repository as diagnostics call it.
pub(super) fn shown(repository: &str) -> String {
    let (repository, _) = without_credentials(repository);
    repository.trim_end_matches('/').to_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use invar_policy::{Policy, PolicySettings};

    use super::*;

    #[test]
    fn a_ceiling_holds_for_hosts_and_keys_of_ssh() {
        let settings = PolicySettings {
            egress: Some(vec!["git.example".to_owned()]),
            environment_variables: Some(Vec::new()),
            file_roots: Some(vec!["/etc/invar".into()]),
            ..PolicySettings::default()
        };
        let policy = Policy::new(&settings, &[]).unwrap();
        let access = policy.general();
        for repository in
            ["git@git.example:a.git", "ssh://git@git.example:2222/a.git", "https://git.example/a"]
        {
            assert!(may_reach(repository, access).is_ok(), "{repository}");
        }
        for repository in
            ["git@other.example:a.git", "other.example:a.git", "git+ssh://git@other.example/a.git"]
        {
            assert!(may_reach(repository, access).is_err(), "{repository}");
        }
        let import = |key_file: Option<&str>| GitImport {
            repository: String::new(),
            revision: "main".to_owned(),
            path: "a".to_owned(),
            pull_frequency: std::time::Duration::ZERO,
            basic_auth: None,
            ssh_key: key_file.map(|file| GitSshKey {
                username: "git".to_owned(),
                key: Secret::new(""),
                key_file: file.to_owned(),
                passphrase: Secret::new(""),
            }),
        };
        let ssh = "git@git.example:a.git";
        assert!(may_use_key(ssh, &import(Some("/etc/shadow")), access).is_err());
        assert!(may_use_key(ssh, &import(None), access).is_err(), "the host's agent is the host's");
        assert!(may_use_key("https://git.example/a", &import(None), access).is_ok());
        assert!(may_use_key(ssh, &import(None), &Access::unrestricted()).is_ok());
    }

    #[test]
    fn the_user_of_a_key_goes_into_the_address() {
        for (repository, expected) in [
            ("ssh://git.example:2222/a.git", "ssh://ada@git.example:2222/a.git"),
            ("ssh://git@git.example/a.git", "ssh://ada@git.example/a.git"),
            ("git+ssh://git.example/a.git", "ssh://ada@git.example/a.git"),
            ("git@git.example:a.git", "ada@git.example:a.git"),
            ("git.example:a.git", "ada@git.example:a.git"),
            ("/srv/a.git", "/srv/a.git"),
        ] {
            assert_eq!(with_user(repository, "ada"), expected, "{repository}");
        }
    }
}

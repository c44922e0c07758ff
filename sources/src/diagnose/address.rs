//! Which server a source speaks to first, by its settings alone: host, port, and what is spoken there.

use url::Url;

use crate::connection::is_loopback;
use crate::settings::{ProxySettings, S3Settings, SourceSettings};

/// What is spoken at a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Speaks {
    /// HTTP without encryption.
    Http,
    /// HTTP within TLS.
    Https,
    /// SSH.
    Ssh,
}

/// Where a source connects to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Server {
    /// A name or an address, without brackets.
    pub(super) host: String,
    /// The port.
    pub(super) port: u16,
    /// What is spoken there.
    pub(super) speaks: Speaks,
    /// Whether it is the proxy of the source; what lies behind it is for the source itself to reach.
    pub(super) is_proxy: bool,
}

impl Server {
    /// `host:port`, as people write it.
    pub(super) fn place(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

/// The server of a source; `None` for those of this host, and for addresses that say none.
pub(super) fn server_of(settings: &SourceSettings) -> Option<Server> {
    let server = target_of(settings)?;
    match &settings.proxy {
        Some(proxy) if !is_excepted(proxy, &server.host) => {
            let proxy = server_at(&Url::parse(&proxy.url).ok()?)?;
            Some(Server { is_proxy: true, ..proxy })
        }
        _ => Some(server),
    }
}

fn target_of(settings: &SourceSettings) -> Option<Server> {
    if let Some(git) = &settings.git {
        let url = git.url.as_str();
        return match url.split_once("://") {
            Some(_) => server_at(&Url::parse(url).ok()?),
            // `git@host:path`.
            None => {
                let (host, _) = url.split_once(':').filter(|(host, _)| !host.contains(['/', '\\']))?;
                let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
                (host.len() > 1).then(|| ssh(host, 22))
            }
        };
    }
    if let Some(http) = &settings.http {
        return server_at(&Url::parse(&http.url).ok()?);
    }
    if let Some(oci) = &settings.oci {
        let (registry, _) = oci.repository.split_once('/')?;
        let secure = Url::parse(&format!("https://{registry}")).ok()?;
        if !oci.insecure && !is_loopback(&secure) {
            return server_at(&secure);
        }
        return server_at(&Url::parse(&format!("http://{registry}")).ok()?);
    }
    if let Some(s3) = &settings.s3 {
        return server_at(&Url::parse(&s3_address(s3)).ok()?);
    }
    None
}

fn s3_address(s3: &S3Settings) -> String {
    match &s3.endpoint {
        Some(endpoint) => endpoint.clone(),
        None => format!("https://s3.{}.amazonaws.com", s3.region.as_deref().unwrap_or("us-east-1")),
    }
}

fn ssh(host: &str, port: u16) -> Server {
    Server { host: host.to_owned(), port, speaks: Speaks::Ssh, is_proxy: false }
}

fn server_at(url: &Url) -> Option<Server> {
    let host = url.host_str()?.trim_start_matches('[').trim_end_matches(']');
    if host.is_empty() {
        return None;
    }
    let (speaks, usual) = match url.scheme() {
        "http" => (Speaks::Http, 80),
        "https" => (Speaks::Https, 443),
        "ssh" | "git+ssh" => return Some(ssh(host, url.port().unwrap_or(22))),
        _ => return None,
    };
    Some(Server { host: host.to_owned(), port: url.port().unwrap_or(usual), speaks, is_proxy: false })
}

/// Whether a host is reached without the proxy: by its own name or address, or below a domain. Networks are not looked
/// at; a host in one is then looked for behind the proxy, which is only one check less.
fn is_excepted(proxy: &ProxySettings, host: &str) -> bool {
    proxy.no_proxy.iter().any(|entry| {
        let domain = entry.trim_start_matches("*.").trim_start_matches('.');
        entry == "*"
            || host.eq_ignore_ascii_case(domain)
            || host.to_ascii_lowercase().ends_with(&format!(".{}", domain.to_ascii_lowercase()))
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::settings::GitSettings;

    fn place(text: &str) -> Option<(String, Speaks, bool)> {
        let settings: SourceSettings = toml::from_str(text).unwrap();
        server_of(&settings).map(|server| (server.place(), server.speaks, server.is_proxy))
    }

    fn git(url: &str) -> Option<(String, Speaks, bool)> {
        let git = GitSettings { url: url.to_owned(), ..GitSettings::default() };
        server_of(&SourceSettings::for_git(git))
            .map(|server| (server.place(), server.speaks, server.is_proxy))
    }

    #[test]
    fn every_kind_names_its_server() {
        let found = |place: &str, speaks| Some((place.to_owned(), speaks, false));
        assert_eq!(git("https://git.example/x"), found("git.example:443", Speaks::Https));
        assert_eq!(git("http://[::1]:3000/x"), found("[::1]:3000", Speaks::Http));
        assert_eq!(git("ssh://git@git.example:2222/x"), found("git.example:2222", Speaks::Ssh));
        assert_eq!(git("git@git.example:obs/x.git"), found("git.example:22", Speaks::Ssh));
        for own in ["/srv/fleet.git", "./fleet.git", "file:///srv/x", "C:\\x", "not a url", ""] {
            assert_eq!(git(own), None, "{own}");
        }
        assert_eq!(
            place("http = { url = 'https://conf.example/a.alloy?x=y' }"),
            found("conf.example:443", Speaks::Https)
        );
        assert_eq!(
            place("oci = { repository = 'registry.example:5000/a/b' }"),
            found("registry.example:5000", Speaks::Https)
        );
        assert_eq!(
            place("oci = { repository = 'localhost:5000/a/b' }"),
            found("localhost:5000", Speaks::Http)
        );
        assert_eq!(
            place("s3 = { bucket = 'b', region = 'eu-central-1' }"),
            found("s3.eu-central-1.amazonaws.com:443", Speaks::Https)
        );
        assert_eq!(
            place("s3 = { bucket = 'b', endpoint = 'http://127.0.0.1:9000' }"),
            found("127.0.0.1:9000", Speaks::Http)
        );
        assert_eq!(place("file = { path = '/etc/invar' }"), None);
    }

    #[test]
    fn behind_a_proxy_the_proxy_is_the_server() {
        let with = |no_proxy: &str| {
            place(&format!(
                "git = {{ url = 'https://git.example/x' }}\n\
                 proxy = {{ url = 'http://proxy.example:3128', no_proxy = [{no_proxy}] }}"
            ))
            .unwrap()
        };
        assert_eq!(with(""), ("proxy.example:3128".to_owned(), Speaks::Http, true));
        assert_eq!(with("'other.example'").0, "proxy.example:3128");
        for excepted in ["'git.example'", "'.example'", "'*'", "'GIT.example'"] {
            assert_eq!(with(excepted).0, "git.example:443", "{excepted}");
        }
    }
}

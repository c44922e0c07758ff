//! Which requests go through a proxy, and with which headers.

use std::collections::BTreeMap;
use std::net::IpAddr;

use http::header::{HeaderMap, HeaderName};
use invar_syntax::secret::Secret;
use url::Url;

use super::HttpClientError;
use super::arguments::ProxyArguments;
use super::credentials::sensitive;

/// What decides for a URL; made once per client.
#[derive(Clone, Debug, Default)]
pub(super) struct ProxyRules {
    http: Option<Url>,
    https: Option<Url>,
    except: NoProxy,
}

/// Hosts that are reached directly.
#[derive(Clone, Debug, Default, PartialEq)]
struct NoProxy {
    everything: bool,
    entries: Vec<NoProxyEntry>,
}

#[derive(Clone, Debug, PartialEq)]
enum NoProxyEntry {
    Address(IpAddr, Option<u16>),
    Network(IpAddr, u8),
    /// `example.com` covers its subdomains too; `.example.com` and `*.example.com` only those.
    Domain {
        name: String,
        subdomains_only: bool,
        port: Option<u16>,
    },
}

/// Whether a proxy of this scheme can be spoken to.
pub(super) fn is_supported(scheme: &str) -> bool {
    matches!(scheme, "http" | "https" | "socks5" | "socks5h")
}

/// The proxy that these arguments ask for, as the transport takes it.
pub(super) fn build(arguments: &ProxyArguments) -> Result<Option<reqwest::Proxy>, HttpClientError> {
    let rules = if arguments.proxy_from_environment {
        ProxyRules::from_environment(&|name| std::env::var(name).ok())
    } else if let Some(url) = arguments.proxy_url.url() {
        ProxyRules {
            http: Some(url.clone()),
            https: Some(url.clone()),
            except: NoProxy::parse(&arguments.no_proxy),
        }
    } else {
        return Ok(None);
    };
    let headers = connect_headers(&arguments.proxy_connect_header)?;
    let proxy = reqwest::Proxy::custom(move |url| rules.proxy_for(url));
    Ok(Some(if headers.is_empty() { proxy } else { proxy.headers(headers) }))
}

fn connect_headers(headers: &BTreeMap<String, Vec<Secret>>) -> Result<HeaderMap, HttpClientError> {
    let mut map = HeaderMap::new();
    for (name, values) in headers {
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| HttpClientError::Invalid {
            field: "proxy_connect_header",
            message: format!("{name:?} is no header name"),
        })?;
        for value in values {
            map.append(name.clone(), sensitive(value)?);
        }
    }
    Ok(map)
}

// === impl ProxyRules ===

impl ProxyRules {
    /// `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY`, lower case first. `HTTP_PROXY` is not read where the process serves
    /// CGI requests (`REQUEST_METHOD` is set), because a client could set it there.
    pub(super) fn from_environment(read: &dyn Fn(&str) -> Option<String>) -> Self {
        let either = |lower: &str, upper: &str| {
            read(lower)
                .filter(|value| !value.is_empty())
                .or_else(|| read(upper))
                .filter(|value| !value.is_empty())
        };
        let parse = |text: String| {
            Url::parse(&text)
                .ok()
                .filter(|url| is_supported(url.scheme()))
                .or_else(|| Url::parse(&format!("http://{text}")).ok())
                .filter(|url| is_supported(url.scheme()))
        };
        let http = if read("REQUEST_METHOD").is_some() {
            read("http_proxy")
        } else {
            either("http_proxy", "HTTP_PROXY")
        };
        Self {
            http: http.and_then(parse),
            https: either("https_proxy", "HTTPS_PROXY").and_then(parse),
            except: NoProxy::parse(&either("no_proxy", "NO_PROXY").unwrap_or_default()),
        }
    }

    fn proxy_for(&self, url: &Url) -> Option<Url> {
        let host = url.host_str()?;
        let port = url.port_or_known_default();
        if self.except.covers(host, port) {
            return None;
        }
        let proxy = if url.scheme() == "https" { &self.https } else { &self.http };
        proxy.as_ref().map(|proxy| match proxy.as_str().strip_prefix("socks5://") {
            // The proxy resolves names, as it does for programs written in Go.
            Some(rest) => Url::parse(&format!("socks5h://{rest}")).unwrap_or_else(|_| proxy.clone()),
            None => proxy.clone(),
        })
    }
}

// === impl NoProxy ===

impl NoProxy {
    fn parse(text: &str) -> Self {
        let mut parsed = Self::default();
        for entry in text.split(',').map(|entry| entry.trim().to_ascii_lowercase()) {
            if entry == "*" {
                parsed.everything = true;
            } else if !entry.is_empty() {
                parsed.entries.extend(NoProxyEntry::parse(&entry));
            }
        }
        parsed
    }

    /// Loopback is always reached directly, as Go programs do.
    fn covers(&self, host: &str, port: Option<u16>) -> bool {
        let host =
            host.trim_start_matches('[').trim_end_matches(']').trim_end_matches('.').to_ascii_lowercase();
        let address = host.parse::<IpAddr>().ok();
        if host == "localhost" || address.is_some_and(|address| address.is_loopback()) {
            return true;
        }
        self.everything || self.entries.iter().any(|entry| entry.covers(&host, address, port))
    }
}

impl NoProxyEntry {
    fn parse(entry: &str) -> Option<Self> {
        if let Some((network, bits)) = entry.split_once('/') {
            let network: IpAddr = network.parse().ok()?;
            let bits: u8 = bits.parse().ok()?;
            let width = if network.is_ipv4() { 32 } else { 128 };
            return (bits <= width).then_some(Self::Network(network, bits));
        }
        if let Ok(address) = entry.trim_start_matches('[').trim_end_matches(']').parse() {
            return Some(Self::Address(address, None));
        }
        let (host, port) = match entry.rsplit_once(':') {
            Some((host, port)) => (host, Some(port.parse().ok()?)),
            None => (entry, None),
        };
        if let Ok(address) = host.trim_start_matches('[').trim_end_matches(']').parse() {
            return Some(Self::Address(address, port));
        }
        let host = host.strip_prefix('*').unwrap_or(host);
        Some(match host.strip_prefix('.') {
            Some(name) => Self::Domain { name: name.to_owned(), subdomains_only: true, port },
            None => Self::Domain { name: host.to_owned(), subdomains_only: false, port },
        })
    }

    fn covers(&self, host: &str, address: Option<IpAddr>, port: Option<u16>) -> bool {
        match self {
            Self::Address(listed, listed_port) => {
                address == Some(*listed) && (listed_port.is_none() || *listed_port == port)
            }
            Self::Network(network, bits) => {
                address.is_some_and(|address| in_network(address, *network, *bits))
            }
            Self::Domain { name, subdomains_only, port: listed_port } => {
                (listed_port.is_none() || *listed_port == port)
                    && ((!subdomains_only && host == name)
                        || host.strip_suffix(name.as_str()).is_some_and(|rest| rest.ends_with('.')))
            }
        }
    }
}

fn in_network(address: IpAddr, network: IpAddr, bits: u8) -> bool {
    match (address, network) {
        (IpAddr::V4(address), IpAddr::V4(network)) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0);
            u32::from(address) & mask == u32::from(network) & mask
        }
        (IpAddr::V6(address), IpAddr::V6(network)) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0);
            u128::from(address) & mask == u128::from(network) & mask
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn proxied(no_proxy: &str, url: &str) -> bool {
        let proxy = Url::parse("http://proxy:3128").unwrap();
        let rules =
            ProxyRules { http: Some(proxy.clone()), https: Some(proxy), except: NoProxy::parse(no_proxy) };
        rules.proxy_for(&Url::parse(url).unwrap()).is_some()
    }

    #[test]
    fn exceptions_cover_what_they_name_and_nothing_else() {
        for (no_proxy, url, expected) in [
            ("", "http://example.com/", true),
            ("", "http://localhost:9090/", false),
            ("", "http://127.0.0.1/", false),
            ("", "http://[::1]/", false),
            ("*", "http://example.com/", false),
            ("example.com", "http://example.com/", false),
            ("example.com", "http://a.example.com/", false),
            ("example.com", "http://badexample.com/", true),
            (".example.com", "http://example.com/", true),
            (".example.com", "http://a.example.com/", false),
            ("*.example.com", "http://a.example.com/", false),
            ("example.com:8080", "http://example.com/", true),
            ("example.com:8080", "http://example.com:8080/", false),
            ("10.0.0.0/8", "http://10.1.2.3/", false),
            ("10.0.0.0/8", "http://11.1.2.3/", true),
            ("0.0.0.0/0", "http://11.1.2.3/", false),
            ("192.0.2.1", "http://192.0.2.1:80/", false),
            ("2001:db8::/32", "http://[2001:db8::1]/", false),
            ("nonsense/99, EXAMPLE.com", "https://Example.COM/", false),
        ] {
            assert_eq!(proxied(no_proxy, url), expected, "no_proxy {no_proxy:?}, url {url}");
        }
    }

    #[test]
    fn the_environment_decides_per_scheme_and_lower_case_wins() {
        let read = |name: &str| match name {
            "http_proxy" => Some("http://lower:1".to_owned()),
            "HTTP_PROXY" => Some("http://upper:1".to_owned()),
            "HTTPS_PROXY" => Some("secure:2".to_owned()),
            "NO_PROXY" => Some("internal".to_owned()),
            _ => None,
        };
        let rules = ProxyRules::from_environment(&read);
        let proxy = |url: &str| rules.proxy_for(&Url::parse(url).unwrap()).map(|url| url.to_string());
        assert_eq!(proxy("http://a/").as_deref(), Some("http://lower:1/"));
        assert_eq!(proxy("https://a/").as_deref(), Some("http://secure:2/"));
        assert_eq!(proxy("https://internal/"), None);
    }

    #[test]
    fn a_cgi_request_cannot_set_the_proxy() {
        let read = |name: &str| match name {
            "REQUEST_METHOD" | "HTTP_PROXY" => Some("http://evil".to_owned()),
            _ => None,
        };
        assert!(ProxyRules::from_environment(&read).http.is_none());
    }
}

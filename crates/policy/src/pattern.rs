//! The patterns of the settings: names with `*`, addresses to listen on, destinations to connect to.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// A pattern that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` {problem}")]
pub struct PatternError {
    text: String,
    problem: &'static str,
}

/// A name in which `*` stands for any text, nothing included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamePattern(String);

/// Ports: all, or those from one to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Ports {
    first: u16,
    last: u16,
}

/// What stands for hosts.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Host {
    /// Names; `*` alone stands for addresses too.
    Name(NamePattern),
    /// The addresses that share so many leading bits with this one.
    Network(IpAddr, u8),
}

/// Addresses to listen on: `127.0.0.1:*`, `*:4317-4318`, `[::1]:8080`, `10.0.0.0/8:*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenPattern {
    host: Host,
    ports: Ports,
}

/// Hosts to connect to: `metrics.example.com`, `*.example.com:443`, `10.0.0.0/8`, `[2001:db8::/32]:443`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    host: Host,
    ports: Ports,
}

// === impl NamePattern ===

impl NamePattern {
    /// Whether the pattern stands for this name.
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        let mut parts = self.0.split('*');
        let first = parts.next().unwrap_or_default();
        let Some(mut rest) = name.strip_prefix(first) else { return false };
        let Some(last) = parts.next_back() else { return rest.is_empty() };
        for part in parts {
            match rest.find(part) {
                Some(at) => rest = &rest[at + part.len()..],
                None => return false,
            }
        }
        rest.ends_with(last)
    }
}

impl FromStr for NamePattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        if text.is_empty() || text.contains(char::is_whitespace) {
            return Err(error(text, "is no name; it may hold `*` but no white space"));
        }
        Ok(Self(text.to_owned()))
    }
}

// === impl Ports ===

impl Ports {
    const ALL: Self = Self { first: 0, last: u16::MAX };

    fn parse(text: &str) -> Option<Self> {
        if text == "*" {
            return Some(Self::ALL);
        }
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let ports = Self { first: port(first)?, last: port(last)? };
        (ports.first <= ports.last).then_some(ports)
    }

    fn has(self, port: u16) -> bool {
        (self.first..=self.last).contains(&port)
    }
}

fn port(text: &str) -> Option<u16> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse().ok() } else { None }
}

// === impl Host ===

impl Host {
    fn parse(text: &str) -> Option<Self> {
        let bare = unbracketed(text);
        if let Ok(address) = bare.parse::<IpAddr>() {
            return Some(Self::Network(address, width(address)));
        }
        if let Some((address, bits)) = bare.split_once('/') {
            let address: IpAddr = address.parse().ok()?;
            let bits: u8 = bits.parse().ok()?;
            return (bits <= width(address)).then_some(Self::Network(address, bits));
        }
        let known = |character: char| character.is_ascii_alphanumeric() || "*.-_".contains(character);
        (!text.is_empty() && text.chars().all(known))
            .then(|| Self::Name(NamePattern(text.to_ascii_lowercase())))
    }

    /// Whether it stands for this host as it is written: a name, or an address.
    fn has(&self, host: &str) -> bool {
        let host = unbracketed(host).trim_end_matches('.').to_ascii_lowercase();
        match (self, host.parse::<IpAddr>()) {
            (Self::Name(pattern), Ok(_)) => pattern.0 == "*",
            (Self::Name(pattern), Err(_)) => pattern.matches(&host),
            (Self::Network(..), Ok(address)) => self.has_address(address),
            (Self::Network(..), Err(_)) => false,
        }
    }

    fn has_address(&self, address: IpAddr) -> bool {
        match self {
            Self::Name(pattern) => pattern.0 == "*",
            Self::Network(network, bits) => in_network(address, *network, *bits),
        }
    }
}

fn unbracketed(host: &str) -> &str {
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}

fn width(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn in_network(address: IpAddr, network: IpAddr, bits: u8) -> bool {
    // An IPv4 address within IPv6 is that IPv4 address: nobody gets around a network by writing it differently.
    match (address.to_canonical(), network.to_canonical()) {
        (IpAddr::V4(address), IpAddr::V4(canonical)) => {
            let bits = if network.is_ipv6() { bits.saturating_sub(96) } else { bits };
            let mask = u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0);
            address.to_bits() & mask == canonical.to_bits() & mask
        }
        (IpAddr::V6(address), IpAddr::V6(network)) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0);
            address.to_bits() & mask == network.to_bits() & mask
        }
        _ => false,
    }
}

/// Host and ports of `HOST`, `HOST:PORTS` or `[HOST]:PORTS`.
fn split(text: &str) -> (&str, Option<&str>) {
    if let Some((host, rest)) = text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        return match rest.strip_prefix(':') {
            Some(ports) => (host, Some(ports)),
            None if rest.is_empty() => (host, None),
            // Nothing that could be read.
            None => (text, None),
        };
    }
    match text.rsplit_once(':') {
        Some((host, ports)) if !host.contains(':') => (host, Some(ports)),
        _ => (text, None),
    }
}

// === impl ListenPattern ===

impl ListenPattern {
    /// Whether it stands for this address, `host:port` as it is written.
    #[must_use]
    pub fn matches(&self, address: &str) -> bool {
        let (host, port) = split(address);
        let Some(port) = port.and_then(port_of) else { return false };
        // Without a host it is every address, which only something that stands for all of them covers.
        let host = if host.is_empty() { "0.0.0.0" } else { host };
        let everywhere = unbracketed(host).parse::<IpAddr>().ok().filter(IpAddr::is_unspecified);
        let covered = match (&self.host, everywhere) {
            (Host::Network(network, bits), Some(address)) => *bits == 0 || *network == address,
            (of_pattern, _) => of_pattern.has(host),
        };
        covered && self.ports.has(port)
    }
}

fn port_of(text: &str) -> Option<u16> {
    port(text)
}

impl FromStr for ListenPattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        let (host, ports) = split(text);
        let ports = ports.and_then(Ports::parse);
        match (Host::parse(host), ports) {
            (Some(host), Some(ports)) => Ok(Self { host, ports }),
            _ => Err(error(text, "is no address to listen on; write it as `127.0.0.1:*` or `*:4317-4318`")),
        }
    }
}

// === impl Destination ===

impl Destination {
    /// Whether it stands for this host as it is written, at this port. Of a port that is not known, nothing is asked.
    #[must_use]
    pub fn matches(&self, host: &str, port: Option<u16>) -> bool {
        self.host.has(host) && self.has_port(port)
    }

    /// Whether it stands for addresses, of which one must be the name's to tell.
    #[must_use]
    pub fn may_match(&self, host: &str, port: Option<u16>) -> bool {
        let is_name = unbracketed(host).parse::<IpAddr>().is_err();
        is_name && matches!(self.host, Host::Network(..)) && self.has_port(port)
    }

    /// Whether it stands for this address.
    #[must_use]
    pub fn matches_address(&self, address: IpAddr) -> bool {
        self.host.has_address(address)
    }

    fn has_port(&self, port: Option<u16>) -> bool {
        port.is_none_or(|port| self.ports.has(port))
    }
}

impl FromStr for Destination {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        let (host, ports) = split(text);
        let ports = ports.map_or(Some(Ports::ALL), Ports::parse);
        match (Host::parse(host), ports) {
            (Some(host), Some(ports)) => Ok(Self { host, ports }),
            _ => Err(error(
                text,
                "is no destination; write it as `metrics.example.com`, `*.example.com:443` or `10.0.0.0/8`",
            )),
        }
    }
}

fn error(text: &str, problem: &'static str) -> PatternError {
    PatternError { text: text.to_owned(), problem }
}

impl fmt::Display for NamePattern {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    fn destination(pattern: &str, host: &str, port: u16) -> bool {
        pattern.parse::<Destination>().unwrap().matches(host, Some(port))
    }

    fn listen(pattern: &str, address: &str) -> bool {
        pattern.parse::<ListenPattern>().unwrap().matches(address)
    }

    #[test]
    fn a_star_stands_for_any_text() {
        for (pattern, name, expected) in [
            ("HOSTNAME", "HOSTNAME", true),
            ("HOSTNAME", "HOSTNAME2", false),
            ("APP_*", "APP_", true),
            ("APP_*", "XAPP_1", false),
            ("*", "anything", true),
            ("prometheus.exporter.*", "prometheus.exporter.unix", true),
            ("prometheus.exporter.*", "prometheus.scrape", false),
            ("*_TOKEN_*", "A_TOKEN_B", true),
            ("a*a", "a", false),
            ("a*b*c", "abc", true),
            ("a*b*c", "acb", false),
        ] {
            assert_eq!(pattern.parse::<NamePattern>().unwrap().matches(name), expected, "{pattern} {name}");
        }
        assert!("".parse::<NamePattern>().is_err() && "A B".parse::<NamePattern>().is_err());
    }

    #[test]
    fn destinations_are_names_addresses_and_networks_with_or_without_ports() {
        for (pattern, host, port, expected) in [
            ("metrics.example.com", "metrics.example.com", 443, true),
            ("metrics.example.com", "METRICS.example.com.", 443, true),
            ("metrics.example.com", "evil-metrics.example.com", 443, false),
            ("*.example.com:443", "a.example.com", 443, true),
            ("*.example.com:443", "a.example.com", 80, false),
            ("*.example.com", "example.com", 443, false),
            ("*.example.com", "example.com.evil.org", 443, false),
            ("10.0.0.0/8", "10.1.2.3", 1, true),
            ("10.0.0.0/8", "11.1.2.3", 1, false),
            ("10.0.0.0/8", "::ffff:10.1.2.3", 1, true),
            ("10.0.0.0/8:9090-9099", "10.1.2.3", 9095, true),
            ("10.0.0.0/8:9090-9099", "10.1.2.3", 9100, false),
            ("127.0.0.1", "127.0.0.1", 1, true),
            ("127.0.0.1", "localhost", 1, false),
            ("[2001:db8::/32]:443", "[2001:db8::1]", 443, true),
            ("2001:db8::/32", "2001:db9::1", 443, false),
            ("*", "anything.at.all", 1, true),
            ("*", "192.0.2.1", 1, true),
            ("*.com", "192.0.2.1", 1, false),
            ("0.0.0.0/0", "192.0.2.1", 1, true),
        ] {
            assert_eq!(destination(pattern, host, port), expected, "{pattern} for {host}:{port}");
        }
        for wrong in ["", "a b", "10.0.0.0/33", "host:port", "host:9-1", "[::1", "http://x", "a:1:2", "x:+1"]
        {
            assert!(wrong.parse::<Destination>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn only_a_network_waits_for_the_addresses_of_a_name() {
        let network: Destination = "10.0.0.0/8:443".parse().unwrap();
        assert!(network.may_match("inside.example", Some(443)));
        assert!(!network.may_match("inside.example", Some(80)));
        assert!(!network.may_match("11.0.0.1", Some(443)), "an address says what it is");
        assert!(!"x.example".parse::<Destination>().unwrap().may_match("y.example", None));
    }

    #[test]
    fn addresses_to_listen_on() {
        for (pattern, address, expected) in [
            ("127.0.0.1:*", "127.0.0.1:4317", true),
            ("127.0.0.1:*", "0.0.0.0:4317", false),
            ("127.0.0.1:*", ":4317", false),
            ("127.0.0.0/8:*", "127.0.0.2:1", true),
            ("10.0.0.0/8:*", "0.0.0.0:1", false),
            ("*:4317-4318", "0.0.0.0:4318", true),
            ("*:4317-4318", ":4318", true),
            ("*:4317-4318", "0.0.0.0:4319", false),
            ("0.0.0.0:80", "[::]:80", false),
            ("0.0.0.0:80", ":80", true),
            ("[::1]:8080", "[::1]:8080", true),
            ("localhost:*", "localhost:1", true),
            ("localhost:*", "127.0.0.1:1", false),
        ] {
            assert_eq!(listen(pattern, address), expected, "{pattern} for {address}");
        }
        for wrong in ["127.0.0.1", "*", ":80", "127.0.0.1:", "[::1]8080"] {
            assert!(wrong.parse::<ListenPattern>().is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused_and_matched_without_a_panic(text in ".{0,40}", name in ".{0,40}") {
            if let Ok(pattern) = text.parse::<NamePattern>() { let _matched = pattern.matches(&name); }
            if let Ok(pattern) = text.parse::<Destination>() { let _matched = pattern.matches(&name, None); }
            if let Ok(pattern) = text.parse::<ListenPattern>() { let _matched = pattern.matches(&name); }
        }

        #[test]
        fn what_is_built_from_a_pattern_matches_it(parts in prop::collection::vec("[a-c]{0,3}", 1..5), fill in "[a-c]{0,3}") {
            let pattern = format!("x{}", parts.join("*"));
            let name = format!("x{}", parts.join(&fill));
            prop_assert!(pattern.parse::<NamePattern>().unwrap().matches(&name), "{} {}", pattern, name);
        }
    }
}

//! Which hosts a document may come from. Addresses that are valid on one link alone belong to no server of configuration,
//! but clouds hand out credentials there: an answer that sends the agent to one of them is not followed, whether it
//! names the address or a name that leads to it.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use url::{Host, Url};

use crate::error::{ErrorClass, Failure};

/// Where clouds answer that use no link-local address: AWS over IPv6, Alibaba Cloud, and Oracle Cloud.
const METADATA_V4: [Ipv4Addr; 2] = [Ipv4Addr::new(100, 100, 100, 200), Ipv4Addr::new(192, 0, 0, 192)];
const METADATA_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);
/// `64:ff9b::/96`, IPv4 addresses as a translator shows them.
const TRANSLATED: [u16; 6] = [0x64, 0xff9b, 0, 0, 0, 0];

/// The reason within an error of the transport.
#[derive(Clone, Debug)]
pub(crate) struct RefusedPeer(String);

impl fmt::Display for RefusedPeer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is a link-local or metadata address, which is not asked for configuration", self.0)
    }
}

impl std::error::Error for RefusedPeer {}

impl RefusedPeer {
    /// Finds the reason among the causes of an error.
    pub(crate) fn behind(error: &(dyn std::error::Error + 'static)) -> Option<Failure> {
        let mut cause = Some(error);
        while let Some(error) = cause {
            if let Some(refused) = error.downcast_ref::<Self>() {
                return Some(refused.clone().failure());
            }
            cause = error.source();
        }
        None
    }

    fn failure(self) -> Failure {
        Failure::new(ErrorClass::Integrity, self.to_string())
            .with_help("if that is meant, set `http.allow_link_local = true`")
    }
}

/// Refuses an address that names such a host by number; names are looked at when they are resolved.
pub(crate) fn check_literal(url: &Url) -> Result<(), Failure> {
    let address = match url.host() {
        Some(Host::Ipv4(address)) => IpAddr::V4(address),
        Some(Host::Ipv6(address)) => IpAddr::V6(address),
        Some(Host::Domain(_)) | None => return Ok(()),
    };
    if is_refused(address) { Err(RefusedPeer(address.to_string()).failure()) } else { Ok(()) }
}

fn is_refused(address: IpAddr) -> bool {
    let v4 = |address: Ipv4Addr| address.is_link_local() || METADATA_V4.contains(&address);
    match address {
        IpAddr::V4(address) => v4(address),
        IpAddr::V6(address) => {
            if let Some(mapped) = address.to_ipv4_mapped() {
                return v4(mapped);
            }
            let segments = address.segments();
            if segments[..6] == TRANSLATED {
                let [high, low] = [segments[6].to_be_bytes(), segments[7].to_be_bytes()];
                return v4(Ipv4Addr::new(high[0], high[1], low[0], low[1]));
            }
            address.is_unicast_link_local() || address == METADATA_V6
        }
    }
}

/// Resolves names as the system does and leaves such addresses out.
#[derive(Debug)]
pub(crate) struct GuardedResolver;

impl Resolve for GuardedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let found: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            Ok(guard(name.as_str(), found)?)
        })
    }
}

fn guard(name: &str, found: Vec<SocketAddr>) -> Result<Addrs, RefusedPeer> {
    let (refused, allowed): (Vec<_>, Vec<_>) =
        found.into_iter().partition(|address| is_refused(address.ip()));
    match refused.first() {
        Some(address) if allowed.is_empty() => Err(RefusedPeer(format!("{name} ({})", address.ip()))),
        _ => Ok(Box::new(allowed.into_iter())),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn link_local_and_metadata_addresses_are_refused() {
        for host in [
            "169.254.169.254",
            "169.254.0.1",
            "100.100.100.200",
            "192.0.0.192",
            "[fe80::1]",
            "[fd00:ec2::254]",
            "[::ffff:169.254.169.254]",
            "[64:ff9b::a9fe:a9fe]",
            // Other ways to write the first one, which parsing an address undoes.
            "2852039166",
            "0xa9.0xfe.0xa9.0xfe",
        ] {
            let failure = check_literal(&Url::parse(&format!("http://{host}/latest")).unwrap()).unwrap_err();
            assert_eq!(failure.class, ErrorClass::Integrity, "{host}");
        }
        for host in ["127.0.0.1", "10.0.0.1", "192.168.0.1", "[::1]", "[fd00::1]", "example.com"] {
            check_literal(&Url::parse(&format!("http://{host}/x")).unwrap()).unwrap();
        }
    }

    #[test]
    fn names_that_lead_there_are_refused_and_others_lose_those_addresses() {
        let addresses = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<_>>();
        let refused = guard("metadata.example", addresses(&["169.254.169.254:0"])).err().unwrap();
        assert!(refused.to_string().starts_with("metadata.example (169.254.169.254)"), "{refused}");
        let left: Vec<_> = guard("x", addresses(&["169.254.169.254:0", "10.0.0.1:0"])).unwrap().collect();
        assert_eq!(left, addresses(&["10.0.0.1:0"]));
        // What does not resolve is the resolver's to say.
        assert_eq!(guard("x", Vec::new()).unwrap().count(), 0);
    }
}

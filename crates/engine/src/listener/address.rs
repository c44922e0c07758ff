//! What an address in a configuration means, and which addresses overlap.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs as _};
use std::sync::mpsc;
use std::time::Duration;

use crate::delivery::{PrepareError, PrepareErrorKind};
use crate::node::NodeId;

/// How long the name of an address to listen on may take to resolve; such names stand in the hosts file.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(3);

/// What makes a socket one and the same.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Key {
    /// A port that was asked for.
    Fixed(SocketAddr),
    /// A free port: another node gets another one.
    Ephemeral(IpAddr, NodeId),
}

impl Key {
    pub(super) fn new(address: SocketAddr, node: &NodeId) -> Self {
        match address.port() {
            0 => Self::Ephemeral(address.ip(), node.clone()),
            _ => Self::Fixed(address),
        }
    }
}

/// The socket address that `host:port` means. An empty host means all addresses of both families.
pub(super) fn resolve(text: &str) -> Result<SocketAddr, PrepareError> {
    let invalid = |why: &str| PrepareError::invalid(format!("cannot listen on {text:?}: {why}"));
    let (host, port) = text.rsplit_once(':').ok_or_else(|| invalid("it is not host:port"))?;
    let port: u16 = port.parse().map_err(|_| invalid("the port is not a number up to 65535"))?;
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    match host {
        "" => return Ok(SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port)),
        "localhost" => return Ok(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port)),
        _ => {}
    }
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(SocketAddr::new(address, port));
    }
    // The system's resolver blocks and knows no timeout of ours.
    let (send, receive) = mpsc::sync_channel(1);
    let name = host.to_owned();
    std::thread::Builder::new()
        .name("resolve-listen".to_owned())
        .spawn(move || {
            // Nobody is left to hear it after the timeout.
            drop(send.send((name.as_str(), port).to_socket_addrs().map(Iterator::collect::<Vec<_>>)));
        })
        .map_err(|error| PrepareError::io(text, &error))?;
    let failed =
        |why: String| PrepareError::new(PrepareErrorKind::Io, format!("cannot listen on {text:?}: {why}"));
    match receive.recv_timeout(RESOLVE_TIMEOUT) {
        Ok(Ok(addresses)) => {
            let v4 = addresses.iter().find(|address| address.is_ipv4());
            v4.or(addresses.first()).copied().ok_or_else(|| failed("the name has no address".to_owned()))
        }
        Ok(Err(error)) => Err(failed(error.to_string())),
        Err(_) => Err(failed(format!("the name did not resolve within {} s", RESOLVE_TIMEOUT.as_secs()))),
    }
}

/// Whether two sockets would compete for the same connections.
pub(super) fn overlap(left: SocketAddr, right: SocketAddr) -> bool {
    left.port() == right.port()
        && (left.ip() == right.ip() || left.ip().is_unspecified() || right.ip().is_unspecified())
}

/// Whether `wildcard` listens on all addresses, among them `specific`.
pub(super) fn covers(wildcard: SocketAddr, specific: SocketAddr) -> bool {
    wildcard.port() == specific.port()
        && wildcard.ip().is_unspecified()
        && !specific.ip().is_unspecified()
        // `::` listens on both families.
        && (wildcard.is_ipv6() || specific.is_ipv4())
}

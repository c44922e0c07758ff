//! A TCP connection to a server, through the proxy of the source if it has one: `CONNECT` of HTTP (RFC 9110, 9.3.6), or
//! SOCKS 5 (RFC 1928 and 1929). Connections of HTTP sources leave this to the HTTP client; Git over SSH uses it.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use invar_secrets::{Secret, SecretStores};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;
use url::Url;

use crate::connection::secret_failure;
use crate::error::{ErrorClass, Failure};
use crate::settings::{ProxySettings, TlsSettings};
use crate::tls;

/// Time to reach the server, or the proxy.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Time for the proxy to reach the server.
const PROXY_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest answer of a proxy to `CONNECT`, in bytes.
const ANSWER_LIMIT: usize = 8 * 1024;

/// What is read from and written to.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// How servers are reached.
pub(crate) struct Tunnel {
    proxy: Option<(Url, ProxySettings)>,
    tls: TlsSettings,
    secrets: SecretStores,
}

impl fmt::Debug for Tunnel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.proxy {
            Some((url, _)) => write!(f, "Tunnel({url})"),
            None => f.write_str("Tunnel"),
        }
    }
}

/// The address of a proxy, checked.
pub(crate) fn proxy_address(settings: &ProxySettings) -> Result<Url, Failure> {
    let usable = |url: &Url| {
        matches!(url.scheme(), "http" | "https" | "socks5" | "socks5h")
            && url.host_str().is_some_and(|host| !host.is_empty())
    };
    let Some(url) = Url::parse(&settings.url).ok().filter(usable) else {
        return Err(Failure::stalled(
            "`proxy.url` is not an http://, https://, socks5:// or socks5h:// address",
        ));
    };
    if !url.username().is_empty() || url.password().is_some() {
        return Err(Failure::stalled(
            "`proxy.url` holds a credential; use `proxy.username` and `proxy.password`",
        ));
    }
    Ok(url)
}

/// Whether a host is reached directly although there is a proxy: by its name, a domain it is in (with or without a dot
/// before it), `*`, its address, or a network.
pub(crate) fn is_direct(no_proxy: &[String], host: &str) -> bool {
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    let address: Option<IpAddr> = host.parse().ok();
    no_proxy.iter().flat_map(|entry| entry.split(',')).map(str::trim).any(|entry| {
        if entry == "*" {
            return true;
        }
        if let Some(address) = address {
            return match entry.split_once('/') {
                Some((network, bits)) => {
                    let parsed = (network.parse().ok(), bits.parse().ok());
                    matches!(parsed, (Some(network), Some(bits)) if is_in_network(address, network, bits))
                }
                None => entry.parse() == Ok(address),
            };
        }
        let domain = entry.trim_start_matches('.').to_ascii_lowercase();
        !domain.is_empty()
            && host.strip_suffix(&domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    })
}

fn is_in_network(address: IpAddr, network: IpAddr, bits: u32) -> bool {
    let (address, network, width) = match (address, network) {
        (IpAddr::V4(address), IpAddr::V4(network)) => {
            (u128::from(address.to_bits()), u128::from(network.to_bits()), 32)
        }
        (IpAddr::V6(address), IpAddr::V6(network)) => (address.to_bits(), network.to_bits(), 128),
        _ => return false,
    };
    bits <= width && (bits == 0 || (address ^ network) >> (width - bits) == 0)
}

impl Tunnel {
    /// Does no input or output.
    pub(crate) fn new(
        proxy: Option<&ProxySettings>,
        tls: Option<&TlsSettings>,
        secrets: &SecretStores,
    ) -> Result<Self, Failure> {
        let proxy =
            proxy.map(|proxy| Ok::<_, Failure>((proxy_address(proxy)?, proxy.clone()))).transpose()?;
        Ok(Self { proxy, tls: tls.cloned().unwrap_or_default(), secrets: secrets.clone() })
    }

    /// Connects to a server.
    pub(crate) async fn connect(
        &self,
        host: &str,
        port: u16,
        deadline: Instant,
    ) -> Result<Box<dyn Stream>, Failure> {
        let place = authority(host, port);
        let Some((url, settings)) =
            self.proxy.as_ref().filter(|(_, proxy)| !is_direct(&proxy.no_proxy, host))
        else {
            return Ok(Box::new(reach(host, port, &place, deadline).await?));
        };
        let password = match &settings.password {
            Some(password) => {
                password.resolve(&self.secrets).await.map_err(|error| secret_failure(&error))?
            }
            None => Secret::new(String::new()),
        };
        let user = settings.username.as_deref().map(|username| (username, &password));
        let proxy_host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
        let default = if url.scheme().starts_with("socks") { 1080 } else { 80 };
        let proxy_port = url.port_or_known_default().unwrap_or(default);
        let shown = format!("the proxy {url}");
        let stream = reach(proxy_host, proxy_port, &shown, deadline).await?;
        let deadline = deadline.min(Instant::now() + PROXY_TIMEOUT);
        let asked = async {
            Ok::<Box<dyn Stream>, Failure>(match url.scheme() {
                "socks5" | "socks5h" => {
                    let mut stream = stream;
                    let target = match url.scheme() {
                        "socks5h" => None,
                        _ => Some(look_up(host, port, &place).await?),
                    };
                    socks(&mut stream, host, port, target, user, &shown).await?;
                    Box::new(stream)
                }
                "https" => {
                    let mut stream = self.encrypt(stream, proxy_host, &shown).await?;
                    ask_http(&mut stream, &place, user, &shown).await?;
                    Box::new(stream)
                }
                _ => {
                    let mut stream = stream;
                    ask_http(&mut stream, &place, user, &shown).await?;
                    Box::new(stream)
                }
            })
        };
        timeout_at(deadline, asked)
            .await
            .unwrap_or_else(|_| Err(Failure::transient(format!("{shown} does not reach {place} in time"))))
    }

    async fn encrypt(
        &self,
        stream: TcpStream,
        host: &str,
        shown: &str,
    ) -> Result<tokio_rustls::client::TlsStream<TcpStream>, Failure> {
        let settings = self.tls.clone();
        let material = tls::material(&settings).await?;
        let config = tokio::task::spawn_blocking(move || tls::client_config(&settings, &material))
            .await
            .map_err(|_| Failure::transient("setting up TLS was interrupted"))??;
        let name = ServerName::try_from(host.to_owned())
            .map_err(|_| Failure::stalled(format!("{shown} has no usable name")))?;
        TlsConnector::from(Arc::new(config))
            .connect(name, stream)
            .await
            .map_err(|error| broken(shown, &error))
    }
}

fn authority(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

fn broken(shown: &str, error: &io::Error) -> Failure {
    Failure::transient(format!("{shown} broke the connection off: {error}"))
}

async fn reach(host: &str, port: u16, shown: &str, deadline: Instant) -> Result<TcpStream, Failure> {
    let deadline = deadline.min(Instant::now() + CONNECT_TIMEOUT);
    match timeout_at(deadline, TcpStream::connect((host, port))).await {
        Ok(Ok(stream)) => {
            stream.set_nodelay(true).map_err(|error| broken(shown, &error))?;
            Ok(stream)
        }
        Ok(Err(error)) => Err(Failure::transient(format!("{shown} cannot be reached: {error}"))),
        Err(_) => Err(Failure::transient(format!("{shown} cannot be reached: no answer in time"))),
    }
}

async fn look_up(host: &str, port: u16, place: &str) -> Result<SocketAddr, Failure> {
    let failed = |why: &dyn fmt::Display| Failure::transient(format!("{place} cannot be looked up: {why}"));
    let mut addresses = lookup_host((host, port)).await.map_err(|error| failed(&error))?;
    addresses.next().ok_or_else(|| failed(&"the name has no address"))
}

async fn ask_http(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    place: &str,
    user: Option<(&str, &Secret)>,
    shown: &str,
) -> Result<(), Failure> {
    let mut request = format!("CONNECT {place} HTTP/1.1\r\nHost: {place}\r\n");
    if let Some((username, password)) = user {
        let joined = Secret::new(format!("{username}:{}", password.expose()));
        let encoded = base64::engine::general_purpose::STANDARD.encode(joined.expose());
        request.push_str(&format!("Proxy-Authorization: Basic {encoded}\r\n"));
    }
    request.push_str("\r\n");
    let request = Secret::new(request);
    stream.write_all(request.expose().as_bytes()).await.map_err(|error| broken(shown, &error))?;
    stream.flush().await.map_err(|error| broken(shown, &error))?;
    // Byte by byte: what follows the head is the server's already.
    let mut head = Vec::with_capacity(256);
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() >= ANSWER_LIMIT {
            return Err(Failure::rejected(
                crate::Rejection::Shape,
                format!("{shown} does not answer like a proxy"),
            ));
        }
        head.push(stream.read_u8().await.map_err(|error| broken(shown, &error))?);
    }
    let line =
        String::from_utf8_lossy(head.split(|byte| *byte == b'\r').next().unwrap_or_default()).into_owned();
    let status = line.strip_prefix("HTTP/1.").and_then(|rest| rest.split(' ').nth(1)).map(str::parse::<u16>);
    match status {
        Some(Ok(200..=299)) => Ok(()),
        Some(Ok(407)) => {
            Err(Failure::new(ErrorClass::Forbidden, format!("{shown} asks for a credential (407)"))
                .with_help("give `proxy` a `username` and a `password`"))
        }
        Some(Ok(403)) => Err(Failure::new(
            ErrorClass::Forbidden,
            format!("{shown} does not allow connections to {place} (403)"),
        )),
        Some(Ok(status)) => Err(Failure::transient(format!("{shown} does not reach {place} ({status})"))),
        _ => Err(Failure::rejected(crate::Rejection::Shape, format!("{shown} does not answer like a proxy"))),
    }
}

async fn socks(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    host: &str,
    port: u16,
    target: Option<SocketAddr>,
    user: Option<(&str, &Secret)>,
    shown: &str,
) -> Result<(), Failure> {
    const VERSION: u8 = 5;
    const NO_AUTHENTICATION: u8 = 0;
    const PASSWORD: u8 = 2;
    let failed = |error: io::Error| broken(shown, &error);
    let odd =
        || Failure::rejected(crate::Rejection::Shape, format!("{shown} does not answer like a SOCKS proxy"));
    let too_long = |what: &str| Failure::stalled(format!("{what} is longer than SOCKS can say (255 bytes)"));
    let hello: &[u8] = match user {
        Some(_) => &[VERSION, 2, NO_AUTHENTICATION, PASSWORD],
        None => &[VERSION, 1, NO_AUTHENTICATION],
    };
    stream.write_all(hello).await.map_err(failed)?;
    let mut choice = [0; 2];
    stream.read_exact(&mut choice).await.map_err(failed)?;
    match (choice, user) {
        ([VERSION, NO_AUTHENTICATION], _) => {}
        ([VERSION, PASSWORD], Some((username, password))) => {
            let length = |text: &str, what| u8::try_from(text.len()).map_err(|_| too_long(what));
            let mut request = vec![1, length(username, "`proxy.username`")?];
            request.extend_from_slice(username.as_bytes());
            request.push(length(password.expose(), "`proxy.password`")?);
            request.extend_from_slice(password.expose().as_bytes());
            let sent = stream.write_all(&request).await;
            request.fill(0);
            sent.map_err(failed)?;
            let mut answer = [0; 2];
            stream.read_exact(&mut answer).await.map_err(failed)?;
            if answer[1] != 0 {
                let message = format!("{shown} does not accept the credential");
                return Err(Failure::new(ErrorClass::Forbidden, message));
            }
        }
        ([VERSION, _], _) => {
            let message = format!("{shown} asks for a credential");
            return Err(Failure::new(ErrorClass::Forbidden, message)
                .with_help("give `proxy` a `username` and a `password`"));
        }
        _ => return Err(odd()),
    }
    let mut request = vec![VERSION, 1, 0];
    match target.map(|target| target.ip()).or_else(|| host.parse().ok()) {
        Some(IpAddr::V4(address)) => {
            request.push(1);
            request.extend_from_slice(&address.octets());
        }
        Some(IpAddr::V6(address)) => {
            request.push(4);
            request.extend_from_slice(&address.octets());
        }
        None => {
            request.push(3);
            request.push(u8::try_from(host.len()).map_err(|_| too_long("the host's name"))?);
            request.extend_from_slice(host.as_bytes());
        }
    }
    request.extend_from_slice(&port.to_be_bytes());
    stream.write_all(&request).await.map_err(failed)?;
    let mut answer = [0; 4];
    stream.read_exact(&mut answer).await.map_err(failed)?;
    if answer[0] != VERSION {
        return Err(odd());
    }
    let place = authority(host, port);
    match answer[1] {
        0 => {}
        2 => {
            let message = format!("{shown} does not allow connections to {place}");
            return Err(Failure::new(ErrorClass::Forbidden, message));
        }
        code => {
            let why = match code {
                3 => "the network cannot be reached",
                4 => "the host cannot be reached",
                5 => "the connection is refused",
                6 => "it took too long",
                _ => "a general failure",
            };
            return Err(Failure::transient(format!("{shown} does not reach {place}: {why}")));
        }
    }
    // The address that the proxy uses itself, which nobody needs.
    let length = match answer[3] {
        1 => 4,
        4 => 16,
        3 => usize::from(stream.read_u8().await.map_err(failed)?),
        _ => return Err(odd()),
    };
    let mut rest = [0; 257];
    stream.read_exact(&mut rest[..length + 2]).await.map_err(failed)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn hosts_that_are_reached_directly() {
        let list = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let no_proxy = list("internal .example.com 10.0.0.0/8 192.0.2.7 2001:db8::/32 a.test,b.test");
        for host in [
            "internal",
            "git.internal",
            "Git.Internal.",
            "example.com",
            "x.example.com",
            "10.1.2.3",
            "192.0.2.7",
            "2001:db8::1",
            "b.test",
        ] {
            assert!(is_direct(&no_proxy, host), "{host}");
        }
        for host in ["notinternal", "example.org", "11.0.0.1", "192.0.2.8", "2001:db9::1", ""] {
            assert!(!is_direct(&no_proxy, host), "{host}");
        }
        assert!(is_direct(&list("*"), "anything") && !is_direct(&[], "anything"));
        assert!(!is_direct(&list("10.0.0.0/33 10.0.0.0/x /8"), "10.0.0.1"));
        assert!(is_direct(&list("0.0.0.0/0"), "10.0.0.1"));
    }

    #[test]
    fn addresses_of_proxies() {
        let proxy = |url: &str| ProxySettings {
            url: url.to_owned(),
            no_proxy: Vec::new(),
            username: None,
            password: None,
        };
        for url in ["http://p:3128", "https://p", "socks5://p", "socks5h://[::1]:9"] {
            assert!(proxy_address(&proxy(url)).is_ok(), "{url}");
        }
        for url in ["p:3128", "ftp://p", "http://", "socks5://hunter2@p", "http://u:hunter2@p"] {
            let failure = proxy_address(&proxy(url)).unwrap_err();
            assert!(!format!("{failure:?}").contains("hunter2"), "{failure:?}");
        }
    }

    /// Lets a client speak to bytes that are there already.
    async fn talk(answer: &[u8], socks_proxy: bool) -> Result<(), Failure> {
        let (mut ours, mut theirs) = tokio::io::duplex(64 * 1024);
        theirs.write_all(answer).await.unwrap();
        let password = Secret::new("hunter2");
        let user = Some(("ada", &password));
        let asked = async {
            if socks_proxy {
                socks(&mut ours, "git.example", 22, None, user, "the proxy").await
            } else {
                ask_http(&mut ours, "git.example:22", user, "the proxy").await
            }
        };
        // Nothing more comes.
        let ended = async {
            theirs.shutdown().await.unwrap();
            let mut sink = [0; 4096];
            while theirs.read(&mut sink).await.is_ok_and(|read| read > 0) {}
        };
        tokio::select! {
            asked = asked => asked,
            () = ended => Err(Failure::transient("the end")),
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn any_answer_of_a_proxy_is_taken_or_refused(
            answer in prop::collection::vec(any::<u8>(), 0..64),
            start in 0_usize..5,
            socks_proxy in any::<bool>(),
        ) {
            let beginning: [&[u8]; 5] = [b"", b"HTTP/1.1 200 x\r\n", b"\x05\x00", b"\x05\x02\x01\x00", b"\x05\x00\x05\x00\x00\x03"];
            let bytes = [beginning[start], &answer].concat();
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            if let Err(failure) = runtime.block_on(talk(&bytes, socks_proxy)) {
                let shown = format!("{failure:?}");
                prop_assert!(!shown.contains("hunter2"));
            }
        }
    }
}

//! The way to a source's server, step by step: its name, a connection, the handshake of TLS with the certificate's dates,
//! and the `Date` of its answer. No credential is sent, and the same certificates and authorities are used as by the source.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::pki_types::ServerName;
use rustls::{CertificateError, InvalidMessage};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use super::address::{Server, Speaks};
use super::certificate::certificate_validity;
use super::{Finding, Severity};
use crate::http_status::parse_date;
use crate::settings::SourceSettings;
use crate::tls;

/// Time for one step: a name, a connection, a handshake, an answer.
const STEP: Duration = Duration::from_secs(5);
/// Longest head of an answer that is read, in bytes.
const HEAD_LIMIT: usize = 16 * 1024;
/// How many days before its end a certificate is worth a warning.
const DAYS_LEFT: i64 = 14;
const DAY: i64 = 24 * 60 * 60;

/// What was seen on the way to a server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Reading {
    /// What its name stands for.
    pub(super) addresses: Vec<IpAddr>,
    /// Addresses that did not take a connection before one did.
    pub(super) silent: Vec<IpAddr>,
    /// The one that did.
    pub(super) connected: Option<IpAddr>,
    /// When the certificate ends, in seconds since the epoch.
    pub(super) certificate_ends: Option<i64>,
    /// The protocol version of TLS.
    pub(super) tls_version: Option<String>,
    /// By how many milliseconds the server's clock is ahead of this one's.
    pub(super) clock_offset: Option<i64>,
    /// Where the way ended.
    pub(super) obstacle: Option<Obstacle>,
}

/// What was in the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Obstacle {
    /// The name stands for nothing, or nobody said.
    Name(String),
    /// No address took a connection.
    Connection(String),
    /// The files of `tls` cannot be used.
    TlsFiles(String),
    /// The certificate is past its end.
    Expired(Option<i64>),
    /// The certificate begins in the future.
    NotYetValid,
    /// The certificate is somebody else's.
    OtherName,
    /// Nobody who is trusted issued the certificate.
    Untrusted,
    /// What answers does not speak TLS.
    PlainText,
    /// Anything else in the handshake.
    Handshake(String),
    /// What answers is no SSH server.
    NotSsh,
}

/// Goes to the server, as far as it gets.
pub(super) async fn read(server: &Server, settings: &SourceSettings, end: Instant) -> Reading {
    let mut reading = Reading::default();
    if let Err(obstacle) = walk(server, settings, end, &mut reading).await {
        reading.obstacle = Some(obstacle);
    }
    reading
}

async fn walk(
    server: &Server,
    settings: &SourceSettings,
    end: Instant,
    reading: &mut Reading,
) -> Result<(), Obstacle> {
    let step = || end.min(Instant::now() + STEP);
    let found = timeout_at(step(), tokio::net::lookup_host((server.host.as_str(), server.port))).await;
    let addresses: Vec<SocketAddr> = match found {
        Ok(Ok(addresses)) => addresses.collect(),
        Ok(Err(error)) => return Err(Obstacle::Name(error.to_string())),
        Err(_) => return Err(Obstacle::Name("no answer in time".to_owned())),
    };
    for address in &addresses {
        if !reading.addresses.contains(&address.ip()) {
            reading.addresses.push(address.ip());
        }
    }
    let mut refused = String::from("the name has no address");
    let mut stream = None;
    for address in &addresses {
        match timeout_at(step(), TcpStream::connect(address)).await {
            Ok(Ok(connected)) => {
                reading.connected = Some(address.ip());
                stream = Some(connected);
                break;
            }
            Ok(Err(error)) => refused = error.to_string(),
            Err(_) => refused = format!("no answer within {} s", STEP.as_secs()),
        }
        reading.silent.push(address.ip());
    }
    let Some(stream) = stream else { return Err(Obstacle::Connection(refused)) };
    match server.speaks {
        // A proxy is asked by the source itself, which has the credentials for it.
        Speaks::Http if server.is_proxy => Ok(()),
        Speaks::Http => {
            reading.clock_offset = clock_offset(stream, server, step()).await;
            Ok(())
        }
        Speaks::Https => {
            let stream = handshake(stream, server, settings, step(), reading).await?;
            if !server.is_proxy {
                reading.clock_offset = clock_offset(stream, server, step()).await;
            }
            Ok(())
        }
        Speaks::Ssh => greeting(stream, step()).await,
    }
}

async fn handshake(
    stream: TcpStream,
    server: &Server,
    settings: &SourceSettings,
    deadline: Instant,
    reading: &mut Reading,
) -> Result<tokio_rustls::client::TlsStream<TcpStream>, Obstacle> {
    let files = settings.tls.clone().unwrap_or_default();
    let material = tls::material(&files).await.map_err(|failure| Obstacle::TlsFiles(failure.message))?;
    let config = tokio::task::spawn_blocking(move || tls::client_config(&files, &material)).await;
    let config = config
        .map_err(|_| Obstacle::Handshake("setting it up was interrupted".to_owned()))?
        .map_err(|failure| Obstacle::TlsFiles(failure.message))?;
    let name = ServerName::try_from(server.host.clone())
        .map_err(|_| Obstacle::Handshake(format!("`{}` is no host name", server.host)))?;
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let stream = match timeout_at(deadline, connector.connect(name, stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            let failed = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
            return Err(failed.map_or_else(|| Obstacle::Handshake(error.to_string()), obstacle));
        }
        Err(_) => return Err(Obstacle::Handshake(format!("no answer within {} s", STEP.as_secs()))),
    };
    let (_, connection) = stream.get_ref();
    reading.tls_version = connection.protocol_version().and_then(|version| match version {
        rustls::ProtocolVersion::TLSv1_2 => Some("TLS 1.2".to_owned()),
        rustls::ProtocolVersion::TLSv1_3 => Some("TLS 1.3".to_owned()),
        _ => None,
    });
    let certificate = connection.peer_certificates().and_then(<[_]>::first);
    reading.certificate_ends = certificate
        .and_then(|certificate| certificate_validity(certificate))
        .map(|validity| validity.not_after);
    Ok(stream)
}

fn obstacle(error: &rustls::Error) -> Obstacle {
    use rustls::Error;
    match error {
        Error::InvalidCertificate(CertificateError::Expired) => Obstacle::Expired(None),
        Error::InvalidCertificate(CertificateError::ExpiredContext { not_after, .. }) => {
            Obstacle::Expired(i64::try_from(not_after.as_secs()).ok())
        }
        Error::InvalidCertificate(
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. },
        ) => Obstacle::NotYetValid,
        Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => Obstacle::OtherName,
        Error::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature) => {
            Obstacle::Untrusted
        }
        Error::InvalidMessage(InvalidMessage::InvalidContentType | InvalidMessage::MessageTooLarge) => {
            Obstacle::PlainText
        }
        other => Obstacle::Handshake(other.to_string()),
    }
}

/// By how many milliseconds the clock behind the `Date` of an answer is ahead of this one's; dates are cut off to seconds.
async fn clock_offset(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    server: &Server,
    deadline: Instant,
) -> Option<i64> {
    let request = format!(
        "HEAD / HTTP/1.1\r\nHost: {}\r\nUser-Agent: invar/{} (doctor)\r\nConnection: close\r\n\r\n",
        server.place(),
        env!("CARGO_PKG_VERSION"),
    );
    let before = SystemTime::now();
    let head = timeout_at(deadline, async {
        stream.write_all(request.as_bytes()).await.ok()?;
        stream.flush().await.ok()?;
        let mut head = Vec::new();
        let mut part = [0; 1024];
        while head.len() < HEAD_LIMIT && !head.windows(4).any(|end| end == b"\r\n\r\n") {
            match stream.read(&mut part).await.ok()? {
                0 => break,
                count => head.extend_from_slice(&part[..count]),
            }
        }
        Some(head)
    });
    let head = head.await.ok()??;
    let after = SystemTime::now();
    let date = date_of(&String::from_utf8_lossy(&head))?;
    let millis = |time: SystemTime| {
        let since = time.duration_since(SystemTime::UNIX_EPOCH).ok()?;
        i64::try_from(since.as_millis()).ok()
    };
    let (before, after) = (millis(before)?, millis(after)?);
    let seen = i64::try_from(date).ok()?.checked_mul(1000)?.checked_add(500)?;
    Some(seen - (before + (after - before) / 2))
}

/// The `Date` in the head of an HTTP answer, in seconds since the epoch.
fn date_of(head: &str) -> Option<u64> {
    let mut lines = head.split("\r\n");
    lines.next().filter(|line| line.starts_with("HTTP/1."))?;
    lines
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("date"))
        .and_then(|(_, value)| parse_date(value.trim()))
}

/// The line an SSH server begins with (RFC 4253, section 4.2).
async fn greeting(mut stream: TcpStream, deadline: Instant) -> Result<(), Obstacle> {
    let mut seen = Vec::new();
    let mut part = [0; 256];
    let read = timeout_at(deadline, async {
        // Lines may come before it.
        while seen.len() < HEAD_LIMIT && !says_ssh(&seen) {
            match stream.read(&mut part).await {
                Ok(0) | Err(_) => break,
                Ok(count) => seen.extend_from_slice(&part[..count]),
            }
        }
    });
    // What came until then decides.
    drop(read.await);
    if says_ssh(&seen) { Ok(()) } else { Err(Obstacle::NotSsh) }
}

fn says_ssh(seen: &[u8]) -> bool {
    seen.split(|byte| *byte == b'\n')
        .any(|line| line.starts_with(b"SSH-2.0-") || line.starts_with(b"SSH-1.99-"))
}

/// What a reading means.
pub(super) fn findings_of(
    server: &Server,
    settings: &SourceSettings,
    reading: &Reading,
    now: SystemTime,
) -> Vec<Finding> {
    let place = server.place();
    let who = if server.is_proxy { "the proxy " } else { "" };
    let mut findings = Vec::new();
    if let Some(obstacle) = &reading.obstacle {
        let trust = trusted(settings);
        let mut finding = match obstacle {
            Obstacle::Name(why) => Finding::problem("dns", format!("{who}{} is not found", server.host))
                .because(why.clone())
                .fix("is the name right? what does `getent hosts` say of it on this host? see /etc/resolv.conf"),
            Obstacle::Connection(why) => {
                Finding::problem("connect", format!("{who}{place} does not take connections"))
                    .because(format!("{why} ({})", addresses(&reading.silent)))
                    .fix("is it up, is the port right, does a firewall allow it? does this host need `proxy = { url = … }`?")
            }
            Obstacle::TlsFiles(why) => Finding::problem("tls", "the files of `tls` cannot be used")
                .because(why.clone())
                .fix("give PEM files that the agent's user can read"),
            Obstacle::Expired(ends) => {
                let when = ends.map(|ends| format!(" {}", days(seconds(now) - ends))).unwrap_or_default();
                Finding::problem("tls", format!("the certificate of {place} has expired{when}"))
                    .because("nobody can tell any more whether it is still the server's")
                    .fix("renew it on the server; if it is new there, set this host's clock")
            }
            Obstacle::NotYetValid => {
                Finding::problem("tls", format!("the certificate of {place} is not valid yet"))
                    .fix("set this host's clock")
            }
            Obstacle::OtherName => {
                Finding::problem("tls", format!("the certificate of {place} is for another name"))
                    .fix("use the name in the certificate, or say it with `tls = { server_name = … }`")
            }
            Obstacle::Untrusted => {
                Finding::problem("tls", format!("the certificate of {place} is not trusted"))
                    .because(format!("none of {trust} issued it"))
                    .fix("name its authority: tls = { ca = \"/etc/invar/ca.pem\" }; or does the server leave out its intermediate certificates?")
            }
            Obstacle::PlainText => Finding::problem("tls", format!("{place} does not speak TLS"))
                .fix("is the port right?"),
            Obstacle::Handshake(why) => {
                Finding::problem("tls", format!("the handshake with {place} failed"))
                    .because(why.clone())
                    .fix("does the server ask for a certificate (`tls = { cert, key }`), or speak only what is older than TLS 1.2?")
            }
            Obstacle::NotSsh => Finding::problem("connect", format!("{place} does not answer like an SSH server"))
                .fix("is the port right?"),
        };
        if settings.optional {
            finding.severity = Severity::Warning;
            finding.what.push_str(" (the source is optional)");
        }
        // An optional source that is not reached is no problem, but no poll reaches it either.
        findings.push(finding);
        return findings;
    }
    let via = reading.connected.map(|address| address.to_string()).unwrap_or_default();
    if reading.silent.is_empty() {
        let of = if via == server.host || via.is_empty() { String::new() } else { format!(" ({via})") };
        findings.push(Finding::ok("connect", format!("{who}{place} is reached{of}")));
    } else {
        findings.push(
            Finding::warning(
                "connect",
                format!("{who}{place} is reached at {via}, but not at {}", addresses(&reading.silent)),
            )
            .because("each new connection may first wait for the one that does not answer")
            .fix(
                "is IPv6 announced here without a way out? correct the name's addresses or the host's routes",
            ),
        );
    }
    if let Some(version) = &reading.tls_version {
        let trust = trusted(settings);
        let left = reading.certificate_ends.map(|ends| ends - seconds(now));
        findings.push(match left {
            Some(left) if left < DAYS_LEFT * DAY => {
                Finding::warning("tls", format!("the certificate of {place} ends in {}", count_of_days(left)))
                    .because("the source cannot be read any more then")
                    .fix("renew it on the server")
            }
            Some(left) => Finding::ok(
                "tls",
                format!("{version}, trusted by {trust}; the certificate ends in {}", count_of_days(left)),
            ),
            None => Finding::ok("tls", format!("{version}, trusted by {trust}")),
        });
    }
    findings
}

fn trusted(settings: &SourceSettings) -> String {
    match settings.tls.as_ref().and_then(|tls| tls.ca.as_ref()) {
        Some(path) => format!("the authorities in {}", path.display()),
        None => "the system's authorities".to_owned(),
    }
}

fn addresses(addresses: &[IpAddr]) -> String {
    addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn seconds(time: SystemTime) -> i64 {
    time.duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
}

fn days(seconds: i64) -> String {
    format!("{} ago", count_of_days(seconds))
}

fn count_of_days(seconds: i64) -> String {
    match seconds / DAY {
        0 => "less than a day".to_owned(),
        1 => "1 day".to_owned(),
        days => format!("{days} days"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    const NOW: u64 = 1_800_000_000;

    fn server(speaks: Speaks) -> Server {
        Server { host: "git.example".to_owned(), port: 443, speaks, is_proxy: false }
    }

    fn of(text: &str, reading: &Reading) -> Vec<Finding> {
        let settings: SourceSettings = toml::from_str(text).unwrap();
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(NOW);
        findings_of(&server(Speaks::Https), &settings, reading, now)
    }

    fn reached(days_left: i64) -> Reading {
        Reading {
            addresses: vec!["192.0.2.1".parse().unwrap()],
            connected: Some("192.0.2.1".parse().unwrap()),
            certificate_ends: Some(NOW as i64 + days_left * DAY),
            tls_version: Some("TLS 1.3".to_owned()),
            ..Reading::default()
        }
    }

    #[test]
    fn a_certificate_says_how_long_it_lasts_and_who_trusts_it() {
        let found = of("", &reached(90));
        assert_eq!(found.iter().map(|found| found.severity).collect::<Vec<_>>(), [Severity::Ok; 2]);
        assert_eq!(found[0].what, "git.example:443 is reached (192.0.2.1)");
        assert_eq!(
            found[1].what,
            "TLS 1.3, trusted by the system's authorities; the certificate ends in 90 days"
        );
        let found = of("tls = { ca = '/etc/ca.pem' }", &reached(90));
        assert!(found[1].what.contains("trusted by the authorities in /etc/ca.pem"));
        let found = of("", &reached(13));
        assert_eq!(found[1].severity, Severity::Warning);
        assert!(found[1].what.ends_with("ends in 13 days"), "{found:?}");
        assert!(of("", &reached(0))[1].what.ends_with("less than a day"));
    }

    #[test]
    fn an_address_that_does_not_answer_is_a_warning_when_another_does() {
        let silent = vec!["2001:db8::1".parse().unwrap()];
        let found = of("", &Reading { silent, ..reached(90) });
        assert_eq!(found[0].severity, Severity::Warning);
        assert!(found[0].what.contains("at 192.0.2.1, but not at 2001:db8::1"), "{found:?}");
    }

    #[test]
    fn every_obstacle_is_a_problem_with_a_fix_and_ends_the_way() {
        let why = || "because".to_owned();
        for (obstacle, check, said) in [
            (Obstacle::Name(why()), "dns", "git.example is not found"),
            (Obstacle::Connection(why()), "connect", "does not take connections"),
            (Obstacle::TlsFiles(why()), "tls", "cannot be used"),
            (Obstacle::Expired(Some(NOW as i64 - 3 * DAY)), "tls", "has expired 3 days ago"),
            (Obstacle::Expired(None), "tls", "has expired"),
            (Obstacle::NotYetValid, "tls", "is not valid yet"),
            (Obstacle::OtherName, "tls", "another name"),
            (Obstacle::Untrusted, "tls", "not trusted"),
            (Obstacle::PlainText, "tls", "does not speak TLS"),
            (Obstacle::Handshake(why()), "tls", "failed"),
            (Obstacle::NotSsh, "connect", "like an SSH server"),
        ] {
            let reading = Reading { obstacle: Some(obstacle), ..Reading::default() };
            let found = of("", &reading);
            assert_eq!(found.len(), 1);
            assert_eq!((found[0].check, found[0].severity), (check, Severity::Problem), "{found:?}");
            assert!(found[0].what.contains(said), "{found:?}");
            assert!(found[0].fix.is_some());
            let optional = of("optional = true", &reading);
            assert_eq!(optional[0].severity, Severity::Warning, "nothing waits for it");
        }
    }

    #[test]
    fn errors_of_the_handshake_are_told_apart() {
        use rustls::Error;
        let certificate = |error| obstacle(&Error::InvalidCertificate(error));
        assert_eq!(certificate(CertificateError::Expired), Obstacle::Expired(None));
        assert_eq!(certificate(CertificateError::NotValidYet), Obstacle::NotYetValid);
        assert_eq!(certificate(CertificateError::NotValidForName), Obstacle::OtherName);
        assert_eq!(certificate(CertificateError::UnknownIssuer), Obstacle::Untrusted);
        let plain = Error::InvalidMessage(InvalidMessage::InvalidContentType);
        assert_eq!(obstacle(&plain), Obstacle::PlainText);
        assert!(matches!(obstacle(&Error::DecryptError), Obstacle::Handshake(_)));
    }

    #[test]
    fn dates_of_answers() {
        let answer = "HTTP/1.1 405 No\r\nServer: x\r\ndate: Sun, 06 Nov 1994 08:49:37 GMT\r\n\r\nDate: y";
        assert_eq!(date_of(answer), Some(784_111_777));
        for other in ["", "SSH-2.0-x\r\n", "HTTP/1.1 200 OK\r\n\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT"] {
            assert_eq!(date_of(other), None, "{other}");
        }
        assert!(says_ssh(b"hello\r\nSSH-2.0-OpenSSH_9.2\r\n") && !says_ssh(b"HTTP/1.1 400\r\n"));
    }

    proptest! {
        #[test]
        fn any_head_is_read_or_not(head in "(HTTP/1\\.1 200\r\n)?(date: )?[ -~\r\n]{0,80}") {
            let _date = date_of(&head);
        }
    }
}

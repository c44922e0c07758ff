//! The port of the HTTP API: free, held by an agent (and then how that one is doing), or taken by something else; and who
//! can reach it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use invar_rollout::{OverallHealth, Status};
use invar_sources::Finding;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

/// Time for each step.
const STEP: Duration = Duration::from_secs(3);
/// Longest answer that is read: the status of a large agent, and a bit.
const ANSWER_LIMIT: usize = 4 << 20;

/// What is at the address.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Port {
    /// It is no address, or not one of this host.
    Unusable(String),
    /// This user may not bind it.
    Forbidden,
    /// Nothing; an agent could have it.
    Free,
    /// An agent.
    Agent(Box<Status>),
    /// An agent, or another server, that wants to know who asks.
    Locked,
    /// Something that does not answer as an agent does.
    Other,
}

/// What is to be known of the API's address.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct ServerReading {
    pub(super) listen: String,
    /// Whether only this host reaches it.
    pub(super) loopback: bool,
    pub(super) port: Port,
}

/// Looks at the address.
pub(super) async fn read(listen: &str) -> ServerReading {
    let of = |loopback, port| ServerReading { listen: listen.to_owned(), loopback, port };
    let found = timeout(STEP, tokio::net::lookup_host(listen)).await;
    let addresses: Vec<SocketAddr> = match found {
        Ok(Ok(addresses)) => addresses.collect(),
        Ok(Err(error)) => return of(true, Port::Unusable(error.to_string())),
        Err(_) => return of(true, Port::Unusable("the name is not resolved in time".to_owned())),
    };
    let Some(address) = addresses.first().copied() else {
        return of(true, Port::Unusable("the name has no address".to_owned()));
    };
    let loopback = address.ip().is_loopback();
    let reached = SocketAddr::new(
        match address.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
            ip => ip,
        },
        address.port(),
    );
    // Asked before it is bound: an agent that starts in this moment must not find its port taken.
    if address.port() != 0 && matches!(timeout(STEP, TcpStream::connect(reached)).await, Ok(Ok(_))) {
        return of(loopback, ask(reached).await);
    }
    let port = match TcpListener::bind(address).await {
        Ok(_) => Port::Free,
        Err(error) => match error.kind() {
            std::io::ErrorKind::PermissionDenied => Port::Forbidden,
            std::io::ErrorKind::AddrInUse => Port::Other,
            _ => Port::Unusable(error.to_string()),
        },
    };
    of(loopback, port)
}

async fn ask(address: SocketAddr) -> Port {
    let http = reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .timeout(STEP)
        .build();
    let Ok(http) = http else { return Port::Other };
    let Ok(mut answer) = http.get(format!("http://{address}/api/v1/status")).send().await else {
        return Port::Other;
    };
    if matches!(answer.status().as_u16(), 401 | 403) {
        return Port::Locked;
    }
    let mut body = Vec::new();
    while let Ok(Some(part)) = answer.chunk().await {
        if body.len() + part.len() > ANSWER_LIMIT {
            return Port::Other;
        }
        body.extend_from_slice(&part);
    }
    serde_json::from_slice(&body).map_or(Port::Other, |status| Port::Agent(Box::new(status)))
}

/// What a reading means. `running` is the agent that holds the state directory.
pub(super) fn findings_of(reading: &ServerReading, running: Option<u32>) -> Vec<Finding> {
    let listen = &reading.listen;
    let mut findings = Vec::new();
    let other_port = "set another `[server] listen`, or --server.http.listen-addr";
    match &reading.port {
        Port::Unusable(why) => findings.push(
            Finding::problem("listen", format!("`[server] listen = \"{listen}\"` cannot be used"))
                .because(why.clone())
                .fix("name an address of this host with a port, such as 127.0.0.1:12345"),
        ),
        Port::Forbidden => findings.push(
            Finding::problem("listen", format!("this user may not listen on {listen}"))
                .because("ports below 1024 are for root")
                .fix(format!("{other_port}; or AmbientCapabilities=CAP_NET_BIND_SERVICE in the unit")),
        ),
        Port::Free => findings.push(Finding::ok("listen", format!("{listen} is free"))),
        Port::Agent(status) => {
            findings.push(Finding::ok(
                "listen",
                format!("{listen} is held by `{}`, invar {}", status.agent.name, status.agent.version),
            ));
            findings.push(agent(status));
        }
        Port::Locked => findings
            .push(Finding::ok("listen", format!("{listen} is held by a server that asks for credentials"))),
        Port::Other => match running {
            Some(process) => findings.push(
                Finding::hint(
                    "listen",
                    format!("{listen} is held, and does not answer plain HTTP as an agent does"),
                )
                .because(format!(
                    "process {process} runs on these settings; its pipeline may say `http {{ tls {{ … }} }}`"
                ))
                .fix("look with: invar status --server https://…"),
            ),
            None => findings.push(
                Finding::problem("listen", format!("{listen} is taken by another program"))
                    .because("the agent ends if it cannot have its port")
                    .fix(format!("find it with `ss -ltnp`; or {other_port}")),
            ),
        },
    }
    let in_the_open = match reading.port {
        Port::Unusable(_) => false,
        // That it does not answer plain HTTP is as good as said.
        Port::Other => running.is_none(),
        _ => true,
    };
    if !reading.loopback && in_the_open {
        findings.push(
            Finding::warning("exposure", format!("{listen} is reached from elsewhere, without TLS"))
                .because("whoever reaches it reads what runs, and can hold it or roll it back")
                .fix(
                    "listen on 127.0.0.1, or put `http { tls { … } auth { basic { … } } }` into the pipeline",
                ),
        );
    }
    findings
}

fn agent(status: &Status) -> Finding {
    if status.health == OverallHealth::Degraded {
        let why = status.reason.as_ref().map_or("see the health of its components", |reason| &reason.message);
        return Finding::warning("agent", "it runs, and is degraded").because(why).fix("invar status");
    }
    if status.in_sync {
        return Finding::ok("agent", "it is healthy, and runs what its sources want");
    }
    let why = status.reason.as_ref().map_or(status.phase.as_str(), |reason| &reason.message);
    Finding::warning("agent", "it is healthy, and does not run what its sources want")
        .because(why)
        .fix("invar status")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use invar_sources::Severity;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    fn of(port: Port, loopback: bool, running: Option<u32>) -> Vec<(&'static str, Severity)> {
        let listen = if loopback { "127.0.0.1:12345" } else { "0.0.0.0:12345" };
        let reading = ServerReading { listen: listen.to_owned(), loopback, port };
        let findings = findings_of(&reading, running);
        for finding in findings.iter().filter(|finding| finding.severity != Severity::Ok) {
            assert!(finding.fix.is_some(), "{finding:?}");
        }
        findings.iter().map(|finding| (finding.check, finding.severity)).collect()
    }

    fn status(health: &str, in_sync: bool) -> Box<Status> {
        let text = serde_json::json!({
            "version": 1,
            "agent": { "name": "web-17", "environment": "", "labels": {}, "version": "0.1.0" },
            "health": health, "in_sync": in_sync, "phase": "held", "running": null, "desired": null,
            "last_known_good": null, "reason": null, "sources": [], "components": {}, "rollback_count": 0,
            "quarantined": [], "hold": null, "probation": null, "offline_boot": true, "unproven": false,
        });
        Box::new(serde_json::from_value(text).unwrap())
    }

    #[test]
    fn what_is_at_the_port() {
        assert_eq!(of(Port::Free, true, None), [("listen", Severity::Ok)]);
        assert_eq!(of(Port::Forbidden, true, None), [("listen", Severity::Problem)]);
        assert_eq!(of(Port::Unusable("x".to_owned()), false, None), [("listen", Severity::Problem)]);
        assert_eq!(of(Port::Other, true, None), [("listen", Severity::Problem)]);
        assert_eq!(of(Port::Other, true, Some(42)), [("listen", Severity::Hint)]);
        assert_eq!(of(Port::Locked, true, None), [("listen", Severity::Ok)]);
        let agent = |health, in_sync| of(Port::Agent(status(health, in_sync)), true, None)[1];
        assert_eq!(agent("healthy", true), ("agent", Severity::Ok));
        assert_eq!(agent("healthy", false), ("agent", Severity::Warning));
        assert_eq!(agent("degraded", true), ("agent", Severity::Warning));
    }

    #[test]
    fn beyond_this_host_without_tls_is_a_warning() {
        let exposed = ("exposure", Severity::Warning);
        assert!(of(Port::Free, false, None).contains(&exposed));
        assert!(of(Port::Agent(status("healthy", true)), false, None).contains(&exposed));
        assert!(of(Port::Locked, false, None).contains(&exposed), "the password is sent in the open");
        assert!(!of(Port::Other, false, Some(42)).contains(&exposed), "it speaks TLS, it seems");
    }

    #[tokio::test]
    async fn real_ports() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let answers = [
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}",
            "HTTP/1.1 401 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
            "SSH-2.0-x\r\n",
        ];
        let serving = tokio::spawn(async move {
            let mut answers = answers.iter();
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut head = [0; 1024];
                // The first look is a connection and nothing else.
                if stream.read(&mut head).await.unwrap_or(0) > 0 {
                    stream.write_all(answers.next().unwrap().as_bytes()).await.unwrap();
                }
            }
        });
        crate::tls::install_provider();
        for expected in [Port::Other, Port::Locked, Port::Other] {
            let reading = read(&address).await;
            assert!(reading.loopback);
            assert_eq!(reading.port, expected);
        }
        serving.abort();
        drop(serving.await);
        assert_eq!(read(&address).await.port, Port::Free);
        assert!(matches!(read("nowhere").await.port, Port::Unusable(_)));
        // An address for documentation, which no host has.
        assert!(matches!(read("192.0.2.1:12345").await.port, Port::Unusable(_)));
    }
}

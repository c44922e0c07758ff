//! A small proxy for tests: `CONNECT` of HTTP, with TLS or without, or SOCKS 5; with a credential or without. It notes where
//! it was asked to go.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ProxyKind {
    Http,
    Socks,
}

pub(crate) struct Proxy {
    address: SocketAddr,
    /// How it is called: its certificate has a name.
    host: &'static str,
    targets: Arc<Mutex<Vec<String>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Proxy {
    pub(crate) async fn start(kind: ProxyKind, credential: Option<(&'static str, &'static str)>) -> Self {
        Self::start_as(kind, credential, None).await
    }

    /// One of HTTP that is itself reached over TLS, as `localhost`.
    pub(crate) async fn start_tls(
        tls: Arc<rustls::ServerConfig>,
        credential: Option<(&'static str, &'static str)>,
    ) -> Self {
        Self::start_as(ProxyKind::Http, credential, Some(TlsAcceptor::from(tls))).await
    }

    async fn start_as(
        kind: ProxyKind,
        credential: Option<(&'static str, &'static str)>,
        tls: Option<TlsAcceptor>,
    ) -> Self {
        let host = if tls.is_some() { "localhost" } else { "127.0.0.1" };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let targets = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&targets);
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (noted, tls) = (Arc::clone(&noted), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        Some(tls) => {
                            if let Ok(client) = tls.accept(client).await {
                                serve(client, kind, credential, &noted).await;
                            }
                        }
                        None => serve(client, kind, credential, &noted).await,
                    }
                });
            }
        });
        Self { address, host, targets, task }
    }

    pub(crate) fn url(&self, scheme: &str) -> String {
        format!("{scheme}://{}:{}", self.host, self.address.port())
    }

    /// Where it was asked to go, and went.
    pub(crate) fn targets(&self) -> Vec<String> {
        self.targets.lock().unwrap().clone()
    }
}

/// Does what one client asks for, and notes it.
async fn serve(
    mut client: impl AsyncRead + AsyncWrite + Unpin,
    kind: ProxyKind,
    credential: Option<(&str, &str)>,
    noted: &Mutex<Vec<String>>,
) {
    let target = match kind {
        ProxyKind::Http => http(&mut client, credential).await,
        ProxyKind::Socks => socks(&mut client, credential).await,
    };
    let Ok(Some(target)) = target else { return };
    noted.lock().unwrap().push(target.clone());
    if let Ok(mut server) = TcpStream::connect(target).await {
        drop(copy_bidirectional(&mut client, &mut server).await);
    }
}

async fn http(
    client: &mut (impl AsyncRead + AsyncWrite + Unpin),
    credential: Option<(&str, &str)>,
) -> std::io::Result<Option<String>> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(client.read_u8().await?);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    if let Some((user, password)) = credential {
        let encoded = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
        let expected = format!("proxy-authorization: basic {}", encoded.to_lowercase());
        if !head.to_lowercase().contains(&expected) {
            client
                .write_all(b"HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n")
                .await?;
            return Ok(None);
        }
    }
    let target = head.strip_prefix("CONNECT ").and_then(|rest| rest.split(' ').next());
    if target.is_some() {
        client.write_all(b"HTTP/1.1 200 Connection established\r\nvia: test\r\n\r\n").await?;
    }
    Ok(target.map(str::to_owned))
}

async fn socks(
    client: &mut (impl AsyncRead + AsyncWrite + Unpin),
    credential: Option<(&str, &str)>,
) -> std::io::Result<Option<String>> {
    assert_eq!(client.read_u8().await?, 5);
    let mut methods = vec![0; usize::from(client.read_u8().await?)];
    client.read_exact(&mut methods).await?;
    match credential {
        None => client.write_all(&[5, 0]).await?,
        Some((user, password)) if methods.contains(&2) => {
            client.write_all(&[5, 2]).await?;
            assert_eq!(client.read_u8().await?, 1);
            let mut words = Vec::new();
            for _ in 0..2 {
                let mut word = vec![0; usize::from(client.read_u8().await?)];
                client.read_exact(&mut word).await?;
                words.push(String::from_utf8(word).unwrap());
            }
            let right = words == [user, password];
            client.write_all(&[1, u8::from(!right)]).await?;
            if !right {
                return Ok(None);
            }
        }
        Some(_) => {
            client.write_all(&[5, 0xff]).await?;
            return Ok(None);
        }
    }
    let mut request = [0; 4];
    client.read_exact(&mut request).await?;
    assert_eq!(&request[..3], [5, 1, 0]);
    let host = match request[3] {
        1 => {
            let mut address = [0; 4];
            client.read_exact(&mut address).await?;
            std::net::Ipv4Addr::from(address).to_string()
        }
        3 => {
            let mut name = vec![0; usize::from(client.read_u8().await?)];
            client.read_exact(&mut name).await?;
            String::from_utf8(name).unwrap()
        }
        other => panic!("an address of kind {other}"),
    };
    let port = client.read_u16().await?;
    client.write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0]).await?;
    Ok(Some(format!("{host}:{port}")))
}

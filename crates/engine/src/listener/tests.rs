//! The registry against real sockets, with a dispatcher that the test moves from node to node.

#![allow(clippy::unwrap_used)]

use std::collections::HashMap;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use invar_syntax::secret::Secret;
use invar_tls::{Origin, Origins, ServerSettings};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::Notify;

use super::*;
use crate::delivery::PrepareErrorKind;

/// Answers with the name of the node and the body's length; `/wait` first waits to be released.
#[derive(Default)]
struct Board {
    bound: Mutex<HashMap<SocketId, (NodeId, LoanId)>>,
    waiting: Arc<Notify>,
    release: Arc<Notify>,
}

impl Board {
    fn bind(&self, loan: &ListenerLoan, node: &str) {
        self.bound.lock().insert(loan.id().socket, (NodeId::new(node), loan.id()));
    }

    fn unbind(&self, loan: &ListenerLoan) {
        self.bound.lock().remove(&loan.id().socket);
    }
}

impl Dispatcher for Board {
    fn bound(&self, socket: SocketId) -> Option<(NodeId, LoanId)> {
        self.bound.lock().get(&socket).cloned()
    }

    fn dispatch(&self, node: NodeId, request: Request) -> BoxFuture<'static, Response> {
        let (waiting, release) = (Arc::clone(&self.waiting), Arc::clone(&self.release));
        Box::pin(async move {
            assert!(request.extensions().get::<RemoteAddress>().is_some());
            if request.uri().path() == "/wait" {
                waiting.notify_one();
                release.notified().await;
            }
            Response::new(Bytes::from(format!("{node} {}", request.body().len())))
        })
    }
}

fn start() -> (ListenerRegistry, Arc<Board>) {
    let (registry, board) = (ListenerRegistry::new(), Arc::new(Board::default()));
    let dispatcher: Weak<dyn Dispatcher> = Arc::downgrade(&(Arc::clone(&board) as Arc<dyn Dispatcher>));
    registry.attach(dispatcher);
    (registry, board)
}

fn ask(address: &str) -> ListenRequest {
    ListenRequest {
        address: address.to_owned(),
        tls: None,
        http2: None,
        read_timeout: Some(Duration::from_secs(5)),
        write_timeout: Some(Duration::from_secs(5)),
        idle_timeout: Some(Duration::from_secs(30)),
        connection_limit: None,
        body_limit: 1024,
    }
}

async fn connect(address: SocketAddr) -> SendRequest<Full<Bytes>> {
    let (client, connection) =
        handshake(TokioIo::new(TcpStream::connect(address).await.unwrap())).await.unwrap();
    tokio::spawn(async move { drop(connection.await) });
    client
}

async fn send(
    client: &mut SendRequest<Full<Bytes>>,
    path: &str,
    body: &'static [u8],
) -> (u16, http::HeaderMap, String) {
    client.ready().await.unwrap();
    let request =
        http::Request::post(path).header("host", "test").body(Full::new(Bytes::from_static(body))).unwrap();
    let (parts, body) = client.send_request(request).await.unwrap().into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    (parts.status.as_u16(), parts.headers, String::from_utf8(body.to_vec()).unwrap())
}

#[tokio::test]
async fn a_keep_alive_client_outlives_the_component_that_accepted_it() {
    let (registry, board) = start();
    let first = registry.borrow(ask("127.0.0.1:0"), NodeId::new("a")).unwrap();
    let address = first.address();
    board.bind(&first, "a");
    let mut client = connect(address).await;
    assert_eq!(send(&mut client, "/", b"123").await.2, "a 3");

    // The same node under other arguments: the same socket, whatever the port was asked for as.
    let second = registry.borrow(ask("127.0.0.1:0"), NodeId::new("a")).unwrap();
    assert_eq!(second.address(), address);
    board.bind(&second, "a");
    drop(first);
    assert_eq!(send(&mut client, "/", b"").await.2, "a 0");

    // Another node names that very port and takes it over.
    let third = registry.borrow(ask(&address.to_string()), NodeId::new("b")).unwrap();
    assert_eq!(third.id().socket, second.id().socket);
    board.bind(&third, "b");
    drop(second);
    assert_eq!(send(&mut client, "/", b"").await.2, "b 0");
}

#[tokio::test]
async fn another_node_takes_over_an_address_without_a_refused_request() {
    let (registry, board) = start();
    let port = free_port();
    let address = format!("127.0.0.1:{port}");
    let first = registry.borrow(ask(&address), NodeId::new("a")).unwrap();
    board.bind(&first, "a");
    let mut client = connect(first.address()).await;
    assert_eq!(send(&mut client, "/", b"").await.2, "a 0");
    let second = registry.borrow(ask(&address), NodeId::new("b")).unwrap();
    board.bind(&second, "b");
    drop(first);
    assert_eq!(send(&mut client, "/", b"").await.2, "b 0");
    assert_eq!(send(&mut connect(second.address()).await, "/", b"").await.2, "b 0");
}

#[tokio::test]
async fn nobody_bound_answers_unavailable_with_a_hint() {
    let (registry, board) = start();
    let loan = registry.borrow(ask("127.0.0.1:0"), NodeId::new("a")).unwrap();
    let mut client = connect(loan.address()).await;
    let (status, headers, _) = send(&mut client, "/", b"").await;
    assert_eq!((status, headers["retry-after"].to_str().unwrap()), (503, "5"));
    board.bind(&loan, "a");
    let mut client = connect(loan.address()).await;
    assert_eq!(send(&mut client, "/", b"").await.0, 200);
    board.unbind(&loan);
    assert_eq!(send(&mut client, "/", b"").await.0, 503);
}

#[tokio::test]
async fn an_address_that_another_program_has_is_refused_by_name() {
    let (registry, _board) = start();
    // With SO_REUSEPORT too, as a second agent would set it.
    let other = tokio::net::TcpSocket::new_v4().unwrap();
    other.set_reuseport(true).unwrap();
    other.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let other = other.listen(1).unwrap();
    let address = other.local_addr().unwrap().to_string();
    let error = registry.borrow(ask(&address), NodeId::new("a")).unwrap_err();
    assert_eq!(error.kind, PrepareErrorKind::Resource);
    assert!(error.message.contains(&address) && error.message.contains("in use"), "{error}");
    assert!(error.help.unwrap().contains("choose another port"));
    drop(other);
    registry.borrow(ask(&address), NodeId::new("a")).unwrap();
}

#[tokio::test]
async fn malformed_addresses_are_invalid() {
    let (registry, _board) = start();
    for address in ["127.0.0.1", "127.0.0.1:70000", "127.0.0.1:http"] {
        let error = registry.borrow(ask(address), NodeId::new("a")).unwrap_err();
        assert_eq!(error.kind, PrepareErrorKind::Invalid, "{address}: {error}");
    }
}

#[tokio::test]
async fn the_last_loan_closes_the_socket_after_requests_in_flight() {
    let (registry, board) = start();
    let loan = registry.borrow(ask("127.0.0.1:0"), NodeId::new("a")).unwrap();
    let address = loan.address();
    board.bind(&loan, "a");
    let mut client = connect(address).await;
    let in_flight = tokio::spawn(async move { send(&mut client, "/wait", b"").await });
    board.waiting.notified().await;
    drop(loan);
    assert!(registry.addresses().is_empty());
    board.release.notify_one();
    assert_eq!(in_flight.await.unwrap().0, 200);
    // The accept loop ends soon after; then the kernel refuses.
    while TcpStream::connect(address).await.is_ok() {
        tokio::task::yield_now().await;
    }
    let again = registry.borrow(ask(&address.to_string()), NodeId::new("b")).unwrap();
    assert_eq!(again.address(), address);
}

#[tokio::test]
async fn an_address_can_be_borrowed_again_right_after_it_was_given_back() {
    let (registry, board) = start();
    let loan = registry.borrow(ask("127.0.0.1:0"), NodeId::new("a")).unwrap();
    let address = loan.address();
    for _ in 0..20 {
        let loan = registry.borrow(ask(&address.to_string()), NodeId::new("a")).unwrap();
        drop(loan);
    }
    drop(loan);
    let loan = registry.borrow(ask(&address.to_string()), NodeId::new("a")).unwrap();
    board.bind(&loan, "a");
    tokio::task::yield_now().await;
    assert_eq!(send(&mut connect(address).await, "/", b"").await.0, 200);
}

#[tokio::test]
async fn a_specific_address_and_all_addresses_share_a_port() {
    let (registry, board) = start();
    let port = free_port();
    let all = registry.borrow(ask(&format!(":{port}")), NodeId::new("all")).unwrap();
    let one = registry.borrow(ask(&format!("127.0.0.1:{port}")), NodeId::new("one")).unwrap();
    board.bind(&all, "all");
    board.bind(&one, "one");
    let local: SocketAddr = format!("127.0.0.1:{port}").parse().unwrap();
    let mut client = connect(local).await;
    assert_eq!(send(&mut client, "/", b"").await.2, "one 0");
    // Parked: the wildcard's node serves what arrives at the specific address.
    board.unbind(&one);
    assert_eq!(send(&mut client, "/", b"").await.2, "all 0");
    drop(one);
    // Until the specific socket is gone a connection may still land in its queue.
    while registry.shared.sockets.lock().open.len() > 1 {
        tokio::task::yield_now().await;
    }
    let mut client = connect(local).await;
    assert_eq!(send(&mut client, "/", b"").await.2, "all 0");
}

#[tokio::test]
async fn too_large_bodies_are_refused_before_they_are_read() {
    let (registry, board) = start();
    let loan = registry.borrow(ask("127.0.0.1:0"), NodeId::new("a")).unwrap();
    board.bind(&loan, "a");
    let mut stream = TcpStream::connect(loan.address()).await.unwrap();
    stream.write_all(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1025\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    // Chunked, so that the size shows only on the way.
    let mut stream = TcpStream::connect(loan.address()).await.unwrap();
    stream.write_all(b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n").await.unwrap();
    stream.write_all(format!("401\r\n{}\r\n0\r\n\r\n", "x".repeat(1025)).as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
}

#[tokio::test]
async fn a_slow_head_and_an_idle_connection_end() {
    let (registry, board) = start();
    let mut settings = ask("127.0.0.1:0");
    settings.read_timeout = Some(Duration::from_millis(50));
    settings.idle_timeout = Some(Duration::from_millis(100));
    let loan = registry.borrow(settings, NodeId::new("a")).unwrap();
    board.bind(&loan, "a");
    let mut slow = TcpStream::connect(loan.address()).await.unwrap();
    slow.write_all(b"POST / HT").await.unwrap();
    let mut idle = TcpStream::connect(loan.address()).await.unwrap();
    let mut slow_body = TcpStream::connect(loan.address()).await.unwrap();
    slow_body.write_all(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\nx").await.unwrap();
    let mut answer = Vec::new();
    let ended = async {
        // Closed without or with an answer; never left open.
        drop(slow.read_to_end(&mut Vec::new()).await);
        drop(idle.read_to_end(&mut Vec::new()).await);
        slow_body.read_to_end(&mut answer).await.unwrap();
    };
    tokio::time::timeout(Duration::from_secs(5), ended).await.unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 408"), "{}", String::from_utf8_lossy(&answer));
}

#[tokio::test]
async fn an_idle_deadline_starts_anew_after_each_request() {
    let (registry, board) = start();
    let mut settings = ask("127.0.0.1:0");
    settings.idle_timeout = Some(Duration::from_secs(30));
    let loan = registry.borrow(settings, NodeId::new("a")).unwrap();
    board.bind(&loan, "a");
    let mut client = connect(loan.address()).await;
    // Together far longer than one deadline, by the clock of the runtime.
    for _ in 0..8 {
        assert_eq!(send(&mut client, "/", b"1").await.0, 200);
        tokio::time::pause();
        tokio::time::advance(Duration::from_secs(10)).await;
        tokio::time::resume();
    }
}

#[tokio::test]
async fn connections_beyond_the_limit_wait() {
    let (registry, board) = start();
    let mut settings = ask("127.0.0.1:0");
    settings.connection_limit = Some(1);
    let loan = registry.borrow(settings, NodeId::new("a")).unwrap();
    board.bind(&loan, "a");
    let address = loan.address();
    let mut first = connect(address).await;
    assert_eq!(send(&mut first, "/", b"").await.0, 200);
    let mut second = tokio::spawn(async move { send(&mut connect(address).await, "/", b"").await.0 });
    let waited = tokio::time::timeout(Duration::from_millis(100), &mut second).await;
    assert!(waited.is_err(), "served beyond the limit");
    drop(first);
    assert_eq!(second.await.unwrap(), 200);
}

#[tokio::test]
async fn a_plain_connection_is_closed_once_its_socket_speaks_tls() {
    let (registry, board) = start();
    let port = free_port();
    let address = format!("127.0.0.1:{port}");
    let plain = registry.borrow(ask(&address), NodeId::new("a")).unwrap();
    board.bind(&plain, "a");
    let mut client = connect(plain.address()).await;
    assert!(send(&mut client, "/", b"").await.1.get("connection").is_none());
    let mut settings = ask(&address);
    settings.tls = Some(tls().await);
    let secure = registry.borrow(settings, NodeId::new("a")).unwrap();
    board.bind(&secure, "a");
    let (status, headers, _) = send(&mut client, "/", b"").await;
    assert_eq!((status, headers["connection"].to_str().unwrap()), (200, "close"));
    // New connections are no longer served in plain text.
    let mut stream = TcpStream::connect(secure.address()).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    drop(stream.read_to_end(&mut answer).await);
    assert!(!answer.starts_with(b"HTTP"), "{}", String::from_utf8_lossy(&answer));
}

#[tokio::test]
async fn http_2_is_spoken_in_plain_text_beside_http_1_where_it_is_enabled() {
    use hyper::client::conn::http2;
    use hyper_util::rt::TokioExecutor;
    let (registry, board) = start();
    let mut settings = ask("127.0.0.1:0");
    settings.http2 = Some(Http2::default());
    let loan = registry.borrow(settings.clone(), NodeId::new("a")).unwrap();
    board.bind(&loan, "a");
    let address = loan.address();
    assert_eq!(send(&mut connect(address).await, "/", b"1").await.2, "a 1");
    let stream = TokioIo::new(TcpStream::connect(address).await.unwrap());
    let (client, connection) = http2::handshake(TokioExecutor::new(), stream).await.unwrap();
    let connection = tokio::spawn(connection);
    let post = async |path: &str, body: &'static [u8]| {
        let body = Full::new(Bytes::from_static(body));
        let request = http::Request::post(format!("http://x{path}")).body(body).unwrap();
        let response = client.clone().send_request(request).await.unwrap();
        assert_eq!(response.version(), http::Version::HTTP_2);
        (response.status().as_u16(), response.into_body().collect().await.unwrap().to_bytes())
    };
    // Side by side: one is answered while another waits.
    let (waiting, other) = tokio::join!(post("/wait", b"12"), async {
        board.waiting.notified().await;
        let other = post("/", b"123").await;
        board.release.notify_one();
        other
    });
    assert_eq!((waiting.0, &waiting.1[..]), (200, &b"a 2"[..]));
    assert_eq!((other.0, &other.1[..]), (200, &b"a 3"[..]));
    let too_large: &'static [u8] = &[0; 1025];
    assert_eq!(post("/", too_large).await.0, 413);
    // Without it the connection ends after its next request.
    settings.http2 = None;
    let without = registry.borrow(settings, NodeId::new("a")).unwrap();
    board.bind(&without, "a");
    assert_eq!(post("/", b"").await.0, 200);
    connection.await.unwrap().unwrap();
}

#[tokio::test]
async fn shutdown_waits_for_requests_in_flight_and_refuses_new_loans() {
    let (registry, board) = start();
    let loan = registry.borrow(ask("127.0.0.1:0"), NodeId::new("a")).unwrap();
    board.bind(&loan, "a");
    let mut client = connect(loan.address()).await;
    let in_flight = tokio::spawn(async move { send(&mut client, "/wait", b"").await.0 });
    board.waiting.notified().await;
    let stopping = registry.clone();
    let stopped = tokio::spawn(async move { stopping.shutdown(Duration::from_secs(30)).await });
    while registry.borrow(ask("127.0.0.1:0"), NodeId::new("b")).is_ok() {
        tokio::task::yield_now().await;
    }
    board.release.notify_one();
    assert_eq!(in_flight.await.unwrap(), 200);
    stopped.await.unwrap();
}

#[tokio::test]
async fn shutdown_gives_up_at_its_deadline() {
    let (registry, board) = start();
    let loan = registry.borrow(ask("127.0.0.1:0"), NodeId::new("a")).unwrap();
    board.bind(&loan, "a");
    let mut client = connect(loan.address()).await;
    let request = http::Request::get("/wait").header("host", "x").body(Full::new(Bytes::new())).unwrap();
    let in_flight = tokio::spawn(async move { client.send_request(request).await.is_err() });
    board.waiting.notified().await;
    registry.shutdown(Duration::from_millis(50)).await;
    assert!(in_flight.await.unwrap());
}

/// A port that is free now. The socket that found it is closed before the port is used, which another process could notice;
/// within these tests nobody else asks the kernel for that very port.
fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

async fn tls() -> Arc<ServerTls> {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let text = |name, text: String| Origin::new(name, Secret::new(text), "");
    let origins = Origins {
        certificate: text("cert_pem", made.cert.pem()),
        key: text("key_pem", made.signing_key.serialize_pem()),
        ..Origins::default()
    };
    Arc::new(ServerTls::new(origins, ServerSettings::default()).await.unwrap())
}

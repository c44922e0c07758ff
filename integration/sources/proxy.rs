//! The proxy itself: each fault looks on the wire as its name says.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc::channel;
use std::time::Duration;

use invar_integration::fault_proxy::{Fault, FaultProxy, Protocol};
use invar_integration::{RawTarget, wait_for};
use parking_lot::Mutex;

const BODY: &str = "0123456789";
/// How long nothing has to come where nothing more should.
const MOMENT: Duration = Duration::from_millis(300);
/// How long what should come may take.
const LONG: Duration = Duration::from_secs(30);

/// A server that gives the same ten bytes to everybody.
fn server() -> SocketAddr {
    let target = RawTarget::start(|stream| {
        let date = "Sun, 06 Nov 1994 08:49:37 GMT";
        write!(stream, "HTTP/1.1 200 OK\r\nDate: {date}\r\nContent-Length: {}\r\n\r\n{BODY}", BODY.len())
    });
    target.unwrap().address().parse().unwrap()
}

/// What comes back until the connection ends, or until it ends with `last` and nothing more comes for a moment; and how it
/// ended. What has to come may take its time on a host that is busy.
fn asked_until(address: SocketAddr, last: &str) -> (String, io::Result<usize>) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    let ended = loop {
        let patience = if answer.ends_with(last.as_bytes()) { MOMENT } else { LONG };
        stream.set_read_timeout(Some(patience)).unwrap();
        let mut part = [0; 4096];
        match stream.read(&mut part) {
            Ok(read) if read > 0 => answer.extend_from_slice(&part[..read]),
            ended => break ended,
        }
    };
    (String::from_utf8(answer).unwrap(), ended)
}

/// As [`asked_until`], for the whole body.
fn asked(address: SocketAddr) -> (String, io::Result<usize>) {
    asked_until(address, BODY)
}

fn is_silent(ended: &io::Result<usize>) -> bool {
    let silent = [io::ErrorKind::WouldBlock, io::ErrorKind::TimedOut];
    matches!(ended, Err(error) if silent.contains(&error.kind()))
}

#[test]
fn without_a_fault_everything_passes() {
    let proxy = FaultProxy::start(server(), Protocol::Http).unwrap();
    let (answer, ended) = asked(proxy.address());
    assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.ends_with(BODY), "{answer}");
    assert!(is_silent(&ended), "the connection is kept: {ended:?}");
    let counts = proxy.counts();
    assert_eq!((counts.connections, counts.requests, counts.faults), (1, 1, 0));
    assert_eq!(counts.to_clients, answer.len() as u64);
    assert!(counts.from_clients > 0);
}

#[test]
fn each_fault_is_what_its_name_says() {
    let proxy = FaultProxy::start(server(), Protocol::Http).unwrap();
    let until = |last, fault| {
        proxy.fail(fault);
        let seen = asked_until(proxy.address(), last);
        proxy.heal().unwrap();
        seen
    };
    let with = |fault| until(BODY, fault);
    let (answer, ended) = until("", Fault::Hang);
    assert!(answer.is_empty() && is_silent(&ended), "{answer} {ended:?}");
    let (answer, ended) = with(Fault::Reset);
    assert_eq!(ended.unwrap_err().kind(), io::ErrorKind::ConnectionReset, "{answer}");
    let (answer, ended) = with(Fault::Truncate);
    assert!(answer.ends_with("\r\n\r\n01234") && ended.is_ok(), "{answer} {ended:?}");
    let (answer, ended) = until("01234", Fault::HalfOpen);
    assert!(answer.ends_with("\r\n\r\n01234") && is_silent(&ended), "{answer} {ended:?}");
    let (answer, ended) = with(Fault::TooLong);
    assert!(answer.contains("content-length: 1010") && answer.ends_with(BODY), "{answer} {ended:?}");
    let (answer, ended) = with(Fault::TooShort);
    assert!(answer.contains("content-length: 5") && answer.ends_with(BODY), "{answer} {ended:?}");
    let (answer, ended) = until("H", Fault::Drip(Duration::from_secs(10)));
    assert!(answer == "H" && is_silent(&ended), "{answer} {ended:?}");
    let (answer, _) = until("\r\n\r\n", Fault::not_modified());
    assert!(answer.starts_with("HTTP/1.1 304 ") && answer.ends_with("\r\n\r\n"), "{answer}");
    let (answer, _) = until("injected", Fault::status_with(429, "retry-after", "7"));
    assert!(answer.starts_with("HTTP/1.1 429 ") && answer.contains("retry-after: 7"), "{answer}");
    let (answer, _) = until("</html>", Fault::page());
    assert!(answer.contains("text/html") && answer.contains("sign in"), "{answer}");
    let (ahead, _) = with(Fault::SkewDate(86_400));
    assert!(ahead.ends_with(BODY) && !ahead.contains("1994") && ahead.contains("date: "), "{ahead}");
    let (answer, _) = asked(proxy.address());
    assert!(answer.ends_with(BODY), "healed: {answer}");
    assert_eq!(proxy.counts().faults, 11);
}

#[test]
fn a_closed_port_refuses_and_opens_again() {
    let proxy = FaultProxy::start(server(), Protocol::Http).unwrap();
    proxy.fail(Fault::Refuse);
    let refused = TcpStream::connect(proxy.address()).unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    proxy.heal().unwrap();
    assert!(asked(proxy.address()).0.ends_with(BODY));
}

#[test]
fn what_waits_because_of_a_fault_ends_with_it() {
    let proxy = FaultProxy::start(server(), Protocol::Http).unwrap();
    proxy.fail(Fault::Hang);
    let mut stream = TcpStream::connect(proxy.address()).unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    let met = || (proxy.counts().faults == 1).then_some(());
    wait_for("the fault to be met", Duration::from_secs(10), met).unwrap();
    proxy.heal().unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    assert_eq!(stream.read(&mut [0; 16]).unwrap(), 0);
}

#[test]
fn other_protocols_break_after_so_many_bytes() {
    let proxy = FaultProxy::start(server(), Protocol::Raw(20)).unwrap();
    let whole = asked(proxy.address()).0;
    assert!(whole.ends_with(BODY), "{whole}");
    for (fault, closes) in [(Fault::Truncate, true), (Fault::HalfOpen, false)] {
        proxy.fail(fault);
        let (answer, ended) = asked_until(proxy.address(), &whole[..20]);
        assert_eq!(answer, whole[..20]);
        assert_eq!(ended.is_ok(), closes, "{ended:?}");
    }
    proxy.fail(Fault::Reset);
    let (_, ended) = asked(proxy.address());
    assert_eq!(ended.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    proxy.fail(Fault::Hang);
    assert!(asked_until(proxy.address(), "").0.is_empty());
    proxy.heal().unwrap();
    assert_eq!(asked(proxy.address()).0, whole);
}

#[test]
fn a_fault_that_begins_while_the_server_thinks_is_met() {
    let (think, thought) = channel::<()>();
    let thought = Mutex::new(thought);
    let target = RawTarget::start(move |stream| {
        thought.lock().recv().map_err(io::Error::other)?;
        write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{BODY}", BODY.len())
    });
    let proxy = FaultProxy::start(target.unwrap().address().parse().unwrap(), Protocol::Http).unwrap();
    let address = proxy.address();
    let client = std::thread::spawn(move || asked(address));
    let asks = || (proxy.counts().requests == 1).then_some(());
    wait_for("the request", LONG, asks).unwrap();
    proxy.fail(Fault::Hang);
    think.send(()).unwrap();
    let (answer, ended) = client.join().unwrap();
    assert!(answer.is_empty() && ended.is_ok(), "{answer} {ended:?}");
    assert_eq!(proxy.counts().faults, 1);
}

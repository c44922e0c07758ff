//! Understands just enough of HTTP/1.1 to know where a message ends, and to answer in the server's stead.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::Ordering;
use std::time::{SystemTime, UNIX_EPOCH};

use super::{Fault, Shared};

/// The longest head of a message, in bytes.
const HEAD_LIMIT: usize = 64 << 10;
/// How many bytes too many are promised.
const EXCESS: usize = 1000;

/// The lines before a body.
struct Head {
    first: String,
    headers: Vec<(String, String)>,
}

/// How the length of a body is known.
#[derive(Clone, Copy)]
enum Framing {
    Length(usize),
    Chunked,
    UntilClosed,
}

/// Why a conversation goes on, or does not.
#[derive(PartialEq, Eq)]
enum Next {
    Request,
    Close,
}

impl Shared {
    /// Passes requests on one connection on, until one side has enough or the fault ends it.
    pub(super) fn converse(&self, stream: impl Read + Write, socket: &TcpStream) -> io::Result<()> {
        let mut client = BufReader::new(stream);
        let mut server = None;
        while let Some(head) = Head::read(&mut client)? {
            let body = match head.framing()? {
                Some(framing) => read_body(&mut client, framing)?,
                None => Vec::new(),
            };
            self.requests.fetch_add(1, Ordering::SeqCst);
            // The marks of chunks are gone by now.
            let length = head.header("transfer-encoding").map(|_| body.len());
            let request = [head.encode(length), body].concat();
            self.from_clients.fetch_add(request.len() as u64, Ordering::SeqCst);
            let (fault, epoch) = self.fault();
            if fault.is_some() {
                self.faults.fetch_add(1, Ordering::SeqCst);
            }
            let head_only = head.first.starts_with("HEAD ");
            match fault {
                Some(Fault::Refuse) => return Ok(()),
                Some(Fault::Hang) => return self.hold(socket, epoch),
                Some(Fault::Answer { status, headers, body }) => {
                    let mut answer = answer(status, &headers, body);
                    if head_only {
                        answer.truncate(answer.len() - body.len());
                    }
                    self.send(client.get_mut(), &answer)?;
                    continue;
                }
                _ => {}
            }
            let response = self.ask(&mut server, &request)?;
            // What the server took its time for may be what came after the fault began.
            let (began, now) = self.fault();
            if began.is_some() && now != epoch {
                self.faults.fetch_add(u64::from(fault.is_none()), Ordering::SeqCst);
                return Ok(());
            }
            let upstream = server.as_mut().ok_or_else(|| io::Error::other("asked nobody"))?;
            let framing = response.response_framing(head_only)?;
            let next = match fault {
                None => self.pass(client.get_mut(), upstream, &response, framing)?,
                Some(Fault::SkewDate(seconds)) => {
                    self.pass(client.get_mut(), upstream, &response.dated(seconds), framing)?
                }
                Some(fault) => {
                    let body = match framing {
                        Some(framing) => read_body(upstream, framing)?,
                        None => Vec::new(),
                    };
                    return self.break_off(client.get_mut(), socket, &response, &body, &fault, epoch);
                }
            };
            if next == Next::Close {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Asks the server, once more over a new connection if it has closed the one that was kept.
    fn ask(&self, server: &mut Option<BufReader<TcpStream>>, request: &[u8]) -> io::Result<Head> {
        if let Some(kept) = server {
            let answered = kept.get_mut().write_all(request).and_then(|()| Head::read_final(kept));
            if let Ok(Some(head)) = answered {
                return Ok(head);
            }
        }
        let stream = TcpStream::connect(self.upstream)?;
        stream.set_nodelay(true)?;
        let fresh = server.insert(BufReader::new(stream));
        fresh.get_mut().write_all(request)?;
        Head::read_final(fresh)?.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }

    /// Passes an answer on as it arrives.
    fn pass(
        &self,
        client: &mut (impl Read + Write),
        server: &mut BufReader<TcpStream>,
        head: &Head,
        framing: Option<Framing>,
    ) -> io::Result<Next> {
        self.send(client, &head.encode(None))?;
        match framing {
            None => {}
            Some(Framing::Length(mut left)) => {
                while left > 0 {
                    let available = server.fill_buf()?;
                    let length = available.len().min(left);
                    if length == 0 {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                    self.send(client, &available[..length])?;
                    server.consume(length);
                    left -= length;
                }
            }
            Some(Framing::Chunked) => loop {
                let (line, size) = read_chunk_size(server)?;
                let mut chunk = vec![0; size];
                server.read_exact(&mut chunk)?;
                let end = read_line(server)?;
                self.send(client, &[line.as_bytes(), &chunk, end.as_bytes()].concat())?;
                if size == 0 {
                    break;
                }
            },
            Some(Framing::UntilClosed) => {
                loop {
                    let available = server.fill_buf()?;
                    let length = available.len();
                    if length == 0 {
                        break;
                    }
                    self.send(client, available)?;
                    server.consume(length);
                }
                return Ok(Next::Close);
            }
        }
        Ok(Next::Request)
    }

    /// Sends an answer in the way that the fault wants.
    fn break_off(
        &self,
        client: &mut (impl Read + Write),
        socket: &TcpStream,
        head: &Head,
        body: &[u8],
        fault: &Fault,
        epoch: u64,
    ) -> io::Result<()> {
        let promised = match fault {
            Fault::TooLong => body.len() + EXCESS,
            Fault::TooShort => body.len() / 2,
            _ => body.len(),
        };
        let head = head.encode(Some(promised));
        // In the middle of the body; of the head where there is no body.
        let middle = if body.is_empty() { head.len() / 2 } else { head.len() + body.len() / 2 };
        let message = [head.as_slice(), body].concat();
        match fault {
            Fault::Reset => {
                self.send(client, &message[..middle])?;
                self.reset(socket)
            }
            Fault::Truncate => {
                self.send(client, &message[..middle])?;
                socket.shutdown(Shutdown::Both)
            }
            Fault::HalfOpen => {
                self.send(client, &message[..middle])?;
                self.hold(socket, epoch)
            }
            Fault::Drip(pause) => {
                for byte in message {
                    if self.state().epoch != epoch {
                        break;
                    }
                    self.send(client, &[byte])?;
                    std::thread::sleep(*pause);
                }
                Ok(())
            }
            _ => {
                self.send(client, &message)?;
                socket.shutdown(Shutdown::Both)
            }
        }
    }

    fn send(&self, client: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
        self.to_clients.fetch_add(bytes.len() as u64, Ordering::SeqCst);
        client.write_all(bytes)?;
        client.flush()
    }
}

impl Head {
    /// The next head; `None` where the other side has nothing more to say.
    fn read(stream: &mut impl BufRead) -> io::Result<Option<Self>> {
        let first = read_line(stream)?;
        if first.is_empty() {
            return Ok(None);
        }
        let mut head = Self { first: first.trim_end().to_owned(), headers: Vec::new() };
        let mut length = first.len();
        loop {
            let line = read_line(stream)?;
            length += line.len();
            if line.is_empty() || length > HEAD_LIMIT {
                return Err(io::ErrorKind::InvalidData.into());
            }
            let Some((name, value)) = line.trim_end().split_once(':') else { return Ok(Some(head)) };
            head.headers.push((name.to_owned(), value.trim().to_owned()));
        }
    }

    /// The next head that is not an interim one.
    fn read_final(stream: &mut impl BufRead) -> io::Result<Option<Self>> {
        loop {
            match Self::read(stream)? {
                Some(head) if head.status().is_some_and(|status| (100..200).contains(&status)) => {}
                other => return Ok(other),
            }
        }
    }

    fn status(&self) -> Option<u16> {
        self.first.split(' ').nth(1)?.parse().ok()
    }

    fn header(&self, wanted: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case(wanted));
        found.map(|(_, value)| value.as_str())
    }

    fn framing(&self) -> io::Result<Option<Framing>> {
        if self.header("transfer-encoding").is_some() {
            return Ok(Some(Framing::Chunked));
        }
        let length = self.header("content-length").map(str::parse).transpose();
        Ok(length.map_err(io::Error::other)?.map(Framing::Length))
    }

    fn response_framing(&self, head_only: bool) -> io::Result<Option<Framing>> {
        if head_only || matches!(self.status(), Some(204 | 304)) {
            return Ok(None);
        }
        Ok(Some(self.framing()?.unwrap_or(Framing::UntilClosed)))
    }

    /// The bytes of it; with another length of the body, if so.
    fn encode(&self, length: Option<usize>) -> Vec<u8> {
        let mut text = format!("{}\r\n", self.first);
        for (name, value) in &self.headers {
            let frames = ["content-length", "transfer-encoding"];
            if length.is_none() || !frames.iter().any(|frame| name.eq_ignore_ascii_case(frame)) {
                text.push_str(&format!("{name}: {value}\r\n"));
            }
        }
        if let Some(length) = length {
            text.push_str(&format!("content-length: {length}\r\n"));
        }
        text.push_str("\r\n");
        text.into_bytes()
    }

    /// The same, with a date that is off by so many seconds.
    fn dated(&self, seconds: i64) -> Self {
        let mut headers = self.headers.clone();
        headers.retain(|(name, _)| !name.eq_ignore_ascii_case("date"));
        headers.push(("date".to_owned(), http_date(now() + seconds)));
        Self { first: self.first.clone(), headers }
    }
}

fn answer(status: u16, headers: &[(&str, &str)], body: &str) -> Vec<u8> {
    let mut text = format!("HTTP/1.1 {status} Injected\r\ndate: {}\r\n", http_date(now()));
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    if !body.is_empty() {
        text.push_str(&format!("content-length: {}\r\n", body.len()));
    }
    text.push_str("\r\n");
    text.push_str(body);
    text.into_bytes()
}

/// A line with its end; empty at the end of the stream.
fn read_line(stream: &mut impl BufRead) -> io::Result<String> {
    let mut line = String::new();
    stream.by_ref().take(HEAD_LIMIT as u64).read_line(&mut line)?;
    Ok(line)
}

fn read_chunk_size(stream: &mut impl BufRead) -> io::Result<(String, usize)> {
    let line = read_line(stream)?;
    let digits = line.split(';').next().unwrap_or_default().trim();
    let size = usize::from_str_radix(digits, 16).map_err(io::Error::other)?;
    Ok((line, size))
}

/// A whole body, without the marks of its chunks.
fn read_body(stream: &mut impl BufRead, framing: Framing) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    match framing {
        Framing::Length(length) => {
            body.resize(length, 0);
            stream.read_exact(&mut body)?;
        }
        Framing::Chunked => loop {
            let (_, size) = read_chunk_size(stream)?;
            let start = body.len();
            body.resize(start + size, 0);
            stream.read_exact(&mut body[start..])?;
            read_line(stream)?;
            if size == 0 {
                break;
            }
        },
        Framing::UntilClosed => {
            stream.read_to_end(&mut body)?;
        }
    }
    Ok(body)
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// `Sun, 06 Nov 1994 08:49:37 GMT`.
fn http_date(seconds: i64) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let (day, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let leap = |year: i64| year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let (mut year, mut left) = (1970, day);
    while left >= 365 + i64::from(leap(year)) {
        left -= 365 + i64::from(leap(year));
        year += 1;
    }
    let lengths = [31, 28 + i64::from(leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 0;
    while month < 11 && left >= lengths[month] {
        left -= lengths[month];
        month += 1;
    }
    let name = DAYS[usize::try_from(day.rem_euclid(7)).unwrap_or(0)];
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{name}, {:02} {} {year} {hour:02}:{minute:02}:{second:02} GMT", left + 1, MONTHS[month])
}

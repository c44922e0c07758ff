//! The sender: remote write 1.0 requests at a steady rate over a few connections. A request is late from the moment it was
//! due, not from when the connection was free to send it.

use std::io::{BufRead, BufReader, Error, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::Arguments;

/// How long the agent may take to start.
const START_DEADLINE: Duration = Duration::from_secs(20);

/// Sends requests.
pub(crate) struct Sender {
    address: String,
    clock: Instant,
    /// One list of encoded labels a connection: nobody else sends these series, so they stay in order.
    series: Vec<Vec<Vec<u8>>>,
    /// Between two requests of one connection.
    interval: Duration,
}

/// What became of requests.
#[derive(Default)]
pub(crate) struct Pushed {
    /// How long each took from when it was due to its answer.
    pub(crate) answers: Vec<Duration>,
    /// Requests that were not accepted.
    pub(crate) refused: usize,
    /// Why the first of each connection were not.
    pub(crate) reasons: Vec<String>,
    /// Samples in accepted requests.
    pub(crate) samples: u64,
}

impl Sender {
    pub(crate) fn new(arguments: &Arguments, address: &str, clock: Instant) -> Self {
        let series = (0..arguments.connections)
            .map(|connection| (0..arguments.samples).map(|number| labels(connection, number)).collect())
            .collect();
        let interval = Duration::from_secs_f64(arguments.connections as f64 / arguments.rate as f64);
        Self { address: address.to_owned(), clock, series, interval }
    }

    /// Pushes for so long.
    pub(crate) fn push(&self, duration: Duration) -> Pushed {
        let start = Instant::now();
        let mut all = Pushed::default();
        std::thread::scope(|scope| {
            let connections = self.series.iter().enumerate().map(|(number, series)| {
                // Spread over the interval.
                let first = start + self.interval.mul_f64(number as f64 / self.series.len() as f64);
                scope.spawn(move || self.connection(series, first, start + duration))
            });
            let connections: Vec<_> = connections.collect();
            for connection in connections {
                let pushed = connection.join().expect("a connection's thread does not panic");
                all.answers.extend(pushed.answers);
                all.refused += pushed.refused;
                all.reasons.extend(pushed.reasons);
                all.samples += pushed.samples;
            }
        });
        all
    }

    fn connection(&self, series: &[Vec<u8>], first: Instant, end: Instant) -> Pushed {
        let mut pushed = Pushed::default();
        let mut connection: Option<BufReader<TcpStream>> = None;
        let mut due = first;
        let mut timestamp = 0;
        while due < end {
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            // The value is the moment it is sent at; what waited for the connection was not sent yet.
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64;
            // After a stall several are due at once, and each is newer than the one before.
            timestamp = now.max(timestamp + 1);
            let message = message(series, self.clock.elapsed().as_micros() as f64, timestamp);
            let answer = connect(&mut connection, &self.address)
                .and_then(|stream| exchange(stream, "POST", "/api/v1/metrics/write", &message));
            if let Ok((204, _)) = answer {
                pushed.samples += series.len() as u64;
                pushed.answers.push(due.elapsed());
            } else {
                pushed.refused += 1;
                if pushed.reasons.is_empty() {
                    pushed.reasons.push(format!("{answer:?}"));
                }
                connection = None;
            }
            due += self.interval;
        }
        pushed
    }
}

/// Waits until the agent runs its first configuration.
pub(crate) fn wait_until_ready(api: &str) -> std::io::Result<()> {
    let end = Instant::now() + START_DEADLINE;
    loop {
        let ready = connect(&mut None, api).and_then(|stream| exchange(stream, "GET", "/-/ready", &[]));
        match ready {
            Ok((200, _)) => return Ok(()),
            _ if Instant::now() > end => return Err(Error::other("the agent does not become ready")),
            _ => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}

fn connect<'c>(
    connection: &'c mut Option<BufReader<TcpStream>>,
    address: &str,
) -> std::io::Result<&'c mut BufReader<TcpStream>> {
    if connection.is_none() {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        *connection = Some(BufReader::new(stream));
    }
    connection.as_mut().ok_or_else(|| Error::other("it was made just now"))
}

/// Sends a request and reads its answer to the end; gives the status and the text.
fn exchange(
    connection: &mut BufReader<TcpStream>,
    method: &str,
    path: &str,
    body: &[u8],
) -> std::io::Result<(u16, String)> {
    let mut request = format!(
        "{method} {path} HTTP/1.1\r\nhost: invar\r\ncontent-type: application/x-protobuf\r\ncontent-encoding: snappy\r\ncontent-length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    request.extend_from_slice(body);
    connection.get_mut().write_all(&request)?;
    let (mut status, mut length) = (None, 0);
    loop {
        let mut line = String::new();
        if connection.read_line(&mut line)? == 0 {
            return Err(Error::other("the connection was closed"));
        }
        let line = line.trim_end();
        if line.is_empty() {
            break;
        }
        match line.split_once(": ") {
            None => status = line.split(' ').nth(1).and_then(|status| status.parse().ok()),
            Some((name, value)) if name.eq_ignore_ascii_case("content-length") => {
                length = value.parse().map_err(Error::other)?;
            }
            Some(_) => {}
        }
    }
    let mut text = vec![0; length];
    connection.read_exact(&mut text)?;
    let status = status.ok_or_else(|| Error::other("no status"))?;
    Ok((status, String::from_utf8_lossy(&text).into_owned()))
}

/// The labels of a series, encoded.
fn labels(connection: usize, number: usize) -> Vec<u8> {
    let mut series = Vec::new();
    for (name, value) in [
        ("__name__", format!("app_requests_{}_total", number / 100)),
        ("cluster", "bench".to_owned()),
        ("code", ["200", "404", "500", "503"][number / 5 % 4].to_owned()),
        ("handler", format!("handler_{}", number % 100)),
        ("instance", format!("host-{connection}")),
        ("job", "load".to_owned()),
        ("method", ["GET", "POST", "PUT", "DELETE", "PATCH"][number % 5].to_owned()),
    ] {
        let mut label = Vec::new();
        put_field(&mut label, 1, name.as_bytes());
        put_field(&mut label, 2, value.as_bytes());
        put_field(&mut series, 1, &label);
    }
    series
}

/// A compressed request with one sample of each series.
fn message(series: &[Vec<u8>], value: f64, timestamp: u64) -> Vec<u8> {
    let mut request = Vec::new();
    let mut one = Vec::new();
    for labels in series {
        let mut sample = vec![0x09];
        sample.extend_from_slice(&value.to_le_bytes());
        sample.push(0x10);
        put_varint(&mut sample, timestamp);
        one.clear();
        one.extend_from_slice(labels);
        put_field(&mut one, 2, &sample);
        put_field(&mut request, 1, &one);
    }
    snap::raw::Encoder::new().compress_vec(&request).expect("the message is far below what snappy can take")
}

fn put_field(out: &mut Vec<u8>, number: u8, bytes: &[u8]) {
    out.push(number << 3 | 2);
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

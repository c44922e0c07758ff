//! Passes bytes on in both directions without understanding them, and breaks what comes back.

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};

use super::{Fault, Shared, TICK};

impl Shared {
    /// Passes a connection on. What breaks in the middle breaks after `limit` bytes to the client.
    pub(super) fn relay(&self, client: TcpStream, limit: usize) -> io::Result<()> {
        let (fault, epoch) = self.fault();
        if fault.is_some() {
            self.faults.fetch_add(1, Ordering::SeqCst);
        }
        if matches!(fault, Some(Fault::Hang)) {
            return self.hold(&client, epoch);
        }
        let server = TcpStream::connect(self.upstream)?;
        server.set_nodelay(true)?;
        let gone = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let upwards = scope.spawn(|| {
                self.pass_upwards(&client, &server);
                gone.store(true, Ordering::SeqCst);
            });
            let passed = self.pass_downwards(&server, &client, limit, &gone);
            // Whatever ended one direction ends both; a reset needs the connection as it is.
            drop(server.shutdown(Shutdown::Both));
            let resets = matches!(passed, Ok(End::Reset));
            drop(client.shutdown(if resets { Shutdown::Read } else { Shutdown::Both }));
            drop(upwards.join());
            passed.map(drop)
        })
    }

    fn pass_upwards(&self, mut client: &TcpStream, mut server: &TcpStream) {
        let mut buffer = vec![0; 16 << 10];
        while let Ok(length) = client.read(&mut buffer) {
            self.from_clients.fetch_add(length as u64, Ordering::SeqCst);
            if length == 0 || server.write_all(&buffer[..length]).is_err() {
                break;
            }
        }
        drop(server.shutdown(Shutdown::Write));
    }

    fn pass_downwards(
        &self,
        mut server: &TcpStream,
        mut client: &TcpStream,
        limit: usize,
        gone: &AtomicBool,
    ) -> io::Result<End> {
        let mut buffer = vec![0; 16 << 10];
        let mut passed = 0_usize;
        loop {
            let length = server.read(&mut buffer)?;
            if length == 0 {
                return Ok(End::Closed);
            }
            let bytes = &buffer[..length];
            let (fault, epoch) = self.fault();
            let before = &bytes[..length.min(limit.saturating_sub(passed))];
            let holds = before.len() < length;
            passed += length;
            self.to_clients.fetch_add(length as u64, Ordering::SeqCst);
            match fault {
                Some(Fault::Reset) if holds => {
                    client.write_all(before)?;
                    self.reset(client)?;
                    return Ok(End::Reset);
                }
                Some(Fault::Truncate) if holds => {
                    client.write_all(before)?;
                    return Ok(End::Closed);
                }
                Some(Fault::HalfOpen) if holds => {
                    client.write_all(before)?;
                    self.hold_until(gone, epoch);
                    return Ok(End::Closed);
                }
                Some(Fault::Hang) => {
                    self.hold_until(gone, epoch);
                    return Ok(End::Closed);
                }
                Some(Fault::Refuse) => return Ok(End::Closed),
                Some(Fault::Drip(pause)) => {
                    for byte in bytes {
                        if gone.load(Ordering::SeqCst) || self.state().epoch != epoch {
                            return Ok(End::Closed);
                        }
                        client.write_all(&[*byte])?;
                        std::thread::sleep(pause);
                    }
                }
                _ => client.write_all(bytes)?,
            }
        }
    }

    fn hold_until(&self, gone: &AtomicBool, epoch: u64) {
        while !gone.load(Ordering::SeqCst) && self.state().epoch == epoch {
            std::thread::sleep(TICK);
        }
    }
}

/// How a connection ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Closed,
    Reset,
}

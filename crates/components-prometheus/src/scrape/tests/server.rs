//! A server of pages, as scripted.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// What the server sends.
#[derive(Clone)]
pub(super) struct Answer {
    head: String,
    body: Vec<u8>,
    /// Send the body again and again.
    endless: bool,
    /// Then keep silent.
    stall: bool,
}

pub(super) struct PageServer {
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl Answer {
    pub(super) fn page(content_type: &str, body: &str) -> Self {
        Self::with_head(&format!("Content-Type: {content_type}\r\n"), body.as_bytes())
    }

    pub(super) fn with_head(headers: &str, body: &[u8]) -> Self {
        let head = format!("HTTP/1.1 200 OK\r\n{headers}Content-Length: {}\r\n\r\n", body.len());
        Self { head, body: body.to_vec(), endless: false, stall: false }
    }

    pub(super) fn status(status: u16) -> Self {
        let head = format!("HTTP/1.1 {status} X\r\nContent-Length: 0\r\n\r\n");
        Self { head, body: Vec::new(), endless: false, stall: false }
    }

    pub(super) fn endless(content_type: &str, piece: &str) -> Self {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\nConnection: close\r\n\r\n");
        Self { head, body: piece.repeat(1000).into_bytes(), endless: true, stall: false }
    }

    pub(super) fn stalling(content_type: &str, piece: &str) -> Self {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\nContent-Length: 1000\r\n\r\n");
        Self { head, body: piece.as_bytes().to_vec(), endless: false, stall: true }
    }

    async fn send(&self, stream: &mut TcpStream) -> std::io::Result<()> {
        stream.write_all(self.head.as_bytes()).await?;
        stream.write_all(&self.body).await?;
        if self.endless {
            loop {
                stream.write_all(&self.body).await?;
            }
        }
        if self.stall {
            std::future::pending::<()>().await;
        }
        Ok(())
    }
}

impl PageServer {
    /// Serves what `answer` makes of a request's head.
    pub(super) async fn start(answer: impl Fn(&str) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let answer = Arc::new(answer);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let answer = Arc::clone(&answer);
                tokio::spawn(async move {
                    // A client that goes away ends only its own connection.
                    drop(serve(stream, &*answer).await);
                });
            }
        });
        Self { address, task }
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }
}

async fn serve(
    mut stream: TcpStream,
    answer: &(dyn Fn(&str) -> Answer + Send + Sync),
) -> std::io::Result<()> {
    let mut head = Vec::new();
    loop {
        if stream.read_buf(&mut head).await? == 0 {
            return Ok(());
        }
        if head.ends_with(b"\r\n\r\n") {
            let reply = answer(&String::from_utf8_lossy(&head));
            reply.send(&mut stream).await?;
            head.clear();
        }
    }
}

impl Drop for PageServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

//! Many subscribers in one process: plain sockets, no parsing beyond finding what is measured.
//!
//! A client that did more would be measured instead of the server, with which it shares two cores.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use bytes::BytesMut;
use control_plane_testkit::process::ServerProcess;
use memchr::memmem::Finder;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// How long a subscriber waits for anything.
const PATIENCE: Duration = Duration::from_secs(60);
/// What a read takes at most.
const READ: usize = 64 * 1024;

/// One subscriber.
pub(crate) struct Subscriber {
    socket: TcpStream,
    /// What was read and may be the beginning of something.
    rest: BytesMut,
}

impl Subscriber {
    /// Opens a stream and reads until its history is over; a small buffer for many of them.
    pub(crate) async fn open(server: &ServerProcess, path: &str) -> Result<Self> {
        let mut subscriber = Self::request(server, path).await?;
        let caught_up = Finder::new("event: caught_up");
        loop {
            let bytes = subscriber.read().await?;
            if caught_up.find(bytes).is_some() {
                subscriber.rest.clear();
                return Ok(subscriber);
            }
        }
    }

    /// Opens a stream and reads nothing of its body but the beginning.
    pub(crate) async fn request(server: &ServerProcess, path: &str) -> Result<Self> {
        let mut socket = TcpStream::connect(("127.0.0.1", server.port())).await?;
        let head = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        socket.write_all(head.as_bytes()).await?;
        let mut subscriber = Self { socket, rest: BytesMut::new() };
        let status = subscriber.read().await?;
        ensure!(status.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(status));
        Ok(subscriber)
    }

    /// What came, after what was kept.
    pub(crate) async fn read(&mut self) -> Result<&[u8]> {
        self.rest.reserve(READ.min(self.rest.len() + 4096));
        let read = self.socket.read_buf(&mut self.rest);
        let count = tokio::time::timeout(PATIENCE, read).await.context("nothing comes")??;
        if count == 0 {
            bail!("the server closed a stream");
        }
        Ok(&self.rest)
    }

    /// Keeps the last `count` bytes only: the beginning of something may be among them.
    pub(crate) fn keep(&mut self, count: usize) {
        let surplus = self.rest.len().saturating_sub(count);
        let _ = self.rest.split_to(surplus);
    }

    /// Calls `seen` with each message id that comes, and when, until it says that this is enough.
    /// An id that several events in a row name counts once.
    pub(crate) async fn message_ids(
        mut self,
        mut seen: impl FnMut(&[u8], Instant) -> bool,
    ) -> Result<()> {
        let key = Finder::new("\"messageId\":\"");
        let mut last = Vec::new();
        loop {
            self.read().await?;
            let now = Instant::now();
            let mut done = 0;
            while let Some(at) = key.find(self.rest.get(done..).unwrap_or_default()) {
                let from = done + at + key.needle().len();
                let after = self.rest.get(from..).unwrap_or_default();
                let Some(length) = memchr::memchr(b'"', after) else { break };
                let id = after.get(..length).unwrap_or_default();
                if last != id {
                    last.clear();
                    last.extend_from_slice(id);
                    if seen(id, now) {
                        return Ok(());
                    }
                }
                done = from + length;
            }
            let _ = self.rest.split_to(done);
            // The beginning of a key, or a whole one whose id is not all here.
            self.keep(256);
        }
    }
}

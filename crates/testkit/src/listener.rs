//! An HTTP server that does what a test tells it: for callbacks and for an auth service.
//!
//! **Invariant:** it keeps every request that it read, and never answers anything by itself.

#![expect(clippy::expect_used, reason = "a test's failure is a panic")]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::task::AbortOnDropHandle;

/// A request as it came.
#[derive(Debug, Clone, PartialEq)]
pub struct Received {
    /// `POST /path HTTP/1.1`
    pub line: String,
    /// By name, in lower case.
    pub headers: BTreeMap<String, String>,
    /// `null` if it is no JSON.
    pub body: Value,
    /// The body's bytes.
    pub raw: Vec<u8>,
}

/// What it does with a request.
#[derive(Debug, Clone)]
pub enum Reply {
    /// A status and a JSON body.
    Json(u16, Value),
    /// A 302 to this URL.
    Redirect(String),
    /// A 200 whose body goes on for ever, a little at a time.
    Endless,
    /// Nothing, and the connection stays open.
    Nothing,
    /// Nothing, and the connection is closed.
    Close,
}

type Behavior = Box<dyn Fn(&Received) -> Reply + Send + Sync>;

struct Shared {
    received: Mutex<Vec<Received>>,
    behavior: Behavior,
}

/// The server; it ends when dropped.
pub struct Listener {
    port: u16,
    shared: Arc<Shared>,
    _serving: AbortOnDropHandle<()>,
}

impl Listener {
    /// Listens on 127.0.0.1.
    pub async fn start(behavior: impl Fn(&Received) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port is free");
        let port = listener.local_addr().expect("it is bound").port();
        let shared = Arc::new(Shared { received: Mutex::default(), behavior: Box::new(behavior) });
        let serving = tokio::spawn(serve(listener, Arc::clone(&shared)));
        Self { port, shared, _serving: AbortOnDropHandle::new(serving) }
    }

    /// One that always does the same.
    pub async fn always(reply: Reply) -> Self {
        Self::start(move |_| reply.clone()).await
    }

    /// Where it listens, by address.
    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// What it received so far.
    pub fn received(&self) -> Vec<Received> {
        self.shared.received.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = tokio::task::JoinSet::new();
    while let Ok((socket, _)) = listener.accept().await {
        let shared = Arc::clone(&shared);
        // One that breaks is the client's affair.
        connections.spawn(async move { drop(answer(socket, &shared).await) });
    }
}

async fn answer(socket: TcpStream, shared: &Shared) -> std::io::Result<()> {
    let mut socket = BufReader::new(socket);
    let received = read(&mut socket).await?;
    let reply = (shared.behavior)(&received);
    shared.received.lock().unwrap_or_else(PoisonError::into_inner).push(received);
    let close = "connection: close\r\n";
    match reply {
        Reply::Json(status, body) => {
            let body = body.to_string();
            let head = format!(
                "HTTP/1.1 {status} Status\r\ncontent-type: application/json\r\n{close}\
                 content-length: {}\r\n\r\n{body}",
                body.len()
            );
            socket.write_all(head.as_bytes()).await?;
        }
        Reply::Redirect(url) => {
            let head = format!(
                "HTTP/1.1 302 Found\r\nlocation: {url}\r\n{close}content-length: 0\r\n\r\n"
            );
            socket.write_all(head.as_bytes()).await?;
        }
        Reply::Endless => {
            socket.write_all(format!("HTTP/1.1 200 OK\r\n{close}\r\n").as_bytes()).await?;
            loop {
                socket.write_all(&[b'x'; 1024]).await?;
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
        Reply::Nothing => std::future::pending().await,
        Reply::Close => {}
    }
    socket.shutdown().await
}

async fn read(socket: &mut BufReader<TcpStream>) -> std::io::Result<Received> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        let ended = socket.read_line(&mut line).await? == 0;
        if ended || line.trim().is_empty() {
            break;
        }
        lines.push(line.trim().to_owned());
    }
    let mut lines = lines.into_iter();
    let line = lines.next().unwrap_or_default();
    let headers: BTreeMap<String, String> = lines
        .filter_map(|line| {
            let (name, value) = line.split_once(':')?;
            Some((name.to_ascii_lowercase(), value.trim().to_owned()))
        })
        .collect();
    let length = headers.get("content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    socket.read_exact(&mut body).await?;
    let (json, raw) = (serde_json::from_slice(&body).unwrap_or_default(), body);
    Ok(Received { line, headers, body: json, raw })
}

//! The way between a client and a server, which a test breaks and mends while it is in use.
//!
//! **Invariant:** what it lets pass it passes whole and in order, unless it is told to garble; and
//! once it is cut, not a byte passes until it is mended.

use std::net::Ipv4Addr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

/// What becomes of what is sent over a [`Link`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// It arrives.
    Open,
    /// Connections end, and new ones end at once.
    Cut,
    /// Connections stay, and nothing arrives any more, in either direction.
    Stalled,
    /// What the server says comes in pieces of so many bytes, with a pause after each.
    Slow { bytes: usize, pause: Duration },
    /// What the server says arrives as noise.
    Garbled,
}

/// A way to a server on this machine.
#[derive(Debug)]
pub struct Link {
    port: u16,
    way: watch::Sender<Way>,
    _accepting: AbortOnDropHandle<()>,
}

impl Link {
    /// An open way to the server at `host:port`, which need not be there yet.
    ///
    /// # Panics
    /// When there is no free port.
    pub async fn to(server: impl Into<String>) -> Self {
        let server = server.into();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
        let listener = listener.unwrap_or_else(|error| panic!("no port is free: {error}"));
        let address = listener.local_addr();
        let port = address.unwrap_or_else(|error| panic!("no address: {error}")).port();
        let (way, state) = watch::channel(Way::Open);
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(carry(client, server.clone(), state.clone()));
            }
        });
        Self { port, way, _accepting: AbortOnDropHandle::new(accepting) }
    }

    /// `host:port` of its near end.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// From now on.
    pub fn set(&self, way: Way) {
        self.way.send_replace(way);
    }
}

async fn carry(client: TcpStream, server: String, way: watch::Receiver<Way>) {
    let mut cut = way.clone();
    let carrying = async {
        let Ok(server) = TcpStream::connect(server).await else { return };
        let (from_client, to_client) = client.into_split();
        let (from_server, to_server) = server.into_split();
        tokio::select! {
            () = pass(from_client, to_server, way.clone(), false) => {}
            () = pass(from_server, to_client, way, true) => {}
        }
    };
    tokio::select! {
        _ = cut.wait_for(|way| *way == Way::Cut) => {}
        () = carrying => {}
    }
}

/// Passes on what one side says, until it has nothing more to say or nobody listens.
async fn pass(
    from: OwnedReadHalf,
    to: OwnedWriteHalf,
    way: watch::Receiver<Way>,
    is_servers: bool,
) {
    let (mut from, mut to, mut way) = (from, to, way);
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let now = *way.borrow_and_update();
        let (room, pause) = match now {
            Way::Slow { bytes, pause } if is_servers => (bytes, pause),
            Way::Open | Way::Cut | Way::Stalled | Way::Slow { .. } | Way::Garbled => {
                (buffer.len(), Duration::ZERO)
            }
        };
        let Some(room) = buffer.get_mut(..room) else { return };
        let read = tokio::select! {
            changed = way.changed() => match changed {
                Ok(()) => continue,
                Err(_) => return,
            },
            read = from.read(room), if now != Way::Stalled => read.unwrap_or_default(),
        };
        let Some(bytes) = room.get_mut(..read).filter(|bytes| !bytes.is_empty()) else { return };
        if is_servers && now == Way::Garbled {
            bytes.fill(0xFF);
        }
        if to.write_all(bytes).await.is_err() {
            return;
        }
        tokio::time::sleep(pause).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server that says what it hears.
    async fn echo() -> String {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut from, mut to) = client.split();
                    let _ = tokio::io::copy(&mut from, &mut to).await;
                });
            }
        });
        address
    }

    async fn said(client: &mut TcpStream) -> [u8; 2] {
        let mut heard = [0; 2];
        client.write_all(b"hi").await.unwrap();
        client.read_exact(&mut heard).await.unwrap();
        heard
    }

    #[tokio::test]
    async fn it_does_with_a_connection_as_it_is_told() {
        let link = Link::to(echo().await).await;
        let mut client = TcpStream::connect(link.address()).await.unwrap();
        assert_eq!(&said(&mut client).await, b"hi");

        link.set(Way::Slow { bytes: 1, pause: Duration::from_millis(1) });
        assert_eq!(&said(&mut client).await, b"hi");
        link.set(Way::Garbled);
        assert_eq!(said(&mut client).await, [0xFF, 0xFF]);
        link.set(Way::Stalled);
        client.write_all(b"ho").await.unwrap();
        link.set(Way::Open);
        let mut heard = [0; 2];
        client.read_exact(&mut heard).await.unwrap();
        assert_eq!(&heard, b"ho");
        link.set(Way::Cut);
        assert_eq!(client.read(&mut heard).await.unwrap_or_default(), 0);
    }
}

//! A network that breaks where a test says: between a client and a server, at an exact byte.
//!
//! **Invariant:** each cut happens once, on the connection that first sends its text; everything
//! before it has reached the client and nothing after it does.

use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

/// Where a connection breaks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cut {
    /// Right after this text, in the middle of a frame.
    Within(String),
    /// After the frame that has this text.
    After(String),
}

impl Cut {
    /// How many of these bytes may pass, if the cut is among them.
    fn place(&self, sent: &[u8]) -> Option<usize> {
        match self {
            Self::Within(text) => end_of(sent, text.as_bytes()),
            Self::After(text) => {
                let text_end = end_of(sent, text.as_bytes())?;
                Some(text_end + end_of(sent.get(text_end..)?, b"\n\n")?)
            }
        }
    }
}

/// Passes connections on, until they are cut.
#[derive(Debug)]
pub struct Network {
    port: u16,
    cuts: Arc<Mutex<VecDeque<Cut>>>,
    silent: watch::Sender<bool>,
    _accepting: AbortOnDropHandle<()>,
}

impl Network {
    /// On the way to the server on this port of 127.0.0.1, with these cuts, one after the other.
    ///
    /// # Panics
    /// When there is no free port.
    pub async fn before(server: u16, cuts: impl IntoIterator<Item = Cut>) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
        let listener = listener.unwrap_or_else(|error| panic!("no port is free: {error}"));
        let address = listener.local_addr();
        let port = address.unwrap_or_else(|error| panic!("no address: {error}")).port();
        let cuts = Arc::new(Mutex::new(cuts.into_iter().collect()));
        let shared = Arc::clone(&cuts);
        let (silent, silence) = watch::channel(false);
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let passing = pass_on(client, server, Arc::clone(&shared));
                tokio::spawn(until_silent(passing, silence.clone()));
            }
        });
        Self { port, cuts, silent, _accepting: AbortOnDropHandle::new(accepting) }
    }

    /// The URL of a path that begins with a slash.
    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// The port that clients connect to.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// From now on nothing passes, in either direction and on no connection, and nobody is told:
    /// each side is still acknowledged, and waits for the other.
    pub fn fall_silent(&self) {
        self.silent.send_replace(true);
    }

    /// How many cuts are still to come.
    pub fn remaining(&self) -> usize {
        self.cuts.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

/// Drives a connection, and holds it where it stands once there is silence.
async fn until_silent(passing: impl Future<Output = ()>, silence: watch::Receiver<bool>) {
    let mut silence = silence;
    let mut passing = std::pin::pin!(passing);
    let fallen = tokio::select! {
        biased;
        fallen = async { silence.wait_for(|silent| *silent).await.is_ok() } => fallen,
        () = &mut passing => return,
    };
    if fallen {
        std::future::pending::<()>().await;
    }
    // The network is gone, and can fall silent no more; what is open goes on.
    passing.await;
}

async fn pass_on(client: TcpStream, server: u16, cuts: Arc<Mutex<VecDeque<Cut>>>) {
    let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, server)).await else { return };
    let (mut from_client, mut to_client) = client.into_split();
    let (from_server, mut to_server) = server.into_split();
    let asking = async {
        let _ = copy(&mut from_client, &mut to_server).await;
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = asking => {}
        () = answer(from_server, &mut to_client, &cuts) => {}
    }
}

/// Passes on what the server sends, up to its end or a cut.
async fn answer(
    from_server: OwnedReadHalf,
    to_client: &mut OwnedWriteHalf,
    cuts: &Mutex<VecDeque<Cut>>,
) {
    let mut from_server = from_server;
    let mut sent = Vec::new();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let read = from_server.read(&mut buffer).await.unwrap_or_default();
        if read == 0 {
            return;
        }
        let before = sent.len();
        sent.extend_from_slice(buffer.get(..read).unwrap_or_default());
        let place = due(cuts, &sent);
        let until = place.unwrap_or(sent.len()).max(before);
        let passing = sent.get(before..until).unwrap_or_default();
        if to_client.write_all(passing).await.is_err() || place.is_some() {
            return;
        }
    }
}

/// Where this connection is cut; the cut is then done.
fn due(cuts: &Mutex<VecDeque<Cut>>, sent: &[u8]) -> Option<usize> {
    let mut cuts = cuts.lock().unwrap_or_else(PoisonError::into_inner);
    let place = cuts.front()?.place(sent)?;
    cuts.pop_front();
    Some(place)
}

fn end_of(bytes: &[u8], text: &[u8]) -> Option<usize> {
    bytes.windows(text.len()).position(|window| window == text).map(|start| start + text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAMES: &[u8] = b"id: 1\ndata: a\n\nid: 2\ndata: b\n\n";

    #[test]
    fn a_cut_is_where_it_is_wanted() {
        assert_eq!(Cut::Within("id: 2\n".to_owned()).place(FRAMES), Some(21));
        assert_eq!(Cut::After("id: 1\n".to_owned()).place(FRAMES), Some(15));
        assert_eq!(Cut::After("id: 3\n".to_owned()).place(FRAMES), None);
    }

    #[test]
    fn a_cut_after_a_frame_waits_for_the_whole_frame() {
        let half = FRAMES.get(..25).unwrap();
        assert_eq!(Cut::After("id: 2\n".to_owned()).place(half), None);
    }
}

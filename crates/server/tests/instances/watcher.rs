//! Clients that follow to the end, whoever of the processes is there to serve them.

use std::time::Duration;

use control_plane_testkit::DEADLINE;
use control_plane_testkit::sse::SseClient;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::sync::watch;

/// How long a client waits before it tries another process.
const PAUSE: Duration = Duration::from_millis(100);

/// A client, its processes, and what it has seen.
pub(crate) struct Watcher {
    urls: Vec<String>,
    path: String,
    random: StdRng,
    at: usize,
    last: Option<String>,
    ids: Vec<i64>,
    connections: usize,
}

/// What a client has seen in the end.
#[derive(Debug)]
pub(crate) struct Seen {
    /// The ids of the events, in the order in which they came.
    pub(crate) ids: Vec<i64>,
    pub(crate) connections: usize,
}

impl Watcher {
    /// One that begins at process `at`.
    pub(crate) fn new(urls: &[String], path: String, at: usize, seed: u64) -> Self {
        let random = StdRng::seed_from_u64(seed);
        Self {
            urls: urls.to_vec(),
            path,
            random,
            at: at % urls.len(),
            last: None,
            ids: Vec::new(),
            connections: 0,
        }
    }

    /// Opens the stream, at the process where it was or, when that one is away, at any other.
    async fn open(&mut self) -> SseClient {
        loop {
            let url = format!("{}{}", self.urls[self.at], self.path);
            if let Some(stream) = SseClient::try_open(url, self.last.as_deref()).await
                && matches!(stream.status(), 200 | 204)
            {
                self.connections += 1;
                return stream;
            }
            self.at = self.random.random_range(0..self.urls.len());
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Follows a run until the stream says that it is over.
    pub(crate) async fn until_the_end(mut self) -> Seen {
        loop {
            let mut stream = self.open().await;
            if stream.status() == 204 {
                break;
            }
            while let Some(frame) = stream.next(DEADLINE).await {
                match frame.name() {
                    "canonical_event" => self.ids.push(frame.cursor().unwrap()),
                    "end" => return self.seen(),
                    _ => {}
                }
                self.last = stream.last_event_id().map(str::to_owned);
            }
            self.at = self.random.random_range(0..self.urls.len());
        }
        self.seen()
    }

    /// Follows the feed until it has seen the position that `end` tells in the end.
    pub(crate) async fn up_to(mut self, end: watch::Receiver<Option<i64>>) -> Seen {
        let mut end = end;
        loop {
            let mut stream = self.open().await;
            loop {
                let reached = |end: &Option<i64>| end.is_some() && *end == self.ids.last().copied();
                let frame = tokio::select! {
                    frame = stream.next(DEADLINE) => frame,
                    _ = end.wait_for(reached) => return self.seen(),
                };
                let Some(frame) = frame else { break };
                if frame.name() == "canonical_event" {
                    self.ids.push(frame.cursor().unwrap());
                }
                self.last = stream.last_event_id().map(str::to_owned);
            }
            self.at = self.random.random_range(0..self.urls.len());
        }
    }

    fn seen(self) -> Seen {
        Seen { ids: self.ids, connections: self.connections }
    }
}

//! `curl -N`, directly and through Debian's nginx: every frame comes as it happens.

use control_plane_domain::RunId;
use control_plane_testkit::DEADLINE;
use control_plane_testkit::agent::Cast;
use control_plane_testkit::curl::Curl;
use control_plane_testkit::database::Kind;
use control_plane_testkit::message;
use control_plane_testkit::nginx::{Compression, Nginx};
use control_plane_testkit::runtime::RuntimeProcess;
use control_plane_testkit::sse::Frame;

use crate::all;
use crate::support::{Stage, Talk};

const EVENTS: usize = 8;
/// Asks for everything that a server might compress with.
const ANY_ENCODING: &[&str] = &["-H", "Accept-Encoding: gzip, deflate, br, zstd"];

/// A run that goes on, for somebody to listen to.
struct Line {
    stage: Stage,
    cast: Cast,
    talk: Talk,
    path: String,
    run: RunId,
    _runtime: RuntimeProcess,
}

impl Line {
    async fn open() -> Self {
        let runtime = RuntimeProcess::in_memory().await;
        let cast = runtime.cast().await;
        let stage = Stage::set(Kind::Sqlite, &runtime).await;
        let talk = Talk::open(&cast).await;
        let run = stage.post(&talk.session, message::DECISION).await;
        stage.has_recorded(run, talk.accepted.len()).await;
        // Hardly anything but events, so that nothing else pushes one out of a buffer.
        let query = "afterSeq=0&includeSnapshot=false&heartbeatMs=45000&closeOnEnd=true";
        let path = format!("/runs/{run}/stream?{query}");
        Self { stage, cast, talk, path, run, _runtime: runtime }
    }

    async fn events(&self) -> i64 {
        self.stage.store.run_head(self.run).await.unwrap().last_seq
    }

    /// Makes one thing happen after the other, each only when curl has shown the one before.
    async fn goes_on(mut self, mut curl: Curl) {
        let mut frames = Vec::new();
        for _ in 0..EVENTS {
            let now = self.events().await;
            frames.extend(curl.until(now, DEADLINE).await);
            self.talk.evaluate(&self.cast).await;
            self.stage.has_recorded(self.run, self.talk.accepted.len()).await;
        }
        self.talk.end(&self.cast).await;
        while let Some(frame) = curl.next(DEADLINE).await {
            frames.push(frame);
        }
        assert_eq!(curl.ended(DEADLINE).await, Some(0));
        let events = frames.iter().filter(|frame| frame.name() == "canonical_event");
        let ids: Vec<i64> = events.filter_map(Frame::cursor).collect();
        assert_eq!(ids, all(self.events().await));
        assert_eq!(frames.last().map(Frame::name), Some("end"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn curl_shows_each_event_as_it_happens_and_never_compressed() {
    let line = Line::open().await;
    let curl = Curl::open(&line.stage.server.url(&line.path), ANY_ENCODING, DEADLINE).await;

    assert_eq!(curl.head()[0], "http/1.1 200 ok");
    assert_eq!(curl.header("content-type"), Some("text/event-stream"));
    assert_eq!(curl.header("cache-control"), Some("no-cache, no-store, no-transform"));
    assert_eq!(curl.header("x-accel-buffering"), Some("no"));
    assert_eq!(curl.header("content-encoding"), None);
    line.goes_on(curl).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn curl_shows_each_event_as_it_happens_through_nginx_as_it_is_by_default() {
    let line = Line::open().await;
    let nginx = Nginx::in_front_of(&line.stage.server.base_url(), Compression::Off).await;
    let curl = Curl::open(&nginx.url(&line.path), ANY_ENCODING, DEADLINE).await;

    assert!(curl.header("server").unwrap().starts_with("nginx"), "{:?}", curl.head());
    assert_eq!(curl.header("content-type"), Some("text/event-stream"));
    assert_eq!(curl.header("cache-control"), Some("no-cache, no-store, no-transform"));
    assert_eq!(curl.header("x-macp-replay-from"), Some("0"));
    assert_eq!(curl.header("content-encoding"), None);
    line.goes_on(curl).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn curl_shows_each_event_as_it_happens_through_an_nginx_that_compresses() {
    let line = Line::open().await;
    let nginx = Nginx::in_front_of(&line.stage.server.base_url(), Compression::Gzip).await;
    let curl = Curl::open(&nginx.url(&line.path), &["--compressed"], DEADLINE).await;

    assert_eq!(curl.header("content-encoding"), Some("gzip"), "{:?}", curl.head());
    line.goes_on(curl).await;
}

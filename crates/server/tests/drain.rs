//! SIGTERM with thousands of watchers: everybody's bytes end with a whole frame, and in time.

#![expect(
    clippy::unwrap_used,
    reason = "clippy takes only functions with `#[test]` for tests, not what they call"
)]

mod support;

use std::sync::Arc;
use std::time::Duration;

use control_plane_testkit::agent::Cast;
use control_plane_testkit::database::Kind;
use control_plane_testkit::runtime::RuntimeProcess;
use control_plane_testkit::{DEADLINE, message, wait_until};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use support::{EXIT, Stage, Talk};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

const WATCHERS: usize = 2000;
/// How many of them come at once: what a storm of arrivals does is another matter.
const AT_ONCE: usize = 100;
/// How often each agent speaks.
const PACE: Duration = Duration::from_millis(200);
/// The end of a frame, of its chunk, and the chunk that says that there are no more.
const END: &[u8] = b"\n\n\r\n0\r\n\r\n";

/// Lets this process have a socket for each watcher.
fn allow_many_files() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).unwrap();
}

/// A watcher that is only a socket. It lets the next one in when it is up to date, and returns the
/// end of what it got.
async fn watch_raw(port: u16, path: String, door: Arc<Semaphore>) -> Vec<u8> {
    let mut turn = Some(door.acquire_owned().await.unwrap());
    let mut socket = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n");
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut buffer = vec![0; 2048];
    let mut tail = Vec::new();
    loop {
        let read = socket.read(&mut buffer).await.unwrap();
        if read == 0 {
            return tail;
        }
        tail.extend(buffer.iter().take(read));
        if turn.is_some() && String::from_utf8_lossy(&tail).contains("event: caught_up") {
            turn = None;
        }
        if turn.is_none() {
            tail.drain(..tail.len().saturating_sub(END.len()));
        }
    }
}

async fn stops_in_time_with_thousands_of_watchers(kind: Kind) {
    allow_many_files();
    let runtime = RuntimeProcess::in_memory().await;
    let cast = runtime.cast().await;
    let mut stage = Stage::set(kind, &runtime).await;
    let mut talks = Vec::new();
    for _ in 0..4 {
        let talk = Talk::open(&cast).await;
        let run = stage.post(&talk.session, message::DECISION).await;
        stage.reaches(run, "running").await;
        talks.push((run, talk));
    }
    let door = Arc::new(Semaphore::new(AT_ONCE));
    let mut watchers = JoinSet::new();
    for index in 0..WATCHERS {
        let (run, _) = talks.get(index % talks.len()).unwrap();
        let path = format!("/runs/{run}/stream?afterSeq=0&includeSnapshot=false");
        watchers.spawn(watch_raw(stage.server.port(), path, Arc::clone(&door)));
    }
    let open = async || {
        let figures =
            reqwest::get(stage.server.url("/metrics")).await.unwrap().text().await.unwrap();
        figures.contains(&format!("active_sse_connections{{stream=\"run\"}} {WATCHERS}"))
            && door.available_permits() == AT_ONCE
    };
    wait_until(DEADLINE, open).await;

    let (stop, stopped) = watch::channel(false);
    let mut talking = JoinSet::new();
    for (run, talk) in talks {
        talking.spawn(keep_talking(talk, cast.clone(), stopped.clone()));
        stage.has_recorded(run, 10).await;
    }
    let code = stage.server.terminate(EXIT).await;
    stop.send(true).unwrap();

    assert_eq!(code, 0);
    let log = stage.server.log();
    assert!(log.contains("Stopped") && !log.contains("Gave up draining"), "{log}");
    let tails = tokio::time::timeout(DEADLINE, watchers.join_all()).await.unwrap();
    let cut = tails.iter().filter(|tail| tail.as_slice() != END);
    assert_eq!((tails.len(), cut.count()), (WATCHERS, 0));
    talking.join_all().await;
}

/// Goes on until it is stopped: the agents do not care that nobody records them.
async fn keep_talking(mut talk: Talk, cast: Cast, stopped: watch::Receiver<bool>) {
    let mut ticks = tokio::time::interval(PACE);
    while !*stopped.borrow() {
        talk.evaluate(&cast).await;
        ticks.tick().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_thousand_streams_end_whole_when_the_server_stops_on_sqlite() {
    stops_in_time_with_thousands_of_watchers(Kind::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_thousand_streams_end_whole_when_the_server_stops_on_postgres() {
    stops_in_time_with_thousands_of_watchers(Kind::Postgres).await;
}
